//! What a node does for its [`Routing`](crate::whispernet::routing::Routing):
//! it tells it what happens, and carries out what it orders.
//!
//! A node without routing does nothing here.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use watchtower_hub::Timestamp;

use super::Node;
use crate::whispernet::Message;
use crate::whispernet::address::{dialable, may_name, parse_addr};
use crate::whispernet::audience::Audience;
use crate::whispernet::events::{Action, CloseReason, ConnectionId};
use crate::whispernet::routing::{Control, Order, ShortId};

impl Node {
    /// The peers that it has for neighbours, once it routes: they have it for
    /// one, too ([whispernet: 14]). There are none while it floods.
    pub fn neighbours(&self) -> impl Iterator<Item = SocketAddr> {
        self.routing.iter().flat_map(|routing| routing.neighbours())
    }

    /// Does what is due, and what is ordered.
    pub(super) fn route(&mut self, now: Timestamp) {
        while let Some(routing) = &mut self.routing {
            if routing.deadline().is_some_and(|deadline| deadline <= now) {
                let peers = &self.peers;
                routing.keep_only(|addr| peers.contains(addr));
                routing.tick(now);
            }
            let orders: Vec<Order> = std::iter::from_fn(|| routing.next_order()).collect();
            if orders.is_empty() {
                break;
            }
            for order in orders {
                match order {
                    Order::Send(to, object) => self.send_routed(to, object, now),
                    Order::Leave(addr) => self.leave(addr, now),
                    Order::Forget => self.forget_waiting(),
                }
            }
        }
    }

    pub(super) fn routing_deadline(&self) -> Option<Timestamp> {
        self.routing.as_ref()?.deadline()
    }

    fn send_routed(&mut self, to: SocketAddr, object: Bytes, now: Timestamp) {
        if let Some(outgoing) = self.outgoing.iter().find(|outgoing| outgoing.addr == to) {
            return self.actions.push_back(Action::Send { connection: outgoing.connection, object });
        }
        let is_refused = self.flood.refused_until(to.ip(), now).is_some();
        let is_dialled = !is_refused && (self.peers.contains(to) || self.peers.name(to, now));
        let Some(routing) = &mut self.routing else { return };
        if !is_dialled || !routing.post(to, object) {
            routing.unreachable(to, now);
        }
    }

    /// Unless the user wants it.
    fn leave(&mut self, addr: SocketAddr, now: Timestamp) {
        let outgoing = self.outgoing.iter().find(|outgoing| outgoing.addr == addr);
        if let Some(connection) = outgoing.map(|outgoing| outgoing.connection)
            && !self.peers.is_wanted(addr)
        {
            self.peers.release(addr);
            self.close(connection, CloseReason::Unneeded, now);
        }
    }

    fn forget_waiting(&mut self) {
        if let Some(routing) = &self.routing {
            self.peers.release_waiting(|addr| routing.served().contains(&addr));
        }
    }

    // Connections.

    /// Whether the user is told what becomes of a peer: not of those that come
    /// and go as routing needs them.
    pub(super) fn tells_of(&self, addr: SocketAddr) -> bool {
        let is_told = |routing: &super::Routing| !routing.is_started() || routing.served().contains(&addr);
        self.routing.as_ref().is_none_or(is_told) || self.peers.is_wanted(addr)
    }

    pub(super) fn gets_backlog(&self, addr: SocketAddr) -> bool {
        self.routing.as_ref().is_none_or(|routing| routing.gets_backlog(addr))
    }

    pub(super) fn routed_connected(&mut self, addr: SocketAddr, now: Timestamp) {
        if let Some(routing) = &mut self.routing {
            routing.connected(addr, now);
        }
    }

    /// A dial failed.
    pub(super) fn routed_failed(&mut self, addr: SocketAddr, now: Timestamp) {
        if let Some(routing) = &mut self.routing {
            routing.unreachable(addr, now);
        }
        self.routed_lost(addr);
    }

    /// A peer was lost: with many peers another is found in its place, and it is
    /// not dialled again.
    pub(super) fn routed_lost(&mut self, addr: SocketAddr) {
        let Some(routing) = &self.routing else { return };
        if routing.is_started() && !routing.served().contains(&addr) && !self.peers.is_wanted(addr) {
            self.peers.release(addr);
        }
    }

    /// A connection is forgotten, to `addr` or from somebody.
    pub(super) fn routed_ended(
        &mut self,
        connection: ConnectionId,
        addr: Option<SocketAddr>,
        now: Timestamp,
    ) {
        let Some(routing) = &mut self.routing else { return };
        match addr {
            Some(addr) => routing.ended(addr, now),
            None => routing.incoming_ended(connection, now),
        }
    }

    /// Closes a connection from others, for one that comes: of those that never
    /// brought anything new, or do so no more, the one that brought most in vain,
    /// or else the last one. False when there is none.
    pub(super) fn close_most_useless(&mut self, now: Timestamp) -> bool {
        let is_started = self.routing.as_ref().is_some_and(|routing| routing.is_started());
        let useless = self
            .incoming
            .iter()
            .filter(|(id, incoming)| (incoming.repeats > 0 || !incoming.has_brought) && !self.is_kept(**id));
        // Many come at once where a message names the node to plain peers.
        let least = useless.max_by_key(|(id, incoming)| (incoming.repeats, **id));
        let Some(connection) = least.map(|(id, _)| *id).filter(|_| is_started) else { return false };
        self.counts.repeating += 1;
        self.close(connection, CloseReason::Repeating, now);
        true
    }

    // Messages.

    /// Whom a message is sent to; `None` for all, without routing.
    pub(super) fn routed_to(
        &mut self,
        id: &str,
        object: &Bytes,
        audience: Audience,
        source: Option<ConnectionId>,
        now: Timestamp,
    ) -> Option<BTreeSet<SocketAddr>> {
        if let Some(incoming) = source.and_then(|source| self.incoming.get_mut(&source)) {
            incoming.repeats = 0;
            incoming.has_brought = true;
        }
        self.routing.as_mut()?.spread(id, object, audience, source, now)
    }

    /// A message had come before.
    pub(super) fn repeated(
        &mut self,
        connection: ConnectionId,
        message: &Message<'_>,
        source: IpAddr,
        now: Timestamp,
    ) {
        let id = ShortId::of(&message.id);
        let origin = message.addr.as_deref().and_then(parse_addr);
        let may_be = origin.is_some_and(|origin| self.may_be_dialled(origin, source, now));
        let (Some(routing), Some(incoming)) = (&mut self.routing, self.incoming.get_mut(&connection)) else {
            return;
        };
        // It may have lost the sign on the way that it took when it came first.
        if let Some(origin) = origin.filter(|_| message.routes && may_be) {
            routing.shows(origin, source == origin.ip());
        }
        routing.repeated(connection, id, now);
        incoming.repeats = incoming.repeats.saturating_add(1);
        let is_useless = routing.is_useless(incoming.repeats);
        let brought_by = routing.brought_by(id);
        if is_useless && self.is_served(connection) {
            // What a served peer brings need not come from another one, its own
            // words aside.
            let is_own = |other: ConnectionId| {
                let other = self.incoming.get(&other);
                other.is_some_and(|other| origin.is_some_and(|origin| origin.ip() == other.remote.ip()))
            };
            if let Some(other) = brought_by.filter(|other| !is_own(*other)) {
                self.close_useless(other, now);
            }
        } else if is_useless {
            self.close_useless(connection, now);
        }
    }

    /// Whether it is from where a peer is served.
    fn is_served(&self, connection: ConnectionId) -> bool {
        let (Some(incoming), Some(routing)) = (self.incoming.get(&connection), &self.routing) else {
            return false;
        };
        !incoming.is_routing && routing.served().iter().any(|served| served.ip() == incoming.remote.ip())
    }

    /// Whether it is kept whatever it brings: a node's with routing, or that of
    /// a peer that is served.
    fn is_kept(&self, connection: ConnectionId) -> bool {
        let is_routing = self.incoming.get(&connection).is_none_or(|incoming| incoming.is_routing);
        is_routing || self.is_served(connection)
    }

    /// Closes a connection that brings nothing new, unless it is the only one
    /// from a plain peer: that peer may be heard nowhere else.
    fn close_useless(&mut self, connection: ConnectionId, now: Timestamp) {
        let plain = self.incoming.values().filter(|incoming| !incoming.is_routing).count();
        if self.is_kept(connection) || plain <= 1 {
            return;
        }
        if let (Some(incoming), Some(routing)) = (self.incoming.get(&connection), &mut self.routing) {
            routing.tell_of_routing(incoming.remote.ip(), now);
        }
        self.counts.repeating += 1;
        self.close(connection, CloseReason::Repeating, now);
    }

    /// A message names its sender. Whether it is to be dialled as one that a
    /// message named.
    pub(super) fn routed_named(
        &mut self,
        addr: SocketAddr,
        shows: bool,
        connection: ConnectionId,
        source: IpAddr,
        now: Timestamp,
    ) -> bool {
        let may_be = self.may_be_dialled(addr, source, now);
        let Some(routing) = &mut self.routing else { return true };
        let is_neighbours = self.incoming.get(&connection).is_some_and(|incoming| incoming.is_routing);
        let is_direct = source == addr.ip() && !is_neighbours;
        let is_named = !may_be || routing.named(addr, shows, is_direct, now);
        if routing.served().contains(&addr) {
            self.peers.name_needed(addr, now);
        }
        is_named
    }

    pub(super) fn routed_announced(&mut self, addr: SocketAddr, source: IpAddr, now: Timestamp) -> bool {
        let may_be = self.may_be_dialled(addr, source, now);
        self.routing.as_mut().is_none_or(|routing| !may_be || routing.announced(addr, now))
    }

    fn may_be_dialled(&self, addr: SocketAddr, source: IpAddr, now: Timestamp) -> bool {
        let is_refused = self.flood.refused_until(addr.ip(), now).is_some();
        !is_refused && may_name(source, addr) && !self.own.contains(addr)
    }

    /// An object without a `Body`.
    pub(super) fn take_control(
        &mut self,
        object: &[u8],
        connection: ConnectionId,
        source: IpAddr,
        now: Timestamp,
    ) {
        let control = self.routing.as_ref().and_then(|_| Control::parse(object)).and_then(|control| {
            control
                .with_addresses(|addr| dialable(addr).filter(|addr| self.may_be_dialled(*addr, source, now)))
        });
        let is_taken = match (control, &mut self.routing, self.incoming.get_mut(&connection)) {
            (Some(control), Some(routing), Some(incoming)) => {
                incoming.is_routing = true;
                routing.control(connection, source, control, now)
            }
            _ => false,
        };
        if is_taken {
            self.counts.control += 1;
        } else {
            self.counts.without_body += 1;
        }
    }
}
