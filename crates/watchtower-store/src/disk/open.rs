//! Opening a store: what is there, what is damaged, and what that means.
//!
//! Each segment is taken in its order: by its index when that fits it, else by
//! going through it. Nothing is changed of a file that is damaged; the thread
//! that tidies writes it anew and sets it aside.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use watchtower_hub::ChannelName;

use super::account::{Account, Messages};
use super::folder::{Folder, Numbers, VERSION, index_path};
use super::frame::Seal;
use super::index::{self, Index};
use super::segment::{
    Broken, CUT_OFF, Places, Previous, SEGMENT_HEADER_BYTES, Scan, Segment, SegmentFile, SegmentHeader,
    lost_frames, scan,
};
use crate::error::at;
use crate::ranges::Ranges;
use crate::state::{State, Step};
use crate::{Notice, OpenError};

/// How many gaps of earlier are told of one by one.
const MISSING_TOLD_MAX: usize = 32;

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

/// Frames that were lost, in which segment.
struct LostFrames {
    segment: usize,
    broken: Broken,
}

/// A segment's file, which may be missing, with its header, which may be damaged.
type Candidate = (Numbers, Option<File>, Option<SegmentHeader>);

pub(super) fn open(folder: &Folder) -> Result<Opened, OpenError> {
    let mut opening = Opening {
        folder,
        account: Account::default(),
        merged: Vec::new(),
        segments: Vec::new(),
        lost: Vec::new(),
        told: BTreeMap::new(),
        is_damaged: false,
    };
    let candidates = opening.candidates()?;
    let id = folder.identity(true, || Ok(candidates.iter().find_map(|(.., header)| Some((*header)?.id))))?;
    // Not before it is certain that this store may be changed.
    folder.remove_unfinished()?;
    for path in &opening.merged {
        remove(path).map_err(at("cannot remove", path))?;
    }
    let seal = Seal::new(&id);
    let ends = ends(&candidates);
    for ((numbers, file, header), ends) in candidates.into_iter().zip(ends) {
        let path = folder.log_path(numbers);
        opening.take(&seal, numbers, file, header, ends).map_err(at("cannot read", &path))?;
    }
    let reserved = opening.reserve(&seal);
    opening.find_missing();
    let Opening { account: Account { state, .. }, segments, .. } = opening;
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
    account: Account,
    /// The files of segments that are part of another one: a process ended before
    /// they were removed.
    merged: Vec<PathBuf>,
    segments: Vec<Arc<Segment>>,
    lost: Vec<LostFrames>,
    /// Which messages were told to be lost by damage that was just found.
    told: BTreeMap<ChannelName, Ranges>,
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
                self.merged.extend([index_path(&path), path]);
                continue;
            }
            let expected = before.map_or(1, |before| before.last + 1);
            if expected < numbers.first {
                let missing = Numbers { first: expected, last: numbers.first - 1 };
                self.folder.damaged(&self.folder.log_path(missing), "it is missing");
                self.is_damaged = true;
            }
            let file = self
                .folder
                .segment(numbers, OpenOptions::new().read(true).write(true))
                .map_err(at("cannot open", &path))?;
            let header = file.as_ref().map(SegmentHeader::read).transpose();
            let header = header.map_err(at("cannot read", &path))?.flatten();
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
        file: Option<File>,
        header: Option<SegmentHeader>,
        ends: Option<u64>,
    ) -> io::Result<()> {
        let path = self.folder.log_path(numbers);
        let file = match file {
            Some(file) => file,
            None => {
                self.folder.damaged(&path, "it is missing, and its index is not");
                self.is_damaged = true;
                self.folder.stand_in(numbers)?
            }
        };
        let generation = header.map(|header| header.generation);
        let index = self.index(&path, generation, seal)?;
        let length = file.metadata()?.len();
        let file = Arc::new(SegmentFile { numbers, path, file, generation: generation.unwrap_or_default() });
        let (segment, is_damaged) = match index {
            Some(index) if index.segment_end() <= length => {
                self.describe_index(&file.path, &index, Messages::There)?;
                let end = index.segment_end();
                (Segment::new(file, end, Places::Disk(Arc::new(index))), false)
            }
            Some(index) => (self.take_short(seal, file, &index)?, true),
            None => self.take_scanned(seal, file, ends)?,
        };
        // A header may seem to be whole without the zeros at its end.
        let has_header = header.is_some() && length >= SEGMENT_HEADER_BYTES;
        if !has_header && !is_damaged {
            let what = match length {
                ..SEGMENT_HEADER_BYTES => CUT_OFF,
                _ => "its header is not as it was written; nothing is lost",
            };
            self.folder.damaged(&segment.file.path, what);
        }
        let segment = if is_damaged || !has_header { segment.damaged() } else { segment };
        self.segments.push(Arc::new(segment));
        Ok(())
    }

    /// The index of a segment, if there is one and it fits.
    fn index(&self, log_path: &Path, generation: Option<u64>, seal: &Seal) -> io::Result<Option<Index>> {
        let path = index_path(log_path);
        match Index::open(&path, generation, seal) {
            Ok(index::Opened::Fitting(index)) => Ok(Some(index)),
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
    fn take_short(&mut self, seal: &Seal, file: Arc<SegmentFile>, index: &Index) -> io::Result<Segment> {
        let end = index.segment_end();
        let Scan { mut contents, .. } = scan(&file.file, seal, Some(end))?;
        self.describe_index(&file.path, index, Messages::Unsure)?;
        self.account.cover(&contents);
        let missing = end - file.file.metadata()?.len();
        self.folder.damaged(&file.path, format!("its last {missing} bytes are missing"));
        for entry in index.entries()? {
            for offsets in contents.lost(&entry.key, entry.first..entry.end()) {
                self.tell_lost(&file.path, &entry.key.0, offsets);
            }
        }
        contents.add_metas(index.metas()?);
        Ok(Segment::new(file, end, Places::Memory(Arc::new(contents))))
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
        if damaged {
            self.is_damaged = true;
            self.folder.damaged(&file.path, lost_frames(&broken));
        }
        let mut gaps = Vec::new();
        self.account.describe(&contents, |channel, offsets| gaps.push((channel.clone(), offsets)));
        self.tell_gaps(&file.path, gaps);
        self.account.cover(&contents);
        let segment = self.segments.len();
        self.lost.extend(broken.into_iter().map(|broken| LostFrames { segment, broken }));
        Ok((Segment::new(file, end.max(SEGMENT_HEADER_BYTES), Places::Memory(Arc::new(contents))), damaged))
    }

    /// Notes what the index of a segment says.
    fn describe_index(&mut self, path: &Path, index: &Index, messages: Messages) -> io::Result<()> {
        let mut gaps = Vec::new();
        let note = |channel: &ChannelName, offsets| gaps.push((channel.clone(), offsets));
        self.account.describe_index(index, messages, note)?;
        self.tell_gaps(path, gaps);
        Ok(())
    }

    /// Tells of messages that no segment has, unless that is of earlier damage, which
    /// was told when it was found.
    fn tell_gaps(&mut self, path: &Path, gaps: Vec<(ChannelName, Range<u64>)>) {
        if self.is_damaged {
            gaps.into_iter().for_each(|(channel, offsets)| self.tell_lost(path, &channel, offsets));
        }
    }

    fn tell_lost(&mut self, path: &Path, channel: &ChannelName, offsets: Range<u64>) {
        self.told.entry(channel.clone()).or_default().insert(offsets.clone());
        self.folder.notice(&Notice::Lost { file: path.to_owned(), channel: channel.clone(), offsets });
    }

    /// Finds what is missing of each log, and tells of that which was not told yet.
    fn find_missing(&mut self) {
        let missing = self.account.find_missing().into_iter();
        let is_told = |(channel, offsets): &(ChannelName, Range<u64>)| {
            self.told.get(channel).is_some_and(|told| told.covers(offsets))
        };
        let mut untold = missing.filter(|missing| !is_told(missing));
        for (channel, offsets) in untold.by_ref().take(MISSING_TOLD_MAX) {
            self.folder.notice(&Notice::Missing { channel, offsets });
        }
        match untold.count() {
            0 => {}
            ranges => self.folder.notice(&Notice::MoreMissing { ranges }),
        }
    }

    /// Sees to it that no offset is given a second time: the last messages of a
    /// log may be among those that are lost. Each of these is told.
    fn reserve(&mut self, seal: &Seal) -> Vec<Step> {
        let mut reserved = Vec::new();
        let frames: u64 = self.lost.iter().map(|lost| lost.broken.frames).sum();
        for LostFrames { segment, broken } in std::mem::take(&mut self.lost) {
            let path = self.segments[segment].file.path.clone();
            let logs: Vec<_> =
                self.account.state.logs().map(|(channel, log)| (channel.clone(), *log)).collect();
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
                self.tell_lost(&path, &channel, offsets);
                self.account.state.apply(Step::Log(channel.clone(), Some(log)));
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

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
