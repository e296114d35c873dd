//! The store on disk keeps what every store promises, whether its files are
//! large or small.

use tempfile::TempDir;
use watchtower_store::conformance::Subject;
use watchtower_store::{DiskOptions, DiskStore, Notice, Store};

struct Disk {
    folder: TempDir,
    segment_bytes: u64,
}

impl Disk {
    fn new(segment_bytes: u64) -> Disk {
        Disk { folder: tempfile::tempdir().unwrap(), segment_bytes }
    }
}

impl Subject for Disk {
    fn open(&mut self) -> Box<dyn Store> {
        let options = DiskOptions {
            segment_bytes: self.segment_bytes,
            ..DiskOptions::new(self.folder.path().join("store"))
        };
        let options = options.observed(|notice| match notice {
            // Where offsets were given up.
            Notice::Missing { .. } => {}
            notice => panic!("there is nothing to tell: {notice}"),
        });
        Box::new(DiskStore::open(options).unwrap())
    }
}

mod large {
    use super::Disk;
    watchtower_store::conformance!(Disk::new(64 << 20));
}

/// Files are merged all the time.
mod small {
    use super::Disk;
    watchtower_store::conformance!(Disk::new(4096));
}
