//! What the configuration makes of a server's peer: whom it lets in, whose messages it takes, and
//! what others see of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use watchtower_whisper::{Event, Events, Options, Peer, TlsFiles};

use super::super::authority::Authority;
use super::super::http::Stream;
use super::super::packets::Packets;
use super::super::server::{PATIENCE, Server, until};
use super::{Gopher, LINES, hears, hello, start_with};

/// A peer of this project's, and what it is told.
struct Whisperer {
    runtime: Runtime,
    peer: Peer,
    events: Events,
}

impl Whisperer {
    /// One that dials the server.
    fn start(server: &Server, tls: Option<TlsFiles>) -> Whisperer {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build().unwrap();
        let peers = vec![server.listener("whispernet").to_string()];
        let options = Options { listen: ([127, 0, 0, 1], 0).into(), peers, tls, ..Options::default() };
        let (peer, events) = runtime.block_on(Peer::start_watched(options)).unwrap();
        Whisperer { runtime, peer, events }
    }

    fn say(&self, body: &str) {
        self.runtime.block_on(self.peer.say(body)).unwrap();
    }

    #[track_caller]
    fn hears(&mut self, body: &str) {
        let shown = self.wait_for(|event| if let Event::Shown(shown) = event { Some(shown) } else { None });
        assert_eq!(shown.body, body);
    }

    fn wait_for<T>(&mut self, pick: impl Fn(Event) -> Option<T>) -> T {
        self.runtime.block_on(async {
            loop {
                let event = timeout(PATIENCE, self.events.next()).await.expect("something happens");
                if let Some(picked) = pick(event.unwrap().expect("the peer is there")) {
                    return picked;
                }
            }
        })
    }
}

/// The lines of the room.
fn listen(server: &Server) -> Stream {
    Stream::open(server, "5", server.joined(&json!([5])), LINES)
}

/// [whispernet: 13]
#[test]
fn with_certificates_only_peers_that_have_one_of_the_authority_are_heard_and_hear() {
    let (ours, others) = (Authority::new(), Authority::new());
    let files = ours.files("server.example");
    let set = |key: &str, path: &Path| format!("whispernet.tls_{key}={}", path.display());
    let settings = [set("cert", &files.cert), set("key", &files.key), set("ca", &files.ca)];
    let server = start_with(&settings.each_ref().map(|setting| ["--set", setting]).concat());
    let mut lines = listen(&server);

    // It is plain, and disconnected.
    let mut plain = TcpStream::connect(server.listener("whispernet")).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(hello(SocketAddr::from(([127, 0, 0, 1], 9))).as_bytes()).unwrap();
    let mut told = Vec::new();
    // However the connection ends, it ends.
    let end = plain.read_to_end(&mut told).map_err(|error| error.kind());
    assert!(end.is_ok() || end == Err(std::io::ErrorKind::ConnectionReset), "{end:?}");
    assert!(!String::from_utf8_lossy(&told).contains("Body"));
    // This one trusts our authority, and is not of it.
    let files = TlsFiles { ca: ours.files("x").ca, ..others.files("stranger.example") };
    let mut stranger = Whisperer::start(&server, Some(files));
    stranger.say("let me in");
    let warned = |event| if let Event::Warning(warning) = event { Some(warning) } else { None };
    let warning = stranger.wait_for(warned);
    assert!(warning.contains("received fatal alert"), "{warning}");

    let mut friend = Whisperer::start(&server, Some(ours.files("friend.example")));
    friend.say("it is me");
    hears(&mut lines, "it is me");
    assert_eq!(server.metric("watchtower_whispernet_received_total"), Some(1.0));
    until("connected", || server.metric("watchtower_whispernet_peers") == Some(1.0));
    Packets::tcp(&server, &[5]).publish(5, b"welcome");
    friend.hears("welcome");
}

#[test]
fn where_signatures_are_required_what_is_unsigned_is_counted_and_not_published() {
    let server = start_with(&["--set", "whispernet.require_signed=true"]);
    let mut lines = listen(&server);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut plain = TcpStream::connect(server.listener("whispernet")).unwrap();
    plain.write_all(hello(listener.local_addr().unwrap()).as_bytes()).unwrap();
    until("dropped", || server.metric("watchtower_whispernet_unsigned_total") == Some(1.0));
    let signer = Whisperer::start(&server, None);
    signer.say("signed");
    hears(&mut lines, "signed");
    assert_eq!(server.metric("watchtower_whispernet_received_total"), Some(1.0));
}

#[test]
fn peers_see_the_nick_the_address_and_as_much_of_the_backlog_as_are_configured() {
    let settings = ["nick=north", "announced=127.0.0.1:9", "backlog=3"];
    let settings = settings.map(|setting| format!("whispernet.{setting}"));
    let server = start_with(&settings.each_ref().map(|setting| ["--set", setting]).concat());
    let mut device = Packets::tcp(&server, &[5]);
    for number in ["1", "2", "3"] {
        device.publish(5, number.as_bytes());
    }
    until("said", || server.metric("watchtower_whispernet_said_total") == Some(3.0));
    let mut gopher = Gopher::meet(&server);
    // The third of the backlog is what it has just said itself, which does not go back.
    for number in ["2", "3"] {
        let object = gopher.hears(number);
        assert!(object["Nick"].as_str().unwrap().starts_with("north/"), "{object}");
        assert_eq!(object["Addr"], "127.0.0.1:9");
    }
}
