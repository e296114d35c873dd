//! When to try a failed callback again, and when to stop trying
//! ([http: callbacks]).
//!
//! Pure: the time of a failure and the randomness of the jitter are handed in.

use std::time::{Duration, Instant};

/// The delay before the first retry lies within this and half of it.
pub const FIRST_DELAY_MAX: Duration = Duration::from_secs(1);

/// The longest delay between two attempts.
pub const DELAY_MAX: Duration = Duration::from_secs(300);

/// The failures of one subscription since its last success.
#[derive(Debug, Clone, Copy, Default)]
pub struct RetrySchedule {
    /// When the unbroken run of failures began, and how many delays it has
    /// had. Invariant: none exactly after a success and at the start.
    failing: Option<(Instant, u32)>,
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Try again after this time.
    After(Duration),
    /// Nothing but failures for as long as is allowed: end the subscription.
    GiveUp,
}

impl RetrySchedule {
    /// Notes a success: the next failure is a first one again.
    pub fn succeeded(&mut self) {
        self.failing = None;
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// Notes that an attempt failed at `now`, and says what is next: a delay
    /// that doubles from [`FIRST_DELAY_MAX`] up to [`DELAY_MAX`], of which
    /// `random` (a number drawn evenly from all `u32`) takes away up to half.
    ///
    /// The last attempt falls on the moment when `give_up` has passed since
    /// the first failure; when that one fails too, it is over.
    pub fn failed(&mut self, now: Instant, give_up: Duration, random: u32) -> Retry {
        let (since, delays) = self.failing.unwrap_or((now, 0));
        self.failing = Some((since, delays.saturating_add(1)));
        let left = give_up.saturating_sub(now.saturating_duration_since(since));
        if left.is_zero() {
            return Retry::GiveUp;
        }
        let doubled = 2u32.checked_pow(delays).and_then(|times| FIRST_DELAY_MAX.checked_mul(times));
        let longest = doubled.map_or(DELAY_MAX, |delay| delay.min(DELAY_MAX));
        let spared = longest.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0);
        Retry::After((longest - spared).min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// The delays in milliseconds of so many failures, without jitter.
    fn delays(schedule: &mut RetrySchedule, failures: usize) -> Vec<u128> {
        let mut now = Instant::now();
        let mut fail = || match schedule.failed(now, DAY, 0) {
            Retry::After(delay) => {
                now += delay;
                delay.as_millis()
            }
            Retry::GiveUp => panic!("gave up within the first failures"),
        };
        (0..failures).map(|_| fail()).collect()
    }

    // [http: callbacks] "the first time within 1 s, then with exponential backoff"
    #[test]
    fn delays_double_from_one_second_to_five_minutes() {
        assert_eq!(
            delays(&mut RetrySchedule::default(), 11),
            [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300].map(|seconds| seconds * 1_000),
        );
    }

    #[test]
    fn a_success_starts_the_delays_and_the_patience_afresh() {
        let mut schedule = RetrySchedule::default();
        assert!(!schedule.is_failing());
        delays(&mut schedule, 5);
        assert!(schedule.is_failing());
        schedule.succeeded();
        assert!(!schedule.is_failing());
        assert_eq!(delays(&mut schedule, 2), [1_000, 2_000]);
    }

    #[test]
    fn jitter_takes_away_half_at_most() {
        let now = Instant::now();
        for (random, millis) in [(0, 1_000), (u32::MAX / 2, 750), (u32::MAX, 500)] {
            let delay = match RetrySchedule::default().failed(now, DAY, random) {
                Retry::After(delay) => delay,
                Retry::GiveUp => panic!("gave up at the first failure"),
            };
            assert_eq!(delay.as_micros().div_ceil(1_000), millis, "{random}");
        }
    }

    // [http: callbacks] "after callback_give_up (default 24 h) of failures the subscription is ended"
    #[test]
    fn it_gives_up_when_the_attempt_at_the_end_of_the_patience_fails() {
        let start = Instant::now();
        let give_up = Duration::from_millis(2_500);
        let at = |millis| start + Duration::from_millis(millis);
        let mut schedule = RetrySchedule::default();
        let after = |millis| Retry::After(Duration::from_millis(millis));
        assert_eq!(schedule.failed(at(0), give_up, 0), after(1_000));
        assert_eq!(schedule.failed(at(1_000), give_up, 0), after(1_500));
        assert_eq!(schedule.failed(at(2_500), give_up, 0), Retry::GiveUp);
    }

    #[test]
    fn without_patience_the_first_failure_is_the_last() {
        let mut schedule = RetrySchedule::default();
        assert_eq!(schedule.failed(Instant::now(), Duration::ZERO, 7), Retry::GiveUp);
    }

    proptest! {
        #[test]
        fn every_delay_is_within_its_bounds_and_the_end_comes_on_time(
            randoms in proptest::collection::vec(any::<u32>(), 1..400),
            attempt_millis in 0u64..20_000,
        ) {
            let start = Instant::now();
            let attempt = Duration::from_millis(attempt_millis);
            let mut schedule = RetrySchedule::default();
            let mut now = start;
            for (index, random) in randoms.into_iter().enumerate() {
                match schedule.failed(now, DAY, random) {
                    Retry::After(delay) => {
                        prop_assert!(delay > Duration::ZERO && delay <= DELAY_MAX);
                        prop_assert!(index > 0 || delay <= FIRST_DELAY_MAX);
                        now += delay;
                        prop_assert!(now <= start + DAY);
                        now += attempt;
                    }
                    Retry::GiveUp => {
                        prop_assert!(now - start >= DAY && now - start <= DAY + attempt);
                        return Ok(());
                    }
                }
            }
        }
    }
}
