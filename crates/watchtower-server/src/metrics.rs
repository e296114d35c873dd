//! What the server counts, and how it is shown ([http: metrics]).
//!
//! Drivers add to the counters; what the hub counts is read when asked. Knows
//! no request and no connection.
//!
//! | file | for |
//! | --- | --- |
//! | `hub` | what the hub counts |
//! | `latency` | histograms of how long things take |
//! | `streams` | connections that the driver of streams drives |
//! | `server` | what is open, and which limits are in force |
//! | `process` | what the system says of the process |

mod hub;
mod latency;
mod process;
mod server;
mod streams;

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use watchtower_hub::Hub;
use watchtower_protocols::packets::{ErrorCode as PacketError, ErrorCounts, Transport};
use watchtower_protocols::webrocket::{LoginFailures, RefusalCounts};
use watchtower_protocols::websocket::{InflationCounts, ViolationCounts};

use self::hub::HubCounts;
pub(crate) use self::latency::{Latencies, Publication, sample_delivery};
use self::process::Process;
use self::server::ServerCounts;
pub(crate) use self::streams::StreamMetrics;
use crate::http::ErrorCode;
use crate::server::Shared;

use crate::ledger::DiskCounts;

/// The counters of one server. Adding to one is an atomic addition.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    /// What has no prefix.
    process: Mutex<Registry>,
    /// TCP connections that were served, by protocol.
    pub(crate) connections: Family<ByProtocol, Counter>,
    /// Connections that were closed at once, by reason.
    pub(crate) connections_refused: Family<ByReason, Counter>,
    /// Times that the system had nothing to accept a connection with.
    pub(crate) accepts_failed: Counter,
    /// Times that the system's clock jumped.
    pub(crate) clock_jumps: Counter,
    /// Connections that did not say in time which protocol they speak.
    pub(crate) connections_silent: Counter,
    /// TLS handshakes, by how they ended.
    pub(crate) tls_handshakes: Family<ByOutcome, Counter>,
    /// Requests that were refused since their address made too many.
    pub(crate) requests_limited: Counter,
    /// Registrations that were refused since their address made too many.
    pub(crate) registrations_limited: Counter,
    /// Registrations that were refused for a secret that is missing or wrong.
    pub(crate) registrations_refused: Family<ByProtocol, Counter>,
    /// What HTTP requests were refused with, by code.
    pub(crate) http_refusals: Family<ByRefusal, Counter>,
    /// HTTP connections that were closed since their client took or sent nothing
    /// for too long.
    pub(crate) http_timeouts: Family<ByReason, Counter>,
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
    /// Commands of WebRocket that were refused.
    pub(crate) webrocket_refusals: Arc<RefusalCounts>,
    /// Logins to WebTalk's private link that failed.
    pub(crate) webtalk_logins_failed: Counter,
    /// What compression on WebSockets led to.
    pub(crate) inflation: Arc<InflationCounts>,
    /// What clients sent that is no WebSocket, or too long.
    pub(crate) violations: Arc<ViolationCounts>,
    /// Messages that fit no datagram.
    pub(crate) udp_too_large: Counter,
    /// Datagrams that the system did not send.
    pub(crate) udp_unsent: Counter,
    /// Connections that are driven as streams.
    pub(crate) streams: Arc<StreamMetrics>,
    /// How long things take.
    pub(crate) latencies: Latencies,
    /// What became of what is kept on disk.
    pub(crate) disk: DiskCounts,
}

/// A label: why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByReason {
    pub(crate) reason: &'static str,
}

/// A label: which code of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByRefusal {
    pub(crate) code: &'static str,
}

/// A label: which limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByLimit {
    pub(crate) limit: &'static str,
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
            process: Mutex::default(),
            connections: Family::default(),
            connections_refused: Family::default(),
            accepts_failed: Counter::default(),
            clock_jumps: Counter::default(),
            connections_silent: Counter::default(),
            tls_handshakes: Family::default(),
            requests_limited: Counter::default(),
            registrations_limited: Counter::default(),
            registrations_refused: Family::default(),
            http_refusals: Family::default(),
            http_timeouts: Family::default(),
            http_requests: Family::default(),
            http_streams: Family::default(),
            websockets: Family::default(),
            packet_errors: Arc::default(),
            login_failures: Arc::default(),
            webrocket_refusals: Arc::default(),
            webtalk_logins_failed: Counter::default(),
            inflation: Arc::default(),
            violations: Arc::default(),
            udp_too_large: Counter::default(),
            udp_unsent: Counter::default(),
            streams: Arc::default(),
            latencies: Latencies::default(),
            disk: DiskCounts::default(),
        };
        let m = &metrics;
        m.show_from_the_start();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        m.registry.lock().register("build", "What program runs", version);
        m.show("connections", "TCP connections served, by protocol", &m.connections);
        m.show("connections_refused", "Connections that were kept out, by reason", &m.connections_refused);
        m.show("accepts_failed", "Times that no connection could be accepted", &m.accepts_failed);
        m.show("clock_jumps", "Times that the clock of the system jumped", &m.clock_jumps);
        m.show("connections_silent", "Connections that said nothing in time", &m.connections_silent);
        m.show("tls_handshakes", "TLS handshakes, by outcome", &m.tls_handshakes);
        m.show("requests_limited", "Requests above the rate of their address", &m.requests_limited);
        m.show(
            "registrations_limited",
            "Registrations above the rate of their address",
            &m.registrations_limited,
        );
        m.show(
            "registrations_refused",
            "Registrations without the right secret, by protocol",
            &m.registrations_refused,
        );
        m.show("http_refusals", "HTTP requests refused, by code", &m.http_refusals);
        m.show("http_timeouts", "HTTP connections closed for silence, by reason", &m.http_timeouts);
        m.show("http_requests", "HTTP requests, by status", &m.http_requests);
        m.show("http_streams", "HTTP streams that began, by form", &m.http_streams);
        m.show("websockets", "WebSockets opened, by protocol", &m.websockets);
        m.show(
            "webtalk_logins_failed",
            "Logins to WebTalk's private link with a wrong secret",
            &m.webtalk_logins_failed,
        );
        m.show("udp_too_large", "Messages that fit no datagram", &m.udp_too_large);
        m.show("udp_unsent", "Datagrams that the system did not send", &m.udp_unsent);
        m.registry.lock().register_collector(Box::new(PacketErrors(m.packet_errors.clone())));
        let counts = WebSocketCounts {
            inflation: m.inflation.clone(),
            violations: m.violations.clone(),
            logins: m.login_failures.clone(),
            refusals: m.webrocket_refusals.clone(),
        };
        m.registry.lock().register_collector(Box::new(counts));
        m.register(|registry| m.streams.register(registry));
        m.register(|registry| m.latencies.register(registry));
        m.process.lock().register_collector(Box::new(Process::new()));
        metrics
    }
}

impl Metrics {
    /// Shows what `hub` counts.
    pub(crate) fn show_hub(&self, hub: Hub) {
        self.registry.lock().register_collector(Box::new(HubCounts(hub)));
    }

    /// Shows what the server as a whole tells.
    pub(crate) fn show_server(&self, shared: &Arc<Shared>) {
        self.registry.lock().register_collector(Box::new(ServerCounts::new(shared)));
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
        for reason in ["max_connections", "max_connections_per_address", "without_tls"] {
            drop(self.connections_refused.get_or_create(&ByReason { reason }));
        }
        for protocol in ["packets", "http"] {
            drop(self.registrations_refused.get_or_create(&ByProtocol { protocol }));
        }
        for reason in ["request", "answer"] {
            drop(self.http_timeouts.get_or_create(&ByReason { reason }));
        }
        for code in ErrorCode::ALL {
            drop(self.http_refusals.get_or_create(&ByRefusal { code: code.name() }));
        }
        let refusals = ErrorCode::ALL.map(|code| code.status().as_u16());
        for status in [101, 200, 204].into_iter().chain(refusals) {
            drop(self.http_requests.get_or_create(&ByStatus { status }));
        }
        for protocol in ["tcp", "http"] {
            self.streams.show_protocol(protocol);
        }
        for form in ["application/x-ndjson", "text/event-stream", "application/octet-stream"] {
            drop(self.http_streams.get_or_create(&ByForm { form }));
        }
    }

    fn show(&self, name: &str, help: &str, metric: &(impl Metric + Clone)) {
        self.registry.lock().register(name, help, metric.clone());
    }

    /// Everything in the text format of OpenMetrics 1.0.
    pub(crate) fn to_openmetrics(&self) -> String {
        let mut out = String::new();
        let written = text::encode_registry(&mut out, &self.registry.lock())
            .and_then(|()| text::encode_registry(&mut out, &self.process.lock()))
            .and_then(|()| text::encode_eof(&mut out));
        debug_assert!(written.is_ok(), "a string takes all that is written to it");
        out
    }

    /// Everything in the older text format of Prometheus, 0.0.4.
    ///
    /// There a counter's type and help stand at the name that its samples have.
    pub(crate) fn to_text(&self) -> String {
        let openmetrics = self.to_openmetrics();
        let mut out = String::with_capacity(openmetrics.len());
        let mut help = "";
        for line in openmetrics.lines() {
            match line.strip_prefix("# ").and_then(|comment| comment.split_once(' ')) {
                Some(("HELP", rest)) => help = rest,
                Some(("TYPE", rest)) => {
                    let (name, of_type) = rest.split_once(' ').unwrap_or((rest, ""));
                    let explained = help.strip_prefix(name).unwrap_or_default();
                    let (ending, of_type) = match of_type {
                        "counter" => ("_total", of_type),
                        "info" => ("_info", "gauge"),
                        _ => ("", of_type),
                    };
                    out += &format!("# HELP {name}{ending}{explained}\n# TYPE {name}{ending} {of_type}\n");
                }
                _ if line == "# EOF" => {}
                _ => out = out + line + "\n",
            }
        }
        out
    }
}

/// Reads the errors of packets when they are asked for.
#[derive(Debug)]
struct PacketErrors(Arc<ErrorCounts>);

impl Collector for PacketErrors {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Errors told to clients that speak packets, by code and transport";
        let all = Transport::ALL.into_iter().flat_map(|t| PacketError::ALL.map(|code| (t, code)));
        let counted = all.map(|(transport, code)| {
            let labels = ByCode { code: code.byte(), transport: transport.name() };
            (labels, self.0.get(transport, code))
        });
        show_family("packet_errors", help, counted, &mut encoder)?;
        let unanswered = (
            "udp_unanswered",
            "Datagrams whose answers had no room, or that held answers",
            self.0.unanswered(),
        );
        show_counts(&[unanswered], &mut encoder)
    }
}

/// Reads what WebSockets counted when it is asked for.
#[derive(Debug)]
struct WebSocketCounts {
    inflation: Arc<InflationCounts>,
    violations: Arc<ViolationCounts>,
    logins: Arc<LoginFailures>,
    refusals: Arc<RefusalCounts>,
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
        show_counts(&counters, &mut encoder)?;
        let help = "WebSockets closed for what their client sent, by code";
        let violations = self.violations.all().map(|(code, count)| (ByClose { code }, count));
        show_family("websocket_violations", help, violations, &mut encoder)?;
        let help = "Commands of WebRocket refused, by code";
        let refusals = self.refusals.all().map(|(code, count)| (ByRefusal { code: code.name() }, count));
        show_family("webrocket_refusals", help, refusals, &mut encoder)
    }
}

/// A label: which code a WebSocket was closed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByClose {
    code: u16,
}

/// Shows counters that are read when they are asked for: name, help and count.
pub(crate) fn show_counts(
    counts: &[(&str, &str, u64)],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    for &(name, help, count) in counts {
        let counter = ConstCounter::new(count);
        // As the registry itself ends what it is given.
        let help = format!("{help}.");
        counter.encode(encoder.encode_descriptor(name, &help, None, counter.metric_type())?)?;
    }
    Ok(())
}

/// The same for gauges.
pub(crate) fn show_gauges(
    counts: &[(&str, &str, u64)],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    for &(name, help, count) in counts {
        let gauge = ConstGauge::new(count);
        let help = format!("{help}.");
        gauge.encode(encoder.encode_descriptor(name, &help, None, gauge.metric_type())?)?;
    }
    Ok(())
}

/// The same for a counter that there is once for each of some labels.
pub(crate) fn show_family<L: EncodeLabelSet>(
    name: &str,
    help: &str,
    counts: impl IntoIterator<Item = (L, u64)>,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let help = format!("{help}.");
    let mut family = encoder.encode_descriptor(name, &help, None, MetricType::Counter)?;
    for (labels, count) in counts {
        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
