//! A small peer as others deploy it: it knows nothing but `ID`, `Addr` and
//! `Body`, and fails on a message whose `Body` is missing or empty.

use std::net::SocketAddr;

use serde_json::{Deserializer, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{SOON, local};

/// Listens, and keeps what came.
pub(super) struct Plain {
    pub(super) address: SocketAddr,
    received: mpsc::UnboundedReceiver<Result<Value, String>>,
}

impl Plain {
    pub(super) async fn start() -> Plain {
        Plain::listen(TcpListener::bind(local()).await.unwrap())
    }

    pub(super) fn listen(listener: TcpListener) -> Plain {
        let address = listener.local_addr().unwrap();
        let (sender, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(receive(stream, sender.clone()));
            }
        });
        Plain { address, received }
    }

    /// The next object that came.
    pub(super) async fn next(&mut self) -> Value {
        timeout(SOON, self.next_at_all()).await.expect("it comes soon")
    }

    /// As [`next`](Plain::next), however late.
    pub(super) async fn next_at_all(&mut self) -> Value {
        let next = self.received.recv().await.unwrap();
        next.unwrap_or_else(|crash| panic!("a deployed peer fails: {crash}"))
    }

    /// The next object's `Body`.
    pub(super) async fn next_body(&mut self) -> String {
        self.next().await["Body"].as_str().unwrap().to_owned()
    }
}

async fn receive(mut stream: TcpStream, received: mpsc::UnboundedSender<Result<Value, String>>) {
    let mut buffer = Vec::new();
    while let Ok(length @ 1..) = stream.read_buf(&mut buffer).await {
        assert!(length <= buffer.len());
        let mut objects = Deserializer::from_slice(&buffer).into_iter::<Value>();
        let mut done = 0;
        while let Some(object) = objects.next() {
            let checked = match object {
                Err(error) if error.is_eof() => break,
                Err(error) => Err(error.to_string()),
                Ok(object)
                    if object["ID"].is_string() && object["Body"] != "" && object["Body"].is_string() =>
                {
                    Ok(object)
                }
                Ok(object) => Err(object.to_string()),
            };
            let _ = received.send(checked);
            done = objects.byte_offset();
        }
        buffer.drain(..done);
    }
}

/// A message without anything that is not needed.
pub(super) fn message(id: &str, addr: SocketAddr, body: &str) -> String {
    json!({"ID": id, "Addr": addr.to_string(), "Body": body}).to_string()
}

/// A connection to a peer, from any address of this machine.
pub(super) async fn dial(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    timeout(SOON, socket.connect(to)).await.expect("it is taken soon").unwrap()
}

/// Waits until the other side ends the connection.
pub(super) async fn ended(stream: &mut TcpStream) {
    let mut ignored = [0; 512];
    let wait = async { while let Ok(1..) = stream.read(&mut ignored).await {} };
    timeout(SOON, wait).await.expect("it ends soon");
}

/// Sends; false when the other side has ended the connection.
pub(super) async fn send(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) -> bool {
    stream.write_all(bytes.as_ref()).await.is_ok()
}
