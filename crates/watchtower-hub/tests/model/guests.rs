//! Senders that publish without having joined, and what is beside the content.

use bytes::Bytes;
use watchtower_hub::{
    Accepts, ChannelName, ChannelRule, Content, Drained, Hub, Limits, Position, Publish, Refused, SenderId,
    Settings,
};

use crate::support::{Client, NOW, at_once, five, hub, hub_with, joined, later, text};

fn publish(hub: &Hub, channel: u32, guest: SenderId) -> Result<Position, Refused> {
    at_once(hub.publish(&channel.into(), Publish::new(Content::text("x")).by_guest(guest), NOW))
}

#[test]
fn a_guest_publishes_on_a_channel_that_there_is_and_makes_none() {
    // [webrocket: publish]
    let hub = hub();
    let (reader, _) = joined(&hub);
    let guest = hub.register(NOW).unwrap();
    assert_eq!(publish(&hub, 5, guest).unwrap().offset, 1);
    let mut sender = None;
    let all = reader.session.drain_messages(None, |entry| {
        sender = entry.sender();
        true
    });
    assert_eq!((all, sender), (Drained::All, Some(guest)));
    assert!(!hub.has_joined(guest, &five()));
    assert_eq!(publish(&hub, 6, guest), Err(Refused::NoSuchChannel { channel: 6.into() }));
    assert!(hub.has_channel(&five()) && !hub.has_channel(&6.into()));
    let stranger = SenderId::new(7).unwrap();
    assert_eq!(publish(&hub, 5, stranger), Err(Refused::UnknownSender(stranger)));
    let nobody = Publish::new(Content::text("x")).by_guest(guest).to(&[]);
    let refused = at_once(hub.publish(&five(), nobody, NOW));
    assert_eq!(refused, Err(Refused::ReceiverNotJoined { channel: five(), missing: vec![] }));
}

#[test]
fn a_channel_that_was_made_for_one_message_is_forgotten_like_any_other() {
    let hub = hub();
    hub.publish(&five(), Publish::new(Content::text("x")), NOW).unwrap();
    hub.tick(later(119));
    assert!(hub.has_channel(&five()));
    hub.tick(later(120));
    assert!(!hub.has_channel(&five()));
}

#[test]
fn a_channel_that_would_have_been_made_for_a_message_that_is_refused_is_not() {
    let rule = ChannelRule { pattern: "5".into(), accepts: Accepts::Json, ..ChannelRule::default() };
    let limits = Limits { channels_max: 2, ..Limits::default() };
    let hub = hub_with(Settings { limits, channels: vec![rule], ..Settings::default() });
    let message = Publish::new(Content::text("no JSON"));
    let publish = |channels: &[u32]| {
        let channels: Vec<_> = channels.iter().map(|number| ChannelName::from(*number)).collect();
        hub.publish_all(&channels, message.clone(), NOW).err()
    };
    let bad_content = Some(Refused::BadContent { channel: five(), accepts: "JSON" });
    assert_eq!(hub.publish(&five(), message.clone(), NOW).err(), bad_content);
    assert_eq!(publish(&[4, 5]), bad_content);
    assert_eq!(publish(&[1, 2, 3]), Some(Refused::Limit { what: "channels", limit: 2 }));
    assert_eq!(hub.channels(), []);
    // One that is there stays.
    let (_client, _) = joined(&hub);
    assert_eq!(publish(&[5]), bad_content);
    assert_eq!(hub.channels(), [five()]);
}

#[test]
fn what_is_beside_the_content_reaches_readers_and_counts_where_bytes_are_limited() {
    let limits = Limits { message_bytes_max: 10_000, lag_bytes: 80_000, ..Limits::default() };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let ((slow, from), (fast, _)) = (joined(&hub), joined(&hub));
    let extras = |bytes| Bytes::from(vec![b'x'; bytes]);
    let publish = |extras| at_once(hub.publish(&five(), text(from, "1").extras(extras), NOW));
    assert_eq!(publish(extras(10_000)), Err(Refused::TooLarge { bytes: 10_001, limit: 10_000 }));
    for _ in 0..20 {
        publish(extras(9_999)).unwrap();
        let mut seen = None;
        let _ = fast.session.drain_messages(None, |entry| {
            seen = entry.extras().cloned();
            true
        });
        assert_eq!(seen, Some(extras(9_999)));
        let _ = slow.drain(0);
    }
    assert!(slow.session.is_lagging());
}

#[test]
fn a_subscription_that_its_session_ends_leaves_nothing_behind() {
    let hub = hub();
    let client = Client::new(&hub);
    let sender = client.session.register(NOW).unwrap();
    client.session.join(sender, &five(), NOW).unwrap();
    assert_eq!(hub.counts().subscriptions, 1);
    client.session.unsubscribe(sender, &five(), NOW);
    client.session.unsubscribe(sender, &five(), NOW);
    client.session.unsubscribe(sender, &6.into(), NOW);
    assert!(!hub.has_joined(sender, &five()));
    assert_eq!((hub.counts().subscriptions, client.session.subscriptions()), (0, 0));
    assert_eq!(hub.presence(&five()), Some(vec![]));
    hub.tick(later(120));
    assert!(!hub.has_channel(&five()));
}

#[test]
fn a_session_that_unsubscribes_leaves_other_sessions_of_the_sender_alone() {
    let hub = hub();
    let sender = hub.register(NOW).unwrap();
    let streams = [Client::new(&hub), Client::new(&hub)];
    for stream in &streams {
        stream.session.subscribe(sender, &five(), watchtower_hub::Start::End, NOW).unwrap();
    }
    streams[0].session.unsubscribe(sender, &five(), NOW);
    hub.publish(&five(), text(sender, "x"), NOW).unwrap();
    assert_eq!((streams[0].read(), streams[1].read()), (String::new(), "5/1=x;".into()));
    streams[1].session.unsubscribe(sender, &five(), NOW);
    assert!(!hub.has_joined(sender, &five()));
}
