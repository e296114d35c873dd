//! What the threads of a store share: what there is, and reading it.
//!
//! The lock is held while memory is looked at or changed, never while a file is.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::RwLock;
use watchtower_hub::{ChannelName, Message};

use super::codec;
use super::contents::{Contents, Located, LogKey, log_key};
use super::folder::Folder;
use super::frame::{Read, Seal};
use super::segment::{Segment, SegmentFile};
use super::tidy::Signal;
use crate::state::{Log, State};
use crate::{Notice, Page, ReadError, ReadLimit, message_bytes};

/// See the module.
pub(crate) struct Shared {
    pub(crate) folder: Folder,
    pub(crate) id: [u8; 16],
    pub(crate) seal: Seal,
    pub(crate) view: RwLock<View>,
    pub(crate) tidy: Signal,
    /// How often the active segment was synced.
    pub(crate) syncs: AtomicU64,
}

/// What there is, as of the last sync.
pub(crate) struct View {
    pub(crate) state: State,
    /// Oldest first.
    pub(crate) sealed: Arc<[Arc<Segment>]>,
    pub(crate) active: Arc<SegmentFile>,
    pub(crate) contents: Contents,
}

/// A message as it was found, and the bytes of all before it in its log.
pub(crate) type FoundMessage = (Message, u64);

/// What was read so far.
struct Reading {
    key: LogKey,
    found: Vec<FoundMessage>,
    lost: Vec<Range<u64>>,
    expected: u64,
    bytes: u64,
    limit: ReadLimit,
    is_full: bool,
    buffer: Vec<u8>,
}

/// A frame is not the one that should be there.
struct Mismatch;

impl Shared {
    pub(crate) fn read(&self, channel: &ChannelName, from: u64, limit: ReadLimit) -> Result<Page, ReadError> {
        let (log, reading) = self.find(channel, from, limit)?;
        Ok(Page {
            epoch: log.epoch,
            messages: reading.found.into_iter().map(|(message, _)| message).collect(),
            lost: reading.lost,
            next: reading.expected,
        })
    }

    /// The first message from `from` on that can be read, and the log it is in.
    pub(crate) fn first_from(
        &self,
        channel: &ChannelName,
        from: u64,
    ) -> Result<(Log, Option<FoundMessage>), ReadError> {
        let (log, reading) = self.find(channel, from, ReadLimit::messages(1))?;
        Ok((log, reading.found.into_iter().next()))
    }

    fn find(&self, channel: &ChannelName, from: u64, limit: ReadLimit) -> Result<(Log, Reading), ReadError> {
        let view = self.view.read();
        let no_log = || ReadError::NoLog { channel: channel.clone() };
        let log = *view.state.log(channel).ok_or_else(no_log)?;
        let from = from.clamp(log.first, log.next);
        let key = log_key(channel, log.epoch);
        let (sealed, active) = (view.sealed.clone(), view.active.clone());
        let last = view.contents.locate(&key, from, limit.messages);
        drop(view);
        let mut reading = Reading {
            key,
            found: Vec::new(),
            lost: Vec::new(),
            expected: from,
            bytes: 0,
            limit,
            is_full: limit.messages == 0,
            buffer: Vec::new(),
        };
        for segment in sealed.iter() {
            if reading.is_full || reading.expected >= log.next {
                break;
            }
            self.read_sealed(segment, &mut reading).map_err(io_error(&segment.file.path))?;
        }
        // Beyond what is synced there may be what is being written.
        let in_active =
            reading.take_all((&active, u64::MAX), &self.seal, &last, true).map_err(io_error(&active.path))?;
        debug_assert!(in_active.is_ok(), "what is missing is skipped");
        if !reading.is_full {
            reading.skip_to(log.next);
        }
        Ok((log, reading))
    }

    fn read_sealed(&self, segment: &Arc<Segment>, reading: &mut Reading) -> io::Result<()> {
        let located = reading.locate(segment)?;
        if reading.take_all((&segment.file, segment.end), &self.seal, &located, false)?.is_err() {
            // The index or the segment is damaged: the segment says which.
            self.rescan(segment)?;
            let located = reading.locate(segment)?;
            let _ = reading.take_all((&segment.file, segment.end), &self.seal, &located, true)?;
        }
        Ok(())
    }

    /// Finds out what a damaged segment still holds, tells what it does not, and
    /// has it written anew.
    pub(crate) fn rescan(&self, segment: &Arc<Segment>) -> io::Result<()> {
        // Who comes second waits until everything was told.
        let _examining = segment.examining.lock();
        if segment.is_damaged() {
            return Ok(());
        }
        let contents = segment.examine(&self.seal)?;
        let path = &segment.file.path;
        self.folder.damaged(path, "what can be read of it is served");
        for entry in segment.entries()?.unwrap_or_default() {
            let is_live = |log: &Log| log.epoch.to_bits() == entry.key.1;
            if self.view.read().state.log(&entry.key.0).is_some_and(is_live) {
                report_lost(&self.folder, path, &entry.key, entry.first..entry.end(), &contents);
            }
        }
        // Last, so that nobody misses a message before it was told.
        segment.found_damaged(contents);
        self.tidy.wake();
        Ok(())
    }
}

/// Tells which of these offsets, which a file held, are not in it any more.
pub(crate) fn report_lost(folder: &Folder, path: &Path, key: &LogKey, had: Range<u64>, contents: &Contents) {
    let mut expected = had.start;
    let mut gaps = Vec::new();
    for run in contents.runs.get(key).into_iter().flatten().filter(|run| run.end() > had.start) {
        gaps.push(expected..run.first.min(had.end));
        expected = expected.max(run.end());
    }
    gaps.push(expected..had.end);
    for offsets in gaps.into_iter().filter(|gap| gap.start < gap.end) {
        folder.notice(&Notice::Lost { file: path.to_owned(), channel: key.0.clone(), offsets });
    }
}

impl Reading {
    fn locate(&self, segment: &Segment) -> io::Result<Vec<Located>> {
        segment.locate(&self.key, self.expected, self.limit.messages - self.found.len())
    }

    /// Reads what is located in a file. A frame that is not what it should be
    /// ends that, or counts as lost when `skip`.
    fn take_all(
        &mut self,
        (file, end): (&SegmentFile, u64),
        seal: &Seal,
        located: &[Located],
        skip: bool,
    ) -> io::Result<Result<(), Mismatch>> {
        for Located { first, positions } in located {
            for (offset, at) in (*first..).zip(positions) {
                if self.is_full {
                    return Ok(Ok(()));
                }
                if offset < self.expected {
                    continue;
                }
                let read = seal.read(&file.file, u64::from(*at), end, &mut self.buffer)?;
                let is_read = read == Read::Whole || (read == Read::Mended && skip);
                let message = is_read.then(|| codec::decode_message(&self.buffer)).flatten();
                let is_it = |message: &Message| {
                    message.position().offset == offset
                        && message.position().epoch.to_bits() == self.key.1
                        && *message.channel() == self.key.0
                };
                match message.filter(|(message, _)| is_it(message)) {
                    Some((message, outline)) => self.take(message, outline.before),
                    None if skip => {}
                    None => return Ok(Err(Mismatch)),
                }
            }
        }
        Ok(Ok(()))
    }

    fn take(&mut self, message: Message, before: u64) {
        let bytes = self.bytes + message_bytes(&message);
        if bytes > self.limit.bytes && !self.found.is_empty() {
            self.is_full = true;
            return;
        }
        self.bytes = bytes;
        self.skip_to(message.position().offset);
        self.expected = message.position().offset + 1;
        self.found.push((message, before));
        self.is_full = self.found.len() >= self.limit.messages;
    }

    fn skip_to(&mut self, offset: u64) {
        if self.expected < offset {
            self.lost.push(self.expected..offset);
            self.expected = offset;
        }
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ReadError + '_ {
    move |source| ReadError::Io { path: path.to_owned(), source }
}
