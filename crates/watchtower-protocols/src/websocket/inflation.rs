//! What a client may make this server inflate.
//!
//! A few bytes on the wire can stand for a thousand times as many, and it is
//! those that cost time. Knows no message and no clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use watchtower_hub::Timestamp;

/// How many times as long as it was sent a message may become for nothing.
/// What people write, and what programs write in JSON, stays below.
const FREE_FACTOR: usize = 16;

/// What one client had inflated beyond what it may for nothing.
#[derive(Debug, Default)]
pub(super) struct InflationMeter {
    /// In bytes, at `as_of`. It is forgiven with time.
    owed: u64,
    as_of: Timestamp,
}

impl InflationMeter {
    /// Notes a message of `sent` bytes that became `inflated`. Returns how long
    /// nothing more is to be inflated, when the client owes more than is
    /// forgiven in a second.
    pub(super) fn charge(
        &mut self,
        sent: usize,
        inflated: usize,
        per_second: usize,
        now: Timestamp,
    ) -> Option<Duration> {
        let excess = inflated.saturating_sub(sent.saturating_mul(FREE_FACTOR)) as u64;
        if excess == 0 {
            return None;
        }
        let per_second = per_second.max(1) as u64;
        let millis = u64::try_from(now.since(self.as_of).as_millis()).unwrap_or(u64::MAX);
        self.owed = self.owed.saturating_sub(per_second.saturating_mul(millis) / 1_000);
        self.owed = self.owed.saturating_add(excess);
        self.as_of = self.as_of.max(now);
        let due = self.owed.checked_sub(per_second).filter(|due| *due > 0)?;
        Some(Duration::from_millis(due.saturating_mul(1_000).div_ceil(per_second)))
    }
}

/// What happened on all WebSockets of a server because of compression.
#[derive(Debug, Default)]
pub struct InflationCounts {
    waited: AtomicU64,
    refused: AtomicU64,
}

impl InflationCounts {
    /// How often a client had to wait, since it had too much inflated.
    pub fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    /// How many connections were closed for a compressed message that was too
    /// long for them.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn count_wait(&self) {
        self.waited.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: usize = 1 << 20;

    fn millis(millis: u64) -> Option<Duration> {
        Some(Duration::from_millis(millis))
    }

    #[test]
    fn what_compresses_as_usual_costs_nothing_however_much_it_is() {
        let mut meter = InflationMeter::default();
        for _ in 0..10_000 {
            assert_eq!(meter.charge(1_000, 16_000, LONGEST, Timestamp::from_millis(5)), None);
        }
    }

    #[test]
    fn a_second_s_worth_may_come_at_once_and_more_waits_until_it_is_forgiven() {
        let mut meter = InflationMeter::default();
        let mut charge = |at| meter.charge(0, LONGEST, LONGEST, Timestamp::from_millis(at));
        assert_eq!(charge(50_000), None);
        assert_eq!(charge(50_000), millis(1_000));
        // Who waits is always let in for one more of the longest.
        assert_eq!(charge(51_000), millis(1_000));
        assert_eq!(charge(52_500), millis(500));
        assert_eq!(charge(60_000), None);
        assert_eq!(charge(0), millis(1_000), "a clock that was set back forgives nothing");
    }
}
