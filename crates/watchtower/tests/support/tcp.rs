//! A client on a TCP connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::sockopt;

use super::PATIENCE;
use super::packets::{ack, join};

pub(crate) struct Tcp {
    stream: TcpStream,
}

impl Tcp {
    pub(crate) fn connect(server: SocketAddr) -> Self {
        Self::over(TcpStream::connect(server).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends as far as the server takes it; whether it took all.
    pub(crate) fn try_send(&mut self, bytes: &[u8], patience: Duration) -> bool {
        self.stream.set_write_timeout(Some(patience)).unwrap();
        let sent = self.stream.write_all(bytes);
        self.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        sent.is_ok()
    }

    /// The next bytes are these.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let came = self.read(expected.len());
        assert!(came == expected, "expected {}, came {}", shown(expected), shown(&came));
    }

    /// Sends, and these are the next bytes.
    #[track_caller]
    pub(crate) fn ask(&mut self, packet: impl AsRef<[u8]>, answer: impl AsRef<[u8]>) {
        self.send(packet);
        self.expect(answer);
    }

    /// The next bytes.
    #[track_caller]
    pub(crate) fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The next bytes, unless the connection ends before.
    pub(crate) fn try_read(&mut self, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    /// Whether there is something to read just now.
    pub(crate) fn has_input(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        peeked.is_ok()
    }

    /// Everything up to the end that the server makes.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("no end after {}: {error}", shown(&bytes)),
        }
        bytes
    }

    /// The server says no more than this, and closes the connection in an orderly way.
    #[track_caller]
    pub(crate) fn expect_last(&mut self, expected: impl AsRef<[u8]>) {
        let (expected, mut bytes) = (expected.as_ref(), Vec::new());
        self.stream.read_to_end(&mut bytes).unwrap();
        assert!(bytes == expected, "expected {}, came {}", shown(expected), shown(&bytes));
    }

    /// Nothing is delivered: what there was would come between these two answers, or before.
    #[track_caller]
    pub(crate) fn expect_nothing(&mut self) {
        self.ask(b"K", ack(0));
        self.ask(b"K", ack(0));
    }

    #[track_caller]
    pub(crate) fn register(&mut self) -> u32 {
        self.register_by(b"R")
    }

    #[track_caller]
    pub(crate) fn register_by(&mut self, packet: impl AsRef<[u8]>) -> u32 {
        self.send(packet);
        let answer = self.read(5);
        let [b'A', id @ ..] = &answer[..] else { panic!("not registered: {}", shown(&answer)) };
        u32::from_le_bytes(id.try_into().unwrap())
    }

    /// Registers and joins; the id.
    #[track_caller]
    pub(crate) fn enter(&mut self, channel: u32) -> u32 {
        let id = self.register();
        self.ask(join(id, channel), ack(channel));
        id
    }

    /// Says that nothing more will come.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Takes little before the server must wait.
    pub(crate) fn read_through_a_straw(&self) {
        sockopt::set_socket_recv_buffer_size(&self.stream, 64 * 1024).unwrap();
    }

    /// Is gone without a farewell, as a device that lost its power and came back.
    pub(crate) fn abort(self) {
        sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    pub(crate) fn split(&self) -> Self {
        Self { stream: self.stream.try_clone().unwrap() }
    }
}

/// Bytes for a person to read, the long ones cut.
pub(super) fn shown(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(200)];
    format!("{} bytes: {}", bytes.len(), start.escape_ascii())
}
