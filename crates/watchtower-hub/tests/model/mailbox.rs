//! What is said to one session alone.

use watchtower_hub::{ChannelName, Content, Drained, Limits, Refused, Settings, WhenLagging};

use crate::support::{Client, NOW, five, hub, hub_with, joined, say};

fn whispers() -> ChannelName {
    ChannelName::parse("w").unwrap()
}

#[test]
fn a_mailbox_reaches_its_session_alone_and_is_in_no_list() {
    // [webtalk: whisper]
    let hub = hub();
    let ((a, from), (b, _)) = (joined(&hub), joined(&hub));
    let mailbox = a.session.mailbox(&whispers());
    assert_eq!(a.read(), "");
    mailbox.deliver(Content::text("1"), NOW).unwrap();
    mailbox.deliver(Content::text("2"), NOW).unwrap();
    assert_eq!(a.wakes(), 1);
    say(&hub, from, "x");
    assert_eq!((a.read(), b.read()), ("w/1=1;w/2=2;5/1=x;".into(), "5/1=x;".into()));
    assert_eq!(hub.channels(), [five()]);
    assert_eq!((hub.has_channel(&whispers()), hub.presence(&whispers())), (false, None));
    assert!(hub.epoch(&whispers()).is_none());
    mailbox.deliver(Content::text("3"), NOW).unwrap();
    assert_eq!(a.read(), "w/3=3;");
}

#[test]
fn a_mailbox_takes_what_its_session_can_read_and_the_limit_allows() {
    let limits = Limits { message_bytes_max: 3, ..Limits::default() };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let client = Client::new(&hub);
    let mailbox = client.session.mailbox(&whispers());
    let deliver = |text| mailbox.deliver(Content::text(text), NOW);
    assert_eq!(deliver("1234"), Err(Refused::TooLarge { bytes: 4, limit: 3 }));
    assert_eq!(deliver("123"), Ok(()));
    drop(client);
    assert_eq!(deliver("123"), Err(Refused::Closed));
    assert_eq!(hub.counts().subscriptions, 0);
}

#[test]
fn a_mailbox_ends_with_what_was_not_read_and_its_session_goes_on() {
    let hub = hub();
    let (a, from) = joined(&hub);
    let mailbox = a.session.mailbox(&whispers());
    mailbox.deliver(Content::text("1"), NOW).unwrap();
    drop(mailbox);
    assert_eq!((a.session.subscriptions(), hub.counts().subscriptions), (1, 1));
    say(&hub, from, "x");
    assert_eq!(a.read(), "5/1=x;");
}

#[test]
fn a_mailbox_that_nobody_reads_keeps_the_last_within_the_lag_limit() {
    let limits = Limits { lag_messages: 80, ..Limits::default() };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let client = Client { session: hub.open("test", WhenLagging::Skip), wakes: Default::default() };
    let mailbox = client.session.mailbox(&whispers());
    for number in 1..=1_000 {
        mailbox.deliver(Content::text(number.to_string()), NOW).unwrap();
    }
    let (text, drained) = client.drain(usize::MAX);
    let kept = text.matches(';').count();
    assert!(text.ends_with("w/1000=1000;") && (80..=90).contains(&kept), "{text}");
    assert_eq!((drained, hub.counts().lagging_skipped), (Drained::All, 1_000 - kept as u64));
}
