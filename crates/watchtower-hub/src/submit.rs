//! Publishing on durable channels: a message is submitted to the ledger, and is
//! put into its log once it is kept.
//!
//! The ledger answers on a thread of its own. What happens there takes the locks
//! of the channels one by one, and nothing else that could be held for long.

use std::sync::{Arc, Weak};

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use crate::channel::{Channel, State};
use crate::inner::Inner;
use crate::ledger::{Appends, NotKept};
use crate::presence::Told;
use crate::publish::Draft;
use crate::soon::Promise;
use crate::{ChannelName, Content, Ends, Message, Position, Published, Refused};

/// A channel that is locked, and what it is to be given.
pub(crate) struct Target<'a> {
    pub(crate) channel: &'a Arc<Channel>,
    pub(crate) state: MutexGuard<'a, State>,
    pub(crate) content: Content,
}

/// Channels that are locked, of whose logs a position was taken.
type Reserved<'a> = SmallVec<[(&'a Arc<Channel>, MutexGuard<'a, State>); 1]>;

/// A publication that waits for the ledger.
struct Submission<T, F> {
    hub: Weak<Inner>,
    /// In the order of their channels' names.
    messages: SmallVec<[(Arc<Channel>, Message); 1]>,
    promise: Promise<T, Refused>,
    finish: F,
}

impl Inner {
    /// What the ledger has of a channel that is durable.
    pub(crate) fn log(&self, name: &ChannelName) -> Option<Ends> {
        let ends = self.ledger.as_ref()?.ends(name)?;
        self.settings.load().rule(name).durable.then_some(ends)
    }

    /// The names of all durable channels that have a log.
    pub(crate) fn logs(&self) -> Vec<ChannelName> {
        let Some(ledger) = &self.ledger else { return Vec::new() };
        let settings = self.settings.load();
        let names = ledger.channels(None, usize::MAX).into_iter().map(|(name, _)| name);
        names.filter(|name| settings.rule(name).durable).collect()
    }

    /// Submits a message to the ledger for one durable channel.
    #[cold]
    #[inline(never)]
    pub(crate) fn submit_one(
        self: &Arc<Self>,
        target: Target<'_>,
        draft: &Draft<'_>,
    ) -> Result<Published, Refused> {
        self.submit(draft, [target], |positions| positions[0])
    }

    /// Submits a message to the ledger for those of the channels that are
    /// durable. Once it is kept all get it, and where it stands is what `finish`
    /// makes of the positions, which are in the order of `targets`.
    pub(crate) fn submit<'a, T: Send + 'static>(
        self: &Arc<Self>,
        draft: &Draft<'_>,
        targets: impl IntoIterator<Item = Target<'a>>,
        finish: impl FnOnce(&[Position]) -> T + Send + 'static,
    ) -> Result<Published<T>, Refused> {
        let mut reserved = Reserved::new();
        let mut messages = SmallVec::new();
        let mut kept = Appends::new();
        let mut targets = targets.into_iter();
        while let Some(Target { channel, mut state, content }) = targets.next() {
            let position = match self.reserve(channel, &mut state) {
                Ok(position) => position,
                Err(refused) => {
                    self.take_back(channel, &mut state);
                    targets.for_each(|mut target| self.take_back(target.channel, &mut target.state));
                    return Err(self.give_back(reserved, refused));
                }
            };
            let message = channel.message(position.map_or(0, |position| position.offset), draft, content);
            kept.extend(position.map(|_| channel.to_keep(&message)));
            messages.push((channel.clone(), message));
            reserved.push((channel, state));
        }
        let first = kept.first().map_or_else(|| ChannelName::from(0), |kept| kept.message.channel.clone());
        let (published, promise) = Published::awaited();
        let submission = Submission { hub: Arc::downgrade(self), messages, promise, finish };
        let done = Box::new(|result| submission.answer(result));
        let submitted = match &self.ledger {
            Some(ledger) => ledger.append(kept, done),
            None => Err(NotKept::Failed("there is no data directory".into())),
        };
        match submitted {
            Ok(()) => Ok(published),
            Err(reason) => Err(self.give_back(reserved, Refused::NotKept { channel: first, reason })),
        }
    }

    /// Takes the position of the next message that is submitted to a channel's log;
    /// `None` for a channel that is not durable.
    fn reserve(&self, channel: &Channel, state: &mut State) -> Result<Option<Position>, Refused> {
        let not_kept = |reason| Refused::NotKept { channel: channel.name.clone(), reason };
        let position = state.reserve(channel).map_err(not_kept)?;
        let limit = self.settings.load().limits.channels_max;
        let begins_log = position.is_some_and(|position| position.offset == 1);
        if begins_log && self.ledger.as_ref().is_some_and(|ledger| ledger.logs() >= limit) {
            state.give_back();
            return Err(Refused::Limit { what: "durable channels", limit });
        }
        Ok(position)
    }

    /// Gives the positions back that were reserved for what is refused, and forgets
    /// the channels that were made for it.
    fn give_back(&self, reserved: Reserved<'_>, refused: Refused) -> Refused {
        for (channel, mut state) in reserved {
            state.give_back();
            self.take_back(channel, &mut state);
        }
        refused
    }

    /// Submits what a durable channel is to be told of presence. Nobody waits for
    /// it: of what is not kept after all, the channel is told the number once it can
    /// be.
    ///
    /// # Errors
    ///
    /// When it is known at once that it will not be kept.
    pub(crate) fn submit_told(
        &self,
        channel: &Arc<Channel>,
        state: &mut State,
        draft: &Draft<'_>,
        content: Content,
        told: Told,
    ) -> Result<(), NotKept> {
        let Some(ledger) = &self.ledger else {
            return Err(NotKept::Failed("there is no data directory".into()));
        };
        let position = self.reserve(channel, state).map_err(|refused| match refused {
            Refused::NotKept { reason, .. } => reason,
            refused => NotKept::Failed(refused.to_string().into()),
        })?;
        let offset = position.map_or(0, |position| position.offset);
        let message = channel.message(offset, draft, content);
        let kept = [channel.to_keep(&message)].into_iter().collect();
        let (hub, channel) = (self.own.clone(), channel.clone());
        let done = move |result: Result<(), NotKept>| {
            let (hub, mut state) = (hub.upgrade(), channel.lock());
            // First, since the channel stays for what it has yet to tell.
            if let (Some(hub), Err(_)) = (&hub, &result) {
                hub.leave_out(&channel, &mut state, told, hub.ticked());
            }
            settle(hub.as_deref(), &channel, &mut state, message, result.is_ok());
        };
        ledger.append(kept, Box::new(done)).inspect_err(|_| state.give_back())
    }
}

impl<T, F: FnOnce(&[Position]) -> T> Submission<T, F> {
    /// What the ledger said.
    fn answer(self, result: Result<(), NotKept>) {
        let Submission { hub, messages, promise, finish } = self;
        let hub = hub.upgrade();
        let is_durable = |channel: &Channel| channel.rule.durable;
        let first = messages.iter().map(|(channel, _)| channel).find(|channel| is_durable(channel)).cloned();
        let mut positions = SmallVec::<[Position; 1]>::new();
        for (channel, message) in messages {
            let mut state = channel.lock();
            positions.push(settle(hub.as_deref(), &channel, &mut state, message, result.is_ok()));
        }
        promise.keep(match (result, first) {
            (Err(reason), Some(channel)) => Err(Refused::NotKept { channel: channel.name.clone(), reason }),
            (Err(_), None) => Err(Refused::Closed),
            (Ok(()), _) => Ok(finish(&positions)),
        });
    }
}

/// Puts a message that is kept into its log, or takes note that it is not.
fn settle(
    hub: Option<&Inner>,
    channel: &Arc<Channel>,
    state: &mut State,
    message: Message,
    is_kept: bool,
) -> Position {
    state.settle(is_kept);
    // Where nothing was reserved, the position is known only now.
    let offset = if state.is_durable() { message.offset } else { state.end().offset() };
    let message = Message { offset, ..message };
    let (position, time) = (message.position(), message.time);
    let Some(hub) = hub else { return position };
    if is_kept {
        let settings = hub.settings.load();
        channel.append_message(state, message, &settings.limits, &hub.counters);
        hub.watch_published(channel, state, time);
    } else {
        hub.take_back(channel, state);
        // It may have been all that the channel was there for.
        if !state.retired {
            hub.look_whether_unused(channel, state);
        }
    }
    position
}
