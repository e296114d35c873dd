//! Together with peers that others wrote.

use serde_json::json;

use super::plain::{Plain, dial, message, send};
use super::{connected, next_shown, start};
use watchtower_whisper::Peer;

const HERE: [u8; 4] = [127, 0, 0, 1];

/// [whispernet: messages] Without anything between the objects.
#[tokio::test]
async fn a_plain_peer_is_heard_and_hears() {
    let phil = start("phil", &[]).await;
    let mut events = phil.events();
    let mut plain = Plain::start().await;
    let mut link = dial(HERE, phil.address()).await;
    let both = message("1", plain.address, "hi") + &message("2", plain.address, "there");
    assert!(send(&mut link, &both).await);
    assert_eq!(next_shown(&mut events).await.body, "hi");
    assert_eq!(next_shown(&mut events).await.body, "there");
    // It was seen in `Addr`, and is dialled.
    connected(&phil, 1).await;
    let id = phil.say("hello").await.unwrap();
    let received = plain.next().await;
    assert_eq!(received["Body"], "hello", "and not its own");
    assert_eq!((&received["ID"], &received["Addr"]), (&json!(id), &json!(phil.address().to_string())));
}

/// [whispernet: messages] "reads this key as `omitempty`", "below 10^11 is
/// seconds"
#[tokio::test]
async fn a_nick_under_omitempty_and_a_time_in_seconds_are_read() {
    let phil = start("phil", &[]).await;
    let mut events = phil.events();
    let mut link = dial(HERE, phil.address()).await;
    let object = json!({
        "ID": "1", "Addr": "127.0.0.1:1", "Body": "hi", "omitempty": "gopher", "Timestamp": 1_382_050_782,
    });
    assert!(send(&mut link, object.to_string()).await);
    let shown = next_shown(&mut events).await;
    assert_eq!((shown.nick.as_deref(), shown.time.as_millis()), (Some("gopher"), 1_382_050_782_000));
}

/// [whispernet: messages] "byte for byte", and never without a `Body`.
#[tokio::test]
async fn what_is_passed_on_harms_no_plain_peer() {
    let phil = start("phil", &[]).await;
    let mut plain = Plain::start().await;
    phil.connect(plain.address).await;
    connected(&phil, 1).await;
    let mut link = dial(HERE, phil.address()).await;
    for ignored in ["{}", r#"{"ID":"1"}"#, r#"{"ID":"2","Body":""}"#, r#"{"ID":"3","Body":null}"#] {
        assert!(send(&mut link, ignored).await);
    }
    let object = r#"{"Unknown":{"a":[1.50]},"ID":"4","Body":"h\u0069","Addr":"127.0.0.1:1"}"#;
    assert!(send(&mut link, object).await);
    let received = plain.next().await;
    assert_eq!((&received["Body"], &received["Unknown"]), (&json!("hi"), &json!({"a": [1.50]})));
    assert_eq!(phil.counts().await.without_body, 4);
}

/// Peers of one machine pass on what the others say: all from one address.
#[tokio::test]
async fn ten_peers_of_one_machine_are_no_flood_to_each_other() {
    let first = start("first", &[]).await;
    let mut peers = vec![first];
    for number in 1..10 {
        let peer = start(&number.to_string(), &peers.iter().collect::<Vec<&Peer>>()).await;
        peers.push(peer);
    }
    for peer in &peers {
        for other in &peers {
            peer.connect(other.address()).await;
        }
    }
    for peer in &peers {
        connected(peer, 9).await;
    }
    let mut events: Vec<_> = peers.iter().map(Peer::events).collect();
    for number in 0..200 {
        peers[0].say(&number.to_string()).await.unwrap();
    }
    for (peer, events) in peers.iter().zip(&mut events).skip(1) {
        for number in 0..200 {
            assert_eq!(next_shown(events).await.body, number.to_string());
        }
        assert_eq!(peer.refused().await, []);
    }
}
