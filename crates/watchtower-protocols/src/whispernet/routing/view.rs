//! Who a node's neighbours are, after HyParView (Leitão, Pereira and Rodrigues:
//! HyParView, a membership protocol for reliable gossip-based broadcast, 2007).
//!
//! A node has few neighbours, each of which has it for one too, and knows some
//! more addresses, its passive view, to take the place of those that fail.
//! Random walks introduce new nodes, and shuffles mix the passive views.
//!
//! Not so here:
//! - A neighbour writes on one connection and reads on another, and whoever
//!   opened a connection can claim any address. So each proves that it is where
//!   it says by what it was sent there: a token, which it sends back.
//! - A node looks for fewer neighbours than it accepts, so that most who ask are
//!   accepted, and nobody has to be let go for them.
//! - Joining is no message of its own: whoever hears a new node first asks it.
//! - With each shuffle a node exchanges one neighbour for a stranger, so that no
//!   part of the nodes keeps to itself.
//!
//! Opens no connection: it says what to send to whom.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use watchtower_hub::Timestamp;

use super::RoutingLimits;
use super::control::{Base64, Control, Token};
use super::random::Random;
use crate::whispernet::ConnectionId;

/// How far the news of a new node goes, and a shuffle.
const HOPS: u8 = 6;

/// At how many hops left a new node is noted on the way.
const NOTED_AT: u8 = 3;

/// How many walks a node passes on within a second. Further ones end there.
const WALKS_MAX: u32 = 64;

/// How many of its neighbours, and of the passive view, a node shuffles.
const SHUFFLED: (usize, usize) = (3, 4);

/// What the view wants, or what came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Say(SocketAddr, Control),
    Up(SocketAddr),
    Down(SocketAddr),
    /// One that came up took the place of another, if there is one that may go.
    Spare(SocketAddr),
}

pub(super) struct View {
    limits: RoutingLimits,
    me: SocketAddr,
    tokens: SipHasher13,
    random: Random,
    /// Invariant: at most `limits.neighbours` are up, and as many are not.
    neighbours: BTreeMap<SocketAddr, Neighbour>,
    /// Invariant: at most `limits.passive`, none of them in `neighbours`.
    passive: Vec<SocketAddr>,
    shuffle_at: Timestamp,
    /// The shuffle that is not answered yet.
    shuffle: Option<Token>,
    /// Whether somebody was asked in vain while there was no neighbour.
    is_desperate: bool,
    /// The walks that were passed on in the second that began then.
    walks: (Timestamp, u32),
    events: VecDeque<Event>,
}

struct Neighbour {
    /// The connection on which it proved that it is there.
    incoming: Option<ConnectionId>,
    /// Its token, once that was sent back to it.
    echoed: Option<Token>,
    /// Whether there is a connection to it.
    is_connected: bool,
    /// How long it is waited for, if it is not up by then.
    until: Timestamp,
    why: Why,
}

/// Why it is, or is to be, a neighbour.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It asked, or one more was wanted.
    Wanted,
    /// It is a new node: the others are to be told of it.
    New,
    /// It is to take the place of another, so that no part of the nodes keeps to
    /// itself.
    Mixed,
}

impl Neighbour {
    fn new(until: Timestamp, why: Why) -> Neighbour {
        Neighbour { incoming: None, echoed: None, is_connected: false, until, why }
    }

    fn is_up(&self) -> bool {
        self.incoming.is_some() && self.echoed.is_some() && self.is_connected
    }
}

impl View {
    pub(super) fn new(limits: RoutingLimits, me: SocketAddr, key: [u8; 16], now: Timestamp) -> View {
        let mut tokens = SipHasher13::new_with_key(&key);
        "token".hash(&mut tokens);
        View {
            limits,
            me,
            tokens,
            random: Random::new(key, "view"),
            neighbours: BTreeMap::new(),
            passive: Vec::new(),
            shuffle_at: now,
            shuffle: None,
            is_desperate: false,
            walks: (now, 0),
            events: VecDeque::new(),
        }
    }

    pub(super) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether it is a neighbour, or may soon be.
    pub(super) fn contains(&self, addr: SocketAddr) -> bool {
        self.neighbours.contains_key(&addr)
    }

    pub(super) fn up(&self) -> impl Iterator<Item = SocketAddr> {
        self.neighbours.iter().filter(|(_, neighbour)| neighbour.is_up()).map(|(addr, _)| *addr)
    }

    pub(super) fn has_neighbours(&self) -> bool {
        self.up().next().is_some()
    }

    /// Whose connection it is: that of a neighbour.
    pub(super) fn behind(&self, connection: ConnectionId) -> Option<SocketAddr> {
        let is_its = |neighbour: &Neighbour| neighbour.is_up() && neighbour.incoming == Some(connection);
        self.neighbours.iter().find(|(_, neighbour)| is_its(neighbour)).map(|(addr, _)| *addr)
    }

    /// Whether it knows nobody whom it could ask to be its neighbour.
    pub(super) fn is_stranded(&self) -> bool {
        self.neighbours.is_empty() && self.passive.is_empty()
    }

    #[cfg(test)]
    pub(super) fn passive(&self) -> &[SocketAddr] {
        &self.passive
    }

    // Whom to know.

    /// Somebody is there: it is remembered while there is room.
    pub(super) fn offer(&mut self, addr: SocketAddr, now: Timestamp) {
        if self.passive.len() < self.limits.passive {
            self.remember(addr);
        }
        self.refill(now);
    }

    /// It takes the place of another if there is no room.
    fn remember(&mut self, addr: SocketAddr) {
        if addr == self.me || self.contains(addr) || self.passive.contains(&addr) || self.limits.passive == 0
        {
            return;
        }
        if self.passive.len() >= self.limits.passive {
            let at = self.random.below(self.passive.len());
            self.passive.swap_remove(at);
        }
        self.passive.push(addr);
    }

    fn forget(&mut self, addr: SocketAddr) {
        self.passive.retain(|passive| *passive != addr);
    }

    /// A node is new here: it is asked to be a neighbour, in place of another if
    /// need be, and others are told of it once it is.
    pub(super) fn invite(&mut self, addr: SocketAddr, now: Timestamp) {
        if addr == self.me || self.contains(addr) {
            return;
        }
        if self.accepts(true) {
            self.ask(addr, Why::New, now);
        } else if !self.passive.contains(&addr) {
            self.remember(addr);
            self.walk(addr, HOPS, None);
        }
    }

    fn ask(&mut self, addr: SocketAddr, why: Why, now: Timestamp) {
        self.forget(addr);
        let until = now.after(self.limits.answer_within);
        let urgent = self.is_desperate && !self.has_neighbours();
        self.neighbours.insert(addr, Neighbour::new(until, why));
        let token = self.token_for(addr);
        self.say(addr, Control::Neighbor { addr: self.me, token, echo: None, urgent });
    }

    /// Asks others from the passive view while neighbours are wanted.
    fn refill(&mut self, now: Timestamp) {
        while self.neighbours.len() < self.limits.neighbours_wanted {
            let Some(addr) = self.random.pick(&self.passive) else { break };
            self.ask(addr, Why::Wanted, now);
        }
    }

    fn token_for(&self, addr: SocketAddr) -> Token {
        let mut hasher = self.tokens;
        addr.hash(&mut hasher);
        Base64(hasher.finish().to_le_bytes())
    }

    fn say(&mut self, to: SocketAddr, control: Control) {
        self.events.push_back(Event::Say(to, control));
    }

    // What others say.

    /// Somebody on `connection` says that it listens at `addr`, and asks to be a
    /// neighbour or answers. Whether it has proved that it does listen there.
    pub(super) fn neighbor(
        &mut self,
        connection: ConnectionId,
        addr: SocketAddr,
        (token, echo): (Token, Option<Token>),
        urgent: bool,
        now: Timestamp,
    ) -> bool {
        let is_proven = echo == Some(self.token_for(addr));
        let was_up = match self.neighbours.get(&addr) {
            Some(neighbour) => neighbour.is_up(),
            None if self.accepts(urgent) => false,
            None => {
                self.offer(addr, now);
                if is_proven {
                    // It was asked, and answers too late.
                    self.say(addr, Control::Disconnect { addr: self.me });
                }
                return is_proven;
            }
        };
        // A neighbour is not disturbed by whoever borrows its name.
        if was_up && !is_proven {
            return false;
        }
        let me = Control::Neighbor {
            addr: self.me,
            token: self.token_for(addr),
            echo: Some(token),
            urgent: false,
        };
        self.forget(addr);
        let until = now.after(self.limits.answer_within);
        let asking = Neighbour::new(until, Why::Wanted);
        let neighbour = self.neighbours.entry(addr).or_insert(asking);
        if is_proven {
            neighbour.incoming = Some(connection);
        }
        // Whoever borrows the address has it told one thing, and no more.
        if neighbour.echoed.is_none() || (is_proven && neighbour.echoed != Some(token)) {
            neighbour.echoed = Some(token);
            self.events.push_back(Event::Say(addr, me));
        }
        if neighbour.is_up() && !was_up {
            let why = neighbour.why;
            self.came_up(addr, why, now);
        }
        is_proven
    }

    /// There is a connection to it.
    pub(super) fn connected(&mut self, addr: SocketAddr, now: Timestamp) {
        let Some(neighbour) = self.neighbours.get_mut(&addr).filter(|neighbour| !neighbour.is_connected)
        else {
            return;
        };
        neighbour.is_connected = true;
        if neighbour.is_up() {
            let why = neighbour.why;
            self.came_up(addr, why, now);
        }
    }

    /// Who has no neighbour at all may take the place of another, once it has
    /// proved where it is.
    fn accepts(&self, urgent: bool) -> bool {
        let (all, up) = (self.neighbours.len(), self.up().count());
        if urgent { all - up < self.limits.neighbours } else { all < self.limits.neighbours }
    }

    fn came_up(&mut self, addr: SocketAddr, why: Why, now: Timestamp) {
        self.is_desperate = false;
        self.events.push_back(Event::Up(addr));
        if self.up().count() > self.limits.neighbours {
            let others: Vec<SocketAddr> = self.up().filter(|other| *other != addr).collect();
            // Whoever has many addresses on one machine displaces himself.
            let own: Vec<SocketAddr> = others.iter().filter(|o| o.ip() == addr.ip()).copied().collect();
            if let Some(other) = self.random.pick(if own.is_empty() { &others } else { &own }) {
                self.exchange(other);
            }
        }
        if why == Why::Mixed && self.up().count() > self.limits.neighbours_wanted {
            self.events.push_back(Event::Spare(addr));
        }
        if why == Why::New {
            let others: Vec<SocketAddr> = self.up().filter(|other| *other != addr).collect();
            for other in others {
                self.say(other, Control::ForwardJoin { peer: addr, hops: HOPS });
            }
        }
        if self.passive.len() < self.limits.neighbours_wanted {
            self.shuffle_at = now.after(self.limits.answer_within).min(self.shuffle_at);
        }
    }

    /// It is told that it is a neighbour no more, and is none.
    pub(super) fn let_go(&mut self, addr: SocketAddr) {
        self.say(addr, Control::Disconnect { addr: self.me });
        self.remove(addr);
    }

    /// It is let go, and may be a neighbour again.
    pub(super) fn exchange(&mut self, addr: SocketAddr) {
        self.let_go(addr);
        self.remember(addr);
    }

    fn remove(&mut self, addr: SocketAddr) {
        let Some(neighbour) = self.neighbours.remove(&addr) else { return };
        if neighbour.is_up() {
            self.events.push_back(Event::Down(addr));
        } else if neighbour.why == Why::New {
            // It may be alone: others are to try.
            self.walk(addr, HOPS, None);
        }
    }

    /// It says that it is a neighbour no more.
    pub(super) fn disconnect(&mut self, addr: SocketAddr, now: Timestamp) {
        self.remove(addr);
        // Another one first.
        self.refill(now);
        self.remember(addr);
    }

    /// A neighbour tells of a new node.
    pub(super) fn forward_join(&mut self, from: SocketAddr, peer: SocketAddr, hops: u8, now: Timestamp) {
        if peer == self.me || self.contains(peer) {
            return;
        }
        let hops = if self.may_pass_on(now) { hops.min(HOPS) } else { 0 };
        if hops == 0 || !self.walk(peer, hops - 1, Some(from)) {
            // It may know nobody yet, so in place of another if need be.
            if self.accepts(true) {
                self.ask(peer, Why::Wanted, now);
            }
        } else if hops == NOTED_AT {
            self.remember(peer);
        }
    }

    fn may_pass_on(&mut self, now: Timestamp) -> bool {
        let (since, count) = &mut self.walks;
        if now.since(*since) >= Duration::from_secs(1) || now < *since {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= WALKS_MAX
    }

    /// Sends the news of a node on: false when there is nowhere to.
    fn walk(&mut self, peer: SocketAddr, hops: u8, from: Option<SocketAddr>) -> bool {
        let next: Vec<SocketAddr> = self.up().filter(|addr| Some(*addr) != from && *addr != peer).collect();
        let next = self.random.pick(&next);
        if let Some(next) = next {
            self.say(next, Control::ForwardJoin { peer, hops });
        }
        next.is_some()
    }

    /// A neighbour passes a shuffle on, or begins one.
    pub(super) fn shuffle(
        &mut self,
        from: SocketAddr,
        (origin, token): (SocketAddr, Token),
        hops: u8,
        peers: Vec<SocketAddr>,
        now: Timestamp,
    ) {
        if origin == self.me {
            return;
        }
        let next: Vec<SocketAddr> = self.up().filter(|addr| *addr != from && *addr != origin).collect();
        match self.random.pick(&next) {
            Some(next) if hops > 0 && self.may_pass_on(now) => {
                let hops = hops.min(HOPS) - 1;
                self.say(next, Control::Shuffle { origin, token, hops, peers });
            }
            _ => {
                let passive = self.passive.iter().filter(|addr| **addr != origin).copied().collect();
                let reply = self.random.sample(passive, peers.len());
                self.say(origin, Control::ShuffleReply { token, peers: reply });
                peers.into_iter().chain([origin]).for_each(|peer| self.remember(peer));
                self.refill(now);
            }
        }
    }

    /// Somebody answers a shuffle: once, and only what was asked.
    pub(super) fn shuffle_reply(&mut self, token: Token, peers: Vec<SocketAddr>, now: Timestamp) {
        if self.shuffle == Some(token) {
            self.shuffle = None;
            peers.into_iter().for_each(|peer| self.remember(peer));
            self.refill(now);
        }
    }

    // What happens.

    /// It cannot be reached, or the connection to it ended.
    pub(super) fn lost(&mut self, addr: SocketAddr, now: Timestamp) {
        let was_asked = self.contains(addr);
        self.forget(addr);
        self.remove(addr);
        self.is_desperate |= was_asked && !self.has_neighbours();
        self.refill(now);
    }

    /// A connection from somebody ended.
    pub(super) fn incoming_lost(&mut self, connection: ConnectionId, now: Timestamp) {
        let is_its = |neighbour: &Neighbour| neighbour.incoming == Some(connection);
        let found = self.neighbours.iter().find(|(_, neighbour)| is_its(neighbour)).map(|(addr, _)| *addr);
        if let Some(addr) = found {
            self.remove(addr);
            // Another one first.
            self.refill(now);
            self.remember(addr);
        }
    }

    pub(super) fn tick(&mut self, now: Timestamp) {
        let is_late = |neighbour: &Neighbour| !neighbour.is_up() && neighbour.until <= now;
        let late: Vec<SocketAddr> =
            self.neighbours.iter().filter(|(_, n)| is_late(n)).map(|(addr, _)| *addr).collect();
        for addr in &late {
            self.is_desperate |= !self.has_neighbours();
            self.remove(*addr);
        }
        // Not those that have just not answered, if there are others.
        self.refill(now);
        for addr in late {
            self.offer(addr, now);
        }
        if self.shuffle_at <= now {
            self.begin_shuffle(now);
        }
    }

    fn begin_shuffle(&mut self, now: Timestamp) {
        let every = self.limits.shuffle_every;
        // Not at the same time as all others that began together.
        let part = u32::try_from(self.random.below(64)).unwrap_or(0);
        self.shuffle_at = now.after(every + every / 2 / 64 * part);
        let up: Vec<SocketAddr> = self.up().collect();
        let Some(to) = self.random.pick(&up) else { return };
        let token = Base64(self.random.next().to_le_bytes());
        self.shuffle = Some(token);
        let neighbours = up.into_iter().filter(|addr| *addr != to).collect();
        let mut peers = self.random.sample(neighbours, SHUFFLED.0);
        peers.extend(self.random.sample(self.passive.clone(), SHUFFLED.1));
        self.say(to, Control::Shuffle { origin: self.me, token, hops: HOPS, peers });
        if let Some(stranger) = self.random.pick(&self.passive).filter(|_| self.accepts(true)) {
            self.ask(stranger, Why::Mixed, now);
        }
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let asked = self.neighbours.values().filter(|neighbour| !neighbour.is_up());
        asked.map(|neighbour| neighbour.until).chain([self.shuffle_at]).min()
    }
}
