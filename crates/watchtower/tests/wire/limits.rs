//! What one client may take, and what happens to who takes too much [running: limits].

use std::time::Instant;

use super::support::packets::*;
use super::support::{PATIENCE, Server, Tcp, eventually};

#[test]
fn a_message_above_the_limit_is_refused_by_its_length_and_ends_the_connection() {
    let server = Server::start(&["--set", "limits.max_message_bytes=10"]);
    let (mut tcp, mut udp) = (server.connect(), server.peer());
    let (id, over_udp) = (tcp.enter(1), udp.enter(1));
    tcp.ask(say(id, 1, "0123456789"), said(id, 1, "0123456789"));
    udp.expect(said(id, 1, "0123456789"));
    tcp.send([say(id, 1, "last"), say(id, 1, "0123456789a")].concat());
    let told = error(4, "content of 11 bytes; at most 10 are accepted");
    tcp.expect_last([said(id, 1, "last"), told].concat());
    udp.expect(said(id, 1, "last"));
    udp.ask(say(over_udp, 1, "0123456789a"), error(4, "content above the limit"));
    server.stop();
}

#[test]
fn connections_above_the_limit_are_closed_and_room_is_made_by_who_leaves() {
    let server = Server::start(&["--set", "limits.max_connections=2"]);
    let (mut a, mut b) = (server.connect(), server.connect());
    a.register();
    b.register();
    let is_served = |mut c: Tcp| c.try_send(b"K", PATIENCE) && c.try_read(5) == Some(ack(0));
    assert!(!is_served(server.connect()));
    a.finish();
    a.expect_last(b"");
    eventually("there is room", || is_served(server.connect()));
    b.ask(b"K", ack(0));
    server.stop();
}

#[test]
fn senders_and_channels_above_their_limits_are_refused() {
    let server = Server::start(&[
        "--set",
        "limits.max_senders=2",
        "--set",
        "limits.max_channels_per_sender=2",
        "--set",
        "limits.max_channels=3",
    ]);
    let (mut tcp, mut udp) = (server.connect(), server.peer());
    let (a, b) = (tcp.register(), udp.register());
    tcp.ask(b"R", error(5, LIMIT));
    udp.ask(b"R", error(5, LIMIT));
    tcp.ask([join(a, 1), join(a, 2), join(a, 3)].concat(), [ack(1), ack(2), error(5, LIMIT)].concat());
    tcp.ask([leave(a, 2), join(a, 3)].concat(), [ack(2), ack(3)].concat());
    // Three channels are there; the one that is left is let go later.
    udp.ask(join(b, 4), error(5, LIMIT));
    udp.ask(join(b, 1), ack(1));
    server.stop();
}

#[test]
fn content_is_judged_by_the_rule_of_its_channel() {
    let rules = r#"channels=[{pattern="1", format="json"}, {pattern="2*", format="text"}]"#;
    let server = Server::start(&["--set", rules]);
    let (mut tcp, mut udp) = (server.connect(), server.peer());
    let (id, over_udp) = (tcp.register(), udp.register());
    for channel in [1, 2, 22, 3] {
        tcp.ask(join(id, channel), ack(channel));
        udp.ask(join(over_udp, channel), ack(channel));
    }
    for (channel, content, accepted) in [
        (1, &br#"{"a":1}"#[..], true),
        (1, b"hello", false),
        (1, b"", false),
        (1, b"\xff", false),
        (2, br#"{"a":1}"#, true),
        (22, b"\xff", false),
        (3, b"\xff", true),
    ] {
        if accepted {
            tcp.ask(say(id, channel, content), said(id, channel, content));
            udp.expect(said(id, channel, content));
        } else {
            tcp.ask(say(id, channel, content), error(7, BAD_CONTENT));
            udp.ask(say(over_udp, channel, content), error(7, BAD_CONTENT));
        }
    }
    tcp.expect_nothing();
    udp.expect_nothing();
    server.stop();
}

/// Publishes until the server says that somebody lags; how many messages that took. They are
/// numbered, and all of one length.
fn publish_until_somebody_lags(server: &Server, publisher: &mut Tcp, id: u32, others: &mut [Tcp]) -> usize {
    for number in 0..3_000 {
        let text = format!("{number:050000}");
        publisher.ask(say(id, 1, &text), said(id, 1, &text));
        others.iter_mut().for_each(|other| other.expect(said(id, 1, &text)));
        if number % 20 == 0 && server.metric("sessions_lagging_closed_total") > 0 {
            return number + 1;
        }
    }
    panic!("150 MB were not too much");
}

#[test]
fn a_slow_reader_is_told_and_closed_while_the_others_do_not_notice() {
    // [model: log]
    let server = Server::start(&["--set", "limits.lag_messages=20"]);
    let (mut publisher, mut slow) = (server.connect(), server.connect());
    let (id, _) = (publisher.enter(1), slow.enter(1));
    slow.read_through_a_straw();
    let mut others = [server.connect(), server.connect()];
    for other in &mut others {
        other.enter(1);
    }
    let published = publish_until_somebody_lags(&server, &mut publisher, id, &mut others);

    // What it was sent before is whole and in order, and then there is the reason.
    let heard = slow.read_to_end();
    let length = said(id, 1, format!("{:050000}", 0)).len();
    let messages = heard.len() / length;
    assert!(messages < published);
    let expected = (0..messages).flat_map(|number| said(id, 1, format!("{number:050000}")));
    let expected: Vec<u8> = expected.chain(error(8, LAGGING)).collect();
    assert!(heard == expected, "{messages} of {published} messages, then {:?}", &heard[messages * length..]);
    assert_eq!(server.metric("sessions_lagging_closed_total"), 1);
    publisher.ask(say(id, 1, "go on"), said(id, 1, "go on"));
    others.iter_mut().for_each(|other| other.expect(said(id, 1, "go on")));
    server.stop();
}

#[test]
fn a_reader_that_never_reads_is_closed_too() {
    let server = Server::start(&["--set", "limits.lag_messages=20"]);
    let (mut publisher, mut slow) = (server.connect(), server.connect());
    let (id, _) = (publisher.enter(1), slow.enter(1));
    slow.read_through_a_straw();
    publish_until_somebody_lags(&server, &mut publisher, id, &mut []);
    eventually("it holds no session", || server.metric("sessions") == 1);
    server.stop();
}

#[test]
fn who_says_nothing_is_closed_after_a_while_and_costs_little_meanwhile() {
    const SILENT_ONES: usize = 2_000;
    let server = Server::start(&["--set", "limits.header_timeout=2s"]);
    server.connect().register();
    let before = server.memory();
    let started = Instant::now();
    let silent: Vec<Tcp> = (0..SILENT_ONES).map(|_| server.connect()).collect();
    // Accepted in turn: when this one is served, those before it have been.
    let mut client = server.connect();
    client.ask(b"K", ack(0));
    let grown = server.memory().saturating_sub(before);
    assert!(grown < SILENT_ONES * 8 * 1024, "{grown} bytes for {SILENT_ONES} connections");
    for mut silent in silent {
        assert_eq!(silent.read_to_end(), b"");
    }
    assert!(started.elapsed() < PATIENCE);
    client.ask(b"K", ack(0));
    assert_eq!(server.metric("connections_silent_total"), SILENT_ONES as u64);
    server.stop();
}

#[test]
fn half_a_packet_and_then_nothing_is_closed_with_a_word() {
    let server = Server::start(&["--set", "limits.header_timeout=1s"]);
    let mut halves: Vec<Tcp> = [&b"J"[..], b"S\x05towe", b"W\0\0\0\0\0\0\0\0\xff\xff\x01"]
        .iter()
        .map(|half| {
            let mut client = server.connect();
            client.send(half);
            client
        })
        .collect();
    let mut later = server.connect();
    let id = later.enter(1);
    later.send(&say(id, 1, "never")[..17]);
    for client in &mut halves {
        client.expect_last(error(5, SILENT));
    }
    later.expect_last(error(5, SILENT));
    // Who owes nothing may be silent.
    let mut idle = server.connect();
    let id = idle.enter(1);
    let mut half = server.connect();
    half.send(b"M");
    half.expect_last(error(5, SILENT));
    idle.ask(say(id, 1, "still here"), said(id, 1, "still here"));
    server.stop();
}

#[test]
fn bytes_that_trickle_in_do_not_extend_the_time_for_a_packet() {
    let server = Server::start(&["--set", "limits.header_timeout=1s"]);
    let mut client = server.connect();
    client.send(b"M");
    // Its ids, its length, then content: a byte for each answer that another client gets.
    let mut other = server.connect();
    let mut bytes = say(5, 1, vec![b'x'; 60_000]).into_iter().skip(1);
    while !client.has_input() {
        client.send([bytes.next().expect("a packet may take as long as it likes")]);
        other.ask(b"K", ack(0));
    }
    client.expect_last(error(5, SILENT));
    server.stop();
}
