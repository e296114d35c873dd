//! The peers that a node dials: which, when, and when no more.
//!
//! Opens no connection: it says what to dial and is told what came of it.
//! Strangers name addresses, so what they make a node do is bounded by the
//! table: with the default limits some 25 dials a second at the worst, and a
//! few to one address.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use siphasher::sip::SipHasher13;
use watchtower_hub::Timestamp;

use super::events::ConnectionId;

/// How many addresses are not dialled again that could not be reached, or that
/// the user disconnected. With more, the one that has waited longest may be
/// named again.
const SHUNNED_MAX: usize = 256;

/// How long a connection lasts after which its peer is taken for a steady one.
const STEADY_AFTER: Duration = Duration::from_secs(30);

/// How many peers a node has, and how hard it tries to reach them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLimits {
    /// Peers connected to at a time.
    pub connected: usize,
    /// Addresses that others named and that are not connected to yet. Further
    /// ones are not dialled; their messages name them again.
    pub candidates: usize,
    /// Dials under way at a time.
    pub dials: usize,
    /// How long after the first failure a peer is dialled again; twice as long
    /// after each further one, and up to a quarter more at random.
    pub retry_first: Duration,
    /// The longest wait between two dials.
    pub retry_max: Duration,
    /// After how many failures in a row a peer is forgotten that is not kept.
    pub failures: u32,
    /// For how long after that an address that was never reached is not taken
    /// up again when others name it.
    pub shunned_for: Duration,
}

impl Default for PeerLimits {
    fn default() -> PeerLimits {
        PeerLimits {
            connected: 128,
            candidates: 64,
            dials: 8,
            retry_first: Duration::from_secs(1),
            retry_max: Duration::from_secs(60),
            failures: 5,
            shunned_for: Duration::from_secs(5 * 60),
        }
    }
}

/// For how long a peer is dialled that cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Until it is disconnected: a peer that the configuration names.
    Always,
    /// Until it failed too often ([whispernet: messages]).
    WhileReachable,
}

/// How a node stands with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// To be dialled at that time, or as soon as there is room after it.
    Waiting(Timestamp),
    /// A dial is under way.
    Dialling,
    /// Messages go out on this connection.
    Connected(ConnectionId),
}

/// What became of a peer that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Retried,
    Forgotten,
}

struct Peer {
    state: PeerState,
    keep: Keep,
    /// Whether the user named it, and not others.
    is_wanted: bool,
    /// In a row.
    failures: u32,
    /// When it was last connected to, if ever.
    reached: Option<Timestamp>,
}

/// The table of peers.
pub(super) struct Peers {
    limits: PeerLimits,
    hasher: SipHasher13,
    /// Invariant: at most `limits.connected` connected or being dialled, and at
    /// most `limits.candidates` more beside those that the user or routing named.
    table: BTreeMap<SocketAddr, Peer>,
    /// Until when. Invariant: at most [`SHUNNED_MAX`].
    shunned: VecDeque<(SocketAddr, Timestamp)>,
}

impl Peers {
    pub(super) fn new(limits: PeerLimits, key: [u8; 16]) -> Peers {
        let hasher = SipHasher13::new_with_key(&key);
        Peers { limits, hasher, table: BTreeMap::new(), shunned: VecDeque::new() }
    }

    /// Others named it. Whether it is taken up: false when it is known, shunned
    /// or there is no room.
    pub(super) fn name(&mut self, addr: SocketAddr, now: Timestamp) -> bool {
        let is_candidate =
            |peer: &&Peer| peer.keep == Keep::WhileReachable && matches!(peer.state, PeerState::Waiting(_));
        let candidates = self.table.values().filter(is_candidate).count();
        let has_room = candidates < self.limits.candidates && self.open() < self.limits.connected;
        has_room && self.name_needed(addr, now)
    }

    /// As [`Peers::name`], for one that there has to be room for: whoever asks
    /// bounds how many these are.
    pub(super) fn name_needed(&mut self, addr: SocketAddr, now: Timestamp) -> bool {
        let is_shunned = |(shunned, until): &(SocketAddr, Timestamp)| *shunned == addr && *until > now;
        let is_new = !self.table.contains_key(&addr) && !self.shunned.iter().any(is_shunned);
        if is_new {
            self.insert(addr, Keep::WhileReachable, false, now);
        }
        is_new
    }

    /// It seems to be there: if it waits for long, it does no more.
    pub(super) fn hasten(&mut self, addr: SocketAddr, now: Timestamp) {
        let soon = now.after(self.limits.retry_first);
        if let Some(PeerState::Waiting(at)) = self.table.get_mut(&addr).map(|peer| &mut peer.state) {
            *at = soon.min(*at);
        }
    }

    pub(super) fn contains(&self, addr: SocketAddr) -> bool {
        self.table.contains_key(&addr)
    }

    /// The user named it: it is dialled at `at`, unless it is known.
    pub(super) fn want(&mut self, addr: SocketAddr, keep: Keep, at: Timestamp) {
        self.shunned.retain(|(shunned, _)| *shunned != addr);
        if let Some(peer) = self.table.get_mut(&addr) {
            peer.failures = 0;
            peer.is_wanted = true;
            if keep == Keep::Always {
                peer.keep = keep;
            }
            if let PeerState::Waiting(_) = peer.state {
                peer.state = PeerState::Waiting(at);
            }
        } else {
            self.insert(addr, keep, true, at);
        }
    }

    fn insert(&mut self, addr: SocketAddr, keep: Keep, is_wanted: bool, at: Timestamp) {
        let state = PeerState::Waiting(at);
        self.table.insert(addr, Peer { state, keep, is_wanted, failures: 0, reached: None });
    }

    /// The peers whose time it is; they are being dialled from now on. Those
    /// that are kept come first, then who has waited longest.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<SocketAddr> {
        let mut due: Vec<_> = self.waiting().filter(|(.., at)| *at <= now).collect();
        due.sort_by_key(|(_, keep, at)| (*keep != Keep::Always, *at));
        due.truncate(self.dials_free());
        let due: Vec<SocketAddr> = due.into_iter().map(|(addr, ..)| addr).collect();
        for addr in &due {
            self.set(*addr, PeerState::Dialling);
        }
        due
    }

    /// When [`Peers::due`] has something next, if no dial ends before.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        if self.dials_free() == 0 { None } else { self.waiting().map(|(.., at)| at).min() }
    }

    fn waiting(&self) -> impl Iterator<Item = (SocketAddr, Keep, Timestamp)> {
        self.table.iter().filter_map(|(addr, peer)| match peer.state {
            PeerState::Waiting(at) => Some((*addr, peer.keep, at)),
            PeerState::Dialling | PeerState::Connected(_) => None,
        })
    }

    fn dials_free(&self) -> usize {
        let dials = self.table.values().filter(|peer| peer.state == PeerState::Dialling).count();
        let dials_free = self.limits.dials.saturating_sub(dials);
        dials_free.min(self.limits.connected.saturating_sub(self.open()))
    }

    /// How many are connected, or may soon be.
    fn open(&self) -> usize {
        self.table.values().filter(|peer| !matches!(peer.state, PeerState::Waiting(_))).count()
    }

    /// A dial succeeded. False when nobody waits for it any more.
    pub(super) fn connected(&mut self, addr: SocketAddr, connection: ConnectionId, now: Timestamp) -> bool {
        match self.table.get_mut(&addr) {
            Some(peer) if peer.state == PeerState::Dialling => {
                peer.state = PeerState::Connected(connection);
                peer.reached = Some(now);
                true
            }
            _ => false,
        }
    }

    /// A peer that is being dialled has another address, at which there may be
    /// one already.
    pub(super) fn moved(&mut self, from: SocketAddr, to: SocketAddr) {
        if self.table.get(&from).is_none_or(|peer| peer.state != PeerState::Dialling) {
            return;
        }
        let Some(peer) = self.table.remove(&from) else { return };
        match self.table.get_mut(&to) {
            Some(known) => {
                known.is_wanted |= peer.is_wanted;
                if peer.keep == Keep::Always {
                    known.keep = Keep::Always;
                }
            }
            None => drop(self.table.insert(to, peer)),
        }
    }

    /// What was in that state is so no more: a dial failed, or a connection
    /// ended. `None` when it had changed before.
    pub(super) fn failed(&mut self, addr: SocketAddr, was: PeerState, now: Timestamp) -> Option<Fate> {
        let peer = self.table.get_mut(&addr).filter(|peer| peer.state == was)?;
        let was_steady = matches!(was, PeerState::Connected(_))
            && peer.reached.is_some_and(|since| now.since(since) >= STEADY_AFTER);
        peer.failures = if was_steady { 1 } else { peer.failures.saturating_add(1) };
        if peer.keep == Keep::WhileReachable && peer.failures >= self.limits.failures {
            let was_reached = peer.reached.is_some();
            self.table.remove(&addr);
            // Who was there may come back, and then names itself.
            if !was_reached {
                self.shun(addr, now.after(self.limits.shunned_for));
            }
            return Some(Fate::Forgotten);
        }
        let failures = peer.failures;
        let at = now.after(self.retry_delay(addr, failures));
        self.set(addr, PeerState::Waiting(at));
        Some(Fate::Retried)
    }

    /// Longer with each failure; not the same for all, so that peers that lost
    /// one another at once do not return at once.
    fn retry_delay(&self, addr: SocketAddr, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let delay = self.limits.retry_first.saturating_mul(doubled).min(self.limits.retry_max);
        let mut hasher = self.hasher;
        (addr, failures).hash(&mut hasher);
        let parts = u32::try_from(hasher.finish() % 256).unwrap_or(0);
        delay.saturating_add(delay / 4 / 256 * parts)
    }

    /// Takes a peer off the table, and does not take it up again before
    /// `until` when others name it. How it stood.
    pub(super) fn remove(&mut self, addr: SocketAddr, until: Timestamp) -> Option<PeerState> {
        let peer = self.table.remove(&addr)?;
        self.shun(addr, until);
        Some(peer.state)
    }

    /// Whether the user wants it.
    pub(super) fn is_wanted(&self, addr: SocketAddr) -> bool {
        self.table.get(&addr).is_some_and(|peer| peer.is_wanted)
    }

    /// It is of no use any more: it is dialled no more, but may be named again.
    pub(super) fn release(&mut self, addr: SocketAddr) {
        self.table.remove(&addr);
    }

    /// Nor are those dialled that wait, unless the user wants them or they are
    /// excepted.
    pub(super) fn release_waiting(&mut self, is_excepted: impl Fn(SocketAddr) -> bool) {
        let is_waiting = |peer: &Peer| matches!(peer.state, PeerState::Waiting(_));
        self.table.retain(|addr, peer| !is_waiting(peer) || peer.is_wanted || is_excepted(*addr));
    }

    fn shun(&mut self, addr: SocketAddr, until: Timestamp) {
        self.shunned.retain(|(shunned, _)| *shunned != addr);
        if self.shunned.len() >= SHUNNED_MAX {
            self.shunned.pop_front();
        }
        self.shunned.push_back((addr, until));
    }

    /// Leaves the peers at an address alone: those that are kept until then,
    /// the others for good.
    pub(super) fn postpone(&mut self, ip: IpAddr, until: Timestamp) {
        self.table.retain(|addr, peer| addr.ip() != ip || peer.keep == Keep::Always);
        for (_, peer) in self.table.iter_mut().filter(|(addr, _)| addr.ip() == ip) {
            peer.state = PeerState::Waiting(until);
        }
    }

    /// The peers at an address need wait no longer.
    pub(super) fn resume(&mut self, ip: IpAddr, now: Timestamp) {
        for (_, peer) in self.table.iter_mut().filter(|(addr, _)| addr.ip() == ip) {
            if let PeerState::Waiting(at) = &mut peer.state {
                *at = now.min(*at);
            }
        }
    }

    fn set(&mut self, addr: SocketAddr, state: PeerState) {
        if let Some(peer) = self.table.get_mut(&addr) {
            peer.state = state;
        }
    }

    /// All of them, by address.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketAddr, PeerState)> {
        self.table.iter().map(|(addr, peer)| (*addr, peer.state))
    }
}
