//! The thread that puts files in order: it writes the indexes of finished
//! segments, writes damaged segments anew, and merges segments so that there
//! are few, without what was dropped.
//!
//! Publishers and readers never wait for it. What fails here is tried again
//! when there is something to do the next time, and loses nothing.

use std::fs;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::folder::index_path;
use super::index::{Index, is_broken};
use super::index_writer;
use super::merge;
use super::segment::{Places, Segment};
use super::shared::Shared;
use crate::Notice;

/// Wakes the thread.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    state: Mutex<SignalState>,
    came: Condvar,
    /// How much is dropped before it is looked for what can be removed.
    dropped_bytes_max: u64,
}

#[derive(Debug, Default)]
struct SignalState {
    is_due: bool,
    is_closed: bool,
    dropped_bytes: u64,
}

impl Signal {
    pub(crate) fn new(dropped_bytes_max: u64) -> Signal {
        Signal { dropped_bytes_max, ..Signal::default() }
    }

    pub(crate) fn wake(&self) {
        self.state.lock().is_due = true;
        self.came.notify_one();
    }

    /// Notes that so many bytes of messages are not kept any more.
    pub(crate) fn dropped(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.dropped_bytes += bytes;
        if state.dropped_bytes >= self.dropped_bytes_max {
            state.dropped_bytes = 0;
            state.is_due = true;
            self.came.notify_one();
        }
    }

    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.came.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Waits until something is due; `false` when the store is closing.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.is_due && !state.is_closed {
            self.came.wait(&mut state);
        }
        state.is_due = false;
        !state.is_closed
    }
}

/// Puts files in order until the store is closed.
pub(super) fn run(shared: &Shared, segment_bytes: u64) {
    while shared.tidy.wait() {
        match tidy(shared, segment_bytes) {
            Ok(()) => {}
            // By damage that was told of, or since the store is closing.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => shared.folder.notice(&Notice::Untidy { reason: error.to_string() }),
        }
    }
}

fn tidy(shared: &Shared, segment_bytes: u64) -> io::Result<()> {
    loop {
        let sealed = shared.view.read().sealed.clone();
        for segment in sealed.iter().filter(|segment| !segment.is_damaged()) {
            write_index(shared, segment)?;
        }
        let at = sealed.iter().position(|segment| segment.is_damaged()).map(|at| at..at + 1);
        let at = match at {
            Some(damaged) => Some(damaged),
            None => {
                // What is left of the disk is for those who publish.
                let room = shared.folder.room()?.saturating_sub(segment_bytes);
                plan(&sizes(shared, &sealed)?, segment_bytes, room)
            }
        };
        let Some(at) = at.filter(|_| !shared.tidy.is_closed()) else { return Ok(()) };
        rewrite(shared, &sealed, at)?;
    }
}

/// Writes the index of a segment that has none on disk yet.
fn write_index(shared: &Shared, segment: &Segment) -> io::Result<()> {
    let Places::Memory(contents) = segment.places() else { return Ok(()) };
    let path = index_path(&segment.file.path);
    let generation = segment.file.generation;
    index_writer::write(&contents, &path, generation, segment.end, &shared.seal)?;
    segment.set_index(merge::open_index(shared, &path, generation)?);
    Ok(())
}

/// Puts one segment in the place of several, or of one.
fn rewrite(shared: &Shared, sealed: &[Arc<Segment>], at: Range<usize>) -> io::Result<()> {
    let sources = &sealed[at.clone()];
    let merged = merge::merge(shared, sources, at.start == 0)?;
    let mut view = shared.view.write();
    // Segments are only added meanwhile, behind these.
    let (before, after) = (view.sealed[..at.start].to_vec(), view.sealed[at.end..].to_vec());
    let kept = merged.numbers();
    view.sealed = before.into_iter().chain([Arc::new(merged)]).chain(after).collect();
    drop(view);
    for source in sources.iter().filter(|source| source.file.numbers != kept) {
        for path in [source.file.path.clone(), index_path(&source.file.path)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// How long a segment is, and how much of it is still wanted.
#[derive(Debug, Clone, Copy)]
struct Size {
    length: u64,
    live: u64,
}

fn sizes(shared: &Shared, sealed: &[Arc<Segment>]) -> io::Result<Vec<Size>> {
    let mut sizes = Vec::with_capacity(sealed.len());
    for segment in sealed {
        let dropped = match segment.places() {
            Places::Memory(_) => 0,
            Places::Disk(index) => match dropped(shared, &index) {
                // It begins anew, by what the segment itself says.
                Err(error) if is_broken(&error) => {
                    shared.rescan(segment)?;
                    return Err(io::ErrorKind::Interrupted.into());
                }
                dropped => dropped?,
            },
        };
        sizes.push(Size { length: segment.end, live: segment.end.saturating_sub(dropped) });
    }
    Ok(sizes)
}

/// How much of what an index says is not wanted any more, in bytes.
fn dropped(shared: &Shared, index: &Index) -> io::Result<u64> {
    let mut said = index.said()?;
    let mut dropped = 0;
    let mut entries = Vec::with_capacity(ENTRIES_AT_ONCE);
    loop {
        while entries.len() < ENTRIES_AT_ONCE
            && let Some(entry) = said.entry()?
        {
            entries.push(entry);
        }
        if entries.is_empty() {
            said.finish()?;
            return Ok(dropped);
        }
        let view = shared.view.read();
        for entry in entries.drain(..) {
            let log = view.state.log(&entry.key.0).filter(|log| log.epoch.to_bits() == entry.key.1);
            let first = log.map_or(u64::MAX, |log| log.first);
            let gone = first.saturating_sub(entry.first).min(entry.count);
            dropped += (u128::from(entry.size) * u128::from(gone) / u128::from(entry.count.max(1))) as u64;
        }
    }
}

/// Of how many runs it is looked up at once what is left of them: the writer waits
/// for the lock.
const ENTRIES_AT_ONCE: usize = 256;
/// How many segments of about one size are merged.
const FAN: usize = 4;
/// The longest segment that is made, in those that are written at first.
const MERGED_MAX: u64 = 8;

/// Which segments to make one of, if any.
///
/// Either one of which less than half is wanted, or a row of at least [`FAN`]
/// that are of one class of size or smaller. A class is four times the one below
/// it. So each message is written again about once for each class, there are
/// few segments of each, and no segment is longer than [`MERGED_MAX`] of those
/// that are written at first. Nothing is made that does not fit into the `room`.
fn plan(sizes: &[Size], segment_bytes: u64, room: u64) -> Option<Range<usize>> {
    let smallest = segment_bytes / 64;
    let is_half_empty =
        |size: &Size| size.live < size.length / 2 && size.length > smallest && size.live <= room;
    if let Some(at) = sizes.iter().position(is_half_empty) {
        return Some(at..at + 1);
    }
    let max = segment_bytes * MERGED_MAX;
    let sum_max = max.min(room);
    let mut class_max = smallest.max(1);
    while class_max <= max / 2 {
        let mut row = 0..0;
        let mut sum = 0;
        for (at, size) in sizes.iter().enumerate() {
            if size.live > class_max || sum + size.live > sum_max {
                if row.len() >= FAN {
                    return Some(row);
                }
                (row, sum) = (at + 1..at + 1, 0);
                if size.live > class_max.min(sum_max) {
                    continue;
                }
                row.start = at;
            }
            row.end = at + 1;
            sum += size.live;
        }
        if row.len() >= FAN {
            return Some(row);
        }
        class_max *= 4;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sizes: &[(u64, u64)], expected: impl Into<Option<Range<usize>>>) {
        let sizes: Vec<_> = sizes.iter().map(|&(length, live)| Size { length, live }).collect();
        assert_eq!(plan(&sizes, 64, u64::MAX), expected.into(), "{sizes:?}");
    }

    #[test]
    fn a_segment_is_written_anew_when_less_than_half_of_it_is_wanted() {
        check(&[(64, 64), (64, 32)], None);
        check(&[(64, 64), (64, 31), (64, 64)], Some(1..2));
        check(&[(1, 0), (1, 0)], None);
    }

    #[test]
    fn four_in_a_row_of_a_class_become_one() {
        check(&[(64, 64); 3], None);
        check(&[(64, 64); 4], Some(0..4));
        check(&[(64, 64), (1, 1), (1, 1), (1, 1), (1, 1), (64, 64)], Some(1..5));
        check(&[(64, 64), (9, 9), (64, 64), (9, 9)], Some(0..4));
        // Eight times 64 is the longest.
        check(&[(256, 256), (256, 256), (256, 256), (256, 256)], None);
        check(&[(64, 64); 20], Some(0..8));
    }

    #[test]
    fn nothing_is_made_for_which_there_is_no_room() {
        let sizes = [(64, 64), (64, 64), (64, 64), (64, 64), (64, 10)];
        let sizes = sizes.map(|(length, live)| Size { length, live });
        assert_eq!(plan(&sizes, 64, 9), None);
        assert_eq!(plan(&sizes, 64, 10), Some(4..5));
        assert_eq!(plan(&sizes[..4], 64, 255), None);
        assert_eq!(plan(&sizes[..4], 64, 256), Some(0..4));
    }

    #[test]
    fn however_long_it_goes_on_there_are_few_segments_and_little_is_written_again() {
        let mut sizes: Vec<Size> = Vec::new();
        let mut written = 0;
        for _ in 0..10_000 {
            sizes.push(Size { length: 64, live: 64 });
            while let Some(row) = plan(&sizes, 64, u64::MAX) {
                let live = sizes[row.clone()].iter().map(|size| size.live).sum();
                written += live;
                sizes.splice(row, [Size { length: live, live }]);
            }
        }
        let total: u64 = sizes.iter().map(|size| size.live).sum();
        assert_eq!(total, 640_000);
        assert!(sizes.len() as u64 <= total / (64 * 4) + 16, "{} segments", sizes.len());
        assert!(written <= 4 * total, "{written} bytes written again");
    }
}
