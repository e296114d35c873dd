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

#[tokio::test(start_paused = true)]
async fn what_a_client_says_waits_for_the_pause_and_what_it_receives_does_not() {
    let config = Config { listen: "127.0.0.1:0".parse().expect("an address"), ..Config::default() };
    let server = Server::builder(config).handle("/h", Hesitant).bind().await.expect("a free port");
    let (address, handle) = (server.listeners()[0].address, server.handle());
    let running = tokio::spawn(server.run());
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    // Three messages, "a", "b" and "c", with masks of zeros, behind the request.
    let request = "GET /h HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let messages = b"\x81\x81\0\0\0\0a\x81\x81\0\0\0\0b\x81\x81\0\0\0\0c";
    let begun = Instant::now();
    socket.write_all(&[request.as_bytes(), messages].concat()).await.expect("it is read");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.expect("a head"));
    }
    expect(&mut socket, b"\x81\x01a").await;
    let message = Publish::new(Content::text("meanwhile"));
    handle.publish(&ChannelName::from(5), message).expect("it is taken");
    expect(&mut socket, b"\x81\x09meanwhile\x81\x01b\x81\x01c").await;
    assert!(begun.elapsed() >= 2 * PAUSE, "{:?}", begun.elapsed());
    handle.shutdown();
    running.await.expect("it ends");
}
