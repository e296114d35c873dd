//! The core of Watchtower: channels, logs, cursors, sessions, senders, limits.

mod ids;
mod message;
mod name;

pub use ids::{Epoch, Position, SenderId, Timestamp};
pub use message::{Audience, Content, ContentKind, Format, FormatId, JSON_DEPTH_MAX, Message};
pub use name::{ChannelName, InvalidName, NAME_BYTES_MAX};
