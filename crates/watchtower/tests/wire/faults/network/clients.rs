//! Clients at the far end of a cable, one a protocol. Each tells the numbers of the messages that
//! it hears on channel 1, which begin with them.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::super::support::packets::*;
use super::super::super::support::{PATIENCE, Tcp, eventually};
use super::super::super::websocket::WebSocket;

pub(super) const CHANNEL: u32 = 1;

/// How long each message is, in bytes: two of them do not fit into a datagram.
pub(super) const LENGTH: usize = 800;

/// When a datagram that is not answered is taken for lost.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(100);

pub(super) fn text(number: usize) -> String {
    format!("{number:0>6}{:.>1$}", "", LENGTH - 6)
}

fn number(text: &str) -> usize {
    assert_eq!(text.len(), LENGTH, "{text}");
    text[..6].parse().unwrap()
}

/// Somebody who hears all messages, one after the other.
pub(super) trait Hears {
    /// The number of the next message.
    fn hear(&mut self) -> usize;

    /// Those of so many.
    fn hear_all(&mut self, count: usize) -> Vec<usize> {
        (0..count).map(|_| self.hear()).collect()
    }
}

/// A connection of packets.
impl Hears for Tcp {
    fn hear(&mut self) -> usize {
        number(&packet(&self.read(15 + LENGTH)))
    }
}

/// The content of a message of that length.
fn packet(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(&bytes[15..]).unwrap();
    let sender = u32::from_le_bytes(bytes[1..5].try_into().unwrap());
    assert!(bytes == said(sender, CHANNEL, text), "{}", bytes.escape_ascii());
    text.to_owned()
}

/// A stream of events.
pub(super) struct Events {
    lines: BufReader<TcpStream>,
    /// Where it is.
    pub(super) position: String,
}

impl Events {
    pub(super) fn open(server: SocketAddr, sender: u32, last_id: &str) -> Events {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let id = if last_id.is_empty() { String::new() } else { format!("Last-Event-ID: {last_id}\r\n") };
        let head = format!(
            "GET /channels/join?channels={CHANNEL}&sender={sender} HTTP/1.1\r\nHost: x\r\n\
             Accept: text/event-stream\r\n{id}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut events = Events { lines: BufReader::new(stream), position: String::new() };
        // It begins with its position.
        events.position = events.field("id: ");
        events
    }

    /// Whether it went on where it was.
    pub(super) fn is_recovered(&mut self) -> bool {
        let told: Value = serde_json::from_str(&self.field("data: ")).unwrap();
        told["recovered"] == true
    }

    /// The next field of that name. Chunks have whole events, so that other lines do not matter.
    fn field(&mut self, name: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the stream is over");
            if let Some(value) = line.trim_end().strip_prefix(name) {
                return value.to_owned();
            }
        }
    }
}

impl Hears for Events {
    fn hear(&mut self) -> usize {
        self.position = self.field("id: ");
        let message: Value = serde_json::from_str(&self.field("data: ")).unwrap();
        number(message["message"].as_str().unwrap())
    }
}

/// A client of WebRocket.
pub(super) struct Page {
    socket: WebSocket,
    /// Where it is.
    pub(super) position: String,
}

impl Page {
    /// Subscribes, and goes on from this position.
    pub(super) fn open(server: SocketAddr, since: Option<&str>) -> Page {
        let mut socket = WebSocket::open(server);
        socket.say(&json!({ "subscribe": { "channel": CHANNEL.to_string(), "since": since } }).to_string());
        let answer: Value = serde_json::from_str(&socket.hear()).unwrap();
        assert_eq!((&answer["ok"], &answer["recovered"]), (&json!(true), &json!(true)), "{answer}");
        Page { socket, position: answer["position"].as_str().unwrap().to_owned() }
    }
}

impl Hears for Page {
    fn hear(&mut self) -> usize {
        let event: Value = serde_json::from_str(&self.socket.hear()).unwrap();
        event["position"].as_str().unwrap().clone_into(&mut self.position);
        number(event["data"].as_str().unwrap())
    }
}

/// A client of datagrams, which asks again for what is not answered.
pub(super) struct Datagrams {
    socket: UdpSocket,
    sender: u32,
}

impl Datagrams {
    /// Brings this sender here and joins.
    pub(super) fn join(server: SocketAddr, sender: u32) -> Datagrams {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(ASKED_AGAIN_AFTER)).unwrap();
        let datagrams = Datagrams { socket, sender };
        datagrams.join_again();
        datagrams
    }

    /// Asks until it is answered; what comes before is no message.
    pub(super) fn join_again(&self) {
        let heard = self.hear_until(&ack(CHANNEL), &join(self.sender, CHANNEL));
        assert_eq!(heard, [0; 0]);
    }

    /// The messages that come while `goes_on`, and those under way then. It joins again now and
    /// then, which does no harm.
    pub(super) fn hear_while(&self, goes_on: impl Fn() -> bool) -> Vec<usize> {
        let mut heard = Vec::new();
        while goes_on() {
            match self.datagram() {
                Some(datagram) if datagram != ack(CHANNEL) => heard.push(number(&packet(&datagram))),
                _ => drop(self.socket.send(&join(self.sender, CHANNEL)).unwrap()),
            }
        }
        heard.extend(self.hear_the_rest());
        heard
    }

    /// The messages up to that one, and those that are under way behind it. An answer may
    /// come before what was published before it.
    pub(super) fn hear_all(&self, last: usize) -> Vec<usize> {
        let mut heard = Vec::new();
        eventually("the last message comes", || {
            heard.extend(self.hear_the_rest());
            heard.contains(&last)
        });
        heard
    }

    /// The messages that are under way.
    fn hear_the_rest(&self) -> Vec<usize> {
        self.hear_until(&ack(0), b"K")
    }

    /// Asks until it is answered; the messages that come before.
    fn hear_until(&self, answer: &[u8], question: &[u8]) -> Vec<usize> {
        let (mut heard, asked) = (Vec::new(), Instant::now());
        loop {
            assert!(asked.elapsed() < PATIENCE, "never answered: {}", question.escape_ascii());
            self.socket.send(question).unwrap();
            while let Some(datagram) = self.datagram() {
                if datagram == answer {
                    return heard;
                }
                if datagram != ack(CHANNEL) {
                    heard.push(number(&packet(&datagram)));
                }
            }
        }
    }

    /// One, unless it is time to ask again.
    fn datagram(&self) -> Option<Vec<u8>> {
        let mut datagram = vec![0; 1 << 16];
        let length = self.socket.recv(&mut datagram).ok()?;
        datagram.truncate(length);
        Some(datagram)
    }
}
