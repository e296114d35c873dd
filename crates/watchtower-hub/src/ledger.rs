//! What keeps the logs of durable channels, as the hub sees it: a port, behind
//! which there is a disk, or a test.
//!
//! Knows no file and waits for nothing: what takes time is answered by the call
//! of a function.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::{ChannelName, Epoch, Message, Position, SenderId, Timestamp};

/// Called once, when it is certain whether messages are kept.
///
/// The hub's own neither waits nor panics, save that it takes the locks of
/// channels for a moment.
pub type Appended = Box<dyn FnOnce(Result<(), NotKept>) + Send>;

/// Called once, with what was read.
///
/// The hub's own neither waits nor panics, save that it takes the locks of a
/// channel and of a session for a moment.
pub type WasRead = Box<dyn FnOnce(Result<Page, NotRead>) + Send>;

/// Keeps the logs of durable channels ([model: promises]).
///
/// **Blocking.** No method waits for a disk or for another thread that does: the
/// hub calls them with locks held.
///
/// **Answers** come on whatever thread, and never from within the call that asks
/// for them; what is refused at once is returned, and not answered.
pub trait Ledger: Send + Sync {
    /// Submits messages to be kept, all of them or none. Each stands at its own
    /// position, which must be the next one of its channel's log. A message with
    /// offset 1 begins the log of its channel in its epoch.
    ///
    /// What was answered with `Ok` is kept whatever happens to the process; then
    /// also [`ends`](Self::ends), [`read`](Self::read) and
    /// [`retained`](Self::retained) show it, and not before. What was refused has no effect. Messages are kept, and answered,
    /// in the order in which they were submitted; after one that was refused,
    /// those of its channel that were submitted behind it are refused too.
    ///
    /// # Errors
    ///
    /// [`NotKept`], when it is known at once; then `done` is dropped.
    fn append(&self, messages: Appends, done: Appended) -> Result<(), NotKept>;

    /// Reads a channel's log from offset `from` on, or from the first message
    /// that is kept, whichever is later.
    ///
    /// # Errors
    ///
    /// [`NotRead`], when it is known at once; then `done` is dropped.
    fn read(&self, channel: &ChannelName, from: u64, limit: ReadLimit, done: WasRead) -> Result<(), NotRead>;

    /// What a channel's log holds; `None` if it has none.
    fn ends(&self, channel: &ChannelName) -> Option<Ends>;

    /// The first of the offsets from `from` on that a channel's log had and has no
    /// more, though it has not dropped them; `None` if nothing is missing. What
    /// [`Page::lost`] says when they are read, without reading. A ledger that never
    /// loses anything says nothing.
    fn lost(&self, channel: &ChannelName, from: u64) -> Option<Range<u64>> {
        let _ = (channel, from);
        None
    }

    /// The last message that was [to be retained](Append::is_retained) for a
    /// channel, however long ago its log dropped it; `None` if that was without
    /// content. A ledger for logs alone has none.
    fn retained(&self, channel: &ChannelName) -> Option<Message> {
        let _ = channel;
        None
    }

    /// How many channels have such a message that is to be served, and the bytes of
    /// all these messages, as [`Ends::bytes`] counts. Asked once, at the start.
    fn retained_in_all(&self) -> (usize, u64) {
        (0, 0)
    }

    /// How many channels have a log.
    fn logs(&self) -> usize {
        self.channels(None, usize::MAX).len()
    }

    /// The first `limit` channels after `after` that have a log, in the order of
    /// their names, and what these hold.
    fn channels(&self, after: Option<&ChannelName>, limit: usize) -> Vec<(ChannelName, Ends)>;

    /// Notes what has become of a sender, so that [`Hub::restore`] can say it
    /// after a restart. The last that was noted about the same thing counts; it
    /// may come again. Never waits: whoever has to know that it is kept asks the
    /// ledger itself. A ledger for logs alone does nothing.
    ///
    /// [`Hub::restore`]: crate::Hub::restore
    fn note(&self, note: Note) {
        let _ = note;
    }

    /// Tells `done`, from within this call or later, when all that was noted
    /// until now is kept, or that it was refused. What was refused is tried
    /// again all the same.
    fn when_kept(&self, done: Appended) {
        done(Ok(()));
    }
}

/// Messages that are to be kept together: nearly always one, which takes no
/// memory of its own.
pub type Appends = SmallVec<[Append; 1]>;

/// A message that is to be kept.
#[derive(Debug)]
pub struct Append {
    /// Which.
    pub message: Message,
    /// Whether it takes the place of what is [retained](Ledger::retained) of its
    /// channel: together with being kept, or not at all.
    pub is_retained: bool,
}

/// What is to outlive the process besides messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A sender is registered. Said again when it is active, but not more often
    /// than once a minute.
    Registered {
        /// Who.
        sender: SenderId,
        /// When it was last active.
        last_active: Timestamp,
    },
    /// A sender is not registered any more. All its joins were noted as
    /// [`Left`](Note::Left) before.
    Forgotten(SenderId),
    /// A sender is in a channel, by more than a stream that is open.
    Joined(SenderId, KeptJoin),
    /// A sender is in a channel no longer; it may never have been noted.
    Left(SenderId, ChannelName),
}

/// A sender as it was noted, for [`Hub::restore`](crate::Hub::restore).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSender {
    /// Who.
    pub id: SenderId,
    /// When it was last active.
    pub last_active: Timestamp,
    /// Where it is.
    pub joins: Vec<KeptJoin>,
}

/// A sender's place in a channel that outlives the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptJoin {
    /// Where.
    pub channel: ChannelName,
    /// Since when.
    pub since: Timestamp,
    /// Whether it stays until it is left ([`Hub::join`](crate::Hub::join)); else
    /// it waits `session_ttl` for a session that takes it up.
    pub standing: bool,
}

/// What a channel's log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The incarnation of the log.
    pub epoch: Epoch,
    /// The offset of the first message that is kept.
    pub first: u64,
    /// The offset of the next message; as `first` when none is kept.
    pub next: u64,
    /// The bytes of the messages that are kept: their contents, event names and
    /// what is beside them.
    pub bytes: u64,
    /// The time of the first message that is kept, if any is.
    pub oldest: Option<Timestamp>,
}

impl Ends {
    /// How many messages are kept.
    pub fn messages(&self) -> u64 {
        self.next.saturating_sub(self.first)
    }

    /// Where the next message goes.
    pub fn next_position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.next }
    }
}

/// How much to read at once. One message is read whatever its length.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimit {
    /// How many messages.
    pub messages: usize,
    /// How many bytes, as [`Ends::bytes`] counts.
    pub bytes: u64,
}

impl ReadLimit {
    /// So many messages, of no more than a megabyte together.
    pub const fn messages(messages: usize) -> ReadLimit {
        ReadLimit { messages, bytes: 1 << 20 }
    }
}

/// What was read.
#[derive(Debug)]
pub struct Page {
    /// The epoch that they are in.
    pub epoch: Epoch,
    /// In the order of their offsets.
    pub messages: Vec<Message>,
    /// Offsets between the first and the last that were kept, and are damaged
    /// or missing on disk, or were skipped. Damage is reported once, and said
    /// here each time.
    pub lost: Vec<Range<u64>>,
    /// Where to read on; the end of the log when it was reached.
    pub next: u64,
}

impl Page {
    /// Notes that there is nothing before `offset`.
    pub fn skip_to(&mut self, offset: u64) {
        if self.next < offset {
            self.lost.push(self.next..offset);
            self.next = offset;
        }
    }
}

/// Why messages were not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// More waits to be written than may wait. It may be tried again.
    #[error("the disk is behind, try again")]
    Behind,
    /// A message before it on the same channel was refused, and those behind
    /// could not take its place. It may be tried again.
    #[error("a message before it could not be kept, try again")]
    OutOfTurn,
    /// The disk refused, or something else that a person has to look at.
    #[error("{0}")]
    Failed(Arc<str>),
    /// Nothing is kept any more: the server is ending.
    #[error("the server is shutting down")]
    Closed,
}

/// Why nothing was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    /// The channel has no log.
    #[error("nothing is kept of the channel")]
    NoLog,
    /// More waits to be read than may wait. It may be tried again.
    #[error("the disk is behind, try again")]
    Behind,
    /// The disk refused.
    #[error("{0}")]
    Failed(Arc<str>),
    /// Nothing is read any more: the server is ending.
    #[error("the server is shutting down")]
    Closed,
}
