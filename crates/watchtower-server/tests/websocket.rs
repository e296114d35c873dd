//! WebSockets over real connections, in exact bytes: how HTTP becomes one, and how the server ends
//! them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use watchtower_server::config::Config;
use watchtower_server::hub::{ChannelName, Content, Publish};
use watchtower_server::{Handle, Server};

/// How long a test waits for what must come: longer than any timer of the server, since the clock
/// of some tests jumps.
const PATIENCE: Duration = Duration::from_secs(120);

/// More than the sockets of both sides take together.
const MORE_THAN_SOCKETS_TAKE: usize = 16 << 20;

/// The headers of RFC 6455 1.3, whose answer is known.
const ASKED: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

const AUTH: &str = r#"{"auth": {"access": "read-write", "secret": ""}}"#;
const OK: &[u8] = b"\x81\x0c{\"ok\": true}";

struct Running {
    address: SocketAddr,
    handle: Handle,
}

async fn serve(configure: impl FnOnce(&mut Config)) -> Running {
    let mut config = Config { listen: "127.0.0.1:0".parse().expect("an address"), ..Config::default() };
    configure(&mut config);
    let server = Server::bind(config).await.expect("free ports");
    let address = server.listeners()[0].address;
    let handle = server.handle();
    tokio::spawn(server.run());
    Running { address, handle }
}

/// A client's end of a connection.
struct Client(TcpStream);

impl Running {
    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.expect("it listens"))
    }

    /// One that has opened a WebSocket, and may publish.
    async fn open(&self) -> Client {
        let mut client = self.connect().await;
        client.open().await;
        client
    }

    async fn count(&self, name: &str) -> u64 {
        let mut client = self.connect().await;
        client.send(b"GET /metrics HTTP/1.0\r\n\r\n").await;
        let text = String::from_utf8(client.rest().await).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("watchtower_{name} ")));
        line.map_or(0, |count| count.parse().expect("a number"))
    }
}

/// A request for the WebSocket of the default hub.
fn request(headers: &str) -> String {
    format!("GET /webrocket HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

/// A short message of a client, whose mask is zero.
fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("short");
    assert!(length < 126);
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// What a subscriber gets of what was published on channel 5.
fn event(text: &str) -> Vec<u8> {
    let event = format!(r#"{{"event": "message", "channel": "5", "data": "{text}"}}"#);
    let length = u16::try_from(event.len()).expect("short").to_be_bytes();
    let head = if event.len() < 126 { vec![0x81, length[1]] } else { [&[0x81, 126], &length[..]].concat() };
    [&head, event.as_bytes()].concat()
}

/// The server's close frame.
fn close(code: u16, reason: &str) -> Vec<u8> {
    let length = u8::try_from(2 + reason.len()).expect("short");
    [&[0x88, length], &code.to_be_bytes()[..], reason.as_bytes()].concat()
}

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("open");
    }

    async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        timeout(PATIENCE, self.0.read_exact(&mut bytes)).await.expect("in time").expect("open");
        bytes
    }

    #[track_caller]
    fn expect(&mut self, expected: &[u8]) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let came = self.read(expected.len()).await;
            assert_eq!(came.escape_ascii().to_string(), expected.escape_ascii().to_string(), "at {caller}");
        }
    }

    /// Up to and with the empty line.
    async fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push(char::from(self.read(1).await[0]));
        }
        head
    }

    async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("in time").expect("a clean end");
        bytes
    }

    async fn open(&mut self) {
        self.send(request(ASKED).as_bytes()).await;
        assert!(self.head().await.starts_with(SWITCHED));
        self.send(&text(AUTH)).await;
        self.expect(OK).await;
    }

    async fn subscribe(&mut self) {
        self.send(&text(r#"{"subscribe": {"channel": "5"}}"#)).await;
        self.expect(OK).await;
    }
}

fn five() -> ChannelName {
    ChannelName::parse("5").expect("a name")
}

#[tokio::test]
async fn a_handshake_is_answered_with_what_proves_that_it_was_understood_and_nothing_else() {
    let server = serve(|_| {}).await;
    for (offer, answer) in [
        ("", ""),
        (
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
            "sec-websocket-extensions: permessage-deflate; server_no_context_takeover; \
             client_no_context_takeover\r\n",
        ),
        ("Sec-WebSocket-Extensions: x-unknown\r\nSec-WebSocket-Protocol: chat\r\n", ""),
    ] {
        let mut client = server.connect().await;
        client.send(request(&format!("{ASKED}{offer}")).as_bytes()).await;
        let head = client.head().await;
        let mut lines: Vec<&str> = head.split_inclusive("\r\n").collect();
        // The one thing that is not always the same.
        lines.retain(|line| !line.starts_with("date: "));
        let expected =
            format!("{SWITCHED}{answer}x-server-name: Watchtower\r\nx-content-type-options: nosniff\r\n\r\n");
        assert_eq!(lines.concat(), expected);
    }
}

#[tokio::test]
async fn a_path_that_speaks_websocket_says_so_to_whom_asks_otherwise() {
    let server = serve(|_| {}).await;
    let needs_host = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let asked = |from: &str, to: &str| {
        assert!(ASKED.contains(from));
        request(&ASKED.replace(from, to))
    };
    for (request, status, header) in [
        (request(""), 426, "upgrade: websocket"),
        (request(needs_host), 426, "sec-websocket-version: 13"),
        (request("Upgrade: h2c\r\nConnection: Upgrade\r\n"), 426, "upgrade: websocket"),
        (asked("Version: 13", "Version: 12"), 426, "sec-websocket-version: 13"),
        (request(ASKED).replace("GET", "POST"), 405, "allow: GET"),
        (request(ASKED).replace("HTTP/1.1", "HTTP/1.0"), 400, ""),
        (request(ASKED).replace("Host: x\r\n", ""), 400, ""),
        (asked("Connection: Upgrade", "Connection: close"), 400, ""),
        (asked("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"), 400, ""),
        (asked("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400, ""),
        (asked("Sec-WebSocket-Key", "Sec-WebSocket-Kay"), 400, ""),
        (request(&format!("{ASKED}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")), 400, ""),
        (request(&format!("{ASKED}Host: y\r\n")), 400, ""),
        (request(&format!("{ASKED}Content-Length: 5\r\n")), 400, ""),
        (request(&format!("{ASKED}Transfer-Encoding: chunked\r\n")), 400, ""),
        (request(ASKED).replace("/webrocket", "/nowhere"), 404, ""),
    ] {
        let mut client = server.connect().await;
        client.send(request.as_bytes()).await;
        let head = client.head().await;
        assert_eq!(head.split(' ').nth(1), Some(status.to_string().as_str()), "{request}{head}");
        assert!(head.contains(header), "{request}{head}");
        assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{request}{head}");
    }
    assert_eq!(server.count("sessions").await, 0);
}

#[tokio::test]
async fn what_comes_with_the_request_or_in_pieces_behind_it_is_not_lost() {
    let server = serve(|_| {}).await;
    let input =
        [request(ASKED).into_bytes(), text(AUTH), text(r#"{"subscribe": {"channel": "5"}}"#)].concat();
    for piece in [1, 7, input.len() - 1, input.len()] {
        let mut client = server.connect().await;
        client.0.set_nodelay(true).expect("a socket");
        for piece in input.chunks(piece) {
            client.send(piece).await;
        }
        assert!(client.head().await.starts_with(SWITCHED));
        client.expect(&[OK, OK].concat()).await;
        server.handle.publish(&five(), Publish::new(Content::text("here"))).expect("room");
        client.expect(&event("here")).await;
    }
}

#[tokio::test]
async fn another_request_may_come_before_on_the_same_connection() {
    let server = serve(|_| {}).await;
    let mut client = server.connect().await;
    let input = format!("GET /health HTTP/1.1\r\nHost: x\r\n\r\n{}", request(ASKED));
    client.send(&[input.as_bytes(), &text(AUTH)].concat()).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    client.expect(br#"{"status":"ok"}"#).await;
    assert!(client.head().await.starts_with(SWITCHED));
    client.expect(OK).await;
}

#[tokio::test]
async fn who_asks_while_the_server_shuts_down_is_refused_and_who_is_there_is_told() {
    let server = serve(|_| {}).await;
    let mut late = server.connect().await;
    late.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(late.head().await.starts_with("HTTP/1.1 200 "));
    late.expect(br#"{"status":"ok"}"#).await;
    let mut client = server.open().await;
    client.subscribe().await;
    server.handle.publish(&five(), Publish::new(Content::text("last"))).expect("room");
    server.handle.shutdown();
    // What was published before comes before.
    client.expect(&[event("last"), close(1001, "the server shuts down")].concat()).await;
    assert_eq!(client.rest().await, b"");
    late.send(request(ASKED).as_bytes()).await;
    let head = late.head().await;
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("connection: close"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn who_answers_no_ping_is_closed() {
    let heartbeat = Duration::from_secs(7);
    let server = serve(|config| config.websocket.heartbeat = heartbeat).await;
    let mut client = server.open().await;
    for _ in 0..3 {
        client.expect(b"\x89\0").await;
        // Anything is a sign of life: a pong, or a command.
        client.send(b"\x8a\x80\0\0\0\0").await;
        client.expect(b"\x89\0").await;
        client.send(&text(AUTH)).await;
        client.expect(OK).await;
    }
    client.expect(b"\x89\0").await;
    let pinged = Instant::now();
    client.expect(&close(1008, "no answer to a ping")).await;
    let waited = pinged.elapsed();
    assert!((heartbeat..heartbeat + Duration::from_secs(1)).contains(&waited), "{waited:?}");
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn who_reads_too_slowly_is_closed_and_told_why() {
    let server = serve(|config| config.limits.lag_bytes = 1 << 20).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a size");
    let mut client = Client(socket.connect(server.address).await.expect("a connection"));
    client.open().await;
    client.subscribe().await;
    let content = "x".repeat(60_000);
    let mut published = 0;
    let closed = async {
        while server.count("sessions_lagging_closed_total").await == 0 {
            assert!(published < 4 * MORE_THAN_SOCKETS_TAKE, "it was never closed");
            server.handle.publish(&five(), Publish::new(Content::text(content.clone()))).expect("room");
            published += content.len();
        }
    };
    timeout(PATIENCE, closed).await.expect("in time");
    let came = client.rest().await;
    let farewell = close(1008, "too far behind: read faster, or come back");
    assert!(came.ends_with(&farewell), "{}", came[came.len() - 100..].escape_ascii());
    // Whole messages alone come before it.
    let message = event(&content);
    let messages = &came[..came.len() - farewell.len()];
    assert_eq!(messages.len() % message.len(), 0);
    assert!(messages.chunks(message.len()).all(|came| came == message));
}
