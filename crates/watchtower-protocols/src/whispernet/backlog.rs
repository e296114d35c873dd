//! The last messages, for a peer that newly connects ([whispernet: 11]).
//!
//! Bounded by number, bytes and age. Knows nothing of what the messages say.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use watchtower_hub::Timestamp;

/// How much is kept for peers that newly connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BacklogLimits {
    /// How many messages.
    pub messages: usize,
    /// How many bytes in all. A message that is larger by itself is not kept.
    pub bytes: usize,
}

impl Default for BacklogLimits {
    fn default() -> BacklogLimits {
        BacklogLimits { messages: 50, bytes: 1 << 20 }
    }
}

pub(super) struct Backlog {
    limits: BacklogLimits,
    /// For how long ids are remembered: what is sent later would be new again
    /// to those who had it.
    age: Duration,
    /// Invariant: within `limits`, and `bytes` is the sum of their lengths.
    messages: VecDeque<Kept>,
    bytes: usize,
}

struct Kept {
    object: Bytes,
    /// The peer that it is from, who is not sent it.
    origin: Option<SocketAddr>,
    since: Timestamp,
}

impl Backlog {
    pub(super) fn new(limits: BacklogLimits, age: Duration) -> Backlog {
        Backlog { limits, age, messages: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn push(&mut self, object: Bytes, origin: Option<SocketAddr>, now: Timestamp) {
        if object.len() > self.limits.bytes || self.limits.messages == 0 {
            return;
        }
        while self.messages.len() >= self.limits.messages || self.bytes + object.len() > self.limits.bytes {
            let Some(eldest) = self.messages.pop_front() else { break };
            self.bytes -= eldest.object.len();
        }
        self.bytes += object.len();
        self.messages.push_back(Kept { object, origin, since: now });
        debug_assert!(self.bytes <= self.limits.bytes && self.messages.len() <= self.limits.messages);
    }

    /// Whether peers that newly connect are sent something that is from there.
    pub(super) fn has_from(&self, origin: SocketAddr, now: Timestamp) -> bool {
        self.young(now).any(|kept| kept.origin == Some(origin))
    }

    /// What a peer is sent, the eldest first.
    pub(super) fn for_peer(&self, peer: SocketAddr, now: Timestamp) -> impl Iterator<Item = &Bytes> {
        self.young(now).filter(move |kept| kept.origin != Some(peer)).map(|kept| &kept.object)
    }

    fn young(&self, now: Timestamp) -> impl Iterator<Item = &Kept> {
        self.messages.iter().filter(move |kept| now.since(kept.since) < self.age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_255_200_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn peer(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    fn backlog(messages: usize, bytes: usize) -> Backlog {
        Backlog::new(BacklogLimits { messages, bytes }, DAY)
    }

    #[track_caller]
    fn check(backlog: &Backlog, now: Timestamp, expected: &[&str]) {
        assert_eq!(backlog.for_peer(peer(1), now).collect::<Vec<_>>(), expected);
    }

    /// [whispernet: 11]
    #[test]
    fn the_last_messages_are_kept_in_order() {
        let mut backlog = backlog(2, 100);
        for object in ["a", "b", "c"] {
            backlog.push(object.into(), None, NOW);
        }
        check(&backlog, NOW, &["b", "c"]);
    }

    #[test]
    fn no_more_bytes_are_kept_than_allowed() {
        let mut backlog = backlog(50, 10);
        for object in ["aaaa", "bbbb", "cc", "ddddd"] {
            backlog.push(object.into(), None, NOW);
        }
        check(&backlog, NOW, &["cc", "ddddd"]);
        backlog.push("eeeeeeeeeee".into(), None, NOW);
        check(&backlog, NOW, &["cc", "ddddd"]);
        backlog.push("ffffffffff".into(), None, NOW);
        check(&backlog, NOW, &["ffffffffff"]);
    }

    #[test]
    fn no_backlog_is_one_too() {
        let mut none = backlog(0, 10);
        none.push("a".into(), None, NOW);
        check(&none, NOW, &[]);
    }

    #[test]
    fn a_peer_is_not_sent_its_own_messages() {
        let mut backlog = backlog(50, 100);
        backlog.push("a".into(), Some(peer(1)), NOW);
        backlog.push("b".into(), Some(peer(2)), NOW);
        check(&backlog, NOW, &["b"]);
    }

    #[test]
    fn what_others_may_have_forgotten_is_not_sent_again() {
        let mut backlog = backlog(50, 100);
        backlog.push("a".into(), None, NOW);
        backlog.push("b".into(), None, NOW.after(Duration::from_secs(1)));
        check(&backlog, NOW.after(DAY), &["b"]);
    }
}
