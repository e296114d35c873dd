//! A segment: one file of frames, its header, and going through it as a whole.
//!
//! ```text
//! magic 8 | version 4 | id 16 | generation 8 | previous generation 8 | previous end 8 | check 4 | frames
//! ```
//!
//! The previous end says how much of the segment before is in force: what it
//! holds beyond was never acknowledged.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::codec::{Input, put_u32, put_u64};
use super::contents::{Contents, Located, LogKey};
use super::folder::{Numbers, VERSION};
use super::frame::{Found, Header, OVERHEAD_BYTES, Seal, Walk, read_up_to};
use super::index::{Entry, Index, is_broken};

pub(crate) const SEGMENT_HEADER_BYTES: u64 = 64;
const MAGIC: [u8; 8] = *b"WTlog\r\n\n";
/// The shortest frame of a message: every other field of it takes room.
const FRAME_BYTES_MIN: u64 = OVERHEAD_BYTES as u64 + 40;

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u32,
    pub(crate) id: [u8; 16],
    /// A random number, which an index names.
    pub(crate) generation: u64,
    pub(crate) previous: Previous,
}

/// How much of the segment before was in force when a segment was begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Previous {
    pub(crate) generation: u64,
    pub(crate) end: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        out.extend_from_slice(&MAGIC);
        put_u32(self.version, &mut out);
        out.extend_from_slice(&self.id);
        for number in [self.generation, self.previous.generation, self.previous.end] {
            put_u64(number, &mut out);
        }
        put_u32(crc32fast::hash(&out), &mut out);
        out.resize(SEGMENT_HEADER_BYTES as usize, 0);
        out
    }

    /// Reads the header of a file; `None` when it is damaged.
    pub(crate) fn read(file: &File) -> io::Result<Option<SegmentHeader>> {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        read_up_to(file, &mut bytes, 0)?;
        Ok(SegmentHeader::parse(&bytes))
    }

    fn parse(bytes: &[u8; SEGMENT_HEADER_BYTES as usize]) -> Option<SegmentHeader> {
        let mut input = Input(bytes);
        if input.take(8)? != MAGIC {
            return None;
        }
        let version = input.u32()?;
        let id = input.take(16)?.try_into().ok()?;
        let generation = input.u64()?;
        let previous = Previous { generation: input.u64()?, end: input.u64()? };
        let checked = bytes.len() - input.0.len();
        let is_whole = input.u32()? == crc32fast::hash(&bytes[..checked]);
        let is_padded = input.0.iter().all(|byte| *byte == 0);
        (is_whole && is_padded).then_some(SegmentHeader { version, id, generation, previous })
    }
}

/// An open file of frames.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) numbers: Numbers,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) generation: u64,
}

/// A segment that nothing is appended to any more.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: Arc<SegmentFile>,
    /// How much of the file is in force.
    pub(crate) end: u64,
    known: RwLock<Known>,
    /// Held by who finds out what a damaged one still holds.
    pub(crate) examining: Mutex<()>,
}

/// What is known of a segment. Seen together: with the places that a damaged one
/// was thought to have, what is not there would be taken for lost.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) places: Places,
    /// Whether it is to be written anew, and the damaged file set aside. Then
    /// the places are those of what can be read.
    pub(crate) is_damaged: bool,
}

/// Where it is known from what is where.
#[derive(Debug, Clone)]
pub(crate) enum Places {
    Memory(Arc<Contents>),
    Disk(Arc<Index>),
}

impl Segment {
    pub(crate) fn new(file: Arc<SegmentFile>, end: u64, places: Places) -> Segment {
        let known = Known { places, is_damaged: false };
        Segment { file, end, known: RwLock::new(known), examining: Mutex::new(()) }
    }

    /// The same with damage, as far as its places are not that of it.
    pub(crate) fn damaged(self) -> Segment {
        self.known.write().is_damaged = true;
        self
    }

    pub(crate) fn known(&self) -> Known {
        self.known.read().clone()
    }

    pub(crate) fn places(&self) -> Places {
        self.known.read().places.clone()
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.known.read().is_damaged
    }

    /// Notes that it is damaged, and what can be read of it.
    pub(crate) fn found_damaged(&self, contents: Contents) {
        *self.known.write() = Known { places: Places::Memory(Arc::new(contents)), is_damaged: true };
    }

    /// Has the index that was written say where everything is, unless it was found
    /// damaged meanwhile: then memory knows better.
    pub(crate) fn set_index(&self, index: Index) {
        let mut known = self.known.write();
        if !known.is_damaged {
            known.places = Places::Disk(Arc::new(index));
        }
    }

    pub(crate) fn locate(&self, key: &LogKey, from: u64, count: usize) -> io::Result<Vec<Located>> {
        match self.places() {
            Places::Memory(contents) => Ok(contents.locate(key, from, count)),
            Places::Disk(index) => index.locate(key, from, count),
        }
    }

    /// The directory of its index; `None` while it has none.
    pub(crate) fn entries(&self) -> io::Result<Option<Vec<Entry>>> {
        match self.places() {
            Places::Memory(_) => Ok(None),
            Places::Disk(index) => index.entries().map(Some),
        }
    }

    /// Fails as [`is_broken`] says when it has an index that is not what was written
    /// any more.
    pub(crate) fn check_index(&self) -> io::Result<()> {
        match self.places() {
            Places::Memory(_) => Ok(()),
            Places::Disk(index) => index.check(),
        }
    }

    /// Goes through all of it again: what it really holds, and what its index
    /// says of everything but messages.
    pub(crate) fn examine(&self, seal: &Seal) -> io::Result<Contents> {
        let mut contents = scan(&self.file.file, seal, Some(self.end))?.contents;
        if let Places::Disk(index) = self.places() {
            match index.metas() {
                Ok(metas) => contents.add_metas(metas),
                Err(error) if is_broken(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(contents)
    }
}

/// What going through a segment has found.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) contents: Contents,
    /// Up to where it is in force.
    pub(crate) end: u64,
    /// What is beyond, and was never acknowledged.
    pub(crate) unfinished_bytes: u64,
    /// Whether anything was not as it was written, be it lost or not.
    pub(crate) damaged: bool,
    pub(crate) broken: Vec<Broken>,
}

/// Of a segment without an index that is shorter than a header: it had one before it
/// had its name.
pub(crate) const CUT_OFF: &str = "it is cut off within its header, and what it held is lost";

/// Frames that cannot be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Broken {
    pub(crate) at: u64,
    /// The header of the one that it was, if that is known.
    pub(crate) header: Option<Header>,
    /// How many it were; at most, where that is not known.
    pub(crate) frames: u64,
}

/// How much broken pieces cost, for a person.
pub(crate) fn lost_frames(broken: &[Broken]) -> String {
    match broken.iter().map(|broken| broken.frames).sum() {
        0 => "nothing is lost".to_owned(),
        1 => "one record cannot be read".to_owned(),
        frames => format!("up to {frames} records cannot be read"),
    }
}

/// Goes through a segment. When it is known where it `ends`, everything before
/// that was acknowledged.
pub(crate) fn scan(file: &File, seal: &Seal, ends: Option<u64>) -> io::Result<Scan> {
    let length = file.metadata()?.len();
    let end = ends.unwrap_or(length).min(length);
    let mut walk = Walk::new(file, seal, SEGMENT_HEADER_BYTES..end);
    let mut scanner = Scanner { end: SEGMENT_HEADER_BYTES.min(end), ..Scanner::default() };
    while let Some(found) = walk.next()? {
        scanner.take(found);
    }
    if let Some(ends) = ends {
        scanner.keep_pending(None);
        let missing = ends.saturating_sub(scanner.end);
        if missing > 0 {
            scanner.break_off(missing);
        }
        scanner.end = ends;
    }
    let unfinished_bytes = end.saturating_sub(scanner.end);
    let Scanner { contents, end, damaged, broken, .. } = scanner;
    Ok(Scan { contents, end, unfinished_bytes, damaged, broken })
}

#[derive(Debug, Default)]
struct Scanner {
    contents: Contents,
    /// Frames of a submission whose last one was not seen yet.
    pending: Vec<(u64, Vec<u8>)>,
    /// The serial of the next frame.
    serial: u64,
    end: u64,
    damaged: bool,
    broken: Vec<Broken>,
}

impl Scanner {
    fn take(&mut self, found: Found<'_>) {
        match found {
            Found::Frame { at, header, payload } => {
                let after = at + (OVERHEAD_BYTES + payload.len()) as u64;
                self.damaged |= header.is_none();
                self.count(header.as_ref());
                if header.is_some_and(|header| header.more) {
                    self.pending.push((at, payload.to_vec()));
                } else {
                    self.keep_pending(Some((at, payload)));
                    self.end = after;
                }
            }
            Found::Broken { at, header } => {
                self.damaged = true;
                // What comes before it was acknowledged with it.
                self.keep_pending(None);
                self.count(header.as_ref());
                self.broken.push(Broken { at: at.start, header, frames: u64::from(header.is_some()) });
                self.end = at.end;
            }
            Found::Unfinished => {}
        }
    }

    /// Counts a frame. By its serial it shows how many were in the broken piece
    /// before it that had no header.
    fn count(&mut self, header: Option<&Header>) {
        if let Some(header) = header {
            let lost = u64::from(header.serial).saturating_sub(self.serial);
            if let Some(broken) = self.broken.last_mut().filter(|broken| broken.frames == 0) {
                broken.frames = lost;
            }
            self.serial = u64::from(header.serial);
        }
        self.serial += 1;
    }

    fn keep_pending(&mut self, last: Option<(u64, &[u8])>) {
        let pending = std::mem::take(&mut self.pending);
        for (at, payload) in pending.iter().map(|(at, payload)| (*at, &payload[..])).chain(last) {
            let size = (OVERHEAD_BYTES + payload.len()) as u64;
            self.end = at + size;
            if !self.contents.add(at as u32, size, payload) {
                self.damaged = true;
                self.broken.push(Broken { at, header: None, frames: 1 });
            }
        }
    }

    /// Notes that the file has lost its last bytes.
    fn break_off(&mut self, missing: u64) {
        self.damaged = true;
        let frames = missing.div_ceil(FRAME_BYTES_MIN);
        self.broken.push(Broken { at: self.end, header: None, frames });
    }
}

/// Makes a segment's file, with its header in it and synced. The name is synced
/// too.
pub(crate) fn write_header(file: &File, header: &SegmentHeader) -> io::Result<()> {
    file.write_all_at(&header.encode(), 0)?;
    file.sync_all()
}

/// A header for a new segment.
pub(crate) fn new_header(id: [u8; 16], previous: Previous) -> io::Result<SegmentHeader> {
    let generation = u64::from_le_bytes(super::folder::random()?);
    Ok(SegmentHeader { version: VERSION, id, generation, previous })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_written_and_a_flipped_byte_makes_it_none() {
        let header = SegmentHeader {
            version: 1,
            id: [7; 16],
            generation: 8,
            previous: Previous { generation: 9, end: 10 },
        };
        let bytes: [u8; 64] = header.encode().try_into().unwrap();
        assert_eq!(SegmentHeader::parse(&bytes), Some(header));
        for at in 0..bytes.len() {
            let mut flipped = bytes;
            flipped[at] ^= 1;
            assert_eq!(SegmentHeader::parse(&flipped), None, "{at}");
        }
    }
}
