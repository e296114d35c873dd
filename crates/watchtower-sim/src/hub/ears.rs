//! What the server says, read from its bytes: each time whole, since it never
//! hands out half of anything.
//!
//! Knows no hub; whether it is the right thing to say is for others to judge.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use serde::Deserialize;
use serde_json::value::RawValue;
use watchtower_hub::{ChannelName, ContentKind, Epoch, Position};
use watchtower_protocols::packets::frame::{Decoded, Limits, MessageKind, ServerPacket};
use watchtower_protocols::websocket::Compression;

use super::model::Heard;
use super::script::Protocol;

/// Something that the server said.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// Answers and last words, each in a form of its own: `A 5`, `E 2`, `ok`,
    /// `err access_denied`, `close 1000`, `[ok] 17`.
    Answer(String),
    Message(Heard),
    /// A stream goes on there.
    Recovered {
        channel: ChannelName,
        position: Position,
    },
    /// A subscription goes on there, where the client was or not.
    Subscribed {
        position: Position,
        recovered: bool,
    },
    /// A sign of life.
    Beat,
    Ping,
}

/// Reads all that was said: each thing, and how many bytes it took to say it and
/// what was said before.
pub(super) fn listen(
    protocol: Protocol,
    compression: Compression,
    bytes: &[u8],
) -> Result<Vec<(Item, usize)>, String> {
    let mut items = Vec::new();
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        let (read, length) = match protocol {
            Protocol::Packets | Protocol::Udp => packet(rest)?,
            Protocol::Lines => line(rest)?,
            Protocol::Events => chunk(rest)?,
            Protocol::WebRocket | Protocol::Browser => frame(protocol, compression, rest)?,
            Protocol::Application => reply(rest)?,
        };
        done += length;
        items.extend(read.into_iter().map(|item| (item, done)));
    }
    Ok(items)
}

/// What was read, and how many bytes that was.
type Read = Result<(Vec<Item>, usize), String>;

fn garbled(what: &str, bytes: &[u8]) -> String {
    format!("{what}: \"{}\"", bytes[..bytes.len().min(200)].escape_ascii())
}

fn packet(bytes: &[u8]) -> Read {
    let limits = Limits { content_bytes_max: u32::MAX };
    let Decoded::Packet { packet, consumed } = ServerPacket::decode(bytes, limits) else {
        return Err(garbled("no packet", bytes));
    };
    let item = match packet {
        ServerPacket::Ack(number) => Item::Answer(format!("A {number}")),
        ServerPacket::Error { code: 9, text } => Item::Answer(format!("E 9 {}", text.escape_ascii())),
        ServerPacket::Error { code, .. } => Item::Answer(format!("E {code}")),
        ServerPacket::Message { sender, channel, kind, content } => Item::Message(Heard {
            channel: Some(channel.into()),
            position: None,
            has_id: None,
            sender: Some(sender),
            is_direct: Some(kind == MessageKind::Direct),
            kind: None,
            content: Bytes::copy_from_slice(content),
        }),
    };
    Ok((vec![item], consumed))
}

/// The JSON of a message, of a stream's beginning, or of its end.
#[derive(Deserialize)]
struct Json<'a> {
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    offset: Option<u64>,
    epoch: Option<&'a str>,
    sender: Option<u32>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    encoding: Option<&'a str>,
    #[serde(default)]
    direct: bool,
    recovered: Option<bool>,
    error: Option<&'a str>,
    err: Option<&'a str>,
    ok: Option<bool>,
    position: Option<&'a str>,
}

fn read_json<'a>(bytes: &'a [u8]) -> Result<Json<'a>, String> {
    serde_json::from_slice(bytes).map_err(|error| garbled(&format!("no JSON ({error})"), bytes))
}

impl Json<'_> {
    fn channel(&self) -> Option<ChannelName> {
        let text = self.channel?.get();
        ChannelName::parse(text.trim_matches('"')).ok()
    }

    fn position(&self) -> Option<Position> {
        Some(Position { epoch: Epoch::parse(self.epoch?)?, offset: self.offset? })
    }

    fn content(&self, value: &RawValue) -> Option<(ContentKind, Bytes)> {
        if !value.get().starts_with('"') {
            return Some((ContentKind::Json, Bytes::copy_from_slice(value.get().as_bytes())));
        }
        let text: String = serde_json::from_str(value.get()).ok()?;
        match self.encoding {
            None => Some((ContentKind::Text, text.into())),
            Some(_) => Some((ContentKind::Binary, BASE64.decode(text).ok()?.into())),
        }
    }

    fn item(&self) -> Option<Item> {
        if let Some(error) = self.error {
            return Some(Item::Answer(format!("error {error}")));
        }
        if self.recovered.is_some() {
            return Some(Item::Recovered { channel: self.channel()?, position: self.position()? });
        }
        let position = self.position()?;
        let (kind, content) = self.content(self.message?)?;
        Some(Item::Message(Heard {
            channel: Some(self.channel()?),
            position: Some((position.epoch, position.offset)),
            has_id: None,
            sender: self.sender,
            is_direct: Some(self.direct),
            kind: Some(kind),
            content,
        }))
    }
}

fn line(bytes: &[u8]) -> Read {
    let length = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| garbled("half a line", bytes))?;
    if length == 0 {
        return Ok((vec![Item::Beat], 1));
    }
    let item = read_json(&bytes[..length])?.item().ok_or_else(|| garbled("no message", bytes))?;
    Ok((vec![item], length + 1))
}

/// A chunk of HTTP, and the events in it.
fn chunk(bytes: &[u8]) -> Read {
    let mut items = Vec::new();
    let garbled = || garbled("no chunk", bytes);
    let head = bytes.windows(2).position(|end| end == b"\r\n").ok_or_else(garbled)?;
    let digits = str::from_utf8(&bytes[..head]).map_err(|_| garbled())?;
    let length = usize::from_str_radix(digits, 16).map_err(|_| garbled())?;
    let body = bytes.get(head + 2..head + 2 + length).ok_or_else(garbled)?;
    if bytes.get(head + 2 + length..head + 4 + length) != Some(b"\r\n") {
        return Err(garbled());
    }
    let text = str::from_utf8(body).map_err(|_| garbled())?;
    for event in text.split_inclusive("\n\n") {
        items.extend(event_of(event.strip_suffix("\n\n").ok_or_else(garbled)?)?);
    }
    Ok((items, head + 4 + length))
}

fn event_of(event: &str) -> Result<Option<Item>, String> {
    if event == ":" {
        return Ok(Some(Item::Beat));
    }
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
    let Some(json) = field("data: ") else {
        // Where it starts, which is shown to nobody.
        return if field("id: ").is_some() { Ok(None) } else { Err(garbled("no event", event.as_bytes())) };
    };
    let read = read_json(json.as_bytes())?;
    let mut item = read.item().ok_or_else(|| garbled("no message", json.as_bytes()))?;
    if let Item::Message(heard) = &mut item
        && let Some((epoch, offset)) = heard.position
    {
        let id = field("id: ");
        heard.has_id = Some(id.is_some());
        if id.is_some_and(|id| id != Position { epoch, offset }.to_string()) {
            return Err(garbled("another id than the message's", event.as_bytes()));
        }
    }
    Ok(Some(item))
}

/// A WebSocket frame (RFC 6455 5.2).
fn frame(protocol: Protocol, compression: Compression, bytes: &[u8]) -> Read {
    let garbled = || garbled("no frame", bytes);
    let (opcode, short) = (bytes[0], *bytes.get(1).ok_or_else(garbled)?);
    let (start, length) = match short {
        0..126 => (2, usize::from(short)),
        126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
        _ => return Err(garbled()),
    };
    let payload = bytes.get(start..start + length).ok_or_else(garbled)?;
    let inflated;
    let (opcode, payload) = match opcode {
        0xc1 | 0xc2 => {
            inflated = inflate(compression, payload).ok_or_else(garbled)?;
            (opcode & !0x40, inflated.as_slice())
        }
        _ => (opcode, payload),
    };
    let item = match opcode {
        0x81 | 0x82 if protocol == Protocol::Browser => Item::Message(Heard {
            channel: None,
            position: None,
            has_id: None,
            sender: None,
            is_direct: None,
            kind: None,
            content: Bytes::copy_from_slice(payload),
        }),
        0x81 => command_answer(payload)?,
        0x88 if length >= 2 => {
            Item::Answer(format!("close {}", u16::from_be_bytes([payload[0], payload[1]])))
        }
        0x89 => Item::Ping,
        _ => return Err(garbled()),
    };
    Ok((vec![item], start + length))
}

/// What a compressed message stands for (RFC 7692 7.2.2), to a client that has no
/// more than the window that it asked for, and remembers no message before.
fn inflate(compression: Compression, payload: &[u8]) -> Option<Vec<u8>> {
    let window_bits = match compression {
        Compression::None => return None,
        Compression::Deflate => 15,
        Compression::DeflateSmall => 9,
    };
    let mut window = vec![0; 1 << window_bits];
    let mut state = DecompressorOxide::new();
    let input = [payload, &[0, 0, 0xff, 0xff]].concat();
    let (mut out, mut read) = (Vec::new(), 0);
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

fn command_answer(payload: &[u8]) -> Result<Item, String> {
    let json = read_json(payload)?;
    let position = json.position.map(|position| Position::parse(position).ok_or("no position"));
    let position = position.transpose().map_err(|error| garbled(error, payload))?;
    if json.ok == Some(true) {
        return match (position, json.recovered) {
            (None, None) => Ok(Item::Answer("ok".into())),
            (Some(position), Some(recovered)) => Ok(Item::Subscribed { position, recovered }),
            _ => Err(garbled("half an answer", payload)),
        };
    }
    if let Some(code) = json.err {
        return Ok(Item::Answer(format!("err {code}")));
    }
    let message = || {
        let (kind, content) = json.content(json.data?)?;
        let channel = Some(json.channel()?);
        let position = position.map(|position| (position.epoch, position.offset));
        Some(Heard {
            channel,
            position,
            has_id: None,
            sender: None,
            is_direct: None,
            kind: Some(kind),
            content,
        })
    };
    message().map(Item::Message).ok_or_else(|| garbled("neither an answer nor an event", payload))
}

/// A frame of WebTalk's private link.
fn reply(bytes: &[u8]) -> Read {
    let garbled = || garbled("no reply", bytes);
    let digits = bytes.get(..5).and_then(|digits| str::from_utf8(digits).ok()).ok_or_else(garbled)?;
    let length: usize = digits.parse().map_err(|_| garbled())?;
    let text = bytes.get(5..5 + length).ok_or_else(garbled)?;
    Ok((vec![Item::Answer(String::from_utf8_lossy(text).into_owned())], 5 + length))
}
