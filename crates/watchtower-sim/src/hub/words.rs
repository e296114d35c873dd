//! What clients say, as bytes of their protocols.
//!
//! Written anew here, and not by the codecs that are tried, where these have
//! no client's side. Knows no hub and no answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::BytesMut;
use watchtower_hub::{ChannelName, Content, ContentKind, Position};
use watchtower_protocols::packets::frame::{ClientPacket, Receivers};

use super::script::{Kind, Shape};

/// The secret of registrations.
pub(super) const SECRET: &[u8] = b"open sesame";
/// The secrets of WebRocket.
pub(super) const READ_ONLY: &str = "reader";
pub(super) const READ_WRITE: &str = "writer";

/// What a client asks for, of whom and what there is.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Register { secret: Option<bool> },
    KeepAlive,
    Join { id: u32, channel: ChannelName },
    Follow { channel: ChannelName, since: Option<Position> },
    FollowFrom { id: u32, channel: ChannelName, offset: u64 },
    Leave { id: u32, channel: ChannelName },
    Publish { id: u32, channel: ChannelName, to: Option<Vec<u32>>, content: Content },
    Authenticate { may_publish: bool, is_right: bool },
    LogOut,
    Goodbye,
    LogIn { id: u32, salt: String, is_right: bool },
    NewUser,
    KillUser { id: u32 },
    Whisper { id: u32, content: Content },
    NewChannel,
    KillChannel { channel: ChannelName },
    Rubbish(u8),
    Pong,
}

/// A content that no other message has.
pub(super) fn content(shape: Shape, number: usize) -> Content {
    let filling: String = numbers().take(usize::from(shape.bytes)).collect();
    match shape.kind {
        Kind::Text => Content::text(format!("m{number} {filling}")),
        Kind::Json => Content::json(format!("{{\"m\":{number},\"x\":\"{filling}\"}}")).expect("it is JSON"),
        Kind::Binary => {
            Content::binary([b"\xff\0m", number.to_string().as_bytes(), b" ", filling.as_bytes()].concat())
        }
    }
}

/// What fills contents. It says the same again after some 700 characters, which is
/// further back than a small window of compression reaches.
fn numbers() -> impl Iterator<Item = char> {
    let digits =
        |number: u8| [number / 100, number / 10 % 10, number % 10].map(|digit| char::from(b'0' + digit));
    (0..240).cycle().flat_map(digits)
}

/// The same with a space behind its first byte, which changes nothing about its
/// kind. At an end of JSON it would be none of the value.
pub(super) fn lengthened(content: &Content) -> Content {
    let (first, rest) = content.bytes().split_at(1);
    Content::sniff([first, b" ", rest].concat())
}

/// A packet; `None` for what the protocol has no words for.
pub(super) fn packet(request: &Request) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let channel = |name: &ChannelName| name.number();
    let packet = match request {
        Request::Register { secret: None } => ClientPacket::Register,
        Request::Register { secret: Some(true) } => ClientPacket::RegisterWithSecret(SECRET),
        Request::Register { secret: Some(false) } => ClientPacket::RegisterWithSecret(b"guess"),
        Request::KeepAlive => ClientPacket::KeepAlive,
        Request::Join { id, channel: name } => ClientPacket::Join { sender: *id, channel: channel(name)? },
        Request::FollowFrom { id, channel: name, offset } => {
            ClientPacket::Follow { sender: *id, channel: channel(name)?, offset: *offset }
        }
        Request::Leave { id, channel: name } => ClientPacket::Leave { sender: *id, channel: channel(name)? },
        Request::Publish { id, channel: name, to: None, content } => {
            ClientPacket::Message { sender: *id, channel: channel(name)?, content: content.bytes() }
        }
        Request::Publish { id, channel: name, to: Some(to), content } => {
            let receivers: Vec<_> = to.iter().map(|id| id.to_le_bytes()).collect();
            let (channel, content) = (channel(name)?, content.bytes());
            let receivers = Receivers::new(&receivers);
            ClientPacket::Direct { sender: *id, channel, receivers, content }.encode(&mut out).ok()?;
            return Some(out);
        }
        Request::Rubbish(number) => {
            // What begins no packet; and half of one, behind which all is lost.
            return Some(if number % 2 == 0 {
                b"?!".to_vec()
            } else {
                b"M\x01\0\0\0\x01\0\0\0\xff\xff\xff\x7f".to_vec()
            });
        }
        _ => return None,
    };
    packet.encode(&mut out).ok()?;
    Some(out)
}

/// A frame of WebRocket.
pub(super) fn command(request: &Request) -> Option<Vec<u8>> {
    let json = |value: serde_json::Value| Some(masked(1, value.to_string().as_bytes()));
    match request {
        Request::Authenticate { may_publish, is_right } => {
            let (access, secret) =
                if *may_publish { ("read-write", READ_WRITE) } else { ("read-only", READ_ONLY) };
            let secret = if *is_right { secret } else { "guess" };
            json(serde_json::json!({"auth": {"access": access, "secret": secret}}))
        }
        Request::Join { channel, .. } => {
            json(serde_json::json!({"subscribe": {"channel": channel.to_string()}}))
        }
        Request::Follow { channel, since } => {
            let since = since.map(|position| position.to_string());
            json(serde_json::json!({"subscribe": {"channel": channel.to_string(), "since": since}}))
        }
        Request::Leave { channel, .. } => {
            json(serde_json::json!({"unsubscribe": {"channel": channel.to_string()}}))
        }
        Request::Publish { channel, content, .. } => {
            let mut text = format!("{{\"publish\":{{\"event\":\"e\",\"channel\":\"{channel}\",\"data\":");
            match content.kind() {
                ContentKind::Json => text += content.as_text()?,
                ContentKind::Text => text += &serde_json::json!(content.as_text()?).to_string(),
                ContentKind::Binary => {
                    text += &format!("\"{}\",\"encoding\":\"base64\"", BASE64.encode(content.bytes()))
                }
            }
            Some(masked(1, (text + "}}").as_bytes()))
        }
        Request::LogOut => json(serde_json::json!({"logout": true})),
        Request::Goodbye => json(serde_json::json!({"disconnect": true})),
        Request::Pong => Some(masked(10, b"")),
        Request::Rubbish(number) => Some(match number % 4 {
            0 => masked(1, b"{"),
            1 => masked(2, b"{\"logout\":true}"),
            2 => masked(1, b"{\"logout\":true,\"auth\":1}"),
            _ => masked(3, b"?"),
        }),
        _ => None,
    }
}

/// A frame of a browser.
pub(super) fn login(request: &Request) -> Option<Vec<u8>> {
    Some(match request {
        Request::LogIn { id, salt, is_right: true } => masked(1, format!("{id}!{salt}").as_bytes()),
        Request::LogIn { id, .. } => masked(2, format!("{id}!0000").as_bytes()),
        Request::Pong => masked(10, b""),
        Request::Publish { .. } => masked(1, b"hello?"),
        Request::Rubbish(number) if number % 2 == 0 => masked(3, b"?"),
        _ => return None,
    })
}

/// A frame of the private link.
pub(super) fn link(request: &Request) -> Option<Vec<u8>> {
    let frame = |word: &str, data: &[u8]| {
        let mut out = format!("{:05}[{word}] ", word.len() + 3 + data.len()).into_bytes();
        out.extend_from_slice(data);
        Some(out)
    };
    let with = |id: String, content: &Content| [id.as_bytes(), b"!", content.bytes()].concat();
    match request {
        Request::NewUser => frame("newuser", b""),
        Request::KillUser { id } => frame("killuser", id.to_string().as_bytes()),
        Request::Whisper { id, content } => frame("whisper", &with(id.to_string(), content)),
        Request::NewChannel => frame("newchannel", b""),
        Request::KillChannel { channel } => frame("killchannel", channel.number()?.to_string().as_bytes()),
        Request::Publish { channel, content, .. } => {
            frame("shout", &with(channel.number()?.to_string(), content))
        }
        Request::Join { id, channel } => frame("join", format!("{}!{id}", channel.number()?).as_bytes()),
        Request::Leave { id, channel } => frame("leave", format!("{}!{id}", channel.number()?).as_bytes()),
        Request::Goodbye => Some(b"00000".to_vec()),
        Request::Rubbish(number) => Some(match number % 3 {
            0 => b"00003abc".to_vec(),
            1 => b"00008[what] x".to_vec(),
            _ => b"hello".to_vec(),
        }),
        _ => None,
    }
}

/// A client's WebSocket frame (RFC 6455 5.2), masked as it must be.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5a, 0x00, 0xff, 0x13];
    let mut out = BytesMut::from(&[0x80 | opcode][..]);
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => out.extend_from_slice(&[0x80 | length]),
        _ => {
            out.extend_from_slice(&[0x80 | 126]);
            out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out.into()
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn what_is_lengthened_is_of_its_kind_and_another_one_to_whoever_reads_it() {
        for kind in [Kind::Text, Kind::Json, Kind::Binary] {
            let content = content(Shape { kind, bytes: 10 }, 7);
            let lengthened = lengthened(&content);
            let sniffed = Content::sniff(content.bytes().clone());
            assert_eq!(lengthened.kind(), sniffed.kind());
            assert_ne!(lengthened.bytes(), content.bytes());
            if kind == Kind::Json {
                let value = |content: &Content| -> String {
                    let value: &RawValue = serde_json::from_slice(content.bytes()).unwrap();
                    value.get().to_owned()
                };
                assert_ne!(value(&lengthened), value(&content));
            }
        }
    }
}
