//! What one client may not do: each of these is answered, ended and counted, and a pair beside it
//! does not notice.

use std::net::SocketAddr;

use flate2::{Compress, FlushCompress};

use super::support::packets::*;
use super::support::{Server, Tcp, eventually};

/// Where it is done.
#[derive(Debug, Clone, Copy)]
enum Door {
    Shared,
    Private,
}

struct Abuse {
    what: &'static str,
    door: Door,
    sent: Vec<u8>,
    /// What stands in the answer; nothing where it is closed without one.
    told: &'static [u8],
    /// What counts it, as `/metrics` shows it.
    counted: &'static str,
}

fn at(
    door: Door,
    what: &'static str,
    sent: impl Into<Vec<u8>>,
    told: &'static [u8],
    counted: &'static str,
) -> Abuse {
    Abuse { what, door, sent: sent.into(), told, counted }
}

fn packets() -> Vec<Abuse> {
    let error = |code: u8| match code {
        1 => r#"packet_errors_total{code="1",transport="tcp"}"#,
        4 => r#"packet_errors_total{code="4",transport="tcp"}"#,
        _ => r#"packet_errors_total{code="5",transport="tcp"}"#,
    };
    let shared = |what, sent: &[u8], told, counted| at(Door::Shared, what, sent, told, counted);
    vec![
        shared("silence", b"", b"", "connections_silent_total"),
        shared("no packet", b"?", b"no packet begins with byte 0x3f", error(1)),
        shared("a length", &[ids(b'M', 5, 1), vec![0xff; 4]].concat(), b"at most 100 are accepted", error(4)),
        shared("half a packet", b"J\x05\0", SILENT.as_bytes(), error(5)),
        shared(
            "receivers that never come",
            &[ids(b'W', 5, 1), vec![0xff; 2]].concat(),
            SILENT.as_bytes(),
            error(5),
        ),
        shared("TLS where there is none", b"\x16\x03\x01", b"", r#"tls_handshakes_total{outcome="refused"}"#),
    ]
}

fn requests() -> Vec<Abuse> {
    let get = |headers: String| format!("GET /health HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    let post = |length: usize, body: &str| {
        format!(
            "POST /broadcast HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let deep = format!(r#"{{"channels":[1],"sender":5,"message":{}{}}}"#, "[".repeat(450), "]".repeat(450));
    let shared = |what, sent: String, told, counted| at(Door::Shared, what, sent, told, counted);
    let answered = |status: u16| match status {
        400 => r#"http_requests_total{status="400"}"#,
        408 => r#"http_requests_total{status="408"}"#,
        413 => r#"http_requests_total{status="413"}"#,
        _ => r#"http_requests_total{status="431"}"#,
    };
    vec![
        shared(
            "a head without end",
            "GET / HTTP/1.1\r\nHost: x\r\n".to_owned(),
            b"",
            "connections_silent_total",
        ),
        shared("no HTTP", "GET nonsense\r\n\r\n".to_owned(), b"HTTP/1.1 400 ", answered(400)),
        shared("a long head", get(format!("X: {}\r\n", "y".repeat(20_000))), b"HTTP/1.1 431 ", answered(431)),
        shared("spaces", get(format!("X: {}y\r\n", " ".repeat(32_000))), b"HTTP/1.1 431 ", answered(431)),
        shared("many headers", get("X: y\r\n".repeat(200)), b"HTTP/1.1 431 ", answered(431)),
        shared("a body that never comes", post(900, ""), b"HTTP/1.1 408 ", answered(408)),
        shared("a long body", post(5_000_000, ""), b"HTTP/1.1 413 ", answered(413)),
        shared("a deep body", post(deep.len(), &deep), b"HTTP/1.1 400 ", answered(400)),
    ]
}

/// What a client of WebSocket says after it was let in.
fn websockets() -> Vec<Abuse> {
    let says = |what, path: &str, frames: &[u8], told, counted| {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        );
        at(Door::Shared, what, [head.as_bytes(), frames].concat(), told, counted)
    };
    // Text with a length of 64 bits, and a mask that changes nothing.
    let long = |length: u64| [&[0x81, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    let opened = r#"websockets_total{protocol="webrocket"}"#;
    vec![
        says("no mask", "/webrocket", b"\x81\x02hi", b"\x03\xeaa frame of a client must be masked", opened),
        says(
            "a length that cannot be",
            "/webrocket",
            &long(u64::MAX),
            b"\x03\xeaa length of 64 bits",
            opened,
        ),
        says(
            "a length above the limit",
            "/webrocket",
            &long(u64::MAX >> 1),
            b"\x03\xf1the message is too long",
            opened,
        ),
        says(
            "a message without end",
            "/webrocket",
            &[&long(900)[..], b"x"].concat(),
            b"\x03\xf0a message took too long",
            opened,
        ),
        says(
            "a bomb",
            "/webrocket",
            &bomb(),
            b"\x03\xf1a compressed message must be shorter",
            "websocket_inflation_refused_total",
        ),
        says("no answer to a ping", "/webrocket", b"", b"\x03\xf0no answer to a ping", opened),
        says(
            "no login",
            "/webtalk",
            b"",
            b"\x0f\xa1no ID!SALT came in time",
            r#"websockets_total{protocol="webtalk"}"#,
        ),
    ]
}

fn bomb() -> Vec<u8> {
    let mut compress = Compress::new(flate2::Compression::best(), false);
    let mut payload = Vec::with_capacity(1 << 16);
    compress.compress_vec(&vec![0; 60_000], &mut payload, FlushCompress::Sync).unwrap();
    payload.truncate(payload.len() - 4);
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126).unwrap();
    [&[0xc1, 0x80 | length, 0, 0, 0, 0], &payload[..]].concat()
}

fn links() -> Vec<Abuse> {
    let link = |what, sent: &[u8], told| {
        at(Door::Private, what, sent, told, r#"connections_total{protocol="webtalk-private"}"#)
    };
    vec![link("no length", b"x", b"[error] "), link("half a frame", b"00100[newuser", b"[error] ")]
}

#[test]
fn each_abuse_is_answered_and_counted_and_a_pair_beside_it_does_not_notice() {
    let server = Server::start(&[
        "--set",
        "limits.header_timeout=1s",
        "--set",
        "limits.max_message_bytes=100",
        "--set",
        "websocket.heartbeat=1s",
        "--set",
        "websocket.max_message_bytes=100000",
        "--set",
        "webtalk.private=127.0.0.1:0",
    ]);
    let line = server.listening.iter().find(|line| line.ends_with(" webtalk-private")).unwrap();
    let private: SocketAddr = line.split(' ').nth(2).unwrap().parse().unwrap();
    let (mut a, mut b) = (server.connect(), server.connect());
    let (id, _) = (a.enter(1), b.enter(1));
    let abuses: Vec<Abuse> = [packets(), requests(), websockets(), links()].into_iter().flatten().collect();
    let before: Vec<u64> = abuses.iter().map(|abuse| server.metric_or_zero(abuse.counted)).collect();
    // All at once: most of them are about time.
    let mut clients: Vec<Tcp> = abuses
        .iter()
        .map(|abuse| {
            let mut client = Tcp::connect(if let Door::Private = abuse.door { private } else { server.tcp });
            client.send(&abuse.sent);
            client
        })
        .collect();
    for ((abuse, before), client) in abuses.iter().zip(before).zip(&mut clients) {
        let told = client.read_to_end();
        let is_told = told.windows(abuse.told.len().max(1)).any(|window| window == abuse.told);
        assert!(
            is_told || (abuse.told.is_empty() && told.is_empty()),
            "{}: {}",
            abuse.what,
            told.escape_ascii()
        );
        eventually(abuse.what, || server.metric_or_zero(abuse.counted) > before);
        a.ask(say(id, 1, abuse.what), said(id, 1, abuse.what));
        b.expect(said(id, 1, abuse.what));
    }
    server.stop();
}
