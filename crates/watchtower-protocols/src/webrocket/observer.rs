//! What a hub tells of what happens in it, for a log of its own.
//!
//! Knows no log, and never shows a secret or the content of a message.

use http::request::Parts;
use watchtower_hub::ChannelName;

use super::{Access, CommandName, ErrorCode};

/// Who is told what happens in a hub.
///
/// Called in the middle of a connection's work, by several threads at a time:
/// it must not block.
pub trait Observer: Send + Sync + 'static {
    /// Something happened on a connection. Connections are numbered from 1, in
    /// the order in which they came to this hub.
    fn observe(&self, connection: u64, activity: &Activity<'_>);
}

/// What happened on a connection.
///
/// Channels are named as in the core, with the hub's namespace.
#[derive(Debug)]
pub enum Activity<'a> {
    /// A client has connected.
    Connected {
        /// By this request.
        request: &'a Parts,
    },
    /// It was let in.
    Authenticated {
        /// For this.
        access: Access,
    },
    /// It was refused something.
    Refused {
        /// The command, if what came was one.
        command: Option<CommandName>,
        /// Why.
        code: ErrorCode,
    },
    /// It subscribed to a channel.
    Subscribed {
        /// Which.
        channel: &'a ChannelName,
    },
    /// It is not subscribed to a channel any more, by its own command or since
    /// it lost the access.
    Unsubscribed {
        /// Which.
        channel: &'a ChannelName,
    },
    /// It published a message.
    Published {
        /// Where.
        channel: &'a ChannelName,
        /// How long the content is, with any further fields.
        bytes: usize,
    },
    /// It logged out.
    LoggedOut,
    /// The connection is over.
    Disconnected,
}
