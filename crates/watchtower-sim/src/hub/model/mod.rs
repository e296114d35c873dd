//! What the hub promises, as plain data: who is registered, who is in which
//! channel, and what each session has yet to be given.
//!
//! A channel is a list of messages, and a subscription the set of those that it
//! is to hear. Nothing is shared, nothing is woken, and nothing is kept back to
//! save time. Knows no bytes and no connections; [`super::protocols`] asks it
//! what a request comes to.

mod channel;
mod delivery;
mod follow;
mod kept;
mod presence;
mod senders;
mod submitted;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use watchtower_hub::{ChannelName, Content, Counts, Epoch, Timestamp};

pub(super) use self::channel::{Publication, has_history};
pub(super) use self::delivery::Heard;
pub(super) use self::follow::Start;
pub(super) use self::presence::tells_presence;
use self::presence::{Announcements, Leaves};
pub(super) use self::submitted::Answered;
use self::submitted::Submission;
use super::disk::is_durable;
use super::script::Setting;

/// How long joins outlive their session, and channels their last member.
pub(super) const SESSION_TTL: Duration = Duration::from_secs(20);
/// How long silent senders live.
pub(super) const SENDER_TTL: Duration = Duration::from_secs(60);
/// The longest content.
pub(super) const MESSAGE_BYTES_MAX: usize = 4_096;
/// What the history of a channel that has one keeps.
pub(super) const HISTORY_MESSAGES: usize = 5;
pub(super) const HISTORY_TTL: Duration = Duration::from_secs(15);

/// The channel that retains its last message, where one does.
pub(super) const RETAINING: &str = "2";

/// What a message counts for besides its bytes.
const ENTRY_BYTES: u64 = 256;

/// A session's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionId(pub(super) usize);

/// What the hub is expected to be like.
pub(super) struct Model {
    pub(super) setting: Setting,
    pub(super) channels: BTreeMap<ChannelName, Channel>,
    pub(super) senders: BTreeMap<u32, Sender>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    sessions_opened: usize,
    /// The durable channels that are not in memory.
    put_aside: BTreeMap<ChannelName, Channel>,
    /// What waits for the ledger.
    submitted: VecDeque<Submission>,
    pub(super) now: Timestamp,
    ticked: Timestamp,
    /// Whether somebody waits for what is in the ledger alone: so what a durable
    /// channel has is not known to be all.
    pub(super) awaits_ledger: bool,
    /// Who left at this tick.
    leaves: Option<Leaves>,
    /// Whether what happened is promised nowhere, so that nothing more is known.
    pub(super) is_open: bool,
    pub(super) counted: Counted,
}

/// What is to be counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    pub(super) published: u64,
    pub(super) published_bytes: u64,
    pub(super) delivered: u64,
    /// At least so many were skipped.
    pub(super) skipped: u64,
    pub(super) lagging: u64,
    pub(super) expired: u64,
    pub(super) recovered: u64,
    pub(super) refused: u64,
    pub(super) kept: u64,
    /// Changes of presence that were not told one by one.
    pub(super) left_out: u64,
    /// Those that a ledger kept, or the number of some.
    pub(super) announced: u64,
    /// Senders that outlived the hub.
    pub(super) restored: u64,
}

#[derive(Debug, Default)]
pub(super) struct Channel {
    /// `None` until the hub was asked for it.
    pub(super) epoch: Option<Epoch>,
    pub(super) log: Vec<Rc<Message>>,
    /// How many bytes were published.
    bytes: u64,
    /// What who comes is to hear first.
    pub(super) retained: Option<u64>,
    pub(super) members: BTreeMap<u32, Member>,
    /// Until when it is there at least.
    unused_until: Timestamp,
    announcements: Announcements,
}

#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) channel: ChannelName,
    pub(super) offset: u64,
    pub(super) sender: u32,
    /// `None`: everyone.
    pub(super) to: Option<BTreeSet<u32>>,
    pub(super) content: Content,
    bytes_before: u64,
    pub(super) time: Timestamp,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) protocol: &'static str,
    pub(super) since: Timestamp,
    standing: bool,
    /// What its owner's session left, for the next one.
    away: Option<Away>,
    /// Its streams that ended.
    streams: Option<AwayStreams>,
}

#[derive(Debug)]
struct Away {
    unread: Unread,
    until: Timestamp,
}

/// What a sender has not heard where it was delivered to.
#[derive(Debug, Default)]
struct Unread {
    /// It is to hear these.
    due: BTreeSet<u64>,
    /// It may hear these, or not: they had been heard where it came to, and it
    /// was gone from there before that was looked at.
    possible: BTreeSet<u64>,
    /// It has heard what is before this, at least.
    next: u64,
    /// What was retained, and it has not heard.
    first: Option<u64>,
    resumes: bool,
}

#[derive(Debug)]
struct AwayStreams {
    /// From here on everything is kept.
    kept: u64,
    until: Timestamp,
}

#[derive(Debug)]
pub(super) struct Sender {
    pub(super) owner: Option<SessionId>,
    /// Whether it is its session's alone, whoever knows its id.
    is_passing: bool,
    joins: BTreeSet<ChannelName>,
    last_active: Timestamp,
    expiry: Timestamp,
    moves: Moves,
}

/// How many joins an id took along lately, in thousandths.
#[derive(Debug, Default)]
struct Moves {
    used: u64,
    as_of: Timestamp,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) protocol: &'static str,
    pub(super) subscriptions: BTreeMap<ChannelName, Subscription>,
    /// Messages to it alone, if there ever was one.
    pub(super) whispers: Option<Whispers>,
    /// Whether it is closed when it lags, and does not skip.
    pub(super) closes: bool,
    pub(super) resumes: bool,
    /// Whether it was too far behind where it is not any more.
    pub(super) was_behind: bool,
}

/// A log of a session's own.
#[derive(Debug)]
pub(super) struct Whispers {
    channel: Channel,
    subscription: Subscription,
}

/// What a session has yet to hear of a channel.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) pending: BTreeSet<u64>,
    /// What may come, too.
    possible: BTreeSet<u64>,
    /// Whether it is known where it began: before that, all that may come must,
    /// from the first on that does.
    has_begun: bool,
    /// What was retained when it began.
    first: Option<First>,
    /// What was retained where some of them came from, and comes with them where
    /// they go before this was looked at.
    firsts: BTreeMap<u32, u64>,
    /// For whom, and from where on each.
    senders: BTreeMap<u32, u64>,
    /// What some of them had not heard, and will not hear here, once it was
    /// looked at.
    late: BTreeMap<u32, BTreeSet<u64>>,
    /// Up to here it has read at least, whatever was for it.
    next: u64,
    /// Whether it has read all, and was not woken since.
    rests: bool,
    /// Whether it has yet to hear what is kept for whoever resumes.
    resumes: bool,
}

/// A message that a subscription begins with, which is older than all others.
#[derive(Debug, Clone, Copy)]
struct First {
    offset: u64,
    /// Whether it must come. When a sender moves before that is seen, it may come
    /// where it moves to.
    is_due: bool,
}

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    UnknownSender,
    BoundElsewhere,
    NotJoined,
    NoSuchChannel,
    ReceiverNotJoined,
    TooLarge,
    BadContent,
    Limit,
    NotKept,
}

impl Model {
    /// A hub that is empty, and has counted so much.
    pub(super) fn new(setting: Setting, now: Timestamp, counts: &Counts) -> Model {
        let Counts { published, published_bytes, delivered, senders_expired, presence_left_out, .. } =
            *counts;
        let counted = Counted {
            published,
            published_bytes,
            delivered,
            expired: senders_expired,
            left_out: presence_left_out,
            ..Counted::default()
        };
        Model {
            setting,
            channels: BTreeMap::new(),
            senders: BTreeMap::new(),
            sessions: BTreeMap::new(),
            sessions_opened: 0,
            put_aside: BTreeMap::new(),
            submitted: VecDeque::new(),
            now,
            ticked: now,
            awaits_ledger: false,
            leaves: None,
            is_open: false,
            counted,
        }
    }

    // Sessions.

    pub(super) fn open(&mut self, protocol: &'static str, closes: bool) -> SessionId {
        let id = SessionId(self.sessions_opened);
        self.sessions_opened += 1;
        let session = Session {
            protocol,
            subscriptions: BTreeMap::new(),
            whispers: None,
            closes,
            resumes: false,
            was_behind: false,
        };
        self.sessions.insert(id, session);
        id
    }

    /// A session is over. Its joins stay for a while, when they are to be kept.
    pub(super) fn close(&mut self, id: SessionId, keeps_joins: bool) {
        let Some(session) = self.sessions.get(&id) else { return };
        let parts: Vec<_> = session
            .subscriptions
            .iter()
            .flat_map(|(name, subscription)| {
                subscription.senders.keys().map(|sender| (name.clone(), *sender))
            })
            .collect();
        for (name, sender) in parts {
            self.part(id, &name, sender, keeps_joins);
        }
        self.sessions.remove(&id);
        for sender in self.senders.values_mut().filter(|sender| sender.owner == Some(id)) {
            sender.owner = None;
        }
    }

    /// How many subscriptions there are.
    pub(super) fn subscriptions(&self) -> usize {
        let of = |session: &Session| session.subscriptions.len() + usize::from(session.whispers.is_some());
        self.sessions.values().map(of).sum()
    }

    /// Ends one sender's subscription by a session.
    fn part(&mut self, id: SessionId, name: &ChannelName, sender: u32, keeps_join: bool) {
        let first =
            self.sessions[&id].subscriptions.get(name).and_then(|it| it.senders.get(&sender)).copied();
        let is_owned = self.senders.get(&sender).is_some_and(|state| state.owner == Some(id));
        let first_unread = self.first_unread(id, name);
        let is_stream = self.sessions[&id].resumes;
        let Some(unread) = self.unsubscribe(id, name, sender) else { return };
        let until = self.ticked.after(SESSION_TTL);
        let (lag_bytes, now) = (self.setting.lag_bytes, self.ticked);
        let Some(channel) = self.channels.get_mut(name) else { return };
        let trail = if is_stream { channel.trail(lag_bytes, now) } else { u64::MAX };
        let kept = trail.max(first.unwrap_or(u64::MAX)).min(first_unread);
        let Some(member) = channel.members.get_mut(&sender) else { return };
        if keeps_join && is_owned {
            let unread = Unread { resumes: unread.resumes || is_durable(name), ..unread };
            member.away = Some(Away { unread, until });
        } else if keeps_join {
            let kept = member.streams.take().map_or(kept, |before| before.kept.min(kept));
            member.streams = Some(AwayStreams { kept, until });
        } else {
            self.remove_if_gone(sender, name, now);
        }
    }

    /// The first offset that a session was not handed out.
    fn first_unread(&self, id: SessionId, name: &ChannelName) -> u64 {
        let pending = self.sessions.get(&id).and_then(|session| session.subscriptions.get(name));
        let pending = pending.and_then(|subscription| subscription.pending.first().copied());
        pending.unwrap_or_else(|| self.channels.get(name).map_or(1, Channel::next_offset))
    }

    /// Takes a sender from those that a subscription delivers to. Returns what it
    /// has not heard there.
    fn unsubscribe(&mut self, id: SessionId, name: &ChannelName, sender: u32) -> Option<Unread> {
        let may_lag = self.may_lag(id);
        let session = self.sessions.get_mut(&id)?;
        session.was_behind |= may_lag;
        let subscription = session.subscriptions.get_mut(name)?;
        let from = subscription.senders.remove(&sender)?;
        subscription.has_begun = true;
        let channel = self.channels.get(name)?;
        let late = subscription.late.remove(&sender).unwrap_or_default();
        // What may come is not due, though it is to others that are here.
        let hears = |offset: &&u64| {
            **offset >= from && channel.message(**offset).is_for(sender) && !late.contains(*offset)
        };
        let due: BTreeSet<_> = subscription.pending.iter().filter(hears).copied().collect();
        let possible = late.into_iter().chain(subscription.possible.iter().copied());
        let brought = subscription.firsts.remove(&sender);
        let first = subscription.first.map(|first| first.offset);
        // Where it goes it may get what it brought, too, behind what was here.
        let possible = possible.chain(brought.filter(|_| first.is_some()));
        let possible: BTreeSet<_> = possible.filter(|offset| !due.contains(offset)).collect();
        let next = possible.first().map_or(subscription.next, |first| subscription.next.min(*first));
        let first = first.or(brought);
        let unread = Unread { due, possible, next, first, resumes: subscription.resumes };
        if subscription.senders.is_empty() {
            session.subscriptions.remove(name);
        } else {
            // What was for this sender alone is not for the others.
            let senders = &subscription.senders;
            subscription.pending.retain(|offset| {
                let message = channel.message(*offset);
                senders.iter().any(|(other, from)| message.is_for(*other) && from <= offset)
                    || message.to.is_none()
            });
        }
        Some(unread)
    }

    /// Delivers to a sender by a session: from the end, or what it has not heard
    /// elsewhere. What is for all comes once.
    fn subscribe(&mut self, id: SessionId, name: &ChannelName, sender: u32, unread: Option<Unread>) {
        let Some(channel) = self.channels.get(name) else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let end = channel.next_offset();
        let is_new = !session.subscriptions.contains_key(name);
        let subscription = session.subscriptions.entry(name.clone()).or_insert_with(|| Subscription::at(end));
        if subscription.senders.contains_key(&sender) {
            return;
        }
        subscription.has_begun = true;
        if is_new {
            let is_due = unread.is_none();
            let first = unread.as_ref().map_or(channel.retained, |unread| unread.first);
            first.into_iter().for_each(|offset| subscription.begin_with(First { offset, is_due }));
        } else if let Some(offset) = unread.as_ref().and_then(|unread| unread.first) {
            subscription.firsts.insert(sender, offset);
        }
        let Unread { due, possible, next, first: _, resumes } =
            unread.unwrap_or(Unread { next: end, ..Unread::default() });
        subscription.resumes |= resumes;
        let from = due.first().into_iter().chain(possible.first()).min().copied().unwrap_or(end);
        let mut late = BTreeSet::new();
        for offset in due {
            let message = channel.message(offset);
            let was_handed = |other: &u32| {
                subscription.senders.get(other).is_some_and(|from| *from <= offset)
                    && !subscription.pending.contains(&offset)
            };
            let comes = match &message.to {
                // Where the session has read further already, it does not come again.
                None => is_new,
                Some(to) => !to.iter().any(was_handed),
            };
            if comes {
                subscription.wake(offset);
            } else if !subscription.pending.contains(&offset) {
                late.insert(offset);
                // It came here for another. When that one goes before it is looked
                // at, nobody knows that any more.
                subscription.possible.extend(message.to.is_some().then_some(offset));
            }
        }
        // Who had read further reads that again, for what is for this one alone.
        if next < subscription.next || next < end && subscription.rests {
            subscription.next = next;
            subscription.rests = false;
        }
        if is_new {
            subscription.possible.extend(possible);
        } else {
            // Of these, only what is for it alone may come late.
            let is_for_it = |offset: &&u64| channel.message(**offset).to.is_some();
            subscription.possible.extend(possible.iter().filter(is_for_it));
            late.extend(possible);
        }
        subscription.late.insert(sender, late);
        subscription.senders.insert(sender, from);
    }

    // Time.

    /// What is over at this time is over. What the hub has submitted by then says
    /// in which order it has told that.
    pub(super) fn tick(&mut self, now: Timestamp, submitted: &[Bytes]) {
        self.now = now;
        self.ticked = now;
        self.leaves = Some(Leaves::new());
        let members: Vec<_> = self
            .channels
            .iter()
            .flat_map(|(name, channel)| channel.members.keys().map(|sender| (name.clone(), *sender)))
            .collect();
        for (name, sender) in members {
            let Some(channel) = self.channels.get_mut(&name) else { continue };
            let Some(member) = channel.members.get_mut(&sender) else { continue };
            member.away.take_if(|away| away.until <= now);
            member.streams.take_if(|streams| streams.until <= now);
            self.remove_if_gone(sender, &name, now);
        }
        self.expire(now);
        let leaves = self.leaves.take().unwrap_or_default();
        self.tell_tick(leaves, submitted, now);
    }

    /// Whether somebody is told of it by some session.
    fn delivers_to(&self, sender: u32, name: &ChannelName) -> bool {
        let is_told = |session: &Session| {
            session.subscriptions.get(name).is_some_and(|it| it.senders.contains_key(&sender))
        };
        self.sessions.values().any(is_told)
    }

    fn remove_if_gone(&mut self, sender: u32, name: &ChannelName, now: Timestamp) {
        let is_told = self.delivers_to(sender, name);
        let Some(channel) = self.channels.get_mut(name) else { return };
        let is_gone = channel.members.get(&sender).is_some_and(|member| {
            !is_told && !member.standing && member.away.is_none() && member.streams.is_none()
        });
        let gone = if is_gone { channel.members.remove(&sender) } else { None };
        if let Some(member) = gone {
            channel.note_unused(now);
            if let Some(state) = self.senders.get_mut(&sender) {
                state.joins.remove(name);
            }
            self.went(sender, member.protocol, name, now);
        }
    }
}

impl Subscription {
    /// One that has read all before an offset.
    fn at(next: u64) -> Subscription {
        let (pending, possible) = (BTreeSet::new(), BTreeSet::new());
        let (senders, late) = (BTreeMap::new(), BTreeMap::new());
        let firsts = BTreeMap::new();
        Subscription {
            pending,
            possible,
            has_begun: true,
            first: None,
            firsts,
            senders,
            late,
            next,
            rests: true,
            resumes: false,
        }
    }

    /// It is to hear an older message before all others.
    fn begin_with(&mut self, first: First) {
        self.first = Some(first);
        self.next -= 1;
        self.rests = false;
    }

    /// It has read all before an offset.
    fn rest_at(&mut self, next: u64) {
        self.pending.clear();
        self.possible.clear();
        self.has_begun = true;
        self.first = None;
        self.firsts.clear();
        self.late.clear();
        self.next = next;
        self.rests = true;
        self.resumes = false;
    }

    /// It is to hear a message.
    fn wake(&mut self, offset: u64) {
        self.pending.insert(offset);
        self.next = if self.rests { offset } else { self.next.min(offset) };
        self.rests = false;
    }
}

impl Message {
    /// Whether a sender that has joined hears it.
    fn is_for(&self, sender: u32) -> bool {
        self.to.as_ref().is_none_or(|to| to.contains(&sender))
    }
}
