//! A client at a UDP address of its own.

use std::net::{SocketAddr, UdpSocket};

use super::PATIENCE;
use super::packets::{ack, join};
use super::tcp::shown;

pub(crate) struct Udp {
    socket: UdpSocket,
    /// What came and was not asked for yet: several packets may share a datagram.
    came: Vec<u8>,
}

impl Udp {
    pub(crate) fn bind(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, came: Vec::new() }
    }

    #[track_caller]
    pub(crate) fn send(&self, datagram: impl AsRef<[u8]>) {
        self.socket.send(datagram.as_ref()).unwrap();
    }

    /// The next bytes are these, in whatever datagrams.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut datagram = vec![0; 1 << 16];
        while self.came.len() < expected.len() {
            let length = self.socket.recv(&mut datagram).unwrap();
            self.came.extend_from_slice(&datagram[..length]);
        }
        let rest = self.came.split_off(expected.len());
        assert!(self.came == expected, "expected {}, came {}", shown(expected), shown(&self.came));
        self.came = rest;
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, datagram: impl AsRef<[u8]>, answer: impl AsRef<[u8]>) {
        self.send(datagram);
        self.expect(answer);
    }

    /// One whole datagram.
    #[track_caller]
    pub(crate) fn datagram(&mut self) -> Vec<u8> {
        assert_eq!(self.came, b"", "something came before it");
        let mut datagram = vec![0; 1 << 16];
        let length = self.socket.recv(&mut datagram).unwrap();
        datagram.truncate(length);
        datagram
    }

    /// Nothing is delivered: what there was would come between these two answers, or before.
    #[track_caller]
    pub(crate) fn expect_nothing(&mut self) {
        self.ask(b"K", ack(0));
        self.ask(b"K", ack(0));
        assert_eq!(self.came, b"");
    }

    #[track_caller]
    pub(crate) fn register(&mut self) -> u32 {
        self.send(b"R");
        let answer = self.datagram();
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
}
