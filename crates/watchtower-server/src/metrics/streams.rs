//! What becomes of the connections that the driver of streams drives: why they
//! end, and which of them take nothing just now.
//!
//! Knows no protocol but by its name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use watchtower_hub::Backlog;

use super::show_gauges;
use crate::stream::Ending;

/// How many subscriptions one reading looks at, some ten nanoseconds each.
/// Sessions behind that are not looked at.
const SUBSCRIPTIONS_MAX: usize = 100_000;

/// The counters of one server's streams.
#[derive(Debug, Default)]
pub(crate) struct StreamMetrics {
    closed: Family<ByEnding, Counter>,
    /// Connections that were closed before their client took its last bytes.
    pub(crate) unflushed: Counter,
    /// Connections that a fault in the program ended.
    pub(crate) faults: Counter,
    blocked: Mutex<HashMap<u64, Backlog>>,
}

/// Labels: what was spoken, and why it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEnding {
    protocol: &'static str,
    reason: &'static str,
}

impl StreamMetrics {
    /// A connection ends.
    pub(crate) fn closed(&self, protocol: &'static str, ending: Ending) {
        self.closed.get_or_create(&ByEnding { protocol, reason: ending.name() }).inc();
    }

    /// Shows every reason to end for this protocol, at 0 from the start.
    pub(crate) fn show_protocol(&self, protocol: &'static str) {
        for ending in Ending::ALL {
            drop(self.closed.get_or_create(&ByEnding { protocol, reason: ending.name() }));
        }
    }

    /// Shows these counts in `registry`.
    pub(super) fn register(self: &Arc<StreamMetrics>, registry: &mut Registry) {
        let help = "Connections driven as streams that ended, by protocol and reason";
        registry.register("streams_closed", help, self.closed.clone());
        let help = "Connections closed before their client took its last bytes";
        registry.register("streams_unflushed", help, self.unflushed.clone());
        let help = "Connections that a fault in the program ended";
        registry.register("stream_faults", help, self.faults.clone());
        registry.register_collector(Box::new(Lag(self.clone())));
    }

    /// The connection's client takes nothing more for now.
    pub(crate) fn blocked(&self, connection: u64, backlog: Backlog) {
        self.blocked.lock().insert(connection, backlog);
    }

    /// The connection's client has taken what waited for it, or is gone.
    pub(crate) fn unblocked(&self, connection: u64) {
        self.blocked.lock().remove(&connection);
    }

    /// How many clients take nothing just now, and how many bytes the one is
    /// behind that is so furthest.
    ///
    /// Who takes everything is behind by no more than a turn of its driver, so
    /// nobody else is looked at.
    fn lag(&self) -> (usize, u64) {
        let blocked: Vec<_> = self.blocked.lock().values().cloned().collect();
        let (mut furthest, mut looked_at) = (0, 0);
        for backlog in &blocked {
            if looked_at >= SUBSCRIPTIONS_MAX {
                break;
            }
            let (bytes, subscriptions) = backlog.unread();
            furthest = furthest.max(bytes);
            looked_at += subscriptions + 1;
        }
        (blocked.len(), furthest)
    }
}

/// Reads how far clients are behind when that is asked for.
#[derive(Debug)]
struct Lag(Arc<StreamMetrics>);

impl Collector for Lag {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (blocked, bytes) = self.0.lag();
        let gauges = [
            ("streams_blocked", "Connections whose client takes nothing just now", blocked as u64),
            ("lag_bytes", "How far the slowest of them is behind, in bytes", bytes),
        ];
        show_gauges(&gauges, &mut encoder)
    }
}
