//! When the next messages are due: pure arithmetic, no clock.

use std::time::Duration;

use serde::Serialize;

/// How messages are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// Bursts of so many messages, written at once; the next when every subscriber has had all of
    /// the last. A window of 1 is one message at a time.
    Window(u32),
    /// So many messages a second, whether or not the last have arrived. Latency counts from the
    /// moment at which a message was due, not from when it could be written: no coordinated
    /// omission.
    Rate(u32),
}

impl Pace {
    /// How many messages are written at once, when nothing holds them up.
    pub(crate) fn burst(self) -> u32 {
        match self {
            Self::Window(messages) => messages,
            Self::Rate(_) => 1,
        }
    }

    /// How many messages may be on their way at a time, as far as duplicates are told from late
    /// ones; for windows one window more than are awaited, for those that were given up.
    pub(crate) fn in_flight_max(self) -> u32 {
        match self {
            Self::Window(messages) => messages.saturating_mul(2),
            Self::Rate(_) => 4096,
        }
    }
}

/// What is due of a number of messages at a pace.
#[derive(Debug)]
pub(crate) struct Schedule {
    pace: Pace,
    messages: u32,
    sent: u32,
}

impl Schedule {
    pub(crate) fn new(pace: Pace, messages: u32) -> Self {
        Self { pace, messages, sent: 0 }
    }

    /// How many messages are due, so long after the start; `settled`: nothing is outstanding.
    /// They count as sent.
    pub(crate) fn take_due(&mut self, elapsed: Duration, settled: bool) -> u32 {
        let left = self.messages - self.sent;
        let due = match self.pace {
            Pace::Window(messages) if settled => messages.min(left),
            Pace::Window(_) => 0,
            Pace::Rate(rate) => {
                let by_now = elapsed.as_nanos() * u128::from(rate) / 1_000_000_000 + 1;
                let due = by_now.saturating_sub(u128::from(self.sent));
                u32::try_from(due).unwrap_or(u32::MAX).min(left)
            }
        };
        self.sent += due;
        due
    }

    /// The next message, by its index, and when it is due after the start, if there is one and that
    /// is a matter of time.
    pub(crate) fn next(&self) -> Option<(u32, Duration)> {
        (!self.is_over()).then_some(())?;
        Some((self.sent, self.due_at(self.sent)?))
    }

    /// When the message of this index (from 0) is due after the start; `None` if that is whenever
    /// the ones before it have arrived.
    pub(crate) fn due_at(&self, index: u32) -> Option<Duration> {
        match self.pace {
            Pace::Window(_) => None,
            Pace::Rate(rate) => {
                let nanoseconds = u64::from(index) * 1_000_000_000;
                Some(Duration::from_nanos(nanoseconds.div_ceil(u64::from(rate))))
            }
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.sent == self.messages
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_window_is_due_when_the_last_has_arrived_and_the_last_one_may_be_smaller() {
        let mut schedule = Schedule::new(Pace::Window(4), 6);
        assert_eq!(schedule.take_due(Duration::ZERO, true), 4);
        assert_eq!(schedule.take_due(Duration::from_secs(9), false), 0);
        assert!(!schedule.is_over());
        assert_eq!(schedule.next(), None, "it is a matter of arrivals");
        assert_eq!(schedule.take_due(Duration::ZERO, true), 2);
        assert!(schedule.is_over());
        assert_eq!(schedule.take_due(Duration::ZERO, true), 0);
    }

    #[test]
    fn a_rate_that_could_not_be_kept_is_caught_up_with_at_once() {
        let mut schedule = Schedule::new(Pace::Rate(1000), 10);
        assert_eq!(schedule.take_due(Duration::ZERO, true), 1);
        assert_eq!(schedule.take_due(Duration::from_micros(999), false), 0);
        assert_eq!(schedule.take_due(Duration::from_micros(5500), false), 5);
        assert_eq!(schedule.next(), Some((6, Duration::from_millis(6))));
        assert_eq!(schedule.take_due(Duration::from_secs(1), false), 4);
        assert!(schedule.is_over());
        assert_eq!(schedule.next(), None);
    }

    proptest! {
        #[test]
        fn a_message_is_due_at_the_time_that_it_is_due(
            rate in 1..2_000_000_u32,
            index in 0..1_000_000_u32,
        ) {
            let mut schedule = Schedule::new(Pace::Rate(rate), u32::MAX);
            let at = schedule.due_at(index).unwrap();
            prop_assert_eq!(schedule.take_due(at, false), index + 1);
            if let Some(before) = at.checked_sub(Duration::from_nanos(1)) {
                let mut schedule = Schedule::new(Pace::Rate(rate), u32::MAX);
                prop_assert!(schedule.take_due(before, false) <= index);
            }
        }
    }
}
