//! The hub: every channel, sender and session, and the calls that change
//! them.
//!
//! Knows no protocol, no socket, no runtime and no clock: times and
//! randomness are handed in, and sessions are woken by `std::task::Waker`s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};

use crate::agenda::{Agenda, Item};
use crate::bell::Bell;
use crate::channel::{Channel, Draft, Joined, Presence, Start, State};
use crate::counters::{Counters, Counts};
use crate::log::Entry;
use crate::senders::{self, Sender};
use crate::session::{Link, Reader, Session};
use crate::{ChannelName, Content, Epoch, Position, Refused, SenderId, Settings, Timestamp};

/// Where the hub's ids come from: the operating system's generator, or a seed
/// in tests.
pub trait Entropy: Send + Sync {
    /// Random bits that nobody can predict.
    fn next_u64(&self) -> u64;
}

/// All channels, senders and sessions of one server. Clones are the same hub.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

pub(crate) struct Inner {
    settings: ArcSwap<Settings>,
    entropy: Box<dyn Entropy>,
    channels: papaya::HashMap<ChannelName, Arc<Channel>>,
    senders: papaya::HashMap<SenderId, Arc<Sender>>,
    agenda: Agenda,
    pub(crate) counters: Counters,
    /// The time of the last tick, for what ends without being told the time.
    now: AtomicU64,
}

/// A message to be published.
#[derive(Debug, Clone)]
pub struct Publish<'a> {
    /// Who publishes. `None` is the server itself, which need not have joined.
    pub sender: Option<SenderId>,
    /// The event name; `message` is the default one.
    pub event: &'a str,
    /// What.
    pub content: Content,
    /// For whom: `None` is everyone who is subscribed; otherwise these, who
    /// must all have joined, each once however often it is named.
    pub receivers: Option<&'a [u32]>,
}

/// How a session's protocol takes it when a subscription falls behind too far
/// ([model: log]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenLagging {
    /// It is closed, with a reason.
    Close,
    /// It skips ahead, and the loss is counted.
    Skip,
}

impl Hub {
    /// An empty hub.
    pub fn new(settings: Settings, entropy: Box<dyn Entropy>) -> Hub {
        Hub(Arc::new(Inner {
            settings: ArcSwap::from_pointee(settings),
            entropy,
            channels: papaya::HashMap::new(),
            senders: papaya::HashMap::new(),
            agenda: Agenda::default(),
            counters: Counters::default(),
            now: AtomicU64::new(0),
        }))
    }

    /// Replaces the settings. Rules for channels apply to channels made from
    /// now on; what is above a lowered limit already stays.
    pub fn configure(&self, settings: Settings) {
        self.0.settings.store(Arc::new(settings));
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.0.settings.load_full()
    }

    /// Registers a new sender with a random id.
    ///
    /// # Errors
    ///
    /// [`Refused::Limit`] when there are too many.
    pub fn register(&self, now: Timestamp) -> Result<SenderId, Refused> {
        Ok(self.0.register(now)?.id)
    }

    /// Whether the sender is registered; notes that it is active.
    pub fn is_registered(&self, sender: SenderId, now: Timestamp) -> bool {
        self.0.sender(sender).is_ok_and(|sender| {
            sender.touch(now);
            true
        })
    }

    /// Opens a session. `protocol` is what presence calls it.
    pub fn open(&self, protocol: &'static str, when_lagging: WhenLagging) -> Session {
        self.0.counters.sessions.fetch_add(1, Ordering::Relaxed);
        let link = Link {
            bell: Bell::new(),
            reader: Mutex::new(Reader::default()),
            protocol,
            closes_when_lagging: when_lagging == WhenLagging::Close,
        };
        Session::new(self.0.clone(), Arc::new(link))
    }

    /// Joins `sender` to all of `channels`, to send: nothing is delivered. It
    /// stays joined until it leaves or expires.
    ///
    /// # Errors
    ///
    /// [`Refused::UnknownSender`], or [`Refused::Limit`]; then none is joined.
    pub fn join(&self, sender: SenderId, channels: &[ChannelName], now: Timestamp) -> Result<(), Refused> {
        let sender = self.0.sender(sender)?;
        sender.touch(now);
        let mut joined: Vec<&ChannelName> = Vec::new();
        for name in channels {
            let was_member = sender.lock().joins.contains_key(name);
            let result = self.0.enter(&sender, name, |_, state| {
                state.member(sender.id, "http", now).standing = true;
                Ok(())
            });
            match result {
                Ok(()) if was_member => {}
                Ok(()) => joined.push(name),
                Err(refused) => {
                    joined.into_iter().for_each(|name| self.0.leave(&sender, name, now));
                    return Err(refused);
                }
            }
        }
        Ok(())
    }

    /// Ends `sender`'s place in the channel, by whatever sessions. Leaving
    /// what is not joined does nothing.
    ///
    /// # Errors
    ///
    /// [`Refused::UnknownSender`].
    pub fn leave(&self, sender: SenderId, channel: &ChannelName, now: Timestamp) -> Result<(), Refused> {
        let sender = self.0.sender(sender)?;
        sender.touch(now);
        self.0.leave(&sender, channel, now);
        Ok(())
    }

    /// Whether the sender has joined the channel.
    pub fn has_joined(&self, sender: SenderId, channel: &ChannelName) -> bool {
        self.0.sender(sender).is_ok_and(|sender| sender.lock().joins.contains_key(channel))
    }

    /// Publishes on one channel and returns where the message stands.
    ///
    /// # Errors
    ///
    /// The first that applies of: [`Refused::TooLarge`],
    /// [`Refused::UnknownSender`], [`Refused::NotJoined`],
    /// [`Refused::BadContent`], [`Refused::ReceiverNotJoined`]
    /// ([packets: rules]).
    pub fn publish(
        &self,
        channel: &ChannelName,
        message: Publish<'_>,
        now: Timestamp,
    ) -> Result<Position, Refused> {
        self.0.publish(channel, message, now)
    }

    /// Publishes the same on several channels, on all or on none, and returns
    /// the places in the order of `channels`. A channel that is named twice
    /// gets it once.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), for the first channel by name that
    /// refuses.
    pub fn publish_all(
        &self,
        channels: &[ChannelName],
        message: Publish<'_>,
        now: Timestamp,
    ) -> Result<Vec<Position>, Refused> {
        let settings = self.0.settings.load();
        let receivers = message.receivers.map(normalize);
        let draft =
            self.0.draft(message, receivers.as_ref().map(|(ids, _)| ids.as_slice()), now, &settings)?;
        // All locks at once, always in the order of names: nobody waits in a
        // circle, and nothing changes between judging and appending.
        let mut names: Vec<_> = channels.iter().collect();
        names.sort();
        names.dedup();
        let targets: Vec<_> = names
            .iter()
            .map(|name| self.0.target(name, draft.sender, &settings))
            .collect::<Result<_, _>>()?;
        let mut states: Vec<_> = targets.iter().map(|channel| channel.lock()).collect();
        let mut contents = Vec::with_capacity(targets.len());
        for (channel, state) in targets.iter().zip(&states) {
            contents.push(self.0.judge(channel, state, &draft, receivers.as_ref())?);
        }
        let mut positions = Vec::with_capacity(targets.len());
        for ((channel, state), content) in targets.iter().zip(&mut states).zip(contents) {
            positions.push(channel.append(state, &draft, content, &settings.limits, &self.0.counters));
            self.0.watch_history(channel, state);
        }
        let place = |name: &ChannelName| {
            names.binary_search(&name).ok().and_then(|index| positions.get(index).copied())
        };
        Ok(channels.iter().filter_map(place).collect())
    }

    /// The names of all channels, sorted.
    pub fn channels(&self) -> Vec<ChannelName> {
        let mut names: Vec<_> = self.0.channels.pin().keys().cloned().collect();
        names.sort();
        names
    }

    /// What the channel keeps: the first `limit` messages after `since`, or
    /// the last `limit`; and the epoch of its log. Direct messages are left
    /// out. `None` when there is no such channel.
    pub fn history(
        &self,
        channel: &ChannelName,
        since: Option<Position>,
        limit: usize,
        now: Timestamp,
    ) -> Option<(Epoch, Vec<Entry>)> {
        let channel = self.0.channels.pin().get(channel).cloned()?;
        channel.trim_history(&mut channel.lock(), now);
        Some((channel.epoch, channel.history(since, limit)))
    }

    /// Who is in the channel, sorted by id; `None` when there is no such
    /// channel.
    pub fn presence(&self, channel: &ChannelName) -> Option<Vec<Presence>> {
        let channel = self.0.channels.pin().get(channel).cloned()?;
        let presence = channel.lock().presence();
        Some(presence)
    }

    /// What the hub counted.
    pub fn counts(&self) -> Counts {
        self.0.counters.read(self.0.channels.len(), self.0.senders.len())
    }

    /// Does what is due: ends joins, histories, senders and channels whose
    /// time is over. To be called about once a second.
    pub fn tick(&self, now: Timestamp) {
        self.0.now.store(now.as_millis(), Ordering::Relaxed);
        while let Some(item) = self.0.agenda.next(now) {
            self.0.look_at(item, now);
        }
    }
}

impl Session {
    /// Registers a new sender that this session owns.
    ///
    /// # Errors
    ///
    /// [`Refused::Limit`] when there are too many.
    pub fn register(&self, now: Timestamp) -> Result<SenderId, Refused> {
        let sender = self.hub.register(now)?;
        self.hub.attach(&self.link, &sender)?;
        Ok(sender.id)
    }

    /// Makes this session the owner of a sender: what its owned joins deliver
    /// comes here from now on, from where it was ([packets: rules]).
    ///
    /// # Errors
    ///
    /// [`Refused::UnknownSender`]; [`Refused::BoundElsewhere`] when ids are
    /// bound and another session owns it.
    pub fn attach(&self, sender: SenderId, now: Timestamp) -> Result<(), Refused> {
        if let Some(sender) = self.link.reader.lock().owned(sender) {
            sender.touch(now);
            return Ok(());
        }
        let sender = self.hub.sender(sender)?;
        sender.touch(now);
        self.hub.attach(&self.link, &sender)
    }

    /// Joins an owned sender to a channel and delivers here, from the end or,
    /// after a reconnect, from what it missed. Joining twice changes nothing.
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach), and [`Refused::Limit`].
    pub fn join(&self, sender: SenderId, channel: &ChannelName, now: Timestamp) -> Result<Joined, Refused> {
        self.attach(sender, now)?;
        let sender = self.hub.sender(sender)?;
        self.hub.enter(&sender, channel, |channel, state| {
            state.member(sender.id, self.link.protocol, now);
            let from = state.take_up(sender.id).unwrap_or_else(|| state.end().clone());
            if state.slot_of(sender.id, &self.link).is_none() {
                state.subscribe(channel, &self.link, sender.id, &from, &self.hub.counters)?;
            }
            Ok(Joined {
                position: Position { epoch: channel.epoch, offset: from.offset() - 1 },
                recovered: true,
            })
        })
    }

    /// Subscribes this session on behalf of a sender that it does not own: as
    /// long as the session lives, and `session_ttl` longer.
    ///
    /// # Errors
    ///
    /// [`Refused::UnknownSender`] and [`Refused::Limit`].
    pub fn subscribe(
        &self,
        sender: SenderId,
        channel: &ChannelName,
        start: Start,
        now: Timestamp,
    ) -> Result<Joined, Refused> {
        let sender = self.hub.sender(sender)?;
        sender.touch(now);
        self.hub.enter(&sender, channel, |channel, state| {
            state.member(sender.id, self.link.protocol, now);
            let (from, recovered) = channel.start(state, sender.id, start);
            state.subscribe(channel, &self.link, sender.id, &from, &self.hub.counters)?;
            Ok(Joined { position: Position { epoch: channel.epoch, offset: from.offset() - 1 }, recovered })
        })
    }

    /// Publishes; see [`Hub::publish`].
    ///
    /// # Errors
    ///
    /// As [`Hub::publish`].
    pub fn publish(
        &self,
        channel: &ChannelName,
        message: Publish<'_>,
        now: Timestamp,
    ) -> Result<Position, Refused> {
        self.hub.publish(channel, message, now)
    }

    /// The hub that this is a session of.
    pub fn hub(&self) -> Hub {
        Hub(self.hub.clone())
    }
}

impl Inner {
    fn publish(
        &self,
        channel: &ChannelName,
        message: Publish<'_>,
        now: Timestamp,
    ) -> Result<Position, Refused> {
        let settings = self.settings.load();
        let receivers = message.receivers.map(normalize);
        let draft = self.draft(message, receivers.as_ref().map(|(ids, _)| ids.as_slice()), now, &settings)?;
        let channel = self.target(channel, draft.sender, &settings)?;
        let mut state = channel.lock();
        let content = self.judge(&channel, &state, &draft, receivers.as_ref())?;
        let position = channel.append(&mut state, &draft, content, &settings.limits, &self.counters);
        self.watch_history(&channel, &mut state);
        Ok(position)
    }

    fn sender(&self, id: SenderId) -> Result<Arc<Sender>, Refused> {
        self.senders.pin().get(&id).cloned().ok_or(Refused::UnknownSender(id))
    }

    fn register(&self, now: Timestamp) -> Result<Arc<Sender>, Refused> {
        let limit = self.settings.load().limits.senders_max;
        if self.senders.len() >= limit {
            return Err(Refused::Limit { what: "senders", limit });
        }
        loop {
            let Some(id) = SenderId::new(self.entropy.next_u64() as u32) else { continue };
            let sender = Arc::new(Sender::new(id, now));
            if self.senders.pin().try_insert(id, sender.clone()).is_ok() {
                self.agenda.add(now.after(self.settings.load().sender_ttl), Item::Sender(id));
                return Ok(sender);
            }
        }
    }

    /// Makes `sender` a member of the channel by what `join` does under its
    /// lock. What `join` refuses leaves no trace.
    fn enter<T>(
        &self,
        sender: &Arc<Sender>,
        name: &ChannelName,
        join: impl FnOnce(&Arc<Channel>, &mut State) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let settings = self.settings.load();
        let mut sender_state = sender.lock();
        if sender_state.expired {
            return Err(Refused::UnknownSender(sender.id));
        }
        let limit = settings.limits.channels_per_sender_max;
        if sender_state.joins.len() >= limit && !sender_state.joins.contains_key(name) {
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
                }
            } else {
                state.remove_if_gone(sender.id);
            }
            return result;
        }
    }

    /// The channel of that name, made when there is none.
    fn channel(&self, name: &ChannelName, settings: &Settings) -> Result<Arc<Channel>, Refused> {
        let channels = self.channels.pin();
        if let Some(channel) = channels.get(name) {
            return Ok(channel.clone());
        }
        let limit = settings.limits.channels_max;
        if channels.len() >= limit {
            return Err(Refused::Limit { what: "channels", limit });
        }
        let make = || {
            let epoch = Epoch::from_bits(self.entropy.next_u64());
            Arc::new(Channel::new(name.clone(), epoch, settings.rule(name)))
        };
        Ok(channels.get_or_insert_with(name.clone(), make).clone())
    }

    fn draft<'a>(
        &self,
        message: Publish<'a>,
        receivers: Option<&'a [SenderId]>,
        time: Timestamp,
        settings: &Settings,
    ) -> Result<Draft<'a>, Refused> {
        let Publish { sender, event, content, .. } = message;
        let (bytes, limit) = (content.bytes().len(), settings.limits.message_bytes_max);
        if bytes > limit {
            return Err(Refused::TooLarge { bytes, limit });
        }
        if let Some(sender) = sender {
            self.senders.pin().get(&sender).ok_or(Refused::UnknownSender(sender))?.touch(time);
        }
        Ok(Draft { sender, event, content, receivers, time })
    }

    /// A channel to publish on. A sender must have joined it, so there must be
    /// one; for the server itself it is made.
    fn target(
        &self,
        name: &ChannelName,
        sender: Option<SenderId>,
        settings: &Settings,
    ) -> Result<Arc<Channel>, Refused> {
        if sender.is_none() {
            return self.channel(name, settings);
        }
        self.channels.pin().get(name).cloned().ok_or_else(|| Refused::NotJoined { channel: name.clone() })
    }

    fn judge(
        &self,
        channel: &Channel,
        state: &State,
        draft: &Draft<'_>,
        receivers: Option<&(Vec<SenderId>, bool)>,
    ) -> Result<Content, Refused> {
        let judged = channel.judge(state, draft);
        // An id of zero is nobody's, so nobody who has joined.
        let zero = receivers.is_some_and(|(_, zero)| *zero);
        match judged {
            Ok(_) if zero => {
                Err(Refused::ReceiverNotJoined { channel: channel.name.clone(), missing: vec![0] })
            }
            Err(Refused::ReceiverNotJoined { channel, mut missing }) if zero => {
                missing.insert(0, 0);
                Err(Refused::ReceiverNotJoined { channel, missing })
            }
            judged => judged,
        }
    }

    /// Sees to it that a history is looked at when its oldest message is too
    /// old.
    fn watch_history(&self, channel: &Arc<Channel>, state: &mut State) {
        if channel.rule.history_messages == 0 || state.history_is_due {
            return;
        }
        if let Some(due) = channel.history_due(state) {
            state.history_is_due = true;
            self.agenda.add(due, Item::History(Arc::downgrade(channel)));
        }
    }

    /// Moves a sender's owned joins to `link`.
    fn attach(&self, link: &Arc<Link>, sender: &Arc<Sender>) -> Result<(), Refused> {
        let mut state = sender.lock();
        if state.expired {
            return Err(Refused::UnknownSender(sender.id));
        }
        let owner = match &state.owner {
            Some(owner) if Arc::ptr_eq(owner, link) => return Ok(()),
            Some(_) if self.settings.load().bind_ids => return Err(Refused::BoundElsewhere(sender.id)),
            owner => owner.clone(),
        };
        {
            let mut reader = link.reader.lock();
            if reader.closed {
                return Err(Refused::Closed);
            }
            reader.own(sender);
        }
        state.owner = Some(link.clone());
        if let Some(owner) = &owner {
            owner.reader.lock().disown(sender.id);
        }
        for channel in state.joins.values() {
            let mut channel_state = channel.lock();
            let slot = owner.as_ref().and_then(|owner| channel_state.slot_of(sender.id, owner));
            let unread = match slot {
                Some(slot) => Some(channel_state.unsubscribe(sender.id, slot, &self.counters)),
                None => channel_state.take_up(sender.id),
            };
            if let Some(unread) = unread {
                channel_state.subscribe(channel, link, sender.id, &unread, &self.counters)?;
            }
        }
        Ok(())
    }

    fn leave(&self, sender: &Sender, name: &ChannelName, now: Timestamp) {
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
        state.remove(sender.id, &self.counters);
        self.watch_unused(&channel, &state, now);
    }

    /// Sees to it that a channel that nobody uses is forgotten after a while.
    fn watch_unused(&self, channel: &Arc<Channel>, state: &MutexGuard<'_, State>, now: Timestamp) {
        if state.members.is_empty() {
            let due = now.after(self.settings.load().session_ttl);
            self.agenda.add(due, Item::Unused(Arc::downgrade(channel)));
        }
    }

    /// Ends a session. Its joins stay for a while, when they are to be kept.
    pub(crate) fn close(&self, link: &Arc<Link>, keep_joins: bool) {
        let now = Timestamp::from_millis(self.now.load(Ordering::Relaxed));
        let until = now.after(self.settings.load().session_ttl);
        let (owned, channels) = {
            let mut reader = link.reader.lock();
            reader.closed = true;
            (reader.all_owned(), reader.channels())
        };
        link.bell.silence();
        for (channel, _, ids) in channels {
            for id in ids {
                self.part(link, &channel, id, keep_joins.then_some(until), now);
            }
        }
        for sender in owned {
            let mut state = sender.lock();
            if state.owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, link)) {
                state.owner = None;
            }
        }
    }

    /// Ends one sender's subscription by a session that closes.
    fn part(
        &self,
        link: &Arc<Link>,
        channel: &Arc<Channel>,
        id: SenderId,
        keep: Option<Timestamp>,
        now: Timestamp,
    ) {
        let Ok(sender) = self.sender(id) else { return };
        let mut sender_state = sender.lock();
        let owned = sender_state.owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, link));
        let mut state = channel.lock();
        // Since it was listed it may have moved, or left.
        let Some(slot) = state.slot_of(id, link) else { return };
        let unread = state.unsubscribe(id, slot, &self.counters);
        if let Some(until) = keep {
            state.put_away(id, owned, unread, until);
            self.agenda.add(until, Item::Away(Arc::downgrade(channel), id));
        } else if state.remove_if_gone(id) {
            sender_state.joins.remove(&channel.name);
            self.watch_unused(channel, &state, now);
        }
    }

    fn look_at(&self, item: Item, now: Timestamp) {
        match item {
            Item::Away(channel, id) => {
                let (Some(channel), Ok(sender)) = (channel.upgrade(), self.sender(id)) else { return };
                let mut sender_state = sender.lock();
                let mut state = channel.lock();
                if state.expire_away(id, now) {
                    sender_state.joins.remove(&channel.name);
                    self.watch_unused(&channel, &state, now);
                }
            }
            Item::Unused(channel) => {
                let Some(channel) = channel.upgrade() else { return };
                self.retire_if_unused(&channel, &mut channel.lock());
            }
            Item::History(channel) => {
                let Some(channel) = channel.upgrade() else { return };
                let mut state = channel.lock();
                state.history_is_due = false;
                channel.trim_history(&mut state, now);
                self.watch_history(&channel, &mut state);
                self.retire_if_unused(&channel, &mut state);
            }
            Item::Sender(id) => self.expire(id, now),
        }
    }

    fn retire_if_unused(&self, channel: &Arc<Channel>, state: &mut State) {
        if state.is_unused() && !state.retired {
            state.retired = true;
            self.channels.pin().remove(&channel.name);
        }
    }

    /// Forgets a sender that was silent for `sender_ttl` and has no session.
    fn expire(&self, id: SenderId, now: Timestamp) {
        let Ok(sender) = self.sender(id) else { return };
        let mut state = sender.lock();
        let ttl = self.settings.load().sender_ttl;
        let connected =
            state.owner.is_some() || state.joins.values().any(|channel| channel.lock().delivers_to(id));
        let due = if connected { now.after(ttl) } else { sender.last_active().after(ttl) };
        if due > now {
            self.agenda.add(due, Item::Sender(id));
            return;
        }
        state.expired = true;
        let names: Vec<_> = state.joins.keys().cloned().collect();
        for name in names {
            self.leave_locked(&sender, &mut state, &name, now);
        }
        self.senders.pin().remove(&id);
        self.counters.senders_expired.add(1);
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("channels", &self.channels.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Receivers in order, each once; and whether 0, which is nobody, was named.
fn normalize(receivers: &[u32]) -> (Vec<SenderId>, bool) {
    let mut ids: Vec<_> = receivers.iter().filter_map(|&id| SenderId::new(id)).collect();
    ids.sort_unstable();
    ids.dedup();
    (ids, receivers.contains(&0))
}
