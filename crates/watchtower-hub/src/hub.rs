//! The hub: every channel, sender and session, and the calls that change
//! them.
//!
//! Knows no protocol, no socket, no runtime and no clock: times and
//! randomness are handed in, and sessions are woken by `std::task::Waker`s.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::channel::{History, HistoryQuery, Presence};
use crate::counters::{Counts, ProtocolCounts};
use crate::inner::Inner;
use crate::reader::Link;
use crate::session::Session;
use crate::{
    ChannelName, Epoch, KeptSender, Ledger, NotKept, NotRead, Position, Publish, Published, Refused,
    SenderId, Settings, Soon, Timestamp,
};

/// Where the hub's ids come from: the operating system's generator, or a seed
/// in tests.
pub trait Entropy: Send + Sync {
    /// Random bits that nobody can predict.
    fn next_u64(&self) -> u64;
}

/// All channels, senders and sessions of one server. Clones are the same hub.
#[derive(Clone)]
pub struct Hub(pub(crate) Arc<Inner>);

/// How a session's protocol takes it when a subscription falls behind too far, or
/// all of them together ([model: log]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenLagging {
    /// It is closed, with a reason.
    Close,
    /// It skips ahead, and the loss is counted.
    Skip,
}

impl Hub {
    /// An empty hub, which has no durable channels.
    pub fn new(settings: Settings, entropy: Box<dyn Entropy>) -> Hub {
        Hub(Inner::new(settings, entropy, None))
    }

    /// A hub whose durable channels are kept by `ledger`, with those that are
    /// there already.
    pub fn with_ledger(settings: Settings, entropy: Box<dyn Entropy>, ledger: Arc<dyn Ledger>) -> Hub {
        Hub(Inner::new(settings, entropy, Some(ledger)))
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

    /// Registers a new sender with a random id. It is forgotten when it was
    /// silent for `sender_ttl`, unless a session owns it or delivers to it.
    ///
    /// # Errors
    ///
    /// [`Refused::Limit`] when there are too many.
    pub fn register(&self, now: Timestamp) -> Result<SenderId, Refused> {
        Ok(self.0.register(true, now)?.id)
    }

    /// Whether the sender is registered, and may be used by whoever knows its id:
    /// not so one that is its [session's alone](Session::register_passing). Notes
    /// that it is active.
    pub fn is_registered(&self, sender: SenderId, now: Timestamp) -> bool {
        self.0.sender(sender).is_ok_and(|sender| {
            if sender.is_kept {
                self.0.touch(&sender, now);
            }
            sender.is_kept
        })
    }

    /// Takes up a sender of an earlier process, as its ledger was told. It
    /// expires when it would have; its joins that are not standing wait
    /// `session_ttl` from now on for a session that takes them up, with what
    /// comes meanwhile. To be called before anybody is served; limits of senders
    /// do not count. One that is there already stays as it is.
    ///
    /// # Errors
    ///
    /// [`Refused::Limit`], if there are too many channels: it is in those there
    /// are.
    pub fn restore(&self, sender: &KeptSender, now: Timestamp) -> Result<(), Refused> {
        self.0.restore(sender, now)
    }

    /// Comes when all that has become of senders and their joins until now
    /// outlives the process, or says why it does not; at once where nothing does.
    /// It has its effect all the same.
    pub fn kept(&self) -> Soon<(), NotKept> {
        let Some(ledger) = &self.0.ledger else { return Soon::known(()) };
        let (soon, promise) = Soon::awaited();
        ledger.when_kept(Box::new(|result| promise.keep(result)));
        soon
    }

    /// Says that the clock went from one time to another without that time
    /// having passed: what senders did last moves with it, so that none of them
    /// expires earlier or later for that. To be called before the next
    /// [`tick`](Self::tick).
    pub fn clock_jumped(&self, from: Timestamp, to: Timestamp) {
        self.0.clock_jumped(from, to);
    }

    /// Forgets a sender at once: its joins end, with what they have not
    /// delivered, sessions own it no longer, and its id is unknown from now on.
    ///
    /// # Errors
    ///
    /// [`Refused::UnknownSender`].
    pub fn unregister(&self, sender: SenderId, now: Timestamp) -> Result<(), Refused> {
        let sender = self.0.sender(sender)?;
        self.0.unregister(&sender, now)
    }

    /// Opens a session. `protocol` is what presence calls it.
    pub fn open(&self, protocol: &'static str, when_lagging: WhenLagging) -> Session {
        let counters = self.0.counters.of_protocol(protocol);
        counters.sessions.fetch_add(1, Ordering::Relaxed);
        self.0.counters.sessions.fetch_add(1, Ordering::Relaxed);
        let link = Link::new(counters, when_lagging == WhenLagging::Close);
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
        self.0.touch(&sender, now);
        let mut joined: Vec<&ChannelName> = Vec::new();
        for name in channels {
            let was_member = sender.lock().joins.contains_key(name);
            let result = self.0.enter(None, &sender, name, now, |_, state| {
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
        self.0.touch(&sender, now);
        self.0.leave(&sender, channel, now);
        Ok(())
    }

    /// Whether the sender has joined the channel.
    pub fn has_joined(&self, sender: SenderId, channel: &ChannelName) -> bool {
        self.0.sender(sender).is_ok_and(|sender| sender.lock().joins.contains_key(channel))
    }

    /// Publishes on one channel and returns where the message stands. On a
    /// durable channel that is known once it is kept; it is delivered then, and
    /// not before. Messages on one channel are kept, and answered, in the order
    /// of these calls.
    ///
    /// # Errors
    ///
    /// The first that applies of: [`Refused::TooLarge`],
    /// [`Refused::UnknownSender`], [`Refused::NotJoined`] or for a guest
    /// [`Refused::NoSuchChannel`], [`Refused::BadContent`],
    /// [`Refused::ReceiverNotJoined`] ([packets: rules]); for the server
    /// itself [`Refused::Limit`], when a channel would have to be made. At once
    /// or later, [`Refused::NotKept`].
    pub fn publish(
        &self,
        channel: &ChannelName,
        message: Publish<'_>,
        now: Timestamp,
    ) -> Result<Published, Refused> {
        self.0.publish(channel, message, now)
    }

    /// Publishes the same on several channels, on all or on none, and returns
    /// the places in the order of `channels`. A channel that is named twice
    /// gets it once. If one of them is durable, all get it once it is kept.
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
    ) -> Result<Published<Vec<Position>>, Refused> {
        self.0.publish_all(channels, message, now)
    }

    /// Takes no more messages: all that is published from now on is refused with
    /// [`Refused::Closed`]. What was taken before this returns is read by whoever
    /// drains afterwards: so a server that ends calls this first, and nobody is
    /// told of the end who has yet to hear what somebody else was acknowledged.
    /// A durable channel's, which may still be on its way to the disk, is read
    /// after the restart.
    pub fn close(&self) {
        self.0.end_publishing();
    }

    /// Whether there is such a channel: one that somebody is in, or was until
    /// a short while ago, or whose history keeps something, or that is durable
    /// and has a log.
    pub fn has_channel(&self, channel: &ChannelName) -> bool {
        self.0.channels.pin().contains_key(channel) || self.0.log(channel).is_some()
    }

    /// The names of all channels, sorted.
    pub fn channels(&self) -> Vec<ChannelName> {
        let mut names: Vec<_> = self.0.channels.pin().keys().cloned().collect();
        names.extend(self.0.logs());
        names.sort();
        names.dedup();
        names
    }

    /// The incarnation of the channel's log; `None` when there is no such
    /// channel.
    pub fn epoch(&self, channel: &ChannelName) -> Option<Epoch> {
        let in_memory = self.0.channels.pin().get(channel).map(|channel| channel.epoch);
        in_memory.or_else(|| self.0.log(channel).map(|ends| ends.epoch))
    }

    /// A page of what the channel keeps; `None` when there is no such channel.
    /// It is there at once, save where a durable log has to be read. Takes time
    /// in proportion to all that is kept in memory.
    pub fn history(
        &self,
        channel: &ChannelName,
        page: &HistoryQuery,
        now: Timestamp,
    ) -> Option<Soon<History, NotRead>> {
        self.0.history(channel, page, now)
    }

    /// Whether there is such a channel, and it tells its subscribers of presence
    /// ([`ChannelRule::presence_events`](crate::ChannelRule::presence_events)).
    pub fn tells_presence(&self, channel: &ChannelName) -> bool {
        self.0.channels.pin().get(channel).is_some_and(|channel| channel.rule.presence_events)
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

    /// What the hub counted for each protocol that a session was opened with.
    pub fn counts_by_protocol(&self) -> Vec<ProtocolCounts> {
        self.0.counters.read_by_protocol()
    }

    /// How many messages this thread has published, and those others that its
    /// counter is shared with: whoever finds it unchanged has published nothing.
    pub fn published_by_this_thread(&self) -> u64 {
        self.0.counters.published.of_this_thread()
    }

    /// Does what is due: ends joins, histories, senders and channels whose
    /// time is over. To be called about once a second.
    pub fn tick(&self, now: Timestamp) {
        self.0.tick(now);
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
