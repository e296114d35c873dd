//! Choices at random, from a key: the same key makes the same choices.
//!
//! Nobody without the key can tell what is chosen next.

use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

pub(super) struct Random {
    hasher: SipHasher13,
    drawn: u64,
}

impl Random {
    /// Of one key, each `purpose` has choices of its own.
    pub(super) fn new(key: [u8; 16], purpose: &str) -> Random {
        let mut hasher = SipHasher13::new_with_key(&key);
        purpose.hash(&mut hasher);
        Random { hasher, drawn: 0 }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.drawn += 1;
        let mut hasher = self.hasher;
        hasher.write_u64(self.drawn);
        hasher.finish()
    }

    /// A number below `end`; zero when there is none.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end as u64).max(1)).unwrap_or(0)
    }

    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        items.get(self.below(items.len())).copied()
    }

    /// That many of them, in any order; all, when there are fewer.
    pub(super) fn sample<T>(&mut self, mut items: Vec<T>, count: usize) -> Vec<T> {
        let count = count.min(items.len());
        for at in 0..count {
            let other = at + self.below(items.len() - at);
            items.swap(at, other);
        }
        items.truncate(count);
        items
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_key_and_purpose_choose_the_same() {
        let drawn = |key, purpose| {
            let mut random = Random::new([key; 16], purpose);
            [random.next(), random.next()]
        };
        assert_eq!(drawn(1, "a"), drawn(1, "a"));
        assert_ne!(drawn(1, "a"), drawn(2, "a"));
        assert_ne!(drawn(1, "a"), drawn(1, "b"));
    }

    #[test]
    fn a_sample_has_each_item_once_and_every_item_has_its_chance() {
        let mut random = Random::new([1; 16], "");
        let mut chosen = BTreeSet::new();
        for _ in 0..100 {
            let sample = random.sample((0..10).collect(), 3);
            assert_eq!(sample.iter().collect::<BTreeSet<_>>().len(), 3);
            chosen.extend(sample);
        }
        assert_eq!(chosen.len(), 10);
        assert_eq!(random.sample(vec![1, 2], 3).len(), 2);
        assert_eq!(random.pick::<u8>(&[]), None);
    }
}
