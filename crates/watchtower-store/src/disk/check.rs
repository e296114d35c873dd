//! Reading all of a store, and telling what is wrong with it, without changing
//! anything.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use super::contents::Contents;
use super::folder::{Folder, Numbers, VERSION, index_path};
use super::frame::Seal;
use super::index::{Index, Opened};
use super::segment::{Scan, SegmentHeader, lost_frames, scan};
use crate::error::at;
use crate::{Observer, OpenError};

/// What [`check`] has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Files of messages.
    pub segments: usize,
    /// Messages that are whole, dropped ones included that still take room.
    pub messages: u64,
    /// Records and ends of logs that are whole, older ones included.
    pub records: u64,
    /// Bytes at the ends of files that were never acknowledged.
    pub unfinished_bytes: u64,
    /// Damaged files. What is wrong with each was told to the observer.
    pub damaged: usize,
}

/// Reads every byte of the store in a folder that no process has open. Changes
/// nothing, save that the lock is taken.
///
/// # Errors
///
/// [`OpenError`], if the store cannot be read at all.
pub fn check(folder: &Path, observer: Observer) -> Result<Report, OpenError> {
    if !folder.join("log").is_dir() {
        return Err(OpenError::NotAStore { folder: folder.to_owned() });
    }
    let folder = Folder::lock(folder, observer)?;
    let mut report = Report::default();
    let segments = folder.segments()?;
    let mut headers = Vec::new();
    for numbers in &segments {
        let path = folder.log_path(*numbers);
        let header = OpenOptions::new().read(true).open(&path).and_then(|file| SegmentHeader::read(&file));
        headers.push(header.map_err(at("cannot read", &path))?);
    }
    if let Some(newer) = headers.iter().flatten().find(|header| header.version > VERSION) {
        return Err(folder.newer(newer.version));
    }
    let id = folder.identity(false, || Ok(headers.iter().flatten().next().map(|header| header.id)))?;
    let seal = Seal::new(&id);
    let mut before: Option<Numbers> = None;
    for (at_index, (numbers, header)) in segments.iter().zip(&headers).enumerate() {
        let path = folder.log_path(*numbers);
        if before.is_some_and(|before| before.last + 1 < numbers.first) {
            folder.damaged(&path, "the segment before it is missing");
            report.damaged += 1;
        }
        before = Some(*numbers);
        let next = headers.get(at_index + 1).copied().flatten();
        let previous = next.map(|next| next.previous);
        let generation = header.map_or(0, |header| header.generation);
        let ends = previous.filter(|previous| previous.generation == generation).map(|previous| previous.end);
        check_segment(&folder, &path, *header, ends, &seal, &mut report).map_err(at("cannot read", &path))?;
    }
    Ok(report)
}

fn check_segment(
    folder: &Folder,
    path: &Path,
    header: Option<SegmentHeader>,
    ends: Option<u64>,
    seal: &Seal,
    report: &mut Report,
) -> io::Result<()> {
    let file = OpenOptions::new().read(true).open(path)?;
    let index_path = index_path(path);
    let index = match Index::open(&index_path, header.map(|header| header.generation), seal) {
        Ok(Opened::Fitting(index, outline)) => Some((index, outline)),
        Ok(Opened::OfAnother) => None,
        Ok(Opened::Damaged) => {
            folder.damaged(&index_path, "it is not what was written; the segment says the same");
            report.damaged += 1;
            None
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let ends = index.as_ref().map(|(_, outline)| outline.end).or(ends);
    let Scan { contents, unfinished_bytes, damaged, broken, .. } = scan(&file, seal, ends)?;
    report.segments += 1;
    report.messages += contents.runs.values().flatten().map(|run| run.positions.len() as u64).sum::<u64>();
    report.records += contents.metas.len() as u64;
    report.unfinished_bytes += unfinished_bytes;
    if damaged || header.is_none() {
        folder.damaged(path, lost_frames(&broken));
        report.damaged += 1;
    } else if let Some((index, _)) = index
        && !agrees(&index, &contents)?
    {
        folder.damaged(&index_path, "it does not say what the segment does");
        report.damaged += 1;
    }
    Ok(())
}

/// Whether an index says of each message where it is.
fn agrees(index: &Index, contents: &Contents) -> io::Result<bool> {
    let entries = index.entries()?;
    let runs = contents.runs.iter().flat_map(|(key, runs)| runs.iter().map(move |run| (key, run)));
    let runs: Vec<_> = runs.collect();
    if entries.len() != runs.len() {
        return Ok(false);
    }
    for (entry, (key, run)) in entries.iter().zip(runs) {
        let is_same = entry.key == *key && entry.first == run.first;
        if !is_same || index.places(entry, 0, entry.count)? != run.positions {
            return Ok(false);
        }
    }
    Ok(true)
}
