//! The rules of a node, each by itself.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use watchtower_hub::Timestamp;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_795_255_200_000);
const OWN: &str = "10.0.0.1:55555";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The address that the `number`th peer listens on.
fn peer(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, number], 55_555))
}

fn options() -> Options {
    Options::new(addr("0.0.0.0:55555"), addr(OWN))
}

/// A node, and the time.
struct Bench {
    node: Node,
    now: Timestamp,
    ports: u16,
}

impl Bench {
    fn new(options: Options) -> Bench {
        Bench { node: Node::new(options, [7; 16], NOW), now: NOW, ports: 40_000 }
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.node.next_action()).collect()
    }

    fn port(&mut self) -> u16 {
        self.ports += 1;
        self.ports
    }

    fn local(&mut self) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], self.port()))
    }

    /// A connection that a peer opened.
    fn accept(&mut self, from: SocketAddr) -> ConnectionId {
        let remote = SocketAddr::new(from.ip(), self.port());
        self.node.accepted(remote, addr(OWN), self.now).unwrap()
    }

    /// A connection to a peer, and nothing left to do.
    fn dial(&mut self, to: SocketAddr) -> ConnectionId {
        self.node.connect(to, Keep::WhileReachable, self.now);
        assert_eq!(self.actions(), [Action::Dial(to)]);
        let connection = self.succeed(to);
        assert_eq!(self.actions().first(), Some(&Action::Tell(Notice::Connected(to))));
        connection
    }

    fn succeed(&mut self, to: SocketAddr) -> ConnectionId {
        let local = self.local();
        self.node.dialled(to, local, self.now).unwrap()
    }

    fn receive(&mut self, connection: ConnectionId, bytes: impl AsRef<[u8]>) -> Vec<Action> {
        self.node.received(connection, bytes.as_ref(), self.now);
        self.actions()
    }

    /// Moves on to the next deadline: how long that took, and what was done.
    fn wait(&mut self) -> (Duration, Vec<Action>) {
        let deadline = self.node.deadline().expect("something is due");
        let waited = deadline.since(self.now);
        self.now = deadline;
        self.node.tick(self.now);
        (waited, self.actions())
    }

    fn states(&self) -> Vec<(SocketAddr, PeerState)> {
        self.node.peers().collect()
    }
}

/// A message as a plain peer sends it.
fn plain(id: &str, from: SocketAddr, body: &str) -> String {
    format!(r#"{{"ID":"{id}","Addr":"{from}","Body":"{body}"}}"#)
}

fn send(connection: ConnectionId, object: impl Into<Bytes>) -> Action {
    Action::Send { connection, object: object.into() }
}

fn shown(actions: &[Action]) -> Vec<&Shown> {
    fn show(action: &Action) -> Option<&Shown> {
        if let Action::Show(shown) = action { Some(shown) } else { None }
    }
    actions.iter().filter_map(show).collect()
}

fn sent(actions: &[Action]) -> Vec<&[u8]> {
    fn send(action: &Action) -> Option<&[u8]> {
        if let Action::Send { object, .. } = action { Some(object) } else { None }
    }
    actions.iter().filter_map(send).collect()
}

fn dials(actions: &[Action]) -> Vec<SocketAddr> {
    let dial = |action: &Action| if let Action::Dial(addr) = action { Some(*addr) } else { None };
    actions.iter().filter_map(dial).collect()
}

// What a node says.

/// [whispernet: messages] [whispernet: 4]
#[test]
fn what_is_said_goes_to_all_peers_under_a_hashed_id() {
    let mut bench = Bench::new(options());
    let (one, two) = (bench.dial(peer(1)), bench.dial(peer(2)));
    let said = Said { nick: Some("goldy"), body: "Hello \"world\"!\n", file: None };
    let id = bench.node.say(said, NOW).unwrap();
    assert_eq!(id, hashed_id(OWN, "Hello \"world\"!\n", 1_795_255_200_000));
    let object = format!(
        r#"{{"ID":"{id}","Addr":"10.0.0.1:55555","Body":"Hello \"world\"!\n","Nick":"goldy","Timestamp":1795255200000}}"#
    );
    assert_eq!(bench.actions(), [send(one, object.clone()), send(two, object)]);
}

#[test]
fn what_is_said_without_a_nick_has_none() {
    let mut bench = Bench::new(options());
    let one = bench.dial(peer(1));
    for nick in [None, Some("")] {
        let id = bench.node.say(Said { nick, body: "hi", file: None }, NOW).unwrap();
        let timestamp = if nick.is_none() { 1_795_255_200_000_u64 } else { 1_795_255_200_001 };
        let object = format!(r#"{{"ID":"{id}","Addr":"{OWN}","Body":"hi","Timestamp":{timestamp}}}"#);
        assert_eq!(bench.actions(), [send(one, object)]);
    }
}

/// [whispernet: 10] [whispernet: 13]
#[test]
fn a_file_goes_with_its_type_and_a_signature_over_it() {
    let seed = [9; 32];
    let mut bench = Bench::new(Options { identity: Some(Identity::from_seed(&seed)), ..options() });
    let one = bench.dial(peer(1));
    let said = Said { nick: None, body: "cat.gif", file: Some(("image/gif", b"GIF8")) };
    let id = bench.node.say(said, NOW).unwrap();
    let identity = Identity::from_seed(&seed);
    let (key, sig) = (identity.public_key(), identity.sign(&id, Some(b"GIF8")));
    let object = format!(
        concat!(
            r#"{{"ID":"{}","Addr":"{}","Body":"cat.gif","Timestamp":1795255200000,"#,
            r#""FileType":"image/gif","FileContents":"R0lGOA==","PubKey":"{}","Sig":"{}"}}"#
        ),
        id, OWN, key, sig
    );
    assert_eq!(bench.actions(), [send(one, object)]);
}

/// [whispernet: messages] Deployed peers fail on an empty one.
#[test]
fn nothing_empty_or_too_large_is_said() {
    let mut bench = Bench::new(Options { object_bytes_max: 300, ..options() });
    bench.dial(peer(1));
    assert_eq!(bench.node.say(Said::default(), NOW), Err(Unsaid::Empty));
    let body = "x".repeat(300);
    let refused = bench.node.say(Said { body: &body, ..Said::default() }, NOW);
    assert!(matches!(refused, Err(Unsaid::TooLarge { bytes: 301.., bytes_max: 300 })), "{refused:?}");
    assert_eq!(bench.actions(), []);
    assert_eq!(bench.node.counts().originated, 0);
}

/// [whispernet: 4] The timestamp is advanced when two would collide.
#[test]
fn the_same_words_at_the_same_time_have_different_ids() {
    let mut bench = Bench::new(options());
    let mut say = |body, now| bench.node.say(Said { body, ..Said::default() }, now).unwrap();
    let id = |body, after: i64| hashed_id(OWN, body, 1_795_255_200_000 + after);
    assert_eq!(say("hi", NOW), id("hi", 0));
    assert_eq!(say("hi", NOW), id("hi", 1));
    assert_eq!(say("ho", NOW), id("ho", 0), "other words are not moved");
    assert_eq!(say("hi", NOW), id("hi", 2));
    let later = NOW.after(Duration::from_millis(2));
    assert_eq!(say("hi", later), id("hi", 3));
    assert_eq!(say("ho", later), id("ho", 2));
}

#[test]
fn ten_thousand_equal_words_at_once_take_no_long_search() {
    let mut bench = Bench::new(options());
    for after in 0..10_000 {
        let id = bench.node.say(Said { body: "ok", ..Said::default() }, NOW).unwrap();
        assert_eq!(id, hashed_id(OWN, "ok", 1_795_255_200_000 + after));
    }
}

// What a node shows and passes on.

/// [whispernet: messages] To all except the one at `Addr`, byte for byte; also
/// to whoever passed it on.
#[test]
fn a_message_is_shown_and_passed_on_to_all_but_its_sender() {
    let mut bench = Bench::new(options());
    let (_one, two, three) = (bench.dial(peer(1)), bench.dial(peer(2)), bench.dial(peer(3)));
    let incoming = bench.accept(peer(2));
    let object =
        format!("{{ \"x\": [1.0, null],\n\"Body\":\"h\\u0069\", \"Addr\":\"{}\",\"ID\":\"1\"}}", peer(1));
    let actions = bench.receive(incoming, format!(" {object}\n"));
    let show = Shown {
        id: "1".into(),
        addr: Some(peer(1).to_string()),
        nick: None,
        body: "hi".into(),
        time: NOW,
        file: None,
        part: None,
        key: None,
        mark: Mark::Unverified,
    };
    assert_eq!(actions, [send(two, object.clone()), send(three, object), Action::Show(Box::new(show))]);
}

#[test]
fn what_is_passed_on_is_the_same_memory_for_all() {
    let mut bench = Bench::new(options());
    bench.dial(peer(1));
    bench.dial(peer(2));
    let incoming = bench.accept(peer(3));
    let actions = bench.receive(incoming, plain("1", peer(1), "hi").replace("10.0.1.1", "10.0.9.9"));
    let pointers: Vec<_> = sent(&actions).iter().map(|object| object.as_ptr()).collect();
    assert!(pointers.len() == 2 && pointers[0] == pointers[1]);
}

/// [whispernet: messages]
#[test]
fn no_id_is_shown_or_passed_on_twice() {
    let mut bench = Bench::new(options());
    bench.dial(peer(1));
    let (two, three) = (bench.accept(peer(2)), bench.accept(peer(3)));
    assert_eq!(bench.receive(two, plain("1", OWN.parse().unwrap(), "hi")).len(), 2);
    for again in [two, three] {
        assert_eq!(bench.receive(again, plain("1", peer(2), "something else")), []);
    }
    assert_eq!(bench.node.counts().repeated, 2);
    assert_eq!(bench.node.counts().shown, 1);
}

#[test]
fn a_nodes_own_message_that_comes_back_is_nothing_new() {
    let mut bench = Bench::new(options());
    bench.dial(peer(1));
    let incoming = bench.accept(peer(1));
    bench.node.say(Said { body: "hi", ..Said::default() }, NOW).unwrap();
    let actions = bench.actions();
    assert_eq!(bench.receive(incoming, sent(&actions)[0]), []);
}

#[test]
fn time_nick_and_file_of_a_message_are_shown() {
    let mut bench = Bench::new(options());
    let incoming = bench.accept(peer(1));
    let object = concat!(
        r#"{"ID":"1","Body":"a/cat.gif","omitempty":"phil","Timestamp":1382050782,"#,
        r#""FileType":"image/gif","FileContents":"R0lGOA=="}"#
    );
    let actions = bench.receive(incoming, object);
    let shown = shown(&actions)[0];
    assert_eq!(shown.nick.as_deref(), Some("phil"));
    assert_eq!(shown.time.as_millis(), 1_382_050_782_000);
    let file = shown.file.as_ref().unwrap();
    assert_eq!((&*file.name, &*file.mime_type, &*file.contents), ("cat.gif", "image/gif", &b"GIF8"[..]));

    let actions = bench.receive(incoming, r#"{"ID":"2","Body":"b","FileContents":"no base64"}"#);
    assert_eq!(self::shown(&actions)[0].file, None, "is text");
}

/// [whispernet: messages]
#[test]
fn objects_without_a_body_are_ignored() {
    let mut bench = Bench::new(options());
    bench.dial(peer(1));
    let incoming = bench.accept(peer(2));
    let objects = format!(r#"{{}}{{"ID":"1","Addr":"{0}"}}{{"ID":"1","Addr":"{0}","Body":""}}"#, peer(9));
    assert_eq!(bench.receive(incoming, objects), []);
    assert_eq!(bench.node.counts().without_body, 3);
    assert_eq!(shown(&bench.receive(incoming, plain("1", peer(2), "hi"))).len(), 1);
}

/// [whispernet: messages]
#[test]
fn a_peer_that_sends_what_is_malformed_is_disconnected() {
    let deep = format!("{{\"a\":{}", "[".repeat(32));
    let large = format!("{{\"ID\":\"{}", "x".repeat(2_000));
    for (malformed, reason) in [
        ("[]", Malformed::NotAnObject { byte: b'[' }),
        ("{\"a\":}", Malformed::NotJson),
        ("{\"Body\":\"hi\"}", Malformed::NoId),
        ("{\"Addr\":1}", Malformed::WrongType { key: "Addr", expected: "a string" }),
        (
            "{\"Timestamp\":1.5}",
            Malformed::WrongType { key: "Timestamp", expected: "a whole number of 64 bits" },
        ),
        (&deep, Malformed::TooDeep),
        (&large, Malformed::TooLarge { bytes_max: 1_000 }),
    ] {
        for chunk in [1, usize::MAX] {
            let mut bench = Bench::new(Options { object_bytes_max: 1_000, ..options() });
            let connection = bench.accept(peer(1));
            let stream = [&plain("1", peer(2), "a"), malformed, &plain("2", peer(2), "b")].concat();
            let mut actions = Vec::new();
            for piece in stream.as_bytes().chunks(chunk.min(stream.len())) {
                actions.extend(bench.receive(connection, piece));
            }
            assert_eq!(shown(&actions).len(), 1, "what came before is shown");
            let close = Action::Close { connection, reason: reason.into() };
            assert!(actions.contains(&close), "{malformed}: {actions:?}");
            assert_eq!(bench.node.counts().malformed, 1);
            assert_eq!(bench.node.unfinished_bytes(), 0);
        }
    }
}

#[test]
fn what_comes_back_on_a_dialled_connection_is_not_looked_at() {
    let mut bench = Bench::new(options());
    let outgoing = bench.dial(peer(1));
    for bytes in [plain("1", peer(2), "hi").as_str(), "HTTP/1.1 400 Bad Request\r\n"] {
        assert_eq!(bench.receive(outgoing, bytes), []);
    }
}

// Hashes and signatures.

/// [whispernet: 4]
#[test]
fn a_wrong_hash_drops_its_message_and_does_not_keep_the_right_one_away() {
    let mut bench = Bench::new(options());
    bench.dial(peer(1));
    let incoming = bench.accept(peer(2));
    let id = hashed_id("10.0.1.2:55555", "hi", 5);
    let right = plain(&id, peer(2), "hi").replace('}', ",\"Timestamp\":5}");
    assert_eq!(bench.receive(incoming, right.replace("\"hi\"", "\"ho\"").replace("1.2:", "1.3:")), []);
    assert_eq!(bench.node.counts().mismatched, 1);
    let actions = bench.receive(incoming, &right);
    assert_eq!((shown(&actions).len(), sent(&actions).len()), (1, 1));
}

/// A message of a node with that key, as its peers get it.
fn signed(seed: u8, nick: &str, body: &str) -> String {
    let announced = peer(seed);
    let identity = Some(Identity::from_seed(&[seed; 32]));
    let mut bench = Bench::new(Options { identity, ..Options::new(announced, announced) });
    bench.node.connect(addr(OWN), Keep::Always, NOW);
    bench.succeed(addr(OWN));
    bench.node.say(Said { nick: Some(nick), body, file: None }, NOW).unwrap();
    let actions = bench.actions();
    String::from_utf8(sent(&actions)[0].to_vec()).unwrap()
}

fn key(seed: u8) -> PublicKey {
    Identity::from_seed(&[seed; 32]).public_key()
}

/// Its mark, or `None` when it was dropped.
fn mark(bench: &mut Bench, object: &str) -> Option<Mark> {
    let incoming = bench.accept(peer(200));
    let actions = bench.receive(incoming, object);
    shown(&actions).first().map(|shown| shown.mark)
}

/// [whispernet: 13]
#[test]
fn a_nick_is_its_first_keys() {
    let mut bench = Bench::new(options());
    let incoming = bench.accept(peer(1));
    let actions = bench.receive(incoming, signed(1, "goldy", "a"));
    assert_eq!(shown(&actions)[0].mark, Mark::Verified);
    let pinned = Action::Tell(Notice::Pinned { nick: "goldy".into(), key: key(1) });
    assert!(actions.contains(&pinned), "{actions:?}");

    assert_eq!(mark(&mut bench, &signed(1, "goldy", "b")), Some(Mark::Verified));
    assert_eq!(mark(&mut bench, &signed(2, "goldy", "c")), Some(Mark::ChangedKey));
    assert_eq!(mark(&mut bench, &signed(2, " goldy\u{200b}", "d")), Some(Mark::ChangedKey));
    assert_eq!(mark(&mut bench, &signed(1, "phil", "e")), Some(Mark::Verified), "one key has two nicks");
    let unsigned = r#"{"ID":"x","Body":"f","Nick":"goldy"}"#;
    assert_eq!(mark(&mut bench, unsigned), Some(Mark::Unverified));
    assert_eq!(mark(&mut bench, &signed(3, "\u{200b}", "g")), Some(Mark::Unverified), "no nick is pinned");

    assert!(bench.node.pin("goldy", key(2)), "the user trusts the other key");
    assert_eq!(mark(&mut bench, &signed(2, "goldy", "h")), Some(Mark::Verified));
    assert_eq!(mark(&mut bench, &signed(1, "goldy", "i")), Some(Mark::ChangedKey));
}

#[test]
fn pins_are_handed_in() {
    let mut bench = Bench::new(Options { pins_max: 1, ..options() });
    assert!(bench.node.pin("goldy", key(1)));
    assert!(!bench.node.pin("phil", key(1)), "there is no room");
    assert_eq!(mark(&mut bench, &signed(2, "goldy", "a")), Some(Mark::ChangedKey));
    assert_eq!(mark(&mut bench, &signed(2, "phil", "b")), Some(Mark::Unverified));
}

#[test]
fn a_forged_message_is_dropped_and_does_not_keep_the_right_one_away() {
    let mut bench = Bench::new(options());
    let right = signed(1, "goldy", "a");
    let forged = right.replace(&key(1).to_string(), &key(2).to_string());
    assert_eq!(mark(&mut bench, &forged), None);
    let other_file = right.replace("\"PubKey\"", "\"FileContents\":\"R0lG\",\"PubKey\"");
    assert_eq!(mark(&mut bench, &other_file), None);
    assert_eq!(bench.node.counts().forged, 2);
    assert_eq!(mark(&mut bench, &right), Some(Mark::Verified));
}

/// Without a hash that was checked a signature covers an id, and no words:
/// whoever takes the `Timestamp` away may change the `Body`.
#[test]
fn a_signature_that_covers_no_words_proves_nothing() {
    for options in [options(), Options { require_signed: true, ..options() }] {
        let require_signed = options.require_signed;
        let mut bench = Bench::new(options);
        let object = signed(1, "goldy", "a").replace(r#""Body":"a""#, r#""Body":"b""#);
        let object = object.replace(r#","Timestamp":1795255200000"#, "");
        assert!(!object.contains("Timestamp"));
        let expected = if require_signed { None } else { Some(Mark::Unverified) };
        assert_eq!(mark(&mut bench, &object), expected);
    }
}

#[test]
fn a_file_that_is_no_base64_is_covered_by_no_signature() {
    let mut bench = Bench::new(options());
    let object = signed(1, "goldy", "a").replace("\"PubKey\"", "\"FileContents\":\"!\",\"PubKey\"");
    assert_eq!(mark(&mut bench, &object), Some(Mark::Unverified));
}

/// [whispernet: 13]
#[test]
fn unsigned_messages_are_dropped_where_signed_ones_are_required() {
    let mut bench = Bench::new(Options { require_signed: true, ..options() });
    bench.dial(peer(9));
    let incoming = bench.accept(peer(1));
    assert_eq!(bench.receive(incoming, plain("1", peer(1), "hi")), []);
    assert_eq!(bench.node.counts().unsigned, 1);
    let stripped = signed(1, "goldy", "a").replace("\"Sig\"", "\"sig\"");
    assert_eq!(bench.receive(incoming, stripped), []);
    let actions = bench.receive(incoming, signed(1, "goldy", "a"));
    assert_eq!((shown(&actions).len(), sent(&actions).len()), (1, 1));
    assert_eq!(mark(&mut bench, &signed(2, "goldy", "a")), Some(Mark::ChangedKey), "is signed");
}

// Peers.

/// [whispernet: messages]
#[test]
fn a_peer_that_a_message_names_is_dialled_once() {
    let mut bench = Bench::new(options());
    let incoming = bench.accept(peer(1));
    assert_eq!(dials(&bench.receive(incoming, plain("1", peer(2), "hi"))), [peer(2)]);
    assert_eq!(dials(&bench.receive(incoming, plain("2", peer(2), "hi"))), []);
    let connection = bench.succeed(peer(2));
    assert_eq!(bench.states(), [(peer(2), PeerState::Connected(connection))]);
    let mapped = plain("3", peer(2), "hi").replace("10.0.1.2:", "[::ffff:10.0.1.2]:");
    bench.actions();
    assert!(matches!(bench.receive(incoming, mapped)[..], [Action::Show(_)]), "it is the same peer");
    assert_eq!(bench.states().len(), 1);
}

/// [whispernet: messages] Whatever stands there, the message is shown.
#[test]
fn what_is_no_address_is_not_dialled() {
    let mut bench = Bench::new(options());
    let incoming = bench.accept(peer(1));
    for (number, wrong) in ["", "x", "localhost:6379", "10.0.0.9", "0.0.0.0:80", "10.0.0.9:0", "224.0.0.1:9"]
        .into_iter()
        .enumerate()
    {
        let object = plain(&number.to_string(), peer(1), "hi").replace(&peer(1).to_string(), wrong);
        let actions = bench.receive(incoming, object);
        assert!(matches!(actions[..], [Action::Show(_)]), "{wrong}: {actions:?}");
    }
}

/// The system gives one port to connections that lead to different ports.
#[test]
fn another_peer_of_the_machine_may_dial_from_the_same_port() {
    let (own, other) = (addr("127.0.0.1:55555"), addr("127.0.0.1:55556"));
    let from = addr("127.0.0.1:40000");
    for is_dialled_first in [true, false] {
        let mut bench = Bench::new(Options::new(own, own));
        bench.node.connect(other, Keep::WhileReachable, NOW);
        if is_dialled_first {
            assert!(bench.node.dialled(other, from, NOW).is_ok());
            assert!(bench.node.accepted(from, own, NOW).is_ok());
        } else {
            assert!(bench.node.accepted(from, own, NOW).is_ok());
            assert!(bench.node.dialled(other, from, NOW).is_ok());
        }
    }
}

/// [whispernet: messages] Never to itself.
#[test]
fn a_node_does_not_dial_itself() {
    let mut bench = Bench::new(options());
    let incoming = bench.accept(addr("127.0.0.1:1"));
    // It learns this one from a connection that came in there.
    let remote = addr("192.168.7.9:50000");
    bench.node.accepted(remote, addr("[::ffff:192.168.7.1]:55555"), NOW).unwrap();
    let own = [
        OWN,
        "127.0.0.1:55555",
        "127.1.2.3:55555",
        "[::1]:55555",
        "192.168.7.1:55555",
        "[::ffff:10.0.0.1]:55555",
    ];
    for (number, own) in own.into_iter().enumerate() {
        let object = plain(&number.to_string(), peer(1), "hi").replace(&peer(1).to_string(), own);
        assert_eq!(dials(&bench.receive(incoming, object)), [], "{own}");
        assert!(!bench.node.connect(addr(own), Keep::Always, NOW));
        bench.node.announced(own, addr("127.0.0.1:1").ip(), NOW);
        assert_eq!(bench.actions(), [], "{own}");
    }
    assert_eq!(bench.states(), []);
}

/// A name of its own that it does not know, as behind a router, is found out
/// by the connection that comes in from itself.
#[test]
fn a_node_that_reached_itself_does_so_once() {
    for accepts_first in [true, false] {
        let mut bench = Bench::new(options());
        let outside = addr("203.0.113.7:55555");
        bench.node.connect(outside, Keep::Always, NOW);
        assert_eq!(bench.actions(), [Action::Dial(outside)]);
        let (local, own) = (addr("10.0.0.1:40000"), addr(OWN));
        if accepts_first {
            let connection = bench.node.accepted(local, own, NOW).unwrap();
            assert_eq!(bench.node.dialled(outside, local, NOW), Err(CloseReason::Itself));
            assert_eq!(bench.actions(), [Action::Close { connection, reason: CloseReason::Itself }]);
        } else {
            let connection = bench.node.dialled(outside, local, NOW).unwrap();
            assert_eq!(bench.node.accepted(local, own, NOW), Err(CloseReason::Itself));
            let close = Action::Close { connection, reason: CloseReason::Itself };
            assert_eq!(bench.actions().last(), Some(&close));
        }
        assert_eq!(bench.states(), []);
        let incoming = bench.accept(addr("203.0.113.9:1"));
        assert_eq!(dials(&bench.receive(incoming, plain("1", outside, "hi"))), []);
    }
}

#[test]
fn a_stranger_makes_no_node_dial_its_own_machine() {
    let mut bench = Bench::new(options());
    let from_lan = bench.accept(peer(1));
    let from_world = bench.accept(addr("203.0.113.9:1"));
    for (connection, named, expected) in [
        (from_lan, "127.0.0.1:6379", false),
        (from_lan, "[::1]:6379", false),
        (from_world, "192.168.1.1:80", false),
        (from_world, "169.254.169.254:80", false),
        (from_world, "198.51.100.1:80", true),
        (from_lan, "192.168.1.1:80", true),
    ] {
        let object = plain(&format!("{connection:?} {named}"), addr(named), "hi");
        assert_eq!(dials(&bench.receive(connection, object)).len(), usize::from(expected), "{named}");
    }
    assert_eq!(bench.node.counts().not_dialled, 4);
}

/// [whispernet: messages]
#[test]
fn a_peer_that_cannot_be_reached_is_retried_with_backoff_and_then_forgotten() {
    let mut bench = Bench::new(options());
    let incoming = bench.accept(peer(1));
    assert_eq!(dials(&bench.receive(incoming, plain("1", peer(2), "hi"))), [peer(2)]);
    for expected in [1, 2, 4, 8] {
        bench.node.dial_failed(peer(2), bench.now);
        assert_eq!(bench.actions(), []);
        let (waited, actions) = bench.wait();
        assert_eq!(actions, [Action::Dial(peer(2))]);
        let expected = Duration::from_secs(expected);
        assert!(expected <= waited && waited <= expected * 5 / 4, "{waited:?}, not {expected:?}");
    }
    bench.node.dial_failed(peer(2), bench.now);
    assert_eq!(bench.actions(), [Action::Tell(Notice::Forgotten(peer(2)))]);
    assert_eq!((bench.states(), bench.node.deadline()), (vec![], None));

    assert_eq!(dials(&bench.receive(incoming, plain("2", peer(2), "hi"))), [], "not at once again");
    bench.now = bench.now.after(Duration::from_secs(5 * 60));
    assert_eq!(dials(&bench.receive(incoming, plain("3", peer(2), "hi"))), [peer(2)]);
}

#[test]
fn a_peer_that_the_configuration_names_is_never_forgotten() {
    let mut bench = Bench::new(options());
    bench.node.connect(peer(1), Keep::Always, NOW);
    assert_eq!(bench.actions(), [Action::Dial(peer(1))]);
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        bench.node.dial_failed(peer(1), bench.now);
        let (waited, actions) = bench.wait();
        assert_eq!(actions, [Action::Dial(peer(1))]);
        longest = longest.max(waited);
    }
    assert!(Duration::from_secs(60) <= longest && longest <= Duration::from_secs(75), "{longest:?}");
}

#[test]
fn a_peer_that_was_there_and_went_is_retried_and_may_come_back() {
    let mut bench = Bench::new(options());
    let connection = bench.dial(peer(1));
    bench.now = bench.now.after(Duration::from_secs(60));
    bench.node.closed(connection, bench.now);
    assert_eq!(bench.actions(), [Action::Tell(Notice::Lost(peer(1)))]);
    for _ in 0..4 {
        assert_eq!(bench.wait().1, [Action::Dial(peer(1))]);
        bench.node.dial_failed(peer(1), bench.now);
    }
    assert_eq!(bench.actions(), [Action::Tell(Notice::Forgotten(peer(1)))]);
    let incoming = bench.accept(peer(1));
    assert_eq!(dials(&bench.receive(incoming, plain("1", peer(1), "back"))), [peer(1)]);
}

#[test]
fn a_peer_that_stays_for_long_may_fail_anew() {
    let mut bench = Bench::new(options());
    let mut connection = bench.dial(peer(1));
    for _ in 0..20 {
        bench.now = bench.now.after(Duration::from_secs(30));
        bench.node.closed(connection, bench.now);
        assert_eq!(bench.actions(), [Action::Tell(Notice::Lost(peer(1)))]);
        bench.wait();
        connection = bench.succeed(peer(1));
        bench.actions();
    }
}

#[test]
fn a_peer_that_is_heard_itself_is_soon_dialled_again() {
    let mut bench = Bench::new(options());
    bench.node.connect(peer(1), Keep::Always, NOW);
    for _ in 0..10 {
        bench.node.dial_failed(peer(1), bench.now);
        bench.wait();
    }
    bench.node.dial_failed(peer(1), bench.now);
    let (other, itself) = (bench.accept(peer(2)), bench.accept(peer(1)));
    bench.receive(other, plain("1", peer(1), "passed on"));
    assert!(bench.node.deadline().unwrap().since(bench.now) >= Duration::from_secs(60));
    bench.receive(itself, plain("2", peer(1), "back"));
    assert_eq!(bench.wait(), (Duration::from_secs(1), vec![Action::Dial(peer(1))]));
}

/// A peer that takes connections and drops them is no better than none.
#[test]
fn a_peer_that_hangs_up_each_time_is_forgotten_too() {
    let mut bench = Bench::new(options());
    let mut connection = bench.dial(peer(1));
    for _ in 0..4 {
        bench.node.closed(connection, bench.now);
        assert_eq!(bench.actions(), [Action::Tell(Notice::Lost(peer(1)))]);
        assert_eq!(bench.wait().1, [Action::Dial(peer(1))]);
        connection = bench.succeed(peer(1));
        bench.actions();
    }
    bench.node.closed(connection, bench.now);
    assert_eq!(bench.actions(), [Action::Tell(Notice::Forgotten(peer(1)))]);
}

/// The `number`th of many addresses.
fn many(number: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4((0x0a0a_0000 + number).into()), 6_379)
}

/// [whispernet: messages] Bounded in number.
#[test]
fn strangers_make_a_node_dial_few_addresses_at_a_time() {
    let mut bench = Bench::new(options());
    let incoming = bench.accept(peer(1));
    let mut dialled = Vec::new();
    for number in 0..900 {
        dialled.extend(dials(&bench.receive(incoming, plain(&number.to_string(), many(number), "hi"))));
    }
    assert_eq!(dialled.len(), 8, "as many as may be under way");
    assert_eq!(bench.states().len(), 8 + 64, "and as many as may wait");
    assert_eq!(bench.node.counts().not_dialled, 900 - 72);

    // Ten minutes of refused dials, with new names all the time.
    let (start, mut dials_done) = (bench.now, 8);
    let mut under_way = dialled;
    for number in 1_000.. {
        for addr in under_way.drain(..) {
            bench.node.dial_failed(addr, bench.now);
        }
        under_way.extend(dials(&bench.actions()));
        under_way.extend(dials(&bench.receive(incoming, plain(&number.to_string(), many(number), "hi"))));
        dials_done += under_way.len();
        bench.now = bench.now.after(Duration::from_millis(10));
        bench.node.tick(bench.now);
        let due = dials(&bench.actions());
        dials_done += due.len();
        under_way.extend(due);
        assert!(bench.states().len() <= 72 && under_way.len() <= 8);
        if bench.now.since(start) > Duration::from_secs(600) {
            break;
        }
    }
    assert!(dials_done < 25 * 600, "{dials_done}");
}

#[test]
fn the_users_peers_are_dialled_before_those_that_others_name() {
    let mut bench = Bench::new(options());
    let incoming = bench.accept(peer(1));
    for number in 0..30 {
        bench.receive(incoming, plain(&number.to_string(), many(number), "hi"));
    }
    bench.node.connect(addr("203.0.113.1:1"), Keep::Always, NOW);
    assert_eq!(bench.actions(), []);
    bench.node.dial_failed(many(0), NOW);
    assert_eq!(bench.actions(), [Action::Dial(addr("203.0.113.1:1"))]);
}

#[test]
fn a_node_has_no_more_peers_than_it_may() {
    let peers = PeerLimits { connected: 3, ..PeerLimits::default() };
    let mut bench = Bench::new(Options { peers, ..options() });
    let first = bench.dial(peer(1));
    bench.dial(peer(2));
    bench.dial(peer(3));
    bench.node.connect(peer(4), Keep::Always, NOW);
    let incoming = bench.accept(peer(5));
    let actions = bench.receive(incoming, plain("1", peer(5), "hi"));
    assert_eq!((dials(&actions), bench.node.deadline()), (vec![], None));
    assert_eq!(bench.states().len(), 4);
    bench.node.closed(first, NOW);
    assert_eq!(dials(&bench.actions()), [peer(4)]);
}

#[test]
fn a_disconnected_peer_is_dialled_again_when_the_user_asks() {
    let mut bench = Bench::new(options());
    let connection = bench.dial(peer(1));
    assert!(bench.node.disconnect(peer(1), NOW));
    assert!(!bench.node.disconnect(peer(1), NOW));
    assert_eq!(bench.actions(), [Action::Close { connection, reason: CloseReason::Disconnected }]);
    bench.node.closed(connection, NOW);
    let incoming = bench.accept(peer(1));
    assert_eq!(dials(&bench.receive(incoming, plain("1", peer(1), "hi"))), []);
    assert_eq!(bench.states(), []);
    bench.dial(peer(1));
}

#[test]
fn a_dial_that_nobody_waits_for_is_not_kept() {
    let mut bench = Bench::new(options());
    bench.node.connect(peer(1), Keep::WhileReachable, NOW);
    bench.node.disconnect(peer(1), NOW);
    assert_eq!(bench.node.dialled(peer(1), addr("10.0.0.1:40000"), NOW), Err(CloseReason::Unneeded));
    bench.node.dial_failed(peer(1), NOW);
    assert_eq!(bench.actions(), [Action::Dial(peer(1))]);
}

/// Two dials may be under way when a peer was disconnected and wanted again.
#[test]
fn a_dial_that_fails_late_takes_no_connection_away() {
    let mut bench = Bench::new(options());
    let connection = bench.dial(peer(1));
    bench.node.dial_failed(peer(1), NOW);
    assert_eq!(bench.actions(), []);
    assert_eq!(bench.states(), [(peer(1), PeerState::Connected(connection))]);
}

/// [whispernet: 5]
#[test]
fn an_announced_address_is_dialled() {
    let mut bench = Bench::new(options());
    bench.node.announced(&peer(1).to_string(), peer(1).ip(), NOW);
    assert_eq!(bench.actions(), [Action::Dial(peer(1))]);
    for wrong in ["", "hello", OWN, "127.0.0.1:80", "10.0.0.9:80\n", &peer(1).to_string()] {
        bench.node.announced(wrong, peer(1).ip(), NOW);
        assert_eq!(bench.actions(), [], "{wrong:?}");
    }
    assert_eq!(bench.node.address(), addr(OWN));
}

/// [whispernet: 11]
#[test]
fn a_newly_connected_peer_is_sent_the_last_messages() {
    let backlog = BacklogLimits { messages: 4, ..BacklogLimits::default() };
    let mut bench = Bench::new(Options { backlog, ..options() });
    let incoming = bench.accept(peer(1));
    bench.receive(incoming, plain("0", peer(9), "too old"));
    let first = bench.dial(peer(3));
    bench.node.say(Said { body: "mine", ..Said::default() }, NOW).unwrap();
    let actions = bench.actions();
    let mine = Bytes::copy_from_slice(sent(&actions)[0]);
    assert_eq!(actions, [send(first, mine.clone())]);
    let objects = [plain("1", peer(9), "a"), plain("2", peer(2), "b"), plain("3", peer(9), "c")];
    bench.receive(incoming, objects.concat());
    bench.node.disconnect(peer(9), NOW);
    bench.actions();
    let two = bench.succeed(peer(2));
    let expected = [mine, objects[0].clone().into(), objects[2].clone().into()];
    let expected = expected.map(|object| send(two, object));
    let mut actions = bench.actions();
    assert_eq!(actions.remove(0), Action::Tell(Notice::Connected(peer(2))));
    assert_eq!(actions, expected, "but for its own");
}

// Floods.

/// [whispernet: 12]
#[test]
fn an_address_that_floods_is_disconnected_and_refused_for_a_while() {
    let mut bench = Bench::new(options());
    let outgoing = bench.dial(peer(1));
    bench.dial(peer(2));
    let (one, two) = (bench.accept(peer(1)), bench.accept(peer(1)));
    let other = bench.accept(peer(2));
    let objects: String = (0..1_000).map(|id| plain(&id.to_string(), peer(1), "hi")).collect();
    assert_eq!(shown(&bench.receive(one, &objects)).len(), 1_000);

    let actions = bench.receive(two, plain("x", peer(1), "one more"));
    let until = NOW.after(Duration::from_secs(600));
    let reason = CloseReason::Flooding(Duration::from_secs(600));
    let close = |connection| Action::Close { connection, reason };
    let refused = Action::Tell(Notice::Refused { ip: peer(1).ip(), until });
    assert_eq!(actions, [close(one), close(two), close(outgoing), refused]);
    assert_eq!(bench.node.refused(NOW).collect::<Vec<_>>(), [(peer(1).ip(), until)]);
    assert_eq!(bench.states().len(), 1, "it is no peer any more");

    let again = SocketAddr::new(peer(1).ip(), 1);
    assert_eq!(bench.node.accepted(again, addr(OWN), NOW), Err(reason));
    assert_eq!(dials(&bench.receive(other, plain("y", peer(1), "hi"))), [], "nor dialled");
    assert!(bench.node.accepted(again, addr(OWN), until).is_ok());

    bench.node.clear_refused(NOW);
    assert_eq!(bench.node.refused(NOW).count(), 0);
    assert_eq!(dials(&bench.receive(other, plain("z", peer(1), "hi"))), [peer(1)]);
}

/// [whispernet: 12] What it sends counts, whether or not it is a message.
#[test]
fn bytes_and_objects_without_a_body_are_a_flood_too() {
    for (bytes, is_flood) in [
        ("{}".repeat(1_000), false),
        ("{}".repeat(1_001), true),
        (" ".repeat(16 << 20), false),
        (" ".repeat((16 << 20) + 1), true),
    ] {
        let mut bench = Bench::new(options());
        let incoming = bench.accept(peer(1));
        let actions = bench.receive(incoming, &bytes);
        assert_eq!(!actions.is_empty(), is_flood, "{} bytes", bytes.len());
        assert_eq!(bench.node.counts().flooded, u64::from(is_flood));
    }
}

/// [whispernet: 12] Peers that pass on what others say are many at one address.
#[test]
fn what_had_come_before_is_hardly_a_flood() {
    let mut bench = Bench::new(options());
    let connections: Vec<_> = (0..9).map(|_| bench.accept(peer(1))).collect();
    let objects: String = (0..500).map(|id| plain(&id.to_string(), peer(2), "hi")).collect();
    for connection in &connections[..8] {
        bench.receive(*connection, &objects);
    }
    assert_eq!((bench.node.counts().shown, bench.node.counts().repeated), (500, 7 * 500));
    assert_eq!(bench.node.counts().flooded, 0);
    bench.receive(connections[8], objects.repeat(2));
    assert_eq!(bench.node.counts().flooded, 1, "there is an end to it");
}

#[test]
fn a_kept_peer_that_floods_is_dialled_again_when_its_time_is_over() {
    let mut bench = Bench::new(options());
    bench.node.connect(peer(1), Keep::Always, NOW);
    bench.succeed(peer(1));
    let incoming = bench.accept(peer(1));
    bench.receive(incoming, "{}".repeat(1_001));
    let (waited, actions) = bench.wait();
    assert_eq!((waited, dials(&actions)), (Duration::from_secs(600), vec![peer(1)]));

    bench.succeed(peer(1));
    let incoming = bench.accept(peer(1));
    bench.receive(incoming, "{}".repeat(1_001));
    bench.node.connect(peer(1), Keep::Always, bench.now);
    assert_eq!(bench.actions(), [], "also when the user asks");
    bench.node.clear_refused(bench.now);
    assert_eq!(bench.actions(), [Action::Dial(peer(1))], "before it is cleared");
}

#[test]
fn no_more_connections_are_taken_than_allowed() {
    let mut bench = Bench::new(Options { incoming_max: 2, ..options() });
    let first = bench.accept(peer(1));
    bench.accept(peer(2));
    let third = bench.node.accepted(peer(3), addr(OWN), NOW);
    assert_eq!(third, Err(CloseReason::TooMany(2)));
    bench.node.closed(first, NOW);
    bench.accept(peer(3));
}

#[test]
fn who_has_most_connections_makes_room_for_who_has_fewer() {
    let mut bench = Bench::new(Options { incoming_max: 3, ..options() });
    let connections = [peer(1), peer(1), peer(1)].map(|from| bench.accept(from));
    let two = bench.accept(peer(2));
    let close = |connection| Action::Close { connection, reason: CloseReason::TooMany(3) };
    assert_eq!(bench.actions(), [close(connections[2])]);
    for from in [peer(1), peer(2)] {
        let refused = bench.node.accepted(SocketAddr::new(from.ip(), 1), addr(OWN), NOW);
        assert_eq!(refused, Err(CloseReason::TooMany(3)), "would have as many");
    }
    assert_eq!(shown(&bench.receive(two, plain("1", peer(2), "hi"))).len(), 1);
    bench.accept(peer(3));
    assert_eq!(bench.actions(), [close(connections[1])]);
}

/// Many connections with a large unfinished object each take bounded memory.
#[test]
fn the_longest_unfinished_object_makes_room_for_the_others() {
    let mut bench = Bench::new(Options { unfinished_bytes_max: 1_000, ..options() });
    let (one, two) = (bench.accept(peer(1)), bench.accept(peer(2)));
    let beginning = |bytes: usize| format!("{{\"ID\":\"{}", "x".repeat(bytes - 7));
    assert_eq!(bench.receive(one, beginning(600)), []);
    assert_eq!(bench.receive(two, beginning(400)), []);
    assert_eq!(bench.node.unfinished_bytes(), 1_000);
    let close = Action::Close { connection: one, reason: CloseReason::Unfinished };
    assert_eq!(bench.receive(two, "x"), [close]);
    assert_eq!(bench.node.unfinished_bytes(), 401);
    assert_eq!(shown(&bench.receive(two, "\",\"Body\":\"hi\"}")).len(), 1);
    assert_eq!(bench.node.unfinished_bytes(), 0);
}

/// [running: logs] Nobody's words reach a log.
#[test]
fn what_is_to_be_done_is_shown_without_contents() {
    let mut bench = Bench::new(options());
    bench.dial(peer(1));
    let incoming = bench.accept(peer(2));
    let actions = bench.receive(incoming, r#"{"ID":"1","Body":"secret","FileContents":"R0lG"}"#);
    let expected =
        "[Send(ConnectionId(1), 48 bytes), Show(6 bytes of body, Some(File(3 bytes)), None, Unverified)]";
    assert_eq!(format!("{actions:?}"), expected);
}

// What the driver cannot do.

#[test]
fn a_peer_that_takes_too_little_is_disconnected_and_dialled_again() {
    let mut bench = Bench::new(options());
    let connection = bench.dial(peer(1));
    bench.node.too_slow(connection, NOW);
    let close = Action::Close { connection, reason: CloseReason::TooSlow };
    assert_eq!(bench.actions(), [close, Action::Tell(Notice::Lost(peer(1)))]);
    assert_eq!(bench.wait().1, [Action::Dial(peer(1))]);
    bench.node.unsent();
    assert_eq!((bench.node.counts().slow, bench.node.counts().unsent), (1, 1));
}

/// [whispernet: 13]
#[test]
fn what_a_node_says_is_shown_to_its_user_as_to_others() {
    let identity = Identity::from_seed(&[9; 32]);
    let own = identity.public_key();
    let mut bench = Bench::new(Options { identity: Some(identity), ..options() });
    let said = Said { nick: Some("goldy"), body: "a/cat.gif", file: Some(("image/gif", b"GIF8")) };
    let id = bench.node.say(said, NOW).unwrap();
    let shown = bench.node.shown(&id, said, NOW);
    let file = shown.file.as_ref().unwrap();
    assert_eq!((&*shown.body, &*file.name, &*file.contents), ("a/cat.gif", "cat.gif", &b"GIF8"[..]));
    assert_eq!((shown.addr.as_deref(), shown.mark), (Some(OWN), Mark::Unverified));
    bench.node.pin("goldy", own);
    assert_eq!(bench.node.pinned("goldy"), Some(own));
    assert_eq!(bench.node.shown(&id, said, NOW).mark, Mark::Verified);
    bench.node.pin("goldy", Identity::from_seed(&[8; 32]).public_key());
    assert_eq!(bench.node.shown(&id, said, NOW).mark, Mark::ChangedKey);
}

/// A name that the user gave has another address than before.
#[test]
fn a_peer_that_moved_is_kept_where_it_is_now() {
    let mut bench = Bench::new(options());
    bench.node.connect(peer(1), Keep::Always, NOW);
    assert_eq!(bench.actions(), [Action::Dial(peer(1))]);
    bench.node.moved(peer(1), peer(2));
    let connection = bench.succeed(peer(2));
    assert_eq!(bench.states(), [(peer(2), PeerState::Connected(connection))]);
    bench.actions();
    for _ in 0..20 {
        if let Some((_, PeerState::Connected(connection))) = bench.states().first() {
            bench.node.closed(*connection, bench.now);
        } else {
            bench.node.dial_failed(peer(2), bench.now);
        }
        assert_eq!(bench.wait().1.last(), Some(&Action::Dial(peer(2))), "it is kept");
    }
}

#[test]
fn a_peer_that_moved_to_anothers_address_is_that_one() {
    let mut bench = Bench::new(options());
    let known = bench.dial(peer(2));
    bench.node.connect(peer(1), Keep::Always, NOW);
    bench.actions();
    bench.node.moved(peer(1), peer(2));
    let local = bench.local();
    assert_eq!(bench.node.dialled(peer(2), local, NOW), Err(CloseReason::Unneeded));
    assert_eq!(bench.states(), [(peer(2), PeerState::Connected(known))]);
    bench.node.moved(peer(2), peer(3));
    assert_eq!(bench.states(), [(peer(2), PeerState::Connected(known))], "only what is being dialled moves");
}
