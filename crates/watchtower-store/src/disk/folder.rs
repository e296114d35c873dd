//! The folder of a store: its lock, its version, the names of its files, and
//! where damaged ones go.
//!
//! Knows nothing of what is in a segment beyond its header.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::at;
use crate::{Notice, Observer, OpenError};

/// The version of the format that is written, and the latest one that is read.
pub(crate) const VERSION: u32 = 1;

/// The bits of a mode that let others in.
const OTHERS: u32 = 0o077;

/// A folder that this process has for itself while this lives.
pub(crate) struct Folder {
    path: PathBuf,
    observer: Observer,
    /// None in a folder to be read in which nobody has left one.
    _lock: Option<File>,
}

/// What the file `store` says.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    Id([u8; 16]),
    Newer(u32),
    Damaged,
}

/// The numbers of the segments that a file stands for, as in its name: one, or
/// several that were merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Numbers {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Numbers {
    pub(crate) fn one(number: u64) -> Numbers {
        Numbers { first: number, last: number }
    }

    pub(crate) fn contains(self, other: Numbers) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Those in the name of a segment or of its index.
    fn parse(name: &str) -> Option<Numbers> {
        let stem = name.strip_suffix(".log").or_else(|| name.strip_suffix(".index"))?;
        let (first, last) = stem.split_once('-')?;
        let numbers = Numbers { first: first.parse().ok()?, last: last.parse().ok()? };
        let is_ours = numbers.log_name().strip_suffix(".log") == Some(stem);
        (is_ours && numbers.first <= numbers.last).then_some(numbers)
    }

    pub(super) fn log_name(self) -> String {
        format!("{:010}-{:010}.log", self.first, self.last)
    }
}

impl Folder {
    /// Whether there is a store, damaged or not.
    pub(crate) fn is_store(path: &Path) -> Result<bool, OpenError> {
        let look = |name, is: fn(&Metadata) -> bool| match fs::metadata(path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => found.map(|found| is(&found)).map_err(at("cannot look into", path)),
        };
        Ok(look("log", Metadata::is_dir)? || look("store", Metadata::is_file)?)
    }

    /// Takes the folder, which is made when it is not there.
    pub(crate) fn lock(path: &Path, observer: Observer) -> Result<Folder, OpenError> {
        for folder in [path.to_owned(), path.join("log")] {
            make_folder(&folder).map_err(at("cannot make", &folder))?;
        }
        let lock = private().create(true).truncate(false).open(path.join("lock")).map(Some);
        Folder::locked(path, observer, lock, File::try_lock)
    }

    /// Takes the folder to read it, with others who do. Nothing is changed: it may be
    /// one that cannot be.
    pub(crate) fn lock_to_read(path: &Path, observer: Observer) -> Result<Folder, OpenError> {
        let lock = match File::open(path.join("lock")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        };
        Folder::locked(path, observer, lock, File::try_lock_shared)
    }

    fn locked(
        path: &Path,
        observer: Observer,
        lock: io::Result<Option<File>>,
        take: impl FnOnce(&File) -> Result<(), TryLockError>,
    ) -> Result<Folder, OpenError> {
        let lock_path = path.join("lock");
        let lock = lock.map_err(at("cannot open", &lock_path))?;
        match lock.as_ref().map_or(Ok(()), take) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { folder: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(at("cannot lock", &lock_path)(error)),
        }
        let folder = Folder { path: path.to_owned(), observer, _lock: lock };
        folder.look_at_mode().map_err(at("cannot look at", path))?;
        Ok(folder)
    }

    /// Says if others may look into the folder: what is in it was written for its
    /// owner alone, but may have been copied.
    fn look_at_mode(&self) -> io::Result<()> {
        let mode = fs::metadata(&self.path)?.permissions().mode() & 0o7777;
        if mode & OTHERS != 0 {
            self.notice(&Notice::Exposed { folder: self.path.clone(), mode });
        }
        Ok(())
    }

    pub(crate) fn notice(&self, notice: &Notice) {
        (self.observer)(notice);
    }

    /// Says that a file is not as it should be.
    pub(crate) fn damaged(&self, file: &Path, what: impl Into<String>) {
        self.notice(&Notice::Damaged { file: file.to_owned(), what: what.into() });
    }

    /// The id of this store; a new one is written if `write` and nothing is here.
    /// `from_segments` finds it when the file that says it is damaged.
    pub(crate) fn identity(
        &self,
        write: bool,
        from_segments: impl FnOnce() -> Result<Option<[u8; 16]>, OpenError>,
    ) -> Result<[u8; 16], OpenError> {
        let path = self.path.join("store");
        let is_new = match fs::read(&path) {
            Ok(text) => match parse_identity(&text) {
                Identity::Id(id) => return Ok(id),
                Identity::Newer(found) => return Err(self.newer(found)),
                Identity::Damaged => {
                    self.damaged(&path, "the segments say the same");
                    false
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_new = self.segments()?.is_empty();
                if !is_new {
                    self.damaged(&path, "it is missing; the segments say the same");
                }
                is_new
            }
            Err(error) => return Err(at("cannot read", &path)(error)),
        };
        let id = match from_segments()? {
            Some(id) => id,
            None if is_new => random().map_err(at("there is no randomness for", &path))?,
            None => return Err(OpenError::NotAStore { folder: self.path.clone() }),
        };
        if write {
            if !is_new && path.exists() {
                self.set_aside(&path, false).map_err(at("cannot set aside", &path))?;
            }
            self.write_whole(&path, identity_text(&id).as_bytes()).map_err(at("cannot write", &path))?;
        }
        Ok(id)
    }

    pub(crate) fn newer(&self, found: u32) -> OpenError {
        OpenError::Newer { folder: self.path.clone(), found, known: VERSION }
    }

    /// The segments that there are, oldest first, with those that are part of
    /// another one, and those of which the index alone is there.
    pub(crate) fn segments(&self) -> Result<Vec<Numbers>, OpenError> {
        let log = self.path.join("log");
        let mut found = Vec::new();
        for entry in fs::read_dir(&log).map_err(at("cannot list", &log))? {
            let entry = entry.map_err(at("cannot list", &log))?;
            found.extend(entry.file_name().to_str().and_then(Numbers::parse));
        }
        found.sort_unstable_by_key(|numbers| (numbers.first, std::cmp::Reverse(numbers.last)));
        found.dedup();
        Ok(found)
    }

    /// Removes what was being written when a process ended.
    pub(crate) fn remove_unfinished(&self) -> Result<(), OpenError> {
        let log = self.path.join("log");
        for entry in fs::read_dir(&log).map_err(at("cannot list", &log))? {
            let path = entry.map_err(at("cannot list", &log))?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(&path).map_err(at("cannot remove", &path))?;
            }
        }
        Ok(())
    }

    pub(crate) fn log_path(&self, numbers: Numbers) -> PathBuf {
        self.path.join("log").join(numbers.log_name())
    }

    /// The file of a segment; `None` if it is missing.
    pub(crate) fn segment(&self, numbers: Numbers, how: &OpenOptions) -> io::Result<Option<File>> {
        match how.open(self.log_path(numbers)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// An empty file in the place of a segment that is missing, to be put right as
    /// one that was cut off.
    pub(crate) fn stand_in(&self, numbers: Numbers) -> io::Result<File> {
        private().create(true).truncate(false).open(self.log_path(numbers))
    }

    /// How much may still be written, in bytes.
    pub(crate) fn room(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.path)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Writes a file as a whole, so that there is the old one or the new one.
    pub(crate) fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut new = NewFile::create(path)?;
        new.file().write_all(bytes)?;
        new.file().sync_all()?;
        new.publish()?;
        Ok(())
    }

    /// Moves a file to where damaged ones are, or, when it is to `stay` where it
    /// is, gives it a second name there.
    pub(crate) fn set_aside(&self, path: &Path, stay: bool) -> io::Result<()> {
        let folder = self.path.join("damaged");
        make_folder(&folder)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let free = (1u32..).map(|count| folder.join(format!("{name}.{count}"))).find(|to| !to.exists());
        let to = free.ok_or(io::ErrorKind::AlreadyExists)?;
        if stay {
            fs::hard_link(path, &to)?
        } else {
            fs::rename(path, &to)?
        }
        sync_parent(&to)?;
        self.notice(&Notice::SetAside { file: path.to_owned(), to });
        Ok(())
    }
}

/// A file that has no name yet. When it is dropped so, as when the disk is full,
/// it takes no room any more.
pub(crate) struct NewFile {
    /// `None` once it has its name.
    file: Option<File>,
    path: PathBuf,
}

impl NewFile {
    /// A file that is to be at `path`, where another one may be.
    pub(crate) fn create(path: &Path) -> io::Result<NewFile> {
        let file = private().create(true).truncate(true).open(temporary(path))?;
        Ok(NewFile { file: Some(file), path: path.to_owned() })
    }

    /// The file, to be written and synced.
    pub(crate) fn file(&mut self) -> &mut File {
        self.file.as_mut().expect("publishing takes it, and consumes this")
    }

    /// Gives the file its name, which is on disk then. What had it before is
    /// gone.
    pub(crate) fn publish(mut self) -> io::Result<File> {
        fs::rename(temporary(&self.path), &self.path)?;
        let file = self.file.take().expect("publishing consumes this");
        sync_parent(&self.path)?;
        Ok(file)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // If it cannot be removed now, it is when the store is opened again.
            let _ = fs::remove_file(temporary(&self.path));
        }
    }
}

/// The file beside a segment that says what is where in it.
pub(crate) fn index_path(log_path: &Path) -> PathBuf {
    log_path.with_extension("index")
}

/// The name of a file that is not finished yet.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

/// Has the entry of a file in its folder on disk.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// Nobody else is to read what is kept.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

fn identity_text(id: &[u8; 16]) -> String {
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("watchtower store\nversion {VERSION}\nid {id}\n");
    format!("{text}check {:08x}\n", crc32fast::hash(text.as_bytes()))
}

fn parse_identity(bytes: &[u8]) -> Identity {
    let parsed = || {
        let text = std::str::from_utf8(bytes).ok()?;
        let (checked, check) = text.split_at_checked(text.len().checked_sub("check 01234567\n".len())?)?;
        let version = checked.strip_prefix("watchtower store\nversion ")?;
        let (version, rest) = version.split_once('\n')?;
        let version: u32 = version.parse().ok()?;
        if check != format!("check {:08x}\n", crc32fast::hash(checked.as_bytes())) {
            return None;
        }
        if version > VERSION {
            return Some(Identity::Newer(version));
        }
        let id = u128::from_str_radix(rest.strip_prefix("id ")?.strip_suffix('\n')?, 16).ok()?;
        Some(Identity::Id(id.to_be_bytes()))
    };
    parsed().unwrap_or(Identity::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_is_told_from_a_damaged_file() {
        let text = identity_text(&[0xab; 16]);
        assert_eq!(parse_identity(text.as_bytes()), Identity::Id([0xab; 16]));
        for at in 0..text.len() {
            let mut flipped = text.clone().into_bytes();
            flipped[at] ^= 1;
            assert_eq!(parse_identity(&flipped), Identity::Damaged, "{at}");
            assert_eq!(parse_identity(&text.as_bytes()[..at]), Identity::Damaged, "{at}");
        }
        let newer = "watchtower store\nversion 2\nwhatever\n";
        let newer = format!("{newer}check {:08x}\n", crc32fast::hash(newer.as_bytes()));
        assert_eq!(parse_identity(newer.as_bytes()), Identity::Newer(2));
    }

    #[test]
    fn a_name_that_we_would_not_give_is_not_ours() {
        assert_eq!(Numbers::parse("0000000001-0000000003.log"), Some(Numbers { first: 1, last: 3 }));
        assert_eq!(Numbers::parse("0000000002-0000000002.index"), Some(Numbers::one(2)));
        for other in ["1-3.log", "0000000003-0000000001.log", "0000000001-0000000003.tmp", "x.log", ""] {
            assert_eq!(Numbers::parse(other), None, "{other}");
        }
    }
}
