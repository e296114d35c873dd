//! A receiver of callbacks that answers as a test wants it to, byte by byte.
//! It listens on loopback only.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// How a receiver answers one request.
#[derive(Clone)]
pub(super) enum Reply {
    /// These bytes; the connection stays open.
    Bytes(Vec<u8>),
    /// These bytes; then the connection is closed.
    Close(Vec<u8>),
    /// The first, and then the second without end.
    Endless(Vec<u8>, Vec<u8>),
}

impl Reply {
    pub(super) fn status(line: &str) -> Reply {
        Reply::Bytes(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes())
    }

    pub(super) fn ok() -> Reply {
        Reply::Bytes(OK.to_vec())
    }

    /// Nothing at all, on a connection that stays open.
    pub(super) fn silence() -> Reply {
        Reply::Bytes(Vec::new())
    }
}

/// What a receiver noticed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Noticed {
    /// A request, on the connection of this number.
    Request { connection: usize, head: String, body: Vec<u8> },
    /// The caller ended the connection of this number, after so many bytes of
    /// an endless answer.
    Cut { connection: usize, answered: usize },
}

pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    noticed: mpsc::UnboundedReceiver<Noticed>,
}

impl Receiver {
    /// Answers the requests, counted over all connections, by `replies`.
    pub(super) async fn start(replies: impl FnMut(usize) -> Reply + Send + 'static) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback address");
        Receiver::start_on(listener, replies)
    }

    /// The same, and another on the same port of 127.0.0.2.
    pub(super) async fn start_beside_another(
        replies: impl FnMut(usize) -> Reply + Send + 'static,
    ) -> (Receiver, Receiver) {
        loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback address");
            let port = listener.local_addr().expect("an address").port();
            match TcpListener::bind(("127.0.0.2", port)).await {
                Ok(other) => {
                    let other = Receiver::start_on(other, |_| Reply::ok());
                    return (Receiver::start_on(listener, replies), other);
                }
                // A port that is free at one address may be somebody's at another.
                Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}"),
            }
        }
    }

    fn start_on(listener: TcpListener, mut replies: impl FnMut(usize) -> Reply + Send + 'static) -> Receiver {
        let address = listener.local_addr().expect("an address");
        let (notice, noticed) = mpsc::unbounded_channel();
        let (ask, mut asked) = mpsc::unbounded_channel::<tokio::sync::oneshot::Sender<Reply>>();
        tokio::spawn(async move {
            let mut count = 0;
            while let Some(answer) = asked.recv().await {
                let _ = answer.send(replies(count));
                count += 1;
            }
        });
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(serve(stream, connection, ask.clone(), notice.clone()));
            }
        });
        Receiver { address, noticed }
    }

    pub(super) fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/hook?q=1", self.address.port())
    }

    pub(super) async fn next(&mut self) -> Noticed {
        let noticed = tokio::time::timeout(Duration::from_secs(60), self.noticed.recv()).await;
        noticed.expect("something happens").expect("the receiver is running")
    }

    /// The next request's connection, head and body.
    pub(super) async fn request(&mut self) -> (usize, String, Vec<u8>) {
        loop {
            if let Noticed::Request { connection, head, body } = self.next().await {
                return (connection, head, body);
            }
        }
    }

    /// Asserts that nobody but this assertion ever connected.
    pub(super) async fn was_never_called(mut self) {
        let mut own = TcpStream::connect(self.address).await.expect("it listens");
        let request = b"GET /own HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        own.write_all(request).await.expect("it reads");
        match self.next().await {
            Noticed::Request { connection: 0, head, .. } if head.starts_with("GET /own") => {}
            other => panic!("somebody called before: {other:?}"),
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    ask: mpsc::UnboundedSender<tokio::sync::oneshot::Sender<Reply>>,
    notice: mpsc::UnboundedSender<Noticed>,
) {
    let mut answered = 0;
    while let Some((head, body)) = read_request(&mut stream).await {
        let (answer, reply) = tokio::sync::oneshot::channel();
        let _ = ask.send(answer);
        let Ok(reply) = reply.await else { return };
        let _ = notice.send(Noticed::Request { connection, head, body });
        match reply {
            Reply::Bytes(bytes) => {
                let _ = stream.write_all(&bytes).await;
            }
            Reply::Close(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Endless(first, then) => {
                let mut piece = first;
                while stream.write_all(&piece).await.is_ok() {
                    answered += piece.len();
                    piece.clone_from(&then);
                }
            }
        }
    }
    let _ = notice.send(Noticed::Cut { connection, answered });
}

/// One request; none when the caller is gone.
pub(super) async fn read_request(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("a head of ASCII");
    let length = header(&head, "content-length").map_or(0, |value| value.parse().expect("a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

/// A header's value in a request's head.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let mut values = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    values.next().map(|(_, value)| value)
}
