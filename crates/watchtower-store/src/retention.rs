//! Dropping what is not to be kept any more, by count, age and bytes: a walk over
//! all channels, in small steps.
//!
//! Knows the trait alone, and no clock: times are arguments. Which rule holds for
//! a channel is the caller's to say.

use std::time::Duration;

use watchtower_hub::{ChannelName, Timestamp};

use crate::{Ends, Page, ReadError, ReadLimit, Refused, Store, Ticket, message_bytes};

/// How much of a channel is kept: the newest messages, as far as all of these
/// allow. What a rule does not limit is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How many messages.
    pub messages: u64,
    /// How many bytes of them, as [`message_bytes`] counts.
    pub bytes: u64,
    /// How long after they were published.
    pub age: Duration,
}

impl Retention {
    /// Everything.
    pub const ALL: Retention = Retention { messages: u64::MAX, bytes: u64::MAX, age: Duration::MAX };
}

/// How many channels are looked at in one step.
const CHANNELS: usize = 256;
/// How many messages are read at once to find out where to cut.
const MESSAGES: usize = 256;
/// How many messages of one channel may be dropped in one step, by bytes or age,
/// so that one channel does not hold up the others.
const PAGES: usize = 16;

/// Walks over the channels of a store.
///
/// **Clocks that jump.** Age is judged by a time that never runs ahead of what
/// has passed since the keeper was made: when the clock jumps forward, nothing
/// is dropped for it. When it jumps back, things are kept for longer. A message
/// whose time is in the future keeps those behind it, as a log is cut at its
/// beginning only.
#[derive(Debug)]
pub struct Keeper {
    started: Timestamp,
    /// The last channel that was looked at.
    at: Option<ChannelName>,
}

/// Why a step was not finished. The next one begins behind the channel that it
/// happened at.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What is to be dropped could not be written down.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Keeper {
    /// One that begins with the first channel. `now` is the time of the clock.
    pub fn new(now: Timestamp) -> Keeper {
        Keeper { started: now, at: None }
    }

    /// Looks at the next few channels; whether all have been looked at, so that
    /// the next step begins anew. `elapsed` is what has passed since the keeper
    /// was made, by a clock that does not jump. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`StepError`].
    pub fn step(
        &mut self,
        store: &dyn Store,
        rule: impl Fn(&ChannelName) -> Retention,
        now: Timestamp,
        elapsed: Duration,
    ) -> Result<bool, StepError> {
        let now = now.min(self.started.after(elapsed));
        let channels = store.channels(self.at.as_ref(), CHANNELS);
        let is_last = channels.len() < CHANNELS;
        let mut tickets = Vec::new();
        for (channel, ends) in channels {
            let first = first_kept(store, &channel, &ends, &rule(&channel), now);
            self.at = Some(channel.clone());
            let first = first?;
            if first > ends.first {
                let (ticket, done) = Ticket::new();
                store.trim(&channel, ends.epoch, first, done)?;
                tickets.push(ticket);
            }
        }
        if is_last {
            self.at = None;
        }
        tickets.into_iter().try_for_each(Ticket::wait)?;
        Ok(is_last)
    }
}

/// The offset of the first message that is to be kept. A channel of which nothing
/// is to be dropped is not read.
fn first_kept(
    store: &dyn Store,
    channel: &ChannelName,
    ends: &Ends,
    rule: &Retention,
    now: Timestamp,
) -> Result<u64, ReadError> {
    let mut first = ends.first.max(ends.next.saturating_sub(rule.messages));
    let is_old = |time: Timestamp| now.since(time) >= rule.age;
    let mut bytes = ends.bytes;
    let by_bytes = bytes > rule.bytes;
    if !by_bytes && !ends.oldest.is_some_and(is_old) {
        return Ok(first);
    }
    // Of what is dropped by count, the bytes count as well; so all is read from
    // the beginning.
    let mut from = ends.first;
    for _ in 0..PAGES {
        let Page { messages, next, .. } = store.read(channel, from, ReadLimit::messages(MESSAGES))?;
        for message in messages {
            let offset = message.position().offset;
            if offset >= first && bytes <= rule.bytes && !is_old(message.time()) {
                return Ok(offset.max(first));
            }
            bytes = bytes.saturating_sub(message_bytes(&message));
            first = first.max(offset + 1);
        }
        if next <= from || next >= ends.next {
            // All of it, and what is lost behind it.
            return Ok(first.max(if next >= ends.next { ends.next } else { first }));
        }
        from = next;
    }
    Ok(first)
}
