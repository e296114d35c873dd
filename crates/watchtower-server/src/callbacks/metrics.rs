//! What is counted about callbacks.
//!
//! Knows nothing of where the counts are shown, nor under which prefix.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::post::{Failure, Outcome};
use super::worker::End;

/// What is configured in `[callbacks]` of how many there may be.
const LIMITS: [&str; 2] = ["max_subscriptions", "max_subscriptions_per_sender"];

/// In seconds: from a receiver on this machine to one that hangs.
const SECONDS_BUCKETS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The counts of all callback subscriptions. Clones count together.
#[derive(Debug, Clone)]
pub struct CallbackMetrics {
    attempts: Family<AttemptLabels, Counter>,
    ended: Family<EndLabels, Counter>,
    refused: Family<LimitLabels, Counter>,
    subscriptions: Gauge,
    failing: Gauge,
    seconds: Histogram,
}

/// Whether one subscription is counted among those whose last attempt failed.
#[derive(Debug)]
pub(super) struct FailingMark {
    failing: Gauge,
    is_set: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    reason: &'static str,
}

impl Default for CallbackMetrics {
    fn default() -> CallbackMetrics {
        CallbackMetrics {
            attempts: Family::default(),
            ended: Family::default(),
            refused: Family::default(),
            subscriptions: Gauge::default(),
            failing: Gauge::default(),
            seconds: Histogram::new(SECONDS_BUCKETS),
        }
    }
}

impl CallbackMetrics {
    /// Shows these counts in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        // Shown as 0 until there is something to count.
        for outcome in ["accepted", "gone"].into_iter().chain(Failure::CAUSES) {
            drop(self.attempts.get_or_create(&AttemptLabels { outcome }));
        }
        for end in End::ALL {
            drop(self.ended.get_or_create(&EndLabels { reason: end.reason() }));
        }
        for limit in LIMITS {
            drop(self.refused.get_or_create(&LimitLabels { limit }));
        }
        let help = "Callback subscriptions refused, by limit";
        registry.register("callback_subscriptions_refused", help, self.refused.clone());
        let help = "Callback subscriptions whose last attempt failed";
        registry.register("callback_failing", help, self.failing.clone());
        let help = "From the beginning of a callback to its answer or failure";
        registry.register("callback_attempt_seconds", help, self.seconds.clone());
        let attempts = self.attempts.clone();
        registry.register("callback_attempts", "Callbacks posted, by what came of it", attempts);
        let ended = self.ended.clone();
        registry.register(
            "callback_subscriptions_ended",
            "Callback subscriptions that ended, by reason",
            ended,
        );
        let subscriptions = self.subscriptions.clone();
        registry.register("callback_subscriptions", "Callback subscriptions that there are", subscriptions);
    }

    pub(super) fn attempted(&self, outcome: &Outcome, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        let outcome = match outcome {
            Outcome::Accepted => "accepted",
            Outcome::Gone => "gone",
            Outcome::Failed(failure) => failure.cause(),
        };
        self.attempts.get_or_create(&AttemptLabels { outcome }).inc();
    }

    // [http: callbacks] "the subscription is ended and counted"
    pub(super) fn ended(&self, end: End) {
        self.ended.get_or_create(&EndLabels { reason: end.reason() }).inc();
    }

    /// A subscription was refused by this one of [`LIMITS`].
    pub(super) fn refused(&self, limit: &'static str) {
        debug_assert!(LIMITS.contains(&limit));
        self.refused.get_or_create(&LimitLabels { limit }).inc();
    }

    /// The mark of a new subscription, which has not failed yet.
    pub(super) fn failing_mark(&self) -> FailingMark {
        FailingMark { failing: self.failing.clone(), is_set: false }
    }

    pub(super) fn set_subscriptions(&self, count: usize) {
        self.subscriptions.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

impl FailingMark {
    pub(super) fn set(&mut self, is_failing: bool) {
        if is_failing != self.is_set {
            self.failing.inc_by(if is_failing { 1 } else { -1 });
            self.is_set = is_failing;
        }
    }
}

impl Drop for FailingMark {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
impl CallbackMetrics {
    pub(super) fn attempts(&self, outcome: &'static str) -> u64 {
        self.attempts.get_or_create(&AttemptLabels { outcome }).get()
    }

    pub(super) fn ends(&self, reason: &'static str) -> u64 {
        self.ended.get_or_create(&EndLabels { reason }).get()
    }

    /// How many subscriptions there are, and how many of them fail.
    pub(super) fn subscriptions(&self) -> (i64, i64) {
        (self.subscriptions.get(), self.failing.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_and_ends_are_shown_by_cause() {
        let metrics = CallbackMetrics::default();
        metrics.attempted(&Outcome::Accepted, Duration::from_millis(3));
        metrics.attempted(&Outcome::Failed(Failure::TimedOut), Duration::from_secs(10));
        metrics.attempted(&Outcome::Failed(Failure::TimedOut), Duration::from_secs(11));
        metrics.refused("max_subscriptions");
        let [mut failing, mut other, mut recovered] = [(); 3].map(|()| metrics.failing_mark());
        failing.set(true);
        failing.set(true);
        other.set(true);
        drop(other);
        recovered.set(true);
        recovered.set(false);
        metrics.ended(End::GaveUp);
        metrics.set_subscriptions(3);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a string takes all");
        for line in [
            "callback_attempts_total{outcome=\"accepted\"} 1\n",
            "callback_attempts_total{outcome=\"timeout\"} 2\n",
            "callback_subscriptions_ended_total{reason=\"gave_up\"} 1\n",
            "callback_subscriptions 3\n",
            "callback_failing 1\n",
            "callback_subscriptions_refused_total{limit=\"max_subscriptions\"} 1\n",
            "callback_subscriptions_refused_total{limit=\"max_subscriptions_per_sender\"} 0\n",
            "callback_attempt_seconds_bucket{le=\"0.005\"} 1\n",
            "callback_attempt_seconds_count 3\n",
            "callback_attempts_total{outcome=\"redirect\"} 0\n",
            "callback_subscriptions_ended_total{reason=\"draining\"} 0\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
