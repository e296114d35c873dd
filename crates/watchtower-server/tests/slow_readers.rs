//! Clients of the packet protocol that read late, little, or never: what they
//! get, and what becomes of them.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use watchtower_server::config::Config;
use watchtower_server::{Handle, Server};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A writer that gets no further for so long has come to a standstill.
const STANDSTILL: Duration = Duration::from_millis(300);

/// More than the sockets of both sides take together.
const MORE_THAN_SOCKETS_TAKE: usize = 16 << 20;

struct Running {
    address: std::net::SocketAddr,
    /// Where applications connect for WebTalk, if anywhere.
    link: std::net::SocketAddr,
    handle: Handle,
    served: tokio::task::JoinHandle<()>,
}

async fn serve(configure: impl FnOnce(&mut Config)) -> Running {
    let mut config = Config { listen: "127.0.0.1:0".parse().expect("an address"), ..Config::default() };
    configure(&mut config);
    let server = Server::bind(config).await.expect("free ports");
    let address = server.listeners()[0].address;
    let link = server.listeners().last().expect("there is one").address;
    let handle = server.handle();
    Running { address, link, handle, served: tokio::spawn(server.run()) }
}

/// A connection whose client keeps little of what it has not read.
async fn connect(server: &Running) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a size");
    socket.connect(server.address).await.expect("a connection")
}

async fn read(client: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    timeout(PATIENCE, client.read_exact(&mut bytes)).await.expect("in time").expect("open");
    bytes
}

async fn rest(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut bytes)).await.expect("in time").expect("a clean end");
    bytes
}

/// Registers and joins channel 1.
async fn join(client: &mut TcpStream) -> [u8; 4] {
    client.write_all(b"R").await.expect("open");
    let id: [u8; 4] = read(client, 5).await[1..].try_into().expect("four bytes");
    client.write_all(&[b"J", &id[..], &[1, 0, 0, 0]].concat()).await.expect("open");
    assert_eq!(read(client, 5).await, b"A\x01\0\0\0");
    id
}

fn message(id: [u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short").to_le_bytes();
    [b"M", &id[..], &[1, 0, 0, 0], &length, content].concat()
}

#[tokio::test]
async fn input_that_waited_for_its_answers_to_be_read_is_carried_out_in_the_end() {
    let server = serve(|_| {}).await;
    let client = connect(&server).await;
    let (mut reader, mut writer) = client.into_split();
    let packets = MORE_THAN_SOCKETS_TAKE / 5;
    let requests = vec![b'K'; packets];
    let mut sent = 0;
    // Nothing is read until the sockets are full, or hold all requests: by then
    // the server has answers that wait to be read.
    while sent < packets
        && let Ok(written) = timeout(STANDSTILL, writer.write(&requests[sent..])).await
    {
        sent += written.expect("open");
    }
    let sent = tokio::spawn(async move { writer.write_all(&requests[sent..]).await.map(|()| writer) });
    let mut answers = vec![0; 5 * packets];
    timeout(PATIENCE, reader.read_exact(&mut answers)).await.expect("in time").expect("open");
    assert!(answers.chunks(5).all(|answer| answer == b"A\0\0\0\0"));
    sent.await.expect("no panic").expect("open");
}

#[tokio::test]
async fn commands_of_one_read_wait_for_the_replies_before_them_to_be_read() {
    let server =
        serve(|config| config.webtalk.private = Some("127.0.0.1:0".parse().expect("an address"))).await;
    let framed = |body: &str| format!("{:05}{body}", body.len());
    let value = "v".repeat(60_000);
    let store = framed(&format!("[store] k!{value}"));
    let reply = framed(&format!("[ok] {value}"));
    let count = 2 * MORE_THAN_SOCKETS_TAKE / reply.len();
    let commands = format!("{}{}", framed("[retrieve] k").repeat(count), framed("[newuser]"));
    assert!(commands.len() < 64 * 1024, "one read takes all of them");
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a size");
    let mut client = socket.connect(server.link).await.expect("a connection");
    client.write_all(store.as_bytes()).await.expect("open");
    let stored = framed("[ok] stored k");
    assert_eq!(read(&mut client, stored.len()).await, stored.as_bytes());
    client.write_all(commands.as_bytes()).await.expect("open");
    let (mut reader, _writer) = client.into_split();
    assert!(timeout(STANDSTILL, reader.readable()).await.is_ok(), "replies come");
    let senders = server.handle.hub().counts().senders;
    let mut replies = vec![0; count * reply.len()];
    timeout(PATIENCE, reader.read_exact(&mut replies)).await.expect("in time").expect("open");
    assert!(replies.chunks(reply.len()).all(|came| came == reply.as_bytes()));
    let mut last = [0; 10];
    timeout(PATIENCE, reader.read_exact(&mut last)).await.expect("in time").expect("open");
    assert!(last.ends_with(b"[ok] "), "{}", last.escape_ascii());
    assert_eq!((senders, server.handle.hub().counts().senders), (0, 1), "the last command waited");
}

#[tokio::test]
async fn who_says_no_more_gets_all_that_was_published_before() {
    let server = serve(|config| config.limits.lag_bytes = 2 * MORE_THAN_SOCKETS_TAKE).await;
    let mut client = connect(&server).await;
    let id = join(&mut client).await;
    let content = vec![b'x'; 60_000];
    let count = 200;
    for _ in 0..count {
        client.write_all(&message(id, &content)).await.expect("open");
    }
    client.shutdown().await.expect("open");
    assert_eq!(rest(&mut client).await.len(), count * (15 + content.len()));
}

#[tokio::test]
async fn at_a_shutdown_what_was_published_comes_before_the_last_word() {
    let server = serve(|config| config.limits.lag_bytes = 2 * MORE_THAN_SOCKETS_TAKE).await;
    let mut client = connect(&server).await;
    join(&mut client).await;
    let mut publisher = TcpStream::connect(server.address).await.expect("a connection");
    let id = join(&mut publisher).await;
    let content = vec![b'x'; 60_000];
    let count = 150;
    for _ in 0..count {
        publisher.write_all(&message(id, &content)).await.expect("open");
        read(&mut publisher, 15 + content.len()).await;
    }
    server.handle.shutdown();
    let all = rest(&mut client).await;
    let (messages, last) = all.split_at(count * (15 + content.len()));
    assert!(messages.chunks(15 + content.len()).all(|message| message.starts_with(b"M")));
    assert_eq!(last, b"E\x08\x15the server shuts down");
    drop(publisher);
    timeout(PATIENCE, server.served).await.expect("in time").expect("no panic");
}

#[tokio::test]
async fn who_reads_nothing_at_all_is_closed_when_it_lags() {
    let server = serve(|_| {}).await;
    let mut client = connect(&server).await;
    join(&mut client).await;
    let mut publisher = TcpStream::connect(server.address).await.expect("a connection");
    let id = join(&mut publisher).await;
    let content = vec![b'x'; 60_000];
    for _ in 0..MORE_THAN_SOCKETS_TAKE / content.len() {
        publisher.write_all(&message(id, &content)).await.expect("open");
        read(&mut publisher, 15 + content.len()).await;
    }
    // It never reads, and is let go of all the same.
    let closed = async { while sessions(&server).await > 1 {} };
    timeout(PATIENCE, closed).await.expect("in time");
    drop(client);
}

async fn sessions(server: &Running) -> u64 {
    let mut client = TcpStream::connect(server.address).await.expect("a connection");
    client.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.expect("open");
    let text = String::from_utf8(rest(&mut client).await).expect("text");
    let count = text.lines().find_map(|line| line.strip_prefix("watchtower_sessions "));
    count.expect("is counted").parse().expect("a number")
}
