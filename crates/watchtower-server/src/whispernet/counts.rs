//! What is shown of the whispernet in the metrics ([http: metrics]).

use std::fmt;

use futures_util::FutureExt;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use watchtower_whisper::Peer;

use crate::metrics::{show_counts, show_gauges};

/// Why a message of the channel is not said.
const UNSAID: [&str; 4] = ["ended", "empty", "too_large", "presence"];

/// Why a message of a peer is not published.
const UNPUBLISHED: [&str; 9] =
    ["own", "greeting", "behind", "file", "too_large", "bad_content", "limit", "not_kept", "refused"];

/// What is not carried, by reason.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    unsaid: Family<ByReason, Counter>,
    unpublished: Family<ByReason, Counter>,
}

/// A label: why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

impl Counts {
    /// Shows them, at 0 from the start, and what the peer counts.
    pub(super) fn register(&self, registry: &mut Registry, peer: Peer) {
        UNSAID.into_iter().for_each(|reason| drop(self.unsaid.get_or_create(&ByReason { reason })));
        UNPUBLISHED.into_iter().for_each(|reason| drop(self.unpublished.get_or_create(&ByReason { reason })));
        let help = "Messages of the channel that peers were not sent, by reason";
        registry.register("whispernet_unsaid", help, self.unsaid.clone());
        let help = "Messages of peers that were not published, by reason";
        registry.register("whispernet_unpublished", help, self.unpublished.clone());
        registry.register_collector(Box::new(PeerCounts(peer)));
    }

    /// A message of the channel was not sent to peers.
    pub(super) fn unsaid(&self, reason: &'static str) {
        self.unsaid.get_or_create(&ByReason { reason }).inc();
    }

    /// Messages of peers were not published.
    pub(super) fn unpublished(&self, reason: &'static str, messages: u64) {
        self.unpublished.get_or_create(&ByReason { reason }).inc_by(messages);
    }
}

/// Reads the peer's counters when they are asked for.
struct PeerCounts(Peer);

impl fmt::Debug for PeerCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCounts").finish_non_exhaustive()
    }
}

impl Collector for PeerCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Both are answered at once.
        let counts = self.0.counts().now_or_never().unwrap_or_default();
        let peers = self.0.peers().now_or_never().unwrap_or_default();
        let counters = [
            ("whispernet_received", "Messages of peers, each counted once", counts.shown),
            ("whispernet_repeated", "Messages of peers that had come before", counts.repeated),
            ("whispernet_said", "Messages said to peers", counts.originated),
            ("whispernet_mismatched", "Messages whose id was not their hash", counts.mismatched),
            ("whispernet_forged", "Messages with a wrong signature", counts.forged),
            ("whispernet_unsigned", "Messages dropped since they were not signed", counts.unsigned),
            ("whispernet_control", "Objects by which peers agree on routing", counts.control),
            ("whispernet_repeating", "Connections closed for bringing nothing new", counts.repeating),
            ("whispernet_without_body", "Other objects without a Body", counts.without_body),
            ("whispernet_malformed", "Connections closed for what is no message", counts.malformed),
            ("whispernet_flooded", "Addresses refused for sending too much", counts.flooded),
            ("whispernet_slow", "Connections closed since the peer took too little", counts.slow),
            ("whispernet_unsent", "Objects above what may be sent to a peer", counts.unsent),
            ("whispernet_not_dialled", "Addresses named by others and not dialled", counts.not_dialled),
        ];
        show_counts(&counters, &mut encoder)?;
        let connected = peers.iter().filter(|peer| peer.connected).count();
        let peers = ("whispernet_peers", "Peers that are connected to", connected as u64);
        show_gauges(&[peers], &mut encoder)
    }
}
