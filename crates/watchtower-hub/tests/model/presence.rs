//! Who comes and who goes, as channels are told ([model: presence]).

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use watchtower_hub::{
    Accepts, ChannelName, ChannelRule, Content, ContentKind, HistoryQuery, Hub, KeptJoin, KeptSender,
    NotKept, Publish, Refused, SenderId, Settings, Span, Start, Timestamp, WhenLagging,
};

use crate::paging::known;
use crate::shelf::Shelf;
use crate::support::{Client, NOW, at_once, five, hub_with, joined, kept_by, later, text};

fn rule() -> ChannelRule {
    ChannelRule { presence_events: true, history_messages: 100_000, ..ChannelRule::default() }
}

fn telling() -> Hub {
    hub_with(Settings { channels: vec![rule()], ..Settings::default() })
}

/// What channel 5 was told of presence.
fn told(hub: &Hub, now: Timestamp) -> Vec<String> {
    let all = HistoryQuery { span: Span::Last, messages_max: usize::MAX, bytes_max: u64::MAX };
    let history = hub.has_channel(&five()).then(|| known(hub.history(&five(), &all, now)));
    let entries = history.into_iter().flat_map(|history| history.entries);
    let told = entries.filter(|entry| entry.event() == Some("presence"));
    told.map(|entry| entry.content().as_text().unwrap().to_owned()).collect()
}

fn change(what: &str, sender: SenderId, protocol: &str, present: usize) -> String {
    format!(r#"{{"{what}":{sender},"protocol":"{protocol}","present":{present}}}"#)
}

#[test]
fn who_joins_and_who_leaves_is_told_in_the_order_of_all_messages() {
    let hub = telling();
    let (a, first) = joined(&hub);
    let (b, second) = joined(&hub);
    hub.publish(&five(), text(second, "x"), NOW).unwrap();
    hub.leave(second, &five(), NOW).unwrap();
    let expected = [
        format!("5/1={};", change("joined", first, "test", 1)),
        format!("5/2={};", change("joined", second, "test", 2)),
        "5/3=x;".to_owned(),
        format!("5/4={};", change("left", second, "test", 1)),
    ];
    assert_eq!(a.read(), expected.concat());
    assert_eq!(b.read(), "", "what it was not handed before it left");
    drop(a);
    hub.tick(later(120));
    assert_eq!(told(&hub, later(120)).last(), Some(&change("left", first, "test", 0)));
}

#[test]
fn what_is_told_is_a_message_of_nobody_in_json_or_in_text_where_that_is_all() {
    for (accepts, kind) in [
        (Accepts::Any, ContentKind::Json),
        (Accepts::Json, ContentKind::Json),
        (Accepts::Text, ContentKind::Text),
    ] {
        let hub =
            hub_with(Settings { channels: vec![ChannelRule { accepts, ..rule() }], ..Settings::default() });
        let (a, _) = joined(&hub);
        let mut seen = Vec::new();
        let _ = a.session.drain_messages(None, |entry| {
            seen.push((entry.sender(), entry.event().map(str::to_owned), entry.content().kind()));
            true
        });
        assert_eq!(seen, [(None, Some("presence".to_owned()), kind)]);
    }
}

#[test]
fn a_quick_reconnect_is_neither_and_a_crash_is_a_leave_after_session_ttl() {
    let hub = telling();
    let (a, sender) = joined(&hub);
    drop(a);
    hub.tick(later(60));
    let b = Client::new(&hub);
    b.session.join(sender, &five(), later(60)).unwrap();
    assert_eq!(told(&hub, later(60)).len(), 1);
    hub.tick(later(61));
    drop(b);
    hub.tick(later(180));
    assert_eq!(told(&hub, later(180)).len(), 1);
    hub.tick(later(181));
    assert_eq!(told(&hub, later(181))[1..], [change("left", sender, "test", 0)]);
}

#[test]
fn a_second_session_of_a_sender_is_no_change_and_a_session_that_ends_its_joins_is_one_at_once() {
    let hub = telling();
    let sender = hub.register(NOW).unwrap();
    hub.join(sender, &[five()], NOW).unwrap();
    let stream = hub.open("stream", WhenLagging::Close);
    stream.subscribe(sender, &five(), Start::End, NOW).unwrap();
    stream.end_joins_on_close();
    drop(stream);
    let passing = hub.register(NOW).unwrap();
    let stream = hub.open("stream", WhenLagging::Close);
    stream.subscribe(passing, &five(), Start::End, NOW).unwrap();
    stream.end_joins_on_close();
    drop(stream);
    hub.unregister(sender, NOW).unwrap();
    let expected = [
        change("joined", sender, "http", 1),
        change("joined", passing, "stream", 2),
        change("left", passing, "stream", 1),
        // The protocol by which it came last.
        change("left", sender, "stream", 0),
    ];
    assert_eq!(told(&hub, NOW), expected);
}

#[test]
fn who_goes_on_by_another_protocol_is_there_by_that_one() {
    let hub = telling();
    let (_a, moves) = joined(&hub);
    let (b, returns) = joined(&hub);
    drop(b);
    let other = hub.open("other", WhenLagging::Close);
    other.attach(moves, NOW).unwrap();
    other.attach(returns, NOW).unwrap();
    let there = hub.presence(&five()).unwrap();
    assert!(there.iter().all(|present| present.protocol == "other"), "{there:?}");
    hub.leave(moves, &five(), NOW).unwrap();
    assert_eq!(told(&hub, NOW).last(), Some(&change("left", moves, "other", 1)));
}

#[test]
fn a_join_that_is_refused_is_not_told() {
    let mut settings = Settings { channels: vec![rule()], ..Settings::default() };
    settings.limits.channels_per_sender_max = 1;
    let hub = hub_with(settings);
    let (_a, _) = joined(&hub);
    let sender = hub.register(NOW).unwrap();
    hub.join(sender, &[6.into()], NOW).unwrap();
    assert!(matches!(hub.join(sender, &[five()], NOW), Err(Refused::Limit { .. })));
    assert_eq!(told(&hub, NOW).len(), 1);
}

#[test]
fn the_event_name_is_the_servers_where_presence_is_told_and_anybodys_elsewhere() {
    let told = ChannelRule { pattern: "5".into(), ..rule() };
    let hub = hub_with(Settings { channels: vec![told], ..Settings::default() });
    let (_a, sender) = joined(&hub);
    hub.join(sender, &[6.into()], NOW).unwrap();
    let publish = |channel: ChannelName, message: Publish<'_>| {
        at_once(hub.publish(&channel, message.event("presence"), NOW)).map(|position| position.offset)
    };
    let refused = || Err(Refused::ReservedEvent { channel: five() });
    assert_eq!(publish(five(), text(sender, "x")), refused());
    assert_eq!(publish(five(), Publish::new(Content::text("x")).by_guest(sender)), refused());
    assert_eq!(publish(five(), Publish::new(Content::text("x"))), refused());
    assert_eq!(publish(6.into(), text(sender, "x")), Ok(1));
}

#[test]
fn a_storm_is_told_by_its_number_and_no_more_than_so_often() {
    let hub = telling();
    let (_a, _) = joined(&hub);
    let senders: Vec<_> = (0..10_000).map(|_| hub.register(NOW).unwrap()).collect();
    for sender in &senders {
        hub.join(*sender, &[five()], NOW).unwrap();
    }
    assert_eq!(told(&hub, NOW).len(), 32);
    for (second, senders) in (1..).zip(senders.chunks(1_000)) {
        hub.tick(later(second));
        for sender in senders {
            hub.leave(*sender, &five(), later(second)).unwrap();
        }
    }
    hub.tick(later(11));
    let told = told(&hub, later(11));
    let summaries: Vec<_> = told.iter().filter(|told| told.contains("left_out")).collect();
    assert_eq!(summaries[0], r#"{"left_out":9969,"present":10001}"#);
    assert_eq!(summaries.last().unwrap().as_str(), r#"{"left_out":990,"present":1}"#);
    assert!(told.len() < 32 + 11 * 11, "{}", told.len());
    assert_eq!(hub.counts().presence_left_out, 20_001 - (told.len() - summaries.len()) as u64);
}

#[test]
fn who_says_an_old_time_is_told_of_one_by_one_when_the_storm_is_over() {
    let hub = telling();
    let (_a, _) = joined(&hub);
    let senders: Vec<_> = (0..32).map(|_| hub.register(NOW).unwrap()).collect();
    senders.iter().for_each(|sender| hub.join(*sender, &[five()], NOW).unwrap());
    hub.tick(later(2));
    assert_eq!(told(&hub, later(2)).last().unwrap(), r#"{"left_out":1,"present":33}"#);
    // As a connection that knows no other than that of its last words.
    hub.leave(senders[0], &five(), NOW).unwrap();
    assert_eq!(told(&hub, later(2)).last(), Some(&change("left", senders[0], "http", 32)));
}

#[test]
fn nothing_is_told_where_it_is_not_asked_for() {
    let hub = hub_with(Settings::default());
    let (a, _) = joined(&hub);
    drop(joined(&hub));
    hub.tick(later(300));
    assert_eq!(a.read(), "");
}

#[test]
fn a_channel_that_only_presence_was_told_on_is_forgotten_like_others() {
    let hub = telling();
    let (a, sender) = joined(&hub);
    hub.leave(sender, &five(), NOW).unwrap();
    drop(a);
    hub.tick(later(3_599));
    assert!(hub.has_channel(&five()), "its history tells who was there");
    hub.tick(later(3_600));
    assert!(!hub.has_channel(&five()));
}

#[test]
fn on_a_durable_channel_it_is_told_once_it_is_kept_in_the_order_of_all_messages() {
    let shelf = Shelf::default();
    let rule = ChannelRule { durable: true, ..rule() };
    let hub = kept_by(&shelf, Settings { channels: vec![rule], ..Settings::default() });
    let (a, first) = joined(&hub);
    let published = hub.publish(&five(), text(first, "x"), NOW).unwrap();
    assert_eq!((shelf.waiting(), a.read()), (2, String::new()));
    shelf.keep_all();
    drop(published);
    let joined = change("joined", first, "test", 1);
    assert_eq!(shelf.kept(&five()), [joined.as_str(), "x"]);
    assert_eq!(a.read(), format!("5/1={joined};5/2=x;"));
}

#[test]
fn what_could_not_be_kept_is_told_by_its_number_once_it_can() {
    let shelf = Shelf::default();
    let rule = ChannelRule { durable: true, ..rule() };
    let hub = kept_by(&shelf, Settings { channels: vec![rule], ..Settings::default() });
    shelf.refuse_at_once(Some(NotKept::Behind));
    let (a, _) = joined(&hub);
    let (_b, _) = joined(&hub);
    hub.tick(later(1));
    assert_eq!((shelf.waiting(), a.read()), (0, String::new()));
    shelf.refuse_at_once(None);
    hub.tick(later(2));
    shelf.keep_all();
    assert_eq!(a.read(), r#"5/1={"left_out":2,"present":2};"#);
}

#[test]
fn what_is_refused_after_all_is_told_by_its_number_until_that_is_kept() {
    let shelf = Shelf::default();
    let rule = ChannelRule { durable: true, ..rule() };
    let hub = kept_by(&shelf, Settings { channels: vec![rule], ..Settings::default() });
    let (a, first) = joined(&hub);
    shelf.keep_all();
    assert_eq!(a.read(), format!("5/1={};", change("joined", first, "test", 1)));
    let (_b, second) = joined(&hub);
    hub.leave(second, &five(), NOW).unwrap();
    shelf.refuse(NotKept::Behind);
    shelf.refuse(NotKept::OutOfTurn);
    hub.tick(later(1));
    // So is the number, and counts for nothing by itself.
    shelf.refuse(NotKept::Behind);
    assert_eq!((a.read(), hub.counts().presence_left_out), (String::new(), 2));
    hub.tick(later(2));
    shelf.keep_all();
    assert_eq!(a.read(), r#"5/2={"left_out":2,"present":1};"#);
    let (_c, third) = joined(&hub);
    shelf.keep_all();
    assert_eq!(a.read(), format!("5/3={};", change("joined", third, "test", 2)));
    assert_eq!(hub.counts().presence_left_out, 2);
}

#[test]
fn a_channel_that_has_to_be_told_that_all_have_left_stays_until_that_is_kept() {
    let shelf = Shelf::default();
    let rule = ChannelRule { durable: true, ..rule() };
    let hub = kept_by(&shelf, Settings { channels: vec![rule], ..Settings::default() });
    let (_a, first) = joined(&hub);
    shelf.keep_all();
    hub.leave(first, &five(), NOW).unwrap();
    // The disk is full for longer than a channel stays that nobody is in.
    for second in 0..200 {
        hub.tick(later(second));
        shelf.refuse(NotKept::Behind);
    }
    hub.tick(later(200));
    shelf.keep_all();
    let told = [change("joined", first, "test", 1), r#"{"left_out":1,"present":0}"#.to_owned()];
    assert_eq!(shelf.kept(&five()), told);
    hub.tick(later(400));
    assert_eq!(hub.counts().channels, 0);
}

#[test]
fn a_channel_that_was_taken_up_again_is_told_all_the_same_that_all_have_left() {
    let shelf = Shelf::default();
    let rule = ChannelRule { durable: true, ..rule() };
    let settings = Settings { channels: vec![rule], ..Settings::default() };
    let before = kept_by(&shelf, settings.clone());
    let (_a, id) = joined(&before);
    shelf.keep_all();
    let hub = kept_by(&shelf, settings);
    let join = KeptJoin { channel: five(), since: NOW, standing: true };
    hub.restore(&KeptSender { id, last_active: NOW, joins: vec![join] }, NOW).unwrap();
    hub.leave(id, &five(), NOW).unwrap();
    hub.tick(later(200));
    shelf.refuse(NotKept::Behind);
    hub.tick(later(201));
    shelf.keep_all();
    assert_eq!(shelf.kept(&five()).last().unwrap(), r#"{"left_out":1,"present":0}"#);
}

#[test]
fn a_channel_that_was_told_nothing_and_that_nobody_is_in_is_not_told_what_was_refused() {
    let shelf = Shelf::default();
    let rule = ChannelRule { durable: true, ..rule() };
    let hub = kept_by(&shelf, Settings { channels: vec![rule], ..Settings::default() });
    let (_a, first) = joined(&hub);
    hub.leave(first, &five(), NOW).unwrap();
    hub.tick(later(200));
    shelf.refuse(NotKept::Behind);
    shelf.refuse(NotKept::OutOfTurn);
    hub.tick(later(201));
    assert_eq!(shelf.waiting(), 0);
    hub.tick(later(202));
    assert_eq!(hub.counts().channels, 0);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Join,
    Leave,
    /// Opens a stream, or another one.
    Open,
    /// Ends a stream without a word.
    Crash,
    /// So many seconds pass.
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        3 => Just(Step::Join),
        2 => Just(Step::Leave),
        3 => Just(Step::Open),
        2 => Just(Step::Crash),
        1 => (1..90u64).prop_map(Step::Pass),
    ];
    prop::collection::vec((0..6usize, step), 0..200)
}

proptest! {
    /// Who follows what is told knows who is there, as long as nothing was left
    /// out; and how many in any case.
    #[test]
    fn what_is_told_adds_up_to_who_is_there(steps in steps()) {
        let rule = ChannelRule { history_ttl: Duration::from_secs(1_000_000), ..rule() };
        let hub = hub_with(Settings { channels: vec![rule], ..Settings::default() });
        let senders: Vec<_> = (0..6).map(|_| hub.register(NOW).unwrap()).collect();
        let mut streams: Vec<Vec<watchtower_hub::Session>> = (0..6).map(|_| Vec::new()).collect();
        let mut now = NOW;
        for (who, step) in steps {
            let sender = senders[who];
            match step {
                Step::Join => hub.join(sender, &[five()], now).unwrap(),
                Step::Leave => hub.leave(sender, &five(), now).unwrap(),
                Step::Open => {
                    let stream = hub.open("stream", WhenLagging::Close);
                    stream.subscribe(sender, &five(), Start::End, now).unwrap();
                    streams[who].push(stream);
                }
                Step::Crash => drop(streams[who].pop()),
                Step::Pass(seconds) => {
                    now = now.after(Duration::from_secs(seconds));
                    hub.tick(now);
                }
            }
        }
        now = now.after(Duration::from_secs(1));
        hub.tick(now);
        let present: BTreeSet<u64> = hub
            .presence(&five())
            .into_iter()
            .flatten()
            .map(|present| present.sender.get().into())
            .collect();
        let (mut known, mut is_complete, mut last) = (BTreeSet::new(), true, 0);
        for told in told(&hub, now) {
            let told: serde_json::Value = serde_json::from_str(&told).unwrap();
            if let Some(id) = told["joined"].as_u64() {
                prop_assert!(known.insert(id) || !is_complete);
            } else if let Some(id) = told["left"].as_u64() {
                prop_assert!(known.remove(&id) || !is_complete);
            } else {
                is_complete = false;
            }
            last = told["present"].as_u64().unwrap();
        }
        prop_assert_eq!(last, present.len() as u64);
        if is_complete {
            prop_assert_eq!(known, present);
        }
    }
}
