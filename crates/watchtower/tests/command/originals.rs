//! `watchtower rocket` and `watchtower webtalk`: the command lines of the two original systems
//! [webrocket: configuration] [webtalk: public side].

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::process::{Running, run, run_in};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

const OK: &str = r#"{"ok": true}"#;

/// A browser's end of a WebSocket, for short messages.
struct Socket(TcpStream);

impl Socket {
    fn open(server: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self(stream)
    }

    fn send(&mut self, text: &str) {
        let length = u8::try_from(text.len()).unwrap();
        assert!(length < 126);
        self.0.write_all(&[&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()).unwrap();
    }

    /// The opcode and the payload of the next frame.
    #[track_caller]
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut payload = vec![0; head[1].into()];
        self.0.read_exact(&mut payload).unwrap();
        (head[0] & 0x0f, payload)
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        let (opcode, payload) = self.frame();
        assert_eq!((opcode, String::from_utf8_lossy(&payload)), (1, text.into()));
    }

    #[track_caller]
    fn ask(&mut self, command: &str, answer: &str) {
        self.send(command);
        self.expect(answer);
    }

    /// The server closes it, and the connection.
    #[track_caller]
    fn expect_closed(&mut self, code: u16, reason: &str) {
        assert_eq!(self.frame(), (8, [&code.to_be_bytes(), reason.as_bytes()].concat()));
        assert_eq!(self.0.read(&mut [0]).unwrap(), 0);
    }
}

/// Two hubs as the original had them, with a log each, and an address that is nobody's.
const TWO_HUBS: &str = r#"{
    "Host": "203.0.113.1",
    "Port": 1,
    "Log": "unused.log",
    "Hubs": [
        {"Path": "/a", "Codec": "JSON", "Log": "./a.log", "Secrets": {"ReadWrite": "sesame-a"}},
        {"Path": "/b", "Log": "b.log", "Secrets": {"ReadOnly": "sesame-r", "ReadWrite": "sesame-b"}}
    ]
}"#;

/// A folder with that file in it.
fn folder(file: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(file), text).unwrap();
    folder
}

fn rocket(folder: &Path) -> (Running, SocketAddr) {
    let server =
        Running::start(folder, &["rocket", "-host", "127.0.0.1", "-port=0", "-log", "rocket.log", "my.json"]);
    let address = server.listener("webrocket");
    (server, address)
}

fn auth(access: &str, secret: &str) -> String {
    format!(r#"{{"auth": {{"access": "{access}", "secret": "{secret}"}}}}"#)
}

#[test]
fn rocket_serves_the_originals_file_over_which_flags_win_with_one_dash_or_two() {
    for flags in [
        &["-host", "127.0.0.1", "-port", "0", "-log=rocket.log", "my.json"][..],
        &["--host=127.0.0.1", "--port=0", "my.json", "--log", "rocket.log"],
    ] {
        let folder = folder("my.json", TWO_HUBS);
        let server = Running::start(folder.path(), &[&["rocket"], flags].concat());
        let [line] = &server.listening[..] else { panic!("{:?}", server.listening) };
        assert!(line.starts_with("listening tcp 127.0.0.1:") && line.ends_with(" webrocket\n"), "{line}");
        let mut socket = Socket::open(server.listener("webrocket"), "/a");
        socket.ask(&auth("read-write", "sesame-a"), OK);
        // What is served there is this and nothing else.
        let mut other = TcpStream::connect(server.listener("webrocket")).unwrap();
        other.write_all(b"POST /register HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        other.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 404 "), "{answer}");

        server.signal(Signal::TERM);
        socket.expect_closed(1001, "the server shuts down");
        drop(socket);
        let (code, said) = server.ended();
        assert_eq!((code, said.as_str()), (Some(0), ""), "its log is in a file");
        let log = fs::read_to_string(folder.path().join("rocket.log")).unwrap();
        assert!(log.contains("shutting down") && !folder.path().join("unused.log").exists(), "{log}");
    }
}

#[test]
fn hubs_of_rocket_have_channels_of_their_own() {
    let folder = folder("my.json", TWO_HUBS);
    let (_server, address) = rocket(folder.path());
    let mut a = Socket::open(address, "/a");
    a.ask(&auth("read-write", "sesame-a"), OK);
    a.ask(r#"{"subscribe": {"channel": "hello"}}"#, OK);
    let mut b = Socket::open(address, "/b");
    b.ask(&auth("read-write", "sesame-b"), OK);
    let publish = r#"{"publish": {"event": "e", "channel": "hello", "data": "of b"}}"#;
    b.ask(publish, r#"{"err": "invalid_channel"}"#);
    for name in ["a/hello", "a/"] {
        let subscribe = format!(r#"{{"subscribe": {{"channel": "{name}"}}}}"#);
        b.ask(&subscribe, r#"{"err": "invalid_channel_name"}"#);
    }
    b.ask(r#"{"subscribe": {"channel": "hello"}}"#, OK);
    b.send(publish);
    let mut came = [b.frame().1, b.frame().1].map(|payload| String::from_utf8(payload).unwrap());
    came.sort();
    assert_eq!(came, [r#"{"event": "e", "channel": "hello", "data": "of b"}"#, OK]);
    // What comes to the other hub is its own alone.
    let mut publisher = Socket::open(address, "/a");
    publisher.ask(&auth("read-write", "sesame-a"), OK);
    publisher.ask(r#"{"publish": {"event": "e", "channel": "hello", "data": "of a"}}"#, OK);
    a.expect(r#"{"event": "e", "channel": "hello", "data": "of a"}"#);
}

#[test]
fn each_hub_of_rocket_has_a_log_that_shows_neither_secrets_nor_what_was_published() {
    let folder = folder("my.json", TWO_HUBS);
    let (server, address) = rocket(folder.path());
    let mut socket = Socket::open(address, "/a");
    socket.ask(&auth("read-write", "sesame-b"), r#"{"err": "invalid_credentials"}"#);
    socket.ask(&auth("read-write", "sesame-a"), OK);
    socket.ask(r#"{"subscribe": {"channel": "hello"}}"#, OK);
    socket.ask(r#"{"unsubscribe": {"channel": "hello"}}"#, OK);
    let mut other = Socket::open(address, "/a");
    other.ask(&auth("read-only", "whatever"), OK);
    other.ask(r#"{"subscribe": {"channel": "hello"}}"#, OK);
    socket.ask(r#"{"publish": {"event": "evt", "channel": "hello", "data": "all your base"}}"#, OK);
    other.expect(r#"{"event": "evt", "channel": "hello", "data": "all your base"}"#);
    socket.ask(r#"{"disconnect": true}"#, OK);
    socket.expect_closed(1000, "");
    let (code, _) = server.ended_by(Signal::TERM);
    assert_eq!(code, Some(0));

    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let log = read("a.log");
    let mut of_first: Vec<&str> = Vec::new();
    for line in log.lines() {
        let (time, said) = line.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
        of_first.extend(said.strip_prefix("1 "));
    }
    assert_eq!(
        of_first,
        [
            "connected to /a",
            "refused auth: invalid_credentials",
            "authenticated for read-write",
            "subscribed to a/hello",
            "unsubscribed from a/hello",
            "published 13 bytes on a/hello",
            "disconnected",
        ]
    );
    assert!(log.contains(" 2 subscribed to a/hello\n"), "{log}");
    assert_eq!(read("b.log"), "");
    for hidden in ["sesame", "whatever", "all your base", "evt"] {
        assert!(!log.contains(hidden) && !read("rocket.log").contains(hidden), "{hidden} in {log}");
    }
}

#[test]
fn a_file_of_an_original_that_is_wrong_is_code_2_and_one_line_with_file_line_and_key() {
    for (command, file, text, told) in [
        ("rocket", "my.json", "{\n\"Prt\": 1}", "my.json:2: unknown field `Prt`, expected one of `Host`"),
        ("rocket", "my.json", "{", "my.json:1: "),
        (
            "rocket",
            "my.json",
            "{\"Hubs\": [\n{\"Path\": \"/a\", \"Codec\": \"BSON\"}]}",
            "my.json:2: unknown variant `BSON`, expected `JSON`",
        ),
        ("rocket", "my.json", "{\"Host\": \"example.com\"}", "my.json: Host: got \"example.com\""),
        (
            "rocket",
            "my.json",
            "{\"Host\": \"0.0.0.0\", \"Hubs\": [{\"Path\": \"/a\"}]}",
            "webrocket.hubs: the hub /a can be reached",
        ),
        ("rocket", "my.json", "{\"Log\": \"none/here.log\"}", "none/here.log: cannot write a log there"),
        (
            "webtalk",
            "talk.ini",
            "{\n \"Pubic\": \"\"}",
            "talk.ini:2: unknown field `Pubic`, expected `Public`",
        ),
        (
            "webtalk",
            "talk.ini",
            "{\"Private\": \"here\"}",
            "talk.ini:1: got \"here\", expected an IP address",
        ),
        ("webtalk", "talk.ini", "{\"Private\": \"0.0.0.0:0\"}", "webtalk.private"),
    ] {
        let folder = folder(file, text);
        let ended = run_in(folder.path(), &[command, file], &[]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{text}: {ended:?}");
        assert!(ended.stderr.contains(told), "{text}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
    let missing = run(&["rocket", "my.json"]);
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("my.json: cannot read it: No such file"), "{}", missing.stderr);
}

#[test]
fn rocket_says_which_version_it_is() {
    for option in ["-version", "--version"] {
        let said = run(&["rocket", option]);
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
        assert!(said.stdout.contains(env!("CARGO_PKG_VERSION")), "{}", said.stdout);
    }
}

/// A command of the private link, and its reply.
#[track_caller]
fn command(link: &mut TcpStream, command: &str) -> String {
    write!(link, "{:05}{command}", command.len()).unwrap();
    reply(link)
}

#[track_caller]
fn reply(link: &mut TcpStream) -> String {
    let mut digits = [0; 5];
    link.read_exact(&mut digits).unwrap();
    let mut reply = vec![0; std::str::from_utf8(&digits).unwrap().parse().unwrap()];
    link.read_exact(&mut reply).unwrap();
    String::from_utf8(reply).unwrap()
}

#[test]
fn webtalk_serves_the_originals_file_and_tells_everybody_of_its_end() {
    let folder = folder("webtalk.ini", r#"{"Public": "127.0.0.1:0", "Private": "127.0.0.1:0"}"#);
    let server = Running::start(folder.path(), &["webtalk"]);
    let [public, private] = &server.listening[..] else { panic!("{:?}", server.listening) };
    assert!(public.starts_with("listening tcp 127.0.0.1:") && public.ends_with(" webtalk\n"), "{public}");
    assert!(private.ends_with(" webtalk-private\n"), "{private}");

    let mut link = TcpStream::connect(server.listener("webtalk-private")).unwrap();
    link.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sockets = Vec::new();
    // On a port of its own the path need not be known.
    for path in ["/", "/webtalk"] {
        let made = command(&mut link, "[newuser]");
        let credentials = made.strip_prefix("[ok] ").unwrap();
        let mut socket = Socket::open(server.listener("webtalk"), path);
        socket.send(credentials);
        let id = credentials.split('!').next().unwrap();
        assert_eq!(command(&mut link, &format!("[whisper] {id}!to {path}")), "[ok] message sent");
        socket.expect(&format!("to {path}"));
        sockets.push(socket);
    }
    assert_eq!(command(&mut link, "[shout] 1!all your base"), "[ok] message sent");
    sockets.iter_mut().for_each(|socket| socket.expect("all your base"));

    server.signal(Signal::TERM);
    for mut socket in sockets {
        socket.expect_closed(1001, "the server shuts down");
    }
    assert_eq!(reply(&mut link), "[error] the server shuts down");
    drop(link);
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("all your base") && !said.contains("[ok]"), "{said}");
}
