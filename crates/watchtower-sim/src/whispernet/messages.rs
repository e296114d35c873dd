//! The messages of a run, each with a number: plain peers read an object once
//! for all of them.

use bytes::Bytes;
use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::network::{HostId, host_at};

/// A message's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct MessageId(pub(super) usize);

#[derive(Default)]
pub(super) struct Messages {
    by_id: FxHashMap<String, MessageId>,
    by_object: FxHashMap<Bytes, Option<MessageId>>,
    read: Vec<Option<Read>>,
}

/// What a plain peer makes of a message.
struct Read {
    origin: Option<HostId>,
    stripped: Bytes,
    length: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Object {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    addr: String,
    body: String,
}

impl Messages {
    /// The message of that id.
    pub(super) fn named(&mut self, id: &str) -> MessageId {
        if let Some(message) = self.by_id.get(id) {
            return *message;
        }
        let message = MessageId(self.read.len());
        self.by_id.insert(id.to_owned(), message);
        self.read.push(None);
        message
    }

    /// The message in an object; `None` for an object without a `Body`.
    pub(super) fn read(&mut self, object: &Bytes) -> Option<MessageId> {
        if let Some(message) = self.by_object.get(object) {
            return *message;
        }
        let parsed: Option<Object> = serde_json::from_slice(object).ok();
        let message = parsed.map(|Object { id, addr, body }| {
            let message = self.named(&id);
            let stripped = serde_json::json!({"ID": id, "Addr": addr, "Body": body}).to_string().into();
            let origin = addr.parse().ok().map(host_at);
            let length = object.len() as u64;
            // As it was said: what comes later may have lost some of it.
            self.read[message.0].get_or_insert(Read { origin, stripped, length });
            message
        });
        // Others than messages are many, and never come twice.
        if message.is_some() {
            self.by_object.insert(object.clone(), message);
        }
        message
    }

    /// The host at `Addr` of one that was read.
    pub(super) fn origin(&self, message: MessageId) -> Option<HostId> {
        self.read[message.0].as_ref().and_then(|read| read.origin)
    }

    /// How long one that was read was, as it was said.
    pub(super) fn length(&self, message: MessageId) -> u64 {
        self.read[message.0].as_ref().map_or(0, |read| read.length)
    }

    /// One that was read, with three keys alone.
    pub(super) fn stripped(&self, message: MessageId) -> Bytes {
        self.read[message.0].as_ref().map(|read| read.stripped.clone()).unwrap_or_default()
    }
}
