//! Peers that have nothing to say, and are to hear all.

use std::time::Duration;

use watchtower_whisper::protocol::{GREETING, Notice};
use watchtower_whisper::{Event, Options, Peer};

use super::gopher::Gopher;
use super::plain::Plain;
use super::{connected, next_shown, options, start, wait_for};

/// A peer that greets soon.
fn greeting() -> Options {
    Options { greets_after: Some(Duration::from_millis(50)), nick: Some("goldy".to_owned()), ..options() }
}

#[tokio::test]
async fn a_silent_newcomer_hears_what_a_peer_says() {
    let phil = start("phil", &[]).await;
    let mut to_phil = phil.events();
    let goldy = Peer::start(Options { peers: vec![phil.address().to_string()], ..greeting() }).await.unwrap();
    let mut to_goldy = goldy.events();
    let shown = next_shown(&mut to_phil).await;
    assert_eq!((&*shown.body, shown.nick.as_deref()), (GREETING, Some("goldy")));
    connected(&phil, 1).await;
    phil.say("welcome").await.unwrap();
    assert_eq!(next_shown(&mut to_goldy).await.body, "welcome");
}

/// [whispernet: messages] It knows a peer by the `Addr` of what it says, and
/// fails on an empty `Body`.
#[tokio::test]
async fn a_silent_newcomer_hears_what_a_plain_peer_says() {
    let mut gopher = Gopher::start().await;
    let peers = vec![gopher.address.to_string()];
    let (_goldy, mut events) = Peer::start_watched(Options { peers, ..greeting() }).await.unwrap();
    assert_eq!(gopher.next_shown().await, GREETING);
    // It dials now, and what it says waits for that.
    gopher.say("welcome");
    assert_eq!(next_shown(&mut events).await.body, "welcome");
    assert!(gopher.is_alive());
}

#[tokio::test]
async fn who_is_out_of_reach_is_told_so() {
    // It connects to nobody.
    let deaf = Plain::start().await;
    let peers = vec![deaf.address.to_string()];
    let (goldy, mut events) = Peer::start_watched(Options { peers, ..greeting() }).await.unwrap();
    let unreached = |event| match event {
        Event::Notice(Notice::Unreached(addr)) => Some(addr),
        _ => None,
    };
    assert_eq!(wait_for(&mut events, unreached).await, goldy.address());
}
