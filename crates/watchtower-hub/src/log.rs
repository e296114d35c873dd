//! A channel's log: a chain of places, each holding one message, the last one
//! empty.
//!
//! Whoever holds a place keeps everything after it alive, and nothing before
//! it: so a message is freed by the last cursor that passes it, without
//! counting cursors. Reading takes no lock.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

use crate::message::FormatId;
use crate::{Format, Message};

/// What a message counts for besides its bytes when these are limited:
/// about the memory of its place in the log.
pub(crate) const ENTRY_BYTES: u64 = 256;

/// What stands for the bytes before places that are in no channel's chain:
/// whoever is there is behind by nothing that is in memory.
const DETACHED: u64 = u64::MAX;

/// The longest run, in bytes: about what a socket takes in one write.
const RUN_BYTES_MAX: usize = 64 * 1024;

/// One place in the log.
#[derive(Debug)]
pub(crate) struct Place {
    offset: u64,
    /// The bytes of all messages before this place, or [`DETACHED`].
    bytes_before: u64,
    filled: OnceLock<Filled>,
    runs: Runs,
    /// The formats, a bit each, in which a run covers this place.
    ///
    /// Invariant: no two runs of one format overlap, so that runs at most
    /// double the memory of a log.
    covered: AtomicU64,
}

#[derive(Debug)]
struct Filled {
    message: Message,
    next: Arc<Place>,
}

/// A message in its channel's log. Holding it keeps it, and what follows it,
/// in memory.
#[derive(Debug, Clone)]
pub struct Entry(Arc<Place>);

impl Entry {
    /// The entry at a place; `None` while the place is empty.
    pub(crate) fn at(place: &Arc<Place>) -> Option<Entry> {
        place.message().map(|_| Entry(place.clone()))
    }
}

impl Deref for Entry {
    type Target = Message;

    fn deref(&self) -> &Message {
        self.0.message().expect("an entry's place is filled")
    }
}

/// Successive messages in one format, in one piece: what subscribers that
/// start at the same place are sent with one write, from the same memory.
#[derive(Debug)]
pub(crate) struct Run {
    format: FormatId,
    pub(crate) bytes: Bytes,
    pub(crate) messages: u64,
    /// Where to read on.
    pub(crate) end: Arc<Place>,
    next: Runs,
}

/// The runs that start at a place: a list that only grows.
#[derive(Debug, Default)]
struct Runs(OnceLock<Box<Run>>);

impl Place {
    /// The first place of a log whose next message has that offset.
    pub(crate) fn first(offset: u64) -> Arc<Place> {
        Place::empty(offset, 0)
    }

    /// An empty place of that offset that is in no channel's chain, and will never
    /// be filled: what is there is to be read from the ledger.
    pub(crate) fn detached(offset: u64) -> Arc<Place> {
        Place::empty(offset, DETACHED)
    }

    /// A chain of messages that were read from the ledger, in the order of their
    /// offsets, which ends with `end`.
    pub(crate) fn chain(messages: Vec<Message>, end: Arc<Place>) -> Arc<Place> {
        messages.into_iter().rev().fold(end, |next, message| {
            let bytes_before = next.bytes_before_with(&message);
            let offset = message.offset;
            Place::new(offset, bytes_before, OnceLock::from(Filled { message, next }))
        })
    }

    /// A place with this earlier message that is in no log, and is followed by
    /// `next`: for who is to read it first. It is in no run.
    pub(crate) fn ahead_of(next: &Arc<Place>, message: Message) -> Arc<Place> {
        debug_assert!(message.offset < next.offset);
        let bytes_before = next.bytes_before_with(&message);
        let message = Message { is_retained: true, ..message };
        Arc::new(Place {
            offset: next.offset - 1,
            bytes_before,
            filled: OnceLock::from(Filled { message, next: next.clone() }),
            runs: Runs::default(),
            covered: AtomicU64::new(u64::MAX),
        })
    }

    /// This place, or the one that follows it where this is only ahead of the log.
    pub(crate) fn in_log(self: &Arc<Self>) -> &Arc<Place> {
        match self.filled.get() {
            Some(filled) if filled.message.offset != self.offset => &filled.next,
            _ => self,
        }
    }

    /// The bytes before a place with this message that is followed by this one.
    fn bytes_before_with(&self, message: &Message) -> u64 {
        match self.bytes_before {
            DETACHED => DETACHED,
            bytes => bytes.saturating_sub(message.bytes() + ENTRY_BYTES),
        }
    }

    fn empty(offset: u64, bytes_before: u64) -> Arc<Place> {
        Place::new(offset, bytes_before, OnceLock::new())
    }

    fn new(offset: u64, bytes_before: u64, filled: OnceLock<Filled>) -> Arc<Place> {
        let (runs, covered) = (Runs::default(), AtomicU64::new(0));
        Arc::new(Place { offset, bytes_before, filled, runs, covered })
    }

    /// Whether this is in no channel's chain, so that what follows has to be read
    /// from the ledger.
    pub(crate) fn is_detached(&self) -> bool {
        self.bytes_before == DETACHED
    }

    /// The number of the message that is here, or will be.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes of all messages before this place, [`ENTRY_BYTES`] each
    /// included.
    pub(crate) fn bytes_before(&self) -> u64 {
        self.bytes_before
    }

    pub(crate) fn message(&self) -> Option<&Message> {
        self.filled.get().map(|filled| &filled.message)
    }

    pub(crate) fn next(&self) -> Option<&Arc<Place>> {
        self.filled.get().map(|filled| &filled.next)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.filled.get().is_none()
    }

    /// Fills this place and returns the new end of the log. To be called on
    /// the end, under the channel's lock.
    pub(crate) fn append(&self, message: Message) -> Arc<Place> {
        debug_assert_eq!(message.offset, self.offset);
        let bytes = message.bytes() + ENTRY_BYTES;
        let next = Place::empty(self.offset + 1, self.bytes_before + bytes);
        let refused = self.filled.set(Filled { message, next: next.clone() });
        debug_assert!(refused.is_ok(), "only the end of a log is appended to, and once");
        next
    }

    /// The first place from `start` on whose offset is at least `offset`, or
    /// the end of the log.
    pub(crate) fn seek(start: &Arc<Place>, offset: u64) -> &Arc<Place> {
        let mut place = start;
        while place.offset < offset {
            let Some(next) = place.next() else { break };
            place = next;
        }
        place
    }

    /// The first place from `start` on before which there are at least `bytes`, or
    /// the end of the log.
    pub(crate) fn seek_bytes(start: &Arc<Place>, bytes: u64) -> &Arc<Place> {
        let mut place = start;
        while place.bytes_before < bytes {
            let Some(next) = place.next() else { break };
            place = next;
        }
        place
    }

    /// The run of `format` that starts here, made now when there are several
    /// messages to make it of. `None` when there is nothing to gain.
    pub(crate) fn run(self: &Arc<Self>, format: &dyn Format) -> Option<&Run> {
        let id = format.id();
        if let Some(run) = self.runs.find(id) {
            return Some(run);
        }
        self.next()?.message()?; // a single message needs no run
        self.claim(id)?;
        let run = self.make_run(format)?;
        Some(self.runs.add(run))
    }

    /// Marks this place as covered by a run; `None` when it is already, or
    /// when its message is not for everyone.
    fn claim(&self, format: FormatId) -> Option<&Filled> {
        let filled = self.filled.get()?;
        if filled.message.is_direct() {
            return None;
        }
        let covered = |formats: u64| formats & format.bit() != 0;
        // A plain load first: those who read behind ask again and again.
        if covered(self.covered.load(Ordering::Relaxed)) {
            return None;
        }
        let before = self.covered.fetch_or(format.bit(), Ordering::Relaxed);
        (!covered(before)).then_some(filled)
    }

    /// Invariant: this place was just claimed.
    fn make_run(&self, format: &dyn Format) -> Option<Box<Run>> {
        let mut out = BytesMut::new();
        let mut spans: Vec<(&Message, usize)> = Vec::new();
        let mut filled = self.filled.get()?;
        loop {
            filled.message.write_frame(format, &mut out);
            spans.push((&filled.message, out.len()));
            if out.len() >= RUN_BYTES_MAX {
                break;
            }
            match filled.next.claim(format.id()) {
                Some(next) => filled = next,
                None => break,
            }
        }
        let bytes = out.freeze();
        let mut start = 0;
        for &(message, end) in &spans {
            message.keep_frame(format, || bytes.slice(start..end));
            start = end;
        }
        let messages = spans.len() as u64;
        let end = filled.next.clone();
        Some(Box::new(Run { format: format.id(), bytes, messages, end, next: Runs::default() }))
    }
}

impl Runs {
    fn find(&self, format: FormatId) -> Option<&Run> {
        let mut run = self.0.get()?;
        while run.format != format {
            run = run.next.0.get()?;
        }
        Some(run)
    }

    fn add(&self, mut run: Box<Run>) -> &Run {
        let mut runs = self;
        loop {
            let mut ours = Some(run);
            let there = runs.0.get_or_init(|| ours.take().expect("run once"));
            match ours {
                None => return there,
                Some(rest) => run = rest,
            }
            runs = &there.next;
        }
    }
}

impl Drop for Place {
    /// Frees the chain place by place: the compiler's own way would recurse
    /// once for each message.
    fn drop(&mut self) {
        // Runs hold their end: they go first, or the chain would seem in use.
        self.runs = Runs::default();
        let mut next = self.filled.take().map(|filled| filled.next);
        while let Some(mut place) = next.and_then(Arc::into_inner) {
            next = place.filled.take().map(|filled| filled.next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChannelName, Content, Epoch, Position, SenderId, Timestamp};

    struct Plain;

    impl Format for Plain {
        fn id(&self) -> FormatId {
            FormatId::new(1)
        }

        fn encode(&self, message: &Message, out: &mut BytesMut) {
            out.extend_from_slice(message.content().bytes());
        }
    }

    fn message(offset: u64, text: &str) -> Message {
        let position = Position { epoch: Epoch::from_bits(1), offset };
        Message::detached(ChannelName::from(1), position, None, Content::text(text), Timestamp::default())
    }

    fn log(texts: &[&str]) -> (Arc<Place>, Arc<Place>) {
        let first = Place::first(1);
        let mut end = first.clone();
        for text in texts {
            end = end.append(message(end.offset(), text));
        }
        (first, end)
    }

    #[test]
    fn a_message_is_freed_when_the_last_cursor_passes_it() {
        let (first, end) = log(&["a", "b"]);
        let second = first.next().unwrap().clone();
        let gone = Arc::downgrade(&first);
        drop(first);
        assert!(gone.upgrade().is_none());
        assert_eq!(second.message().unwrap().content().bytes(), "b");
        let gone = Arc::downgrade(&second);
        drop(second);
        assert!(gone.upgrade().is_none());
        assert!(end.is_empty());
    }

    #[test]
    fn a_long_log_is_freed_without_recursion() {
        let (first, mut end) = log(&[]);
        for _ in 0..300_000 {
            end = end.append(message(end.offset(), "x"));
        }
        // Runs on the way, which hold places too.
        let mut place = first.clone();
        while let Some(run) = place.run(&Plain) {
            place = run.end.clone();
        }
        assert!(place.offset() > 200_000);
        drop(place);
        drop(first);
        assert_eq!(Arc::strong_count(&end), 1);
    }

    #[test]
    fn a_run_is_shared_and_runs_of_a_format_do_not_overlap() {
        let (first, end) = log(&["a", "b", "c"]);
        assert!(Place::run(first.next().unwrap().next().unwrap(), &Plain).is_none(), "one message only");
        let second = first.next().unwrap();
        let run = second.run(&Plain).unwrap();
        assert_eq!((&run.bytes[..], run.messages, run.end.offset()), (&b"bc"[..], 2, end.offset()));
        assert_eq!(run.bytes.as_ptr(), second.run(&Plain).unwrap().bytes.as_ptr());
        assert_eq!(second.message().unwrap().frame(&Plain).as_ptr(), run.bytes.as_ptr(), "no second copy");
        let run = first.run(&Plain).unwrap();
        assert_eq!((&run.bytes[..], run.messages), (&b"a"[..], 1));
    }

    #[test]
    fn a_run_ends_before_a_message_that_is_not_for_everyone() {
        let first = Place::first(1);
        let end = first.append(message(1, "a"));
        let end = end.append(message(2, "b"));
        let end = end.append(message(3, "c").with_receivers([SenderId::new(7).unwrap()]));
        end.append(message(4, "d"));
        assert_eq!(first.run(&Plain).unwrap().bytes, "ab");
        assert!(Place::seek(&first, 3).run(&Plain).is_none());
    }
}
