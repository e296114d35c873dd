//! One channel: its log, who is in it, and who is to be woken.
//!
//! Everything here happens under the channel's lock, which publishers, joins
//! and leaves take, and deliveries never. Lock order: a sender's, then a
//! channel's, then a session's reader, then its bell.

mod durable;
mod history;
mod kept;
mod lag;
mod members;
mod retained;
mod subscribers;
mod trail;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;

use self::durable::Durable;
pub(crate) use self::history::{Edge, Part};
pub use self::history::{History, HistoryQuery, Span};
use self::kept::Kept;
pub(crate) use self::kept::Share;
use self::lag::Mark;
pub(crate) use self::members::Keep;
use self::members::Member;
use self::retained::Retained;
use self::subscribers::Slot;
pub(crate) use self::trail::TRAIL;
use self::trail::Trail;
use crate::counters::Counters;
use crate::idle::IdleSet;
use crate::log::Place;
use crate::message::{Frames, event_name};
use crate::presence::{Announcements, PRESENCE_EVENT};
use crate::publish::{Draft, Receivers};
use crate::settings::{Accepts, ChannelRule};
use crate::{
    Audience, ChannelName, Content, ContentKind, Ends, Epoch, Limits, Message, Position, Refused, SenderId,
    Timestamp,
};

#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) name: ChannelName,
    pub(crate) epoch: Epoch,
    pub(crate) rule: ChannelRule,
    /// What of the log stays in memory though everybody has read it.
    history: HistoryRule,
    /// How many bytes the log holds, and held: for those who have no lock on it.
    bytes: AtomicU64,
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
    /// What those may still read whose session ended a short while ago.
    kept: Kept,
    /// What those may not have received who were handed it; `None` while there
    /// are none who could ask for it.
    trail: Option<Box<Trail>>,
    /// What is on its way to the ledger; `None` for a channel that is not
    /// durable.
    durable: Option<Box<Durable>>,
    /// Whether the hub is to look at the trail's age later.
    pub(crate) trail_is_due: bool,
    /// The last message for those who come later; `None` where none is retained.
    retained: Option<Box<Retained>>,
    /// What is told of who comes and goes; `None` where nothing is.
    pub(crate) announcements: Option<Box<Announcements>>,
    /// Past ends of the log, oldest first, to tell bytes from offsets.
    marks: VecDeque<Mark>,
    /// Up to where the sessions were charged for what was published, in bytes.
    charged: u64,
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
    /// Whether it gets all that follows where it was asked to start: `false` when
    /// the epoch is unknown, what follows the offset is not kept any more, or
    /// some of it was lost on disk; then it gets the rest.
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

/// What of a log stays in memory though everybody has read it, as far as all of
/// these allow.
#[derive(Debug, Clone, Copy)]
struct HistoryRule {
    messages_max: u64,
    bytes_max: u64,
    age_max: Duration,
}

impl HistoryRule {
    fn of(rule: &ChannelRule) -> HistoryRule {
        let messages_max = rule.history_messages as u64;
        if !rule.durable {
            return HistoryRule { messages_max, bytes_max: u64::MAX, age_max: rule.history_ttl };
        }
        HistoryRule {
            messages_max: if messages_max == 0 { u64::MAX } else { messages_max },
            bytes_max: durable::TAIL_BYTES,
            age_max: durable::TAIL_AGE.min(rule.history_ttl),
        }
    }
}

impl Channel {
    /// A channel whose next message has that position.
    pub(crate) fn new(name: ChannelName, next: Position, rule: ChannelRule) -> Channel {
        let end = Place::first(next.offset);
        let history = HistoryRule::of(&rule);
        let state = State {
            oldest: (history.messages_max > 0).then(|| end.clone()),
            end,
            members: FxHashMap::default(),
            slots: Vec::new(),
            sets: Vec::new(),
            free: Vec::new(),
            kept: Kept::default(),
            trail: None,
            durable: rule.durable.then(Box::default),
            trail_is_due: false,
            retained: rule.retain.then(Box::default),
            announcements: rule.presence_events.then(Box::default),
            marks: VecDeque::new(),
            charged: 0,
            retired: false,
            history_is_due: false,
            unused_is_due: false,
            unused_until: Timestamp::default(),
        };
        Channel { name, epoch: next.epoch, rule, history, bytes: AtomicU64::new(0), state: Mutex::new(state) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The bytes of all messages that were published, as of about now.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Judges a message, and gives its content the form that this channel
    /// keeps. In the order of [packets: rules]: not joined, content, receivers; and
    /// what packets cannot have wrong, the event, between.
    pub(crate) fn judge(
        &self,
        state: &State,
        draft: &Draft<'_>,
        content: Content,
    ) -> Result<Content, Refused> {
        let has_joined = |sender: &SenderId| state.members.contains_key(sender);
        if !draft.is_guest && draft.sender.is_some_and(|sender| !has_joined(&sender)) {
            return Err(Refused::NotJoined { channel: self.name.clone() });
        }
        let content = self.accept(content)?;
        if self.rule.presence_events && draft.event == PRESENCE_EVENT {
            return Err(Refused::ReservedEvent { channel: self.name.clone() });
        }
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

    /// What a draft that was judged becomes at that offset.
    #[inline(always)]
    pub(crate) fn message(&self, offset: u64, draft: &Draft<'_>, content: Content) -> Message {
        Message {
            channel: self.name.clone(),
            epoch: self.epoch,
            offset,
            sender: draft.sender,
            event: event_name(draft.event),
            content,
            audience: match &draft.receivers {
                None => Audience::Channel,
                Some(receivers) => Audience::Senders(receivers.ids.as_slice().into()),
            },
            extras: draft.extras.clone().map(Box::new),
            time: draft.time,
            is_retained: false,
            frames: Frames::default(),
        }
    }

    /// Appends what a draft that was judged becomes.
    pub(crate) fn append(
        &self,
        state: &mut State,
        draft: &Draft<'_>,
        content: Content,
        limits: &Limits,
        counters: &Counters,
    ) -> Position {
        let receivers = draft.receivers.as_ref().map(|receivers| receivers.ids.as_slice());
        let bytes = content.bytes().len();
        let make = |offset| self.message(offset, draft, content);
        self.append_made(state, (make, bytes, receivers, draft.time), limits, counters)
    }

    /// Appends a message that was made for the end of the log.
    pub(crate) fn append_message(
        &self,
        state: &mut State,
        message: Message,
        limits: &Limits,
        counters: &Counters,
    ) -> Position {
        let receivers = match message.audience() {
            Audience::Channel => None,
            Audience::Senders(ids) => Some(ids.clone()),
        };
        let (bytes, time) = (message.content.bytes().len(), message.time);
        self.append_made(state, (|_| message, bytes, receivers.as_deref(), time), limits, counters)
    }

    /// Appends at the end of the log what `make` makes for there, wakes who rests,
    /// and looks after history and those who fall behind. The message is made where
    /// it is used: to hand it on would be to copy it.
    #[inline(always)]
    fn append_made(
        &self,
        state: &mut State,
        (make, bytes, receivers, time): (impl FnOnce(u64) -> Message, usize, Option<&[SenderId]>, Timestamp),
        limits: &Limits,
        counters: &Counters,
    ) -> Position {
        let place = state.end.clone();
        let position = Position { epoch: self.epoch, offset: place.offset() };
        counters.published.add(1);
        counters.published_bytes.add(bytes as u64);
        state.end = place.append(make(position.offset));
        self.bytes.store(state.end.bytes_before(), Ordering::Relaxed);
        if state.retained.is_some() {
            self.retain(state, &place, &counters.retained_bytes);
        }
        match receivers {
            None => state.wake_all(&place),
            Some(receivers) => state.wake(&place, receivers),
        }
        if let Some(trail) = &mut state.trail {
            trail.note(&place, time, limits);
        }
        self.trim_history(state, time);
        state.check_lag(limits, counters);
        position
    }

    /// Frees what history keeps no longer.
    pub(crate) fn trim_history(&self, state: &mut State, now: Timestamp) {
        let Some(oldest) = &mut state.oldest else { return };
        let HistoryRule { messages_max, bytes_max, age_max } = self.history;
        while let (Some(message), Some(next)) = (oldest.message(), oldest.next()) {
            let messages = state.end.offset() - oldest.offset();
            let bytes = state.end.bytes_before() - oldest.bytes_before();
            if messages <= messages_max && bytes <= bytes_max && now.since(message.time()) < age_max {
                break;
            }
            *oldest = next.clone();
        }
    }

    /// When the oldest message of the history is to be freed.
    pub(crate) fn history_due(&self, state: &State) -> Option<Timestamp> {
        let message = state.oldest.as_ref()?.message()?;
        Some(message.time().after(self.history.age_max))
    }

    /// Where a subscription starts, and whether that is what was asked for. `ends`
    /// are those of a durable channel's log.
    pub(crate) fn start(&self, state: &State, start: Start, ends: Option<&Ends>) -> (Arc<Place>, bool) {
        let Start::After(seen) = start else { return (state.end.clone(), true) };
        let wanted = if seen.epoch == self.epoch { seen.offset.saturating_add(1) } else { u64::MAX };
        if wanted == state.end.offset() {
            return (state.end.clone(), true);
        }
        if let Some(ends) = ends {
            let first = self.first_kept(state, ends);
            let is_kept = first <= wanted && wanted < state.end.offset();
            return (state.place_at(if is_kept { wanted } else { first }), is_kept);
        }
        let history = state.oldest.as_ref();
        if wanted < state.end.offset() {
            let before = history.filter(|oldest| oldest.offset() <= wanted);
            let trail = state.trail.as_ref().and_then(|trail| trail.before(wanted));
            let nearest = state.kept.before(wanted).into_iter().chain(trail).chain(before);
            if let Some(nearest) = nearest.max_by_key(|place| place.offset()) {
                return (Place::seek(nearest, wanted).clone(), true);
            }
        }
        let kept = state.kept.oldest().into_iter().chain(state.trail_start());
        let oldest = kept.chain(history).min_by_key(|place| place.offset());
        (oldest.unwrap_or(&state.end).clone(), false)
    }
}

impl Channel {
    /// The first message of a durable log that is still to be shown, though more
    /// may be there.
    pub(crate) fn first_kept(&self, state: &State, ends: &Ends) -> u64 {
        // The ledger may have more than was put into the chain by now.
        let next = state.end.offset();
        ends.first.max(next.saturating_sub(self.history.messages_max)).min(next)
    }
}

impl State {
    /// Where a durable log is read from an offset on: in memory, as far as it is
    /// there.
    pub(crate) fn place_at(&self, offset: u64) -> Arc<Place> {
        let tail = self.tail();
        if tail.offset() <= offset { Place::seek(&tail, offset).clone() } else { Place::detached(offset) }
    }

    pub(crate) fn end(&self) -> &Arc<Place> {
        &self.end
    }

    /// The first place of a durable log that is in memory.
    pub(crate) fn tail(&self) -> Arc<Place> {
        self.oldest.as_ref().unwrap_or(&self.end).clone()
    }

    /// Where those are put away who may not have received all that they were
    /// handed.
    pub(crate) fn trail_start(&self) -> Option<&Arc<Place>> {
        self.trail.as_ref()?.oldest()
    }

    /// Lets go of what was handed out long enough ago.
    pub(crate) fn trim_trail(&mut self, now: Timestamp) {
        if let Some(trail) = &mut self.trail {
            trail.trim(now);
        }
    }

    /// Whether nobody was ever in it, and nothing was published since it was
    /// made.
    pub(crate) fn is_new(&self) -> bool {
        let is_settled = self.durable.as_ref().is_none_or(|durable| durable.is_settled());
        let was_left = self.unused_is_due || self.end.bytes_before() > 0;
        self.members.is_empty() && !was_left && is_settled && self.retains_nothing() && self.has_told_all()
    }

    /// Whether nobody would notice if this channel were gone. One that is durable
    /// comes back as it was.
    pub(crate) fn is_unused(&self) -> bool {
        let keeps_nothing = match &self.durable {
            Some(durable) => durable.is_settled() && self.has_told_all(),
            None => self.oldest.as_ref().is_none_or(|oldest| oldest.is_empty()),
        };
        self.members.is_empty() && keeps_nothing && self.retains_nothing()
    }

    /// Whether nothing that its log tells of presence is wrong by now.
    fn has_told_all(&self) -> bool {
        self.announcements.as_ref().is_none_or(|announcements| announcements.has_told_all())
    }

    /// Whether this channel is durable, has no log, and nobody is in it: so nobody
    /// was told anything of those who were.
    pub(crate) fn has_nothing_to_put_right(&self) -> bool {
        let has_no_log = |durable: &Durable| durable.is_settled() && self.end.offset() == 1;
        self.members.is_empty() && self.durable.as_deref().is_some_and(has_no_log)
    }

    /// Whether messages stay in memory though everybody has read them.
    pub(crate) fn has_history(&self) -> bool {
        self.oldest.is_some()
    }
}
