//! Opening files that an operator named.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Opens a file to be read. What is none is an error: a pipe would be waited for,
/// and a device may have no end.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    File::open(path)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_pipe_a_device_and_a_folder_are_no_files_and_nobody_waits_for_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("it is there").success());
        for path in [&*pipe, Path::new("/dev/zero"), folder.path()] {
            let refused = open(path).expect_err("it is no file");
            assert_eq!(refused.to_string(), "it is not a file", "{}", path.display());
        }
        assert_eq!(
            open(&folder.path().join("none")).map(drop).map_err(|error| error.kind()),
            Err(io::ErrorKind::NotFound)
        );
    }
}
