//! Mutual TLS between peers, and who has no certificate of the authority.

use std::fs;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use watchtower_whisper::{Event, Events, Options, Peer, TlsFiles};

use super::authority::Authority;
use super::{SOON, connected, next_shown, options, start, wait_for};

impl Authority {
    async fn start(&self, name: &str, peers: &[&Peer]) -> Peer {
        self.start_watched(name, peers).await.0
    }

    async fn start_watched(&self, name: &str, peers: &[&Peer]) -> (Peer, Events) {
        let peers = peers.iter().map(|peer| peer.address().to_string()).collect();
        Peer::start_watched(Options { tls: Some(self.files(name)), peers, ..options() }).await.unwrap()
    }
}

async fn warning(events: &mut Events) -> String {
    wait_for(events, |event| if let Event::Warning(warning) = event { Some(warning) } else { None }).await
}

/// [whispernet: 13] The names in the certificates are other names.
#[tokio::test]
async fn peers_of_one_authority_talk_within_tls() {
    let authority = Authority::new();
    let phil = authority.start("phil.example", &[]).await;
    let mut to_phil = phil.events();
    let goldy = authority.start("goldy.example", &[&phil]).await;
    let mut to_goldy = goldy.events();
    connected(&goldy, 1).await;
    let long = "x".repeat(1 << 20);
    goldy.say(&long).await.unwrap();
    assert_eq!(next_shown(&mut to_phil).await.body, long);
    connected(&phil, 1).await;
    phil.say("hello").await.unwrap();
    assert_eq!(next_shown(&mut to_goldy).await.body, "hello");
    goldy.say("bye").await.unwrap();
    goldy.shut_down().await;
    assert_eq!(next_shown(&mut to_phil).await.body, "bye");
}

#[tokio::test]
async fn who_has_no_certificate_of_the_authority_is_told_nothing() {
    let (ours, others) = (Authority::new(), Authority::new());
    let phil = ours.start("phil.example", &[]).await;
    phil.say("a secret").await.unwrap();
    let mut of_phil = phil.events();

    // Each trusts the other's authority in neither direction.
    let (stranger, mut events) = others.start_watched("stranger.example", &[&phil]).await;
    let told = warning(&mut events).await;
    assert!(told.contains("invalid peer certificate"), "{told}");

    // This one trusts ours, and is not trusted.
    let files = TlsFiles { ca: ours.path("ca.pem"), ..others.files("half.example") };
    let peers = vec![phil.address().to_string()];
    let options = Options { tls: Some(files), peers, ..options() };
    let (half, mut events) = Peer::start_watched(options).await.unwrap();
    let told = warning(&mut events).await;
    assert!(
        told.starts_with(&format!("cannot reach {}, trying again: received fatal alert", phil.address()))
    );
    half.say("let me in").await.unwrap();
    assert!(!half.flush(std::time::Duration::from_millis(10)).await);

    // This one speaks no TLS, and phil dials nobody who does not.
    let plain = start("plain", &[&phil]).await;
    plain.say("hello").await.unwrap();
    phil.connect(plain.address()).await;
    let told = warning(&mut of_phil).await;
    assert!(told.contains("was disconnected: ") || told.contains("cannot reach"), "{told}");
    assert_eq!(phil.counts().await.shown, 0);
    let others: [&Peer; 3] = [&stranger, &half, &plain];
    for peer in others {
        assert_eq!(peer.counts().await.shown, 0);
    }
    assert_eq!(phil.peers().await.iter().filter(|peer| peer.connected).count(), 0);
}

/// What it reads is no TLS, so it has not taken it.
#[tokio::test]
async fn who_wants_tls_has_taken_nothing_without_it() {
    let authority = Authority::new();
    let phil = authority.start("phil.example", &[]).await;
    let plain = start("plain", &[&phil]).await;
    connected(&plain, 1).await;
    plain.say("hello").await.unwrap();
    assert!(plain.flush(SOON).await);
    assert!(!plain.shut_down().await);
    // With it, it has.
    let goldy = authority.start("goldy.example", &[&phil]).await;
    connected(&goldy, 1).await;
    goldy.say("hello").await.unwrap();
    assert!(goldy.flush(SOON).await);
    assert!(goldy.shut_down().await);
}

#[tokio::test]
async fn half_a_handshake_keeps_nobody_else_waiting() {
    let authority = Authority::new();
    let phil = authority.start("phil.example", &[]).await;
    let mut events = phil.events();
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(phil.address()).await.unwrap();
        stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
        silent.push(stream);
    }
    let goldy = authority.start("goldy.example", &[&phil]).await;
    connected(&goldy, 1).await;
    goldy.say("hi").await.unwrap();
    assert_eq!(next_shown(&mut events).await.body, "hi");
    // Whoever speaks no TLS is disconnected at once.
    let mut plain = TcpStream::connect(phil.address()).await.unwrap();
    plain.write_all(b"{\"ID\":\"1\",\"Body\":\"hi\"}").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(SOON, plain.read_to_end(&mut answer)).await.expect("it ends soon");
    assert!(!String::from_utf8_lossy(&answer).contains("Body"));
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    let good = authority.files("phil.example");
    let other = authority.files("other.example");
    let empty = authority.path("empty");
    fs::write(&empty, "").unwrap();
    let missing = authority.path("missing");
    for (files, expected) in [
        (TlsFiles { cert: missing.clone(), ..good.clone() }, "missing: cannot read it: No such file"),
        (TlsFiles { cert: empty.clone(), ..good.clone() }, "empty: there is none in it; expected cert"),
        (TlsFiles { key: empty.clone(), ..good.clone() }, "empty: there is none in it; expected a private"),
        (TlsFiles { ca: empty.clone(), ..good.clone() }, "empty: there is none in it; expected cert"),
        (
            TlsFiles { key: other.key, ..good.clone() },
            "phil.example.pem: it cannot be used with the private key",
        ),
    ] {
        let error = Peer::start(Options { tls: Some(files), ..options() }).await.unwrap_err().to_string();
        let error = error.replace(&authority.path("").display().to_string(), "");
        assert!(error.starts_with(expected), "{error}");
    }
}
