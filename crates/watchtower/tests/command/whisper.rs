//! `watchtower whisper` in a pipe [whispernet: terminal commands].

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

use super::process::{Ended, nobody, watchtower};
use super::whispernet::PlainPeer;

/// A peer on loopback, whose input the test holds.
struct Whisper {
    child: Child,
    input: Option<ChildStdin>,
    output: Option<BufReader<ChildStdout>>,
    notices: BufReader<ChildStderr>,
    address: SocketAddr,
    /// What it keeps, as long as it runs.
    _folder: tempfile::TempDir,
}

impl Whisper {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = watchtower(["whisper", "--listen", "127.0.0.1", "--discovery-port", "0"])
            .args(["--port", "0", "--data-dir"])
            .arg(folder.path())
            .args(arguments)
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = child.stdout.take().map(BufReader::new);
        let notices = BufReader::new(child.stderr.take().unwrap());
        let address = ([0, 0, 0, 0], 0).into();
        let mut whisper = Self { child, input, output, notices, address, _folder: folder };
        whisper.address = whisper.notice("-- listening on ").parse().unwrap();
        whisper
    }

    /// The next notice that begins so, without its beginning.
    #[track_caller]
    fn notice(&mut self, beginning: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.notices.read_line(&mut line).unwrap(), 0, "no notice {beginning}");
            if let Some(rest) = line.trim_end().strip_prefix(beginning) {
                return rest.to_owned();
            }
        }
    }

    fn write(&mut self, text: &str) {
        self.input.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.as_mut().unwrap().read_line(&mut line).unwrap();
        line
    }

    fn end_of_input(mut self) -> Ended {
        self.input = None;
        self.ended()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn ended(mut self) -> Ended {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.notices.read_to_string(&mut stderr).unwrap();
        self.output.as_mut().unwrap().read_to_string(&mut stdout).unwrap();
        Ended { code: self.child.wait().unwrap().code(), stdout, stderr }
    }
}

/// A test that fails leaves no peer behind.
impl Drop for Whisper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// [whispernet: messages] [whispernet: 4]
#[test]
fn what_is_piped_in_is_sent_and_it_ends_when_that_is_delivered() {
    let other = PlainPeer::listen();
    // With one dash, as the original has it.
    let mut whisper = Whisper::start(&["-nick", "goldy", "-peer", &other.address.to_string()]);
    whisper.write("hi there\n");
    let address = whisper.address.to_string();
    let ended = whisper.end_of_input();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended:?}");
    let message = other.message();
    let text = |key: &str| message[key].as_str().unwrap_or_else(|| panic!("{key}: {message}")).to_owned();
    assert_eq!(
        (text("Body"), text("Nick"), text("Addr")),
        ("hi there".into(), "goldy".into(), address.clone())
    );
    let hashed = format!("{address}hi there{}", message["Timestamp"]);
    let hash: String = Sha256::digest(hashed).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text("ID"), format!("hash:sha256:{hash}"));
    assert_eq!((text("PubKey").len(), text("Sig").len()), (44, 88));
    let keys: Vec<&String> = message.as_object().unwrap().keys().collect();
    assert_eq!((keys.len(), &message["Routes"]), (8, &true.into()), "{keys:?}");
}

#[test]
fn each_line_is_a_message_but_empty_ones_and_a_slash_is_a_command() {
    let other = PlainPeer::listen();
    let mut whisper = Whisper::start(&["--peer", &other.address.to_string()]);
    whisper.write("one\n\n/nick phil\n/me waves\n//etc\nlast, without an end");
    let ended = whisper.end_of_input();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended:?}");
    assert!(ended.stderr.contains("-- you are phil now\n"), "{}", ended.stderr);
    for (body, nick) in [
        ("one", None),
        ("/me waves", Some("phil")),
        ("/etc", Some("phil")),
        ("last, without an end", Some("phil")),
    ] {
        let message = other.message();
        assert_eq!((message["Body"].as_str(), message["Nick"].as_str()), (Some(body), nick));
    }
}

#[test]
fn everything_of_a_long_input_arrives_in_its_order() {
    let other = PlainPeer::listen();
    let mut whisper = Whisper::start(&["--peer", &other.address.to_string(), "--backlog", "0"]);
    for number in 0..400 {
        whisper.write(&format!("{number}\n"));
    }
    assert_eq!(whisper.end_of_input().code, Some(0));
    for number in 0..400 {
        other.expect(&number.to_string());
    }
}

#[test]
fn a_line_that_is_no_command_is_not_sent_and_said() {
    let other = PlainPeer::listen();
    let mut whisper = Whisper::start(&["--peer", &other.address.to_string()]);
    whisper.write("/pears\nhello\n");
    let ended = whisper.end_of_input();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("!! there is no /pears, did you mean /peers?"), "{}", ended.stderr);
    assert!(ended.stderr.ends_with("watchtower: a line was not sent\n"), "{}", ended.stderr);
    other.expect("hello");
}

#[test]
fn what_nobody_takes_is_a_failure() {
    let (_kept, address) = nobody();
    let whisper = Whisper::start(&["--peer", &address.to_string()]);
    let mut alone = Whisper::start(&[]);
    alone.write("hi\n");
    // Both run out of patience at the same time.
    alone.input = None;
    for (whisper, consequence) in [(whisper, "nothing is sent"), (alone, "what was said is not delivered")] {
        let ended = whisper.end_of_input();
        let expected = format!("watchtower: no peer could be reached within 5 s: {consequence}\n");
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
        assert!(ended.stderr.ends_with(&expected), "{}", ended.stderr);
    }
}

/// It may be full, or refuse the address.
#[test]
fn what_a_peer_hangs_up_on_is_a_failure() {
    let refuser = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = refuser.local_addr().unwrap().to_string();
    thread::spawn(move || refuser.incoming().for_each(drop));
    let mut whisper = Whisper::start(&["--peer", &address]);
    whisper.write("hi\n");
    let ended = whisper.end_of_input();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    // A connection may be over before anybody sees that it was there.
    let endings =
        ["every peer hung up without taking what was said\n", "is not delivered\n", "nothing is sent\n"];
    assert!(endings.iter().any(|ending| ended.stderr.ends_with(ending)), "{}", ended.stderr);
}

/// [whispernet: 1]
#[test]
fn what_others_say_is_one_plain_line_each_whatever_they_send() {
    let other = PlainPeer::listen();
    let mut whisper = Whisper::start(&[]);
    let mut line = |id: &str, nick: &str, body: &str| {
        other.say(whisper.address, id, nick, body);
        let line = whisper.line();
        let (day, rest) = line.split_at("2026-11-26 20:04:05".len());
        assert!(day.starts_with("20") && day.ends_with(|c: char| c.is_ascii_digit()), "{line}");
        rest.to_owned()
    };
    assert_eq!(line("1", "phil", "hello"), "  <phil> hello\n");
    assert_eq!(line("2", "phil", "/me waves"), "  * phil waves\n");
    assert_eq!(line("3", "ph\x1b[31mil", "a\n\x1b[2Jb\u{202e}"), "  <ph [31mil> a↵\u{fffd}[2Jb\n");
    whisper.notice("-- connected to ");
}

#[test]
fn colours_are_shown_in_a_pipe_only_where_they_are_asked_for() {
    let other = PlainPeer::listen();
    let mut whisper = Whisper::start(&["--color", "always"]);
    other.say(whisper.address, "1", "phil", "hello");
    assert!(whisper.line().ends_with("\x1b[0m  <\x1b[38;5;134mphil\x1b[0m> hello\n"));
}

#[test]
fn a_signal_and_quit_end_it_in_good_order() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let whisper = Whisper::start(&[]);
        whisper.signal(signal);
        let ended = whisper.ended();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended:?}");
    }
    let mut whisper = Whisper::start(&[]);
    whisper.write("/quit\n");
    assert_eq!(whisper.ended().code, Some(0));
}

#[test]
fn it_ends_when_nobody_reads_what_it_prints() {
    let mut whisper = Whisper::start(&[]);
    whisper.output = None;
    let mut notices = String::new();
    whisper.notices.read_to_string(&mut notices).unwrap();
    assert_eq!(whisper.child.wait().unwrap().code(), Some(0), "{notices}");
}

#[test]
fn two_of_them_chat() {
    let mut goldy = Whisper::start(&["--nick", "goldy"]);
    let mut phil = Whisper::start(&["--nick", "phil", "--peer", &goldy.address.to_string()]);
    phil.write("hello\n");
    assert!(goldy.line().ends_with("✓<phil> hello\n"));
    goldy.notice(&format!("-- connected to {}", phil.address));
    goldy.write("hello yourself\n");
    assert!(phil.line().ends_with("✓<goldy> hello yourself\n"));
    phil.write("/peers\n");
    phil.notice(&format!("-- {} connected", goldy.address));
    assert_eq!(goldy.end_of_input().code, Some(0));
    phil.notice("-- lost ");
}

/// [whispernet: 10]
#[test]
fn a_file_is_sent_to_its_end_before_it_ends() {
    let mut goldy = Whisper::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("big.bin");
    // More than is written in the second that an end takes at most.
    let contents: Vec<u8> = (0..12_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    fs::write(&file, &contents).unwrap();
    let mut phil = Whisper::start(&["--peer", &goldy.address.to_string(), "--nick", "phil"]);
    phil.write(&format!("/send {}\n", file.display()));
    let ended = phil.end_of_input();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let saved = goldy.notice("-- saved big.bin from phil: ");
    assert!(fs::read(saved).unwrap() == contents);
}

/// [whispernet: 6]
#[test]
fn a_page_is_served_where_one_is_asked_for() {
    let mut whisper = Whisper::start(&["-http", "127.0.0.1:0"]);
    let page = whisper.notice("-- the page is at http://");
    let mut browser = TcpStream::connect(page.trim_end_matches('/')).unwrap();
    let host = page.trim_end_matches('/');
    write!(browser, "GET /peers HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    browser.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(r#"{"peers":[]}"#), "{answer}");

    let taken: Ended =
        watchtower(["whisper", "--listen", "127.0.0.1", "--port", "0", "--discovery-port", "0"])
            .args(["--http", host])
            .output()
            .unwrap()
            .into();
    let told = format!("watchtower: the page's address {host} is taken: choose another port\n");
    assert_eq!((taken.code, taken.stderr), (Some(1), told));
    assert_eq!(whisper.end_of_input().code, Some(0));
}

#[test]
fn a_port_that_is_taken_is_an_error_where_it_was_asked_for() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let ended: Ended = watchtower(["whisper", "--listen", "127.0.0.1", "--discovery-port", "0"])
        .args(["--port", &taken.port().to_string()])
        .output()
        .unwrap()
        .into();
    let told =
        format!("watchtower: cannot listen on {taken}: another program does; --port 0 takes a free port\n");
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr), (Some(1), "", told));
}

#[test]
fn a_usual_port_that_is_taken_is_exchanged_for_a_free_one() {
    // On an address of its own, and held by whomever.
    let _holder = TcpListener::bind("127.0.0.77:55555");
    let ended: Ended = watchtower(["whisper", "--listen", "127.0.0.77", "--discovery-port", "0"])
        .stdin(Stdio::null())
        .output()
        .unwrap()
        .into();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""));
    let mut notices = ended.stderr.lines();
    assert_eq!(notices.next(), Some("!! port 55555 is taken, so this peer has another one"));
    let address = notices.next().and_then(|line| line.strip_prefix("-- listening on 127.0.0.77:"));
    assert!(address.is_some_and(|port| port != "55555"), "{}", ended.stderr);
}

#[test]
fn what_is_wrong_on_the_command_line_is_code_2() {
    for (arguments, told) in [
        (&["--peer", "nowhere:"][..], "expected HOST:PORT, such as 192.168.1.5:55555"),
        (&["--nick", "\u{200b}"], "nothing of that name can be seen"),
        (&["--tls-cert", "cert.pem"], "--tls-key"),
    ] {
        let ended: Ended = watchtower(["whisper"]).args(arguments).output().unwrap().into();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
    }
}
