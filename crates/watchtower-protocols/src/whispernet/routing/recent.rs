//! The messages of late, for peers that missed them, and which neighbours have
//! them.
//!
//! Bounded by number and bytes. Sends nothing.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;

use super::control::ShortId;
use crate::whispernet::audience::Audience;

pub(super) struct Recent {
    messages_max: usize,
    bytes_max: usize,
    /// The eldest first. Invariant: the keys of `kept`.
    order: VecDeque<ShortId>,
    /// Invariant: at most `messages_max`, and `bytes` is the sum of their
    /// lengths, at most `bytes_max`.
    kept: BTreeMap<ShortId, Kept>,
    bytes: usize,
}

struct Kept {
    object: Bytes,
    audience: Audience,
    /// Who has it: who sent it, was sent it, or said so. Invariant: neighbours.
    had_by: Vec<SocketAddr>,
}

impl Recent {
    pub(super) fn new(messages_max: usize, bytes_max: usize) -> Recent {
        Recent { messages_max, bytes_max, order: VecDeque::new(), kept: BTreeMap::new(), bytes: 0 }
    }

    /// Whether it is kept: false for one that is longer than all may be.
    pub(super) fn push(&mut self, id: ShortId, object: Bytes, audience: Audience) -> bool {
        if object.len() > self.bytes_max || self.messages_max == 0 {
            return false;
        }
        if self.kept.contains_key(&id) {
            return true;
        }
        while self.kept.len() >= self.messages_max || self.bytes + object.len() > self.bytes_max {
            let Some(eldest) = self.order.pop_front().and_then(|id| self.kept.remove(&id)) else { break };
            self.bytes -= eldest.object.len();
        }
        self.bytes += object.len();
        self.order.push_back(id);
        self.kept.insert(id, Kept { object, audience, had_by: Vec::new() });
        debug_assert!(self.kept.len() <= self.messages_max && self.bytes <= self.bytes_max);
        true
    }

    /// Forgets all but the last ones.
    pub(super) fn keep_last(&mut self, count: usize) {
        while self.order.len() > count
            && let Some(eldest) = self.order.pop_front().and_then(|id| self.kept.remove(&id))
        {
            self.bytes -= eldest.object.len();
        }
    }

    pub(super) fn contains(&self, id: ShortId) -> bool {
        self.kept.contains_key(&id)
    }

    pub(super) fn is_had_by(&self, id: ShortId, neighbour: SocketAddr) -> bool {
        self.kept.get(&id).is_some_and(|kept| kept.had_by.contains(&neighbour))
    }

    /// A neighbour has it. Whether that is new: false for what is not kept, too.
    pub(super) fn had_by(&mut self, id: ShortId, neighbour: SocketAddr) -> bool {
        let Some(kept) = self.kept.get_mut(&id).filter(|kept| !kept.had_by.contains(&neighbour)) else {
            return false;
        };
        kept.had_by.push(neighbour);
        true
    }

    /// A message for a neighbour that has it from now on. `None` when it has it
    /// already, for nobody is sent a message twice, or may not hear it.
    pub(super) fn give(&mut self, id: ShortId, neighbour: SocketAddr) -> Option<Bytes> {
        let kept = self.kept.get(&id).filter(|kept| kept.audience.has(neighbour))?;
        let object = kept.object.clone();
        self.had_by(id, neighbour).then_some(object)
    }

    /// Those of the last that many messages that a neighbour may hear, the eldest
    /// first.
    pub(super) fn last_for(&self, neighbour: SocketAddr, count: usize) -> impl Iterator<Item = ShortId> {
        let last = self.order.iter().skip(self.order.len().saturating_sub(count));
        let may_hear = move |id: &ShortId| self.kept.get(id).is_some_and(|kept| kept.audience.has(neighbour));
        last.copied().filter(may_hear)
    }

    /// It is a neighbour no more: what it has is not known, should it come back.
    pub(super) fn forget(&mut self, neighbour: SocketAddr) {
        for kept in self.kept.values_mut() {
            kept.had_by.retain(|had_by| *had_by != neighbour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ShortId {
        ShortId::of(&number.to_string())
    }

    fn neighbour() -> SocketAddr {
        ([10, 0, 0, 1], 55_555).into()
    }

    fn all() -> Audience {
        Audience::all_but(None)
    }

    #[test]
    fn no_more_is_kept_than_allowed() {
        let mut recent = Recent::new(3, 10);
        for number in 0..5 {
            assert!(recent.push(id(number), "aa".into(), all()));
        }
        assert_eq!(recent.last_for(neighbour(), 9).collect::<Vec<_>>(), [id(2), id(3), id(4)]);
        assert!(recent.push(id(5), "bbbbbbbb".into(), all()));
        assert_eq!(recent.last_for(neighbour(), 9).collect::<Vec<_>>(), [id(4), id(5)]);
        assert!(!recent.push(id(6), "ccccccccccc".into(), all()), "longer than all may be");
        assert_eq!(recent.last_for(neighbour(), 1).collect::<Vec<_>>(), [id(5)]);
    }

    /// [whispernet: messages] Never the same ID twice.
    #[test]
    fn nobody_is_given_a_message_twice() {
        let mut recent = Recent::new(3, 10);
        recent.push(id(1), "aa".into(), all());
        assert_eq!(recent.give(id(1), neighbour()), Some("aa".into()));
        assert_eq!(recent.give(id(1), neighbour()), None);
        assert_eq!(recent.give(id(2), neighbour()), None, "not kept");
        recent.forget(neighbour());
        assert_eq!(recent.give(id(1), neighbour()), Some("aa".into()), "it came back");
    }

    /// [whispernet: messages] Not to the peer that it is from.
    #[test]
    fn nobody_is_told_of_or_given_what_he_is_not_to_hear() {
        let mut recent = Recent::new(3, 10);
        recent.push(id(1), "aa".into(), Audience::all_but(Some(neighbour())));
        recent.push(id(2), "bb".into(), all());
        assert_eq!(recent.last_for(neighbour(), 9).collect::<Vec<_>>(), [id(2)]);
        assert_eq!(recent.give(id(1), neighbour()), None);
    }
}
