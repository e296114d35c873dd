//! What the hub counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::log::ENTRY_BYTES;

const SHARDS: usize = 16;

/// A counter that many threads add to without sharing a cache line.
#[derive(Debug, Default)]
pub(crate) struct Counter([Shard; SHARDS]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.shard().fetch_add(n, Ordering::Relaxed);
    }

    /// What this thread added, with those that have the same shard.
    pub(crate) fn of_this_thread(&self) -> u64 {
        self.shard().load(Ordering::Relaxed)
    }

    fn shard(&self) -> &AtomicU64 {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SHARD: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
        }
        &self.0[SHARD.with(|shard| *shard)].0
    }

    fn sum(&self) -> u64 {
        self.0.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum()
    }
}

/// The hub's counters; see [`Counts`] for what each counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) published: Counter,
    pub(crate) published_bytes: Counter,
    pub(crate) delivered: Counter,
    pub(crate) lagging_closed: Counter,
    pub(crate) lagging_skipped: Counter,
    pub(crate) senders_expired: Counter,
    pub(crate) presence_left_out: Counter,
    pub(crate) joins_expired: AtomicU64,
    pub(crate) refused: RefusedCounters,
    /// Of what was skipped, what was kept for clients that are away.
    pub(crate) skipped_away: AtomicU64,
    pub(crate) unreadable: Counter,
    pub(crate) pages: Counter,
    pub(crate) sessions: AtomicUsize,
    pub(crate) subscriptions: AtomicUsize,
    pub(crate) retained_bytes: AtomicU64,
    protocols: Mutex<Vec<Arc<ProtocolCounters>>>,
}

/// What a limit refused; see [`RefusedCounts`].
#[derive(Debug, Default)]
pub(crate) struct RefusedCounters {
    pub(crate) message_bytes: AtomicU64,
    pub(crate) channels: AtomicU64,
    pub(crate) channels_per_sender: AtomicU64,
    pub(crate) senders: AtomicU64,
    pub(crate) moved_joins: AtomicU64,
}

/// What is counted for the sessions of one protocol.
#[derive(Debug)]
pub(crate) struct ProtocolCounters {
    pub(crate) name: &'static str,
    pub(crate) sessions: AtomicUsize,
    pub(crate) skipped: AtomicU64,
}

/// A reading of the hub's counters. All but the last five only grow.
///
/// What is told apart by protocol is in
/// [`Hub::counts_by_protocol`](crate::Hub::counts_by_protocol).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages taken.
    pub published: u64,
    /// Their content, in bytes.
    pub published_bytes: u64,
    /// Messages handed to sessions.
    pub delivered: u64,
    /// Times that a session fell behind so far that it was to be closed.
    pub lagging_closed: u64,
    /// Messages that were skipped for subscriptions that fell behind.
    pub lagging_skipped: u64,
    /// Those of them that were kept for clients that did not come back yet.
    pub skipped_away: u64,
    /// Senders that were forgotten after their time.
    pub senders_expired: u64,
    /// Changes of presence that channels were told the number of alone.
    pub presence_left_out: u64,
    /// Joins that ended since nobody came back to them within `session_ttl`,
    /// with what was kept for them.
    pub joins_expired: u64,
    /// What limits refused.
    pub refused: RefusedCounts,
    /// Messages of durable channels that subscriptions missed since they could
    /// not be read any more: each time that somebody missed one.
    pub unreadable: u64,
    /// Pages of durable logs that were read for subscriptions.
    pub pages: u64,
    /// Channels that there are.
    pub channels: usize,
    /// Senders that are registered.
    pub senders: usize,
    /// Sessions that are open.
    pub sessions: usize,
    /// Subscriptions that there are.
    pub subscriptions: usize,
    /// The bytes of all messages that channels retain.
    pub retained_bytes: u64,
}

/// How often each of the hub's limits refused something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RefusedCounts {
    /// Messages above `message_bytes_max`.
    pub message_bytes: u64,
    /// Channels that were not made.
    pub channels: u64,
    /// Joins of senders that had joined enough.
    pub channels_per_sender: u64,
    /// Senders that were not registered.
    pub senders: u64,
    /// Senders that did not move to another session, since their joins moved too
    /// often.
    pub moved_joins: u64,
}

/// A reading of what is counted for one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolCounts {
    /// What its sessions were opened with.
    pub protocol: &'static str,
    /// Sessions that are open.
    pub sessions: usize,
    /// Messages that were skipped for those that fell behind.
    pub skipped: u64,
}

impl Counters {
    /// Counts what a ledger retains: so many messages, of these bytes together.
    pub(crate) fn count_retained(&self, (messages, bytes): (usize, u64)) {
        let retained = bytes.saturating_add((messages as u64).saturating_mul(ENTRY_BYTES));
        self.retained_bytes.store(retained, Ordering::Relaxed);
    }

    /// The counters of a protocol. There are as many as programs have names for
    /// protocols, so they are searched one by one.
    pub(crate) fn of_protocol(&self, name: &'static str) -> Arc<ProtocolCounters> {
        let mut protocols = self.protocols.lock();
        if let Some(known) = protocols.iter().find(|known| known.name == name) {
            return known.clone();
        }
        let new = ProtocolCounters { name, sessions: AtomicUsize::new(0), skipped: AtomicU64::new(0) };
        protocols.push(Arc::new(new));
        protocols[protocols.len() - 1].clone()
    }

    pub(crate) fn read_by_protocol(&self) -> Vec<ProtocolCounts> {
        let read = |counters: &Arc<ProtocolCounters>| ProtocolCounts {
            protocol: counters.name,
            sessions: counters.sessions.load(Ordering::Relaxed),
            skipped: counters.skipped.load(Ordering::Relaxed),
        };
        self.protocols.lock().iter().map(read).collect()
    }

    pub(crate) fn read(&self, channels: usize, senders: usize) -> Counts {
        Counts {
            published: self.published.sum(),
            published_bytes: self.published_bytes.sum(),
            delivered: self.delivered.sum(),
            lagging_closed: self.lagging_closed.sum(),
            lagging_skipped: self.lagging_skipped.sum(),
            skipped_away: self.skipped_away.load(Ordering::Relaxed),
            senders_expired: self.senders_expired.sum(),
            presence_left_out: self.presence_left_out.sum(),
            joins_expired: self.joins_expired.load(Ordering::Relaxed),
            refused: self.refused.read(),
            unreadable: self.unreadable.sum(),
            pages: self.pages.sum(),
            channels,
            senders,
            sessions: self.sessions.load(Ordering::Relaxed),
            subscriptions: self.subscriptions.load(Ordering::Relaxed),
            retained_bytes: self.retained_bytes.load(Ordering::Relaxed),
        }
    }
}

impl RefusedCounters {
    fn read(&self) -> RefusedCounts {
        RefusedCounts {
            message_bytes: self.message_bytes.load(Ordering::Relaxed),
            channels: self.channels.load(Ordering::Relaxed),
            channels_per_sender: self.channels_per_sender.load(Ordering::Relaxed),
            senders: self.senders.load(Ordering::Relaxed),
            moved_joins: self.moved_joins.load(Ordering::Relaxed),
        }
    }
}
