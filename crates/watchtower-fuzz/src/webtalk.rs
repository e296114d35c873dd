//! WebTalk: the private link byte by byte, and applications and browsers in turn.

use std::sync::Arc;

use watchtower_hub::Hub;
use watchtower_protocols::websocket::{Compression, Endpoint, Settings, WebSocket};
use watchtower_protocols::webtalk::{Gate, Link, WebTalk};

use crate::scene::{Connection, Counting, NOW, PATIENCE, hub};
use crate::websocket::{frame, messages};

/// The longest frame of the private link: five digits say how long it is.
const FRAME_BYTES_MAX: usize = 5 + 99_999;

/// Applications show `tower`, if there is a secret.
struct Secret(bool);

impl Gate for Secret {
    fn is_locked(&self) -> bool {
        self.0
    }

    fn admits(&self, secret: &[u8]) -> bool {
        secret == b"tower"
    }
}

fn talk(hub: &Hub) -> WebTalk {
    WebTalk::new(hub, Counting::from(10), PATIENCE)
}

fn connect(talk: &WebTalk, is_locked: bool) -> Connection<Link> {
    Connection::new(Link::new(talk, Arc::new(Secret(is_locked)))).0
}

/// What an application sends is answered the same however it is cut, whether it must log in or
/// not, and each answer is a whole frame.
pub(crate) fn link(data: &[u8]) {
    check_link(data, false);
    check_link(data, true);
}

fn check_link(data: &[u8], is_locked: bool) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let hub = hub();
        let mut link = connect(&talk(&hub), is_locked);
        let send = |piece| link.send(piece, &mut { NOW }, FRAME_BYTES_MAX, FRAME_BYTES_MAX);
        let read: Vec<u8> = pieces.flat_map(send).collect();
        (read, link.is_closed)
    };
    let whole = read(&mut std::iter::once(data));
    assert_eq!(whole, read(&mut data.chunks(1)));
    check_replies(&whole.0);
}

fn check_replies(mut replies: &[u8]) {
    while !replies.is_empty() {
        let (digits, rest) = replies.split_at(5);
        let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let (reply, rest) = rest.split_at(length.expect("five digits"));
        assert!(reply.starts_with(b"[ok] ") || reply.starts_with(b"[error] "), "{}", reply.escape_ascii());
        replies = rest;
    }
}

const APPLICATIONS: usize = 2;
const BROWSERS: usize = 3;

/// The first byte of a line says what is done: `a` a command of an application, `b` a message of
/// a browser, `r` bytes of one as they are, `w` time, `x` a browser that goes and comes back. The
/// second says by whom.
pub(crate) fn webtalk(data: &[u8]) {
    let core = hub();
    let talk = talk(&core);
    let endpoint = Endpoint::new(talk.clone());
    let mut now = NOW;
    let mut links: Vec<_> = (0..APPLICATIONS).map(|_| connect(&talk, false)).collect();
    let mut browsers: Vec<_> = (0..BROWSERS).map(|_| browse(&core, &endpoint)).collect();
    for (what, who, said) in crate::script::lines(data) {
        let browser = &mut browsers[who % BROWSERS];
        let heard = match what {
            b'a' => {
                let application = &mut links[who % APPLICATIONS];
                let command = [format!("{:05}", said.len()).as_bytes(), said].concat();
                let replies = application.send(&command, &mut now, FRAME_BYTES_MAX, FRAME_BYTES_MAX);
                check_replies(&replies);
                if application.is_closed {
                    *application = connect(&talk, false);
                }
                browser.hear()
            }
            b'b' => browser.send(&frame(0x81, said), &mut now, 0, 0),
            b'r' => browser.send(said, &mut now, 0, 0),
            b'w' => {
                core.tick(now);
                browser.wait(&mut now)
            }
            b'x' => {
                *browser = browse(&core, &endpoint);
                Vec::new()
            }
            _ => browser.hear(),
        };
        for (first, _) in messages(&heard) {
            assert!([0x81, 0x82, 0x88, 0x89, 0x8a].contains(&first), "a frame that begins with {first:#x}");
        }
    }
    drop((links, browsers, endpoint, talk));
    assert_eq!(core.counts().sessions, 0);
}

fn browse(core: &Hub, endpoint: &Endpoint) -> Connection<WebSocket> {
    let (request, ()) = http::Request::new(()).into_parts();
    let socket = endpoint.accept(core, &request, Compression::None, Settings::default(), NOW);
    Connection::new(socket).0
}
