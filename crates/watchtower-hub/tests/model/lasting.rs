//! Sessions that outlive their connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use watchtower_hub::{Drained, Hub, Limits, Settings, WhenLagging};

use crate::support::{Client, Wakes, hub, hub_with, joined, later, say};

fn small() -> Hub {
    let limits = Limits { lag_messages: 80, ..Limits::default() };
    hub_with(Settings { limits, ..Settings::default() })
}

/// The next connection of the same client.
fn reconnected(client: Client, when_lagging: WhenLagging) -> Client {
    client.session.resume(when_lagging);
    Client { session: client.session, wakes: Arc::default() }
}

#[test]
fn a_session_goes_on_with_its_next_driver_where_the_last_one_stopped() {
    let hub = hub();
    let ((user, _), (_b, from)) = (joined(&hub), joined(&hub));
    say(&hub, from, "1");
    assert_eq!(user.read(), "5/1=1;");
    say(&hub, from, "2");
    user.session.suspend();
    say(&hub, from, "3");
    let user = reconnected(user, WhenLagging::Close);
    assert_eq!(user.read(), "5/2=2;5/3=3;");
    say(&hub, from, "4");
    assert_eq!((user.wakes(), user.read()), (1, "5/4=4;".into()));
}

#[test]
fn the_waker_of_a_driver_that_is_gone_is_dropped_and_not_woken() {
    let hub = hub();
    let ((user, _), (_b, from)) = (joined(&hub), joined(&hub));
    assert_eq!(user.read(), "");
    let wakes: Arc<Wakes> = user.wakes.clone();
    user.session.suspend();
    say(&hub, from, "x");
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
    drop(user.wakes);
    assert_eq!(Arc::strong_count(&wakes), 1);
}

#[test]
fn a_suspended_session_skips_what_the_limits_do_not_let_it_keep() {
    // [model: log]
    let hub = small();
    let ((user, _), (fast, from)) = (joined(&hub), joined(&hub));
    user.session.suspend();
    for _ in 0..1_000 {
        say(&hub, from, "x");
        fast.read();
    }
    assert!(!user.session.is_lagging());
    let user = reconnected(user, WhenLagging::Close);
    let text = user.read();
    let kept = text.matches(';').count();
    assert!(text.ends_with("5/1000=x;") && (80..=90).contains(&kept), "{text}");
    let counts = hub.counts();
    assert_eq!((counts.lagging_skipped, counts.lagging_closed), (1_000 - kept as u64, 0));
}

#[test]
fn a_session_that_lagged_under_one_driver_goes_on_under_the_next() {
    let hub = small();
    let ((user, _), (fast, from)) = (joined(&hub), joined(&hub));
    say(&hub, from, "x");
    assert_eq!(user.drain(0).1, Drained::More);
    for _ in 1..200 {
        say(&hub, from, "x");
        fast.read();
    }
    assert_eq!(user.drain(usize::MAX), (String::new(), Drained::Lagging));
    user.session.suspend();
    say(&hub, from, "y");
    let user = reconnected(user, WhenLagging::Close);
    let text = user.read();
    assert!(text.ends_with("5/200=x;5/201=y;"), "{text}");
    assert_eq!(hub.counts().lagging_closed, 1);
    // And it is closed again when it falls behind again.
    say(&hub, from, "x");
    assert_eq!(user.drain(0).1, Drained::More);
    for _ in 0..200 {
        say(&hub, from, "x");
    }
    assert_eq!(user.drain(usize::MAX).1, Drained::Lagging);
    assert_eq!(hub.counts().lagging_closed, 2);
}

#[test]
fn a_sender_lives_as_long_as_the_session_that_owns_it() {
    // [packets: rules]
    let year = 365 * 24 * 3600;
    let hub = hub();
    let user = Client::new(&hub);
    let sender = user.session.register(later(0)).unwrap();
    user.session.suspend();
    for years in 1..=3 {
        hub.tick(later(years * year));
    }
    assert_eq!(hub.counts().senders, 1);
    drop(user);
    hub.tick(later(4 * year));
    hub.tick(later(5 * year));
    assert_eq!(hub.counts().senders, 0);
    assert!(!hub.is_registered(sender, later(5 * year)));
}
