//! Peers that mean ill, or are broken.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Deserializer, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use watchtower_whisper::protocol::{FloodLimits, Notice, PeerLimits, RoutingLimits};
use watchtower_whisper::{Event, Options, Peer};

use super::plain::{Plain, dial, ended, message, send};
use super::{SOON, connected, local, next_shown, options, start, wait_for};

const HERE: [u8; 4] = [127, 0, 0, 1];

/// Another address of this machine.
const THERE: [u8; 4] = [127, 0, 0, 2];

/// Says something by `from` and sees it at `to`.
async fn talk(from: &Peer, to: &Peer, body: &str) {
    let mut events = to.events();
    connected(from, 1).await;
    from.say(body).await.unwrap();
    wait_for(&mut events, |event| match event {
        Event::Shown(shown) if shown.body == body => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn half_an_object_and_silence_keep_nobody_waiting() {
    let phil = start("phil", &[]).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut link = dial(THERE, phil.address()).await;
        assert!(send(&mut link, r#"{"ID":"1","Body":"hal"#).await);
        silent.push(link);
    }
    let goldy = start("goldy", &[&phil]).await;
    talk(&goldy, &phil, "hi").await;
    // The other half may come late.
    let mut events = phil.events();
    assert!(send(&mut silent[0], "f\"}").await);
    assert_eq!(next_shown(&mut events).await.body, "half");
}

/// [whispernet: messages] "above the size limit"
#[tokio::test]
async fn an_object_without_end_is_ended() {
    let phil = start("phil", &[]).await;
    let mut events = phil.events();
    let mut link = dial(THERE, phil.address()).await;
    let address = link.local_addr().unwrap();
    assert!(send(&mut link, r#"{"ID":"1","Body":""#).await);
    let piece = "x".repeat(1 << 20);
    let mut pieces = 0;
    while send(&mut link, &piece).await {
        pieces += 1;
        assert!(pieces < 64, "it is read without end");
    }
    let warned = |event| if let Event::Warning(warning) = event { Some(warning) } else { None };
    let expected = format!("{address} was disconnected: expected at most 8388608 bytes in an object");
    assert_eq!(wait_for(&mut events, warned).await, expected);
    assert_eq!(phil.counts().await.malformed, 1);
}

/// [whispernet: messages]
#[tokio::test]
async fn what_is_no_message_ends_the_connection_and_nothing_else() {
    let phil = start("phil", &[]).await;
    let goldy = start("goldy", &[&phil]).await;
    for nonsense in ["GET / HTTP/1.1\r\n\r\n", "[]", "{\"Body\":\"no id\"}", "{\"ID\":1}", "{}}", "\u{0}"] {
        let mut link = dial(THERE, phil.address()).await;
        send(&mut link, nonsense).await;
        ended(&mut link).await;
    }
    assert_eq!(phil.counts().await.malformed, 6);
    talk(&goldy, &phil, "hi").await;
}

/// [whispernet: 12]
#[tokio::test]
async fn a_flood_is_refused_and_nobody_else() {
    let phil = start("phil", &[]).await;
    let goldy = start("goldy", &[&phil]).await;
    connected(&goldy, 1).await;
    let mut events = phil.events();
    let mut other = dial(THERE, phil.address()).await;
    let mut link = dial(THERE, phil.address()).await;
    let flood: String = (0..20_000).map(|id| message(&format!("f{id}"), local(), "flood")).collect();
    send(&mut link, &flood).await;
    let refused = wait_for(&mut events, |event| match event {
        Event::Notice(Notice::Refused { ip, .. }) => Some(ip),
        _ => None,
    });
    assert_eq!(refused.await, std::net::IpAddr::from(THERE));
    ended(&mut link).await;
    ended(&mut other).await;
    let mut again = dial(THERE, phil.address()).await;
    ended(&mut again).await;
    assert!(phil.counts().await.shown <= 1_000);
    talk(&goldy, &phil, "still here").await;

    assert_eq!(phil.refused().await.len(), 1);
    phil.clear_refused().await;
    assert_eq!(phil.refused().await, []);
    let mut events = phil.events();
    let mut again = dial(THERE, phil.address()).await;
    assert!(send(&mut again, message("sorry", local(), "sorry")).await);
    assert_eq!(next_shown(&mut events).await.body, "sorry");
}

/// What one address says just below the threshold, others pass on from theirs:
/// nobody is refused for it.
#[tokio::test]
async fn who_passes_a_flood_on_is_not_refused_for_it() {
    let limits = FloodLimits { messages_per_second: 100, ..FloodLimits::default() };
    let phil = Peer::start(Options { flood: limits, ..options() }).await.unwrap();
    let goldy = Peer::start(Options { flood: limits, ..options() }).await.unwrap();
    phil.connect(goldy.address()).await;
    connected(&phil, 1).await;
    let mut events = goldy.events();
    for source in 2..5 {
        let mut link = dial([127, 0, 0, source], phil.address()).await;
        let most: String = (0..90).map(|id| message(&format!("{source} {id}"), local(), "hi")).collect();
        assert!(send(&mut link, &most).await);
    }
    // At half of the threshold they come in seconds.
    for _ in 0..120 {
        next_shown(&mut events).await;
    }
    assert_eq!(goldy.refused().await, []);
}

#[tokio::test]
async fn one_address_does_not_take_all_connections() {
    let phil = start("phil", &[]).await;
    let mut links = Vec::new();
    for _ in 0..300 {
        links.push(dial(THERE, phil.address()).await);
    }
    let mut events = phil.events();
    let mut link = dial(HERE, phil.address()).await;
    assert!(send(&mut link, message("1", local(), "let me in")).await);
    assert_eq!(next_shown(&mut events).await.body, "let me in");
}

/// A service that is no peer gets messages, and few connections.
#[tokio::test]
async fn who_lies_about_addresses_makes_a_peer_do_little() {
    let limits = PeerLimits { candidates: 4, ..PeerLimits::default() };
    let phil = Peer::start(Options { limits, ..options() }).await.unwrap();
    let mut events = phil.events();
    // It fails where it is sent anything but messages.
    let mut service = Plain::start().await;
    let mut link = dial(THERE, phil.address()).await;
    let own = link.local_addr().unwrap();
    let nowhere = ([192, 0, 2, 1], 6379).into();
    for (id, addr) in [service.address, service.address, phil.address(), own, nowhere].iter().enumerate() {
        assert!(send(&mut link, message(&format!("a{id}"), *addr, &format!("about {addr}"))).await);
    }
    let many: String =
        (1..200).map(|port| message(&format!("b{port}"), ([192, 0, 2, 2], port).into(), "hi")).collect();
    assert!(send(&mut link, many).await);
    assert!(send(&mut link, message("c", local(), "the last")).await);
    while next_shown(&mut events).await.body != "the last" {}
    let peers = phil.peers().await;
    assert!(peers.len() <= 4 + limits.dials && !peers.iter().any(|peer| peer.addr == phil.address()));
    assert!(phil.counts().await.not_dialled > 150);
    let mut bodies = Vec::new();
    while bodies.last().is_none_or(|body| body != "the last") {
        bodies.push(service.next_body().await);
    }
    assert!(!bodies.iter().any(|body| body.contains(&service.address.to_string())), "{bodies:?}");
}

/// With routing a few of them are asked to be neighbours, in the place of others that are none.
#[tokio::test]
async fn who_lies_about_addresses_makes_a_peer_that_routes_do_little() {
    let answer_within = Duration::from_millis(200);
    let routing = RoutingLimits { flooded: 0, answer_within, ..RoutingLimits::DEFAULT };
    let phil = Peer::start(Options { routing: Some(routing), ..options() }).await.unwrap();
    let mut events = phil.events();
    let service = TcpListener::bind(local()).await.unwrap();
    let mut link = dial(THERE, phil.address()).await;
    let named = |id: usize, addr: SocketAddr| {
        format!(r#"{{"ID":"{id}","Addr":"{addr}","Body":"{addr}","Routes":true}}"#)
    };
    let nowhere = (1..200).map(|port| SocketAddr::from(([192, 0, 2, 2], port)));
    let named_addrs = [service.local_addr().unwrap(), phil.address()].into_iter().chain(nowhere);
    let lies: String = named_addrs.enumerate().map(|(id, addr)| named(id, addr)).collect();
    assert!(send(&mut link, lies).await);
    assert!(send(&mut link, message("c", local(), "the last")).await);
    while next_shown(&mut events).await.body != "the last" {}
    let peers = phil.peers().await;
    let most = routing.neighbours_wanted + PeerLimits::default().dials;
    assert!(peers.len() <= most && !peers.iter().any(|peer| peer.addr == phil.address()), "{peers:?}");
    // It gets objects of the whispernet, and nothing else.
    let (mut stream, _) = timeout(SOON, service.accept()).await.unwrap().unwrap();
    let mut got = vec![0; 16 << 10];
    let length = timeout(SOON, stream.read(&mut got)).await.unwrap().unwrap();
    let objects: Vec<Value> =
        Deserializer::from_slice(&got[..length]).into_iter().collect::<Result<_, _>>().unwrap();
    assert!(!objects.is_empty() && objects.iter().all(Value::is_object), "{objects:?}");
}

/// On a connection that this peer dialled others have nothing to say.
#[tokio::test]
async fn a_service_that_answers_is_left_alone() {
    let talker = TcpListener::bind(local()).await.unwrap();
    let address = talker.local_addr().unwrap();
    let phil = start("phil", &[]).await;
    let mut events = phil.events();
    phil.connect(address).await;
    let (mut stream, _) = timeout(SOON, talker.accept()).await.unwrap().unwrap();
    let answer = vec![b'x'; 64 << 10];
    let mut bytes = 0;
    while stream.write_all(&answer).await.is_ok() {
        bytes += answer.len();
        assert!(bytes < 64 << 20, "it is listened to without end");
    }
    wait_for(&mut events, |event| matches!(event, Event::Notice(Notice::Lost(_))).then_some(())).await;
}

/// What waits for a peer that takes nothing is bounded, and the others go on.
#[tokio::test]
async fn a_peer_that_takes_nothing_is_disconnected_and_counted() {
    let flood =
        FloodLimits { messages_per_second: 1 << 20, bytes_per_second: 1 << 40, ..FloodLimits::default() };
    let phil = Peer::start(Options { flood, ..options() }).await.unwrap();
    let slow = TcpListener::bind(local()).await.unwrap();
    let mut plain = Plain::start().await;
    phil.connect(slow.local_addr().unwrap()).await;
    phil.connect(plain.address).await;
    connected(&phil, 2).await;
    let (mut stuck, _) = slow.accept().await.unwrap();
    let mut link = dial(HERE, phil.address()).await;
    let body = "x".repeat(2 << 20);
    for number in 0.. {
        assert!(send(&mut link, message(&number.to_string(), local(), &body)).await);
        assert_eq!(plain.next().await["ID"], number.to_string());
        if phil.counts().await.slow == 1 {
            break;
        }
        assert!(number < 64, "it takes memory without end");
    }
    let read = async { while let Ok(1..) = stuck.read(&mut vec![0; 1 << 20]).await {} };
    timeout(SOON, read).await.expect("it is closed");
}

/// Own words wait for a peer that takes nothing, and not for long.
#[tokio::test(start_paused = true)]
async fn what_is_said_waits_seconds_for_a_peer_that_takes_nothing() {
    let flood = FloodLimits { bytes_per_second: 1 << 40, ..FloodLimits::default() };
    let phil = Peer::start(Options { flood, ..options() }).await.unwrap();
    let slow = TcpListener::bind(local()).await.unwrap();
    phil.connect(slow.local_addr().unwrap()).await;
    let _stuck = slow.accept().await.unwrap();
    let mut events = phil.events();
    while phil.peers().await.iter().all(|peer| !peer.connected) {
        events.next().await.unwrap();
    }
    let body = "x".repeat(2 << 20);
    let begin = tokio::time::Instant::now();
    while phil.counts().await.slow == 0 {
        phil.say(&body).await.unwrap();
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert!(phil.counts().await.originated < 64);
}

#[tokio::test]
async fn who_disconnects_and_comes_back_is_heard_again() {
    let phil = start("phil", &[]).await;
    let mut plain = Plain::start().await;
    for round in 0..3 {
        assert!(phil.connect(plain.address).await);
        connected(&phil, 1).await;
        phil.say(&round.to_string()).await.unwrap();
        // The backlog comes first: a deployed peer remembers what it saw.
        while plain.next_body().await != round.to_string() {}
        assert!(phil.disconnect(plain.address).await);
        assert_eq!(phil.peers().await, []);
    }
}
