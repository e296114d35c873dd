//! What a channel keeps, for whoever asks: from memory, or from the ledger.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use crate::channel::Channel;
use crate::inner::Inner;
use crate::ledger::{Ends, NotRead, Page, ReadLimit};
use crate::log::{Entry, Place};
use crate::soon::Promise;
use crate::{ChannelName, Epoch, Message, Position, Soon, Timestamp};

/// The epoch of a channel's log, and messages in it: there at once, save where a
/// durable log has to be read.
pub type History = Soon<(Epoch, Vec<Entry>), NotRead>;

/// How much is read at once.
const PAGE: ReadLimit = ReadLimit { messages: 1024, bytes: 256 << 10 };

/// Which messages are asked for.
struct Reading {
    hub: Weak<Inner>,
    channel: ChannelName,
    epoch: Epoch,
    /// Where to read on, and where it ends.
    from: u64,
    end: u64,
    /// What was published before is not shown any more.
    not_before: Timestamp,
    /// Whether the first are asked for, and not the last.
    is_first: bool,
    messages_max: usize,
    bytes_max: u64,
    found: VecDeque<Message>,
    bytes: u64,
    promise: Promise<(Epoch, Vec<Entry>), NotRead>,
}

impl Inner {
    pub(crate) fn history(
        self: &Arc<Self>,
        name: &ChannelName,
        since: Option<Position>,
        limit: usize,
        now: Timestamp,
    ) -> Option<History> {
        let settings = self.settings.load();
        let channel = match self.channels.pin().get(name).cloned() {
            Some(channel) => channel,
            None => {
                self.log(name)?;
                self.unlisted(name, settings.rule(name))
            }
        };
        let mut state = channel.lock();
        channel.trim_history(&mut state, now);
        let ends = if state.is_durable() { self.ends(name) } else { None };
        let (tail, end) = (state.tail().offset(), state.end().offset());
        drop(state);
        let ends = ends.filter(|ends| limit > 0 && ends.epoch == channel.epoch);
        let first = ends.map_or(tail, |ends| channel.first_wanted(&ends, end, since, limit));
        if first >= tail {
            return Some(Soon::known(Ok((channel.epoch, channel.history(since, limit)))));
        }
        let (history, promise) = Soon::awaited();
        let reading = Reading {
            hub: Arc::downgrade(self),
            channel: name.clone(),
            epoch: channel.epoch,
            from: first,
            end,
            not_before: channel.kept_since(now),
            is_first: since.is_some(),
            messages_max: limit,
            bytes_max: settings.limits.lag_bytes,
            found: VecDeque::new(),
            bytes: 0,
            promise,
        };
        reading.go_on(self);
        Some(history)
    }
}

impl Channel {
    /// The first message of a durable log that is asked for.
    fn first_wanted(&self, ends: &Ends, end: u64, since: Option<Position>, limit: usize) -> u64 {
        let wanted = match since {
            Some(position) if position.epoch == self.epoch => position.offset.saturating_add(1),
            Some(_) => 0,
            None => end.saturating_sub(limit as u64),
        };
        wanted.max(self.first_kept(ends))
    }
}

impl Reading {
    fn go_on(self, hub: &Inner) {
        let Some(ledger) = &hub.ledger else { return };
        let (channel, from) = (self.channel.clone(), self.from);
        // What is refused at once is answered by letting go of the promise.
        let _ = ledger.read(&channel, from, PAGE, Box::new(move |result| self.answer(result)));
    }

    fn answer(mut self, result: Result<Page, NotRead>) {
        let page = match result {
            Ok(page) if page.epoch == self.epoch => page,
            Ok(_) => return self.promise.keep(Err(NotRead::NoLog)),
            Err(error) => return self.promise.keep(Err(error)),
        };
        let is_over = page.next <= self.from || page.next >= self.end;
        self.from = page.next;
        let is_full = page.messages.into_iter().any(|message| !self.take(message));
        match self.hub.upgrade() {
            Some(hub) if !is_over && !is_full => self.go_on(&hub),
            _ => self.finish(),
        }
    }

    /// Takes a message, as far as it is asked for; whether more are.
    fn take(&mut self, message: Message) -> bool {
        // Direct messages are between their sender and receivers alone.
        if message.is_direct() || message.offset >= self.end || message.time < self.not_before {
            return true;
        }
        self.bytes += message.bytes();
        self.found.push_back(message);
        let is_above = |found: &VecDeque<_>, bytes| found.len() > self.messages_max || bytes > self.bytes_max;
        if self.is_first {
            return !is_above(&self.found, self.bytes) && self.found.len() < self.messages_max;
        }
        while self.found.len() > 1
            && is_above(&self.found, self.bytes)
            && let Some(oldest) = self.found.pop_front()
        {
            self.bytes -= oldest.bytes();
        }
        true
    }

    fn finish(self) {
        let mut place = &Place::chain(self.found.into(), Place::detached(self.end));
        let mut entries = Vec::new();
        while let (Some(entry), Some(next)) = (Entry::at(place), place.next()) {
            entries.push(entry);
            place = next;
        }
        self.promise.keep(Ok((self.epoch, entries)));
    }
}
