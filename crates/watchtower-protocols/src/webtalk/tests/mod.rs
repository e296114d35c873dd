//! The page on WebTalk, row by row, in exact bytes. No sockets: [`App`] is an
//! application as it sees the private link, [`Browser`] one on its WebSocket.

mod frames;
mod links;
mod page;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use http::Request;
use watchtower_hub::{Batch, ChannelRule, Drained, Entropy, Hub, Limits, Settings, Timestamp};

use super::{Gate, Link, WebTalk};
use crate::shelf::Shelf;
use crate::stream::{Close, StreamSession};
use crate::websocket::{self, Compression, Endpoint, WebSocket};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const PATIENCE: Duration = Duration::from_secs(10);

/// The salt of the first user of a [`Tower`], and of the second.
const SALT_5: &str = "000000000000000a000000000000000b";
const SALT_6: &str = "000000000000000c000000000000000d";

struct Counting(AtomicU64);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Whether there is a secret: then it is `tower`.
struct Secret(AtomicBool);

impl Gate for Secret {
    fn is_locked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn admits(&self, secret: &[u8]) -> bool {
        secret == b"tower"
    }
}

/// A server without sockets. Its first user is 5.
struct Tower {
    hub: Hub,
    talk: WebTalk,
    secret: Arc<Secret>,
    endpoint: Endpoint,
}

impl Tower {
    fn new() -> Tower {
        Tower::with(Settings::default())
    }

    fn with(settings: Settings) -> Tower {
        Tower::on(Hub::new(settings, Box::new(Counting(AtomicU64::new(5)))))
    }

    /// Every channel is durable, and kept there.
    fn keeping(shelf: &Shelf) -> Tower {
        let rule = ChannelRule { durable: true, ..ChannelRule::default() };
        let settings = Settings { channels: vec![rule], ..Settings::default() };
        let entropy = Box::new(Counting(AtomicU64::new(5)));
        Tower::on(Hub::with_ledger(settings, entropy, Arc::new(shelf.clone())))
    }

    fn on(hub: Hub) -> Tower {
        let talk = WebTalk::new(&hub, Box::new(Counting(AtomicU64::new(10))), PATIENCE);
        let endpoint = Endpoint::new(talk.clone());
        Tower { hub, talk, secret: Arc::new(Secret(AtomicBool::new(false))), endpoint }
    }

    fn limited(limits: Limits) -> Tower {
        Tower::with(Settings { limits, ..Settings::default() })
    }

    /// The private link wants the secret.
    fn locked() -> Tower {
        let tower = Tower::new();
        tower.secret.0.store(true, Ordering::Relaxed);
        tower
    }

    fn app(&self) -> App {
        let link = Link::new(&self.talk, self.secret.clone());
        App { link, partial: Vec::new(), is_closed: false, now: NOW }
    }

    /// A browser that has said nothing yet.
    fn browser(&self) -> Browser {
        self.browser_with(Compression::None)
    }

    fn browser_with(&self, compression: Compression) -> Browser {
        let (request, ()) = Request::builder().uri("/webtalk").body(()).unwrap().into_parts();
        let settings = websocket::Settings::default();
        let mut socket = self.endpoint.accept(&self.hub, &request, compression, settings, NOW);
        let mut out = Vec::new();
        socket.begin(&mut out);
        assert_eq!(out, b"");
        Browser { socket, bell: Arc::default(), is_closed: false }
    }

    /// A browser that has logged in.
    fn logged_in(&self, credentials: &str) -> Browser {
        let mut browser = self.browser();
        assert_eq!(browser.says(credentials), [], "{credentials}");
        browser
    }
}

/// An application on the private link, as it sees it.
struct App {
    link: Link,
    partial: Vec<u8>,
    is_closed: bool,
    now: Timestamp,
}

impl App {
    /// What it reads after it wrote this in one piece.
    fn writes(&mut self, input: &[u8]) -> Vec<u8> {
        assert!(!self.is_closed, "nobody reads this any more");
        let mut read = Vec::new();
        self.partial.extend_from_slice(input);
        loop {
            let mut out = Vec::new();
            match self.link.receive(&self.partial, self.now, &mut out) {
                Ok(done) => drop(self.partial.drain(..done)),
                Err(Close) => self.is_closed = true,
            }
            // While there are answers, the rest may have waited for them.
            if out.is_empty() || self.is_closed {
                read.append(&mut out);
                return read;
            }
            read.append(&mut out);
        }
    }

    /// What it reads once some of what it shouted was kept or refused.
    fn answers(&mut self) -> Vec<u8> {
        let mut read = Vec::new();
        let cx = &mut Context::from_waker(Waker::noop());
        let _: std::task::Poll<()> = self.link.poll_answered(cx, self.now, &mut read);
        read.extend(self.writes(b""));
        read
    }

    /// What it reads after it wrote this byte by byte.
    fn writes_slowly(&mut self, input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in input {
            if self.is_closed {
                break;
            }
            out.extend(self.writes(&[*byte]));
        }
        out
    }

    /// The reply to one command, without its length.
    fn says(&mut self, command: impl AsRef<[u8]>) -> String {
        let reply = self.writes(&framed(command));
        let text = String::from_utf8(reply).unwrap();
        let (length, body) = text.split_at(5);
        assert_eq!(length.parse(), Ok(body.len()), "{text}");
        body.to_owned()
    }
}

/// With its length in front.
fn framed(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    [format!("{:05}", body.len()).as_bytes(), body].concat()
}

/// What a browser is told.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Close(u16, String),
}

fn text(text: &str) -> Heard {
    Heard::Text(text.to_owned())
}

const REFUSED: &str = "wrong ID!SALT, or logged in already";

fn refused() -> [Heard; 1] {
    [Heard::Close(4001, REFUSED.to_owned())]
}

/// Counts how often its task was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A browser on its WebSocket, and the driver between.
struct Browser {
    socket: WebSocket,
    bell: Arc<Bell>,
    is_closed: bool,
}

impl Browser {
    /// What it hears after it said this in a message of text.
    fn says(&mut self, text: &str) -> Vec<Heard> {
        self.writes(&client_frame(0x1, text.as_bytes()))
    }

    fn writes(&mut self, input: &[u8]) -> Vec<Heard> {
        let mut out = Vec::new();
        if self.socket.receive(input, NOW, &mut out).is_err() {
            self.is_closed = true;
            return parse(&out);
        }
        let mut heard = parse(&out);
        heard.extend(self.hears());
        heard
    }

    /// What it is sent, in the order in which a driver looks.
    fn hears(&mut self) -> Vec<Heard> {
        let waker = Waker::from(self.bell.clone());
        let mut out = Vec::new();
        if self.socket.poll_close(&mut Context::from_waker(&waker), &mut out).is_ready() {
            self.is_closed = true;
            return parse(&out);
        }
        let mut batch = Batch::default();
        let drained = self.socket.session().drain(self.socket.format(), Some(&waker), usize::MAX, &mut batch);
        if drained == Drained::Lagging {
            self.is_closed = true;
            self.socket.lagging(&mut out);
        }
        batch.frames.iter().for_each(|frame| out.extend_from_slice(frame));
        parse(&out)
    }

    /// How often it was woken since it was asked last.
    fn rings(&self) -> usize {
        self.bell.0.swap(0, Ordering::Relaxed)
    }
}

/// A whole message of a client, masked with zeros.
fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126).unwrap();
    [&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

/// The frames of a server.
fn parse(mut bytes: &[u8]) -> Vec<Heard> {
    let mut heard = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match length {
            126 => {
                let (length, rest) = rest.split_first_chunk().unwrap();
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk().unwrap();
                (u64::from_be_bytes(*length) as usize, rest)
            }
            length => (usize::from(*length), rest),
        };
        let (payload, rest) = rest.split_at(length);
        let as_text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        heard.push(match first {
            0x81 => Heard::Text(as_text(payload)),
            0x82 => Heard::Binary(payload.to_vec()),
            0x88 => {
                let (code, reason) = payload.split_first_chunk().unwrap();
                Heard::Close(u16::from_be_bytes(*code), as_text(reason))
            }
            first => panic!("a frame of {first:#x}"),
        });
        bytes = rest;
    }
    assert_eq!(bytes, b"", "half a frame");
    heard
}
