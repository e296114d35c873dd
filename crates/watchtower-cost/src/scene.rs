//! A hub with clients on it, without sockets: what they say is handed in as bytes, and what they
//! are sent is gathered as a driver does it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use watchtower_hub::{Batch, Drained, Entropy, Hub, Settings, Timestamp, WhenLagging};
use watchtower_protocols::http::{Form, Framing, HttpStream};
use watchtower_protocols::packets::{Admission, Options, PacketStream, Registrar};
use watchtower_protocols::stream::StreamSession;
use watchtower_protocols::webrocket::{Access, HubOptions, WebRocket};
use watchtower_protocols::websocket::{Compression, Endpoint, Settings as WebSocketSettings};

/// When everything happens.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// The channel of all.
pub(crate) const CHANNEL: u32 = 1;

/// How much content a message has.
pub(crate) const CONTENT_BYTES: usize = 128;

/// What one drain may gather, as for the driver's connections.
const DRAIN_BYTES_MAX: usize = 256 * 1024;

/// Counts instead of drawing lots, so that each run is the same.
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

struct Anyone;

impl Registrar for Anyone {
    fn admit(&self, _address: IpAddr, _secret: Option<&[u8]>) -> Admission {
        Admission::Granted
    }
}

pub(crate) fn hub() -> Hub {
    Hub::new(Settings::default(), Box::new(Counting(AtomicU64::new(5))))
}

/// What a message says.
pub(crate) fn content() -> Vec<u8> {
    (b'a'..=b'z').cycle().take(CONTENT_BYTES).collect()
}

/// The same as text.
pub(crate) fn text() -> String {
    String::from_utf8(content()).expect("letters")
}

/// A client, as its driver holds it.
pub(crate) type Client = Box<dyn StreamSession>;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Packets,
    Ndjson,
    Sse,
    WebRocket,
}

impl Protocol {
    /// A client that gets what is published on [`CHANNEL`].
    pub(crate) fn subscriber(self, hub: &Hub) -> Client {
        match self {
            Protocol::Packets => {
                let mut client = packet_client(hub);
                join(&mut client);
                Box::new(client)
            }
            Protocol::Ndjson => Box::new(http_client(hub, Form::Ndjson)),
            Protocol::Sse => Box::new(http_client(hub, Form::Sse)),
            Protocol::WebRocket => {
                let mut client = webrocket_client(hub);
                say(&mut *client, &text_frame(br#"{"subscribe": {"channel": "1"}}"#));
                client
            }
        }
    }
}

/// Says something to a client's session, all of which it takes, and returns the answer.
pub(crate) fn say(client: &mut dyn StreamSession, input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    assert_eq!(client.receive(input, NOW, &mut out), Ok(input.len()));
    out
}

/// Gathers all that there is for a client, as a driver does that was woken, and counts its bytes.
pub(crate) fn read(client: &dyn StreamSession) -> usize {
    let session = client.session();
    session.warm();
    let mut batch = Batch::default();
    let drained = session.drain(client.format(), Some(Waker::noop()), DRAIN_BYTES_MAX, &mut batch);
    debug_assert_eq!(drained, Drained::All);
    batch.bytes
}

pub(crate) fn packet_client(hub: &Hub) -> PacketStream {
    let options = Options {
        address: Ipv4Addr::LOCALHOST.into(),
        registrar: Arc::new(Anyone),
        patience: Duration::from_secs(10),
        errors: Arc::default(),
    };
    PacketStream::new(hub, options)
}

/// Registers a client and joins it; its id, as packets show it.
pub(crate) fn join(client: &mut PacketStream) -> [u8; 4] {
    let answer = say(client, b"R");
    let sender: [u8; 4] = answer[1..].try_into().expect("an acknowledgement has five bytes");
    say(client, &[b"J", sender.as_slice(), &CHANNEL.to_le_bytes()].concat());
    sender
}

fn http_client(hub: &Hub, form: Form) -> HttpStream {
    let session = hub.open("http", WhenLagging::Close);
    let sender = session.register(NOW).expect("below the limits");
    session.join(sender, &CHANNEL.into(), NOW).expect("below the limits");
    HttpStream::new(session, form, Framing::Chunked, Duration::from_secs(15), &[], false)
}

/// A client that is not subscribed, and may publish.
pub(crate) fn webrocket_client(hub: &Hub) -> Client {
    let options = HubOptions { anonymous: Access::ReadWrite, ..HubOptions::default() };
    websocket_client(hub, &Endpoint::new(WebRocket::new(options)))
}

/// A client of whatever stands at the path.
pub(crate) fn websocket_client(hub: &Hub, endpoint: &Endpoint) -> Client {
    let (request, ()) = http::Request::new(()).into_parts();
    Box::new(endpoint.accept(hub, &request, Compression::None, WebSocketSettings::default(), NOW))
}

/// A text message as a client frames it.
pub(crate) fn text_frame(text: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x57, 0x61, 0x74, 0x63];
    let length = u16::try_from(text.len()).expect("a short text");
    let mut frame = vec![0x81];
    match length {
        ..126 => frame.push(0x80 | length as u8),
        _ => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(text.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
