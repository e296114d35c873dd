//! What the hub counts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const SHARDS: usize = 16;

/// A counter that many threads add to without sharing a cache line.
#[derive(Debug, Default)]
pub(crate) struct Counter([Shard; SHARDS]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SHARD: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
        }
        let shard = SHARD.with(|shard| *shard);
        self.0[shard].0.fetch_add(n, Ordering::Relaxed);
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
    pub(crate) unreadable: Counter,
    pub(crate) pages: Counter,
    pub(crate) sessions: AtomicUsize,
    pub(crate) subscriptions: AtomicUsize,
}

/// A reading of the hub's counters. All but the last four only grow.
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
    /// Senders that were forgotten after their time.
    pub senders_expired: u64,
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
}

impl Counters {
    pub(crate) fn read(&self, channels: usize, senders: usize) -> Counts {
        Counts {
            published: self.published.sum(),
            published_bytes: self.published_bytes.sum(),
            delivered: self.delivered.sum(),
            lagging_closed: self.lagging_closed.sum(),
            lagging_skipped: self.lagging_skipped.sum(),
            senders_expired: self.senders_expired.sum(),
            unreadable: self.unreadable.sum(),
            pages: self.pages.sum(),
            channels,
            senders,
            sessions: self.sessions.load(Ordering::Relaxed),
            subscriptions: self.subscriptions.load(Ordering::Relaxed),
        }
    }
}
