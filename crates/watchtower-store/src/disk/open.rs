//! Opening a store: what is there, what is damaged, and what that means.
//!
//! Each segment is taken in its order: by its index when that fits it, else by
//! going through it. Nothing is changed of a file that is damaged; the thread
//! that tidies writes it anew and sets it aside.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use watchtower_hub::{ChannelName, Timestamp};

use super::codec;
use super::contents::LogKey;
use super::folder::{Folder, Numbers, VERSION, index_path};
use super::frame::Seal;
use super::index::{self, Index, Outline};
use super::segment::{
    Broken, Places, Previous, SEGMENT_HEADER_BYTES, Scan, Segment, SegmentFile, SegmentHeader, lost_frames,
    scan,
};
use super::shared::report_lost;
use crate::error::at;
use crate::state::{State, Step};
use crate::{Notice, OpenError};

/// What was found.
pub(super) struct Opened {
    pub(super) id: [u8; 16],
    pub(super) seal: Seal,
    pub(super) state: State,
    pub(super) segments: Vec<Arc<Segment>>,
    /// Which number comes next, and what its segment is to say of the last one.
    pub(super) next: (u64, Previous),
    /// Logs that are to be written down, since their messages do not show where
    /// they end.
    pub(super) reserved: Vec<Step>,
}

/// A log's messages in one segment.
struct FoundRun<'a> {
    key: &'a LogKey,
    offsets: (u64, u64),
    total: u64,
    oldest: Timestamp,
}

/// Frames that were lost, in which segment.
struct LostFrames {
    segment: usize,
    broken: Broken,
}

/// A segment's file with its header, which may be damaged.
type Candidate = (Numbers, File, Option<SegmentHeader>);

pub(super) fn open(folder: &Folder) -> Result<Opened, OpenError> {
    folder.remove_unfinished()?;
    let mut opening = Opening {
        folder,
        state: State::default(),
        segments: Vec::new(),
        lost: Vec::new(),
        is_damaged: false,
    };
    let candidates = opening.candidates()?;
    let id = folder.identity(true, || Ok(candidates.iter().find_map(|(.., header)| Some((*header)?.id))))?;
    let seal = Seal::new(&id);
    let ends = ends(&candidates);
    for ((numbers, file, header), ends) in candidates.into_iter().zip(ends) {
        let path = folder.log_path(numbers);
        opening.take(&seal, numbers, file, header, ends).map_err(at("cannot read", &path))?;
    }
    let reserved = opening.reserve(&seal);
    let Opening { state, segments, .. } = opening;
    let last = segments
        .last()
        .map(|last| (last.file.numbers.last, Previous { generation: last.file.generation, end: last.end }));
    let (last, previous) = last.unwrap_or_default();
    Ok(Opened { id, seal, state, segments, next: (last + 1, previous), reserved })
}

/// Up to where each segment is in force, if the next one says so.
fn ends(candidates: &[Candidate]) -> Vec<Option<u64>> {
    let next = candidates.iter().skip(1).map(|(.., header)| *header).chain([None]);
    let said = candidates.iter().zip(next).map(|((.., header), next)| {
        let previous = next?.previous;
        (previous.generation == (*header)?.generation && previous.generation != 0).then_some(previous.end)
    });
    said.collect()
}

struct Opening<'a> {
    folder: &'a Folder,
    state: State,
    segments: Vec<Arc<Segment>>,
    lost: Vec<LostFrames>,
    /// Whether any damage was found that may have lost messages.
    is_damaged: bool,
}

impl Opening<'_> {
    /// The segments' files, without those that are part of another one.
    fn candidates(&mut self) -> Result<Vec<Candidate>, OpenError> {
        let mut candidates: Vec<Candidate> = Vec::new();
        for numbers in self.folder.segments()? {
            let path = self.folder.log_path(numbers);
            let before = candidates.last().map(|(before, ..)| *before);
            if before.is_some_and(|before| before.contains(numbers)) {
                // It was merged, and the process ended before it was removed.
                for path in [index_path(&path), path] {
                    remove(&path).map_err(at("cannot remove", &path))?;
                }
                continue;
            }
            if let Some(before) = before.filter(|before| before.last + 1 != numbers.first) {
                let missing = Numbers { first: before.last + 1, last: numbers.first - 1 };
                self.folder.damaged(&self.folder.log_path(missing), "it is missing");
                self.is_damaged = true;
            }
            let file = OpenOptions::new().read(true).write(true).open(&path);
            let file = file.map_err(at("cannot open", &path))?;
            let header = SegmentHeader::read(&file).map_err(at("cannot read", &path))?;
            if let Some(header) = header.filter(|header| header.version > VERSION) {
                return Err(self.folder.newer(header.version));
            }
            candidates.push((numbers, file, header));
        }
        Ok(candidates)
    }

    fn take(
        &mut self,
        seal: &Seal,
        numbers: Numbers,
        file: File,
        header: Option<SegmentHeader>,
        ends: Option<u64>,
    ) -> io::Result<()> {
        let path = self.folder.log_path(numbers);
        let generation = header.map(|header| header.generation);
        let index = self.index(&path, generation, seal)?;
        let length = file.metadata()?.len();
        let file = Arc::new(SegmentFile { numbers, path, file, generation: generation.unwrap_or_default() });
        let (segment, is_damaged) = match index {
            Some((index, outline)) if outline.end <= length => {
                self.describe(&file.path, &outline.metas, &found_runs(&outline));
                (Segment::new(file, outline.end, Places::Disk(Arc::new(index))), false)
            }
            Some((_, outline)) => (self.take_short(seal, file, &outline)?, true),
            None => self.take_scanned(seal, file, ends)?,
        };
        if header.is_none() && !is_damaged {
            self.folder.damaged(&segment.file.path, "its header is not as it was written; nothing is lost");
        }
        let segment = if is_damaged || header.is_none() { segment.damaged() } else { segment };
        self.segments.push(Arc::new(segment));
        Ok(())
    }

    /// The index of a segment, if there is one and it fits.
    fn index(
        &self,
        log_path: &Path,
        generation: Option<u64>,
        seal: &Seal,
    ) -> io::Result<Option<(Index, Outline)>> {
        let path = index_path(log_path);
        match Index::open(&path, generation, seal) {
            Ok(index::Opened::Fitting(index, outline)) => Ok(Some((index, outline))),
            Ok(index::Opened::OfAnother) => Ok(None),
            Ok(index::Opened::Damaged) => {
                self.folder.damaged(&path, "it is made anew from the segment; nothing is lost");
                self.folder.set_aside(&path, false)?;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A segment of which there is less than its index says.
    fn take_short(&mut self, seal: &Seal, file: Arc<SegmentFile>, outline: &Outline) -> io::Result<Segment> {
        let Scan { mut contents, .. } = scan(&file.file, seal, Some(outline.end))?;
        self.describe(&file.path, &outline.metas, &found_runs(outline));
        let missing = outline.end - file.file.metadata()?.len();
        self.folder.damaged(&file.path, format!("its last {missing} bytes are missing"));
        for entry in &outline.entries {
            report_lost(self.folder, &file.path, &entry.key, entry.first..entry.end(), &contents);
        }
        contents.add_metas(outline.metas.clone());
        Ok(Segment::new(file, outline.end, Places::Memory(Arc::new(contents))))
    }

    /// A segment without an index; whether it is damaged.
    fn take_scanned(
        &mut self,
        seal: &Seal,
        file: Arc<SegmentFile>,
        ends: Option<u64>,
    ) -> io::Result<(Segment, bool)> {
        let Scan { contents, end, unfinished_bytes, damaged, broken } = scan(&file.file, seal, ends)?;
        if unfinished_bytes > 0 && ends.is_none() {
            self.folder.notice(&Notice::Unfinished { file: file.path.clone(), bytes: unfinished_bytes });
        }
        let metas: Vec<_> = contents.metas.values().cloned().collect();
        let runs: Vec<_> = contents
            .runs
            .iter()
            .flat_map(|(key, runs)| runs.iter().map(move |run| (key, run)))
            .map(|(key, run)| FoundRun {
                key,
                offsets: (run.first, run.end()),
                total: run.total,
                oldest: run.oldest,
            })
            .collect();
        if damaged {
            self.is_damaged = true;
            self.folder.damaged(&file.path, lost_frames(&broken));
        }
        self.describe(&file.path, &metas, &runs);
        let segment = self.segments.len();
        self.lost.extend(broken.into_iter().map(|broken| LostFrames { segment, broken }));
        Ok((Segment::new(file, end.max(SEGMENT_HEADER_BYTES), Places::Memory(Arc::new(contents))), damaged))
    }

    /// Notes what a segment says.
    fn describe(&mut self, path: &Path, metas: &[Box<[u8]>], runs: &[FoundRun<'_>]) {
        let mut said = BTreeSet::new();
        for payload in metas {
            let Some(step) = codec::decode_meta(payload) else { continue };
            if let Step::Log(channel, _) = &step {
                said.insert(channel.clone());
            }
            self.state.apply(step);
        }
        for run in runs {
            let (channel, epoch) = run.key;
            let epoch = watchtower_hub::Epoch::from_bits(*epoch);
            // A log that was begun before and not ended is known. If it is not,
            // its beginning was damaged.
            let is_known = self.state.log(channel).is_some_and(|log| log.epoch == epoch);
            if !is_known && !said.contains(channel) {
                self.state.adopt(channel, epoch, run.offsets.0, run.total);
            }
            // Gaps of earlier damage were told when it was found.
            let next = self.state.log(channel).filter(|log| log.epoch == epoch && self.is_damaged);
            if let Some(offsets) = next.map(|log| log.next..run.offsets.0).filter(|gap| gap.start < gap.end) {
                let file = path.to_owned();
                self.folder.notice(&Notice::Lost { file, channel: channel.clone(), offsets });
            }
            self.state.found(channel, epoch, run.offsets, run.total, run.oldest);
        }
    }

    /// Sees to it that no offset is given a second time: the last messages of a
    /// log may be among those that are lost. Each of these is told.
    fn reserve(&mut self, seal: &Seal) -> Vec<Step> {
        let mut reserved = Vec::new();
        let frames: u64 = self.lost.iter().map(|lost| lost.broken.frames).sum();
        for LostFrames { segment, broken } in std::mem::take(&mut self.lost) {
            let path = self.segments[segment].file.path.clone();
            let logs: Vec<_> = self.state.logs().map(|(channel, log)| (channel.clone(), *log)).collect();
            for (channel, mut log) in logs {
                let end = log.next;
                log.next = match broken.header {
                    Some(header) if header.channel == seal.channel(&channel) => {
                        // Any other number is one of another epoch's.
                        let is_near = header.offset < log.next + frames;
                        log.next.max(if is_near { header.offset + 1 } else { 0 })
                    }
                    Some(_) => continue,
                    None if self.goes_on(&channel, log.epoch.to_bits(), segment, broken.at) => continue,
                    None => log.next + broken.frames,
                };
                if log.next == end {
                    continue;
                }
                let offsets = end..log.next;
                self.folder.notice(&Notice::Lost { file: path.clone(), channel: channel.clone(), offsets });
                self.state.apply(Step::Log(channel.clone(), Some(log)));
                reserved.push(Step::Log(channel, Some(log)));
            }
        }
        reserved
    }

    /// Whether there are messages of a log behind a place.
    fn goes_on(&self, channel: &ChannelName, epoch: u64, segment: usize, at: u64) -> bool {
        let key = (channel.clone(), epoch);
        self.segments[segment..].iter().enumerate().any(|(further, found)| match found.places() {
            Places::Memory(contents) => contents
                .runs
                .get(&key)
                .into_iter()
                .flatten()
                .any(|run| further > 0 || run.positions.iter().any(|position| u64::from(*position) > at)),
            Places::Disk(index) => index.locate(&key, 0, 1).is_ok_and(|located| !located.is_empty()),
        })
    }
}

fn found_runs(outline: &Outline) -> Vec<FoundRun<'_>> {
    let runs = outline.entries.iter().map(|entry| FoundRun {
        key: &entry.key,
        offsets: (entry.first, entry.end()),
        total: entry.total,
        oldest: entry.oldest,
    });
    runs.collect()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
