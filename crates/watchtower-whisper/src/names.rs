//! The peers that the user names: `HOST:PORT`.
//!
//! The node knows addresses alone. So a name is looked up once for the node to
//! know it by one of its addresses, and again at each attempt to dial that:
//! names move.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};
use watchtower_protocols::whispernet::Keep;

use crate::StartError;
use crate::driver::Driver;

/// How long a lookup may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// How many addresses of one name are tried.
const ADDRS_MAX: usize = 8;

/// How long after a lookup that failed there is another.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest wait between two lookups.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Checks what the user names.
pub(crate) fn parse(peers: &[String]) -> Result<Vec<String>, StartError> {
    match peers.iter().find(|peer| !is_host_and_port(peer)) {
        Some(peer) => Err(StartError::Peer { peer: peer.clone() }),
        None => Ok(peers.to_vec()),
    }
}

/// Whether a text is a peer's `HOST:PORT`, as [`Options::peers`](crate::Options)
/// takes it.
pub fn is_host_and_port(peer: &str) -> bool {
    let Some((host, port)) = peer.rsplit_once(':') else { return false };
    let is_host = !host.is_empty() && !host.contains(':');
    // An address of IPv6 has colons of its own, and stands in brackets.
    let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
    is_port && (is_host || peer.parse::<SocketAddr>().is_ok())
}

/// The addresses of a name, at least one.
pub(crate) async fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
    let found = timeout(LOOKUP_TIMEOUT, lookup_host(name)).await;
    let found = found.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the lookup takes too long"))?;
    let addrs: Vec<SocketAddr> = found?.take(ADDRS_MAX).collect();
    if addrs.is_empty() { Err(io::Error::other("it has no address")) } else { Ok(addrs) }
}

/// Looks a peer up until that succeeds, and has the node dial it from then on.
pub(crate) async fn introduce(driver: Arc<Driver>, name: String) {
    let mut wait = RETRY_FIRST;
    let addrs = loop {
        match look_up(&name).await {
            Ok(addrs) => break addrs,
            Err(error) if wait == RETRY_FIRST => {
                driver.look(|state| state.warn(format!("cannot find {name}, trying again: {error}")));
            }
            Err(_) => {}
        }
        sleep(wait).await;
        wait = RETRY_MAX.min(2 * wait);
    };
    driver.update(|state, now| {
        // An address of this peer itself is no other peer's.
        let connect = |addr: &&SocketAddr| state.node.connect(**addr, Keep::Always, now);
        match addrs.iter().find(connect) {
            Some(addr) => state.introduced(*addr, name),
            None => state.warn(format!("{name} is this peer itself")),
        }
    });
}
