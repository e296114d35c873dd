//! What the hub is to look at later. Knows no clock: it is asked what is due.

use std::collections::BTreeMap;
use std::sync::Weak;

use parking_lot::Mutex;

use crate::channel::Channel;
use crate::{SenderId, Timestamp};

/// Something to look at. By then it may have settled itself: whoever looks
/// judges anew.
#[derive(Debug)]
pub(crate) enum Item {
    /// Which joins of a sender are over that outlived their session.
    Away(SenderId),
    /// Whether a channel is still unused.
    Unused(Weak<Channel>),
    /// What of a channel's history is too old.
    History(Weak<Channel>),
    /// What a channel keeps longer than needed for those who may come back.
    Trail(Weak<Channel>),
    /// How many changes of presence a channel was not told of.
    Presence(Weak<Channel>),
    /// Whether a sender is still active.
    Sender(SenderId),
}

#[derive(Debug, Default)]
pub(crate) struct Agenda(Mutex<Items>);

#[derive(Debug, Default)]
struct Items {
    by_time: BTreeMap<Due, Item>,
    /// How many were ever added.
    added: u64,
}

/// An item's place on the agenda.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    at: Timestamp,
    number: u64,
}

impl Agenda {
    pub(crate) fn add(&self, at: Timestamp, item: Item) -> Due {
        let mut items = self.0.lock();
        items.added += 1;
        let due = Due { at, number: items.added };
        items.by_time.insert(due, item);
        due
    }

    /// Strikes an item out, unless it was handed out already.
    pub(crate) fn cancel(&self, due: Due) {
        self.0.lock().by_time.remove(&due);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().by_time.len()
    }

    /// The next item that is due, in the order of their times.
    pub(crate) fn next(&self, now: Timestamp) -> Option<Item> {
        let mut items = self.0.lock();
        let first = items.by_time.first_entry()?;
        (first.key().at <= now).then(|| first.remove())
    }
}
