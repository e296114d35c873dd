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

/// How exactly a sender's last activity is known.
const RESOLUTION_MILLIS: u64 = 1_000;
/// How often it is noted for a next process.
const NOTED_MILLIS: u64 = 60_000;

#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) id: SenderId,
    /// Whether it is to outlive the process. If not, it is its session's alone: nobody
    /// was given the id to come back with, so who names it has overheard it.
    pub(crate) is_kept: bool,
    /// Milliseconds; see [`Timestamp`].
    last_active: AtomicU64,
    /// What of that was noted last.
    noted: AtomicU64,
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
    /// One whose last activity is noted already, or never is.
    pub(crate) fn new(id: SenderId, last_active: Timestamp, is_kept: bool) -> Sender {
        let millis = || AtomicU64::new(last_active.as_millis());
        Sender { id, is_kept, last_active: millis(), noted: millis(), state: Mutex::default() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Notes that the sender lives; whether that is to be kept.
    #[must_use]
    pub(crate) fn touch(&self, now: Timestamp) -> bool {
        // Stores that change little would take the cache line from other cores.
        // A clock that was put back counts from there.
        let now = now.as_millis();
        if now.abs_diff(self.last_active.load(Ordering::Relaxed)) < RESOLUTION_MILLIS {
            return false;
        }
        self.last_active.store(now, Ordering::Relaxed);
        let is_due = self.is_kept && now.abs_diff(self.noted.load(Ordering::Relaxed)) >= NOTED_MILLIS;
        if is_due {
            self.noted.store(now, Ordering::Relaxed);
        }
        is_due
    }

    /// The clock went from one time to another at once: what lies behind it goes
    /// along when it goes forward, and what would lie ahead when it goes back.
    /// Whether that changes anything.
    pub(crate) fn move_with_clock(&self, from: Timestamp, to: Timestamp) -> bool {
        let last = self.last_active();
        let moved = match to >= from {
            true if last <= from => last.after(to.since(from)),
            false if last > to => {
                Timestamp::from_millis(last.as_millis() - from.since(to).as_millis() as u64).min(to)
            }
            _ => return false,
        };
        self.last_active.store(moved.as_millis(), Ordering::Relaxed);
        self.noted.store(moved.as_millis(), Ordering::Relaxed);
        true
    }

    pub(crate) fn last_active(&self) -> Timestamp {
        Timestamp::from_millis(self.last_active.load(Ordering::Relaxed))
    }
}
