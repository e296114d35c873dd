//! Reading all of a store, and telling what is wrong with it, without changing
//! anything.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::account::{Account, Messages};
use super::contents::Contents;
use super::folder::{Folder, Numbers, VERSION, index_path};
use super::frame::Seal;
use super::index::{Index, Opened};
use super::segment::{CUT_OFF, SEGMENT_HEADER_BYTES, Scan, SegmentHeader, lost_frames, scan};
use crate::error::at;
use crate::{Notice, Observer, OpenError};

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
    /// Messages that are in no file, though their logs have not dropped them. Which
    /// was told to the observer.
    pub missing: u64,
    /// Damaged and missing files. What is wrong with each was told to the
    /// observer.
    pub damaged: usize,
}

/// What [`check`] has found in one file of messages and the index beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// Which.
    pub file: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// As in [`Report`].
    pub messages: u64,
    /// As in [`Report`].
    pub records: u64,
    /// As in [`Report`].
    pub unfinished_bytes: u64,
    /// Whether it or its index is damaged, or the file before it missing.
    pub is_damaged: bool,
    /// How many such files there are, this and those to come included.
    pub to_do: usize,
}

/// Reads every byte of the store in a folder that no process has open, and tells
/// `each` file as it goes. Changes nothing; the folder may be one that cannot be
/// written.
///
/// # Errors
///
/// [`OpenError`], if the store cannot be read at all.
pub fn check(
    folder: &Path,
    observer: Observer,
    each: &mut dyn FnMut(&FileReport),
) -> Result<Report, OpenError> {
    if !Folder::is_store(folder)? {
        return Err(OpenError::Missing { folder: folder.to_owned() });
    }
    let damaged = Arc::new(AtomicUsize::new(0));
    let count = damaged.clone();
    let counting = move |notice: &Notice| {
        if matches!(notice, Notice::Damaged { .. }) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        observer(notice);
    };
    let folder = Folder::lock_to_read(folder, Arc::new(counting))?;
    let mut report = Report::default();
    let segments = folder.segments()?;
    let mut headers = Vec::new();
    for numbers in &segments {
        let file = folder.segment(*numbers, OpenOptions::new().read(true));
        let header = file.and_then(|file| file.as_ref().map(SegmentHeader::read).transpose());
        headers.push(header.map_err(at("cannot read", &folder.log_path(*numbers)))?.flatten());
    }
    if let Some(newer) = headers.iter().flatten().find(|header| header.version > VERSION) {
        return Err(folder.newer(newer.version));
    }
    let id = folder.identity(false, || Ok(headers.iter().flatten().next().map(|header| header.id)))?;
    let seal = Seal::new(&id);
    let mut before: Option<Numbers> = None;
    let mut account = Account::default();
    for (at_index, (numbers, header)) in segments.iter().zip(&headers).enumerate() {
        let path = folder.log_path(*numbers);
        let damaged_before = damaged.load(Ordering::Relaxed);
        // What a merge left when the process ended says nothing of its own.
        let is_part = before.is_some_and(|before| before.contains(*numbers));
        if before.map_or(0, |before| before.last) + 1 < numbers.first {
            folder.damaged(&path, "the segment before it is missing");
        }
        before = before.filter(|_| is_part).or(Some(*numbers));
        let account = (!is_part).then_some(&mut account);
        let next = headers.get(at_index + 1).copied().flatten();
        let previous = next.map(|next| next.previous);
        let generation = header.map_or(0, |header| header.generation);
        let ends = previous.filter(|previous| previous.generation == generation).map(|previous| previous.end);
        let found = check_segment(&folder, *numbers, *header, ends, &seal, account)
            .map_err(at("cannot read", &path))?;
        let is_damaged = damaged.load(Ordering::Relaxed) > damaged_before;
        each(&FileReport { is_damaged, to_do: segments.len() - at_index, ..found });
        report.segments += 1;
        report.messages += found.messages;
        report.records += found.records;
        report.unfinished_bytes += found.unfinished_bytes;
    }
    for (channel, offsets) in account.find_missing() {
        report.missing += offsets.end - offsets.start;
        folder.notice(&Notice::Missing { channel, offsets });
    }
    report.damaged = damaged.load(Ordering::Relaxed);
    Ok(report)
}

fn check_segment(
    folder: &Folder,
    numbers: Numbers,
    header: Option<SegmentHeader>,
    ends: Option<u64>,
    seal: &Seal,
    account: Option<&mut Account>,
) -> io::Result<FileReport> {
    let path = &folder.log_path(numbers);
    let Some(file) = folder.segment(numbers, OpenOptions::new().read(true))? else {
        return check_missing(folder, path, seal, account);
    };
    let index_path = index_path(path);
    let index = match Index::open(&index_path, header.map(|header| header.generation), seal) {
        Ok(Opened::Fitting(index)) => Some(index),
        Ok(Opened::OfAnother) => None,
        Ok(Opened::Damaged) => {
            folder.damaged(&index_path, "it is not what was written; the segment says the same");
            None
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let ends = index.as_ref().map(Index::segment_end).or(ends);
    let Scan { contents, unfinished_bytes, damaged, broken, .. } = scan(&file, seal, ends)?;
    if let Some(account) = account {
        match &index {
            Some(index) => account.describe_index(index, Messages::Unsure, |_, _| {})?,
            None => account.describe(&contents, |_, _| {}),
        }
        account.cover(&contents);
    }
    let length = file.metadata()?.len();
    if index.is_none() && !damaged && length < SEGMENT_HEADER_BYTES {
        folder.damaged(path, CUT_OFF);
    } else if damaged || header.is_none() {
        folder.damaged(path, lost_frames(&broken));
    } else if let Some(index) = index
        && !agrees(&index, &contents)?
    {
        folder.damaged(&index_path, "it does not say what the segment does");
    }
    Ok(FileReport {
        file: path.to_owned(),
        bytes: length,
        messages: contents.runs.values().flatten().map(|run| run.positions.len() as u64).sum(),
        records: contents.metas.len() as u64,
        unfinished_bytes,
        is_damaged: false,
        to_do: 0,
    })
}

/// A segment of which the index alone is there, which says what is lost.
fn check_missing(
    folder: &Folder,
    path: &Path,
    seal: &Seal,
    account: Option<&mut Account>,
) -> io::Result<FileReport> {
    // What was part of another one is not missed.
    if let Some(account) = account {
        folder.damaged(path, "it is missing, and its index is not");
        if let Opened::Fitting(index) = Index::open(&index_path(path), None, seal)? {
            account.describe_index(&index, Messages::Unsure, |_, _| {})?;
        }
    }
    Ok(FileReport {
        file: path.to_owned(),
        bytes: 0,
        messages: 0,
        records: 0,
        unfinished_bytes: 0,
        is_damaged: false,
        to_do: 0,
    })
}

/// Whether an index says of each message where it is.
fn agrees(index: &Index, contents: &Contents) -> io::Result<bool> {
    let entries = index.entries()?;
    let runs: Vec<_> = contents.all_runs().collect();
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
