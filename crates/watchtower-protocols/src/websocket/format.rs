//! What delivered messages look like: a protocol's [`Codec`] in WebSocket
//! frames, plain and compressed, each made once a message.
//!
//! Knows no connection.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use watchtower_hub::{ContentKind, Format, FormatId, Message};

use super::frame;

/// The first of the formats of [`Frames::content`].
const CONTENT_FORMATS: u8 = 11;

/// What a frame has room for beside its content: its header, and what JSON says
/// around it. More makes it grow.
const FRAME_BYTES_BESIDE: usize = 64;

/// Whether a message is text or binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// Valid UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// What the messages of the hub look like to the subscribers of a protocol:
/// each one WebSocket message.
pub trait Codec: Send + Sync + 'static {
    /// Appends the message as it is to be received, without any framing, and
    /// says what it is; what is `Text` must be valid UTF-8. `None` for a
    /// message that the protocol cannot show: nothing is sent.
    ///
    /// Must depend on the message alone: the result is shared by all
    /// subscribers. Called at most once for each of the three ways in which it
    /// is sent ([`Frames`]).
    fn encode(&self, message: &Message, out: &mut BytesMut) -> Option<MessageKind>;
}

/// How the messages to a client are compressed, as was negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// By permessage-deflate, with a window of 32 KiB.
    Deflate,
    /// The same for a client that asked for a smaller window: 512 bytes.
    DeflateSmall,
}

/// The frames of one codec's messages: the hub's format for each
/// [`Compression`].
pub struct Frames {
    plain: FrameFormat,
    deflate: FrameFormat,
    deflate_small: FrameFormat,
}

impl Frames {
    /// The frames of `codec`, which are the hub's formats number `first` and
    /// the two that follow it ([`FormatId`]). One protocol makes them once, and
    /// hands out the same ever after.
    ///
    /// # Panics
    ///
    /// When `first` is above 61.
    pub fn new(first: u8, codec: impl Codec) -> Arc<Frames> {
        let codec: Arc<dyn Codec> = Arc::new(codec);
        let format = |index: u8, compression| FrameFormat {
            id: FormatId::new(first.saturating_add(index)),
            compression,
            codec: codec.clone(),
        };
        Arc::new(Frames {
            plain: format(0, Compression::None),
            deflate: format(1, Compression::Deflate),
            deflate_small: format(2, Compression::DeflateSmall),
        })
    }

    /// The content of each message as it is and nothing around it: text and
    /// JSON as text, the rest as binary. The hub's formats 11 to 13.
    pub fn content() -> Arc<Frames> {
        static CONTENT: OnceLock<Arc<Frames>> = OnceLock::new();
        CONTENT.get_or_init(|| Frames::new(CONTENT_FORMATS, ContentCodec)).clone()
    }

    /// The format for clients with which that was negotiated.
    pub fn format(&self, compression: Compression) -> &dyn Format {
        match compression {
            Compression::None => &self.plain,
            Compression::Deflate => &self.deflate,
            Compression::DeflateSmall => &self.deflate_small,
        }
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("first", &self.plain.id).finish_non_exhaustive()
    }
}

struct FrameFormat {
    id: FormatId,
    compression: Compression,
    codec: Arc<dyn Codec>,
}

impl Format for FrameFormat {
    fn id(&self) -> FormatId {
        self.id
    }

    fn encode(&self, message: &Message, out: &mut BytesMut) {
        out.reserve(message.content().bytes().len() + FRAME_BYTES_BESIDE);
        frame::encode(self.compression, out, |out| self.codec.encode(message, out));
    }
}

/// The content alone.
struct ContentCodec;

impl Codec for ContentCodec {
    fn encode(&self, message: &Message, out: &mut BytesMut) -> Option<MessageKind> {
        out.extend_from_slice(message.content().bytes());
        Some(match message.content().kind() {
            ContentKind::Text | ContentKind::Json => MessageKind::Text,
            ContentKind::Binary => MessageKind::Binary,
        })
    }
}
