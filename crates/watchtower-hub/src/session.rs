//! One live client: its subscriptions, and how it reads them.
//!
//! A session knows neither its socket nor its protocol. Whoever drives it
//! drains it in one format and writes what it was given.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::channel::{Channel, Joined, Start, State};
use crate::hub::{Hub, WhenLagging};
use crate::inner::Inner;
use crate::log::{Entry, Place};
use crate::reader::{Link, Reader};
use crate::subscription::{Step, Stop, Subscription, Visit};
use crate::{ChannelName, Format, Message, Position, Publish, Published, Refused, SenderId, Timestamp};

/// Frames on their way to one client, in order.
#[derive(Debug, Default)]
pub struct Batch {
    /// Each holds one frame, or several.
    pub frames: SmallVec<[Bytes; 4]>,
    /// Their length together.
    pub bytes: usize,
    /// Whether the session was [poked](Session::poker) since it was last
    /// drained with a waker.
    pub poked: bool,
}

impl Batch {
    fn push(&mut self, frame: &Bytes) {
        self.bytes += frame.len();
        self.frames.push(frame.clone());
    }
}

/// Gathers frames until there are enough.
struct Gather<'a> {
    format: &'a dyn Format,
    bytes_max: usize,
    batch: &'a mut Batch,
    delivered: u64,
}

impl Visit for Gather<'_> {
    fn visit<'a>(&mut self, subscription: &Subscription, place: &'a Arc<Place>) -> Step<'a> {
        if self.batch.bytes >= self.bytes_max {
            return Step::Full;
        }
        if let Some(run) = place.run(self.format) {
            self.delivered += run.messages;
            self.batch.push(&run.bytes);
            return Step::Run(run);
        }
        if let Some(message) = place.message().filter(|message| subscription.hears(message)) {
            self.delivered += 1;
            self.batch.push(message.frame(self.format));
        }
        Step::One
    }

    fn visit_again(&mut self, place: &Arc<Place>) -> bool {
        let has_room = self.batch.bytes < self.bytes_max;
        if let Some(message) = place.message().filter(|_| has_room) {
            self.delivered += 1;
            self.batch.push(message.frame(self.format));
        }
        has_room
    }
}

/// Shows entries until whoever sees them has enough.
struct Show<F> {
    visit: F,
    is_full: bool,
    delivered: u64,
}

impl<F: FnMut(&Entry) -> bool> Visit for Show<F> {
    fn visit<'a>(&mut self, subscription: &Subscription, place: &'a Arc<Place>) -> Step<'a> {
        if self.is_full {
            return Step::Full;
        }
        if let Some(entry) = Entry::at(place).filter(|entry| subscription.hears(entry)) {
            self.delivered += 1;
            self.is_full = !(self.visit)(&entry);
        }
        Step::One
    }

    fn visit_again(&mut self, place: &Arc<Place>) -> bool {
        let has_room = !self.is_full;
        if let Some(entry) = Entry::at(place).filter(|_| has_room) {
            self.delivered += 1;
            self.is_full = !(self.visit)(&entry);
        }
        has_room
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
    /// The session fell behind too far: its client is to be told, and closed
    /// ([model: log]). The session itself is dropped, or
    /// [suspended](Session::suspend) for a client that comes back.
    Lagging,
}

/// One live client of one protocol ([model: terms]).
///
/// Dropping it closes it: its joins stay for `session_ttl`, what they miss
/// included, for a session that takes them up.
///
/// A session may outlive its connection, held in an `Arc` by whoever it belongs
/// to: one driver after another drains it, and between them it is
/// [suspended](Self::suspend).
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

    /// The client says where it was when it comes back ([`Start::After`]). So
    /// channels keep what they handed out here for ten seconds longer, up to a
    /// quarter of `lag_bytes`, and when the session is over, for as long as
    /// its joins: some of it may never have arrived. To be called before the
    /// first subscription.
    pub fn resumes_by_position(&self) {
        self.link.resume_by_position();
    }

    /// Nobody drives the session until it is [resumed](Self::resume).
    ///
    /// It keeps its subscriptions and what they have not been handed out, within
    /// the lag limits: what falls behind further is skipped and counted,
    /// whatever was agreed on before ([model: log]). That it was
    /// [lagging](Drained::Lagging) is forgotten. Its last driver's waker is
    /// dropped, and not woken any more. To be called by that driver, or after
    /// it has ended.
    pub fn suspend(&self) {
        self.set_when_lagging(WhenLagging::Skip);
        self.link.bell.silence();
    }

    /// A driver takes the session over. What the one before was not handed out,
    /// as far as it was kept, comes with the first drain, whose waker replaces
    /// the one before.
    ///
    /// `when_lagging` counts from now on. A session that was lagging goes on
    /// with the oldest that is kept.
    pub fn resume(&self, when_lagging: WhenLagging) {
        self.set_when_lagging(when_lagging);
    }

    fn set_when_lagging(&self, when_lagging: WhenLagging) {
        let mut reader = self.link.reader.lock();
        reader.closes_when_lagging = when_lagging == WhenLagging::Close;
        reader.lagging = false;
    }

    /// Gathers what is ready, as frames of `format`, in offset order per
    /// channel and by turns between channels, until `batch` holds
    /// `bytes_max` bytes or somewhat more.
    ///
    /// `waker` is woken once something comes after what this call found;
    /// without one, whoever waits already goes on waiting. Only the one task
    /// that drives the session may call this; after another has driven it, with
    /// its own waker at first. Never blocks on other sessions; what it gathers
    /// counts as handed out.
    pub fn drain(
        &self,
        format: &dyn Format,
        waker: Option<&Waker>,
        bytes_max: usize,
        batch: &mut Batch,
    ) -> Drained {
        let mut gather = Gather { format, bytes_max, batch, delivered: 0 };
        let (drained, poked) = self.read(waker, &mut gather);
        self.count(gather.delivered);
        batch.poked |= poked;
        drained
    }

    /// Like [`drain`](Self::drain), message by message: for formats that do
    /// not run on, as datagrams, and for those who need the message itself.
    /// Ends when `visit` returns `false`, having taken that message too.
    pub fn drain_messages(&self, waker: Option<&Waker>, visit: impl FnMut(&Entry) -> bool) -> Drained {
        let mut show = Show { visit, is_full: false, delivered: 0 };
        let (drained, _) = self.read(waker, &mut show);
        self.count(show.delivered);
        drained
    }

    /// Loads what a drain looks at first into the processor's caches, without
    /// waiting for it: for a driver that is about to drain many sessions. Called for
    /// all of them in a row, it has the processor load them at the same time.
    pub fn warm(&self) {
        self.link.warm();
    }

    fn count(&self, delivered: u64) {
        if delivered > 0 {
            self.hub.counters.delivered.add(delivered);
        }
    }

    /// What was found, and whether the session was poked.
    fn read(&self, waker: Option<&Waker>, visit: &mut impl Visit) -> (Drained, bool) {
        let mut reader = self.link.reader.lock();
        let poked = reader.hear(&self.link.bell, waker);
        if reader.lagging {
            return (Drained::Lagging, poked);
        }
        while let Some(key) = reader.pop_ready() {
            let Some(subscription) = reader.get(key) else { continue };
            match subscription.read(visit) {
                Stop::AtEnd => {
                    subscription.queued = false;
                    if subscription.has_page {
                        reader.give_back_page(key);
                    }
                }
                Stop::Full => {
                    reader.push_ready(key);
                    if reader.awaits_pages {
                        self.turn_pages(&mut reader);
                    }
                    return (Drained::More, poked);
                }
                Stop::AtPage => {
                    subscription.queued = false;
                    reader.await_page(key);
                }
            }
        }
        if reader.awaits_pages {
            self.turn_pages(&mut reader);
        }
        (Drained::All, poked)
    }

    /// Asks for the pages that subscriptions wait for.
    #[cold]
    #[inline(never)]
    fn turn_pages(&self, reader: &mut Reader) {
        while let Some(key) = reader.next_page() {
            let Some(subscription) = reader.get(key) else { continue };
            if !self.hub.ask_page(&self.link, key, subscription) {
                reader.await_page(key);
                if reader.refused_page(true) {
                    self.hub.waiting_for_ledger.lock().push(Arc::downgrade(&self.link));
                }
                return;
            }
        }
    }

    /// Wakes `waker` from now on, as the last [drain](Self::drain) would have:
    /// for a driver that cannot drain yet. What poked before is not lost: the
    /// next drain says so.
    pub fn wait(&self, waker: &Waker) {
        self.link.bell.wait(waker);
    }

    /// A waker for what is not published: a socket that has input, a timer.
    ///
    /// It wakes whoever waits in [`drain`](Self::drain), and the next drain
    /// with a waker says so in [`Batch::poked`]. So a driver that is woken and
    /// not poked need look at nothing but what was published. While nobody
    /// waits, it wakes nobody.
    pub fn poker(&self) -> Waker {
        Waker::from(self.link.clone())
    }

    /// The name of the protocol that the session was opened with.
    pub fn protocol(&self) -> &'static str {
        self.link.protocol.name
    }

    /// When the message was published that woke the session first since it was
    /// last drained: what it is to be handed next, unless it was behind already.
    /// `None` while it was not woken by one.
    pub fn woken_by(&self) -> Option<Timestamp> {
        let mut first = None;
        self.link.bell.peek(|ring| {
            if first.is_none() {
                first = ring.start.message().map(Message::time);
            }
        });
        first
    }

    /// A way to ask later how far the session is behind.
    pub fn backlog(&self) -> Backlog {
        Backlog(Arc::downgrade(&self.link))
    }

    /// Whether this session owns a sender.
    pub fn owns_senders(&self) -> bool {
        !self.link.reader.lock().owned.is_empty()
    }

    /// Whether the session fell behind too far, so that the next drain says
    /// [`Drained::Lagging`]: for a driver that waits to write, and drains
    /// nothing meanwhile.
    pub fn is_lagging(&self) -> bool {
        self.link.reader.lock().lagging
    }

    /// Whether this session delivers the channel, to whomever: not once everybody
    /// has left it whom it is delivered to here, by whatever session.
    pub fn is_subscribed(&self, channel: &ChannelName) -> bool {
        let channel = self.hub.channels.pin().get(channel).cloned();
        channel.is_some_and(|channel| self.link.reader.lock().find(&channel).is_some())
    }

    /// How many channels the session is subscribed to, mailboxes included.
    pub fn subscriptions(&self) -> usize {
        self.link.reader.lock().len()
    }
}

impl Session {
    /// Registers a new sender that this session owns.
    ///
    /// # Errors
    ///
    /// [`Refused::Limit`] when there are too many.
    pub fn register(&self, now: Timestamp) -> Result<SenderId, Refused> {
        self.register_kept(true, now)
    }

    /// As [`register`](Self::register), for a client that cannot come back by its
    /// id: no ledger is told of the sender, so it does not outlive the process, and
    /// no other session can own it.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    pub fn register_passing(&self, now: Timestamp) -> Result<SenderId, Refused> {
        self.register_kept(false, now)
    }

    fn register_kept(&self, kept: bool, now: Timestamp) -> Result<SenderId, Refused> {
        let sender = self.hub.register(kept, now)?;
        self.hub.attach(&self.link, &sender, now)?;
        Ok(sender.id)
    }

    /// Makes this session the owner of a sender: what its owned joins deliver
    /// comes here from now on, from where it was ([packets: rules]). Where this
    /// session has read further in a channel already, for another of its senders,
    /// what is for all does not come again; direct messages to the one that moved
    /// come late. From then on it is there by this session's protocol.
    ///
    /// # Errors
    ///
    /// [`Refused::UnknownSender`]; [`Refused::BoundElsewhere`] when another session
    /// owns it and ids are bound, or it is that session's alone; [`Refused::Limit`] when it came from
    /// elsewhere so often that its joins, each time that it moved, are more
    /// than twice `channels_per_sender_max` in ten seconds.
    pub fn attach(&self, sender: SenderId, now: Timestamp) -> Result<(), Refused> {
        let owned = self.link.reader.lock().owned.get(sender).map(|sender| sender.touch(now));
        match owned {
            Some(false) => return Ok(()),
            Some(true) => {
                self.hub.note_activity(&*self.hub.sender(sender)?);
                return Ok(());
            }
            None => {}
        }
        let sender = self.hub.sender(sender)?;
        self.hub.touch(&sender, now);
        self.hub.attach(&self.link, &sender, now)
    }

    /// Joins an owned sender to a channel and delivers here, from the end or,
    /// after a reconnect, from what it missed. Joining twice changes nothing.
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach), and [`Refused::Limit`].
    pub fn join(&self, sender: SenderId, channel: &ChannelName, now: Timestamp) -> Result<Joined, Refused> {
        let sender = self.hub.sender(sender)?;
        self.hub.touch(&sender, now);
        // Attached and joined at once: an id that moved in between would be
        // delivered to by two connections.
        self.hub.enter(Some(&self.link), &sender, channel, now, |channel, state| {
            state.member(sender.id, self.link.protocol.name, now);
            let missed = state.take_up(sender.id);
            let from = missed.as_ref().unwrap_or(state.end()).clone();
            if state.slot_of(sender.id, &self.link).is_none() {
                let is_new = missed.is_none();
                let first = if is_new { state.beginning(channel, &self.link, &from) } else { from.clone() };
                state.subscribe(channel, &self.link, Some(sender.id), &first, &self.hub.counters)?;
            }
            Ok(Joined {
                position: Position { epoch: channel.epoch, offset: from.offset() - 1 },
                recovered: true,
            })
        })
    }

    /// Joins an owned sender to a channel and delivers here from `start` on,
    /// whatever was delivered before, or missed. What this session delivers of
    /// the channel to other senders goes on from there too. Where that is not
    /// kept, nothing is lost that would have been delivered without.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn follow(
        &self,
        sender: SenderId,
        channel: &ChannelName,
        start: Start,
        now: Timestamp,
    ) -> Result<Joined, Refused> {
        let sender = self.hub.sender(sender)?;
        self.hub.touch(&sender, now);
        self.hub.enter(Some(&self.link), &sender, channel, now, |channel, state| {
            state.member(sender.id, self.link.protocol.name, now);
            // First, since what is ended next may be what keeps it.
            let (mut from, recovered) = self.hub.start(channel, state, start);
            let missed = state.take_up(sender.id);
            let (mut senders, unread) = state.end_reading(channel, &self.link, &self.hub.counters);
            senders.retain(|other| *other != sender.id);
            if !recovered {
                let unread = unread.iter().chain(&missed).map(|place| place.in_log().clone()).chain([from]);
                from = unread.min_by_key(|place| place.offset()).unwrap_or_else(|| state.end().clone());
            }
            let first = self.first(channel, state, start, &from, recovered);
            state.subscribe(channel, &self.link, Some(sender.id), &first, &self.hub.counters)?;
            for id in senders {
                state.subscribe(channel, &self.link, Some(id), &from, &self.hub.counters)?;
            }
            Ok(Joined { position: Position { epoch: channel.epoch, offset: from.offset() - 1 }, recovered })
        })
    }

    /// Where a subscription begins that goes on at `from`: who resumes has what was
    /// retained before, unless something is missing.
    fn first(
        &self,
        channel: &Arc<Channel>,
        state: &mut State,
        start: Start,
        from: &Arc<Place>,
        recovered: bool,
    ) -> Arc<Place> {
        if start == Start::End || !recovered {
            state.beginning(channel, &self.link, from)
        } else {
            from.clone()
        }
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
        self.hub.touch(&sender, now);
        self.hub.enter(None, &sender, channel, now, |channel, state| {
            state.member(sender.id, self.link.protocol.name, now);
            let (from, recovered) = self.hub.start(channel, state, start);
            let first = self.first(channel, state, start, &from, recovered);
            state.subscribe(channel, &self.link, Some(sender.id), &first, &self.hub.counters)?;
            Ok(Joined { position: Position { epoch: channel.epoch, offset: from.offset() - 1 }, recovered })
        })
    }

    /// Ends this session's subscription on behalf of `sender`, owned or not.
    /// With its last subscription the sender leaves the channel, unless it has
    /// [joined](Hub::join) it to send. Ending what is not there does nothing.
    pub fn unsubscribe(&self, sender: SenderId, channel: &ChannelName, now: Timestamp) {
        self.hub.unsubscribe(&self.link, sender, channel, now);
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
    ) -> Result<Published, Refused> {
        self.hub.publish(channel, message, now)
    }

    /// The hub that this is a session of.
    pub fn hub(&self) -> Hub {
        Hub(self.hub.clone())
    }
}

/// Tells how far a session is behind, and does not keep it alive.
#[derive(Debug, Clone)]
pub struct Backlog(Weak<Link>);

impl Backlog {
    /// The bytes that were published in the session's channels and not handed
    /// out, each message counting somewhat more than its content; and how many
    /// subscriptions were looked at for that, some ten nanoseconds each. Nothing
    /// once the session is over.
    pub fn unread(&self) -> (u64, usize) {
        let Some(link) = self.0.upgrade() else { return (0, 0) };
        let reader = link.reader.lock();
        (reader.unread_bytes(&link.bell).bytes, reader.len())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.hub.counters.sessions.fetch_sub(1, Ordering::Relaxed);
        self.link.protocol.sessions.fetch_sub(1, Ordering::Relaxed);
        self.hub.close(&self.link, self.keeps_joins.load(Ordering::Relaxed));
    }
}
