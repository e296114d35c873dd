//! The sockets of the load side: streams and datagrams under one name, opened by the thousand.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use crate::error::{Error, WireError};

/// How long a peer may take for an answer while a bench is being set up.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// What a datagram socket may have waiting, as far as the system allows: a burst to thousands of
/// sockets must not be lost on the side that measures.
const DATAGRAM_RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Open files that a bench needs besides its sockets.
const OTHER_FILES: u64 = 64;

/// A connection of the load side. Blocking, with [`ANSWER_TIMEOUT`], until it is given to a
/// [`super::Load`].
#[derive(Debug)]
pub(crate) enum Socket {
    Stream(TcpStream),
    Datagrams(UdpSocket),
}

impl Socket {
    /// Connects a stream without Nagle's delay.
    pub(crate) fn stream(server: SocketAddr) -> io::Result<Self> {
        let socket = connect(Type::STREAM, Protocol::TCP, server)?;
        socket.set_tcp_nodelay(true)?;
        Ok(Self::Stream(socket.into()))
    }

    /// Opens a datagram socket that hears one server only.
    pub(crate) fn datagrams(server: SocketAddr) -> io::Result<Self> {
        let socket = connect(Type::DGRAM, Protocol::UDP, server)?;
        socket.set_recv_buffer_size(DATAGRAM_RECEIVE_BUFFER_BYTES)?;
        Ok(Self::Datagrams(socket.into()))
    }

    /// Writes everything, or sends it as one datagram.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(stream) => { stream }.write_all(bytes),
            Self::Datagrams(socket) => socket.send(bytes).map(drop),
        }
    }

    /// Writes as much as fits.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => { stream }.write(bytes),
            Self::Datagrams(socket) => socket.send(bytes),
        }
    }

    /// Reads what is there, or one datagram.
    ///
    /// # Errors
    /// [`WireError::Closed`] at the end of a stream and [`WireError::Silent`] when the time for an
    /// answer is over, as an [`Error::Peer`] named `peer`.
    pub(crate) fn receive(&self, buffer: &mut [u8], peer: &str) -> Result<usize, Error> {
        match self.read(buffer) {
            Ok(0) if self.is_stream() => Err(Error::peer(peer)(WireError::Closed)),
            Ok(length) => Ok(length),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(Error::peer(peer)(WireError::Silent(ANSWER_TIMEOUT)))
            }
            Err(error) => Err(Error::io(format!("read from {peer}"))(error)),
        }
    }

    /// One `read` or `recv`. With a time-out, the system breaks it off in a process that is stopped
    /// and goes on, which then begins it anew.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Self::Stream(stream) => { stream }.read(buffer),
                Self::Datagrams(socket) => socket.recv(buffer),
            };
            match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.set_nonblocking(true),
            Self::Datagrams(socket) => socket.set_nonblocking(true),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(stream) => stream.as_fd(),
            Self::Datagrams(socket) => socket.as_fd(),
        }
    }
}

/// Connects; where the ports of one loopback address have run short, from another.
fn connect(kind: Type, protocol: Protocol, server: SocketAddr) -> io::Result<RawSocket> {
    let first = try_connect(kind, protocol, server, None);
    let loopback = server.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST);
    match first {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable && loopback => (2..=u8::MAX)
            .map(|last| Ipv4Addr::new(127, 0, 0, last))
            .find_map(|source| match try_connect(kind, protocol, server, Some(source)) {
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable => None,
                other => Some(other),
            })
            .unwrap_or(Err(error)),
        other => other,
    }
}

fn try_connect(
    kind: Type,
    protocol: Protocol,
    server: SocketAddr,
    source: Option<Ipv4Addr>,
) -> io::Result<RawSocket> {
    let socket = RawSocket::new(Domain::for_address(server), kind, Some(protocol))?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    socket.connect(&server.into())?;
    Ok(socket)
}

/// Raises this process's limit of open files (children inherit it) so that `sockets` fit.
///
/// # Errors
/// [`Error::Options`] if even the hard limit is too low.
pub(crate) fn make_room_for(sockets: u64) -> Result<(), Error> {
    let needed = sockets + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        return Err(Error::Options(format!(
            "{needed} open files are needed, and the system allows {}",
            limit.maximum.unwrap_or_default()
        )));
    }
    // The servers that are started inherit the limit: all that is allowed, not what we need.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .map_err(|errno| Error::io("raise the limit of open files")(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_sockets_than_the_system_allows_are_refused_as_an_option() {
        let allowed = getrlimit(Resource::Nofile).maximum;
        let Some(allowed) = allowed else { return };
        assert!(matches!(make_room_for(allowed), Err(Error::Options(_))));
    }

    #[test]
    fn the_end_of_a_stream_is_told_with_the_name_of_the_peer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = Socket::stream(listener.local_addr().unwrap()).unwrap();
        drop(listener.accept().unwrap());
        let error = socket.receive(&mut [0; 8], "subscriber 7").unwrap_err();
        assert_eq!(error.to_string(), "subscriber 7: the connection was closed");
    }
}
