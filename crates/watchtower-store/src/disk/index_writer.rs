//! Writes an [`index`](super::index) while what it says becomes known: first
//! everything that is no message, in the order of keys, then the runs of
//! messages, in the order of logs.
//!
//! Has little more in memory than eight bytes for each run: what belongs behind
//! the places waits in a file without a lasting name.

use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crc32fast::Hasher;
use watchtower_hub::Timestamp;

use super::codec::put_u32;
use super::contents::{Contents, LogKey, Run};
use super::folder::NewFile;
use super::frame::Seal;
use super::index::{Entry, HEADER_BYTES, Layout, encode_footer, encode_header, put_entry};

/// Writes the index, to be at `path`, of a segment of that generation and length.
pub(crate) fn write(
    contents: &Contents,
    path: &Path,
    generation: u64,
    end: u64,
    seal: &Seal,
) -> io::Result<()> {
    let mut index = IndexWriter::create(path, seal)?;
    index.contents(contents)?;
    index.finish(generation, end)
}

/// See the module.
pub(crate) struct IndexWriter {
    seal: Seal,
    /// The index, as far as the places.
    places: BufWriter<NewFile>,
    /// Where in it the next place is.
    place_at: u64,
    /// What comes behind the places, and how long it is: metas, then the directory.
    behind: BufWriter<NewFile>,
    behind_bytes: u64,
    metas_bytes: u64,
    /// Where in `behind` each entry begins.
    entries: Vec<u64>,
    /// The run that the next message may belong to.
    run: Option<Entry>,
    bytes: Vec<u8>,
}

impl IndexWriter {
    /// An index that is to be at `path`, where another one may be.
    pub(crate) fn create(path: &Path, seal: &Seal) -> io::Result<IndexWriter> {
        let mut places = BufWriter::new(NewFile::create(path)?);
        places.write_all(&[0; HEADER_BYTES as usize])?;
        Ok(IndexWriter {
            seal: seal.clone(),
            places,
            place_at: HEADER_BYTES,
            behind: BufWriter::new(NewFile::create(&path.with_extension("metas"))?),
            behind_bytes: 0,
            metas_bytes: 0,
            entries: Vec::new(),
            run: None,
            bytes: Vec::new(),
        })
    }

    fn contents(&mut self, contents: &Contents) -> io::Result<()> {
        contents.metas.values().try_for_each(|payload| self.meta(payload))?;
        contents.all_runs().try_for_each(|(key, run)| self.run(key, run))
    }

    /// Says the payload of a frame that is no message, before any message.
    pub(crate) fn meta(&mut self, payload: &[u8]) -> io::Result<()> {
        debug_assert!(self.run.is_none() && self.entries.is_empty(), "metas come first");
        self.bytes.clear();
        put_u32(payload.len() as u32, &mut self.bytes);
        self.bytes.extend_from_slice(payload);
        self.put_behind()?;
        self.metas_bytes = self.behind_bytes;
        Ok(())
    }

    /// Says where a message is. One whose offset follows the last one's belongs to
    /// the same run.
    pub(crate) fn message(
        &mut self,
        key: &LogKey,
        offset: u64,
        (at, size): (u32, u64),
        total: u64,
        time: Timestamp,
    ) -> io::Result<()> {
        let places_at = self.place_at;
        self.place(at)?;
        match self.run.as_mut().filter(|run| run.key == *key && run.end() == offset) {
            Some(run) => {
                run.count += 1;
                run.total = total;
                run.size += size;
                Ok(())
            }
            None => {
                let key = key.clone();
                let run = Entry { key, first: offset, count: 1, total, oldest: time, size, places_at };
                let ended = self.run.replace(run);
                ended.map_or(Ok(()), |ended| self.entry(&ended))
            }
        }
    }

    fn run(&mut self, key: &LogKey, run: &Run) -> io::Result<()> {
        let Run { first, total, oldest, size, .. } = *run;
        let (key, count, places_at) = (key.clone(), run.positions.len() as u64, self.place_at);
        run.positions.iter().try_for_each(|at| self.place(*at))?;
        self.entry(&Entry { key, first, count, total, oldest, size, places_at })
    }

    fn place(&mut self, at: u32) -> io::Result<()> {
        self.place_at += 4;
        self.places.write_all(&at.to_le_bytes())
    }

    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.entries.push(self.behind_bytes);
        self.bytes.clear();
        put_entry(entry, &mut self.bytes);
        self.put_behind()
    }

    fn put_behind(&mut self) -> io::Result<()> {
        self.behind_bytes += self.bytes.len() as u64;
        self.behind.write_all(&self.bytes)
    }

    /// Finishes the index, of a segment of that generation and length. It is on
    /// disk under its name then.
    pub(crate) fn finish(mut self, generation: u64, end: u64) -> io::Result<()> {
        if let Some(run) = self.run.take() {
            self.entry(&run)?;
        }
        let metas_at = self.place_at;
        let layout = Layout {
            metas_at,
            directory_at: metas_at + self.metas_bytes,
            table_at: metas_at + self.behind_bytes,
            entries: self.entries.len() as u64,
        };
        let header = encode_header(generation, end);
        let mut hasher = self.seal.hasher();
        hasher.update(&header);
        let mut checked = Checked { out: self.places, hasher };
        let mut behind = self.behind.into_inner()?;
        behind.file().rewind()?;
        io::copy(behind.file(), &mut checked)?;
        self.entries.iter().try_for_each(|at| checked.write_all(&(metas_at + at).to_le_bytes()))?;
        let Checked { out: mut index, hasher } = checked;
        index.write_all(&encode_footer(&layout, hasher.finalize(), &self.seal))?;
        let mut new = index.into_inner()?;
        new.file().write_all_at(&header, 0)?;
        new.file().sync_all()?;
        new.publish()?;
        Ok(())
    }
}

/// Writes, and checks what is written.
struct Checked {
    out: BufWriter<NewFile>,
    hasher: Hasher,
}

impl Write for Checked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
