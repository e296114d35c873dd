//! WebRocket: what several clients of two hubs say, line by line.

use std::net::Ipv4Addr;
use std::sync::Arc;

use flate2::{Compress, FlushCompress};
use watchtower_hub::Hub;
use watchtower_protocols::webrocket::{Access, HubOptions, Namespace, Secret, WebRocket};
use watchtower_protocols::websocket::{Compression, Endpoint, RemoteAddress, Settings, WebSocket};

use crate::scene::{Connection, NOW, hub};
use crate::websocket::{frame, messages};

const CLIENTS: usize = 4;

/// The longest message of a client, in bytes.
const MESSAGE_BYTES_MAX: usize = 16_000;

/// More than a message for a subscriber has around its content.
const EVENT_BYTES_MAX: usize = 64 * 1024;

/// The first byte of a line says what is done: `t` a message of text, `b` of bytes, `z` of text
/// that is compressed, `r` bytes as they are, `w` time, `x` a client that goes and comes back.
/// The second says by whom.
pub(crate) fn webrocket(data: &[u8]) {
    let core = hub();
    let own = Namespace::parse("own").expect("a namespace");
    let options = HubOptions {
        read_only: Secret::new("r"),
        read_write: Secret::new("w"),
        foreign_namespaces: vec![own.clone()],
        failures: Arc::default(),
        ..HubOptions::default()
    };
    let open = HubOptions { anonymous: Access::ReadWrite, namespace: Some(own), ..options.clone() };
    let hubs = [Endpoint::new(WebRocket::new(options)), Endpoint::new(WebRocket::new(open))];
    let mut now = NOW;
    let connect = |who: usize| visit(&core, &hubs[who % 2]);
    let mut clients: Vec<_> = (0..CLIENTS).map(connect).collect();
    for (what, who, said) in crate::script::lines(data) {
        let who = who % CLIENTS;
        let client = &mut clients[who];
        let input = match what {
            b't' => frame(0x81, said),
            b'b' => frame(0x82, said),
            b'z' => frame(0xc1, &deflated(said)),
            b'r' => said.to_vec(),
            b'w' => {
                check(&client.wait(&mut now));
                core.tick(now);
                continue;
            }
            b'x' => {
                *client = connect(who);
                continue;
            }
            _ => {
                check(&client.hear());
                continue;
            }
        };
        check(&client.send(&input, &mut now, EVENT_BYTES_MAX, input.len()));
    }
    assert_eq!(core.counts().sessions, CLIENTS);
    clients.iter_mut().for_each(|client| check(&client.shut_down()));
    drop(clients);
    let counts = core.counts();
    // Whoever was registered for a connection is gone with it.
    assert_eq!((counts.sessions, counts.senders, counts.subscriptions), (0, 0, 0));
}

fn visit(core: &Hub, hub: &Endpoint) -> Connection<WebSocket> {
    let (mut request, ()) = http::Request::new(()).into_parts();
    request.extensions.insert(RemoteAddress(Ipv4Addr::LOCALHOST.into()));
    let settings = Settings { message_bytes_max: MESSAGE_BYTES_MAX, ..Settings::default() };
    let socket = hub.accept(core, &request, Compression::Deflate, settings, NOW);
    Connection::new(socket).0
}

/// Every answer is a frame that a server may send. What is not compressed is an object.
fn check(out: &[u8]) {
    for (first, payload) in messages(out) {
        match first {
            0x81 => assert!(is_object(payload), "{}", payload.escape_ascii()),
            0xc1 | 0x8a => {}
            0x88 => assert_ne!(payload.len(), 1),
            0x89 => assert_eq!(payload, b""),
            first => panic!("a frame that begins with {first:#x}"),
        }
    }
}

fn is_object(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok() && text.starts_with(b"{") && text.ends_with(b"}")
}

fn deflated(content: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(flate2::Compression::fast(), false);
    let mut out = Vec::with_capacity(content.len() + 64);
    compress.compress_vec(content, &mut out, FlushCompress::Sync).expect("room enough");
    out.truncate(out.len().saturating_sub(4));
    out
}
