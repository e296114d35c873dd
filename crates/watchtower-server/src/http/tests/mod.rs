//! Watchtower HTTP over real connections, in exact bytes.
//!
//! The hub's ids and epochs are counted up and its clock stands still, so that
//! every answer is known to the last byte.

mod connections;
mod described;
mod requests;
mod streams;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use watchtower_hub::{
    ChannelName, ChannelRule, Content, Entropy, Hub, Publish, SenderId, Settings, Timestamp,
};
use watchtower_protocols::http::MessageJson;

use super::{Http, HttpState, Onward, TakenOver};
use crate::callbacks::post::Network;
use crate::callbacks::sign::SigningKey;
use crate::callbacks::{CallbackSettings, Callbacks};
use crate::config::{Config, SecretKey};
use crate::metrics::Metrics;
use crate::request_limiter::RequestLimiter;
use crate::shutdown::ShutdownControl;
use crate::stream::{Drive, Groups};
use crate::wire::Plain;

const SECRET: &str = "an open secret";

/// How long a test waits for what must come: longer than any timer of the
/// server, since the clock of most tests jumps.
const PATIENCE: Duration = Duration::from_secs(60);

struct Counting(AtomicU64);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// 2026-11-21T10:00:00Z.
fn noon() -> Timestamp {
    Timestamp::from_millis(1_795_255_200_000)
}

struct Server {
    http: Http,
    hub: Hub,
    metrics: Arc<Metrics>,
    shutdown: ShutdownControl,
    address: SocketAddr,
}

/// A server whose channels `kept/…` and 7 keep the last three messages, and
/// `json/…` take JSON only.
fn settings() -> Settings {
    let rule = |pattern: &str, history_messages, accepts| ChannelRule {
        pattern: pattern.into(),
        history_messages,
        accepts,
        ..ChannelRule::default()
    };
    use watchtower_hub::Accepts::{Any, Json};
    let channels = vec![rule("kept/*", 3, Any), rule("7", 3, Any), rule("json/*", 0, Json)];
    Settings { channels, ..Settings::default() }
}

async fn server() -> Server {
    Server::start(settings(), |_| {}, IpAddr::from([127, 0, 0, 1])).await
}

impl Server {
    /// `as_if` is where clients seem to come from.
    async fn start(settings: Settings, configure: impl FnOnce(&mut Config), as_if: IpAddr) -> Server {
        let mut config = Config { secret_key: SecretKey::new(SECRET), ..Config::default() };
        configure(&mut config);
        let hub = Hub::new(settings, Box::new(Counting(AtomicU64::new(72))));
        let metrics = Arc::new(Metrics::default());
        metrics.show_hub(hub.clone());
        let callbacks = Callbacks::new(
            hub.clone(),
            Arc::new(MessageJson),
            Network::of_this_machine().expect("TLS"),
            CallbackSettings::new(SigningKey::new(SECRET)),
            None,
        );
        let state = HttpState::new(
            hub.clone(),
            Arc::new(config),
            metrics.clone(),
            callbacks.expect("a client"),
            Arc::new(RequestLimiter::new()),
            Arc::new(RequestLimiter::new()),
            noon,
        );
        let http = Http::new(state);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let shutdown = ShutdownControl::default();
        tokio::spawn(accept(listener, http.clone(), shutdown.clone(), as_if));
        Server { http, hub, metrics, shutdown, address }
    }

    fn sender(&self) -> SenderId {
        self.hub.register(noon()).expect("room")
    }

    /// A sender that has joined these channels.
    fn joined(&self, channels: &[&str]) -> SenderId {
        let sender = self.sender();
        let channels: Vec<_> = channels.iter().map(|channel| name(channel)).collect();
        self.hub.join(sender, &channels, noon()).expect("room");
        sender
    }

    fn publish(&self, channel: &str, text: &str) {
        let message = Publish::new(Content::text(text));
        self.hub.publish(&name(channel), message, noon()).expect("room");
    }

    async fn connect(&self) -> Client {
        Client { socket: TcpStream::connect(self.address).await.expect("it listens"), read: Vec::new() }
    }

    /// One request on a connection of its own.
    async fn ask(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        let mut client = self.connect().await;
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        client.send(head.as_bytes()).await;
        client.send(body).await;
        client.answer().await
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "", b"").await
    }

    async fn post(&self, target: &str, body: impl AsRef<[u8]>) -> Answer {
        self.ask("POST", target, "Content-Type: application/json\r\n", body.as_ref()).await
    }
}

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).expect("a name")
}

async fn accept(listener: TcpListener, http: Http, shutdown: ShutdownControl, as_if: IpAddr) {
    loop {
        let (socket, _) = listener.accept().await.expect("a client");
        // Small, so that no answer is written at once.
        socket2::SockRef::from(&socket).set_send_buffer_size(2048).expect("a small buffer");
        let (http, shutdown, mut part) = (http.clone(), shutdown.clone(), shutdown.part());
        tokio::spawn(async move {
            let open = http.serve(socket, Vec::new(), as_if, part.started()).await;
            let Some(TakenOver { io, read_already, onward }) = open else { return };
            // The other one wakes this task.
            let part = shutdown.part();
            let groups = Arc::<Groups>::default();
            match onward {
                Onward::Stream(stream) => groups.add(Drive::new(Plain::from(io), stream, (), part)),
                Onward::WebSocket(socket) => {
                    groups.add(Drive::new(Plain::from(io), *socket, (), part).after(&read_already, None));
                }
            }
        });
    }
}

/// The client's end of a connection.
struct Client {
    socket: TcpStream,
    /// What was read and not looked at yet.
    read: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.body.as_str()), (status, body));
        self.is_signed();
    }

    #[track_caller]
    fn is_signed(&self) {
        assert_eq!(self.header("x-server-name"), Some("Watchtower"), "{}", self.head);
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"), "{}", self.head);
        if !self.body.is_empty() {
            assert!(self.header("content-type").is_some(), "{}", self.head);
        }
    }

    /// Whether it refuses with that code, and says that word.
    #[track_caller]
    fn refuses(&self, status: u16, code: &str, word: &str) {
        let error: serde_json::Value = serde_json::from_str(&self.body).expect("errors are JSON");
        assert_eq!((self.status, error["error"].as_str()), (status, Some(code)), "{}", self.body);
        assert!(error["message"].as_str().expect("a sentence").contains(word), "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/json"));
        self.is_signed();
    }
}

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        // A server that refuses early may have closed already.
        let _ = self.socket.write_all(bytes).await;
    }

    /// Reads until `is_there` finds the end of something, and takes that.
    async fn take(&mut self, is_there: impl Fn(&[u8]) -> Option<usize>) -> Vec<u8> {
        loop {
            if let Some(length) = is_there(&self.read) {
                return self.read.drain(..length).collect();
            }
            let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.read));
            let length = read.await.expect("in time").expect("readable");
            assert_ne!(length, 0, "the end came early, after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// Reads up to and with `end`.
    async fn until(&mut self, end: &str) -> String {
        let position = |read: &[u8]| read.windows(end.len()).position(|window| window == end.as_bytes());
        let bytes = self.take(|read| Some(position(read)? + end.len())).await;
        String::from_utf8(bytes).expect("UTF-8")
    }

    /// Reads exactly that.
    #[track_caller]
    fn expect(&mut self, expected: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let bytes = self.take(|read| (read.len() >= expected.len()).then_some(expected.len())).await;
            assert_eq!(String::from_utf8_lossy(&bytes), expected, "at {caller}");
        }
    }

    /// Reads the rest, to the end of the connection.
    async fn rest(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.read);
        let read = tokio::time::timeout(PATIENCE, self.socket.read_to_end(&mut rest));
        read.await.expect("in time").expect("no reset");
        String::from_utf8(rest).expect("UTF-8")
    }

    /// Reads one answer whose length its head says.
    async fn answer(&mut self) -> Answer {
        let head = self.until("\r\n\r\n").await;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut answer = Answer { status, head, body: String::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        let body = self.take(|read| (read.len() >= length).then_some(length)).await;
        answer.body = String::from_utf8(body).expect("UTF-8");
        answer
    }

    /// Reads the head of a stream.
    async fn head(&mut self) -> Answer {
        let head = self.until("\r\n\r\n").await;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head, body: String::new() }
    }

    /// Reads a chunk.
    async fn chunk(&mut self) -> String {
        let head = self.until("\r\n").await;
        let length = usize::from_str_radix(head.trim_end(), 16).expect("the length of a chunk");
        let chunk = self.take(|read| (read.len() >= length + 2).then_some(length + 2)).await;
        let chunk = String::from_utf8(chunk).expect("UTF-8");
        chunk.strip_suffix("\r\n").expect("the end of a chunk").to_owned()
    }
}
