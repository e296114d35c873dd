//! The page of a peer: its requests and its WebSocket as bytes, and the page itself in a browser.

mod browser;
mod http;
mod pages;
mod request;
mod socket;

use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;
use watchtower_whisper::page::{self, Limits, Page, ServeError};
use watchtower_whisper::protocol::Shown;
use watchtower_whisper::{Event, Options, Peer};

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A peer with its page.
struct Node {
    peer: Peer,
    page: Page,
    downloads: TempDir,
}

fn local() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

impl Node {
    async fn start(nick: &str, peers: &[&Node]) -> Node {
        Node::with(nick, peers, Limits::default()).await
    }

    async fn with(nick: &str, peers: &[&Node], limits: Limits) -> Node {
        Node::at(local(), nick, peers, limits).await
    }

    /// With its page at that address, as soon as who had it before is gone.
    async fn at(addr: SocketAddr, nick: &str, peers: &[&Node], limits: Limits) -> Node {
        let downloads = tempfile::tempdir().unwrap();
        let options = Options {
            listen: local(),
            nick: Some(nick.to_owned()),
            peers: peers.iter().map(|node| node.peer.address().to_string()).collect(),
            downloads: Some(downloads.path().to_owned()),
            ..Options::default()
        };
        let peer = Peer::start(options).await.unwrap();
        let serve = async {
            loop {
                match page::serve(peer.clone(), &[addr], limits.clone()).await {
                    Err(ServeError::Taken(_)) if addr.port() != 0 => tokio::task::yield_now().await,
                    served => return served.unwrap(),
                }
            }
        };
        let page = timeout(PATIENCE, serve).await.expect("the address is free soon");
        Node { peer, page, downloads }
    }

    /// Where the page is.
    fn addr(&self) -> SocketAddr {
        self.page.addrs()[0]
    }

    /// What the page alone is given.
    async fn token(&self) -> String {
        let page = request::get(self, "/").await.body;
        let (_, after) = page.split_once(r#"name="token" content=""#).unwrap();
        after.split_once('"').unwrap().0.to_owned()
    }

    /// Waits until it is connected to so many peers.
    async fn connected(&self, count: usize) {
        let mut events = self.peer.events();
        let wait = async {
            while self.peer.peers().await.iter().filter(|peer| peer.connected).count() != count {
                events.next().await.unwrap().expect("the peer is there");
            }
        };
        timeout(PATIENCE, wait).await.expect("it is connected soon");
    }
}

/// Two that are connected to each other.
async fn two() -> (Node, Node) {
    let goldy = Node::start("goldy", &[]).await;
    let bambam = Node::start("bambam", &[&goldy]).await;
    assert!(goldy.peer.connect(bambam.peer.address()).await);
    goldy.connected(1).await;
    bambam.connected(1).await;
    (goldy, bambam)
}

/// What somebody else says next.
async fn next_shown(events: &mut watchtower_whisper::Events) -> std::sync::Arc<Shown> {
    let wait = async {
        loop {
            if let Event::Shown(shown) = events.next().await.unwrap().expect("the peer is there") {
                return shown;
            }
        }
    };
    timeout(PATIENCE, wait).await.expect("somebody says something soon")
}
