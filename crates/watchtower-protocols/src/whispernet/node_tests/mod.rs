//! The rules of a node, each by itself.

mod floods;
mod peers;
mod unheard;

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
