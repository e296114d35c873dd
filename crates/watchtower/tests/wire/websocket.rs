//! A client of WebRocket: the bytes of its WebSocket and nothing between.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::support::PATIENCE;

/// What a server is given for [`WebSocket::open`] to find a hub there that lets everybody in.
pub(crate) const HUB: &str = r#"webrocket.hubs=[{path="/webrocket",anonymous="read-write"}]"#;

pub(crate) struct WebSocket(TcpStream);

impl WebSocket {
    pub(crate) fn open(server: SocketAddr) -> WebSocket {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = "GET /webrocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", answer.escape_ascii());
        WebSocket(stream)
    }

    /// Says a text of less than 126 bytes.
    pub(crate) fn say(&mut self, text: &str) {
        assert!(text.len() < 126, "{text} is too long");
        let head = [0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        self.0.write_all(&[&head, text.as_bytes()].concat()).unwrap();
    }

    /// An answer to whatever ping there was.
    pub(crate) fn pong(&mut self) {
        self.0.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).unwrap();
    }

    /// The next message of text; pings before it are answered.
    pub(crate) fn hear(&mut self) -> String {
        loop {
            let [kind, length] = self.bytes();
            let length = match length {
                126 => u16::from_be_bytes(self.bytes()),
                short => short.into(),
            };
            let mut payload = vec![0; length.into()];
            self.0.read_exact(&mut payload).unwrap();
            match kind {
                0x81 => return String::from_utf8(payload).unwrap(),
                0x89 => self.pong(),
                other => panic!("a frame that begins with {other:#x}: {}", payload.escape_ascii()),
            }
        }
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// What is below.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.0
    }
}
