//! How many lines of a kind the log takes.
//!
//! Lines that tell of a client can be caused by whoever reaches the server, as often as he likes,
//! those of libraries included. Knows what a line is about only by where in the program it is
//! written.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Level, Metadata};

/// How many lines of a kind may come at once.
const AT_ONCE: u32 = 20;

/// After how long one more may.
const EACH: Duration = Duration::from_secs(1);

/// Counts lines by where they are written, of which a program has only so many.
#[derive(Debug)]
pub(super) struct LineLimit {
    /// By place, the moment up to which its lines are paid for.
    paid_until: Mutex<BTreeMap<&'static str, Instant>>,
    left_out: AtomicU64,
}

impl LineLimit {
    pub(super) const fn new() -> LineLimit {
        LineLimit { paid_until: Mutex::new(BTreeMap::new()), left_out: AtomicU64::new(0) }
    }

    /// Whether the line is to be written. Lines below `info` always are: who asks for them looks
    /// for something.
    pub(super) fn lets_through(&self, line: &Metadata<'_>) -> bool {
        // The name of a line is its file and number.
        *line.level() > Level::INFO || self.takes(line.name(), Instant::now())
    }

    fn takes(&self, place: &'static str, now: Instant) -> bool {
        let mut all = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let paid_until = all.entry(place).or_insert(now);
        let after = (*paid_until).max(now) + EACH;
        let takes = after <= now + EACH * AT_ONCE;
        if takes {
            *paid_until = after;
        } else {
            self.leave_out();
        }
        takes
    }

    /// Counts a line that was left out.
    pub(super) fn leave_out(&self) {
        self.left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// How many lines were left out since this was last asked.
    pub(super) fn take_left_out(&self) -> u64 {
        self.left_out.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_kind_so_many_come_at_once_and_then_one_a_second_and_the_rest_is_counted() {
        let limit = LineLimit::new();
        let begin = Instant::now();
        let taken = |kind, lines: usize, after| {
            (0..lines).filter(|_| limit.takes(kind, begin + Duration::from_millis(after))).count()
        };
        assert_eq!([taken("a", 100, 0), taken("b", 3, 0)], [20, 3]);
        assert_eq!([taken("a", 100, 999), taken("a", 100, 1_000), taken("a", 100, 3_500)], [0, 1, 2]);
        assert_eq!(limit.take_left_out(), 80 + 100 + 99 + 98);
        assert_eq!((limit.take_left_out(), taken("a", 100, 60_000)), (0, 20));
    }
}
