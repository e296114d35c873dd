//! What is counted about callbacks.
//!
//! Knows nothing of where the counts are shown, nor under which prefix.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::post::{Failure, Outcome};
use super::worker::End;

/// The counts of all callback subscriptions. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct CallbackMetrics {
    attempts: Family<AttemptLabels, Counter>,
    ended: Family<EndLabels, Counter>,
    subscriptions: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    reason: &'static str,
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

    pub(super) fn attempted(&self, outcome: &Outcome) {
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

    pub(super) fn set_subscriptions(&self, count: usize) {
        self.subscriptions.set(i64::try_from(count).unwrap_or(i64::MAX));
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_and_ends_are_shown_by_cause() {
        let metrics = CallbackMetrics::default();
        metrics.attempted(&Outcome::Accepted);
        metrics.attempted(&Outcome::Failed(Failure::TimedOut));
        metrics.attempted(&Outcome::Failed(Failure::TimedOut));
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
            "callback_attempts_total{outcome=\"redirect\"} 0\n",
            "callback_subscriptions_ended_total{reason=\"draining\"} 0\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
