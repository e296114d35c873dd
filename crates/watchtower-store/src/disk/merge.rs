//! Makes one segment of several that stand in a row, in the order of channels,
//! with what is still wanted. Made of one, it leaves out what was dropped or is
//! damaged.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::iter;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::codec::{self, Outline, Payload};
use super::contents::{Contents, LogKey, Run};
use super::folder::{NewFile, Numbers, index_path};
use super::frame::{Header, OVERHEAD_BYTES, Read};
use super::in_order::InOrder;
use super::index::{Entry, Index, Opened, Said};
use super::index_writer::IndexWriter;
use super::segment::{
    Known, Places, Previous, SEGMENT_HEADER_BYTES, Segment, SegmentFile, new_header, scan, write_header,
};
use super::shared::Shared;
use crate::state::Step;

/// How much is written at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// How much is written before it is synced. A sync of much would hold up the
/// writer's.
const SYNC_BYTES: u64 = 8 << 20;
/// Of how many messages it is looked up at once where they are.
const PLACES_AT_ONCE: usize = 4096;

impl Segment {
    pub(super) fn numbers(&self) -> Numbers {
        self.file.numbers
    }
}

/// Makes the segment, which is on disk under its name then. `is_oldest` says
/// that no segment is before these: if one was, and is missing, this one takes
/// its place.
///
/// What is damaged in a source is left out. A source's file that was found
/// damaged before gets a second name among those that were set aside.
pub(super) fn merge(shared: &Shared, sources: &[Arc<Segment>], is_oldest: bool) -> io::Result<Segment> {
    merge_known(shared, &sources.iter().map(Source::of).collect::<Vec<_>>(), is_oldest)
}

/// The same, by what was known of the sources a while ago.
pub(super) fn merge_known(shared: &Shared, sources: &[Source<'_>], is_oldest: bool) -> io::Result<Segment> {
    let (Some(first), Some(last)) = (sources.first(), sources.last()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let from = if is_oldest { 1 } else { first.segment.numbers().first };
    let numbers = Numbers { first: from, last: last.segment.numbers().last };
    let path = shared.folder.log_path(numbers);
    let header = new_header(shared.id, Previous::default())?;
    let mut new = NewFile::create(&path)?;
    write_header(new.file(), &header)?;
    let index_path = index_path(&path);
    let mut output = Output::new(shared, new.file(), IndexWriter::create(&index_path, &shared.seal)?);
    output.copy_all(sources, is_oldest)?;
    let (index, end) = output.finish()?;
    for source in sources.iter().filter(|source| source.known.is_damaged) {
        shared.folder.set_aside(&source.segment.file.path, true)?;
    }
    let file = new.publish()?;
    let generation = header.generation;
    let file = Arc::new(SegmentFile { numbers, path, file, generation });
    let index = index.finish(generation, end).and_then(|()| open_index(shared, &index_path, generation));
    let places = match index {
        Ok(index) => Places::Disk(Arc::new(index)),
        // The places are in memory until it is written, as those of a finished segment.
        Err(_) => Places::Memory(Arc::new(scan(&file.file, &shared.seal, Some(end))?.contents)),
    };
    Ok(Segment::new(file, end, places))
}

/// Opens an index that was just written.
pub(super) fn open_index(shared: &Shared, path: &Path, generation: u64) -> io::Result<Index> {
    match Index::open(path, Some(generation), &shared.seal)? {
        Opened::Fitting(index) => Ok(index),
        _ => Err(io::Error::other(format!("{} is not as it was just written", path.display()))),
    }
}

/// A segment, and what was known of it when the merging began.
pub(super) struct Source<'a> {
    segment: &'a Arc<Segment>,
    known: Known,
}

impl Source<'_> {
    pub(super) fn of(segment: &Arc<Segment>) -> Source<'_> {
        Source { segment, known: segment.known() }
    }
}

/// What a source says, gone through a little at a time: first everything that is
/// no message, then the runs of messages.
enum Saying<'a> {
    Memory(&'a Contents),
    Disk(&'a Index, Said<'a>),
}

/// A list that ends with the first error.
type List<'a, T> = Box<dyn Iterator<Item = io::Result<T>> + 'a>;

/// What something is about, and what was said of it last.
type Meta = (Box<[u8]>, Box<[u8]>);

impl<'a> Saying<'a> {
    fn of(source: &'a Source<'_>) -> io::Result<Saying<'a>> {
        Ok(match &source.known.places {
            Places::Memory(contents) => Saying::Memory(contents),
            Places::Disk(index) => Saying::Disk(index, index.said()?),
        })
    }

    /// In the order of what they are about.
    fn metas(&mut self) -> List<'_, Meta> {
        match self {
            Saying::Memory(contents) => {
                Box::new(contents.metas.iter().map(|(key, payload)| Ok((key.clone(), payload.clone()))))
            }
            Saying::Disk(_, said) => Box::new(iter::from_fn(|| next_meta(said).transpose())),
        }
    }

    /// In the order of logs.
    fn runs(&mut self) -> List<'_, (LogKey, FoundRun<'a>)> {
        match self {
            Saying::Memory(contents) => {
                Box::new(contents.all_runs().map(|(key, run)| Ok((key.clone(), FoundRun::Memory(run)))))
            }
            Saying::Disk(index, said) => Box::new(iter::from_fn(|| said.entry().transpose()).map(|entry| {
                let entry = entry?;
                Ok((entry.key.clone(), FoundRun::Disk(index, entry)))
            })),
        }
    }

    /// Fails if what was said was not as it was written.
    fn finish(self) -> io::Result<()> {
        match self {
            Saying::Memory(_) => Ok(()),
            Saying::Disk(_, said) => said.finish(),
        }
    }
}

/// The next that an index says of anything but messages, and what it is about.
fn next_meta(said: &mut Said<'_>) -> io::Result<Option<Meta>> {
    while let Some(payload) = said.meta()? {
        if let Some(Payload::Meta(key)) = codec::look(payload) {
            return Ok(Some((key, payload.into())));
        }
    }
    Ok(None)
}

/// A run of messages in a source.
enum FoundRun<'a> {
    Memory(&'a Run),
    Disk(&'a Index, Entry),
}

impl FoundRun<'_> {
    fn offsets(&self) -> Range<u64> {
        match self {
            FoundRun::Memory(run) => run.first..run.end(),
            FoundRun::Disk(_, entry) => entry.first..entry.end(),
        }
    }

    /// Where the messages of these offsets are, which are among its own.
    fn places(&self, offsets: Range<u64>) -> io::Result<Vec<u32>> {
        let (skipped, count) = (offsets.start - self.offsets().start, offsets.end - offsets.start);
        match self {
            FoundRun::Memory(run) => Ok(run.positions[skipped as usize..][..count as usize].to_vec()),
            FoundRun::Disk(index, entry) => index.places(entry, skipped, count),
        }
    }
}

/// The segment that is being written, and its index.
struct Output<'a> {
    shared: &'a Shared,
    file: &'a File,
    index: IndexWriter,
    serial: u32,
    /// What is in the file.
    written: u64,
    synced: u64,
    /// What is to be written behind that.
    chunk: Vec<u8>,
}

impl<'a> Output<'a> {
    fn new(shared: &'a Shared, file: &'a File, index: IndexWriter) -> Output<'a> {
        Output {
            shared,
            file,
            index,
            serial: 0,
            written: SEGMENT_HEADER_BYTES,
            synced: SEGMENT_HEADER_BYTES,
            chunk: Vec::new(),
        }
    }

    fn copy_all(&mut self, sources: &[Source<'_>], is_oldest: bool) -> io::Result<()> {
        let mut saying = sources.iter().map(Saying::of).collect::<io::Result<Vec<_>>>()?;
        let is_damaged = sources.iter().any(|source| source.known.is_damaged);
        let ends = if is_damaged { self.ends() } else { BTreeMap::new() };
        let metas = saying.iter_mut().map(Saying::metas);
        self.copy_metas(metas.chain([Box::new(ends.into_iter().map(Ok)) as List<'_, _>]), is_oldest)?;
        self.copy_messages(sources, saying.iter_mut().map(Saying::runs).collect())?;
        saying.into_iter().try_for_each(Saying::finish)
    }

    /// The ends of all logs, whose last messages, or beginnings, may be among what
    /// is lost.
    fn ends(&self) -> BTreeMap<Box<[u8]>, Box<[u8]>> {
        let view = self.shared.view.read();
        let ends = view.state.logs().filter_map(|(channel, log)| {
            let mut payload = Vec::new();
            codec::encode(&Step::Log(channel.clone(), Some(*log)), &mut payload);
            match codec::look(&payload)? {
                Payload::Meta(key) => Some((key, payload.into())),
                Payload::Message(_) => None,
            }
        });
        ends.collect()
    }

    /// Everything but messages: what was said last about each. That something
    /// is gone need not be said when no older segment can say otherwise.
    fn copy_metas<'b>(
        &mut self,
        lists: impl Iterator<Item = List<'b, Meta>>,
        is_oldest: bool,
    ) -> io::Result<()> {
        let mut metas = InOrder::new(lists.collect())?;
        let mut next = metas.next()?;
        while let Some((_, key, payload)) = next {
            next = metas.next()?;
            let is_last = next.as_ref().is_none_or(|(_, next, _)| *next != key);
            if is_last && !(is_oldest && codec::is_gone(&payload)) {
                self.put(&payload, 0, 0)?;
                self.index.meta(&payload)?;
            }
        }
        Ok(())
    }

    fn copy_messages(
        &mut self,
        sources: &[Source<'_>],
        lists: Vec<List<'_, (LogKey, FoundRun<'_>)>>,
    ) -> io::Result<()> {
        let mut runs = InOrder::new(lists)?;
        let mut buffer = Vec::new();
        while let Some((source, key, run)) = runs.next()? {
            let Some(first) = self.first_wanted(&key) else { continue };
            let Range { start, end } = run.offsets();
            for from in (start.max(first)..end).step_by(PLACES_AT_ONCE) {
                let offsets = from..end.min(from + PLACES_AT_ONCE as u64);
                for (offset, at) in offsets.clone().zip(run.places(offsets)?) {
                    self.copy(&sources[source], &key, offset, at, &mut buffer)?;
                }
            }
        }
        Ok(())
    }

    /// The offset from which on a log is wanted; none when all of it is gone.
    fn first_wanted(&self, key: &LogKey) -> Option<u64> {
        let view = self.shared.view.read();
        view.state.log(&key.0).filter(|log| log.epoch.to_bits() == key.1).map(|log| log.first)
    }

    /// Copies one message, if it is there.
    fn copy(
        &mut self,
        source: &Source<'_>,
        key: &LogKey,
        offset: u64,
        at: u32,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        let segment = source.segment;
        let read = self.shared.seal.read(&segment.file.file, at.into(), segment.end, buffer)?;
        // A damaged source has been told of, and is mended hereby. One that was not
        // known to be may be by now, at other places than these.
        let is_read = read == Read::Whole || (read == Read::Mended && source.known.is_damaged);
        let found = match codec::look(buffer).filter(|_| is_read) {
            Some(Payload::Message(found)) => Some(found),
            _ => None,
        };
        let is_it = |found: &Outline| {
            (&found.channel, found.epoch.to_bits(), found.offset) == (&key.0, key.1, offset)
        };
        if let Some(found) = found.filter(is_it) {
            let place = self.put(buffer, self.shared.seal.channel(&key.0), offset)?;
            return self.index.message(key, offset, place, found.before + found.bytes, found.time);
        }
        if source.known.is_damaged {
            return Ok(());
        }
        // What the segment really holds is to be found out first, and then this
        // begins anew.
        self.shared.rescan(segment)?;
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Adds a frame. Where it begins, and how many bytes it has.
    fn put(&mut self, payload: &[u8], channel: u32, offset: u64) -> io::Result<(u32, u64)> {
        let header = Header { length: payload.len(), more: false, serial: self.serial, channel, offset };
        let at = self.written + self.chunk.len() as u64;
        let place = u32::try_from(at).map_err(io::Error::other)?;
        self.shared.seal.put_frame(header, payload, &mut self.chunk);
        self.serial += 1;
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok((place, (OVERHEAD_BYTES + payload.len()) as u64))
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.shared.tidy.is_closed() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the store is closing"));
        }
        self.file.write_all_at(&self.chunk, self.written)?;
        self.written += self.chunk.len() as u64;
        self.chunk.clear();
        if self.written - self.synced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.synced = self.written;
        }
        Ok(())
    }

    /// The index, which is to be finished, and where the segment ends.
    fn finish(mut self) -> io::Result<(IndexWriter, u64)> {
        self.flush()?;
        self.file.sync_all()?;
        Ok((self.index, self.written))
    }
}
