//! The last message of a channel that retains it, as a value of its own: it stays
//! when the channel's log drops it.
//!
//! Knows no rule: which message is the last is its user's to say.

use watchtower_hub::{ChannelName, Message};

use crate::disk::{decode_message, encode_message};
use crate::{Key, Kind, Record, Store};

/// What the names of these values begin with.
const PREFIX: &str = "retained/";

impl Record {
    /// This message as what its channel retains.
    pub fn retained(message: &Message) -> Record {
        let mut bytes = Vec::new();
        encode_message(message, 0, &mut bytes);
        Record::Value { name: name(message.channel()), bytes: bytes.into() }
    }

    /// The message, if that is what this is.
    pub fn as_retained(&self) -> Option<Message> {
        match self {
            Record::Value { name, bytes } if name.starts_with(PREFIX) => Some(decode_message(bytes)?.0),
            _ => None,
        }
    }
}

impl Key {
    /// Of what a channel retains.
    pub fn retained(channel: &ChannelName) -> Key {
        Key::Value(name(channel))
    }
}

fn name(channel: &ChannelName) -> Box<str> {
    format!("{PREFIX}{channel}").into()
}

/// What the channels of a store retain, each message once; a few are in memory at
/// a time. Does not wait.
pub fn retained(store: &dyn Store) -> impl Iterator<Item = Message> {
    const AT_ONCE: usize = 256;
    let mut after = Key::Value(PREFIX.into());
    let pages = std::iter::from_fn(move || {
        let mut page = store.records(Kind::Value, Some(&after), AT_ONCE);
        page.retain(|record| matches!(record, Record::Value { name, .. } if name.starts_with(PREFIX)));
        after = page.last()?.key();
        Some(page)
    });
    pages.flatten().filter_map(|record| record.as_retained())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use watchtower_hub::{Content, Epoch, Position, SenderId, Timestamp};

    use super::*;
    use crate::{Change, MemoryStore};

    fn message(channel: &ChannelName) -> Message {
        let position = Position { epoch: Epoch::from_bits(7), offset: 9 };
        let content = Content::json(Bytes::from_static(b"{\"t\":21.5}")).unwrap();
        Message::detached(channel.clone(), position, SenderId::new(3), content, Timestamp::from_millis(5))
            .with_event("t")
            .with_extras(Bytes::from_static(b"extras"))
    }

    #[test]
    fn each_is_found_by_its_channel_and_among_all_and_is_as_it_was() {
        let store = MemoryStore::new();
        let mut channels: Vec<_> = (0..600).map(ChannelName::from).collect();
        channels.push(ChannelName::parse("retained/x").unwrap());
        let others = ["a", "retained", "retained0", "z"];
        let others = others.map(|name| Record::Value { name: name.into(), bytes: Bytes::new() });
        let all = channels.iter().map(|channel| Record::retained(&message(channel))).chain(others);
        store.commit(all.map(Change::Put).collect()).wait().unwrap();
        for channel in &channels {
            let found = store.record(&Key::retained(channel)).unwrap().as_retained().unwrap();
            assert_eq!(format!("{found:?}"), format!("{:?}", message(channel)));
            assert_eq!(found.content(), message(channel).content());
            assert_eq!(found.extras(), message(channel).extras());
        }
        let mut found: Vec<_> = retained(&store).map(|message| message.channel().clone()).collect();
        found.sort();
        channels.sort();
        assert_eq!(found, channels);
    }
}
