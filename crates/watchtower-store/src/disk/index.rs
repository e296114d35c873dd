//! The file beside a finished segment: what is where in it. It can be made anew
//! from the segment, and tells what was there when that is damaged.
//!
//! ```text
//! header | places | metas | directory | table | footer
//! ```
//!
//! The directory has an entry for each run of messages, in the order of channels;
//! the table says where each entry is, so that a log is found by halving. So
//! the memory that it takes does not depend on how much is kept.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crc32fast::Hasher;
use watchtower_hub::Timestamp;

use super::codec::{Input, put_name, put_u32, put_u64};
use super::contents::{Located, LogKey};
use super::folder::VERSION;
use super::frame::{PAYLOAD_BYTES_MAX, Seal, read_up_to};

const MAGIC: [u8; 8] = *b"WTindex\n";
pub(super) const HEADER_BYTES: u64 = 32;
const FOOTER_BYTES: u64 = 48;
/// The longest entry: the name, its length, and seven numbers.
const ENTRY_BYTES_MAX: usize = 1 + 128 + 7 * 8;
/// How much is read at once when an index is gone through.
const WINDOW_BYTES: usize = 64 << 10;

/// One run of messages, as the directory says it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: LogKey,
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) total: u64,
    pub(crate) oldest: Timestamp,
    pub(crate) size: u64,
    /// Where in the file the places are.
    pub(super) places_at: u64,
}

impl Entry {
    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// Where the parts of an index begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) metas_at: u64,
    pub(super) directory_at: u64,
    pub(super) table_at: u64,
    /// How many there are in the directory.
    pub(super) entries: u64,
}

/// An index that is open. What it holds stays on disk.
#[derive(Debug)]
pub(crate) struct Index {
    file: File,
    seal: Seal,
    segment_end: u64,
    layout: Layout,
    /// Of the header and all behind the places.
    check: u32,
}

/// What there is under an index's name.
#[derive(Debug)]
pub(crate) enum Opened {
    /// The index that was looked for.
    Fitting(Index),
    /// That of another file of the same numbers: the process ended before it had
    /// written the one of this.
    OfAnother,
    /// Not what was written.
    Damaged,
}

pub(super) fn encode_header(generation: u64, end: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES as usize);
    out.extend_from_slice(&MAGIC);
    put_u32(VERSION, &mut out);
    put_u32(0, &mut out);
    put_u64(generation, &mut out);
    put_u64(end, &mut out);
    out
}

pub(super) fn put_entry(entry: &Entry, out: &mut Vec<u8>) {
    let Entry { key: (channel, epoch), first, count, total, oldest, size, places_at } = entry;
    put_name(channel, out);
    for number in [*epoch, *first, *count, *total, oldest.as_millis(), *size, *places_at] {
        put_u64(number, out);
    }
}

pub(super) fn encode_footer(layout: &Layout, check: u32, seal: &Seal) -> Vec<u8> {
    let mut out = Vec::with_capacity(FOOTER_BYTES as usize);
    for number in [layout.metas_at, layout.directory_at, layout.table_at, layout.entries] {
        put_u64(number, &mut out);
    }
    put_u32(check, &mut out);
    put_u32(seal.check(&out), &mut out);
    out.extend_from_slice(&MAGIC);
    out
}

impl Index {
    /// Opens the index of the segment of that generation, or, where the header
    /// that says which is damaged, whatever index is there. The places alone are
    /// not checked: a frame says itself whether it is the one that was looked for.
    pub(crate) fn open(path: &Path, generation: Option<u64>, seal: &Seal) -> io::Result<Opened> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let Some(footer_at) = length.checked_sub(FOOTER_BYTES).filter(|at| *at >= HEADER_BYTES) else {
            return Ok(Opened::Damaged);
        };
        let header = read(&file, 0, HEADER_BYTES)?;
        let footer = read(&file, footer_at, FOOTER_BYTES)?;
        let (Some((of, segment_end)), Some((layout, check))) =
            (parse_header(&header), parse_footer(&footer, footer_at, seal))
        else {
            return Ok(Opened::Damaged);
        };
        let index = Index { file, seal: seal.clone(), segment_end, layout, check };
        match index.check() {
            Err(error) if is_broken(&error) => Ok(Opened::Damaged),
            Err(error) => Err(error),
            Ok(()) if generation.is_some_and(|generation| of != generation) => Ok(Opened::OfAnother),
            Ok(()) => Ok(Opened::Fitting(index)),
        }
    }

    /// How long the segment is.
    pub(crate) fn segment_end(&self) -> u64 {
        self.segment_end
    }

    /// Goes through all but the places.
    pub(crate) fn said(&self) -> io::Result<Said<'_>> {
        let mut check = self.seal.hasher();
        check.update(&read(&self.file, 0, HEADER_BYTES)?);
        let Layout { metas_at, .. } = self.layout;
        Ok(Said { index: self, check, window: Vec::new(), taken: 0, at: metas_at })
    }

    /// Fails as [`is_broken`] says when it is not what was written any more.
    pub(crate) fn check(&self) -> io::Result<()> {
        let mut said = self.said()?;
        while said.meta()?.is_some() {}
        while said.entry()?.is_some() {}
        said.finish()
    }

    /// All of the directory, read anew and found as it was written.
    pub(crate) fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut said = self.said()?;
        let mut entries = Vec::new();
        while let Some(entry) = said.entry()? {
            entries.push(entry);
        }
        said.finish()?;
        Ok(entries)
    }

    /// All that is no message, read anew and found as it was written.
    pub(crate) fn metas(&self) -> io::Result<Vec<Box<[u8]>>> {
        let mut said = self.said()?;
        let mut metas = Vec::new();
        while let Some(payload) = said.meta()? {
            metas.push(payload.into());
        }
        said.finish()?;
        Ok(metas)
    }

    /// As [`Contents::locate`](super::contents::Contents::locate).
    pub(crate) fn locate(&self, key: &LogKey, from: u64, count: usize) -> io::Result<Vec<Located>> {
        let mut located = Vec::new();
        let mut left = count as u64;
        let mut at = self.first_entry(key)?;
        while at < self.layout.entries && left > 0 {
            let entry = self.entry(at)?;
            if entry.key != *key {
                break;
            }
            at += 1;
            if entry.end() <= from {
                continue;
            }
            let skipped = from.saturating_sub(entry.first);
            let taken = left.min(entry.count - skipped);
            left -= taken;
            let positions = self.places(&entry, skipped, taken)?;
            located.push(Located { first: entry.first + skipped, positions });
        }
        Ok(located)
    }

    /// Where some messages of an entry begin, after `skipped`.
    pub(crate) fn places(&self, entry: &Entry, skipped: u64, count: u64) -> io::Result<Vec<u32>> {
        let at = skipped.checked_mul(4).and_then(|skipped| entry.places_at.checked_add(skipped));
        let end = at.and_then(|at| at.checked_add(count.checked_mul(4)?));
        let (Some(at), Some(_)) = (at, end.filter(|end| *end <= self.layout.metas_at)) else {
            return Err(changed());
        };
        let bytes = read(&self.file, at, 4 * count)?;
        let mut input = Input(&bytes);
        Ok(std::iter::from_fn(|| input.u32()).collect())
    }

    /// The number of the first entry that is not before `key`.
    fn first_entry(&self, key: &LogKey) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.layout.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.key < *key { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    fn entry(&self, number: u64) -> io::Result<Entry> {
        let at = read(&self.file, self.layout.table_at + 8 * number, 8)?;
        let is_entry = |at: &u64| (self.layout.directory_at..self.layout.table_at).contains(at);
        let at = Input(&at).u64().filter(is_entry).ok_or_else(changed)?;
        let mut bytes = [0; ENTRY_BYTES_MAX];
        let length = read_up_to(&self.file, &mut bytes, at)?;
        parse_entry(&mut Input(&bytes[..length])).ok_or_else(changed)
    }
}

/// Goes through what an index says, a little at a time: first everything that is
/// no message, then the directory. It may be used before [`finish`](Said::finish)
/// has found that all of it is as it was written, not believed.
pub(crate) struct Said<'a> {
    index: &'a Index,
    check: Hasher,
    /// What was read last; what was taken of it; and where in the file the rest
    /// begins.
    window: Vec<u8>,
    taken: usize,
    at: u64,
}

impl Said<'_> {
    /// The next payload that is no message.
    pub(crate) fn meta(&mut self) -> io::Result<Option<&[u8]>> {
        let end = self.index.layout.directory_at;
        if self.at >= end {
            return Ok(None);
        }
        let length = Input(self.peek(4, end)?).u32().ok_or_else(changed)? as usize;
        if length > PAYLOAD_BYTES_MAX || length as u64 > end - self.at - 4 {
            return Err(changed());
        }
        self.peek(4 + length, end)?;
        let from = self.taken + 4;
        self.take(4 + length);
        Ok(Some(&self.window[from..from + length]))
    }

    /// The next entry of the directory. Leaves out what is before it.
    pub(crate) fn entry(&mut self) -> io::Result<Option<Entry>> {
        let Layout { directory_at, table_at: end, .. } = self.index.layout;
        self.skip_to(directory_at)?;
        if self.at >= end {
            return Ok(None);
        }
        let bytes = self.peek(ENTRY_BYTES_MAX, end)?;
        let mut input = Input(bytes);
        let entry = parse_entry(&mut input).ok_or_else(changed)?;
        let length = bytes.len() - input.0.len();
        self.take(length);
        Ok(Some(entry))
    }

    /// Leaves out what is left.
    ///
    /// # Errors
    /// As [`is_broken`] says, if not all of the index is as it was written, what
    /// was gone through and what was not.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let Layout { table_at, entries, .. } = self.index.layout;
        self.skip_to(table_at + 8 * entries)?;
        if self.check.finalize() == self.index.check { Ok(()) } else { Err(changed()) }
    }

    /// The next bytes; fewer where a part ends.
    fn peek(&mut self, length: usize, end: u64) -> io::Result<&[u8]> {
        let length = length.min(usize::try_from(end - self.at).unwrap_or(usize::MAX));
        if self.window.len() - self.taken < length {
            self.window.drain(..self.taken);
            self.taken = 0;
            let had = self.window.len();
            let Layout { table_at, entries, .. } = self.index.layout;
            let rest = table_at + 8 * entries - self.at;
            let more = length.max(WINDOW_BYTES).min(usize::try_from(rest).unwrap_or(usize::MAX));
            self.window.resize(more, 0);
            self.index.file.read_exact_at(&mut self.window[had..], self.at + had as u64)?;
            self.check.update(&self.window[had..]);
        }
        Ok(&self.window[self.taken..self.taken + length])
    }

    fn take(&mut self, length: usize) {
        self.taken += length;
        self.at += length as u64;
    }

    fn skip_to(&mut self, to: u64) -> io::Result<()> {
        while self.at < to {
            let length = self.peek(WINDOW_BYTES, to)?.len();
            self.take(length);
        }
        Ok(())
    }
}

/// The generation and the length of the segment.
fn parse_header(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut input = Input(bytes);
    let is_one = input.take(8)? == MAGIC && input.u32()? == VERSION && input.u32()? == 0;
    is_one.then_some((input.u64()?, input.u64()?))
}

/// Where everything is, and the check of it.
fn parse_footer(bytes: &[u8], footer_at: u64, seal: &Seal) -> Option<(Layout, u32)> {
    let mut input = Input(bytes);
    let [metas_at, directory_at, table_at, entries] =
        [input.u64()?, input.u64()?, input.u64()?, input.u64()?];
    let check = input.u32()?;
    let is_whole = input.u32()? == seal.check(&bytes[..bytes.len() - 12]) && input.0 == MAGIC;
    let is_ordered = HEADER_BYTES <= metas_at && metas_at <= directory_at && directory_at <= table_at;
    let fits = is_ordered && table_at.checked_add(entries.checked_mul(8)?)? == footer_at;
    (is_whole && fits).then_some((Layout { metas_at, directory_at, table_at, entries }, check))
}

fn parse_entry(input: &mut Input<'_>) -> Option<Entry> {
    let channel = input.name()?;
    let [epoch, first, count, total] = [input.u64()?, input.u64()?, input.u64()?, input.u64()?];
    let [oldest, size, places_at] = [input.u64()?, input.u64()?, input.u64()?];
    let oldest = Timestamp::from_millis(oldest);
    Some(Entry { key: (channel, epoch), first, count, total, oldest, size, places_at })
}

fn read(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// Whether reading an index has failed since it is not what was opened any more.
pub(crate) fn is_broken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// The file was whole when it was opened.
fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the index has changed since it was opened")
}

#[cfg(test)]
mod tests {
    use watchtower_hub::ChannelName;

    use super::super::contents::Contents;
    use super::super::index_writer;
    use super::*;

    fn sample() -> Contents {
        let mut contents = Contents::default();
        for channel in [3, 10, 1, 2] {
            for offset in (1..=20).filter(|offset| *offset != 7) {
                let key = (ChannelName::from(channel), 5);
                contents.add_message(
                    key,
                    offset,
                    (offset as u32 * 100, 90),
                    offset * 10,
                    Timestamp::default(),
                );
            }
        }
        contents.metas.insert(Box::from(&b"k"[..]), Box::from(&b"payload"[..]));
        contents
    }

    fn write(contents: &Contents, path: &Path, seal: &Seal) {
        index_writer::write(contents, path, 8, 9_000, seal).unwrap();
    }

    #[test]
    fn an_index_locates_what_the_contents_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.index");
        let seal = Seal::new(&[0; 16]);
        let contents = sample();
        write(&contents, &path, &seal);
        let Opened::Fitting(index) = Index::open(&path, Some(8), &seal).unwrap() else { panic!("it fits") };
        assert_eq!((index.segment_end(), index.entries().unwrap().len()), (9_000, 8));
        assert_eq!(index.metas().unwrap(), [Box::from(&b"payload"[..])]);
        for channel in 0..12 {
            let key = (ChannelName::from(channel), 5);
            for (from, count) in [(0, 100), (5, 4), (7, 1), (20, 3), (21, 1)] {
                let expected = format!("{:?}", contents.locate(&key, from, count));
                assert_eq!(format!("{:?}", index.locate(&key, from, count).unwrap()), expected);
            }
        }
        assert!(matches!(Index::open(&path, Some(7), &seal).unwrap(), Opened::OfAnother));
    }

    #[test]
    fn a_damaged_index_is_not_opened_and_wrong_places_alone_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.index");
        let seal = Seal::new(&[0; 16]);
        write(&sample(), &path, &seal);
        let whole = std::fs::read(&path).unwrap();
        let places = HEADER_BYTES as usize..HEADER_BYTES as usize + 4 * 4 * 19;
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            std::fs::write(&path, &flipped).unwrap();
            let opened = Index::open(&path, Some(8), &seal).unwrap();
            assert_eq!(matches!(opened, Opened::Fitting(..)), places.contains(&at), "{at}");
            assert_eq!(matches!(opened, Opened::Damaged), !places.contains(&at), "{at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(Index::open(&path, Some(8), &seal).unwrap(), Opened::Damaged), "{at}");
        }
    }
}
