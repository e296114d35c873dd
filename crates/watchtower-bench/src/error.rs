//! What can go wrong in a bench, by whose fault it is.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a bench has no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The options contradict each other or ask for what cannot be done: bad usage.
    #[error("{0}")]
    Options(String),

    /// The operating system refused something.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted, to be read after "cannot".
        action: String,
        /// What the system said.
        source: io::Error,
    },

    /// A server or bare loop of our own did not come up.
    #[error("`{command}` did not get ready: {reason}")]
    Start {
        /// The program that was started.
        command: String,
        /// What happened instead, with the last lines that it wrote to standard error.
        reason: String,
    },

    /// The peer said something that its protocol does not allow here, or refused.
    #[error("{peer}: {source}")]
    Peer {
        /// Which connection it was.
        peer: String,
        /// What it said.
        source: WireError,
    },

    /// Deliveries are outstanding on a protocol that loses nothing, and none comes any more.
    #[error("{missing} deliveries are missing, and nothing has arrived for {waited:?}")]
    Stalled {
        /// How many copies are outstanding.
        missing: u64,
        /// How long was waited since the last arrival.
        waited: Duration,
    },

    /// The plot could not be drawn.
    #[error("cannot draw {}: {reason}", path.display())]
    Plot {
        /// The file that was to be written.
        path: PathBuf,
        /// What the drawing library said.
        reason: String,
    },
}

impl Error {
    /// For `map_err`: says what was attempted.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// For `map_err`: says which connection it was.
    pub(crate) fn peer(peer: impl Into<String>) -> impl FnOnce(WireError) -> Self {
        let peer = peer.into();
        move |source| Self::Peer { peer, source }
    }
}

/// What a peer did wrong, or refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireError {
    /// An `E` packet.
    #[error("refused with error {code} ({text})")]
    Refused {
        /// The error code.
        code: u8,
        /// Its text.
        text: String,
    },
    /// A first byte that starts no packet.
    #[error("expected a packet (A, M or E), got the byte {0:#04x}")]
    UnknownPacket(u8),
    /// A datagram that ends within a packet.
    #[error("a datagram ends within a packet")]
    PartialDatagram,
    /// An HTTP response that is not a stream.
    #[error("expected `200` and a stream, got `{0}`")]
    NotAStream(String),
    /// An HTTP response that does not turn into a WebSocket, or not into the one asked for.
    #[error("expected `101` and a WebSocket, got `{0}`")]
    NotAWebSocket(String),
    /// An error of WebRocket or WebTalk, in its own words.
    #[error("refused with `{0}`")]
    Rejected(String),
    /// A WebSocket close frame.
    #[error("the connection was closed with {code} ({reason})")]
    ClosedWith {
        /// The close code; 1005 if there was none.
        code: u16,
        /// The reason.
        reason: String,
    },
    /// Something of the framing that cannot be read.
    #[error("the stream's framing is broken: {0}")]
    Framing(&'static str),
    /// More bytes without an end than the bench is willing to keep.
    #[error("a {what} is longer than {limit} bytes")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The connection ended.
    #[error("the connection was closed")]
    Closed,
    /// An answer that was waited for did not come.
    #[error("no answer within {0:?}")]
    Silent(Duration),
}
