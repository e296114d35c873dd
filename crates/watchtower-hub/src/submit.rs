//! Publishing on durable channels: a message is submitted to the ledger, and is
//! put into its log once it is kept.
//!
//! The ledger answers on a thread of its own. What happens there takes the locks
//! of the channels one by one, and nothing else that could be held for long.

use std::sync::{Arc, Weak};

use parking_lot::MutexGuard;

use crate::channel::{Channel, State};
use crate::inner::Inner;
use crate::ledger::NotKept;
use crate::publish::Draft;
use crate::soon::Promise;
use crate::{ChannelName, Content, Ends, Message, Position, Published, Refused};

/// A channel that is locked, and what it is to be given.
pub(crate) struct Target<'a> {
    pub(crate) channel: &'a Arc<Channel>,
    pub(crate) state: MutexGuard<'a, State>,
    pub(crate) content: Content,
}

/// A publication that waits for the ledger.
struct Submission<T, F> {
    hub: Weak<Inner>,
    /// In the order of their channels' names.
    messages: Vec<(Arc<Channel>, Message)>,
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

    /// Submits a message to the ledger for those of the channels that are
    /// durable. Once it is kept all get it, and where it stands is what `finish`
    /// makes of the positions, which are in the order of `targets`.
    pub(crate) fn submit<T: Send + 'static>(
        self: &Arc<Self>,
        draft: &Draft<'_>,
        targets: Vec<Target<'_>>,
        finish: impl FnOnce(&[Position]) -> T + Send + 'static,
    ) -> Result<Published<T>, Refused> {
        let mut states = Vec::with_capacity(targets.len());
        let mut channels = Vec::with_capacity(targets.len());
        let mut messages = Vec::with_capacity(targets.len());
        let mut kept = Vec::with_capacity(targets.len());
        let mut refused = None;
        for Target { channel, mut state, content } in targets {
            match state.reserve(channel) {
                Ok(position) => {
                    let offset = position.map_or(0, |position| position.offset);
                    let message = channel.message(offset, draft, content);
                    kept.extend(position.map(|_| message.detached_copy()));
                    messages.push((channel.clone(), message));
                    channels.push(channel);
                    states.push(state);
                }
                Err(reason) => {
                    refused = Some(Refused::NotKept { channel: channel.name.clone(), reason });
                    break;
                }
            }
        }
        let (published, promise) = Published::awaited();
        if refused.is_none() {
            let first = kept.first().map(|message| message.channel().clone());
            let submission = Submission { hub: Arc::downgrade(self), messages, promise, finish };
            let done = Box::new(|result| submission.answer(result));
            let submitted = match &self.ledger {
                Some(ledger) => ledger.append(kept, done),
                None => Err(NotKept::Failed("there is no data directory".into())),
            };
            let Err(reason) = submitted else { return Ok(published) };
            refused = first.map(|channel| Refused::NotKept { channel, reason });
        }
        for (channel, state) in channels.into_iter().zip(&mut states) {
            state.give_back();
            self.take_back(channel, state);
        }
        Err(refused.unwrap_or(Refused::Closed))
    }
}

impl<T, F: FnOnce(&[Position]) -> T> Submission<T, F> {
    /// What the ledger said.
    fn answer(self, result: Result<(), NotKept>) {
        let Submission { hub, messages, promise, finish } = self;
        let hub = hub.upgrade();
        let is_durable = |channel: &Channel| channel.rule.durable;
        let first = messages.iter().map(|(channel, _)| channel).find(|channel| is_durable(channel)).cloned();
        let mut positions = Vec::with_capacity(messages.len());
        for (channel, message) in messages {
            positions.push(settle(hub.as_deref(), &channel, message, result.is_ok()));
        }
        promise.keep(match (result, first) {
            (Err(reason), Some(channel)) => Err(Refused::NotKept { channel: channel.name.clone(), reason }),
            (Err(_), None) => Err(Refused::Closed),
            (Ok(()), _) => Ok(finish(&positions)),
        });
    }
}

/// Puts a message that is kept into its log, or takes note that it is not.
fn settle(hub: Option<&Inner>, channel: &Arc<Channel>, message: Message, is_kept: bool) -> Position {
    let mut state = channel.lock();
    state.settle(is_kept);
    // Where nothing was reserved, the position is known only now.
    let offset = if state.is_durable() { message.offset } else { state.end().offset() };
    let message = Message { offset, ..message };
    let (position, time) = (message.position(), message.time);
    let Some(hub) = hub else { return position };
    if is_kept {
        let settings = hub.settings.load();
        channel.append(&mut state, message, &settings.limits, &hub.counters);
        hub.watch_published(channel, &mut state, time);
    } else {
        hub.take_back(channel, &mut state);
    }
    position
}
