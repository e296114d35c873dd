//! The last message of a channel, which is the first that a new subscriber gets
//! ([http: retained]).
//!
//! It is a copy: the place that it was published in would keep all that came after
//! it. Its readers begin in a place ahead of where they go on in the log. On a
//! durable channel the ledger has one too, from which a channel that is made anew
//! has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Channel, State};
use crate::counters::Counters;
use crate::log::{ENTRY_BYTES, Place};
use crate::publish::Draft;
use crate::reader::Link;
use crate::{Append, Content, Ends, Limits, Message, Refused};

/// What a channel retains.
#[derive(Debug, Default)]
pub(super) struct Retained {
    message: Option<Message>,
    /// Where those begin that come while nothing is published: they share it, and
    /// its frames.
    place: Option<Arc<Place>>,
}

impl Retained {
    fn bytes(&self) -> u64 {
        self.message.as_ref().map_or(0, |message| message.bytes() + ENTRY_BYTES)
    }
}

impl Channel {
    /// Judges whether there is room to retain a message. About: others may be
    /// retained at the same time.
    #[inline]
    pub(crate) fn judge_retained(
        &self,
        state: &State,
        draft: &Draft<'_>,
        content: &Content,
        limits: &Limits,
        counters: &Counters,
    ) -> Result<(), Refused> {
        match &state.retained {
            Some(retained) if draft.receivers.is_none() => judge(retained, draft, content, limits, counters),
            _ => Ok(()),
        }
    }

    /// Retains the message that `place` was just filled with, if it is one to
    /// retain; without content it ends the one before and is none itself.
    pub(super) fn retain(&self, state: &mut State, place: &Place, retained_bytes: &AtomicU64) {
        let (Some(retained), Some(message)) = (&mut state.retained, place.message()) else { return };
        // It would keep what is published from now on.
        retained.place = None;
        if !self.rule.retains(message) {
            return;
        }
        retained_bytes.fetch_sub(retained.bytes(), Ordering::Relaxed);
        let is_value = !message.content().bytes().is_empty();
        **retained = Retained { message: is_value.then(|| message.detached_copy()), place: None };
        retained_bytes.fetch_add(retained.bytes(), Ordering::Relaxed);
    }

    /// What the ledger is to keep of a message.
    pub(crate) fn to_keep(&self, message: &Message) -> Append {
        Append { message: message.detached_copy(), is_retained: self.rule.retains(message) }
    }

    /// Takes up what the ledger retained, which is counted already, for this channel, whose log holds this.
    pub(crate) fn take_up_retained(&self, message: Option<Message>, ends: &Ends) {
        let mut state = self.lock();
        let Some(retained) = &mut state.retained else { return };
        // That of a log that was lost since is nowhere in this one.
        let is_of_log = |message: &Message| message.epoch == ends.epoch && message.offset < ends.next;
        retained.message = message.filter(is_of_log);
    }
}

fn judge(
    retained: &Retained,
    draft: &Draft<'_>,
    content: &Content,
    limits: &Limits,
    counters: &Counters,
) -> Result<(), Refused> {
    let extras = draft.extras.as_ref().map_or(0, bytes::Bytes::len);
    let bytes = (content.bytes().len() + extras + draft.event.len()) as u64 + ENTRY_BYTES;
    let others = counters.retained_bytes.load(Ordering::Relaxed).saturating_sub(retained.bytes());
    let limit = limits.retained_bytes_max;
    if content.bytes().is_empty() || others + bytes <= limit {
        return Ok(());
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Err(Refused::Limit { what: "bytes of retained messages", limit })
}

impl State {
    /// Whether nothing is lost with this that is retained: the ledger has what a
    /// durable channel retains.
    pub(super) fn retains_nothing(&self) -> bool {
        self.is_durable() || self.retained.as_ref().is_none_or(|retained| retained.message.is_none())
    }

    /// Where a new subscription by `link` begins that goes on at `from`: ahead of
    /// it with what is retained, unless that comes anyway, or the session reads the
    /// channel already.
    pub(crate) fn beginning(&mut self, channel: &Arc<Channel>, link: &Link, from: &Arc<Place>) -> Arc<Place> {
        let Some(retained) = &mut self.retained else { return from.clone() };
        let Some(message) = retained.message.as_ref().filter(|message| message.offset < from.offset()) else {
            return from.clone();
        };
        if link.reader.lock().find(channel).is_some() {
            return from.clone();
        }
        let goes_on_at_from = |place: &&Arc<Place>| place.next().is_some_and(|next| Arc::ptr_eq(next, from));
        if let Some(place) = retained.place.as_ref().filter(goes_on_at_from) {
            return place.clone();
        }
        let place = Place::ahead_of(from, message.detached_copy());
        retained.place = from.is_empty().then(|| place.clone());
        place
    }
}
