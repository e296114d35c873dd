//! What can be kept, and what can be changed about it.
//!
//! Knows no bytes on a disk: those are `disk::codec`'s.

use std::fmt;

use bytes::Bytes;
use watchtower_hub::{ChannelName, Epoch, Message, Position, SenderId, Timestamp};

/// One change. Several that are submitted together happen together or not at
/// all, in their order.
#[derive(Debug)]
pub enum Change {
    /// Starts a channel's log, with offset 1 next. A log of another epoch is
    /// gone with it; one of the same epoch stays as it is.
    Begin {
        /// The channel.
        channel: ChannelName,
        /// The epoch of the new log.
        epoch: Epoch,
    },
    /// Appends a message at its own position, which must be the next one of its
    /// channel's log.
    Append(Message),
    /// Gives up the offsets from the next one to before `next`: nothing is there,
    /// and they are read as lost, or, when nothing is kept before them, as
    /// dropped. For a log that is brought from elsewhere. Nothing happens when
    /// the log has come that far.
    Skip {
        /// The channel, which must have a log.
        channel: ChannelName,
        /// The offset of the next message.
        next: u64,
    },
    /// Ends a channel's log, and all that is kept of it.
    Forget {
        /// The channel.
        channel: ChannelName,
    },
    /// Keeps a record, in place of one with the same key.
    Put(Record),
    /// Ends a record, if there is one.
    Delete(Key),
}

/// Something small that is kept beside the logs.
#[derive(Clone, PartialEq, Eq)]
pub enum Record {
    /// A registered sender. When it expires is its last activity and a setting.
    Sender {
        /// Who.
        id: SenderId,
        /// When it was last active.
        last_active: Timestamp,
    },
    /// A sender is in a channel.
    Join {
        /// Who.
        sender: SenderId,
        /// Where.
        channel: ChannelName,
        /// Since when.
        since: Timestamp,
        /// Whether until it leaves, or until its session is over for a while.
        standing: bool,
    },
    /// A callback subscription and how far it has come.
    Callback(Callback),
    /// Whatever a protocol or the server has to keep under a name of its own:
    /// a secret, a key, who is trusted. Names are paths: `whispernet/key`.
    Value {
        /// Under which name.
        name: Box<str>,
        /// What.
        bytes: Bytes,
    },
}

/// A callback subscription and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// Its id: delivery ids stay the same with it.
    pub id: [u8; 16],
    /// Whose it is.
    pub sender: SenderId,
    /// Where its messages go.
    pub url: Box<str>,
    /// Its channels, each with the last message that the receiver has.
    pub channels: Vec<(ChannelName, Position)>,
}

/// What tells records apart. Ordered by kind, then by what is inside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// See [`Record::Sender`].
    Sender(SenderId),
    /// See [`Record::Join`].
    Join(SenderId, ChannelName),
    /// See [`Record::Callback`].
    Callback([u8; 16]),
    /// See [`Record::Value`].
    Value(Box<str>),
}

/// The kinds of records, to list those of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// See [`Record::Sender`].
    Sender,
    /// See [`Record::Join`].
    Join,
    /// See [`Record::Callback`].
    Callback,
    /// See [`Record::Value`].
    Value,
}

impl Kind {
    /// All of them, in the order of keys.
    pub const ALL: [Kind; 4] = [Kind::Sender, Kind::Join, Kind::Callback, Kind::Value];
}

impl Record {
    /// What tells it apart from others.
    pub fn key(&self) -> Key {
        match self {
            Record::Sender { id, .. } => Key::Sender(*id),
            Record::Join { sender, channel, .. } => Key::Join(*sender, channel.clone()),
            Record::Callback(callback) => Key::Callback(callback.id),
            Record::Value { name, .. } => Key::Value(name.clone()),
        }
    }
}

impl Key {
    /// Of which kind its record is.
    pub fn kind(&self) -> Kind {
        match self {
            Key::Sender(_) => Kind::Sender,
            Key::Join(..) => Kind::Join,
            Key::Callback(_) => Kind::Callback,
            Key::Value(_) => Kind::Value,
        }
    }
}

impl fmt::Debug for Record {
    /// Without the bytes of a value, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key().fmt(f)
    }
}

/// What a message counts for where the bytes of a log are limited: its content,
/// its event name and what is beside it.
pub fn message_bytes(message: &Message) -> u64 {
    let beside = message.event().map_or(0, str::len) + message.extras().map_or(0, Bytes::len);
    (message.content().bytes().len() + beside) as u64
}
