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

use watchtower_hub::Timestamp;

use super::codec::{Input, put_name, put_u32, put_u64};
use super::contents::{Contents, Located, LogKey};
use super::folder::VERSION;
use super::frame::{Seal, read_up_to};

const MAGIC: [u8; 8] = *b"WTindex\n";
const HEADER_BYTES: u64 = 32;
const FOOTER_BYTES: u64 = 48;
/// The longest entry: the name, its length, and seven numbers.
const ENTRY_BYTES_MAX: usize = 1 + 128 + 7 * 8;

/// Payloads of frames that are no messages.
pub(crate) type Payloads = Vec<Box<[u8]>>;

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
    places_at: u64,
}

impl Entry {
    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// An index that is open. What it holds stays on disk.
#[derive(Debug)]
pub(crate) struct Index {
    file: File,
    seal: Seal,
    check: u32,
    metas_at: u64,
    directory_at: u64,
    table_at: u64,
    entries: u64,
}

/// What there is under an index's name.
#[derive(Debug)]
pub(crate) enum Opened {
    /// The index that was looked for.
    Fitting(Index, Outline),
    /// That of another file of the same numbers: the process ended before it had
    /// written the one of this.
    OfAnother,
    /// Not what was written.
    Damaged,
}

/// What all of an index but the places says.
#[derive(Debug)]
pub(crate) struct Outline {
    /// How long the segment is.
    pub(crate) end: u64,
    pub(crate) metas: Payloads,
    pub(crate) entries: Vec<Entry>,
}

/// The bytes of an index of a segment of that generation and length.
pub(crate) fn encode(contents: &Contents, generation: u64, end: u64, seal: &Seal) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC);
    put_u32(VERSION, &mut out);
    put_u32(0, &mut out);
    put_u64(generation, &mut out);
    put_u64(end, &mut out);
    let mut places = Vec::new();
    for run in contents.runs.values().flatten() {
        places.push(out.len() as u64);
        run.positions.iter().for_each(|at| put_u32(*at, &mut out));
    }
    let metas_at = out.len();
    for payload in contents.metas.values() {
        put_u32(payload.len() as u32, &mut out);
        out.extend_from_slice(payload);
    }
    let directory_at = out.len();
    let runs = contents.runs.iter().flat_map(|(key, runs)| runs.iter().map(move |run| (key, run)));
    let mut entries = Vec::new();
    for (((channel, epoch), run), places_at) in runs.zip(places) {
        entries.push(out.len() as u64);
        put_name(channel, &mut out);
        let count = run.positions.len() as u64;
        for number in [*epoch, run.first, count, run.total, run.oldest.as_millis(), run.size, places_at] {
            put_u64(number, &mut out);
        }
    }
    let table_at = out.len();
    entries.iter().for_each(|at| put_u64(*at, &mut out));
    let footer_at = out.len();
    let header = &out[..HEADER_BYTES as usize];
    let check = seal.check(&[header, &out[metas_at..footer_at]].concat());
    for number in [metas_at as u64, directory_at as u64, table_at as u64, entries.len() as u64] {
        put_u64(number, &mut out);
    }
    put_u32(check, &mut out);
    put_u32(seal.check(&out[footer_at..]), &mut out);
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
        let Some(index) = parse_footer(&footer, footer_at, seal, file) else {
            return Ok(Opened::Damaged);
        };
        let Some(checked) = index.checked(&header)? else { return Ok(Opened::Damaged) };
        let (Some((of, end)), Some((metas, entries))) = (parse_header(&header), index.parse(&checked)) else {
            return Ok(Opened::Damaged);
        };
        if generation.is_some_and(|generation| of != generation) {
            return Ok(Opened::OfAnother);
        }
        Ok(Opened::Fitting(index, Outline { end, metas, entries }))
    }

    /// All of the directory, read anew and found as it was written.
    pub(crate) fn entries(&self) -> io::Result<Vec<Entry>> {
        Ok(self.read_anew()?.1)
    }

    /// All that is no message, read anew and found as it was written.
    pub(crate) fn metas(&self) -> io::Result<Payloads> {
        Ok(self.read_anew()?.0)
    }

    /// Fails as [`is_broken`] says when it is not what was written any more.
    fn read_anew(&self) -> io::Result<(Payloads, Vec<Entry>)> {
        let header = read(&self.file, 0, HEADER_BYTES)?;
        let checked = self.checked(&header)?.ok_or_else(changed)?;
        self.parse(&checked).ok_or_else(changed)
    }

    /// All behind the places, if that and the header are what was written.
    fn checked(&self, header: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let footer_at = self.table_at + 8 * self.entries;
        let checked = read(&self.file, self.metas_at, footer_at - self.metas_at)?;
        let is_whole = self.seal.check(&[header, &checked].concat()) == self.check;
        Ok(is_whole.then_some(checked))
    }

    /// As [`Contents::locate`].
    pub(crate) fn locate(&self, key: &LogKey, from: u64, count: usize) -> io::Result<Vec<Located>> {
        let mut located = Vec::new();
        let mut left = count as u64;
        let mut at = self.first_entry(key)?;
        while at < self.entries && left > 0 {
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
        let (Some(at), Some(_)) = (at, end.filter(|end| *end <= self.metas_at)) else {
            return Err(changed());
        };
        let bytes = read(&self.file, at, 4 * count)?;
        let mut input = Input(&bytes);
        Ok(std::iter::from_fn(|| input.u32()).collect())
    }

    /// The number of the first entry that is not before `key`.
    fn first_entry(&self, key: &LogKey) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.key < *key { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    fn entry(&self, number: u64) -> io::Result<Entry> {
        let at = read(&self.file, self.table_at + 8 * number, 8)?;
        let is_entry = |at: &u64| (self.directory_at..self.table_at).contains(at);
        let at = Input(&at).u64().filter(is_entry).ok_or_else(changed)?;
        let mut bytes = [0; ENTRY_BYTES_MAX];
        let length = read_up_to(&self.file, &mut bytes, at)?;
        parse_entry(&mut Input(&bytes[..length])).ok_or_else(changed)
    }

    fn parse(&self, checked: &[u8]) -> Option<(Payloads, Vec<Entry>)> {
        let metas = usize::try_from(self.directory_at.checked_sub(self.metas_at)?).ok()?;
        let directory = usize::try_from(self.table_at.checked_sub(self.metas_at)?).ok()?;
        Some((parse_metas(checked.get(..metas)?)?, parse_entries(checked.get(metas..directory)?)?))
    }
}

/// The generation and the length of the segment.
fn parse_header(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut input = Input(bytes);
    let is_one = input.take(8)? == MAGIC && input.u32()? == VERSION && input.u32()? == 0;
    is_one.then_some((input.u64()?, input.u64()?))
}

fn parse_footer(bytes: &[u8], footer_at: u64, seal: &Seal, file: File) -> Option<Index> {
    let mut input = Input(bytes);
    let [metas_at, directory_at, table_at, entries] =
        [input.u64()?, input.u64()?, input.u64()?, input.u64()?];
    let check = input.u32()?;
    let is_whole = input.u32()? == seal.check(&bytes[..bytes.len() - 12]) && input.0 == MAGIC;
    let is_ordered = HEADER_BYTES <= metas_at && metas_at <= directory_at && directory_at <= table_at;
    let fits = is_ordered && table_at.checked_add(entries.checked_mul(8)?)? == footer_at;
    let seal = seal.clone();
    (is_whole && fits).then_some(Index { file, seal, check, metas_at, directory_at, table_at, entries })
}

fn parse_metas(bytes: &[u8]) -> Option<Payloads> {
    let mut input = Input(bytes);
    let mut metas = Vec::new();
    while !input.0.is_empty() {
        let length = usize::try_from(input.u32()?).ok()?;
        metas.push(input.take(length)?.into());
    }
    Some(metas)
}

fn parse_entries(bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut input = Input(bytes);
    let mut entries = Vec::new();
    while !input.0.is_empty() {
        entries.push(parse_entry(&mut input)?);
    }
    Some(entries)
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

    #[test]
    fn an_index_locates_what_the_contents_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.index");
        let seal = Seal::new(&[0; 16]);
        let contents = sample();
        std::fs::write(&path, encode(&contents, 8, 9_000, &seal)).unwrap();
        let Opened::Fitting(index, outline) = Index::open(&path, Some(8), &seal).unwrap() else {
            panic!("it fits")
        };
        assert_eq!((outline.end, outline.entries.len()), (9_000, 8));
        assert_eq!(outline.metas, [Box::from(&b"payload"[..])]);
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
        let whole = encode(&sample(), 8, 9_000, &seal);
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
