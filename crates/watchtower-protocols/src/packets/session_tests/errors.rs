//! What is refused, with which code, and what that ends ([packets: error codes]).

use super::*;

#[test]
fn a_byte_that_begins_no_packet_is_error_1_and_ends_the_connection() {
    let text = |byte: u8| format!("no packet begins with byte 0x{byte:02x}; expected one of RSJLMWFK");
    for byte in [0xff, b'r', b'Q', b'A', b'E', b' ', 0x16, b'{', b'7'] {
        let told = text(byte);
        check_error(Tower::new, &[], &[byte], 1, &told, false);
        check_error(Tower::new, &[b"R", &join(5, 1)], &[byte], 1, &told, false);
    }
}

#[test]
fn an_id_that_is_not_registered_is_error_2_whatever_names_it() {
    for id in [0, 6, u32::MAX] {
        for packet in [join(id, 1), leave(id, 1), say(id, 1, "x"), whisper(id, 1, &[5], "x")] {
            check_error(Tower::new, &[b"R", &join(5, 1)], &packet, 2, UNKNOWN, true);
        }
    }
}

#[test]
fn with_bind_ids_the_id_of_another_connection_is_error_2_until_that_is_gone() {
    let tower = Tower::with(Settings { bind_ids: true, ..Settings::default() });
    let (mut owner, id) = tower.joined();
    let mut other = tower.stream();
    for packet in [join(id, 1), leave(id, 1), say(id, 1, "x"), whisper(id, 1, &[id], "x")] {
        assert_eq!(other.send(&packet), error(2, ELSEWHERE), "{packet:?}");
    }
    let mut peer = tower.peer();
    assert_eq!(peer.send(&say(id, 1, "x")), error(2, ELSEWHERE));
    assert_eq!(owner.send(&say(id, 1, "mine")), said(id, 1, "mine"), "it has lost nothing");
    drop(owner);
    assert_eq!(other.send(&say(id, 1, "x")), said(id, 1, "x"));
}

#[test]
fn to_say_or_leave_where_one_has_not_joined_is_error_3() {
    for packet in [say(5, 2, "x"), whisper(5, 2, &[5], "x"), leave(5, 2)] {
        // Channel 2 is not there at all, then it is there without this sender.
        check_error(Tower::new, &[b"R", &join(5, 1)], &packet, 3, NOT_JOINED, true);
        let with_others = || {
            let tower = Tower::new();
            let mut other = tower.stream();
            assert_eq!(other.send(b"RR"), [ack(5), ack(6)].concat());
            assert_eq!(other.send(&join(6, 2)), ack(2));
            tower
        };
        check_error(with_others, &[], &packet, 3, NOT_JOINED, true);
    }
}

#[test]
fn a_length_above_the_limit_is_error_4_before_any_content_and_ends_the_connection() {
    for length in [65_536, 1 << 31, u32::MAX] {
        let text = format!("content of {length} bytes; at most 65535 are accepted");
        for header in [ids(b'M', 5, 1), [ids(b'W', 5, 1), vec![1, 0, 5, 0, 0, 0]].concat()] {
            let packet = [header, length.to_le_bytes().to_vec()].concat();
            check_error(Tower::new, &[b"R", &join(5, 1)], &packet, 4, &text, false);
        }
    }
}

#[test]
fn a_limit_that_is_reached_is_error_5() {
    let senders = || Tower::limited(Limits { senders_max: 2, ..Limits::default() });
    check_error(senders, &[b"RR"], b"R", 5, LIMIT, true);
    let channels_of_one = || Tower::limited(Limits { channels_per_sender_max: 2, ..Limits::default() });
    check_error(channels_of_one, &[b"R", &join(5, 1), &join(5, 2)], &join(5, 3), 5, LIMIT, true);
    let channels = || Tower::limited(Limits { channels_max: 1, ..Limits::default() });
    check_error(channels, &[b"R", &join(5, 1)], &join(5, 2), 5, LIMIT, true);
}

#[test]
fn what_was_joined_before_a_limit_was_reached_goes_on() {
    let tower = Tower::limited(Limits { channels_per_sender_max: 1, ..Limits::default() });
    let (mut client, id) = tower.joined();
    assert_eq!(client.send(&join(id, 2)), error(5, LIMIT));
    assert_eq!(client.send(&join(id, 1)), ack(1));
    assert_eq!(client.send(&[leave(id, 1), join(id, 2)].concat()), [ack(1), ack(2)].concat());
}

#[test]
fn a_receiver_that_has_not_joined_or_none_at_all_is_error_6() {
    let tower = || {
        let tower = Tower::new();
        let mut other = tower.stream();
        assert_eq!(other.send(b"RR"), [ack(5), ack(6)].concat());
        tower
    };
    for receivers in [&[][..], &[0], &[6], &[99], &[5, 6], &[5, 0], &[0, 99, 5]] {
        let packet = whisper(5, 1, receivers, "x");
        check_error(tower, &[&join(5, 1)], &packet, 6, NO_RECEIVER, true);
    }
}

#[test]
fn content_that_the_channel_does_not_accept_is_error_7() {
    let json = || Tower::accepting(Accepts::Json);
    for content in [&b"{"[..], b"", b"hello", b"{} {}", b"\xff"] {
        let packet = say(5, 1, content);
        check_error(json, &[b"R", &join(5, 1)], &packet, 7, BAD_CONTENT, true);
    }
    let text = || Tower::accepting(Accepts::Text);
    check_error(text, &[b"R", &join(5, 1)], &say(5, 1, b"\xff"), 7, BAD_CONTENT, true);
    check_error(text, &[b"R", &join(5, 1)], &whisper(5, 1, &[5], b"\xff"), 7, BAD_CONTENT, true);
}

#[test]
fn content_that_the_channel_accepts_is_kept_byte_for_byte() {
    // [model: projection]
    let tower = Tower::accepting(Accepts::Json);
    let (mut client, id) = tower.joined();
    for content in [r#" { "b" : 1.0e2, "a": "\u00e9" }"#, "null", "\"x\"", "[]"] {
        assert_eq!(client.send(&say(id, 1, content)), said(id, 1, content));
    }
    let tower = Tower::accepting(Accepts::Text);
    let (mut client, id) = tower.joined();
    for content in ["", "{}", "caf\u{e9}"] {
        assert_eq!(client.send(&say(id, 1, content)), said(id, 1, content));
    }
}

#[test]
fn who_falls_behind_too_far_is_told_error_8() {
    let tower = Tower::limited(Limits { lag_messages: 8, ..Limits::default() });
    let ((mut slow, _), (mut quick, id)) = (tower.joined(), tower.joined());
    // Four times the limit, for who had no turn yet.
    for _ in 0..40 {
        assert_eq!(quick.send(&say(id, 1, "x")), said(id, 1, "x"));
    }
    let mut batch = Batch::default();
    let drained = slow.session.session().drain(&PACKET_FORMAT, None, usize::MAX, &mut batch);
    assert_eq!((drained, batch.bytes), (Drained::Lagging, 0));
    let mut out = Vec::new();
    slow.session.lagging(&mut out);
    assert_eq!(out, error(8, "too far behind: read faster, or join again"));
}

#[test]
fn a_shutdown_delivers_what_was_published_and_says_error_8() {
    let tower = Tower::new();
    let ((mut a, id), (mut b, _)) = (tower.joined(), tower.joined());
    assert_eq!(a.send(&say(id, 1, "last")), said(id, 1, "last"));
    let mut out = Vec::new();
    b.session.shut_down(&mut out);
    assert_eq!(out, [said(id, 1, "last"), error(8, "the server shuts down")].concat());
}

#[test]
fn of_several_errors_the_first_of_4_2_3_7_6_is_told() {
    // [packets: rules]
    let tower = || {
        let tower = Tower::accepting(Accepts::Json);
        let mut other = tower.stream();
        assert_eq!(other.send(b"R"), ack(5));
        assert_eq!(other.send(&join(5, 1)), ack(1));
        tower
    };
    const BAD: &[u8] = b"not JSON";
    let large = |header: Vec<u8>| [header, 65_536u32.to_le_bytes().to_vec()].concat();
    let (too_large, one_receiver) =
        ("content of 65536 bytes; at most 65535 are accepted", [1, 0, 99, 0, 0, 0]);
    // Unknown, not joined, bad content, no receiver: all of it, then ever less.
    for (packet, code, text) in [
        (large([ids(b'W', 99, 2), one_receiver.to_vec()].concat()), 4, too_large),
        (large(ids(b'M', 99, 2)), 4, too_large),
        (large(ids(b'M', 5, 2)), 4, too_large),
        (whisper(99, 2, &[99], BAD), 2, UNKNOWN),
        (say(99, 2, BAD), 2, UNKNOWN),
        (whisper(5, 2, &[99], BAD), 3, NOT_JOINED),
        (whisper(5, 2, &[], BAD), 3, NOT_JOINED),
        (say(5, 2, BAD), 3, NOT_JOINED),
        (whisper(5, 1, &[99], BAD), 7, BAD_CONTENT),
        (whisper(5, 1, &[], BAD), 7, BAD_CONTENT),
        (whisper(5, 1, &[99], "{}"), 6, NO_RECEIVER),
        (whisper(5, 1, &[0], "{}"), 6, NO_RECEIVER),
    ] {
        check_error(tower, &[], &packet, code, text, code != 4);
    }
}

#[test]
fn what_is_refused_is_delivered_to_nobody() {
    // [model: delivery promises]
    let tower = Tower::new();
    let ((mut a, id_a), (b, id_b)) = (tower.joined(), tower.joined());
    for packet in [say(99, 1, "x"), say(id_a, 2, "x"), whisper(id_a, 1, &[id_b, 99], "x")] {
        assert_eq!(a.send(&packet)[0], b'E', "{packet:?}");
        assert_eq!(b.hears(), b"");
    }
}

#[test]
fn the_texts_of_errors_are_short_and_printable() {
    for text in [
        UNKNOWN,
        ELSEWHERE,
        NOT_JOINED,
        NO_RECEIVER,
        BAD_CONTENT,
        LIMIT,
        TOO_LARGE_UDP,
        UNKNOWN_UDP,
        PARTIAL_UDP,
        DISK,
        AGAIN,
    ] {
        assert!(text.len() <= ERROR_TEXT_BYTES_MAX && text.is_ascii(), "{text}");
    }
}
