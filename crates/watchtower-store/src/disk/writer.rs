//! The thread that writes: takes whatever was submitted meanwhile, writes it,
//! syncs once, and answers all of it in order.
//!
//! **When writing or syncing fails**, nobody knows what is on the disk beyond
//! the last sync that succeeded. All of the group is refused, the file is cut
//! back to that sync, and nothing is appended to it ever again: the next group
//! goes to a new segment, whose header says where the one before ends. What is
//! submitted until such a segment can be made and synced is refused too, with
//! the reason; making one is tried at most four times a second.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::codec;
use super::folder::{Folder, NewFile, Numbers, index_path, sync_parent};
use super::frame::{Header, OVERHEAD_BYTES, PAYLOAD_BYTES_MAX};
use super::index_writer;
use super::medium::Medium;
use super::queue::{Patience, Queue, Submission};
use super::segment::{
    Places, Previous, SEGMENT_HEADER_BYTES, Segment, SegmentFile, new_header, write_header,
};
use super::shared::Shared;
use crate::state::{Judge, Step};
use crate::{Done, Notice, Refused, message_bytes};

/// How long after a failure it is tried again, when there is something to write.
const RETRY: Duration = Duration::from_millis(250);
/// How much is written before it is synced.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// How much of what the last sync took may be spent on a larger group, which saves
/// those who would come too late a sync: this part while nobody comes, and that in
/// all.
const QUIET_PART: u32 = 8;
const PATIENCE_PART: u32 = 2;
/// What a sync takes that is over before publishers are back: waiting for all of
/// them would only keep the processor from what others have sent.
const SHORT_SYNC: Duration = Duration::from_micros(500);
const QUIET_MAX: Duration = Duration::from_millis(2);
const PATIENCE_MAX: Duration = Duration::from_millis(10);

/// See the module.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<Queue>,
    pub(super) medium: Medium,
    pub(super) segment_bytes: u64,
    /// The end of the active segment that is synced.
    pub(super) end: u64,
    /// The number of its next frame.
    pub(super) serial: u32,
    pub(super) failed: Option<Failure>,
}

/// Why nothing can be written, and when that was found.
pub(super) struct Failure {
    error: Arc<io::Error>,
    tried: Instant,
}

/// Frames that are to be written together.
#[derive(Default)]
struct Frames {
    all: Vec<Framed>,
    /// Their bytes.
    out: Vec<u8>,
    /// The payload of the last one: memory for the next.
    payload: Vec<u8>,
}

/// A frame that is to be written.
struct Framed {
    step: Step,
    at: u64,
    size: u64,
    payload: Vec<u8>,
}

impl Writer {
    /// Writes until the queue is closed.
    pub(super) fn run(mut self) {
        let abandon = Abandon(self.queue.clone());
        let (mut wanted, mut patience) = (1, Patience::default());
        loop {
            let group = self.queue.take(wanted, patience, GROUP_BYTES_MAX);
            if group.is_empty() {
                break;
            }
            (wanted, patience) = self.write_group(group);
        }
        if let Err(error) = self.finish() {
            self.shared.folder.notice(&Notice::Untidy { reason: error.to_string() });
        }
        drop(abandon);
    }

    /// How many are to be expected next, and for how long. Those who are answered
    /// come back, beside those who came meanwhile.
    fn write_group(&mut self, group: Vec<Submission>) -> (usize, Patience) {
        let bytes = group.iter().map(|submission| submission.bytes).sum();
        let started = Instant::now();
        let answers: Vec<_> = match self.ready() {
            Err(error) => group.into_iter().map(|one| (one.done, Err(error.clone()))).collect(),
            Ok(()) => self.write(group),
        };
        let took = started.elapsed();
        // First, so that who is told may submit as much again.
        let before = self.queue.answered(bytes);
        let answered = answers.len();
        for (done, result) in answers {
            done(result);
        }
        let quiet = (took / QUIET_PART).min(QUIET_MAX);
        if took < SHORT_SYNC {
            return (answered, Patience { quiet, in_all: quiet });
        }
        (before + answered, Patience { quiet, in_all: (took / PATIENCE_PART).min(PATIENCE_MAX) })
    }

    /// Writes what no publisher has asked for.
    pub(super) fn write_steps(&mut self, steps: Vec<Step>) -> io::Result<()> {
        let mut frames = Frames::default();
        self.frame(steps, &mut frames);
        if frames.out.is_empty() {
            return Ok(());
        }
        self.write_synced(&frames.out)?;
        self.apply(frames);
        Ok(())
    }

    fn write(&mut self, group: Vec<Submission>) -> Vec<(Done, Result<(), Refused>)> {
        let mut answers = Vec::with_capacity(group.len());
        let mut frames = Frames::default();
        {
            let view = self.shared.view.read();
            let mut judge = Judge::new(&view.state);
            let mut steps = Vec::new();
            for Submission { asked, done, .. } in group {
                let result = judge.judge(asked, &mut steps);
                self.frame(steps.drain(..), &mut frames);
                answers.push((done, result));
            }
        }
        if frames.out.is_empty() {
            return answers;
        }
        if let Err(error) = self.write_synced(&frames.out) {
            let error = self.fail(error);
            for (_, result) in &mut answers {
                if result.is_ok() {
                    *result = Err(error.clone());
                }
            }
            return answers;
        }
        self.apply(frames);
        if self.end >= self.segment_bytes
            && let Err(error) = self.next_segment()
        {
            self.fail(error);
        }
        answers
    }

    /// Appends the frames of one submission to what is to be written.
    fn frame(&self, steps: impl IntoIterator<Item = Step, IntoIter: ExactSizeIterator>, frames: &mut Frames) {
        let Frames { all, out, payload } = frames;
        let steps = steps.into_iter();
        let last = steps.len();
        for (step, index) in steps.zip(1..) {
            payload.clear();
            codec::encode(&step, payload);
            let (channel, offset) = match &step {
                Step::Append(message, _) => {
                    (self.shared.seal.channel(message.channel()), message.position().offset)
                }
                _ => (0, 0),
            };
            let serial = self.serial + all.len() as u32;
            let header = Header { length: payload.len(), more: index < last, serial, channel, offset };
            let at = self.end + out.len() as u64;
            self.shared.seal.put_frame(header, payload, out);
            let size = (OVERHEAD_BYTES + payload.len()) as u64;
            // Where a message is, is all that is kept of it in memory.
            let payload = if matches!(step, Step::Append(..)) { Vec::new() } else { payload.clone() };
            all.push(Framed { step, at, size, payload });
        }
    }

    fn write_synced(&self, out: &[u8]) -> io::Result<()> {
        let active = self.shared.view.read().active.clone();
        self.medium.write(&active.file, out, self.end)?;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        self.medium.sync(&active.file)
    }

    /// Shows what was written and synced.
    fn apply(&mut self, frames: Frames) {
        self.end += frames.out.len() as u64;
        self.serial += frames.all.len() as u32;
        let mut dropped = 0;
        let mut view = self.shared.view.write();
        let view = &mut *view;
        // Nobody else has it before the end.
        let contents = Arc::make_mut(&mut view.contents);
        for Framed { step, at, size, payload } in frames.all {
            match &step {
                Step::Append(message, before) => {
                    let position = message.position();
                    let key = (message.channel().clone(), position.epoch.to_bits());
                    let total = before + message_bytes(message);
                    let place = (at as u32, size);
                    contents.add_message(key, position.offset, place, total, message.time());
                }
                _ => {
                    let known = contents.add(at as u32, size, &payload);
                    debug_assert!(known, "it was just made");
                }
            }
            if let Step::Log(channel, log) = &step {
                let had = view.state.log(channel).map_or(0, |log| log.ends().bytes);
                let has = log.map_or(0, |log| log.ends().bytes);
                dropped += had.saturating_sub(has);
            }
            view.state.apply(step);
        }
        self.shared.tidy.dropped(dropped);
    }

    /// Whether there is a segment to append to; makes one after a failure.
    fn ready(&mut self) -> Result<(), Refused> {
        let Some(failure) = &mut self.failed else { return Ok(()) };
        if failure.tried.elapsed() < RETRY {
            return Err(Refused::Storage(failure.error.clone()));
        }
        match self.next_segment() {
            Ok(()) => {
                self.failed = None;
                self.shared.folder.notice(&Notice::Recovered);
                Ok(())
            }
            Err(error) => {
                let error = Arc::new(error);
                self.failed = Some(Failure { error: error.clone(), tried: Instant::now() });
                Err(Refused::Storage(error))
            }
        }
    }

    fn fail(&mut self, error: io::Error) -> Refused {
        self.shared.folder.notice(&Notice::Failing { reason: error.to_string() });
        let active = self.shared.view.read().active.clone();
        // Whether this succeeds changes nothing for this process: it appends to
        // another file. It is for the next one, should this end before.
        let _ = active.file.set_len(self.end).and_then(|()| active.file.sync_all());
        let error = Arc::new(error);
        self.failed = Some(Failure { error: error.clone(), tried: Instant::now() });
        Refused::Storage(error)
    }

    /// Goes on in a new segment.
    fn next_segment(&mut self) -> io::Result<()> {
        let shared = &self.shared;
        let active = shared.view.read().active.clone();
        let previous = Previous { generation: active.generation, end: self.end };
        let next = new_segment(&shared.folder, shared.id, &self.medium, active.numbers.last + 1, previous)?;
        let mut view = self.shared.view.write();
        let places = Places::Memory(std::mem::take(&mut view.contents));
        let sealed = Arc::new(Segment::new(active, self.end, places));
        view.sealed = view.sealed.iter().cloned().chain([sealed]).collect();
        view.active = Arc::new(next);
        drop(view);
        self.end = SEGMENT_HEADER_BYTES;
        self.serial = 0;
        self.shared.tidy.wake();
        Ok(())
    }

    /// Leaves a finished segment, or none when nothing is in it.
    fn finish(&mut self) -> io::Result<()> {
        let (active, contents) = {
            let view = self.shared.view.read();
            (view.active.clone(), view.contents.clone())
        };
        if contents.is_empty() {
            std::fs::remove_file(&active.path)?;
            return sync_parent(&active.path);
        }
        let path = index_path(&active.path);
        index_writer::write(&contents, &path, active.generation, self.end, &self.shared.seal)
    }
}

/// Makes a segment that is there after a crash.
pub(super) fn new_segment(
    folder: &Folder,
    id: [u8; 16],
    medium: &Medium,
    number: u64,
    previous: Previous,
) -> io::Result<SegmentFile> {
    let numbers = Numbers::one(number);
    let path = folder.log_path(numbers);
    let header = new_header(id, previous)?;
    medium.check()?;
    let mut new = NewFile::create(&path)?;
    write_header(new.file(), &header)?;
    let file = new.publish()?;
    Ok(SegmentFile { numbers, path, file, generation: header.generation })
}

/// The longest change that fits into a frame.
pub(super) fn too_large(bytes: usize) -> Option<Refused> {
    (bytes > PAYLOAD_BYTES_MAX).then_some(Refused::TooLarge { bytes, limit: PAYLOAD_BYTES_MAX })
}

/// Answers those that wait when the writer is gone, be it by a panic.
struct Abandon(Arc<Queue>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
