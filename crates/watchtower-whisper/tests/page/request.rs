//! Requests as bytes, each on a connection of its own.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Node, PATIENCE};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn read(bytes: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// A line of its head; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }
}

/// Sends these bytes, and reads to the end of the connection.
pub(crate) async fn exchange(addr: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // What is refused early is not read to its end.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends soon");
    assert!(read.is_ok() || !answer.is_empty(), "{read:?}");
    Answer::read(&answer)
}

/// A request with these lines in its head, besides `Connection`; `Host` too, unless one of them
/// is.
pub(crate) async fn ask(node: &Node, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let addr = node.addr();
    let mut head = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head += &format!("Host: {addr}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    exchange(addr, format!("{head}\r\n{body}").as_bytes()).await
}

pub(crate) async fn get(node: &Node, path: &str) -> Answer {
    ask(node, &format!("GET {path}"), &[], "").await
}

/// What the page asks for.
pub(crate) async fn post(node: &Node, path: &str, body: &str) -> Answer {
    let (token, origin) = (node.token().await, format!("http://{}", node.addr()));
    let headers = [("Content-Type", "application/json"), ("X-Page-Token", &*token), ("Origin", &*origin)];
    ask(node, &format!("POST {path}"), &headers, body).await
}
