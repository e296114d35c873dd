//! Changes as bytes: what is inside a frame. All numbers are little-endian.
//!
//! Knows nothing of files. Whatever the bytes are, reading them neither panics
//! nor takes more memory than they have.

use bytes::Bytes;
use watchtower_hub::{
    Audience, ChannelName, Content, ContentKind, Epoch, Message, Position, SenderId, Timestamp,
};

use crate::state::{Log, Step};
use crate::{Callback, Key, Record};

const MESSAGE: u8 = 1;
const LOG: u8 = 2;
const NO_LOG: u8 = 3;
const RECORD: u8 = 4;
const NO_RECORD: u8 = 5;

/// What stands for a length where there is nothing, not even an empty text.
const NONE: u32 = u32::MAX;

/// What a frame of a message says before its content, for those who only look
/// for its place.
#[derive(Debug)]
pub(crate) struct Outline {
    pub(crate) channel: ChannelName,
    pub(crate) epoch: Epoch,
    pub(crate) offset: u64,
    /// The bytes of all messages before it in its log.
    pub(crate) before: u64,
    pub(crate) time: Timestamp,
    /// The bytes that it counts for itself.
    pub(crate) bytes: u64,
}

/// What is in a frame.
#[derive(Debug)]
pub(crate) enum Payload {
    Message(Outline),
    /// Anything else, with the key that says which frames are about the same.
    Meta(Box<[u8]>),
}

/// Appends the bytes of a step.
pub(crate) fn encode(step: &Step, out: &mut Vec<u8>) {
    match step {
        Step::Append(message, before) => encode_message(message, *before, out),
        Step::Log(channel, Some(log)) => {
            out.push(LOG);
            put_name(channel, out);
            for number in
                [log.epoch.to_bits(), log.first, log.next, log.dropped, log.total, log.oldest.as_millis()]
            {
                put_u64(number, out);
            }
        }
        Step::Log(channel, None) => {
            out.push(NO_LOG);
            put_name(channel, out);
        }
        Step::Put(record) => {
            out.push(RECORD);
            put_key(&record.key(), out);
            put_value(record, out);
        }
        Step::Delete(key) => {
            out.push(NO_RECORD);
            put_key(key, out);
        }
    }
}

/// Appends the bytes of a message, `before` which there are those of its log.
pub(crate) fn encode_message(message: &Message, before: u64, out: &mut Vec<u8>) {
    out.push(MESSAGE);
    put_name(message.channel(), out);
    for number in [message.position().epoch.to_bits(), message.position().offset, before] {
        put_u64(number, out);
    }
    put_u64(message.time().as_millis(), out);
    put_u32(message.sender().map_or(0, SenderId::get), out);
    out.push(match message.content().kind() {
        ContentKind::Text => 0,
        ContentKind::Json => 1,
        ContentKind::Binary => 2,
    });
    put_some(message.event().map(str::as_bytes), out);
    put_some(message.extras().map(|extras| &extras[..]), out);
    match message.audience() {
        Audience::Channel => put_u32(NONE, out),
        Audience::Senders(senders) => {
            put_u32(senders.len() as u32, out);
            senders.iter().for_each(|sender| put_u32(sender.get(), out));
        }
    }
    out.extend_from_slice(message.content().bytes());
}

/// What a payload is; `None` when it is nothing that [`encode`] wrote.
pub(crate) fn look(payload: &[u8]) -> Option<Payload> {
    let mut input = Input(payload);
    match input.u8()? {
        MESSAGE => Some(Payload::Message(outline(&mut input)?.0)),
        tag => {
            let from = payload.len() - input.0.len();
            match tag {
                LOG | NO_LOG => drop(input.name()?),
                RECORD | NO_RECORD => drop(input.key()?),
                _ => return None,
            }
            let key = &payload[from..payload.len() - input.0.len()];
            // A log and a record may have the same bytes.
            let kind = if matches!(tag, LOG | NO_LOG) { LOG } else { RECORD };
            Some(Payload::Meta([&[kind], key].concat().into()))
        }
    }
}

/// Whether a payload that is no message says that something is gone.
pub(crate) fn is_gone(payload: &[u8]) -> bool {
    matches!(payload.first(), Some(&NO_LOG | &NO_RECORD))
}

/// Reads the payload of a message.
pub(crate) fn decode_message(payload: &[u8]) -> Option<(Message, Outline)> {
    let mut input = Input(payload);
    if input.u8()? != MESSAGE {
        return None;
    }
    let (outline, rest) = outline(&mut input)?;
    let content = Bytes::copy_from_slice(rest.content);
    let content = match rest.kind {
        ContentKind::Text => Content::text(String::from_utf8(content.into()).ok()?),
        ContentKind::Json => Content::json(content)?,
        ContentKind::Binary => Content::binary(content),
    };
    let position = Position { epoch: outline.epoch, offset: outline.offset };
    let mut message =
        Message::detached(outline.channel.clone(), position, rest.sender, content, outline.time);
    if let Some(event) = rest.event {
        message = message.with_event(event);
    }
    if let Some(extras) = rest.extras {
        message = message.with_extras(Bytes::copy_from_slice(extras));
    }
    if let Some(receivers) = rest.receivers {
        message = message.with_receivers(receivers);
    }
    Some((message, outline))
}

/// What [`Outline`] leaves out.
struct Rest<'a> {
    sender: Option<SenderId>,
    kind: ContentKind,
    event: Option<&'a str>,
    extras: Option<&'a [u8]>,
    receivers: Option<Vec<SenderId>>,
    content: &'a [u8],
}

fn outline<'a>(input: &mut Input<'a>) -> Option<(Outline, Rest<'a>)> {
    let channel = input.name()?;
    let epoch = Epoch::from_bits(input.u64()?);
    let (offset, before) = (input.u64()?, input.u64()?);
    let time = Timestamp::from_millis(input.u64()?);
    let sender = SenderId::new(input.u32()?);
    let kind = match input.u8()? {
        0 => ContentKind::Text,
        1 => ContentKind::Json,
        2 => ContentKind::Binary,
        _ => return None,
    };
    let event = input.some()?;
    let event = event.map(std::str::from_utf8).transpose().ok()?;
    let extras = input.some()?;
    let receivers = match input.u32()? {
        NONE => None,
        count => {
            let ids = input.take(usize::try_from(count).ok()?.checked_mul(4)?)?;
            let mut ids = Input(ids);
            Some(std::iter::from_fn(|| SenderId::new(ids.u32()?)).collect::<Vec<_>>())
        }
    };
    let content = std::mem::take(&mut input.0);
    let beside = event.map_or(0, str::len) + extras.map_or(0, <[u8]>::len);
    let bytes = (content.len() + beside) as u64;
    let rest = Rest { sender, kind, event, extras, receivers, content };
    Some((Outline { channel, epoch, offset, before, time, bytes }, rest))
}

/// Reads the payload of anything but a message.
pub(crate) fn decode_meta(payload: &[u8]) -> Option<Step> {
    let mut input = Input(payload);
    let step = match input.u8()? {
        LOG => {
            let channel = input.name()?;
            let epoch = Epoch::from_bits(input.u64()?);
            let [first, next, dropped, total, oldest] =
                [input.u64()?, input.u64()?, input.u64()?, input.u64()?, input.u64()?];
            let oldest = Timestamp::from_millis(oldest);
            Step::Log(channel, Some(Log { epoch, first, next, dropped, total, oldest }))
        }
        NO_LOG => Step::Log(input.name()?, None),
        RECORD => {
            let key = input.key()?;
            Step::Put(input.value(key)?)
        }
        NO_RECORD => Step::Delete(input.key()?),
        _ => return None,
    };
    input.0.is_empty().then_some(step)
}

/// Reads a payload and writes it anew; `None` when it is none. For fuzzing.
#[cfg(feature = "fuzzing")]
pub fn read_and_write(payload: &[u8]) -> Option<Vec<u8>> {
    let step = match look(payload)? {
        Payload::Message(_) => {
            let (message, outline) = decode_message(payload)?;
            Step::Append(message, outline.before)
        }
        Payload::Meta(_) => decode_meta(payload)?,
    };
    let mut out = Vec::new();
    encode(&step, &mut out);
    Some(out)
}

fn put_key(key: &Key, out: &mut Vec<u8>) {
    out.push(key.kind() as u8);
    match key {
        Key::Sender(id) => put_u32(id.get(), out),
        Key::Join(id, channel) => {
            put_u32(id.get(), out);
            put_name(channel, out);
        }
        Key::Callback(id) => out.extend_from_slice(id),
        Key::Value(name) => put_some(Some(name.as_bytes()), out),
    }
}

fn put_value(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Sender { last_active, .. } => put_u64(last_active.as_millis(), out),
        Record::Join { since, standing, .. } => {
            put_u64(since.as_millis(), out);
            out.push(u8::from(*standing));
        }
        Record::Callback(callback) => {
            put_u32(callback.sender.get(), out);
            put_some(Some(callback.url.as_bytes()), out);
            for (channel, position) in &callback.channels {
                put_name(channel, out);
                put_u64(position.epoch.to_bits(), out);
                put_u64(position.offset, out);
            }
        }
        Record::Value { bytes, .. } => out.extend_from_slice(bytes),
    }
}

pub(crate) fn put_u32(number: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes());
}

pub(crate) fn put_u64(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes());
}

pub(crate) fn put_name(channel: &ChannelName, out: &mut Vec<u8>) {
    let at = out.len();
    out.push(0);
    out.extend_from_slice(channel.to_string().as_bytes());
    // A name has at most 128 bytes.
    out[at] = (out.len() - at - 1) as u8;
}

fn put_some(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    match bytes {
        None => put_u32(NONE, out),
        Some(bytes) => {
            put_u32(bytes.len() as u32, out);
            out.extend_from_slice(bytes);
        }
    }
}

/// Bytes that are yet to be read.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self, length: usize) -> Option<&'a str> {
        std::str::from_utf8(self.take(length)?).ok()
    }

    pub(crate) fn name(&mut self) -> Option<ChannelName> {
        let length = self.u8()?;
        ChannelName::parse(self.text(length.into())?).ok()
    }

    /// What may not be there.
    fn some(&mut self) -> Option<Option<&'a [u8]>> {
        match self.u32()? {
            NONE => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }

    fn some_text(&mut self) -> Option<Box<str>> {
        Some(std::str::from_utf8(self.some()??).ok()?.into())
    }

    fn key(&mut self) -> Option<Key> {
        Some(match self.u8()? {
            0 => Key::Sender(SenderId::new(self.u32()?)?),
            1 => Key::Join(SenderId::new(self.u32()?)?, self.name()?),
            2 => Key::Callback(self.array()?),
            3 => Key::Value(self.some_text()?),
            _ => return None,
        })
    }

    fn value(&mut self, key: Key) -> Option<Record> {
        Some(match key {
            Key::Sender(id) => Record::Sender { id, last_active: Timestamp::from_millis(self.u64()?) },
            Key::Join(sender, channel) => {
                let since = Timestamp::from_millis(self.u64()?);
                let standing = match self.u8()? {
                    0 => false,
                    1 => true,
                    _ => return None,
                };
                Record::Join { sender, channel, since, standing }
            }
            Key::Callback(id) => {
                let sender = SenderId::new(self.u32()?)?;
                let url = self.some_text()?;
                let mut channels = Vec::new();
                while !self.0.is_empty() {
                    let channel = self.name()?;
                    let epoch = Epoch::from_bits(self.u64()?);
                    channels.push((channel, Position { epoch, offset: self.u64()? }));
                }
                Record::Callback(Callback { id, sender, url, channels })
            }
            Key::Value(name) => {
                Record::Value { name, bytes: Bytes::copy_from_slice(std::mem::take(&mut self.0)) }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> Message {
        let position = Position { epoch: Epoch::from_bits(7), offset: 3 };
        let content = Content::json("{\"a\":1}".to_owned()).unwrap();
        let time = Timestamp::from_millis(5);
        Message::detached(ChannelName::parse("a").unwrap(), position, SenderId::new(9), content, time)
            .with_event("e")
            .with_extras(Bytes::from_static(b"xy"))
            .with_receivers([SenderId::new(1).unwrap()])
    }

    #[test]
    fn a_message_has_these_bytes_and_is_read_from_them() {
        let mut bytes = Vec::new();
        encode(&Step::Append(message(), 100), &mut bytes);
        let expected = b"\x01\x01a\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x64\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\
            \x09\0\0\0\x01\x01\0\0\0e\x02\0\0\0xy\x01\0\0\0\x01\0\0\0{\"a\":1}";
        assert_eq!(bytes, expected);
        let (read, outline) = decode_message(&bytes).unwrap();
        assert_eq!((outline.before, outline.bytes, outline.offset), (100, 10, 3));
        let mut again = Vec::new();
        encode(&Step::Append(read, 100), &mut again);
        assert_eq!(again, bytes);
    }

    #[test]
    fn records_and_logs_are_read_as_they_were_written() {
        let sender = SenderId::new(5).unwrap();
        let channel = ChannelName::from(5);
        let position = Position { epoch: Epoch::from_bits(1), offset: 2 };
        let time = Timestamp::from_millis(8);
        let channels = vec![(channel.clone(), position), (ChannelName::parse("x").unwrap(), position)];
        let callback = Callback { id: [3; 16], sender, url: "http://a/".into(), channels };
        let records = [
            Record::Sender { id: sender, last_active: time },
            Record::Join { sender, channel: channel.clone(), since: time, standing: true },
            Record::Callback(callback),
            Record::Value { name: "secret".into(), bytes: Bytes::from_static(b"\0\xff") },
        ];
        let deleted = records.iter().map(|record| Step::Delete(record.key())).collect::<Vec<_>>();
        let logs = [Step::Log(channel.clone(), Some(Log::new(position.epoch))), Step::Log(channel, None)];
        for step in records.into_iter().map(Step::Put).chain(deleted).chain(logs) {
            let mut bytes = Vec::new();
            encode(&step, &mut bytes);
            assert_eq!(format!("{:?}", decode_meta(&bytes).unwrap()), format!("{step:?}"));
            assert!(matches!(look(&bytes), Some(Payload::Meta(_))), "{step:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), tag in 0u8..7) {
            let payload = [&[tag][..], &bytes].concat();
            let _ = (look(&payload), decode_message(&payload), decode_meta(&payload));
        }
    }
}
