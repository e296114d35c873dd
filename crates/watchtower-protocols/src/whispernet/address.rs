//! What an `Addr` may be taken for: which ones can be dialled, which are the
//! node's own, and how far whoever named one can see.
//!
//! Opens no connection and asks no name server.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

/// How many addresses of its own a node remembers beyond the two that it is
/// told. A machine has few; where there are more, some are dialled once too often.
const OWN_MAX: usize = 64;

/// The prefix `64:ff9b::/96`.
const NAT64: [u8; 12] = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];

/// Reads `IP:port`, in one form for every address: a v4 address in a v6 one is
/// a v4 address. `None` for a name, and as [`dialable`] says.
pub(super) fn parse_addr(text: &str) -> Option<SocketAddr> {
    dialable(text.parse().ok()?)
}

/// The one form of an address that others named. `None` for one that no peer
/// can listen on.
pub(super) fn dialable(addr: SocketAddr) -> Option<SocketAddr> {
    let addr = canonical(addr);
    // The scope of another machine's address means nothing here.
    let addr = SocketAddr::new(addr.ip(), addr.port());
    let ip = addr.ip();
    let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    let nowhere = addr.port() == 0 || ip.is_unspecified() || ip.is_multicast() || is_broadcast;
    (!nowhere).then_some(addr)
}

/// The one form of an address: a v4 address is no v6 one.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    match (addr, addr.ip().to_canonical()) {
        (SocketAddr::V6(v6), IpAddr::V6(ip)) => SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into(),
        (_, ip) => SocketAddr::new(ip, addr.port()),
    }
}

/// From where an address can be reached, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Machine,
    Network,
    World,
}

fn reach(ip: IpAddr) -> Reach {
    let is_shared = |ip: Ipv4Addr| ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
    match ip.to_canonical() {
        ip if ip.is_loopback() => Reach::Machine,
        IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() || is_shared(ip) => Reach::Network,
        // What a router turns into a v4 address is as near as that.
        IpAddr::V6(ip) if ip.octets().starts_with(&NAT64) => {
            let [.., a, b, c, d] = ip.octets();
            reach(IpAddr::V4([a, b, c, d].into()))
        }
        IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => Reach::Network,
        _ => Reach::World,
    }
}

/// Whether somebody at `source` may make a node dial `named`. What is nearer
/// to the node than `source` is no address that `source` could have reached,
/// and dialling it would lend a stranger the node's place in the network: the
/// services of its machine, or of its LAN. A peer that passes on what others say
/// lends them its own place: see `Node::audience`.
pub(super) fn may_name(source: IpAddr, named: SocketAddr) -> bool {
    reach(named.ip()) >= reach(source)
}

/// The addresses at which a node would reach itself.
pub(super) struct OwnAddresses {
    /// What the socket is bound to.
    listen: SocketAddr,
    /// What others are told.
    announced: SocketAddr,
    /// What was found out since. Invariant: at most [`OWN_MAX`].
    found: BTreeSet<SocketAddr>,
}

impl OwnAddresses {
    pub(super) fn new(listen: SocketAddr, announced: SocketAddr) -> OwnAddresses {
        let (listen, announced) = (canonical(listen), canonical(announced));
        OwnAddresses { listen, announced, found: BTreeSet::new() }
    }

    pub(super) fn announced(&self) -> SocketAddr {
        self.announced
    }

    /// A connection came in at this address, or one to it came from the node
    /// itself.
    pub(super) fn learn(&mut self, addr: SocketAddr) {
        if self.found.len() < OWN_MAX {
            self.found.insert(canonical(addr));
        }
    }

    pub(super) fn contains(&self, addr: SocketAddr) -> bool {
        let listens_everywhere = self.listen.ip().is_unspecified();
        let is_loopback = listens_everywhere && addr.ip().is_loopback() && addr.port() == self.listen.port();
        is_loopback || addr == self.announced || addr == self.listen || self.found.contains(&addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        parse_addr(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn an_addr_is_an_ip_and_a_port_in_one_form() {
        assert_eq!(addr("192.168.1.53:2345").to_string(), "192.168.1.53:2345");
        assert_eq!(addr("[::ffff:10.0.0.1]:80").to_string(), "10.0.0.1:80");
        assert_eq!(addr("[2001:db8:0::1]:80").to_string(), "[2001:db8::1]:80");
        assert_eq!(addr("[fe80::1%7]:80").to_string(), "[fe80::1]:80");
    }

    #[test]
    fn an_address_of_the_user_keeps_the_interface_that_it_names() {
        let kept = |text: &str| canonical(text.parse().unwrap()).to_string();
        assert_eq!(kept("[fe80::1%7]:80"), "[fe80::1%7]:80");
        assert_eq!(kept("[::ffff:10.0.0.1]:80"), "10.0.0.1:80");
    }

    #[test]
    fn what_nobody_listens_on_is_no_addr() {
        for wrong in [
            "",
            "x",
            ":55555",
            "localhost:55555",
            "10.0.0.1",
            "10.0.0.1:",
            "10.0.0.1:65536",
            "10.0.0.1:-1",
            "10.0.0.1:80 ",
            "10.0.0.01:80",
            "::1:80",
            "10.0.0.1:0",
            "0.0.0.0:80",
            "[::]:80",
            "224.0.0.1:80",
            "[ff02::1]:80",
            "255.255.255.255:80",
            "http://10.0.0.1:80",
        ] {
            assert_eq!(parse_addr(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn nobody_makes_a_node_dial_what_is_nearer_to_it_than_himself() {
        let (machine, network, world) = ("127.0.0.1:1", "192.168.1.2:1", "203.0.113.7:1");
        for (source, named, allowed) in [
            (machine, "127.9.9.9:6379", true),
            (machine, network, true),
            (machine, world, true),
            (network, machine, false),
            (network, "[::1]:6379", false),
            (network, "[::ffff:127.0.0.1]:6379", false),
            (network, "10.0.0.1:1", true),
            (network, world, true),
            (world, machine, false),
            (world, "10.0.0.1:1", false),
            (world, "169.254.169.254:80", false),
            (world, "100.64.0.1:1", false),
            (world, "[fe80::1]:1", false),
            (world, "[fd00::1]:1", false),
            (world, "[64:ff9b::10.0.0.1]:1", false),
            (network, "[64:ff9b::127.0.0.1]:1", false),
            (world, "[64:ff9b::203.0.113.1]:1", true),
            (world, "100.128.0.1:1", true),
            (world, "[2001:db8::1]:1", true),
        ] {
            assert_eq!(may_name(addr(source).ip(), addr(named)), allowed, "{source} names {named}");
        }
    }

    #[test]
    fn a_node_that_listens_everywhere_knows_itself_on_its_machine() {
        let mut own = OwnAddresses::new("0.0.0.0:55555".parse().unwrap(), addr("10.0.0.1:55555"));
        for mine in ["10.0.0.1:55555", "127.0.0.1:55555", "127.0.0.2:55555", "[::1]:55555"] {
            assert!(own.contains(addr(mine)), "{mine}");
        }
        for other in ["10.0.0.1:55556", "10.0.0.2:55555", "127.0.0.1:1"] {
            assert!(!own.contains(addr(other)), "{other}");
        }
        own.learn("[::ffff:10.0.0.2]:55555".parse().unwrap());
        assert!(own.contains(addr("10.0.0.2:55555")));
    }

    #[test]
    fn a_node_that_listens_at_one_address_leaves_the_others_to_others() {
        let own = OwnAddresses::new(addr("10.0.0.1:55555"), addr("10.0.0.1:55555"));
        assert!(!own.contains(addr("127.0.0.1:55555")));
    }

    #[test]
    fn addresses_of_its_own_are_bounded() {
        let mut own = OwnAddresses::new(addr("10.0.0.1:1"), addr("10.0.0.1:1"));
        for port in 1..1_000 {
            own.learn(SocketAddr::new(addr("10.0.0.1:1").ip(), port));
        }
        assert_eq!(own.found.len(), OWN_MAX);
    }
}
