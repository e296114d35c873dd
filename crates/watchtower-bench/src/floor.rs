//! The bare write loop that a server is held against: a process that does nothing but write the
//! bytes of a burst to every socket, one plain system call each.
//!
//! It is told over one TCP connection, the control connection, what to write; what the bytes mean
//! it does not know. Like a server it reads each burst from one socket, and like a publisher the
//! control connection gets a copy itself, so that both have the same sockets to write to.
//!
//! The wire, integers little-endian: the load side opens with the transport (a byte, 0 for TCP and
//! 1 for UDP) and the number of sockets (u32), opens those, and is answered `+`. TCP sockets
//! connect to the same port; UDP sockets send a datagram each, which is answered `+` too.
//! Then, for every burst: the sockets that it is for, from this one (u32) up to before that one
//! (u32), the number of pieces (u32), and each piece with its length (u32). A piece is one `write`
//! to each of these TCP sockets, or one `sendto` to each UDP peer.

use std::collections::HashSet;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;

/// What the bare loop answers when it has its sockets.
pub(crate) const READY: u8 = b'+';

/// What the control connection is read with: a burst of 64 small messages in one read.
const CONTROL_READ_BYTES: usize = 64 * 1024;

/// A piece larger than this is not of a bench's making.
const PIECE_BYTES_MAX: u32 = 1 << 30;

/// How the bare loop's sockets are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// Runs the bare loop on free ports of 127.0.0.1, which it prints on standard output as a server
/// does, until the control connection ends.
///
/// This is the whole of a process: a binary that has the load generator offers it as a command,
/// so that the loop's CPU time is its own.
///
/// # Errors
/// When a socket fails or the control connection says something that makes no sense.
pub fn serve() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut out = io::stdout().lock();
    writeln!(out, "listening tcp {} packets", listener.local_addr()?)?;
    writeln!(out, "listening udp {} packets", datagrams.local_addr()?)?;
    writeln!(out, "ready")?;
    out.flush()?;
    drop(out);
    write_on_command(&listener, &datagrams)
}

/// Serves one control connection.
fn write_on_command(listener: &TcpListener, datagrams: &UdpSocket) -> io::Result<()> {
    let (control, _) = listener.accept()?;
    control.set_nodelay(true)?;
    let mut commands = BufReader::with_capacity(CONTROL_READ_BYTES, &control);
    let (transport, count) = read_opening(&mut commands)?;
    let sockets = match transport {
        Transport::Tcp => Sockets::accept(listener, count)?,
        Transport::Udp => Sockets::hear(datagrams, count)?,
    };
    (&control).write_all(&[READY])?;

    let mut pieces = Vec::new();
    let mut copies = Vec::new();
    while let Some(to) = read_burst(&mut commands, &mut pieces)? {
        sockets.write(to, &pieces)?;
        // What was read with one read is copied with one write.
        if copies.is_empty() && commands.buffer().is_empty() {
            pieces.iter().try_for_each(|piece| (&control).write_all(piece))?;
        } else {
            pieces.iter().for_each(|piece| copies.extend_from_slice(piece));
        }
        if commands.buffer().is_empty() && !copies.is_empty() {
            (&control).write_all(&copies)?;
            copies.clear();
        }
    }
    Ok(())
}

/// What a burst is written to.
enum Sockets<'a> {
    Streams(Vec<TcpStream>),
    Peers(&'a UdpSocket, Vec<SocketAddr>),
}

impl<'a> Sockets<'a> {
    fn accept(listener: &TcpListener, count: usize) -> io::Result<Self> {
        let accept = |_| {
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        (0..count).map(accept).collect::<io::Result<_>>().map(Self::Streams)
    }

    fn hear(socket: &'a UdpSocket, count: usize) -> io::Result<Self> {
        let mut known = HashSet::new();
        let mut peers = Vec::new();
        while peers.len() < count {
            let (_, peer) = socket.recv_from(&mut [0; 16])?;
            if known.insert(peer) {
                peers.push(peer);
            }
            socket.send_to(&[READY], peer)?;
        }
        Ok(Self::Peers(socket, peers))
    }

    fn write(&self, to: Range<usize>, pieces: &[Vec<u8>]) -> io::Result<()> {
        match self {
            Self::Streams(streams) => {
                for mut stream in streams.get(to).ok_or_else(nobody)? {
                    for piece in pieces {
                        stream.write_all(piece)?;
                    }
                }
            }
            Self::Peers(socket, peers) => {
                for peer in peers.get(to).ok_or_else(nobody)? {
                    for piece in pieces {
                        socket.send_to(piece, peer)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn nobody() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "a burst is for sockets that are not there")
}

/// Appends what opens a control connection.
pub(crate) fn write_opening(transport: Transport, sockets: u32, out: &mut Vec<u8>) {
    out.push(match transport {
        Transport::Tcp => 0,
        Transport::Udp => 1,
    });
    out.extend_from_slice(&sockets.to_le_bytes());
}

/// Appends a burst to these sockets.
pub(crate) fn write_burst(to: Range<u32>, pieces: &[Vec<u8>], out: &mut Vec<u8>) {
    out.extend_from_slice(&to.start.to_le_bytes());
    out.extend_from_slice(&to.end.to_le_bytes());
    out.extend_from_slice(&(pieces.len() as u32).to_le_bytes());
    for piece in pieces {
        out.extend_from_slice(&(piece.len() as u32).to_le_bytes());
        out.extend_from_slice(piece);
    }
}

fn read_opening(input: &mut impl Read) -> io::Result<(Transport, usize)> {
    let mut transport = [0];
    input.read_exact(&mut transport)?;
    let transport = match transport {
        [0] => Transport::Tcp,
        [1] => Transport::Udp,
        _ => return Err(io::Error::new(ErrorKind::InvalidData, "not a control connection")),
    };
    Ok((transport, read_u32(input)? as usize))
}

/// Reads a burst into buffers that are used again, and says what sockets it is for. `None` at the
/// end of the connection.
fn read_burst(input: &mut impl Read, pieces: &mut Vec<Vec<u8>>) -> io::Result<Option<Range<usize>>> {
    let start = match read_u32(input) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        start => start? as usize,
    };
    let to = start..read_u32(input)? as usize;
    let count = read_u32(input)? as usize;
    pieces.truncate(count);
    for at in 0..count {
        let length = read_u32(input)?;
        if length > PIECE_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "a piece is too large"));
        }
        if at == pieces.len() {
            pieces.push(Vec::new());
        }
        let piece = &mut pieces[at];
        piece.resize(length as usize, 0);
        input.read_exact(piece)?;
    }
    Ok(Some(to))
}

fn read_u32(input: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::thread;

    use super::*;
    use crate::process::Addresses;

    /// A bare loop in a thread.
    pub(crate) fn start() -> (Addresses, thread::JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addresses = Addresses {
            tcp: listener.local_addr().unwrap(),
            udp: datagrams.local_addr().unwrap(),
            webtalk_private: None,
        };
        (addresses, thread::spawn(move || write_on_command(&listener, &datagrams)))
    }

    fn open(addresses: Addresses, transport: Transport, sockets: u32) -> TcpStream {
        let mut control = TcpStream::connect(addresses.tcp).unwrap();
        let mut opening = Vec::new();
        write_opening(transport, sockets, &mut opening);
        control.write_all(&opening).unwrap();
        control
    }

    fn read_exactly(mut input: impl Read, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        input.read_exact(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_stream_gets_every_piece_and_so_does_the_control_connection() {
        let (addresses, served) = start();
        let control = open(addresses, Transport::Tcp, 2);
        let streams = [(); 2].map(|()| TcpStream::connect(addresses.tcp).unwrap());
        assert_eq!(read_exactly(&control, 1), [READY]);
        for pieces in [vec![b"one".to_vec()], vec![b"tw".to_vec(), b"o".to_vec()]] {
            let mut burst = Vec::new();
            write_burst(0..2, &pieces, &mut burst);
            (&control).write_all(&burst).unwrap();
            for stream in streams.iter().chain([&control]) {
                assert_eq!(read_exactly(stream, 3), pieces.concat());
            }
        }
        drop(control);
        served.join().unwrap().unwrap();
    }

    #[test]
    fn a_burst_goes_to_the_sockets_that_it_is_for() {
        let (addresses, served) = start();
        let control = open(addresses, Transport::Tcp, 3);
        let streams = [(); 3].map(|()| TcpStream::connect(addresses.tcp).unwrap());
        assert_eq!(read_exactly(&control, 1), [READY]);
        let mut bursts = Vec::new();
        write_burst(1..3, &[b"to two".to_vec()], &mut bursts);
        write_burst(0..1, &[b"to one".to_vec()], &mut bursts);
        write_burst(0..3, &[b", to all".to_vec()], &mut bursts);
        (&control).write_all(&bursts).unwrap();
        assert_eq!(read_exactly(&streams[0], 14), b"to one, to all");
        assert_eq!(read_exactly(&streams[1], 14), b"to two, to all");
        assert_eq!(read_exactly(&streams[2], 14), b"to two, to all");
        assert_eq!(read_exactly(&control, 20), b"to twoto one, to all");
        drop(control);
        served.join().unwrap().unwrap();
    }

    #[test]
    fn a_burst_for_sockets_that_are_not_there_ends_the_loop() {
        let (addresses, served) = start();
        let mut control = open(addresses, Transport::Tcp, 1);
        let _stream = TcpStream::connect(addresses.tcp).unwrap();
        assert_eq!(read_exactly(&control, 1), [READY]);
        let mut burst = Vec::new();
        write_burst(0..2, &[b"x".to_vec()], &mut burst);
        control.write_all(&burst).unwrap();
        assert_eq!(served.join().unwrap().unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn every_peer_gets_a_datagram_for_each_piece() {
        let (addresses, served) = start();
        let control = open(addresses, Transport::Udp, 1);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(addresses.udp).unwrap();
        socket.send(b"here").unwrap();
        let mut datagram = [0; 16];
        assert_eq!(socket.recv(&mut datagram).unwrap(), 1);
        assert_eq!(read_exactly(&control, 1), [READY]);
        let mut burst = Vec::new();
        write_burst(0..1, &[b"one".to_vec(), b"three".to_vec()], &mut burst);
        (&control).write_all(&burst).unwrap();
        assert_eq!(socket.recv(&mut datagram).unwrap(), 3);
        assert_eq!(socket.recv(&mut datagram).unwrap(), 5);
        assert_eq!(read_exactly(&control, 8), b"onethree");
        drop(control);
        served.join().unwrap().unwrap();
    }

    #[test]
    fn a_control_connection_that_is_none_ends_the_loop() {
        let (addresses, served) = start();
        TcpStream::connect(addresses.tcp).unwrap().write_all(b"GET / HTTP/1.1\r\n").unwrap();
        assert_eq!(served.join().unwrap().unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
