//! What the hub counts, read when it is asked for.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use watchtower_hub::{Counts, Hub};

use super::{ByLimit, ByProtocol, show_counts, show_family, show_gauges};

/// What messages are called that were skipped for clients that are away.
const AWAY: &str = "away";

/// Reads the hub's counters when they are asked for.
pub(super) struct HubCounts(pub(super) Hub);

impl fmt::Debug for HubCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubCounts").finish_non_exhaustive()
    }
}

impl Collector for HubCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self.0.counts();
        let counters = [
            ("messages_published", "Messages taken", counts.published),
            ("published_bytes", "Content of messages taken", counts.published_bytes),
            ("messages_delivered", "Messages handed to sessions", counts.delivered),
            ("sessions_lagging_closed", "Sessions closed since they fell behind", counts.lagging_closed),
            ("senders_expired", "Senders forgotten after their time", counts.senders_expired),
            ("joins_expired", "Joins ended since nobody came back to them", counts.joins_expired),
            (
                "presence_left_out",
                "Changes of presence that were told by number alone",
                counts.presence_left_out,
            ),
            ("durable_pages_read", "Pages of durable channels read for those behind", counts.pages),
            (
                "durable_messages_missed",
                "Messages of durable channels that could not be read, for each who missed one",
                counts.unreadable,
            ),
        ];
        show_counts(&counters, &mut encoder)?;
        let help = "What a limit refused, by limit";
        show_family("limit_refusals", help, refusals(&counts), &mut encoder)?;
        let gauges = [
            ("channels", "Channels that there are", counts.channels as u64),
            ("senders", "Senders that are registered", counts.senders as u64),
            ("sessions", "Sessions that are open", counts.sessions as u64),
            ("subscriptions", "Subscriptions that there are", counts.subscriptions as u64),
            ("retained_bytes", "Last messages that channels retain", counts.retained_bytes),
        ];
        show_gauges(&gauges, &mut encoder)?;
        self.encode_by_protocol(counts.skipped_away, &mut encoder)
    }
}

impl HubCounts {
    fn encode_by_protocol(
        &self,
        skipped_away: u64,
        encoder: &mut DescriptorEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        let by_protocol = self.0.counts_by_protocol();
        let skipped =
            by_protocol.iter().map(|counts| (ByProtocol { protocol: counts.protocol }, counts.skipped));
        let away = (ByProtocol { protocol: AWAY }, skipped_away);
        let help = "Messages skipped for sessions that fell behind, by protocol";
        show_family("messages_skipped", help, skipped.chain([away]), encoder)?;
        let help = "Sessions that are open, by protocol.";
        let mut family = encoder.encode_descriptor("protocol_sessions", help, None, MetricType::Gauge)?;
        for counts in &by_protocol {
            let labels = ByProtocol { protocol: counts.protocol };
            ConstGauge::new(counts.sessions as u64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// How often each limit refused something, by the name that it is configured by.
fn refusals(counts: &Counts) -> [(ByLimit, u64); 5] {
    let refused = counts.refused;
    [
        ("max_message_bytes", refused.message_bytes),
        ("max_channels", refused.channels),
        ("max_channels_per_sender", refused.channels_per_sender),
        ("max_senders", refused.senders),
        ("moved_joins", refused.moved_joins),
    ]
    .map(|(limit, count)| (ByLimit { limit }, count))
}
