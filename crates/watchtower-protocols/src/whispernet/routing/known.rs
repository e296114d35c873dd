//! Which peers understand routing, and how that is known ([whispernet: 14]).
//!
//! Other peers fail on what nodes with routing tell one another, so this is
//! asked before anything is. What a peer shows itself beats what others say of
//! it; a message without the sign that others passed on says nothing, since they
//! may have passed on less than came. Whoever lies about a peer gains nothing:
//! he could as well tell it himself.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// How many peers are known. With more, the one is forgotten that was known
/// first.
const KNOWN_MAX: usize = 4_096;

#[derive(Default)]
pub(super) struct Known {
    peers: BTreeMap<SocketAddr, Kind>,
    /// The eldest first. Invariant: the keys of `peers`, at most [`KNOWN_MAX`].
    order: VecDeque<SocketAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Others say so.
    SaidToUnderstand,
    /// It sent a message of its own without the sign.
    Plain,
    /// It showed it.
    Understands,
}

impl Known {
    pub(super) fn understands(&self, peer: SocketAddr) -> bool {
        matches!(self.peers.get(&peer), Some(Kind::SaidToUnderstand | Kind::Understands))
    }

    /// How many are known that understand.
    pub(super) fn understanding(&self) -> usize {
        self.peers.values().filter(|kind| **kind != Kind::Plain).count()
    }

    /// Those at an address that showed it.
    pub(super) fn at(&self, ip: IpAddr) -> impl Iterator<Item = SocketAddr> {
        let all = SocketAddr::new(ip, 0)..=SocketAddr::new(ip, u16::MAX);
        let showed = self.peers.range(all).filter(|(_, kind)| **kind != Kind::Plain);
        showed.map(|(peer, _)| *peer)
    }

    /// The peer itself, or others, say that it understands.
    pub(super) fn shows(&mut self, peer: SocketAddr, itself: bool) {
        self.learn(peer, if itself { Kind::Understands } else { Kind::SaidToUnderstand });
    }

    /// The peer itself sent what it would not have sent if it understood.
    pub(super) fn is_plain(&mut self, peer: SocketAddr) {
        self.learn(peer, Kind::Plain);
    }

    fn learn(&mut self, peer: SocketAddr, kind: Kind) {
        if let Some(known) = self.peers.get_mut(&peer) {
            *known = kind.max(*known);
            return;
        }
        if self.order.len() >= KNOWN_MAX
            && let Some(eldest) = self.order.pop_front()
        {
            self.peers.remove(&eldest);
        }
        self.order.push_back(peer);
        self.peers.insert(peer, kind);
    }

    /// It is gone: another may come in its place.
    pub(super) fn forget(&mut self, peer: SocketAddr) {
        if self.peers.remove(&peer).is_some() {
            self.order.retain(|known| *known != peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    #[test]
    fn what_a_peer_shows_itself_beats_what_others_say() {
        let mut known = Known::default();
        assert!(!known.understands(peer(1)));
        known.shows(peer(1), false);
        assert!(known.understands(peer(1)));
        known.is_plain(peer(1));
        assert!(!known.understands(peer(1)));
        known.shows(peer(1), false);
        assert!(!known.understands(peer(1)), "it would fail on what it is told");
        known.shows(peer(1), true);
        assert!(known.understands(peer(1)));
        known.is_plain(peer(1));
        assert!(known.understands(peer(1)), "somebody on its machine passed it on without the sign");
        known.forget(peer(1));
        assert!(!known.understands(peer(1)));
    }

    #[test]
    fn who_is_known_is_bounded() {
        let mut known = Known::default();
        for port in 0..5_000 {
            known.shows(peer(port), true);
            assert!(known.order.len() <= KNOWN_MAX && known.peers.len() == known.order.len());
        }
        assert!(known.understands(peer(4_999)) && !known.understands(peer(0)));
    }
}
