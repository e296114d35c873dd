//! A node's connections: which it takes, what becomes of those that it dials,
//! and how they end.
//!
//! Opens and closes none itself: it says so in actions.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use watchtower_hub::Timestamp;

use super::{FOREVER, Incoming, Node, Outgoing};
use crate::whispernet::address::canonical;
use crate::whispernet::events::{Action, CloseReason, ConnectionId, Notice};
use crate::whispernet::object::ObjectReader;
use crate::whispernet::peers::{Fate, PeerState};

impl Node {
    /// A connection from `remote` came in at `local`.
    ///
    /// # Errors
    ///
    /// [`CloseReason`]: it is to be closed.
    pub fn accepted(
        &mut self,
        remote: SocketAddr,
        local: SocketAddr,
        now: Timestamp,
    ) -> Result<ConnectionId, CloseReason> {
        let (remote, local) = (canonical(remote), canonical(local));
        self.own.learn(local);
        if let Some(until) = self.flood.refused_until(remote.ip(), now) {
            return Err(CloseReason::Flooding(until.since(now)));
        }
        if let Some(own) = self.outgoing.iter().find(|outgoing| outgoing.is_other_end(remote, local)) {
            self.found_itself(own.addr, own.connection, now);
            return Err(CloseReason::Itself);
        }
        let is_full = self.incoming.len() >= self.incoming_max;
        if is_full && !self.close_most_useless(now) && !self.make_room(remote.ip(), now) {
            return Err(CloseReason::TooMany(self.incoming_max));
        }
        let connection = self.new_connection();
        let reader = ObjectReader::new(self.object_bytes_max);
        let incoming = Incoming { remote, local, reader, repeats: 0, has_brought: false, is_routing: false };
        self.incoming.insert(connection, incoming);
        Ok(connection)
    }

    /// Where all connections are taken, the address that has most of them gives
    /// its latest up to one that still has fewer then. Whether there is room.
    fn make_room(&mut self, newcomer: IpAddr, now: Timestamp) -> bool {
        let mut by_ip: BTreeMap<IpAddr, (usize, ConnectionId)> = BTreeMap::new();
        for (connection, incoming) in &self.incoming {
            let (count, latest) = by_ip.entry(incoming.remote.ip()).or_insert((0, *connection));
            (*count, *latest) = (*count + 1, *connection);
        }
        let has = by_ip.get(&newcomer).map_or(0, |(count, _)| *count);
        match by_ip.values().max_by_key(|(count, _)| *count) {
            Some((most, latest)) if *most > has + 1 => {
                self.close(*latest, CloseReason::TooMany(self.incoming_max), now);
                true
            }
            _ => false,
        }
    }

    /// A dial succeeded, with this node's end at `local`.
    ///
    /// # Errors
    ///
    /// [`CloseReason`]: it is to be closed.
    pub fn dialled(
        &mut self,
        addr: SocketAddr,
        local: SocketAddr,
        now: Timestamp,
    ) -> Result<ConnectionId, CloseReason> {
        let (addr, local) = (canonical(addr), canonical(local));
        let connection = self.new_connection();
        let outgoing = Outgoing { connection, addr, local };
        let is_itself = |incoming: &Incoming| outgoing.is_other_end(incoming.remote, incoming.local);
        let itself = self.incoming.iter().find(|(_, incoming)| is_itself(incoming));
        if let Some(other_end) = itself.map(|(connection, _)| *connection) {
            self.found_itself(addr, other_end, now);
            return Err(CloseReason::Itself);
        }
        if !self.peers.connected(addr, connection, now) {
            return Err(CloseReason::Unneeded);
        }
        self.outgoing.push(outgoing);
        if self.tells_of(addr) {
            self.actions.push_back(Action::Tell(Notice::Connected(addr)));
        }
        // [whispernet: 11]
        if self.gets_backlog(addr) {
            let backlog = self.backlog.for_peer(addr, now);
            self.actions.extend(backlog.map(|object| Action::Send { connection, object: object.clone() }));
        }
        self.routed_connected(addr, now);
        self.tick(now);
        Ok(connection)
    }

    /// A dial failed, or took too long.
    pub fn dial_failed(&mut self, addr: SocketAddr, now: Timestamp) {
        let addr = canonical(addr);
        let tells = self.tells_of(addr);
        let fate = self.peers.failed(addr, PeerState::Dialling, now);
        if fate == Some(Fate::Forgotten) && tells {
            self.actions.push_back(Action::Tell(Notice::Forgotten(addr)));
        }
        if fate.is_some() {
            self.routed_failed(addr, now);
        }
        self.tick(now);
    }

    /// The peer that is being dialled at `from` was found at `to`, and is that
    /// from now on.
    pub fn moved(&mut self, from: SocketAddr, to: SocketAddr) {
        self.peers.moved(canonical(from), canonical(to));
    }

    /// A connection ended. One that the node closed itself needs no mention.
    pub fn closed(&mut self, connection: ConnectionId, now: Timestamp) {
        if let Some(addr) = self.forget(connection, now) {
            let tells = self.tells_of(addr);
            let fate = self.peers.failed(addr, PeerState::Connected(connection), now);
            let notice = if fate == Some(Fate::Forgotten) { Notice::Forgotten } else { Notice::Lost };
            if tells {
                self.actions.push_back(Action::Tell(notice(addr)));
            }
            self.routed_lost(addr);
        }
        self.tick(now);
    }

    /// A peer takes too little: more waits to be written to it than is kept.
    pub fn too_slow(&mut self, connection: ConnectionId, now: Timestamp) {
        self.counts.slow += 1;
        self.actions.push_back(Action::Close { connection, reason: CloseReason::TooSlow });
        self.closed(connection, now);
    }

    /// An object was not sent to a peer, since there is more than may be sent
    /// to any: it counts.
    pub fn unsent(&mut self) {
        self.counts.unsent += 1;
    }

    /// The address is this node's own, however it was reached: it is not
    /// dialled again, and the other end of the connection is closed.
    pub(super) fn found_itself(&mut self, addr: SocketAddr, other_end: ConnectionId, now: Timestamp) {
        self.own.learn(addr);
        self.peers.remove(addr, FOREVER);
        self.close(other_end, CloseReason::Itself, now);
        self.tick(now);
    }

    fn new_connection(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId(self.connections)
    }

    pub(super) fn close(&mut self, connection: ConnectionId, reason: CloseReason, now: Timestamp) {
        self.forget(connection, now);
        self.actions.push_back(Action::Close { connection, reason });
    }

    /// The peer that the connection led to.
    fn forget(&mut self, connection: ConnectionId, now: Timestamp) -> Option<SocketAddr> {
        if let Some(incoming) = self.incoming.remove(&connection) {
            self.unfinished_bytes -= incoming.reader.unfinished_bytes();
        }
        let at = self.outgoing.iter().position(|outgoing| outgoing.connection == connection);
        let addr = at.map(|at| self.outgoing.swap_remove(at).addr);
        self.routed_ended(connection, addr, now);
        addr
    }
}
