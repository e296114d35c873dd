//! A node that has said nothing, and that nobody is connected to.

use super::*;

const PATIENCE: Duration = Duration::from_secs(2);

fn bench() -> Bench {
    Bench::new(Options { greets_after: Some(PATIENCE), ..options() })
}

/// What is done within a minute.
fn minute(bench: &mut Bench) -> Vec<Action> {
    let end = bench.now.after(Duration::from_secs(60));
    let mut actions = Vec::new();
    while bench.node.deadline().is_some_and(|deadline| deadline <= end) {
        actions.extend(bench.wait().1);
    }
    bench.now = end;
    actions
}

fn greet(bench: &mut Bench) -> Vec<Action> {
    let (waited, actions) = bench.wait();
    assert_eq!((waited, &*actions), (PATIENCE, &[Action::Greet][..]));
    bench.node.say(Said { body: GREETING, ..Said::default() }, bench.now).unwrap();
    bench.actions()
}

#[test]
fn a_node_to_which_nobody_connects_greets_once_and_then_tells_its_user() {
    let mut bench = bench();
    bench.dial(peer(1));
    assert_eq!(sent(&greet(&mut bench)).len(), 1);
    let (waited, actions) = bench.wait();
    assert_eq!((waited, actions), (4 * PATIENCE, vec![Action::Tell(Notice::Unreached(addr(OWN)))]));
    assert_eq!(bench.node.deadline(), None, "nothing more is due");
}

#[test]
fn a_node_without_peers_greets_nobody() {
    let mut bench = bench();
    assert_eq!(bench.node.deadline(), None);
    bench.accept(peer(1));
    assert_eq!(minute(&mut bench), []);
}

#[test]
fn a_node_to_which_a_peer_connects_in_time_greets_nobody() {
    let mut bench = bench();
    bench.dial(peer(1));
    bench.now = NOW.after(PATIENCE / 2);
    bench.accept(peer(1));
    assert_eq!(minute(&mut bench), []);
}

/// Who connects is sent it, and it tells where the node listens.
#[test]
fn a_node_that_has_said_something_does_not_greet() {
    let mut bench = bench();
    bench.node.say(Said { body: "hi", ..Said::default() }, NOW).unwrap();
    bench.dial(peer(1));
    assert_eq!(minute(&mut bench), [Action::Tell(Notice::Unreached(addr(OWN)))]);
}

/// As when the only peer that knew it was started anew.
#[test]
fn a_greeting_is_not_repeated_while_peers_that_come_back_are_sent_it() {
    let mut bench = bench();
    let connection = bench.dial(peer(1));
    greet(&mut bench);
    let incoming = bench.accept(peer(1));
    for ended in [connection, incoming] {
        bench.node.closed(ended, bench.now);
    }
    bench.actions();
    assert_eq!(bench.wait().1, [Action::Dial(peer(1))]);
    bench.succeed(peer(1));
    let backlog = bench.actions();
    assert_eq!(sent(&backlog).len(), 1, "the greeting");
    assert!(!minute(&mut bench).contains(&Action::Greet));
}

#[test]
fn a_node_that_is_not_asked_to_does_not_greet() {
    let mut bench = Bench::new(options());
    bench.dial(peer(1));
    assert_eq!(minute(&mut bench), []);
}
