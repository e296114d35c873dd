//! Why the hub refuses. Protocols turn these into their own codes.

use crate::presence::PRESENCE_EVENT;
use crate::{NotKept, SenderId};

/// Why something was refused. A refused call has no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The sender is not registered (any more).
    #[error("sender {0} is not registered")]
    UnknownSender(SenderId),
    /// The sender belongs to another session, and ids are bound.
    #[error("sender {0} belongs to another connection")]
    BoundElsewhere(SenderId),
    /// The sender has not joined the channel.
    #[error("the sender has not joined channel {channel}")]
    NotJoined {
        /// The channel.
        channel: crate::ChannelName,
    },
    /// There is no such channel, and it is not for this sender to make it.
    #[error("there is no channel {channel}")]
    NoSuchChannel {
        /// The channel.
        channel: crate::ChannelName,
    },
    /// Receivers of a direct message that are not in the channel.
    #[error("{} of the receivers have not joined channel {channel}", .missing.len())]
    ReceiverNotJoined {
        /// The channel.
        channel: crate::ChannelName,
        /// Which; empty when the message named no receiver at all.
        missing: Vec<u32>,
    },
    /// The content is longer than the limit.
    #[error("the content has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The channel does not accept such content.
    #[error("channel {channel} accepts {accepts} only")]
    BadContent {
        /// The channel.
        channel: crate::ChannelName,
        /// What it accepts.
        accepts: &'static str,
    },
    /// The channel is told of presence by messages of this event name, which
    /// nobody else may use there.
    #[error("on channel {channel} the event name {PRESENCE_EVENT:?} is the server's")]
    ReservedEvent {
        /// The channel.
        channel: crate::ChannelName,
    },
    /// A limit of the server is reached.
    #[error("the limit of {limit} {what} is reached")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// The channel is durable, and the message could not be kept.
    #[error("channel {channel} is durable, and the message was not kept: {reason}")]
    NotKept {
        /// The channel; of several the first by name.
        channel: crate::ChannelName,
        /// Why.
        reason: NotKept,
    },
    /// The session is over, or the hub takes no more messages.
    #[error("the session or the hub is closed")]
    Closed,
}
