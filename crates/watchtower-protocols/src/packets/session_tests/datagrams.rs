//! The same over UDP ([packets: rules, UDP]).

use super::*;

#[test]
fn a_datagram_holds_one_or_more_whole_packets() {
    let tower = Tower::new();
    let mut peer = tower.peer();
    assert_eq!(peer.send(b"R"), ack(5));
    let packets = [join(5, 1), say(5, 1, "1"), b"\0\r\n".to_vec(), say(5, 1, "2"), b"K".to_vec()];
    assert_eq!(peer.send(&packets.concat()), [ack(1), ack(0)].concat());
    assert_eq!(peer.hears(), [said(5, 1, "1"), said(5, 1, "2")].concat());
}

#[test]
fn the_documented_example_works_over_udp() {
    let tower = Tower::new();
    let mut peer = tower.peer();
    assert_eq!(peer.send(b"R\n"), ack(5));
    assert_eq!(peer.send(&join(5, 1)), ack(1));
    assert_eq!(peer.send(&say(5, 1, "helloworld")), b"");
    assert_eq!(peer.hears(), said(5, 1, "helloworld"));
}

#[test]
fn of_a_datagram_that_ends_within_a_packet_the_whole_ones_are_carried_out() {
    let packet = say(5, 1, "never");
    for length in 1..packet.len() {
        let tower = Tower::new();
        let mut peer = tower.peer();
        let _ = peer.send(b"R");
        let _ = peer.send(&join(5, 1));
        let datagram = [&say(5, 1, "whole"), &packet[..length]].concat();
        assert_eq!(peer.send(&datagram), error(1, PARTIAL_UDP));
        assert_eq!(peer.hears(), said(5, 1, "whole"));
        // A next datagram is not the rest of the last.
        assert_eq!(peer.send(b"K"), ack(0));
    }
}

#[test]
fn an_empty_datagram_and_one_of_padding_are_ignored() {
    let tower = Tower::new();
    let mut peer = tower.peer();
    for datagram in [&b""[..], b"\0", b"\r\n\0\0"] {
        assert_eq!(peer.send(datagram), b"");
    }
}

#[test]
fn a_datagram_that_cannot_be_read_on_is_answered_once_and_the_rest_ignored() {
    let tower = Tower::new();
    let mut peer = tower.peer();
    let id = peer.registers();
    assert_eq!(peer.send(&join(id, 1)), ack(1));
    assert_eq!(peer.send(b"K?KKKK"), [ack(0), error(1, UNKNOWN_UDP)].concat());
    let large = [ids(b'M', 5, 1), u32::MAX.to_le_bytes().to_vec()].concat();
    assert_eq!(peer.send(&[large, b"KK".to_vec()].concat()), error(4, TOO_LARGE_UDP));
    assert_eq!(peer.send(b"K"), ack(0), "a peer is not closed");
}

#[test]
fn every_error_is_answered_over_udp_as_over_tcp() {
    let tower = Tower::accepting(Accepts::Json);
    let mut peer = tower.peer();
    let _ = peer.send(b"R");
    let _ = peer.send(&join(5, 1));
    for (packet, code, text) in [
        (say(99, 1, "{}"), 2, UNKNOWN),
        (say(0, 1, "{}"), 2, UNKNOWN),
        (say(5, 2, "{}"), 3, NOT_JOINED),
        (leave(5, 2), 3, NOT_JOINED),
        (b"S\x01x".to_vec(), 5, "wrong secret"),
        (follow(99, 1, 0), 2, UNKNOWN),
        (whisper(5, 1, &[99], "{}"), 6, NO_RECEIVER),
        (say(5, 1, "{"), 7, BAD_CONTENT),
    ] {
        assert_eq!(peer.send(&packet), error(code, text));
    }
}

#[test]
fn a_new_address_takes_an_id_along() {
    // NAT rebinding.
    let tower = Tower::new();
    let (mut a, id_a) = tower.joined();
    let mut old = tower.peer();
    let id = old.registers();
    assert_eq!(old.send(&join(id, 1)), ack(1));
    let mut new = tower.peer();
    assert!(!new.0.is_registered());
    assert_eq!(new.send(&say(id, 1, "moved")), b"");
    assert!(new.0.is_registered() && !old.0.is_registered());
    assert_eq!(a.hears(), said(id, 1, "moved"));
    assert_eq!(a.send(&say(id_a, 1, "here")), said(id_a, 1, "here"));
    assert_eq!(old.hears(), b"");
    assert_eq!(new.hears(), [said(id, 1, "moved"), said(id_a, 1, "here")].concat());
}

#[test]
fn an_id_moves_between_a_connection_and_an_address() {
    let tower = Tower::new();
    let (mut a, id_a) = tower.joined();
    let (stream, id) = tower.joined();
    let mut peer = tower.peer();
    assert_eq!(peer.send(&join(id, 1)), ack(1));
    assert_eq!(a.send(&say(id_a, 1, "1")), said(id_a, 1, "1"));
    assert_eq!((stream.hears(), peer.hears()), (vec![], said(id_a, 1, "1")));
    let mut stream = stream;
    assert_eq!(stream.send(&join(id, 1)), ack(1));
    assert_eq!(a.send(&say(id_a, 1, "2")), said(id_a, 1, "2"));
    assert_eq!((stream.hears(), peer.hears()), (said(id_a, 1, "2"), vec![]));
}

#[test]
fn the_acknowledgement_of_a_leave_follows_the_last_message_over_udp_too() {
    // [packets: rules] "`A` for a leave follows its last."
    let tower = Tower::new();
    let (mut other, other_id) = tower.joined();
    let mut peer = tower.peer();
    let id = peer.registers();
    assert_eq!(peer.send(&join(id, 1)), ack(1));
    let _ = other.send(&[say(other_id, 1, "1"), whisper(other_id, 1, &[id], "2")].concat());
    let last = [said(other_id, 1, "1"), whispered(other_id, 1, "2"), ack(1)].concat();
    assert_eq!(peer.send(&leave(id, 1)), last);
    assert_eq!(peer.hears(), b"");
    // What it missed at its old address comes to the new one, which shows the id.
    assert_eq!(peer.send(&join(id, 1)), ack(1));
    let _ = other.send(&say(other_id, 1, "3"));
    let mut moved = tower.peer();
    assert_eq!(moved.send(&leave(id, 1)), [said(other_id, 1, "3"), ack(1)].concat());
    // A refusal delivers nothing to whom nothing is known of.
    assert_eq!(tower.peer().send(&leave(99, 1)), error(2, UNKNOWN));
}

#[test]
fn a_peer_that_falls_behind_skips_ahead() {
    let tower = Tower::limited(Limits { lag_messages: 8, ..Limits::default() });
    let (mut quick, id) = tower.joined();
    let mut peer = tower.peer();
    let other = peer.registers();
    assert_eq!(peer.send(&join(other, 1)), ack(1));
    for number in 0..20 {
        let text = number.to_string();
        assert_eq!(quick.send(&say(id, 1, &text)), said(id, 1, &text));
    }
    let kept: Vec<u8> = (12..20).flat_map(|number| said(id, 1, number.to_string())).collect();
    assert_eq!(peer.hears(), kept, "the last ones, and it goes on");
    assert_eq!(quick.send(&say(id, 1, "next")), said(id, 1, "next"));
    assert_eq!(peer.hears(), said(id, 1, "next"));
    assert_eq!(tower.hub.counts().lagging_skipped, 12, "nothing is dropped silently");
}

#[test]
fn to_an_unregistered_address_an_answer_is_one_packet_or_no_longer_than_the_datagram() {
    let tower = Tower::new();
    let answered = |datagram: &[u8]| tower.peer().send(datagram);
    assert_eq!(answered(b"KKKK"), ack(0), "a second one would make it longer");
    assert_eq!(answered(b"RRRR").len(), 5);
    // Ten bytes may be answered with ten.
    assert_eq!(answered(&[b'K'; 10]), ack(0).repeat(2));
    assert_eq!(answered(b"?"), error(1, UNKNOWN_UDP));
    assert_eq!(answered(&join(99, 1).repeat(2)), error(2, UNKNOWN));
    // 14 + 3 bytes each, in four times nine.
    assert_eq!(answered(&join(99, 1).repeat(4)), error(2, UNKNOWN).repeat(2));
}

#[test]
fn what_a_server_says_is_not_answered() {
    // Whoever makes up the address of another server, or of this one, would have the two answer
    // each other without end.
    let tower = Tower::new();
    let other = Tower::new();
    for request in [&b"K"[..], b"?", b"J", b"R", b"S\0", &join(99, 1), &say(99, 1, "x")] {
        let said = other.peer().send(request);
        assert!(!said.is_empty());
        assert_eq!(tower.peer().send(&said), b"", "{}", said.escape_ascii());
    }
    let mut peer = tower.peer();
    let id = peer.registers();
    assert_eq!(peer.send(&join(id, 1)), ack(1));
    assert_eq!(
        peer.send(&[b"K".to_vec(), error(1, UNKNOWN_UDP)].concat()),
        ack(0),
        "nor to who has shown an id"
    );
    assert_eq!(tower.options.errors.unanswered(), 8, "and it is counted");
}

#[test]
fn a_registration_alone_proves_nothing_about_an_address() {
    // Whoever makes up an address does not hear the id.
    let tower = Tower::new();
    let mut peer = tower.peer();
    let id = peer.registers();
    assert!(!peer.0.is_registered());
    assert_eq!(peer.send(&[b'K'; 9]), ack(0));
    assert_eq!(peer.send(&[join(0, 1), b"KK".to_vec()].concat()), error(2, UNKNOWN));
    assert_eq!(peer.send(&[follow(0, 1, 0), b"KK".to_vec()].concat()), error(2, UNKNOWN));
    assert!(!peer.0.is_registered());
    assert_eq!(peer.send(&join(id, 1)), ack(1));
    assert!(peer.0.is_registered());
    assert_eq!(peer.send(&[b'K'; 9]), ack(0).repeat(9));
}

#[test]
fn a_registration_that_could_not_be_answered_is_not_made() {
    let tower = Tower::new();
    let mut peer = tower.peer();
    assert_eq!(peer.send(&[b'R'; 1_000]).len(), 1_000);
    assert_eq!(tower.hub.counts().senders, 200);
}
