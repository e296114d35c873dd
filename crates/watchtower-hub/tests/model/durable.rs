//! Publishing on durable channels ([model: promises]).

use std::task::{Poll, Waker};

use watchtower_hub::{
    ChannelRule, Content, Hub, Limits, NotKept, Position, Publish, Published, Refused, Settings,
};

use crate::shelf::Shelf;
use crate::support::{Client, NOW, at_once, durable, five, joined, kept_by, later, text};

fn offset(published: &mut Published) -> Option<Result<u64, Refused>> {
    match published.poll_with(Waker::noop()) {
        Poll::Ready(result) => Some(result.map(|position| position.offset)),
        Poll::Pending => None,
    }
}

fn refused(reason: NotKept) -> Option<Result<u64, Refused>> {
    Some(Err(Refused::NotKept { channel: five(), reason }))
}

fn failed() -> NotKept {
    NotKept::Failed("the disk is full".into())
}

#[test]
fn a_message_is_acknowledged_and_delivered_once_it_is_kept_and_not_before() {
    let shelf = Shelf::default();
    let hub = durable(&shelf, Limits::default());
    let (client, sender) = joined(&hub);
    let mut published = hub.publish(&five(), text(sender, "x"), NOW).unwrap();
    assert_eq!((offset(&mut published), client.read()), (None, String::new()));
    assert_eq!(client.wakes(), 0);
    shelf.keep();
    assert_eq!(offset(&mut published), Some(Ok(1)));
    assert_eq!((client.wakes(), client.read().as_str()), (1, "5/1=x;"));
    assert_eq!(hub.counts().published, 1);
}

#[test]
fn several_are_under_way_at_once_and_are_answered_and_delivered_in_order() {
    let shelf = Shelf::default();
    let hub = durable(&shelf, Limits::default());
    let (client, sender) = joined(&hub);
    let publish = |words| hub.publish(&five(), text(sender, words), NOW).unwrap();
    let mut all = ["a", "b", "c"].map(publish);
    assert_eq!(shelf.waiting(), 3);
    shelf.keep();
    shelf.keep();
    assert_eq!(all.each_mut().map(offset), [Some(Ok(1)), Some(Ok(2)), None]);
    assert_eq!(client.read(), "5/1=a;5/2=b;");
    shelf.keep();
    assert_eq!(client.read(), "5/3=c;");
    assert_eq!(shelf.kept(&five()), ["a", "b", "c"]);
}

#[test]
fn what_was_refused_takes_no_offset_nor_does_what_was_submitted_behind_it() {
    let shelf = Shelf::default();
    let hub = durable(&shelf, Limits::default());
    let (client, sender) = joined(&hub);
    let publish = |words| hub.publish(&five(), text(sender, words), NOW);
    let mut all = ["a", "b", "c"].map(|words| publish(words).unwrap());
    shelf.keep();
    shelf.refuse(failed());
    // Until the last is answered nothing can be said of what would be next.
    assert_eq!(at_once(publish("d")), Err(Refused::NotKept { channel: five(), reason: NotKept::OutOfTurn }));
    shelf.keep();
    assert_eq!(all.each_mut().map(offset), [Some(Ok(1)), refused(failed()), refused(NotKept::OutOfTurn)]);
    let mut next = publish("e").unwrap();
    shelf.keep();
    assert_eq!(offset(&mut next), Some(Ok(2)));
    assert_eq!(client.read(), "5/1=a;5/2=e;");
    assert_eq!(shelf.kept(&five()), ["a", "e"]);
}

#[test]
fn what_is_refused_at_once_gives_its_offset_to_the_next() {
    let shelf = Shelf::default();
    let hub = durable(&shelf, Limits::default());
    let (_client, sender) = joined(&hub);
    let publish = |words| hub.publish(&five(), text(sender, words), NOW);
    let mut first = publish("a").unwrap();
    shelf.refuse_at_once(Some(NotKept::Behind));
    let behind = Refused::NotKept { channel: five(), reason: NotKept::Behind };
    assert_eq!(at_once(publish("b")), Err(behind));
    shelf.refuse_at_once(None);
    let mut second = publish("c").unwrap();
    shelf.keep_all();
    assert_eq!([offset(&mut first), offset(&mut second)], [Some(Ok(1)), Some(Ok(2))]);
}

#[test]
fn a_broadcast_is_kept_by_one_submission_and_reaches_all_channels_or_none() {
    let shelf = Shelf::default();
    let rule = |pattern: &str, durable| ChannelRule {
        pattern: pattern.to_owned(),
        durable,
        ..ChannelRule::default()
    };
    let rules = vec![rule("5", true), rule("6", false), rule("7", true)];
    let hub = kept_by(&shelf, Settings { channels: rules, ..Settings::default() });
    let client = Client::new(&hub);
    let channels = [7, 6, 5].map(|number: u32| number.into());
    let sender = client.session.register(NOW).unwrap();
    channels.iter().for_each(|channel| {
        client.session.join(sender, channel, NOW).unwrap();
    });
    at_once(hub.publish(&channels[1], text(sender, "only in memory"), NOW)).unwrap();
    client.read();

    let mut all = hub.publish_all(&channels, text(sender, "x"), NOW).unwrap();
    assert_eq!((shelf.waiting(), client.read().as_str()), (1, ""));
    shelf.keep();
    let Poll::Ready(Ok(positions)) = all.poll_with(Waker::noop()) else { panic!("it is kept") };
    assert_eq!(positions.iter().map(|position| position.offset).collect::<Vec<_>>(), [1, 2, 1]);
    let mut read: Vec<_> = client.read().split(';').map(str::to_owned).collect();
    read.sort();
    assert_eq!(read, ["", "5/1=x", "6/2=x", "7/1=x"]);

    let mut refused = hub.publish_all(&channels, text(sender, "y"), NOW).unwrap();
    shelf.refuse(failed());
    let reason = Refused::NotKept { channel: five(), reason: failed() };
    assert_eq!(refused.poll_with(Waker::noop()), Poll::Ready(Err(reason)));
    assert_eq!(client.read(), "");
    let next = hub.publish_all(&channels, text(sender, "z"), NOW).unwrap();
    shelf.keep();
    let offsets: Vec<_> = next.now().unwrap().unwrap().iter().map(|position| position.offset).collect();
    assert_eq!(offsets, [2, 3, 2]);
}

#[test]
fn a_channel_goes_on_where_its_log_ends_after_a_restart_and_after_it_was_unused() {
    let shelf = Shelf::default();
    let published = |hub: &Hub, now| -> Position {
        let published = hub.publish(&five(), Publish::new(Content::text("x")), now).unwrap();
        shelf.keep_all();
        published.now().unwrap().unwrap()
    };
    let hub = durable(&shelf, Limits::default());
    let first = published(&hub, NOW);
    // It leaves memory, and is there all the same.
    hub.tick(later(400));
    assert_eq!((hub.counts().channels, hub.has_channel(&five()), hub.channels()), (0, true, vec![five()]));
    let second = published(&hub, later(400));
    assert_eq!(second, Position { epoch: first.epoch, offset: 2 });
    let hub = durable(&shelf, Limits::default());
    assert!(hub.has_channel(&five()));
    assert_eq!(published(&hub, NOW), Position { epoch: first.epoch, offset: 3 });
    // A guest may publish where there is a log, whether it is in memory or not.
    let hub = durable(&shelf, Limits::default());
    let guest = hub.register(NOW).unwrap();
    hub.publish(&five(), Publish::new(Content::text("y")).by_guest(guest), NOW).unwrap();
}

#[test]
fn a_channel_stays_in_memory_while_something_of_it_is_under_way() {
    let shelf = Shelf::default();
    let hub = durable(&shelf, Limits::default());
    let mut published = hub.publish(&five(), Publish::new(Content::text("x")), NOW).unwrap();
    hub.tick(later(400));
    let _client = joined(&hub);
    shelf.keep();
    assert_eq!(offset(&mut published), Some(Ok(1)));
    let mut next = hub.publish(&five(), Publish::new(Content::text("x")), NOW).unwrap();
    shelf.keep();
    assert_eq!(offset(&mut next), Some(Ok(2)));
}

/// A channel that all have left after a second, with a message under way.
fn left() -> (Shelf, Hub, Published) {
    let shelf = Shelf::default();
    let hub = durable(&shelf, Limits::default());
    let (_client, sender) = joined(&hub);
    let publish = || hub.publish(&five(), text(sender, "x"), NOW).unwrap();
    let [_, published] = [publish(), publish()];
    shelf.keep();
    hub.leave(sender, &five(), later(1)).unwrap();
    (shelf, hub, published)
}

#[test]
fn a_channel_whose_last_message_is_not_kept_after_all_is_forgotten_like_others() {
    let (shelf, hub, mut published) = left();
    hub.tick(later(1_000));
    assert_eq!((offset(&mut published), hub.counts().channels), (None, 1));
    shelf.refuse(failed());
    assert_eq!(offset(&mut published), refused(failed()));
    hub.tick(later(1_000));
    assert_eq!(hub.counts().channels, 0);
}

#[test]
fn what_is_not_kept_leaves_its_channel_the_time_that_it_had() {
    let (shelf, hub, _) = left();
    shelf.refuse(failed());
    hub.tick(later(120));
    assert_eq!(hub.counts().channels, 1);
    hub.tick(later(121));
    assert_eq!(hub.counts().channels, 0);
}

#[test]
fn without_a_ledger_nothing_is_published_on_a_durable_channel() {
    let rule = ChannelRule { durable: true, ..ChannelRule::default() };
    let hub = crate::support::hub_with(Settings { channels: vec![rule], ..Settings::default() });
    let (_client, sender) = joined(&hub);
    let refused = at_once(hub.publish(&five(), text(sender, "x"), NOW)).unwrap_err();
    assert!(matches!(refused, Refused::NotKept { .. }), "{refused}");
}

#[test]
fn there_are_no_more_logs_than_there_may_be_channels_however_many_come_and_go() {
    let shelf = Shelf::default();
    let hub = durable(&shelf, Limits { channels_max: 2, ..Limits::default() });
    let publish = |channel: u32, now| {
        let published = hub.publish(&channel.into(), Publish::new(Content::text("x")), now);
        shelf.keep_all();
        at_once(published)
    };
    publish(1, NOW).unwrap();
    publish(2, NOW).unwrap();
    hub.tick(later(400));
    assert_eq!(hub.counts().channels, 0);
    assert_eq!(publish(3, later(400)), Err(Refused::Limit { what: "durable channels", limit: 2 }));
    assert_eq!(publish(2, later(400)).unwrap().offset, 2);
}

#[test]
fn who_joins_and_leaves_begins_no_more_logs_than_there_may_be() {
    let shelf = Shelf::default();
    let rule = ChannelRule { durable: true, presence_events: true, ..ChannelRule::default() };
    let limits = Limits { channels_max: 2, ..Limits::default() };
    let hub =
        crate::support::kept_by(&shelf, Settings { limits, channels: vec![rule], ..Settings::default() });
    let sender = hub.register(NOW).unwrap();
    for turn in 0..4u32 {
        let now = later(u64::from(turn) * 400);
        hub.join(sender, &[turn.into()], now).unwrap();
        hub.leave(sender, &turn.into(), now).unwrap();
        shelf.keep_all();
        hub.tick(now.after(std::time::Duration::from_secs(200)));
        shelf.keep_all();
    }
    assert_eq!(watchtower_hub::Ledger::logs(&shelf), 2);
    assert!(hub.counts().presence_left_out > 0);
}

#[test]
fn a_channel_that_was_made_for_a_message_that_is_not_kept_is_not_there() {
    let shelf = Shelf::default();
    let hub = durable(&shelf, Limits::default());
    let publish = || hub.publish(&five(), Publish::new(Content::text("x")), NOW);
    shelf.refuse_at_once(Some(NotKept::Behind));
    publish().unwrap_err();
    assert_eq!(hub.counts().channels, 0);
    shelf.refuse_at_once(None);
    let mut published = publish().unwrap();
    shelf.refuse(failed());
    assert_eq!(offset(&mut published), refused(failed()));
    assert_eq!(hub.counts().channels, 0);
}
