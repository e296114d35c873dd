//! Whose connection the driver drives, and what it is told of it.
//!
//! Knows neither what it counts nor where that is shown.

use std::time::Duration;

use watchtower_hub::{Backlog, Hub};

use crate::metrics::Publication;
use crate::tcp::Guest;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client is gone, or the connection broke.
    Gone,
    /// The client said that it sends no more, and was given all that there was.
    EndOfInput,
    /// What the client said, or did not say as it must, ends it.
    Protocol,
    /// The client took too long.
    Late,
    /// The client fell behind too far.
    Lagging,
    /// Somebody else had it closed: another client, or an application.
    Ordered,
    /// The server shuts down.
    Shutdown,
}

impl Ending {
    /// Every reason.
    pub(crate) const ALL: [Ending; 7] = [
        Ending::Gone,
        Ending::EndOfInput,
        Ending::Protocol,
        Ending::Late,
        Ending::Lagging,
        Ending::Ordered,
        Ending::Shutdown,
    ];

    /// One word for it, for a metric's label and the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Ending::Gone => "gone",
            Ending::EndOfInput => "end_of_input",
            Ending::Protocol => "protocol",
            Ending::Late => "late",
            Ending::Lagging => "lagging",
            Ending::Ordered => "ordered",
            Ending::Shutdown => "shutdown",
        }
    }
}

/// Who a connection belongs to. Nothing here is called for each delivery.
pub(crate) trait Owner {
    /// The connection ends.
    fn ends(&self, _protocol: &'static str, _ending: Ending) {}

    /// It is closed though the client did not take its last bytes.
    fn unflushed(&self) {}

    /// It is over, since there is a fault in the program.
    fn faulted(&self, _protocol: &'static str) {}

    /// The client takes nothing more for now.
    fn blocked(&self, _backlog: Backlog) {}

    /// The client has taken what it had not.
    fn unblocked(&self) {}

    /// What was read at the beginning of `publication` is carried out.
    fn carried_out(&self, _publication: Publication, _hub: &Hub) {}

    /// A message was handed to the system so long after it was published.
    fn delivered(&self, _after: Duration) {}
}

impl Owner for Guest {
    fn ends(&self, protocol: &'static str, ending: Ending) {
        self.shared.metrics.streams.closed(protocol, ending);
        if tracing::enabled!(tracing::Level::DEBUG) {
            self.span().in_scope(|| tracing::debug!(protocol, reason = ending.name(), "a connection ends"));
        }
    }

    fn unflushed(&self) {
        self.shared.metrics.streams.unflushed.inc();
    }

    fn faulted(&self, protocol: &'static str) {
        self.shared.metrics.streams.faults.inc();
        self.span().in_scope(|| tracing::error!(protocol, "a fault in the program ended a connection"));
    }

    fn blocked(&self, backlog: Backlog) {
        self.shared.metrics.streams.blocked(self.id, backlog);
    }

    fn unblocked(&self) {
        self.shared.metrics.streams.unblocked(self.id);
    }

    fn carried_out(&self, publication: Publication, hub: &Hub) {
        self.shared.metrics.latencies.carried_out(publication, hub);
    }

    fn delivered(&self, after: Duration) {
        self.shared.metrics.latencies.delivered(after);
    }
}

/// Nobody's, in tests.
#[cfg(test)]
impl Owner for () {}
