//! Makes one segment of several that stand in a row, in the order of channels,
//! with what is still wanted. Made of one, it leaves out what was dropped or is
//! damaged.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::iter::Peekable;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::codec;
use super::contents::{Contents, LogKey};
use super::folder::{NewFile, Numbers, index_path};
use super::frame::{Header, OVERHEAD_BYTES, Read};
use super::index::{self, Entry, Index, Opened};
use super::segment::{
    Known, Places, Previous, SEGMENT_HEADER_BYTES, Segment, SegmentFile, new_header, write_header,
};
use super::shared::Shared;
use crate::state::Step;

/// How much is written at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// How much is written before it is synced. A sync of much would hold up the
/// writer's.
const SYNC_BYTES: u64 = 8 << 20;

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
    let mut output = Output::new(shared, new.file());
    output.copy_all(sources, is_oldest)?;
    let (contents, end) = output.finish()?;
    for source in sources.iter().filter(|source| source.known.is_damaged) {
        shared.folder.set_aside(&source.segment.file.path, true)?;
    }
    let file = new.publish()?;
    let generation = header.generation;
    let file = Arc::new(SegmentFile { numbers, path, file, generation });
    let index_path = index_path(&file.path);
    let bytes = index::encode(&contents, generation, end, &shared.seal);
    // Without it, the places stay in memory, and it is written later.
    let index = shared.folder.write_whole(&index_path, &bytes);
    let places = match index.and_then(|()| Index::open(&index_path, Some(generation), &shared.seal)) {
        Ok(Opened::Fitting(index, _)) => Places::Disk(Arc::new(index)),
        Ok(Opened::OfAnother | Opened::Damaged) | Err(_) => Places::Memory(Arc::new(contents)),
    };
    Ok(Segment::new(file, end, places))
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

/// A run of messages in a source.
struct SourceRun {
    key: LogKey,
    first: u64,
    places: RunPlaces,
}

enum RunPlaces {
    Known(Vec<u32>),
    In(Arc<Index>, Entry),
}

type SourceRuns = Peekable<Box<dyn Iterator<Item = SourceRun>>>;

/// The runs of a segment in the order of logs.
fn runs_of(places: &Places) -> io::Result<SourceRuns> {
    let runs: Box<dyn Iterator<Item = SourceRun>> = match places {
        Places::Memory(contents) => {
            let runs = contents.runs.iter().flat_map(|(key, runs)| {
                runs.iter().map(|run| SourceRun {
                    key: key.clone(),
                    first: run.first,
                    places: RunPlaces::Known(run.positions.clone()),
                })
            });
            Box::new(runs.collect::<Vec<_>>().into_iter())
        }
        Places::Disk(index) => {
            let index = index.clone();
            let entries = index.entries()?.into_iter();
            Box::new(entries.map(move |entry| SourceRun {
                key: entry.key.clone(),
                first: entry.first,
                places: RunPlaces::In(index.clone(), entry),
            }))
        }
    };
    Ok(runs.peekable())
}

impl SourceRun {
    fn places(&self) -> io::Result<Vec<u32>> {
        match &self.places {
            RunPlaces::Known(places) => Ok(places.clone()),
            RunPlaces::In(index, entry) => index.places(entry, 0, entry.count),
        }
    }
}

/// The segment that is being written.
struct Output<'a> {
    shared: &'a Shared,
    file: &'a File,
    contents: Contents,
    serial: u32,
    /// What is in the file.
    written: u64,
    synced: u64,
    /// What is to be written behind that.
    chunk: Vec<u8>,
}

impl<'a> Output<'a> {
    fn new(shared: &'a Shared, file: &'a File) -> Output<'a> {
        Output {
            shared,
            file,
            contents: Contents::default(),
            serial: 0,
            written: SEGMENT_HEADER_BYTES,
            synced: SEGMENT_HEADER_BYTES,
            chunk: Vec::new(),
        }
    }

    fn copy_all(&mut self, sources: &[Source<'_>], is_oldest: bool) -> io::Result<()> {
        self.copy_metas(sources, is_oldest)?;
        if sources.iter().any(|source| source.known.is_damaged) {
            self.note_ends()?;
        }
        self.copy_messages(sources)
    }

    /// Everything but messages: what was said last about each. That something
    /// is gone need not be said when no older segment can say otherwise.
    fn copy_metas(&mut self, sources: &[Source<'_>], is_oldest: bool) -> io::Result<()> {
        let mut last = BTreeMap::new();
        for source in sources {
            match &source.known.places {
                Places::Memory(contents) => last.extend(contents.metas.clone()),
                Places::Disk(index) => {
                    for payload in index.metas()? {
                        if let Some(codec::Payload::Meta(key)) = codec::look(&payload) {
                            last.insert(key, payload);
                        }
                    }
                }
            }
        }
        for payload in last.values().filter(|payload| !(is_oldest && codec::is_gone(payload))) {
            self.put(payload, 0, 0)?;
        }
        Ok(())
    }

    fn copy_messages(&mut self, sources: &[Source<'_>]) -> io::Result<()> {
        let runs = sources.iter().map(|source| runs_of(&source.known.places));
        let mut runs = runs.collect::<io::Result<Vec<_>>>()?;
        let mut buffer = Vec::new();
        while let Some(key) =
            runs.iter_mut().filter_map(|runs| runs.peek()).map(|run| &run.key).min().cloned()
        {
            for (source, runs) in sources.iter().zip(&mut runs) {
                while let Some(run) = runs.next_if(|run| run.key == key) {
                    let Some(first) = self.first_wanted(&key) else { continue };
                    for (offset, at) in (run.first..).zip(run.places()?) {
                        if offset >= first {
                            self.copy(source, &key, offset, at, &mut buffer)?;
                        }
                    }
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
        let is_it = match codec::look(buffer).filter(|_| is_read) {
            Some(codec::Payload::Message(found)) => {
                (&found.channel, found.epoch.to_bits(), found.offset) == (&key.0, key.1, offset)
            }
            _ => false,
        };
        if is_it {
            return self.put(buffer, self.shared.seal.channel(&key.0), offset);
        }
        if source.known.is_damaged {
            return Ok(());
        }
        // What the segment really holds is to be found out first, and then this
        // begins anew.
        self.shared.rescan(segment)?;
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Has the ends of all logs be known, whose last messages, or beginnings,
    /// may be among what is lost.
    fn note_ends(&mut self) -> io::Result<()> {
        let logs: Vec<_> =
            self.shared.view.read().state.logs().map(|(channel, log)| (channel.clone(), *log)).collect();
        for (channel, log) in logs {
            let mut payload = Vec::new();
            codec::encode(&Step::Log(channel, Some(log)), &mut payload);
            self.put(&payload, 0, 0)?;
        }
        Ok(())
    }

    fn put(&mut self, payload: &[u8], channel: u32, offset: u64) -> io::Result<()> {
        let header = Header { length: payload.len(), more: false, serial: self.serial, channel, offset };
        let at = self.written + self.chunk.len() as u64;
        let place = u32::try_from(at).map_err(io::Error::other)?;
        self.shared.seal.put_frame(header, payload, &mut self.chunk);
        self.serial += 1;
        let known = self.contents.add(place, (OVERHEAD_BYTES + payload.len()) as u64, payload);
        debug_assert!(known, "it was looked at");
        if self.chunk.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
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

    fn finish(mut self) -> io::Result<(Contents, u64)> {
        self.flush()?;
        self.file.sync_all()?;
        Ok((self.contents, self.written))
    }
}
