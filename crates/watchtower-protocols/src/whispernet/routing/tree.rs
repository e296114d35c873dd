//! The tree that messages are passed along, after Plumtree (Leitão, Pereira and
//! Rodrigues: Epidemic Broadcast Trees, 2007).
//!
//! Every neighbour is a branch. Over an eager one messages are pushed, over a
//! lazy one their ids alone. A message that comes a second time makes the branch
//! that it came over lazy, so what stays eager is a tree, of the quickest ways.
//! An id whose message does not come is asked for, and the branch that it is
//! asked for over is eager again: so the tree heals.
//!
//! Not so here: messages carry no count of hops, for they are passed on as they
//! came; so the tree is not shortened by moving branches. Who are neighbours is
//! for the [`View`](super::view::View) to say.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use watchtower_hub::Timestamp;

use super::RoutingLimits;
use super::control::{Control, IDS_MAX, ShortId};
use super::recent::Recent;
use crate::whispernet::audience::Audience;
use crate::whispernet::seen::{SeenIds, SeenLimits};

/// How many messages are waited for at a time. Further ids are not noted:
/// who has the messages says so again to who asks.
const MISSING_MAX: usize = 1_024;

/// How many messages a neighbour may promise in a row and not deliver.
const BROKEN_MAX: u32 = 16;

/// The longest message that is kept while the node floods, for neighbours that
/// are told of the last ones once it routes.
const KEPT_WHILE_FLOODING_MAX: usize = 4 << 10;

/// A neighbour that goes on sending what we have is told so this often.
const PRUNE_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Tree {
    limits: RoutingLimits,
    me: SocketAddr,
    /// Invariant: the neighbours of the view.
    branches: BTreeMap<SocketAddr, Branch>,
    recent: Recent,
    /// What came, though it is kept no more: a neighbour that has it still says so,
    /// and is not to send it again.
    had: SeenIds,
    /// Invariant: at most [`MISSING_MAX`], none of them in `recent`.
    missing: BTreeMap<ShortId, Missing>,
}

struct Branch {
    is_eager: bool,
    /// Ids that it is to be told. Invariant: fewer than [`IDS_MAX`].
    waiting: Vec<ShortId>,
    /// When it is told them.
    announce_at: Timestamp,
    pruned: Option<Timestamp>,
    /// In how many of `missing` it stands. Invariant: at most [`IDS_MAX`].
    promised: usize,
    /// Messages that it promised, was asked for and did not deliver, in a row.
    broken: u32,
}

/// A message that neighbours say they have.
struct Missing {
    /// When the next of them is asked.
    due: Timestamp,
    owners: VecDeque<SocketAddr>,
    asked: Option<SocketAddr>,
}

/// What is to be sent to a neighbour.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum Sent {
    Control(Control),
    Message(Bytes),
}

pub(super) type Sends = Vec<(SocketAddr, Sent)>;

impl Tree {
    /// `key` is random, and known to nobody.
    pub(super) fn new(limits: RoutingLimits, me: SocketAddr, key: [u8; 16], now: Timestamp) -> Tree {
        let recent = Recent::new(limits.recent_messages, limits.recent_bytes);
        let remembered = SeenLimits { ids: limits.recent_messages, ..SeenLimits::default() };
        let had = SeenIds::new(key, remembered, now);
        Tree { limits, me, branches: BTreeMap::new(), recent, had, missing: BTreeMap::new() }
    }

    /// There is a new neighbour. It is told of the last messages, as a peer that
    /// newly connects is sent them elsewhere ([whispernet: 11]).
    pub(super) fn up(&mut self, neighbour: SocketAddr, now: Timestamp) {
        let told_of = self.limits.told_of.min(IDS_MAX - 1);
        let waiting: Vec<ShortId> = self.recent.last_for(neighbour, told_of).collect();
        let announce_at = announce_at(&self.limits, self.me, neighbour, now);
        let branch = Branch { is_eager: true, waiting, announce_at, pruned: None, promised: 0, broken: 0 };
        self.branches.insert(neighbour, branch);
    }

    pub(super) fn down(&mut self, neighbour: SocketAddr) {
        self.branches.remove(&neighbour);
        self.recent.forget(neighbour);
        for missing in self.missing.values_mut() {
            missing.owners.retain(|owner| *owner != neighbour);
        }
        self.missing.retain(|_, missing| !missing.owners.is_empty() || missing.asked.is_some());
    }

    /// A message that is new, while the node floods: as many of the last are kept as
    /// neighbours are told of later.
    pub(super) fn keep(&mut self, id: ShortId, object: &Bytes, audience: Audience, now: Timestamp) {
        self.had.insert(id, now);
        if object.len() <= KEPT_WHILE_FLOODING_MAX {
            self.recent.push(id, object.clone(), audience);
            self.recent.keep_last(self.limits.told_of);
        }
    }

    /// A message that is new: from a neighbour, from elsewhere, or our own.
    /// Returns to whom it is pushed.
    pub(super) fn spread(
        &mut self,
        id: ShortId,
        object: &Bytes,
        audience: Audience,
        from: Option<SocketAddr>,
        now: Timestamp,
    ) -> (Vec<SocketAddr>, Sends) {
        self.had.insert(id, now);
        let is_kept = self.recent.push(id, object.clone(), audience);
        self.found(id, from);
        if let Some(branch) = from.and_then(|from| self.branches.get_mut(&from)) {
            branch.is_eager = true;
        }
        for has_it in
            from.into_iter().chain(audience.origin).filter(|has_it| self.branches.contains_key(has_it))
        {
            self.recent.had_by(id, has_it);
        }
        let (mut pushed, mut sends) = (Vec::new(), Vec::new());
        for (neighbour, branch) in &mut self.branches {
            let has_it = from == Some(*neighbour) || self.recent.is_had_by(id, *neighbour);
            if has_it || !audience.has(*neighbour) {
                continue;
            }
            // What cannot be asked for later is pushed to all.
            if branch.is_eager || !is_kept {
                self.recent.had_by(id, *neighbour);
                pushed.push(*neighbour);
            } else {
                if branch.waiting.is_empty() {
                    branch.announce_at = announce_at(&self.limits, self.me, *neighbour, now);
                }
                branch.waiting.push(id);
                sends.extend(branch.announce_if_full(*neighbour));
            }
        }
        (pushed, sends)
    }

    /// It is no longer waited for.
    fn found(&mut self, id: ShortId, from: Option<SocketAddr>) {
        let Some(missing) = self.missing.remove(&id) else { return };
        for owner in missing.owners {
            if let Some(branch) = self.branches.get_mut(&owner) {
                branch.promised -= 1;
                self.recent.had_by(id, owner);
            }
        }
        if let Some(asked) = missing.asked
            && let Some(branch) = self.branches.get_mut(&asked)
        {
            branch.broken = if from == Some(asked) { 0 } else { branch.broken };
            self.recent.had_by(id, asked);
        }
    }

    /// A neighbour sent what had come before.
    pub(super) fn repeated(&mut self, neighbour: SocketAddr, id: ShortId, now: Timestamp) -> Option<Control> {
        let branch = self.branches.get_mut(&neighbour)?;
        self.recent.had_by(id, neighbour);
        branch.waiting.retain(|waiting| *waiting != id);
        let was_pruned_lately = branch.pruned.is_some_and(|pruned| now.since(pruned) < PRUNE_EVERY);
        if !branch.is_eager && was_pruned_lately {
            return None;
        }
        branch.is_eager = false;
        branch.pruned = Some(now);
        Some(Control::Prune {})
    }

    pub(super) fn prune(&mut self, neighbour: SocketAddr) {
        if let Some(branch) = self.branches.get_mut(&neighbour) {
            branch.is_eager = false;
        }
    }

    pub(super) fn i_have(&mut self, neighbour: SocketAddr, ids: &[ShortId], now: Timestamp) {
        let Some(branch) = self.branches.get_mut(&neighbour) else { return };
        for id in ids {
            if self.recent.contains(*id) || self.had.contains(*id) {
                self.recent.had_by(*id, neighbour);
                branch.waiting.retain(|waiting| waiting != id);
                continue;
            }
            let is_noted = self.missing.contains_key(id);
            if branch.promised >= IDS_MAX || (!is_noted && self.missing.len() >= MISSING_MAX) {
                continue;
            }
            let due = now.after(self.limits.graft_after);
            let missing = self.missing.entry(*id).or_insert_with(|| Missing {
                due,
                owners: VecDeque::new(),
                asked: None,
            });
            if missing.asked != Some(neighbour) && !missing.owners.contains(&neighbour) {
                missing.owners.push_back(neighbour);
                branch.promised += 1;
            }
        }
    }

    /// What a neighbour asks for, and may have.
    pub(super) fn graft(&mut self, neighbour: SocketAddr, ids: &[ShortId]) -> Sends {
        let Some(branch) = self.branches.get_mut(&neighbour) else { return Vec::new() };
        branch.is_eager = true;
        let given = ids.iter().filter_map(|id| self.recent.give(*id, neighbour));
        given.map(|object| (neighbour, Sent::Message(object))).collect()
    }

    /// What is due, and the neighbours that promise and do not deliver.
    pub(super) fn tick(&mut self, now: Timestamp) -> (Sends, Vec<SocketAddr>) {
        let mut sends = Vec::new();
        let due = self.branches.iter_mut().filter(|(_, branch)| branch.announce_at <= now);
        sends.extend(due.filter_map(|(neighbour, branch)| branch.announce(*neighbour)));
        let mut grafts: BTreeMap<SocketAddr, Vec<ShortId>> = BTreeMap::new();
        let due = self.missing.iter_mut().filter(|(_, missing)| missing.due <= now);
        for (id, missing) in due {
            if let Some(branch) = missing.asked.take().and_then(|asked| self.branches.get_mut(&asked)) {
                branch.broken += 1;
            }
            let Some(owner) = missing.owners.pop_front() else { continue };
            missing.asked = Some(owner);
            missing.due = now.after(self.limits.graft_again);
            if let Some(branch) = self.branches.get_mut(&owner) {
                branch.promised -= 1;
                branch.is_eager = true;
                grafts.entry(owner).or_default().push(*id);
            }
        }
        self.missing.retain(|_, missing| missing.due > now);
        for (owner, ids) in grafts {
            let chunks = ids.chunks(IDS_MAX);
            sends.extend(chunks.map(|ids| (owner, Sent::Control(Control::Graft(ids.to_vec())))));
        }
        let unreliable = self.branches.iter().filter(|(_, branch)| branch.broken > BROKEN_MAX);
        (sends, unreliable.map(|(neighbour, _)| *neighbour).collect())
    }

    /// The neighbours that are told ids alone.
    pub(super) fn lazy(&self) -> impl Iterator<Item = SocketAddr> {
        self.branches.iter().filter(|(_, branch)| !branch.is_eager).map(|(neighbour, _)| *neighbour)
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let waiting = self.branches.values().filter(|branch| !branch.waiting.is_empty());
        let announce = waiting.map(|branch| branch.announce_at);
        self.missing.values().map(|missing| missing.due).chain(announce).min()
    }
}

/// Ids wait for a while, so that several go together. Of two neighbours one
/// waits longer, and then announces what it was not told of itself: else all
/// would be announced both ways.
fn announce_at(limits: &RoutingLimits, me: SocketAddr, neighbour: SocketAddr, now: Timestamp) -> Timestamp {
    now.after(if me < neighbour { limits.announce_after } else { 3 * limits.announce_after })
}

impl Branch {
    fn announce(&mut self, neighbour: SocketAddr) -> Option<(SocketAddr, Sent)> {
        let ids = std::mem::take(&mut self.waiting);
        (!ids.is_empty()).then(|| (neighbour, Sent::Control(Control::IHave(ids))))
    }

    fn announce_if_full(&mut self, neighbour: SocketAddr) -> Option<(SocketAddr, Sent)> {
        if self.waiting.len() < IDS_MAX { None } else { self.announce(neighbour) }
    }
}
