//! A ledger in memory, which answers when it is told to and outlives the hub.
//!
//! Judges as a store does: a message is kept if it is the next one of its log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use watchtower_hub::{
    Append, Appended, Appends, ChannelName, Ends, Epoch, Ledger, Message, NotKept, NotRead, Page, ReadLimit,
    WasRead,
};

/// See the module. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Shelf(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    logs: BTreeMap<ChannelName, (Epoch, Vec<Message>)>,
    appends: VecDeque<(Appends, Appended)>,
    reads: VecDeque<(ChannelName, u64, ReadLimit, WasRead)>,
}

impl Shelf {
    /// Answers the first submission that waits, if one does: it is kept, if it
    /// can be, or refused.
    pub(super) fn answer(&self, is_kept: bool) {
        let mut state = self.0.lock();
        let Some((messages, done)) = state.appends.pop_front() else { return };
        let result =
            if is_kept { state.keep(messages) } else { Err(NotKept::Failed("the disk is full".into())) };
        drop(state);
        done(result);
    }

    /// Whether somebody waits to read.
    pub(super) fn is_asked(&self) -> bool {
        !self.0.lock().reads.is_empty()
    }

    /// Answers who wants to read.
    pub(super) fn answer_reads(&self) {
        loop {
            let mut state = self.0.lock();
            let Some((name, from, limit, done)) = state.reads.pop_front() else { return };
            let page = state.page(&name, from, limit);
            drop(state);
            done(page);
        }
    }

    /// The machine stops. Of what was submitted and not answered, so much was
    /// kept; nobody is told.
    pub(super) fn crash(&self, kept: usize) {
        let mut state = self.0.lock();
        state.reads.clear();
        for (number, (messages, _)) in std::mem::take(&mut state.appends).into_iter().enumerate() {
            if number < kept {
                // One that cannot be kept is not the next one.
                let _ = state.keep(messages);
            }
        }
    }

    /// All logs are deleted.
    pub(super) fn clear(&self) {
        self.0.lock().logs.clear();
    }

    /// What is kept of a channel.
    pub(super) fn contents(&self, name: &ChannelName) -> Vec<bytes::Bytes> {
        let state = self.0.lock();
        let log = state.logs.get(name).map(|(_, log)| log.as_slice()).unwrap_or_default();
        log.iter().map(|message| message.content().bytes().clone()).collect()
    }
}

impl State {
    fn keep(&mut self, messages: Appends) -> Result<(), NotKept> {
        for Append { message, .. } in messages {
            let position = message.position();
            let begins = || (position.epoch, Vec::new());
            let (epoch, log) = self.logs.entry(message.channel().clone()).or_insert_with(begins);
            if *epoch != position.epoch || log.len() as u64 + 1 != position.offset {
                return Err(NotKept::OutOfTurn);
            }
            log.push(message);
        }
        Ok(())
    }

    fn page(&self, name: &ChannelName, from: u64, limit: ReadLimit) -> Result<Page, NotRead> {
        let (epoch, log) = self.logs.get(name).ok_or(NotRead::NoLog)?;
        let start = usize::try_from(from.max(1) - 1).unwrap_or(usize::MAX).min(log.len());
        let messages: Vec<_> =
            log[start..].iter().take(limit.messages.max(1)).map(Message::detached_copy).collect();
        let next = (start + messages.len()) as u64 + 1;
        Ok(Page { epoch: *epoch, messages, lost: Vec::new(), next })
    }
}

impl Ledger for Shelf {
    fn append(&self, messages: Appends, done: Appended) -> Result<(), NotKept> {
        self.0.lock().appends.push_back((messages, done));
        Ok(())
    }

    fn read(&self, channel: &ChannelName, from: u64, limit: ReadLimit, done: WasRead) -> Result<(), NotRead> {
        self.0.lock().reads.push_back((channel.clone(), from, limit, done));
        Ok(())
    }

    fn ends(&self, channel: &ChannelName) -> Option<Ends> {
        let state = self.0.lock();
        let (epoch, log) = state.logs.get(channel)?;
        let bytes = log.iter().map(|message| message.content().bytes().len() as u64).sum();
        let oldest = log.first().map(Message::time);
        Some(Ends { epoch: *epoch, first: 1, next: log.len() as u64 + 1, bytes, oldest })
    }

    fn logs(&self) -> usize {
        self.0.lock().logs.len()
    }

    fn channels(&self, after: Option<&ChannelName>, limit: usize) -> Vec<(ChannelName, Ends)> {
        let names: Vec<_> = self.0.lock().logs.keys().cloned().collect();
        let later = names.into_iter().filter(|name| after.is_none_or(|after| name > after)).take(limit);
        later.filter_map(|name| Some((name.clone(), self.ends(&name)?))).collect()
    }
}
