//! How long things take, as histograms.
//!
//! What happens often is measured once in so many times: to look at a clock
//! each time would cost more than it tells. Knows no request and no
//! connection.

use std::cell::Cell;
use std::thread::LocalKey;
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use watchtower_hub::{Hub, Timestamp};

/// One in how many is measured. A prime, so that nothing that goes round is
/// measured at the same place each time.
const ONE_IN: u32 = 31;

/// In seconds: from one message in an idle hub to a thousand behind a lock.
const PUBLISH_BUCKETS: [f64; 13] = [
    0.000_002, 0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025,
    0.1, 1.0,
];

/// In seconds. The time of a message is in whole milliseconds.
const DELIVERY_BUCKETS: [f64; 13] =
    [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// In seconds.
const REQUEST_BUCKETS: [f64; 11] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];

thread_local! {
    static PUBLICATIONS: Cell<u32> = const { Cell::new(0) };
    static DELIVERIES: Cell<u32> = const { Cell::new(0) };
}

/// The histograms of one server. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    publish: Histogram,
    delivery: Histogram,
    request: Histogram,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies {
            publish: Histogram::new(PUBLISH_BUCKETS),
            delivery: Histogram::new(DELIVERY_BUCKETS),
            request: Histogram::new(REQUEST_BUCKETS),
        }
    }
}

impl Latencies {
    /// Shows these histograms in `registry`.
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "From reading a publication to its messages being appended, one in 31";
        registry.register("publish_seconds", help, self.publish.clone());
        let help = "From a message being published to its being handed to the system, one in 31";
        registry.register("delivery_seconds", help, self.delivery.clone());
        let help = "From an HTTP request being read to its being answered";
        registry.register("http_request_seconds", help, self.request.clone());
    }

    /// A message was handed to the system so long after it was published.
    pub(crate) fn delivered(&self, after: Duration) {
        self.delivery.observe(after.as_secs_f64());
    }

    /// An HTTP request was answered after this.
    pub(crate) fn answered(&self, after: Duration) {
        self.request.observe(after.as_secs_f64());
    }

    /// What was read at the beginning of `publication` is carried out.
    pub(crate) fn carried_out(&self, publication: Publication, hub: &Hub) {
        if hub.published_by_this_thread() != publication.published {
            PUBLICATIONS.set(ONE_IN - 1);
            self.publish.observe(publication.began.elapsed().as_secs_f64());
        }
    }
}

/// Something that may publish, and is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publication {
    began: Instant,
    published: u64,
}

impl Publication {
    /// Begins to measure, if it is this one's turn. Must be
    /// [carried out](Latencies::carried_out) by the same thread.
    #[inline]
    pub(crate) fn sample(hub: impl FnOnce() -> Hub) -> Option<Publication> {
        is_due(&PUBLICATIONS).then(|| {
            let published = hub().published_by_this_thread();
            Publication { began: Instant::now(), published }
        })
    }
}

/// When the message was published that a session was woken by, if it is this
/// delivery's turn to be measured.
#[inline]
pub(crate) fn sample_delivery(woken_by: impl FnOnce() -> Option<Timestamp>) -> Option<Timestamp> {
    let published = if is_due(&DELIVERIES) { woken_by() } else { None };
    published.inspect(|_| DELIVERIES.set(ONE_IN - 1))
}

/// Whether so many were passed over. From then on all are due, until one of them
/// is found to be what is measured.
#[inline]
fn is_due(turns: &'static LocalKey<Cell<u32>>) -> bool {
    let left = turns.get();
    turns.set(left.saturating_sub(1));
    left == 0
}

#[cfg(test)]
mod tests {
    use watchtower_hub::{Content, Publish, Settings};

    use super::*;
    use crate::clock::SystemEntropy;

    #[test]
    fn one_in_so_many_is_measured_and_only_if_something_was_published() {
        let hub = Hub::new(Settings::default(), Box::new(SystemEntropy));
        let latencies = Latencies::default();
        for turn in 0..3 * ONE_IN {
            let publication = Publication::sample(|| hub.clone());
            // From the second round's beginning nothing is published for a while.
            let publishes = !(ONE_IN..ONE_IN + 5).contains(&turn);
            let is_due = turn == 0 || (ONE_IN..=ONE_IN + 5).contains(&turn) || turn == 2 * ONE_IN + 5;
            assert_eq!(publication.is_some(), is_due, "{turn}");
            if publishes {
                let message = Publish::new(Content::text("x"));
                hub.publish(&5.into(), message, Timestamp::default()).expect("it is taken");
            }
            publication.into_iter().for_each(|publication| latencies.carried_out(publication, &hub));
        }
        let mut registry = Registry::default();
        latencies.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a string takes all");
        assert!(text.contains("\npublish_seconds_count 3\n"), "{text}");
    }
}
