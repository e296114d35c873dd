//! Which subscriber has had which message: a copy counts once.
//!
//! Each subscriber has the highest number that it was handed, and a window of bits for the numbers
//! below it, as in anti-replay windows: several channels may overtake each other, and datagrams
//! may arrive late or twice. Memory is fixed when it is made.

use crate::load::payload::Number;

/// What a copy of a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// The first of this number that this subscriber was handed.
    First,
    /// Another, or one that fell too far behind to tell.
    Repeated,
}

/// What every subscriber has been handed.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// How far behind the newest a first copy is still known to be one.
    /// Invariant: a power of two, at least 64.
    window: u32,
    /// The highest number of each subscriber. Numbers start at 1.
    newest: Vec<u32>,
    /// A bit for each number in each subscriber's window, at the number modulo the window.
    seen: Vec<u64>,
}

impl Arrivals {
    /// For so many subscribers, with at most `in_flight` messages on their way at a time.
    pub(crate) fn new(subscribers: usize, in_flight: u32) -> Self {
        let window = in_flight.next_power_of_two().max(u64::BITS);
        let words = subscribers * (window / u64::BITS) as usize;
        Self { window, newest: vec![0; subscribers], seen: vec![0; words] }
    }

    /// Notes a copy that a subscriber (by its index) was handed.
    pub(crate) fn note(&mut self, subscriber: usize, number: Number) -> Receipt {
        let words = (self.window / u64::BITS) as usize;
        let newest = &mut self.newest[subscriber];
        let seen = &mut self.seen[subscriber * words..][..words];
        let Number(number) = number;
        if number > *newest {
            if number - *newest >= self.window {
                seen.fill(0);
            } else {
                for skipped in *newest + 1..number {
                    let (word, bit) = place(skipped, self.window);
                    seen[word] &= !bit;
                }
            }
            *newest = number;
        } else {
            let (word, bit) = place(number, self.window);
            if *newest - number >= self.window || seen[word] & bit != 0 {
                return Receipt::Repeated;
            }
        }
        let (word, bit) = place(number, self.window);
        seen[word] |= bit;
        Receipt::First
    }
}

/// Where a number's bit is.
fn place(number: u32, window: u32) -> (usize, u64) {
    let slot = number & (window - 1);
    ((slot / u64::BITS) as usize, 1 << (slot % u64::BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn check(arrivals: &mut Arrivals, subscriber: usize, numbers: &[u32], expected: Receipt) {
        for number in numbers {
            assert_eq!(arrivals.note(subscriber, Number(*number)), expected, "{number}");
        }
    }

    #[test]
    fn a_copy_counts_once_for_each_subscriber() {
        let mut arrivals = Arrivals::new(2, 64);
        check(&mut arrivals, 0, &[1, 2, 4, 3], Receipt::First);
        check(&mut arrivals, 0, &[2, 4], Receipt::Repeated);
        check(&mut arrivals, 1, &[2, 4], Receipt::First);
    }

    #[test]
    fn a_copy_that_is_behind_the_window_is_not_counted() {
        let mut arrivals = Arrivals::new(1, 64);
        check(&mut arrivals, 0, &[1000, 937], Receipt::First);
        check(&mut arrivals, 0, &[936], Receipt::Repeated);
    }

    proptest! {
        #[test]
        fn within_the_window_it_agrees_with_a_set(
            steps in proptest::collection::vec((any::<bool>(), 0..200_u32), 1..500),
        ) {
            let mut arrivals = Arrivals::new(1, 64);
            let mut seen = HashSet::new();
            let mut newest = 0_u32;
            for (ahead, distance) in steps {
                let number = match ahead {
                    true => newest + 1 + distance,
                    false => newest.saturating_sub(distance % 64).max(1),
                };
                newest = newest.max(number);
                let expected = if seen.insert(number) { Receipt::First } else { Receipt::Repeated };
                prop_assert_eq!(arrivals.note(0, Number(number)), expected, "{}", number);
            }
        }
    }
}
