//! The WebSocket: who may open it, what it tells, and how it ends.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_websockets::{ClientBuilder, CloseCode, MaybeTlsStream, Message, WebSocketStream};
use watchtower_whisper::page::Limits;

use super::request::{Answer, ask};
use super::{Node, PATIENCE, two};

/// A page's socket.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(node: &Node) -> Socket {
        let offered = format!("whisper-page, {}", node.token().await);
        let origin = format!("http://{}", node.addr());
        let builder = ClientBuilder::from_uri(format!("ws://{}/events", node.addr()).parse().unwrap());
        let builder = builder.add_header("sec-websocket-protocol".parse().unwrap(), offered.parse().unwrap());
        let builder = builder.unwrap().add_header("origin".parse().unwrap(), origin.parse().unwrap());
        let (socket, answer) = builder.unwrap().connect().await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "whisper-page");
        Socket(socket)
    }

    async fn next(&mut self) -> Message {
        timeout(PATIENCE, self.0.next()).await.expect("something comes").expect("it is open").unwrap()
    }

    /// The next update of that kind; others are nobody's.
    async fn next_that_is(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            let update: Value = serde_json::from_str(message.as_text().expect("a text")).unwrap();
            if update["is"] == kind {
                return update;
            }
        }
    }

    /// Why it ends.
    async fn end(&mut self) -> (CloseCode, String) {
        loop {
            if let Some((code, reason)) = self.next().await.as_close() {
                return (code, reason.to_owned());
            }
        }
    }
}

/// The answer to a request for a WebSocket with these lines in its head.
async fn upgrade(node: &Node, headers: &[(&str, &str)]) -> Answer {
    let handshake = [
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let addr = node.addr();
    let mut head = "GET /events HTTP/1.1\r\nConnection: upgrade\r\n".to_owned();
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head += &format!("Host: {addr}\r\n");
    }
    for (name, value) in handshake.iter().chain(headers) {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("it answers").unwrap();
        assert!(read > 0, "{}", answer.escape_ascii());
    }
    Answer::read(&answer)
}

#[tokio::test]
async fn a_page_is_told_what_was_said_before_it_came_and_then_what_is_said() {
    let (goldy, bambam) = two().await;
    bambam.peer.say("before").await.unwrap();
    let mut first = Socket::open(&goldy).await;
    let hello = first.next_that_is("hello").await;
    assert_eq!(hello["address"], goldy.peer.address().to_string());
    assert_eq!(hello["key"], goldy.peer.public_key().to_string());
    // It is among what is kept, or comes now.
    let before = match hello["log"].as_array().unwrap().first() {
        Some(message) => message.clone(),
        None => first.next_that_is("message").await,
    };
    assert_eq!((&before["text"], &before["name"]), (&json!("before"), &json!("bambam")));
    assert_eq!((&before["own"], &before["mark"]), (&json!(false), &json!("verified")));
    goldy.peer.say("after").await.unwrap();
    let after = first.next_that_is("message").await;
    assert_eq!((&after["text"], &after["own"]), (&json!("after"), &json!(true)));
    let mut second = Socket::open(&goldy).await;
    assert_eq!(second.next_that_is("hello").await["log"], json!([before, after]));
}

#[tokio::test]
async fn a_page_is_told_of_peers_and_of_the_nick() {
    let goldy = Node::start("goldy", &[]).await;
    let mut socket = Socket::open(&goldy).await;
    socket.next_that_is("hello").await;
    let bambam = Node::start("bambam", &[]).await;
    goldy.peer.connect(bambam.peer.address()).await;
    let address = bambam.peer.address().to_string();
    loop {
        let told = socket.next_that_is("peers").await;
        if told["peers"] == json!([{ "address": address, "connected": true }]) {
            break;
        }
    }
    goldy.peer.set_nick(Some("\u{202e}pebbles\0".to_owned()));
    loop {
        let told = socket.next_that_is("nick").await;
        if told["nick"] == "pebbles" {
            break;
        }
    }
}

#[tokio::test]
async fn a_socket_needs_the_token_and_this_pages_origin() {
    let node = Node::start("goldy", &[]).await;
    let (token, own) = (node.token().await, format!("http://{}", node.addr()));
    let neighbour = format!("http://localhost:{}", node.addr().port());
    let offered = format!("whisper-page, {token}");
    let protocol = "Sec-WebSocket-Protocol";
    for (headers, status) in [
        (vec![], 403),
        (vec![("Origin", &*own)], 403),
        (vec![("Origin", &*own), (protocol, "whisper-page")], 403),
        (vec![("Origin", &*own), (protocol, "whisper-page, 0")], 403),
        (vec![("Origin", "http://evil.example"), (protocol, &*offered)], 403),
        (vec![("Origin", &*neighbour), (protocol, &*offered)], 403),
        (vec![("Origin", "null"), (protocol, &*offered)], 403),
        (vec![("Host", "evil.example"), (protocol, &*offered)], 403),
        (vec![("Host", "evil.example"), ("Origin", "http://evil.example"), (protocol, &*offered)], 403),
        (vec![("Origin", &*own), (protocol, &*offered)], 101),
    ] {
        assert_eq!(upgrade(&node, &headers).await.status, status, "{headers:?}");
    }
    let plain = ask(&node, "GET /events", &[(protocol, &offered)], "").await;
    assert!((400..500).contains(&plain.status), "{plain:?}");
}

#[tokio::test]
async fn no_more_pages_are_told_than_may_be() {
    let node = Node::with("goldy", &[], Limits { sockets_max: 1, ..Limits::default() }).await;
    let mut first = Socket::open(&node).await;
    first.next_that_is("hello").await;
    let offered = format!("whisper-page, {}", node.token().await);
    let second = upgrade(&node, &[("Sec-WebSocket-Protocol", &offered)]).await;
    assert_eq!(second.status, 503);
}

#[tokio::test]
async fn a_page_that_speaks_where_it_should_listen_is_told_so() {
    let node = Node::start("goldy", &[]).await;
    let mut socket = Socket::open(&node).await;
    socket.0.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.end().await, (CloseCode::POLICY_VIOLATION, "nothing is said here: post it".to_owned()));
}

#[tokio::test]
async fn sockets_end_with_the_node_and_with_the_page() {
    let goldy = Node::start("goldy", &[]).await;
    let bambam = Node::start("bambam", &[]).await;
    let mut sockets = [Socket::open(&goldy).await, Socket::open(&bambam).await];
    for socket in &mut sockets {
        socket.next_that_is("hello").await;
    }
    goldy.peer.shut_down().await;
    drop(bambam.page);
    for socket in &mut sockets {
        assert_eq!(socket.end().await, (CloseCode::GOING_AWAY, "the node has ended".to_owned()));
    }
}

/// A page whose socket takes nothing for a while.
async fn slow_reader(node: &Node) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(node.addr()).await.unwrap();
    let (addr, token) = (node.addr(), node.token().await);
    let head = format!(
        "GET /events HTTP/1.1\r\nHost: {addr}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: whisper-page, {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    stream
}

#[tokio::test]
async fn a_page_that_takes_nothing_at_all_is_let_go() {
    let limits = Limits { sockets_max: 1, patience: Duration::from_millis(50), ..Limits::default() };
    let node = Node::with("goldy", &[], limits).await;
    let _slow = slow_reader(&node).await;
    let long = "x".repeat(16_000);
    for _ in 0..500 {
        node.peer.say(&long).await.unwrap();
    }
    // Then there is room for another.
    let offered = format!("whisper-page, {}", node.token().await);
    let room = async { while upgrade(&node, &[("Sec-WebSocket-Protocol", &offered)]).await.status != 101 {} };
    timeout(PATIENCE, room).await.expect("there is room soon");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_slow_page_and_it_is_told_that_it_missed_something() {
    // It is slow, and not gone, however long this takes.
    let node = Node::with("goldy", &[], Limits { patience: PATIENCE, ..Limits::default() }).await;
    let mut slow = slow_reader(&node).await;
    let mut quick = Socket::open(&node).await;
    quick.next_that_is("hello").await;
    // More than sockets and queues hold; quotation marks are twice as long in JSON.
    let long = "\"".repeat(3_000);
    for number in 0..1_400 {
        node.peer.say(&format!("{number} {long}")).await.unwrap();
        let told = quick.next_that_is("message").await;
        assert!(told["text"].as_str().unwrap().starts_with(&format!("{number} \"")));
    }
    let mut heard = Vec::new();
    timeout(PATIENCE, slow.read_to_end(&mut heard)).await.expect("it ends").unwrap();
    let end = heard.windows(9).rposition(|bytes| bytes == b"too slow:").expect("it is told why");
    // A closing frame: its first byte, its length, 1013.
    assert_eq!(heard[end - 4], 0x88);
    assert_eq!(heard[end - 2..end], 1013_u16.to_be_bytes());
    assert!(String::from_utf8_lossy(&heard[end..]).contains("updates were missed"));
}
