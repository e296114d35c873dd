//! Whole whispernets in memory: nodes and plain peers, connections that
//! deliver in pieces of any size and in any order among them, all from a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use watchtower_hub::Timestamp;

use super::*;

const START: Timestamp = Timestamp::from_millis(1_795_255_200_000);

/// Where the `number`th peer listens.
fn addr(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(number).unwrap() + 1], 55_555))
}

/// What a peer does, ours or another's. Connections have the network's numbers.
trait Peer {
    fn dialled(&mut self, to: SocketAddr, local: SocketAddr, link: usize, now: Timestamp) -> bool;
    fn accepted(&mut self, remote: SocketAddr, link: usize, now: Timestamp) -> bool;
    fn received(&mut self, link: usize, bytes: &[u8], now: Timestamp);
    fn closed(&mut self, link: usize, now: Timestamp);
    fn dial_failed(&mut self, to: SocketAddr, now: Timestamp);
    fn tick(&mut self, now: Timestamp);
    fn connect(&mut self, to: SocketAddr, now: Timestamp);
    fn say(&mut self, body: &str, now: Timestamp);
    fn next(&mut self) -> Option<Event>;
    /// The bodies of the messages of others, in the order in which they came.
    fn shown(&self) -> &[String];
}

enum Event {
    Dial(SocketAddr),
    Send(usize, Bytes),
    Close(usize),
}

/// A node of ours.
struct Ours {
    node: Node,
    links: BTreeMap<usize, ConnectionId>,
    shown: Vec<String>,
}

impl Ours {
    fn new(number: usize, is_signed: bool) -> Ours {
        let seed = [u8::try_from(number).unwrap(); 32];
        let identity = is_signed.then(|| Identity::from_seed(&seed));
        let options = Options { identity, ..Options::new("0.0.0.0:55555".parse().unwrap(), addr(number)) };
        let key = [u8::try_from(number).unwrap(); 16];
        Ours { node: Node::new(options, key, START), links: BTreeMap::new(), shown: Vec::new() }
    }

    fn keep(&mut self, link: usize, connection: Result<ConnectionId, CloseReason>) -> bool {
        connection.map(|connection| self.links.insert(link, connection)).is_ok()
    }

    fn link(&self, connection: ConnectionId) -> Option<usize> {
        self.links.iter().find(|(_, id)| **id == connection).map(|(link, _)| *link)
    }
}

impl Peer for Ours {
    fn dialled(&mut self, to: SocketAddr, local: SocketAddr, link: usize, now: Timestamp) -> bool {
        let connection = self.node.dialled(to, local, now);
        self.keep(link, connection)
    }

    fn accepted(&mut self, remote: SocketAddr, link: usize, now: Timestamp) -> bool {
        let local = self.node.address();
        let connection = self.node.accepted(remote, local, now);
        self.keep(link, connection)
    }

    fn received(&mut self, link: usize, bytes: &[u8], now: Timestamp) {
        if let Some(connection) = self.links.get(&link) {
            self.node.received(*connection, bytes, now);
        }
    }

    fn closed(&mut self, link: usize, now: Timestamp) {
        if let Some(connection) = self.links.remove(&link) {
            self.node.closed(connection, now);
        }
    }

    fn dial_failed(&mut self, to: SocketAddr, now: Timestamp) {
        self.node.dial_failed(to, now);
    }

    fn tick(&mut self, now: Timestamp) {
        if self.node.deadline().is_some_and(|deadline| deadline <= now) {
            self.node.tick(now);
        }
    }

    fn connect(&mut self, to: SocketAddr, now: Timestamp) {
        self.node.connect(to, Keep::Always, now);
    }

    fn say(&mut self, body: &str, now: Timestamp) {
        self.node.say(Said { nick: Some("ours"), body, file: None }, now).unwrap();
    }

    fn next(&mut self) -> Option<Event> {
        while let Some(action) = self.node.next_action() {
            match action {
                Action::Dial(to) => return Some(Event::Dial(to)),
                Action::Send { connection, object } => {
                    if let Some(link) = self.link(connection) {
                        return Some(Event::Send(link, object));
                    }
                }
                Action::Close { connection, .. } => {
                    if let Some(link) = self.link(connection) {
                        self.links.remove(&link);
                        return Some(Event::Close(link));
                    }
                }
                Action::Show(shown) => self.shown.push(shown.body),
                Action::Greet | Action::Tell(_) => {}
            }
        }
        None
    }

    fn shown(&self) -> &[String] {
        &self.shown
    }
}

/// A deployed peer as they are: `ID`, `Addr` and `Body`, the nick under another
/// key or none, seconds for a timestamp or none, nothing between objects, no
/// backlog, no retries, and a crash on an empty `Body`.
struct Plain {
    addr: SocketAddr,
    nick_key: Option<&'static str>,
    has_seconds: bool,
    said: usize,
    seen: BTreeSet<String>,
    shown: Vec<String>,
    partial: BTreeMap<usize, Vec<u8>>,
    known: BTreeSet<SocketAddr>,
    peers: BTreeMap<usize, SocketAddr>,
    events: VecDeque<Event>,
}

impl Plain {
    fn new(number: usize) -> Plain {
        Plain {
            addr: addr(number),
            nick_key: [None, Some("omitempty"), Some("Nick"), Some("nickname")][number % 4],
            has_seconds: number.is_multiple_of(2),
            said: 0,
            seen: BTreeSet::new(),
            shown: Vec::new(),
            partial: BTreeMap::new(),
            known: BTreeSet::from([addr(number)]),
            peers: BTreeMap::new(),
            events: VecDeque::new(),
        }
    }

    fn broadcast(&mut self, object: &Bytes, origin: &str) {
        for (link, _) in self.peers.iter().filter(|(_, peer)| peer.to_string() != origin) {
            self.events.push_back(Event::Send(*link, object.clone()));
        }
    }

    fn take(&mut self, object: &[u8]) {
        let value: Value = serde_json::from_slice(object).unwrap();
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let (id, origin, body) = (text("ID"), text("Addr"), text("Body"));
        assert!(!body.is_empty(), "a plain peer fails on an empty Body");
        if !self.seen.insert(id.clone()) {
            return;
        }
        self.shown.push(body.clone());
        // It knows three keys, and passes on no others.
        let object = json!({"ID": id, "Addr": origin, "Body": body}).to_string();
        self.broadcast(&object.into(), &origin);
        if let Ok(origin) = origin.parse() {
            self.dial(origin);
        }
    }

    fn dial(&mut self, to: SocketAddr) {
        if self.known.insert(to) {
            self.events.push_back(Event::Dial(to));
        }
    }
}

impl Peer for Plain {
    fn dialled(&mut self, to: SocketAddr, _: SocketAddr, link: usize, _: Timestamp) -> bool {
        self.peers.insert(link, to);
        true
    }

    fn accepted(&mut self, _: SocketAddr, link: usize, _: Timestamp) -> bool {
        self.partial.insert(link, Vec::new());
        true
    }

    fn received(&mut self, link: usize, bytes: &[u8], _: Timestamp) {
        let mut stream = self.partial.remove(&link).unwrap();
        stream.extend_from_slice(bytes);
        let mut values = serde_json::Deserializer::from_slice(&stream).into_iter::<Value>();
        let mut whole = Vec::new();
        let mut done = 0;
        while let Some(Ok(value)) = values.next() {
            whole.push(value.to_string());
            done = values.byte_offset();
        }
        self.partial.insert(link, stream[done..].to_vec());
        whole.iter().for_each(|object| self.take(object.as_bytes()));
    }

    fn closed(&mut self, link: usize, _: Timestamp) {
        self.partial.remove(&link);
        if let Some(peer) = self.peers.remove(&link) {
            self.known.remove(&peer);
        }
    }

    fn dial_failed(&mut self, to: SocketAddr, _: Timestamp) {
        self.known.remove(&to);
    }

    fn tick(&mut self, _: Timestamp) {}

    fn connect(&mut self, to: SocketAddr, _: Timestamp) {
        self.dial(to);
    }

    fn say(&mut self, body: &str, now: Timestamp) {
        self.said += 1;
        let id = format!("{}-{}", self.addr, self.said);
        self.seen.insert(id.clone());
        let mut object = json!({"ID": id, "Addr": self.addr.to_string(), "Body": body});
        if let Some(key) = self.nick_key {
            object[key] = "plain".into();
        }
        if self.has_seconds {
            object["Timestamp"] = (now.as_millis() / 1_000).into();
        }
        self.broadcast(&object.to_string().into(), &self.addr.to_string());
    }

    fn next(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn shown(&self) -> &[String] {
        &self.shown
    }
}

/// A one-way connection.
struct Link {
    from: usize,
    to: usize,
    is_open: bool,
    /// What is on its way.
    bytes: VecDeque<u8>,
    /// The ids that were sent on it.
    ids: BTreeSet<String>,
}

struct Network {
    peers: Vec<Box<dyn Peer>>,
    is_up: Vec<bool>,
    links: Vec<Link>,
    dials: Vec<(usize, SocketAddr)>,
    ports: u16,
    now: Timestamp,
    seed: u64,
}

impl Network {
    fn new(peers: Vec<Box<dyn Peer>>, seed: u64) -> Network {
        let is_up = vec![true; peers.len()];
        let seed = seed | 1;
        Network { peers, is_up, links: Vec::new(), dials: Vec::new(), ports: 10_000, now: START, seed }
    }

    /// A number below `below`.
    fn random(&mut self, below: usize) -> usize {
        // Xorshift.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 16) as usize % below
    }

    /// Takes what all peers want done.
    fn collect(&mut self) {
        for from in 0..self.peers.len() {
            while let Some(event) = self.peers[from].next() {
                match event {
                    Event::Dial(to) => self.dials.push((from, to)),
                    Event::Send(link, object) => self.send(from, link, &object),
                    Event::Close(link) => self.close(link),
                }
            }
        }
    }

    fn send(&mut self, from: usize, link: usize, object: &[u8]) {
        let link = &mut self.links[link];
        assert_eq!(link.from, from, "connections are one way");
        let message = Message::parse(object).unwrap().expect("nothing but messages is sent");
        assert_ne!(message.addr.as_deref(), Some(&*addr(link.to).to_string()), "nobody is sent what he said");
        assert!(link.ids.insert(message.id.into_owned()), "passed on twice");
        link.bytes.extend(object);
    }

    fn close(&mut self, link: usize) {
        self.links[link].is_open = false;
        let (from, to) = (self.links[link].from, self.links[link].to);
        self.peers[from].closed(link, self.now);
        self.peers[to].closed(link, self.now);
    }

    /// Carries out one dial.
    fn connect(&mut self, from: usize, to: SocketAddr) {
        let listening = (0..self.peers.len()).find(|number| self.is_up[*number] && addr(*number) == to);
        let Some(listening) = listening else { return self.peers[from].dial_failed(to, self.now) };
        self.ports += 1;
        let local = SocketAddr::new(addr(from).ip(), self.ports);
        let link = self.links.len();
        self.links.push(Link {
            from,
            to: listening,
            is_open: true,
            bytes: VecDeque::new(),
            ids: BTreeSet::new(),
        });
        let accepted = self.peers[listening].accepted(local, link, self.now);
        let dialled = self.peers[from].dialled(to, local, link, self.now);
        if !(accepted && dialled) {
            self.close(link);
        }
    }

    /// Does one thing that can be done; false when there is none.
    fn step(&mut self) -> bool {
        self.now = self.now.after(Duration::from_millis(self.random(20) as u64));
        for peer in &mut self.peers {
            peer.tick(self.now);
        }
        self.collect();
        let busy: Vec<usize> = (0..self.links.len())
            .filter(|link| self.links[*link].is_open && !self.links[*link].bytes.is_empty())
            .collect();
        let choices = self.dials.len() + busy.len();
        if choices == 0 {
            return false;
        }
        let choice = self.random(choices);
        if choice < self.dials.len() {
            let (from, to) = self.dials.swap_remove(choice);
            self.connect(from, to);
        } else {
            let link = busy[choice - self.dials.len()];
            let length = 1 + self.random(400);
            let waiting = &mut self.links[link].bytes;
            let piece: Vec<u8> = waiting.drain(..length.min(waiting.len())).collect();
            let to = self.links[link].to;
            self.peers[to].received(link, &piece, self.now);
        }
        true
    }

    /// Until nothing is on its way.
    fn settle(&mut self) {
        while self.step() {}
    }

    /// Says something, and returns it.
    fn say(&mut self, from: usize, number: usize) -> String {
        let body = format!("{number} from {from}");
        self.peers[from].say(&body, self.now);
        body
    }

    fn kill(&mut self, number: usize) {
        self.is_up[number] = false;
        for link in 0..self.links.len() {
            if self.links[link].is_open && [self.links[link].from, self.links[link].to].contains(&number) {
                self.close(link);
            }
        }
    }

    /// All that are up have shown each of these once, their own aside.
    fn check_shown(&self, said: &[(usize, String)]) {
        for (number, peer) in self.peers.iter().enumerate().filter(|(number, _)| self.is_up[*number]) {
            let mut shown: Vec<&String> = peer.shown().iter().collect();
            shown.sort();
            assert!(shown.windows(2).all(|two| two[0] != two[1]), "{number} shows something twice");
            for (from, body) in said.iter().filter(|(from, _)| *from != number) {
                assert!(
                    shown.binary_search(&body).is_ok(),
                    "{number} has not shown what {from} said: {body}"
                );
            }
        }
    }
}

/// A network of these peers, each dialling one before it, in which all have
/// spoken until all know one another.
fn acquainted(peers: Vec<Box<dyn Peer>>, seed: u64) -> Network {
    let mut network = Network::new(peers, seed);
    for number in 1..network.peers.len() {
        let earlier = network.random(number);
        network.peers[number].connect(addr(earlier), START);
    }
    for round in 0..3 {
        for number in 0..network.peers.len() {
            network.say(number, 900 + round);
        }
        network.settle();
    }
    network
}

fn peers(kinds: &[u8]) -> Vec<Box<dyn Peer>> {
    let peer = |(number, kind): (usize, &u8)| -> Box<dyn Peer> {
        match kind % 3 {
            0 => Box::new(Plain::new(number)),
            kind => Box::new(Ours::new(number, kind == 1)),
        }
    };
    kinds.iter().enumerate().map(peer).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// [whispernet: messages]
    #[test]
    fn every_message_reaches_all_and_is_passed_on_once(
        kinds in prop::collection::vec(any::<u8>(), 2..8),
        seed in any::<u64>(),
        speakers in prop::collection::vec(any::<prop::sample::Index>(), 1..12),
    ) {
        let mut network = acquainted(peers(&kinds), seed);
        let mut said = Vec::new();
        for (number, speaker) in speakers.iter().enumerate() {
            let from = speaker.index(kinds.len());
            said.push((from, network.say(from, number)));
            for _ in 0..network.random(8) {
                network.step();
            }
        }
        network.settle();
        network.check_shown(&said);
    }
}

#[test]
fn nodes_that_only_know_one_another_by_chance_all_connect() {
    let mut network = acquainted((0..12).map(|number| Box::new(Ours::new(number, false)) as _).collect(), 42);
    let said = vec![(3, network.say(3, 1))];
    network.settle();
    network.check_shown(&said);
    let open: BTreeSet<_> =
        network.links.iter().filter(|link| link.is_open).map(|link| (link.from, link.to)).collect();
    assert_eq!(open.len(), 12 * 11, "each dials each");
    assert_eq!(network.links.iter().filter(|link| link.is_open).count(), 12 * 11, "and once");
}

/// [whispernet: 11] With the backlog, who comes late or comes back has all.
#[test]
fn who_comes_back_is_sent_what_was_said_meanwhile() {
    let mut network = acquainted((0..5).map(|number| Box::new(Ours::new(number, true)) as _).collect(), 7);
    network.kill(2);
    network.settle();
    let said = vec![(0, network.say(0, 1)), (4, network.say(4, 2))];
    network.settle();

    network.is_up[2] = true;
    network.peers[2] = Box::new(Ours::new(2, true));
    network.peers[2].connect(addr(0), network.now);
    network.settle();
    network.say(2, 3);
    network.settle();
    network.now = network.now.after(Duration::from_secs(2));
    network.settle();
    network.check_shown(&said);
}

/// Something that may happen to a node, with small numbers to choose by.
#[derive(Debug, Clone)]
enum Happening {
    Accepted(usize),
    Dialled(usize),
    DialFailed(usize),
    Closed(usize),
    Received(usize, Vec<u8>),
    Connect(usize),
    Disconnect(usize),
    Say(String),
    Passes(u64),
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let number = || 0..6_usize;
    let piece = prop_oneof![
        (0..40_u8, number()).prop_map(|(id, from)| {
            json!({"ID": id.to_string(), "Addr": addr(from).to_string(), "Body": "b"})
                .to_string()
                .into_bytes()
        }),
        prop::collection::vec(prop::sample::select(b"{}[]\":, a1\\".as_slice()), 0..60),
        Just(b"{\"ID\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".to_vec()),
    ];
    prop_oneof![
        2 => number().prop_map(Happening::Accepted),
        3 => number().prop_map(Happening::Dialled),
        2 => number().prop_map(Happening::DialFailed),
        1 => (0..40_usize).prop_map(Happening::Closed),
        8 => (0..40_usize, piece).prop_map(|(connection, piece)| Happening::Received(connection, piece)),
        2 => number().prop_map(Happening::Connect),
        1 => number().prop_map(Happening::Disconnect),
        1 => "[a-c]{0,2}".prop_map(Happening::Say),
        2 => (0..100_000_u64).prop_map(Happening::Passes),
    ]
}

/// Limits that are soon reached.
fn tight() -> Options {
    Options {
        object_bytes_max: 100,
        incoming_max: 3,
        unfinished_bytes_max: 120,
        seen: SeenLimits { ids: 8, age: Duration::from_secs(60) },
        flood: FloodLimits { messages_per_second: 6, ..FloodLimits::default() },
        backlog: BacklogLimits { messages: 2, bytes: 150, file_bytes: 150 },
        peers: PeerLimits { connected: 3, candidates: 2, dials: 2, ..PeerLimits::default() },
        ..Options::new(addr(0), addr(0))
    }
}

proptest! {
    /// In whatever order: also what a driver should not do.
    #[test]
    fn whatever_happens_a_node_stays_within_its_limits(
        happenings in prop::collection::vec(any_happening(), 0..80),
    ) {
        let mut node = Node::new(tight(), [1; 16], START);
        let (mut now, mut incoming, mut outgoing) = (START, BTreeSet::new(), BTreeSet::new());
        let mut connections = Vec::new();
        for (port, happening) in (1_000_u16..).zip(happenings) {
            let far = |number: usize| SocketAddr::new(addr(number).ip(), port);
            let at = |connections: &[ConnectionId], index: usize| {
                connections.get(index % connections.len().max(1)).copied()
            };
            match happening {
                Happening::Accepted(number) => if let Ok(id) = node.accepted(far(number), addr(0), now) {
                    connections.push(id);
                    incoming.insert(id);
                },
                Happening::Dialled(number) => if let Ok(id) = node.dialled(addr(number), far(0), now) {
                    connections.push(id);
                    outgoing.insert(id);
                },
                Happening::DialFailed(number) => node.dial_failed(addr(number), now),
                Happening::Closed(index) => if let Some(id) = at(&connections, index) {
                    node.closed(id, now);
                    incoming.remove(&id);
                    outgoing.remove(&id);
                },
                Happening::Received(index, piece) => if let Some(id) = at(&connections, index) {
                    node.received(id, &piece, now);
                },
                Happening::Connect(number) => {
                    let is_other = node.connect(addr(number), Keep::WhileReachable, now);
                    prop_assert_eq!(is_other, number != 0);
                }
                Happening::Disconnect(number) => drop(node.disconnect(addr(number), now)),
                Happening::Say(body) => drop(node.say(Said { body: &body, ..Said::default() }, now)),
                Happening::Passes(millis) => {
                    now = now.after(Duration::from_millis(millis));
                    node.tick(now);
                }
            }
            while let Some(action) = node.next_action() {
                match action {
                    Action::Send { connection, .. } => prop_assert!(outgoing.contains(&connection)),
                    Action::Close { connection, .. } => {
                        prop_assert!(incoming.remove(&connection) || outgoing.remove(&connection));
                    }
                    Action::Dial(to) => prop_assert!(to != addr(0)),
                    Action::Show(_) | Action::Greet | Action::Tell(_) => {}
                }
            }
            let count = |wanted: fn(&PeerState) -> bool| node.peers().filter(|(_, state)| wanted(state)).count();
            let connected = count(|state| matches!(state, PeerState::Connected(_)));
            let dialling = count(|state| *state == PeerState::Dialling);
            prop_assert_eq!(connected, outgoing.len());
            prop_assert!(incoming.len() <= 3 && connected + dialling <= 3 && dialling <= 2);
            prop_assert!(node.unfinished_bytes() <= 120);
            prop_assert!(node.deadline().is_none_or(|deadline| deadline > now), "nothing is left undone");
        }
    }
}

/// Names of peers that are not there, and of services that are none.
#[test]
fn a_peer_that_lies_about_its_address_harms_nobody() {
    let mut network = acquainted(peers(&[1, 2, 1, 0]), 3);
    for (number, lie) in
        ["10.0.0.1:55555", "10.0.0.2:55555", "10.9.9.9:6379", "127.0.0.1:22", "x"].iter().enumerate()
    {
        let object = json!({"ID": format!("lie {number}"), "Addr": lie, "Body": format!("lie {number}")});
        let link = network.links.iter().position(|link| link.from == 3 && link.is_open).unwrap();
        network.links[link].bytes.extend(object.to_string().as_bytes());
        network.settle();
    }
    let said: Vec<_> = (0..4).map(|from| (from, network.say(from, 1))).collect();
    network.settle();
    network.check_shown(&said);
    let to_itself = network.links.iter().any(|link| link.from == link.to);
    assert!(!to_itself, "nobody dials itself");
}
