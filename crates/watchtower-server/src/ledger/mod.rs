//! What outlives the server: the store on disk, behind the hub's port, and behind
//! that of callbacks.
//!
//! Knows no channel's members and no protocol. Nothing here runs on a worker of
//! the runtime but what does not wait.

mod counts;
mod readers;
mod registry;
mod restore;
mod retained;
mod retention;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use smallvec::SmallVec;
use watchtower_hub::{
    Append, Appended, Appends, ChannelName, Ends, Hub, Ledger, Message, NotKept, NotRead, Note, Page,
    ReadLimit, Settings, Timestamp, WasRead,
};
use watchtower_store::{
    Callback, Change, DiskOptions, DiskStore, Key, Kind, Notice, OpenError, Record, Refused, Store,
};

pub(crate) use self::counts::DiskCounts;
use self::counts::Show;
use self::readers::Readers;
use self::registry::Registry;
use self::retention::Retainer;
use crate::callbacks::delivery::SubscriptionId;
use crate::callbacks::{self, Callbacks};

/// The folder in `data_dir` that the store is in.
const FOLDER: &str = "store";

/// How many logs are ended with one sync.
const FORGET_AT_ONCE: usize = 4096;

/// How long a store may be in use by a process that ends, and how often it is
/// looked.
const IN_USE_PATIENCE: Duration = Duration::from_secs(2);
const IN_USE_PAUSE: Duration = Duration::from_millis(50);

/// The store on disk. Dropping it closes it.
pub(crate) struct DiskLedger {
    store: Arc<DiskStore>,
    readers: Readers,
    registry: Registry,
    /// Drops what is kept no longer.
    retainer: Mutex<Option<Retainer>>,
    /// How many last messages were to be served when it was opened, and their bytes.
    retained: (usize, u64),
    counts: DiskCounts,
}

impl DiskLedger {
    /// Opens what is kept in this data directory, which is made when it is not
    /// there. Waits for the disk. Damage is told to the log, and what is not
    /// damaged is served. What the rules of `settings` do not keep is dropped from
    /// then on.
    ///
    /// # Errors
    ///
    /// [`OpenError`], whose text says what a person can do.
    pub(crate) fn open(
        data_dir: &Path,
        settings: Settings,
        counts: DiskCounts,
    ) -> Result<DiskLedger, OpenError> {
        let told = counts.clone();
        let options = DiskOptions::new(data_dir.join(FOLDER)).observed(move |notice| tell(notice, &told));
        let store = Arc::new(open(&options)?);
        let cannot_start = |error: io::Error| OpenError::Io {
            doing: "cannot start a thread for",
            path: data_dir.to_owned(),
            error,
        };
        let retained = set_retained_right(&store, &settings, counts.damage() > 0);
        forget_empty(&store, settings.limits.channels_max);
        let readers = Readers::start(&store).map_err(cannot_start)?;
        let retainer = Retainer::start(store.clone(), settings).map_err(cannot_start)?;
        let registry = Registry::new(store.clone());
        Ok(DiskLedger { store, readers, registry, retainer: Mutex::new(Some(retainer)), retained, counts })
    }

    /// What shows its counts.
    pub(crate) fn collector(&self) -> Box<dyn Collector> {
        Box::new(Show { counts: self.counts.clone(), store: self.store.clone() })
    }

    /// Gives the hub the senders that there were, with their joins. To be called
    /// before anybody is served.
    pub(crate) fn restore(&self, hub: &Hub, now: Timestamp) {
        let restored = restore::restore(&*self.store, hub, now);
        let given_up = restored.given_up.len();
        tracing::info!(
            senders = restored.senders,
            joins = restored.joins,
            "taken up from the data directory"
        );
        if given_up > 0 {
            tracing::warn!(
                joins = given_up,
                "joins were given up: limits.max_channels is reached, or their sender is gone"
            );
        }
        restored.given_up.into_iter().for_each(|key| self.registry.change(key, None));
    }

    /// Takes up the callback subscriptions that there were, after their senders.
    /// Needs a tokio runtime.
    pub(crate) fn restore_callbacks(&self, callbacks: &Callbacks, now: Timestamp) {
        for record in self.store.records(Kind::Callback, None, usize::MAX) {
            let key = record.key();
            if let Err(reason) = restore::restore_callback(record, callbacks, now) {
                tracing::warn!(reason, "a callback subscription was given up");
                self.registry.change(key, None);
            }
        }
    }

    /// Tries again what the disk refused of senders, joins and callbacks. To be called about once a
    /// second.
    pub(crate) fn retry(&self) {
        self.registry.retry();
    }

    /// Answers all that was submitted, and refuses what comes then. Waits for
    /// the disk.
    pub(crate) fn close(&self) {
        drop(self.retainer.lock().take());
        self.readers.close();
        self.registry.close();
        self.store.close();
    }
}

impl Ledger for DiskLedger {
    fn append(&self, messages: Appends, done: Appended) -> Result<(), NotKept> {
        let mut changes = SmallVec::<[Change; 1]>::new();
        for Append { message, is_retained } in messages {
            let position = message.position();
            if position.offset == 1 {
                changes.push(Change::Begin { channel: message.channel().clone(), epoch: position.epoch });
            }
            changes.extend(is_retained.then(|| retained::change(&message)));
            changes.push(Change::Append(message));
        }
        let counts = self.counts.clone();
        let answer = move |result: Result<(), Refused>| {
            let result = result.map_err(|refused| not_kept(&refused));
            counts.answered(result.as_ref().map(|&()| ()));
            done(result);
        };
        self.store.offer(changes, Box::new(answer)).map_err(|(refused, _)| {
            let reason = not_kept(&refused);
            self.counts.answered(Err(&reason));
            reason
        })
    }

    fn read(&self, channel: &ChannelName, from: u64, limit: ReadLimit, done: WasRead) -> Result<(), NotRead> {
        let counts = self.counts.clone();
        let answer = move |result: Result<Page, NotRead>| {
            if matches!(result, Err(NotRead::Failed(_))) {
                counts.unread();
            }
            done(result);
        };
        self.readers.ask(channel, from, limit, Box::new(answer))
    }

    fn ends(&self, channel: &ChannelName) -> Option<Ends> {
        self.store.ends(channel)
    }

    fn lost(&self, channel: &ChannelName, from: u64) -> Option<Range<u64>> {
        self.store.lost(channel, from)
    }

    fn retained(&self, channel: &ChannelName) -> Option<Message> {
        self.store.record(&Key::retained(channel))?.as_retained()
    }

    fn retained_in_all(&self) -> (usize, u64) {
        self.retained
    }

    fn logs(&self) -> usize {
        self.store.logs()
    }

    fn channels(&self, after: Option<&ChannelName>, limit: usize) -> Vec<(ChannelName, Ends)> {
        self.store.channels(after, limit)
    }

    fn note(&self, note: Note) {
        self.registry.note(note);
    }

    fn when_kept(&self, done: Appended) {
        self.registry.when_kept(done);
    }
}

impl callbacks::Records for DiskLedger {
    fn put(&self, record: &callbacks::Record) {
        self.registry.put(Record::Callback(Callback {
            id: record.id.to_bytes(),
            sender: record.sender,
            url: record.url.as_str().into(),
            channels: record.channels.clone(),
        }));
    }

    fn end(&self, id: SubscriptionId) {
        self.registry.change(Key::Callback(id.to_bytes()), None);
    }
}

impl fmt::Debug for DiskLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskLedger").finish_non_exhaustive()
    }
}

impl Drop for DiskLedger {
    fn drop(&mut self) {
        self.close();
    }
}

/// Opens a store that another process may just be leaving.
fn open(options: &DiskOptions) -> Result<DiskStore, OpenError> {
    let began = Instant::now();
    loop {
        match DiskStore::open(options.clone()) {
            Err(OpenError::InUse { .. }) if began.elapsed() < IN_USE_PATIENCE => thread::sleep(IN_USE_PAUSE),
            opened => return opened,
        }
    }
}

/// Has what channels retain be what they are to. To be called before anybody is
/// served. Returns how much it is.
fn set_retained_right(store: &DiskStore, settings: &Settings, is_damaged: bool) -> (usize, u64) {
    let renewed = if is_damaged { retained::renew(store, settings) } else { Ok(()) };
    let (served, ended) = retained::end_unserved(store, settings);
    if let Err(error) = renewed.and(ended) {
        tracing::warn!(%error, "what channels retain may not be their last message");
    }
    served
}

/// Ends the logs of which nothing is kept any more, not even a last message, when
/// there are so many that new ones may have no room. To be called before anybody
/// can know their epochs.
fn forget_empty(store: &DiskStore, logs_max: usize) {
    if store.logs() <= logs_max / 2 {
        return;
    }
    let is_empty = |channel: &ChannelName, ends: &Ends| {
        ends.messages() == 0 && store.record(&Key::retained(channel)).is_none()
    };
    let channels = store.channels(None, usize::MAX).into_iter();
    let empty = channels.filter(|(channel, ends)| is_empty(channel, ends));
    let mut forget = empty.map(|(channel, _)| Change::Forget { channel });
    let mut ended = 0;
    loop {
        let few: Vec<_> = forget.by_ref().take(FORGET_AT_ONCE).collect();
        if few.is_empty() {
            break;
        }
        ended += few.len();
        if let Err(refused) = store.commit(few).wait() {
            tracing::warn!(%refused, "logs of which nothing is kept could not be ended");
            return;
        }
    }
    tracing::info!(logs = ended, "logs of durable channels were ended, since nothing of them is kept");
}

fn not_kept(refused: &Refused) -> NotKept {
    match refused {
        Refused::Behind { .. } => NotKept::Behind,
        Refused::NotNext { .. } => NotKept::OutOfTurn,
        Refused::Closed => NotKept::Closed,
        Refused::TooLarge { .. } | Refused::Storage(_) => NotKept::Failed(refused.to_string().into()),
    }
}

/// Writes what the store has to tell a person to the log, and takes note of it.
fn tell(notice: &Notice, counts: &DiskCounts) {
    match notice {
        Notice::Failing { reason } => {
            counts.set_failing(Some(reason.clone()));
            tracing::error!("{notice}");
        }
        Notice::Recovered => {
            counts.set_failing(None);
            tracing::info!("{notice}");
        }
        Notice::Lost { .. } => {
            counts.damaged();
            tracing::error!("{notice}");
        }
        Notice::Damaged { .. } => {
            counts.damaged();
            tracing::warn!("{notice}");
        }
        Notice::Missing { .. }
        | Notice::MoreMissing { .. }
        | Notice::Exposed { .. }
        | Notice::SetAside { .. }
        | Notice::Untidy { .. } => {
            tracing::warn!("{notice}");
        }
        Notice::Unfinished { .. } => tracing::info!("{notice}"),
    }
}
