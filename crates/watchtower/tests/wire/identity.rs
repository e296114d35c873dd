//! Whose an id is: registrations, reconnects, and ids that move [packets: rules].

use std::sync::Barrier;
use std::thread;

use super::support::packets::*;
use super::support::{Server, Tcp, Udp, eventually};

#[test]
fn registering_needs_the_secret_where_registration_is_not_open() {
    let server = Server::start(&["--secret", "3f9c-aa01", "--set", "open_registration=false"]);
    let (mut tcp, mut udp) = (server.connect(), server.peer());
    let refused = error(5, "registration needs the secret: send S");
    tcp.ask(b"R", &refused);
    udp.ask(b"R", &refused);
    for wrong in ["", "3f9c-aa02", "3f9c-aa0", "3f9c-aa01 "] {
        tcp.ask(secret(wrong), error(5, "wrong secret"));
        udp.ask(secret(wrong), error(5, "wrong secret"));
    }
    let id = tcp.register_by(secret("3f9c-aa01"));
    tcp.ask(join(id, 1), ack(1));
    udp.send(secret("3f9c-aa01"));
    assert_eq!(udp.datagram()[0], b'A');
    server.stop();
}

#[test]
fn a_secret_that_was_made_is_matched_by_itself_alone() {
    let server = Server::start(&["--data-dir", "data", "--set", "open_registration=false"]);
    let made = std::fs::read_to_string(server.folder().join("data/secret_key")).unwrap();
    let mut client = server.connect();
    client.ask(secret(""), error(5, "wrong secret"));
    assert_ne!(client.register_by(secret(made.trim_end())), 0);
    server.stop();
}

#[test]
fn ids_are_not_in_sequence() {
    // [model: terms]
    let server = Server::start(&[]);
    let mut client = server.connect();
    let ids: Vec<u32> = (0..20).map(|_| client.register()).collect();
    assert!(ids.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 1) && !ids.contains(&0), "{ids:?}");
    server.stop();
}

#[test]
fn what_was_missed_is_delivered_to_whoever_comes_back_over_whatever_transport() {
    let server = Server::start(&[]);
    let (mut a, mut b) = (server.connect(), server.connect());
    let (id_a, id_b) = (a.enter(1), b.enter(1));
    b.finish();
    b.expect_last(b"");
    let packets = [say(id_a, 1, "1"), whisper(id_a, 1, &[id_b], "2"), say(id_a, 1, "3")].concat();
    a.ask(packets, [said(id_a, 1, "1"), said(id_a, 1, "3")].concat());
    let mut b = server.peer();
    b.ask(join(id_b, 1), ack(1));
    b.expect([said(id_a, 1, "1"), whispered(id_a, 1, "2"), said(id_a, 1, "3")].concat());

    // And back. To come back it may say something else than a join, too.
    let mut b = server.connect();
    b.ask(say(id_b, 1, "4"), said(id_b, 1, "4"));
    b.abort();
    a.expect(said(id_b, 1, "4"));
    eventually("the server has noticed", || server.metric("subscriptions") == 1);
    a.ask(say(id_a, 1, "5"), said(id_a, 1, "5"));
    let mut b = server.connect();
    b.ask(say(id_b, 1, "6"), [said(id_a, 1, "5"), said(id_b, 1, "6")].concat());
    server.stop();
}

#[test]
fn after_session_ttl_a_join_is_over_and_nothing_is_made_up_for() {
    let server = Server::start(&["--set", "session_ttl=1s"]);
    let (mut a, mut b) = (server.connect(), server.connect());
    let (id_a, id_b) = (a.enter(1), b.enter(1));
    b.finish();
    b.expect_last(b"");
    let mut accepted = 0;
    eventually("the join is over", || {
        a.send([whisper(id_a, 1, &[id_b], "missed"), b"K".to_vec()].concat());
        match a.read(1)[0] {
            b'A' => {
                a.expect(&ack(0)[1..]);
                accepted += 1;
                false
            }
            _ => {
                a.expect([&error(6, NO_RECEIVER)[1..], &ack(0)].concat());
                true
            }
        }
    });
    assert!(accepted > 0, "for a while it was still there");
    let mut b = server.connect();
    b.ask(say(id_b, 1, "x"), error(3, NOT_JOINED));
    b.ask(join(id_b, 1), ack(1));
    b.expect_nothing();
    server.stop();
}

#[test]
fn an_id_moves_to_whoever_names_it_last() {
    let server = Server::start(&[]);
    let (mut a, mut first) = (server.connect(), server.connect());
    let (id_a, id) = (a.enter(1), first.enter(1));
    let mut second = server.connect();
    second.ask(say(id, 1, "1"), said(id, 1, "1"));
    a.expect(said(id, 1, "1"));
    let mut third = server.peer();
    third.ask(join(id, 1), ack(1));
    a.ask(say(id_a, 1, "2"), said(id_a, 1, "2"));
    third.expect(said(id_a, 1, "2"));
    // NAT rebinding.
    let mut fourth = server.peer();
    fourth.ask(say(id, 1, "3"), said(id, 1, "3"));
    a.expect(said(id, 1, "3"));
    a.ask(say(id_a, 1, "4"), said(id_a, 1, "4"));
    fourth.expect(said(id_a, 1, "4"));
    first.ask(join(id, 1), ack(1));
    a.ask(say(id_a, 1, "5"), said(id_a, 1, "5"));
    first.expect(said(id_a, 1, "5"));
    second.expect_nothing();
    third.expect_nothing();
    fourth.expect_nothing();
    server.stop();
}

#[test]
fn with_bind_ids_an_id_stays_where_it_is_while_its_owner_is_connected() {
    let server = Server::start(&["--set", "bind_ids=true"]);
    let (mut owner, mut other, mut peer) = (server.connect(), server.connect(), server.peer());
    let id = owner.enter(1);
    for packet in [join(id, 1), say(id, 1, "x"), leave(id, 1), whisper(id, 1, &[id], "x")] {
        other.ask(&packet, error(2, ELSEWHERE));
        peer.ask(&packet, error(2, ELSEWHERE));
    }
    owner.ask(say(id, 1, "mine"), said(id, 1, "mine"));
    owner.finish();
    owner.expect_last(b"");
    eventually("the id is free", || {
        other.send([join(id, 1), b"K".to_vec()].concat());
        let is_free = other.read(1)[0] == b'A';
        let rest = if is_free { ack(1) } else { error(2, ELSEWHERE) };
        other.expect([&rest[1..], &ack(0)].concat());
        is_free
    });
    // An address is an owner like any other.
    let id = peer.enter(2);
    other.ask(join(id, 2), error(2, ELSEWHERE));
    server.peer().ask(say(id, 2, "x"), error(2, ELSEWHERE));
    peer.ask(say(id, 2, "mine"), said(id, 2, "mine"));
    server.stop();
}

#[test]
fn a_peer_that_is_silent_for_udp_idle_is_no_longer_delivered_to() {
    let server = Server::start(&["--set", "udp_idle=1s"]);
    let (mut a, mut peer) = (server.connect(), server.peer());
    let (id_a, id) = (a.enter(1), peer.enter(1));
    assert_eq!(server.metric("subscriptions"), 2);
    eventually("it is let go", || server.metric("subscriptions") == 1);
    a.ask(say(id_a, 1, "missed"), said(id_a, 1, "missed"));
    // It comes back as from a reconnect.
    peer.expect_nothing();
    peer.ask(join(id, 1), [ack(1), said(id_a, 1, "missed")].concat());
    server.stop();
}

#[test]
fn a_storm_of_reconnects_with_one_id_leaves_it_one_session_and_one_copy() {
    // A same-id reconnect storm corrupted the session of NanoMQ (CVE-2026-22040).
    const DEVICES: usize = 8;
    let server = Server::start(&["--set", "udp_idle=1s"]);
    let (mut a, mut b) = (server.connect(), server.connect());
    let (id_a, id) = (a.enter(1), b.enter(1));
    let start = Barrier::new(DEVICES);
    thread::scope(|scope| {
        for device in 0..DEVICES {
            let (tcp, udp, start) = (server.tcp, server.udp, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..40 {
                    let mut client = Tcp::connect(tcp);
                    client.send([join(id, 1), whisper(id, 1, &[id], "x"), b"K".to_vec()].concat());
                    match (device + round) % 3 {
                        0 => client.abort(),
                        1 => drop(client),
                        _ => {
                            client.finish();
                            assert!(client.read_to_end().starts_with(&ack(1)));
                        }
                    }
                    Udp::bind(udp).send(say(id, 1, "y"));
                }
            });
        }
    });
    eventually("all but the two are gone", || server.metric("sessions") == 2);
    let mut last = server.connect();
    last.send([leave(id, 1), join(id, 1)].concat());
    last.finish();
    let told = last.read_to_end();
    assert!(told.ends_with(&[ack(1), ack(1)].concat()), "what it missed, and the acknowledgements");
    let mut last = server.connect();
    last.ask(join(id, 1), ack(1));
    a.send(say(id_a, 1, "after the storm"));
    last.expect(said(id_a, 1, "after the storm"));
    last.expect_nothing();
    assert_eq!((server.metric("senders"), server.metric("subscriptions")), (2, 2));
    server.stop();
}

#[test]
fn a_connection_that_breaks_in_the_middle_of_a_message_publishes_none_of_it() {
    let server = Server::start(&[]);
    let mut a = server.connect();
    a.enter(1);
    for abort in [true, false] {
        let mut b = server.connect();
        let id_b = b.enter(1);
        let message = say(id_b, 1, vec![b'x'; 40_000]);
        b.send([&say(id_b, 1, "whole"), &message[..message.len() - 1]].concat());
        a.expect(said(id_b, 1, "whole"));
        if abort {
            b.abort();
        } else {
            drop(b);
        }
        let mut b = server.connect();
        b.send(say(id_b, 1, "back"));
        a.expect(said(id_b, 1, "back"));
    }
    a.expect_nothing();
    server.stop();
}
