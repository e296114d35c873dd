//! What both faces of WebTalk share: the users, the channels that were given
//! out, and the store ([webtalk]).
//!
//! Knows neither frames nor WebSockets. Of messages it keeps nothing: they go
//! to the hub's channels, so that a shout is heard over every protocol.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use watchtower_hub::{ChannelName, Content, Entropy, Hub, Publish, Published, SenderId, Timestamp};

use super::LinkError;
use super::store::Store;
use super::user::{Credentials, Login, Salt, User};
use crate::websocket::Closer;

/// The channel that everyone is in and nobody can kill.
const EVERYONE: u32 = 1;

/// The users, channels and values of one server. Clones are the same, and all
/// of it ends with the last of them ([webtalk: private link]).
///
/// Its calls are the commands of the private link, for programs that embed the
/// server; there a browser is served by it as a
/// [`Handler`](crate::websocket::Handler).
#[derive(Clone)]
pub struct WebTalk(Arc<Inner>);

struct Inner {
    hub: Hub,
    entropy: Box<dyn Entropy>,
    header_timeout: Duration,
    /// Held over calls on the hub that must not come between those of others,
    /// never over a wake of a browser that is closed.
    state: Mutex<State>,
    store: Mutex<Store>,
}

struct State {
    /// At most as many as the hub has senders.
    users: HashMap<SenderId, Arc<User>>,
    /// Those that were given out and not killed.
    channels: HashSet<u32>,
    /// Invariant: `EVERYONE`, or the highest that was given out: no number is
    /// given out twice, killed or not.
    last_channel: u32,
}

impl WebTalk {
    /// No users, and channel 1. Salts come from `entropy`. Browsers have
    /// `header_timeout` to log in, applications to say something and to end
    /// what they have begun to say ([running: header_timeout]).
    pub fn new(hub: &Hub, entropy: Box<dyn Entropy>, header_timeout: Duration) -> WebTalk {
        let state =
            State { users: HashMap::new(), channels: HashSet::from([EVERYONE]), last_channel: EVERYONE };
        WebTalk(Arc::new(Inner {
            hub: hub.clone(),
            entropy,
            header_timeout,
            state: Mutex::new(state),
            store: Mutex::default(),
        }))
    }

    /// The hub that it speaks to.
    pub fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// How long a client may take to say what it must say.
    pub fn header_timeout(&self) -> Duration {
        self.0.header_timeout
    }

    /// A user that may log in with what is returned; joined to channel 1.
    ///
    /// # Errors
    ///
    /// [`LinkError::LimitReached`].
    pub fn new_user(&self, now: Timestamp) -> Result<Credentials, LinkError> {
        let user = User::make(&self.0.hub, &*self.0.entropy, &EVERYONE.into(), now)?;
        let credentials = user.credentials().clone();
        self.0.state.lock().users.insert(user.id(), Arc::new(user));
        Ok(credentials)
    }

    /// Ends a user: its browser is closed with 4002, its memberships end, its
    /// id is nobody's.
    ///
    /// # Errors
    ///
    /// [`LinkError::UnknownUser`].
    pub fn kill_user(&self, user: u64, now: Timestamp) -> Result<(), LinkError> {
        let id = sender_id(user).ok_or(LinkError::UnknownUser)?;
        let user = self.0.state.lock().users.remove(&id).ok_or(LinkError::UnknownUser)?;
        user.kill(now);
        Ok(())
    }

    /// Sends to one user alone. It takes no offset in any channel, and is kept,
    /// within the lag limits, until the user logs in.
    ///
    /// # Errors
    ///
    /// [`LinkError::UnknownUser`], [`LinkError::TooLarge`].
    pub fn whisper(&self, user: u64, message: &[u8], now: Timestamp) -> Result<(), LinkError> {
        let user = self.0.state.lock().user(user)?;
        Ok(user.whisper(message, now)?)
    }

    /// A channel that was never given out before: the lowest above 1.
    ///
    /// # Errors
    ///
    /// [`LinkError::LimitReached`] when as many are there as the hub may have,
    /// or no number is left.
    pub fn new_channel(&self) -> Result<u32, LinkError> {
        let limit = self.0.hub.settings().limits.channels_max;
        let mut state = self.0.state.lock();
        if state.channels.len() >= limit {
            return Err(LinkError::LimitReached);
        }
        let channel = state.last_channel.checked_add(1).ok_or(LinkError::LimitReached)?;
        state.last_channel = channel;
        state.channels.insert(channel);
        Ok(channel)
    }

    /// Ends a channel: its users are in it no longer, and nothing can be
    /// shouted there. Clients of other protocols stay.
    ///
    /// # Errors
    ///
    /// [`LinkError::UnknownChannel`], [`LinkError::EndlessChannel`].
    pub fn kill_channel(&self, channel: u64, now: Timestamp) -> Result<(), LinkError> {
        let mut state = self.0.state.lock();
        let number = state.channel(channel)?;
        if number == EVERYONE {
            return Err(LinkError::EndlessChannel);
        }
        state.channels.remove(&number);
        // The lock is held so that nobody is joined meanwhile.
        let name = ChannelName::from(number);
        for presence in self.0.hub.presence(&name).unwrap_or_default() {
            if state.users.contains_key(&presence.sender) {
                // Who is unknown by now has left already.
                let _ = self.0.hub.leave(presence.sender, &name, now);
            }
        }
        Ok(())
    }

    /// Whether it can be shouted there.
    pub(super) fn has_channel(&self, channel: u64) -> bool {
        self.0.state.lock().channel(channel).is_ok()
    }

    /// Publishes to everyone in the channel, over whatever protocol; by nobody
    /// who is registered ([webtalk: sender 0]).
    ///
    /// # Errors
    ///
    /// [`LinkError::UnknownChannel`]. What the hub refuses is known with where
    /// the message stands, at once or later.
    pub fn shout(&self, channel: u64, message: &[u8], now: Timestamp) -> Result<Published, LinkError> {
        let channel = self.0.state.lock().channel(channel)?;
        let content = Content::sniff(Bytes::copy_from_slice(message));
        let published = self.0.hub.publish(&channel.into(), Publish::new(content), now);
        Ok(published.unwrap_or_else(Published::refused))
    }

    /// Joins a user to a channel. Twice changes nothing.
    ///
    /// # Errors
    ///
    /// [`LinkError::UnknownChannel`], [`LinkError::UnknownUser`],
    /// [`LinkError::LimitReached`].
    pub fn join(&self, channel: u64, user: u64, now: Timestamp) -> Result<(), LinkError> {
        let state = self.0.state.lock();
        let channel = state.channel(channel)?;
        let user = state.user(user)?;
        user.session().join(user.id(), &channel.into(), now)?;
        Ok(())
    }

    /// Ends a user's place in a channel. Leaving what is not joined does
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`LinkError::UnknownChannel`], [`LinkError::UnknownUser`].
    pub fn leave(&self, channel: u64, user: u64, now: Timestamp) -> Result<(), LinkError> {
        let state = self.0.state.lock();
        let channel = state.channel(channel)?;
        let user = state.user(user)?;
        self.0.hub.leave(user.id(), &channel.into(), now)?;
        Ok(())
    }

    /// Keeps a value, in place of the one before.
    ///
    /// # Errors
    ///
    /// [`LinkError::TooLarge`], [`LinkError::KeyTooLong`],
    /// [`LinkError::StoreFull`].
    pub fn store(&self, key: &[u8], value: &[u8]) -> Result<(), LinkError> {
        if value.len() > self.0.hub.settings().limits.message_bytes_max {
            return Err(LinkError::TooLarge);
        }
        self.0.store.lock().put(key, value)
    }

    /// What is kept at a key.
    ///
    /// # Errors
    ///
    /// [`LinkError::UnknownKey`].
    pub fn retrieve(&self, key: &[u8]) -> Result<Bytes, LinkError> {
        self.0.store.lock().get(key).ok_or(LinkError::UnknownKey)
    }

    /// Forgets what is kept at a key, if there is something.
    ///
    /// # Errors
    ///
    /// [`LinkError::KeyTooLong`].
    pub fn clear(&self, key: &[u8]) -> Result<(), LinkError> {
        self.0.store.lock().clear(key)
    }

    /// The user that `id` and `salt` are those of, for the browser that
    /// `closer` closes. None, and in the same time, when there is no such user,
    /// the salt is another, or it has a browser already.
    pub(super) fn log_in(&self, id: u64, salt: &[u8], closer: Closer, now: Timestamp) -> Option<Login> {
        let user = self.0.state.lock().user(id).ok();
        let nobodys = Salt::of_nobody();
        let is_right = user.as_ref().map_or(&nobodys, |user| user.salt()).is(salt);
        Login::new(user.filter(|_| is_right)?, closer, now)
    }
}

impl State {
    fn user(&self, user: u64) -> Result<Arc<User>, LinkError> {
        sender_id(user).and_then(|id| self.users.get(&id).cloned()).ok_or(LinkError::UnknownUser)
    }

    /// The number of a channel that is there.
    fn channel(&self, channel: u64) -> Result<u32, LinkError> {
        let number = u32::try_from(channel).ok().filter(|number| self.channels.contains(number));
        number.ok_or(LinkError::UnknownChannel)
    }
}

fn sender_id(user: u64) -> Option<SenderId> {
    SenderId::new(u32::try_from(user).ok()?)
}

impl fmt::Debug for WebTalk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("WebTalk")
            .field("users", &state.users.len())
            .field("channels", &state.channels.len())
            .finish_non_exhaustive()
    }
}
