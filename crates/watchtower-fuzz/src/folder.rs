//! Where targets have their files: in memory, where there is such a file system. To wait for a
//! disk tells nothing here, and is nearly all that an input would take.

use std::path::Path;

use tempfile::TempDir;

/// The file system in memory that Linux has.
const IN_MEMORY: &str = "/dev/shm";

/// A new folder, which is gone when this is dropped.
pub(crate) fn new() -> TempDir {
    let in_memory = Path::new(IN_MEMORY);
    let folder = if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
    folder.expect("a folder")
}
