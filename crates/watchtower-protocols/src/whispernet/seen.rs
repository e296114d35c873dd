//! Which ids were seen, in memory that stays flat ([whispernet: 3]).
//!
//! Two generations of keyed 64-bit hashes: new ids go into the younger one, and
//! when that is full or old it becomes the elder and the elder is forgotten.
//! Two ids of one hash would lose a message; the key keeps that from being
//! made on purpose, and by chance it takes some 10^14 messages at the default
//! bounds. Knows nothing of messages.

use std::hash::Hasher;
use std::mem;
use std::time::Duration;

use rustc_hash::FxHashSet;
use siphasher::sip::SipHasher13;
use watchtower_hub::Timestamp;

/// How long ids are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenLimits {
    /// An id is remembered at least until this many others came, unless `age`
    /// ends before. At most twice as many are kept.
    pub ids: usize,
    /// An id is remembered at least this long, unless `ids` others came.
    pub age: Duration,
}

impl Default for SeenLimits {
    /// A day, and 131,072 ids, which take 5 MiB at most.
    fn default() -> SeenLimits {
        SeenLimits { ids: 1 << 17, age: Duration::from_secs(24 * 60 * 60) }
    }
}

/// The ids that were seen lately.
pub(super) struct SeenIds {
    limits: SeenLimits,
    hasher: SipHasher13,
    young: FxHashSet<u64>,
    elder: FxHashSet<u64>,
    /// When the younger generation began.
    since: Timestamp,
}

impl SeenIds {
    /// No ids. `key` is random, and known to nobody.
    pub(super) fn new(key: [u8; 16], limits: SeenLimits, now: Timestamp) -> SeenIds {
        SeenIds {
            limits,
            hasher: SipHasher13::new_with_key(&key),
            young: FxHashSet::default(),
            elder: FxHashSet::default(),
            since: now,
        }
    }

    /// Whether the id was seen, and not yet forgotten.
    pub(super) fn contains(&self, id: impl AsRef<[u8]>) -> bool {
        let hash = self.hash(id);
        self.young.contains(&hash) || self.elder.contains(&hash)
    }

    /// Remembers the id from now on. Whether it is new: false for one that is
    /// remembered.
    pub(super) fn insert(&mut self, id: impl AsRef<[u8]>, now: Timestamp) -> bool {
        let is_old = now.since(self.since) >= self.limits.age;
        if is_old || self.young.len() >= self.limits.ids {
            mem::swap(&mut self.young, &mut self.elder);
            // Its memory is used again: it neither grows nor moves.
            self.young.clear();
            self.since = now;
        }
        let hash = self.hash(id);
        self.young.insert(hash) && !self.elder.contains(&hash)
    }

    fn hash(&self, id: impl AsRef<[u8]>) -> u64 {
        let mut hasher = self.hasher;
        hasher.write(id.as_ref());
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_255_200_000);

    fn seen(ids: usize, age: Duration) -> SeenIds {
        SeenIds::new([7; 16], SeenLimits { ids, age }, NOW)
    }

    /// [whispernet: 3]
    #[test]
    fn ten_million_ids_pass_in_flat_memory_and_none_is_new_twice() {
        const IDS: usize = 20_000;
        let mut seen = seen(IDS, Duration::from_secs(60));
        let (mut id, mut eldest) = (itoa::Buffer::new(), itoa::Buffer::new());
        let mut capacity = 0;
        for number in 0..10_000_000_u64 {
            assert!(seen.insert(id.format(number), NOW), "{number} is new");
            if number % 1_000 == 0 && number >= IDS as u64 {
                // The eldest that must still be known.
                let eldest = eldest.format(number - IDS as u64 + 1);
                assert!(seen.contains(eldest), "{number}");
            }
            if number == 100_000 {
                capacity = seen.young.capacity() + seen.elder.capacity();
            }
        }
        assert_eq!(seen.young.capacity() + seen.elder.capacity(), capacity);
        assert!(capacity < 4 * 2 * IDS, "{capacity}");
    }

    #[test]
    fn an_id_is_not_new_again_until_it_is_forgotten() {
        let mut seen = seen(2, Duration::from_secs(60));
        assert!(seen.insert("a", NOW));
        assert!(!seen.insert("a", NOW));
        assert!(seen.insert("b", NOW));
        assert!(seen.insert("c", NOW), "begins a generation");
        assert!(!seen.insert("a", NOW), "and is of the younger again");
        assert!(seen.insert("d", NOW));
        assert!(seen.insert("e", NOW));
        assert!(!seen.contains("b"), "b is two generations old");
        assert!(seen.insert("b", NOW));
    }

    #[test]
    fn ids_are_forgotten_by_age() {
        let mut seen = seen(1_000, Duration::from_secs(60));
        let after = |seconds| NOW.after(Duration::from_secs(seconds));
        assert!(seen.insert("a", NOW));
        assert!(!seen.insert("a", after(60)), "it has had its minute and is young again");
        assert!(seen.insert("b", after(120)));
        assert!(!seen.insert("a", after(121)));
        assert!(seen.insert("c", after(180)));
        assert!(seen.insert("d", after(240)));
        assert!(!seen.contains("b"));
        assert!(!seen.insert("c", after(240)));
    }

    #[test]
    fn a_clock_that_goes_back_makes_nothing_new() {
        let mut seen = seen(10, Duration::from_secs(60));
        assert!(seen.insert("a", NOW));
        assert!(!seen.insert("a", Timestamp::from_millis(0)));
    }
}
