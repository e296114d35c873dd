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
use super::index::is_broken;
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
    /// What is in the active file.
    pub(crate) contents: Arc<Contents>,
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
        let found = self.try_find(channel, from, limit)?;
        if found.1.lost.iter().all(|lost| self.knows_lost(&found.1.key, lost)) {
            return Ok(found);
        }
        // An index may have been damaged since it was opened, and not say where they
        // are. Whoever has found that out meanwhile, the second time it is known.
        self.rescan_changed()?;
        let (log, reading) = self.try_find(channel, from, limit)?;
        let active = self.view.read().active.path.clone();
        for lost in reading.lost.iter().filter(|lost| !self.knows_lost(&reading.key, lost)) {
            self.lose(&active, &reading.key, lost.clone());
        }
        Ok((log, reading))
    }

    fn try_find(
        &self,
        channel: &ChannelName,
        from: u64,
        limit: ReadLimit,
    ) -> Result<(Log, Reading), ReadError> {
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
        let taken = match reading.locate(segment) {
            Ok(located) => reading.take_all((&segment.file, segment.end), &self.seal, &located, false)?,
            Err(error) if is_broken(&error) => Err(Mismatch),
            Err(error) => return Err(error),
        };
        if taken.is_err() {
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
        let had = segment.entries().or_else(|error| if is_broken(&error) { Ok(None) } else { Err(error) });
        for entry in had?.unwrap_or_default() {
            for offsets in contents.lost(&entry.key, entry.first..entry.end()) {
                self.lose(path, &entry.key, offsets);
            }
        }
        // Last, so that nobody misses a message before that was told.
        segment.found_damaged(contents);
        self.tidy.wake();
        Ok(())
    }

    /// Looks at all indexes, and finds out what is in those segments whose index is
    /// not what it was.
    fn rescan_changed(&self) -> Result<(), ReadError> {
        let sealed = self.view.read().sealed.clone();
        for segment in sealed.iter() {
            let path = &segment.file.path;
            match segment.check_index() {
                Ok(()) => {}
                Err(error) if is_broken(&error) => self.rescan(segment).map_err(io_error(path))?,
                Err(error) => return Err(io_error(path)(error)),
            }
        }
        Ok(())
    }

    /// Whether it is known that a log has lost these messages, or has dropped them
    /// meanwhile.
    fn knows_lost(&self, (channel, epoch): &LogKey, offsets: &Range<u64>) -> bool {
        let view = self.view.read();
        let log = view.state.log(channel).filter(|log| log.epoch.to_bits() == *epoch);
        log.is_none_or(|log| offsets.end <= log.first) || view.state.knows_lost(channel, offsets)
    }

    /// Notes that messages are lost by damage to a file, and tells it, unless the
    /// log is gone or has dropped them.
    fn lose(&self, path: &Path, (channel, epoch): &LogKey, offsets: Range<u64>) {
        let mut view = self.view.write();
        let log = view.state.log(channel).filter(|log| log.epoch.to_bits() == *epoch);
        let Some(log) = log.filter(|log| log.first < offsets.end) else { return };
        let (epoch, offsets) = (log.epoch, offsets.start.max(log.first)..offsets.end);
        view.state.lose(channel, epoch, offsets.clone());
        drop(view);
        self.folder.notice(&Notice::Lost { file: path.to_owned(), channel: channel.clone(), offsets });
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
    move |error| ReadError::Io { path: path.to_owned(), error }
}
