//! The machines of the network: real nodes, and plain peers.
//!
//! A host turns what happens to it into [`Effect`]s. Connections are links of
//! the network here.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use watchtower_hub::Timestamp;
use watchtower_protocols::whispernet::{Action, ConnectionId, Keep, Node, Options, RoutingLimits, Said};

use super::messages::{MessageId, Messages};
use super::network::{HostId, LinkId, address, host_at};

/// What a host wants done.
pub(super) enum Effect {
    Dial(HostId),
    Send(LinkId, Bytes),
    Close(LinkId),
    Show(MessageId),
    /// It failed on what it was sent.
    Crash,
}

pub(super) enum Host {
    Node(Box<Ours>),
    Plain(Plain),
}

impl Host {
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Host::Plain(_))
    }

    /// The user names a peer.
    pub(super) fn connect(&mut self, to: HostId, now: Timestamp) {
        match self {
            Host::Node(ours) => drop(ours.node.connect(address(to), Keep::Always, now)),
            Host::Plain(plain) => {
                plain.contact = Some(to);
                plain.dial(to);
            }
        }
    }

    /// The user says something.
    pub(super) fn say(&mut self, body: &str, messages: &mut Messages, now: Timestamp) -> MessageId {
        match self {
            Host::Node(ours) => {
                let said = Said { nick: Some("someone"), body, file: None };
                let id = ours.node.say(said, now).expect("what is said is neither empty nor long");
                messages.named(&id)
            }
            Host::Plain(plain) => plain.say(body, messages),
        }
    }

    /// A connection from others. False: it is refused.
    pub(super) fn accepted(&mut self, remote: SocketAddr, link: LinkId, now: Timestamp) -> bool {
        match self {
            Host::Node(ours) => {
                let accepted = ours.node.accepted(remote, ours.node.address(), now);
                ours.keep(link, accepted.ok())
            }
            Host::Plain(_) => true,
        }
    }

    /// A dial succeeded. False: it is not needed any more.
    pub(super) fn dialled(&mut self, to: HostId, local: SocketAddr, link: LinkId, now: Timestamp) -> bool {
        match self {
            Host::Node(ours) => {
                let dialled = ours.node.dialled(address(to), local, now);
                ours.keep(link, dialled.ok())
            }
            Host::Plain(plain) => {
                plain.peers.push((link, to));
                true
            }
        }
    }

    pub(super) fn dial_failed(&mut self, to: HostId, now: Timestamp) {
        match self {
            Host::Node(ours) => ours.node.dial_failed(address(to), now),
            Host::Plain(plain) => {
                plain.known.remove(&to);
                if plain.contact == Some(to) {
                    plain.start_again();
                }
            }
        }
    }

    pub(super) fn received(&mut self, link: LinkId, object: &Bytes, messages: &mut Messages, now: Timestamp) {
        match self {
            Host::Node(ours) => {
                if let Some(connection) = ours.connections.get(&link) {
                    ours.node.received(*connection, object, now);
                }
            }
            Host::Plain(plain) => plain.take(object, messages),
        }
    }

    /// A connection ended, in either direction.
    pub(super) fn ended(&mut self, link: LinkId, now: Timestamp) {
        match self {
            Host::Node(ours) => {
                if let Some(connection) = ours.forget(link) {
                    ours.node.closed(connection, now);
                }
            }
            Host::Plain(plain) => plain.ended(link),
        }
    }

    pub(super) fn tick(&mut self, now: Timestamp) {
        if let Host::Node(ours) = self {
            ours.node.tick(now);
        }
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        match self {
            Host::Node(ours) => ours.node.deadline(),
            Host::Plain(_) => None,
        }
    }

    pub(super) fn next_effect(&mut self, messages: &mut Messages) -> Option<Effect> {
        match self {
            Host::Node(ours) => ours.next_effect(messages),
            Host::Plain(plain) => plain.effects.pop_front(),
        }
    }

    /// How many neighbours it has, if it routes.
    pub(super) fn neighbours(&self) -> usize {
        match self {
            Host::Node(ours) => ours.node.neighbours().count(),
            Host::Plain(_) => 0,
        }
    }
}

/// A real node, and its connections.
pub(super) struct Ours {
    node: Node,
    connections: FxHashMap<LinkId, ConnectionId>,
    links: FxHashMap<ConnectionId, LinkId>,
}

impl Ours {
    pub(super) fn new(host: HostId, limits: RoutingLimits, key: [u8; 16], now: Timestamp) -> Ours {
        let routing = Some(limits);
        let options = Options { routing, ..Options::new(address(host), address(host)) };
        let node = Node::new(options, key, now);
        Ours { node, connections: FxHashMap::default(), links: FxHashMap::default() }
    }

    fn keep(&mut self, link: LinkId, connection: Option<ConnectionId>) -> bool {
        if let Some(connection) = connection {
            self.connections.insert(link, connection);
            self.links.insert(connection, link);
        }
        connection.is_some()
    }

    fn forget(&mut self, link: LinkId) -> Option<ConnectionId> {
        let connection = self.connections.remove(&link)?;
        self.links.remove(&connection);
        Some(connection)
    }

    fn next_effect(&mut self, messages: &mut Messages) -> Option<Effect> {
        while let Some(action) = self.node.next_action() {
            match action {
                Action::Dial(to) => return Some(Effect::Dial(host_at(to))),
                Action::Send { connection, object } => {
                    if let Some(link) = self.links.get(&connection) {
                        return Some(Effect::Send(*link, object));
                    }
                }
                Action::Close { connection, .. } => {
                    if let Some(link) = self.links.remove(&connection) {
                        self.connections.remove(&link);
                        return Some(Effect::Close(link));
                    }
                }
                Action::Show(shown) => return Some(Effect::Show(messages.named(&shown.id))),
                Action::Greet | Action::Tell(_) => {}
            }
        }
        None
    }
}

/// A peer that knows nothing but flooding, as peers are deployed: no backlog, no
/// second try, and a crash on an object without a `Body`. Every other one passes
/// on the three keys alone that it knows.
pub(super) struct Plain {
    host: HostId,
    /// Whom its user named.
    contact: Option<HostId>,
    said: usize,
    seen: FxHashSet<MessageId>,
    known: FxHashSet<HostId>,
    /// Whom it is connected to.
    peers: Vec<(LinkId, HostId)>,
    effects: VecDeque<Effect>,
}

impl Plain {
    pub(super) fn new(host: HostId) -> Plain {
        Plain {
            host,
            contact: None,
            said: 0,
            seen: FxHashSet::default(),
            known: FxHashSet::from_iter([host]),
            peers: Vec::new(),
            effects: VecDeque::new(),
        }
    }

    fn dial(&mut self, to: HostId) {
        if self.known.insert(to) {
            self.effects.push_back(Effect::Dial(to));
        }
    }

    fn say(&mut self, body: &str, messages: &mut Messages) -> MessageId {
        self.said += 1;
        let addr = address(self.host).to_string();
        let id = format!("{addr} {}", self.said);
        let object = serde_json::json!({"ID": id, "Addr": addr, "Body": body}).to_string();
        let message = messages.read(&object.clone().into()).expect("it has a Body");
        self.seen.insert(message);
        self.broadcast(&object.into(), Some(self.host));
        message
    }

    fn take(&mut self, object: &Bytes, messages: &mut Messages) {
        let Some(message) = messages.read(object) else { return self.effects.push_back(Effect::Crash) };
        if !self.seen.insert(message) {
            return;
        }
        self.effects.push_back(Effect::Show(message));
        let origin = messages.origin(message);
        let strips = self.host.0 % 2 == 1;
        let object = if strips { messages.stripped(message) } else { object.clone() };
        self.broadcast(&object, origin);
        if let Some(origin) = origin {
            self.dial(origin);
        }
    }

    fn broadcast(&mut self, object: &Bytes, origin: Option<HostId>) {
        let others = self.peers.iter().filter(|(_, peer)| Some(*peer) != origin);
        self.effects.extend(others.map(|(link, _)| Effect::Send(*link, object.clone())));
    }

    fn ended(&mut self, link: LinkId) {
        if let Some(at) = self.peers.iter().position(|(peer, _)| *peer == link) {
            let (_, host) = self.peers.swap_remove(at);
            self.known.remove(&host);
        }
        if self.peers.is_empty() {
            self.start_again();
        }
    }

    /// Its user does, since it knows nobody.
    fn start_again(&mut self) {
        if let Some(contact) = self.contact {
            self.dial(contact);
        }
    }
}
