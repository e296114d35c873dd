//! What operators and their programs ask, and how a server ends [http: health] [running: serve].

use serde_json::json;

use super::http::{Connection, Stream, header};
use super::packets::{Packets, delivered};
use super::server::Server;

#[test]
fn health_and_readiness_are_told_on_one_connection() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.tcp);
    connection.ask("GET", "/health", "", b"").is(200, r#"{"status":"ok"}"#);
    connection.ask("GET", "/ready", "", b"").is(200, r#"{"status":"ready"}"#);
}

#[test]
fn metrics_are_text_of_prometheus_whose_counts_move() {
    let server = Server::start(&[]);
    let answer = server.get("/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(server.metric("watchtower_messages_published_total"), Some(0.0));
    assert_eq!(server.metric("watchtower_senders"), Some(0.0));

    let sender = server.register();
    let mut stream = Stream::open(&server, "5", sender, "application/octet-stream");
    server.broadcast(sender, &json!(5), "hello");
    stream.expect(&delivered(sender, 5, false, b"hello"));
    assert_eq!(server.metric("watchtower_messages_published_total"), Some(1.0));
    assert_eq!(server.metric("watchtower_published_bytes_total"), Some(5.0));
    assert_eq!(server.metric("watchtower_messages_delivered_total"), Some(1.0));
    assert_eq!(server.metric("watchtower_senders"), Some(1.0));
    assert_eq!(server.metric("watchtower_channels"), Some(1.0));
    assert_eq!(server.metric("watchtower_sessions"), Some(1.0));
    let streams = r#"watchtower_http_streams_total{form="application/octet-stream"}"#;
    assert_eq!(server.metric(streams), Some(1.0));
    let answer = server.get("/metrics");
    for line in [
        "# TYPE watchtower_connections_total counter",
        "# TYPE watchtower_connections_refused_total counter",
        "# TYPE watchtower_http_requests_total counter",
        "# TYPE watchtower_http_streams_total counter",
        "# TYPE watchtower_udp_too_large_total counter",
        "# TYPE watchtower_messages_published_total counter",
        "# TYPE watchtower_published_bytes_total counter",
        "# TYPE watchtower_messages_delivered_total counter",
        "# TYPE watchtower_sessions_lagging_closed_total counter",
        "# TYPE watchtower_messages_skipped_total counter",
        "# TYPE watchtower_channels gauge",
        "# TYPE watchtower_senders gauge",
        "# TYPE watchtower_sessions gauge",
        "# TYPE watchtower_subscriptions gauge",
        "# TYPE watchtower_callback_subscriptions gauge",
        // What is counted by a label is there before there is anything to count.
        r#"watchtower_packet_errors_total{code="1",transport="tcp"} 0"#,
        r#"watchtower_packet_errors_total{code="8",transport="udp"} 0"#,
        r#"watchtower_connections_total{protocol="packets"} 0"#,
        r#"watchtower_tls_handshakes_total{outcome="refused"} 0"#,
        r#"watchtower_http_requests_total{status="503"} 0"#,
        r#"watchtower_http_streams_total{form="text/event-stream"} 0"#,
        r#"watchtower_websockets_total{protocol="webrocket"} 0"#,
        r#"watchtower_callback_attempts_total{outcome="accepted"} 0"#,
        r#"watchtower_callback_subscriptions_ended_total{reason="gone"} 0"#,
    ] {
        assert!(answer.text().lines().any(|other| other == line), "{line} is not in\n{}", answer.text());
    }
}

#[test]
fn the_description_of_the_requests_lists_them_all() {
    let server = Server::start(&[]);
    let answer = server.get("/openapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let described = answer.json();
    for (method, path) in [
        ("post", "/register"),
        ("get", "/channels"),
        ("get", "/channels/join"),
        ("post", "/channels/join"),
        ("post", "/channels/join/async"),
        ("post", "/channels/leave"),
        ("post", "/broadcast"),
        ("post", "/send"),
        ("get", "/channels/{channel}/history"),
        ("get", "/channels/{channel}/presence"),
        ("get", "/health"),
        ("get", "/ready"),
        ("get", "/metrics"),
    ] {
        assert!(described["paths"][path][method].is_object(), "{method} {path}");
    }
    assert!(described["openapi"].as_str().unwrap().starts_with("3."), "{}", described["openapi"]);
}

#[test]
fn every_answer_carries_the_servers_name() {
    let server = Server::start(&[]);
    let sender = server.register();
    let join = format!("/channels/join?sender={sender}&channels=5");
    // Reading an answer asserts its name.
    for (method, target, status) in [
        ("GET", "/", 200),
        ("GET", "/nowhere", 404),
        ("DELETE", "/register", 405),
        ("POST", "/register", 401),
        ("POST", "/broadcast", 400),
        ("GET", "/channels?sender=1", 401),
        ("HEAD", &join, 200),
        ("GET", "/channels/join?sender=1&channels=07", 400),
    ] {
        let answer = server.ask(method, target, "", b"");
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
    }
    assert_eq!(server.get(&format!("/channels?sender={sender}")).status, 204);
    let (_, head) = Stream::open_with(&server, "5", sender, "");
    assert_eq!(header(&head, "content-type"), Some("application/x-ndjson"));
}

#[test]
fn at_its_end_it_tells_everyone_in_their_own_way() {
    let server = Server::start(&[]);
    let mut open = Connection::open(server.tcp);
    open.ask("GET", "/ready", "", b"").is(200, r#"{"status":"ready"}"#);
    let stream = |accept| Stream::open(&server, "5", server.register(), accept);
    let mut lines = stream("application/x-ndjson");
    let mut events = stream("text/event-stream");
    let mut octets = stream("application/octet-stream");
    let mut packets = Packets::tcp(&server, &[5]);
    let epoch = server.epoch(packets.id, "5");

    server.terminate();
    let last = r#"{"error":"shutting_down","message":"the server is shutting down"}"#;
    assert_eq!(lines.rest(), format!("{last}\n"));
    // Of a connection that was open before, whose time is short now.
    let answer = open.ask("GET", "/ready", "", b"");
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")), "{answer:?}");
    assert_eq!(answer.json()["error"], "draining", "{answer:?}");
    assert!(open.is_over());
    assert_eq!(events.rest(), format!("id: {epoch}:0\n\nevent: error\ndata: {last}\n\n"));
    assert_eq!(octets.rest(), "E\u{8}\u{15}the server shuts down");
    packets.expect(b"E\x08\x15the server shuts down");

    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said}");
}
