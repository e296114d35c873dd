//! Peers that mean well.

use std::time::Duration;

use watchtower_whisper::protocol::{Mark, Notice, Unsaid};
use watchtower_whisper::{Event, Options, Peer, StartError};

use super::{SOON, connected, next_shown, options, start, wait_for};

/// [whispernet: messages] The one that was dialled dials back.
#[tokio::test]
async fn two_peers_talk_both_ways() {
    let phil = start("phil", &[]).await;
    let mut to_phil = phil.events();
    let goldy = start("goldy", &[&phil]).await;
    let mut to_goldy = goldy.events();

    let id = goldy.say("hi").await.unwrap();
    let shown = next_shown(&mut to_phil).await;
    assert_eq!((&*shown.body, shown.nick.as_deref(), &*shown.id), ("hi", Some("goldy"), &*id));
    assert_eq!(shown.addr, Some(goldy.address().to_string()));
    assert_eq!(shown.mark, Mark::Verified);

    connected(&phil, 1).await;
    phil.say("hello").await.unwrap();
    assert_eq!(next_shown(&mut to_goldy).await.body, "hello");
    assert!(goldy.flush(SOON).await);
    assert_eq!(phil.recent().await.iter().map(|shown| &*shown.body).collect::<Vec<_>>(), ["hi", "hello"]);
}

#[tokio::test]
async fn what_a_peer_says_itself_its_other_faces_see() {
    let phil = start("phil", &[]).await;
    let mut events = phil.events();
    phil.say_as(Some("goldy"), "hi").await.unwrap();
    let said = wait_for(&mut events, |event| if let Event::Said(said) = event { Some(said) } else { None });
    let said = said.await;
    assert_eq!((&*said.body, said.nick.as_deref()), ("hi", Some("goldy")));
    assert_eq!(phil.say("").await, Err(Unsaid::Empty));
}

/// [whispernet: 11]
#[tokio::test]
async fn what_was_said_before_is_sent_to_who_comes_later() {
    let phil = start("phil", &[]).await;
    phil.say("early").await.unwrap();
    let goldy = start("goldy", &[]).await;
    let mut events = goldy.events();
    phil.connect(goldy.address()).await;
    assert_eq!(next_shown(&mut events).await.body, "early");
}

/// [whispernet: messages] By way of the second, in either direction.
#[tokio::test]
async fn three_in_a_row_become_a_net() {
    let first = start("first", &[]).await;
    let second = start("second", &[&first]).await;
    connected(&second, 1).await;
    let third = start("third", &[&second]).await;
    connected(&third, 1).await;
    let mut events = first.events();
    third.say("hi").await.unwrap();
    assert_eq!(next_shown(&mut events).await.body, "hi");
    connected(&first, 1).await;
}

#[tokio::test]
async fn a_peer_that_ends_is_lost_and_found_again() {
    let phil = start("phil", &[]).await;
    let address = phil.address();
    let goldy = start("goldy", &[&phil]).await;
    let mut events = goldy.events();
    connected(&goldy, 1).await;
    phil.shut_down().await;
    let lost = |event| matches!(event, Event::Notice(Notice::Lost(_))).then_some(());
    wait_for(&mut events, lost).await;
    let again = Peer::start(Options { listen: address, ..options() }).await.unwrap();
    let mut shown = again.events();
    connected(&goldy, 1).await;
    goldy.say("there you are").await.unwrap();
    assert_eq!(next_shown(&mut shown).await.body, "there you are");
}

#[tokio::test]
async fn what_was_said_is_written_before_the_end() {
    let phil = start("phil", &[]).await;
    let mut events = phil.events();
    let goldy = start("goldy", &[&phil]).await;
    connected(&goldy, 1).await;
    for number in 0..100 {
        goldy.say(&number.to_string()).await.unwrap();
    }
    let mut own = goldy.events();
    goldy.shut_down().await;
    for number in 0..100 {
        assert_eq!(next_shown(&mut events).await.body, number.to_string());
    }
    while let Ok(Some(_)) | Err(_) = own.next().await {}
}

#[tokio::test]
async fn nothing_is_flushed_while_nobody_is_there() {
    let phil = start("phil", &[]).await;
    phil.say("hi").await.unwrap();
    assert!(!phil.flush(Duration::from_millis(10)).await);
}

#[tokio::test]
async fn who_is_disconnected_is_not_dialled_again_before_the_user_wants_it() {
    let phil = start("phil", &[]).await;
    let mut shown = phil.events();
    let goldy = start("goldy", &[&phil]).await;
    connected(&goldy, 1).await;
    assert!(goldy.disconnect(phil.address()).await);
    assert!(!goldy.disconnect(phil.address()).await);
    assert_eq!(goldy.peers().await, []);
    // Not while others hear from it either.
    phil.say("are you there?").await.unwrap();
    goldy.say("to nobody").await.unwrap();
    assert!(goldy.connect(phil.address()).await);
    assert!(!goldy.connect(goldy.address()).await);
    assert_eq!(next_shown(&mut shown).await.body, "to nobody");
}

#[tokio::test]
async fn what_is_wrong_at_the_start_is_said() {
    let phil = start("phil", &[]).await;
    let taken = Peer::start(Options { listen: phil.address(), ..options() }).await.unwrap_err();
    let message = format!("cannot listen on {}: Address already in use (os error 98)", phil.address());
    assert_eq!(taken.to_string(), message);
    for peer in ["localhost", "localhost:", ":5555", "localhost:0", "::1:5555", "localhost:x"] {
        let wrong = Peer::start(Options { peers: vec![peer.to_owned()], ..options() }).await.unwrap_err();
        assert!(matches!(wrong, StartError::Peer { .. }));
        assert_eq!(wrong.to_string(), format!("{peer}: expected HOST:PORT"));
    }
}

/// The name has addresses at which nobody listens.
#[tokio::test]
async fn a_peer_is_found_by_its_name() {
    let phil = start("phil", &[]).await;
    let name = format!("localhost:{}", phil.address().port());
    let goldy = Peer::start(Options { peers: vec![name], ..options() }).await.unwrap();
    connected(&goldy, 1).await;
    assert_eq!(goldy.peers().await.iter().map(|peer| peer.addr).collect::<Vec<_>>(), [phil.address()]);
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_told_of_once_and_found_later() {
    let free = start("free", &[]).await;
    let address = free.address();
    free.shut_down().await;
    let options_of_goldy = Options { peers: vec![address.to_string()], ..options() };
    let (_goldy, mut events) = Peer::start_watched(options_of_goldy).await.unwrap();
    let warned = |event| if let Event::Warning(warning) = event { Some(warning) } else { None };
    let warning = wait_for(&mut events, warned).await;
    assert_eq!(warning, format!("cannot reach {address}, trying again: Connection refused (os error 111)"));
    let _phil = Peer::start(Options { listen: address, ..options() }).await.unwrap();
    let connected = |event| match event {
        Event::Warning(warning) => panic!("{warning}"),
        Event::Notice(Notice::Connected(addr)) => Some(addr),
        _ => None,
    };
    assert_eq!(wait_for(&mut events, connected).await, address);
}

/// A peer on the same machine is connected to before the start is over.
#[tokio::test]
async fn what_happens_during_the_start_is_told() {
    let phil = start("phil", &[]).await;
    let options = Options { peers: vec![phil.address().to_string()], ..options() };
    let (goldy, mut events) = Peer::start_watched(options).await.unwrap();
    connected(&goldy, 1).await;
    let connected = |event| match event {
        Event::Notice(Notice::Connected(addr)) => Some(addr),
        _ => None,
    };
    assert_eq!(wait_for(&mut events, connected).await, phil.address());
}

#[tokio::test]
async fn a_name_that_is_the_peers_own_is_told() {
    let free = start("free", &[]).await;
    let address = free.address();
    free.shut_down().await;
    let peers = vec![address.to_string()];
    let options = Options { listen: address, peers, ..options() };
    let (_phil, mut events) = Peer::start_watched(options).await.unwrap();
    let warned = |event| if let Event::Warning(warning) = event { Some(warning) } else { None };
    assert_eq!(wait_for(&mut events, warned).await, format!("{address} is this peer itself"));
}

#[tokio::test]
async fn others_are_told_the_address_that_is_to_be_announced() {
    let announced = "192.0.2.7:0".parse().unwrap();
    let phil = Peer::start(Options { announced: Some(announced), ..options() }).await.unwrap();
    assert_eq!(phil.address().ip(), announced.ip());
    assert_ne!(phil.address().port(), 0);
    let everywhere = Options { listen: ([0, 0, 0, 0], 0).into(), ..Options::default() };
    let goldy = Peer::start(everywhere).await.unwrap();
    assert!(!goldy.address().ip().is_unspecified());
    let mut events = goldy.events();
    let other = start("other", &[&goldy]).await;
    other.say("hi").await.unwrap();
    assert_eq!(next_shown(&mut events).await.body, "hi");
}
