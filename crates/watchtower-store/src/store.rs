//! The store as its users see it: one trait, with what it promises.
//!
//! Deliberately knows no disk, no clock and no async runtime: an answer is a
//! call of a function, from which a [`Ticket`] makes something to wait for.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex};
use watchtower_hub::{ChannelName, Ends, Epoch, Page, ReadLimit};

use crate::{Change, Key, Kind, ReadError, Record, Refused};

/// Called once, when it is certain whether changes are kept.
///
/// It runs on the thread that writes, so it must neither wait nor panic, nor
/// call anything of the store that waits.
pub type Done = Box<dyn FnOnce(Result<(), Refused>) + Send>;

/// Keeps the logs of channels, and records beside them.
///
/// **Guarantees.** Changes whose `Done` said `Ok` are there after the process
/// ended in whatever way, with the same epochs and offsets, if the store is one
/// on disk. Changes that were refused have no effect. Nobody sees a change
/// before it is kept; who was told of it sees it.
///
/// **Order.** Changes take effect in the order in which they were submitted, and
/// those of one thread are answered in it. Those submitted together take effect
/// together.
///
/// **Blocking.** Each method says whether it may wait for a disk. None waits
/// for a sync, save [`close`](Self::close).
pub trait Store: Send + Sync {
    /// Submits changes to be made together. Does not wait: `done` is told, soon
    /// or from within this call.
    ///
    /// # Errors
    ///
    /// Through `done`; see [`Refused`].
    fn submit(&self, changes: Vec<Change>, done: Done);

    /// Drops the messages of a channel's log that are before `first`. Nothing
    /// happens when they are gone already or the log has another epoch; a
    /// `first` beyond the end drops all there are. The offsets of later messages
    /// go on from where they were.
    ///
    /// In order with what was submitted. Reads one message, so it may wait for
    /// a disk; not to be called where messages are delivered.
    ///
    /// # Errors
    ///
    /// Through `done`, save for those of reading.
    fn trim(&self, channel: &ChannelName, epoch: Epoch, first: u64, done: Done) -> Result<(), ReadError>;

    /// What a channel's log holds; `None` if it has none. Does not wait.
    fn ends(&self, channel: &ChannelName) -> Option<Ends>;

    /// The first `limit` channels after `after` in the order of their names,
    /// and what their logs hold. Reads no messages, and does not wait.
    fn channels(&self, after: Option<&ChannelName>, limit: usize) -> Vec<(ChannelName, Ends)>;

    /// Reads a channel's log from offset `from` on, or from the first message
    /// that is kept, whichever is later. May wait for a disk, never for a
    /// writer.
    ///
    /// # Errors
    ///
    /// [`ReadError`]. What was found damaged is no error: see [`Page::lost`].
    fn read(&self, channel: &ChannelName, from: u64, limit: ReadLimit) -> Result<Page, ReadError>;

    /// The first offsets from `from` on that a channel's log had, or gave up, and
    /// has no more: as [`Page::lost`] says it of those that are read, as far as it
    /// is known. Does not wait.
    fn lost(&self, channel: &ChannelName, from: u64) -> Option<Range<u64>>;

    /// The record of that key. Does not wait.
    fn record(&self, key: &Key) -> Option<Record>;

    /// The first `limit` records of a kind after `after`, in the order of their
    /// keys. Does not wait.
    fn records(&self, kind: Kind, after: Option<&Key>, limit: usize) -> Vec<Record>;

    /// Answers all that was submitted, and then refuses. Waits for that.
    fn close(&self);

    /// As [`submit`](Self::submit), with something to wait for.
    fn commit(&self, changes: Vec<Change>) -> Ticket {
        let (ticket, done) = Ticket::new();
        self.submit(changes, done);
        ticket
    }

    /// Reads up to `limit.messages` messages that are right before offset
    /// `before`, in their order; fewer where some were lost or are too long for
    /// `limit.bytes`, in which case the page ends before `before`.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    fn read_before(&self, channel: &ChannelName, before: u64, limit: ReadLimit) -> Result<Page, ReadError> {
        let next = self.ends(channel).map_or(0, |ends| ends.next);
        let before = before.min(next);
        let from = before.saturating_sub(limit.messages as u64);
        let messages = usize::try_from(before - from).unwrap_or(usize::MAX);
        let mut page = self.read(channel, from, ReadLimit { messages, ..limit })?;
        // Where some are lost or trimmed, the page reaches beyond.
        page.messages.retain(|message| message.position().offset < before);
        page.lost.retain(|lost| lost.start < before);
        page.next = page.next.min(before);
        Ok(page)
    }
}

/// The answer to changes, to be waited for by a thread or a task.
#[derive(Debug)]
pub struct Ticket(Arc<Answer>);

#[derive(Debug, Default)]
struct Answer {
    state: Mutex<AnswerState>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct AnswerState {
    result: Option<Result<(), Refused>>,
    waker: Option<Waker>,
}

impl Ticket {
    /// A ticket, and what answers it.
    pub fn new() -> (Ticket, Done) {
        let answer = Arc::new(Answer::default());
        let ticket = Ticket(answer.clone());
        let done = move |result| {
            let mut state = answer.state.lock();
            state.result = Some(result);
            let waker = state.waker.take();
            drop(state);
            answer.came.notify_all();
            if let Some(waker) = waker {
                waker.wake();
            }
        };
        (ticket, Box::new(done))
    }

    /// Waits until it is answered.
    ///
    /// # Errors
    ///
    /// Why the changes were refused.
    pub fn wait(self) -> Result<(), Refused> {
        let mut state = self.0.state.lock();
        loop {
            if let Some(result) = state.result.clone() {
                return result;
            }
            self.0.came.wait(&mut state);
        }
    }
}

impl Future for Ticket {
    type Output = Result<(), Refused>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.state.lock();
        if let Some(result) = state.result.clone() {
            return Poll::Ready(result);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
