//! A ledger in memory, which answers when it is told to and outlives the hub.
//!
//! Judges as a store does: a message is kept if it is the next one of its log.
//! What becomes of senders is kept in the same order: behind all messages that
//! were submitted before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use watchtower_hub::{
    Append, Appended, Appends, ChannelName, Ends, Epoch, KeptSender, Ledger, Message, NotKept, NotRead, Note,
    Page, ReadLimit, SenderId, WasRead,
};

/// See the module. Clones are the same, until the machine stops: those from
/// before have no effect then.
#[derive(Clone, Default)]
pub(super) struct Shelf {
    state: Arc<Mutex<State>>,
    life: u64,
}

/// Invariant: what was submitted first, if anything waits, are messages.
#[derive(Default)]
struct State {
    life: u64,
    logs: BTreeMap<ChannelName, (Epoch, Vec<Message>)>,
    senders: BTreeMap<SenderId, KeptSender>,
    submitted: VecDeque<Submitted>,
    reads: VecDeque<(ChannelName, u64, ReadLimit, WasRead)>,
}

enum Submitted {
    Messages(Appends, Appended),
    Note(Note),
}

impl Shelf {
    /// Answers the first submission that waits, if one does: it is kept, if it
    /// can be, or refused. What was noted behind it is kept, in any case.
    pub(super) fn answer(&self, is_kept: bool) {
        let mut state = self.state.lock();
        let Some(Submitted::Messages(messages, done)) = state.submitted.pop_front() else { return };
        let result =
            if is_kept { state.keep(messages) } else { Err(NotKept::Failed("the disk is full".into())) };
        state.keep_notes();
        drop(state);
        done(result);
    }

    /// Whether somebody waits to read.
    pub(super) fn is_asked(&self) -> bool {
        !self.state.lock().reads.is_empty()
    }

    /// Answers who wants to read.
    pub(super) fn answer_reads(&self) {
        loop {
            let mut state = self.state.lock();
            let Some((name, from, limit, done)) = state.reads.pop_front() else { return };
            let page = state.page(&name, from, limit);
            drop(state);
            done(page);
        }
    }

    /// The machine stops. Of the messages that were submitted and not answered, so
    /// many were kept, and what was noted between them; nobody is told.
    pub(super) fn crash(&mut self, kept: usize) {
        let mut state = self.state.lock();
        self.life += 1;
        state.life = self.life;
        state.reads.clear();
        for _ in 0..kept {
            state.keep_notes();
            if let Some(Submitted::Messages(messages, _)) = state.submitted.pop_front() {
                // One that cannot be kept is not the next one.
                let _ = state.keep(messages);
            }
        }
        state.submitted.clear();
    }

    /// All is deleted.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        state.logs.clear();
        state.senders.clear();
    }

    /// What is kept of a channel.
    pub(super) fn contents(&self, name: &ChannelName) -> Vec<bytes::Bytes> {
        let state = self.state.lock();
        let log = state.logs.get(name).map(|(_, log)| log.as_slice()).unwrap_or_default();
        log.iter().map(|message| message.content().bytes().clone()).collect()
    }

    /// What was submitted, and is not answered.
    pub(super) fn submitted(&self) -> Vec<bytes::Bytes> {
        let state = self.state.lock();
        let messages = state.submitted.iter().flat_map(|submitted| match submitted {
            Submitted::Messages(messages, _) => messages.as_slice(),
            Submitted::Note(_) => &[],
        });
        messages.map(|Append { message, .. }| message.content().bytes().clone()).collect()
    }

    /// The senders that are kept.
    pub(super) fn senders(&self) -> Vec<KeptSender> {
        self.state.lock().senders.values().cloned().collect()
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

    /// Keeps what was noted before the next messages.
    fn keep_notes(&mut self) {
        while let Some(Submitted::Note(note)) =
            self.submitted.pop_front_if(|first| matches!(first, Submitted::Note(_)))
        {
            self.keep_note(note);
        }
    }

    fn keep_note(&mut self, note: Note) {
        match note {
            Note::Registered { sender: id, last_active } => {
                let begins = || KeptSender { id, last_active, joins: Vec::new() };
                self.senders.entry(id).or_insert_with(begins).last_active = last_active;
            }
            Note::Forgotten(id) => drop(self.senders.remove(&id)),
            Note::Joined(id, join) => {
                let Some(sender) = self.senders.get_mut(&id) else { return };
                sender.joins.retain(|before| before.channel != join.channel);
                sender.joins.push(join);
            }
            Note::Left(id, channel) => {
                let Some(sender) = self.senders.get_mut(&id) else { return };
                sender.joins.retain(|join| join.channel != channel);
            }
        }
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
        let mut state = self.state.lock();
        if state.life != self.life {
            return Err(NotKept::Closed);
        }
        state.submitted.push_back(Submitted::Messages(messages, done));
        Ok(())
    }

    fn read(&self, channel: &ChannelName, from: u64, limit: ReadLimit, done: WasRead) -> Result<(), NotRead> {
        let mut state = self.state.lock();
        if state.life != self.life {
            return Err(NotRead::Closed);
        }
        state.reads.push_back((channel.clone(), from, limit, done));
        Ok(())
    }

    fn ends(&self, channel: &ChannelName) -> Option<Ends> {
        let state = self.state.lock();
        let (epoch, log) = state.logs.get(channel)?;
        let bytes = log.iter().map(|message| message.content().bytes().len() as u64).sum();
        let oldest = log.first().map(Message::time);
        Some(Ends { epoch: *epoch, first: 1, next: log.len() as u64 + 1, bytes, oldest })
    }

    fn logs(&self) -> usize {
        self.state.lock().logs.len()
    }

    fn channels(&self, after: Option<&ChannelName>, limit: usize) -> Vec<(ChannelName, Ends)> {
        let names: Vec<_> = self.state.lock().logs.keys().cloned().collect();
        let later = names.into_iter().filter(|name| after.is_none_or(|after| name > after)).take(limit);
        later.filter_map(|name| Some((name.clone(), self.ends(&name)?))).collect()
    }

    fn note(&self, note: Note) {
        let mut state = self.state.lock();
        if state.life == self.life {
            state.submitted.push_back(Submitted::Note(note));
            if state.submitted.len() == 1 {
                state.keep_notes();
            }
        }
    }
}
