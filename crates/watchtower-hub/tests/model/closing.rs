//! A hub that takes no more messages.

use watchtower_hub::{Content, Publish, Refused};

use crate::support::{NOW, five, hub, joined, say};

#[test]
fn a_closed_hub_refuses_what_is_published_and_what_was_taken_before_is_still_read() {
    let hub = hub();
    let ((a, from), (b, _)) = (joined(&hub), joined(&hub));
    say(&hub, from, "before");
    hub.close();
    let message = || Publish::new(Content::text("after"));
    assert_eq!(hub.publish(&five(), message().by(from), NOW).map(drop), Err(Refused::Closed));
    assert_eq!(hub.publish(&five(), message(), NOW).map(drop), Err(Refused::Closed));
    assert_eq!(hub.publish(&9.into(), message(), NOW).map(drop), Err(Refused::Closed));
    assert_eq!(hub.publish_all(&[five()], message().by(from), NOW).map(drop), Err(Refused::Closed));
    assert_eq!((a.read(), b.read()), ("5/1=before;".into(), "5/1=before;".into()));
}

#[test]
fn whoever_reads_after_the_close_hears_all_that_was_acknowledged() {
    for _ in 0..50 {
        let hub = hub();
        let ((_, from), (b, _)) = (joined(&hub), joined(&hub));
        let acknowledged = std::thread::scope(|scope| {
            let publisher = scope.spawn(|| {
                let publish = || hub.publish(&five(), Publish::new(Content::text("x")).by(from), NOW);
                std::iter::from_fn(|| publish().ok()).take(1_000).count()
            });
            while hub.counts().published < 5 {
                std::thread::yield_now();
            }
            hub.close();
            let heard = b.read();
            (publisher.join().unwrap(), heard.matches("=x;").count())
        });
        assert_eq!(acknowledged.0, acknowledged.1);
    }
}
