//! One message as JSON, and as a frame of each form of stream.
//!
//! Written straight into the frame: no value in between. What is written never
//! holds a raw CR or LF, so that it is one line of NDJSON and one `data:` of
//! SSE, whatever was published.

use bytes::{BufMut, BytesMut};
use watchtower_hub::{ChannelName, Content, ContentKind, Format, FormatId, Message, Position};

use super::framing::Chunked;
use crate::byline;
pub use crate::json::write_time;
use crate::json::{write_base64, write_string, write_text};

/// Messages as lines of JSON.
pub(super) static NDJSON: Ndjson = Ndjson;
/// The same in chunks.
pub(super) static NDJSON_CHUNKED: Chunked<Ndjson> = Chunked::new(FormatId::new(2), Ndjson);
/// Messages as Server-Sent Events.
pub(super) static SSE: Sse = Sse;
/// The same in chunks.
pub(super) static SSE_CHUNKED: Chunked<Sse> = Chunked::new(FormatId::new(4), Sse);

/// Appends the JSON of a message ([http: messages]): on one line, without its
/// end.
pub fn write_message(message: &Message, out: &mut BytesMut) {
    let Position { epoch, offset } = message.position();
    out.extend_from_slice(b"{\"channel\":");
    write_channel(message.channel(), out);
    out.extend_from_slice(b",\"offset\":");
    write_number(offset, out);
    write_text(out, format_args!(",\"epoch\":\"{epoch}\""));
    out.extend_from_slice(b",\"sender\":");
    write_number(message.sender().map_or(0, |sender| sender.get().into()), out);
    if let Some(nick) = byline::nick(message) {
        out.extend_from_slice(b",\"nick\":");
        write_string(nick, out);
    }
    if let Some(event) = message.event() {
        out.extend_from_slice(b",\"event\":");
        write_string(event, out);
    }
    out.extend_from_slice(b",\"message\":");
    write_content(message.content(), out);
    if message.is_direct() {
        out.extend_from_slice(b",\"direct\":true");
    }
    out.extend_from_slice(b",\"time\":");
    write_time(message.time(), out);
    out.put_u8(b'}');
}

/// Appends the JSON of a channel: a number, or a string for a named one.
pub fn write_channel(channel: &ChannelName, out: &mut BytesMut) {
    match (channel.number(), channel.text()) {
        (Some(number), _) => write_number(number.into(), out),
        (None, text) => write_string(text.unwrap_or_default(), out),
    }
}

/// [model: projection]
fn write_content(content: &Content, out: &mut BytesMut) {
    match content.kind() {
        ContentKind::Text => write_string(content.as_text().unwrap_or_default(), out),
        ContentKind::Json => write_on_one_line(content.bytes(), out),
        ContentKind::Binary => {
            out.put_u8(b'"');
            write_base64(content.bytes(), out);
            out.extend_from_slice(b"\",\"encoding\":\"base64\"");
        }
    }
}

/// Appends JSON as it came, but for raw ends of lines: in JSON these are only
/// ever white space between tokens, where a space says the same.
fn write_on_one_line(json: &[u8], out: &mut BytesMut) {
    let start = out.len();
    out.extend_from_slice(json);
    for byte in &mut out[start..] {
        if matches!(*byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
}

fn write_number(number: u64, out: &mut BytesMut) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Messages as JSON, each without a line end: the body of a callback
/// ([http: callbacks]).
#[derive(Debug, Clone, Copy)]
pub struct MessageJson;

impl Format for MessageJson {
    fn id(&self) -> FormatId {
        FormatId::new(6)
    }

    fn encode(&self, message: &Message, out: &mut BytesMut) {
        write_message(message, out);
    }
}

/// A message a line ([http: channels/join]).
#[derive(Debug)]
pub(super) struct Ndjson;

impl Format for Ndjson {
    fn id(&self) -> FormatId {
        FormatId::new(1)
    }

    fn encode(&self, message: &Message, out: &mut BytesMut) {
        write_message(message, out);
        out.put_u8(b'\n');
    }
}

/// An event a message ([http: channels/join]).
///
/// The `id` is the position of this one message, since the frame is shared by
/// all who listen; a stream of several channels tells by its epoch which one
/// is meant. What is retained has none: whoever comes is told before where he is,
/// and that is not where this message stands ([http: retained]).
#[derive(Debug)]
pub(super) struct Sse;

impl Format for Sse {
    fn id(&self) -> FormatId {
        FormatId::new(3)
    }

    fn encode(&self, message: &Message, out: &mut BytesMut) {
        if !message.is_retained() {
            write_text(out, format_args!("id: {}\n", message.position()));
        }
        out.extend_from_slice(b"event: ");
        // An event name may hold anything; an end of line would end the field.
        write_on_one_line(message.event().unwrap_or("message").as_bytes(), out);
        out.extend_from_slice(b"\ndata: ");
        write_message(message, out);
        out.extend_from_slice(b"\n\n");
    }
}
