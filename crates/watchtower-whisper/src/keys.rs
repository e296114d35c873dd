//! The key of a peer and the keys of others, in a directory ([whispernet: 13]).
//!
//! A file is written aside, synced and put in its place: whatever happens, it
//! is there whole, or not at all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use watchtower_protocols::whispernet::safe_text::safe_nick;
use watchtower_protocols::whispernet::{Identity, PublicKey};
use zeroize::Zeroizing;

use crate::{StartError, clock};

/// The file of the peer's own key.
const KEY_FILE: &str = "whispernet.key";

/// The file of others' keys.
const PINS_FILE: &str = "whispernet.pins";

/// How many nicks are pinned.
pub(crate) const PINS_MAX: usize = 10_000;

/// The longest file of a key that is read: 32 bytes in base64 are far shorter.
const KEY_BYTES_MAX: u64 = 1 << 10;

/// The longest file of pins that is read: so many nicks take less.
const PINS_BYTES_MAX: u64 = 16 << 20;

/// The bits of a mode that let others in.
const OTHERS: u32 = 0o077;

/// Those that let them write.
const OTHERS_WRITE: u32 = 0o022;

/// The key that is in `dir`, or a new one that is from now on.
pub(crate) fn identity(dir: &Path) -> Result<Identity, StartError> {
    make_dir(dir)?;
    let path = dir.join(KEY_FILE);
    if let Some(identity) = read_identity(&path)? {
        return Ok(identity);
    }
    let seed = Zeroizing::new(clock::random::<32>());
    let text = Zeroizing::new(format!("{}\n", STANDARD.encode(*seed)));
    match write(&path, text.as_bytes(), Existing::Stays) {
        Ok(()) => Ok(Identity::from_seed(&seed)),
        // Another peer was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read_identity(&path)?.ok_or_else(|| wrong(&path, "it comes and goes"))
        }
        Err(error) => Err(wrong(&path, format!("cannot write it: {error}"))),
    }
}

fn make_dir(dir: &Path) -> Result<(), StartError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| wrong(dir, format!("cannot make this directory: {error}")))
}

fn read_identity(path: &Path) -> Result<Option<Identity>, StartError> {
    let Some((file, text)) = read(path, KEY_BYTES_MAX)? else { return Ok(None) };
    let text = Zeroizing::new(text);
    let mode = mode_of(&file, path)?;
    if mode & OTHERS != 0 {
        let reason = format!(
            "others on this machine may read or change this private key (mode {mode:04o}); \
             if nobody has, run: chmod 600 {}",
            path.display()
        );
        return Err(wrong(path, reason));
    }
    let seed = STANDARD.decode(text.trim_ascii()).ok().map(Zeroizing::new);
    let seed = seed.and_then(|seed| <[u8; 32]>::try_from(&**seed).ok()).map(Zeroizing::new);
    let Some(seed) = seed else {
        let reason = "it is no private key: expected 32 bytes in base64; put a copy of it back, or \
                      remove it for a new key, which others will be warned of";
        return Err(wrong(path, reason));
    };
    Ok(Some(Identity::from_seed(&seed)))
}

fn mode_of(file: &File, path: &Path) -> Result<u32, StartError> {
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    Ok(metadata.permissions().mode() & 0o7777)
}

/// A file and what is in it; `None` when there is none.
fn read(path: &Path, bytes_max: u64) -> Result<Option<(File, Vec<u8>)>, StartError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(path, &error)),
    };
    let mut bytes = Vec::new();
    (&file).take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(wrong(path, format!("expected at most {bytes_max} bytes")));
    }
    Ok(Some((file, bytes)))
}

/// What becomes of a file that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Stays,
    IsReplaced,
}

/// Writes a file that its owner alone may read.
fn write(path: &Path, bytes: &[u8], existing: Existing) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = NamedTempFile::with_prefix_in(".whispernet.", dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    match existing {
        Existing::Stays => file.persist_noclobber(path)?,
        Existing::IsReplaced => file.persist(path)?,
    };
    // The name is in the directory.
    File::open(dir)?.sync_all()
}

fn unreadable(path: &Path, error: &io::Error) -> StartError {
    wrong(path, format!("cannot read it: {error}"))
}

fn wrong(path: &Path, reason: impl Into<String>) -> StartError {
    StartError::File { path: path.to_owned(), reason: reason.into() }
}

/// The keys that nicks had first, and where they are kept.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    /// Without one they last as long as the peer.
    path: Option<PathBuf>,
    /// By the nick as it is shown. Invariant: at most [`PINS_MAX`].
    keys: BTreeMap<String, PublicKey>,
    is_saved: bool,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    nick: Cow<'a, str>,
    key: Cow<'a, str>,
}

impl Pins {
    /// What is kept in `dir`.
    pub(crate) fn load(dir: &Path) -> Result<Pins, StartError> {
        make_dir(dir)?;
        let path = dir.join(PINS_FILE);
        let mut keys = BTreeMap::new();
        if let Some((file, text)) = read(&path, PINS_BYTES_MAX)? {
            let mode = mode_of(&file, &path)?;
            if mode & OTHERS_WRITE != 0 {
                let reason = format!(
                    "others on this machine may change whom this peer trusts (mode {mode:04o}); \
                     if nobody has, run: chmod 600 {}",
                    path.display()
                );
                return Err(wrong(&path, reason));
            }
            let lines = text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
            for (number, line) in lines {
                let Some((nick, key)) = pin(line) else {
                    let reason = format!(
                        "line {} is no pin of a nick to a key; remove the line, after which the nick is \
                         anybody's who signs it next",
                        number + 1
                    );
                    return Err(wrong(&path, reason));
                };
                keys.insert(nick, key);
            }
        }
        if keys.len() > PINS_MAX {
            return Err(wrong(
                &path,
                format!("expected at most {PINS_MAX} lines; remove those of nicks long gone"),
            ));
        }
        Ok(Pins { path: Some(path), keys, is_saved: true })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, PublicKey)> {
        self.keys.iter().map(|(nick, key)| (&**nick, *key))
    }

    /// One more, if there is room.
    pub(crate) fn add(&mut self, nick: &str, key: PublicKey) {
        if let Some(nick) = safe_nick(nick)
            && self.keys.len() < PINS_MAX
        {
            self.keys.insert(nick, key);
            self.is_saved = false;
        }
    }

    /// What is to be saved, if anything has changed since the last time.
    pub(crate) fn unsaved(&mut self) -> Option<Unsaved> {
        let path = self.path.clone()?;
        if std::mem::replace(&mut self.is_saved, true) {
            return None;
        }
        let mut text = Vec::new();
        for (nick, key) in &self.keys {
            let line = Line { nick: nick.into(), key: key.to_string().into() };
            serde_json::to_writer(&mut text, &line).expect("two strings are always JSON");
            text.push(b'\n');
        }
        Some(Unsaved { path, text })
    }

    /// They could not be saved: the next time is another attempt.
    pub(crate) fn not_saved(&mut self) {
        self.is_saved = false;
    }
}

fn pin(line: &[u8]) -> Option<(String, PublicKey)> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    Some((safe_nick(&line.nick)?, PublicKey::parse(&line.key)?))
}

/// Pins that are to be saved.
pub(crate) struct Unsaved {
    path: PathBuf,
    text: Vec<u8>,
}

impl Unsaved {
    /// Waits for the disk: not for a thread that others wait for.
    pub(crate) fn save(&self) -> Result<(), String> {
        let saved = write(&self.path, &self.text, Existing::IsReplaced);
        saved.map_err(|error| format!("{}: cannot write it: {error}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// What is said of what is wrong, without the folder's name.
    fn complaint(dir: &TempDir, error: &StartError) -> String {
        error.to_string().replace(&format!("{}/", dir.path().display()), "")
    }

    /// [whispernet: 13] "made at first start and kept"
    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        let first = identity(&inner).unwrap().public_key();
        assert_eq!(identity(&inner).unwrap().public_key(), first);
        assert_eq!((mode(&inner), mode(&inner.join(KEY_FILE))), (0o700, 0o600));
        assert_ne!(identity(dir.path()).unwrap().public_key(), first);
        let files = fs::read_dir(&inner).unwrap().count();
        assert_eq!(files, 1, "nothing else is left behind");
    }

    #[test]
    fn a_key_that_others_may_read_or_change_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        identity(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        for mode in [0o644, 0o640, 0o620, 0o601] {
            set_mode(&path, mode);
            let reason = format!(
                "whispernet.key: others on this machine may read or change this private key \
                 (mode {mode:04o}); if nobody has, run: chmod 600 whispernet.key"
            );
            assert_eq!(complaint(&dir, &identity(dir.path()).unwrap_err()), reason);
        }
        set_mode(&path, 0o400);
        identity(dir.path()).unwrap();
    }

    #[test]
    fn a_damaged_key_is_refused_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        identity(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        let whole = fs::read_to_string(&path).unwrap();
        let damaged = "whispernet.key: it is no private key: expected 32 bytes in base64; put a copy of \
                       it back, or remove it for a new key, which others will be warned of";
        for text in ["", "\n", &whole[..20], &whole.replace('=', "!"), &format!("{whole}{whole}")] {
            fs::write(&path, text).unwrap();
            assert_eq!(complaint(&dir, &identity(dir.path()).unwrap_err()), damaged);
        }
        fs::write(&path, "x".repeat(2_000)).unwrap();
        let long = "whispernet.key: expected at most 1024 bytes";
        assert_eq!(complaint(&dir, &identity(dir.path()).unwrap_err()), long);
    }

    fn key(number: u8) -> PublicKey {
        Identity::from_seed(&[number; 32]).public_key()
    }

    #[test]
    fn pins_are_read_as_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut pins = Pins::load(dir.path()).unwrap();
        assert!(pins.unsaved().is_none());
        pins.add("goldy \"the\"\nfish\u{200b}", key(1));
        pins.add("phil", key(2));
        pins.add("\u{200b}", key(3));
        pins.unsaved().unwrap().save().unwrap();
        assert!(pins.unsaved().is_none());
        let path = dir.path().join(PINS_FILE);
        assert_eq!(mode(&path), 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().last().unwrap(), format!(r#"{{"nick":"phil","key":"{}"}}"#, key(2)));
        let read: Vec<_> = Pins::load(dir.path()).unwrap().iter().map(|(_, key)| key).collect();
        assert_eq!(read, [key(1), key(2)]);
    }

    #[test]
    fn pins_that_others_may_change_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut pins = Pins::load(dir.path()).unwrap();
        pins.add("phil", key(2));
        pins.unsaved().unwrap().save().unwrap();
        let path = dir.path().join(PINS_FILE);
        set_mode(&path, 0o664);
        let reason = "whispernet.pins: others on this machine may change whom this peer trusts \
                      (mode 0664); if nobody has, run: chmod 600 whispernet.pins";
        assert_eq!(complaint(&dir, &Pins::load(dir.path()).unwrap_err()), reason);
        set_mode(&path, 0o644);
        assert_eq!(Pins::load(dir.path()).unwrap().iter().count(), 1);
    }

    #[test]
    fn pins_that_cannot_be_saved_are_saved_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        let mut pins = Pins::load(&inner).unwrap();
        pins.add("goldy", key(1));
        fs::remove_dir(&inner).unwrap();
        assert!(pins.unsaved().unwrap().save().unwrap_err().contains("cannot write it"));
        pins.not_saved();
        fs::create_dir(&inner).unwrap();
        pins.unsaved().unwrap().save().unwrap();
    }

    #[test]
    fn damaged_pins_are_refused_with_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let good = format!(r#"{{"nick":"phil","key":"{}"}}"#, key(2));
        for bad in ["x", "{}", r#"{"nick":"phil","key":"AAAA"}"#, &good[1..], &good.replace("phil", " ")] {
            fs::write(dir.path().join(PINS_FILE), format!("{good}\n{bad}\n")).unwrap();
            let reason = "whispernet.pins: line 2 is no pin of a nick to a key; remove the line, after \
                          which the nick is anybody's who signs it next";
            assert_eq!(complaint(&dir, &Pins::load(dir.path()).unwrap_err()), reason, "{bad}");
        }
    }
}
