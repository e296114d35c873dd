//! What a peer is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use watchtower_protocols::whispernet::{BacklogLimits, FileLimits, FloodLimits, PeerLimits, RoutingLimits};

/// How a peer is set up. Every field has a default.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// What others connect to, if that is not where it listens. Without it and
    /// with an unspecified listening address, the address of this machine by
    /// which it reaches others.
    pub announced: Option<SocketAddr>,
    /// Peers that are always dialled: `HOST:PORT`, looked up at each attempt.
    pub peers: Vec<String>,
    /// Who speaks, until [`Peer::set_nick`](crate::Peer::set_nick).
    pub nick: Option<String>,
    /// Where the key and the pins are kept: created with tight permissions.
    /// Without it both last as long as the peer.
    pub data_dir: Option<PathBuf>,
    /// Where files are saved. Without it they are not.
    pub downloads: Option<PathBuf>,
    /// The UDP port of discovery; `None` neither announces nor listens.
    pub discovery_port: Option<u16>,
    /// Whether messages are dropped that are not signed.
    pub require_signed: bool,
    /// Mutual TLS on every link.
    pub tls: Option<TlsFiles>,
    /// How much newly connected peers are sent of what was said.
    pub backlog: BacklogLimits,
    /// How much of files may be arriving.
    pub files: FileLimits,
    /// How much each address may send. Links to peers, and the files that are
    /// sent, keep well below the same.
    pub flood: FloodLimits,
    /// How many peers it has.
    pub limits: PeerLimits,
    /// How it routes once it knows many peers that do; without it floods
    /// however many there are ([whispernet: 14]).
    pub routing: Option<RoutingLimits>,
    /// For how long a peer that is connected to others waits for one of them to
    /// connect to it, before it says
    /// [`GREETING`](watchtower_protocols::whispernet::GREETING): who has said
    /// nothing may be known to nobody, and hear nothing. Without it it does not.
    pub greets_after: Option<Duration>,
}

/// The files of mutual TLS, PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// This peer's certificate, and those between it and the authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities that other peers' certificates are from.
    pub ca: PathBuf,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: ([0, 0, 0, 0], 55_555).into(),
            announced: None,
            peers: Vec::new(),
            nick: None,
            data_dir: None,
            downloads: None,
            discovery_port: None,
            require_signed: false,
            tls: None,
            backlog: BacklogLimits::default(),
            files: FileLimits::default(),
            flood: FloodLimits::default(),
            limits: PeerLimits::default(),
            routing: Some(RoutingLimits::default()),
            greets_after: Some(Duration::from_secs(2)),
        }
    }
}
