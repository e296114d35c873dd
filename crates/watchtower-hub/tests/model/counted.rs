//! What an operator is told: every refusal by a limit, and what is lost, is counted.

use std::time::Duration;

use watchtower_hub::{ChannelName, Content, Hub, Limits, Publish, RefusedCounts, Settings, WhenLagging};

use crate::support::{NOW, hub_with, later};

fn publish(hub: &Hub, channel: u32, text: &str) {
    hub.publish(&channel.into(), Publish::new(Content::text(text)), NOW).unwrap();
}

#[test]
fn each_limit_counts_what_it_refused() {
    let limits = Limits {
        message_bytes_max: 3,
        channels_max: 2,
        channels_per_sender_max: 1,
        senders_max: 2,
        ..Limits::default()
    };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let (first, second) = (hub.register(NOW).unwrap(), hub.register(NOW).unwrap());
    assert!(hub.register(NOW).is_err());
    hub.join(first, &[5.into()], NOW).unwrap();
    assert!((0..2).all(|_| hub.join(first, &[6.into()], NOW).is_err()));
    publish(&hub, 6, "abc");
    assert!((0..3).all(|_| hub.join(second, &[7.into()], NOW).is_err()));
    let long = Publish::new(Content::text("abcd"));
    let channels = [5, 6].map(ChannelName::from);
    assert!((0..4).all(|_| hub.publish_all(&channels, long.clone(), NOW).is_err()));
    // Each of them takes its one join along, and two in ten seconds are the most.
    let sessions = [(); 5].map(|()| hub.open("test", WhenLagging::Close));
    let moved: Vec<_> = sessions.iter().map(|session| session.attach(first, NOW).is_ok()).collect();
    assert_eq!(moved, [true, true, false, false, false]);
    let expected =
        RefusedCounts { senders: 1, channels_per_sender: 2, channels: 3, message_bytes: 4, moved_joins: 3 };
    assert_eq!(hub.counts().refused, expected);
}

#[test]
fn sessions_and_what_they_skip_are_told_apart_by_protocol_and_from_those_away() {
    let limits = Limits { lag_messages: 10, ..Limits::default() };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let [first, second] = ["tcp", "udp"].map(|protocol| {
        let session = hub.open(protocol, WhenLagging::Skip);
        let sender = session.register(NOW).unwrap();
        session.join(sender, &5.into(), NOW).unwrap();
        session
    });
    let counted = || {
        let read =
            |counts: &watchtower_hub::ProtocolCounts| (counts.protocol, counts.sessions, counts.skipped);
        hub.counts_by_protocol().iter().map(read).collect::<Vec<_>>()
    };
    assert_eq!(counted(), [("tcp", 1, 0), ("udp", 1, 0)]);
    drop(first);
    (0..30).for_each(|_| publish(&hub, 5, "x"));
    let counts = hub.counts();
    let skipped = counted()[1].2;
    assert_eq!(counted(), [("tcp", 0, 0), ("udp", 1, skipped)]);
    assert!(skipped > 0 && counts.skipped_away > 0);
    assert_eq!(counts.lagging_skipped, skipped + counts.skipped_away);
    assert_eq!(counts.joins_expired, 0);
    hub.tick(later(120).after(Duration::from_millis(1)));
    assert_eq!(hub.counts().joins_expired, 1);
    drop(second);
}

#[test]
fn a_session_says_what_woke_it_and_how_far_it_is_behind() {
    let hub = hub_with(Settings::default());
    let session = hub.open("test", WhenLagging::Close);
    let sender = session.register(NOW).unwrap();
    session.join(sender, &5.into(), NOW).unwrap();
    let backlog = session.backlog();
    assert_eq!((session.woken_by(), backlog.unread()), (None, (0, 1)));
    for millis in [3, 4] {
        let time = NOW.after(Duration::from_millis(millis));
        hub.publish(&5.into(), Publish::new(Content::text("abc")), time).unwrap();
    }
    assert_eq!(session.woken_by(), Some(NOW.after(Duration::from_millis(3))));
    let (bytes, _) = backlog.unread();
    assert!((6..=6 + 2 * 256).contains(&bytes), "{bytes}");
    let _ = session.drain_messages(None, |_| true);
    assert_eq!((session.woken_by(), backlog.unread()), (None, (0, 1)));
    drop(session);
    assert_eq!(backlog.unread(), (0, 0));
}

#[test]
fn who_publishes_sees_the_count_of_its_thread_move() {
    let hub = hub_with(Settings::default());
    let before = hub.published_by_this_thread();
    assert!(hub.publish(&5.into(), Publish::new(Content::text("x")), NOW).is_ok());
    assert_eq!(hub.published_by_this_thread(), before + 1);
}
