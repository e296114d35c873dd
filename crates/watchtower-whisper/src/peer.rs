//! The handle of a running peer.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use watchtower_hub::Timestamp;
use watchtower_protocols::whispernet::{
    Counts, Identity, Node, Options as NodeOptions, PeerState, PublicKey, Said, Shown, Unsaid,
    WHOLE_BYTES_MAX,
};

use crate::downloads::Downloads;
use crate::driver::{Driver, Limits};
use crate::keys::{PINS_MAX, Pins};
use crate::tls::{self, Tls};
use crate::{Events, Options, TlsFiles, clock, connections, discovery, keys, local, names};

/// A running peer. Clones are the same; it ends when
/// [`shut_down`](Peer::shut_down) was called or all of them are dropped.
#[derive(Clone)]
pub struct Peer(Arc<Running>);

/// Ends what runs with the last handle.
struct Running {
    driver: Arc<Driver>,
    address: SocketAddr,
    listens_at: SocketAddr,
    key: PublicKey,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.driver.end();
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.0.address)
    }
}

/// How it stands with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Whether it is connected to; else it is being dialled, or will be.
    pub connected: bool,
}

/// Why a peer cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The port is taken, or the address is not this machine's.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// A file is missing, unreadable or not what it should be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// A peer's address that is none.
    #[error("{peer}: expected HOST:PORT")]
    Peer {
        /// What was given.
        peer: String,
    },
}

/// Why a file cannot be sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Unsendable {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is a directory, a pipe or the like.
    #[error("{}: expected a file", path.display())]
    NotAFile {
        /// What it is.
        path: PathBuf,
    },
    /// It is too long.
    #[error("{}: it has {bytes} bytes, and may have {WHOLE_BYTES_MAX}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How long it is.
        bytes: u64,
    },
    /// It is another than it was when it was begun to be sent.
    #[error("{}: it changed while it was being sent", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// There is nobody to send it to.
    #[error("no peer is connected")]
    NoPeer,
    /// As with words.
    #[error(transparent)]
    Unsaid(#[from] Unsaid),
}

impl Peer {
    /// Listens, dials the given peers, and goes on in tasks of its own.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start(options: Options) -> Result<Peer, StartError> {
        Ok(Peer::start_watched(options).await?.0)
    }

    /// As [`start`](Peer::start), with all that happens from the very first on:
    /// a connection may be there, and a warning told, before this returns.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start_watched(options: Options) -> Result<(Peer, Events), StartError> {
        let peers = names::parse(&options.peers)?;
        let (identity, pins, tls) = read_files(options.data_dir.clone(), options.tls.clone()).await?;
        let key = identity.public_key();
        let is_local = options.announced.unwrap_or(options.listen).ip().is_loopback();
        let cannot_listen = |error| StartError::Listen { addr: options.listen, error };
        let listener = TcpListener::bind(options.listen).await.map_err(cannot_listen)?;
        let listen = listener.local_addr().map_err(cannot_listen)?;
        let node = node_options(&options, listen, identity);
        let address = node.announced;
        let node = Node::new(node, clock::random(), clock::now());
        let limits = Limits { backlog: options.backlog, flood: options.flood };
        let downloads = Downloads::new(options.downloads.clone(), options.files);
        let driver = Arc::new(Driver::new(node, pins, key, tls, limits, downloads));
        let events = driver.look(|state| {
            let events = state.watch();
            state.set_nick(options.nick);
            driver.spawn(state, connections::accept(driver.clone(), listener));
            driver.spawn(state, driver.clone().keep_time());
            driver.spawn(state, driver.clone().keep_pins());
            driver.spawn(state, tls::watch(driver.clone()));
            for peer in peers {
                driver.spawn(state, names::introduce(driver.clone(), peer));
            }
            match options.discovery_port.map(|port| (port, discovery::open(port))) {
                Some((port, Ok(socket))) => {
                    let events = state.watch();
                    let run = discovery::run(driver.clone(), socket, port, is_local, events);
                    driver.spawn(state, run);
                }
                Some((port, Err(error))) => {
                    state.warn(format!("peers nearby are not discovered at UDP port {port}: {error}"));
                }
                None => {}
            }
            events
        });
        Ok((Peer(Arc::new(Running { driver, address, listens_at: listen, key })), events))
    }

    /// The address that others connect to.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Where it listens.
    pub fn listens_at(&self) -> SocketAddr {
        self.0.listens_at
    }

    /// This peer's public key.
    pub fn public_key(&self) -> PublicKey {
        self.0.key
    }

    /// What happens from now on.
    pub fn events(&self) -> Events {
        self.0.driver.look(|state| state.watch())
    }

    /// What was last said, by others and here: at most the backlog, oldest first.
    pub async fn recent(&self) -> Vec<Arc<Shown>> {
        self.0.driver.look(|state| state.recent())
    }

    /// Who speaks.
    pub fn nick(&self) -> Option<String> {
        self.0.driver.look(|state| state.nick.clone())
    }

    /// Who speaks from now on. Others are warned of who takes the nick with
    /// another key; so is this peer, unless the nick was another's before.
    pub fn set_nick(&self, nick: Option<String>) {
        self.0.driver.look(|state| state.set_nick(nick));
    }

    /// Says something to all peers; returns the message's id. Waits while a
    /// peer has yet to take much of what was said before, and disconnects one
    /// that takes too little for seconds.
    ///
    /// # Errors
    ///
    /// [`Unsaid`]; nothing is sent then.
    pub async fn say(&self, body: &str) -> Result<String, Unsaid> {
        self.say_as(self.nick().as_deref(), body).await
    }

    /// As [`say`](Peer::say), by another nick: for who speaks for others.
    ///
    /// # Errors
    ///
    /// As [`say`](Peer::say).
    pub async fn say_as(&self, nick: Option<&str>, body: &str) -> Result<String, Unsaid> {
        self.0.driver.say(Said { nick, body, file: None }).await
    }

    /// Says something with a file in it, small enough for one message. Its name
    /// is the last path component of `body`.
    ///
    /// # Errors
    ///
    /// As [`say`](Peer::say).
    pub async fn say_file(
        &self,
        nick: Option<&str>,
        body: &str,
        mime_type: &str,
        contents: &[u8],
    ) -> Result<String, Unsaid> {
        self.0.driver.say(Said { nick, body, file: Some((mime_type, contents)) }).await
    }

    /// Sends a file, a large one in parts below the size limit; returns its
    /// number in [`Event::Progress`](crate::Event::Progress) once the first part
    /// is out. The others follow by themselves, and their failure is an
    /// [`Event::Failed`](crate::Event::Failed).
    ///
    /// # Errors
    ///
    /// [`Unsendable`]. A large file waits some seconds for a peer.
    pub async fn send_file(&self, path: &Path) -> Result<u64, Unsendable> {
        self.0.driver.send_file(path).await
    }

    /// Dials a peer, and again while it is unreachable for a while. False when it
    /// is this peer itself.
    pub async fn connect(&self, addr: SocketAddr) -> bool {
        self.0.driver.update(|state, now| state.connect(addr, now))
    }

    /// Ends the connection to a peer and dials it no more. False when it is none.
    pub async fn disconnect(&self, addr: SocketAddr) -> bool {
        self.0.driver.update(|state, now| state.disconnect(addr, now))
    }

    /// The peers, by address.
    pub async fn peers(&self) -> Vec<PeerStatus> {
        let status = |(addr, state)| PeerStatus { addr, connected: matches!(state, PeerState::Connected(_)) };
        self.0.driver.look(|state| state.node.peers().map(status).collect())
    }

    /// The addresses that are refused for sending too much, and until when.
    pub async fn refused(&self) -> Vec<(IpAddr, Timestamp)> {
        self.0.driver.look(|state| state.node.refused(clock::now()).collect())
    }

    /// Refuses nobody any more.
    pub async fn clear_refused(&self) {
        self.0.driver.update(|state, now| state.node.clear_refused(now));
    }

    /// What it has done since its start.
    pub async fn counts(&self) -> Counts {
        self.0.driver.look(|state| state.node.counts())
    }

    /// Waits until all that was said is written to the peers that are connected
    /// (and files with it), and at least one is, or was until it had read it; false
    /// when that takes longer. Who is there may yet hang up without reading:
    /// [`shut_down`](Peer::shut_down) says so.
    pub async fn flush(&self, within: Duration) -> bool {
        self.0.driver.flush(within).await
    }

    /// Ends every connection, after what was said is taken or a second has
    /// passed, and keeps what is to be kept. False when what was said last was
    /// written to nobody, or only to peers that hung up without reading it.
    pub async fn shut_down(&self) -> bool {
        self.0.driver.shut_down().await
    }
}

/// Reads what is kept, or begins to keep it, and the files of TLS.
async fn read_files(
    data_dir: Option<PathBuf>,
    tls: Option<TlsFiles>,
) -> Result<(Identity, Pins, Option<Tls>), StartError> {
    let read = spawn_blocking(move || {
        let tls = tls.as_ref().map(Tls::load).transpose()?;
        Ok(match data_dir {
            Some(dir) => (keys::identity(&dir)?, Pins::load(&dir)?, tls),
            None => (Identity::from_seed(&clock::random()), Pins::default(), tls),
        })
    });
    read.await.expect("reading files does not panic")
}

fn node_options(options: &Options, listen: SocketAddr, identity: Identity) -> NodeOptions {
    let announced = match options.announced {
        Some(announced) if announced.port() == 0 => SocketAddr::new(announced.ip(), listen.port()),
        Some(announced) => announced,
        None => local::reachable(listen, &options.peers),
    };
    NodeOptions {
        flood: options.flood,
        backlog: options.backlog,
        peers: options.limits,
        routing: options.routing,
        greets_after: options.greets_after,
        pins_max: PINS_MAX,
        identity: Some(identity),
        require_signed: options.require_signed,
        ..NodeOptions::new(listen, announced)
    }
}
