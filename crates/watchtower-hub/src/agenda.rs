//! What the hub is to look at later. Knows no clock: it is asked what is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
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
    /// Whether a sender is still active.
    Sender(SenderId),
}

#[derive(Debug, Default)]
pub(crate) struct Agenda(Mutex<BinaryHeap<Reverse<Due>>>);

#[derive(Debug)]
struct Due {
    at: Timestamp,
    item: Item,
}

impl Agenda {
    pub(crate) fn add(&self, at: Timestamp, item: Item) {
        self.0.lock().push(Reverse(Due { at, item }));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// The next item that is due, in the order of their times.
    pub(crate) fn next(&self, now: Timestamp) -> Option<Item> {
        let mut heap = self.0.lock();
        if heap.peek()?.0.at > now {
            return None;
        }
        heap.pop().map(|Reverse(due)| due.item)
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}
