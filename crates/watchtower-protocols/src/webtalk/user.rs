//! One user: who may be it, what is kept for it, and the one browser that it
//! has.
//!
//! Knows no command, and of WebSocket only what closes one.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use watchtower_hub::{
    ChannelName, Content, Entropy, Hub, Mailbox, Refused, SenderId, Session, Timestamp, WhenLagging,
};

use crate::websocket::{CloseCode, Closer};

/// How many hexadecimal digits a salt has: 128 random bits.
const SALT_DIGITS: usize = 32;

/// The code that the browser of a user that was killed is closed with.
const KILLED: CloseCode = CloseCode::new(4002).expect("a code of our own");

/// What a user logs in with: `ID!SALT` as text. `Debug` does not show the salt.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Its id, the same in every protocol.
    pub id: SenderId,
    salt: Salt,
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}!{}", self.id, String::from_utf8_lossy(&self.salt.0))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, hidden)", self.id)
    }
}

/// What proves that a browser is the user's ([webtalk: public side]).
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Salt([u8; SALT_DIGITS]);

impl Salt {
    /// 128 random bits.
    fn make(entropy: &dyn Entropy) -> Salt {
        let bits = u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64());
        let digit = |shift: usize| b"0123456789abcdef"[(bits >> shift & 0xf) as usize];
        Salt(std::array::from_fn(|index| digit(4 * (SALT_DIGITS - 1 - index))))
    }

    /// A salt that nobody was given, to be compared with where there is no
    /// user: that takes as long.
    pub(super) fn of_nobody() -> Salt {
        Salt([0; SALT_DIGITS])
    }

    /// Whether it is that one, in time that does not depend on where they
    /// differ.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        self.0.as_slice().ct_eq(given).into()
    }
}

/// One user, from `[newuser]` to `[killuser]`.
pub(super) struct User {
    credentials: Credentials,
    /// Outlives its browsers, and keeps what comes between them. It owns the
    /// sender, which therefore does not expire.
    session: Arc<Session>,
    /// Made for the first: many are never whispered to.
    whispers: OnceLock<Mailbox>,
    browser: Mutex<Browser>,
}

/// Whether a user has a browser.
enum Browser {
    Away,
    /// This closes it.
    Here(Closer),
    /// The user is no more, and gets none.
    Killed,
}

impl User {
    /// A user that has no browser yet, joined to `first`.
    ///
    /// # Errors
    ///
    /// [`Refused::Limit`]; then there is none.
    pub(super) fn make(
        hub: &Hub,
        entropy: &dyn Entropy,
        first: &ChannelName,
        now: Timestamp,
    ) -> Result<User, Refused> {
        let session = hub.open("webtalk", WhenLagging::Skip);
        let id = session.register_passing(now)?;
        if let Err(refused) = session.join(id, first, now) {
            // A user that nobody hears of takes nobody's place.
            hub.unregister(id, now)?;
            return Err(refused);
        }
        let credentials = Credentials { id, salt: Salt::make(entropy) };
        Ok(User {
            credentials,
            session: Arc::new(session),
            whispers: OnceLock::new(),
            browser: Mutex::new(Browser::Away),
        })
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(super) fn id(&self) -> SenderId {
        self.credentials.id
    }

    pub(super) fn salt(&self) -> &Salt {
        &self.credentials.salt
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Says something to this user alone. It is kept, within the lag limits,
    /// until a browser takes it.
    ///
    /// # Errors
    ///
    /// [`Refused::TooLarge`].
    pub(super) fn whisper(&self, message: &[u8], now: Timestamp) -> Result<(), Refused> {
        let whispers =
            self.whispers.get_or_init(|| self.session.mailbox(&ChannelName::from(self.id().get())));
        whispers.deliver(Content::sniff(Bytes::copy_from_slice(message)), now)
    }

    /// Ends it: its browser is closed, its memberships end, and whoever finds
    /// it still cannot log in.
    pub(super) fn kill(&self, now: Timestamp) {
        let before = std::mem::replace(&mut *self.browser.lock(), Browser::Killed);
        // Unless the program that this runs in has done so before.
        let _ = self.session.hub().unregister(self.id(), now);
        if let Browser::Here(closer) = before {
            closer.close(KILLED, "the user was killed");
        }
    }
}

/// A browser that is a user, until it is dropped: then the user may log in
/// again ([webtalk: public side]).
pub struct Login(Arc<User>);

impl Login {
    /// Makes the browser that `closer` closes that of `user`. None when it has
    /// one, or was killed.
    pub(super) fn new(user: Arc<User>, closer: Closer, now: Timestamp) -> Option<Login> {
        let mut browser = user.browser.lock();
        if !matches!(*browser, Browser::Away) {
            return None;
        }
        // Unless the program that this runs in has unregistered it.
        user.session.attach(user.id(), now).ok()?;
        user.session.resume(WhenLagging::Close);
        *browser = Browser::Here(closer);
        drop(browser);
        Some(Login(user))
    }

    /// What the browser is delivered.
    pub(super) fn session(&self) -> Arc<Session> {
        self.0.session.clone()
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let mut browser = self.0.browser.lock();
        // Before the next browser may come: it resumes.
        self.0.session.suspend();
        if let Browser::Here(_) = *browser {
            *browser = Browser::Away;
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Login").field(&self.0.id()).finish()
    }
}
