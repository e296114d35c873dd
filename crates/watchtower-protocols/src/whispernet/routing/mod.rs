//! Routing, for a whispernet that is too large for all to know all
//! ([whispernet: 14]).
//!
//! With few peers a node floods, and none of this is at work. Once it knows
//! more than [`RoutingLimits::flooded`] peers that understand routing, or one
//! that routes speaks to it, it has neighbours instead ([`view`]), and passes
//! messages along a tree of them ([`tree`]). Messages stay what they are, byte
//! for byte; beside them go objects without a `Body` ([`control`]), to those
//! alone that are known to understand ([`known`]).
//!
//! Plain peers go on flooding. A node serves those that it was the first to
//! hear: it sends them all messages, and listens to what they send. What other
//! plain peers send it, all of which it has already, it need not have.
//!
//! Here is decided what to send to whom; connections are the
//! [`Node`](super::Node)'s.

mod control;
mod known;
mod random;
mod recent;
mod tree;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use watchtower_hub::Timestamp;

pub(super) use control::{Control, ShortId};
use known::Known;
use random::Random;
use tree::{Sends, Sent, Tree};
use view::{Event, View};

use super::audience::Audience;
use super::events::ConnectionId;
use super::seen::{SeenIds, SeenLimits};

/// How many peers wait for a connection to be told something. What is for
/// others is not said, and they count as out of reach.
const ADDRESSED_MAX: usize = 64;

/// How many things one of them is told at most, the first ones.
const LETTERS_MAX: usize = 4;

/// For how many of the last messages it is remembered who brought them.
const BROUGHT_MAX: usize = 64;

/// How many addresses are remembered as heard of, and for how long.
const HEARD: SeenLimits = SeenLimits { ids: 4_096, age: Duration::from_secs(60 * 60) };

/// How a node routes. All durations are above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutingLimits {
    /// Up to this many peers that are known to understand routing a node floods.
    pub flooded: usize,
    /// How many neighbours it looks for.
    pub neighbours_wanted: usize,
    /// How many it accepts.
    pub neighbours: usize,
    /// How many more addresses it knows, to replace neighbours that fail.
    pub passive: usize,
    /// How many plain peers it serves.
    pub plain: usize,
    /// How many known messages in a row a connection from elsewhere may bring
    /// before it is closed.
    pub repeats: u32,
    /// How often addresses are exchanged, up to half as long more at random.
    pub shuffle_every: Duration,
    /// How long somebody who is asked to be a neighbour has to answer.
    pub answer_within: Duration,
    /// How long ids wait before neighbours that are not pushed to are told; one
    /// of two waits three times as long.
    pub announce_after: Duration,
    /// How long a message may take to come after its id.
    pub graft_after: Duration,
    /// How long it may take once it was asked for.
    pub graft_again: Duration,
    /// How long a connection is kept that is of no more use, at least. It may
    /// be half as long more.
    pub linger: Duration,
    /// How many messages are kept for neighbours that missed them.
    pub recent_messages: usize,
    /// How many bytes these have in all.
    pub recent_bytes: usize,
    /// How many of the last ones a new neighbour is told of.
    pub told_of: usize,
}

impl RoutingLimits {
    /// What is the default.
    pub const DEFAULT: RoutingLimits = RoutingLimits {
        flooded: 12,
        neighbours_wanted: 5,
        neighbours: 8,
        passive: 30,
        plain: 32,
        repeats: 1,
        shuffle_every: Duration::from_secs(120),
        answer_within: Duration::from_secs(5),
        announce_after: Duration::from_millis(250),
        graft_after: Duration::from_secs(1),
        graft_again: Duration::from_millis(500),
        linger: Duration::from_secs(10),
        recent_messages: 4_096,
        recent_bytes: 16 << 20,
        told_of: 50,
    };
}

impl Default for RoutingLimits {
    fn default() -> RoutingLimits {
        RoutingLimits::DEFAULT
    }
}

/// What routing wants done.
pub(super) enum Order {
    /// To be sent on the connection to a peer; to be [posted](Routing::post)
    /// when there is none.
    Send(SocketAddr, Bytes),
    /// The connection to a peer is of no more use.
    Leave(SocketAddr),
    /// Peers that wait to be dialled, since messages named them, are not to be.
    Forget,
}

/// A connection to a peer.
struct Link {
    /// When it was last of use.
    used: Timestamp,
    /// Whether it understands, though who is known may be forgotten.
    understands: bool,
    /// Whether it is from when the node flooded.
    is_left_over: bool,
}

/// Who is sent what, with many peers.
pub(super) struct Routing {
    limits: RoutingLimits,
    me: SocketAddr,
    is_started: bool,
    view: View,
    tree: Tree,
    known: Known,
    /// Addresses that were named.
    heard: SeenIds,
    /// The plain peers that are served. Invariant: at most `limits.plain`.
    served: BTreeSet<SocketAddr>,
    /// The peers that are connected to.
    links: BTreeMap<SocketAddr, Link>,
    /// When these are looked through for some that are of no more use.
    look_at: Timestamp,
    /// The last messages that were brought first by others than neighbours, and
    /// on which connection. Invariant: at most [`BROUGHT_MAX`].
    brought: VecDeque<(ShortId, ConnectionId)>,
    /// What waits for a connection. Invariant: at most [`ADDRESSED_MAX`], each
    /// with at most [`LETTERS_MAX`].
    letters: BTreeMap<SocketAddr, Vec<Bytes>>,
    orders: VecDeque<Order>,
    random: Random,
}

impl Routing {
    /// Of a node that is at `me`. `key` is random, and known to nobody.
    pub(super) fn new(limits: RoutingLimits, me: SocketAddr, key: [u8; 16], now: Timestamp) -> Routing {
        Routing {
            limits,
            me,
            is_started: false,
            view: View::new(limits, me, key, now),
            tree: Tree::new(limits, me, key, now),
            known: Known::default(),
            heard: SeenIds::new(key, HEARD, now),
            served: BTreeSet::new(),
            links: BTreeMap::new(),
            look_at: now,
            brought: VecDeque::new(),
            letters: BTreeMap::new(),
            orders: VecDeque::new(),
            random: Random::new(key, "routing"),
        }
    }

    pub(super) fn next_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// Whether it is at work, or the node floods.
    pub(super) fn is_started(&self) -> bool {
        self.is_started
    }

    /// The neighbours.
    pub(super) fn neighbours(&self) -> impl Iterator<Item = SocketAddr> {
        self.view.up()
    }

    pub(super) fn tick(&mut self, now: Timestamp) {
        if !self.is_started {
            return;
        }
        self.view.tick(now);
        let (sends, unreliable) = self.tree.tick(now);
        self.send_all(sends, now);
        unreliable.into_iter().for_each(|neighbour| self.view.let_go(neighbour));
        self.settle(now);
        if self.look_at <= now {
            self.leave_the_idle(now);
            self.look_at = now.after(self.limits.linger / 2);
        }
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        if !self.is_started {
            return None;
        }
        [self.view.deadline(), self.tree.deadline(), Some(self.look_at)].into_iter().flatten().min()
    }

    /// With many peers a node routes from now on.
    fn start_if_many(&mut self, now: Timestamp) {
        if !self.is_started && self.known.understanding() > self.limits.flooded {
            self.start(now);
        }
    }

    fn start(&mut self, now: Timestamp) {
        if self.is_started {
            return;
        }
        self.is_started = true;
        self.orders.push_back(Order::Forget);
        for link in self.links.values_mut() {
            *link = Link { used: now, is_left_over: true, ..*link };
        }
        let connected: Vec<SocketAddr> = self.links.keys().copied().collect();
        let (understanding, plain): (Vec<_>, Vec<_>) =
            connected.into_iter().partition(|addr| self.understands(*addr));
        if !plain.iter().any(|addr| self.served.contains(addr)) {
            self.served.extend(self.random.pick(&plain));
        }
        let count = understanding.len();
        for addr in self.random.sample(understanding, count) {
            self.view.offer(addr, now);
        }
        self.settle(now);
    }

    /// Turns what the view wants into orders.
    fn settle(&mut self, now: Timestamp) {
        while let Some(event) = self.view.next_event() {
            match event {
                Event::Say(to, control) => {
                    self.say(to, &control, now);
                    if self.links.contains_key(&to) {
                        self.view.connected(to, now);
                    }
                }
                Event::Up(addr) => self.tree.up(addr, now),
                Event::Down(addr) => self.tree.down(addr),
                Event::Spare(addr) => {
                    // Not one that messages come over.
                    let lazy = self.tree.lazy().filter(|lazy| *lazy != addr).collect::<Vec<_>>();
                    if let Some(lazy) = self.random.pick(&lazy) {
                        self.view.exchange(lazy);
                    }
                }
            }
        }
    }

    fn say(&mut self, to: SocketAddr, control: &Control, now: Timestamp) {
        self.send(to, control.encode(), now);
    }

    fn send_all(&mut self, sends: Sends, now: Timestamp) {
        for (to, sent) in sends {
            match sent {
                Sent::Control(control) => self.say(to, &control, now),
                Sent::Message(object) => self.send(to, object, now),
            }
        }
    }

    fn send(&mut self, to: SocketAddr, object: Bytes, now: Timestamp) {
        if let Some(link) = self.links.get_mut(&to) {
            link.used = now;
        }
        self.orders.push_back(Order::Send(to, object));
    }

    // Connections.

    /// There is no connection to a peer that is to be sent this: it waits for
    /// one. False when there is no room for that.
    pub(super) fn post(&mut self, to: SocketAddr, object: Bytes) -> bool {
        if self.letters.len() >= ADDRESSED_MAX && !self.letters.contains_key(&to) {
            return false;
        }
        let letters = self.letters.entry(to).or_default();
        if letters.len() < LETTERS_MAX {
            letters.push(object);
        }
        true
    }

    pub(super) fn connected(&mut self, addr: SocketAddr, now: Timestamp) {
        let letters = self.letters.remove(&addr).unwrap_or_default();
        let understands = self.known.understands(addr) || !letters.is_empty();
        // The dial may have begun while the node flooded.
        let is_left_over = self.is_started && !understands;
        self.links.insert(addr, Link { used: now, understands, is_left_over });
        self.orders.extend(letters.into_iter().map(|object| Order::Send(addr, object)));
        if self.is_started {
            self.view.connected(addr, now);
            if understands {
                self.view.offer(addr, now);
            }
            self.settle(now);
        }
    }

    /// There is no connection to it to be had. Who comes in its place may be
    /// another.
    pub(super) fn unreachable(&mut self, addr: SocketAddr, now: Timestamp) {
        self.known.forget(addr);
        self.ended(addr, now);
    }

    /// The connection to it ended.
    pub(super) fn ended(&mut self, addr: SocketAddr, now: Timestamp) {
        self.links.remove(&addr);
        self.letters.remove(&addr);
        if self.is_started {
            self.view.lost(addr, now);
            if self.view.is_stranded() {
                let links = self.links.iter().filter(|(_, link)| link.understands);
                links.for_each(|(addr, _)| self.view.offer(*addr, now));
            }
            self.settle(now);
        }
    }

    /// Nothing is kept for those that are not dialled any more.
    pub(super) fn keep_only(&mut self, is_dialled: impl Fn(SocketAddr) -> bool) {
        self.served.retain(|addr| is_dialled(*addr));
        self.letters.retain(|addr, _| is_dialled(*addr));
    }

    /// A connection from somebody ended.
    pub(super) fn incoming_ended(&mut self, connection: ConnectionId, now: Timestamp) {
        self.view.incoming_lost(connection, now);
        self.settle(now);
    }

    fn is_idle(&self, addr: SocketAddr) -> bool {
        let is_left_over = self.links.get(&addr).is_some_and(|link| link.is_left_over);
        let is_of_use = self.view.contains(addr) || self.served.contains(&addr);
        !is_of_use && (is_left_over || self.understands(addr))
    }

    /// Whether a peer understands that is connected to.
    fn understands(&self, addr: SocketAddr) -> bool {
        self.links.get(&addr).is_some_and(|link| link.understands)
    }

    fn leave_the_idle(&mut self, now: Timestamp) {
        let is_over = |link: &Link| link.used.after(self.limits.linger) <= now;
        let idle: Vec<SocketAddr> = self
            .links
            .iter()
            .filter(|(addr, link)| is_over(link) && self.is_idle(**addr))
            .map(|(addr, _)| *addr)
            .collect();
        for addr in idle {
            let Some(link) = self.links.get_mut(&addr) else { continue };
            link.used = now;
            let was_left_over = std::mem::take(&mut link.is_left_over);
            // It may flood yet, and wait for what comes no more.
            if was_left_over && link.understands {
                self.say(addr, &Control::Disconnect { addr: self.me }, now);
            }
            self.orders.push_back(Order::Leave(addr));
        }
    }

    // Messages.

    /// A message that is new, from a connection or from the node itself. Returns
    /// the peers that it is to be sent to; `None` for all, while the node floods.
    pub(super) fn spread(
        &mut self,
        id: &str,
        object: &Bytes,
        audience: Audience,
        connection: Option<ConnectionId>,
        now: Timestamp,
    ) -> Option<BTreeSet<SocketAddr>> {
        if !self.is_started {
            self.tree.keep(ShortId::of(id), object, audience, now);
            return None;
        }
        let id = ShortId::of(id);
        let from = connection.and_then(|connection| self.view.behind(connection));
        if let (Some(connection), None) = (connection, from) {
            if self.brought.len() >= BROUGHT_MAX {
                self.brought.pop_front();
            }
            self.brought.push_back((id, connection));
        }
        let (pushed, sends) = self.tree.spread(id, object, audience, from, now);
        self.send_all(sends, now);
        let others = self.links.keys().filter(|addr| audience.has(**addr) && self.is_flooded(**addr));
        Some(others.copied().chain(pushed).collect())
    }

    /// Whether it is sent every message, being no neighbour.
    fn is_flooded(&self, addr: SocketAddr) -> bool {
        if self.served.contains(&addr) {
            return true;
        }
        let is_alone = self.view.up().next().is_none();
        let is_left_over = self.links.get(&addr).is_some_and(|link| link.is_left_over);
        let is_neighbour = self.view.up().any(|neighbour| neighbour == addr);
        !is_neighbour && (is_alone || is_left_over || !self.understands(addr))
    }

    /// A message came that had come before. If it came from a neighbour, it is
    /// told so.
    pub(super) fn repeated(&mut self, connection: ConnectionId, id: ShortId, now: Timestamp) {
        let neighbour = self.view.behind(connection);
        let prune =
            neighbour.and_then(|neighbour| Some((neighbour, self.tree.repeated(neighbour, id, now)?)));
        if let Some((neighbour, prune)) = prune {
            self.say(neighbour, &prune, now);
        }
    }

    /// The connection that a message came on first, if that was no neighbour's
    /// and lately.
    pub(super) fn brought_by(&self, id: ShortId) -> Option<ConnectionId> {
        self.brought.iter().find(|(brought, _)| *brought == id).map(|(_, connection)| *connection)
    }

    /// Whether a connection is of no use on which so many known messages came in
    /// a row: not before there are neighbours over whom they come, too.
    pub(super) fn is_useless(&self, repeats: u32) -> bool {
        let neighbours = self.view.up().count();
        self.is_started && 2 * neighbours >= self.limits.neighbours_wanted && repeats >= self.limits.repeats
    }

    /// Connections from this address bring nothing new: they may be from a node
    /// that understands, and floods since it knows too few that do.
    pub(super) fn tell_of_routing(&mut self, ip: IpAddr, now: Timestamp) {
        let floods = self.known.at(ip).filter(|addr| !self.view.contains(*addr)).collect::<Vec<_>>();
        if let Some(addr) = self.random.pick(&floods) {
            self.say(addr, &Control::Disconnect { addr: self.me }, now);
        }
    }

    /// The plain peers that are served.
    pub(super) fn served(&self) -> &BTreeSet<SocketAddr> {
        &self.served
    }

    /// Whether a peer that was just connected to is sent the last messages.
    pub(super) fn gets_backlog(&self, addr: SocketAddr) -> bool {
        !self.is_started || self.served.contains(&addr) || !self.known.understands(addr)
    }

    /// A message named its sender. `is_direct` says that it came from there, on
    /// a connection that is no neighbour's. Whether it is to be dialled.
    pub(super) fn named(&mut self, addr: SocketAddr, shows: bool, is_direct: bool, now: Timestamp) -> bool {
        let is_first = self.heard.insert(addr.to_string(), now);
        if shows {
            self.shows(addr, is_direct);
        } else if is_direct {
            self.known.is_plain(addr);
        }
        let is_plain = !self.known.understands(addr);
        if !is_plain {
            self.served.remove(&addr);
        }
        // Nobody else may have heard it.
        let is_wanted = is_first || (self.is_started && self.served.is_empty());
        let is_to_be_served = is_plain && is_direct && is_wanted && self.served.len() < self.limits.plain;
        if is_to_be_served {
            self.served.insert(addr);
        }
        self.start_if_many(now);
        if !self.is_started {
            return true;
        }
        if !is_plain && is_direct {
            self.view.invite(addr, now);
        } else if !is_plain {
            self.view.offer(addr, now);
        }
        self.settle(now);
        is_to_be_served
    }

    /// A peer shows that it understands, or others say so.
    pub(super) fn shows(&mut self, addr: SocketAddr, itself: bool) {
        self.known.shows(addr, itself);
        if let Some(link) = self.links.get_mut(&addr) {
            link.understands |= self.known.understands(addr);
        }
    }

    /// Somebody announced an address otherwise ([whispernet: 5]). Whether it is
    /// to be dialled: by some of all who heard it.
    pub(super) fn announced(&mut self, addr: SocketAddr, now: Timestamp) -> bool {
        if !self.is_started {
            return true;
        }
        let is_chosen = self.random.below(4) == 0 && self.served.len() < self.limits.plain;
        let is_first = self.heard.insert(addr.to_string(), now);
        is_first && is_chosen && !self.known.understands(addr) && self.served.insert(addr)
    }

    // What nodes with routing say.

    /// Addresses in it are not the node's own, and may be dialled. False when
    /// whoever sent it may not say so.
    pub(super) fn control(
        &mut self,
        connection: ConnectionId,
        source: IpAddr,
        control: Control,
        now: Timestamp,
    ) -> bool {
        let from = self.view.behind(connection);
        match (control, from) {
            (Control::Neighbor { addr, token, echo, urgent }, _) if self.may_be_told(addr, source) => {
                self.start(now);
                if self.view.neighbor(connection, addr, (token, echo), urgent, now) {
                    self.shows(addr, true);
                    self.served.remove(&addr);
                }
            }
            (Control::Disconnect { addr }, Some(from)) if addr == from => self.view.disconnect(addr, now),
            // It has too many peers, or had this one for a neighbour too long.
            (Control::Disconnect { addr }, _) if self.may_be_told(addr, source) => {
                self.start(now);
                self.view.offer(addr, now);
            }
            (Control::ForwardJoin { peer, hops }, Some(from)) if self.may_be_told(peer, source) => {
                self.view.forward_join(from, peer, hops, now);
            }
            (Control::Shuffle { origin, token, hops, mut peers }, Some(from))
                if self.may_be_told(origin, source) =>
            {
                peers.retain(|peer| self.may_be_told(*peer, source));
                self.view.shuffle(from, (origin, token), hops, peers, now);
            }
            (Control::ShuffleReply { token, mut peers }, _) => {
                peers.retain(|peer| self.may_be_told(*peer, source));
                self.view.shuffle_reply(token, peers, now);
            }
            (Control::IHave(ids), Some(from)) => self.tree.i_have(from, &ids, now),
            (Control::Graft(ids), Some(from)) => {
                let sends = self.tree.graft(from, &ids);
                self.send_all(sends, now);
            }
            (Control::Prune {}, Some(from)) => self.tree.prune(from),
            _ => return false,
        }
        self.settle(now);
        true
    }

    /// Somebody at `source` says that this peer understands. Whether it may be
    /// told anything: not when it has shown that it does not.
    fn may_be_told(&mut self, peer: SocketAddr, source: IpAddr) -> bool {
        self.shows(peer, source == peer.ip());
        self.known.understands(peer)
    }
}
