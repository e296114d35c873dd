//! A node with routing: what it says to whom, and what comes of peers that mean
//! harm. Whole networks of them are in `watchtower-sim`.

mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use watchtower_hub::Timestamp;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_795_255_200_000);

fn peer(number: u8) -> SocketAddr {
    ([10, 0, 1, number], 55_555).into()
}

fn me() -> SocketAddr {
    ([10, 0, 0, 1], 55_555).into()
}

fn options() -> Options {
    Options { routing: Some(RoutingLimits::default()), ..Options::new(me(), me()) }
}

/// A message of a peer.
fn message(id: &str, from: SocketAddr, routes: bool) -> String {
    let mut message = json!({"ID": id, "Addr": from.to_string(), "Body": "b"});
    if routes {
        message["Routes"] = true.into();
    }
    message.to_string()
}

/// A node, and the time.
struct Bench {
    node: Node,
    now: Timestamp,
    port: u16,
    /// The connections that the node opened, and what it sent on them.
    sent: BTreeMap<ConnectionId, (SocketAddr, Vec<String>)>,
    shown: usize,
    closed: Vec<(ConnectionId, CloseReason)>,
    dialled: Vec<SocketAddr>,
}

impl Bench {
    fn new(options: Options) -> Bench {
        let node = Node::new(options, [7; 16], NOW);
        let (sent, closed, dialled) = (BTreeMap::new(), Vec::new(), Vec::new());
        Bench { node, now: NOW, port: 10_000, sent, shown: 0, closed, dialled }
    }

    fn far(&mut self, ip: IpAddr) -> SocketAddr {
        self.port += 1;
        SocketAddr::new(ip, self.port)
    }

    /// Carries out what the node wants: every dial succeeds.
    fn settle(&mut self) {
        while let Some(action) = self.node.next_action() {
            match action {
                Action::Dial(to) => {
                    self.dialled.push(to);
                    let local = self.far(me().ip());
                    if let Ok(connection) = self.node.dialled(to, local, self.now) {
                        self.sent.insert(connection, (to, Vec::new()));
                    }
                }
                Action::Send { connection, object } => {
                    let object = String::from_utf8(object.to_vec()).unwrap();
                    self.sent.get_mut(&connection).expect("it is open").1.push(object);
                }
                Action::Close { connection, reason } => {
                    self.sent.remove(&connection);
                    self.closed.push((connection, reason));
                }
                Action::Show(_) => self.shown += 1,
                Action::Greet | Action::Tell(_) => {}
            }
        }
    }

    fn accept(&mut self, from: IpAddr) -> ConnectionId {
        let remote = self.far(from);
        let connection = self.node.accepted(remote, me(), self.now).unwrap();
        self.settle();
        connection
    }

    fn receive(&mut self, connection: ConnectionId, object: &str) {
        self.node.received(connection, object.as_bytes(), self.now);
        self.settle();
    }

    fn passes(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while let Some(deadline) = self.node.deadline().filter(|deadline| *deadline <= end) {
            assert!(deadline > self.now, "nothing is left undone");
            self.now = deadline;
            self.node.tick(self.now);
            self.settle();
        }
        self.now = end;
    }

    /// What a peer was sent since it was asked last.
    fn sent_to(&mut self, peer: SocketAddr) -> Vec<String> {
        let connections = self.sent.values_mut().filter(|(to, _)| *to == peer);
        connections.flat_map(|(_, objects)| std::mem::take(objects)).collect()
    }

    fn is_connected_to(&self, peer: SocketAddr) -> bool {
        self.sent.values().any(|(to, _)| *to == peer)
    }

    /// A peer that speaks for itself.
    fn hear(&mut self, number: u8, routes: bool) -> ConnectionId {
        let connection = self.accept(peer(number).ip());
        self.receive(connection, &message(&format!("hello {number}"), peer(number), routes));
        connection
    }

    /// The token in the first `Neighbor` that a peer was sent.
    fn token_for(&mut self, peer: SocketAddr) -> Option<String> {
        let sent = self.sent_to(peer);
        let objects = sent.iter().map(|object| serde_json::from_str::<Value>(object).unwrap());
        let mut tokens = objects.filter_map(|object| object["Neighbor"]["Token"].as_str().map(str::to_owned));
        tokens.next()
    }

    /// A neighbour of the node, which may send what neighbours send.
    fn befriend(&mut self, number: u8) -> ConnectionId {
        self.befriend_at(peer(number))
    }

    fn befriend_at(&mut self, peer: SocketAddr) -> ConnectionId {
        let connection = self.accept(peer.ip());
        let addr = peer.to_string();
        let neighbor = |echo: Option<String>| {
            let mut object = json!({"Neighbor": {"Addr": addr, "Token": "AAAAAAAAAAA"}});
            if let Some(echo) = echo {
                object["Neighbor"]["Echo"] = echo.into();
            }
            object.to_string()
        };
        self.receive(connection, &neighbor(None));
        let echo = self.token_for(peer);
        self.receive(connection, &neighbor(echo));
        assert!(self.node.neighbours().any(|neighbour| neighbour == peer));
        connection
    }

    fn say(&mut self, body: &str) -> String {
        let id = self.node.say(Said { body, ..Said::default() }, self.now).unwrap();
        self.settle();
        id
    }
}

fn is_control(object: &str) -> bool {
    Message::parse(object.as_bytes()).unwrap().is_none()
}

// Few peers.

/// [whispernet: 14] It shows that it understands with every message.
#[test]
fn what_a_node_says_shows_that_it_understands_routing() {
    let mut bench = Bench::new(options());
    bench.hear(1, false);
    bench.sent_to(peer(1));
    let id = bench.say("hi");
    let object = format!(
        r#"{{"ID":"{id}","Addr":"10.0.0.1:55555","Body":"hi","Timestamp":1795255200000,"Routes":true}}"#
    );
    assert_eq!(bench.sent_to(peer(1)), [object]);
}

/// To other peers it is a key that they do not know.
#[test]
fn a_sign_of_another_kind_is_none_and_no_fault() {
    for (value, routes) in [("true", true), ("false", false), ("null", false), ("1", false), ("{}", false)] {
        let object = format!(r#"{{"ID":"x","Body":"b","Routes":{value}}}"#);
        assert_eq!(Message::parse(object.as_bytes()).unwrap().unwrap().routes, routes, "{value}");
    }
}

#[test]
fn with_few_peers_a_node_floods_and_says_nothing_else() {
    let limits = RoutingLimits::default();
    let mut bench = Bench::new(options());
    let connections: Vec<ConnectionId> = (1..=12).map(|number| bench.hear(number, true)).collect();
    assert_eq!(limits.flooded, 12);
    for number in 1..=12 {
        bench.sent_to(peer(number));
    }
    bench.receive(connections[0], &message("m", peer(1), true));
    bench.passes(Duration::from_secs(600));
    assert_eq!(bench.sent_to(peer(1)), [""; 0]);
    for number in 2..=12 {
        assert_eq!(bench.sent_to(peer(number)), [message("m", peer(1), true)], "{number}");
    }
    assert_eq!(bench.node.neighbours().count(), 0);
    assert_eq!(bench.closed, []);
}

// Many peers.

#[test]
fn with_more_peers_it_asks_some_to_be_its_neighbours_and_leaves_the_others() {
    let mut bench = Bench::new(options());
    for number in 1..=13 {
        bench.hear(number, true);
    }
    let asked: Vec<u8> = (1..=13).filter(|number| bench.token_for(peer(*number)).is_some()).collect();
    assert!((5..=6).contains(&asked.len()), "{asked:?}");
    for number in &asked {
        bench.befriend(*number);
    }
    bench.passes(Duration::from_secs(9));
    assert!((1..=12).all(|number| bench.is_connected_to(peer(number))), "messages go on meanwhile");
    bench.passes(Duration::from_secs(11));
    let connected: Vec<u8> = (1..=13).filter(|number| bench.is_connected_to(peer(*number))).collect();
    assert_eq!(connected, asked);
}

/// Deployed peers fail on what has no `Body`.
#[test]
fn only_those_are_told_anything_that_showed_that_they_understand() {
    let mut bench = Bench::new(options());
    for number in 1..=20 {
        bench.hear(100 + number, false);
    }
    let from = bench.befriend(1);
    // Whoever passes messages of others on shows nothing by that.
    let relay = bench.accept(peer(101).ip());
    bench.receive(relay, &message("relayed", peer(1), true));
    bench.receive(relay, &message("relayed too", peer(2), true));
    // Nor does a neighbour's word count against what a peer sent itself.
    for plain in 101..=120 {
        let plain = peer(plain).to_string();
        bench.receive(from, &json!({"ForwardJoin": {"Peer": plain, "Hops": 0}}).to_string());
        bench.receive(from, &json!({"Disconnect": {"Addr": plain}}).to_string());
        let shuffle = json!({"Origin": plain, "Token": "AAAAAAAAAAA", "Hops": 0, "Peers": [plain]});
        bench.receive(from, &json!({"Shuffle": shuffle}).to_string());
        let neighbor = json!({"Addr": plain, "Token": "AAAAAAAAAAA", "Urgent": true});
        bench.receive(from, &json!({"Neighbor": neighbor}).to_string());
    }
    bench.say("hi");
    bench.passes(Duration::from_secs(600));
    for number in 101..=120 {
        let sent = bench.sent_to(peer(number));
        assert!(!sent.iter().any(|object| is_control(object)), "{number}: {sent:?}");
    }
    assert!(bench.sent_to(peer(2)).iter().any(|object| is_control(object)), "it showed it");
}

#[test]
fn who_was_heard_first_here_is_served_and_others_are_not() {
    let mut bench = Bench::new(options());
    let first = bench.hear(101, false);
    let routing = bench.befriend(1);
    bench.receive(routing, &message("elsewhere", peer(102), false));
    assert!(!bench.is_connected_to(peer(102)), "others serve it");
    let later = bench.accept(peer(102).ip());
    bench.receive(later, &message("later", peer(102), false));
    assert!(!bench.is_connected_to(peer(102)));

    bench.passes(Duration::from_secs(600));
    bench.sent_to(peer(101));
    bench.receive(routing, &message("m", peer(1), true));
    assert_eq!(bench.sent_to(peer(101)), [message("m", peer(1), true)], "byte for byte");
    bench.receive(first, &message("n", peer(101), false));
    assert_eq!(bench.sent_to(peer(1)).last(), Some(&message("n", peer(101), false)));
    bench.receive(routing, &message("forged", peer(101), true));
    bench.receive(routing, &message("o", peer(1), true));
    assert!(bench.sent_to(peer(101)).contains(&message("o", peer(1), true)), "whatever others say");
}

/// [whispernet: 5] Else all who hear it would.
#[test]
fn of_those_that_are_announced_some_are_dialled() {
    let mut bench = Bench::new(options());
    bench.befriend(1);
    for number in 101..=160 {
        bench.node.announced(&peer(number).to_string(), peer(number).ip(), NOW);
        bench.settle();
    }
    let dialled = (101..=160).filter(|number| bench.is_connected_to(peer(*number))).count();
    assert!((5..30).contains(&dialled), "{dialled} of 60");
}

#[test]
fn a_connection_that_brings_nothing_new_is_closed_unless_its_peer_may_be_heard_nowhere_else() {
    let mut bench = Bench::new(options());
    let served = bench.hear(101, false);
    let neighbours = [1, 2, 3].map(|number| bench.befriend(number));
    let [stranger, other] = [102, 103].map(|number| bench.accept(peer(number).ip()));
    bench.receive(neighbours[0], &message("m", peer(1), true));
    for connection in [served, stranger, neighbours[1]] {
        bench.receive(connection, &message("m", peer(1), true));
    }
    assert_eq!(bench.closed, [(stranger, CloseReason::Repeating)]);
    assert!(bench.sent_to(peer(2)).contains(&r#"{"Prune":{}}"#.to_owned()), "a neighbour is told");

    // What a served peer brings need not come from another one.
    bench.receive(other, &message("n", peer(1), true));
    bench.receive(served, &message("n", peer(1), true));
    assert_eq!(bench.closed.last(), Some(&(other, CloseReason::Repeating)));
    assert_eq!(bench.node.counts().repeating, 2);

    let mut alone = Bench::new(options());
    let neighbours = [1, 2, 3].map(|number| alone.befriend(number));
    let stranger = alone.accept(peer(102).ip());
    for number in 0..100 {
        let object = message(&number.to_string(), peer(1), true);
        alone.receive(neighbours[0], &object);
        alone.receive(stranger, &object);
    }
    assert_eq!(alone.closed, [], "the only one");
}

#[test]
fn a_full_node_makes_room_for_others_by_closing_what_brings_nothing_new() {
    let mut bench = Bench::new(Options { incoming_max: 4, ..options() });
    let neighbour = bench.befriend(1);
    let strangers = [101, 102, 103].map(|number| bench.accept(peer(number).ip()));
    bench.receive(neighbour, &message("m", peer(1), true));
    bench.receive(strangers[1], &message("m", peer(1), true));
    let later = bench.accept(peer(104).ip());
    assert_eq!(bench.closed, [(strangers[1], CloseReason::Repeating)]);
    bench.receive(strangers[2], &message("n", peer(3), true));
    let last = bench.accept(peer(105).ip());
    assert_eq!(bench.closed.last(), Some(&(later, CloseReason::Repeating)), "it came last");
    bench.receive(last, &message("o", peer(3), true));
    bench.befriend(2);
    assert_eq!(bench.closed.last(), Some(&(strangers[0], CloseReason::Repeating)), "it is silent");
    let remote = bench.far(peer(106).ip());
    assert_eq!(bench.node.accepted(remote, me(), NOW), Err(CloseReason::TooMany(4)));
}

#[test]
fn a_peer_that_the_user_disconnected_is_no_neighbour_again() {
    let mut bench = Bench::new(options());
    let connection = bench.befriend(1);
    bench.node.disconnect(peer(1), NOW);
    bench.settle();
    assert_eq!(bench.node.neighbours().count(), 0);
    let neighbor = json!({"Addr": peer(1).to_string(), "Token": "AAAAAAAAAAA", "Urgent": true});
    bench.receive(connection, &json!({ "Neighbor": neighbor }).to_string());
    assert!(!bench.is_connected_to(peer(1)));
}

#[test]
fn a_peer_that_the_user_wants_stays_connected() {
    for keep in [Keep::Always, Keep::WhileReachable] {
        let mut bench = Bench::new(options());
        bench.node.connect(peer(1), keep, NOW);
        bench.settle();
        bench.hear(1, true);
        (2..=8).for_each(|number| {
            bench.befriend(number);
        });
        bench.passes(Duration::from_secs(600));
        assert!(bench.is_connected_to(peer(1)), "{keep:?}");
    }
}

#[test]
fn a_peer_that_understands_is_not_flooded_however_many_there_are() {
    let mut bench = Bench::new(options());
    bench.node.connect(peer(1), Keep::Always, NOW);
    bench.settle();
    bench.hear(1, true);
    let neighbours = [2, 3, 4, 5, 6].map(|number| bench.befriend(number));
    bench.passes(Duration::from_secs(60));
    for number in 0..6_000_u16 {
        let far = SocketAddr::from(([10, 2, (number >> 8) as u8, number as u8], 55_555));
        bench.receive(neighbours[0], &message(&format!("m{number}"), far, true));
        bench.passes(Duration::from_millis(10));
    }
    assert!(bench.is_connected_to(peer(1)));
    bench.sent_to(peer(1));
    bench.receive(neighbours[0], &message("m", peer(2), true));
    assert_eq!(bench.sent_to(peer(1)), [""; 0]);
}

// Peers that mean harm.

#[test]
fn what_is_no_control_is_ignored_or_ends_the_connection_as_ever() {
    let mut bench = Bench::new(options());
    let connection = bench.accept(peer(1).ip());
    let long = json!({"IHave": vec!["AAAAAAAAAAAA"; 100_000]}).to_string();
    for object in [
        "{}",
        r#"{"Neighbor":7}"#,
        r#"{"Neighbor":{"Addr":"localhost:1","Token":"AAAAAAAAAAA"}}"#,
        r#"{"Neighbor":{"Addr":"0.0.0.0:1","Token":"AAAAAAAAAAA"}}"#,
        r#"{"IHave":["AAAAAAAAAAAA"]}"#,
        r#"{"Graft":["AAAAAAAAAAAA"]}"#,
        r#"{"Prune":{}}"#,
        &long,
    ] {
        bench.receive(connection, object);
    }
    assert_eq!((bench.node.counts().control, bench.node.counts().without_body), (0, 8));
    assert_eq!(bench.closed, []);
    let deep = format!("{}1{}", r#"{"Prune":"#.repeat(40), "}".repeat(40));
    bench.receive(connection, &deep);
    assert!(matches!(bench.closed[..], [(_, CloseReason::Malformed(Malformed::TooDeep))]));
}

/// A stranger makes a node dial nothing by it that the stranger could not dial.
#[test]
fn addresses_nearer_than_whoever_names_them_are_not_dialled() {
    let mut bench = Bench::new(options());
    let connection = bench.befriend(1);
    bench.dialled.clear();
    for near in ["127.0.0.1:6379", "10.0.0.1:55555", "[::1]:22"] {
        bench.receive(connection, &json!({"ForwardJoin": {"Peer": near, "Hops": 0}}).to_string());
        let neighbor = json!({"Addr": near, "Token": "AAAAAAAAAAA", "Urgent": true});
        bench.receive(connection, &json!({ "Neighbor": neighbor }).to_string());
    }
    bench.passes(Duration::from_secs(600));
    assert_eq!(bench.dialled, []);
}

#[test]
fn who_borrows_a_neighbours_name_can_not_speak_for_it() {
    let mut bench = Bench::new(options());
    let neighbour = bench.befriend(1);
    let thief = bench.accept(peer(66).ip());
    let neighbor = json!({"Addr": peer(1).to_string(), "Token": "BBBBBBBBBBB", "Echo": "BBBBBBBBBBB"});
    bench.receive(thief, &json!({ "Neighbor": neighbor }).to_string());
    bench.receive(thief, r#"{"Prune":{}}"#);
    bench.receive(thief, &json!({"Disconnect": {"Addr": peer(1).to_string()}}).to_string());
    assert_eq!(bench.node.neighbours().collect::<Vec<_>>(), [peer(1)]);
    bench.sent_to(peer(1));
    let id = bench.say("hi");
    assert!(bench.sent_to(peer(1))[0].contains(&id), "pushed, not announced");
    bench.receive(neighbour, &json!({"Disconnect": {"Addr": peer(1).to_string()}}).to_string());
    assert_eq!(bench.node.neighbours().count(), 0);
}

/// Prunes, promises and grafts without end.
#[test]
fn a_neighbour_that_means_harm_keeps_no_message_from_others() {
    let mut bench = Bench::new(options());
    let [good, bad] = [1, 2].map(|number| bench.befriend(number));
    for number in 0..200 {
        let id = format!("m{number}");
        let short = String::from(routing::ShortId::of(&id));
        bench.receive(bad, r#"{"Prune":{}}"#);
        bench.receive(bad, &json!({"IHave": [short]}).to_string());
        for _ in 0..4 {
            bench.receive(bad, &json!({"Graft": [short, short]}).to_string());
        }
        bench.passes(Duration::from_millis(20));
        let object = message(&id, peer(3), true);
        bench.receive(good, &object);
        bench.sent_to(peer(1));
        for _ in 0..4 {
            bench.receive(bad, &json!({"Graft": [short, short]}).to_string());
        }
        bench.passes(Duration::from_millis(20));
        let copies = bench.sent_to(peer(2)).iter().filter(|sent| **sent == object).count();
        assert!(copies <= 1, "sent {copies} times");
    }
    assert_eq!(bench.shown, 200);
    let id = bench.say("hi");
    assert!(bench.sent_to(peer(1)).iter().any(|object| object.contains(&id)));
}

#[test]
fn a_neighbour_that_promises_and_does_not_deliver_is_let_go() {
    let mut bench = Bench::new(options());
    let bad = bench.befriend(1);
    bench.befriend(2);
    for number in 0..20 {
        let short = String::from(routing::ShortId::of(&format!("never {number}")));
        bench.receive(bad, &json!({"IHave": [short]}).to_string());
        bench.passes(Duration::from_secs(2));
    }
    assert_eq!(bench.node.neighbours().collect::<Vec<_>>(), [peer(2)]);
}

/// Something that may happen to a node with routing.
#[derive(Debug, Clone)]
enum Happening {
    Accepted(u8),
    Dialled(u8),
    DialFailed(u8),
    Closed(usize),
    Received(usize, String),
    Connect(u8),
    Disconnect(u8),
    Say,
    Passes(u64),
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let number = || 0..9_u8;
    let said = |number: u8| peer(number).to_string();
    let control = prop_oneof![
        3 => (number(), any::<bool>(), 0..2_usize).prop_map(move |(from, urgent, token)| {
            let token = ["AAAAAAAAAAA", "BBBBBBBBBBB"][token];
            json!({"Neighbor": {"Addr": said(from), "Token": token, "Urgent": urgent}})
        }),
        1 => number().prop_map(move |from| json!({"Disconnect": {"Addr": said(from)}})),
        1 => (number(), any::<u8>()).prop_map(move |(peer, hops)| {
            json!({"ForwardJoin": {"Peer": said(peer), "Hops": hops}})
        }),
        1 => (number(), any::<u8>()).prop_map(move |(origin, hops)| {
            let peers = [said(origin), said(3)];
            json!({"Shuffle": {"Origin": said(origin), "Token": "AAAAAAAAAAA", "Hops": hops, "Peers": peers}})
        }),
        1 => (0..20_u8).prop_map(|id| {
            json!({"IHave": [String::from(routing::ShortId::of(&id.to_string()))]})
        }),
        1 => (0..20_u8).prop_map(|id| {
            json!({"Graft": [String::from(routing::ShortId::of(&id.to_string()))]})
        }),
        1 => Just(json!({"Prune": {}})),
    ];
    let piece = prop_oneof![
        4 => control.prop_map(|object| object.to_string()),
        3 => (0..20_u8, number(), any::<bool>())
            .prop_map(|(id, from, routes)| message(&id.to_string(), peer(from), routes)),
    ];
    prop_oneof![
        2 => number().prop_map(Happening::Accepted),
        4 => number().prop_map(Happening::Dialled),
        1 => number().prop_map(Happening::DialFailed),
        1 => (0..40_usize).prop_map(Happening::Closed),
        12 => (0..40_usize, piece).prop_map(|(connection, piece)| Happening::Received(connection, piece)),
        1 => number().prop_map(Happening::Connect),
        1 => number().prop_map(Happening::Disconnect),
        1 => Just(Happening::Say),
        3 => (0..20_000_u64).prop_map(Happening::Passes),
    ]
}

proptest! {
    /// In whatever order: also what a driver should not do. A neighbour proves
    /// where it is by an echo of what the node sent it.
    #[test]
    fn whatever_happens_a_node_with_routing_stays_within_its_limits(
        happenings in prop::collection::vec(any_happening(), 0..120),
    ) {
        let routing = RoutingLimits { flooded: 2, neighbours: 3, neighbours_wanted: 2, ..RoutingLimits::default() };
        let mut node = Node::new(
            Options {
                incoming_max: 6,
                peers: PeerLimits { connected: 5, candidates: 3, dials: 2, ..PeerLimits::default() },
                routing: Some(routing),
                ..Options::new(me(), me())
            },
            [1; 16],
            NOW,
        );
        let (mut now, mut connections) = (NOW, Vec::new());
        let (mut incoming, mut outgoing) = (BTreeSet::new(), BTreeMap::new());
        let mut tokens: BTreeMap<SocketAddr, String> = BTreeMap::new();
        for (port, happening) in (1_000_u16..).zip(happenings) {
            let at = |connections: &[ConnectionId], index: usize| {
                connections.get(index % connections.len().max(1)).copied()
            };
            match happening {
                Happening::Accepted(number) => {
                    if let Ok(id) = node.accepted(SocketAddr::new(peer(number).ip(), port), me(), now) {
                        connections.push(id);
                        incoming.insert(id);
                    }
                }
                Happening::Dialled(number) => {
                    if let Ok(id) = node.dialled(peer(number), SocketAddr::new(me().ip(), port), now) {
                        connections.push(id);
                        outgoing.insert(id, peer(number));
                    }
                }
                Happening::DialFailed(number) => node.dial_failed(peer(number), now),
                Happening::Closed(index) => if let Some(id) = at(&connections, index) {
                    node.closed(id, now);
                    incoming.remove(&id);
                    outgoing.remove(&id);
                },
                Happening::Received(index, mut piece) => if let Some(id) = at(&connections, index) {
                    let mut object: Value = serde_json::from_str(&piece).unwrap();
                    if let Some(addr) = object["Neighbor"]["Addr"].as_str()
                        && let Some(token) = tokens.get(&addr.parse().unwrap())
                    {
                        object["Neighbor"]["Echo"] = token.as_str().into();
                        piece = object.to_string();
                    }
                    node.received(id, piece.as_bytes(), now);
                },
                Happening::Connect(number) => {
                    node.connect(peer(number), Keep::Always, now);
                }
                Happening::Disconnect(number) => drop(node.disconnect(peer(number), now)),
                Happening::Say => drop(node.say(Said { body: "x", ..Said::default() }, now)),
                Happening::Passes(millis) => {
                    now = now.after(Duration::from_millis(millis));
                    node.tick(now);
                }
            }
            while let Some(action) = node.next_action() {
                match action {
                    Action::Send { connection, object } => {
                        let to = outgoing.get(&connection);
                        prop_assert!(to.is_some());
                        let object: Value = serde_json::from_slice(&object).unwrap();
                        if let (Some(to), Some(token)) = (to, object["Neighbor"]["Token"].as_str()) {
                            tokens.insert(*to, token.to_owned());
                        }
                    }
                    Action::Close { connection, .. } => {
                        prop_assert!(incoming.remove(&connection) || outgoing.remove(&connection).is_some());
                    }
                    Action::Dial(to) => prop_assert!(to != me()),
                    Action::Show(_) | Action::Greet | Action::Tell(_) => {}
                }
            }
            let connected = node.peers().filter(|(_, state)| matches!(state, PeerState::Connected(_))).count();
            prop_assert_eq!(connected, outgoing.len());
            prop_assert!(incoming.len() <= 6 && node.neighbours().count() <= 3);
            prop_assert!(node.neighbours().all(|neighbour| outgoing.values().any(|to| *to == neighbour)));
            prop_assert!(node.deadline().is_none_or(|deadline| deadline > now), "nothing is left undone");
        }
    }
}
