//! Peers that take connections and hang up, with what was said or without it.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use watchtower_whisper::protocol::{BacklogLimits, Notice};
use watchtower_whisper::{Event, Events, Options, Peer};

use super::{SOON, connected, local, options, start, wait_for};

/// A peer at its address does that with each connection.
async fn listen<F>(with_each: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(local()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(with_each(stream));
        }
    });
    address
}

async fn start_watched(peers: &[SocketAddr]) -> (Peer, Events) {
    let peers = peers.iter().map(ToString::to_string).collect();
    Peer::start_watched(Options { peers, ..options() }).await.unwrap()
}

async fn is_lost(events: &mut Events) {
    wait_for(events, |event| matches!(event, Event::Notice(Notice::Lost(_))).then_some(())).await;
}

#[tokio::test]
async fn who_hangs_up_at_once_is_told_of_at_the_second_time() {
    let refuser = listen(|stream| async { drop(stream) }).await;
    let (_phil, mut events) = start_watched(&[refuser]).await;
    let mut before = Vec::new();
    let warning = wait_for(&mut events, |event| match event {
        Event::Warning(warning) => Some(warning),
        Event::Notice(notice) => {
            before.push(notice);
            None
        }
        _ => None,
    });
    let told =
        format!("{refuser} ends every connection at once: it may refuse this address, be full, or want TLS");
    assert_eq!(warning.await, told);
    let connected = Notice::Connected(refuser);
    assert_eq!(before, [connected.clone(), Notice::Lost(refuser), connected]);
    // The third time it is known.
    is_lost(&mut events).await;
    let next = |event| match event {
        Event::Warning(warning) => panic!("{warning}"),
        Event::Notice(Notice::Lost(addr)) => Some(addr),
        _ => None,
    };
    assert_eq!(wait_for(&mut events, next).await, refuser);
}

#[tokio::test]
async fn what_a_peer_hangs_up_on_is_not_taken() {
    let without_reading = listen(|stream| async { drop(stream) }).await;
    let with_some_read = listen(|mut stream| async move { drop(stream.read_u8().await) }).await;
    for refuser in [without_reading, with_some_read] {
        let (phil, mut events) = start_watched(&[refuser]).await;
        phil.say("hi").await.unwrap();
        is_lost(&mut events).await;
        assert!(phil.flush(SOON).await);
        assert!(!phil.shut_down().await);
    }
}

#[tokio::test]
async fn what_is_not_sent_again_is_not_taken_by_who_comes_later() {
    let goldy = start("goldy", &[]).await;
    let backlog = BacklogLimits { messages: 0, ..BacklogLimits::default() };
    let phil = Peer::start(Options { backlog, ..options() }).await.unwrap();
    phil.say("hi").await.unwrap();
    phil.connect(goldy.address()).await;
    connected(&phil, 1).await;
    assert!(phil.flush(SOON).await);
    assert!(!phil.shut_down().await);
}

#[tokio::test]
async fn what_one_peer_takes_is_taken_though_another_hangs_up() {
    let refuser = listen(|stream| async { drop(stream) }).await;
    let goldy = start("goldy", &[]).await;
    let (phil, mut events) = start_watched(&[refuser, goldy.address()]).await;
    is_lost(&mut events).await;
    connected(&phil, 1).await;
    phil.say("hi").await.unwrap();
    assert!(phil.flush(SOON).await);
    assert!(phil.shut_down().await);
}

#[tokio::test]
async fn who_reads_a_message_and_hangs_up_has_taken_it() {
    let reader =
        listen(|mut stream| async move { while stream.read_u8().await.is_ok_and(|byte| byte != b'\n') {} });
    let (phil, mut events) = start_watched(&[reader.await]).await;
    connected(&phil, 1).await;
    phil.say("hi").await.unwrap();
    is_lost(&mut events).await;
    assert!(phil.flush(SOON).await);
    assert!(phil.shut_down().await);
}

#[tokio::test]
async fn who_never_hangs_up_is_not_waited_for_and_has_taken_it() {
    let silent = listen(|stream| async {
        std::future::pending::<()>().await;
        drop(stream);
    });
    let (phil, _events) = start_watched(&[silent.await]).await;
    connected(&phil, 1).await;
    phil.say("hi").await.unwrap();
    assert!(phil.flush(SOON).await);
    assert!(phil.shut_down().await);
}
