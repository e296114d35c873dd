//! The last message, for those who come later ([http: retained]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use watchtower_hub::{
    ChannelRule, Content, Hub, Joined, Ledger, NotKept, Position, Publish, Refused, SenderId, Settings,
    Start, WhenLagging,
};

use crate::shelf::Shelf;
use crate::support::{Client, Counted, NOW, five, hub_with, joined, kept_by, later, say, text};

fn rule() -> ChannelRule {
    ChannelRule { retain: true, ..ChannelRule::default() }
}

fn retaining() -> Hub {
    hub_with(Settings { channels: vec![rule()], ..Settings::default() })
}

fn at(hub: &Hub, offset: u64) -> Position {
    Position { epoch: hub.epoch(&five()).unwrap(), offset }
}

/// A new stream of a new sender, and where it goes on.
fn stream(hub: &Hub, start: Start) -> (Client, Joined) {
    let client = Client::new(hub);
    let sender = hub.register(NOW).unwrap();
    let joined = client.session.subscribe(sender, &five(), start, NOW).unwrap();
    (client, joined)
}

#[test]
fn a_new_subscriber_gets_the_last_message_at_once_and_ahead_of_what_comes() {
    let hub = retaining();
    let (a, from) = joined(&hub);
    assert_eq!(a.read(), "");
    say(&hub, from, "1");
    say(&hub, from, "2");
    let (b, _) = joined(&hub);
    say(&hub, from, "3");
    assert_eq!(b.read(), "5/2=2;5/3=3;");
    assert_eq!(a.read(), "5/1=1;5/2=2;5/3=3;", "who was there gets nothing twice");
    let (c, position) = stream(&hub, Start::End);
    assert_eq!(position, Joined { position: at(&hub, 3), recovered: true });
    assert_eq!(c.read(), "5/3=3;");
    say(&hub, from, "4");
    assert_eq!(c.read(), "5/4=4;");
}

#[test]
fn what_was_published_before_anybody_subscribed_is_there_without_end() {
    let hub = retaining();
    hub.publish(&five(), Publish::new(Content::text("21.5")), NOW).unwrap();
    hub.tick(later(1_000_000));
    assert!(hub.has_channel(&five()));
    let (a, _) = joined(&hub);
    assert_eq!(a.read(), "5/1=21.5;");
}

#[test]
fn a_message_without_content_ends_it_and_the_channel_with_it() {
    let hub = retaining();
    let (a, from) = joined(&hub);
    say(&hub, from, "1");
    assert_eq!(hub.counts().retained_bytes, 257);
    say(&hub, from, "");
    assert_eq!(hub.counts().retained_bytes, 0);
    assert_eq!(a.read(), "5/1=1;5/2=;", "it is a message all the same");
    assert_eq!(joined(&hub).0.read(), "");
    drop(a);
    hub.tick(later(120));
    hub.tick(later(240));
    assert!(!hub.has_channel(&five()));
}

#[test]
fn who_comes_back_gets_what_it_missed_and_not_again_what_it_had() {
    let hub = retaining();
    let (a, from) = joined(&hub);
    say(&hub, from, "1");
    let (b, to) = joined(&hub);
    assert_eq!(b.read(), "5/1=1;");
    drop(b);
    let b = Client::new(&hub);
    b.session.join(to, &five(), NOW).unwrap();
    assert_eq!(b.read(), "");
    drop(b);
    say(&hub, from, "2");
    let b = Client::new(&hub);
    b.session.join(to, &five(), NOW).unwrap();
    b.session.join(to, &five(), NOW).unwrap();
    assert_eq!(b.read(), "5/2=2;");
    assert_eq!(a.read(), "5/1=1;5/2=2;");
}

#[test]
fn who_resumes_by_position_gets_it_once_or_when_something_may_be_missing() {
    let hub = hub_with(Settings {
        channels: vec![ChannelRule { history_messages: 2, ..rule() }],
        ..Settings::default()
    });
    let (_a, from) = joined(&hub);
    for words in ["1", "2", "3"] {
        say(&hub, from, words);
    }
    hub.publish(&five(), text(from, "4").to(&[from.get()]), NOW).unwrap();
    let read = |start| {
        let (client, joined) = stream(&hub, start);
        (client.read(), joined.recovered)
    };
    let after = |offset| read(Start::After(at(&hub, offset)));
    assert_eq!(after(4), (String::new(), true), "it was handed out before that");
    assert_eq!(after(3), (String::new(), true));
    assert_eq!(after(2), ("5/3=3;".into(), true), "it comes anyway");
    assert_eq!(after(1), ("5/3=3;".into(), false), "it is kept anyway");
    hub.publish(&five(), text(from, "5").to(&[from.get()]), NOW).unwrap();
    assert_eq!(after(1), ("5/3=3;".into(), false), "it is kept no longer, but retained");
    assert_eq!(read(Start::After(Position::NOWHERE)), ("5/3=3;".into(), false));
    assert_eq!(read(Start::End), ("5/3=3;".into(), true));
}

#[test]
fn what_is_for_some_alone_is_not_retained_and_ends_nothing() {
    let hub = retaining();
    let (_a, from) = joined(&hub);
    say(&hub, from, "1");
    hub.publish(&five(), text(from, "2").to(&[from.get()]), NOW).unwrap();
    hub.publish(&five(), text(from, "").to(&[from.get()]), NOW).unwrap();
    let ((b, _), (c, _)) = (joined(&hub), joined(&hub));
    say(&hub, from, "4");
    assert_eq!((b.read(), c.read()), ("5/1=1;5/4=4;".into(), "5/1=1;5/4=4;".into()));
}

#[test]
fn presence_is_not_retained() {
    let hub = hub_with(Settings {
        channels: vec![ChannelRule { presence_events: true, ..rule() }],
        ..Settings::default()
    });
    let (_a, from) = joined(&hub);
    say(&hub, from, "x");
    let (b, _) = joined(&hub);
    assert!(b.read().starts_with(r#"5/2=x;5/3={"joined":"#));
}

#[test]
fn it_keeps_nothing_that_was_published_after_it() {
    let hub = retaining();
    let live = Arc::new(AtomicUsize::new(0));
    let (a, from) = joined(&hub);
    say(&hub, from, "1");
    let (b, _) = joined(&hub);
    assert_eq!(b.read(), "5/1=1;");
    for _ in 0..10 {
        let content = Content::binary(Bytes::from_owner(Counted::new(&live)));
        hub.publish(&five(), Publish::new(content).by(from).to(&[from.get()]), NOW).unwrap();
    }
    a.read();
    b.read();
    assert_eq!(live.load(Ordering::Relaxed), 0);
    assert_eq!(joined(&hub).0.read(), "5/1=1;");
}

#[test]
fn two_senders_of_one_session_get_one_copy() {
    let hub = retaining();
    let (_a, from) = joined(&hub);
    say(&hub, from, "1");
    let (b, _) = joined(&hub);
    let second = b.session.register(NOW).unwrap();
    b.session.join(second, &five(), NOW).unwrap();
    assert_eq!(b.read(), "5/1=1;");
    let third = b.session.register(NOW).unwrap();
    b.session.join(third, &five(), NOW).unwrap();
    say(&hub, from, "2");
    assert_eq!(b.read(), "5/2=2;");
}

#[test]
fn who_leaves_before_it_read_takes_nothing_from_others_who_are_away() {
    // The place ahead of the log must not pass for the one of that offset.
    let hub = retaining();
    let (_a, from) = joined(&hub);
    say(&hub, from, "1");
    let (b, to) = joined(&hub);
    b.read();
    hub.publish(&five(), text(from, "2").to(&[to.get()]), NOW).unwrap();
    let (c, third) = joined(&hub);
    drop(c);
    drop(b);
    let (b, c) = (Client::new(&hub), Client::new(&hub));
    c.session.join(third, &five(), NOW).unwrap();
    b.session.join(to, &five(), NOW).unwrap();
    assert_eq!((b.read(), c.read()), ("5/2=2;".into(), String::new()));
}

#[test]
fn who_gets_it_late_is_not_behind() {
    let mut settings = Settings { channels: vec![rule()], ..Settings::default() };
    settings.limits.lag_messages = 8;
    let hub = hub_with(settings);
    let (a, from) = joined(&hub);
    say(&hub, from, "1");
    for _ in 0..100 {
        hub.publish(&five(), text(from, "d").to(&[from.get()]), NOW).unwrap();
        let _ = a.drain(usize::MAX);
    }
    let (b, _) = joined(&hub);
    for _ in 0..7 {
        say(&hub, from, "x");
    }
    assert_eq!(b.read().matches("=x;").count(), 7);
    assert_eq!(hub.counts().lagging_closed, 0);
}

#[test]
fn what_all_channels_retain_is_bounded_and_what_is_above_is_refused() {
    let mut settings = Settings { channels: vec![rule()], ..Settings::default() };
    settings.limits.retained_bytes_max = 2 * 256 + 30;
    let hub = hub_with(settings);
    let publish = |channel: u32, bytes| {
        hub.publish(&channel.into(), Publish::new(Content::text("x".repeat(bytes))), NOW).map(|_| ())
    };
    let refused = || Err(Refused::Limit { what: "bytes of retained messages", limit: 542 });
    assert_eq!(publish(1, 10), Ok(()));
    assert_eq!(publish(2, 10), Ok(()));
    assert_eq!(publish(3, 1), refused());
    assert_eq!(publish(2, 14), refused(), "with what the event's name may take");
    assert_eq!(publish(2, 13), Ok(()), "in the place of what was there");
    assert_eq!(publish(3, 0), Ok(()));
    assert_eq!(publish(1, 0), Ok(()));
    assert_eq!(publish(3, 10), Ok(()));
    assert_eq!(hub.counts().retained_bytes, 2 * 256 + 23);
}

#[test]
fn on_a_durable_channel_it_is_retained_once_it_is_kept_and_stands_ahead_of_what_is_on_disk() {
    let shelf = Shelf::default();
    let rule = ChannelRule { durable: true, history_messages: 1, ..rule() };
    let hub = kept_by(&shelf, Settings { channels: vec![rule], ..Settings::default() });
    let (a, from) = joined(&hub);
    say(&hub, from, "1");
    assert_eq!(joined(&hub).0.read(), "");
    shelf.keep_all();
    assert_eq!(joined(&hub).0.read(), "5/1=1;");
    hub.publish(&five(), text(from, "2").to(&[from.get()]), NOW).unwrap();
    shelf.keep_all();
    // What follows is on disk alone.
    a.read();
    hub.tick(later(61));
    let b = Client::new(&hub);
    let start = Start::After(Position::NOWHERE);
    let joined = b.session.subscribe(from, &five(), start, later(61)).unwrap();
    assert_eq!(joined, Joined { position: at(&hub, 1), recovered: false });
    assert_eq!((b.read().as_str(), shelf.reads()), ("5/1=1;", 1));
    shelf.read();
    say(&hub, from, "3");
    shelf.keep_all();
    assert_eq!(b.read(), "5/2=2;5/3=3;");
}

/// Channels that are durable and retain, as a server has them that was just
/// started.
fn restarted(shelf: &Shelf) -> Hub {
    let rule = ChannelRule { durable: true, presence_events: true, ..rule() };
    kept_by(shelf, Settings { channels: vec![rule], ..Settings::default() })
}

/// What a new subscriber is handed at once. It leaves no trace in the log.
fn handed_at_once(hub: &Hub) -> String {
    let client = Client::new(hub);
    let sender = hub.register(NOW).unwrap();
    client.session.subscribe(sender, &five(), Start::End, NOW).unwrap();
    client.read()
}

#[test]
fn what_a_durable_channel_retains_is_there_after_a_restart_whatever_came_behind_it_and_was_dropped() {
    let shelf = Shelf::default();
    let hub = restarted(&shelf);
    let publish = |hub: &Hub, words| hub.publish(&five(), Publish::new(Content::text(words)), NOW).unwrap();
    publish(&hub, "1");
    publish(&hub, "22");
    shelf.keep_all();
    let hub = restarted(&shelf);
    assert_eq!(handed_at_once(&hub), "5/2=22;");
    assert_eq!(hub.counts().retained_bytes, 256 + 2);
    let (a, from) = joined(&hub);
    shelf.keep_all();
    hub.publish(&five(), text(from, "d").to(&[from.get()]), NOW).unwrap();
    shelf.keep_all();
    drop(a);
    shelf.trim(&five(), shelf.ends(&five()).unwrap().next);
    let hub = restarted(&shelf);
    assert_eq!(handed_at_once(&hub), "5/2=22;", "presence and what is direct are no value");
    // Without a restart, when it has left memory.
    hub.tick(later(1_000));
    hub.tick(later(2_000));
    assert_eq!((handed_at_once(&hub), hub.counts().retained_bytes), ("5/2=22;".into(), 258));
}

#[test]
fn what_was_ended_on_a_durable_channel_stays_ended_after_a_restart_and_what_was_not_kept_ends_nothing() {
    let shelf = Shelf::default();
    let hub = restarted(&shelf);
    let publish = |hub: &Hub, words| hub.publish(&five(), Publish::new(Content::text(words)), NOW).unwrap();
    publish(&hub, "1");
    shelf.keep_all();
    publish(&hub, "");
    shelf.refuse(NotKept::Failed("the disk is full".into()));
    let hub = restarted(&shelf);
    assert_eq!(handed_at_once(&hub), "5/1=1;");
    shelf.keep_all();
    publish(&hub, "");
    shelf.keep_all();
    let hub = restarted(&shelf);
    assert_eq!((handed_at_once(&hub), hub.counts().retained_bytes), (String::new(), 0));
}

#[test]
fn what_all_channels_retain_is_bounded_across_restarts() {
    let shelf = Shelf::default();
    let hub = || {
        let mut settings =
            Settings { channels: vec![ChannelRule { durable: true, ..rule() }], ..Settings::default() };
        settings.limits.retained_bytes_max = 2 * 256 + 20;
        kept_by(&shelf, settings)
    };
    let publish = |hub: &Hub, channel: u32, words| {
        let result = hub.publish(&channel.into(), Publish::new(Content::text(words)), NOW).map(|_| ());
        shelf.keep_all();
        result
    };
    let first = hub();
    assert_eq!([publish(&first, 1, "x"), publish(&first, 2, "x")], [Ok(()), Ok(())]);
    let second = hub();
    let refused = Err(Refused::Limit { what: "bytes of retained messages", limit: 532 });
    assert_eq!(publish(&second, 3, "x"), refused);
    assert_eq!(publish(&second, 1, ""), Ok(()));
    assert_eq!(publish(&second, 3, "x"), Ok(()));
    assert_eq!(hub().counts().retained_bytes, 2 * 256 + 2);
}

#[test]
fn what_is_retained_of_a_log_that_was_lost_is_not_taken_for_the_new_ones() {
    let shelf = Shelf::default();
    let hub = restarted(&shelf);
    hub.publish(&five(), Publish::new(Content::text("1")), NOW).unwrap();
    shelf.keep_all();
    shelf.lose_log(&five());
    let hub = restarted(&shelf);
    let (_a, _) = joined(&hub);
    shelf.keep_all();
    assert_eq!(handed_at_once(&restarted(&shelf)), "");
}

#[test]
fn a_session_that_moves_takes_along_what_it_was_not_handed() {
    let hub = retaining();
    let (_a, from) = joined(&hub);
    say(&hub, from, "1");
    let (b, to) = joined(&hub);
    let c = Client::new(&hub);
    c.session.attach(to, NOW).unwrap();
    assert_eq!((b.read(), c.read()), (String::new(), "5/1=1;".into()));
}

/// The last message, what is for `id` alone, and who comes then; `id` has read as
/// many of these as it is said, by a session that it leaves.
fn comes_before_an_id_moves_there(read: usize) -> (Hub, Client, SenderId, SenderId) {
    let hub = retaining();
    let ((_a, from), (b, id)) = (joined(&hub), joined(&hub));
    say(&hub, from, "1");
    for words in ["2", "3"] {
        hub.publish(&five(), text(from, words).to(&[id.get()]), NOW).unwrap();
    }
    (0..read).for_each(|_| drop(b.drain(1)));
    let (c, new) = joined(&hub);
    c.session.attach(id, NOW).unwrap();
    (hub, c, id, new)
}

#[test]
fn who_comes_gets_it_though_an_id_moves_there_that_has_yet_to_read_what_is_its_own() {
    // [packets: rules]
    for (read, expected) in [(0, "5/1=1;5/2=2;5/3=3;"), (1, "5/1=1;5/2=2;5/3=3;"), (2, "5/1=1;5/3=3;")] {
        let (hub, c, _, new) = comes_before_an_id_moves_there(read);
        say(&hub, new, "4");
        assert_eq!(c.read(), format!("{expected}5/4=4;"), "it had read {read}");
        say(&hub, new, "5");
        assert_eq!(c.read(), "5/5=5;");
    }
}

#[test]
fn what_is_for_who_comes_too_but_was_said_before_comes_with_the_id_that_moves_there() {
    let hub = retaining();
    let ((_a, from), (_b, id)) = (joined(&hub), joined(&hub));
    let (stream, new) = (Client::new(&hub), hub.register(NOW).unwrap());
    stream.session.subscribe(new, &five(), Start::End, NOW).unwrap();
    say(&hub, from, "1");
    hub.publish(&five(), text(from, "2").to(&[id.get(), new.get()]), NOW).unwrap();
    let c = Client::new(&hub);
    c.session.join(new, &five(), NOW).unwrap();
    c.session.attach(id, NOW).unwrap();
    assert_eq!(c.read(), "5/1=1;5/2=2;");
    assert_eq!(stream.read(), "5/1=1;5/2=2;");
}

#[test]
fn who_comes_gets_it_though_an_id_moves_there_and_on_again_or_it_moves_itself() {
    for read in 0..3 {
        let (hub, c, id, _) = comes_before_an_id_moves_there(read);
        let d = Client::new(&hub);
        d.session.attach(id, NOW).unwrap();
        assert!(d.read().ends_with("5/3=3;"), "it had read {read}");
        assert_eq!(c.read(), "5/1=1;", "it had read {read}");

        let (hub, c, _, new) = comes_before_an_id_moves_there(read);
        let d = Client::new(&hub);
        d.session.attach(new, NOW).unwrap();
        assert_eq!(d.read(), "5/1=1;", "it had read {read}");
        assert!(c.read().ends_with("5/3=3;"), "it had read {read}");
    }
}

#[test]
fn what_was_for_all_before_somebody_came_does_not_come_with_an_id_that_moves_there() {
    let rule = ChannelRule { presence_events: true, ..rule() };
    let hub = hub_with(Settings { channels: vec![rule], ..Settings::default() });
    let ((_a, from), (_b, id), (_c, third)) = (joined(&hub), joined(&hub), joined(&hub));
    say(&hub, from, "4");
    hub.leave(third, &five(), NOW).unwrap();
    let (d, new) = joined(&hub);
    d.session.attach(id, NOW).unwrap();
    let joined = format!(r#"5/6={{"joined":{new},"protocol":"test","present":3}};"#);
    assert_eq!(d.read(), format!("5/4=4;{joined}"));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Say,
    Clear,
    Direct,
    Subscribe,
    Read(usize),
    Close(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Say),
        1 => Just(Step::Clear),
        2 => Just(Step::Direct),
        2 => Just(Step::Subscribe),
        3 => any::<usize>().prop_map(Step::Read),
        1 => any::<usize>().prop_map(Step::Close),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn each_subscriber_gets_the_last_value_and_then_all_that_comes_once_and_in_order(steps in steps()) {
        let hub = retaining();
        let (_a, from): (Client, SenderId) = joined(&hub);
        let mut value: Option<u64> = None;
        let mut offset = 0;
        // What each has yet to be handed.
        let mut subscribers: Vec<(Client, Vec<String>)> = Vec::new();
        for step in steps {
            match step {
                Step::Say | Step::Clear | Step::Direct => {
                    offset += 1;
                    let words = if matches!(step, Step::Clear) { "" } else { "x" };
                    let receivers = [from.get()];
                    let message = text(from, words);
                    let is_direct = matches!(step, Step::Direct);
                    let message = if is_direct { message.to(&receivers) } else { message };
                    hub.publish(&five(), message, NOW).unwrap();
                    if !is_direct {
                        value = (!words.is_empty()).then_some(offset);
                        for (_, expected) in &mut subscribers {
                            expected.push(format!("5/{offset}={words};"));
                        }
                    }
                }
                Step::Subscribe => {
                    let expected = value.map(|offset| format!("5/{offset}=x;")).into_iter().collect();
                    let client = Client { session: hub.open("test", WhenLagging::Close), ..Client::new(&hub) };
                    let sender = hub.register(NOW).unwrap();
                    client.session.subscribe(sender, &five(), Start::End, NOW).unwrap();
                    subscribers.push((client, expected));
                }
                Step::Read(_) | Step::Close(_) if subscribers.is_empty() => {}
                Step::Read(which) => {
                    let count = subscribers.len();
                    let (client, expected) = &mut subscribers[which % count];
                    prop_assert_eq!(client.read(), std::mem::take(expected).concat());
                }
                Step::Close(which) => {
                    let count = subscribers.len();
                    drop(subscribers.swap_remove(which % count));
                }
            }
        }
        for (client, expected) in subscribers {
            prop_assert_eq!(client.read(), expected.concat());
        }
        prop_assert_eq!(hub.counts().retained_bytes, value.map_or(0, |_| 257));
    }
}
