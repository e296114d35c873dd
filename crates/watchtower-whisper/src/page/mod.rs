//! The page of a peer: chat, peers and files in a browser.
//!
//! | file | for |
//! | --- | --- |
//! | `connections` | the sockets, accepting within limits, and hyper |
//! | `guard` | whose requests are answered: hosts, origins, the token; what is in every head |
//! | `routes`, `refusal` | the requests, and what a refused one is answered |
//! | `assets` | what the page is made of |
//! | `feed`, `log`, `update` | what the peer tells, as JSON that is made once for all who look |
//! | `socket` | one WebSocket |
//! | `upload`, `files` | files on their way out, and files that came |
//!
//! Whoever can load the page can speak as the peer: it asks for no password.
//! What it keeps out is the pages of other sites in the same browser, and
//! whoever leads a name of his to the page's address. Whom it is served to is
//! the address's to say: on loopback, everybody on this machine.
//!
//! Knows no terminal, and of the peer what its handle tells.

mod assets;
mod connections;
mod feed;
mod files;
mod guard;
mod log;
mod refusal;
mod routes;
mod socket;
mod update;
mod upload;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinSet;

use self::connections::{Door, bind_each};
use self::feed::Feed;
use self::files::Files;
use self::guard::Token;
use self::routes::App;
use self::upload::Uploads;
use crate::Peer;

/// What a page takes at most.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a file may be that is handed over by the page, in bytes.
    pub upload_bytes_max: u64,
    /// Files at a time that are handed over, or sent from there. Further ones
    /// are refused.
    pub uploads_max: usize,
    /// Connections at a time, those of WebSockets not counted. Further ones are
    /// closed.
    pub connections_max: usize,
    /// WebSockets at a time: open pages. Further ones are refused.
    pub sockets_max: usize,
    /// How long a browser may take for the head of a request, for the whole of
    /// a small body, between two pieces of a file, or without taking anything
    /// of what its WebSocket tells.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            upload_bytes_max: 256 << 20,
            uploads_max: 8,
            connections_max: 128,
            sockets_max: 32,
            patience: Duration::from_secs(15),
        }
    }
}

/// Why the page cannot be served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Something listens there already.
    #[error("the page's address {0} is taken: choose another port")]
    Taken(SocketAddr),
    /// The address is not this machine's, say.
    #[error("cannot listen on {addr} for the page: {error}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// There is no folder for files on their way out, or no randomness.
    #[error("cannot make a private folder for the page's files: {0}")]
    Folder(io::Error),
}

/// A page that is served until this is dropped.
#[derive(Debug)]
pub struct Page {
    addrs: Vec<SocketAddr>,
    feed: Arc<Feed>,
    /// They end with it.
    _tasks: JoinSet<()>,
}

/// Serves the page of a peer at each of these addresses. All that have port 0
/// get the same free one; of several loopback addresses those after the first
/// may be missing on this machine.
///
/// # Errors
///
/// [`ServeError`]; nothing is served then.
pub async fn serve(peer: Peer, addrs: &[SocketAddr], limits: Limits) -> Result<Page, ServeError> {
    let listeners = bind_each(addrs).await?;
    let uploads = Uploads::new(&limits).map_err(ServeError::Folder)?;
    let token = Token::new().map_err(ServeError::Folder)?;
    let events = peer.events();
    let feed = Arc::new(Feed::new(peer.clone(), Files::default(), limits.upload_bytes_max));
    let app = App::new(peer, feed.clone(), uploads, token, &limits);
    let door = Door::new(app.router(), &limits);
    let addrs = listeners.iter().map(|(addr, _)| *addr).collect();
    let mut tasks = JoinSet::new();
    for (addr, listener) in listeners {
        tasks.spawn(door.clone().open(listener, addr));
    }
    tasks.spawn(feed.clone().run(events));
    Ok(Page { addrs, feed, _tasks: tasks })
}

impl Page {
    /// Where it is served, with the port that was taken.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// What to open in a browser on this machine.
    pub fn url(&self) -> String {
        let is_loopback = |addr: &SocketAddr| addr.ip().to_canonical().is_loopback();
        match self.addrs.as_slice() {
            [] => String::new(),
            [first, ..] if self.addrs.len() > 1 && self.addrs.iter().all(is_loopback) => {
                format!("http://localhost:{}/", first.port())
            }
            [first, ..] if first.ip().is_unspecified() => format!("http://localhost:{}/", first.port()),
            [first, ..] => format!("http://{first}/"),
        }
    }

    /// What the user should know when others than this machine can reach the
    /// page.
    pub fn warning(&self) -> Option<String> {
        let beyond = self.addrs.iter().find(|addr| !is_this_machine(addr.ip()))?;
        Some(format!(
            "the page is served at {beyond}: whoever can reach that address can read along, speak as \
             this peer and send files, and what goes to and fro is not encrypted"
        ))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.feed.end();
    }
}

fn is_this_machine(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
