//! Bytes to Watchtower packets and back, in both directions.
//!
//! Decoding borrows from the input and allocates nothing; a length is judged
//! against [`Limits`] as soon as its field is there, before the content is. The
//! codec deliberately knows nothing of registrations, joins or connections: ids
//! are plain `u32` here, 0 included, and whether one may be used is for the
//! session to judge.

use std::fmt;

use bytes::BufMut;
use watchtower_hub::ChannelName;

use super::ErrorCode;

/// Bytes of a server's message packet before its content.
pub const MESSAGE_HEADER_BYTES: usize = 15;

/// Bytes of text that an `E` packet carries at most, so that an answer to an
/// unregistered UDP address stays short ([packets: rules]).
pub const ERROR_TEXT_BYTES_MAX: usize = 60;

/// A packet that a client sends ([packets: client to server]).
///
/// `Debug` shows the lengths of secrets and contents, never their bytes, so
/// that a packet can be logged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ClientPacket<'a> {
    /// `R`: asks for a new sender id.
    Register,
    /// `S`: asks for a new sender id and proves the right to one. At most 255 bytes.
    RegisterWithSecret(&'a [u8]),
    /// `J`: joins a channel.
    Join {
        /// The sender that joins.
        sender: u32,
        /// The channel joined.
        channel: u32,
    },
    /// `L`: leaves a channel.
    Leave {
        /// The sender that leaves.
        sender: u32,
        /// The channel left.
        channel: u32,
    },
    /// `M`: publishes to everyone in a channel.
    Message {
        /// The sender that publishes.
        sender: u32,
        /// The channel published to.
        channel: u32,
        /// What is published.
        content: &'a [u8],
    },
    /// `W`: publishes to named senders of a channel alone.
    Direct {
        /// The sender that publishes.
        sender: u32,
        /// The channel published to.
        channel: u32,
        /// Who gets the message; may be empty or name one id several times.
        receivers: Receivers<'a>,
        /// What is published.
        content: &'a [u8],
    },
    /// `F`: joins a channel and asks for what is kept after an offset.
    Follow {
        /// The sender that joins.
        sender: u32,
        /// The channel joined.
        channel: u32,
        /// The last offset that the client has.
        offset: u64,
    },
    /// `K`: says that the client is there.
    KeepAlive,
}

impl<'a> ClientPacket<'a> {
    /// Reads the first packet of `input`, padding before it skipped.
    pub fn decode(input: &'a [u8], limits: Limits) -> Decoded<Self> {
        decode_one(input, |reader, tag| {
            Ok(match tag {
                b'R' => Self::Register,
                b'S' => {
                    let length = reader.u8()?;
                    Self::RegisterWithSecret(reader.take(usize::from(length))?)
                }
                b'J' => {
                    reader.require(8)?;
                    let (sender, channel) = (reader.u32()?, reader.u32()?);
                    Self::Join { sender, channel }
                }
                b'L' => {
                    reader.require(8)?;
                    let (sender, channel) = (reader.u32()?, reader.u32()?);
                    Self::Leave { sender, channel }
                }
                b'M' => {
                    reader.require(12)?;
                    let (sender, channel) = (reader.u32()?, reader.u32()?);
                    let content = reader.content(sender, channel, limits)?;
                    Self::Message { sender, channel, content }
                }
                b'W' => Self::decode_direct(reader, limits)?,
                b'F' => {
                    reader.require(16)?;
                    let (sender, channel) = (reader.u32()?, reader.u32()?);
                    Self::Follow { sender, channel, offset: reader.u64()? }
                }
                b'K' => Self::KeepAlive,
                byte => {
                    let expected = "one of RSJLMWFK";
                    return Err(PacketError::Unknown { byte, expected }.into());
                }
            })
        })
    }

    fn decode_direct(reader: &mut Reader<'a>, limits: Limits) -> Result<Self, Stop> {
        reader.require(10)?;
        let (sender, channel) = (reader.u32()?, reader.u32()?);
        let count = usize::from(reader.u16()?);
        reader.require(count * 4 + 4)?;
        let (receivers, _) = reader.take(count * 4)?.as_chunks();
        let content = reader.content(sender, channel, limits)?;
        Ok(Self::Direct { sender, channel, receivers: Receivers::new(receivers), content })
    }

    /// Appends the packet's bytes to `out`.
    ///
    /// # Errors
    /// When a part is longer than its length field can say; nothing is appended then.
    pub fn encode(&self, out: &mut impl BufMut) -> Result<(), EncodeError> {
        match *self {
            Self::Register => out.put_u8(b'R'),
            Self::RegisterWithSecret(secret) => {
                let length = u8::try_from(secret.len()).map_err(|_| EncodeError::SecretTooLong)?;
                out.put_u8(b'S');
                out.put_u8(length);
                out.put_slice(secret);
            }
            Self::Join { sender, channel } => put_tag_and_ids(out, b'J', sender, channel),
            Self::Leave { sender, channel } => put_tag_and_ids(out, b'L', sender, channel),
            Self::Message { sender, channel, content } => {
                let length = content_length(content)?;
                put_tag_and_ids(out, b'M', sender, channel);
                out.put_u32_le(length);
                out.put_slice(content);
            }
            Self::Direct { sender, channel, receivers, content } => {
                let count = u16::try_from(receivers.len()).map_err(|_| EncodeError::TooManyReceivers)?;
                let length = content_length(content)?;
                put_tag_and_ids(out, b'W', sender, channel);
                out.put_u16_le(count);
                out.put_slice(receivers.0.as_flattened());
                out.put_u32_le(length);
                out.put_slice(content);
            }
            Self::Follow { sender, channel, offset } => {
                put_tag_and_ids(out, b'F', sender, channel);
                out.put_u64_le(offset);
            }
            Self::KeepAlive => out.put_u8(b'K'),
        }
        Ok(())
    }
}

impl fmt::Debug for ClientPacket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Register => f.write_str("Register"),
            Self::RegisterWithSecret(secret) => {
                write!(f, "RegisterWithSecret({} bytes)", secret.len())
            }
            Self::Join { sender, channel } => write!(f, "Join({sender}, {channel})"),
            Self::Leave { sender, channel } => write!(f, "Leave({sender}, {channel})"),
            Self::Message { sender, channel, content } => {
                write!(f, "Message({sender}, {channel}, {} bytes)", content.len())
            }
            Self::Direct { sender, channel, receivers, content } => {
                write!(f, "Direct({sender}, {channel}, {receivers:?}, {} bytes)", content.len())
            }
            Self::Follow { sender, channel, offset } => {
                write!(f, "Follow({sender}, {channel}, {offset})")
            }
            Self::KeepAlive => f.write_str("KeepAlive"),
        }
    }
}

/// A packet that a server sends ([packets: server to client]).
///
/// `Debug` shows the length of a content, never its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ServerPacket<'a> {
    /// `A`: a registration's new id, a channel joined or left, or 0 for a keep-alive.
    Ack(u32),
    /// `M`: a message of a channel that the client has joined.
    Message {
        /// Who published it; 0 when that was no registered sender.
        sender: u32,
        /// The channel that it was published to.
        channel: u32,
        /// Whom it was published to.
        kind: MessageKind,
        /// What was published.
        content: &'a [u8],
    },
    /// `E`: what the server could not do.
    Error {
        /// The code as it came; [`ErrorCode::from_byte`] says what it means.
        code: u8,
        /// The server's words. ASCII by the protocol, but not checked here.
        text: &'a [u8],
    },
}

impl<'a> ServerPacket<'a> {
    /// Reads the first packet of `input`, padding before it skipped. The
    /// heartbeats of an octet-stream HTTP body (`\n`) are padding too.
    pub fn decode(input: &'a [u8], limits: Limits) -> Decoded<Self> {
        decode_one(input, |reader, tag| {
            Ok(match tag {
                b'A' => Self::Ack(reader.u32()?),
                b'M' => {
                    reader.require(MESSAGE_HEADER_BYTES - 1)?;
                    let (sender, channel) = (reader.u32()?, reader.u32()?);
                    let kind = MessageKind::from_wire(reader.u16()?)?;
                    let content = reader.content(sender, channel, limits)?;
                    Self::Message { sender, channel, kind, content }
                }
                b'E' => {
                    reader.require(2)?;
                    let (code, length) = (reader.u8()?, reader.u8()?);
                    let text = reader.take(usize::from(length))?;
                    Self::Error { code, text }
                }
                byte => {
                    let expected = "A, M or E";
                    return Err(PacketError::Unknown { byte, expected }.into());
                }
            })
        })
    }
}

impl fmt::Debug for ServerPacket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ack(value) => write!(f, "Ack({value})"),
            Self::Message { sender, channel, kind, content } => {
                write!(f, "Message({sender}, {channel}, {kind:?}, {} bytes)", content.len())
            }
            Self::Error { code, text } => {
                write!(f, "Error({code}, \"{}\")", text.escape_ascii())
            }
        }
    }
}

/// What decoding the start of an input came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<P> {
    /// A whole packet.
    Packet {
        /// The packet.
        packet: P,
        /// Bytes of the input that it took, padding before it included.
        consumed: usize,
    },
    /// No packet has begun: the input is empty or nothing but padding.
    Idle {
        /// Bytes of padding, which is the whole input.
        consumed: usize,
    },
    /// A packet has begun and is not whole yet. On a stream, decode again when
    /// the input has `needed` bytes, not earlier: then the work for one packet
    /// is bounded however slowly its bytes arrive.
    Incomplete {
        /// The least length of input, from its start, that can make a difference.
        needed: usize,
    },
    /// The input is not to be read on.
    Bad(PacketError),
}

/// What a decoder takes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest content of one message, in bytes.
    pub content_bytes_max: u32,
}

impl Limits {
    /// The longest packet that passes these limits: a direct message to as many
    /// receivers as its 16-bit count can say. No [`Decoded::Incomplete`] asks for
    /// more than this and the padding before the packet.
    pub fn packet_bytes_max(self) -> usize {
        const DIRECT_BYTES_MAX_WITHOUT_CONTENT: usize = 15 + 4 * (u16::MAX as usize);
        usize::try_from(self.content_bytes_max)
            .unwrap_or(usize::MAX)
            .saturating_add(DIRECT_BYTES_MAX_WITHOUT_CONTENT)
    }
}

/// Why an input is not to be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// A first byte that begins no packet in this direction.
    #[error("no packet begins with byte 0x{byte:02x}; expected {expected}")]
    Unknown {
        /// The byte that came.
        byte: u8,
        /// The bytes that begin a packet, for a person to read.
        expected: &'static str,
    },
    /// A content whose length field exceeds [`Limits::content_bytes_max`].
    #[error("content of {length} bytes; at most {limit} are accepted")]
    TooLarge {
        /// The sender that the packet names.
        sender: u32,
        /// The channel that the packet names.
        channel: u32,
        /// The length that the packet claims, in bytes.
        length: u32,
        /// The limit, in bytes.
        limit: u32,
    },
    /// A server's message of a type that is not known. Clients send no such field.
    #[error("message of type {kind}; expected 0 (to the channel) or 1 (direct)")]
    UnknownKind {
        /// The type that came.
        kind: u16,
    },
}

impl PacketError {
    /// The code that a server answers with.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Unknown { .. } | Self::UnknownKind { .. } => ErrorCode::UnknownPacket,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
        }
    }
}

/// Why a client's packet cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A secret above 255 bytes.
    #[error("a secret of more than 255 bytes does not fit a packet")]
    SecretTooLong,
    /// More than 65,535 receivers.
    #[error("more than 65535 receivers do not fit a packet")]
    TooManyReceivers,
    /// A content of 4 GiB or more.
    #[error("a content of 4 GiB or more does not fit a packet")]
    ContentTooLong,
}

/// The receivers that a direct message names, in order: an iterator that reads
/// them from the packet's own bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Receivers<'a>(&'a [[u8; 4]]);

impl<'a> Receivers<'a> {
    /// Receivers from their bytes on the wire, little-endian.
    pub fn new(ids: &'a [[u8; 4]]) -> Self {
        Self(ids)
    }
}

impl Iterator for Receivers<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*first))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len(), Some(self.0.len()))
    }
}

impl ExactSizeIterator for Receivers<'_> {}

impl fmt::Debug for Receivers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// Whom a message was published to: the `type` field of a server's `M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum MessageKind {
    /// Everyone in the channel.
    Broadcast = 0,
    /// Named receivers alone.
    Direct = 1,
}

impl MessageKind {
    fn from_wire(kind: u16) -> Result<Self, PacketError> {
        match kind {
            0 => Ok(Self::Broadcast),
            1 => Ok(Self::Direct),
            _ => Err(PacketError::UnknownKind { kind }),
        }
    }
}

/// Whether a connection that begins with this byte speaks packets.
///
/// True for the tags of client packets and for padding. Some registered HTTP
/// methods begin with the same letters (`LOCK`, `MOVE`, `REPORT`, `SEARCH`), but
/// none of those that this server answers does: `GET`, `POST`, `HEAD`, `OPTIONS`,
/// `PUT`, `DELETE`, `PATCH`. Nor does a TLS hello (0x16), an MQTT connect (0x10),
/// a digit or a brace.
pub fn first_byte_is_packet(byte: u8) -> bool {
    matches!(byte, b'R' | b'S' | b'J' | b'L' | b'M' | b'W' | b'F' | b'K') || is_padding(byte)
}

/// Whether a packet that begins with this byte answers one: a server alone says
/// it, and no client.
pub(super) fn begins_an_answer(byte: u8) -> bool {
    matches!(byte, b'A' | b'E')
}

/// Appends an acknowledgement.
pub fn encode_ack(out: &mut impl BufMut, value: u32) {
    out.put_u8(b'A');
    out.put_u32_le(value);
}

/// Appends a message for a client: [`MESSAGE_HEADER_BYTES`] and the content.
///
/// # Panics
/// When the content has 4 GiB or more, which no [`Limits`] lets in.
pub fn encode_message(out: &mut impl BufMut, sender: u32, channel: u32, kind: MessageKind, content: &[u8]) {
    let length = u32::try_from(content.len()).expect("content limits are 32-bit");
    put_tag_and_ids(out, b'M', sender, channel);
    out.put_u16_le(kind as u16);
    out.put_u32_le(length);
    out.put_slice(content);
}

/// Appends an error. Of the text, the first [`ERROR_TEXT_BYTES_MAX`] characters
/// are kept; what is not printable ASCII becomes `?`.
pub fn encode_error(out: &mut impl BufMut, code: ErrorCode, text: &str) {
    let mut kept = [0; ERROR_TEXT_BYTES_MAX];
    let mut length: u8 = 0;
    for (byte, character) in kept.iter_mut().zip(text.chars()) {
        let printable = character == ' ' || character.is_ascii_graphic();
        *byte = if printable { character as u8 } else { b'?' };
        length += 1;
    }
    out.put_slice(&[b'E', code.byte(), length]);
    out.put_slice(&kept[..usize::from(length)]);
}

/// Appends the error that says where a client goes on of a channel, when not all is kept
/// behind where it was. For a channel with a number the text is not cut off.
pub fn encode_incomplete(out: &mut impl BufMut, channel: &ChannelName, after: u64) {
    encode_error(out, ErrorCode::Incomplete, &format!("channel {channel} goes on after {after}"));
}

/// CR, LF and NUL between packets mean nothing: the documented client pads with
/// zeros, and `echo` ends its line ([packets: rules]).
fn is_padding(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n' | 0)
}

/// How many bytes of padding the input begins with.
pub(super) fn skip_padding(input: &[u8]) -> usize {
    input.iter().position(|&byte| !is_padding(byte)).unwrap_or(input.len())
}

/// Skips padding, then lets `packet` read what follows the tag.
fn decode_one<'a, P>(
    input: &'a [u8],
    packet: impl FnOnce(&mut Reader<'a>, u8) -> Result<P, Stop>,
) -> Decoded<P> {
    let mut reader = Reader { input, position: skip_padding(input) };
    let Some(&tag) = input.get(reader.position) else {
        return Decoded::Idle { consumed: input.len() };
    };
    reader.position += 1;
    match packet(&mut reader, tag) {
        Ok(packet) => Decoded::Packet { packet, consumed: reader.position },
        Err(Stop::Incomplete { needed }) => Decoded::Incomplete { needed },
        Err(Stop::Bad(error)) => Decoded::Bad(error),
    }
}

fn put_tag_and_ids(out: &mut impl BufMut, tag: u8, sender: u32, channel: u32) {
    out.put_u8(tag);
    out.put_u32_le(sender);
    out.put_u32_le(channel);
}

fn content_length(content: &[u8]) -> Result<u32, EncodeError> {
    u32::try_from(content.len()).map_err(|_| EncodeError::ContentTooLong)
}

/// Why reading a packet ends before its end.
enum Stop {
    Incomplete { needed: usize },
    Bad(PacketError),
}

impl From<PacketError> for Stop {
    fn from(error: PacketError) -> Self {
        Self::Bad(error)
    }
}

/// Reads a packet's fields in order.
struct Reader<'a> {
    input: &'a [u8],
    /// Invariant: at most `input.len()`.
    position: usize,
}

impl<'a> Reader<'a> {
    /// Stops unless the next `count` bytes are there: said before fields of a
    /// fixed size, it makes `needed` cover all of them.
    fn require(&self, count: usize) -> Result<(), Stop> {
        let needed = self.position.saturating_add(count);
        if needed > self.input.len() {
            return Err(Stop::Incomplete { needed });
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        self.require(count)?;
        let end = self.position + count;
        let bytes = &self.input[self.position..end];
        self.position = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, Stop> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, Stop> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Stop> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length field and the content, which is refused by its length alone
    /// when it is above the limit ([packets: errors], code 4).
    fn content(&mut self, sender: u32, channel: u32, limits: Limits) -> Result<&'a [u8], Stop> {
        let length = self.u32()?;
        let limit = limits.content_bytes_max;
        if length > limit {
            return Err(Stop::Bad(PacketError::TooLarge { sender, channel, length, limit }));
        }
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }
}
