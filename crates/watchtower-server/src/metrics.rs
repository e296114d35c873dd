//! What the server counts, besides what the hub does.

use prometheus_client::metrics::counter::Counter;

/// The drivers' counters. Adding to one is an atomic addition.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Connections that a limit kept out.
    pub(crate) connections_refused: Counter,
    /// Connections that said nothing in time.
    pub(crate) connections_silent: Counter,
    /// Messages that fit no datagram.
    pub(crate) udp_too_large: Counter,
    /// Datagrams that the system did not send.
    pub(crate) udp_unsent: Counter,
}
