//! Streams whose clients did not receive all that they were handed, and come
//! back with a position ([http: since]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use watchtower_hub::{Content, Hub, Joined, Limits, Position, Publish, SenderId, Settings, Start, Timestamp};

use crate::support::{Client, Counted, NOW, at_once, five, hub, hub_with, later};

/// A stream of that sender in channel 5, which is resumed by position.
fn stream(hub: &Hub, sender: SenderId, start: Start, now: Timestamp) -> (Client, Joined) {
    let client = Client::new(hub);
    client.session.resumes_by_position();
    let joined = client.session.subscribe(sender, &five(), start, now).unwrap();
    (client, joined)
}

fn publish(hub: &Hub, text: &str, now: Timestamp) -> Position {
    at_once(hub.publish(&five(), Publish::new(Content::text(text)), now)).unwrap()
}

/// Publishes a message that knows whether it is in memory.
fn publish_counted(hub: &Hub, live: &Arc<AtomicUsize>, now: Timestamp) {
    let content = Content::binary(Bytes::from_owner(Counted::new(live)));
    hub.publish(&five(), Publish::new(content), now).unwrap();
}

#[test]
fn what_was_handed_out_and_never_arrived_comes_again_after_the_stream_has_ended() {
    let hub = hub();
    let sender = hub.register(NOW).unwrap();
    let (client, _) = stream(&hub, sender, Start::End, NOW);
    let seen = publish(&hub, "1", NOW);
    publish(&hub, "2", NOW);
    assert_eq!(client.read(), "5/1=1;5/2=2;");
    drop(client);
    publish(&hub, "3", later(1));
    // For as long as its join outlives it.
    hub.tick(later(100));
    let (client, joined) = stream(&hub, sender, Start::After(seen), later(100));
    assert_eq!((joined.recovered, joined.position), (true, seen));
    assert_eq!(client.read(), "5/2=2;5/3=3;");
}

#[test]
fn a_client_may_be_back_before_anybody_knows_that_it_was_gone() {
    let hub = hub();
    let sender = hub.register(NOW).unwrap();
    let (first, opened) = stream(&hub, sender, Start::End, NOW);
    let seen: Vec<_> = (0..9).map(|second| publish(&hub, "x", later(second))).collect();
    assert_eq!(first.read().matches(';').count(), 9);
    for position in [opened.position, seen[0], seen[4], seen[8]] {
        let (second, joined) = stream(&hub, sender, Start::After(position), later(9));
        assert_eq!((joined.recovered, joined.position), (true, position));
        assert_eq!(second.read().matches(';').count() as u64, 9 - position.offset);
    }
}

#[test]
fn nothing_is_kept_for_others_and_for_ten_seconds_for_those() {
    let (hub, live) = (hub(), Arc::new(AtomicUsize::new(0)));
    let kept = || live.load(Ordering::Relaxed);
    let sender = hub.register(NOW).unwrap();
    let other = Client::new(&hub);
    other.session.subscribe(sender, &five(), Start::End, NOW).unwrap();
    publish_counted(&hub, &live, NOW);
    other.read();
    assert_eq!(kept(), 0);
    let (client, _) = stream(&hub, sender, Start::End, NOW);
    for second in 0..100 {
        publish_counted(&hub, &live, later(second));
        other.read();
        client.read();
        assert!((second.min(9) as usize..=12).contains(&(kept() - 1)), "{second}: {}", kept());
    }
    // When nothing more comes, that is the end of it.
    hub.tick(later(105));
    assert!(kept() > 0);
    hub.tick(later(110));
    hub.tick(later(120));
    assert_eq!(kept(), 0);
    // Nor is it kept when nobody can ask for it any more.
    publish_counted(&hub, &live, later(120));
    client.read();
    other.read();
    assert_eq!(kept(), 1);
    client.session.unsubscribe(sender, &five(), later(120));
    assert_eq!(kept(), 0);
}

#[test]
fn no_more_is_kept_than_a_part_of_the_lag_limit() {
    let limits = Limits { lag_bytes: 400 * 256, ..Limits::default() };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let live = Arc::new(AtomicUsize::new(0));
    let sender = hub.register(NOW).unwrap();
    let (client, _) = stream(&hub, sender, Start::End, NOW);
    for number in 0..2_000 {
        publish_counted(&hub, &live, NOW);
        client.read();
        let kept = live.load(Ordering::Relaxed);
        assert!((number.min(99)..=130).contains(&(kept - 1)), "{number}: {kept}");
    }
    // What is kept when it has ended is kept within the limit, as for all.
    drop(client);
    for _ in 0..2_000 {
        publish_counted(&hub, &live, NOW);
    }
    assert!(live.load(Ordering::Relaxed) <= 460);
    hub.tick(later(120));
    assert_eq!(live.load(Ordering::Relaxed), 0);
}
