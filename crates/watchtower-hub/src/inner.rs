//! What every call on the hub works on, and the calls that cross channels,
//! senders and sessions.
//!
//! Lock order: a sender's lock, then a channel's, then a session's reader,
//! then its bell. Nothing here is public; [`Hub`](crate::Hub) and
//! [`Session`](crate::Session) are the doors.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;

use crate::agenda::{Agenda, Item};
use crate::channel::{Channel, Keep, Share, State, TRAIL};
use crate::counters::Counters;
use crate::hub::Entropy;
use crate::presence::Change;
use crate::reader::Link;
use crate::senders::{self, Sender};
use crate::settings::{ChannelRule, SESSION_LAG_FACTOR};
use crate::{ChannelName, Epoch, Ledger, Position, Refused, SenderId, Settings, Timestamp};

/// All channels, senders and sessions of one hub.
pub(crate) struct Inner {
    pub(crate) settings: ArcSwap<Settings>,
    entropy: Box<dyn Entropy>,
    /// For what is answered later, on other threads.
    pub(crate) own: Weak<Inner>,
    /// What keeps durable channels; there are none without it.
    pub(crate) ledger: Option<Arc<dyn Ledger>>,
    pub(crate) channels: papaya::HashMap<ChannelName, Arc<Channel>>,
    /// Hashed without a secret: the ids in it were drawn at random, so nobody can
    /// choose them to collide.
    pub(crate) senders: papaya::HashMap<SenderId, Arc<Sender>, FxBuildHasher>,
    pub(crate) agenda: Agenda,
    pub(crate) counters: Counters,
    /// Whether no more messages are taken.
    pub(crate) is_closed: AtomicBool,
    /// Sessions whose pages the ledger could not read for the moment.
    pub(crate) waiting_for_ledger: Mutex<Vec<Weak<Link>>>,
    /// The time of the last tick, for what ends without being told the time.
    now: AtomicU64,
}

impl Inner {
    pub(crate) fn new(
        settings: Settings,
        entropy: Box<dyn Entropy>,
        ledger: Option<Arc<dyn Ledger>>,
    ) -> Arc<Inner> {
        let counters = Counters::default();
        if let Some(ledger) = &ledger {
            counters.count_retained(ledger.retained_in_all());
        }
        Arc::new_cyclic(|own| Inner {
            settings: ArcSwap::from_pointee(settings),
            entropy,
            own: own.clone(),
            ledger,
            channels: papaya::HashMap::new(),
            senders: papaya::HashMap::with_hasher(FxBuildHasher),
            agenda: Agenda::default(),
            counters,
            is_closed: AtomicBool::new(false),
            waiting_for_ledger: Mutex::default(),
            now: AtomicU64::new(0),
        })
    }

    /// Does what is due at `now`.
    pub(crate) fn tick(&self, now: Timestamp) {
        self.now.store(now.as_millis(), Ordering::Relaxed);
        while let Some(item) = self.agenda.next(now) {
            self.look_at(item, now);
        }
        self.poke_waiting();
    }

    /// The time of the last tick.
    pub(crate) fn ticked(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::Relaxed))
    }

    pub(crate) fn sender(&self, id: SenderId) -> Result<Arc<Sender>, Refused> {
        self.senders.pin().get(&id).cloned().ok_or(Refused::UnknownSender(id))
    }

    /// Registers a sender, which outlives the process if it is to be `kept`.
    pub(crate) fn register(&self, kept: bool, now: Timestamp) -> Result<Arc<Sender>, Refused> {
        let settings = self.settings.load();
        let limit = settings.limits.senders_max;
        if self.senders.len() >= limit {
            self.counters.refused.senders.fetch_add(1, Ordering::Relaxed);
            return Err(Refused::Limit { what: "senders", limit });
        }
        loop {
            let Some(id) = SenderId::new(self.entropy.next_u64() as u32) else { continue };
            let sender = Arc::new(Sender::new(id, now, kept));
            let mut state = sender.lock();
            if self.senders.pin().try_insert(id, sender.clone()).is_ok() {
                self.watch_activity(id, &mut state, now.after(settings.sender_ttl), now, &settings);
                self.note_registered(&sender, &state);
                drop(state);
                return Ok(sender);
            }
        }
    }

    /// Makes `sender` a member of the channel by what `join` does under its
    /// lock. What `join` refuses leaves no trace. With an `owner`, the sender
    /// is that session's first, and still when it joins.
    pub(crate) fn enter<T>(
        &self,
        owner: Option<&Arc<Link>>,
        sender: &Arc<Sender>,
        name: &ChannelName,
        now: Timestamp,
        join: impl FnOnce(&Arc<Channel>, &mut State) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let settings = self.settings.load();
        let mut sender_state = sender.lock();
        if sender_state.expired {
            return Err(Refused::UnknownSender(sender.id));
        }
        if let Some(link) = owner {
            self.attach_locked(link, sender, &mut sender_state, now)?;
        }
        let limit = settings.limits.channels_per_sender_max;
        if sender_state.joins.len() >= limit && !sender_state.joins.contains_key(name) {
            self.counters.refused.channels_per_sender.fetch_add(1, Ordering::Relaxed);
            return Err(Refused::Limit { what: "channels for one sender", limit });
        }
        loop {
            let channel = self.channel(name, &settings)?;
            let mut state = channel.lock();
            if state.retired {
                continue;
            }
            let result = join(&channel, &mut state);
            if result.is_ok() {
                if !sender_state.joins.contains_key(name) {
                    sender_state.joins.insert(name.clone(), channel.clone());
                    let change = Change::Joined(state.protocol_of(sender.id));
                    self.announce(&channel, &mut state, change, sender.id, now);
                }
                self.note_join(sender, name, &state, owner.is_some());
            } else {
                state.remove_if_gone(sender.id);
                self.watch_unused(&channel, &mut state, sender.last_active());
            }
            return result;
        }
    }

    /// The channel of that name, made when there is none.
    pub(crate) fn channel(&self, name: &ChannelName, settings: &Settings) -> Result<Arc<Channel>, Refused> {
        let channels = self.channels.pin();
        if let Some(channel) = channels.get(name) {
            return Ok(channel.clone());
        }
        let limit = settings.limits.channels_max;
        if channels.len() >= limit {
            self.counters.refused.channels.fetch_add(1, Ordering::Relaxed);
            return Err(Refused::Limit { what: "channels", limit });
        }
        let make = || self.unlisted(name, settings.rule(name));
        Ok(channels.get_or_insert_with(name.clone(), make).clone())
    }

    /// Forgets a channel that was made for what was refused then.
    pub(crate) fn take_back(&self, channel: &Channel, state: &mut State) {
        if state.is_new() && !state.retired {
            state.retired = true;
            self.channels.pin().remove(&channel.name);
        }
    }

    /// A channel that is in no map: a new one, or one that goes on where its
    /// log ends.
    pub(crate) fn unlisted(&self, name: &ChannelName, rule: ChannelRule) -> Arc<Channel> {
        let ledger = self.ledger.as_ref().filter(|_| rule.durable);
        let Some((ledger, ends)) = ledger.and_then(|ledger| Some((ledger, ledger.ends(name)?))) else {
            let next = Position { epoch: Epoch::from_bits(self.entropy.next_u64()), offset: 1 };
            return Arc::new(Channel::new(name.clone(), next, rule));
        };
        let retained = if rule.retain { ledger.retained(name) } else { None };
        let channel = Channel::new(name.clone(), ends.next_position(), rule);
        channel.take_up_retained(retained, &ends);
        Arc::new(channel)
    }

    /// Sees to it that what a publication leaves is looked at later: the history
    /// it is in, and the channel that was made for it.
    pub(crate) fn watch_published(&self, channel: &Arc<Channel>, state: &mut State, now: Timestamp) {
        self.watch_history(channel, state);
        self.watch_trail(channel, state, now);
        self.watch_unused(channel, state, now);
    }

    /// Sees to it that a trail ends when nothing more is published.
    fn watch_trail(&self, channel: &Arc<Channel>, state: &mut State, now: Timestamp) {
        if state.trail_start().is_some() && !state.trail_is_due {
            state.trail_is_due = true;
            self.agenda.add(now.after(TRAIL), Item::Trail(Arc::downgrade(channel)));
        }
    }

    /// Sees to it that a history is looked at when its oldest message is too
    /// old.
    fn watch_history(&self, channel: &Arc<Channel>, state: &mut State) {
        if state.history_is_due || !state.has_history() {
            return;
        }
        if let Some(due) = channel.history_due(state) {
            state.history_is_due = true;
            self.agenda.add(due, Item::History(Arc::downgrade(channel)));
        }
    }

    /// Moves a sender's owned joins to `link`.
    pub(crate) fn attach(
        &self,
        link: &Arc<Link>,
        sender: &Arc<Sender>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        self.attach_locked(link, sender, &mut sender.lock(), now)
    }

    fn attach_locked(
        &self,
        link: &Arc<Link>,
        sender: &Arc<Sender>,
        state: &mut senders::State,
        now: Timestamp,
    ) -> Result<(), Refused> {
        if state.expired {
            return Err(Refused::UnknownSender(sender.id));
        }
        let owner = match &state.owner {
            Some(owner) if Arc::ptr_eq(owner, link) => return Ok(()),
            Some(_) if !sender.is_kept || self.settings.load().bind_ids => {
                return Err(Refused::BoundElsewhere(sender.id));
            }
            owner => owner.clone(),
        };
        self.allow_move(state, now)?;
        {
            let mut reader = link.reader.lock();
            if reader.closed {
                return Err(Refused::Closed);
            }
            reader.owned.insert(sender.id, sender.clone());
        }
        state.owner = Some(link.clone());
        if let Some(owner) = &owner {
            owner.reader.lock().owned.remove(sender.id);
        }
        for channel in state.joins.values() {
            let mut channel_state = channel.lock();
            let slot = owner.as_ref().and_then(|owner| channel_state.slot_of(sender.id, owner));
            let unread = match slot {
                Some(slot) => Some(channel_state.unsubscribe(sender.id, slot, &self.counters)),
                None => channel_state.take_up(sender.id),
            };
            if let Some(unread) = unread {
                channel_state.member(sender.id, link.protocol.name, now);
                channel_state.subscribe(channel, link, Some(sender.id), &unread, &self.counters)?;
            }
        }
        Ok(())
    }

    /// Each join of an id that moves is work, and to name the id is a packet of
    /// nine bytes: two clients that take it from each other, over and over, are
    /// not to stall everybody else.
    fn allow_move(&self, state: &mut senders::State, now: Timestamp) -> Result<(), Refused> {
        let joins_max = self.settings.load().limits.channels_per_sender_max.saturating_mul(2);
        let per_second = joins_max.div_ceil(10) as u64;
        if state.moves.take(state.joins.len() as u64, joins_max as u64, per_second, now) {
            return Ok(());
        }
        self.counters.refused.moved_joins.fetch_add(1, Ordering::Relaxed);
        Err(Refused::Limit { what: "joins that a sender takes along in ten seconds", limit: joins_max })
    }

    pub(crate) fn leave(&self, sender: &Sender, name: &ChannelName, now: Timestamp) {
        let mut sender_state = sender.lock();
        self.leave_locked(sender, &mut sender_state, name, now);
    }

    fn leave_locked(
        &self,
        sender: &Sender,
        sender_state: &mut senders::State,
        name: &ChannelName,
        now: Timestamp,
    ) {
        let Some(channel) = sender_state.joins.remove(name) else { return };
        let mut state = channel.lock();
        let change = Change::Left(state.protocol_of(sender.id));
        state.remove(sender.id, &self.counters);
        self.announce(&channel, &mut state, change, sender.id, now);
        self.note_left(sender, name);
        self.watch_unused(&channel, &mut state, now);
    }

    /// Sees to it that a channel that nobody uses is forgotten after a while.
    fn watch_unused(&self, channel: &Arc<Channel>, state: &mut State, now: Timestamp) {
        if !state.members.is_empty() {
            return;
        }
        // Not everybody who calls has a clock: some say when they last had one.
        let now = now.max(self.ticked());
        state.unused_until = now.after(self.settings.load().session_ttl);
        self.look_whether_unused(channel, state);
    }

    /// Sees to it that a channel is looked at once it may be forgotten.
    pub(crate) fn look_whether_unused(&self, channel: &Arc<Channel>, state: &mut State) {
        if !std::mem::replace(&mut state.unused_is_due, true) {
            self.agenda.add(state.unused_until, Item::Unused(Arc::downgrade(channel)));
        }
    }

    /// Sees to it that joins that outlive their session end in time.
    pub(crate) fn watch_away(&self, id: SenderId, sender_state: &mut senders::State, until: Timestamp) {
        if sender_state.away_due.is_none() {
            sender_state.away_due = Some(self.agenda.add(until, Item::Away(id)));
        }
    }

    /// Ends a session. Its joins stay for a while, when they are to be kept.
    pub(crate) fn close(&self, link: &Arc<Link>, keep_joins: bool) {
        let now = self.ticked();
        let until = now.after(self.settings.load().session_ttl);
        let (owned, channels) = {
            let mut reader = link.reader.lock();
            reader.closed = true;
            (reader.owned.values(), reader.channels())
        };
        link.bell.silence();
        let share = Share::among(channels.len(), SESSION_LAG_FACTOR);
        let keep = keep_joins.then_some(Keep { until, share });
        for (channel, slot, ids) in channels {
            if ids.is_empty() {
                // A mailbox: no sender's, and kept for nobody.
                channel.lock().release(slot, None, &self.counters);
            }
            for id in ids {
                self.part(link, &channel, id, keep, now);
            }
        }
        for sender in owned {
            let mut state = sender.lock();
            if state.owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, link)) {
                state.owner = None;
            }
        }
    }

    /// Ends one sender's subscription by a session that stays.
    pub(crate) fn unsubscribe(&self, link: &Arc<Link>, id: SenderId, name: &ChannelName, now: Timestamp) {
        // A channel with a member is never forgotten.
        let channel = self.channels.pin().get(name).cloned();
        if let Some(channel) = channel {
            self.part(link, &channel, id, None, now);
        }
    }

    /// Ends one sender's subscription by a session, and keeps the join for a
    /// while, if so.
    fn part(
        &self,
        link: &Arc<Link>,
        channel: &Arc<Channel>,
        id: SenderId,
        keep: Option<Keep>,
        now: Timestamp,
    ) {
        let Ok(sender) = self.sender(id) else { return };
        let mut sender_state = sender.lock();
        let owned = sender_state.owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, link));
        let mut state = channel.lock();
        // Since it was listed it may have moved, or left.
        let Some(slot) = state.slot_of(id, link) else { return };
        // It ends with its last reader.
        let trail = state.trail_start().filter(|_| link.is_resumed_by_position()).cloned();
        let unread = state.unsubscribe(id, slot, &self.counters);
        if let Some(keep) = keep {
            let from = trail.filter(|trail| trail.offset() < unread.offset()).unwrap_or(unread);
            state.put_away(id, owned, &from, keep);
            self.watch_away(id, &mut sender_state, keep.until);
            return;
        }
        let change = Change::Left(state.protocol_of(id));
        if state.remove_if_gone(id) {
            sender_state.joins.remove(&channel.name);
            self.announce(channel, &mut state, change, id, now);
            self.note_left(&sender, &channel.name);
            self.watch_unused(channel, &mut state, now);
        }
    }

    fn look_at(&self, item: Item, now: Timestamp) {
        match item {
            Item::Away(id) => self.expire_aways(id, now),
            Item::Unused(channel) => {
                let Some(channel) = channel.upgrade() else { return };
                let mut state = channel.lock();
                state.unused_is_due = false;
                if !state.members.is_empty() {
                    return;
                }
                if now < state.unused_until {
                    // Joined and left again meanwhile.
                    self.look_whether_unused(&channel, &mut state);
                } else {
                    self.retire_if_unused(&channel, &mut state, now);
                }
            }
            Item::History(channel) => {
                let Some(channel) = channel.upgrade() else { return };
                let mut state = channel.lock();
                state.history_is_due = false;
                channel.trim_history(&mut state, now);
                self.watch_history(&channel, &mut state);
                self.retire_if_unused(&channel, &mut state, now);
            }
            Item::Trail(channel) => {
                let Some(channel) = channel.upgrade() else { return };
                let mut state = channel.lock();
                state.trail_is_due = false;
                state.trim_trail(now);
                self.watch_trail(&channel, &mut state, now);
            }
            Item::Presence(channel) => {
                let Some(channel) = channel.upgrade() else { return };
                self.summarize_presence(&channel, &mut channel.lock(), now);
            }
            Item::Sender(id) => self.expire(id, now),
        }
    }

    /// Ends the joins of a sender whose time without a session is over.
    fn expire_aways(&self, id: SenderId, now: Timestamp) {
        let Ok(sender) = self.sender(id) else { return };
        let mut sender_state = sender.lock();
        sender_state.away_due = None;
        let mut due: Option<Timestamp> = None;
        sender_state.joins.retain(|_, channel| {
            let mut state = channel.lock();
            let change = Change::Left(state.protocol_of(id));
            let gone = state.expire_away(id, now);
            if gone {
                self.announce(channel, &mut state, change, id, now);
                self.note_left(&sender, &channel.name);
                self.counters.joins_expired.fetch_add(1, Ordering::Relaxed);
                self.watch_unused(channel, &mut state, now);
            } else if let Some(until) = state.away_until(id) {
                due = Some(due.map_or(until, |due| due.min(until)));
            }
            !gone
        });
        if let Some(due) = due {
            self.watch_away(id, &mut sender_state, due);
        }
    }

    /// Forgets a channel that nobody is in, or was until a while ago, and whose
    /// history keeps nothing.
    fn retire_if_unused(&self, channel: &Arc<Channel>, state: &mut State, now: Timestamp) {
        if state.is_unused() && now >= state.unused_until && !state.retired {
            state.retired = true;
            self.channels.pin().remove(&channel.name);
        }
    }

    /// Forgets a sender that was silent for `sender_ttl` and has no session.
    fn expire(&self, id: SenderId, now: Timestamp) {
        let Ok(sender) = self.sender(id) else { return };
        let mut state = sender.lock();
        state.expiry_due = None;
        let settings = self.settings.load();
        let connected =
            state.owner.is_some() || state.joins.values().any(|channel| channel.lock().delivers_to(id));
        if connected && sender.touch(now) {
            self.note_registered(&sender, &state);
        }
        let due = sender.last_active().after(settings.sender_ttl);
        if due > now {
            self.watch_activity(id, &mut state, due, now, &settings);
            return;
        }
        self.forget(&sender, &mut state, now);
        self.counters.senders_expired.add(1);
    }

    /// Forgets a sender at once.
    pub(crate) fn unregister(&self, sender: &Arc<Sender>, now: Timestamp) -> Result<(), Refused> {
        let mut state = sender.lock();
        if state.expired {
            return Err(Refused::UnknownSender(sender.id));
        }
        self.forget(sender, &mut state, now);
        Ok(())
    }

    fn forget(&self, sender: &Sender, state: &mut senders::State, now: Timestamp) {
        state.expired = true;
        let names: Vec<_> = state.joins.keys().cloned().collect();
        for name in names {
            self.leave_locked(sender, state, &name, now);
        }
        if let Some(owner) = state.owner.take() {
            owner.reader.lock().owned.remove(sender.id);
        }
        for due in [state.away_due.take(), state.expiry_due.take()].into_iter().flatten() {
            self.agenda.cancel(due);
        }
        self.senders.pin().remove(&sender.id);
        self.note_forgotten(sender);
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("channels", &self.channels.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Hub, WhenLagging};

    struct Counting(AtomicU64);

    impl Entropy for Counting {
        fn next_u64(&self) -> u64 {
            self.0.fetch_add(1, Ordering::Relaxed)
        }
    }

    #[test]
    fn what_is_to_be_looked_at_later_does_not_grow_with_what_clients_do() {
        let now = Timestamp::from_millis(1_000_000);
        let hub = Hub::new(Settings::default(), Box::new(Counting(AtomicU64::new(1))));
        hub.tick(now);
        let id = hub.register(now).unwrap();
        let names: Vec<_> = (0..5).map(ChannelName::from).collect();
        for _ in 0..100 {
            let session = hub.open("test", WhenLagging::Close);
            for name in &names {
                session.join(id, name, now).unwrap();
                hub.leave(id, name, now).unwrap();
                session.join(id, name, now).unwrap();
            }
        }
        // Each channel, the joins that were put away, and the sender itself.
        assert_eq!(hub.0.agenda.len(), names.len() + 2);
        // All of it comes to its end all the same, and not too early.
        hub.tick(now.after(Duration::from_secs(119)));
        assert!(hub.has_joined(id, &names[0]));
        let away_over = now.after(Duration::from_secs(120));
        hub.tick(away_over);
        assert!(!hub.has_joined(id, &names[0]));
        assert_eq!(hub.channels().len(), names.len());
        hub.tick(away_over.after(Duration::from_secs(120)));
        assert_eq!((hub.channels().len(), hub.0.agenda.len()), (0, 1));
        hub.unregister(id, now).unwrap();
        assert_eq!(hub.0.agenda.len(), 0);
    }
}
