//! What was published, and its encodings, each made once.
//!
//! A message does not know any format; it keeps what [`Format`]s made of it.

use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};

use crate::{ChannelName, Epoch, Position, SenderId, Timestamp};

/// How deep JSON content may be nested. Deeper values are refused, since the
/// parsers of subscribers commonly stop, or break, at about this depth.
pub const JSON_DEPTH_MAX: usize = 128;

/// How content is to be read ([model: terms]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentKind {
    /// Valid UTF-8.
    Text,
    /// A JSON value, kept byte for byte as it came.
    Json,
    /// Any bytes.
    Binary,
}

/// The content of a message, in bytes shared by all who read it.
///
/// Invariant: the bytes of `Text` and `Json` are valid UTF-8, and those of
/// `Json` one JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    kind: ContentKind,
    bytes: Bytes,
}

impl Content {
    /// Text.
    pub fn text(text: impl Into<String>) -> Content {
        Content { kind: ContentKind::Text, bytes: Bytes::from(text.into()) }
    }

    /// Bytes that are not to be read as text, whatever they are.
    pub fn binary(bytes: impl Into<Bytes>) -> Content {
        Content { kind: ContentKind::Binary, bytes: bytes.into() }
    }

    /// Bytes of a protocol that does not say what they are: text when they are
    /// valid UTF-8, else binary ([model: projection]).
    pub fn sniff(bytes: impl Into<Bytes>) -> Content {
        let bytes = bytes.into();
        let text = std::str::from_utf8(&bytes).is_ok();
        Content { kind: if text { ContentKind::Text } else { ContentKind::Binary }, bytes }
    }

    /// JSON, kept as it is; `None` when the bytes are not one JSON value, or
    /// one nested deeper than [`JSON_DEPTH_MAX`].
    pub fn json(bytes: impl Into<Bytes>) -> Option<Content> {
        let bytes = bytes.into();
        // `IgnoredAny` is read without recursion: deep nesting costs no stack.
        // It does not look into strings either, so that is done before.
        let text = std::str::from_utf8(&bytes).ok()?;
        serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
        (json_depth(&bytes) <= JSON_DEPTH_MAX).then_some(Content { kind: ContentKind::Json, bytes })
    }

    /// How the bytes are to be read.
    pub fn kind(&self) -> ContentKind {
        self.kind
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes as text; `None` for binary content.
    pub fn as_text(&self) -> Option<&str> {
        match self.kind {
            ContentKind::Binary => None,
            ContentKind::Text | ContentKind::Json => std::str::from_utf8(&self.bytes).ok(),
        }
    }
}

/// Who a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Everyone who is subscribed.
    Channel,
    /// These senders alone, sorted and without doubles ("direct").
    Senders(Box<[SenderId]>),
}

/// What was published ([model: terms]).
#[derive(Debug)]
pub struct Message {
    pub(crate) channel: ChannelName,
    pub(crate) epoch: Epoch,
    pub(crate) offset: u64,
    pub(crate) sender: Option<SenderId>,
    pub(crate) event: Option<Box<str>>,
    pub(crate) content: Content,
    pub(crate) audience: Audience,
    /// Boxed, since nearly all messages have none.
    pub(crate) extras: Option<Box<Bytes>>,
    pub(crate) time: Timestamp,
    /// Whether this copy is for who has just come, ahead of the log.
    pub(crate) is_retained: bool,
    pub(crate) frames: Frames,
}

impl Message {
    /// A message that is in no log, for formats and their tests.
    pub fn detached(
        channel: ChannelName,
        position: Position,
        sender: Option<SenderId>,
        content: Content,
        time: Timestamp,
    ) -> Message {
        Message {
            channel,
            epoch: position.epoch,
            offset: position.offset,
            sender,
            event: None,
            content,
            audience: Audience::Channel,
            extras: None,
            time,
            is_retained: false,
            frames: Frames::default(),
        }
    }

    /// The same with an event name; `message` is the default one.
    #[must_use]
    pub fn with_event(mut self, event: &str) -> Message {
        self.event = event_name(event);
        self
    }

    /// The same for these senders alone.
    #[must_use]
    pub fn with_receivers(mut self, receivers: impl Into<Box<[SenderId]>>) -> Message {
        self.audience = Audience::Senders(receivers.into());
        self
    }

    /// The same with something beside the content; see [`Publish::extras`].
    ///
    /// [`Publish::extras`]: crate::Publish::extras
    #[must_use]
    pub fn with_extras(mut self, extras: Bytes) -> Message {
        self.extras = Some(Box::new(extras));
        self
    }

    /// The same in no log: holding it keeps its content in memory, and nothing
    /// that follows it.
    #[must_use]
    pub fn detached_copy(&self) -> Message {
        Message {
            channel: self.channel.clone(),
            epoch: self.epoch,
            offset: self.offset,
            sender: self.sender,
            event: self.event.clone(),
            content: self.content.clone(),
            extras: self.extras.clone(),
            audience: self.audience.clone(),
            time: self.time,
            is_retained: false,
            frames: Frames::default(),
        }
    }

    /// The channel that it was published on.
    pub fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// Where it stands in its channel.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.offset }
    }

    /// Who published it; none when nobody who is registered did.
    pub fn sender(&self) -> Option<SenderId> {
        self.sender
    }

    /// The event name, when it is not the default `message`.
    pub fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }

    /// The content.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// What the publisher's protocol put beside the content. Which protocol that
    /// was is not kept: a format shows it only if it can tell its own.
    pub fn extras(&self) -> Option<&Bytes> {
        self.extras.as_deref()
    }

    /// Who it is for.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Whether it is for named senders only.
    pub fn is_direct(&self) -> bool {
        matches!(self.audience, Audience::Senders(_))
    }

    /// When the hub took it.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Whether a new subscriber gets it as what its channel retains: its position is
    /// then not where the subscriber is, but may be far behind.
    pub fn is_retained(&self) -> bool {
        self.is_retained
    }

    /// What it counts for where bytes are limited, without its place.
    pub(crate) fn bytes(&self) -> u64 {
        let event = self.event.as_ref().map_or(0, |event| event.len());
        let extras = self.extras.as_ref().map_or(0, |extras| extras.len());
        (self.content.bytes().len() + event + extras) as u64
    }

    /// This message in `format`: encoded by the first who asks, shared by the
    /// others.
    pub fn frame(&self, format: &dyn Format) -> &Bytes {
        self.frames.get_or_make(format.id(), || {
            let mut out = BytesMut::new();
            format.encode(self, &mut out);
            out.freeze()
        })
    }

    /// Appends this message in `format` to `out`, without keeping the frame.
    pub(crate) fn write_frame(&self, format: &dyn Format, out: &mut BytesMut) {
        match self.frames.find(format.id()) {
            Some(frame) => out.extend_from_slice(frame),
            None => format.encode(self, out),
        }
    }

    /// Keeps what [`write_frame`](Self::write_frame) wrote.
    pub(crate) fn keep_frame(&self, format: &dyn Format, frame: impl Fn() -> Bytes) {
        self.frames.get_or_make(format.id(), frame);
    }
}

/// The nesting depth of valid JSON.
fn json_depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let (mut in_string, mut escaped) = (false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// An event name as it is kept: the default one takes no memory.
pub(crate) fn event_name(event: &str) -> Option<Box<str>> {
    (event != "message").then(|| event.into())
}

/// A wire format: what a message looks like to the subscribers that speak it.
///
/// Pure: the frame depends on the message alone, since it is made once and
/// shared by all subscribers of the format. A message that the format cannot
/// show gives an empty frame, which is not sent.
pub trait Format: Send + Sync {
    /// Tells formats apart. No two formats of one hub share an id.
    fn id(&self) -> FormatId;

    /// Appends the whole frame of `message` to `out`.
    fn encode(&self, message: &Message, out: &mut BytesMut);
}

/// The identity of a [`Format`]: a number below 64 of its own.
///
/// The formats of this project take the numbers below 32, each declared in its
/// protocol's folder; the formats of a program that embeds the server take the
/// rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FormatId(u8);

impl FormatId {
    /// The format of that number.
    ///
    /// # Panics
    ///
    /// When the number is 64 or above; in a constant that is a compile error.
    pub const fn new(number: u8) -> FormatId {
        assert!(number < 64, "format numbers are below 64");
        FormatId(number)
    }

    /// The one bit that stands for this format in a set of formats.
    pub(crate) fn bit(self) -> u64 {
        1 << self.0
    }
}

/// The frames made so far: a list that only grows, one link a format.
///
/// Invariant: no two links have the same format.
#[derive(Debug, Default)]
pub(crate) struct Frames(OnceLock<Box<FrameLink>>);

#[derive(Debug)]
struct FrameLink {
    format: FormatId,
    frame: Bytes,
    next: Frames,
}

impl Frames {
    fn find(&self, format: FormatId) -> Option<&Bytes> {
        let mut link = self.0.get()?;
        while link.format != format {
            link = link.next.0.get()?;
        }
        Some(&link.frame)
    }

    /// The frame of `format`, made with `make` if it is not there. Who comes
    /// second waits for the first, so that it is made once.
    fn get_or_make(&self, format: FormatId, make: impl Fn() -> Bytes) -> &Bytes {
        let mut frames = self;
        loop {
            let link = frames
                .0
                .get_or_init(|| Box::new(FrameLink { format, frame: make(), next: Frames::default() }));
            if link.format == format {
                return &link.frame;
            }
            frames = &link.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_one_value_of_bounded_depth_kept_byte_for_byte() {
        let kept = |json: &str| Content::json(json.to_owned()).map(|c| c.bytes().clone());
        assert_eq!(kept(" {\"b\":1, \"a\":[]} ").unwrap(), " {\"b\":1, \"a\":[]} ");
        assert_eq!(kept("1 2"), None);
        assert_eq!(kept("{"), None);
        assert_eq!(kept(r#""[[\"[[""#).unwrap(), r#""[[\"[[""#);
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(kept(&nested(JSON_DEPTH_MAX)).is_some());
        assert!(kept(&nested(JSON_DEPTH_MAX + 1)).is_none());
        assert!(kept(&nested(100_000)).is_none());
    }

    #[test]
    fn json_is_utf8_in_its_strings_too() {
        // What skips a string does not look at its bytes.
        for bytes in [&b"\"\xa5\xff\""[..], b"{\"\xff\":1}", b"[\"a\", \"\xc3\"]"] {
            assert_eq!(Content::json(bytes), None, "{}", bytes.escape_ascii());
        }
        assert!(Content::json("\"\u{e9}\"").is_some());
    }

    #[test]
    fn bytes_of_a_protocol_that_does_not_say_are_text_when_they_are_utf8() {
        // [model: projection]
        assert_eq!(Content::sniff(&b"h\xc3\xa9"[..]).kind(), ContentKind::Text);
        assert_eq!(Content::sniff(&b"h\xc3"[..]).kind(), ContentKind::Binary);
    }

    struct Counting(u8, std::sync::atomic::AtomicUsize);

    impl Format for Counting {
        fn id(&self) -> FormatId {
            FormatId::new(self.0)
        }

        fn encode(&self, message: &Message, out: &mut BytesMut) {
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            out.extend_from_slice(&[self.0]);
            out.extend_from_slice(message.content().bytes());
        }
    }

    #[test]
    fn a_message_is_encoded_once_per_format_and_only_when_asked() {
        let formats = [b'1', b'2', b'3'].map(|id| Counting(id, 0.into()));
        let position = Position { epoch: Epoch::from_bits(1), offset: 1 };
        let message = Message::detached(5.into(), position, None, Content::text("x"), Timestamp::default());
        for _ in 0..3 {
            assert_eq!(message.frame(&formats[0]), "1x");
            assert_eq!(message.frame(&formats[2]), "3x");
        }
        let counts = formats.map(|format| format.1.into_inner());
        assert_eq!(counts, [1, 0, 1]);
    }
}
