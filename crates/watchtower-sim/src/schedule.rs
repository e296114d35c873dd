//! What happens when, in virtual time. Knows nothing of what happens.

use std::collections::BTreeMap;

/// Milliseconds since the beginning of a run.
pub(crate) type Millis = u64;

/// Events in the order of their times, and among those of one time in the order
/// in which they were added.
pub(crate) struct Schedule<E> {
    now: Millis,
    events: BTreeMap<Millis, Vec<E>>,
}

impl<E> Schedule<E> {
    pub(crate) fn new() -> Schedule<E> {
        Schedule { now: 0, events: BTreeMap::new() }
    }

    pub(crate) fn now(&self) -> Millis {
        self.now
    }

    /// Adds an event. What is in the past happens at once, behind what is due.
    pub(crate) fn add(&mut self, at: Millis, event: E) {
        self.events.entry(at.max(self.now)).or_default().push(event);
    }

    /// The events of the next time that has some, which it is then; `None` when
    /// there are none up to `end`, and then it is that.
    pub(crate) fn next(&mut self, end: Millis) -> Option<Vec<E>> {
        match self.events.first_entry() {
            Some(first) if *first.key() <= end => {
                self.now = *first.key();
                Some(first.remove())
            }
            _ => {
                self.now = end.max(self.now);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_their_times() {
        let mut schedule = Schedule::new();
        schedule.add(20, 'c');
        schedule.add(10, 'a');
        schedule.add(20, 'd');
        assert_eq!(schedule.next(100), Some(vec!['a']));
        schedule.add(5, 'b');
        assert_eq!((schedule.next(100), schedule.now()), (Some(vec!['b']), 10), "time does not go back");
        assert_eq!(schedule.next(19), None);
        assert_eq!(schedule.now(), 19);
        assert_eq!(schedule.next(20), Some(vec!['c', 'd']));
        assert_eq!(schedule.next(20), None);
    }
}
