//! WebSocket in exact bytes, as a client sees it.

mod conversation;
mod decoding;
mod delivery;
mod handshaking;
mod properties;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use watchtower_hub::{
    Batch, ChannelName, Content, Drained, Entropy, Hub, Publish, Settings as HubSettings, Timestamp,
};

use super::*;
use crate::stream::{Close, StreamSession};

/// Any mask will do but none.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A frame of a client, whose first byte is given.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    masked_with(MASK, first, payload)
}

fn masked_with(mask: [u8; 4], first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame(first, payload);
    let start = frame.len() - payload.len();
    frame[1] |= 0x80;
    frame[start..].iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    frame.splice(start..start, mask);
    frame
}

/// A frame of the server, whose first byte is given.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length @ 126..65_536 => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// What a client makes of a compressed payload that remembers no more than its
/// window holds; `None` when that is not enough. Not by the library that
/// compresses, which remembers more than it is asked to.
pub(super) fn inflated_by_client(payload: &[u8], window_bits: u8) -> Option<Vec<u8>> {
    let input = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut window = vec![0; 1 << window_bits];
    let mut state = DecompressorOxide::new();
    let mut out = Vec::new();
    let mut read = 0;
    loop {
        let at = out.len() % window.len();
        let (status, more, written) =
            decompress(&mut state, &input[read..], &mut window, at, TINFL_FLAG_HAS_MORE_INPUT);
        read += more;
        out.extend_from_slice(&window[at..at + written]);
        match status {
            TINFLStatus::HasMoreOutput => {}
            TINFLStatus::NeedsMoreInput if read == input.len() => return Some(out),
            _ => return None,
        }
    }
}

/// Ids that count up.
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

fn new_hub() -> Hub {
    Hub::new(HubSettings::default(), Box::new(Counting(AtomicU64::new(5))))
}

fn name(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a name")
}

fn request() -> Parts {
    http::Request::builder().uri("/").body(()).expect("a request").into_parts().0
}

/// A protocol for tests: binary messages come back, text is a command.
#[derive(Clone, Default)]
struct Parrot {
    log: Arc<Mutex<Vec<String>>>,
    /// What it says when a client connects.
    greeting: Option<&'static str>,
    patience: Option<Duration>,
    /// What it takes compressed before anything else was said.
    stranger_bytes_max: Option<usize>,
    closers: Arc<Mutex<Vec<Closer>>>,
}

impl Parrot {
    fn log(&self, line: impl Into<String>) {
        self.log.lock().expect("no panic").push(line.into());
    }

    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().expect("no panic"))
    }
}

impl Handler for Parrot {
    /// How many messages came.
    type State = usize;

    fn protocol(&self) -> &'static str {
        "parrot"
    }

    fn admit(&self, request: &Parts) -> Result<(), StatusCode> {
        if request.uri.path() == "/cage" { Err(StatusCode::FORBIDDEN) } else { Ok(()) }
    }

    fn open(&self, client: &mut Client<'_>, request: &Parts) -> usize {
        self.log(format!("open {}", request.uri));
        self.closers.lock().expect("no panic").push(client.closer());
        if let Some(greeting) = self.greeting {
            client.send(Outgoing::Text(greeting));
        }
        0
    }

    fn message(&self, state: &mut usize, client: &mut Client<'_>, message: Incoming<'_>) {
        *state += 1;
        let text = match message {
            Incoming::Text(text) => text,
            Incoming::Binary(bytes) => return client.send(Outgoing::Binary(bytes)),
        };
        self.log(text);
        let (command, rest) = text.split_at_checked(1).unwrap_or_default();
        match command {
            "+" => client.subscribe(&name(rest)).map(drop).expect("there is room"),
            "-" => client.unsubscribe(&name(rest)).expect("it is registered"),
            "=" => client.send(Outgoing::Text(rest)),
            ">" => {
                let sender = client.sender().expect("there is room");
                let message = Publish::new(Content::text(rest)).by_guest(sender);
                client.publish(&name("news"), message).map(drop).expect("the channel is there");
            }
            "!" => {
                client.close(CloseCode::new(4001).expect("a code"), rest);
                assert!(client.is_closing());
                client.send(Outgoing::Text("too late"));
                client.close(CloseCode::NORMAL, "too late");
            }
            _ => {}
        }
    }

    fn inflated_bytes_max(&self, state: &usize) -> usize {
        self.stranger_bytes_max.filter(|_| *state == 0).unwrap_or(usize::MAX)
    }

    fn patience(&self, _state: &usize) -> Option<Duration> {
        self.patience
    }

    fn out_of_patience(&self, state: &mut usize, client: &mut Client<'_>) {
        self.log(format!("out of patience after {state} messages"));
        if *state == 0 {
            client.close(CloseCode::POLICY, "say something");
        }
    }

    fn closed(&self, state: usize) {
        self.log(format!("closed after {state} messages"));
    }
}

/// A connection as its client sees it.
struct Connection {
    socket: WebSocket,
    is_closed: bool,
    now: u64,
}

impl Connection {
    fn open(hub: &Hub, handler: impl Handler) -> Connection {
        Connection::with(hub, handler, Compression::None, Settings::default())
    }

    fn with(hub: &Hub, handler: impl Handler, compression: Compression, settings: Settings) -> Connection {
        let endpoint = Endpoint::new(handler);
        let socket = endpoint.accept(hub, &request(), compression, settings, Timestamp::from_millis(0));
        Connection { socket, is_closed: false, now: 0 }
    }

    /// What comes before anything was sent.
    fn begins(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.socket.begin(&mut out);
        out
    }

    /// Sends, and returns the answers.
    fn send(&mut self, input: &[u8]) -> Vec<u8> {
        assert!(!self.is_closed, "it was closed before");
        let mut out = Vec::new();
        match self.socket.receive(input, Timestamp::from_millis(self.now), &mut out) {
            Ok(done) => assert_eq!(done, input.len(), "all input is taken"),
            Err(Close) => self.is_closed = true,
        }
        out
    }

    fn says(&mut self, text: &str) -> Vec<u8> {
        self.send(&masked(TEXT, text.as_bytes()))
    }

    /// What is delivered.
    fn hears(&self) -> Vec<u8> {
        let mut batch = Batch::default();
        let drained = self.socket.session().drain(self.socket.format(), None, usize::MAX, &mut batch);
        assert_eq!(drained, Drained::All);
        batch.frames.concat()
    }

    /// Waits as long as the driver would, and returns how long, and what came.
    fn waits(&mut self) -> (Duration, Vec<u8>) {
        assert!(!self.is_closed, "it was closed before");
        let patience = self.socket.patience().expect("pings are always due");
        self.now += u64::try_from(patience.as_millis()).expect("not that long");
        let mut out = Vec::new();
        let result = self.socket.out_of_patience(Timestamp::from_millis(self.now), &mut out);
        self.is_closed = result.is_err();
        (patience, out)
    }
}
