//! The promises of the model ([model: delivery promises]), by the public
//! interface alone.

mod behind;
mod catching_up;
mod closing;
mod costs;
mod counted;
mod durable;
mod guests;
mod lasting;
mod mailbox;
mod moves;
mod paging;
mod presence;
mod private;
mod retained;
mod shelf;
mod support;
mod threads;
mod trail;
mod unregister;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use watchtower_hub::{
    ChannelName, Content, Drained, Joined, Limits, Position, Publish, Refused, SenderId, Settings, Start,
    WhenLagging,
};

use paging::kept;
use support::{
    Client, Counted, NOW, at_once, five, hub, hub_with, hub_with_history, joined, later, say, text,
};

#[test]
fn everyone_who_joined_hears_in_order_and_the_publisher_hears_itself() {
    let hub = hub();
    let ((a, from), (b, _)) = (joined(&hub), joined(&hub));
    assert_eq!(a.read(), "");
    say(&hub, from, "x");
    say(&hub, from, "y");
    assert_eq!(a.read(), "5/1=x;5/2=y;");
    assert_eq!(b.read(), "5/1=x;5/2=y;");
    assert_eq!(a.read(), "");
}

#[test]
fn a_burst_wakes_a_session_once() {
    let hub = hub();
    let (a, from) = joined(&hub);
    a.read();
    for _ in 0..100 {
        say(&hub, from, "x");
    }
    assert_eq!(a.wakes(), 1);
    assert_eq!(a.read().matches('x').count(), 100);
    assert_eq!(a.wakes(), 0);
    say(&hub, from, "x");
    assert_eq!(a.wakes(), 1);
}

#[test]
fn a_join_starts_at_the_end() {
    let hub = hub();
    let (_a, from) = joined(&hub);
    say(&hub, from, "before");
    let (b, _) = joined(&hub);
    say(&hub, from, "after");
    assert_eq!(b.read(), "5/2=after;");
}

#[test]
fn a_direct_message_reaches_the_named_alone_in_the_order_of_all() {
    // [packets: direct message]
    let hub = hub();
    let ((a, from), (b, to), (c, _)) = (joined(&hub), joined(&hub), joined(&hub));
    for client in [&a, &b, &c] {
        client.read();
    }
    say(&hub, from, "1");
    let receivers = [to.get(), to.get()];
    let direct = text(from, "2").to(&receivers);
    hub.publish(&five(), direct.clone(), NOW).unwrap();
    say(&hub, from, "3");
    assert_eq!(a.read(), "5/1=1;5/3=3;");
    assert_eq!(b.read(), "5/1=1;5/2=2;5/3=3;");
    assert_eq!(c.read(), "5/1=1;5/3=3;");
    for client in [&a, &b, &c] {
        client.wakes();
    }
    hub.publish(&five(), direct, NOW).unwrap();
    assert_eq!([a.wakes(), b.wakes(), c.wakes()], [0, 1, 0], "bystanders sleep on");
    assert_eq!(b.read(), "5/4=2;");
    say(&hub, from, "5");
    assert_eq!(c.read(), "5/5=5;");
}

#[test]
fn a_direct_message_needs_receivers_that_have_joined() {
    let hub = hub();
    let (_a, from) = joined(&hub);
    let stranger = hub.register(NOW).unwrap();
    let publish = |receivers: &[u32]| {
        at_once(hub.publish(&five(), text(from, "x").to(receivers), NOW)).map(|p| p.offset)
    };
    let missing = |ids: &[u32]| Err(Refused::ReceiverNotJoined { channel: five(), missing: ids.into() });
    assert_eq!(publish(&[stranger.get(), from.get()]), missing(&[stranger.get()]));
    assert_eq!(publish(&[]), missing(&[]));
    assert_eq!(publish(&[0, from.get()]), missing(&[0]));
    assert_eq!(publish(&[from.get()]), Ok(1), "a refused publish takes no offset");
}

#[test]
fn what_is_refused_says_why_and_has_no_effect() {
    let hub = hub();
    let (a, from) = joined(&hub);
    let stranger = SenderId::new(7).unwrap();
    let publish = |channel: u32, message| hub.publish(&channel.into(), message, NOW).map(|_| ());
    assert_eq!(publish(5, text(stranger, "x")), Err(Refused::UnknownSender(stranger)));
    assert_eq!(publish(6, text(from, "x")), Err(Refused::NotJoined { channel: 6.into() }));
    let large = text(from, &"x".repeat(65_536));
    assert_eq!(publish(5, large), Err(Refused::TooLarge { bytes: 65_536, limit: 65_535 }));
    assert_eq!(
        hub.publish_all(&[5.into(), 6.into()], text(from, "x"), NOW).unwrap_err(),
        Refused::NotJoined { channel: 6.into() }
    );
    assert_eq!(a.read(), "");
}

#[test]
fn publishing_on_several_channels_answers_in_their_order() {
    let hub = hub();
    let (a, from) = joined(&hub);
    a.session.join(from, &4.into(), NOW).unwrap();
    say(&hub, from, "x");
    let places = at_once(hub.publish_all(&[5.into(), 4.into(), 5.into()], text(from, "y"), NOW)).unwrap();
    assert_eq!(places.iter().map(|place| place.offset).collect::<Vec<_>>(), [2, 1, 2]);
}

#[test]
fn leaving_ends_delivery_and_joining_again_starts_at_the_end() {
    let hub = hub();
    let ((a, id), (_b, from)) = (joined(&hub), joined(&hub));
    hub.leave(id, &five(), NOW).unwrap();
    say(&hub, from, "missed");
    a.session.join(id, &five(), NOW).unwrap();
    say(&hub, from, "heard");
    assert_eq!(a.read(), "5/2=heard;");
    hub.leave(id, &9.into(), NOW).unwrap();
}

#[test]
fn joins_survive_a_reconnect_with_what_was_missed_and_end_after_session_ttl() {
    // [packets: rules]
    let hub = hub();
    let ((a, id), (_b, from)) = (joined(&hub), joined(&hub));
    say(&hub, from, "seen");
    assert_eq!(a.read(), "5/1=seen;");
    say(&hub, from, "not read");
    drop(a);
    say(&hub, from, "missed");
    hub.tick(later(119));
    let again = Client::new(&hub);
    again.session.attach(id, later(119)).unwrap();
    assert_eq!(again.read(), "5/2=not read;5/3=missed;");
    say(&hub, from, "live");
    assert_eq!(again.read(), "5/4=live;");
    drop(again);
    hub.tick(later(119 + 120));
    assert!(!hub.has_joined(id, &five()));
    assert!(hub.is_registered(id, later(240)));
}

#[test]
fn an_id_that_another_session_names_moves_there() {
    // [packets: rules]
    let hub = hub();
    let ((a, id), (_b, from)) = (joined(&hub), joined(&hub));
    say(&hub, from, "1");
    assert_eq!(a.read(), "5/1=1;");
    say(&hub, from, "2");
    let newer = Client::new(&hub);
    newer.session.attach(id, NOW).unwrap();
    say(&hub, from, "3");
    assert_eq!(a.read(), "");
    assert_eq!(newer.read(), "5/2=2;5/3=3;");
    hub.configure(Settings { bind_ids: true, ..Settings::default() });
    assert_eq!(a.session.attach(id, NOW), Err(Refused::BoundElsewhere(id)));
    drop(newer);
    assert_eq!(a.session.attach(id, NOW), Ok(()));
    say(&hub, from, "4");
    assert_eq!(a.read(), "5/4=4;");
}

#[test]
fn two_ids_of_one_session_in_one_channel_hear_one_copy() {
    // [packets: rules]
    let hub = hub();
    let (a, first) = joined(&hub);
    let second = a.session.register(NOW).unwrap();
    a.session.join(second, &five(), NOW).unwrap();
    say(&hub, first, "x");
    let both = [first.get(), second.get()];
    hub.publish(&five(), text(first, "y").to(&both), NOW).unwrap();
    assert_eq!(a.read(), "5/1=x;5/2=y;");
    hub.leave(first, &five(), NOW).unwrap();
    say(&hub, second, "z");
    assert_eq!(a.read(), "5/3=z;");
}

#[test]
fn two_streams_of_one_sender_both_deliver_and_a_standing_join_outlasts_them() {
    // [http: streams]
    let hub = hub();
    let id = hub.register(NOW).unwrap();
    hub.join(id, &[five()], NOW).unwrap();
    let streams = [Client::new(&hub), Client::new(&hub)];
    for stream in &streams {
        stream.session.subscribe(id, &five(), Start::End, NOW).unwrap();
    }
    say(&hub, id, "x");
    assert_eq!(streams[0].read(), "5/1=x;");
    assert_eq!(streams[1].read(), "5/1=x;");
    drop(streams);
    hub.tick(later(1_000));
    assert!(hub.has_joined(id, &five()));
}

#[test]
fn a_stream_that_comes_back_goes_on_after_the_position_that_it_names() {
    // [http: streams]
    let hub = hub();
    let ((_b, from), id) = (joined(&hub), hub.register(NOW).unwrap());
    let stream = Client::new(&hub);
    let start = stream.session.subscribe(id, &five(), Start::End, NOW).unwrap();
    assert!(start.recovered);
    say(&hub, from, "1");
    say(&hub, from, "2");
    let mut seen = start.position;
    seen.offset = 1;
    drop(stream);
    say(&hub, from, "3");
    let subscribe = |position| {
        let stream = Client::new(&hub);
        let joined = stream.session.subscribe(id, &five(), Start::After(position), NOW).unwrap();
        (stream.read(), joined.recovered, joined.position.offset)
    };
    assert_eq!(subscribe(seen), ("5/2=2;5/3=3;".into(), true, 1));
    seen.offset = 3;
    assert_eq!(subscribe(seen), (String::new(), true, 3));
    seen.offset = 4;
    assert_eq!(subscribe(seen), ("5/1=1;5/2=2;5/3=3;".into(), false, 0), "no such message yet");
    hub.tick(later(121));
    seen.offset = 1;
    assert_eq!(subscribe(seen), (String::new(), false, 3), "not kept any more");
}

#[test]
fn who_owns_a_sender_may_have_it_begin_anew_at_a_position() {
    let hub = hub_with_history();
    let (a, from) = joined(&hub);
    let (b, to) = joined(&hub);
    for words in ["1", "2"] {
        say(&hub, from, words);
    }
    hub.publish(&five(), text(from, "3").to(&[to.get()]), NOW).unwrap();
    let at = |offset| Position { epoch: hub.epoch(&five()).unwrap(), offset };
    let follow = |client: &Client, sender, start| client.session.follow(sender, &five(), start, NOW).unwrap();
    assert_eq!(b.read(), "5/1=1;5/2=2;5/3=3;");
    assert_eq!(follow(&b, to, Start::After(at(1))), Joined { position: at(1), recovered: true });
    say(&hub, from, "4");
    assert_eq!(b.read(), "5/2=2;5/3=3;5/4=4;");
    // What it has not read yet comes once, and nobody else's.
    follow(&a, from, Start::After(at(1)));
    assert_eq!(a.read(), "5/2=2;5/4=4;");
    say(&hub, from, "5");
    follow(&a, from, Start::End);
    assert_eq!(a.read(), "");
    // What a former session of the sender missed is not kept for it any more.
    drop(b);
    say(&hub, from, "6");
    let c = Client::new(&hub);
    assert_eq!(follow(&c, to, Start::After(at(5))), Joined { position: at(5), recovered: true });
    assert_eq!(c.read(), "5/6=6;");
    assert_eq!(hub.counts().subscriptions, 2);
    say(&hub, from, "7");
    assert_eq!((a.read(), c.read()), ("5/6=6;5/7=7;".into(), "5/7=7;".into()));
}

#[test]
fn history_keeps_as_many_and_as_long_as_the_rule_says() {
    let rule = watchtower_hub::ChannelRule {
        pattern: "5".into(),
        history_messages: 2,
        history_ttl: Duration::from_secs(60),
        ..Default::default()
    };
    let hub = hub_with(Settings { channels: vec![rule], ..Settings::default() });
    let (a, from) = joined(&hub);
    for words in ["1", "2", "3"] {
        say(&hub, from, words);
    }
    assert_eq!(kept(&hub, NOW), [2, 3]);
    assert!(kept(&hub, later(60)).is_empty());
    hub.leave(from, &five(), later(60)).unwrap();
    drop(a);
    hub.tick(later(300));
    assert_eq!(hub.counts().channels, 0, "an unused channel is forgotten");
}

#[test]
fn a_channel_whose_history_ends_stays_as_long_as_one_that_has_none() {
    let rule = watchtower_hub::ChannelRule {
        history_messages: 2,
        history_ttl: Duration::from_secs(60),
        ..Default::default()
    };
    let hub = hub_with(Settings { channels: vec![rule], ..Settings::default() });
    let (_a, from) = joined(&hub);
    say(&hub, from, "1");
    hub.leave(from, &five(), NOW).unwrap();
    for (seconds, is_there) in [(60, true), (119, true), (120, false)] {
        hub.tick(later(seconds));
        assert_eq!(hub.has_channel(&five()), is_there, "after {seconds} s");
    }
}

#[test]
fn who_falls_behind_is_lagging_and_memory_stays_within_nine_eighths_of_the_limit() {
    // [model: log]
    let limits = Limits { lag_messages: 80, ..Limits::default() };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let ((slow, _), (fast, from)) = (joined(&hub), joined(&hub));
    let skipping = Client { session: hub.open("udp", WhenLagging::Skip), wakes: Arc::default() };
    let skipper = skipping.session.register(NOW).unwrap();
    skipping.session.join(skipper, &five(), NOW).unwrap();
    let live = Arc::new(AtomicUsize::new(0));
    for round in 0..1_000 {
        let content = Content::binary(Bytes::from_owner(Counted::new(&live)));
        hub.publish(&five(), Publish::new(content).by(from), NOW).unwrap();
        assert_eq!(fast.drain(usize::MAX).1, Drained::All);
        if round == 0 {
            // It had its turn, and its socket took nothing.
            assert_eq!(slow.drain(0), (String::new(), Drained::More));
        }
        assert!(live.load(Ordering::Relaxed) <= 90, "{live:?}");
    }
    assert_eq!(slow.drain(usize::MAX).1, Drained::Lagging);
    let (text, drained) = skipping.drain(usize::MAX);
    assert_eq!(drained, Drained::All);
    assert!(text.ends_with("5/1000=;") && (80..=90).contains(&text.matches(';').count()), "{text}");
    let counts = hub.counts();
    assert_eq!(counts.lagging_closed, 1);
    assert!(counts.lagging_skipped >= 910, "{counts:?}");
    drop(slow);
    hub.tick(later(121));
    assert_eq!(live.load(Ordering::Relaxed), 0, "nothing is kept behind the last cursor");
}

#[test]
fn lag_is_bounded_in_bytes_too() {
    let limits = Limits { lag_bytes: 80_000, ..Limits::default() };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let ((slow, _), (fast, from)) = (joined(&hub), joined(&hub));
    for _ in 0..20 {
        say(&hub, from, &"x".repeat(10_000));
        fast.read();
        let _ = slow.drain(0);
    }
    assert_eq!(slow.drain(usize::MAX).1, Drained::Lagging);
}

#[test]
fn a_session_that_had_no_turn_yet_has_four_times_the_limit() {
    let limits = Limits { lag_messages: 80, ..Limits::default() };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let (waiting, from) = joined(&hub);
    let publish = |count| (0..count).for_each(|_| say(&hub, from, "x"));
    publish(310);
    assert_eq!(waiting.read().matches('x').count(), 310);
    publish(340);
    assert_eq!(waiting.drain(usize::MAX).1, Drained::Lagging);
}

#[test]
fn senders_expire_when_they_are_silent_and_have_no_session() {
    // [packets: rules]
    let day = 24 * 3600;
    let hub = hub();
    let silent = hub.register(NOW).unwrap();
    let active = hub.register(NOW).unwrap();
    let (_a, connected) = joined(&hub);
    assert!(hub.is_registered(active, later(20 * day)));
    hub.tick(later(31 * day));
    assert!(!hub.is_registered(silent, later(31 * day)));
    assert!(hub.is_registered(connected, later(31 * day)));
    assert!(hub.is_registered(active, later(31 * day)));
}

#[test]
fn limits_on_senders_and_channels_are_kept() {
    let limits = Limits { senders_max: 2, channels_max: 3, channels_per_sender_max: 2, ..Limits::default() };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let (a, b) = (hub.register(NOW).unwrap(), hub.register(NOW).unwrap());
    let limit = |what, limit| Err(Refused::Limit { what, limit });
    assert_eq!(hub.register(NOW).map(|_| ()), limit("senders", 2));
    let names = |numbers: &[u32]| numbers.iter().map(|&n| ChannelName::from(n)).collect::<Vec<_>>();
    assert_eq!(hub.join(a, &names(&[1, 2, 3]), NOW), limit("channels for one sender", 2));
    assert!(!hub.has_joined(a, &1.into()), "none is joined when one is refused");
    assert_eq!(hub.join(a, &names(&[1, 2]), NOW), Ok(()));
    assert_eq!(hub.join(b, &names(&[3, 4]), NOW), limit("channels", 3));
}

#[test]
fn a_drain_takes_about_what_it_is_asked_for_and_goes_by_turns() {
    let hub = hub();
    let (a, from) = joined(&hub);
    a.session.join(from, &6.into(), NOW).unwrap();
    for _ in 0..3 {
        // Direct, so that they do not come as one run.
        for channel in [5, 6] {
            let me = [from.get()];
            hub.publish(&channel.into(), text(from, "x").to(&me), NOW).unwrap();
        }
    }
    let mut read = Vec::new();
    loop {
        let (text, drained) = a.drain(1);
        read.push(text);
        if drained == Drained::All {
            break;
        }
    }
    assert_eq!(read.concat(), "5/1=x;6/1=x;5/2=x;6/2=x;5/3=x;6/3=x;");
}

proptest::proptest! {
    #[test]
    fn every_subscription_hears_each_message_once_and_in_order(
        script in proptest::collection::vec((0u8..8, 0usize..4), 1..200),
    ) {
        run(&script);
    }
}

/// What a client may expect: all of `log` from `from` on, less what it read.
#[derive(Default)]
struct Expected {
    log: Vec<(u64, bool)>,
}

fn run(script: &[(u8, usize)]) {
    let hub = hub();
    let publisher = hub.register(NOW).unwrap();
    hub.join(publisher, &[five()], NOW).unwrap();
    let live = Arc::new(AtomicUsize::new(0));
    let ids: Vec<_> = (0..4).map(|_| hub.register(NOW).unwrap()).collect();
    let mut clients: Vec<_> = (0..4).map(|_| Some(Client::new(&hub))).collect();
    let mut expected: Vec<Option<Expected>> = (0..4).map(|_| None).collect();
    let mut published = 0;
    let check = |client: &Client, expected: &mut Option<Expected>, bytes| {
        let (text, drained) = client.drain(bytes);
        let read: Vec<u64> =
            text.split_terminator(';').map(|m| m[2..].trim_end_matches('=').parse().unwrap()).collect();
        let Some(expected) = expected else { return assert!(read.is_empty()) };
        let wanted: Vec<_> =
            expected.log.iter().filter(|(_, mine)| *mine).map(|(offset, _)| *offset).collect();
        assert_eq!(read, wanted[..read.len()], "in order, none left out");
        let last = read.last().copied().unwrap_or(0);
        expected.log.retain(|(offset, _)| *offset > last);
        if drained == Drained::All {
            assert_eq!(read, wanted, "all");
            expected.log.clear();
        }
    };
    for &(step, who) in script {
        match step {
            0 | 1 => {
                published += 1;
                let content = Content::binary(Bytes::from_owner(Counted::new(&live)));
                hub.publish(&five(), Publish::new(content).by(publisher), NOW).unwrap();
                expected.iter_mut().flatten().for_each(|e| e.log.push((published, true)));
            }
            2 => {
                let receivers = [ids[who].get()];
                let content = Content::binary(Bytes::from_owner(Counted::new(&live)));
                let direct = Publish::new(content).by(publisher).to(&receivers);
                if hub.publish(&five(), direct, NOW).is_ok() {
                    published += 1;
                    for (index, expected) in expected.iter_mut().enumerate() {
                        expected.iter_mut().for_each(|e| e.log.push((published, index == who)));
                    }
                }
            }
            3 => {
                let client = clients[who].get_or_insert_with(|| Client::new(&hub));
                client.session.join(ids[who], &five(), NOW).unwrap();
                expected[who].get_or_insert_default();
            }
            4 => {
                hub.leave(ids[who], &five(), NOW).unwrap();
                expected[who] = None;
            }
            5 => {
                if let Some(client) = &clients[who] {
                    check(client, &mut expected[who], 1);
                }
            }
            6 => {
                if let Some(client) = &clients[who] {
                    check(client, &mut expected[who], usize::MAX);
                }
            }
            // Reconnect: what was not read comes by the next session.
            _ => {
                clients[who] = None;
                let client = Client::new(&hub);
                client.session.attach(ids[who], NOW).unwrap();
                clients[who] = Some(client);
            }
        }
    }
    for (client, expected) in clients.iter().zip(&mut expected) {
        if let Some(client) = client {
            check(client, expected, usize::MAX);
        }
    }
    for id in ids {
        hub.leave(id, &five(), NOW).unwrap();
    }
    assert_eq!(live.load(Ordering::Relaxed), 0, "nothing is kept behind the last cursor");
    drop(clients);
    assert_eq!(hub.counts().subscriptions, 0);
    assert_eq!(hub.counts().sessions, 0);
}

#[test]
fn a_subscription_that_lagged_and_ended_leaves_nothing_to_the_next_one() {
    let limits = Limits { lag_messages: 8, ..Limits::default() };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let reader = Client { session: hub.open("test", WhenLagging::Skip), wakes: Arc::default() };
    let sender = reader.session.register(NOW).unwrap();
    reader.session.join(sender, &five(), NOW).unwrap();
    assert_eq!(reader.read(), "");
    for number in 0..20 {
        say(&hub, sender, &number.to_string());
    }
    // It is moved on, and rung for, and leaves before it looks.
    hub.leave(sender, &five(), NOW).unwrap();
    reader.session.join(sender, &ChannelName::from(6), NOW).unwrap();
    hub.publish(&ChannelName::from(6), text(sender, "six"), NOW).unwrap();
    assert_eq!(reader.read(), "6/1=six;", "nothing of the channel that was left");
    hub.publish(&ChannelName::from(6), text(sender, "again"), NOW).unwrap();
    assert_eq!(reader.read(), "6/2=again;");
}

#[test]
fn a_session_that_lags_is_woken_again_though_it_did_not_look() {
    let limits = Limits { lag_messages: 8, ..Limits::default() };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let (reader, _) = joined(&hub);
    let (_publisher, from) = joined(&hub);
    assert_eq!(reader.read(), "");
    say(&hub, from, "1");
    assert_eq!((reader.wakes(), reader.session.is_lagging()), (1, false));
    for _ in 0..100 {
        say(&hub, from, "x");
    }
    assert_eq!((reader.wakes(), reader.session.is_lagging()), (1, true));
}

#[test]
fn an_id_that_two_sessions_join_with_at_once_is_delivered_to_by_one() {
    for _ in 0..500 {
        let hub = hub();
        let sender = hub.register(NOW).unwrap();
        let sessions = [(); 2].map(|()| hub.open("test", WhenLagging::Close));
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for session in &sessions {
                let join = || {
                    start.wait();
                    session.join(sender, &five(), NOW).unwrap();
                };
                scope.spawn(join);
            }
        });
        assert_eq!(hub.counts().subscriptions, 1);
    }
}
