//! What a client sends: bytes in, messages out, however the bytes come.
//!
//! Knows no connection and no handler.
//!
//! This is ours rather than a library's, because of what it must not keep. A
//! connection that says nothing may hold hardly any memory, and input comes in
//! a buffer that all connections of a thread share; the decoders to be had own
//! their input, gather whole frames before they look at them, and keep a
//! decompressor for each connection. A test holds it to one of them: the same
//! messages and the same refusals for whatever comes.

use std::ops::ControlFlow;

use super::deflate::{self, InflateError};
use super::frame::{CONTROL_BYTES_MAX, FIN, Opcode, RSV1};
use super::scratch::Scratch;
use super::{CloseCode, Incoming, MessageKind};

/// The longest header of a masked frame.
const HEAD_BYTES_MAX: usize = 14;

const RSV2_AND_3: u8 = 0x30;
const MASKED: u8 = 0x80;

/// What a connection allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The longest message, in bytes, compressed or not.
    pub(super) message_bytes_max: usize,
    /// The same for one that comes compressed, before and after.
    pub(super) inflated_bytes_max: usize,
    /// Whether compression was negotiated.
    pub(super) may_deflate: bool,
}

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    Message {
        message: Incoming<'a>,
        /// How many bytes of payload it came as.
        sent_bytes: usize,
    },
    Ping(&'a [u8]),
    Pong,
    /// With the code, if there was one.
    Close(Option<CloseCode>),
}

/// What a client must not say. It is told, and the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("a reserved bit is set")]
    ReservedBit,
    #[error("a reserved opcode")]
    ReservedOpcode,
    #[error("a frame of a client must be masked")]
    NotMasked,
    #[error("a control frame must be whole, and of 125 bytes at most")]
    ControlFrame,
    #[error("a message begins within another")]
    UnfinishedMessage,
    #[error("nothing to continue")]
    NothingToContinue,
    #[error("a length of 64 bits must begin with 0")]
    Length,
    #[error("a close frame without a valid code")]
    CloseCode,
    #[error("text must be UTF-8")]
    Utf8,
    #[error("the compressed content is broken")]
    Deflate,
    #[error("the message is too long")]
    TooLong,
    #[error("a compressed message must be shorter here")]
    InflatesTooFar,
}

impl Violation {
    /// What the connection is closed with (RFC 6455 7.4.1).
    pub(super) fn close_code(self) -> CloseCode {
        match self {
            Violation::Utf8 | Violation::Deflate => CloseCode::INVALID_PAYLOAD,
            Violation::TooLong | Violation::InflatesTooFar => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

impl Rules {
    /// What a message may not be longer than, and what it breaks then.
    fn longest(self, is_deflated: bool) -> (usize, Violation) {
        if is_deflated && self.inflated_bytes_max < self.message_bytes_max {
            (self.inflated_bytes_max, Violation::InflatesTooFar)
        } else {
            (self.message_bytes_max, Violation::TooLong)
        }
    }
}

/// Reads the frames of one client. Between messages it holds no memory.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The header of the next frame, as far as it came.
    head: [u8; HEAD_BYTES_MAX],
    head_length: u8,
    /// The frame whose payload comes.
    frame: Option<Frame>,
    /// Invariant: empty but within a control frame.
    control: Vec<u8>,
    /// The message of which a part has come.
    message: Option<Box<Partial>>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: Opcode,
    is_final: bool,
    is_deflated: bool,
    /// The part of the mask for the next four bytes.
    mask: [u8; 4],
    /// How much of the payload has yet to come.
    left: u64,
}

#[derive(Debug)]
struct Partial {
    kind: MessageKind,
    is_deflated: bool,
    bytes: Vec<u8>,
    /// How many of `bytes` are known to be whole characters. None are looked
    /// at but those of plain text.
    checked: usize,
}

impl Decoder {
    /// Takes what came and gives what it completes to `take`, in order, until
    /// that breaks off. Returns how many bytes were taken: all, unless it broke
    /// off.
    ///
    /// # Errors
    ///
    /// [`Violation`]: the connection is to be closed.
    pub(super) fn decode(
        &mut self,
        mut input: &[u8],
        rules: Rules,
        mut take: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<usize, Violation> {
        let length = input.len();
        while !input.is_empty() {
            if self.frame.is_none() {
                self.frame = self.read_head(&mut input, rules)?;
            }
            let Some(frame) = self.frame.take() else { continue };
            let here = usize::try_from(frame.left).unwrap_or(usize::MAX).min(input.len());
            let (payload, rest) = input.split_at(here);
            input = rest;
            let flow = if frame.opcode.is_control() {
                self.read_control(frame, payload, &mut take)?
            } else {
                self.read_data(frame, payload, rules, &mut take)?
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(length - input.len())
    }

    /// Whether a message has begun that is not complete.
    pub(super) fn is_amid_message(&self) -> bool {
        self.message.is_some() || self.frame.as_ref().is_some_and(|frame| !frame.opcode.is_control())
    }

    /// How much memory it holds beyond itself.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.control.capacity() + self.message.as_ref().map_or(0, |message| message.bytes.capacity())
    }

    /// The header at the beginning of `input`, once all of it has come.
    fn read_head(&mut self, input: &mut &[u8], rules: Rules) -> Result<Option<Frame>, Violation> {
        loop {
            let have = usize::from(self.head_length);
            let wanted = match self.head {
                _ if have < 2 => 2,
                [_, second, ..] => {
                    2 + match second & !MASKED {
                        126 => 2,
                        127 => 8,
                        _ => 0,
                    } + 4
                }
            };
            let length = input.len().min(wanted - have);
            let (new, rest) = input.split_at(length);
            self.head[have..have + length].copy_from_slice(new);
            self.head_length += length as u8;
            *input = rest;
            if have + length < wanted {
                return Ok(None);
            }
            if wanted == 2 {
                self.check_first_two(rules)?;
                continue;
            }
            self.head_length = 0;
            return self.begin_frame(wanted, rules).map(Some);
        }
    }

    /// What is wrong is wrong before the rest has come.
    fn check_first_two(&self, rules: Rules) -> Result<Opcode, Violation> {
        let [first, second, ..] = self.head;
        let opcode = Opcode::new(first & 0xf).ok_or(Violation::ReservedOpcode)?;
        let begins_message = matches!(opcode, Opcode::Text | Opcode::Binary);
        let may_have_rsv1 = rules.may_deflate && begins_message;
        if first & RSV2_AND_3 != 0 || (first & RSV1 != 0 && !may_have_rsv1) {
            return Err(Violation::ReservedBit);
        }
        if second & MASKED == 0 {
            return Err(Violation::NotMasked);
        }
        let is_long = usize::from(second & !MASKED) > CONTROL_BYTES_MAX;
        if opcode.is_control() && (first & FIN == 0 || is_long) {
            return Err(Violation::ControlFrame);
        }
        match (opcode, &self.message) {
            (Opcode::Continuation, None) => Err(Violation::NothingToContinue),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(Violation::UnfinishedMessage),
            _ => Ok(opcode),
        }
    }

    /// The frame whose header of that length is complete.
    fn begin_frame(&self, head_length: usize, rules: Rules) -> Result<Frame, Violation> {
        let opcode = self.check_first_two(rules)?;
        let [first, second, a, b, c, d, e, f, g, h, ..] = self.head;
        // A length that has more bytes than it needs is taken: the RFC forbids
        // to send it, and others read it too.
        let left = match second & !MASKED {
            126 => u16::from_be_bytes([a, b]).into(),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            short => short.into(),
        };
        if left > u64::MAX >> 1 {
            return Err(Violation::Length);
        }
        let is_deflated = first & RSV1 != 0;
        let (before, begun_deflated) = self
            .message
            .as_ref()
            .map_or((0, false), |message| (message.bytes.len() as u64, message.is_deflated));
        let (bytes_max, violation) = rules.longest(is_deflated || begun_deflated);
        if !opcode.is_control() && before.saturating_add(left) > bytes_max as u64 {
            return Err(violation);
        }
        let mask = self.head[head_length - 4..head_length].try_into().unwrap_or_default();
        let is_final = first & FIN != 0;
        Ok(Frame { opcode, is_final, is_deflated, mask, left })
    }

    fn read_control(
        &mut self,
        frame: Frame,
        payload: &[u8],
        take: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        unmask_into(&mut self.control, payload, frame.mask);
        if frame.has_more_than(payload) {
            self.frame = Some(frame.after(payload));
            return Ok(ControlFlow::Continue(()));
        }
        let payload = std::mem::take(&mut self.control);
        Ok(take(match frame.opcode {
            Opcode::Ping => Event::Ping(&payload),
            Opcode::Close => Event::Close(read_close(&payload)?),
            _ => Event::Pong,
        }))
    }

    fn read_data(
        &mut self,
        frame: Frame,
        payload: &[u8],
        rules: Rules,
        take: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        let is_whole = !frame.has_more_than(payload);
        let kind = if frame.opcode == Opcode::Text { MessageKind::Text } else { MessageKind::Binary };
        if is_whole && frame.is_final && self.message.is_none() {
            // Nearly always: the whole message, of which nothing is kept.
            let mut scratch = Scratch::take();
            unmask_into(&mut scratch, payload, frame.mask);
            return complete(kind, frame.is_deflated, &scratch, rules, take);
        }
        let message = self.message.get_or_insert_with(|| {
            Box::new(Partial { kind, is_deflated: frame.is_deflated, bytes: Vec::new(), checked: 0 })
        });
        message.append(payload, frame.mask, rules)?;
        if !is_whole {
            self.frame = Some(frame.after(payload));
        } else if frame.is_final
            && let Some(message) = self.message.take()
        {
            return complete(message.kind, message.is_deflated, &message.bytes, rules, take);
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Frame {
    fn has_more_than(&self, payload: &[u8]) -> bool {
        self.left > payload.len() as u64
    }

    fn after(mut self, payload: &[u8]) -> Frame {
        self.left = self.left.saturating_sub(payload.len() as u64);
        self.mask.rotate_left(payload.len() % 4);
        self
    }
}

impl Partial {
    /// Takes more of the message; memory is taken for what came, not for what
    /// was announced, and never more than for the longest message.
    fn append(&mut self, payload: &[u8], mask: [u8; 4], rules: Rules) -> Result<(), Violation> {
        let length = self.bytes.len() + payload.len();
        if length > self.bytes.capacity() {
            let capacity = (2 * self.bytes.capacity()).min(rules.message_bytes_max).max(length);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        unmask_into(&mut self.bytes, payload, mask);
        if self.kind == MessageKind::Text && !self.is_deflated {
            // What cannot become UTF-8 is refused as soon as it is there.
            match std::str::from_utf8(self.bytes.get(self.checked..).unwrap_or_default()) {
                Ok(_) => self.checked = self.bytes.len(),
                Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
                Err(_) => return Err(Violation::Utf8),
            }
        }
        Ok(())
    }
}

/// Hands a whole message over.
fn complete(
    kind: MessageKind,
    is_deflated: bool,
    bytes: &[u8],
    rules: Rules,
    take: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Violation> {
    let sent_bytes = bytes.len();
    let inflated;
    let bytes = if is_deflated {
        let (bytes_max, violation) = rules.longest(true);
        inflated = deflate::inflate(bytes, bytes_max).map_err(|error| match error {
            InflateError::TooLong => violation,
            InflateError::Broken => Violation::Deflate,
        })?;
        inflated.as_slice()
    } else {
        bytes
    };
    let message = match kind {
        MessageKind::Text => Incoming::Text(std::str::from_utf8(bytes).map_err(|_| Violation::Utf8)?),
        MessageKind::Binary => Incoming::Binary(bytes),
    };
    Ok(take(Event::Message { message, sent_bytes }))
}

/// The code of a close frame (RFC 6455 5.5.1); its reason is for people.
fn read_close(payload: &[u8]) -> Result<Option<CloseCode>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::CloseCode) };
    };
    let code = CloseCode::new(u16::from_be_bytes(*code)).ok_or(Violation::CloseCode)?;
    std::str::from_utf8(reason).map_err(|_| Violation::Utf8)?;
    Ok(Some(code))
}

/// Appends `payload` without its mask (RFC 6455 5.3).
fn unmask_into(out: &mut Vec<u8>, payload: &[u8], mask: [u8; 4]) {
    let start = out.len();
    out.extend_from_slice(payload);
    // In pieces of a length that is known, which one instruction takes.
    let mask = [mask; 4];
    let mask = mask.as_flattened();
    let (pieces, rest) = out[start..].as_chunks_mut::<16>();
    for piece in pieces {
        piece.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    rest.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}
