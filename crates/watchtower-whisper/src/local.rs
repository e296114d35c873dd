//! This machine's addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Addresses somewhere in the world (RFC 5737, RFC 3849). Nothing is sent there.
const WORLD: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// The broadcast address of the machine itself.
const LOOPBACK_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

/// What others connect to, when the socket is bound to `listen`: the same, or
/// where that is any address the one by which this machine reaches the given
/// peers, else the world, else whatever there is.
pub(crate) fn reachable(listen: SocketAddr, peers: &[String]) -> SocketAddr {
    if !listen.ip().is_unspecified() {
        return listen;
    }
    let is_usable = |ip: &IpAddr| listen.is_ipv6() || ip.is_ipv4();
    let peers = peers.iter().filter_map(|peer| peer.parse().ok());
    let by_route = peers.chain(WORLD).filter_map(|addr| source(addr).ok()).find(is_usable);
    let ip = by_route.or_else(|| interfaces().into_iter().map(|(ip, _)| IpAddr::V4(ip)).next());
    SocketAddr::new(ip.unwrap_or(Ipv4Addr::LOCALHOST.into()), listen.port())
}

/// The address by which this machine reaches another, without sending anything.
fn source(addr: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr =
        if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(addr)?;
    let ip = socket.local_addr()?.ip();
    // How it reaches itself is nothing to others.
    if ip.is_loopback() || ip.is_unspecified() {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    Ok(ip)
}

/// Where everybody hears what is said of `announced`: in each network, and on
/// this machine. What is on this machine alone is nothing to networks.
pub(crate) fn broadcasts(announced: IpAddr) -> Vec<Ipv4Addr> {
    let mut broadcasts = vec![LOOPBACK_BROADCAST];
    if !announced.is_loopback() {
        broadcasts.extend(interfaces().into_iter().map(|(_, broadcast)| broadcast));
    }
    broadcasts
}

/// The networks that this machine is in: its address, and that of all.
fn interfaces() -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let needed = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_BROADCAST;
    let interfaces = getifaddrs().into_iter().flatten().filter(|found| found.flags.contains(needed));
    let networks = interfaces.filter_map(|found| {
        let ip = found.address?.as_sockaddr_in()?.ip();
        let mask = found.netmask?.as_sockaddr_in()?.ip();
        // A network of one or two addresses has none for all.
        (mask.to_bits().count_zeros() > 1).then(|| (ip, Ipv4Addr::from_bits(ip.to_bits() | !mask.to_bits())))
    });
    networks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_listened_on_is_what_others_connect_to() {
        for listen in ["127.0.0.1:5", "[::1]:5", "10.0.0.1:5"] {
            let listen: SocketAddr = listen.parse().unwrap();
            assert_eq!(reachable(listen, &["10.0.0.9:1".to_owned()]), listen);
        }
    }

    #[test]
    fn who_listens_everywhere_is_found_somewhere() {
        for listen in ["0.0.0.0:5", "[::]:5"] {
            let listen: SocketAddr = listen.parse().unwrap();
            let reachable = reachable(listen, &["127.0.0.1:1".to_owned(), "nowhere.invalid:1".to_owned()]);
            assert!(!reachable.ip().is_unspecified() && reachable.port() == 5, "{reachable}");
        }
    }

    #[test]
    fn what_is_on_this_machine_alone_is_told_to_it_alone() {
        assert_eq!(broadcasts(Ipv4Addr::LOCALHOST.into()), [LOOPBACK_BROADCAST]);
        assert!(broadcasts(Ipv4Addr::new(10, 0, 0, 1).into()).contains(&LOOPBACK_BROADCAST));
    }
}
