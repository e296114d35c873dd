//! The client commands against a peer that speaks the bytes of the packets page.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};

use super::process::{Ended, watchtower};
use rustix::process::{Pid, Signal, kill_process};

const REGISTERED: &[u8] = &[b'A', 72, 0, 0, 0];
const JOINED: &[u8] = &[b'A', 5, 0, 0, 0];
const JOIN: &[u8] = &[b'J', 72, 0, 0, 0, 5, 0, 0, 0];
const LEAVE: &[u8] = &[b'L', 72, 0, 0, 0, 5, 0, 0, 0];

/// An `M` packet from sender 9 on channel 5 [packets: server to client].
fn message(content: &[u8]) -> Vec<u8> {
    let mut packet = vec![b'M', 9, 0, 0, 0, 5, 0, 0, 0, 0, 0];
    packet.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
    packet.extend(content);
    packet
}

struct Peer {
    listener: TcpListener,
    server: String,
}

impl Peer {
    fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap().to_string();
        Self { listener, server }
    }

    fn start(&self, arguments: &[&str]) -> (Child, TcpStream) {
        let child = watchtower([arguments, &["--server", &self.server]].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        (child, self.listener.accept().unwrap().0)
    }
}

#[track_caller]
fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut came = vec![0; expected.len()];
    stream.read_exact(&mut came).unwrap();
    assert_eq!(came, expected);
}

/// A `watchtower sub` that has registered, joined channel 5 and said so.
struct Subscriber {
    child: Child,
    stream: TcpStream,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Subscriber {
    fn start(peer: &Peer, options: &[&str]) -> Self {
        let (mut child, mut stream) = peer.start(&[&["sub", "5"], options].concat());
        expect(&mut stream, b"R");
        stream.write_all(REGISTERED).unwrap();
        expect(&mut stream, JOIN);
        stream.write_all(JOINED).unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        stderr.read_line(&mut said).unwrap();
        assert_eq!(said, "subscribed to 5 as sender 72\n");
        Self { child, stream, stdout, stderr }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    fn ended(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

#[test]
fn register_prints_the_id_and_nothing_else() {
    let peer = Peer::listen();
    let (child, mut stream) = peer.start(&["register", "--secret", "hush"]);
    expect(&mut stream, b"S\x04hush");
    stream.write_all(REGISTERED).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());
    let (stdout, stderr) = ("72\n".to_owned(), String::new());
    assert_eq!(ended, Ended { code: Some(0), stdout, stderr });
}

#[test]
fn a_refusal_is_code_1_and_one_line() {
    let peer = Peer::listen();
    let (child, mut stream) = peer.start(&["register"]);
    expect(&mut stream, b"R");
    stream.write_all(b"E\x05\x06closed").unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("closed"), "{}", ended.stderr);
}

#[test]
fn pub_joins_and_publishes_its_message_or_the_whole_standard_input() {
    for (arguments, input) in
        [(&["pub", "5", "one\n"][..], ""), (&["pub", "5", "-"], "one\n"), (&["pub", "5"], "one\n")]
    {
        let peer = Peer::listen();
        let (mut child, mut stream) = {
            // Standard input is read before the server is reached.
            let mut child = watchtower([arguments, &["--server", &peer.server]].concat())
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            (child, peer.listener.accept().unwrap().0)
        };
        expect(&mut stream, b"R");
        stream.write_all(REGISTERED).unwrap();
        expect(&mut stream, JOIN);
        stream.write_all(JOINED).unwrap();
        expect(&mut stream, b"M\x48\0\0\0\x05\0\0\0\x04\0\0\0one\n");
        let mut echo = message(b"one\n");
        echo[1] = 72;
        stream.write_all(&echo).unwrap();
        // Nobody will use that sender again.
        expect(&mut stream, LEAVE);
        stream.write_all(JOINED).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn pub_as_a_known_sender_leaves_its_joins_as_they_are() {
    let peer = Peer::listen();
    let (mut child, mut stream) = peer.start(&["pub", "5", "one", "--sender", "72"]);
    expect(&mut stream, JOIN);
    stream.write_all(JOINED).unwrap();
    expect(&mut stream, b"M\x48\0\0\0\x05\0\0\0\x03\0\0\0one");
    let mut echo = message(b"one");
    echo[1] = 72;
    stream.write_all(&echo).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), rest), (Some(0), Vec::new()));
}

#[test]
fn a_known_sender_is_not_registered_again() {
    let peer = Peer::listen();
    let (mut child, mut stream) = peer.start(&["sub", "5", "--sender", "72"]);
    expect(&mut stream, JOIN);
    drop(stream);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn sub_prints_each_message_at_once_as_a_line() {
    let peer = Peer::listen();
    let mut subscriber = Subscriber::start(&peer, &[]);
    for (content, line) in
        [(&b"hello"[..], "5 9 hello\n"), (b"two\nlines", "5 9 two\\nlines\n"), (b"", "5 9 \n")]
    {
        subscriber.stream.write_all(&message(content)).unwrap();
        assert_eq!(subscriber.line(), line);
    }
}

#[test]
fn sub_prints_json_when_asked() {
    let peer = Peer::listen();
    let mut subscriber = Subscriber::start(&peer, &["--json"]);
    for (content, line) in [
        (&b"two\nlines"[..], r#"{"channel":5,"sender":9,"message":"two\nlines"}"#),
        (b"\xff\x00", r#"{"channel":5,"sender":9,"message":"/wA=","encoding":"base64"}"#),
    ] {
        subscriber.stream.write_all(&message(content)).unwrap();
        assert_eq!(subscriber.line().trim_end(), line);
    }
}

#[test]
fn sub_leaves_and_ends_well_on_ctrl_c() {
    let peer = Peer::listen();
    let mut subscriber = Subscriber::start(&peer, &[]);
    kill_process(Pid::from_child(&subscriber.child), Signal::INT).unwrap();
    expect(&mut subscriber.stream, LEAVE);
    assert_eq!(subscriber.ended(), (Some(0), String::new()));
}

#[test]
fn sub_leaves_and_ends_well_when_its_reader_is_gone_even_if_nothing_more_comes() {
    let peer = Peer::listen();
    let mut subscriber = Subscriber::start(&peer, &[]);
    subscriber.stream.write_all(&message(b"hello")).unwrap();
    assert_eq!(subscriber.line(), "5 9 hello\n");
    drop(subscriber.stdout);
    expect(&mut subscriber.stream, LEAVE);
    assert_eq!(subscriber.child.wait().unwrap().code(), Some(0));
}

#[test]
fn that_the_server_ended_the_connection_is_code_1_and_said() {
    let peer = Peer::listen();
    let subscriber = Subscriber::start(&peer, &[]);
    let Subscriber { child, stream, stdout, stderr } = subscriber;
    drop(stream);
    let mut said = String::new();
    let (mut child, mut stderr) = (child, stderr);
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(said.starts_with("watchtower: ") && said.lines().count() == 1, "{said}");
    drop(stdout);
}
