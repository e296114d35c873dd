//! What is counted about the disk, and whether it takes anything.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use watchtower_hub::NotKept;
use watchtower_store::DiskStore;

use crate::metrics::{show_counts, show_family, show_gauges};

/// The counts of a server's disk. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct DiskCounts(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    kept: Counter,
    not_kept: Family<ByReason, Counter>,
    unread: Counter,
    damage: Counter,
    /// Why nothing can be written; none while it can.
    failing: Mutex<Option<String>>,
}

/// A label: why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

const REASONS: [&str; 4] = ["behind", "out_of_turn", "failed", "closed"];

impl DiskCounts {
    /// Counts a submission by what came of it.
    pub(super) fn answered(&self, result: Result<(), &NotKept>) {
        let reason = match result {
            Ok(()) => {
                self.0.kept.inc();
                return;
            }
            Err(NotKept::Behind) => "behind",
            Err(NotKept::OutOfTurn) => "out_of_turn",
            Err(NotKept::Failed(_)) => "failed",
            Err(NotKept::Closed) => "closed",
        };
        self.0.not_kept.get_or_create(&ByReason { reason }).inc();
    }

    /// Counts a request for messages that could not be read.
    pub(super) fn unread(&self) {
        self.0.unread.inc();
    }

    /// Counts something that was found damaged.
    pub(super) fn damaged(&self) {
        self.0.damage.inc();
    }

    /// How much was found damaged so far.
    pub(super) fn damage(&self) -> u64 {
        self.0.damage.get()
    }

    pub(super) fn set_failing(&self, reason: Option<String>) {
        *self.0.failing.lock() = reason;
    }

    /// Why nothing can be written; none while it can.
    pub(crate) fn failing(&self) -> Option<String> {
        self.0.failing.lock().clone()
    }
}

/// Shows the counts, with what the store knows itself.
pub(super) struct Show {
    pub(super) counts: DiskCounts,
    pub(super) store: Arc<DiskStore>,
}

impl Collector for Show {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Show { counts, store } = self;
        show_counts(
            &[
                ("disk_publications_kept", "Publications kept on disk", counts.0.kept.get()),
                ("disk_syncs", "Times that the disk was synced, each for many publications", store.syncs()),
                ("disk_reads_failed", "Reads from the disk that failed", counts.0.unread.get()),
                ("disk_damage", "Files and messages that were found damaged", counts.0.damage.get()),
            ],
            &mut encoder,
        )?;
        let help = "Publications that were refused since they could not be kept, by reason";
        let not_kept = REASONS.map(|reason| {
            let by_reason = ByReason { reason };
            (by_reason, counts.0.not_kept.get_or_create(&by_reason).get())
        });
        show_family("disk_publications_refused", help, not_kept, &mut encoder)?;
        let gauges = [
            (
                "disk_failing",
                "1 while nothing can be written to the disk",
                u64::from(counts.failing().is_some()),
            ),
            ("disk_pending_bytes", "What waits to be written to the disk", store.pending_bytes() as u64),
        ];
        show_gauges(&gauges, &mut encoder)
    }
}

impl fmt::Debug for Show {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Show").field("counts", &self.counts).finish_non_exhaustive()
    }
}
