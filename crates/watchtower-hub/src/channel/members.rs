//! Who is in a channel, by which sessions, and what is kept for those whose
//! session ended a short while ago.

use std::collections::hash_map::Entry as MapEntry;
use std::sync::Arc;

use smallvec::SmallVec;

use super::kept::{Hold, Kept, Share};
use super::{Presence, State};
use crate::counters::Counters;
use crate::log::Place;
use crate::{SenderId, Timestamp};

/// A sender's place in a channel ([model: presence]).
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) since: Timestamp,
    pub(crate) protocol: &'static str,
    /// Joined until it leaves, whatever sessions come and go.
    pub(crate) standing: bool,
    /// The subscriptions that deliver to this sender.
    pub(super) slots: SmallVec<[u32; 1]>,
    /// Joins whose session ended a short while ago: at most one that a next
    /// owner continues, and one of streams.
    away: Vec<Away>,
}

/// A join that outlives its session for a while, and what it has not read.
#[derive(Debug)]
struct Away {
    owned: bool,
    unread: Unread,
    until: Timestamp,
}

/// From where on somebody has not read.
#[derive(Debug)]
enum Unread {
    /// It is kept in memory.
    Held(Hold),
    /// It is in a durable log.
    At(u64),
}

/// How long, and with what share, a join outlives its session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    pub(crate) until: Timestamp,
    pub(crate) share: Share,
}

impl State {
    /// Whether some session delivers to the sender.
    pub(crate) fn delivers_to(&self, sender: SenderId) -> bool {
        self.members.get(&sender).is_some_and(|member| !member.slots.is_empty())
    }

    /// Since when the sender is here, and whether until it leaves.
    pub(crate) fn stay(&self, sender: SenderId) -> Option<(Timestamp, bool)> {
        self.members.get(&sender).map(|member| (member.since, member.standing))
    }

    pub(crate) fn presence(&self) -> Vec<Presence> {
        let present = |(&sender, member): (&SenderId, &Member)| Presence {
            sender,
            protocol: member.protocol,
            since: member.since,
        };
        let mut list: Vec<_> = self.members.iter().map(present).collect();
        list.sort_by_key(|presence| presence.sender);
        list
    }

    /// By which protocol the sender came last, where that is told.
    pub(crate) fn protocol_of(&self, sender: SenderId) -> &'static str {
        if self.announcements.is_none() {
            return "";
        }
        self.members.get(&sender).map_or("", |member| member.protocol)
    }

    /// The sender's place here, made when there is none.
    pub(crate) fn member(&mut self, sender: SenderId, protocol: &'static str, now: Timestamp) -> &mut Member {
        let member = match self.members.entry(sender) {
            MapEntry::Occupied(entry) => entry.into_mut(),
            MapEntry::Vacant(entry) => entry.insert(Member {
                since: now,
                protocol,
                standing: false,
                slots: SmallVec::new(),
                away: Vec::new(),
            }),
        };
        member.protocol = protocol;
        member
    }

    /// Keeps a join whose session ended, from `place` on.
    pub(crate) fn put_away(&mut self, sender: SenderId, owned: bool, place: &Arc<Place>, keep: Keep) {
        let Some(member) = self.members.get_mut(&sender) else { return };
        // What comes ahead of the log is for new subscriptions: this one was.
        let place = place.in_log();
        let mut unread = match self.durable {
            Some(_) => Unread::At(place.offset()),
            None => Unread::Held(self.kept.hold(place, keep.share)),
        };
        match member.away.iter_mut().find(|away| away.owned == owned) {
            // Of several streams the one that saw least counts: it is the log
            // that is kept, and each says itself where it was.
            Some(away) => {
                if unread.offset(&self.kept) < away.unread.offset(&self.kept) {
                    std::mem::swap(&mut unread, &mut away.unread);
                }
                unread.give_back(&mut self.kept);
                away.until = keep.until;
            }
            None => member.away.push(Away { owned, unread, until: keep.until }),
        }
    }

    /// Takes up the join that a sender's former owner left.
    pub(crate) fn take_up(&mut self, sender: SenderId) -> Option<Arc<Place>> {
        let member = self.members.get_mut(&sender)?;
        let index = member.away.iter().position(|away| away.owned)?;
        match member.away.swap_remove(index).unread {
            Unread::Held(hold) => self.kept.give_back(&hold),
            Unread::At(offset) => Some(self.place_at(offset)),
        }
    }

    /// Ends the joins of `sender` whose time is over; whether it is gone from
    /// the channel with that.
    pub(crate) fn expire_away(&mut self, sender: SenderId, now: Timestamp) -> bool {
        let Some(member) = self.members.get_mut(&sender) else { return false };
        for away in member.away.extract_if(.., |away| away.until <= now) {
            away.unread.give_back(&mut self.kept);
        }
        self.remove_if_gone(sender)
    }

    /// When the next join of `sender` ends that outlives its session.
    pub(crate) fn away_until(&self, sender: SenderId) -> Option<Timestamp> {
        self.members.get(&sender)?.away.iter().map(|away| away.until).min()
    }

    /// Removes the sender when nothing holds it here any more.
    pub(crate) fn remove_if_gone(&mut self, sender: SenderId) -> bool {
        let Some(member) = self.members.get(&sender) else { return false };
        let gone = !member.standing && member.slots.is_empty() && member.away.is_empty();
        if gone {
            self.members.remove(&sender);
        }
        gone
    }

    /// Removes the sender and all its subscriptions.
    pub(crate) fn remove(&mut self, sender: SenderId, counters: &Counters) {
        let Some(member) = self.members.get(&sender) else { return };
        for slot in member.slots.clone() {
            self.unsubscribe(sender, slot, counters);
        }
        for away in self.members.remove(&sender).into_iter().flat_map(|member| member.away) {
            away.unread.give_back(&mut self.kept);
        }
    }
}

impl Unread {
    fn offset(&self, kept: &Kept) -> u64 {
        match self {
            Unread::Held(hold) => kept.offset(hold),
            Unread::At(offset) => *offset,
        }
    }

    fn give_back(&self, kept: &mut Kept) {
        if let Unread::Held(hold) = self {
            kept.give_back(hold);
        }
    }
}
