//! What goes into a node and what comes out, as values.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use watchtower_hub::Timestamp;

use super::backlog::BacklogLimits;
use super::file::File;
use super::flood::FloodLimits;
use super::identity::{Identity, Mark, PublicKey};
use super::object::Malformed;
use super::part::Part;
use super::peers::PeerLimits;
use super::routing::RoutingLimits;
use super::seen::SeenLimits;

/// A connection, in either direction. A node gives them out, each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(super) u64);

/// What a node is told at its start.
#[derive(Debug)]
pub struct Options {
    /// Where it listens: what its socket is bound to.
    pub listen: SocketAddr,
    /// The address that others connect to: `Addr` of what it originates.
    pub announced: SocketAddr,
    /// The longest object that it reads or originates, in bytes.
    pub object_bytes_max: usize,
    /// Connections from others at a time. Further ones are refused.
    pub incoming_max: usize,
    /// Bytes of unfinished objects from all connections. Beyond it the
    /// connection that has most of them is closed.
    pub unfinished_bytes_max: usize,
    /// How long ids are remembered.
    pub seen: SeenLimits,
    /// How much each address may send.
    pub flood: FloodLimits,
    /// How much is kept for peers that newly connect.
    pub backlog: BacklogLimits,
    /// How many peers it has.
    pub peers: PeerLimits,
    /// How it routes when there are many peers ([whispernet: 14]); without it
    /// floods however many there are.
    pub routing: Option<RoutingLimits>,
    /// For how long a node that has peers waits for one to connect to it, before
    /// it wants to [greet](Action::Greet). Without it it does not.
    pub greets_after: Option<Duration>,
    /// How many nicks are pinned to a key.
    pub pins_max: usize,
    /// Its key; without one its messages are not signed.
    pub identity: Option<Identity>,
    /// Whether messages are dropped that are not signed.
    pub require_signed: bool,
}

impl Options {
    /// The defaults, for a node that listens there.
    pub fn new(listen: SocketAddr, announced: SocketAddr) -> Options {
        Options {
            listen,
            announced,
            object_bytes_max: 8 << 20,
            incoming_max: 256,
            unfinished_bytes_max: 128 << 20,
            seen: SeenLimits::default(),
            flood: FloodLimits::default(),
            backlog: BacklogLimits::default(),
            peers: PeerLimits::default(),
            routing: None,
            greets_after: None,
            pins_max: 10_000,
            identity: None,
            require_signed: false,
        }
    }
}

/// What the user, or a channel, says.
#[derive(Clone, Copy, Default)]
pub struct Said<'a> {
    /// Who says it.
    pub nick: Option<&'a str>,
    /// The text, which is not empty.
    pub body: &'a str,
    /// A file: its MIME type and its contents. Its name is in `body`.
    pub file: Option<(&'a str, &'a [u8])>,
}

/// Why something cannot be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unsaid {
    /// Deployed peers fail on an empty `Body` ([whispernet: messages]).
    #[error("there is nothing to say")]
    Empty,
    /// The object would be above the size limit.
    #[error("the message has {bytes} bytes, and may have {bytes_max}")]
    TooLarge {
        /// The object's length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

/// What a peer says that has nothing to say, and is to be known.
pub const GREETING: &str = "/me is here";

/// What a node wants done. `Debug` shows no content.
#[derive(Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a connection and say what came of it: [`Node::dialled`](super::Node::dialled)
    /// or [`Node::dial_failed`](super::Node::dial_failed), the latter after a while
    /// without an answer too.
    Dial(SocketAddr),
    /// Write an object, behind those before it.
    Send {
        /// One that was dialled.
        connection: ConnectionId,
        /// The same memory for all who are sent it.
        object: Bytes,
    },
    /// Close a connection. The node has forgotten it already.
    Close {
        /// In either direction.
        connection: ConnectionId,
        /// What to tell the user.
        reason: CloseReason,
    },
    /// Show a message. In a box, since it is rare and many times as large as
    /// the others.
    Show(Box<Shown>),
    /// Say [`GREETING`], by the user's nick: the node has peers, and has said
    /// nothing that would tell them where it listens, so that it hears nothing.
    Greet,
    /// Tell the user something.
    Tell(Notice),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Dial(addr) => write!(f, "Dial({addr})"),
            Action::Send { connection, object } => {
                write!(f, "Send({connection:?}, {} bytes)", object.len())
            }
            Action::Close { connection, reason } => write!(f, "Close({connection:?}, {reason:?})"),
            Action::Show(shown) => shown.fmt(f),
            Action::Greet => write!(f, "Greet"),
            Action::Tell(notice) => write!(f, "Tell({notice:?})"),
        }
    }
}

/// A message to be shown. All text is as it came:
/// [`safe_text`](super::safe_text) makes it safe. `Debug` shows no content.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its id.
    pub id: String,
    /// Where the sender says that it listens.
    pub addr: Option<String>,
    /// Who says it.
    pub nick: Option<String>,
    /// The text.
    pub body: String,
    /// When it was sent, or when it came if it does not say.
    pub time: Timestamp,
    /// The file in it.
    pub file: Option<File>,
    /// The part of a file that it is. Its text is for peers that know no parts.
    pub part: Option<Part>,
    /// The key that signed it.
    pub key: Option<PublicKey>,
    /// What is known of who says it.
    pub mark: Mark,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown { body, file, part, mark, .. } = self;
        write!(f, "Show({} bytes of body, {file:?}, {part:?}, {mark:?})", body.len())
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A peer is connected to.
    Connected(SocketAddr),
    /// The connection to a peer ended; it is dialled again.
    Lost(SocketAddr),
    /// A peer could not be reached and is dialled no more.
    Forgotten(SocketAddr),
    /// The node has peers, and none of them connects to the address that it
    /// announces, for all that it has said: it hears nothing.
    Unreached(SocketAddr),
    /// An address sent too much and is refused ([whispernet: 12]).
    Refused {
        /// The address.
        ip: IpAddr,
        /// Until when.
        until: Timestamp,
    },
    /// A nick was pinned to the key that it was first signed by
    /// ([whispernet: 13]): to be kept.
    Pinned {
        /// As it came.
        nick: String,
        /// The key.
        key: PublicKey,
    },
}

/// Why a node closes a connection, or takes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// It brought what is no message.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// Its address sent too much.
    #[error("it sends too much, and is refused for {} s", .0.as_secs())]
    Flooding(Duration),
    /// The user disconnected it.
    #[error("it was disconnected")]
    Disconnected,
    /// It leads to the node itself.
    #[error("it is this node")]
    Itself,
    /// Nobody waits for it any more.
    #[error("it is not needed")]
    Unneeded,
    /// There are too many.
    #[error("there are {0} connections already")]
    TooMany(usize),
    /// It goes on bringing messages that had come before.
    #[error("it brings nothing new")]
    Repeating,
    /// It takes less than it is sent.
    #[error("it takes too little of what it is sent")]
    TooSlow,
    /// All unfinished objects together are too long, and its one is the longest.
    #[error("too many unfinished objects")]
    Unfinished,
}

/// What a node has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages shown and passed on, parts of files among them.
    pub shown: u64,
    /// Messages whose id had been seen.
    pub repeated: u64,
    /// Messages dropped since their id is not their hash ([whispernet: 4]), or
    /// their part not that of their text ([whispernet: 10]).
    pub mismatched: u64,
    /// Messages dropped since their signature is not their key's.
    pub forged: u64,
    /// Messages dropped since they are not signed, and have to be.
    pub unsigned: u64,
    /// Objects by which nodes with routing speak to one another.
    pub control: u64,
    /// Other objects without a `Body`, and such as their sender may not send.
    pub without_body: u64,
    /// Messages originated.
    pub originated: u64,
    /// Connections closed for what is no message.
    pub malformed: u64,
    /// Connections closed since they went on bringing what had come before.
    pub repeating: u64,
    /// Addresses refused for sending too much.
    pub flooded: u64,
    /// Connections closed since the peer took too little.
    pub slow: u64,
    /// Objects that were not sent to a peer, since there is more than may be
    /// sent to any.
    pub unsent: u64,
    /// Addresses named by others and not taken up, though they were new.
    pub not_dialled: u64,
}
