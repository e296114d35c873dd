//! How long a client that gives wrong secrets has to wait.
//!
//! Knows no clock: who reads the client does not for that long.

use std::time::Duration;

/// The second wrong secret waits this long.
const FIRST: Duration = Duration::from_millis(125);
/// None waits longer ([webrocket: slowed logins]).
const LONGEST: Duration = Duration::from_secs(1);

/// The failed logins of one connection, and what they cost.
///
/// They are not forgotten for a login that succeeds: who may read, by a secret
/// or without one, must not try out the other secret any faster for that.
#[derive(Debug, Default)]
pub(super) struct Slowdown {
    failures: u32,
}

impl Slowdown {
    /// A login failed. Returns how long nothing more is to be read from the
    /// client: not at all for the first, then 125 ms, and twice as long each
    /// time, up to a second.
    pub(super) fn after_failure(&mut self) -> Duration {
        let doublings = self.failures.checked_sub(1);
        self.failures = self.failures.saturating_add(1);
        doublings.map_or(Duration::ZERO, |doublings| {
            FIRST.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_free_and_none_costs_more_than_a_second() {
        // [webrocket: slowed logins]
        let mut slowdown = Slowdown::default();
        let waits: Vec<_> = (0..7).map(|_| slowdown.after_failure().as_millis()).collect();
        assert_eq!(waits, [0, 125, 250, 500, 1_000, 1_000, 1_000]);
        let mut patient = Slowdown { failures: u32::MAX };
        assert_eq!([patient.after_failure(), patient.after_failure()], [LONGEST; 2]);
    }
}
