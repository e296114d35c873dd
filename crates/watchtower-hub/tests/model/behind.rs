//! How much one client that does not read can make the hub keep, in all its
//! channels together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use watchtower_hub::{Content, Drained, Hub, Limits, Publish, Settings, WhenLagging};

use crate::support::{Client, Counted, NOW, hub_with, later};

const CHANNELS: u32 = 200;

/// A hub where 100 messages are as many as a subscription may be behind: then
/// a session may be 1,600 behind.
fn small() -> Hub {
    let limits = Limits { lag_bytes: 25_600, ..Limits::default() };
    hub_with(Settings { limits, ..Settings::default() })
}

/// A client that is in all the channels.
fn greedy(hub: &Hub, when_lagging: WhenLagging) -> Client {
    let client = Client { session: hub.open("test", when_lagging), wakes: Arc::default() };
    let sender = client.session.register(NOW).unwrap();
    for channel in 0..CHANNELS {
        client.session.join(sender, &channel.into(), NOW).unwrap();
    }
    client
}

/// Publishes so many messages on each channel, and returns the most that were
/// in memory at a time.
fn flood(hub: &Hub, messages: usize, live: &Arc<AtomicUsize>, mut between: impl FnMut()) -> usize {
    let mut most = 0;
    for _ in 0..messages {
        for channel in 0..CHANNELS {
            let content = Content::binary(Bytes::from_owner(Counted::new(live)));
            hub.publish(&channel.into(), Publish::new(content), NOW).unwrap();
        }
        most = most.max(live.load(Ordering::Relaxed));
        between();
    }
    most
}

#[test]
fn a_session_that_reads_nothing_is_lagging_when_it_is_too_far_behind_in_all_channels_together() {
    // [model: log]
    let (hub, live) = (small(), Arc::new(AtomicUsize::new(0)));
    let client = greedy(&hub, WhenLagging::Close);
    flood(&hub, 1, &live, || ());
    // It had its turn, and its socket took nothing.
    assert_eq!(client.drain(0).1, Drained::More);
    assert!(flood(&hub, 7, &live, || ()) <= 1_600);
    assert!(!client.session.is_lagging());
    client.wakes();
    let most = flood(&hub, 200, &live, || ());
    assert!(most <= 2_000, "{most}");
    assert_eq!((client.wakes(), client.drain(usize::MAX).1), (1, Drained::Lagging));
    assert_eq!(hub.counts().lagging_closed, 1);
    drop(client);
    let most = flood(&hub, 200, &live, || ());
    assert!(most <= 2_000, "what waits for its return is no more: {most}");
    hub.tick(later(120));
    assert_eq!(live.load(Ordering::Relaxed), 0);
}

#[test]
fn a_session_that_had_no_turn_yet_may_be_four_times_as_far_behind_in_all() {
    let (hub, live) = (small(), Arc::new(AtomicUsize::new(0)));
    let client = greedy(&hub, WhenLagging::Close);
    flood(&hub, 31, &live, || ());
    assert!(!client.session.is_lagging());
    let most = flood(&hub, 200, &live, || ());
    assert!(client.session.is_lagging() && most <= 7_600, "{most}");
}

#[test]
fn a_session_that_skips_keeps_the_newest_of_all_channels() {
    let (hub, live) = (small(), Arc::new(AtomicUsize::new(0)));
    let client = greedy(&hub, WhenLagging::Skip);
    let most = flood(&hub, 200, &live, || ());
    assert!(most <= 2_000, "{most}");
    let (text, drained) = client.drain(usize::MAX);
    assert_eq!(drained, Drained::All);
    let read = text.matches(';').count();
    assert!((800..=2_000).contains(&read), "{read}");
    for channel in 0..CHANNELS {
        assert!(text.contains(&format!("{channel}/200=;")), "the last of each channel");
    }
    assert_eq!(hub.counts().lagging_skipped, u64::from(CHANNELS) * 200 - read as u64);
    assert_eq!(live.load(Ordering::Relaxed), 0);
    // And it goes on as before.
    flood(&hub, 1, &live, || ());
    assert_eq!(client.read().matches(';').count(), CHANNELS as usize);
}

#[test]
fn a_session_that_reads_is_not_lagging_however_much_it_reads() {
    let (hub, live) = (small(), Arc::new(AtomicUsize::new(0)));
    let client = greedy(&hub, WhenLagging::Close);
    flood(&hub, 500, &live, || assert_eq!(client.drain(usize::MAX).1, Drained::All));
    assert_eq!((hub.counts().lagging_closed, hub.counts().lagging_skipped), (0, 0));
}
