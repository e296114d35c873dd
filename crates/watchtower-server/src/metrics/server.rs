//! What the assembled server tells when it is asked: what is open, and which
//! limits are in force.
//!
//! Holds the server weakly: the server holds the metrics.

use std::fmt;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{ByLimit, show_counts, show_gauges};
use crate::config::Config;
use crate::server::Shared;

/// Reads what a server tells when it is asked for.
pub(super) struct ServerCounts(Weak<Shared>);

impl ServerCounts {
    pub(super) fn new(shared: &Arc<Shared>) -> ServerCounts {
        ServerCounts(Arc::downgrade(shared))
    }
}

impl fmt::Debug for ServerCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCounts").finish_non_exhaustive()
    }
}

impl Collector for ServerCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(shared) = self.0.upgrade() else { return Ok(()) };
        let help = "Connections that are open, UDP addresses among them";
        show_gauges(&[("connections_open", help, shared.guests.open() as u64)], &mut encoder)?;
        let uncounted = [
            (
                "requests_uncounted",
                "Requests let through since too many addresses were counted",
                shared.http.requests_uncounted(),
            ),
            (
                "registrations_uncounted",
                "Registrations let through since too many addresses were counted",
                shared.registrations_uncounted(),
            ),
            ("certificate_failures", "Times that a new certificate could not be used", shared.tls.failures()),
        ];
        show_counts(&uncounted, &mut encoder)?;
        let help = "Limits in force, by the key that sets them.";
        let mut family = encoder.encode_descriptor("limit", help, None, MetricType::Gauge)?;
        for (limit, value) in limits(&shared.config.load()) {
            ConstGauge::new(value as u64).encode(family.encode_family(&ByLimit { limit })?)?;
        }
        Ok(())
    }
}

/// Those that something else that is shown comes up to.
fn limits(config: &Config) -> [(&'static str, usize); 5] {
    [
        ("max_connections", config.limits.max_connections),
        ("max_channels", config.limits.max_channels),
        ("max_senders", config.limits.max_senders),
        ("lag_bytes", config.limits.lag_bytes),
        ("max_subscriptions", config.callbacks.max_subscriptions),
    ]
}
