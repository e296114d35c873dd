//! Keys that outlive a peer, and nicks that two have.

use std::fs;

use watchtower_whisper::protocol::{Mark, Notice};
use watchtower_whisper::{Event, Options, Peer, StartError};

use super::{connected, next_shown, options, start, wait_for};

/// [whispernet: 13]
#[tokio::test]
async fn a_peer_has_its_key_and_knows_others_after_a_new_start() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { data_dir: Some(dir.path().to_owned()), ..options() };
    let goldy = start("goldy", &[]).await;
    let phil = Peer::start(options.clone()).await.unwrap();
    let (key, mut events) = (phil.public_key(), phil.events());
    goldy.connect(phil.address()).await;
    goldy.say("hi").await.unwrap();
    let pinned = |event| match event {
        Event::Notice(Notice::Pinned { nick, key }) => Some((nick, key)),
        _ => None,
    };
    assert_eq!(wait_for(&mut events, pinned).await, ("goldy".to_owned(), goldy.public_key()));
    phil.shut_down().await;

    let phil = Peer::start(options).await.unwrap();
    assert_eq!(phil.public_key(), key);
    let mut events = phil.events();
    let thief = start("goldy", &[&phil]).await;
    thief.say("it is me, goldy").await.unwrap();
    assert_eq!(next_shown(&mut events).await.mark, Mark::ChangedKey);
    goldy.connect(phil.address()).await;
    goldy.say("no, it is me").await.unwrap();
    let of_goldy = wait_for(&mut events, |event| match event {
        Event::Shown(shown) if shown.body.starts_with("no") => Some(shown.mark),
        _ => None,
    });
    assert_eq!(of_goldy.await, Mark::Verified);
}

#[tokio::test]
async fn a_nick_like_the_peers_own_is_marked_and_so_is_taking_anothers() {
    let phil = start("phil", &[]).await;
    let mut events = phil.events();
    let other = start("phil\u{200b}", &[&phil]).await;
    other.say("I am phil").await.unwrap();
    assert_eq!(next_shown(&mut events).await.mark, Mark::ChangedKey);
    other.set_nick(Some("goldy".to_owned()));
    other.say("I am goldy").await.unwrap();
    assert_eq!(next_shown(&mut events).await.mark, Mark::Verified);
    phil.set_nick(Some("goldy".to_owned()));
    let warned = |event| if let Event::Warning(warning) = event { Some(warning) } else { None };
    assert_eq!(wait_for(&mut events, warned).await, "the nick is another's, whose key it had first");
    assert_eq!(phil.nick().as_deref(), Some("goldy"));
}

/// The same key twice is one person with two peers.
#[tokio::test]
async fn two_peers_of_one_key_talk() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kept = |dir: &tempfile::TempDir| Options {
        data_dir: Some(dir.path().to_owned()),
        nick: Some("goldy".to_owned()),
        ..options()
    };
    let first = Peer::start(kept(&one)).await.unwrap();
    fs::copy(one.path().join("whispernet.key"), two.path().join("whispernet.key")).unwrap();
    let second = Peer::start(kept(&two)).await.unwrap();
    assert_eq!(first.public_key(), second.public_key());
    let mut events = first.events();
    second.connect(first.address()).await;
    second.say("hi").await.unwrap();
    assert_eq!(next_shown(&mut events).await.mark, Mark::Verified);
}

#[tokio::test]
async fn a_peer_that_wants_signatures_shows_nothing_else() {
    use tokio::io::AsyncWriteExt;

    let phil = Peer::start(Options { require_signed: true, ..options() }).await.unwrap();
    let mut events = phil.events();
    let mut plain = tokio::net::TcpStream::connect(phil.address()).await.unwrap();
    plain.write_all(br#"{"ID":"1","Addr":"127.0.0.1:1","Body":"unsigned"}"#).await.unwrap();
    while phil.counts().await.unsigned == 0 {
        tokio::task::yield_now().await;
    }
    let goldy = start("goldy", &[&phil]).await;
    connected(&goldy, 1).await;
    goldy.say("signed").await.unwrap();
    assert_eq!(next_shown(&mut events).await.body, "signed");
}

#[tokio::test]
async fn a_peer_does_not_start_with_a_key_that_is_no_secret() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let options = Options { data_dir: Some(dir.path().to_owned()), ..options() };
    Peer::start(options.clone()).await.unwrap().shut_down().await;
    let path = dir.path().join("whispernet.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    let error = Peer::start(options).await.unwrap_err();
    assert!(matches!(&error, StartError::File { path: named, .. } if *named == path), "{error}");
}
