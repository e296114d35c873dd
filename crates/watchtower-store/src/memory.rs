//! A store in memory: for tests, simulations, and servers that keep nothing.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use watchtower_hub::{ChannelName, Epoch, Message};

use crate::state::{Asked, Judge, State, Step, Trim};
use crate::{
    Change, Done, Ends, Key, Kind, Page, ReadError, ReadLimit, Record, Refused, Store, message_bytes,
};

/// A store that lasts as long as its clones. Keeps [`Store`]'s promises save
/// that of the disk, and answers from within each call.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    state: State,
    /// Each message with the bytes of all before it in its log.
    messages: BTreeMap<ChannelName, VecDeque<(Message, u64)>>,
    is_closed: bool,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Closes it, and returns one with all that it kept: what a restart is to a
    /// store on disk.
    #[must_use]
    pub fn reopened(&self) -> MemoryStore {
        let mut inner = self.0.lock();
        let kept = std::mem::take(&mut *inner);
        inner.is_closed = true;
        MemoryStore(Arc::new(Mutex::new(Inner { is_closed: false, ..kept })))
    }
}

impl Inner {
    fn change(&mut self, asked: Vec<Asked>) -> Result<(), Refused> {
        if self.is_closed {
            return Err(Refused::Closed);
        }
        let mut steps = Vec::new();
        Judge::new(&self.state).judge(asked, &mut steps)?;
        for step in steps {
            match &step {
                Step::Append(message, before) => {
                    let log = self.messages.entry(message.channel().clone()).or_default();
                    log.push_back((message.detached_copy(), *before));
                }
                Step::Log(channel, None) => {
                    self.messages.remove(channel);
                }
                Step::Log(channel, Some(log)) => {
                    let messages = self.messages.entry(channel.clone()).or_default();
                    messages.retain(|(message, _)| {
                        message.position().epoch == log.epoch && message.position().offset >= log.first
                    });
                }
                Step::Put(_) | Step::Delete(_) => {}
            }
            self.state.apply(step);
        }
        Ok(())
    }

    /// The new beginning of a log, from which on `first` is kept.
    fn trim(&self, channel: &ChannelName, epoch: Epoch, first: u64) -> Result<Trim, ReadError> {
        let log = self.state.log(channel).ok_or_else(|| ReadError::NoLog { channel: channel.clone() })?;
        let mut messages = self.messages.get(channel).into_iter().flatten();
        Ok(match messages.find(|(message, _)| message.position().offset >= first) {
            Some((message, before)) => Trim { epoch, first, dropped: *before, oldest: message.time() },
            None => Trim { epoch, first: log.next, dropped: log.total, oldest: log.oldest },
        })
    }

    fn read(&self, channel: &ChannelName, from: u64, limit: ReadLimit) -> Result<Page, ReadError> {
        let log = self.state.log(channel).ok_or_else(|| ReadError::NoLog { channel: channel.clone() })?;
        let mut page = Page {
            epoch: log.epoch,
            messages: Vec::new(),
            lost: Vec::new(),
            next: from.clamp(log.first, log.next),
        };
        let messages = self.messages.get(channel).into_iter().flatten().map(|(message, _)| message);
        let mut bytes = 0;
        for message in messages.skip_while(|message| message.position().offset < from) {
            bytes += message_bytes(message);
            let is_first = page.messages.is_empty();
            if page.messages.len() >= limit.messages || (bytes > limit.bytes && !is_first) {
                return Ok(page);
            }
            page.skip_to(message.position().offset);
            page.next = message.position().offset + 1;
            page.messages.push(message.detached_copy());
        }
        if page.messages.len() < limit.messages {
            page.skip_to(log.next);
        }
        Ok(page)
    }
}

impl Store for MemoryStore {
    fn submit(&self, changes: Vec<Change>, done: Done) {
        let mut inner = self.0.lock();
        let result = inner.change(changes.into_iter().map(Asked::Change).collect());
        drop(inner);
        done(result);
    }

    fn trim(&self, channel: &ChannelName, epoch: Epoch, first: u64, done: Done) -> Result<(), ReadError> {
        let mut inner = self.0.lock();
        let trim = inner.trim(channel, epoch, first)?;
        let result = inner.change(vec![Asked::Trim(channel.clone(), trim)]);
        drop(inner);
        done(result);
        Ok(())
    }

    fn ends(&self, channel: &ChannelName) -> Option<Ends> {
        self.0.lock().state.log(channel).map(|log| log.ends())
    }

    fn channels(&self, after: Option<&ChannelName>, limit: usize) -> Vec<(ChannelName, Ends)> {
        self.0.lock().state.channels(after, limit)
    }

    fn read(&self, channel: &ChannelName, from: u64, limit: ReadLimit) -> Result<Page, ReadError> {
        self.0.lock().read(channel, from, limit)
    }

    fn lost(&self, channel: &ChannelName, from: u64) -> Option<Range<u64>> {
        self.0.lock().state.lost(channel, from)
    }

    fn record(&self, key: &Key) -> Option<Record> {
        self.0.lock().state.record(key).cloned()
    }

    fn records(&self, kind: Kind, after: Option<&Key>, limit: usize) -> Vec<Record> {
        self.0.lock().state.records(kind, after, limit)
    }

    fn close(&self) {
        self.0.lock().is_closed = true;
    }
}
