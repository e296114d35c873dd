//! The store on disk.
//!
//! | file | is |
//! | --- | --- |
//! | `folder` | the folder: lock, version, names, what is set aside |
//! | `codec` | changes as bytes |
//! | `frame` | how these stand in a file, and finding them in a damaged one |
//! | `segment`, `contents` | a file of frames, and what is where in it |
//! | `index`, `index_writer` | the file beside it that says so |
//! | `shared` | what there is now, and reading it |
//! | `queue`, `writer`, `medium` | group commit |
//! | `tidy`, `merge`, `in_order` | few segments, without what was dropped |
//! | `open` | what there is after a restart |
//! | `account`, `coverage` | what all segments amount to, and what is missing |
//! | `check` | reading all of it |

mod account;
mod check;
mod codec;
mod contents;
mod coverage;
mod folder;
mod frame;
mod in_order;
mod index;
mod index_writer;
mod medium;
mod merge;
mod open;
mod queue;
mod segment;
mod shared;
#[cfg(test)]
mod tests;
mod tidy;
mod writer;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use watchtower_hub::{Audience, ChannelName, Epoch, Timestamp};

pub use self::check::{FileReport, Report, check};
#[cfg(feature = "fuzzing")]
pub use self::codec::read_and_write;
pub(crate) use self::codec::{decode_message, encode_message};
use self::folder::Folder;
use self::medium::Medium;
use self::queue::{Queue, Submission};
use self::segment::SEGMENT_HEADER_BYTES;
use self::shared::{Shared, View};
use self::tidy::Signal;
use self::writer::{Writer, new_segment, too_large};
use crate::error::at;
use crate::state::{Asked, Step, Trim};
use crate::{
    Change, Done, Ends, Key, Kind, Notice, Observer, OpenError, Page, ReadError, ReadLimit, Record, Refused,
    Store, message_bytes,
};

/// What a change counts for in the queue besides the bytes in it: about what it
/// takes in memory. More than the fields of a message take in a frame.
const CHANGE_BYTES: usize = 256;

/// How a store on disk is opened.
#[derive(Clone)]
pub struct DiskOptions {
    /// Its folder.
    pub folder: PathBuf,
    /// Whether a store is made where there is none.
    pub create: bool,
    /// How much may wait to be written, in bytes; what is submitted beyond is
    /// refused.
    pub queue_bytes_max: usize,
    /// How long a file becomes before another one is begun, in bytes; at least
    /// 4096 and at most 256 MiB. Merged files become up to eight times as long.
    pub segment_bytes: u64,
    /// Is told of damage and trouble.
    pub observer: Observer,
}

impl DiskOptions {
    /// A store in that folder, which is made when it is not there, and tells
    /// nobody of trouble.
    pub fn new(folder: impl Into<PathBuf>) -> DiskOptions {
        DiskOptions {
            folder: folder.into(),
            create: true,
            queue_bytes_max: 64 << 20,
            segment_bytes: 64 << 20,
            observer: Arc::new(|_: &Notice| {}),
        }
    }

    /// The same with somebody who is told.
    #[must_use]
    pub fn observed(self, observer: impl Fn(&Notice) + Send + Sync + 'static) -> DiskOptions {
        DiskOptions { observer: Arc::new(observer), ..self }
    }
}

/// A store in a folder. Two threads belong to it: one writes, one tidies.
/// Dropping it closes it.
///
/// What it has in memory does not grow with the messages that it keeps: the
/// ends of each log, all records, and the places of the messages in the file
/// that is being written.
pub struct DiskStore {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl DiskStore {
    /// Opens the store in a folder, or makes one.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. Damage is no error: the observer is told of it, and what is
    /// not damaged is served.
    pub fn open(options: DiskOptions) -> Result<DiskStore, OpenError> {
        DiskStore::open_on(Medium::default(), options)
    }

    fn open_on(medium: Medium, options: DiskOptions) -> Result<DiskStore, OpenError> {
        let segment_bytes = options.segment_bytes.clamp(4096, 256 << 20);
        let (path, queue_bytes_max) = (options.folder.clone(), options.queue_bytes_max);
        let (shared, reserved) = open_files(&medium, DiskOptions { segment_bytes, ..options })?;
        let queue = Arc::new(Queue::new(queue_bytes_max));
        let mut writer = Writer {
            shared: shared.clone(),
            queue: queue.clone(),
            medium,
            segment_bytes,
            end: SEGMENT_HEADER_BYTES,
            serial: 0,
            failed: None,
        };
        writer.write_steps(reserved).map_err(at("cannot write in", &path))?;
        let tidying = shared.clone();
        let threads = [
            spawn("store-write", move || writer.run()),
            spawn("store-tidy", move || tidy::run(&tidying, segment_bytes)),
        ];
        let threads = threads.into_iter().collect::<Result<_, _>>();
        let store = DiskStore { shared, queue, threads: Mutex::new(Vec::new()) };
        *store.threads.lock() = threads.map_err(at("cannot start a thread for", &path))?;
        store.shared.tidy.wake();
        Ok(store)
    }

    /// As [`submit`](Store::submit), but what is known at once is returned: from
    /// within this call `done` is never told anything.
    ///
    /// # Errors
    ///
    /// [`Refused::TooLarge`], [`Refused::Behind`] or [`Refused::Closed`], with
    /// `done`, which was not told.
    pub fn offer(
        &self,
        changes: impl IntoIterator<Item = Change>,
        done: Done,
    ) -> Result<(), (Refused, Done)> {
        let (mut asked, mut bytes) = (SmallVec::new(), 0);
        for change in changes {
            let change_bytes = change_bytes(&change);
            if let Some(refused) = too_large(change_bytes) {
                return Err((refused, done));
            }
            bytes += change_bytes;
            asked.push(Asked::Change(change));
        }
        self.queue.push(Submission { asked, bytes, done })
    }

    /// How often what was written was synced since the store was opened.
    pub fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }

    /// How many channels have a log. Does not wait.
    pub fn logs(&self) -> usize {
        self.shared.view.read().state.logs().len()
    }

    /// How much waits to be written, in bytes.
    pub fn pending_bytes(&self) -> usize {
        self.queue.bytes()
    }
}

/// Opens what there is, with nobody at work on it yet, and says what is to be
/// written first.
fn open_files(medium: &Medium, options: DiskOptions) -> Result<(Arc<Shared>, Vec<Step>), OpenError> {
    let DiskOptions { folder: path, create, segment_bytes, observer, .. } = options;
    if !create && !Folder::is_store(&path)? {
        return Err(OpenError::Missing { folder: path });
    }
    let folder = Folder::lock(&path, observer)?;
    let open::Opened { id, seal, state, segments, next, reserved } = open::open(&folder)?;
    let active = new_segment(&folder, id, medium, next.0, next.1).map_err(at("cannot write in", &path))?;
    let view = View { state, sealed: segments.into(), active: Arc::new(active), contents: Arc::default() };
    let tidy = Signal::new(segment_bytes / 2);
    let shared = Shared { folder, id, seal, view: RwLock::new(view), tidy, syncs: AtomicU64::new(0) };
    Ok((Arc::new(shared), reserved))
}

/// Tells who asked at once.
fn tell((refused, done): (Refused, Done)) {
    done(Err(refused));
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

impl Store for DiskStore {
    fn submit(&self, changes: Vec<Change>, done: Done) {
        self.offer(changes, done).unwrap_or_else(tell);
    }

    fn trim(&self, channel: &ChannelName, epoch: Epoch, first: u64, done: Done) -> Result<(), ReadError> {
        let (log, found) = self.shared.first_from(channel, first)?;
        let trim = match found {
            Some((message, before)) => {
                Trim { epoch, first: first.min(log.next), dropped: before, oldest: message.time() }
            }
            None => {
                Trim { epoch, first: first.min(log.next), dropped: log.total, oldest: Timestamp::default() }
            }
        };
        let asked = [Asked::Trim(channel.clone(), trim)].into_iter().collect();
        self.queue.push(Submission { asked, bytes: CHANGE_BYTES, done }).unwrap_or_else(tell);
        Ok(())
    }

    fn ends(&self, channel: &ChannelName) -> Option<Ends> {
        self.shared.view.read().state.log(channel).map(|log| log.ends())
    }

    fn channels(&self, after: Option<&ChannelName>, limit: usize) -> Vec<(ChannelName, Ends)> {
        self.shared.view.read().state.channels(after, limit)
    }

    fn read(&self, channel: &ChannelName, from: u64, limit: ReadLimit) -> Result<Page, ReadError> {
        self.shared.read(channel, from, limit)
    }

    fn lost(&self, channel: &ChannelName, from: u64) -> Option<Range<u64>> {
        self.shared.view.read().state.lost(channel, from)
    }

    fn record(&self, key: &Key) -> Option<Record> {
        self.shared.view.read().state.record(key).cloned()
    }

    fn records(&self, kind: Kind, after: Option<&Key>, limit: usize) -> Vec<Record> {
        self.shared.view.read().state.records(kind, after, limit)
    }

    fn close(&self) {
        self.queue.close();
        self.shared.tidy.close();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // Who is told something by one of them may let go of the store, and
            // be the last to do so: it does not wait for itself.
            if thread.thread().id() == thread::current().id() {
                continue;
            }
            // A thread that panicked has said so itself, and all that waited
            // for it was answered.
            let _ = thread.join();
        }
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.close();
    }
}

/// What a change takes, about; never less than its payload.
fn change_bytes(change: &Change) -> usize {
    let own = match change {
        Change::Begin { .. } | Change::Skip { .. } | Change::Forget { .. } => 0,
        Change::Append(message) => {
            let receivers = match message.audience() {
                Audience::Channel => 0,
                Audience::Senders(senders) => senders.len() * 4,
            };
            usize::try_from(message_bytes(message)).unwrap_or(usize::MAX).saturating_add(receivers)
        }
        Change::Put(Record::Callback(callback)) => callback.url.len() + callback.channels.len() * 160,
        Change::Put(Record::Value { name, bytes }) => name.len() + bytes.len(),
        Change::Put(Record::Sender { .. } | Record::Join { .. }) => 0,
        Change::Delete(Key::Value(name)) => name.len(),
        Change::Delete(_) => 0,
    };
    own.saturating_add(CHANGE_BYTES)
}
