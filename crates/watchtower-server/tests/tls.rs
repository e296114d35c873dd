//! TLS on the shared port: what is spoken inside is what is spoken without, and
//! who does the handshake wrongly or slowly keeps nobody else from it.

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::Location;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use watchtower_server::config::Config;
use watchtower_server::{Handle, Server};

/// A client's end of TLS.
type Tls = TlsStream<TcpStream>;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// More than the sockets of both sides take together.
const MORE_THAN_SOCKETS_TAKE: usize = 16 << 20;

struct Running {
    address: SocketAddr,
    handle: Handle,
    served: tokio::task::JoinHandle<()>,
    config: Config,
    issued: CertifiedKey<KeyPair>,
    folder: TempDir,
}

fn issue() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate")
}

/// Puts new files in the place of what was there.
fn put(folder: &Path, issued: &CertifiedKey<KeyPair>) {
    for (name, text) in [("cert.pem", issued.cert.pem()), ("key.pem", issued.signing_key.serialize_pem())] {
        fs::write(folder.join("new"), text).expect("written");
        fs::rename(folder.join("new"), folder.join(name)).expect("moved");
    }
}

async fn serve(configure: impl FnOnce(&mut Config)) -> Running {
    let (folder, issued) = (tempfile::tempdir().expect("a folder"), issue());
    put(folder.path(), &issued);
    let mut config = Config { listen: "127.0.0.1:0".parse().expect("an address"), ..Config::default() };
    config.tls.cert = Some(folder.path().join("cert.pem"));
    config.tls.key = Some(folder.path().join("key.pem"));
    configure(&mut config);
    let server = Server::bind(config.clone()).await.expect("free ports");
    let address = server.listeners()[0].address;
    let handle = server.handle();
    Running { address, handle, served: tokio::spawn(server.run()), config, issued, folder }
}

/// A client that trusts `issued`, and speaks these versions.
fn client(issued: &CertifiedKey<KeyPair>, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(issued.cert.der().clone()).expect("a certificate");
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn handshake(config: ClientConfig, socket: TcpStream) -> std::io::Result<Tls> {
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

impl Running {
    async fn plain(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    async fn connect(&self) -> Tls {
        self.connect_on(self.plain().await).await
    }

    async fn connect_on(&self, socket: TcpStream) -> Tls {
        handshake(client(&self.issued, &[&TLS13]), socket).await.expect("a handshake")
    }

    /// The count with this name and these labels, 0 where it is not there yet.
    async fn count(&self, name: &str) -> u64 {
        let mut client = self.plain().await;
        client.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.expect("open");
        let text = String::from_utf8(rest(&mut client).await).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("watchtower_{name} ")));
        line.map_or(0, |count| count.parse().expect("a number"))
    }

    async fn handshakes(&self, outcome: &str) -> u64 {
        self.count(&format!("tls_handshakes_total{{outcome=\"{outcome}\"}}")).await
    }
}

async fn read(client: &mut (impl AsyncReadExt + Unpin), length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    timeout(PATIENCE, client.read_exact(&mut bytes)).await.expect("in time").expect("open");
    bytes
}

/// These bytes come next.
#[track_caller]
fn expect(client: &mut (impl AsyncReadExt + Unpin), expected: &[u8]) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let came = read(client, expected.len()).await;
        assert!(came == expected, "at {caller}: {}…", came[..came.len().min(64)].escape_ascii());
    }
}

/// Everything up to an orderly end: inside TLS, one that was announced.
async fn rest(client: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut bytes)).await.expect("in time").expect("a clean end");
    bytes
}

/// Everything up to whatever end.
async fn remains(client: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, client.read_to_end(&mut bytes)).await.expect("in time");
    bytes
}

/// Registers and joins channel 1.
async fn join(client: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> [u8; 4] {
    client.write_all(b"R").await.expect("open");
    let id: [u8; 4] = read(client, 5).await[1..].try_into().expect("four bytes");
    client.write_all(&[b"J", &id[..], &[1, 0, 0, 0]].concat()).await.expect("open");
    expect(client, b"A\x01\0\0\0").await;
    id
}

/// A message to channel 1, as it is sent.
fn say(id: [u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short").to_le_bytes();
    [b"M", &id[..], &[1, 0, 0, 0], &length, content].concat()
}

/// The same, as it is delivered.
fn said(id: [u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short").to_le_bytes();
    [b"M", &id[..], &[1, 0, 0, 0, 0, 0], &length, content].concat()
}

#[tokio::test]
async fn packets_within_tls_are_packets() {
    let server = serve(|_| {}).await;
    let mut plain = server.plain().await;
    let id = join(&mut plain).await;
    for version in [&TLS12, &TLS13] {
        let config = client(&server.issued, &[version]);
        let mut tls = handshake(config, server.plain().await).await.expect("a handshake");
        let own = join(&mut tls).await;
        plain.write_all(&say(id, b"in the open")).await.expect("open");
        expect(&mut tls, &said(id, b"in the open")).await;
        expect(&mut plain, &said(id, b"in the open")).await;
        tls.write_all(&say(own, b"in private")).await.expect("open");
        // Byte by byte, each in a record of its own.
        for byte in say(own, b"slowly") {
            tls.write_all(&[byte]).await.expect("open");
        }
        let both = [said(own, b"in private"), said(own, b"slowly")].concat();
        expect(&mut tls, &both).await;
        expect(&mut plain, &both).await;
        // The end of the input is the client's to announce.
        tls.write_all(b"K").await.expect("open");
        tls.shutdown().await.expect("open");
        assert_eq!(rest(&mut tls).await, b"A\0\0\0\0");
    }
    assert_eq!(server.handshakes("done").await, 2);
    assert_eq!(server.count("connections_total{protocol=\"packets\"}").await, 3);
}

#[tokio::test]
async fn a_websocket_opens_within_tls_and_loses_nothing_that_came_with_the_request() {
    let server = serve(|_| {}).await;
    let request = b"GET /webrocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let unknown = b"\x81\x82\0\0\0\0{}";
    let input = [&request[..], unknown].concat();
    for record in [1, input.len() - 1, input.len()] {
        let mut tls = server.connect().await;
        for record in input.chunks(record) {
            tls.write_all(record).await.expect("open");
        }
        tls.flush().await.expect("open");
        expect(&mut tls, b"HTTP/1.1 101 Switching Protocols\r\n").await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(read(&mut tls, 1).await);
        }
        expect(&mut tls, b"\x81\x17{\"err\": \"invalid_data\"}").await;
        // A close is answered in kind.
        tls.write_all(b"\x88\x82\0\0\0\0\x03\xe8").await.expect("open");
        assert_eq!(rest(&mut tls).await, b"\x88\x02\x03\xe8");
    }
}

#[tokio::test]
async fn a_request_within_tls_is_answered_and_so_is_the_next() {
    let server = serve(|_| {}).await;
    let mut config = client(&server.issued, &[&TLS12, &TLS13]);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut tls = handshake(config, server.plain().await).await.expect("a handshake");
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    tls.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("open");
    expect(&mut tls, b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n").await;
    tls.write_all(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("open");
    let rest = String::from_utf8(rest(&mut tls).await).expect("text");
    assert!(rest.contains("\r\n\r\n{\"status\":\"ok\"}HTTP/1.1 200 OK\r\n"), "{rest}");
    assert!(rest.ends_with("\r\n\r\n{\"status\":\"ready\"}"), "{rest}");
}

#[tokio::test]
async fn a_client_that_speaks_what_is_not_spoken_here_is_told_in_the_handshake() {
    let server = serve(|_| {}).await;
    let mut config = client(&server.issued, &[&TLS13]);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let error = handshake(config, server.plain().await).await.expect_err("no such protocol");
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    // A ClientHello that is none. It is told so too: an alert, fatal.
    let mut socket = server.plain().await;
    socket.write_all(b"\x16\x03\x01\0\x05\x01\0\0\x01\xff").await.expect("open");
    let alert = remains(&mut socket).await;
    assert!(alert.starts_with(b"\x15\x03\x03\0\x02\x02") && alert.len() == 7, "{}", alert.escape_ascii());
    assert_eq!(server.handshakes("failed").await, 2);
}

#[tokio::test]
async fn a_stream_within_tls_goes_on_after_its_request() {
    let server = serve(|_| {}).await;
    let mut plain = server.plain().await;
    let id = join(&mut plain).await;
    let mut tls = server.connect().await;
    let sender = u32::from_le_bytes(id);
    let request = format!("GET /channels/join?channels=1&sender={sender} HTTP/1.1\r\nHost: x\r\n\r\n");
    tls.write_all(request.as_bytes()).await.expect("open");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n1\r\n\n\r\n") {
        head.extend(read(&mut tls, 1).await);
    }
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n"));
    for text in ["one", "two"] {
        plain.write_all(&say(id, text.as_bytes())).await.expect("open");
        let mut chunk = Vec::new();
        while !chunk.ends_with(b"}\n\r\n") {
            chunk.extend(read(&mut tls, 1).await);
        }
        let chunk = String::from_utf8(chunk).expect("text");
        let (length, line) = chunk.split_once("\r\n").expect("the head of a chunk");
        let line = line.strip_suffix("\r\n").expect("the end of a chunk");
        assert_eq!(usize::from_str_radix(length, 16).expect("a length"), line.len());
        assert!(line.contains(&format!("\"message\":\"{text}\"")), "{line}");
    }
    server.handle.shutdown();
    assert!(rest(&mut tls).await.ends_with(b"0\r\n\r\n"));
    drop(plain);
    timeout(PATIENCE, server.served).await.expect("in time").expect("no panic");
}

/// A connection whose client keeps little of what it has not read.
async fn slow(server: &Running) -> Tls {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a size");
    let socket = socket.connect(server.address).await.expect("a connection");
    server.connect_on(socket).await
}

#[tokio::test]
async fn a_slow_reader_within_tls_gets_all_that_was_published_before_the_end() {
    let server = serve(|config| config.limits.lag_bytes = 2 * MORE_THAN_SOCKETS_TAKE).await;
    let mut tls = slow(&server).await;
    join(&mut tls).await;
    let mut publisher = server.plain().await;
    let id = join(&mut publisher).await;
    let count = 150;
    let content = |number: u32| number.to_le_bytes().repeat(15_000);
    for number in 0..count {
        publisher.write_all(&say(id, &content(number))).await.expect("open");
        expect(&mut publisher, &said(id, &content(number))).await;
    }
    server.handle.shutdown();
    for number in 0..count {
        expect(&mut tls, &said(id, &content(number))).await;
    }
    assert_eq!(rest(&mut tls).await, b"E\x08\x15the server shuts down");
    drop(publisher);
    timeout(PATIENCE, server.served).await.expect("in time").expect("no panic");
}

// [model: log]
#[tokio::test]
async fn a_reader_within_tls_that_never_reads_is_closed_when_it_lags() {
    let server = serve(|_| {}).await;
    let mut tls = slow(&server).await;
    join(&mut tls).await;
    let mut publisher = server.plain().await;
    let id = join(&mut publisher).await;
    let content = [b'x'; 60_000];
    for _ in 0..MORE_THAN_SOCKETS_TAKE / content.len() {
        publisher.write_all(&say(id, &content)).await.expect("open");
        expect(&mut publisher, &said(id, &content)).await;
    }
    let closed = async { while server.count("sessions").await > 1 {} };
    timeout(PATIENCE, closed).await.expect("in time");
    assert_eq!(server.count("sessions_lagging_closed_total").await, 1);
    drop(tls);
}

/// When a connection ends whose client was waited for, give or take what the
/// wheel of timers rounds.
fn is_in_time(elapsed: Duration) -> bool {
    let patience = Config::default().limits.header_timeout;
    (patience..=patience + Duration::from_millis(10)).contains(&elapsed)
}

// [running: header_timeout]
#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_is_cut_off_and_others_do_not_wait_for_it() {
    let server = serve(|_| {}).await;
    let begin = Instant::now();
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut socket = server.plain().await;
        // The beginning of a ClientHello.
        socket.write_all(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03").await.expect("open");
        stalled.push(socket);
    }
    let mut quick = server.connect().await;
    join(&mut quick).await;
    for socket in &mut stalled {
        remains(socket).await;
    }
    assert!(is_in_time(begin.elapsed()), "{:?}", begin.elapsed());
    assert_eq!(server.handshakes("late").await, 20);
    quick.write_all(b"K").await.expect("open");
    expect(&mut quick, b"A\0\0\0\0").await;
}

#[tokio::test(start_paused = true)]
async fn the_handshake_and_the_first_words_within_have_one_time_together() {
    let server = serve(|_| {}).await;
    for first in [&b""[..], b"GET / HTTP/1.1\r\n", b"J\x01"] {
        let socket = server.plain().await;
        let begin = Instant::now();
        // What the client takes for the handshake is not there for its words.
        sleep(Duration::from_secs(5)).await;
        let mut tls = server.connect_on(socket).await;
        tls.write_all(first).await.expect("open");
        tls.flush().await.expect("open");
        remains(&mut tls).await;
        assert!(is_in_time(begin.elapsed()), "{:?}", begin.elapsed());
    }
    assert_eq!(server.count("connections_silent_total").await, 2);
}

/// A client's end of a connection on which every byte travels by itself.
async fn byte_by_byte(mut socket: TcpStream) -> tokio::io::DuplexStream {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (mut from_client, mut to_client) = tokio::io::split(theirs);
    tokio::spawn(async move {
        let (mut from_server, mut to_server) = socket.split();
        let there = async {
            let mut byte = [0];
            while from_client.read_exact(&mut byte).await.is_ok() {
                if to_server.write_all(&byte).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let back = async {
            let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        };
        tokio::join!(there, back);
    });
    ours
}

#[tokio::test]
async fn a_handshake_may_come_byte_by_byte() {
    let server = serve(|_| {}).await;
    for version in [&TLS12, &TLS13] {
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::new(client(&server.issued, &[version])));
        let socket = byte_by_byte(server.plain().await).await;
        let mut tls = connector.connect(name, socket).await.expect("a handshake");
        join(&mut tls).await;
    }
}

#[tokio::test]
async fn without_a_certificate_tls_is_closed_at_once_and_counted() {
    let server = serve(|config| config.tls = Default::default()).await;
    let socket = server.plain().await;
    handshake(client(&server.issued, &[&TLS13]), socket).await.expect_err("there is no TLS");
    assert_eq!(server.handshakes("refused").await, 1);
    join(&mut server.plain().await).await;
}

#[tokio::test]
async fn a_reload_shows_the_new_certificate_and_keeps_open_connections() {
    let mut server = serve(|_| {}).await;
    let mut open = server.connect().await;
    join(&mut open).await;
    let new = issue();
    put(server.folder.path(), &new);
    let report = server.handle.reload(&server.config);
    assert_eq!(report.needs_restart, Vec::<String>::new());
    handshake(client(&server.issued, &[&TLS13]), server.plain().await).await.expect_err("a new one");
    server.issued = new;
    join(&mut server.connect().await).await;
    fs::write(server.folder.path().join("cert.pem"), "broken").expect("written");
    server.handle.reload(&server.config);
    join(&mut server.connect().await).await;
    open.write_all(b"K").await.expect("open");
    expect(&mut open, b"A\0\0\0\0").await;
}

// [running: tls] "reloaded when it changes"
#[tokio::test(start_paused = true)]
async fn a_certificate_that_changes_is_shown_soon() {
    let mut server = serve(|_| {}).await;
    join(&mut server.connect().await).await;
    server.issued = issue();
    put(server.folder.path(), &server.issued);
    let begin = Instant::now();
    while handshake(client(&server.issued, &[&TLS13]), server.plain().await).await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_server_whose_certificate_cannot_be_used_does_not_start() {
    let mut config = Config { listen: "127.0.0.1:0".parse().expect("an address"), ..Config::default() };
    config.tls.cert = Some("nowhere/cert.pem".into());
    config.tls.key = Some("nowhere/key.pem".into());
    let Err(error) = Server::bind(config).await else { panic!("there are no such files") };
    let error = error.to_string();
    assert!(error.starts_with("tls.cert = \"nowhere/cert.pem\": cannot read it: No such file"), "{error}");
}
