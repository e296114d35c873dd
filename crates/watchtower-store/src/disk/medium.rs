//! Writing and syncing, in the one place where a test can have a disk fail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The disk as the writer sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct Medium {
    #[cfg(test)]
    pub(super) faults: std::sync::Arc<Faults>,
}

/// What is to fail, until it is taken back.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) write: std::sync::atomic::AtomicBool,
    pub(super) sync: std::sync::atomic::AtomicBool,
    pub(super) create: std::sync::atomic::AtomicBool,
}

impl Medium {
    pub(super) fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        if self.faults.write.load(std::sync::atomic::Ordering::SeqCst) {
            // As a disk that becomes full in the middle of it.
            file.write_all_at(&bytes[..bytes.len() / 2], at)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all_at(bytes, at)
    }

    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        if self.faults.sync.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        file.sync_data()
    }

    /// Whether a new file may be written at all.
    pub(super) fn check(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.faults.create.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}
