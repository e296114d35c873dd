//! How a server starts, reloads and ends while it has clients [running: serve].

use std::fs;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::support::packets::*;
use super::support::{PATIENCE, Server, watchtower};

#[test]
fn its_listeners_are_printed_and_are_of_one_port() {
    let server = Server::start(&[]);
    assert_eq!(server.tcp, server.udp);
    let [tcp, udp] = &server.listening[..] else { panic!("{:?}", server.listening) };
    assert!(tcp.starts_with(&format!("listening tcp {} packets", server.tcp)), "{tcp}");
    assert_eq!(*udp, format!("listening udp {} packets", server.udp));
    server.stop();
}

#[test]
fn at_the_end_sessions_get_what_was_published_and_are_told_why() {
    let server = Server::start(&[]);
    let (mut a, mut b, mut c) = (server.connect(), server.connect(), server.peer());
    let (id, _, _) = (a.enter(1), b.enter(1), c.enter(1));
    let mut silent = server.connect();
    a.ask(say(id, 1, "last"), said(id, 1, "last"));
    let started = Instant::now();
    server.signal(Signal::TERM);
    b.expect_last([said(id, 1, "last"), error(8, SHUTDOWN)].concat());
    a.expect_last(error(8, SHUTDOWN));
    c.expect([said(id, 1, "last"), error(8, SHUTDOWN)].concat());
    assert_eq!(silent.read_to_end(), b"");
    let ended = server.ended();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{:?}", ended.log);
    assert!(started.elapsed() < Duration::from_secs(10), "that was the grace");
}

#[test]
fn who_does_not_read_holds_nobody_up_beyond_the_grace() {
    let options = ["--set", "shutdown_grace=1s", "--set", "limits.lag_bytes=100000000"];
    let server = Server::start(&options);
    let (mut publisher, mut slow) = (server.connect(), server.connect());
    let (id, _) = (publisher.enter(1), slow.enter(1));
    slow.read_through_a_straw();
    let text = vec![b'x'; 60_000];
    for _ in 0..300 {
        publisher.ask(say(id, 1, &text), said(id, 1, &text));
    }
    let started = Instant::now();
    server.signal(Signal::TERM);
    publisher.expect_last(error(8, SHUTDOWN));
    assert_eq!(server.ended().code, Some(0));
    assert!(started.elapsed() < PATIENCE / 3, "{:?}", started.elapsed());
}

#[test]
fn a_second_server_on_the_port_ends_with_one_line_that_says_so() {
    let server = Server::start(&["--secret", "3f9c-aa01"]);
    let address = server.tcp.to_string();
    let ended = watchtower(["serve", "--listen", &address, "--secret", "3f9c-aa01"]).output().unwrap();
    assert_eq!((ended.status.code(), ended.stdout.as_slice()), (Some(1), &b""[..]));
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    let expected = format!("watchtower: cannot listen on tcp {address}: ");
    assert!(said.starts_with(&expected) && said.contains("is another server running?"), "{said}");
    server.connect().register();
    server.stop();
}

#[test]
fn a_port_that_is_taken_on_udp_alone_is_named() {
    // On TCP somebody else may have taken the same port meanwhile: then another one.
    let is_named = (0..20).any(|_| {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let ended = watchtower(["serve", "--listen", &address, "--secret", "3f9c-aa01"]).output().unwrap();
        assert_eq!((ended.status.code(), ended.stdout.as_slice()), (Some(1), &b""[..]));
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        said.starts_with(&format!("watchtower: cannot listen on udp {address}: "))
    });
    assert!(is_named);
}

#[test]
fn a_hangup_takes_over_the_secret_and_the_limits_and_leaves_sessions_alone() {
    let before = "secret_key = \"3f9c-aa01\"\nopen_registration = false\n";
    let server = Server::start_with(&["--config", "watchtower.toml"], |folder| {
        fs::write(folder.join("watchtower.toml"), before).unwrap();
    });
    let mut client = server.connect();
    let id = client.register_by(secret("3f9c-aa01"));
    client.ask(join(id, 1), ack(1));
    let after = "secret_key = \"77d0-b502\"\nopen_registration = false\nlimits.max_message_bytes = 10\n";
    fs::write(server.folder().join("watchtower.toml"), after).unwrap();
    server.signal(Signal::HUP);
    let line = server.wait_for_log("reloaded");
    assert!(!line.contains("77d0") && !line.contains("3f9c"), "{line}");

    let mut other = server.connect();
    other.ask(secret("3f9c-aa01"), error(5, "wrong secret"));
    client.ask(secret("3f9c-aa01"), error(5, "wrong secret"));
    other.register_by(secret("77d0-b502"));
    client.ask(say(id, 1, "0123456789"), said(id, 1, "0123456789"));
    client.send(say(id, 1, "0123456789a"));
    client.expect_last(error(4, "content of 11 bytes; at most 10 are accepted"));
    server.stop();
}
