//! What a node does not take: floods, and more than it may keep.

use super::*;

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
