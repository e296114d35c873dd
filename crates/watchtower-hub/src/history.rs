//! Pages of history that memory does not have: read from the ledger.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Weak};

use crate::channel::{Edge, History, HistoryQuery, Part, Span};
use crate::inner::Inner;
use crate::ledger::{NotRead, Page, ReadLimit};
use crate::log::{Entry, Place};
use crate::soon::Promise;
use crate::{ChannelName, Epoch, Message, Soon, Timestamp};

/// How much is read at once.
const PAGE: ReadLimit = ReadLimit { messages: 256, bytes: 256 << 10 };

/// How many gaps a page says at most.
const LOST_MAX: usize = 1024;

/// A page that is being read. The last messages before an offset are read from
/// there backwards, a window at a time.
struct Reading {
    hub: Weak<Inner>,
    channel: ChannelName,
    epoch: Epoch,
    query: HistoryQuery,
    part: Part,
    /// Where the window begins.
    window: u64,
    /// What is read next, and where the window ends.
    from: u64,
    until: u64,
    /// What was found in the window.
    found: Vec<Message>,
    /// What was found in all windows before, and its bytes.
    taken: VecDeque<Message>,
    bytes: u64,
    /// What was found to be lost.
    lost: Vec<Range<u64>>,
    promise: Promise<History, NotRead>,
}

impl Inner {
    pub(crate) fn history(
        self: &Arc<Self>,
        name: &ChannelName,
        query: &HistoryQuery,
        now: Timestamp,
    ) -> Option<Soon<History, NotRead>> {
        let channel = match self.channels.pin().get(name).cloned() {
            Some(channel) => channel,
            None => {
                self.log(name)?;
                self.unlisted(name, self.settings.load().rule(name))
            }
        };
        let mut state = channel.lock();
        channel.trim_history(&mut state, now);
        let ends = if state.is_durable() { self.ends(name) } else { None };
        let ends = ends.filter(|ends| ends.epoch == channel.epoch);
        let first = ends.map(|ends| channel.first_kept(&state, &ends));
        let tail = state.tail();
        let next = state.end().offset();
        drop(state);
        let (history, part) = channel.history(first, &tail, next, query);
        let tail = tail.offset();
        let is_in_memory = part.first >= tail
            || match part.edge {
                Edge::From(from) => from >= tail,
                // It was full before all in memory was looked at.
                Edge::Until(_) => history.first > tail,
            };
        if is_in_memory {
            return Some(Soon::known(history));
        }
        let (soon, promise) = Soon::awaited();
        let (window, until) = match part.edge {
            Edge::From(from) => (from, part.next),
            Edge::Until(until) => (window_before(until, &part), until),
        };
        let reading = Reading {
            hub: Arc::downgrade(self),
            channel: name.clone(),
            epoch: channel.epoch,
            query: *query,
            part,
            window,
            from: window,
            until,
            found: Vec::new(),
            taken: VecDeque::new(),
            bytes: 0,
            lost: Vec::new(),
            promise,
        };
        reading.read(self);
        Some(soon)
    }
}

/// Where the window begins that ends there.
fn window_before(until: u64, part: &Part) -> u64 {
    until.saturating_sub(PAGE.messages as u64).max(part.first).min(until)
}

impl Reading {
    fn read(self, hub: &Inner) {
        if self.from >= self.until {
            return self.window_is_read(hub);
        }
        let Some(ledger) = &hub.ledger else { return };
        let (channel, from) = (self.channel.clone(), self.from);
        // What is refused at once is answered by letting go of the promise.
        let _ = ledger.read(&channel, from, PAGE, Box::new(move |result| self.answer(result)));
    }

    fn answer(mut self, result: Result<Page, NotRead>) {
        let Some(hub) = self.hub.upgrade() else { return };
        let page = match result {
            Ok(page) if page.epoch == self.epoch => page,
            Ok(_) => return self.promise.keep(Err(NotRead::NoLog)),
            Err(error) => return self.promise.keep(Err(error)),
        };
        // A page that brings nothing would be asked for again for ever.
        self.from = if page.next > self.from { page.next } else { self.until };
        self.note_lost(page.lost);
        let until = self.until;
        let mut messages = page.messages;
        // Direct messages are between their sender and receivers alone.
        messages.retain(|message| !message.is_direct() && message.offset < until);
        if let Edge::Until(_) = self.part.edge {
            self.found.append(&mut messages);
            return self.read(&hub);
        }
        for message in messages {
            self.bytes += message.content.bytes().len() as u64;
            self.taken.push_back(message);
            if self.is_above() {
                self.taken.pop_back();
                return self.finish(true);
            }
        }
        if self.from >= self.until { self.finish(false) } else { self.read(&hub) }
    }

    fn note_lost(&mut self, lost: Vec<Range<u64>>) {
        let room = LOST_MAX.saturating_sub(self.lost.len());
        self.lost.extend(lost.into_iter().take(room));
    }

    /// What was lost between two offsets, both included, in order.
    fn lost_within(&mut self, first: u64, last: u64) -> Vec<Range<u64>> {
        let mut found = std::mem::take(&mut self.lost);
        found.sort_unstable_by_key(|lost| lost.start);
        let mut within: Vec<Range<u64>> = Vec::new();
        for Range { start, end } in found {
            let (start, end) = (start.max(first), end.min(last + 1));
            match within.last_mut() {
                // Where one page ended and the next began.
                Some(before) if before.end >= start => before.end = before.end.max(end),
                _ if start < end => within.push(start..end),
                _ => {}
            }
        }
        within
    }

    /// Whether more was taken than a page holds.
    fn is_above(&self) -> bool {
        let count = self.taken.len();
        count > self.query.messages_max || (count > 1 && self.bytes > self.query.bytes_max)
    }

    fn window_is_read(mut self, hub: &Inner) {
        for message in std::mem::take(&mut self.found).into_iter().rev() {
            self.bytes += message.content.bytes().len() as u64;
            self.taken.push_front(message);
            if self.is_above() {
                self.taken.pop_front();
                return self.finish(true);
            }
        }
        if self.window <= self.part.first {
            return self.finish(false);
        }
        self.until = self.window;
        self.window = window_before(self.until, &self.part);
        self.from = self.window;
        self.read(hub);
    }

    /// Answers, with whether there is more than the page holds.
    fn finish(mut self, more: bool) {
        let Part { edge, first, next, mut recovered } = self.part;
        let offsets = (self.taken.front().map(|m| m.offset), self.taken.back().map(|m| m.offset));
        let (first, last, more_before, more_after) = match edge {
            Edge::From(from) => {
                let last = if more { offsets.1.unwrap_or(from - 1) } else { next - 1 };
                (from, last, from > first, more)
            }
            Edge::Until(until) => {
                let first = if more { offsets.0.unwrap_or(until) } else { first.min(until) };
                (first, until - 1, more, until < next)
            }
        };
        let lost = self.lost_within(first, last);
        recovered &= lost.is_empty() || self.query.span == Span::Last;
        let mut place = &Place::chain(self.taken.into(), Place::detached(last + 1));
        let mut entries = Vec::new();
        while let (Some(entry), Some(next)) = (Entry::at(place), place.next()) {
            entries.push(entry);
            place = next;
        }
        let epoch = self.epoch;
        let history = History { epoch, recovered, lost, entries, first, last, more_before, more_after };
        self.promise.keep(Ok(history));
    }
}
