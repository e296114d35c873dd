//! What is written down: no secret and no content, whatever is said and however it goes wrong
//! [running: logs].

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};

use serde_json::{Value, json};

use super::http::Stream;
use super::packets::{Packets, delivered};
use super::receiver::Receiver;
use super::server::{PATIENCE, SECRET, Server, until, watchtower};
use super::websockets::{By, Socket};
use super::webtalk::Link;

/// In every secret and every content here.
const HUSHED: &str = "hushed";

/// A server with all there is, whose log says as much as it can.
fn talkative(log_format: &str) -> Server {
    let hub = r#"webrocket.hubs=[{path="/webrocket",read_write="hushed-hub",read_only="hushed-read"}]"#;
    let settings =
        [hub, "webtalk.private=127.0.0.1:0", "webtalk.secret=hushed-link", "whispernet.listen=127.0.0.1:0"];
    let mut options: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    options.extend(["--set", "whispernet.channel=5", "--log-format", log_format]);
    Server::start_in(&options, &[("RUST_LOG", "trace"), ("RUST_BACKTRACE", "1")])
}

/// Says something by every protocol, and something wrong too. Returns a secret that was made on
/// the way.
fn talk(server: &Server) -> String {
    let receiver = Receiver::start();
    let mut tcp = Packets::tcp(server, &[5]);
    let url = format!("{}/hushed-path?token=hushed-token", receiver.url());
    let callback = json!({ "sender": tcp.id, "channels": [5], "callback_url": url });
    assert_eq!(server.post("/channels/join/async", &callback.to_string()).status, 200);
    tcp.publish(5, b"hushed-tcp");
    tcp.expect(&delivered(tcp.id, 5, false, b"hushed-tcp"));
    assert_eq!(receiver.next().text(), "hushed-tcp");
    let mut udp = Packets::udp(server, &[6]);
    udp.publish(6, b"hushed-udp");
    udp.expect(&delivered(udp.id, 6, false, b"hushed-udp"));
    over_http(server);
    over_webrocket(server);
    let salt = over_webtalk(server);
    wrongly(server);
    over_whispernet(server);
    salt
}

fn over_http(server: &Server) {
    let sender = server.joined(&json!([8]));
    let streams = ["application/x-ndjson", "text/event-stream", "application/octet-stream"]
        .map(|accept| Stream::open(server, "8", sender, accept));
    server.broadcast(sender, &json!(8), "hushed-json");
    let target = format!("/broadcast?channels=8&sender={sender}");
    let plain = server.ask("POST", &target, "Content-Type: text/plain\r\n", b"hushed-plain");
    assert_eq!(plain.status, 200);
    let direct =
        json!({ "sender": sender, "channels": [8], "receivers": [sender], "message": "hushed-direct" });
    assert_eq!(server.post("/send", &direct.to_string()).status, 200);
    let [mut lines, ..] = streams;
    until("delivered", || lines.line().contains("hushed-plain"));
    assert!(server.get(&format!("/channels/8/history?sender={sender}")).text().contains(HUSHED));
}

fn over_webrocket(server: &Server) {
    let socket = Socket::open(By::Package, &format!("ws://{}/webrocket", server.tcp));
    for (secret, answer) in
        [("hushed-guess", r#"{"err": "invalid_credentials"}"#), ("hushed-hub", r#"{"ok": true}"#)]
    {
        socket.send(&json!({ "auth": { "access": "read-write", "secret": secret } }).to_string());
        socket.expect(answer);
    }
    socket.send(r#"{"publish": {"event": "e", "channel": "5", "data": "hushed-rocket"}}"#);
    socket.expect(r#"{"ok": true}"#);
    socket.send("hushed, and no command");
    assert!(!socket.text().contains(HUSHED));
}

fn over_webtalk(server: &Server) -> String {
    let mut link = Link::open(server.listener("webtalk-private"));
    assert!(link.ask("[login] hushed-lie").starts_with("[error]"));
    let mut link = Link::open(server.listener("webtalk-private"));
    assert!(link.command("[login] hushed-link").is_ascii());
    let credentials = link.new_user();
    let (user, salt) = credentials.split_once('!').unwrap();
    link.command(format!("[whisper] {user}!hushed-whisper"));
    link.command("[store] key!hushed-value");
    let url = format!("ws://{}/webtalk", server.tcp);
    let liar = Socket::open(By::Package, &url);
    liar.send(&format!("{user}!hushed-salt"));
    liar.expect_closed(4001, "wrong ID!SALT, or logged in already");
    let browser = Socket::open(By::Package, &url);
    browser.send(&credentials);
    browser.expect("hushed-whisper");
    salt.to_owned()
}

/// What is answered, or not, repeats nothing of it.
fn wrongly(server: &Server) {
    let wrong = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(server.tcp).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.contains(HUSHED), "{answer}");
    };
    wrong(b"S\x0chushed-wrong");
    wrong(b"hushed, and no packet");
    wrong(b"GET /hushed HTTP/1.1\r\nHost: x\r\nAuthorization: hushed\r\nCookie: hushed\r\nConnection: close\r\n\r\n");
    wrong(b"GET hushed hushed HTTP/1.1\r\n\r\n");
    // A handshake of TLS that is none.
    wrong(b"\x16\x03\x01\0\x10hushed-handshake");
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hushed-datagram", server.udp).unwrap();
    for (target, body) in [
        ("/register", r#"{"secret_key": "hushed-wrong"}"#),
        ("/register", r#"{"secret_key": "hushed"#),
        ("/broadcast", r#"{"message": "hushed", "channels": "hushed"}"#),
        ("/channels/join/async", r#"{"callback_url": "http://u:hushed@example.com/hushed"}"#),
    ] {
        let answer = server.post(target, body);
        assert!(answer.status >= 400 && !answer.text().contains(HUSHED), "{target}: {answer:?}");
    }
}

fn over_whispernet(server: &Server) {
    let mut peer = TcpStream::connect(server.listener("whispernet")).unwrap();
    let object = json!({ "ID": "1", "Addr": "127.0.0.1:1", "Body": "hushed-body", "Nick": "hushed-nick" });
    peer.write_all(object.to_string().as_bytes()).unwrap();
    let received = "watchtower_whispernet_received_total";
    until("received", || server.metric(received) == Some(1.0));
    peer.write_all(b"{hushed, and no object}").unwrap();
    until("closed", || peer.read(&mut [0; 64]).is_ok_and(|length| length == 0));
}

#[test]
fn nothing_that_is_written_down_shows_secrets_or_contents() {
    for log_format in ["text", "json"] {
        let server = talkative(log_format);
        let salt = talk(&server);
        let mut shown = server.get("/metrics").text().to_owned();
        for target in ["/", "/health", "/ready", "/openapi.json"] {
            shown.push_str(server.get(target).text());
        }
        server.terminate();
        let (code, log) = server.ended();
        assert_eq!(code, Some(0));
        assert!(log.contains("DEBUG") && log.contains("a connection ends"), "{log}");
        if log_format == "json" {
            for line in log.lines() {
                assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()), "{line}");
            }
        }
        shown.push_str(&log);
        for hushed in [HUSHED, SECRET, &salt] {
            let line = shown.lines().find(|line| line.contains(hushed));
            assert_eq!(line, None, "{hushed}");
        }
    }
}

#[test]
fn a_wrong_configuration_is_told_without_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.toml");
    for text in [
        "secret_key = \"hushed",
        "secret_key = \"hushed\" hushed",
        "secret_key = [\"hushed\"]",
        "secret_keey = \"hushed\"",
        "webtalk = \"hushed\"",
        "[[webrocket.hubs]]\npath = \"/x\"\nread_write = {hushed = \"hushed\"}",
        "listen = \"0.0.0.0:1\"\nsecret_key = \"hushed\"\nlimits.max_senders = -1",
    ] {
        std::fs::write(&file, text).unwrap();
        let output = watchtower(&["config", "check", file.to_str().unwrap()]).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}: {said}");
        assert!(!said.contains(HUSHED), "{said}");
    }
}

/// The lines of a log of JSON that are about connections: what each says, and its connection.
fn about_connections(log: &str) -> Vec<(String, u64)> {
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let connection = line["span"]["connection"].as_u64()?;
        let peer = line["span"]["peer"].as_str().unwrap_or_default();
        assert!(peer.starts_with("127.0.0.1:"), "{line}");
        let protocol = line["fields"]["protocol"].as_str().unwrap_or_default();
        Some((format!("{} {protocol}", line["fields"]["message"].as_str().unwrap()), connection))
    };
    log.lines().filter_map(read).collect()
}

#[test]
fn each_line_about_a_connection_bears_its_number() {
    let options = ["--log-format", "json"];
    let server = Server::start_in(&options, &[("RUST_LOG", "watchtower_server=debug")]);
    let sender = server.register();
    let clients = [Packets::tcp(&server, &[5]), Packets::tcp(&server, &[5])];
    let stream = Stream::open(&server, "5", sender, "application/x-ndjson");
    drop((clients, stream));
    until("over", || server.metric("watchtower_sessions") == Some(0.0));
    server.terminate();
    let lines = about_connections(&server.ended().1);
    let of = |connection: u64| -> Vec<&str> {
        lines.iter().filter(|(_, other)| *other == connection).map(|(said, _)| said.as_str()).collect()
    };
    assert_eq!(of(1), ["a client is served http"]);
    for packets in [2, 3] {
        assert_eq!(of(packets), ["a client is served packets", "a connection ends tcp"]);
    }
    assert_eq!(of(4), ["a client is served http", "a connection ends http"]);
}

#[test]
fn what_clients_do_over_and_over_is_not_written_down_each_time() {
    let server = Server::start(&[]);
    let sender = server.register();
    let times = 60;
    for time in 0..times {
        let url = format!("http://127.0.0.1:1/{time}");
        let join = json!({ "sender": sender, "channels": [5], "callback_url": url });
        assert_eq!(server.post("/channels/join/async", &join.to_string()).status, 200);
        let leave = json!({ "sender": sender, "channels": [5] });
        assert_eq!(server.post("/channels/leave", &leave.to_string()).status, 200);
    }
    server.terminate();
    let (_, log) = server.ended();
    let written = log.lines().filter(|line| line.contains("a callback subscription ended")).count();
    assert!((20..times).contains(&written), "{log}");
    let left_out = log.split("lines=").skip(1).map(|rest| rest.split_whitespace().next().unwrap());
    let left_out: usize = left_out.map(|lines| lines.parse::<usize>().unwrap()).sum();
    assert_eq!(written + left_out, times, "{log}");
}
