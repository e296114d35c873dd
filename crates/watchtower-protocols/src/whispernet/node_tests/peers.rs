//! Whom a node dials, and when no more.

use super::*;

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

/// They would take it from a peer on their own machine.
#[test]
fn what_a_stranger_says_of_the_machine_is_not_passed_on_to_peers_on_it() {
    let mut bench = Bench::new(options());
    let (near, far) = (addr("127.0.0.1:4000"), peer(9));
    let [to_near, to_far] = [near, far].map(|to| bench.dial(to));
    let stranger = bench.accept(peer(1));
    let neighbour = bench.accept(near);
    let service = addr("127.0.0.1:6379");
    let sent = |actions: &[Action]| -> Vec<ConnectionId> {
        let to = |action: &Action| match action {
            Action::Send { connection, .. } => Some(*connection),
            _ => None,
        };
        actions.iter().filter_map(to).collect()
    };
    assert_eq!(sent(&bench.receive(stranger, plain("1", service, "lie"))), [to_far]);
    assert_eq!(sent(&bench.receive(stranger, plain("2", peer(1), "true"))), [to_near, to_far]);
    // A peer that the node knows may be heard of, and so may one that is near itself.
    assert_eq!(sent(&bench.receive(neighbour, plain("3", near, "I"))), [to_far]);
    assert_eq!(sent(&bench.receive(neighbour, plain("4", service, "another"))), [to_near, to_far]);
    // Nor does one that comes later hear of the lie.
    let mut late = Bench::new(options());
    let stranger = late.accept(peer(1));
    late.receive(stranger, plain("1", service, "lie"));
    late.node.connect(near, Keep::WhileReachable, NOW);
    late.actions();
    late.succeed(near);
    assert_eq!(sent(&late.actions()), []);
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
