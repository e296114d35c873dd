//! What one client can cost the others.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::time::{Duration, Instant};

use rustc_hash::FxHasher;
use watchtower_hub::{ChannelName, Content, Epoch, Limits, Publish, Refused, Settings, Start};

use crate::support::{Client, NOW, at_once, five, hub, hub_with, later, say, text};

#[test]
fn one_connection_may_register_and_join_very_many_senders() {
    // With a search among the others for each it would be minutes.
    const SENDERS: u32 = 100_000;
    let hub = hub();
    let gateway = Client::new(&hub);
    let ids: Vec<_> = (0..SENDERS).map(|_| gateway.session.register(NOW).unwrap()).collect();
    for &id in &ids {
        gateway.session.join(id, &five(), NOW).unwrap();
    }
    let receivers = [ids[7].get()];
    hub.publish(&five(), text(ids[0], "to one").to(&receivers), NOW).unwrap();
    assert_eq!(gateway.read(), "5/1=to one;");
    for &id in &ids[1..] {
        hub.leave(id, &five(), NOW).unwrap();
    }
    hub.publish(&five(), Publish::new(Content::text("to all")), NOW).unwrap();
    assert_eq!(gateway.read(), "5/2=to all;");
    drop(gateway);
    assert_eq!(hub.counts().subscriptions, 0);
}

#[test]
fn an_id_that_connections_take_from_each_other_moves_so_many_joins_and_then_no_more() {
    let limits = Limits { channels_per_sender_max: 10, ..Limits::default() };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let clients = [Client::new(&hub), Client::new(&hub)];
    let id = clients[0].session.register(NOW).unwrap();
    for channel in 1..=9 {
        clients[0].session.join(id, &channel.into(), NOW).unwrap();
    }
    let moves = |now| (0..50).filter(|turn| clients[1 - turn % 2].session.attach(id, now).is_ok()).count();
    // Two go through; of the others every second finds the id where it is.
    assert_eq!(moves(NOW), 2 + 24);
    let refused = clients[1].session.attach(id, NOW).unwrap_err();
    assert!(matches!(refused, Refused::Limit { limit: 20, .. }), "{refused:?}");
    assert_eq!(clients[1].session.join(id, &five(), NOW).unwrap_err(), refused);
    say(&hub, id, "x");
    assert_eq!((clients[0].read(), clients[1].read()), ("5/1=x;".into(), String::new()));
    clients[1].session.attach(id, later(4)).unwrap();
    say(&hub, id, "y");
    assert_eq!((clients[0].read(), clients[1].read()), (String::new(), "5/2=y;".into()));
}

#[test]
fn an_id_with_few_joins_moves_as_often_as_it_is_named() {
    let hub = hub();
    let clients = [Client::new(&hub), Client::new(&hub)];
    let id = clients[0].session.register(NOW).unwrap();
    clients[0].session.join(id, &five(), NOW).unwrap();
    for turn in 1..=1_000 {
        clients[turn % 2].session.attach(id, NOW).unwrap();
    }
}

#[test]
fn a_stream_that_names_a_position_does_not_search_those_who_are_away() {
    // With a look at each of the others for each of them it would be half a minute.
    const STREAMS: usize = 10_000;
    let hub = hub();
    let publisher = Publish::new(Content::text("x"));
    let join = |id, start| {
        let stream = Client::new(&hub);
        let joined = stream.session.subscribe(id, &five(), start, NOW).unwrap();
        (stream, joined)
    };
    let ids: Vec<_> = (0..STREAMS).map(|_| hub.register(NOW).unwrap()).collect();
    let streams: Vec<_> = ids.iter().map(|&id| join(id, Start::End)).collect();
    let mut seen = at_once(hub.publish(&five(), publisher.clone(), NOW)).unwrap();
    hub.publish(&five(), publisher, NOW).unwrap();
    drop(streams);
    let newcomer = hub.register(NOW).unwrap();
    for _ in 0..STREAMS {
        let (stream, joined) = join(newcomer, Start::After(seen));
        assert_eq!((joined.recovered, stream.read().as_str()), (true, "5/2=x;"));
        stream.session.unsubscribe(newcomer, &five(), NOW);
    }
    seen.epoch = Epoch::from_bits(0);
    assert!(!join(newcomer, Start::After(seen)).1.recovered);
}

#[test]
fn a_session_that_has_not_read_very_many_channels_ends_as_one_that_has() {
    // With a search among the others for each it would be a quarter of a minute.
    const CHANNELS: u32 = 30_000;
    let limits = Limits { channels_per_sender_max: CHANNELS as usize, ..Limits::default() };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let client = Client::new(&hub);
    let id = client.session.register(NOW).unwrap();
    for channel in 0..CHANNELS {
        client.session.join(id, &channel.into(), NOW).unwrap();
        hub.publish(&channel.into(), text(id, "x"), NOW).unwrap();
    }
    // It has begun with the first.
    assert_eq!(client.drain(1).0, "0/1=x;");
    let next = Client::new(&hub);
    next.session.attach(id, NOW).unwrap();
    assert_eq!((client.session.subscriptions(), client.read()), (0, String::new()));
    assert_eq!(next.read().matches(';').count(), CHANNELS as usize - 1);
}

#[test]
fn a_channel_that_is_left_unread_over_and_over_delivers_what_is_new_at_last() {
    let hub = hub();
    let client = Client::new(&hub);
    let id = client.session.register(NOW).unwrap();
    for turn in 0..1_000u32 {
        for channel in [five(), (turn % 3).into()] {
            client.session.join(id, &channel, NOW).unwrap();
            hub.publish(&channel, text(id, "x"), NOW).unwrap();
            if turn % 2 == 0 {
                assert_eq!(client.drain(0).0, "");
            }
            client.session.unsubscribe(id, &channel, NOW);
        }
    }
    client.session.join(id, &five(), NOW).unwrap();
    say(&hub, id, "y");
    assert_eq!(client.read(), "5/1001=y;");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "it is about time, and the hub has no part in it")]
fn channels_whose_names_were_chosen_to_collide_are_found_as_fast_as_others() {
    const NAMES: usize = 1_500;
    // In a table of a hash that everybody can compute they all come to one place.
    let hasher = BuildHasherDefault::<FxHasher>::default();
    let place = |name: &ChannelName| hasher.hash_one(name) & 0x7ff;
    let chosen = (0..).map(ChannelName::from).filter(|name| place(name) == 0).take(NAMES);
    let fastest = |names: Vec<ChannelName>| {
        let hub = hub();
        let id = hub.register(NOW).unwrap();
        hub.join(id, &names, NOW).unwrap();
        let round = || {
            let started = Instant::now();
            assert!(names.iter().all(|name| hub.has_joined(id, name)));
            started.elapsed()
        };
        (0..20).map(|_| round()).min().unwrap_or_default()
    };
    let (ordinary, colliding) =
        (fastest((0..NAMES as u32).map(ChannelName::from).collect()), fastest(chosen.collect()));
    assert!(
        colliding < 3 * ordinary + Duration::from_micros(50),
        "{colliding:?}, and {ordinary:?} for others"
    );
}
