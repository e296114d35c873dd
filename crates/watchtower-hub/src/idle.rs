//! Which subscriptions of a channel wait at the end of its log.
//!
//! The one place where a wake-up could be lost: a subscriber that finds
//! nothing more and goes to rest, while a publisher appends and looks who
//! rests. Both sides are here; loom checks every interleaving of them.

use crate::sync::atomic::{AtomicU64, Ordering, fence};

/// How many subscriptions share one set.
pub(crate) const SLOTS_PER_SET: u32 = 64;

/// One bit a subscription, set while it rests at the end of the log.
///
/// Resting is lock-free, so that a delivery takes no lock that a publisher or
/// another subscriber holds.
#[derive(Debug)]
pub(crate) struct IdleSet(AtomicU64);

impl IdleSet {
    pub(crate) fn new() -> IdleSet {
        IdleSet(AtomicU64::new(0))
    }

    /// Puts the subscription to rest, unless something came meanwhile.
    ///
    /// `at_end` must tell whether the log's place that the subscription would
    /// read next is still empty. When this returns `true` the subscription
    /// rests, and whoever fills that place afterwards will find it in the set.
    /// When it returns `false` there is something to read; a publisher may
    /// have found the subscription here all the same, so that a wake-up for
    /// what was read already can follow.
    pub(crate) fn rest(&self, slot: u32, at_end: impl FnOnce() -> bool) -> bool {
        self.0.fetch_or(bit(slot), Ordering::SeqCst);
        // Pairs with the fence in `wake_all`: of "set the bit, then look at
        // the log" and "fill the log, then look at the bits" at least one
        // side sees what the other did.
        fence(Ordering::SeqCst);
        if at_end() {
            return true;
        }
        self.remove(slot);
        false
    }

    /// Empties the set and returns who was in it, a bit each. To be called
    /// after the log has been appended to.
    pub(crate) fn wake_all(&self) -> u64 {
        fence(Ordering::SeqCst);
        // A plain load first: in a burst nobody rests, and a swap would take
        // the cache line from every core each time.
        if self.0.load(Ordering::SeqCst) == 0 {
            return 0;
        }
        self.0.swap(0, Ordering::SeqCst)
    }

    /// Takes one subscription out; whether it was resting. To be called after
    /// the log has been appended to.
    pub(crate) fn wake(&self, slot: u32) -> bool {
        fence(Ordering::SeqCst);
        self.remove(slot)
    }

    /// Puts a subscription in that is known to be at the end, because the
    /// caller holds the channel's lock.
    pub(crate) fn insert(&self, slot: u32) {
        self.0.fetch_or(bit(slot), Ordering::SeqCst);
    }

    /// Takes one subscription out; whether it was there.
    pub(crate) fn remove(&self, slot: u32) -> bool {
        self.0.fetch_and(!bit(slot), Ordering::SeqCst) & bit(slot) != 0
    }

    /// Who rests at this moment.
    pub(crate) fn resting(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn bit(slot: u32) -> u64 {
    1 << (slot % SLOTS_PER_SET)
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, Ordering};
    use loom::thread;

    use super::*;

    #[test]
    fn who_rests_is_woken_by_whoever_appends_afterwards() {
        loom::model(|| {
            let set = Arc::new(IdleSet::new());
            // The next place of the log; filled with release, read with
            // acquire, as the log does.
            let filled = Arc::new(AtomicBool::new(false));
            let publisher = {
                let (set, filled) = (set.clone(), filled.clone());
                thread::spawn(move || {
                    filled.store(true, Ordering::Release);
                    set.wake_all() != 0
                })
            };
            let rested = set.rest(3, || !filled.load(Ordering::Acquire));
            let woken = publisher.join().unwrap();
            assert!(!rested || woken, "rests although something was appended, and nobody wakes it");
            assert_eq!(set.resting(), 0);
        });
    }

    #[test]
    fn a_direct_message_wakes_the_one_that_it_is_for() {
        loom::model(|| {
            let set = Arc::new(IdleSet::new());
            set.insert(9);
            let filled = Arc::new(AtomicBool::new(false));
            let publisher = {
                let (set, filled) = (set.clone(), filled.clone());
                thread::spawn(move || {
                    filled.store(true, Ordering::Release);
                    set.wake(3)
                })
            };
            let rested = set.rest(3, || !filled.load(Ordering::Acquire));
            let woken = publisher.join().unwrap();
            assert!(!rested || woken);
            assert_eq!(set.resting(), bit(9), "bystanders rest on");
        });
    }
}
