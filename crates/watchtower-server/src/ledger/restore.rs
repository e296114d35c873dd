//! Taking up senders, their joins and callback subscriptions after a restart.

use watchtower_hub::{ChannelName, Hub, KeptJoin, KeptSender, SenderId, Timestamp};
use watchtower_store::{Key, Kind, Record, Store};

use crate::callbacks::delivery::SubscriptionId;
use crate::callbacks::{self, Callbacks};

/// What was taken up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Restored {
    pub(super) senders: usize,
    pub(super) joins: usize,
    /// Joins of senders that are not there, and those beyond the limits.
    pub(super) given_up: Vec<Key>,
}

/// Gives the hub the senders of a store, each with its joins.
pub(super) fn restore(store: &dyn Store, hub: &Hub, now: Timestamp) -> Restored {
    let mut restored = Restored::default();
    // Both in the order of the senders.
    let mut joins = store.records(Kind::Join, None, usize::MAX).into_iter().filter_map(join).peekable();
    for record in store.records(Kind::Sender, None, usize::MAX) {
        let Record::Sender { id, last_active } = record else { continue };
        while let Some((of, join)) = joins.next_if(|(of, _)| *of < id) {
            restored.give_up(of, join.channel);
        }
        let mut sender = KeptSender { id, last_active, joins: Vec::new() };
        while let Some((_, join)) = joins.next_if(|(of, _)| *of == id) {
            sender.joins.push(join);
        }
        if hub.restore(&sender, now).is_err() {
            let refused = sender.joins.extract_if(.., |join| !hub.has_joined(id, &join.channel));
            refused.for_each(|join| restored.give_up(id, join.channel));
        }
        restored.senders += 1;
        restored.joins += sender.joins.len();
    }
    joins.for_each(|(of, join)| restored.give_up(of, join.channel));
    restored
}

/// Takes up a callback subscription, or says why not.
pub(super) fn restore_callback(record: Record, callbacks: &Callbacks, now: Timestamp) -> Result<(), String> {
    let Record::Callback(kept) = record else { return Ok(()) };
    let url = callbacks.parse_url(&kept.url).map_err(|error| error.to_string())?;
    let id = SubscriptionId::from_bytes(kept.id);
    let record = callbacks::Record { id, sender: kept.sender, url, channels: kept.channels };
    callbacks.restore(&record, now).map_err(|error| error.to_string())
}

impl Restored {
    fn give_up(&mut self, sender: SenderId, channel: ChannelName) {
        self.given_up.push(Key::Join(sender, channel));
    }
}

fn join(record: Record) -> Option<(SenderId, KeptJoin)> {
    match record {
        Record::Join { sender, channel, since, standing } => {
            Some((sender, KeptJoin { channel, since, standing }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use watchtower_hub::{Limits, Settings};
    use watchtower_store::{Change, MemoryStore};

    use super::*;
    use crate::clock::SystemEntropy;

    #[test]
    fn each_sender_gets_its_joins_and_those_of_nobody_are_given_up() {
        let store = MemoryStore::new();
        let sender = |number| SenderId::new(number).expect("not 0");
        let (since, last_active) = (Timestamp::from_millis(1), Timestamp::from_millis(2));
        let join = |of, channel: u32| Record::Join {
            sender: sender(of),
            channel: channel.into(),
            since,
            standing: true,
        };
        let records = [
            join(1, 5),
            Record::Sender { id: sender(2), last_active },
            join(2, 5),
            join(2, 6),
            join(3, 5),
            Record::Sender { id: sender(4), last_active },
            join(4, 6),
            join(4, 7),
            join(5, 5),
        ];
        store.commit(records.into_iter().map(Change::Put).collect()).wait().expect("memory");
        // There is no third channel.
        let limits = Limits { channels_max: 2, ..Limits::default() };
        let hub = Hub::new(Settings { limits, ..Settings::default() }, Box::new(SystemEntropy));
        let restored = restore(&store, &hub, last_active);
        assert_eq!((restored.senders, restored.joins), (2, 3));
        let given_up = [(1, 5), (3, 5), (4, 7), (5, 5)];
        assert_eq!(restored.given_up, given_up.map(|(of, channel)| Key::Join(sender(of), channel.into())));
        assert!(hub.has_joined(sender(2), &5.into()) && hub.has_joined(sender(4), &6.into()));
        assert!(!hub.has_joined(sender(4), &7.into()));
    }
}
