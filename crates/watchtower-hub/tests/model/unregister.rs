//! Forgetting a sender at once.

use watchtower_hub::{Refused, Start};

use crate::support::{Client, NOW, at_once, five, hub, joined, later, say, text};

#[test]
fn a_sender_that_is_unregistered_is_gone_from_channels_sessions_and_the_registry() {
    let hub = hub();
    let ((a, id), (_b, from)) = (joined(&hub), joined(&hub));
    let stream = Client::new(&hub);
    stream.session.subscribe(id, &five(), Start::End, NOW).unwrap();
    hub.join(id, &[6.into()], NOW).unwrap();
    say(&hub, from, "not read");
    hub.unregister(id, NOW).unwrap();
    say(&hub, from, "x");
    assert_eq!((a.read(), stream.read()), (String::new(), String::new()));
    assert!(!a.session.owns_senders() && !hub.has_joined(id, &five()) && !hub.has_joined(id, &6.into()));
    assert_eq!(hub.presence(&five()).unwrap().len(), 1);
    assert_eq!((hub.counts().senders, hub.counts().subscriptions), (1, 1));
    let unknown = Refused::UnknownSender(id);
    assert_eq!(hub.unregister(id, NOW), Err(unknown.clone()));
    assert_eq!(a.session.attach(id, NOW), Err(unknown.clone()));
    assert_eq!(a.session.join(id, &five(), NOW).unwrap_err(), unknown.clone());
    assert_eq!(at_once(hub.publish(&five(), text(id, "x"), NOW)), Err(unknown));
}

#[test]
fn a_sender_that_is_unregistered_while_its_joins_wait_for_a_session_leaves_nothing() {
    let hub = hub();
    let (a, id) = joined(&hub);
    drop(a);
    hub.unregister(id, NOW).unwrap();
    assert_eq!(hub.presence(&five()), Some(vec![]));
    hub.tick(later(120));
    assert_eq!((hub.counts().channels, hub.counts().senders), (0, 0));
}

#[test]
fn a_channel_stays_for_a_while_though_its_last_member_was_silent_for_long() {
    let hub = hub();
    let (_a, id) = joined(&hub);
    hub.tick(later(1_000));
    // Whoever drops a connection has no clock, and says when it was last heard.
    hub.unregister(id, NOW).unwrap();
    hub.tick(later(1_119));
    assert!(hub.has_channel(&five()));
    hub.tick(later(1_120));
    assert!(!hub.has_channel(&five()));
}
