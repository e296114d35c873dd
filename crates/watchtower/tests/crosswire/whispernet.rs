//! Servers that are peers of the whispernet, a small peer as others write it, and what they hear of
//! one another.

mod browsers;
mod options;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;

use serde_json::{Deserializer, Value, json};
use watchtower_whisper::{Options, Peer};

use super::http::Stream;
use super::packets::{Packets, delivered};
use super::server::{PATIENCE, Server, until};

const LINES: &str = "application/x-ndjson";

/// A peer that knows nothing but `ID`, `Addr` and `Body`, and fails without a `Body`.
struct Gopher {
    addr: SocketAddr,
    to_server: TcpStream,
    from_server: Box<dyn Iterator<Item = Value>>,
    /// For those that dial it later.
    _listener: TcpListener,
    said: u32,
}

impl Gopher {
    /// Connects both ways: it says that it is there, and is dialled. What is published from now on
    /// it is sent as it comes, and not as a backlog.
    fn meet(server: &Server) -> Gopher {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let peers = || server.metric("watchtower_whispernet_peers").unwrap();
        let before = peers();
        let mut to_server = TcpStream::connect(server.listener("whispernet")).unwrap();
        to_server.write_all(hello(addr).as_bytes()).unwrap();
        let (from_server, _) = listener.accept().unwrap();
        until("connected", || peers() > before);
        from_server.set_read_timeout(Some(PATIENCE)).unwrap();
        let objects = Deserializer::from_reader(from_server).into_iter().map(|object| {
            let object: Value = object.unwrap();
            let body = object["Body"].as_str();
            assert!(body.is_some_and(|body| !body.is_empty()), "deployed peers fail on {object}");
            object
        });
        Gopher { addr, to_server, from_server: Box::new(objects), _listener: listener, said: 0 }
    }

    fn say(&mut self, body: &str) {
        self.say_with(json!({ "Body": body }));
    }

    fn say_with(&mut self, mut object: Value) {
        self.said += 1;
        object["ID"] = format!("{} {}", self.addr, self.said).into();
        object["Addr"] = self.addr.to_string().into();
        self.to_server.write_all(object.to_string().as_bytes()).unwrap();
    }

    fn next(&mut self) -> Value {
        self.from_server.next().unwrap()
    }

    #[track_caller]
    fn hears(&mut self, body: &str) -> Value {
        let object = self.next();
        assert_eq!(object["Body"], body, "{object}");
        object
    }
}

fn hello(addr: SocketAddr) -> String {
    json!({ "ID": format!("hello {addr}"), "Addr": addr.to_string(), "Body": "hello" }).to_string()
}

/// A server whose channel 5 is the room, and that dials those.
fn start(peers: &[&Server]) -> Server {
    let peers: Vec<String> =
        peers.iter().map(|peer| format!("\"{}\"", peer.listener("whispernet"))).collect();
    start_with(&["--set", &format!("whispernet.peers=[{}]", peers.join(", "))])
}

/// A server whose channel 5 is the room.
fn start_with(options: &[&str]) -> Server {
    let room = ["--set", "whispernet.listen=127.0.0.1:0", "--set", "whispernet.channel=5"];
    Server::start(&[&room, options].concat())
}

fn line(stream: &mut Stream) -> Value {
    loop {
        let line: Value = serde_json::from_str(&stream.line()).unwrap();
        if line.get("message").is_some() {
            return line;
        }
    }
}

#[track_caller]
fn hears(stream: &mut Stream, message: impl Into<Value>) {
    assert_eq!(line(stream)["message"], message.into());
}

/// [model: projection]
#[test]
fn what_devices_publish_peers_are_told() {
    let server = start(&[]);
    let mut gopher = Gopher::meet(&server);
    let mut device = Packets::udp(&server, &[5]);
    device.publish(5, b"21.5");
    let first = gopher.hears("21.5");
    let nick = first["Nick"].as_str().unwrap();
    let tag = nick.strip_prefix("watchtower/").unwrap();
    assert!(tag.len() == 3 && !nick.contains(&device.id.to_string()), "{nick}");
    assert!(first["ID"].as_str().unwrap().starts_with("hash:sha256:"));
    assert_eq!(first["Addr"], server.listener("whispernet").to_string());

    let sender = server.joined(&json!([5]));
    server.broadcast(sender, &json!(5), "by curl");
    assert_ne!(gopher.hears("by curl")["Nick"], *nick, "it is somebody else");
    let request = json!({ "sender": sender, "channels": [5], "message": { "t": [1] } });
    assert_eq!(server.post("/broadcast", &request.to_string()).status, 200);
    gopher.hears(r#"{"t":[1]}"#);

    device.publish(5, b"");
    device.publish(5, &[0xff, 0, 1]);
    let file = gopher.next();
    assert!(file["Body"].as_str().unwrap().ends_with(".bin"), "{file}");
    assert_eq!(
        (&file["FileType"], &file["FileContents"]),
        (&json!("application/octet-stream"), &json!("/wAB"))
    );
    assert_eq!(file["Nick"], *nick);
    // What is empty cannot be said, and is counted.
    let empty = r#"watchtower_whispernet_unsaid_total{reason="empty"}"#;
    assert_eq!(server.metric(empty), Some(1.0));
}

#[test]
fn what_peers_say_everybody_gets_in_his_own_format() {
    let server = start(&[]);
    let sender = server.joined(&json!([5]));
    let mut lines = Stream::open(&server, "5", sender, LINES);
    let mut device = Packets::udp(&server, &[5]);
    let mut gopher = Gopher::meet(&server);
    hears(&mut lines, "hello");
    device.expect(&delivered(0, 5, false, b"hello"));
    gopher.say_with(json!({ "Body": "hi", "Nick": "gol\u{202e}dy" }));
    let hi = line(&mut lines);
    assert_eq!((&hi["message"], &hi["nick"], &hi["sender"]), (&json!("hi"), &json!("goldy"), &json!(0)));
    device.expect(&delivered(0, 5, false, b"hi"));
    gopher.say_with(json!({ "Body": "cat.gif", "FileType": "image/gif", "FileContents": "R0lGOP8=" }));
    let file = line(&mut lines);
    assert_eq!((&file["message"], &file["encoding"]), (&json!("R0lGOP8="), &json!("base64")));
    device.expect(&delivered(0, 5, false, b"GIF8\xff"));
    // What does not fit the channel is counted, and a file at least named.
    gopher.say(&"x".repeat(65_536));
    let zeros = "A".repeat(100_000);
    gopher.say_with(json!({ "Body": "large.bin", "FileContents": zeros }));
    hears(&mut lines, "large.bin");
    let unpublished = |reason: &str| {
        server.metric(&format!("watchtower_whispernet_unpublished_total{{reason=\"{reason}\"}}"))
    };
    assert_eq!((unpublished("too_large"), unpublished("file")), (Some(1.0), Some(1.0)));
    assert_eq!(server.metric("watchtower_whispernet_received_total"), Some(5.0));
    assert_eq!(server.metric("watchtower_whispernet_peers"), Some(1.0));
}

#[test]
fn of_a_large_file_everybody_is_told_that_it_came() {
    let server = start(&[]);
    let sender = server.joined(&json!([5]));
    let mut lines = Stream::open(&server, "5", sender, LINES);
    let dir = tempfile::tempdir().unwrap();
    let large = dir.path().join("large.bin");
    std::fs::write(&large, vec![7; 1 << 20]).unwrap();
    let peer = server.listener("whispernet").to_string();
    let mut chat = super::server::watchtower(&["whisper", "--listen", "127.0.0.1", "--port", "0"]);
    chat.args(["--discovery-port", "0", "--peer", &peer, "--data-dir"]).arg(dir.path());
    let mut chat = chat.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    writeln!(chat.stdin.take().unwrap(), "/send {}", large.display()).unwrap();
    hears(&mut lines, "large.bin (a large file, which does not come this way)");
    assert!(chat.wait().unwrap().success());
    let unpublished = r#"watchtower_whispernet_unpublished_total{reason="file"}"#;
    assert_eq!(server.metric(unpublished), Some(1.0));
}

/// Two rooms that are one, by the whispernet and by a peer of both.
#[test]
fn nothing_goes_round_between_two_servers() {
    let one = start(&[]);
    let other = start(&[&one]);
    let mut gopher = Gopher::meet(&one);
    let mut streams = [&one, &other].map(|server| {
        let sender = server.joined(&json!([5]));
        Stream::open(server, "5", sender, LINES)
    });
    // Each knows each once all have spoken.
    let mut devices = [&one, &other].map(|server| Packets::udp(server, &[5]));
    let is_met = |server: &Server| server.metric("watchtower_whispernet_peers") == Some(2.0);
    until("the other dials", || other.metric("watchtower_whispernet_peers") >= Some(1.0));
    devices[1].publish(5, b"from the other");
    hears(&mut streams[0], "from the other");
    gopher.say("again");
    hears(&mut streams[0], "again");
    until("all connected", || is_met(&one) && is_met(&other));
    devices[0].publish(5, b"from the one");
    hears(&mut streams[0], "from the one");
    gopher.say("bye");
    hears(&mut streams[0], "bye");
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| last != "bye") {
        heard.push(line(&mut streams[1])["message"].as_str().unwrap().to_owned());
    }
    let expected = |word: &str| heard.iter().filter(|heard| *heard == word).count();
    for once in ["from the other", "again", "from the one", "bye"] {
        assert_eq!(expected(once), 1, "{once}: {heard:?}");
    }
    // The other one may have greeted before it had something to say.
    let greeting = r#"watchtower_whispernet_unpublished_total{reason="greeting"}"#;
    let greeted = one.metric(greeting).unwrap();
    for (server, said, received) in [(&one, 1.0, 4.0 + greeted), (&other, 1.0 + greeted, 4.0)] {
        assert_eq!(server.metric("watchtower_whispernet_said_total"), Some(said));
        assert_eq!(server.metric("watchtower_whispernet_received_total"), Some(received));
        // One that was said here, and four that were heard.
        assert_eq!(server.metric("watchtower_messages_published_total"), Some(5.0));
    }
}

/// [whispernet: 14] With more peers than all know all of.
#[test]
fn nothing_goes_round_between_two_servers_among_peers_that_route() {
    let one = start(&[]);
    let other = start(&[&one]);
    let mut streams = [&one, &other].map(|server| {
        let sender = server.joined(&json!([5]));
        Stream::open(server, "5", sender, LINES)
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build().unwrap();
    let contact = one.listener("whispernet").to_string();
    let _peers: Vec<Peer> = (0..14)
        .map(|number| {
            let listen = ([127, 0, 0, 1], 0).into();
            let options = Options { listen, peers: vec![contact.clone()], ..Options::default() };
            let peer = runtime.block_on(Peer::start(options)).unwrap();
            let hello = format!("here is {number}");
            runtime.block_on(peer.say(&hello)).unwrap();
            // Each knows the others who were there.
            streams.iter_mut().for_each(|stream| hears(stream, &*hello));
            peer
        })
        .collect();
    for server in [&one, &other] {
        until("routing begins", || server.metric("watchtower_whispernet_control_total") > Some(0.0));
    }
    let mut devices = [&one, &other].map(|server| Packets::udp(server, &[5]));
    for round in 0..5 {
        for (device, name) in devices.iter_mut().zip(["one", "other"]) {
            let message = format!("{round} from the {name}");
            device.publish(5, message.as_bytes());
            // In the order of what came: nothing comes a second time.
            streams.iter_mut().for_each(|stream| hears(stream, &*message));
        }
    }
}

#[test]
fn what_was_published_before_the_end_is_still_said() {
    let server = start(&[]);
    let mut device = Packets::tcp(&server, &[5]);
    let mut gopher = Gopher::meet(&server);
    device.expect(&delivered(0, 5, false, b"hello"));
    for number in 0..100 {
        device.publish(5, number.to_string().as_bytes());
    }
    for number in 0..100 {
        device.expect(&delivered(device.id, 5, false, number.to_string().as_bytes()));
    }
    server.terminate();
    for number in 0..100 {
        gopher.hears(&number.to_string());
    }
    let (code, log) = server.ended();
    assert_eq!(code, Some(0), "{log}");
    // Then the connection ends.
    assert!(gopher.to_server.read(&mut [0]).is_ok_and(|length| length == 0));
}

/// [whispernet: 12] Peers refuse who sends too much: the rest waits within the limits of the channel.
#[test]
fn what_is_published_faster_than_peers_may_be_sent_is_bounded_and_counted() {
    const MESSAGES: u32 = 15_000;
    const AT_A_TIME: u32 = 100;
    let server = start_with(&["--set", "limits.lag_messages=1000"]);
    let mut device = Packets::tcp(&server, &[5]);
    let mut gopher = Gopher::meet(&server);
    device.expect(&delivered(0, 5, false, b"hello"));
    for first in (0..MESSAGES).step_by(AT_A_TIME as usize) {
        for number in first..first + AT_A_TIME {
            device.publish(5, number.to_string().as_bytes());
        }
        for number in first..first + AT_A_TIME {
            device.expect(&delivered(device.id, 5, false, number.to_string().as_bytes()));
        }
    }
    gopher.hears("0");
    let skipped = || server.metric("watchtower_messages_skipped_total{protocol=\"whispernet\"}").unwrap();
    until("skipped", || skipped() > 0.0);
    let said = server.metric("watchtower_whispernet_said_total").unwrap();
    assert!(said < 12_000.0, "{said} wait or are written");
    assert_eq!(server.metric("watchtower_whispernet_slow_total"), Some(0.0));
}

#[test]
fn what_cannot_be_a_peer_does_not_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("whispernet.listen={}", taken.local_addr().unwrap());
    for (setting, expected) in [
        (&*listen, "cannot listen on tcp 127.0.0.1:"),
        ("whispernet.peers=[\"a:1\"]", "whispernet.peers are set, but whispernet.listen is empty"),
        ("whispernet.nick=1234567890123456789012345", "a nick of 1 to 24 visible characters"),
    ] {
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--set", setting];
        let output = super::server::watchtower(&arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(expected), "{said}");
    }
}
