//! What can go wrong between a client and its server, in words for a person.
//!
//! No message holds a secret or the content of a message.

use std::fmt;
use std::io;
use std::time::Duration;

use watchtower_hub::ChannelName;
use watchtower_protocols::packets::ErrorCode;
use watchtower_protocols::packets::frame::{EncodeError, PacketError};

use crate::{HubError, Protocol};

/// Why a client could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server's address is not one.
    #[error("`{server}` is not an address: expected host:port, such as 127.0.0.1:3033")]
    Address {
        /// What was given.
        server: String,
    },
    /// The address of a WebRocket hub is not one.
    #[error(
        "`{server}` is not the address of a hub: expected host:port or ws://host:port/path, \
         such as ws://127.0.0.1:3033/webrocket"
    )]
    Url {
        /// What was given.
        server: String,
    },
    /// There is no server at the address, or no way to it.
    #[error("cannot reach {server}: {}; is the server running? (watchtower serve)", reason(source))]
    Unreachable {
        /// The address.
        server: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// TLS did not come about, mostly because the server's certificate is not
    /// one that this machine trusts.
    #[error("no TLS with {server}: {source}")]
    Tls {
        /// The address.
        server: String,
        /// What is wrong.
        source: io::Error,
    },
    /// The server was reached once and does not answer now. Whether it did what
    /// it was asked is not known.
    #[error("{server} did not answer within {timeout:?}")]
    Silent {
        /// The address.
        server: String,
        /// How long the client waited.
        timeout: Duration,
    },
    /// The connection broke. Whether the server did what it was asked is not known.
    #[error("lost the connection to {server}: {source}")]
    Lost {
        /// The address.
        server: String,
        /// How it broke.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server ended the connection while an answer was awaited, or an
    /// earlier request was left without its answer so that the connection cannot
    /// be used on: connect again.
    #[error("the connection to {server} is closed")]
    Closed {
        /// The address.
        server: String,
    },
    /// The server answered with an `E` packet: it did not do what it was asked.
    #[error("the server answered: {0}")]
    Refused(Refusal),
    /// The server answered with an HTTP error: it did not do what it was asked.
    #[error("the server answered: {message} (HTTP {status})")]
    Http {
        /// The status.
        status: u16,
        /// The server's word for the error, for programs; empty when it gave none.
        code: String,
        /// The server's sentence for a person.
        message: String,
    },
    /// A WebRocket hub answered with an `err`: it did not do what it was asked.
    #[error("the server answered: {0}")]
    Hub(HubError),
    /// The server ended a stream of messages, and said why.
    #[error("the server ended the stream: {message}")]
    Ended {
        /// The server's word for why, for programs.
        code: String,
        /// The server's sentence for a person.
        message: String,
    },
    /// The server sent what this client cannot read.
    #[error("{server} sent what is not understood: {what}")]
    NotUnderstood {
        /// The address.
        server: String,
        /// What was expected and what came.
        what: String,
    },
    /// Over packets, channels have numbers alone.
    #[error("over {protocol} channels are numbers, `{channel}` is a name: use HTTP for it")]
    NamedChannel {
        /// The channel asked for.
        channel: ChannelName,
        /// The protocol that has no names.
        protocol: Protocol,
    },
    /// Packets have no way to ask for the channels.
    #[error("over {protocol} channels cannot be listed: use HTTP")]
    CannotList {
        /// The protocol that cannot.
        protocol: Protocol,
    },
    /// Neither packets nor WebRocket have a way to read what a channel keeps.
    #[error("over {protocol} what a channel keeps cannot be read: use HTTP")]
    CannotReadHistory {
        /// The protocol that cannot.
        protocol: Protocol,
    },
    /// Positions of packets are offsets alone: whether something is missing could
    /// not be told.
    #[error(
        "over {protocol} a position is an offset without its epoch, so that nobody could say whether \
         messages are missing: use HTTP or WebRocket to go on at one"
    )]
    CannotResume {
        /// The protocol that cannot.
        protocol: Protocol,
    },
    /// A WebRocket hub has no senders.
    #[error(
        "over {protocol} there are no senders to register: the hub's secret gives access; \
         use TCP, UDP or HTTP"
    )]
    CannotRegister {
        /// The protocol that cannot.
        protocol: Protocol,
    },
    /// A WebRocket hub has no receivers to name.
    #[error("over {protocol} there are no direct messages: use TCP, UDP or HTTP")]
    CannotSendDirect {
        /// The protocol that cannot.
        protocol: Protocol,
    },
    /// What was asked needs a sender, and this client has none.
    #[error("no sender yet: register first, or give the id of a registered sender")]
    NoSender,
    /// What was given does not fit a packet.
    #[error(transparent)]
    DoesNotFit(#[from] EncodeError),
    /// What was given does not fit a datagram, or its echo would not.
    #[error("{bytes} bytes do not fit a datagram: at most {bytes_max} do; use TCP or HTTP")]
    DatagramTooLong {
        /// The content's length, in bytes.
        bytes: usize,
        /// The longest content that fits, in bytes.
        bytes_max: usize,
    },
    /// What names the channels is too long for a request's target.
    #[error("too many channels for one HTTP stream: subscribe to fewer")]
    TooManyChannels,
    /// While a subscription was being made, more messages came than are kept.
    #[error("messages came faster than the subscription was made: subscribe to fewer channels")]
    Overrun,
}

impl ClientError {
    pub(crate) fn lost(server: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        ClientError::Lost { server: server.to_owned(), source: source.into() }
    }

    pub(crate) fn not_understood(server: &str, what: impl fmt::Display) -> Self {
        ClientError::NotUnderstood { server: server.to_owned(), what: what.to_string() }
    }

    pub(crate) fn bad_packet(server: &str, error: PacketError) -> Self {
        Self::not_understood(server, error)
    }
}

/// An `E` packet, as [`ClientError::Refused`] tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code; [`ErrorCode::from_byte`] says what it means.
    pub code: u8,
    /// The server's words.
    pub text: String,
}

impl Refusal {
    pub(crate) fn from_packet(code: u8, text: &[u8]) -> Self {
        // ASCII by the protocol; what is not printable must not reach a terminal.
        let shown = |&byte: &u8| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '?' };
        Refusal { code, text: text.iter().map(shown).collect() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ErrorCode::from_byte(self.code).map_or("unknown code", ErrorCode::name);
        let text = if self.text.is_empty() { name } else { &self.text };
        write!(f, "{text} (error {})", self.code)
    }
}

/// The cause alone, without the number that `io::Error` shows behind it.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => error.to_string(),
    }
}
