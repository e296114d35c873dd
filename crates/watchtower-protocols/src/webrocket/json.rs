//! WebRocket's own codec: JSON in text messages.
//!
//! Knows how things are written, not whether they are allowed. What a publisher
//! wrote as `data` and as further fields is never turned into values: it goes
//! through as it came, within what subscribers' parsers can be trusted with.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, BytesMut};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use watchtower_hub::{Content, ContentKind, Joined, Position, Presence};

use super::{Access, Codec, Command, CommandName, Event, Malformed, Publication, Reply, Since};
use crate::json::{write_base64, write_string, write_text, write_time};
use crate::websocket::{Incoming, MessageKind, Outgoing};

/// How many fields an object may have that is read here: a command, and what a
/// command is given. Each is compared with all others.
pub(super) const FIELDS_MAX: usize = 64;

/// The fields of an event that are not the publisher's to add.
const RESERVED: [&str; 4] = ["event", "channel", "data", "encoding"];

/// Commands, replies and events as JSON objects in text messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

impl Codec for Json {
    fn decode<'a>(&self, message: Incoming<'a>) -> Result<Command<'a>, Malformed> {
        let no_command = Malformed { command: None };
        // [webrocket: binary messages]
        let Incoming::Text(text) = message else { return Err(no_command) };
        let Fields(fields) = serde_json::from_str(text).map_err(|_| no_command)?;
        // [webrocket: exactly one key]
        let [(name, argument)] = fields.as_slice() else { return Err(no_command) };
        let name = CommandName::parse(name).ok_or(no_command)?;
        command(name, argument).ok_or(Malformed { command: Some(name) })
    }

    fn reply<'a>(&self, reply: &Reply, room: &'a mut BytesMut) -> Outgoing<'a> {
        match reply {
            // By far the most.
            Reply::Ok => return Outgoing::Text(r#"{"ok": true}"#),
            Reply::Subscribed(Joined { position, recovered }) => write_text(
                room,
                format_args!(r#"{{"ok": true, "recovered": {recovered}, "position": "{position}"}}"#),
            ),
            Reply::Present { first, count } => write_present(first, *count, room),
            Reply::Error(code) => write_text(room, format_args!(r#"{{"err": "{}"}}"#, code.name())),
        }
        Outgoing::Text(std::str::from_utf8(room).unwrap_or_default())
    }

    /// The publish object itself ([webrocket: events]), with any further
    /// fields behind the known ones.
    fn encode(&self, event: &Event<'_>, out: &mut BytesMut) -> MessageKind {
        out.extend_from_slice(b"{\"event\": ");
        write_string(event.event, out);
        out.extend_from_slice(b", \"channel\": ");
        write_string(event.channel, out);
        out.extend_from_slice(b", \"data\": ");
        write_content(event.content, out);
        if let Some(position) = event.position {
            write_text(out, format_args!(r#", "position": "{position}""#));
        }
        if let Some(extras) = event.extras {
            write_extras(extras, event.position.is_some(), out);
        }
        out.put_u8(b'}');
        MessageKind::Text
    }
}

/// The command of that name with that argument, if it may have it.
fn command<'a>(name: CommandName, argument: &'a RawValue) -> Option<Command<'a>> {
    match name {
        // Neither is there a way to take it back: `false` says nothing.
        CommandName::Logout => (argument.get() == "true").then_some(Command::Logout),
        CommandName::Disconnect => (argument.get() == "true").then_some(Command::Disconnect),
        CommandName::Auth => {
            let fields = Fields::of(argument)?;
            let access = string(fields.get("access")?)?.parse().ok();
            let access = access.filter(|access| *access != Access::None)?;
            Some(Command::Auth { access, secret: string(fields.get("secret")?)? })
        }
        CommandName::Subscribe => {
            let fields = Fields::of(argument)?;
            let since = match fields.get("since") {
                Some(since) => Some(read_since(since)?),
                None => None,
            };
            Some(Command::Subscribe { channel: string(fields.get("channel")?)?, since })
        }
        CommandName::Unsubscribe => Some(Command::Unsubscribe { channel: channel(argument)? }),
        CommandName::Presence => Some(Command::Presence { channel: channel(argument)? }),
        CommandName::Publish => publication(&Fields::of(argument)?).map(Command::Publish),
    }
}

fn channel(argument: &RawValue) -> Option<Cow<'_, str>> {
    string(Fields::of(argument)?.get("channel")?)
}

fn publication<'a>(fields: &Fields<'a>) -> Option<Publication<'a>> {
    Some(Publication {
        channel: string(fields.get("channel")?)?,
        event: string(fields.get("event")?)?,
        content: content(fields.get("data")?, fields.get("encoding"))?,
        extras: further_fields(fields)?.map(BytesMut::freeze),
    })
}

/// [model: projection]
fn content(data: &RawValue, encoding: Option<&RawValue>) -> Option<Content> {
    if let Some(encoding) = encoding {
        let is_base64 = string(encoding)? == "base64";
        let bytes = BASE64.decode(string(data)?.as_bytes()).ok()?;
        return is_base64.then(|| Content::binary(bytes));
    }
    if data.get().starts_with('"') {
        return string(data).map(Content::text);
    }
    Content::json(data.get().to_owned())
}

/// What a publisher put beside the known fields, in the order it did: the
/// members of an object, without its braces.
///
/// Refused, as `None`, is what could mislead a subscriber: a field that differs
/// from a known one in case alone, which some parsers take for the same, and
/// one that is nested deeper than content may be.
fn further_fields(fields: &Fields<'_>) -> Option<Option<BytesMut>> {
    let mut members = BytesMut::new();
    for (name, value) in &fields.0 {
        if RESERVED.contains(&&**name) {
            continue;
        }
        let is_lookalike = RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name));
        if is_lookalike || Content::json(value.get().to_owned()).is_none() {
            return None;
        }
        if !members.is_empty() {
            members.extend_from_slice(b", ");
        }
        members.extend_from_slice(&member(name, value));
    }
    Some((!members.is_empty()).then_some(members))
}

fn write_present(first: &[Presence], count: usize, out: &mut BytesMut) {
    write_text(out, format_args!(r#"{{"ok": true, "count": {count}, "presence": ["#));
    for (index, Presence { sender, protocol, since }) in first.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        write_text(out, format_args!(r#"{separator}{{"id": {sender}, "protocol": "#));
        write_string(protocol, out);
        out.extend_from_slice(b", \"since\": ");
        write_time(*since, out);
        out.put_u8(b'}');
    }
    out.extend_from_slice(b"]}");
}

/// Where a client was, or `null` when it was nowhere yet.
fn read_since(raw: &RawValue) -> Option<Since> {
    if raw.get() == "null" {
        return Some(Since::Now);
    }
    Position::of_client(&string(raw)?).map(Since::Seen)
}

/// The further fields. One that could pass for the position beside them is left
/// out: parsers differ in which of two fields they take.
fn write_extras(extras: &[u8], has_position: bool, out: &mut BytesMut) {
    let mut separate = |member: &[u8]| {
        out.extend_from_slice(b", ");
        out.extend_from_slice(member);
    };
    if !has_position {
        separate(extras);
        return;
    }
    let object = [b"{", extras, b"}"].concat();
    let Ok(Fields(fields)) = serde_json::from_slice(&object) else { return };
    for (name, value) in &fields {
        if !name.eq_ignore_ascii_case("position") {
            separate(&member(name, value));
        }
    }
}

/// A member of an object, its value as it is.
fn member(name: &str, value: &RawValue) -> BytesMut {
    let mut member = BytesMut::new();
    write_string(name, &mut member);
    member.extend_from_slice(b": ");
    member.extend_from_slice(value.get().as_bytes());
    member
}

fn write_content(content: &Content, out: &mut BytesMut) {
    match content.kind() {
        ContentKind::Text => write_string(content.as_text().unwrap_or_default(), out),
        ContentKind::Json => out.extend_from_slice(content.bytes()),
        ContentKind::Binary => {
            out.put_u8(b'"');
            write_base64(content.bytes(), out);
            out.extend_from_slice(b"\", \"encoding\": \"base64\"");
        }
    }
}

/// The text of a JSON string; `None` for anything else.
fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

/// A string, borrowed where it holds no escape.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The fields of an object in the order in which they came, their names
/// decoded, their values as they are.
///
/// Invariant: no name twice. Parsers differ in which of two they take, so an
/// object that has two is not read at all; nobody can show one of them to this
/// server and the other to its subscribers.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Those of an object; `None` for anything else.
    fn of(raw: &'a RawValue) -> Option<Fields<'a>> {
        serde_json::from_str(raw.get()).ok()
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of at most {FIELDS_MAX} different fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            if fields.len() == FIELDS_MAX || fields.iter().any(|(other, _)| *other == name) {
                return Err(A::Error::custom("too many fields, or one twice"));
            }
            fields.push((name, map.next_value()?));
        }
        Ok(Fields(fields))
    }
}
