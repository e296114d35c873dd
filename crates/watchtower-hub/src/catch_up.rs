//! Subscriptions that read what is not in memory any more: page by page from the
//! ledger, until a page reaches what is.
//!
//! A page is a chain of places of its own, with the messages that were read. It
//! ends with a detached place, at which the session that comes there asks for
//! the next page, or is linked to the channel's chain. So a subscription that
//! catches up has one page in memory, and is not lagging meanwhile. A session has
//! a few pages at a time: the other subscriptions wait for their turn.

use std::sync::{Arc, Weak};

use crate::ChannelName;
use crate::channel::{Channel, Start, State};
use crate::inner::Inner;
use crate::ledger::{Ends, NotRead, Page, ReadLimit};
use crate::log::Place;
use crate::reader::{Key, Link};
use crate::subscription::{PageMark, Subscription};

/// How much is read at once.
const PAGE: ReadLimit = ReadLimit { messages: 256, bytes: 256 << 10 };

/// A page that was asked for, and for whom.
struct Request {
    hub: Weak<Inner>,
    channel: Arc<Channel>,
    link: Arc<Link>,
    key: Key,
    slot: u32,
    /// Where it begins.
    from: u64,
    mark: Arc<PageMark>,
}

impl Inner {
    /// What the ledger has of a channel.
    pub(crate) fn ends(&self, name: &ChannelName) -> Option<Ends> {
        self.ledger.as_ref()?.ends(name)
    }

    /// Where a subscription starts, and whether that is what was asked for.
    pub(crate) fn start(&self, channel: &Channel, state: &State, start: Start) -> (Arc<Place>, bool) {
        let ends = if state.is_durable() { self.ends(&channel.name) } else { None };
        let (place, recovered) = channel.start(state, start, ends.as_ref());
        // Where something is missing on the way, it goes on there all the same.
        let is_whole = start == Start::End || !state.is_durable() || self.is_whole(channel, state, &place);
        (place, recovered && is_whole)
    }

    /// Whether a durable log has all of its messages from a place on.
    fn is_whole(&self, channel: &Channel, state: &State, from: &Place) -> bool {
        let end = state.end().offset();
        let lost = || self.ledger.as_ref()?.lost(&channel.name, from.offset());
        from.offset() >= end || lost().is_none_or(|lost| lost.start >= end)
    }

    /// Asks for the page that a subscription waits for; whether that can be had now.
    /// To be called under its reader's lock.
    pub(crate) fn ask_page(
        self: &Arc<Self>,
        link: &Arc<Link>,
        key: Key,
        subscription: &Subscription,
    ) -> bool {
        let Some(mark) = subscription.awaited_page().cloned() else { return true };
        let request = Request {
            hub: Arc::downgrade(self),
            channel: subscription.channel.clone(),
            link: link.clone(),
            key,
            slot: subscription.slot,
            from: subscription.next,
            mark,
        };
        let (name, from) = (subscription.channel.name.clone(), subscription.next);
        let done = Box::new(move |result| request.answer(result));
        self.ledger.as_ref().is_some_and(|ledger| ledger.read(&name, from, PAGE, done).is_ok())
    }

    /// Has those sessions ask again that could not.
    pub(crate) fn poke_waiting(&self) {
        let waiting = std::mem::take(&mut *self.waiting_for_ledger.lock());
        for link in waiting.iter().filter_map(Weak::upgrade) {
            link.reader.lock().refused_page(false);
            link.bell.poke();
        }
    }
}

impl Request {
    /// What the ledger said.
    fn answer(self, result: Result<Page, NotRead>) {
        let Some(hub) = self.hub.upgrade() else { return };
        let mut state = self.channel.lock();
        if !state.has_slot(self.slot, &self.link, self.key) {
            return;
        }
        match result {
            // A page that brings nothing would be asked for again for ever.
            Ok(page) if page.epoch == self.channel.epoch && page.next > self.from => {
                self.hand_out(&hub, &mut state, page);
            }
            Ok(_) | Err(_) => self.give_up(&hub, &mut state),
        }
    }

    /// Has the session read the page, and what follows it in memory, if that is
    /// there.
    fn hand_out(&self, hub: &Inner, state: &mut State, page: Page) {
        let Page { mut messages, lost, next, .. } = page;
        // The ledger may have more than was put into the chain by now.
        let end = state.end().offset();
        messages.retain(|message| message.offset < end && message.offset >= self.from);
        let next = next.clamp(self.from, end);
        let first = messages.first().map_or(next, |message| message.offset);
        let lost = lost.iter().map(|lost| lost.end.min(next).saturating_sub(lost.start.max(first)));
        // What lies before the first was dropped, or lost, since it was asked for.
        let missed = first - self.from + lost.sum::<u64>();
        let after = state.place_at(next);
        let is_linked = !after.is_detached();
        let start = Place::chain(messages, after.clone());
        let mut reader = self.link.reader.lock();
        let is_awaited = reader.get(self.key).is_some_and(|subscription| subscription.take_page(&self.mark));
        drop(reader);
        if !is_awaited {
            return;
        }
        hub.counters.pages.add(1);
        hub.counters.unreadable.add(missed);
        if is_linked {
            // Not behind by the page, for as long as it takes to read that.
            state.woken_at(self.slot, &after);
        }
        state.ring(self.slot, &start);
    }

    /// Goes on with what is in memory, since the rest cannot be read: a session
    /// whose client can come back is closed, and another misses it.
    fn give_up(&self, hub: &Inner, state: &mut State) {
        let place = Place::seek(&state.tail(), self.from).clone();
        let mut reader = self.link.reader.lock();
        let closes = reader.closes_when_lagging;
        let is_awaited = reader.get(self.key).is_some_and(|subscription| subscription.take_page(&self.mark));
        if !is_awaited {
            return;
        }
        let is_over = closes && !std::mem::replace(&mut reader.lagging, true);
        drop(reader);
        hub.counters.unreadable.add(place.offset().saturating_sub(self.from));
        state.woken_at(self.slot, &place);
        state.ring(self.slot, &place);
        if is_over {
            hub.counters.lagging_closed.add(1);
            self.link.bell.wake_again();
        }
    }
}
