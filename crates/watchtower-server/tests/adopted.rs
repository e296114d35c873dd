//! A session that a connection takes over while its client takes nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use watchtower_server::Server;
use watchtower_server::config::Config;
use watchtower_server::hub::WhenLagging;
use watchtower_server::websocket::{Client, CloseCode, Closer, Handler, Incoming, Outgoing, Parts};

/// More than the sockets of both sides take together.
const MORE_THAN_SOCKETS_TAKE: usize = 16 << 20;

/// Shorter than what a server waits for an answer to a ping.
const PATIENCE: Duration = Duration::from_secs(20);

enum Done {
    Filled,
    Adopted(Closer),
    Closed,
}

/// Sends too much to the first message, and adopts a session for the next.
struct Adoptive(mpsc::UnboundedSender<Done>);

impl Handler for Adoptive {
    type State = bool;

    fn protocol(&self) -> &'static str {
        "adoptive"
    }

    fn open(&self, _client: &mut Client<'_>, _request: &Parts) -> bool {
        false
    }

    fn message(&self, is_filled: &mut bool, client: &mut Client<'_>, _message: Incoming<'_>) {
        let done = if std::mem::replace(is_filled, true) {
            client.adopt(Arc::new(client.hub().open("adopted", WhenLagging::Close)));
            Done::Adopted(client.closer())
        } else {
            client.send(Outgoing::Binary(&vec![0; MORE_THAN_SOCKETS_TAKE]));
            Done::Filled
        };
        self.0.send(done).expect("the test listens");
    }

    fn closed(&self, _state: bool) {
        let _ = self.0.send(Done::Closed);
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed_though_its_session_was_never_drained() {
    let (done, mut does) = mpsc::unbounded_channel();
    let config = Config { listen: "127.0.0.1:0".parse().expect("an address"), ..Config::default() };
    let server = Server::builder(config).handle("/h", Adoptive(done)).bind().await.expect("a free port");
    let (address, handle) = (server.listeners()[0].address, server.handle());
    let running = tokio::spawn(server.run());
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    let request = "GET /h HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(request.as_bytes()).await.expect("it is read");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.expect("a head"));
    }
    let message = b"\x81\x80\0\0\0\0";
    socket.write_all(message).await.expect("it is read");
    assert!(matches!(does.recv().await, Some(Done::Filled)));
    socket.write_all(message).await.expect("it is read");
    let Some(Done::Adopted(closer)) = does.recv().await else { panic!("a session is adopted") };
    // The turn that adopted is over once the connection has nothing to do.
    tokio::task::yield_now().await;
    closer.close(CloseCode::NORMAL, "");
    let closed = timeout(PATIENCE, does.recv()).await.expect("whoever closes is heard");
    assert!(matches!(closed, Some(Done::Closed)));
    drop(socket);
    handle.shutdown();
    running.await.expect("it ends");
}
