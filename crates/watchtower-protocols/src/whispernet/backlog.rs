//! The last messages, for a peer that newly connects ([whispernet: 11]).
//!
//! Bounded by number, bytes and age. Knows nothing of what the messages say.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use watchtower_hub::Timestamp;

use super::audience::Audience;

/// How much is kept for peers that newly connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BacklogLimits {
    /// How many messages.
    pub messages: usize,
    /// How many bytes those have in all that have no file in them. A message
    /// that is larger by itself is not kept.
    pub bytes: usize,
    /// The same for those with a file: few of them would leave no room for what
    /// was said.
    pub file_bytes: usize,
}

impl Default for BacklogLimits {
    fn default() -> BacklogLimits {
        BacklogLimits { messages: 50, bytes: 1 << 20, file_bytes: 1 << 20 }
    }
}

/// The last ones of what is pushed, within limits.
#[derive(Debug)]
pub struct Last<T> {
    limits: BacklogLimits,
    /// The eldest first. Invariant: within `limits`.
    kept: VecDeque<Counted<T>>,
    /// Invariant: the sums of what is counted, without files and with them.
    bytes: [usize; 2],
}

#[derive(Debug)]
struct Counted<T> {
    item: T,
    bytes: usize,
    has_file: bool,
}

impl<T> Last<T> {
    /// None yet.
    pub fn new(limits: BacklogLimits) -> Last<T> {
        Last { limits, kept: VecDeque::new(), bytes: [0; 2] }
    }

    /// Keeps an item, unless it is too large by itself, and as many as there is
    /// room for of those before it. Those without a file make no room for one
    /// with it, but by their number, and the other way round.
    pub fn push(&mut self, item: T, bytes: usize, has_file: bool) {
        let bytes_max = if has_file { self.limits.file_bytes } else { self.limits.bytes };
        if bytes > bytes_max || self.limits.messages == 0 {
            return;
        }
        while self.bytes[usize::from(has_file)] + bytes > bytes_max {
            let Some(eldest) = self.kept.iter().position(|kept| kept.has_file == has_file) else { break };
            self.remove(eldest);
        }
        if self.kept.len() >= self.limits.messages {
            self.remove(0);
        }
        self.bytes[usize::from(has_file)] += bytes;
        self.kept.push_back(Counted { item, bytes, has_file });
        debug_assert!(self.kept.len() <= self.limits.messages);
        debug_assert!(self.bytes[usize::from(has_file)] <= bytes_max);
    }

    fn remove(&mut self, at: usize) {
        if let Some(removed) = self.kept.remove(at) {
            self.bytes[usize::from(removed.has_file)] -= removed.bytes;
        }
    }

    /// They, the eldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.kept.iter().map(|kept| &kept.item)
    }
}

pub(super) struct Backlog {
    /// For how long ids are remembered: what is sent later would be new again
    /// to those who had it.
    age: Duration,
    messages: Last<Kept>,
}

struct Kept {
    object: Bytes,
    audience: Audience,
    since: Timestamp,
}

impl Backlog {
    pub(super) fn new(limits: BacklogLimits, age: Duration) -> Backlog {
        Backlog { age, messages: Last::new(limits) }
    }

    pub(super) fn push(&mut self, object: Bytes, has_file: bool, audience: Audience, now: Timestamp) {
        let bytes = object.len();
        self.messages.push(Kept { object, audience, since: now }, bytes, has_file);
    }

    /// Whether peers that newly connect are sent something that is from there.
    pub(super) fn has_from(&self, origin: SocketAddr, now: Timestamp) -> bool {
        self.young(now).any(|kept| kept.audience.origin == Some(origin))
    }

    /// What a peer is sent, the eldest first.
    pub(super) fn for_peer(&self, peer: SocketAddr, now: Timestamp) -> impl Iterator<Item = &Bytes> {
        self.young(now).filter(move |kept| kept.audience.has(peer)).map(|kept| &kept.object)
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
        Backlog::new(BacklogLimits { messages, bytes, file_bytes: bytes }, DAY)
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
            backlog.push(object.into(), false, Audience::all_but(None), NOW);
        }
        check(&backlog, NOW, &["b", "c"]);
    }

    #[test]
    fn no_more_bytes_are_kept_than_allowed() {
        let mut backlog = backlog(50, 10);
        for object in ["aaaa", "bbbb", "cc", "ddddd"] {
            backlog.push(object.into(), false, Audience::all_but(None), NOW);
        }
        check(&backlog, NOW, &["cc", "ddddd"]);
        backlog.push("eeeeeeeeeee".into(), false, Audience::all_but(None), NOW);
        check(&backlog, NOW, &["cc", "ddddd"]);
        backlog.push("ffffffffff".into(), false, Audience::all_but(None), NOW);
        check(&backlog, NOW, &["ffffffffff"]);
    }

    #[test]
    fn files_leave_room_for_what_was_said() {
        let mut backlog = backlog(4, 10);
        for (object, has_file) in
            [("aa", false), ("file-1", true), ("bb", false), ("file-2", true), ("cccccccc", false)]
        {
            backlog.push(object.into(), has_file, Audience::all_but(None), NOW);
        }
        check(&backlog, NOW, &["bb", "file-2", "cccccccc"]);
        for object in ["f3", "f4", "f5"] {
            backlog.push(object.into(), true, Audience::all_but(None), NOW);
        }
        check(&backlog, NOW, &["cccccccc", "f3", "f4", "f5"]);
    }

    #[test]
    fn no_backlog_is_one_too() {
        let mut none = backlog(0, 10);
        none.push("a".into(), false, Audience::all_but(None), NOW);
        check(&none, NOW, &[]);
    }

    #[test]
    fn a_peer_is_not_sent_its_own_messages() {
        let mut backlog = backlog(50, 100);
        backlog.push("a".into(), false, Audience::all_but(Some(peer(1))), NOW);
        backlog.push("b".into(), false, Audience::all_but(Some(peer(2))), NOW);
        check(&backlog, NOW, &["b"]);
    }

    #[test]
    fn what_others_may_have_forgotten_is_not_sent_again() {
        let mut backlog = backlog(50, 100);
        backlog.push("a".into(), false, Audience::all_but(None), NOW);
        backlog.push("b".into(), false, Audience::all_but(None), NOW.after(Duration::from_secs(1)));
        check(&backlog, NOW.after(DAY), &["b"]);
    }
}
