//! What durable channels are kept in: the store on disk, behind the hub's port.
//!
//! Knows no channel's members and no protocol. Nothing here runs on a worker of
//! the runtime but what does not wait.

mod counts;
mod readers;
mod retention;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use watchtower_hub::{
    Appended, ChannelName, Ends, Ledger, Message, NotKept, NotRead, Page, ReadLimit, Settings, WasRead,
};
use watchtower_store::{Change, DiskOptions, DiskStore, Notice, OpenError, Refused, Store};

pub(crate) use self::counts::DiskCounts;
use self::counts::Show;
use self::readers::Readers;
use self::retention::Retainer;

/// The folder in `data_dir` that the store is in.
const FOLDER: &str = "store";

/// The store on disk. Dropping it closes it.
pub(crate) struct DiskLedger {
    store: Arc<DiskStore>,
    readers: Readers,
    /// Drops what is kept no longer.
    retainer: Mutex<Option<Retainer>>,
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
        let store = Arc::new(DiskStore::open(options)?);
        let cannot_start = |source: io::Error| OpenError::Io {
            doing: "cannot start a thread for",
            path: data_dir.to_owned(),
            source,
        };
        let readers = Readers::start(&store).map_err(cannot_start)?;
        let retainer = Retainer::start(store.clone(), settings).map_err(cannot_start)?;
        Ok(DiskLedger { store, readers, retainer: Mutex::new(Some(retainer)), counts })
    }

    /// What shows its counts.
    pub(crate) fn collector(&self) -> Box<dyn Collector> {
        Box::new(Show { counts: self.counts.clone(), store: self.store.clone() })
    }

    /// Answers all that was submitted, and refuses what comes then. Waits for
    /// the disk.
    pub(crate) fn close(&self) {
        drop(self.retainer.lock().take());
        self.readers.close();
        self.store.close();
    }
}

impl Ledger for DiskLedger {
    fn append(&self, messages: Vec<Message>, done: Appended) -> Result<(), NotKept> {
        let mut changes = Vec::with_capacity(messages.len() + 1);
        for message in messages {
            let position = message.position();
            if position.offset == 1 {
                changes.push(Change::Begin { channel: message.channel().clone(), epoch: position.epoch });
            }
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

    fn channels(&self, after: Option<&ChannelName>, limit: usize) -> Vec<(ChannelName, Ends)> {
        self.store.channels(after, limit)
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
        Notice::SetAside { .. } | Notice::Untidy { .. } => tracing::warn!("{notice}"),
        Notice::Unfinished { .. } => tracing::info!("{notice}"),
    }
}
