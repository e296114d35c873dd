//! What the WebRocket page promises, in exact bytes: whole WebSocket messages
//! in, and out what the client is answered and sent. No sockets; the order in
//! which a driver writes is [`Page::send`]'s.

mod access;
mod commands;
mod durable;
mod hostile;
mod hubs;
mod json;
mod presence;
mod since;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::request::Parts;
use watchtower_hub::{
    Batch, ChannelName, ChannelRule, Content, Drained, Entropy, Hub, Limits, Publish, Settings, Timestamp,
};

use super::{Access, Codec, HubOptions, Secret, WebRocket};
use crate::stream::{Close, StreamSession};
use crate::websocket::{self, Compression, Endpoint, Handler, RemoteAddress, WebSocket};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

const OK: &str = r#"{"ok": true}"#;
const INVALID_DATA: &str = r#"{"err": "invalid_data"}"#;
const INVALID_CREDENTIALS: &str = r#"{"err": "invalid_credentials"}"#;
const ACCESS_DENIED: &str = r#"{"err": "access_denied"}"#;
const INVALID_CHANNEL_NAME: &str = r#"{"err": "invalid_channel_name"}"#;
const INVALID_CHANNEL: &str = r#"{"err": "invalid_channel"}"#;

const READ: &str = r#"{"auth": {"access": "read-only", "secret": "r"}}"#;
const WRITE: &str = r#"{"auth": {"access": "read-write", "secret": "w"}}"#;
const HELLO: &str = r#"{"subscribe": {"channel": "hello"}}"#;
const SAY: &str = r#"{"publish": {"event": "foo", "channel": "hello", "data": "x"}}"#;
const SAID: &str = r#"{"event": "foo", "channel": "hello", "data": "x"}"#;

struct Counting(AtomicU64);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

fn core() -> Hub {
    core_with(Settings::default())
}

fn core_with(settings: Settings) -> Hub {
    Hub::new(settings, Box::new(Counting(AtomicU64::new(5))))
}

/// A core in which this limit is another one.
fn core_limited(change: impl FnOnce(&mut Limits)) -> Hub {
    let mut settings = Settings::default();
    change(&mut settings.limits);
    core_with(settings)
}

/// A core in which every channel has this rule.
fn core_ruled(rule: ChannelRule) -> Hub {
    core_with(Settings { channels: vec![rule], ..Settings::default() })
}

/// The secrets are "r" and "w".
fn options() -> HubOptions {
    HubOptions { read_only: Secret::new("r"), read_write: Secret::new("w"), ..HubOptions::default() }
}

fn open_to_all() -> HubOptions {
    HubOptions { anonymous: Access::ReadWrite, ..options() }
}

fn name(name: &str) -> ChannelName {
    ChannelName::parse(name).unwrap()
}

fn request(headers: &[(&str, &str)]) -> Parts {
    let request =
        headers.iter().fold(http::Request::get("/webrocket"), |r, (name, value)| r.header(*name, *value));
    request.body(()).unwrap().into_parts().0
}

/// What another protocol publishes.
fn publish(hub: &Hub, channel: &str, content: Content) {
    hub.publish(&name(channel), Publish::new(content), NOW).unwrap();
}

/// A client that is connected to a hub.
struct Page {
    socket: WebSocket,
    is_closed: bool,
}

impl Page {
    /// Connected to a hub of its own, which stands in that core.
    fn open(core: &Hub, options: HubOptions) -> Page {
        Page::visit(core, &WebRocket::new(options))
    }

    fn visit<C: Codec>(core: &Hub, hub: &WebRocket<C>) -> Page {
        Page::visit_with(core, hub, Compression::None)
    }

    fn visit_with<C: Codec>(core: &Hub, hub: &WebRocket<C>, compression: Compression) -> Page {
        let mut request = request(&[]);
        request.extensions.insert(RemoteAddress(Ipv4Addr::LOCALHOST.into()));
        hub.admit(&request).expect("no list of origins");
        let settings = websocket::Settings::default();
        let socket = Endpoint::new(hub.clone()).accept(core, &request, compression, settings, NOW);
        Page { socket, is_closed: false }
    }

    /// Which has said these, and was answered `{"ok": true}` each time.
    fn after(mut self, commands: &[&str]) -> Page {
        for command in commands {
            assert_eq!(self.send(command), [OK], "{command}");
        }
        self
    }

    /// Sends a text, and reads all that there is.
    fn send(&mut self, text: &str) -> Vec<String> {
        self.send_frames(&frame(TEXT, text.as_bytes()))
    }

    fn send_frames(&mut self, frames: &[u8]) -> Vec<String> {
        assert!(!self.is_closed, "nothing can be sent any more");
        let mut out = Vec::new();
        match self.socket.receive(frames, NOW, &mut out) {
            Ok(consumed) => assert_eq!(consumed, frames.len()),
            Err(Close) => self.is_closed = true,
        }
        // A driver waits then.
        self.socket.pause();
        let mut received = messages(&out);
        received.extend(self.read());
        received
    }

    /// What was delivered since it last read.
    fn read(&mut self) -> Vec<String> {
        if self.is_closed {
            return Vec::new();
        }
        let mut batch = Batch::default();
        let drained = self.socket.session().drain(self.socket.format(), None, usize::MAX, &mut batch);
        assert_eq!(drained, Drained::All);
        messages(&batch.frames.concat())
    }
}

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;

/// A whole message as a client sends it: masked, by zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The same, compressed.
fn deflated(text: &str) -> Vec<u8> {
    let mut compress = flate2::Compress::new(flate2::Compression::best(), false);
    let mut payload = Vec::with_capacity(text.len() + 64);
    compress.compress_vec(text.as_bytes(), &mut payload, flate2::FlushCompress::Sync).unwrap();
    payload.truncate(payload.len() - 4);
    let mut frame = frame(TEXT, &payload);
    frame[0] |= 0x40;
    frame
}

/// The messages in what a server sent, a close frame as `close CODE REASON`.
fn messages(mut bytes: &[u8]) -> Vec<String> {
    let mut messages = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match length {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (usize::try_from(u64::from_be_bytes(rest[..8].try_into().unwrap())).unwrap(), &rest[8..]),
            length => (usize::from(*length), rest),
        };
        let (payload, rest) = rest.split_at(length);
        messages.push(match first {
            0x81 => String::from_utf8(payload.to_vec()).unwrap(),
            0x82 => format!("binary {payload:?}"),
            0x88 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                format!("close {code} {}", String::from_utf8_lossy(&payload[2..]))
            }
            first => panic!("a frame that begins with {first:#x}"),
        });
        bytes = rest;
    }
    assert!(bytes.is_empty(), "a server sends whole frames: {bytes:?}");
    messages
}

/// A page that may do everything and is subscribed to `hello` sends `command`,
/// and is answered so.
#[track_caller]
fn check(command: &str, expected: &[&str]) {
    let mut page = Page::open(&core(), options()).after(&[WRITE, HELLO]);
    let received = page.send(command);
    assert_eq!(received, expected, "{command}");
    assert_eq!(page.is_closed, expected.last().is_some_and(|last| last.starts_with("close")));
}
