//! Peers on the node's own machine: they hear of one another, and not what
//! strangers say of the machine.

use super::*;

const NEAR: [u16; 2] = [1_001, 1_002];

fn near(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// A node with two neighbours on its machine, the second of which is sent ids
/// alone.
fn bench() -> (Bench, [ConnectionId; 2]) {
    let mut bench = Bench::new(options());
    let connections = NEAR.map(|port| bench.befriend_at(near(port)));
    bench.receive(connections[1], r#"{"Prune":{}}"#);
    NEAR.into_iter().for_each(|port| drop(bench.sent_to(near(port))));
    (bench, connections)
}

fn i_have(id: &str) -> String {
    json!({"IHave": [String::from(routing::ShortId::of(id))]}).to_string()
}

fn graft(id: &str) -> String {
    json!({"Graft": [String::from(routing::ShortId::of(id))]}).to_string()
}

#[test]
fn what_one_says_that_the_node_does_not_know_another_gets_that_asks_for_it() {
    let (mut bench, [first, second]) = bench();
    // A plain peer, which the node leaves to who heard it first.
    let said = message("m", near(1_003), false);
    bench.receive(first, &said);
    assert!(!bench.is_connected_to(near(1_003)));
    bench.passes(Duration::from_secs(1));
    assert_eq!(bench.sent_to(near(NEAR[1])), [i_have("m")]);
    bench.receive(second, &graft("m"));
    assert_eq!(bench.sent_to(near(NEAR[1])), [said]);
}

#[test]
fn what_a_stranger_says_of_the_machine_they_neither_hear_of_nor_get() {
    let (mut bench, [_, second]) = bench();
    let stranger = bench.accept(peer(9).ip());
    bench.receive(stranger, &message("lie", near(6_379), true));
    bench.passes(Duration::from_secs(1));
    bench.receive(second, &graft("lie"));
    assert_eq!(NEAR.map(|port| bench.sent_to(near(port))), [[""; 0]; 2]);

    // Nor does one that comes later.
    let third = bench.befriend_at(near(1_003));
    bench.receive(third, &graft("lie"));
    bench.passes(Duration::from_secs(1));
    let sent = bench.sent_to(near(1_003));
    assert!(sent.iter().all(|object| !object.contains("lie") && *object != i_have("lie")), "{sent:?}");
}
