//! What the server counts, and how it is shown ([http: metrics]).
//!
//! Drivers add to the counters; what the hub counts is read when asked. Knows
//! no request and no connection.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Metric, Registry};
use watchtower_hub::Hub;
use watchtower_protocols::packets::{ErrorCode, ErrorCounts, Transport};
use watchtower_protocols::webrocket::LoginFailures;
use watchtower_protocols::websocket::InflationCounts;

use crate::ledger::DiskCounts;

/// The counters of one server. Adding to one is an atomic addition.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    /// TCP connections that were served, by protocol.
    pub(crate) connections: Family<ByProtocol, Counter>,
    /// Connections that were closed at once, since a limit was reached.
    pub(crate) connections_refused: Counter,
    /// Connections that did not say in time which protocol they speak.
    pub(crate) connections_silent: Counter,
    /// TLS handshakes, by how they ended.
    pub(crate) tls_handshakes: Family<ByOutcome, Counter>,
    /// Requests that were refused since their address made too many.
    pub(crate) requests_limited: Counter,
    /// Registrations that were refused since their address made too many.
    pub(crate) registrations_limited: Counter,
    /// HTTP requests, by the status of their answer.
    pub(crate) http_requests: Family<ByStatus, Counter>,
    /// HTTP streams that began, by media type.
    pub(crate) http_streams: Family<ByForm, Counter>,
    /// WebSockets that were opened, by protocol.
    pub(crate) websockets: Family<ByProtocol, Counter>,
    /// `E` packets, by transport and code.
    pub(crate) packet_errors: Arc<ErrorCounts>,
    /// Logins to WebRocket that failed.
    pub(crate) login_failures: Arc<LoginFailures>,
    /// What compression on WebSockets led to.
    pub(crate) inflation: Arc<InflationCounts>,
    /// Messages that fit no datagram.
    pub(crate) udp_too_large: Counter,
    /// Datagrams that the system did not send.
    pub(crate) udp_unsent: Counter,
    /// What became of what is kept on disk.
    pub(crate) disk: DiskCounts,
}

/// A label: which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByProtocol {
    pub(crate) protocol: &'static str,
}

/// A label: how something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByOutcome {
    pub(crate) outcome: &'static str,
}

/// A label: which status an answer had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByStatus {
    pub(crate) status: u16,
}

/// Labels: which error, and over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: u8,
    transport: &'static str,
}

/// A label: which form a stream had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByForm {
    pub(crate) form: &'static str,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let metrics = Metrics {
            registry: Mutex::new(Registry::with_prefix("watchtower")),
            connections: Family::default(),
            connections_refused: Counter::default(),
            connections_silent: Counter::default(),
            tls_handshakes: Family::default(),
            requests_limited: Counter::default(),
            registrations_limited: Counter::default(),
            http_requests: Family::default(),
            http_streams: Family::default(),
            websockets: Family::default(),
            packet_errors: Arc::default(),
            login_failures: Arc::default(),
            inflation: Arc::default(),
            udp_too_large: Counter::default(),
            udp_unsent: Counter::default(),
            disk: DiskCounts::default(),
        };
        let m = &metrics;
        m.show_from_the_start();
        m.show("connections", "TCP connections served, by protocol", &m.connections);
        m.show("connections_refused", "Connections that a limit kept out", &m.connections_refused);
        m.show("connections_silent", "Connections that said nothing in time", &m.connections_silent);
        m.show("tls_handshakes", "TLS handshakes, by outcome", &m.tls_handshakes);
        m.show("requests_limited", "Requests above the rate of their address", &m.requests_limited);
        m.show(
            "registrations_limited",
            "Registrations above the rate of their address",
            &m.registrations_limited,
        );
        m.show("http_requests", "HTTP requests, by status", &m.http_requests);
        m.show("http_streams", "HTTP streams that began, by form", &m.http_streams);
        m.show("websockets", "WebSockets opened, by protocol", &m.websockets);
        m.show("udp_too_large", "Messages that fit no datagram", &m.udp_too_large);
        m.show("udp_unsent", "Datagrams that the system did not send", &m.udp_unsent);
        m.registry.lock().register_collector(Box::new(PacketErrors(m.packet_errors.clone())));
        let counts = WebSocketCounts { inflation: m.inflation.clone(), logins: m.login_failures.clone() };
        m.registry.lock().register_collector(Box::new(counts));
        metrics
    }
}

impl Metrics {
    /// Shows what `hub` counts.
    pub(crate) fn show_hub(&self, hub: Hub) {
        self.registry.lock().register_collector(Box::new(HubCounts(hub)));
    }

    /// Shows what is read when it is asked for.
    pub(crate) fn collect(&self, collector: Box<dyn Collector>) {
        self.registry.lock().register_collector(collector);
    }

    /// Shows what another part counts.
    pub(crate) fn register(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock());
    }

    /// Makes those whose labels are known, so that they are shown as 0: what is
    /// not there at all cannot be watched.
    fn show_from_the_start(&self) {
        for protocol in ["packets", "http", "webtalk-private"] {
            drop(self.connections.get_or_create(&ByProtocol { protocol }));
        }
        for outcome in ["done", "failed", "late", "refused"] {
            drop(self.tls_handshakes.get_or_create(&ByOutcome { outcome }));
        }
        for form in ["application/x-ndjson", "text/event-stream", "application/octet-stream"] {
            drop(self.http_streams.get_or_create(&ByForm { form }));
        }
    }

    fn show(&self, name: &str, help: &str, metric: &(impl Metric + Clone)) {
        self.registry.lock().register(name, help, metric.clone());
    }

    /// All counters in the text format of OpenMetrics, which Prometheus reads
    /// as its own too.
    pub(crate) fn to_text(&self) -> String {
        let mut out = String::new();
        let written = text::encode(&mut out, &self.registry.lock());
        debug_assert!(written.is_ok(), "a string takes all that is written to it");
        out
    }
}

/// Reads the hub's counters when they are asked for.
struct HubCounts(Hub);

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
            ("message_bytes_published", "Content of messages taken, in bytes", counts.published_bytes),
            ("messages_delivered", "Messages handed to sessions", counts.delivered),
            ("sessions_lagging_closed", "Sessions closed since they fell behind", counts.lagging_closed),
            ("messages_skipped", "Messages skipped for sessions that fell behind", counts.lagging_skipped),
            ("senders_expired", "Senders forgotten after their time", counts.senders_expired),
            ("durable_pages_read", "Pages of durable channels read for those behind", counts.pages),
            (
                "durable_messages_missed",
                "Messages of durable channels that could not be read, for each who missed one",
                counts.unreadable,
            ),
        ];
        show_counts(&counters, &mut encoder)?;
        let gauges = [
            ("channels", "Channels that there are", counts.channels),
            ("senders", "Senders that are registered", counts.senders),
            ("sessions", "Sessions that are open", counts.sessions),
            ("subscriptions", "Subscriptions that there are", counts.subscriptions),
        ];
        for (name, help, count) in gauges {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// Reads the errors of packets when they are asked for.
#[derive(Debug)]
struct PacketErrors(Arc<ErrorCounts>);

impl Collector for PacketErrors {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Errors told to clients that speak packets, by code and transport";
        let mut family = encoder.encode_descriptor("packet_errors", help, None, MetricType::Counter)?;
        for transport in Transport::ALL {
            for code in ErrorCode::ALL {
                let counter = ConstCounter::new(self.0.get(transport, code));
                let labels = ByCode { code: code.byte(), transport: transport.name() };
                counter.encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// Reads what WebSockets counted when it is asked for.
#[derive(Debug)]
struct WebSocketCounts {
    inflation: Arc<InflationCounts>,
    logins: Arc<LoginFailures>,
}

impl Collector for WebSocketCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counters = [
            (
                "websocket_inflation_waited",
                "Waits of clients whose messages inflated to too much",
                self.inflation.waited(),
            ),
            (
                "websocket_inflation_refused",
                "WebSockets closed for what a client not let in yet had inflated",
                self.inflation.refused(),
            ),
            ("webrocket_logins_failed", "Logins to WebRocket with a wrong secret", self.logins.failed()),
            (
                "webrocket_logins_delayed",
                "Logins to WebRocket that waited since many of their address failed",
                self.logins.delayed(),
            ),
        ];
        show_counts(&counters, &mut encoder)
    }
}

/// Shows counters that are read when they are asked for: name, help and count.
pub(crate) fn show_counts(
    counts: &[(&str, &str, u64)],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    for &(name, help, count) in counts {
        let counter = ConstCounter::new(count);
        counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
    }
    Ok(())
}
