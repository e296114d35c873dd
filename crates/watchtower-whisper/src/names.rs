//! The peers that the user names: `HOST:PORT`.

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

/// How long after a lookup that failed there is another.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest wait between two lookups.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Checks what the user names.
pub(crate) fn parse(peers: &[String]) -> Result<Vec<String>, StartError> {
    let is_good = |peer: &str| {
        peer.parse::<SocketAddr>().is_ok_and(|addr| addr.port() != 0)
            || peer.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains(':') && port.parse::<u16>().is_ok_and(|port| port != 0)
            })
    };
    match peers.iter().find(|peer| !is_good(peer)) {
        Some(peer) => Err(StartError::Peer { peer: peer.clone() }),
        None => Ok(peers.to_vec()),
    }
}

/// Looks a peer up until that succeeds.
pub(crate) async fn keep(driver: Arc<Driver>, peer: String) {
    let mut wait = RETRY_FIRST;
    loop {
        let reason = match timeout(LOOKUP_TIMEOUT, lookup_host(&peer)).await {
            Ok(Ok(mut addrs)) => match addrs.next() {
                Some(addr) => {
                    driver.update(|state, now| state.node.connect(addr, Keep::Always, now));
                    return;
                }
                None => "it has no address".to_owned(),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the lookup takes too long".to_owned(),
        };
        if wait == RETRY_FIRST {
            driver.look(|state| state.warn(format!("cannot look {peer} up, and try again: {reason}")));
        }
        sleep(wait).await;
        wait = RETRY_MAX.min(2 * wait);
    }
}
