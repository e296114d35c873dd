//! A handler that lets a client wait.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use watchtower_server::Server;
use watchtower_server::config::Config;
use watchtower_server::hub::{ChannelName, Content, Publish};
use watchtower_server::websocket::{Client, Handler, Incoming, Outgoing, Parts};

const PAUSE: Duration = Duration::from_secs(1);

/// Answers at once, and listens again after the pause.
struct Hesitant;

impl Handler for Hesitant {
    type State = ();

    fn protocol(&self) -> &'static str {
        "hesitant"
    }

    fn open(&self, client: &mut Client<'_>, _request: &Parts) {
        client.subscribe(&ChannelName::from(5)).expect("room");
    }

    fn message(&self, (): &mut (), client: &mut Client<'_>, message: Incoming<'_>) {
        if let Incoming::Text(text) = message {
            client.send(Outgoing::Text(text));
            client.pause(PAUSE);
        }
    }
}

async fn expect(socket: &mut TcpStream, bytes: &[u8]) {
    let mut came = vec![0; bytes.len()];
    socket.read_exact(&mut came).await.expect("it comes");
    assert_eq!(came, bytes, "{}", came.escape_ascii());
}

/// Messages of one letter each, with masks of zeros.
fn messages(letters: &str) -> Vec<u8> {
    letters.bytes().flat_map(|letter| [0x81, 0x81, 0, 0, 0, 0, letter]).collect()
}

/// A client that has asked for a WebSocket and said this, and what it reads
/// behind the head of the answer.
async fn connect(server: &Server, said: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(server.listeners()[0].address).await.expect("it listens");
    let request = "GET /h HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(&[request.as_bytes(), said].concat()).await.expect("it is read");
    socket
}

async fn skip_head(socket: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.expect("a head"));
    }
}

async fn bind(configure: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config { listen: "127.0.0.1:0".parse().expect("an address"), ..Config::default() };
    configure(&mut config);
    Server::builder(config).handle("/h", Hesitant).bind().await.expect("a free port")
}

#[tokio::test(start_paused = true)]
async fn who_is_paused_again_and_again_is_pinged_all_the_same() {
    let server = bind(|config| config.websocket.heartbeat = PAUSE * 27 / 10).await;
    let mut socket = connect(&server, &messages("abcdefghijk")).await;
    let handle = server.handle();
    let running = tokio::spawn(server.run());
    skip_head(&mut socket).await;
    let mut heard = String::new();
    while !heard.ends_with('k') {
        heard.push(match socket.read_u16().await.expect("it comes") {
            0x8900 => '.',
            0x8101 => socket.read_u8().await.expect("it comes").into(),
            other => panic!("a frame that begins with {other:#x}: {heard}"),
        });
    }
    // Every 2.7 pauses, and no answer is waited for meanwhile.
    assert_eq!(heard, "abc.def.ghi.jk");
    handle.shutdown();
    running.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn what_a_client_says_waits_for_the_pause_and_what_it_receives_does_not() {
    let server = bind(|_| {}).await;
    let handle = server.handle();
    let begun = Instant::now();
    let mut socket = connect(&server, &messages("abc")).await;
    let running = tokio::spawn(server.run());
    skip_head(&mut socket).await;
    expect(&mut socket, b"\x81\x01a").await;
    let message = Publish::new(Content::text("meanwhile"));
    handle.publish(&ChannelName::from(5), message).expect("it is taken");
    expect(&mut socket, b"\x81\x09meanwhile\x81\x01b\x81\x01c").await;
    assert!(begun.elapsed() >= 2 * PAUSE, "{:?}", begun.elapsed());
    handle.shutdown();
    running.await.expect("it ends");
}
