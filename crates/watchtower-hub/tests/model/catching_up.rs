//! Reading durable logs from where memory does not reach any more
//! ([model: a channel is a log]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use watchtower_hub::{
    ChannelRule, Content, Drained, Epoch, History, HistoryQuery, Hub, Limits, NotRead, Position, Publish,
    SenderId, Settings, Span, Start, Timestamp, WhenLagging,
};

use crate::paging::offsets;
use crate::shelf::Shelf;
use crate::support::{Client, NOW, durable, five, hub_with, kept_by, later, text};

/// A hub, started anew, whose channel 5 has as many messages, all on disk alone.
fn kept(messages: u64) -> (Shelf, Hub, Position) {
    let shelf = Shelf::default();
    let hub = durable(&shelf, Limits::default());
    let mut last = None;
    for number in 1..=messages {
        last = Some(hub.publish(&five(), Publish::new(Content::text(number.to_string())), NOW).unwrap());
        shelf.keep();
    }
    let last = last.unwrap().now().unwrap().unwrap();
    (shelf.clone(), durable(&shelf, Limits::default()), Position { offset: 0, ..last })
}

fn follow(hub: &Hub, seen: Position) -> (Client, bool) {
    let client = Client::new(hub);
    let sender = client.session.register(NOW).unwrap();
    let joined = client.session.subscribe(sender, &five(), Start::After(seen), NOW).unwrap();
    (client, joined.recovered)
}

/// Reads to the end, page after page.
fn read_all(shelf: &Shelf, client: &Client) -> String {
    let mut read = client.read();
    while shelf.reads() > 0 {
        shelf.read();
        read += &client.read();
    }
    read
}

fn expected(offsets: impl IntoIterator<Item = u64>) -> String {
    offsets.into_iter().map(|offset| format!("5/{offset}={offset};")).collect()
}

#[test]
fn what_is_not_in_memory_is_read_page_by_page_and_what_is_published_meanwhile_follows() {
    let (shelf, hub, start) = kept(600);
    let (client, recovered) = follow(&hub, start);
    assert!(recovered);
    assert_eq!((client.wakes(), client.read().as_str(), shelf.reads()), (0, "", 1));
    shelf.read();
    assert_eq!(client.wakes(), 1);
    assert_eq!(client.read(), expected(1..=256));
    assert_eq!(shelf.reads(), 1, "the next page, once this one was read");
    for number in 601..=603 {
        let message = Publish::new(Content::text(number.to_string()));
        hub.publish(&five(), message, NOW).unwrap();
    }
    shelf.keep_all();
    assert_eq!((client.wakes(), client.read().as_str()), (0, ""), "publishing wakes nobody who is behind");
    assert_eq!(read_all(&shelf, &client), expected(257..=603));
    // From here on it is a subscription as any other.
    client.wakes();
    hub.publish(&five(), Publish::new(Content::text("604")), NOW).unwrap();
    shelf.keep();
    assert_eq!((client.wakes(), client.read()), (1, expected([604])));
    assert_eq!((shelf.reads(), hub.counts().unreadable), (0, 0));
}

#[test]
fn a_position_that_is_kept_no_more_is_said_not_to_be_recovered() {
    let (shelf, hub, start) = kept(20);
    shelf.trim(&five(), 11);
    let from = |offset| Position { offset, ..start };
    let (client, recovered) = follow(&hub, from(10));
    assert!(recovered);
    assert_eq!(read_all(&shelf, &client), expected(11..=20));
    let unknown = Position { epoch: Epoch::from_bits(7), offset: 15 };
    for lost in [from(9), from(21), unknown] {
        let (client, recovered) = follow(&hub, lost);
        assert!(!recovered, "{lost}");
        assert_eq!(read_all(&shelf, &client), expected(11..=20), "{lost}");
    }
    assert!(follow(&hub, from(20)).1, "nothing is missed at the end");
}

#[test]
fn what_is_lost_in_between_is_counted_and_told_to_who_resumes() {
    let (shelf, hub, start) = kept(400);
    for offset in [3, 100, 256, 257, 400] {
        shelf.lose(&five(), offset);
    }
    let (client, recovered) = follow(&hub, start);
    assert!(!recovered);
    let after = |offset| follow(&hub, Position { offset, ..start });
    let last = after(399);
    assert_eq!((last.1, read_all(&shelf, &last.0).as_str()), (false, ""));
    let between = after(257);
    assert!(!between.1);
    assert_eq!(read_all(&shelf, &between.0), expected(258..=399), "it goes on where it was");
    assert!(after(400).1, "nothing is lost from there on");
    let is_lost = |offset: &u64| [3, 100, 256, 257, 400].contains(offset);
    assert_eq!(read_all(&shelf, &client), expected((1..=400).filter(|offset| !is_lost(offset))));
    assert_eq!(hub.counts().unreadable, 5 + 1 + 1);
}

#[test]
fn a_page_of_history_says_what_of_it_was_lost() {
    let (shelf, hub, start) = kept(600);
    for offset in [3, 100, 256, 257, 400] {
        shelf.lose(&five(), offset);
    }
    let page = |span, messages_max| {
        let query = HistoryQuery { span, messages_max, bytes_max: u64::MAX };
        let mut soon = hub.history(&five(), &query, NOW).unwrap();
        loop {
            soon = match soon.now() {
                Ok(history) => break history.unwrap(),
                Err(soon) => soon,
            };
            shelf.read();
        }
    };
    let lost = |span, messages_max| {
        let history = page(span, messages_max);
        let lost: Vec<_> = history.lost.iter().map(|lost| (lost.start, lost.end)).collect();
        (lost, history.recovered, history.entries.len())
    };
    let at = |offset| Position { offset, ..start };
    let all = vec![(3, 4), (100, 101), (256, 258), (400, 401)];
    assert_eq!(lost(Span::Last, 1_000), (all.clone(), true, 595));
    assert_eq!(lost(Span::After(start), 1_000), (all, false, 595));
    assert_eq!(lost(Span::After(at(99)), 100), (vec![(100, 101)], false, 100));
    assert_eq!(lost(Span::After(at(100)), 100), (vec![], true, 100));
    assert_eq!(lost(Span::After(at(400)), 1_000), (vec![], true, 200));
    assert_eq!(lost(Span::Before(at(401)), 200), (vec![(256, 258), (400, 401)], false, 200));
    assert_eq!(lost(Span::Before(at(500)), 50), (vec![], true, 50));
}

#[test]
fn what_is_in_memory_is_not_read_from_the_ledger() {
    let (shelf, hub, start) = kept(3);
    let publish = |number: u64| {
        hub.publish(&five(), Publish::new(Content::text(number.to_string())), NOW).unwrap();
        shelf.keep();
    };
    (4..=6).for_each(publish);
    let (client, recovered) = follow(&hub, Position { offset: 4, ..start });
    assert_eq!((recovered, client.read(), shelf.reads()), (true, expected(5..=6), 0));
    // It is there for a minute.
    hub.tick(later(61));
    let (client, _) = follow(&hub, Position { offset: 4, ..start });
    assert_eq!((client.read().as_str(), shelf.reads()), ("", 1));
    assert_eq!(read_all(&shelf, &client), expected(5..=6));
}

#[test]
fn direct_messages_are_for_their_receivers_alone_on_disk_too() {
    let shelf = Shelf::default();
    let hub = durable(&shelf, Limits::default());
    let client = Client::new(&hub);
    let [a, b] = [(); 2].map(|()| {
        let sender = client.session.register(NOW).unwrap();
        client.session.join(sender, &five(), NOW).unwrap();
        sender
    });
    let first = hub.publish(&five(), text(a, "all"), NOW).unwrap();
    hub.publish(&five(), text(a, "to b").to(&[b.get()]), NOW).unwrap();
    hub.publish(&five(), text(a, "last"), NOW).unwrap();
    shelf.keep_all();
    drop(client);
    let start = Position { offset: 0, ..first.now().unwrap().unwrap() };
    hub.tick(later(200));
    hub.tick(later(400));
    assert_eq!(hub.counts().channels, 0);
    for (sender, expected) in [(a, "5/1=all;5/3=last;"), (b, "5/1=all;5/2=to b;5/3=last;")] {
        let client = Client::new(&hub);
        client.session.subscribe(sender, &five(), Start::After(start), NOW).unwrap();
        assert_eq!(read_all(&shelf, &client), expected);
    }
}

#[test]
fn who_catches_up_is_not_lagging_however_much_is_published() {
    let limits = Limits { lag_bytes: 10_000, lag_messages: 20, ..Limits::default() };
    let (shelf, _, start) = kept(300);
    let hub = durable(&shelf, limits);
    let (client, _) = follow(&hub, start);
    client.read();
    let publish = || {
        for _ in 0..100 {
            hub.publish(&five(), Publish::new(Content::text("x")), NOW).unwrap();
            shelf.keep();
        }
    };
    publish();
    shelf.read();
    publish();
    assert!(!client.session.is_lagging());
    assert_eq!(client.read(), expected(1..=256));
    // Once it has what is in memory before it, it can be too slow for that.
    while shelf.reads() > 0 {
        shelf.read();
        if shelf.reads() == 0 {
            publish();
        }
        drop(client.drain(usize::MAX));
    }
    drop(client.drain(usize::MAX));
    publish();
    publish();
    assert!(client.session.is_lagging());
}

#[test]
fn a_session_that_ends_amid_a_page_comes_back_to_where_it_was() {
    let (shelf, hub, start) = kept(600);
    let sender = hub.register(NOW).unwrap();
    let client = Client::new(&hub);
    client.session.attach(sender, NOW).unwrap();
    client.session.subscribe(sender, &five(), Start::After(start), NOW).unwrap();
    client.read();
    shelf.read();
    let mut count = 0;
    let drained = client.session.drain_messages(None, |_| {
        count += 1;
        count < 10
    });
    assert_eq!(drained, Drained::More);
    // Another session of its sender goes on there.
    let other = Client::new(&hub);
    other.session.attach(sender, NOW).unwrap();
    assert_eq!(read_all(&shelf, &other), expected(count + 1..=600));
    drop(other);
    drop(client);
    let again = Client::new(&hub);
    assert!(again.session.join(sender, &five(), NOW).unwrap().recovered);
    assert_eq!(read_all(&shelf, &again), "");
}

#[test]
fn what_cannot_be_read_closes_a_stream_and_is_skipped_by_who_cannot_come_back() {
    let failed = || NotRead::Failed("the disk is gone".into());
    let (shelf, hub, start) = kept(10);
    let (client, _) = follow(&hub, start);
    client.read();
    shelf.refuse_read(failed());
    assert_eq!(client.drain(usize::MAX).1, Drained::Lagging);

    let client = Client { session: hub.open("test", WhenLagging::Skip), ..Client::new(&hub) };
    let sender = client.session.register(NOW).unwrap();
    client.session.subscribe(sender, &five(), Start::After(start), NOW).unwrap();
    client.read();
    shelf.refuse_read(failed());
    assert_eq!(client.read(), "");
    hub.publish(&five(), Publish::new(Content::text("11")), NOW).unwrap();
    shelf.keep();
    assert_eq!(client.read(), expected([11]));
    assert_eq!(hub.counts().unreadable, 20);
}

#[test]
fn a_page_that_comes_for_a_subscription_that_is_over_is_not_handed_out() {
    let (shelf, hub, start) = kept(10);
    let client = Client::new(&hub);
    let sender = client.session.register(NOW).unwrap();
    let subscribe = |start| client.session.subscribe(sender, &five(), start, NOW).unwrap();
    subscribe(Start::After(start));
    client.read();
    client.session.unsubscribe(sender, &five(), NOW);
    subscribe(Start::End);
    assert_eq!(read_all(&shelf, &client), "");
    // The same place and key again, and a page of its own.
    client.session.unsubscribe(sender, &five(), NOW);
    subscribe(Start::After(start));
    client.read();
    client.session.unsubscribe(sender, &five(), NOW);
    subscribe(Start::After(Position { offset: 8, ..start }));
    assert_eq!(read_all(&shelf, &client), expected(9..=10));
}

/// Whoever is at the end of the log, and whoever came to the same session from far behind.
fn with_late(hub: &Hub, start: Position) -> (Client, SenderId, SenderId) {
    let (client, other) = (Client::new(hub), Client::new(hub));
    let (a, b) = (client.session.register(NOW).unwrap(), other.session.register(NOW).unwrap());
    client.session.join(a, &five(), NOW).unwrap();
    assert!(other.session.follow(b, &five(), Start::After(start), NOW).unwrap().recovered);
    other.read();
    client.session.attach(b, NOW).unwrap();
    client.read();
    (client, a, b)
}

#[test]
fn who_leaves_amid_a_page_takes_nothing_from_the_others_and_gives_them_nothing_twice() {
    for pages in 0..3 {
        let (shelf, hub, start) = kept(600);
        let (client, _, b) = with_late(&hub, start);
        for _ in 0..pages {
            while shelf.reads() > 0 {
                shelf.read();
            }
            assert_eq!(client.read(), "", "all of it was for everyone, and is behind the others");
        }
        hub.leave(b, &five(), NOW).unwrap();
        hub.publish(&five(), Publish::new(Content::text("601")), NOW).unwrap();
        shelf.keep();
        assert_eq!(read_all(&shelf, &client), expected([601]), "after {pages} pages");
    }
}

#[test]
fn who_moves_on_amid_a_page_of_another_is_not_handed_that_again() {
    let (shelf, hub, start) = kept(600);
    let (client, a, _) = with_late(&hub, start);
    shelf.read();
    let third = Client::new(&hub);
    third.session.attach(a, NOW).unwrap();
    hub.publish(&five(), Publish::new(Content::text("601")), NOW).unwrap();
    shelf.keep();
    assert_eq!(read_all(&shelf, &third), expected([601]));
    assert_eq!(read_all(&shelf, &client).matches(';').count(), 601 - 600);
}

#[test]
fn who_reads_again_from_disk_for_another_is_not_lagging() {
    let limits = Limits { lag_bytes: 10_000, lag_messages: 20, ..Limits::default() };
    let (shelf, _, start) = kept(300);
    let hub = durable(&shelf, limits);
    let (client, ..) = with_late(&hub, start);
    for number in 301..=400 {
        hub.publish(&five(), Publish::new(Content::text(number.to_string())), NOW).unwrap();
        shelf.keep();
    }
    assert!(!client.session.is_lagging());
    assert_eq!(read_all(&shelf, &client), expected(301..=400));
    assert_eq!(hub.counts().lagging_skipped, 0);
}

#[test]
fn a_page_that_the_ledger_has_no_time_for_is_asked_for_again() {
    let (shelf, hub, start) = kept(10);
    let (client, _) = follow(&hub, start);
    shelf.refuse_reads_at_once(Some(NotRead::Behind));
    for _ in 0..3 {
        assert_eq!((client.read().as_str(), shelf.reads()), ("", 0));
    }
    shelf.refuse_reads_at_once(None);
    client.wakes();
    hub.tick(later(1));
    assert_eq!(client.wakes(), 1);
    assert_eq!(read_all(&shelf, &client), expected(1..=10));
}

#[test]
fn a_session_has_a_few_pages_at_a_time_and_every_channel_has_its_turn() {
    const CHANNELS: u32 = 10;
    let shelf = Shelf::default();
    let hub = durable(&shelf, Limits::default());
    for number in 1..=600u32 {
        let message = Publish::new(Content::text(number.to_string()));
        let channels: Vec<_> = (1..=CHANNELS).map(Into::into).collect();
        hub.publish_all(&channels, message, NOW).unwrap();
        shelf.keep();
    }
    let hub = durable(&shelf, Limits::default());
    let client = Client::new(&hub);
    let sender = client.session.register(NOW).unwrap();
    let start = |channel: u32| {
        let epoch = hub.epoch(&channel.into()).expect("it has a log");
        Start::After(Position { epoch, offset: 0 })
    };
    for channel in 1..=CHANNELS {
        client.session.join(sender, &channel.into(), NOW).unwrap();
        client.session.follow(sender, &channel.into(), start(channel), NOW).unwrap();
    }
    assert_eq!((client.read().as_str(), shelf.reads()), ("", 4));
    // Who takes nothing has no more than these, and the others go on when they end.
    while shelf.reads() > 0 {
        shelf.read();
    }
    client.wakes();
    for channel in 1..=4u32 {
        hub.leave(sender, &channel.into(), NOW).unwrap();
    }
    assert!(client.wakes() > 0);
    let mut read = client.read();
    while shelf.reads() > 0 {
        assert!(shelf.reads() <= 4);
        shelf.read();
        read += &client.read();
    }
    for channel in 5..=CHANNELS {
        let all: Vec<_> = (1..=600).map(|number| format!("{channel}/{number}={number}")).collect();
        let name = format!("{channel}/");
        let here: Vec<_> = read.split_terminator(';').filter(|message| message.starts_with(&name)).collect();
        assert_eq!(here, all);
    }
}

/// A page of history, whatever has to be read for it.
fn page(shelf: &Shelf, hub: &Hub, query: &HistoryQuery, now: Timestamp) -> History {
    let history = hub.history(&five(), query, now).expect("it has a log");
    while shelf.reads() > 0 {
        shelf.read();
    }
    history.now().expect("it was read").expect("all of it")
}

#[test]
fn history_that_cannot_be_read_says_why() {
    let (shelf, hub, _) = kept(3);
    let query = HistoryQuery { span: Span::Last, messages_max: 1, bytes_max: 1 };
    let refused = hub.history(&five(), &query, NOW).unwrap();
    shelf.refuse_read(NotRead::Behind);
    assert_eq!(refused.now().unwrap().unwrap_err(), NotRead::Behind);
}

#[test]
fn history_shows_no_more_than_the_rule_says_however_much_is_on_disk() {
    let (shelf, _, start) = kept(50);
    let rule = |history_messages, seconds| ChannelRule {
        durable: true,
        history_messages,
        history_ttl: Duration::from_secs(seconds),
        ..ChannelRule::default()
    };
    let query = HistoryQuery { span: Span::After(start), messages_max: 99, bytes_max: u64::MAX };
    let shown = |rule, now| {
        let hub = kept_by(&shelf, Settings { channels: vec![rule], ..Settings::default() });
        let first = offsets(&page(&shelf, &hub, &query, now)).first().copied();
        (first, follow(&hub, start).1)
    };
    assert_eq!(shown(rule(0, 10), later(9)), (Some(1), true));
    assert_eq!(shown(rule(7, 10), later(9)), (Some(44), false));
    // The ledger drops by age, by a clock that does not jump: until it has, history
    // has what streams have, and says no gap that is none.
    assert_eq!(shown(rule(0, 10), later(10)), (Some(1), true));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// What is said of a log in memory is said of the same log on disk, wherever its end is.
    #[test]
    fn pages_are_the_same_from_memory_and_from_disk(
        before in 1u64..700,
        tail in 0u64..20,
        offset in 0u64..800,
        span in 0u8..4,
        messages_max in 0usize..600,
        bytes_max in 0u64..2_000,
    ) {
        let (shelf, hub, start) = kept(before);
        let rule = ChannelRule { history_messages: 1_000, ..ChannelRule::default() };
        let memory = hub_with(Settings { channels: vec![rule], ..Settings::default() });
        let publish = |hub: &Hub, number: u64| {
            hub.publish(&five(), Publish::new(Content::text(number.to_string())), NOW).unwrap();
        };
        (1..=before + tail).for_each(|number| publish(&memory, number));
        (before + 1..=before + tail).for_each(|number| publish(&hub, number));
        shelf.keep_all();
        let described = |hub: &Hub, epoch| {
            let span = match span {
                0 => Span::Last,
                1 => Span::After(Position { offset, epoch }),
                2 => Span::Before(Position { offset, epoch }),
                _ => Span::After(Position { offset, epoch: Epoch::from_bits(5) }),
            };
            let page = page(&shelf, hub, &HistoryQuery { span, messages_max, bytes_max }, NOW);
            let History { recovered, first, last, more_before, more_after, .. } = page;
            (offsets(&page), recovered, first, last, more_before, more_after)
        };
        let epoch = memory.epoch(&five()).unwrap();
        prop_assert_eq!(described(&hub, start.epoch), described(&memory, epoch));
    }

    #[test]
    fn whatever_happens_in_whatever_order_each_message_comes_once_and_in_order(
        before in 1u64..700,
        start in 0u64..700,
        tail in 0usize..20,
        steps in proptest::collection::vec(0u8..6, 0..120),
    ) {
        let (shelf, _, epoch) = kept(before);
        let rule = ChannelRule { durable: true, history_messages: 0, ..ChannelRule::default() };
        let limits = Limits { lag_bytes: 1 << 30, lag_messages: 1 << 30, ..Limits::default() };
        let hub = kept_by(&shelf, Settings { limits, channels: vec![rule], ..Settings::default() });
        let next = AtomicU64::new(before + 1);
        let publish = || {
            let number = next.fetch_add(1, Ordering::Relaxed);
            hub.publish(&five(), Publish::new(Content::text(number.to_string())), NOW).unwrap();
        };
        (0..tail).for_each(|_| publish());
        shelf.keep_all();
        let start = start.min(before);
        let (client, recovered) = follow(&hub, Position { offset: start, ..epoch });
        prop_assert!(recovered);
        let mut read = String::new();
        for step in steps {
            match step {
                0 | 1 => publish(),
                2 if shelf.waiting() > 0 => shelf.keep(),
                3 if shelf.reads() > 0 => shelf.read(),
                4 => read += &client.drain(40).0,
                5 => read += &client.read(),
                _ => {}
            }
        }
        shelf.keep_all();
        loop {
            read += &client.read();
            if shelf.reads() == 0 {
                break;
            }
            shelf.read();
        }
        prop_assert_eq!(read, expected(start + 1..next.into_inner()));
        prop_assert!(shelf.longest() <= 256);
    }
}

#[test]
fn threads_that_publish_keep_read_and_drain_lose_nothing_between_them() {
    let (shelf, hub, start) = kept(2_000);
    let (client, _) = follow(&hub, start);
    let shelf = &shelf;
    let mut read = String::new();
    thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            for number in 2_001..=4_000 {
                hub.publish(&five(), Publish::new(Content::text(number.to_string())), NOW).unwrap();
            }
        });
        scope.spawn(move || {
            while !publisher.is_finished() || shelf.waiting() > 0 {
                shelf.keep_all();
            }
        });
        while read.matches(';').count() < 4_000 {
            if shelf.reads() > 0 {
                shelf.read();
            }
            read += &client.read();
        }
    });
    assert!(read == expected(1..=4_000), "each once and in order");
}
