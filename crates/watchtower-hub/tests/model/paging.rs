//! Pages of what a channel keeps ([http: channels/history]).

use proptest::prelude::*;
use watchtower_hub::{
    ChannelRule, Epoch, History, HistoryQuery, Hub, NotRead, Position, SenderId, Settings, Soon, Span,
    Timestamp,
};

use crate::support::{Client, NOW, five, hub_with, joined, say, text};

/// A hub whose channel 5 keeps so many messages, and who publishes there.
fn keeping(history_messages: usize) -> (Hub, Client, SenderId) {
    let rule = ChannelRule { history_messages, ..ChannelRule::default() };
    let hub = hub_with(Settings { channels: vec![rule], ..Settings::default() });
    let (client, from) = joined(&hub);
    (hub, client, from)
}

fn say_directly(hub: &Hub, from: SenderId) {
    hub.publish(&five(), text(from, "d").to(&[from.get()]), NOW).unwrap();
}

fn position(hub: &Hub, offset: u64) -> Position {
    Position { epoch: hub.epoch(&five()).unwrap(), offset }
}

/// A page that is there at once, as from all channels that are not durable.
pub(crate) fn known(history: Option<Soon<History, NotRead>>) -> History {
    history.expect("there is a channel").now().expect("nothing is waited for").expect("it is read")
}

fn page(hub: &Hub, span: Span, messages_max: usize) -> History {
    known(hub.history(&five(), &HistoryQuery { span, messages_max, bytes_max: u64::MAX }, NOW))
}

pub(crate) fn offsets(history: &History) -> Vec<u64> {
    history.entries.iter().map(|entry| entry.position().offset).collect()
}

/// The offsets of all that channel 5 keeps.
pub(crate) fn kept(hub: &Hub, now: Timestamp) -> Vec<u64> {
    let all = HistoryQuery { span: Span::Last, messages_max: usize::MAX, bytes_max: u64::MAX };
    offsets(&known(hub.history(&five(), &all, now)))
}

/// The offsets, from where to where, whether it is what was asked for, and
/// whether there is more before and after.
#[track_caller]
fn check(history: &History, expected: &[u64], covers: (u64, u64), recovered: bool, more: (bool, bool)) {
    assert_eq!(offsets(history), expected);
    assert_eq!((history.first, history.last), covers);
    assert_eq!(history.recovered, recovered);
    assert_eq!((history.more_before, history.more_after), more);
}

#[test]
fn a_page_says_what_it_covers_and_whether_there_is_more_on_either_side() {
    let (hub, _client, from) = keeping(4);
    for _ in 0..6 {
        say(&hub, from, "x");
    }
    let at = |offset| position(&hub, offset);
    check(&page(&hub, Span::Last, 2), &[5, 6], (5, 6), true, (true, false));
    check(&page(&hub, Span::Last, 9), &[3, 4, 5, 6], (3, 6), true, (false, false));
    check(&page(&hub, Span::Last, 0), &[], (7, 6), true, (true, false));
    check(&page(&hub, Span::After(at(3)), 2), &[4, 5], (4, 5), true, (true, true));
    check(&page(&hub, Span::After(at(2)), 9), &[3, 4, 5, 6], (3, 6), true, (false, false));
    check(&page(&hub, Span::After(at(6)), 9), &[], (7, 6), true, (true, false));
    check(&page(&hub, Span::After(at(4)), 0), &[], (5, 4), true, (true, true));
    check(&page(&hub, Span::Before(at(6)), 2), &[4, 5], (4, 5), true, (true, true));
    check(&page(&hub, Span::Before(at(7)), 9), &[3, 4, 5, 6], (3, 6), true, (false, false));
    check(&page(&hub, Span::Before(at(4)), 9), &[3], (3, 3), true, (false, true));
}

#[test]
fn a_position_that_is_not_kept_is_said_and_answered_with_what_is() {
    let (hub, _client, from) = keeping(2);
    for _ in 0..4 {
        say(&hub, from, "x");
    }
    let at = |offset| position(&hub, offset);
    check(&page(&hub, Span::After(at(1)), 1), &[3], (3, 3), false, (false, true));
    check(&page(&hub, Span::After(at(5)), 1), &[3], (3, 3), false, (false, true));
    check(&page(&hub, Span::After(at(u64::MAX)), 1), &[3], (3, 3), false, (false, true));
    check(&page(&hub, Span::Before(at(3)), 9), &[], (3, 2), false, (false, true));
    check(&page(&hub, Span::Before(at(2)), 9), &[], (2, 1), false, (false, true));
    check(&page(&hub, Span::Before(at(6)), 1), &[4], (4, 4), false, (true, false));
    let nowhere = Position { epoch: Epoch::from_bits(1), offset: 3 };
    check(&page(&hub, Span::After(nowhere), 9), &[3, 4], (3, 4), false, (false, false));
    check(&page(&hub, Span::Before(nowhere), 1), &[4], (4, 4), false, (true, false));
}

#[test]
fn before_the_first_message_nothing_is_missing() {
    let (hub, _client, from) = keeping(9);
    let at = |offset| position(&hub, offset);
    check(&page(&hub, Span::Last, 9), &[], (1, 0), true, (false, false));
    check(&page(&hub, Span::After(at(0)), 9), &[], (1, 0), true, (false, false));
    say(&hub, from, "x");
    check(&page(&hub, Span::Before(at(1)), 9), &[], (1, 0), true, (false, true));
    check(&page(&hub, Span::Before(at(0)), 9), &[], (1, 0), true, (false, true));
    check(&page(&hub, Span::After(at(0)), 9), &[1], (1, 1), true, (false, false));
}

#[test]
fn a_channel_without_history_says_what_it_does_not_keep() {
    let (hub, _client, from) = keeping(0);
    say(&hub, from, "x");
    let at = |offset| position(&hub, offset);
    check(&page(&hub, Span::Last, 9), &[], (2, 1), true, (false, false));
    check(&page(&hub, Span::After(at(1)), 9), &[], (2, 1), true, (false, false));
    check(&page(&hub, Span::After(at(0)), 9), &[], (2, 1), false, (false, false));
}

#[test]
fn direct_messages_are_left_out_and_are_no_more() {
    let (hub, _client, from) = keeping(9);
    say_directly(&hub, from);
    say(&hub, from, "x");
    say_directly(&hub, from);
    check(&page(&hub, Span::Last, 9), &[2], (1, 3), true, (false, false));
    check(&page(&hub, Span::After(position(&hub, 2)), 9), &[], (3, 3), true, (true, false));
    check(&page(&hub, Span::Before(position(&hub, 2)), 9), &[], (1, 1), true, (false, true));
}

#[test]
fn a_page_is_bounded_in_bytes_and_holds_one_message_all_the_same() {
    let (hub, _client, from) = keeping(9);
    for words in ["aaa", "bbb", "cccccccccc"] {
        say(&hub, from, words);
    }
    let page = |span| known(hub.history(&five(), &HistoryQuery { span, messages_max: 9, bytes_max: 6 }, NOW));
    check(&page(Span::After(position(&hub, 0))), &[1, 2], (1, 2), true, (false, true));
    check(&page(Span::Last), &[3], (3, 3), true, (true, false));
    check(&page(Span::Before(position(&hub, 3))), &[1, 2], (1, 2), true, (false, true));
}

proptest! {
    #[test]
    fn paging_in_either_direction_shows_each_message_once(
        direct in prop::collection::vec(any::<bool>(), 0..30),
        history_messages in 0..40usize,
        messages_max in 1..5usize,
    ) {
        let (hub, _client, from) = keeping(history_messages);
        for &direct in &direct {
            if direct { say_directly(&hub, from) } else { say(&hub, from, "x") }
        }
        let first = direct.len().saturating_sub(history_messages);
        let shown = |&index: &usize| !direct[index];
        let expected: Vec<_> = (first..direct.len()).filter(shown).map(|index| index as u64 + 1).collect();
        prop_assert_eq!(&kept(&hub, NOW), &expected);

        let mut forwards = Vec::new();
        let mut next = page(&hub, Span::After(position(&hub, first as u64)), messages_max);
        loop {
            prop_assert!(next.recovered);
            prop_assert_eq!(next.more_before, !forwards.is_empty());
            forwards.extend(offsets(&next));
            if !next.more_after { break }
            next = page(&hub, Span::After(position(&hub, next.last)), messages_max);
        }
        prop_assert_eq!(&forwards, &expected);

        let mut backwards = Vec::new();
        let mut next = page(&hub, Span::Last, messages_max);
        loop {
            prop_assert!(next.recovered);
            prop_assert_eq!(next.more_after, !backwards.is_empty());
            backwards.extend(offsets(&next).into_iter().rev());
            if !next.more_before { break }
            next = page(&hub, Span::Before(position(&hub, next.first)), messages_max);
        }
        backwards.reverse();
        prop_assert_eq!(&backwards, &expected);
    }
}
