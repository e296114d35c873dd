//! Clients that take their time to say what they speak, or never say it.
//!
//! The clock stands still while anybody has something to do, and jumps when
//! all wait.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use watchtower_server::config::Config;
use watchtower_server::{Handle, Server};

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

async fn serve() -> (std::net::SocketAddr, Handle) {
    let config = Config { listen: "127.0.0.1:0".parse().expect("an address"), ..Config::default() };
    assert_eq!(config.limits.header_timeout, HEADER_TIMEOUT);
    let server = Server::bind(config).await.expect("free ports");
    let address = server.listeners()[0].address;
    let handle = server.handle();
    tokio::spawn(server.run());
    (address, handle)
}

/// What a client hears, and after how long its connection ends, that sends
/// each piece when its time has come.
async fn heard(pieces: &[(u64, &[u8])]) -> (Vec<u8>, Duration) {
    let (address, _handle) = serve().await;
    let mut client = TcpStream::connect(address).await.expect("it listens");
    let begin = Instant::now();
    for (second, piece) in pieces {
        tokio::time::sleep_until(begin + Duration::from_secs(*second)).await;
        client.write_all(piece).await.expect("open");
    }
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.expect("no reset");
    (heard, begin.elapsed())
}

/// When a connection ends, give or take what the wheel of timers rounds, and
/// the second that a closed one stays open for its client to see why.
fn is_in_time(elapsed: Duration) -> bool {
    (HEADER_TIMEOUT..=HEADER_TIMEOUT + Duration::from_millis(1_100)).contains(&elapsed)
}

// [running: header_timeout] "for whatever a protocol must say first"
#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_cut_off() {
    let (heard, elapsed) = heard(&[]).await;
    assert!(heard.is_empty() && is_in_time(elapsed), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_first_packet_that_begins_late_has_no_more_time_than_one_that_begins_at_once() {
    let (heard, elapsed) = heard(&[(9, b"J\x01\0")]).await;
    assert!(heard.starts_with(b"E"), "{}", heard.escape_ascii());
    assert!(is_in_time(elapsed), "{elapsed:?}");
    let (_, elapsed) = self::heard(&[(5, b"\n"), (9, b"J")]).await;
    assert!(is_in_time(elapsed), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_packet_has_its_own_time() {
    let (heard, elapsed) = heard(&[(9, b"KJ\x01")]).await;
    assert!(heard.starts_with(b"A\0\0\0\0E"), "{}", heard.escape_ascii());
    assert!(is_in_time(elapsed - Duration::from_secs(9)), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_first_request_that_begins_late_has_no_more_time_than_one_that_begins_at_once() {
    for pieces in [
        &[(9, &b"GET /health HTTP/1.1\r\nHo"[..])][..],
        &[(3, b"G"), (6, b"ET /health HTTP/1.1\r\n"), (9, b"Host: x\r\n")],
    ] {
        let (heard, elapsed) = heard(pieces).await;
        assert!(heard.is_empty() && is_in_time(elapsed), "{elapsed:?}, {}", heard.escape_ascii());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_in_pieces_but_in_time_is_answered() {
    let request = b"POST /register HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    let pieces: Vec<(u64, &[u8])> = request.chunks(1).map(|byte| (1, byte)).collect();
    let (heard, _) = heard(&pieces).await;
    assert!(heard.starts_with(b"HTTP/1.1 401 "), "{}", heard.escape_ascii());
    let (address, _handle) = serve().await;
    let mut client = TcpStream::connect(address).await.expect("it listens");
    client.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n").await.expect("open");
    sleep(HEADER_TIMEOUT - Duration::from_secs(1)).await;
    client.write_all(b"\r\n").await.expect("open");
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.expect("no reset");
    assert!(heard.starts_with(b"HTTP/1.1 200 "), "{}", heard.escape_ascii());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_no_head_is_refused_at_once() {
    let long = [&b"GET / HTTP/1.1\r\nHost: x\r\nX: "[..], &[b'x'; 64 * 1024]].concat();
    for (bytes, status) in [(&b"GET nonsense\r\n"[..], "400"), (&long, "431")] {
        let (heard, elapsed) = heard(&[(1, bytes)]).await;
        let start = format!("HTTP/1.1 {status} ");
        assert!(heard.starts_with(start.as_bytes()), "{}", heard.escape_ascii());
        assert!(elapsed < HEADER_TIMEOUT, "{elapsed:?}");
    }
}
