//! What clients ask for, what they are answered, and what subscribers are
//! shown: the values that a [`Codec`](super::Codec) turns bytes into, and into
//! bytes.
//!
//! Knows neither bytes nor the hub's rules.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use watchtower_hub::{Content, Joined, Position, Presence, Start};

use super::{Access, ErrorCode};

/// What a client asks for ([webrocket: commands]).
///
/// `Debug` shows the names alone: neither secrets nor contents.
pub enum Command<'a> {
    /// Let me in.
    Auth {
        /// For what: never [`Access::None`].
        access: Access,
        /// Why I may.
        secret: Cow<'a, str>,
    },
    /// Deliver the channel's messages here.
    Subscribe {
        /// Its name as the client gave it.
        channel: Cow<'a, str>,
        /// From where on, with positions; `None` for the next message, without
        /// any.
        since: Option<Since>,
    },
    /// Do so no longer.
    Unsubscribe {
        /// Its name as the client gave it.
        channel: Cow<'a, str>,
    },
    /// Publish.
    Publish(Publication<'a>),
    /// Tell me who is there.
    Presence {
        /// The channel's name as the client gave it.
        channel: Cow<'a, str>,
    },
    /// Forget that I was let in.
    Logout,
    /// Close the connection.
    Disconnect,
}

/// Where a client that wants positions goes on ([webrocket: since]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// It has seen nothing yet: with the next message.
    Now,
    /// After what it has seen last.
    Seen(Position),
}

impl Since {
    pub(super) fn start(self) -> Start {
        match self {
            Since::Now => Start::End,
            Since::Seen(position) => Start::After(position),
        }
    }
}

/// What a client wants published.
pub struct Publication<'a> {
    /// The channel's name as the client gave it.
    pub channel: Cow<'a, str>,
    /// The event's name.
    pub event: Cow<'a, str>,
    /// What.
    pub content: Content,
    /// The further fields, for subscribers of this hub's codec
    /// ([webrocket: further fields]), in a form of the codec's own; it sees to
    /// it that they can pass for none of the fields above. `None` when there
    /// are none.
    pub extras: Option<Bytes>,
}

/// The commands by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandName {
    /// [`Command::Auth`]
    Auth,
    /// [`Command::Subscribe`]
    Subscribe,
    /// [`Command::Unsubscribe`]
    Unsubscribe,
    /// [`Command::Publish`]
    Publish,
    /// [`Command::Presence`]
    Presence,
    /// [`Command::Logout`]
    Logout,
    /// [`Command::Disconnect`]
    Disconnect,
}

impl CommandName {
    /// Every command, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::Auth,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Publish,
        Self::Presence,
        Self::Logout,
        Self::Disconnect,
    ];

    /// The name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Publish => "publish",
            Self::Presence => "presence",
            Self::Logout => "logout",
            Self::Disconnect => "disconnect",
        }
    }

    /// The command of that name, exactly as it is written.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.name() == name)
    }

    /// The access that the command needs.
    pub fn needs(self) -> Access {
        match self {
            Self::Subscribe | Self::Presence => Access::ReadOnly,
            Self::Publish => Access::ReadWrite,
            Self::Auth | Self::Unsubscribe | Self::Logout | Self::Disconnect => Access::None,
        }
    }
}

impl Command<'_> {
    /// Which command it is.
    pub fn name(&self) -> CommandName {
        match self {
            Command::Auth { .. } => CommandName::Auth,
            Command::Subscribe { .. } => CommandName::Subscribe,
            Command::Unsubscribe { .. } => CommandName::Unsubscribe,
            Command::Publish(_) => CommandName::Publish,
            Command::Presence { .. } => CommandName::Presence,
            Command::Logout => CommandName::Logout,
            Command::Disconnect => CommandName::Disconnect,
        }
    }
}

impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Command").field(&self.name()).finish()
    }
}

/// What came is no command that can be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// The command whose fields are wrong; `None` when it is not even known
    /// which was meant.
    pub command: Option<CommandName>,
}

/// What a command is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It was carried out.
    Ok,
    /// It is subscribed, and goes on there: for who asked from where on.
    Subscribed(Joined),
    /// Who is there.
    Present {
        /// By id; not all of them, where they are very many.
        first: Vec<Presence>,
        /// How many they are.
        count: usize,
    },
    /// It was refused, and changed nothing but what a failed `auth` does.
    Error(ErrorCode),
}

/// What a subscriber is shown of a message ([webrocket: events]).
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// The event's name.
    pub event: &'a str,
    /// The channel's name in this hub, without its namespace.
    pub channel: &'a str,
    /// The content.
    pub content: &'a Content,
    /// Where it stands in its channel, for who asked for that.
    pub position: Option<Position>,
    /// The publisher's further fields, as [`Publication::extras`].
    pub extras: Option<&'a [u8]>,
}
