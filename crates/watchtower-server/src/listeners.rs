//! The sockets that the server listens on: which there are, by the
//! configuration, and how they are bound.
//!
//! Knows nothing of what arrives on them.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, UdpSocket};

use crate::config::Config;
use crate::door::Door;
use crate::server::StartError;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// What the system is asked to keep of datagrams, each way.
const UDP_BUFFER_BYTES: usize = 4 << 20;

/// How often a free port is looked for that is free for TCP and UDP both.
const PORT_TRIES: usize = 32;

/// Where the server can be reached, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerInfo {
    /// `tcp` or `udp`.
    pub transport: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// The protocols that are told apart there, with commas between them.
    pub protocols: &'static str,
}

impl fmt::Display for ListenerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.transport, self.address, self.protocols)
    }
}

/// All sockets of a server, bound.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    pub(crate) tcp: Vec<(TcpListener, Door)>,
    pub(crate) udp: Vec<UdpSocket>,
}

impl Listeners {
    /// Binds what the configuration names; the shared port only if it is
    /// wanted.
    pub(crate) fn bind(config: &Config, with_shared_port: bool) -> Result<Listeners, StartError> {
        let mut listeners = Listeners::default();
        if with_shared_port {
            let (tcp, udp) = bind_shared(&config.listen_addrs())?;
            listeners.tcp.extend(tcp.into_iter().map(|listener| (listener, Door::Shared)));
            listeners.udp = udp;
        }
        let further = [
            (config.webrocket.listen, Door::WebRocket),
            (config.webtalk.public, Door::WebTalk),
            (config.webtalk.private, Door::WebTalkPrivate),
        ];
        for (listen, door) in further {
            let Some(listen) = listen else { continue };
            bind_each(&listen.addrs(), |_, listener| {
                listeners.tcp.push((listener, door));
                Ok(())
            })?;
        }
        Ok(listeners)
    }

    /// Where they are, with the ports that were taken: the shared port first.
    pub(crate) fn infos(&self) -> Vec<ListenerInfo> {
        let info = |transport, address: io::Result<SocketAddr>, protocols| {
            Some(ListenerInfo { transport, address: address.ok()?, protocols })
        };
        let tcp = |is_shared: bool| {
            let listeners = self.tcp.iter().filter(move |(_, door)| (*door == Door::Shared) == is_shared);
            listeners.filter_map(move |(listener, door)| info("tcp", listener.local_addr(), door.protocols()))
        };
        let udp = self.udp.iter().filter_map(|socket| info("udp", socket.local_addr(), "packets"));
        tcp(true).chain(udp).chain(tcp(false)).collect()
    }
}

/// Binds TCP and UDP of one port number on every address.
fn bind_shared(addresses: &[SocketAddr]) -> Result<(Vec<TcpListener>, Vec<UdpSocket>), StartError> {
    let takes_any_port = addresses.iter().all(|address| address.port() == 0);
    let mut tries = PORT_TRIES;
    loop {
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        let bound = bind_each(addresses, |address, listener| {
            tcp.push(listener);
            udp.push(bind_udp(address)?);
            Ok(())
        });
        match bound {
            // The port that TCP was given may be taken on UDP.
            Err(StartError::Bind { error, .. })
                if takes_any_port && error.kind() == io::ErrorKind::AddrInUse && tries > 0 =>
            {
                tries -= 1;
            }
            bound => return bound.map(|()| (tcp, udp)),
        }
    }
}

/// Binds TCP on every address, all with the port of the first.
fn bind_each(
    addresses: &[SocketAddr],
    mut take: impl FnMut(SocketAddr, TcpListener) -> Result<(), StartError>,
) -> Result<(), StartError> {
    let mut port = 0;
    for (index, &address) in addresses.iter().enumerate() {
        let address = if address.port() == 0 { SocketAddr::new(address.ip(), port) } else { address };
        let listener = match bind_tcp(address) {
            // A machine without IPv6 has no ::1.
            Err(StartError::Bind { error, .. })
                if index > 0 && error.kind() == io::ErrorKind::AddrNotAvailable =>
            {
                continue;
            }
            bound => bound?,
        };
        let bound = listener.local_addr().map_err(failed("tcp", address))?;
        port = bound.port();
        take(bound, listener)?;
    }
    Ok(())
}

fn bind_tcp(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let socket = new_socket(address, socket2::Type::STREAM)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(failed("tcp", address))
}

fn bind_udp(address: SocketAddr) -> Result<UdpSocket, StartError> {
    let bind = || {
        let socket = new_socket(address, socket2::Type::DGRAM)?;
        // Bursts wait here while the server does something else. The system
        // may give less; it says nothing then.
        socket.set_recv_buffer_size(UDP_BUFFER_BYTES)?;
        socket.set_send_buffer_size(UDP_BUFFER_BYTES)?;
        socket.bind(&address.into())?;
        UdpSocket::from_std(socket.into())
    };
    bind().map_err(failed("udp", address))
}

fn new_socket(address: SocketAddr, kind: socket2::Type) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != std::net::Ipv6Addr::UNSPECIFIED)?;
    }
    Ok(socket)
}

fn failed(transport: &'static str, address: SocketAddr) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::Bind { transport, address, error }
}
