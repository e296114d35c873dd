//! What durable channels are kept in: the store on disk, behind the hub's port.
//!
//! Knows no channel's members and no protocol. Nothing here runs on a worker of
//! the runtime but what does not wait.

mod readers;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use watchtower_hub::{Appended, ChannelName, Ends, Ledger, Message, NotKept, NotRead, ReadLimit, WasRead};
use watchtower_store::{Change, DiskOptions, DiskStore, Notice, OpenError, Refused, Store};

use self::readers::Readers;

/// The folder in `data_dir` that the store is in.
const FOLDER: &str = "store";

/// The store on disk. Dropping it closes it.
pub(crate) struct DiskLedger {
    store: Arc<DiskStore>,
    readers: Readers,
}

impl DiskLedger {
    /// Opens what is kept in this data directory, which is made when it is not
    /// there. Waits for the disk. Damage is told to the log, and what is not
    /// damaged is served.
    ///
    /// # Errors
    ///
    /// [`OpenError`], whose text says what a person can do.
    pub(crate) fn open(data_dir: &Path) -> Result<DiskLedger, OpenError> {
        let store = Arc::new(DiskStore::open(DiskOptions::new(data_dir.join(FOLDER)).observed(tell))?);
        let cannot_start = |source: io::Error| OpenError::Io {
            doing: "cannot start a thread for",
            path: data_dir.to_owned(),
            source,
        };
        let readers = Readers::start(&store).map_err(cannot_start)?;
        Ok(DiskLedger { store, readers })
    }

    /// Answers all that was submitted, and refuses what comes then. Waits for
    /// the disk.
    pub(crate) fn close(&self) {
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
        let answer = |result: Result<(), Refused>| done(result.map_err(|refused| not_kept(&refused)));
        self.store.offer(changes, Box::new(answer)).map_err(|(refused, _)| not_kept(&refused))
    }

    fn read(&self, channel: &ChannelName, from: u64, limit: ReadLimit, done: WasRead) -> Result<(), NotRead> {
        self.readers.ask(channel, from, limit, done)
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

/// Writes what the store has to tell a person to the log.
fn tell(notice: &Notice) {
    match notice {
        Notice::Failing { .. } | Notice::Lost { .. } => tracing::error!("{notice}"),
        Notice::Damaged { .. } | Notice::SetAside { .. } | Notice::Untidy { .. } => {
            tracing::warn!("{notice}");
        }
        Notice::Unfinished { .. } | Notice::Recovered => tracing::info!("{notice}"),
    }
}
