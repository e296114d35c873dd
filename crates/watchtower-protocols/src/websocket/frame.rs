//! Frames as the server writes them: without a mask, one a message.
//!
//! Knows no connection: where a message is shared by many, so is its frame.

use bytes::BytesMut;

use super::deflate;
use super::scratch::Scratch;
use super::{CloseCode, Compression, MessageKind};

/// The longest header of a frame without a mask.
const HEADER_BYTES_MAX: usize = 10;

/// The header of a frame of 126 to 65,535 bytes: room is left for it while the
/// length is not known.
const HEADER_BYTES_COMMON: usize = 4;

/// The longest payload of a control frame (RFC 6455 5.5).
pub(super) const CONTROL_BYTES_MAX: usize = 125;

/// Below this, deflating costs more than it saves.
const DEFLATE_BYTES_MIN: usize = 128;

pub(super) const FIN: u8 = 0x80;
/// The message is compressed (RFC 7692 6).
pub(super) const RSV1: u8 = 0x40;

/// What a frame is (RFC 6455 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    /// The opcode of that number; the others are reserved.
    pub(super) fn new(number: u8) -> Option<Opcode> {
        Some(match number {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

impl From<MessageKind> for Opcode {
    fn from(kind: MessageKind) -> Opcode {
        match kind {
            MessageKind::Text => Opcode::Text,
            MessageKind::Binary => Opcode::Binary,
        }
    }
}

/// Appends the frame of the message that `encode` appends, or nothing when it
/// says `None`.
pub(super) fn encode(
    compression: Compression,
    out: &mut BytesMut,
    encode: impl FnOnce(&mut BytesMut) -> Option<MessageKind>,
) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES_COMMON]);
    let Some(kind) = encode(out) else { return out.truncate(start) };
    let payload = out.get(start + HEADER_BYTES_COMMON..).unwrap_or_default();
    debug_assert!(kind == MessageKind::Binary || std::str::from_utf8(payload).is_ok(), "text is UTF-8");
    if let Some(deflated) = deflate_if_it_pays(compression, payload) {
        out.truncate(start);
        out.extend_from_slice(Header::message(kind, deflated.len(), true).bytes());
        out.extend_from_slice(&deflated);
        return;
    }
    // The length of the header is known only now: the payload moves up to it.
    let length = payload.len();
    let header = Header::message(kind, length, false);
    let header = header.bytes();
    out.resize(start + header.len().max(HEADER_BYTES_COMMON) + length, 0);
    let payload_start = start + HEADER_BYTES_COMMON;
    out.copy_within(payload_start..payload_start + length, start + header.len());
    out.truncate(start + header.len() + length);
    out[start..start + header.len()].copy_from_slice(header);
}

/// Appends the frame of one message.
pub(super) fn write_message(compression: Compression, kind: MessageKind, payload: &[u8], out: &mut Vec<u8>) {
    if let Some(deflated) = deflate_if_it_pays(compression, payload) {
        out.extend_from_slice(Header::message(kind, deflated.len(), true).bytes());
        out.extend_from_slice(&deflated);
        return;
    }
    out.extend_from_slice(Header::message(kind, payload.len(), false).bytes());
    out.extend_from_slice(payload);
}

/// Appends a close frame; `reason` is cut where it does not fit.
pub(super) fn write_close(code: CloseCode, reason: &str, out: &mut Vec<u8>) {
    let length = reason.floor_char_boundary(CONTROL_BYTES_MAX - 2);
    let reason = reason.get(..length).unwrap_or_default();
    out.extend_from_slice(Header::new(FIN | Opcode::Close as u8, 2 + reason.len()).bytes());
    out.extend_from_slice(&code.get().to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Appends a ping, a pong, or a close frame without a code. `payload` has at
/// most 125 bytes.
pub(super) fn write_control(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(opcode.is_control() && payload.len() <= CONTROL_BYTES_MAX);
    out.extend_from_slice(Header::new(FIN | opcode as u8, payload.len()).bytes());
    out.extend_from_slice(payload);
}

/// The payload compressed, when that makes it shorter.
fn deflate_if_it_pays(compression: Compression, payload: &[u8]) -> Option<Scratch> {
    if compression == Compression::None || payload.len() < DEFLATE_BYTES_MIN {
        return None;
    }
    let deflated = deflate::deflate(compression, payload);
    (deflated.len() < payload.len()).then_some(deflated)
}

/// The header of a frame (RFC 6455 5.2): as short as its length allows.
struct Header {
    bytes: [u8; HEADER_BYTES_MAX],
    length: usize,
}

impl Header {
    fn message(kind: MessageKind, length: usize, deflated: bool) -> Header {
        let rsv1 = if deflated { RSV1 } else { 0 };
        Header::new(FIN | rsv1 | Opcode::from(kind) as u8, length)
    }

    fn new(first: u8, payload: usize) -> Header {
        let mut bytes = [0; HEADER_BYTES_MAX];
        bytes[0] = first;
        let length = if payload <= CONTROL_BYTES_MAX {
            bytes[1] = payload as u8;
            2
        } else if let Ok(payload) = u16::try_from(payload) {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&payload.to_be_bytes());
            4
        } else {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        };
        Header { bytes, length }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
