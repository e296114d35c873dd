//! Peers that talk over real sockets.

mod authority;
mod deployed;
mod discovering;
mod files;
mod gopher;
mod greeting;
mod hostile;
mod keys;
mod many;
mod plain;
mod refusing;
mod talking;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use watchtower_whisper::protocol::Shown;
use watchtower_whisper::{Event, Events, Options, Peer};

/// How long an event may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A peer on this machine that others find at a free port, and that says nothing by itself.
fn options() -> Options {
    Options { listen: local(), greets_after: None, ..Options::default() }
}

fn local() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A peer that speaks by a nick and dials those.
async fn start(nick: &str, peers: &[&Peer]) -> Peer {
    let peers = peers.iter().map(|peer| peer.address().to_string()).collect();
    let options = Options { nick: Some(nick.to_owned()), peers, ..options() };
    Peer::start(options).await.unwrap()
}

/// The first thing that is wanted; what comes before is nobody's.
async fn wait_for<T>(events: &mut Events, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let wait = async {
        loop {
            let event = events.next().await.unwrap().expect("the peer is there");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    };
    timeout(SOON, wait).await.expect("it happens soon")
}

/// What somebody else says next.
async fn next_shown(events: &mut Events) -> Arc<Shown> {
    wait_for(events, |event| if let Event::Shown(shown) = event { Some(shown) } else { None }).await
}

/// Waits until as many peers are connected to.
async fn connected(peer: &Peer, count: usize) {
    let mut events = peer.events();
    let wait = async {
        while peer.peers().await.iter().filter(|peer| peer.connected).count() < count {
            events.next().await.unwrap().expect("the peer is there");
        }
    };
    timeout(SOON, wait).await.expect("they connect soon");
}
