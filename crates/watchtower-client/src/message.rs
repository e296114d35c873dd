//! A message as a client gets it, and its JSON form both ways
//! ([http: a message in a stream]). Knows no transport.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use watchtower_hub::{ChannelName, Content, ContentKind, Epoch, Position, SenderId, Timestamp};

/// A message that a subscription got.
///
/// Packets carry no more than channel, sender, directness and bytes, WebRocket
/// channel, event and content, and the position where it was asked for; the other
/// fields come over HTTP alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The channel that it was published to.
    pub channel: ChannelName,
    /// Who published it; none when that was no registered sender.
    pub sender: Option<SenderId>,
    /// Whether it was sent to named receivers alone.
    pub direct: bool,
    /// What was published. Over packets, bytes that are UTF-8 are taken for text.
    pub content: Content,
    /// The event name, when it is not the default one.
    pub event: Option<String>,
    /// Where it stands in its channel.
    pub position: Option<Position>,
    /// When the server took it.
    pub time: Option<Timestamp>,
}

impl Message {
    /// The message as one line of JSON, in the form of Watchtower's HTTP
    /// streams; what a packet did not carry is left out.
    pub fn to_json(&self) -> String {
        let (message, encoding) = content_to_json(&self.content);
        let json = MessageJson {
            channel: ChannelJson::from(&self.channel),
            offset: self.position.map(|position| position.offset),
            epoch: self.position.map(|position| position.epoch.to_string()),
            sender: self.sender.map(SenderId::get),
            message,
            time: self.time.and_then(time_to_json),
            event: self.event.clone(),
            encoding: encoding.map(str::to_owned),
            direct: self.direct,
        };
        serde_json::to_string(&json).expect("strings, numbers and valid JSON make valid JSON")
    }

    /// Reads one line of a stream.
    ///
    /// # Errors
    /// Says what is wrong with the line, without showing its content.
    pub(crate) fn from_json(line: &[u8]) -> Result<Message, String> {
        let json: MessageJson =
            serde_json::from_slice(line).map_err(|error| format!("not a message: {error}"))?;
        Ok(Message {
            channel: json.channel.name()?,
            sender: json.sender.and_then(SenderId::new),
            direct: json.direct,
            content: content_from_json("message", &json.message, json.encoding.as_deref())?,
            event: json.event,
            position: position_from_json(json.epoch.as_deref(), json.offset)?,
            time: json.time.as_deref().map(time_from_json).transpose()?,
        })
    }
}

/// A channel in JSON: its number, or its name ([http]).
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum ChannelJson {
    Number(u32),
    Name(String),
}

impl ChannelJson {
    pub(crate) fn name(&self) -> Result<ChannelName, String> {
        match self {
            ChannelJson::Number(number) => Ok(ChannelName::from(*number)),
            ChannelJson::Name(name) => ChannelName::parse(name).map_err(|error| error.to_string()),
        }
    }
}

impl From<&ChannelName> for ChannelJson {
    fn from(channel: &ChannelName) -> Self {
        match channel.number() {
            Some(number) => ChannelJson::Number(number),
            None => ChannelJson::Name(channel.to_string()),
        }
    }
}

/// The JSON value of a content, and the `encoding` beside it ([model: projection]).
pub(crate) fn content_to_json(content: &Content) -> (Box<RawValue>, Option<&'static str>) {
    let string = |text: &str| serde_json::value::to_raw_value(text).expect("text is a JSON string");
    match (content.kind(), content.as_text()) {
        (ContentKind::Json, Some(json)) => {
            // A stream is one message a line, and white space between tokens means nothing.
            let one_line = json.replace(['\n', '\r'], " ");
            let raw = RawValue::from_string(one_line).expect("json content is valid JSON");
            (raw, None)
        }
        (ContentKind::Text, Some(text)) => (string(text), None),
        _ => (string(&BASE64.encode(content.bytes())), Some("base64")),
    }
}

/// The content that stands in a field of this name, by the `encoding` beside it.
pub(crate) fn content_from_json(
    field: &str,
    value: &RawValue,
    encoding: Option<&str>,
) -> Result<Content, String> {
    let text = serde_json::from_str::<String>(value.get());
    match (encoding, text) {
        (None, Ok(text)) => Ok(Content::text(text)),
        (None, Err(_)) => {
            Content::json(value.get().to_owned()).ok_or_else(|| format!("`{field}` is nested too deeply"))
        }
        (Some("base64"), Ok(text)) => {
            let bytes = BASE64.decode(text).map_err(|_| format!("`{field}` is not base64"))?;
            Ok(Content::binary(bytes))
        }
        (Some("base64"), Err(_)) => Err(format!("`{field}` in base64 is not a string")),
        (Some(other), _) => Err(format!("`encoding` is {other:?}; expected base64")),
    }
}

#[derive(Serialize, Deserialize)]
struct MessageJson {
    channel: ChannelJson,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sender: Option<u32>,
    message: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encoding: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    direct: bool,
}

fn position_from_json(epoch: Option<&str>, offset: Option<u64>) -> Result<Option<Position>, String> {
    let (Some(epoch), Some(offset)) = (epoch, offset) else {
        return Ok(None);
    };
    let epoch = Epoch::parse(epoch).ok_or_else(|| format!("{epoch:?} is not an epoch"))?;
    Ok(Some(Position { epoch, offset }))
}

fn time_from_json(time: &str) -> Result<Timestamp, String> {
    let parsed: jiff::Timestamp = time.parse().map_err(|_| format!("{time:?} is not a time"))?;
    let millis = u64::try_from(parsed.as_millisecond()).map_err(|_| format!("{time:?} is before 1970"))?;
    Ok(Timestamp::from_millis(millis))
}

/// None for times beyond the year 9999, which that form of writing cannot say.
fn time_to_json(time: Timestamp) -> Option<String> {
    let millis = i64::try_from(time.as_millis()).ok()?;
    let time = jiff::Timestamp::from_millisecond(millis).ok()?;
    Some(format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: &str = concat!(
        r#"{"channel":5,"offset":12,"epoch":"00000000000000ff","sender":72,"#,
        r#""message":"hi","time":"2026-11-21T10:00:00.000Z"}"#
    );

    fn check(line: &str, expected: Result<&Message, &str>) {
        let read = Message::from_json(line.as_bytes());
        assert_eq!(read.as_ref().map_err(String::as_str), expected, "{line}");
    }

    fn bare(content: Content) -> Message {
        Message {
            channel: ChannelName::from(5),
            sender: None,
            direct: false,
            content,
            event: None,
            position: None,
            time: None,
        }
    }

    #[test]
    fn a_line_of_a_stream_is_read_and_written_field_by_field() {
        let mut message = Message {
            sender: SenderId::new(72),
            position: Some(Position { epoch: Epoch::from_bits(255), offset: 12 }),
            time: Some(Timestamp::from_millis(1_795_255_200_000)),
            ..bare(Content::text("hi"))
        };
        check(FULL, Ok(&message));
        assert_eq!(message.to_json(), FULL);

        message.event = Some("greeting".to_owned());
        message.direct = true;
        let line = FULL.replace('}', r#","event":"greeting","direct":true}"#);
        check(&line, Ok(&message));
        assert_eq!(message.to_json(), line);
    }

    #[test]
    fn content_is_a_string_a_value_or_base64() {
        // [model: projection]
        let lines = [
            (r#"{"channel":5,"message":"é\n"}"#, Content::text("é\n")),
            (r#"{"channel":5,"message":{"a": [1.0]}}"#, Content::json(r#"{"a": [1.0]}"#).unwrap()),
            (r#"{"channel":5,"message":null}"#, Content::json("null").unwrap()),
            (r#"{"channel":5,"message":"/wA=","encoding":"base64"}"#, Content::binary(vec![255, 0])),
        ];
        for (line, content) in lines {
            let message = bare(content);
            check(line, Ok(&message));
            assert_eq!(message.to_json(), line);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was(
            text in ".*",
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            sender in any::<u32>(),
            direct in any::<bool>(),
            event in prop::option::of(".*"),
            offset in any::<u64>(),
            millis in 0..253_402_300_799_999_u64,
        ) {
            let json = Content::json(serde_json::to_vec(&[&text]).unwrap()).unwrap();
            for content in [Content::text(text), json, Content::binary(bytes)] {
                let message = Message {
                    sender: SenderId::new(sender),
                    direct,
                    event: event.clone(),
                    position: Some(Position { epoch: Epoch::from_bits(offset), offset }),
                    time: Some(Timestamp::from_millis(millis)),
                    ..bare(content)
                };
                let line = message.to_json();
                prop_assert!(!line.contains('\n'));
                prop_assert_eq!(Message::from_json(line.as_bytes()), Ok(message));
            }
        }

        #[test]
        fn any_line_is_read_without_a_panic(line in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Message::from_json(&line);
        }
    }

    #[test]
    fn json_of_several_lines_is_written_on_one() {
        let message = bare(Content::json("{\"a\":\r\n1}").unwrap());
        assert_eq!(message.to_json(), r#"{"channel":5,"message":{"a":  1}}"#);
    }

    #[test]
    fn a_named_channel_and_a_message_of_nobody_are_read() {
        let mut message = bare(Content::text("hi"));
        message.channel = ChannelName::parse("hello").unwrap();
        check(r#"{"channel":"hello","sender":0,"message":"hi"}"#, Ok(&message));
        check(r#"{"channel":"hello","sender":null,"message":"hi"}"#, Ok(&message));
    }

    #[test]
    fn what_is_no_message_is_refused_in_words() {
        check(r#"{"channel":5}"#, Err("not a message: missing field `message` at line 1 column 13"));
        check(
            r#"{"channel":"07","message":1}"#,
            Err("a channel name of digits is a number from 0 to 4294967295 without leading zeros"),
        );
        check(
            r#"{"channel":5,"message":"a","encoding":"hex"}"#,
            Err("`encoding` is \"hex\"; expected base64"),
        );
        check(r#"{"channel":5,"message":"?","encoding":"base64"}"#, Err("`message` is not base64"));
        check(r#"{"channel":5,"message":1,"encoding":"base64"}"#, Err("`message` in base64 is not a string"));
        check(r#"{"channel":5,"message":1,"time":"noon"}"#, Err("\"noon\" is not a time"));
        check(r#"{"channel":5,"message":1,"offset":1,"epoch":"x"}"#, Err("\"x\" is not an epoch"));
        let deep = format!("{}1{}", "[".repeat(129), "]".repeat(129));
        check(&format!(r#"{{"channel":5,"message":{deep}}}"#), Err("`message` is nested too deeply"));
    }
}
