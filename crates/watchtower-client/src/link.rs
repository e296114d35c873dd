//! Packets over a socket, TCP or UDP: bytes out, packets in, and nothing else.
//!
//! Knows neither what was asked nor what an answer means.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;
use watchtower_hub::{ChannelName, Content, SenderId};
use watchtower_protocols::packets::frame::{Decoded, Limits, MessageKind, ServerPacket};

use crate::{ClientError, Message, Protocol, Refusal};

/// Room for one read from a stream.
const READ_BYTES: usize = 16 * 1024;

/// The longest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// A packet from the server.
pub(crate) enum Incoming {
    /// `A`.
    Ack(u32),
    /// `M`.
    Message(Message),
    /// `E`.
    Refusal(Refusal),
}

/// A socket to a server and what was read from it.
pub(crate) struct Link {
    socket: Socket,
    server: String,
    limits: Limits,
    /// What was read and is not decoded yet. Invariant: over TCP shorter than one
    /// packet and one read, over UDP what is left of one datagram.
    input: BytesMut,
    /// The length of `input` from which decoding it makes sense.
    needed: usize,
}

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Link {
    pub(crate) fn tcp(stream: TcpStream, server: &str, content_bytes_max: u32) -> Self {
        Self::new(Socket::Tcp(stream), server, content_bytes_max)
    }

    pub(crate) fn udp(socket: UdpSocket, server: &str, content_bytes_max: u32) -> Self {
        Self::new(Socket::Udp(socket), server, content_bytes_max)
    }

    fn new(socket: Socket, server: &str, content_bytes_max: u32) -> Self {
        Link {
            socket,
            server: server.to_owned(),
            limits: Limits { content_bytes_max },
            input: BytesMut::new(),
            needed: 1,
        }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self.socket {
            Socket::Tcp(_) => Protocol::Tcp,
            Socket::Udp(_) => Protocol::Udp,
        }
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Sends whole packets; over UDP as one datagram. Not to be cancelled and
    /// gone on with.
    pub(crate) async fn send(&mut self, packets: &[u8]) -> Result<(), ClientError> {
        let sent = match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(packets).await,
            Socket::Udp(socket) => socket.send(packets).await.map(|_| ()),
        };
        sent.map_err(|error| ClientError::lost(&self.server, error))
    }

    /// Tells the server that nothing more will be sent.
    pub(crate) async fn finish(&mut self) {
        if let Socket::Tcp(stream) = &mut self.socket {
            // When it fails the connection has ended already.
            let _ = stream.shutdown().await;
        }
    }

    /// Waits for the next packet; `None` when the server ended the stream
    /// between two. Cancelling it loses nothing.
    pub(crate) async fn receive(&mut self) -> Result<Option<Incoming>, ClientError> {
        loop {
            if let Some(incoming) = self.take_packet()? {
                return Ok(Some(incoming));
            }
            let read = match &mut self.socket {
                Socket::Tcp(stream) => {
                    // What a length field claims is not reserved, only read towards.
                    self.input.reserve(READ_BYTES);
                    let read = stream.read_buf(&mut self.input).await;
                    if matches!(read, Ok(0)) {
                        return self.stream_end();
                    }
                    read
                }
                Socket::Udp(socket) => {
                    // A packet that its datagram does not hold whole is damaged.
                    self.input.clear();
                    self.needed = 1;
                    self.input.reserve(DATAGRAM_BYTES_MAX);
                    socket.recv_buf(&mut self.input).await
                }
            };
            read.map_err(|error| ClientError::lost(&self.server, error))?;
        }
    }

    fn stream_end(&self) -> Result<Option<Incoming>, ClientError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let error = io::Error::new(io::ErrorKind::UnexpectedEof, "it ended within a packet");
        Err(ClientError::lost(&self.server, error))
    }

    /// Takes a packet off the input, if it holds a whole one.
    fn take_packet(&mut self) -> Result<Option<Incoming>, ClientError> {
        if self.input.len() < self.needed {
            return Ok(None);
        }
        let (incoming, consumed) = match ServerPacket::decode(&self.input, self.limits) {
            Decoded::Packet { packet, consumed } => (Some(owned(packet)), consumed),
            Decoded::Idle { consumed } => (None, consumed),
            Decoded::Incomplete { needed } => {
                self.needed = needed;
                return Ok(None);
            }
            Decoded::Bad(error) => return Err(ClientError::bad_packet(&self.server, error)),
        };
        self.input.advance(consumed);
        self.needed = 1;
        Ok(incoming)
    }
}

fn owned(packet: ServerPacket<'_>) -> Incoming {
    match packet {
        ServerPacket::Ack(value) => Incoming::Ack(value),
        ServerPacket::Message { sender, channel, kind, content } => Incoming::Message(Message {
            channel: ChannelName::from(channel),
            sender: SenderId::new(sender),
            direct: kind == MessageKind::Direct,
            content: Content::sniff(content.to_vec()),
            event: None,
            position: None,
            time: None,
        }),
        ServerPacket::Error { code, text } => Incoming::Refusal(Refusal::from_packet(code, text)),
    }
}

/// Opens a TCP connection to the first address of `server` that accepts one.
pub(crate) async fn open_tcp(server: &str, patience: Duration) -> Result<TcpStream, ClientError> {
    let connecting = async {
        let addresses: Vec<_> = resolve(server).await?.collect();
        TcpStream::connect(addresses.as_slice()).await
    };
    let connected = timeout(patience, connecting).await.unwrap_or_else(|_| Err(no_answer(patience)));
    let stream = connected.map_err(|error| cannot_reach(server, error))?;
    // Neither option is worth failing for: they make it faster, and notice a
    // vanished server in about a minute.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    Ok(stream)
}

/// UDP sockets towards each address of `server`. Nothing is sent yet.
pub(crate) async fn open_udp(server: &str, patience: Duration) -> Result<Vec<UdpSocket>, ClientError> {
    let opening = async {
        let mut sockets = Vec::new();
        for address in resolve(server).await? {
            let any: std::net::IpAddr = match address {
                std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
                std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(address).await?;
            sockets.push(socket);
        }
        Ok(sockets)
    };
    let opened = timeout(patience, opening).await.unwrap_or_else(|_| Err(no_answer(patience)));
    opened.map_err(|error| cannot_reach(server, error))
}

async fn resolve(server: &str) -> io::Result<impl Iterator<Item = std::net::SocketAddr>> {
    if server.contains('/') {
        // A URL: it would be looked up as a name.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    lookup_host(server).await
}

pub(crate) fn no_answer(patience: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {patience:?}"))
}

/// The error of an address that cannot be reached, or is none.
pub(crate) fn cannot_reach(server: &str, error: io::Error) -> ClientError {
    let server = server.to_owned();
    match error.kind() {
        io::ErrorKind::InvalidInput => ClientError::Address { server },
        _ => ClientError::Unreachable { server, source: error },
    }
}
