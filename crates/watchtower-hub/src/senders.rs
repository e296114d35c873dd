//! The registry of senders: one for every protocol ([model: identity]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::agenda::Due;
use crate::allowance::Allowance;
use crate::channel::Channel;
use crate::reader::Link;
use crate::{ChannelName, SenderId, Timestamp};

#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) id: SenderId,
    /// Milliseconds; see [`Timestamp`].
    last_active: AtomicU64,
    state: Mutex<State>,
}

/// What a sender's lock protects. It is taken before a channel's.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The session that its owned joins deliver to.
    pub(crate) owner: Option<Arc<Link>>,
    /// Hashed with a secret: clients choose the names, and could choose them to
    /// collide. Invariant: the sender is a member of exactly these channels.
    pub(crate) joins: HashMap<ChannelName, Arc<Channel>>,
    /// When the hub looks next which joins without a session are over. However
    /// many there are, that is noted down once.
    pub(crate) away_due: Option<Due>,
    /// When the hub looks next whether it is still active.
    pub(crate) expiry_due: Option<Due>,
    /// How many joins it may still take along to other sessions.
    pub(crate) moves: Allowance,
    /// Whether it was forgotten: who holds it still must not use it.
    pub(crate) expired: bool,
}

impl Sender {
    pub(crate) fn new(id: SenderId, now: Timestamp) -> Sender {
        Sender { id, last_active: AtomicU64::new(now.as_millis()), state: Mutex::default() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Notes that the sender lives.
    pub(crate) fn touch(&self, now: Timestamp) {
        // A second's resolution: stores that change nothing would take the
        // cache line from other cores.
        if now.as_millis() >= self.last_active.load(Ordering::Relaxed) + 1_000 {
            self.last_active.store(now.as_millis(), Ordering::Relaxed);
        }
    }

    pub(crate) fn last_active(&self) -> Timestamp {
        Timestamp::from_millis(self.last_active.load(Ordering::Relaxed))
    }
}
