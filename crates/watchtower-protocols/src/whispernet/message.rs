//! One object to a message, and a message that a node originates to an object.
//!
//! Knows the keys and their types ([whispernet: messages]). Whether an id was
//! seen, a hash is right or a signature holds is not known here, nor whether
//! `Addr` can be dialled.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, de};
use serde_json::value::RawValue;
use watchtower_hub::Timestamp;

use super::object::Malformed;
use super::part::FilePart;

/// A message: an object that has a `Body`.
///
/// `Debug` shows no content.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Message<'a> {
    /// Globally unique.
    #[serde(rename = "ID")]
    pub id: Cow<'a, str>,
    /// Where the sender says that it listens; any text.
    #[serde(rename = "Addr", skip_serializing_if = "Option::is_none")]
    pub addr: Option<Cow<'a, str>>,
    /// What to show, never empty.
    #[serde(rename = "Body")]
    pub body: Cow<'a, str>,
    /// Who says it, never empty.
    #[serde(rename = "Nick", skip_serializing_if = "Option::is_none")]
    pub nick: Option<Cow<'a, str>>,
    /// The number as it was sent; [`Message::time`] says what it means.
    #[serde(rename = "Timestamp", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// The MIME type of a file.
    #[serde(rename = "FileType", skip_serializing_if = "Option::is_none")]
    pub file_type: Option<Cow<'a, str>>,
    /// A file in base64, as it was sent.
    #[serde(rename = "FileContents", skip_serializing_if = "Option::is_none")]
    pub file_contents: Option<Cow<'a, str>>,
    /// A part of a file, as it was sent. A key of this name that has another
    /// form is one that is not known.
    #[serde(rename = "FilePart", skip_serializing_if = "Option::is_none")]
    pub file_part: Option<FilePart<'a>>,
    /// The sender's key in base64, as it was sent.
    #[serde(rename = "PubKey", skip_serializing_if = "Option::is_none")]
    pub pub_key: Option<Cow<'a, str>>,
    /// The signature in base64, as it was sent.
    #[serde(rename = "Sig", skip_serializing_if = "Option::is_none")]
    pub sig: Option<Cow<'a, str>>,
    /// Whether the sender understands routing ([whispernet: 14]): `true`, and
    /// any other value is none.
    #[serde(rename = "Routes", skip_serializing_if = "std::ops::Not::not")]
    pub routes: bool,
}

impl<'a> Message<'a> {
    /// Reads an object that an [`ObjectReader`](super::ObjectReader) found.
    /// `None` is one without a `Body`, or with an empty one: deployed peers do
    /// not tell these apart. Of a key that comes twice the last one counts, as
    /// with deployed peers: all show the same. A `Nick` under the key
    /// `omitempty` counts when there is no other.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for what is not JSON, a known key of a wrong type, or a
    /// `Body` without an `ID`.
    pub fn parse(object: &'a [u8]) -> Result<Option<Message<'a>>, Malformed> {
        let text = std::str::from_utf8(object).map_err(|_| Malformed::NotJson)?;
        let mut fields: Fields<'a> = serde_json::from_str(text).map_err(|_| Malformed::NotJson)?;
        if let Some(key) = fields.wrong_type {
            return Err(Malformed::WrongType { key: key.name(), expected: key.expected() });
        }
        let Some(body) = fields.text(Field::Body) else { return Ok(None) };
        let id = fields.text(Field::Id).ok_or(Malformed::NoId)?;
        if body.is_empty() {
            return Ok(None);
        }
        let nick = [Field::Nick, Field::OmitEmpty].into_iter().filter_map(|key| fields.text(key));
        Ok(Some(Message {
            id,
            body,
            nick: { nick }.find(|nick| !nick.is_empty()),
            addr: fields.text(Field::Addr),
            timestamp: fields.timestamp,
            file_type: fields.text(Field::FileType),
            file_contents: fields.text(Field::FileContents),
            file_part: fields.file_part.take(),
            pub_key: fields.text(Field::PubKey),
            sig: fields.text(Field::Sig),
            routes: fields.routes,
        }))
    }

    /// The object's bytes.
    pub fn encode(&self) -> Bytes {
        let object = serde_json::to_vec(self);
        object.expect("strings and a number are always JSON").into()
    }

    /// When it was sent, if it says: a `Timestamp` below 10^11 is in seconds,
    /// others in milliseconds ([whispernet: messages]). What is not after the
    /// Unix epoch is no time.
    pub fn time(&self) -> Option<Timestamp> {
        let number = u64::try_from(self.timestamp?).ok().filter(|number| *number > 0)?;
        Some(Timestamp::from_millis(if number < SECONDS_BELOW { number * 1_000 } else { number }))
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} bytes of body)", self.body.len())
    }
}

/// A `Timestamp` below this is in seconds.
const SECONDS_BELOW: u64 = 100_000_000_000;

/// The keys that mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Addr,
    Body,
    Nick,
    /// `Nick`, as one deployed peer spells it.
    OmitEmpty,
    FileType,
    FileContents,
    PubKey,
    Sig,
    Timestamp,
    Routes,
    FilePart,
}

impl Field {
    const TEXTS: usize = Field::Timestamp as usize;

    const ALL: [Field; Field::TEXTS + 3] = [
        Field::Id,
        Field::Addr,
        Field::Body,
        Field::Nick,
        Field::OmitEmpty,
        Field::FileType,
        Field::FileContents,
        Field::PubKey,
        Field::Sig,
        Field::Timestamp,
        Field::Routes,
        Field::FilePart,
    ];

    fn name(self) -> &'static str {
        match self {
            Field::Id => "ID",
            Field::Addr => "Addr",
            Field::Body => "Body",
            Field::Nick => "Nick",
            Field::OmitEmpty => "omitempty",
            Field::FileType => "FileType",
            Field::FileContents => "FileContents",
            Field::PubKey => "PubKey",
            Field::Sig => "Sig",
            Field::Timestamp => "Timestamp",
            Field::Routes => "Routes",
            Field::FilePart => "FilePart",
        }
    }

    fn expected(self) -> &'static str {
        if self == Field::Timestamp { "a whole number of 64 bits" } else { "a string" }
    }
}

/// The values of an object's known keys.
#[derive(Default)]
struct Fields<'a> {
    texts: [Option<Cow<'a, str>>; Field::TEXTS],
    timestamp: Option<i64>,
    routes: bool,
    file_part: Option<FilePart<'a>>,
    /// The first key that had a wrong type.
    wrong_type: Option<Field>,
}

impl<'a> Fields<'a> {
    fn text(&mut self, key: Field) -> Option<Cow<'a, str>> {
        self.texts.get_mut(key as usize)?.take()
    }

    fn set(&mut self, key: Field, value: Value<'a>) {
        // To other peers this is a key that they do not know.
        if key == Field::Routes {
            self.routes = matches!(value, Value::True);
            return;
        }
        match (self.texts.get_mut(key as usize), value) {
            (Some(text), Value::Text(value)) => *text = Some(value),
            (Some(text), Value::Null) => *text = None,
            (None, Value::Whole(number)) => self.timestamp = Some(number),
            (None, Value::Null) => self.timestamp = None,
            _ => self.wrong_type = self.wrong_type.or(Some(key)),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(KeyOrOther(key)) = map.next_key()? {
                    match key {
                        Some(Field::FilePart) => {
                            let value: &RawValue = map.next_value()?;
                            fields.file_part = serde_json::from_str(value.get()).ok();
                        }
                        Some(key) => fields.set(key, map.next_value()?),
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A key, if it is one that means something.
struct KeyOrOther(Option<Field>);

impl<'de> Deserialize<'de> for KeyOrOther {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = KeyOrOther;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<KeyOrOther, E> {
                Ok(KeyOrOther(Field::ALL.into_iter().find(|key| key.name() == name)))
            }
        }

        deserializer.deserialize_identifier(Name)
    }
}

/// What a known key may have, and what it may not.
enum Value<'a> {
    Null,
    Text(Cow<'a, str>),
    Whole(i64),
    True,
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Value<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E: Error>(self) -> Result<Value<'de>, E> {
                Ok(Value::Null)
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Value<'de>, E> {
                Ok(Value::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Value<'de>, E> {
                Ok(Value::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Value<'de>, E> {
                Ok(Value::Whole(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Value<'de>, E> {
                Ok(i64::try_from(number).map_or(Value::Other, Value::Whole))
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Value<'de>, E> {
                Ok(Value::Other)
            }

            fn visit_bool<E: Error>(self, is_true: bool) -> Result<Value<'de>, E> {
                Ok(if is_true { Value::True } else { Value::Other })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Value::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Value::Other)
            }
        }

        deserializer.deserialize_any(Any)
    }
}
