//! A server that stands still for a while: who spoke in time is not taken for silent.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use super::super::support::packets::*;
use super::super::support::{PATIENCE, Server};
use super::super::websocket::{HUB, WebSocket};

/// Longer than every patience that the server is given here.
const STILL: Duration = Duration::from_secs(3);

#[test]
fn a_server_that_stood_still_takes_nobody_for_silent_who_spoke_meanwhile() {
    let server = Server::start(&[
        "--set",
        "limits.header_timeout=1s",
        "--set",
        "websocket.heartbeat=1s",
        "--set",
        HUB,
    ]);
    let (mut a, mut b, mut udp) = (server.connect(), server.connect(), server.peer());
    let (id, _, over_udp) = (a.enter(1), b.enter(1), udp.enter(1));
    let mut page = WebSocket::open(server.tcp);
    let mut half = server.connect();
    half.send(b"K");
    half.expect(ack(0));

    half.send(&join(id, 7)[..5]);
    server.signal(Signal::STOP);
    half.send(&join(id, 7)[5..]);
    let mut new = server.connect();
    new.send(b"K");
    let mut request = TcpStream::connect(server.tcp).unwrap();
    request.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    page.pong();
    a.send(say(id, 1, "meanwhile"));
    udp.send(say(over_udp, 1, "as well"));
    page.stream().set_read_timeout(Some(STILL)).unwrap();
    let silence = read_until_silent(page.stream());
    assert!(silence.iter().all(|byte| [0x89, 0].contains(byte)), "{}", silence.escape_ascii());
    server.signal(Signal::CONT);

    half.expect(ack(7));
    new.expect(ack(0));
    let mut answer = String::new();
    request.set_read_timeout(Some(PATIENCE)).unwrap();
    request.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let heard = [said(id, 1, "meanwhile"), said(over_udp, 1, "as well")];
    let came = b.read(heard.concat().len());
    assert!(came == heard.concat() || came == [heard[1].clone(), heard[0].clone()].concat());
    page.stream().set_read_timeout(Some(PATIENCE)).unwrap();
    page.say(r#"{"unsubscribe": {"channel": "x"}}"#);
    assert_eq!(page.hear(), r#"{"ok": true}"#);
    server.stop();
}

/// What comes until nothing more does for as long as the stream is read.
fn read_until_silent(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let mut some = [0; 256];
        match stream.read(&mut some) {
            Ok(0) => panic!("it was closed"),
            Ok(length) => all.extend_from_slice(&some[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return all,
            // The test itself was stopped.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
    }
}
