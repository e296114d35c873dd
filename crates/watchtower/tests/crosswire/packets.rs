//! A client of the packets page, over TCP and over UDP.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};

use super::server::{PATIENCE, SECRET, Server};

/// A sender on a connection or a socket of its own.
pub(crate) struct Packets {
    link: Link,
    pub(crate) id: u32,
}

enum Link {
    Tcp(TcpStream),
    /// With what of a datagram is unread.
    Udp(UdpSocket, Vec<u8>),
}

impl Packets {
    /// A new sender over TCP that has joined these channels.
    pub(crate) fn tcp(server: &Server, channels: &[u32]) -> Packets {
        let stream = TcpStream::connect(server.tcp).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Packets::start(Link::Tcp(stream), channels)
    }

    /// A new sender over UDP that has joined these channels.
    pub(crate) fn udp(server: &Server, channels: &[u32]) -> Packets {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(server.udp).unwrap();
        Packets::start(Link::Udp(socket, Vec::new()), channels)
    }

    /// The same sender, on another connection.
    pub(crate) fn again(self, server: &Server) -> Packets {
        let stream = TcpStream::connect(server.tcp).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Packets { link: Link::Tcp(stream), id: self.id }
    }

    fn start(link: Link, channels: &[u32]) -> Packets {
        let mut packets = Packets { link, id: 0 };
        packets.send(&[&[b'S', SECRET.len() as u8], SECRET.as_bytes()].concat());
        let answer = packets.take(5);
        assert_eq!(answer[0], b'A');
        packets.id = u32::from_le_bytes(answer[1..].try_into().unwrap());
        for &channel in channels {
            packets.send(&[&b"J"[..], &packets.id.to_le_bytes(), &channel.to_le_bytes()].concat());
            packets.expect(&[&b"A"[..], &channel.to_le_bytes()].concat());
        }
        packets
    }

    /// `M` [packets: client to server].
    pub(crate) fn publish(&mut self, channel: u32, content: &[u8]) {
        let length = u32::try_from(content.len()).unwrap();
        let (id, channel, length) = (self.id.to_le_bytes(), channel.to_le_bytes(), length.to_le_bytes());
        self.send(&[b"M", &id[..], &channel, &length, content].concat());
    }

    /// `W` [packets: client to server].
    pub(crate) fn publish_to(&mut self, channel: u32, receivers: &[u32], content: &[u8]) {
        let (id, channel) = (self.id.to_le_bytes(), channel.to_le_bytes());
        let count = u16::try_from(receivers.len()).unwrap().to_le_bytes();
        let receivers: Vec<u8> = receivers.iter().flat_map(|id| id.to_le_bytes()).collect();
        let length = u32::try_from(content.len()).unwrap().to_le_bytes();
        self.send(&[b"W", &id[..], &channel, &count, &receivers, &length, content].concat());
    }

    fn send(&mut self, bytes: &[u8]) {
        match &mut self.link {
            Link::Tcp(stream) => stream.write_all(bytes).unwrap(),
            Link::Udp(socket, _) => assert_eq!(socket.send(bytes).unwrap(), bytes.len()),
        }
    }

    /// Sends a packet that is answered with this error [packets: error codes].
    #[track_caller]
    pub(crate) fn is_refused(&mut self, packet: &[u8], code: u8) {
        self.send(packet);
        let head = self.take(3);
        assert_eq!(head[..2], [b'E', code]);
        self.take(head[2].into());
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        match &mut self.link {
            Link::Tcp(stream) => {
                let mut bytes = vec![0; length];
                stream.read_exact(&mut bytes).unwrap();
                bytes
            }
            Link::Udp(socket, unread) => {
                // Whole packets come in a datagram, one or more of them.
                if unread.is_empty() {
                    let mut datagram = vec![0; 65_535];
                    let length = socket.recv(&mut datagram).unwrap();
                    unread.extend(&datagram[..length]);
                }
                assert!(unread.len() >= length, "{:?} came", String::from_utf8_lossy(unread));
                unread.drain(..length).collect()
            }
        }
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &[u8]) {
        let came = self.take(expected.len());
        assert_eq!(came, expected, "{:?}", String::from_utf8_lossy(&came));
    }
}

/// The `M` that a receiver gets [packets: server to client].
pub(crate) fn delivered(sender: u32, channel: u32, direct: bool, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    let kind = u16::from(direct).to_le_bytes();
    [b"M", &sender.to_le_bytes()[..], &channel.to_le_bytes(), &kind, &length.to_le_bytes(), content].concat()
}
