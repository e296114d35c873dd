//! The client commands against the real server [running: the other commands].

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::server::{SECRET, Server, watchtower};

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "http"];

/// Runs a command to its end, with that on its standard input.
fn run(server: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = watchtower(&[arguments, &["--server", server]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that does not want it may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// The same, of which all must go well; what it printed.
#[track_caller]
fn done(server: &Server, arguments: &[&str], input: &[u8]) -> String {
    let output = run(&server.tcp.to_string(), arguments, input);
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same, which must fail with that code and one line that holds that text.
#[track_caller]
fn fails(server: &str, arguments: &[&str], code: i32, text: &str) {
    let output = run(server, arguments, b"");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(code), &b""[..]), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("watchtower: ") && said.contains(text), "{arguments:?}: {said}");
    assert!(!said.contains("wrong-secret"), "{said}");
}

fn register(server: &Server, protocol: &str) -> String {
    let id = done(server, &["register", "--secret", SECRET, "--protocol", protocol], b"");
    id.strip_suffix('\n').unwrap().to_owned()
}

/// A `watchtower sub` that has said that it is subscribed.
struct Subscriber {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Subscriber {
    fn start(server: &Server, channels: &[&str], options: &[&str]) -> Subscriber {
        let address = server.tcp.to_string();
        let common = ["--server", &address, "--secret", SECRET];
        let mut child = watchtower(&[&["sub"], channels, &common, options].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        let expected = format!("subscribed to {} as sender ", channels.join(", "));
        assert!(said.starts_with(&expected), "{said}");
        Subscriber { child, stdout }
    }

    fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.stdout.read_until(b'\n', &mut line).unwrap();
        line
    }

    fn json(&mut self) -> Value {
        serde_json::from_slice(&self.line()).unwrap()
    }

    /// Ends as on Ctrl-C, without having printed more.
    fn interrupt(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        assert_eq!(self.line(), b"");
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

/// A test that fails leaves no subscriber behind.
impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_pub_publishes_over_any_protocol_sub_prints_over_every_protocol() {
    let server = Server::start(&[]);
    let mut plain = PROTOCOLS.map(|protocol| Subscriber::start(&server, &["5"], &["--protocol", protocol]));
    let mut json =
        PROTOCOLS.map(|protocol| Subscriber::start(&server, &["5"], &["--json", "--protocol", protocol]));
    let mut offset = 0;
    for protocol in PROTOCOLS {
        let sender = register(&server, protocol);
        let publish = ["pub", "5", "--protocol", protocol, "--sender", &sender];
        done(&server, &[&publish[..], &["Grüße, \"Welt\"\n"]].concat(), b"");
        done(&server, &[&publish[..], &["-"]].concat(), "aus\r\nder Röhre".as_bytes());
        done(&server, &publish, b"\xff\x00\nM");
        for subscriber in &mut plain {
            assert_eq!(subscriber.line(), format!("5 {sender} Grüße, \"Welt\"\\n\n").as_bytes());
            assert_eq!(subscriber.line(), format!("5 {sender} aus\\r\\nder Röhre\n").as_bytes());
            let binary = [format!("5 {sender} ").as_bytes(), b"\xff\0\\nM\n"].concat();
            assert_eq!(subscriber.line(), binary);
        }
        let sender: u32 = sender.parse().unwrap();
        for (subscriber, spoken) in json.iter_mut().zip(PROTOCOLS) {
            for (ahead, content) in [
                json!({ "message": "Grüße, \"Welt\"\n" }),
                json!({ "message": "aus\r\nder Röhre" }),
                json!({ "message": "/wAKTQ==", "encoding": "base64" }),
            ]
            .into_iter()
            .enumerate()
            {
                let mut told = subscriber.json();
                let object = told.as_object_mut().unwrap();
                // Packets say neither where a message stands nor when it was.
                if spoken == "http" {
                    assert!(object.remove("epoch").unwrap().is_string() && object.remove("time").is_some());
                    assert_eq!(object.remove("offset"), Some(json!(offset + ahead + 1)));
                }
                let mut expected = json!({ "channel": 5, "sender": sender });
                expected.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
                assert_eq!(told, expected, "from {protocol} to {spoken}");
            }
        }
        offset += 3;
    }
    plain.into_iter().chain(json).for_each(Subscriber::interrupt);
}

#[test]
fn pub_leaves_nobody_behind_in_the_channel() {
    let server = Server::start(&[]);
    let watcher = server.joined(&json!([5]));
    let target = format!("/channels/5/presence?sender={watcher}");
    let present = || server.get(&target).json()["senders"].as_array().unwrap().len();
    for protocol in PROTOCOLS {
        done(&server, &["pub", "5", "one", "--protocol", protocol, "--secret", SECRET], b"");
        assert_eq!(present(), 1, "{protocol}");
        // Whom somebody named goes on being where he was.
        let sender = register(&server, protocol);
        done(&server, &["pub", "5", "two", "--protocol", protocol, "--sender", &sender], b"");
        assert_eq!(present(), 2, "{protocol}");
        let left = json!({ "sender": sender.parse::<u32>().unwrap(), "channels": [5] });
        server.post("/channels/leave", &left.to_string()).is(200, r#"{"channels":[5]}"#);
    }
}

#[test]
fn sub_follows_several_channels_and_named_ones() {
    let server = Server::start(&[]);
    let mut numbers =
        PROTOCOLS.map(|protocol| Subscriber::start(&server, &["5", "6"], &["--protocol", protocol]));
    // http is chosen by itself where a channel has a name.
    let mut named = Subscriber::start(&server, &["5", "grüße", "a b"], &[]);
    let sender = register(&server, "tcp");
    for (channel, message) in [("5", "one"), ("grüße", "two"), ("6", "three"), ("a b", "four"), ("5", "five")]
    {
        done(&server, &["pub", channel, message, "--sender", &sender], b"");
        if channel != "6" {
            assert_eq!(named.line(), format!("{channel} {sender} {message}\n").as_bytes());
        }
        if let "5" | "6" = channel {
            for subscriber in &mut numbers {
                assert_eq!(subscriber.line(), format!("{channel} {sender} {message}\n").as_bytes());
            }
        }
    }
    numbers.into_iter().chain([named]).for_each(Subscriber::interrupt);
}

#[test]
fn channels_lists_those_that_there_are_numbers_first() {
    let server = Server::start(&[]);
    assert_eq!(done(&server, &["channels", "--secret", SECRET], b""), "");
    let _sender = server.joined(&json!([10, 9, "hello", "a b"]));
    assert_eq!(done(&server, &["channels", "--secret", SECRET], b""), "9\n10\na b\nhello\n");
}

#[test]
fn register_tells_a_new_id_over_every_protocol() {
    let server = Server::start(&[]);
    let ids = PROTOCOLS.map(|protocol| register(&server, protocol).parse::<u32>().unwrap());
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2] && !ids.contains(&0), "{ids:?}");
    // While the server listens on loopback alone, packets need no secret [running: configuration].
    for protocol in ["tcp", "udp"] {
        assert_ne!(done(&server, &["register", "--protocol", protocol], b""), "0\n");
    }
    fails(
        &server.tcp.to_string(),
        &["register", "--protocol", "http"],
        1,
        "`secret_key` is missing or wrong",
    );
}

#[test]
fn a_wrong_secret_is_code_1_and_one_line_for_every_command_and_protocol() {
    let server = Server::start(&[]);
    let address = server.tcp.to_string();
    for protocol in PROTOCOLS {
        let told = if protocol == "http" { "(HTTP 401)" } else { "(error 5)" };
        for command in [&["register"][..], &["pub", "5", "one"], &["sub", "5"]] {
            let options = ["--protocol", protocol, "--secret", "wrong-secret"];
            fails(&address, &[command, &options].concat(), 1, told);
        }
    }
    fails(&address, &["channels", "--secret", "wrong-secret"], 1, "(HTTP 401)");
}

#[test]
fn a_sender_that_is_not_registered_is_code_1_and_one_line() {
    let server = Server::start(&[]);
    let address = server.tcp.to_string();
    for protocol in PROTOCOLS {
        let told = if protocol == "http" { "(HTTP 401)" } else { "(error 2)" };
        for command in [&["pub", "5", "one"][..], &["sub", "5"]] {
            fails(&address, &[command, &["--protocol", protocol, "--sender", "1"]].concat(), 1, told);
        }
    }
}

#[test]
fn where_there_is_no_server_it_is_code_1_and_one_line() {
    // The near end of a connection: nobody listens there, and nobody else is given this port.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for protocol in ["tcp", "http"] {
        for command in [&["register"][..], &["pub", "5", "one"], &["sub", "5"]] {
            let arguments = [command, &["--protocol", protocol]].concat();
            fails(&address, &arguments, 1, &format!("cannot reach {address}: connection refused"));
        }
    }
    fails(&address, &["channels"], 1, &format!("cannot reach {address}"));
}

#[test]
fn what_packets_have_no_words_for_is_code_2() {
    let server = Server::start(&[]);
    let address = server.tcp.to_string();
    for protocol in ["tcp", "udp"] {
        let options = ["--protocol", protocol, "--secret", SECRET];
        for command in [&["pub", "hello", "one"][..], &["sub", "hello"]] {
            fails(&address, &[command, &options].concat(), 2, "`hello` is a name");
        }
        fails(&address, &[&["channels"], &options[..]].concat(), 2, "channels cannot be listed");
    }
}

#[test]
fn sub_says_that_the_server_is_gone_when_it_ends() {
    let server = Server::start(&[]);
    let address = server.tcp.to_string();
    let mut children: Vec<_> = ["tcp", "http"]
        .map(|protocol| {
            let options = ["--server", &address, "--secret", SECRET, "--protocol", protocol];
            let mut child = watchtower(&[&["sub", "5"], &options[..]].concat())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stderr = BufReader::new(child.stderr.take().unwrap());
            let mut said = String::new();
            stderr.read_line(&mut said).unwrap();
            assert!(said.starts_with("subscribed to 5 as sender "), "{said}");
            (child, stderr, protocol)
        })
        .into();
    server.terminate();
    assert_eq!(server.ended().0, Some(0));
    for (child, stderr, protocol) in &mut children {
        let said: Vec<_> = stderr.lines().map(Result::unwrap).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        let why = if *protocol == "http" { "the server is shutting down" } else { "the server shuts down" };
        assert!(said[0].starts_with("watchtower: the server ") && said[0].contains(why), "{said:?}");
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}
