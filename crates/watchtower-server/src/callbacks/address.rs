//! Which addresses a callback may be sent to: the guard against server-side
//! request forgery ([http: callbacks]).
//!
//! Pure: it judges an address that someone else looked up. It knows no names,
//! no URLs and no sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

/// The addresses that callbacks may reach: every address of the public
/// internet, and what the configuration adds to it ([running: callbacks]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Invariant: no network here lies within `::ffff:0:0/96`; such a one was
    /// turned into the IPv4 network that it means.
    allow: Vec<IpNet>,
    loopback_allowed: bool,
}

impl AddressPolicy {
    /// A policy that permits, besides public addresses, those of the networks
    /// `allow`, and loopback if `loopback_allowed` (which holds while the
    /// server itself listens on loopback only).
    pub fn new(allow: impl IntoIterator<Item = IpNet>, loopback_allowed: bool) -> AddressPolicy {
        let allow = allow.into_iter().map(unmapped).collect();
        AddressPolicy { allow, loopback_allowed }
    }

    /// Whether a callback may be sent to this address.
    ///
    /// An IPv4-mapped address is the IPv4 address within it. An address that
    /// is carried on to an IPv4 address by a translator or a tunnel is
    /// permitted when both it and that IPv4 address are.
    ///
    /// # Errors
    ///
    /// Says what kind of address it is.
    pub fn permits(&self, address: IpAddr) -> Result<(), Forbidden> {
        let address = address.to_canonical();
        if self.lists(address) {
            return Ok(());
        }
        let reason = match address {
            IpAddr::V4(v4) => kind_of_v4(v4),
            IpAddr::V6(v6) => kind_of_v6(v6).or_else(|| self.kind_behind(v6)),
        };
        match reason {
            None => Ok(()),
            Some(Forbidden::Loopback) if self.loopback_allowed => Ok(()),
            Some(reason) => Err(reason),
        }
    }

    fn lists(&self, address: IpAddr) -> bool {
        self.allow.iter().any(|network| network.contains(&address))
    }

    /// Why the IPv4 address that `carrier` leads to is forbidden, if it is.
    /// Loopback allowed here says nothing about the loopback of a gateway.
    fn kind_behind(&self, carrier: Ipv6Addr) -> Option<Forbidden> {
        carried_v4(carrier)
            .into_iter()
            .flatten()
            .filter(|v4| !self.lists(IpAddr::V4(*v4)))
            .any(|v4| kind_of_v4(v4).is_some())
            .then_some(Forbidden::Translated)
    }
}

/// Why an address must not be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Forbidden {
    /// The machine itself.
    #[error("a loopback address")]
    Loopback,
    /// `0.0.0.0` or `::`, which reach the machine itself on many systems.
    #[error("an unspecified address")]
    Unspecified,
    /// The link, where cloud providers answer with a machine's credentials.
    #[error("a link-local address")]
    LinkLocal,
    /// A private network: RFC 1918, unique local, site-local, or the space
    /// that carriers share.
    #[error("a private address")]
    Private,
    /// Many receivers: multicast or broadcast.
    #[error("a multicast or broadcast address")]
    Multicast,
    /// Set aside for documentation, benchmarks, protocols or the future.
    #[error("a reserved address")]
    Reserved,
    /// A translator or tunnel that leads to a forbidden IPv4 address.
    #[error("an address that leads to a forbidden IPv4 address")]
    Translated,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 3], prefix: u8) -> Ipv6Net {
    let [a, b, c] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// IANA's special-purpose registry for IPv4, by what is at stake. The first
/// network that holds an address names it.
const FORBIDDEN_V4: &[(Ipv4Net, Forbidden)] = &[
    (v4(127, 0, 0, 0, 8), Forbidden::Loopback),
    (v4(0, 0, 0, 0, 8), Forbidden::Unspecified),
    (v4(169, 254, 0, 0, 16), Forbidden::LinkLocal),
    (v4(10, 0, 0, 0, 8), Forbidden::Private),
    (v4(172, 16, 0, 0, 12), Forbidden::Private),
    (v4(192, 168, 0, 0, 16), Forbidden::Private),
    (v4(100, 64, 0, 0, 10), Forbidden::Private),
    (v4(224, 0, 0, 0, 4), Forbidden::Multicast),
    (v4(255, 255, 255, 255, 32), Forbidden::Multicast),
    (v4(192, 0, 0, 0, 24), Forbidden::Reserved),
    (v4(192, 0, 2, 0, 24), Forbidden::Reserved),
    (v4(192, 88, 99, 0, 24), Forbidden::Reserved),
    (v4(198, 18, 0, 0, 15), Forbidden::Reserved),
    (v4(198, 51, 100, 0, 24), Forbidden::Reserved),
    (v4(203, 0, 113, 0, 24), Forbidden::Reserved),
    (v4(240, 0, 0, 0, 4), Forbidden::Reserved),
];

/// The networks of IPv6 that deserve a name of their own, and the holes in
/// [`GLOBAL_V6`].
const FORBIDDEN_V6: &[(Ipv6Net, Forbidden)] = &[
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), Forbidden::Loopback),
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), Forbidden::Unspecified),
    (v6([0xfe80, 0, 0], 10), Forbidden::LinkLocal),
    (v6([0xfec0, 0, 0], 10), Forbidden::Private),
    (v6([0xfc00, 0, 0], 7), Forbidden::Private),
    (v6([0xff00, 0, 0], 8), Forbidden::Multicast),
    (v6([0x2001, 0xdb8, 0], 32), Forbidden::Reserved),
    (v6([0x3fff, 0, 0], 20), Forbidden::Reserved),
];

/// The only part of IPv6 that is given out for use between networks. Whatever
/// lies outside is forbidden without being listed: IPv4-compatible addresses,
/// a site's own NAT64 prefix (`64:ff9b:1::/48`, where the place of the IPv4
/// address cannot be known), and all that is not assigned yet.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0], 3);

/// Protocols' own numbers within [`GLOBAL_V6`]; of these only Teredo leads
/// anywhere.
const PROTOCOLS_V6: Ipv6Net = v6([0x2001, 0, 0], 23);
const TEREDO: Ipv6Net = v6([0x2001, 0, 0], 32);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0], 16);
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0], 96);

fn kind_of_v4(address: Ipv4Addr) -> Option<Forbidden> {
    let holds = |(network, _): &&(Ipv4Net, Forbidden)| network.contains(&address);
    FORBIDDEN_V4.iter().find(holds).map(|(_, kind)| *kind)
}

fn kind_of_v6(address: Ipv6Addr) -> Option<Forbidden> {
    let holds = |(network, _): &&(Ipv6Net, Forbidden)| network.contains(&address);
    if let Some((_, kind)) = FORBIDDEN_V6.iter().find(holds) {
        return Some(*kind);
    }
    let leads_somewhere = NAT64.contains(&address) || TEREDO.contains(&address);
    let global = GLOBAL_V6.contains(&address) && !PROTOCOLS_V6.contains(&address);
    (!leads_somewhere && !global).then_some(Forbidden::Reserved)
}

/// The IPv4 addresses that a NAT64, 6to4 or Teredo address is carried to:
/// for Teredo its server and its client, whose bits are inverted.
fn carried_v4(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let from_bit = |first: u32| Ipv4Addr::from_bits((address.to_bits() >> (96 - first)) as u32);
    if NAT64.contains(&address) {
        [Some(from_bit(96)), None]
    } else if SIX_TO_FOUR.contains(&address) {
        [Some(from_bit(16)), None]
    } else if TEREDO.contains(&address) {
        let client = Ipv4Addr::from_bits(!from_bit(96).to_bits());
        [Some(from_bit(32)), Some(client)]
    } else {
        [None, None]
    }
}

fn unmapped(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && let Some(address) = v6.network().to_ipv4_mapped()
        && let Some(prefix) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(address, prefix)
    {
        return IpNet::V4(v4);
    }
    network
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judged(policy: &AddressPolicy, address: &str) -> Result<(), Forbidden> {
        policy.permits(address.parse().expect(address))
    }

    fn allowing(networks: &[&str]) -> AddressPolicy {
        let allow = networks.iter().map(|network| network.parse().expect("a network"));
        AddressPolicy::new(allow, false)
    }

    // [http: callbacks] "must not be loopback, link-local, private, multicast or unspecified"
    #[test]
    fn addresses_that_are_not_public_are_forbidden_by_kind() {
        use Forbidden::*;
        for (address, kind) in [
            ("127.0.0.1", Loopback),
            ("127.255.255.255", Loopback),
            ("::1", Loopback),
            ("0.0.0.0", Unspecified),
            ("0.1.2.3", Unspecified),
            ("::", Unspecified),
            ("169.254.0.1", LinkLocal),
            ("169.254.169.254", LinkLocal),
            ("fe80::1", LinkLocal),
            ("febf:ffff::1", LinkLocal),
            ("10.0.0.0", Private),
            ("10.255.255.255", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.0.1", Private),
            ("100.64.0.0", Private),
            ("100.127.255.255", Private),
            ("fc00::1", Private),
            ("fd12:3456::1", Private),
            ("fec0::1", Private),
            ("224.0.0.1", Multicast),
            ("239.255.255.255", Multicast),
            ("255.255.255.255", Multicast),
            ("ff02::1", Multicast),
            ("192.0.0.8", Reserved),
            ("192.0.2.1", Reserved),
            ("192.88.99.1", Reserved),
            ("198.18.0.1", Reserved),
            ("198.19.255.255", Reserved),
            ("198.51.100.7", Reserved),
            ("203.0.113.9", Reserved),
            ("240.0.0.1", Reserved),
            ("255.255.255.254", Reserved),
            ("2001:db8::1", Reserved),
            ("3fff::1", Reserved),
            ("100::1", Reserved),
            ("2001:10::1", Reserved),
            ("2001:1ff:ffff::1", Reserved),
            ("5f00::1", Reserved),
            ("4000::1", Reserved),
        ] {
            assert_eq!(judged(&AddressPolicy::default(), address), Err(kind), "{address}");
        }
    }

    #[test]
    fn the_neighbours_of_forbidden_networks_are_permitted() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:200::1",
            "2001:db9::1",
            "3fff:1000::1",
        ] {
            assert_eq!(judged(&AddressPolicy::default(), address), Ok(()), "{address}");
        }
    }

    // [http: callbacks] "IPv4-mapped forms included"
    #[test]
    fn a_forbidden_ipv4_address_stays_forbidden_in_every_ipv6_form() {
        use Forbidden::*;
        for (address, kind) in [
            ("::ffff:127.0.0.1", Loopback),
            ("::ffff:169.254.169.254", LinkLocal),
            ("::ffff:10.0.0.1", Private),
            ("::127.0.0.1", Reserved),
            ("::8.8.8.8", Reserved),
            ("::ffff:0:10.0.0.1", Reserved),
            ("::ffff:0:8.8.8.8", Reserved),
            ("64:ff9b::127.0.0.1", Translated),
            ("64:ff9b::169.254.169.254", Translated),
            ("64:ff9b::10.0.0.1", Translated),
            ("64:ff9b:1::10.0.0.1", Reserved),
            ("64:ff9b:1::8.8.8.8", Reserved),
            ("64:ff9b::1:808:808", Reserved),
            ("2002:a00:1::1", Translated),
            ("2002:7f00:1::1", Translated),
            // Teredo: server 65.54.227.120, client 192.168.0.1, and the other way round
            ("2001:0:4136:e378:8000:63bf:3f57:fffe", Translated),
            ("2001:0:c0a8:1:8000:63bf:f7f7:f7f7", Translated),
        ] {
            assert_eq!(judged(&AddressPolicy::default(), address), Err(kind), "{address}");
        }
        for address in
            ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "2001:0:4136:e378:8000:63bf:f7f7:f7f7"]
        {
            assert_eq!(judged(&AddressPolicy::default(), address), Ok(()), "{address}");
        }
    }

    // [running: callbacks] "networks that may be called besides public ones"
    #[test]
    fn an_allowed_network_is_permitted_in_its_plain_and_its_mapped_form() {
        for policy in [allowing(&["10.1.0.0/16"]), allowing(&["::ffff:10.1.0.0/112"])] {
            assert_eq!(judged(&policy, "10.1.2.3"), Ok(()));
            assert_eq!(judged(&policy, "::ffff:10.1.2.3"), Ok(()));
            assert_eq!(judged(&policy, "64:ff9b::10.1.2.3"), Ok(()));
            assert_eq!(judged(&policy, "10.2.0.1"), Err(Forbidden::Private));
            assert_eq!(judged(&policy, "::ffff:10.2.0.1"), Err(Forbidden::Private));
        }
        assert_eq!(judged(&allowing(&["fd00::/8"]), "fd00::7"), Ok(()));
        assert_eq!(judged(&allowing(&["169.254.169.254/32"]), "169.254.169.254"), Ok(()));
        assert_eq!(judged(&allowing(&["64:ff9b:1::/48"]), "64:ff9b:1::a00:1"), Ok(()));
    }

    #[test]
    fn allowing_all_of_ipv6_allows_no_ipv4_address_that_is_written_as_ipv6() {
        let policy = allowing(&["::/0"]);
        assert_eq!(judged(&policy, "fe80::1"), Ok(()));
        assert_eq!(judged(&policy, "::ffff:127.0.0.1"), Err(Forbidden::Loopback));
        assert_eq!(judged(&policy, "10.0.0.1"), Err(Forbidden::Private));
    }

    // [http: callbacks] "While the server itself listens on loopback only, loopback is allowed"
    #[test]
    fn loopback_is_permitted_where_it_is_allowed_and_nothing_else_with_it() {
        let policy = AddressPolicy::new([], true);
        for address in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(judged(&policy, address), Ok(()), "{address}");
        }
        for address in ["0.0.0.0", "::", "10.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::"] {
            assert!(judged(&policy, address).is_err(), "{address}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_and_its_mapped_form_are_judged_alike(
            bits: u32, network: u32, prefix in 0u8..=32, loopback_allowed: bool,
        ) {
            let network = Ipv4Net::new(Ipv4Addr::from_bits(network), prefix).expect("a prefix");
            let policy = AddressPolicy::new([IpNet::V4(network)], loopback_allowed);
            let plain = Ipv4Addr::from_bits(bits);
            prop_assert_eq!(
                policy.permits(IpAddr::V4(plain)),
                policy.permits(IpAddr::V6(plain.to_ipv6_mapped())),
            );
        }

        #[test]
        fn a_carrier_is_permitted_exactly_when_what_it_carries_to_is(bits: u32) {
            let policy = AddressPolicy::default();
            let plain = Ipv4Addr::from_bits(bits);
            let nat64 = Ipv6Addr::from_bits(0x64_ff9b << 96 | u128::from(bits));
            let six_to_four = Ipv6Addr::from_bits(0x2002 << 112 | u128::from(bits) << 80 | 1);
            let permitted = policy.permits(IpAddr::V4(plain)).is_ok();
            prop_assert_eq!(policy.permits(IpAddr::V6(nat64)).is_ok(), permitted);
            prop_assert_eq!(policy.permits(IpAddr::V6(six_to_four)).is_ok(), permitted);
        }

        // The standard library keeps lists of its own: an oracle for the common kinds.
        #[test]
        fn what_the_standard_library_calls_special_is_forbidden(bits: u32, high: u16, low: u64) {
            let v4 = Ipv4Addr::from_bits(bits);
            if v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_unspecified() || v4.is_documentation()
            {
                prop_assert!(AddressPolicy::default().permits(IpAddr::V4(v4)).is_err());
            }
            let v6 = Ipv6Addr::from_bits(u128::from(high) << 112 | u128::from(low));
            if v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()
                || v6.is_multicast() || v6.is_unspecified()
            {
                prop_assert!(AddressPolicy::default().permits(IpAddr::V6(v6)).is_err());
            }
        }
    }
}
