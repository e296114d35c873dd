//! The order of what a connection is told, and whose it is ([packets: rules]).

use super::*;

#[test]
fn cr_lf_and_nul_between_packets_are_skipped() {
    check(Tower::new, b"R\n", &ack(5), true);
    check(Tower::new, b"\r\n\0R\0\0\0\0", &ack(5), true);
    let input = [b"\0R\r\n".to_vec(), join(5, 1), b"\0\0\0".to_vec(), say(5, 1, "\0\n"), b"\n".to_vec()];
    check(Tower::new, &input.concat(), &[ack(5), ack(1), said(5, 1, "\0\n")].concat(), true);
}

#[test]
fn endless_padding_is_done_with_at_once() {
    let tower = Tower::new();
    let mut client = tower.stream();
    assert_eq!(client.send(&[0; 65_536]), b"");
    assert_eq!(client.partial, b"");
    assert!(client.session.patience().is_some(), "padding is not what a client must say first");
}

#[test]
fn padding_before_half_a_packet_is_not_kept() {
    let tower = Tower::new();
    let mut client = tower.stream();
    assert_eq!(client.send(&[&[0; 60_000][..], b"J"].concat()), b"");
    assert!(client.partial == b"J", "each byte that follows would be searched for from the start");
}

#[test]
fn the_acknowledgement_of_a_join_precedes_the_first_message() {
    check(
        Tower::new,
        &[b"R".to_vec(), join(5, 1), say(5, 1, "x")].concat(),
        &[ack(5), ack(1), said(5, 1, "x")].concat(),
        true,
    );
}

#[test]
fn a_join_starts_at_the_end_of_the_channel() {
    let tower = Tower::new();
    let (mut a, id_a) = tower.joined();
    assert_eq!(a.send(&say(id_a, 1, "before")), said(id_a, 1, "before"));
    let (b, _) = tower.joined();
    assert_eq!(a.send(&say(id_a, 1, "after")), said(id_a, 1, "after"));
    assert_eq!(b.hears(), said(id_a, 1, "after"));
}

#[test]
fn joining_twice_changes_nothing() {
    let tower = Tower::new();
    let (mut client, id) = tower.joined();
    let packets = [say(id, 1, "1"), join(id, 1), say(id, 1, "2")].concat();
    assert_eq!(client.send(&packets), [ack(1), said(id, 1, "1"), said(id, 1, "2")].concat());
}

#[test]
fn the_acknowledgement_of_a_leave_follows_the_last_message() {
    let tower = Tower::new();
    let ((mut a, id_a), (mut b, id_b)) = (tower.joined(), tower.joined());
    assert_eq!(a.send(&say(id_a, 1, "last")), said(id_a, 1, "last"));
    assert_eq!(b.send(&leave(id_b, 1)), [said(id_a, 1, "last"), ack(1)].concat());
    assert_eq!(a.send(&say(id_a, 1, "later")), said(id_a, 1, "later"));
    assert_eq!(b.hears(), b"");
    // In one read with what it says itself, too.
    let packets = [say(id_a, 1, "bye"), leave(id_a, 1), say(id_a, 1, "x")].concat();
    assert_eq!(a.send(&packets), [said(id_a, 1, "bye"), ack(1), error(3, NOT_JOINED)].concat());
}

#[test]
fn a_leave_from_a_new_connection_is_acknowledged_after_what_was_missed() {
    let tower = Tower::new();
    let ((mut a, id_a), (b, id_b)) = (tower.joined(), tower.joined());
    drop(b);
    assert_eq!(a.send(&say(id_a, 1, "missed")), said(id_a, 1, "missed"));
    let mut b = tower.stream();
    assert_eq!(b.send(&leave(id_b, 1)), [said(id_a, 1, "missed"), ack(1)].concat());
}

#[test]
fn joining_again_after_a_leave_starts_at_the_end() {
    let tower = Tower::new();
    let ((mut a, id_a), (mut b, id_b)) = (tower.joined(), tower.joined());
    assert_eq!(b.send(&leave(id_b, 1)), ack(1));
    assert_eq!(a.send(&say(id_a, 1, "unheard")), said(id_a, 1, "unheard"));
    assert_eq!(b.send(&join(id_b, 1)), ack(1));
    assert_eq!(b.hears(), b"");
}

#[test]
fn what_was_published_before_a_packet_that_closes_is_delivered_before_the_error() {
    let tower = Tower::new();
    let ((mut a, id_a), (mut b, id_b)) = (tower.joined(), tower.joined());
    assert_eq!(a.send(&say(id_a, 1, "of another")), said(id_a, 1, "of another"));
    let out = b.send(&[say(id_b, 1, "its own"), b"?".to_vec(), say(id_b, 1, "never")].concat());
    let told = error(1, "no packet begins with byte 0x3f; expected one of RSJLMWFK");
    assert_eq!(out, [said(id_a, 1, "of another"), said(id_b, 1, "its own"), told].concat());
    assert!(b.is_closed);
    assert_eq!(a.hears(), said(id_b, 1, "its own"), "what follows the packet is not carried out");
}

#[test]
fn who_lags_is_told_of_what_closes_the_connection_all_the_same() {
    let lagging = || {
        let tower = Tower::limited(Limits { lag_messages: 8, ..Limits::default() });
        let ((slow, id), (mut quick, other)) = (tower.joined(), tower.joined());
        for _ in 0..40 {
            assert_eq!(quick.send(&say(other, 1, "x")), said(other, 1, "x"));
        }
        (tower, slow, id)
    };
    let (_tower, mut slow, _) = lagging();
    assert_eq!(slow.send(b"?"), error(1, "no packet begins with byte 0x3f; expected one of RSJLMWFK"));
    let (_tower, mut slow, id) = lagging();
    assert_eq!(slow.send(&leave(id, 1)), error(8, "too far behind: read faster, or join again"));
    assert!(slow.is_closed);
    let (_tower, mut slow, _) = lagging();
    let mut out = Vec::new();
    slow.session.shut_down(&mut out);
    assert_eq!(out, error(8, "the server shuts down"));
}

#[test]
fn one_connection_may_use_every_id_that_it_registered() {
    let tower = Tower::new();
    let (mut client, id) = tower.joined();
    let second = client.registers();
    assert_ne!(id, second);
    assert_eq!(client.send(&join(second, 2)), ack(2));
    assert_eq!(client.send(&say(id, 1, "1")), said(id, 1, "1"));
    assert_eq!(client.send(&say(second, 2, "2")), said(second, 2, "2"));
    // Each has joined its own channel only.
    assert_eq!(client.send(&say(id, 2, "x")), error(3, NOT_JOINED));
}

#[test]
fn two_ids_of_one_connection_in_one_channel_are_one_copy() {
    let tower = Tower::new();
    let ((mut a, id_a), (mut b, first)) = (tower.joined(), tower.joined());
    let second = b.registers();
    assert_eq!(b.send(&join(second, 1)), ack(1));
    assert_eq!(a.send(&say(id_a, 1, "once")), said(id_a, 1, "once"));
    assert_eq!(b.hears(), said(id_a, 1, "once"));
    assert_eq!(a.send(&whisper(id_a, 1, &[first, second], "psst")), b"");
    assert_eq!(b.hears(), whispered(id_a, 1, "psst"));
    // When one of them leaves, the other goes on.
    assert_eq!(b.send(&leave(first, 1)), ack(1));
    assert_eq!(a.send(&say(id_a, 1, "more")), said(id_a, 1, "more"));
    assert_eq!(b.hears(), said(id_a, 1, "more"));
    assert_eq!(a.send(&whisper(id_a, 1, &[first], "gone")), error(6, NO_RECEIVER));
    assert_eq!(b.send(&leave(second, 1)), ack(1));
    assert_eq!(a.send(&say(id_a, 1, "unheard")), said(id_a, 1, "unheard"));
    assert_eq!(b.hears(), b"");
}

#[test]
fn whatever_names_an_id_moves_its_delivery_to_that_connection() {
    for attach in [|id| join(id, 2), |id| say(id, 1, "x"), |id| leave(id, 2), |id| whisper(id, 1, &[id], "x")]
    {
        let tower = Tower::new();
        let ((mut a, id_a), (mut b, id)) = (tower.joined(), tower.joined());
        assert_eq!(b.send(&join(id, 2)), ack(2));
        let mut moved = tower.stream();
        let _ = moved.send(&attach(id));
        let _ = a.hears();
        assert_eq!(a.send(&say(id_a, 1, "here")), said(id_a, 1, "here"));
        assert_eq!(b.hears(), b"", "delivery moves to the newest");
        assert_eq!(moved.hears(), said(id_a, 1, "here"));
    }
}

#[test]
fn what_a_connection_has_not_been_given_yet_moves_with_the_id() {
    let tower = Tower::new();
    let ((mut a, id_a), (b, id_b)) = (tower.joined(), tower.joined());
    assert_eq!(a.send(&say(id_a, 1, "1")), said(id_a, 1, "1"));
    assert_eq!(b.hears(), said(id_a, 1, "1"));
    assert_eq!(a.send(&say(id_a, 1, "2")), said(id_a, 1, "2"));
    let mut newer = tower.stream();
    assert_eq!(newer.send(&join(id_b, 1)), [ack(1), said(id_a, 1, "2")].concat());
    assert_eq!(b.hears(), b"");
}

#[test]
fn a_keep_alive_or_a_registration_moves_no_id() {
    let tower = Tower::new();
    let ((mut a, id_a), (b, _)) = (tower.joined(), tower.joined());
    let mut other = tower.stream();
    let _ = other.send(b"KR");
    assert_eq!(a.send(&say(id_a, 1, "here")), said(id_a, 1, "here"));
    assert_eq!(b.hears(), said(id_a, 1, "here"));
    assert_eq!(other.hears(), b"");
}

#[test]
fn a_join_survives_a_reconnect_with_what_was_missed_meanwhile() {
    let tower = Tower::new();
    let ((mut a, id_a), (b, id_b)) = (tower.joined(), tower.joined());
    drop(b);
    let packets = [say(id_a, 1, "1"), whisper(id_a, 1, &[id_b], "2"), say(id_a, 1, "3")].concat();
    assert_eq!(a.send(&packets), [said(id_a, 1, "1"), said(id_a, 1, "3")].concat());
    let missed = [said(id_a, 1, "1"), whispered(id_a, 1, "2"), said(id_a, 1, "3")].concat();
    let mut b = tower.stream();
    assert_eq!(b.send(&join(id_b, 1)), [ack(1), missed].concat());
}

#[test]
fn after_session_ttl_a_join_is_over() {
    let tower = Tower::with(Settings { session_ttl: Duration::from_secs(120), ..Settings::default() });
    tower.hub.tick(NOW);
    let ((mut a, id_a), (b, id_b)) = (tower.joined(), tower.joined());
    drop(b);
    tower.hub.tick(NOW.after(Duration::from_secs(119)));
    assert_eq!(a.send(&whisper(id_a, 1, &[id_b], "1")), b"", "it is still there");
    tower.hub.tick(NOW.after(Duration::from_secs(121)));
    assert_eq!(a.send(&whisper(id_a, 1, &[id_b], "2")), error(6, NO_RECEIVER));
    let mut b = tower.stream();
    assert_eq!(b.send(&say(id_b, 1, "x")), error(3, NOT_JOINED));
    assert_eq!(b.send(&join(id_b, 1)), ack(1), "the registration outlives the join");
}

#[test]
fn a_client_owes_its_first_packet_and_the_rest_of_one_it_has_begun() {
    // [running: header_timeout]
    let tower = Tower::new();
    let mut client = tower.stream();
    let patience = Some(Duration::from_secs(10));
    assert_eq!(client.session.patience(), patience);
    let _ = client.send(b"\r\n");
    assert_eq!(client.session.patience(), patience);
    let _ = client.send(b"R");
    assert_eq!(client.session.patience(), None);
    let _ = client.send(b"\0");
    assert_eq!(client.session.patience(), None);
    let _ = client.send(b"J\x05");
    assert_eq!(client.session.patience(), patience);
    let mut out = Vec::new();
    assert_eq!(client.session.out_of_patience(Timestamp::default(), &mut out), Err(Close));
    assert_eq!(out, error(5, "nothing came, or half a packet, for too long"));
}
