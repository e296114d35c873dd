//! Packets on durable channels: what is answered when, and following.

use std::task::{Context, Poll, Waker};

use watchtower_hub::NotKept;

use super::super::frame::encode_incomplete;
use super::super::{ErrorCode, Transport};
use super::*;

impl Stream {
    /// What the client is told once this much was kept or refused, with what is
    /// delivered to it after that.
    fn answers(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let cx = &mut Context::from_waker(Waker::noop());
        let _: Poll<()> = self.session.poll_answered(cx, NOW, &mut out);
        out.extend(self.send(b""));
        out
    }
}

fn failed() -> NotKept {
    NotKept::Failed("no space left on device".into())
}

#[test]
fn a_message_that_is_kept_is_its_own_answer() {
    let shelf = Shelf::default();
    let (mut client, id) = Tower::keeping(&shelf).joined();
    assert_eq!(client.send(&say(id, 1, "a")), b"");
    shelf.keep();
    assert_eq!(client.answers(), said(id, 1, "a"));
}

#[test]
fn many_messages_are_under_way_at_once_and_a_refusal_is_told_in_its_place() {
    let shelf = Shelf::default();
    let (mut client, id) = Tower::keeping(&shelf).joined();
    let packets = ["a", "b", "c"].map(|text| say(id, 1, text)).concat();
    assert_eq!(client.send_slowly(&packets), b"");
    assert_eq!(shelf.waiting(), 3);
    shelf.keep();
    shelf.refuse(failed());
    shelf.keep();
    assert_eq!(client.answers(), [error(5, DISK), error(8, AGAIN), said(id, 1, "a")].concat());
    assert!(!client.is_closed);
}

#[test]
fn what_a_client_says_behind_a_message_waits_until_that_is_answered() {
    let shelf = Shelf::default();
    let tower = Tower::keeping(&shelf);
    let (mut client, id) = tower.joined();
    let packets = [say(id, 1, "a"), b"K".to_vec(), say(id, 1, "b"), b"?".to_vec()].concat();
    assert_eq!(client.send(&packets), b"");
    assert!(client.session.is_waiting());
    assert_eq!((shelf.waiting(), client.session.patience()), (1, None));
    shelf.refuse(failed());
    assert_eq!(client.answers(), [error(5, DISK), ack(0)].concat());
    assert_eq!(shelf.waiting(), 1);
    shelf.keep();
    // What was published is delivered before the error that closes.
    let last = client.answers();
    assert!(last.starts_with(&[said(id, 1, "b"), b"E\x01".to_vec()].concat()), "{last:?}");
    assert!(client.is_closed);
}

#[test]
fn no_more_than_a_thousand_messages_of_a_client_are_under_way() {
    let shelf = Shelf::default();
    let (mut client, id) = Tower::keeping(&shelf).joined();
    assert_eq!(client.send(&say(id, 1, "x").repeat(2_000)), b"");
    assert_eq!((shelf.waiting(), client.session.is_waiting()), (1024, true));
    shelf.keep_all();
    assert_eq!(client.answers(), said(id, 1, "x").repeat(1024));
    shelf.keep_all();
    assert_eq!(client.answers(), said(id, 1, "x").repeat(2_000 - 1024));
}

#[test]
fn a_channel_is_followed_from_an_offset_on() {
    let shelf = Shelf::default();
    let (mut client, id) = Tower::keeping(&shelf).joined();
    assert_eq!(client.send(&["a", "b", "c"].map(|text| say(id, 1, text)).concat()), b"");
    shelf.keep_all();
    assert_eq!(client.answers(), ["a", "b", "c"].map(|text| said(id, 1, text)).concat());
    // Where it has joined, too; and after a restart, from disk.
    assert_eq!(client.send(&follow(id, 1, 1)), [ack(1), said(id, 1, "b"), said(id, 1, "c")].concat());
    let tower = Tower::keeping(&shelf);
    let (mut client, new) = tower.registered();
    assert_eq!(client.send(&follow(new, 1, 0)), ack(1));
    shelf.read();
    assert_eq!(client.hears(), ["a", "b", "c"].map(|text| said(id, 1, text)).concat());
    assert_eq!(client.send(&say(new, 1, "d")), b"");
    shelf.keep();
    assert_eq!(client.answers(), said(new, 1, "d"));
    assert_eq!(client.send(&follow(new, 1, 4)), ack(1));
}

#[test]
fn two_ids_of_a_connection_that_follow_a_channel_get_one_copy() {
    let shelf = Shelf::default();
    let tower = Tower::keeping(&shelf);
    let (mut client, first) = tower.joined();
    let second = client.registers();
    assert_eq!(client.send(&[say(first, 1, "a"), say(first, 1, "b")].concat()), b"");
    shelf.keep_all();
    let _ = client.answers();
    assert_eq!(client.send(&follow(second, 1, 1)), [ack(1), said(first, 1, "b")].concat());
    assert_eq!(client.send(&whisper(second, 1, &[first, second], "c")), b"");
    shelf.keep_all();
    assert_eq!(client.answers(), whispered(second, 1, "c"));
}

#[test]
fn a_channel_that_nothing_is_kept_of_is_followed_from_now_on() {
    let tower = Tower::new();
    let (mut client, id) = tower.joined();
    assert_eq!(client.send(&say(id, 1, "a")), said(id, 1, "a"));
    assert_eq!(client.send(&follow(id, 1, 0)), [ack(1), goes_on(1, 1)].concat());
    assert_eq!(client.send(&follow(id, 1, 1)), ack(1), "nothing is missing");
    assert_eq!(client.send(&say(id, 1, "b")), said(id, 1, "b"));
    // What was not delivered yet comes all the same.
    let packets = [say(id, 1, "c"), follow(id, 1, 9)].concat();
    assert_eq!(client.send(&packets), [ack(1), goes_on(1, 2), said(id, 1, "c")].concat());
    // A channel that nobody had been in yet, and one that is gone.
    assert_eq!(client.send(&follow(id, 2, 0)), ack(2));
    assert_eq!(client.send(&follow(id, 3, 7)), [ack(3), goes_on(3, 0)].concat());
    assert_eq!(tower.options.errors.get(Transport::Tcp, ErrorCode::Incomplete), 3);
}

#[test]
fn who_follows_over_udp_is_told_behind_the_acknowledgement_that_not_all_is_kept() {
    let tower = Tower::new();
    let mut peer = tower.peer();
    let id = peer.registers();
    assert_eq!(peer.send(&join(id, 1)), ack(1));
    assert_eq!((peer.send(&say(id, 1, "a")), peer.hears()), (Vec::new(), said(id, 1, "a")));
    let mut datagrams = Vec::new();
    peer.0.receive(&follow(id, 1, 0), NOW, |datagram| datagrams.push(datagram));
    assert_eq!(datagrams, [ack(1), goes_on(1, 1)]);
    // An address that has not shown an id before is told, too.
    let mut elsewhere = tower.peer();
    assert_eq!(elsewhere.send(&follow(id, 1, 0)), [ack(1), goes_on(1, 1)].concat());
}

/// The last number of all fits into the text.
#[test]
fn the_longest_word_of_where_a_channel_goes_on_is_not_cut_off() {
    let text = "channel 4294967295 goes on after 18446744073709551615";
    let mut packet = Vec::new();
    encode_incomplete(&mut packet, &u32::MAX.into(), u64::MAX);
    assert_eq!(packet, error(9, text));
}

#[test]
fn over_udp_a_refusal_comes_when_it_is_known_and_what_follows_does_not_wait() {
    let shelf = Shelf::default();
    let tower = Tower::keeping(&shelf);
    let mut peer = tower.peer();
    let id = peer.registers();
    assert_eq!(peer.send(&join(id, 1)), ack(1));
    assert_eq!(peer.send(&[say(id, 1, "a"), b"K".to_vec(), say(id, 1, "b")].concat()), ack(0));
    assert!(peer.0.has_unanswered());
    shelf.keep();
    shelf.refuse(failed());
    let mut answers = Vec::new();
    peer.0.answer(Waker::noop(), |packet| answers.extend_from_slice(&packet));
    assert_eq!((answers, peer.hears()), (error(5, DISK), said(id, 1, "a")));
    assert!(!peer.0.has_unanswered());
    // Datagrams are not kept back: what is too much is refused.
    let many = peer.send(&say(id, 1, "x").repeat(1_025));
    assert_eq!((shelf.waiting(), many), (1024, error(8, "too many messages wait to be kept")));
}
