//! The core of Watchtower: channels, logs, cursors, sessions, senders, limits.
//!
//! A channel is a log, a subscription is a cursor, a connection is one writer:
//! publishing appends one entry and wakes the sessions that rest; a woken
//! session drains its cursors and writes what it found. An entry is encoded
//! once per wire format, by the first who needs it, and freed by the last
//! cursor that passes it.
//!
//! Knows no protocol, no socket, no async runtime, no clock and no source of
//! randomness: all of that is handed in. See `ARCHITECTURE.md`.

mod agenda;
mod allowance;
mod bell;
mod catch_up;
mod channel;
mod counters;
mod error;
mod few;
mod history;
mod hub;
mod idle;
mod ids;
mod inner;
mod ledger;
mod log;
mod mailbox;
mod message;
mod name;
mod presence;
mod publish;
mod reader;
mod registry;
mod senders;
mod session;
mod settings;
mod soon;
mod submit;
mod subscription;
mod sync;

pub use channel::{History, HistoryQuery, Joined, Presence, Span, Start};
pub use counters::{Counts, ProtocolCounts, RefusedCounts};
pub use error::Refused;
pub use hub::{Entropy, Hub, WhenLagging};
pub use ids::{Epoch, Position, SenderId, Timestamp};
pub use ledger::{
    Append, Appended, Appends, Ends, KeptJoin, KeptSender, Ledger, NotKept, NotRead, Note, Page, ReadLimit,
    WasRead,
};
pub use log::Entry;
pub use mailbox::Mailbox;
pub use message::{Audience, Content, ContentKind, Format, FormatId, JSON_DEPTH_MAX, Message};
pub use name::{ChannelName, InvalidName, NAME_BYTES_MAX};
pub use presence::PRESENCE_EVENT;
pub use publish::Publish;
pub use session::{Backlog, Batch, Drained, Session};
pub use settings::{Accepts, ChannelRule, Limits, Settings};
pub use soon::{Abandoned, Published, Soon};
