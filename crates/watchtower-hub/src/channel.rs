//! One channel: its log, who is in it, and who is to be woken.
//!
//! Everything here happens under the channel's lock, which publishers, joins
//! and leaves take, and deliveries never. Lock order: a sender's, then a
//! channel's, then a session's reader, then its bell.

use std::collections::VecDeque;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::counters::Counters;
use crate::idle::{IdleSet, SLOTS_PER_SET};
use crate::log::{Entry, Place};
use crate::message::{Frames, event_name};
use crate::publish::{Draft, Receivers};
use crate::reader::{Link, Ring, Subscription};
use crate::settings::{Accepts, ChannelRule};
use crate::{
    Audience, ChannelName, Content, ContentKind, Epoch, Limits, Message, Position, Refused, SenderId,
    Timestamp,
};

/// How many times the limits a session may be behind that has had no turn since
/// it was woken: only on an overloaded machine, for as long as a turn takes.
const UNHEARD_FACTOR: u64 = 4;

#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) name: ChannelName,
    pub(crate) epoch: Epoch,
    pub(crate) rule: ChannelRule,
    state: Mutex<State>,
}

/// What a channel's lock protects.
#[derive(Debug)]
pub(crate) struct State {
    /// The empty place that the next message goes to.
    end: Arc<Place>,
    /// The first place that history keeps; the end when it keeps nothing.
    /// `None` when the channel has no history.
    oldest: Option<Arc<Place>>,
    pub(crate) members: FxHashMap<SenderId, Member>,
    /// Who is subscribed.
    ///
    /// Invariant: slot `i` has bit `i % 64` of `sets[i / 64]`.
    slots: Vec<Option<Slot>>,
    sets: Vec<Arc<IdleSet>>,
    free: Vec<u32>,
    /// Past ends of the log, oldest first, to tell bytes from offsets.
    marks: VecDeque<Mark>,
    /// Whether the hub forgot this channel: who finds it so asks for another.
    pub(crate) retired: bool,
    /// Whether the hub is to look at the history's age later.
    pub(crate) history_is_due: bool,
    /// Whether the hub is to look later whether it is unused. However often
    /// it is joined and left, that is noted down once.
    pub(crate) unused_is_due: bool,
    /// How long it stays after its last member left.
    pub(crate) unused_until: Timestamp,
}

/// A sender's place in a channel ([model: presence]).
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) since: Timestamp,
    pub(crate) protocol: &'static str,
    /// Joined until it leaves, whatever sessions come and go.
    pub(crate) standing: bool,
    /// The subscriptions that deliver to this sender.
    slots: SmallVec<[u32; 1]>,
    /// Joins whose session ended a short while ago: at most one that a next
    /// owner continues, and one of streams.
    away: Vec<Away>,
}

#[derive(Debug)]
struct Slot {
    link: Arc<Link>,
    key: u32,
    /// Where it was last woken: it cannot be further behind than this.
    woken_at: u64,
}

/// A join that outlives its session for a while, and what it has not read.
#[derive(Debug)]
struct Away {
    owned: bool,
    place: Arc<Place>,
    until: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    offset: u64,
    bytes: u64,
}

/// Where a subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the next message.
    End,
    /// After a message that was seen, as far as later ones are kept.
    After(Position),
}

/// What a subscription was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The message after which the subscription goes on.
    pub position: Position,
    /// Whether that is where it was asked to start: `false` when the epoch is
    /// unknown or what follows the offset is not kept any more.
    pub recovered: bool,
}

/// A sender that is in a channel ([model: presence]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// Who.
    pub sender: SenderId,
    /// By which protocol it came last.
    pub protocol: &'static str,
    /// Since when it is there, reconnects included.
    pub since: Timestamp,
}

impl Channel {
    pub(crate) fn new(name: ChannelName, epoch: Epoch, rule: ChannelRule) -> Channel {
        let end = Place::first();
        let state = State {
            oldest: (rule.history_messages > 0).then(|| end.clone()),
            end,
            members: FxHashMap::default(),
            slots: Vec::new(),
            sets: Vec::new(),
            free: Vec::new(),
            marks: VecDeque::new(),
            retired: false,
            history_is_due: false,
            unused_is_due: false,
            unused_until: Timestamp::default(),
        };
        Channel { name, epoch, rule, state: Mutex::new(state) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Judges a message, and gives its content the form that this channel
    /// keeps. In the order of [packets: rules]: not joined, content, receivers.
    pub(crate) fn judge(&self, state: &State, draft: &Draft<'_>) -> Result<Content, Refused> {
        let has_joined = |sender: &SenderId| state.members.contains_key(sender);
        if !draft.is_guest && draft.sender.is_some_and(|sender| !has_joined(&sender)) {
            return Err(Refused::NotJoined { channel: self.name.clone() });
        }
        let content = self.accept(draft.content.clone())?;
        if let Some(Receivers { ids, nobody }) = &draft.receivers {
            let absent = ids.iter().filter(|id| !has_joined(id)).map(|id| id.get());
            let missing: Vec<u32> = nobody.then_some(0).into_iter().chain(absent).collect();
            if ids.is_empty() || !missing.is_empty() {
                return Err(Refused::ReceiverNotJoined { channel: self.name.clone(), missing });
            }
        }
        Ok(content)
    }

    /// [model: projection]
    fn accept(&self, content: Content) -> Result<Content, Refused> {
        let refused = |accepts| Refused::BadContent { channel: self.name.clone(), accepts };
        match (self.rule.accepts, content.kind()) {
            (Accepts::Any, _) | (Accepts::Json, ContentKind::Json) | (Accepts::Text, ContentKind::Text) => {
                Ok(content)
            }
            (Accepts::Json, ContentKind::Text) => {
                Content::json(content.bytes().clone()).ok_or(refused("JSON"))
            }
            (Accepts::Json, ContentKind::Binary) => Err(refused("JSON")),
            (Accepts::Text, ContentKind::Json | ContentKind::Binary) => Err(refused("text")),
        }
    }

    /// Appends a message that was judged, wakes who rests, and looks after
    /// history and those who fall behind.
    pub(crate) fn append(
        &self,
        state: &mut State,
        draft: &Draft<'_>,
        content: Content,
        limits: &Limits,
        counters: &Counters,
    ) -> Position {
        let place = state.end.clone();
        let position = Position { epoch: self.epoch, offset: place.offset() };
        counters.published.add(1);
        counters.published_bytes.add(content.bytes().len() as u64);
        state.end = place.append(Message {
            channel: self.name.clone(),
            epoch: self.epoch,
            offset: position.offset,
            sender: draft.sender,
            event: event_name(draft.event),
            content,
            audience: match &draft.receivers {
                None => Audience::Channel,
                Some(receivers) => Audience::Senders(receivers.ids.as_slice().into()),
            },
            extras: draft.extras.clone().map(Box::new),
            time: draft.time,
            frames: Frames::default(),
        });
        match &draft.receivers {
            None => state.wake_all(&place),
            Some(receivers) => state.wake(&place, &receivers.ids),
        }
        self.trim_history(state, draft.time);
        state.check_lag(limits, counters);
        position
    }

    /// Frees what history keeps no longer.
    pub(crate) fn trim_history(&self, state: &mut State, now: Timestamp) {
        let Some(oldest) = &mut state.oldest else { return };
        let kept_max = self.rule.history_messages as u64;
        while let (Some(message), Some(next)) = (oldest.message(), oldest.next()) {
            let kept = state.end.offset() - oldest.offset();
            if kept <= kept_max && now.since(message.time()) < self.rule.history_ttl {
                break;
            }
            *oldest = next.clone();
        }
    }

    /// When the oldest message of the history is to be freed.
    pub(crate) fn history_due(&self, state: &State) -> Option<Timestamp> {
        let message = state.oldest.as_ref()?.message()?;
        Some(message.time().after(self.rule.history_ttl))
    }

    /// The messages that history keeps: the first `limit` after `since`, or
    /// the last `limit` ([http: channels/history]).
    pub(crate) fn history(&self, since: Option<Position>, limit: usize) -> Vec<Entry> {
        let state = self.lock();
        let Some(oldest) = state.oldest.clone() else { return Vec::new() };
        let end = state.end.offset();
        drop(state);
        let first = match since {
            Some(position) if position.epoch == self.epoch => position.offset.saturating_add(1),
            Some(_) => 0,
            None => end.saturating_sub(limit as u64),
        };
        let mut place = Place::seek(&oldest, first);
        let mut entries = Vec::new();
        // Direct messages are between their sender and receivers alone.
        while let (Some(entry), true) = (Entry::at(place), entries.len() < limit) {
            if !entry.is_direct() {
                entries.push(entry);
            }
            let Some(next) = place.next() else { break };
            place = next;
        }
        entries
    }

    /// Where a subscription of `sender` starts.
    pub(crate) fn start(&self, state: &State, sender: SenderId, start: Start) -> (Arc<Place>, bool) {
        let Start::After(seen) = start else { return (state.end.clone(), true) };
        let wanted = if seen.epoch == self.epoch { seen.offset.saturating_add(1) } else { u64::MAX };
        if wanted == state.end.offset() {
            return (state.end.clone(), true);
        }
        let known = wanted < state.end.offset();
        // The sender's own place first: the others may be many.
        let own = state.members.get(&sender).and_then(|member| member.away.iter().find(|away| !away.owned));
        if let Some(own) = own.filter(|own| known && own.place.offset() <= wanted) {
            return (Place::seek(&own.place, wanted).clone(), true);
        }
        let aways = state.members.values().flat_map(|member| &member.away).map(|away| &away.place);
        let kept = state.oldest.iter().chain(aways).min_by_key(|place| place.offset()).unwrap_or(&state.end);
        if known && kept.offset() <= wanted {
            return (Place::seek(kept, wanted).clone(), true);
        }
        (kept.clone(), false)
    }
}

impl State {
    pub(crate) fn end(&self) -> &Arc<Place> {
        &self.end
    }

    /// Whether nobody would notice if this channel were gone.
    pub(crate) fn is_unused(&self) -> bool {
        self.members.is_empty() && self.oldest.as_ref().is_none_or(|oldest| oldest.is_empty())
    }

    /// Whether somebody is subscribed.
    pub(crate) fn is_read(&self) -> bool {
        self.free.len() < self.slots.len()
    }

    /// Whether some session delivers to the sender.
    pub(crate) fn delivers_to(&self, sender: SenderId) -> bool {
        self.members.get(&sender).is_some_and(|member| !member.slots.is_empty())
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

    /// Delivers to `sender` by `link` from `from` on; without one, to whoever
    /// the session is. When another sender has brought the session here already,
    /// there stays one copy, from where it is.
    pub(crate) fn subscribe(
        &mut self,
        channel: &Arc<Channel>,
        link: &Arc<Link>,
        sender: Option<SenderId>,
        from: &Arc<Place>,
        counters: &Counters,
    ) -> Result<(), Refused> {
        let mut reader = link.reader.lock();
        if reader.closed {
            return Err(Refused::Closed);
        }
        if let (Some(subscription), Some(sender)) = (reader.find(channel), sender) {
            let slot = subscription.slot;
            if !subscription.senders.contains(&sender) {
                subscription.senders.push(sender);
                self.member_slots(sender).push(slot);
            }
            return Ok(());
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        let set_index = (slot / SLOTS_PER_SET) as usize;
        if set_index == self.sets.len() {
            self.sets.push(Arc::new(IdleSet::new()));
        }
        let set = self.sets[set_index].clone();
        let rests = from.is_empty();
        if rests {
            set.insert(slot);
        } else {
            set.remove(slot);
        }
        let key = reader.insert(Subscription {
            channel: channel.clone(),
            set,
            slot,
            next: from.offset(),
            cursor: None,
            queued: false,
            senders: sender.into_iter().collect(),
        });
        drop(reader);
        self.slots[slot as usize] = Some(Slot { link: link.clone(), key, woken_at: from.offset() });
        if let Some(sender) = sender {
            self.member_slots(sender).push(slot);
        }
        counters.subscriptions.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if !rests {
            link.bell.ring(Ring { key, start: from.clone() });
        }
        Ok(())
    }

    fn member_slots(&mut self, sender: SenderId) -> &mut SmallVec<[u32; 1]> {
        &mut self.members.get_mut(&sender).expect("a sender is a member before it is subscribed").slots
    }

    /// The slot by which `link` delivers to `sender`.
    pub(crate) fn slot_of(&self, sender: SenderId, link: &Arc<Link>) -> Option<u32> {
        let is_link = |slot: &&u32| self.slot(**slot).is_some_and(|slot| Arc::ptr_eq(&slot.link, link));
        self.members.get(&sender)?.slots.iter().find(is_link).copied()
    }

    fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// Ends the delivery to `sender` by this slot, and returns what it has not
    /// been handed yet.
    pub(crate) fn unsubscribe(&mut self, sender: SenderId, slot: u32, counters: &Counters) -> Arc<Place> {
        if let Some(member) = self.members.get_mut(&sender) {
            member.slots.retain(|other| *other != slot);
        }
        self.release(slot, Some(sender), counters)
    }

    /// Takes `sender`, if any, from those that this slot's subscription delivers
    /// to, and ends it when nobody is left. Returns what was not handed out yet.
    pub(crate) fn release(&mut self, slot: u32, sender: Option<SenderId>, counters: &Counters) -> Arc<Place> {
        let Some(Slot { link, key, .. }) = self.slot(slot) else { return self.end.clone() };
        let (link, key) = (link.clone(), *key);
        let mut reader = link.reader.lock();
        // What it was rung for and has not looked at yet: a ring that stayed
        // would be taken for one of the subscription that gets its key next.
        reader.hear(&link.bell, None);
        let Some(subscription) = reader.get(key) else { return self.end.clone() };
        subscription.senders.retain(|other| Some(*other) != sender);
        let shared = !subscription.senders.is_empty();
        let unread = subscription.cursor.clone(); // none: it rests
        if !shared {
            reader.remove(key);
            drop(reader);
            self.sets[(slot / SLOTS_PER_SET) as usize].remove(slot);
            self.slots[slot as usize] = None;
            self.free.push(slot);
            counters.subscriptions.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        }
        unread.unwrap_or_else(|| self.end.clone())
    }

    /// Keeps a join whose session ended.
    pub(crate) fn put_away(&mut self, sender: SenderId, owned: bool, place: Arc<Place>, until: Timestamp) {
        let Some(member) = self.members.get_mut(&sender) else { return };
        match member.away.iter_mut().find(|away| away.owned == owned) {
            // Of several streams the one that saw least counts: it is the log
            // that is kept, and each says itself where it was.
            Some(away) => {
                if place.offset() < away.place.offset() {
                    away.place = place;
                }
                away.until = until;
            }
            None => member.away.push(Away { owned, place, until }),
        }
    }

    /// Takes up the join that a sender's former owner left.
    pub(crate) fn take_up(&mut self, sender: SenderId) -> Option<Arc<Place>> {
        let member = self.members.get_mut(&sender)?;
        let index = member.away.iter().position(|away| away.owned)?;
        Some(member.away.swap_remove(index).place)
    }

    /// Ends the joins of `sender` whose time is over; whether it is gone from
    /// the channel with that.
    pub(crate) fn expire_away(&mut self, sender: SenderId, now: Timestamp) -> bool {
        let Some(member) = self.members.get_mut(&sender) else { return false };
        member.away.retain(|away| away.until > now);
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
        self.members.remove(&sender);
    }

    fn wake_all(&mut self, place: &Arc<Place>) {
        for (index, set) in self.sets.iter().enumerate() {
            let mut resting = set.wake_all();
            while resting != 0 {
                let slot = index * SLOTS_PER_SET as usize + resting.trailing_zeros() as usize;
                resting &= resting - 1;
                if let Some(Some(slot)) = self.slots.get_mut(slot) {
                    slot.ring(place);
                }
            }
        }
    }

    fn wake(&mut self, place: &Arc<Place>, receivers: &[SenderId]) {
        for receiver in receivers {
            let Some(member) = self.members.get(receiver) else { continue };
            for &slot in &member.slots {
                if self.sets[(slot / SLOTS_PER_SET) as usize].wake(slot)
                    && let Some(Some(slot)) = self.slots.get_mut(slot as usize)
                {
                    slot.ring(place);
                }
            }
        }
    }

    /// Moves those on who fell behind too far ([model: log]). Looks each time
    /// that an eighth of the limit has been published.
    fn check_lag(&mut self, limits: &Limits, counters: &Counters) {
        let end = Mark { offset: self.end.offset(), bytes: self.end.bytes_before() };
        let last = self.marks.back().copied().unwrap_or(Mark { offset: 1, bytes: 0 });
        let due = end.offset - last.offset >= (limits.lag_messages / 8).max(1)
            || end.bytes - last.bytes >= (limits.lag_bytes / 8).max(1);
        if !due {
            return;
        }
        self.marks.push_back(end);
        let kept = limits.lag_bytes.saturating_mul(UNHEARD_FACTOR);
        while self.marks.get(1).is_some_and(|mark| end.bytes - mark.bytes >= kept) {
            self.marks.pop_front();
        }
        let oldest = self.oldest_within(end, limits, 1);
        if oldest > 1 {
            self.move_on(oldest, self.oldest_within(end, limits, UNHEARD_FACTOR), counters);
        }
    }

    /// The oldest place that is within `factor` times the limits.
    fn oldest_within(&self, end: Mark, limits: &Limits, factor: u64) -> u64 {
        let bytes = limits.lag_bytes.saturating_mul(factor);
        let by_bytes = self.marks.iter().rev().find(|mark| end.bytes - mark.bytes >= bytes);
        let by_messages = end.offset.saturating_sub(limits.lag_messages.saturating_mul(factor));
        by_messages.max(by_bytes.map_or(0, |mark| mark.offset))
    }

    /// Moves every cursor before `oldest` there, save those of sessions that
    /// have had no turn since they were woken: they are moved to `oldest_unheard`.
    fn move_on(&mut self, oldest: u64, oldest_unheard: u64, counters: &Counters) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            let resting =
                self.sets[index / SLOTS_PER_SET as usize].resting() >> (index as u32 % SLOTS_PER_SET) & 1;
            if resting == 0 && slot.woken_at < oldest {
                slot.move_on(oldest, oldest_unheard, &self.end, counters);
            }
        }
        for away in self.members.values_mut().flat_map(|member| &mut member.away) {
            away.place = Place::seek(&away.place, oldest).clone();
        }
    }
}

impl Slot {
    fn ring(&mut self, place: &Arc<Place>) {
        self.woken_at = place.offset();
        self.link.bell.ring(Ring { key: self.key, start: place.clone() });
    }

    fn move_on(&mut self, oldest: u64, oldest_unheard: u64, end: &Arc<Place>, counters: &Counters) {
        let mut reader = self.link.reader.lock();
        let closes = reader.closes_when_lagging;
        let Some(subscription) = reader.get(self.key) else { return };
        if subscription.next.max(self.woken_at) >= oldest {
            return;
        }
        let rung = self.link.bell.take_back(|ring| ring.key == self.key).pop();
        if let (None, Some(unheard)) = (&subscription.cursor, &rung)
            && closes
            && self.woken_at >= oldest_unheard
        {
            // Not the reader is slow but this machine: no reason to close it.
            self.link.bell.ring(Ring { key: self.key, start: unheard.start.clone() });
            return;
        }
        let unread = subscription.cursor.as_ref().or(rung.as_ref().map(|ring| &ring.start)).unwrap_or(end);
        let place = Place::seek(unread, oldest).clone();
        counters.lagging_skipped.add(place.offset() - unread.offset().min(place.offset()));
        subscription.next = place.offset();
        subscription.cursor = Some(place.clone());
        self.woken_at = place.offset();
        let is_over = closes && !std::mem::replace(&mut reader.lagging, true);
        drop(reader);
        self.link.bell.ring(Ring { key: self.key, start: place });
        if is_over {
            counters.lagging_closed.add(1);
            // Whoever drives it may wait for its socket, and not look.
            self.link.bell.wake_again();
        }
    }
}
