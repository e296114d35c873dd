//! What stands in a frame, as a command: the form alone. Whether there is such
//! a user, channel or key is for [`WebTalk`](super::WebTalk) to know.

use std::fmt;

use super::LinkError;
use super::frame::{Body, split_once};

/// A command of the private link ([webtalk: private link]). Ids are as they
/// came: whether they are anybody's is not known yet.
///
/// `Debug` shows how long secrets, messages and values are, never their bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// The empty frame: closes the link.
    Goodbye,
    /// `[login] SECRET`
    Login(&'a [u8]),
    /// `[newuser]`
    NewUser,
    /// `[killuser] ID`
    KillUser(u64),
    /// `[whisper] ID!MESSAGE`
    Whisper {
        /// Who is to hear it.
        user: u64,
        /// Everything after the first `!`.
        message: &'a [u8],
    },
    /// `[newchannel]`
    NewChannel,
    /// `[killchannel] ID`
    KillChannel(u64),
    /// `[shout] ID!MESSAGE`
    Shout {
        /// Where it is said.
        channel: u64,
        /// Everything after the first `!`.
        message: &'a [u8],
    },
    /// `[join] CHAN_ID!USER_ID`
    Join {
        /// What is joined.
        channel: u64,
        /// Who joins.
        user: u64,
    },
    /// `[leave] CHAN_ID!USER_ID`
    Leave {
        /// What is left.
        channel: u64,
        /// Who leaves.
        user: u64,
    },
    /// `[store] KEY!VALUE`
    Store {
        /// Everything before the first `!`.
        key: &'a [u8],
        /// Everything after it.
        value: &'a [u8],
    },
    /// `[retrieve] KEY`
    Retrieve(&'a [u8]),
    /// `[clear] KEY`
    Clear(&'a [u8]),
}

impl<'a> Command<'a> {
    /// Reads what a frame holds. Data behind a command that takes none is not
    /// looked at.
    ///
    /// # Errors
    ///
    /// The first that applies of [`LinkError::NoBrackets`],
    /// [`LinkError::UnknownCommand`], [`LinkError::NoSeparator`] and
    /// [`LinkError::BadId`].
    pub fn parse(frame: &'a [u8]) -> Result<Command<'a>, LinkError> {
        if frame.is_empty() {
            return Ok(Command::Goodbye);
        }
        let Body { word, data } = Body::parse(frame).ok_or(LinkError::NoBrackets)?;
        Ok(match word {
            b"login" => Command::Login(data),
            b"newuser" => Command::NewUser,
            b"killuser" => Command::KillUser(id(data)?),
            b"whisper" => {
                let (user, message) = pair(data)?;
                Command::Whisper { user: id(user)?, message }
            }
            b"newchannel" => Command::NewChannel,
            b"killchannel" => Command::KillChannel(id(data)?),
            b"shout" => {
                let (channel, message) = pair(data)?;
                Command::Shout { channel: id(channel)?, message }
            }
            b"join" => {
                let (channel, user) = pair(data)?;
                Command::Join { channel: id(channel)?, user: id(user)? }
            }
            b"leave" => {
                let (channel, user) = pair(data)?;
                Command::Leave { channel: id(channel)?, user: id(user)? }
            }
            b"store" => {
                let (key, value) = pair(data)?;
                Command::Store { key, value }
            }
            b"retrieve" => Command::Retrieve(data),
            b"clear" => Command::Clear(data),
            _ => return Err(LinkError::UnknownCommand),
        })
    }
}

impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Command::Goodbye => f.write_str("Goodbye"),
            Command::Login(secret) => write!(f, "Login({} bytes)", secret.len()),
            Command::NewUser => f.write_str("NewUser"),
            Command::KillUser(user) => write!(f, "KillUser({user})"),
            Command::Whisper { user, message } => write!(f, "Whisper({user}, {} bytes)", message.len()),
            Command::NewChannel => f.write_str("NewChannel"),
            Command::KillChannel(channel) => write!(f, "KillChannel({channel})"),
            Command::Shout { channel, message } => write!(f, "Shout({channel}, {} bytes)", message.len()),
            Command::Join { channel, user } => write!(f, "Join({channel}, {user})"),
            Command::Leave { channel, user } => write!(f, "Leave({channel}, {user})"),
            Command::Store { key, value } => {
                write!(f, "Store({} bytes, {} bytes)", key.len(), value.len())
            }
            Command::Retrieve(key) => write!(f, "Retrieve({} bytes)", key.len()),
            Command::Clear(key) => write!(f, "Clear({} bytes)", key.len()),
        }
    }
}

fn pair(data: &[u8]) -> Result<(&[u8], &[u8]), LinkError> {
    split_once(data, b'!').ok_or(LinkError::NoSeparator)
}

/// A decimal `u64`.
pub(super) fn id(digits: &[u8]) -> Result<u64, LinkError> {
    // A sign is no digit, though the parser takes one.
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(LinkError::BadId);
    }
    str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(LinkError::BadId)
}
