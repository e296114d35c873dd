//! What a server shows of itself: that Prometheus can read it, that the page for operators explains
//! all of it, and that the dashboard and the alert rules name nothing else [http: metrics].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;

use serde_json::{Value, json};

use super::http::Stream;
use super::receiver::{Receiver, Reply};
use super::server::{PATIENCE, Server, until};
use super::webtalk::WEBTALK;

/// A metric and its samples.
#[derive(Debug, Default)]
struct Metric {
    kind: String,
    help: String,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads the text format 0.0.4, as strictly as Prometheus does.
fn parse(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::<String, Metric>::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            current = name.to_owned();
            let new = Metric { help: help.to_owned(), ..Metric::default() };
            assert!(metrics.insert(current.clone(), new).is_none(), "{name} is there twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(name, current, "a type behind another's help");
            metrics.get_mut(name).unwrap().kind = kind.to_owned();
        } else {
            let sample = sample(line);
            let metric = metrics.get_mut(&current).expect("a sample behind its head");
            let ending = sample.name.strip_prefix(&current).expect(line);
            let endings: &[&str] =
                if metric.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(endings.contains(&ending), "{line} among those of {current}");
            metric.samples.push(sample);
        }
    }
    metrics
}

fn sample(line: &str) -> Sample {
    let (name, value) = line.rsplit_once(' ').expect(line);
    let (name, labels) = match name.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
        None => (name, ""),
    };
    let label = |label: &str| {
        let (key, value) = label.split_once('=').expect(line);
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect(line);
        assert!(is_name(key) && !value.contains(['"', '\\']), "{line}");
        (key.to_owned(), value.to_owned())
    };
    assert!(is_name(name), "{line}");
    let labels = labels.split(',').filter(|labels| !labels.is_empty()).map(label).collect();
    Sample { name: name.to_owned(), labels, value: value.parse().expect(line) }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
}

/// A server that shows everything there is to show, after a request.
fn everything() -> Server {
    let others = ["--set", "whispernet.listen=127.0.0.1:0", "--data-dir", "data"];
    let server = Server::start(&[&WEBTALK[..], &others].concat());
    assert_eq!(server.get("/metrics").status, 200);
    server
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn the_text_is_what_prometheus_reads_with_a_help_and_a_unit_for_each() {
    let server = everything();
    let metrics = parse(server.get("/metrics").text());
    assert!(metrics.len() > 60, "{}", metrics.len());
    for (name, metric) in &metrics {
        let prefixes = ["watchtower_", "process_"];
        assert!(prefixes.iter().any(|prefix| name.starts_with(prefix)), "{name}");
        assert!(metric.help.ends_with('.') && metric.help.len() > 10, "{name}: {}", metric.help);
        assert!(!metric.samples.is_empty(), "{name} shows nothing");
        assert_eq!(name.ends_with("_total"), metric.kind == "counter", "{name} is a {}", metric.kind);
        assert_eq!(
            name.ends_with("_seconds") && !name.contains("_time_"),
            metric.kind == "histogram",
            "{name}"
        );
        // Base units, and only as the last part of a name.
        for unit in ["_ms", "_millis", "_kb", "_mb", "_minutes", "_percent"] {
            assert!(!name.contains(unit), "{name}");
        }
        let mut seen = BTreeSet::new();
        for sample in &metric.samples {
            assert!(seen.insert((sample.name.clone(), sample.labels.clone())), "{sample:?} twice");
            assert!(metric.kind == "gauge" || sample.value >= 0.0, "{sample:?}");
        }
        if metric.kind == "histogram" {
            is_a_histogram(name, &metric.samples);
        }
    }
    let openmetrics = server.ask("GET", "/metrics", "Accept: application/openmetrics-text\r\n", b"");
    assert!(openmetrics.text().ends_with("\n# EOF\n"));
    assert!(openmetrics.text().contains("# TYPE watchtower_messages_published counter\n"));
}

fn is_a_histogram(name: &str, samples: &[Sample]) {
    let buckets: Vec<_> = samples.iter().filter(|sample| sample.name.ends_with("_bucket")).collect();
    let bounds: Vec<f64> = buckets.iter().map(|bucket| bucket.labels["le"].parse().unwrap()).collect();
    assert!(bounds.is_sorted_by(|a, b| a < b), "{name}: {bounds:?}");
    assert_eq!(bounds.last(), Some(&f64::INFINITY), "{name}");
    assert!(buckets.is_sorted_by_key(|bucket| bucket.value), "{name}: {buckets:?}");
    let count = samples.iter().find(|sample| sample.name.ends_with("_count")).unwrap().value;
    assert_eq!(buckets.last().unwrap().value, count, "{name}");
}

#[test]
fn the_page_for_operators_explains_every_metric_and_no_other() {
    let shown: BTreeSet<String> = parse(everything().get("/metrics").text()).into_keys().collect();
    let page = read("docs/operations.md");
    let name = |line: &str| {
        let name = line.strip_prefix("| `")?.split_once("` | ")?.0;
        (name.starts_with("watchtower_") || name.starts_with("process_")).then(|| name.to_owned())
    };
    let rows: Vec<String> = page.lines().filter_map(name).collect();
    let explained: BTreeSet<String> = rows.iter().cloned().collect();
    assert_eq!(rows.len(), explained.len(), "one is explained twice");
    let missing: Vec<_> = shown.difference(&explained).collect();
    assert!(missing.is_empty(), "not in docs/operations.md: {missing:?}");
    let gone: Vec<_> = explained.difference(&shown).collect();
    assert!(gone.is_empty(), "in docs/operations.md, and not shown: {gone:?}");
    // What is named elsewhere on the page is there too.
    for named in names(&page) {
        assert!(explained.iter().any(|name| is_of(&named, name)), "docs/operations.md names {named}");
    }
}

/// The words in a text that look like names of metrics.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_metric = |word: &&str| {
        let rest = word.strip_prefix("watchtower_").or_else(|| word.strip_prefix("process_"));
        // The program's own crates have such names too.
        rest.is_some_and(|rest| !rest.is_empty() && !["server", "hub"].contains(&rest))
    };
    words.filter(is_metric).map(str::to_owned).collect()
}

/// Whether it is the name of a metric, or of samples of a histogram.
fn is_of(named: &str, metric: &str) -> bool {
    let ending = named.strip_prefix(metric);
    ending.is_some_and(|ending| ["", "_bucket", "_sum", "_count"].contains(&ending))
}

/// The label and value of each `{label="value"}` behind a metric of that name.
fn matchers(expression: &str, named: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for behind in expression.split(named).skip(1) {
        let Some(selector) = behind.strip_prefix('{').and_then(|rest| rest.split_once('}')) else { continue };
        for matcher in selector.0.split(',').filter(|matcher| !matcher.trim().is_empty()) {
            let at = matcher.find(['=', '!']).unwrap_or_else(|| panic!("{matcher} in {expression}"));
            let (label, rest) = matcher.split_at(at);
            let (how, value) = rest.split_once('"').unwrap_or_else(|| panic!("{matcher} in {expression}"));
            let value = value.strip_suffix('"').unwrap_or_else(|| panic!("{matcher} in {expression}"));
            found.push((label.trim().to_owned(), how.to_owned(), value.to_owned()));
        }
    }
    found
}

/// That an expression names metrics that there are, with labels and values that they have.
#[track_caller]
fn asks_for_what_there_is(expression: &str, metrics: &BTreeMap<String, Metric>, place: &str) {
    let named = names(expression);
    // `up` is Prometheus' own.
    assert!(!named.is_empty() || expression.starts_with("up{"), "{place} names nothing: {expression}");
    for named in named {
        let metric = metrics.iter().find(|(name, _)| is_of(&named, name));
        let (_, metric) = metric.unwrap_or_else(|| panic!("{place} names {named}"));
        for (label, how, value) in matchers(expression, &named) {
            if ["instance", "job"].contains(&label.as_str()) {
                continue;
            }
            let mut values = metric.samples.iter().filter_map(|sample| sample.labels.get(&label));
            let has = if how == "=" { values.any(|has| *has == value) } else { values.next().is_some() };
            assert!(has, "{place}: {named} has no {label} {how} {value}");
        }
    }
}

#[test]
fn every_panel_of_the_dashboard_asks_for_what_there_is() {
    let metrics = parse(everything().get("/metrics").text());
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut asked, mut ids) = (String::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title} has another's id");
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(targets.is_empty(), panel["type"] == "row", "{title}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            asks_for_what_there_is(expression, &metrics, title);
            asked.push_str(expression);
        }
    }
    // What tells of a loss or a refusal is on it.
    let asked = names(&asked);
    let is_left_out = |name: &str| name.contains("whispernet") || name.ends_with("uncounted_total");
    for name in metrics.keys().filter(|name| name.ends_with("_total") && !is_left_out(name)) {
        assert!(asked.contains(name), "{name} is in no panel");
    }
}

#[test]
fn every_alert_asks_for_what_there_is_and_says_what_to_do() {
    let metrics = parse(everything().get("/metrics").text());
    let rules = read("deploy/alerts.yaml");
    let count = |key: &str| rules.lines().filter(|line| line.trim_start().starts_with(key)).count();
    let alerts = count("- alert: ");
    assert!(alerts >= 10);
    for key in ["expr: ", "severity: ", "summary: ", "action: "] {
        assert_eq!(count(key), alerts, "each alert has one {key}");
    }
    for expression in rules.lines().filter_map(|line| line.trim_start().strip_prefix("expr: ")) {
        asks_for_what_there_is(expression, &metrics, "deploy/alerts.yaml");
    }
}

/// Sends this on a connection of its own, and reads to the end.
fn say(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.tcp).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn each_refusal_is_counted_by_its_cause() {
    let limits = ["max_senders=3", "max_channels=3", "max_channels_per_sender=2", "max_message_bytes=100"];
    let limits = limits.map(|limit| format!("limits.{limit}"));
    let callbacks = "callbacks.max_subscriptions=1".to_owned();
    let options: Vec<&str> = limits.iter().chain([&callbacks]).flat_map(|set| ["--set", set]).collect();
    let server = Server::start(&options);
    let counts = |metric: &str| server.metric(&format!("watchtower_{metric}")).unwrap();
    let moves = |metric: &str, by: f64, action: &mut dyn FnMut()| {
        let before = counts(metric);
        action();
        until(metric, || counts(metric) >= before + by);
        assert_eq!(counts(metric), before + by, "{metric}");
    };
    let status = |target: &str, body: Value| server.post(target, &body.to_string()).status;

    let (one, two) = (server.register(), server.register());
    moves("registrations_refused_total{protocol=\"http\"}", 2.0, &mut || {
        assert_eq!(status("/register", json!({ "secret_key": "wrong" })), 401);
        assert_eq!(server.post("/register", "").status, 401);
    });
    moves("registrations_refused_total{protocol=\"packets\"}", 1.0, &mut || {
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"S\x05wrong", server.udp).unwrap();
    });
    moves("http_refusals_total{code=\"invalid_json\"}", 1.0, &mut || {
        assert_eq!(server.post("/broadcast", "[]").status, 400);
    });
    moves("http_refusals_total{code=\"bad_request\"}", 1.0, &mut || {
        assert!(say(&server, b"GET / HTTP/1.1\r\nHost\r\n\r\n").contains("400 Bad Request"));
    });
    moves("http_refusals_total{code=\"header_too_large\"}", 1.0, &mut || {
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        assert!(say(&server, head.as_bytes()).contains(" 431 "));
    });
    let join = |sender: u32, channels: Value| {
        status("/channels/join", json!({ "sender": sender, "channels": channels }))
    };
    assert_eq!(join(one, json!([5, 6])), 200);
    moves("limit_refusals_total{limit=\"max_channels_per_sender\"}", 1.0, &mut || {
        assert_eq!(join(one, json!([7])), 503);
    });
    assert_eq!(join(two, json!([7])), 200);
    moves("limit_refusals_total{limit=\"max_channels\"}", 1.0, &mut || {
        assert_eq!(join(two, json!([9])), 503);
    });
    moves("limit_refusals_total{limit=\"max_message_bytes\"}", 1.0, &mut || {
        let long = json!({ "sender": one, "channels": [5], "message": "x".repeat(101) });
        assert_eq!(status("/broadcast", long), 413);
    });
    let receiver = Receiver::start();
    receiver.answers([], Reply::status("500 Internal Server Error"));
    let follow = |url: &str| {
        let request = json!({ "sender": one, "channels": [5], "callback_url": url });
        status("/channels/join/async", request)
    };
    assert_eq!(follow(&receiver.url()), 200);
    moves("callback_subscriptions_refused_total{limit=\"max_subscriptions\"}", 1.0, &mut || {
        assert_eq!(follow("http://127.0.0.1:1/other"), 503);
    });
    moves("callback_failing", 1.0, &mut || _ = server.broadcast(one, &json!(5), "x"));
    moves("udp_unanswered_total", 1.0, &mut || {
        // The second registration's answer would be longer than all that came from there.
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"RR", server.udp).unwrap();
    });
    moves("limit_refusals_total{limit=\"max_senders\"}", 1.0, &mut || {
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"R", server.udp).unwrap();
    });
    moves("websocket_violations_total{code=\"1002\"}", 1.0, &mut || {
        // A frame without a mask.
        let head = "GET /webrocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        assert!(say(&server, &[head.as_bytes(), b"\x81\x01x"].concat()).contains(" 101 "));
    });
}

#[test]
fn connections_that_end_are_counted_by_why_and_those_that_take_nothing_while_they_do() {
    let server =
        Server::start(&["--set", "limits.lag_bytes=100000000", "--set", "limits.lag_messages=100000"]);
    let closed = |protocol: &str, reason: &str| {
        let labels = format!("{{protocol=\"{protocol}\",reason=\"{reason}\"}}");
        server.metric(&format!("watchtower_streams_closed_total{labels}")).unwrap()
    };
    say(&server, b"K?");
    until("protocol", || closed("tcp", "protocol") == 1.0);
    {
        let stream = TcpStream::connect(server.tcp).unwrap();
        (&stream).write_all(b"K").unwrap();
        (&stream).read_exact(&mut [0; 5]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        until("end_of_input", || closed("tcp", "end_of_input") == 1.0);
    }

    let sender = server.joined(&json!([5]));
    let mut lines = Stream::open(&server, "5", sender, "application/x-ndjson");
    server.broadcast(sender, &json!(5), "first");
    assert!(lines.line().contains("first"));
    for histogram in ["publish", "delivery"] {
        let count = format!("watchtower_{histogram}_seconds_count");
        until("measured", || server.metric(&count) >= Some(1.0));
    }
    // Nobody reads now: what is published waits, in the system at first.
    let long = "x".repeat(60_000);
    let shows = |name: &str| server.metric(name).unwrap();
    let mut published = 0;
    while shows("watchtower_streams_blocked") == 0.0 || shows("watchtower_lag_bytes") < 100_000.0 {
        server.broadcast(sender, &json!(5), &long);
        published += 1;
        assert!(published < 1_000, "it is never blocked");
    }
    (0..published).for_each(|_| assert!(lines.line().len() > 60_000));
    until("unblocked", || shows("watchtower_streams_blocked") == 0.0);
    assert_eq!(shows("watchtower_lag_bytes"), 0.0);
    drop(lines);
    until("gone", || closed("http", "gone") + closed("http", "end_of_input") == 1.0);
    assert_eq!(server.metric("watchtower_protocol_sessions{protocol=\"http\"}"), Some(0.0));
}
