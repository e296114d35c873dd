//! A ledger that answers when it is told to, as a store would judge.
//!
//! The tests of protocols include this file too: it knows the hub's interface
//! alone.
#![allow(dead_code, reason = "each suite uses its part")]

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use watchtower_hub::{
    Append, Appended, Appends, ChannelName, Ends, Epoch, Ledger, Message, NotKept, NotRead, Page, Position,
    ReadLimit, WasRead,
};

/// See the module. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    logs: BTreeMap<ChannelName, Log>,
    retained: BTreeMap<ChannelName, Message>,
    appends: VecDeque<(Appends, Appended)>,
    reads: VecDeque<(ChannelName, u64, ReadLimit, WasRead)>,
    refuses: Option<NotKept>,
    refuses_reads: Option<NotRead>,
    longest: usize,
}

/// What is kept of a channel: `None` where a message was lost.
struct Log {
    epoch: Epoch,
    first: u64,
    messages: Vec<Option<Message>>,
}

impl Log {
    fn next(&self) -> u64 {
        self.first + self.messages.len() as u64
    }
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// From now on everything that is submitted is refused at once.
    pub(crate) fn refuse_at_once(&self, reason: Option<NotKept>) {
        self.lock().refuses = reason;
    }

    /// From now on every request for a page is refused at once.
    pub(crate) fn refuse_reads_at_once(&self, reason: Option<NotRead>) {
        self.lock().refuses_reads = reason;
    }

    /// How many submissions wait to be answered.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().appends.len()
    }

    /// How many pages are asked for.
    pub(crate) fn reads(&self) -> usize {
        self.lock().reads.len()
    }

    /// The longest page so far.
    pub(crate) fn longest(&self) -> usize {
        self.lock().longest
    }

    /// Keeps the first submission that waits, if its messages are the next ones.
    pub(crate) fn keep(&self) {
        let mut state = self.lock();
        let (messages, done) = state.appends.pop_front().expect("something waits");
        let result = state.keep(messages);
        drop(state);
        done(result);
    }

    /// Keeps all that waits.
    pub(crate) fn keep_all(&self) {
        while self.waiting() > 0 {
            self.keep();
        }
    }

    /// Refuses the first submission that waits.
    pub(crate) fn refuse(&self, reason: NotKept) {
        let (_, done) = self.lock().appends.pop_front().expect("something waits");
        done(Err(reason));
    }

    /// Answers the first request for a page.
    pub(crate) fn read(&self) {
        let mut state = self.lock();
        let (channel, from, limit, done) = state.reads.pop_front().expect("a page is asked for");
        let page = state.page(&channel, from, limit);
        drop(state);
        done(page);
    }

    /// Refuses the first request for a page.
    pub(crate) fn refuse_read(&self, reason: NotRead) {
        let (.., done) = self.lock().reads.pop_front().expect("a page is asked for");
        done(Err(reason));
    }

    /// Loses a message that was kept.
    pub(crate) fn lose(&self, channel: &ChannelName, offset: u64) {
        let mut state = self.lock();
        let log = state.logs.get_mut(channel).expect("a log");
        let index = usize::try_from(offset - log.first).expect("it is kept");
        log.messages[index] = None;
    }

    /// Loses a log as a whole.
    pub(crate) fn lose_log(&self, channel: &ChannelName) {
        self.lock().logs.remove(channel);
    }

    /// Drops what is before an offset.
    pub(crate) fn trim(&self, channel: &ChannelName, first: u64) {
        let mut state = self.lock();
        let log = state.logs.get_mut(channel).expect("a log");
        log.messages.drain(..usize::try_from(first - log.first).expect("it is kept"));
        log.first = first;
    }

    /// What is kept of a channel, as text.
    pub(crate) fn kept(&self, channel: &ChannelName) -> Vec<String> {
        let state = self.lock();
        let messages = state.logs.get(channel).into_iter().flat_map(|log| log.messages.iter().flatten());
        let text = |message: &Message| message.content().as_text().unwrap_or_default().to_owned();
        messages.map(text).collect()
    }
}

impl State {
    fn keep(&mut self, messages: Appends) -> Result<(), NotKept> {
        for Append { message, .. } in &messages {
            let Position { epoch, offset } = message.position();
            let next = match self.logs.get(message.channel()) {
                Some(log) => Position { epoch: log.epoch, offset: log.next() },
                None => Position { epoch, offset: 1 },
            };
            if message.position() != next {
                return Err(NotKept::OutOfTurn);
            }
            assert!(offset > 0, "offsets begin with 1");
        }
        for Append { message, is_retained } in messages {
            let name = message.channel().clone();
            match is_retained {
                true if message.content().bytes().is_empty() => drop(self.retained.remove(&name)),
                true => drop(self.retained.insert(name, message.detached_copy())),
                false => {}
            }
            let epoch = message.position().epoch;
            let new = || Log { epoch, first: 1, messages: Vec::new() };
            let log = self.logs.entry(message.channel().clone()).or_insert_with(new);
            log.messages.push(Some(message));
        }
        Ok(())
    }

    fn page(&mut self, channel: &ChannelName, from: u64, limit: ReadLimit) -> Result<Page, NotRead> {
        let log = self.logs.get(channel).ok_or(NotRead::NoLog)?;
        let from = from.clamp(log.first, log.next());
        let mut page = Page { epoch: log.epoch, messages: Vec::new(), lost: Vec::new(), next: from };
        let skipped = usize::try_from(from - log.first).expect("it is kept");
        for (offset, message) in (from..).zip(log.messages.iter().skip(skipped)) {
            let Some(message) = message else { continue };
            if page.messages.len() >= limit.messages {
                return Ok(page);
            }
            page.skip_to(offset);
            page.next = offset + 1;
            page.messages.push(message.detached_copy());
        }
        page.skip_to(log.next());
        self.longest = self.longest.max(page.messages.len());
        Ok(page)
    }
}

impl Ledger for Shelf {
    fn append(&self, messages: Appends, done: Appended) -> Result<(), NotKept> {
        let mut state = self.lock();
        if let Some(reason) = &state.refuses {
            return Err(reason.clone());
        }
        state.appends.push_back((messages, done));
        Ok(())
    }

    fn read(&self, channel: &ChannelName, from: u64, limit: ReadLimit, done: WasRead) -> Result<(), NotRead> {
        let mut state = self.lock();
        if let Some(reason) = &state.refuses_reads {
            return Err(reason.clone());
        }
        state.reads.push_back((channel.clone(), from, limit, done));
        Ok(())
    }

    fn ends(&self, channel: &ChannelName) -> Option<Ends> {
        let state = self.lock();
        let log = state.logs.get(channel)?;
        Some(Ends { epoch: log.epoch, first: log.first, next: log.next(), bytes: 0, oldest: None })
    }

    fn lost(&self, channel: &ChannelName, from: u64) -> Option<Range<u64>> {
        let state = self.lock();
        let log = state.logs.get(channel)?;
        let later = (log.first..).zip(&log.messages).skip_while(|(offset, _)| *offset < from);
        let mut lost = later.skip_while(|(_, message)| message.is_some());
        let start = lost.next()?.0;
        Some(start..start + 1 + lost.take_while(|(_, message)| message.is_none()).count() as u64)
    }

    fn retained(&self, channel: &ChannelName) -> Option<Message> {
        self.lock().retained.get(channel).map(Message::detached_copy)
    }

    fn retained_in_all(&self) -> (usize, u64) {
        let retained = &self.lock().retained;
        let bytes = retained.values().map(|message| message.content().bytes().len() as u64);
        (retained.len(), bytes.sum())
    }

    fn logs(&self) -> usize {
        self.lock().logs.len()
    }

    fn channels(&self, after: Option<&ChannelName>, limit: usize) -> Vec<(ChannelName, Ends)> {
        let names: Vec<_> = self.lock().logs.keys().cloned().collect();
        let is_later = |name: &ChannelName| after.is_none_or(|after| name > after);
        let names = names.into_iter().filter(is_later).take(limit);
        names.filter_map(|name| Some((name.clone(), self.ends(&name)?))).collect()
    }
}
