//! A server that stands still for a while: who spoke in time is not taken for silent.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use super::super::support::packets::*;
use super::super::support::{PATIENCE, Server};

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
        r#"webrocket.hubs=[{path="/webrocket",anonymous="read-write"}]"#,
    ]);
    let (mut a, mut b, mut udp) = (server.connect(), server.connect(), server.peer());
    let (id, _, over_udp) = (a.enter(1), b.enter(1), udp.enter(1));
    let mut page = websocket(&server);
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
    // An answer to whatever ping there was.
    page.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).unwrap();
    a.send(say(id, 1, "meanwhile"));
    udp.send(say(over_udp, 1, "as well"));
    page.set_read_timeout(Some(STILL)).unwrap();
    let silence = read_until_silent(&mut page);
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
    page.set_read_timeout(Some(PATIENCE)).unwrap();
    page.write_all(&frame(br#"{"unsubscribe": {"channel": "x"}}"#)).unwrap();
    assert_eq!(next_text(&mut page), br#"{"ok": true}"#);
    server.stop();
}

/// A client of WebRocket.
fn websocket(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.tcp).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "GET /webrocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", answer.escape_ascii());
    stream
}

/// A text of less than 126 bytes, as a client frames it.
fn frame(text: &[u8]) -> Vec<u8> {
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text].concat()
}

/// The next message of text; pings before it are answered.
fn next_text(stream: &mut TcpStream) -> Vec<u8> {
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; usize::from(head[1])];
        stream.read_exact(&mut payload).unwrap();
        match head[0] {
            0x81 => return payload,
            0x89 => stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).unwrap(),
            other => panic!("a frame that begins with {other:#x}: {}", payload.escape_ascii()),
        }
    }
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
            Err(error) => panic!("{error}"),
        }
    }
}
