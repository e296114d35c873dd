//! A node of the whispernet as a state machine.
//!
//! A driver tells a node what happened (connections, bytes, the user's words,
//! the time), and after each such call takes [`Node::next_action`] until there
//! is none. It calls [`Node::tick`] at [`Node::deadline`]. A node opens no
//! socket, reads no clock and has no randomness but the key that it is given.
//!
//! Connections are one way ([whispernet: messages]): what others opened is read
//! only, what the node opened is written only. The driver bounds what waits to
//! be written on a connection, and reports one that takes too little as
//! [`closed`](Node::closed). The actions that one call leaves behind are
//! bounded by what it is told: each message makes one for every peer.

mod connections;
mod incoming;
mod routed;
mod unheard;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use watchtower_hub::Timestamp;

use self::unheard::Unheard;
use super::address::{OwnAddresses, canonical, may_name, parse_addr};
use super::audience::Audience;
use super::backlog::Backlog;
use super::events::{Action, CloseReason, ConnectionId, Counts, Options, Said, Shown, Unsaid};
use super::file::{File, encode_contents};
use super::flood::Flood;
use super::id::hashed_id;
use super::identity::{Identity, Mark, Pins, PublicKey};
use super::message::Message;
use super::object::ObjectReader;
use super::part::{FilePart, Part};
use super::peers::{Keep, PeerState, Peers};
use super::routing::Routing;
use super::safe_text::safe_file_name;
use super::seen::SeenIds;

/// One peer of the whispernet: who it knows, what it has seen, and what it
/// wants done.
pub struct Node {
    object_bytes_max: usize,
    incoming_max: usize,
    unfinished_bytes_max: usize,
    require_signed: bool,
    refused_for: Duration,
    identity: Option<Identity>,
    own: OwnAddresses,
    peers: Peers,
    /// The connected ones of `peers`.
    outgoing: Vec<Outgoing>,
    /// Invariant: at most `incoming_max`.
    incoming: BTreeMap<ConnectionId, Incoming>,
    /// Invariant: the sum of what the readers of `incoming` keep, and at most
    /// `unfinished_bytes_max` between calls.
    unfinished_bytes: usize,
    seen: SeenIds,
    backlog: Backlog,
    flood: Flood,
    routing: Option<Routing>,
    unheard: Unheard,
    pins: Pins,
    /// The last message that was originated: its `Body` and `Timestamp`.
    last_said: Option<(String, i64)>,
    connections: u64,
    actions: VecDeque<Action>,
    counts: Counts,
}

struct Outgoing {
    connection: ConnectionId,
    addr: SocketAddr,
    local: SocketAddr,
}

struct Incoming {
    remote: SocketAddr,
    local: SocketAddr,
    reader: ObjectReader,
    /// Messages in a row that had come before.
    repeats: u32,
    /// Whether it ever brought one that had not.
    has_brought: bool,
    /// Whether it is from a node with routing, as far as it says.
    is_routing: bool,
}

impl Outgoing {
    /// Whether a connection that came in from `remote` at `local` is this one,
    /// whatever address led here. Two connections of one machine may begin at
    /// the same address, if they lead to different ports of another.
    fn is_other_end(&self, remote: SocketAddr, local: SocketAddr) -> bool {
        let leads_elsewhere = self.addr.ip() == local.ip() && self.addr.port() != local.port();
        self.local == remote && !leads_elsewhere
    }
}

impl Node {
    /// A node without peers. `key` is random, and known to nobody.
    pub fn new(options: Options, key: [u8; 16], now: Timestamp) -> Node {
        let own = OwnAddresses::new(options.listen, options.announced);
        Node {
            object_bytes_max: options.object_bytes_max,
            incoming_max: options.incoming_max,
            unfinished_bytes_max: options.unfinished_bytes_max,
            require_signed: options.require_signed,
            refused_for: options.flood.refused_for,
            identity: options.identity,
            routing: options.routing.map(|limits| Routing::new(limits, own.announced(), key, now)),
            own,
            peers: Peers::new(options.peers, key),
            outgoing: Vec::new(),
            incoming: BTreeMap::new(),
            unfinished_bytes: 0,
            seen: SeenIds::new(key, options.seen, now),
            backlog: Backlog::new(options.backlog, options.seen.age),
            flood: Flood::new(options.flood),
            unheard: Unheard::new(options.greets_after),
            pins: Pins::new(options.pins_max),
            last_said: None,
            connections: 0,
            actions: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// What is to be done next, in this order.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Node::tick`] is due.
    pub fn deadline(&self) -> Option<Timestamp> {
        [self.peers.deadline(), self.routing_deadline(), self.unheard_deadline()].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Timestamp) {
        self.route(now);
        self.look_who_hears(now);
        for addr in self.peers.due(now) {
            self.actions.push_back(Action::Dial(addr));
        }
    }

    // The user.

    /// The user wants a peer. False when it is this node itself. An address that
    /// is refused is dialled when its time is over.
    pub fn connect(&mut self, addr: SocketAddr, keep: Keep, now: Timestamp) -> bool {
        let addr = canonical(addr);
        // [whispernet: messages] Never to itself.
        if self.own.contains(addr) {
            return false;
        }
        let at = self.flood.refused_until(addr.ip(), now).unwrap_or(now);
        self.peers.want(addr, keep, at);
        self.tick(now);
        true
    }

    /// The user wants a peer no more: it is not dialled again until
    /// [`connect`](Node::connect) asks for it. False when it is none.
    pub fn disconnect(&mut self, addr: SocketAddr, now: Timestamp) -> bool {
        let addr = canonical(addr);
        let Some(state) = self.peers.remove(addr, FOREVER) else { return false };
        if let PeerState::Connected(connection) = state {
            self.close(connection, CloseReason::Disconnected, now);
        }
        self.tick(now);
        true
    }

    /// Sends words to all peers, and to those that connect soon after. Returns
    /// the message's id. `now` is when it was said, and goes with it.
    ///
    /// # Errors
    ///
    /// [`Unsaid`]; nothing is sent then.
    pub fn say(&mut self, said: Said<'_>, now: Timestamp) -> Result<String, Unsaid> {
        if said.body.is_empty() {
            return Err(Unsaid::Empty);
        }
        let (id, object) = self.originate(said, None, now)?;
        let audience = Audience::all_but(Some(self.own.announced()));
        self.backlog.push(object, said.file.is_some(), audience, now);
        Ok(id)
    }

    /// Sends a part of a file to all peers ([whispernet: 10]): as
    /// [`say`](Node::say), but not to those that connect soon after.
    ///
    /// # Errors
    ///
    /// [`Unsaid`]; nothing is sent then.
    pub fn say_part(&mut self, nick: Option<&str>, part: &Part, now: Timestamp) -> Result<String, Unsaid> {
        let said = Said { nick, body: &part.body(), file: None };
        let (id, _) = self.originate(said, Some(part.keys()), now)?;
        Ok(id)
    }

    /// The id and the object of what was sent to all peers.
    fn originate(
        &mut self,
        said: Said<'_>,
        file_part: Option<FilePart<'_>>,
        now: Timestamp,
    ) -> Result<(String, Bytes), Unsaid> {
        let addr = self.own.announced().to_string();
        let (id, timestamp) = self.new_id(&addr, said.body, now);
        let contents = said.file.map(|(_, contents)| contents);
        let message = Message {
            addr: Some(addr.into()),
            body: said.body.into(),
            nick: said.nick.filter(|nick| !nick.is_empty()).map(Into::into),
            timestamp: Some(timestamp),
            file_type: said.file.map(|(mime_type, _)| mime_type.into()),
            file_contents: contents.map(|contents| encode_contents(contents).into()),
            file_part,
            pub_key: self.identity.as_ref().map(|identity| identity.public_key().to_string().into()),
            sig: self.identity.as_ref().map(|identity| identity.sign(&id, contents).into()),
            routes: self.routing.is_some(),
            id: id.as_str().into(),
        };
        let object = message.encode();
        if object.len() > self.object_bytes_max {
            return Err(Unsaid::TooLarge { bytes: object.len(), bytes_max: self.object_bytes_max });
        }
        self.seen.insert(&id, now);
        self.last_said = Some((said.body.to_owned(), timestamp));
        self.counts.originated += 1;
        self.fan_out(&id, &object, Audience::all_but(None), None, now);
        Ok((id, object))
    }

    /// [whispernet: 4] The timestamp is advanced when two ids would collide.
    fn new_id(&self, addr: &str, body: &str, now: Timestamp) -> (String, i64) {
        let mut timestamp = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        // The same words many times at once: go on where the last ones are.
        if let Some((last_body, last)) = &self.last_said
            && last_body == body
            && *last >= timestamp
        {
            timestamp = last.saturating_add(1);
        }
        loop {
            let id = hashed_id(addr, body, timestamp);
            if !self.seen.contains(&id) || timestamp == i64::MAX {
                return (id, timestamp);
            }
            timestamp += 1;
        }
    }

    /// Sends an object to all peers that may hear it, or to those of them that
    /// routing says: the one place that says who is sent what.
    fn fan_out(
        &mut self,
        id: &str,
        object: &Bytes,
        audience: Audience,
        source: Option<ConnectionId>,
        now: Timestamp,
    ) {
        let routed = self.routed_to(id, object, audience, source, now);
        let is_sent = |addr| routed.as_ref().map_or_else(|| audience.has(addr), |to| to.contains(&addr));
        let others = self.outgoing.iter().filter(|outgoing| is_sent(outgoing.addr));
        self.actions.extend(
            others.map(|outgoing| Action::Send { connection: outgoing.connection, object: object.clone() }),
        );
    }

    /// Who may hear what came from somebody at `source`. Peers on this machine would take
    /// a loopback address for one of a peer that the node knows, and dial what a stranger
    /// named: from elsewhere they hear of those alone that it does know.
    fn audience(&self, origin: Option<SocketAddr>, source: IpAddr) -> Audience {
        let is_known = |origin| self.peers.contains(origin) || self.own.contains(origin);
        let is_strange = |origin: SocketAddr| origin.ip().is_loopback() && !is_known(origin);
        Audience { origin, is_kept_from_machine: !source.is_loopback() && origin.is_some_and(is_strange) }
    }

    /// Somebody at `source` announced an address otherwise than by a message
    /// ([whispernet: 5]); what cannot be dialled is ignored.
    pub fn announced(&mut self, addr: &str, source: IpAddr, now: Timestamp) {
        if let Some(addr) = parse_addr(addr)
            && self.routed_announced(addr, source, now)
        {
            self.named(addr, source, now);
        }
    }

    fn named(&mut self, addr: SocketAddr, source: IpAddr, now: Timestamp) {
        if self.own.contains(addr) {
            return;
        }
        if self.peers.contains(addr) {
            // From the address itself this is no stranger's claim.
            if source == addr.ip() {
                self.peers.hasten(addr, now);
            }
            return;
        }
        let allowed = may_name(source, addr) && self.flood.refused_until(addr.ip(), now).is_none();
        if allowed && self.peers.name(addr, now) {
            self.tick(now);
        } else {
            self.counts.not_dialled += 1;
        }
    }

    // What there is to see.

    /// The address that others connect to.
    pub fn address(&self) -> SocketAddr {
        self.own.announced()
    }

    /// The peers that the node dials, by address.
    pub fn peers(&self) -> impl Iterator<Item = (SocketAddr, PeerState)> {
        self.peers.iter()
    }

    /// The addresses that are refused for sending too much, and until when.
    pub fn refused(&self, now: Timestamp) -> impl Iterator<Item = (IpAddr, Timestamp)> {
        self.flood.refused(now)
    }

    /// Refuses nobody any more: peers that are kept are dialled at once.
    pub fn clear_refused(&mut self, now: Timestamp) {
        for ip in self.flood.clear_refused() {
            self.peers.resume(ip, now);
        }
        self.tick(now);
    }

    /// What [`say`](Node::say) said, as others are shown it.
    pub fn shown(&self, id: &str, said: Said<'_>, time: Timestamp) -> Shown {
        let nick = said.nick.filter(|nick| !nick.is_empty());
        let file = said.file.map(|(mime_type, contents)| File {
            name: safe_file_name(said.body),
            mime_type: mime_type.to_owned(),
            contents: Bytes::copy_from_slice(contents),
        });
        let own = self.identity.as_ref().map(Identity::public_key);
        let mark = match (nick.and_then(|nick| self.pins.key(nick)), own) {
            (Some(first), Some(own)) if first == own => Mark::Verified,
            (Some(_), Some(_)) => Mark::ChangedKey,
            _ => Mark::Unverified,
        };
        Shown {
            id: id.to_owned(),
            addr: Some(self.own.announced().to_string()),
            nick: nick.map(str::to_owned),
            body: said.body.to_owned(),
            time,
            file,
            part: None,
            key: own,
            mark,
        }
    }

    /// The key that a nick is pinned to.
    pub fn pinned(&self, nick: &str) -> Option<PublicKey> {
        self.pins.key(nick)
    }

    /// Pins a nick to a key: what a
    /// [`Notice::Pinned`](super::Notice::Pinned) told in another run, or
    /// the user's decision after a warning. False when there is no room.
    pub fn pin(&mut self, nick: &str, key: PublicKey) -> bool {
        self.pins.pin(nick, key)
    }

    /// How many bytes of unfinished objects are kept, for all connections.
    pub fn unfinished_bytes(&self) -> usize {
        self.unfinished_bytes
    }

    /// What it has done since its start.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

/// Until the user says otherwise.
const FOREVER: Timestamp = Timestamp::from_millis(u64::MAX);
