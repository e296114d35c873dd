//! Reading and writing: what the bytes of each protocol cost to take apart, and a message's frame
//! to make.

use std::hint::black_box;

use watchtower_hub::{Content, Epoch, Message, Position, SenderId};
use watchtower_protocols::packets::frame::{ClientPacket, Decoded, Limits};
use watchtower_protocols::webrocket::{Codec, Json};
use watchtower_protocols::websocket::{Client as WebSocketClient, Endpoint, Handler, Incoming};
use watchtower_protocols::webtalk;
use watchtower_protocols::whispernet::{self, ObjectReader};

use crate::scene::{CHANNEL, Client, NOW, Protocol, content, hub, text, text_frame, websocket_client};
use crate::{Case, Work};

/// How many messages one run reads or writes.
const MESSAGES: u64 = 64;

/// The longest object of the whispernet that is read.
const OBJECT_BYTES_MAX: usize = 64 * 1024;

/// Encoding and decoding.
pub fn codec_cases() -> Vec<Case> {
    let case = |name, unit, stage| Case { name, unit, units: MESSAGES, stage };
    vec![
        case("encode/packets", "message", || encoding(Protocol::Packets)),
        case("encode/ndjson", "message", || encoding(Protocol::Ndjson)),
        case("encode/sse", "message", || encoding(Protocol::Sse)),
        case("encode/webrocket", "message", || encoding(Protocol::WebRocket)),
        case("decode/packets", "packet", || Box::new(Packets(packets()))),
        case("decode/websocket", "frame", || Box::new(WebSocket::open())),
        case("decode/webrocket", "command", || Box::new(Commands(command()))),
        case("decode/webtalk", "command", || Box::new(Shouts(shouts()))),
        case("decode/whispernet", "object", || Box::new(Objects(objects()))),
    ]
}

/// Makes the frame of new messages.
struct Encoding {
    /// A subscriber, for its format.
    subscriber: Client,
    messages: Vec<Message>,
}

fn encoding(protocol: Protocol) -> Box<dyn Work> {
    Box::new(Encoding { subscriber: protocol.subscriber(&hub()), messages: Vec::new() })
}

impl Work for Encoding {
    fn set_up(&mut self) {
        let message = |offset| {
            let position = Position { epoch: Epoch::from_bits(7), offset };
            let content = Content::sniff(content());
            Message::detached(CHANNEL.into(), position, SenderId::new(5), content, NOW)
        };
        self.messages = (0..MESSAGES).map(message).collect();
    }

    fn run(&mut self) {
        for message in &self.messages {
            black_box(message.frame(self.subscriber.format()));
        }
    }
}

/// `M` packets.
struct Packets(Vec<u8>);

fn packets() -> Vec<u8> {
    let content = content();
    let packet = ClientPacket::Message { sender: 5, channel: CHANNEL, content: &content };
    let mut packets = Vec::new();
    for _ in 0..MESSAGES {
        packet.encode(&mut packets).expect("a short content");
    }
    packets
}

impl Work for Packets {
    fn set_up(&mut self) {}

    fn run(&mut self) {
        let mut rest = black_box(self.0.as_slice());
        while let Decoded::Packet { packet, consumed } =
            ClientPacket::decode(rest, Limits { content_bytes_max: 65_535 })
        {
            black_box(&packet);
            rest = &rest[consumed..];
        }
        debug_assert!(rest.is_empty());
    }
}

/// Masked frames of text, to a handler that looks at none of them.
struct WebSocket {
    client: Client,
    frames: Vec<u8>,
    answers: Vec<u8>,
}

struct Deaf;

impl Handler for Deaf {
    type State = ();

    fn protocol(&self) -> &'static str {
        "deaf"
    }

    fn open(&self, _client: &mut WebSocketClient<'_>, _request: &http::request::Parts) {}

    fn message(&self, _state: &mut (), _client: &mut WebSocketClient<'_>, message: Incoming<'_>) {
        black_box(message);
    }
}

impl WebSocket {
    fn open() -> WebSocket {
        let frames = text_frame(&content()).repeat(MESSAGES as usize);
        WebSocket { client: websocket_client(&hub(), &Endpoint::new(Deaf)), frames, answers: Vec::new() }
    }
}

impl Work for WebSocket {
    fn set_up(&mut self) {}

    fn run(&mut self) {
        let taken = self.client.receive(black_box(&self.frames), NOW, &mut self.answers);
        debug_assert_eq!(taken, Ok(self.frames.len()));
    }
}

/// WebRocket's `publish`, as JSON.
struct Commands(String);

fn command() -> String {
    format!(r#"{{"publish": {{"event": "e", "channel": "1", "data": "{}"}}}}"#, text())
}

impl Work for Commands {
    fn set_up(&mut self) {}

    fn run(&mut self) {
        for _ in 0..MESSAGES {
            let command = Json.decode(Incoming::Text(black_box(&self.0)));
            debug_assert!(command.is_ok());
            drop(black_box(command));
        }
    }
}

/// WebTalk's `shout`.
struct Shouts(Vec<u8>);

fn shouts() -> Vec<u8> {
    let command = format!("[shout] 1!{}", text());
    format!("{:05}{command}", command.len()).into_bytes().repeat(MESSAGES as usize)
}

impl Work for Shouts {
    fn set_up(&mut self) {}

    fn run(&mut self) {
        let mut rest = black_box(self.0.as_slice());
        while let webtalk::frame::Decoded::Frame { bytes, consumed } = webtalk::frame::decode(rest) {
            let command = webtalk::Command::parse(bytes);
            debug_assert!(command.is_ok());
            black_box(&command);
            rest = &rest[consumed..];
        }
        debug_assert!(rest.is_empty());
    }
}

/// Objects of the whispernet, with all that a message has but a file and a signature.
struct Objects(Vec<u8>);

fn objects() -> Vec<u8> {
    let object = format!(
        r#"{{"ID":"0123456789abcdef","Addr":"127.0.0.1:4242","Body":"{}","Nick":"ann","Timestamp":1700000000}}"#,
        text()
    );
    object.into_bytes().repeat(MESSAGES as usize)
}

impl Work for Objects {
    fn set_up(&mut self) {}

    fn run(&mut self) {
        let mut reader = ObjectReader::new(OBJECT_BYTES_MAX);
        let mut rest = black_box(self.0.as_slice());
        while let Ok(Some(object)) = reader.read(&mut rest) {
            let message = whispernet::Message::parse(&object);
            debug_assert!(matches!(message, Ok(Some(_))));
            let _ = black_box(message);
        }
        debug_assert!(rest.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decoded_is_what_it_should_be() {
        // The works themselves look at it where debug assertions are on.
        for case in codec_cases() {
            case.staged().run();
        }
        let mut reader = ObjectReader::new(OBJECT_BYTES_MAX);
        let objects = objects();
        let mut rest = objects.as_slice();
        let object = reader.read(&mut rest).unwrap().unwrap();
        let message = whispernet::Message::parse(&object).unwrap().unwrap();
        assert_eq!(message.body, text());
    }
}
