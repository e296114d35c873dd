//! One live client: its subscriptions, and how it reads them.
//!
//! A session knows neither its socket nor its protocol. Whoever drives it
//! drains it in one format and writes what it was given.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::bell::{Bell, Rung};
use crate::channel::{Channel, Joined, Start};
use crate::hub::{Hub, Publish};
use crate::idle::IdleSet;
use crate::inner::Inner;
use crate::log::{Entry, Place};
use crate::senders::Sender;
use crate::{ChannelName, Format, Message, Position, Refused, SenderId, Timestamp};

/// How many subscriptions are searched one by one, before an index is made.
const UNINDEXED_MAX: usize = 8;

/// What publishers and the session itself share.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) bell: Bell<Ring>,
    /// Held while frames are gathered, never over a write.
    pub(crate) reader: Mutex<Reader>,
    pub(crate) protocol: &'static str,
    pub(crate) closes_when_lagging: bool,
}

/// A subscription that rested has something to read, from `start` on.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) key: u32,
    pub(crate) start: Arc<Place>,
}

/// A session's cursors, what a delivery looks at first and together.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Reader {
    pub(crate) lagging: bool,
    pub(crate) closed: bool,
    /// The subscriptions that have something to read, in turn.
    ready: VecDeque<u32>,
    subscriptions: SmallVec<[Option<Subscription>; 1]>,
    free: Vec<u32>,
    /// Channel addresses to keys, once the subscriptions are many.
    index: Option<Box<FxHashMap<usize, u32>>>,
    /// The senders that this session owns, sorted by id.
    owned: SmallVec<[(SenderId, Arc<Sender>); 1]>,
}

/// A session's place in a channel ([model: terms]).
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) channel: Arc<Channel>,
    pub(crate) set: Arc<IdleSet>,
    pub(crate) slot: u32,
    /// The first offset that was not handed out, or a lower one where what
    /// lies between is for others. It only grows: nothing is handed out twice.
    pub(crate) next: u64,
    /// Where to read on; `None` while it rests at the end of the log, holding
    /// nothing.
    pub(crate) cursor: Option<Arc<Place>>,
    /// Whether its key is in `Reader::ready`.
    pub(crate) queued: bool,
    /// The senders that it delivers to.
    pub(crate) senders: SmallVec<[SenderId; 2]>,
}

/// Frames on their way to one client, in order.
#[derive(Debug, Default)]
pub struct Batch {
    /// Each holds one frame, or several.
    pub frames: SmallVec<[Bytes; 4]>,
    /// Their length together.
    pub bytes: usize,
}

impl Batch {
    fn push(&mut self, frame: &Bytes) {
        self.bytes += frame.len();
        self.frames.push(frame.clone());
    }
}

/// What a drain found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Drained {
    /// All that there was: the waker is woken by what comes next.
    All,
    /// There is more to read than was asked for.
    More,
    /// The session fell behind too far: it is to be told, and closed
    /// ([model: log]).
    Lagging,
}

/// One live client of one protocol ([model: terms]).
///
/// Dropping it closes it: its joins stay for `session_ttl`, what they miss
/// included, for a session that takes them up.
#[derive(Debug)]
pub struct Session {
    pub(crate) link: Arc<Link>,
    pub(crate) hub: Arc<Inner>,
    /// Whether its joins outlive it for a while.
    keeps_joins: AtomicBool,
}

impl Session {
    pub(crate) fn new(hub: Arc<Inner>, link: Arc<Link>) -> Session {
        Session { link, hub, keeps_joins: AtomicBool::new(true) }
    }

    /// From now on the session's joins end with it.
    pub fn end_joins_on_close(&self) {
        self.keeps_joins.store(false, Ordering::Relaxed);
    }

    /// Gathers what is ready, as frames of `format`, in offset order per
    /// channel and by turns between channels, until `batch` holds
    /// `bytes_max` bytes or somewhat more.
    ///
    /// `waker` is woken once something comes after what this call found;
    /// without one, whoever waits already goes on waiting. Only the one task
    /// that drives the session may call this. Never blocks on
    /// other sessions; what it gathers counts as handed out.
    pub fn drain(
        &self,
        format: &dyn Format,
        waker: Option<&Waker>,
        bytes_max: usize,
        batch: &mut Batch,
    ) -> Drained {
        let mut delivered = 0;
        let drained = self.read(waker, |subscription, place| {
            if batch.bytes >= bytes_max {
                return Step::Full;
            }
            if let Some(run) = place.run(format) {
                delivered += run.messages;
                batch.push(&run.bytes);
                return Step::Run(run);
            }
            if let Some(message) = place.message().filter(|message| subscription.hears(message)) {
                delivered += 1;
                batch.push(message.frame(format));
            }
            Step::One
        });
        if delivered > 0 {
            self.hub.counters.delivered.add(delivered);
        }
        drained
    }

    /// Like [`drain`](Self::drain), message by message: for formats that do
    /// not run on, as datagrams, and for those who need the message itself.
    /// Ends when `visit` returns `false`, having taken that message too.
    pub fn drain_messages(&self, waker: Option<&Waker>, mut visit: impl FnMut(&Entry) -> bool) -> Drained {
        let mut delivered = 0;
        let mut full = false;
        let drained = self.read(waker, |subscription, place| {
            if full {
                return Step::Full;
            }
            if let Some(entry) = Entry::at(place).filter(|entry| subscription.hears(entry)) {
                delivered += 1;
                full = !visit(&entry);
            }
            Step::One
        });
        if delivered > 0 {
            self.hub.counters.delivered.add(delivered);
        }
        drained
    }

    /// Whether the session fell behind too far, for a driver that cannot write
    /// at the moment and so does not drain. `waker` is woken as by a drain.
    pub fn is_lagging(&self, waker: &Waker) -> bool {
        let mut reader = self.link.reader.lock();
        reader.hear(&self.link.bell, Some(waker));
        reader.lagging
    }

    fn read(
        &self,
        waker: Option<&Waker>,
        mut visit: impl for<'a> FnMut(&Subscription, &'a Arc<Place>) -> Step<'a>,
    ) -> Drained {
        let mut reader = self.link.reader.lock();
        reader.hear(&self.link.bell, waker);
        if reader.lagging {
            return Drained::Lagging;
        }
        while let Some(key) = reader.ready.pop_front() {
            let Some(subscription) = reader.get(key) else { continue };
            if subscription.read(&mut visit) {
                subscription.queued = false;
            } else {
                reader.ready.push_back(key);
                return Drained::More;
            }
        }
        Drained::All
    }

    /// The name of the protocol that the session was opened with.
    pub fn protocol(&self) -> &'static str {
        self.link.protocol
    }

    /// Whether this session owns a sender.
    pub fn owns_senders(&self) -> bool {
        !self.link.reader.lock().owned.is_empty()
    }

    /// How many channels the session is subscribed to.
    pub fn subscriptions(&self) -> usize {
        let reader = self.link.reader.lock();
        reader.subscriptions.len() - reader.free.len()
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
        let sender = self.hub.sender(sender)?;
        sender.touch(now);
        // Attached and joined at once: an id that moved in between would be
        // delivered to by two connections.
        self.hub.enter(Some(&self.link), &sender, channel, |channel, state| {
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
        self.hub.enter(None, &sender, channel, |channel, state| {
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

impl Drop for Session {
    fn drop(&mut self) {
        self.hub.counters.sessions.fetch_sub(1, Ordering::Relaxed);
        self.hub.close(&self.link, self.keeps_joins.load(Ordering::Relaxed));
    }
}

/// What became of the message at a place.
enum Step<'a> {
    /// It is dealt with.
    One,
    /// It is, and what follows up to the end of the run.
    Run(&'a crate::log::Run),
    /// There is no room for it.
    Full,
}

impl Subscription {
    /// Hands out what there is; whether that was all, so that the subscription
    /// rests.
    fn read(&mut self, visit: &mut impl for<'a> FnMut(&Subscription, &'a Arc<Place>) -> Step<'a>) -> bool {
        let Some(start) = self.cursor.take() else { return true };
        // What `start` holds keeps all places after it: no counting on the way.
        let mut place = &start;
        loop {
            if place.is_empty() {
                self.next = place.offset();
                if self.set.rest(self.slot, || place.is_empty()) {
                    return true;
                }
                continue;
            }
            match visit(self, place) {
                Step::Run(run) => place = &run.end,
                Step::One => place = place.next().unwrap_or(place),
                Step::Full => {
                    self.next = place.offset();
                    self.cursor = Some(place.clone());
                    return false;
                }
            }
        }
    }

    /// Whether the message is for one of the senders that this delivers to.
    fn hears(&self, message: &Message) -> bool {
        match message.audience() {
            crate::Audience::Channel => true,
            crate::Audience::Senders(ids) => {
                self.senders.iter().any(|sender| ids.binary_search(sender).is_ok())
            }
        }
    }
}

impl Reader {
    /// Takes note of all that the session was rung for.
    pub(crate) fn hear(&mut self, bell: &Bell<Ring>, waker: Option<&Waker>) {
        let mut rung = Rung::new();
        bell.answer(waker, &mut rung);
        for ring in rung {
            self.answer(ring);
        }
    }

    fn answer(&mut self, ring: Ring) {
        let Some(subscription) = self.get(ring.key) else { return };
        // A ring can come after what it was for has been read already.
        if subscription.cursor.is_none() {
            let behind = ring.start.offset() < subscription.next;
            let place = if behind { Place::seek(&ring.start, subscription.next).clone() } else { ring.start };
            subscription.cursor = Some(place);
        }
        if !std::mem::replace(&mut subscription.queued, true) {
            self.ready.push_back(ring.key);
        }
    }

    pub(crate) fn get(&mut self, key: u32) -> Option<&mut Subscription> {
        self.subscriptions.get_mut(key as usize)?.as_mut()
    }

    pub(crate) fn find(&mut self, channel: &Arc<Channel>) -> Option<&mut Subscription> {
        let key = match &self.index {
            Some(index) => *index.get(&address(channel))?,
            None => {
                let is_here =
                    |s: &Option<Subscription>| s.as_ref().is_some_and(|s| Arc::ptr_eq(&s.channel, channel));
                u32::try_from(self.subscriptions.iter().position(is_here)?).ok()?
            }
        };
        self.get(key)
    }

    pub(crate) fn insert(&mut self, subscription: Subscription) -> u32 {
        let channel = address(&subscription.channel);
        let key = match self.free.pop() {
            Some(key) => {
                self.subscriptions[key as usize] = Some(subscription);
                key
            }
            None => {
                self.subscriptions.push(Some(subscription));
                self.subscriptions.len() as u32 - 1
            }
        };
        if self.index.is_none() && self.subscriptions.len() > UNINDEXED_MAX {
            let entry =
                |(key, s): (usize, &Option<Subscription>)| Some((address(&s.as_ref()?.channel), key as u32));
            self.index = Some(Box::new(self.subscriptions.iter().enumerate().filter_map(entry).collect()));
        } else if let Some(index) = &mut self.index {
            index.insert(channel, key);
        }
        key
    }

    pub(crate) fn remove(&mut self, key: u32) {
        let Some(subscription) = self.subscriptions.get_mut(key as usize).and_then(Option::take) else {
            return;
        };
        self.free.push(key);
        if subscription.queued {
            self.ready.retain(|other| *other != key);
        }
        if let Some(index) = &mut self.index {
            index.remove(&address(&subscription.channel));
        }
    }

    /// The channels that this session is subscribed to, and for whom.
    pub(crate) fn channels(&self) -> Vec<(Arc<Channel>, u32, SmallVec<[SenderId; 2]>)> {
        let part = |s: &Subscription| (s.channel.clone(), s.slot, s.senders.clone());
        self.subscriptions.iter().flatten().map(part).collect()
    }

    pub(crate) fn owned(&self, sender: SenderId) -> Option<&Arc<Sender>> {
        let index = self.owned.binary_search_by_key(&sender, |(id, _)| *id).ok()?;
        Some(&self.owned[index].1)
    }

    pub(crate) fn own(&mut self, sender: &Arc<Sender>) {
        if let Err(index) = self.owned.binary_search_by_key(&sender.id, |(id, _)| *id) {
            self.owned.insert(index, (sender.id, sender.clone()));
        }
    }

    pub(crate) fn disown(&mut self, sender: SenderId) {
        self.owned.retain(|(id, _)| *id != sender);
    }

    pub(crate) fn all_owned(&self) -> Vec<Arc<Sender>> {
        self.owned.iter().map(|(_, sender)| sender.clone()).collect()
    }
}

/// A channel's identity while it is held.
fn address(channel: &Arc<Channel>) -> usize {
    Arc::as_ptr(channel).addr()
}
