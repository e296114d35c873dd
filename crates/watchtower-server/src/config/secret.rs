//! The secret: what it may be, whether it is good enough to be reachable with, and the one
//! that is made and kept where none is configured.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use toml::de::DeValue;
use zeroize::Zeroizing;

use super::key::Value;
use super::value::text;
use super::{Config, ConfigError};
use crate::file;

/// The most bytes that a secret has: packet `S` gives its length in one byte
/// [packets: client to server].
const SECRET_BYTES_MAX: usize = 255;
/// How many random bytes a secret that is made has; it is written in hexadecimal.
const SECRET_BYTES_MADE: usize = 16;
/// The file in the data directory that a secret that was made is kept in.
const SECRET_FILE: &str = "secret_key";

/// Secrets that stand in documents, examples and lists, without case and punctuation.
const WELL_KNOWN: &[&str] = &[
    "1234",
    "12345",
    "123456",
    "12345678",
    "123456789",
    "1234567890",
    "admin",
    "changeit",
    "changeme",
    "changethis",
    "default",
    "example",
    "letmein",
    "mysecret",
    "mysecretkey",
    "none",
    "pass",
    "passw0rd",
    "password",
    "qwerty",
    "root",
    "secret",
    "secretkey",
    "test",
    "topsecret",
    "watchtower",
    "watchtowersareawesome",
    "yoursecret",
    "yoursecretkey",
];

/// A secret. `Debug` does not show it, and its memory is wiped when it goes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretKey(Zeroizing<String>);

/// How a server came by its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretOrigin {
    /// It was configured.
    Configured,
    /// It was made at an earlier start and read back from this file.
    Kept(PathBuf),
    /// It was made just now: [keep](Config::keep_secret) it and show it once, nobody knows it
    /// yet.
    Made {
        /// The file that it is to be kept in; without a data directory it is lost at the end.
        kept_in: Option<PathBuf>,
    },
}

impl SecretKey {
    /// A secret of this text.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    /// Whether there is none. Nothing matches an empty secret.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The secret itself, for signing and for the one notice that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a client gave this secret, in time that tells neither where they differ nor how
    /// long the secret is. An empty secret is matched by nothing, the empty text included.
    pub fn matches(&self, given: &[u8]) -> bool {
        let digest = |secret: &[u8]| <[u8; 32]>::from(Sha256::digest(secret));
        let is_same = digest(self.0.as_bytes()).ct_eq(&digest(given));
        !self.is_empty() & bool::from(is_same)
    }

    /// Why others could guess it; `None` if they could not.
    pub(super) fn weakness(&self) -> Option<&'static str> {
        match self {
            secret if secret.0.trim().is_empty() => Some("empty"),
            secret if secret.is_well_known() => Some("well known"),
            _ => None,
        }
    }

    fn is_well_known(&self) -> bool {
        let plain: String =
            self.0.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        WELL_KNOWN.contains(&plain.as_str())
    }

    fn make() -> Result<Self, ConfigError> {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES_MADE]);
        getrandom::fill(&mut *bytes).map_err(ConfigError::NoRandomness)?;
        Ok(Self::new(
            bytes
                .iter()
                .fold(String::with_capacity(2 * SECRET_BYTES_MADE), |hex, byte| hex + &format!("{byte:02x}")),
        ))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "SecretKey(empty)" } else { "SecretKey(hidden)" })
    }
}

/// Written as the empty text it is by default, or not at all.
impl Value for SecretKey {
    const SHOWN: bool = false;

    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        text(input, "a text in quotes").map(Self::new)
    }

    fn to_toml(&self) -> String {
        if self.is_empty() { "\"\"".to_owned() } else { "\"(hidden)\"".to_owned() }
    }
}

/// The check of `secret_key`.
pub(super) fn fits_a_packet(secret: &SecretKey) -> Result<(), String> {
    if secret.0.len() > SECRET_BYTES_MAX {
        return Err(format!("at most {SECRET_BYTES_MAX} bytes"));
    }
    Ok(())
}

impl Config {
    /// Refuses to be reachable with a secret that is empty or well known [running: serve].
    pub(super) fn check_exposure(&self) -> Result<(), ConfigError> {
        match self.secret_key.weakness() {
            Some(what) if !self.listens_on_loopback_only() => {
                Err(ConfigError::Exposed { listen: self.listen.to_string(), what })
            }
            _ => Ok(()),
        }
    }

    /// Gives a configuration without a secret one: the kept one, or one made now, which
    /// [`Config::keep_secret`] keeps. A file that others can read is refused and not put right
    /// in silence, since they may have read it. Call this once, before the server binds; a
    /// reload keeps the secret in use.
    ///
    /// # Errors
    /// [`ConfigError::Exposed`] beyond loopback, where a secret must be configured; what goes
    /// wrong with reading the file.
    pub fn fill_in_secret(&mut self) -> Result<SecretOrigin, ConfigError> {
        self.check_exposure()?;
        if !self.secret_key.is_empty() {
            return Ok(SecretOrigin::Configured);
        }
        let Some(data_dir) = &self.data_dir else {
            self.secret_key = SecretKey::make()?;
            return Ok(SecretOrigin::Made { kept_in: None });
        };
        let path = data_dir.join(SECRET_FILE);
        if let Some(secret) = read_kept(&path)? {
            self.secret_key = secret;
            return Ok(SecretOrigin::Kept(path));
        }
        self.secret_key = SecretKey::make()?;
        Ok(SecretOrigin::Made { kept_in: Some(path) })
    }

    /// Keeps a secret that was made, where it is to be kept: as the file `secret_key` of the
    /// data directory, readable by its owner alone. The directory, where it is made, can be
    /// entered by its owner alone. Call this once the server has bound, and show the secret
    /// then: a server that does not start leaves no secret behind that nobody was shown.
    ///
    /// # Errors
    /// What goes wrong with writing the file.
    pub fn keep_secret(&self, origin: &SecretOrigin) -> Result<(), ConfigError> {
        match (origin, &self.data_dir) {
            (SecretOrigin::Made { kept_in: Some(path) }, Some(data_dir)) => {
                keep(data_dir, path, &self.secret_key)
            }
            _ => Ok(()),
        }
    }
}

/// Reads the kept secret; `None` where there is no such file.
fn read_kept(path: &Path) -> Result<Option<SecretKey>, ConfigError> {
    let failed = |action| move |source| ConfigError::SecretFile { path: path.to_owned(), action, source };
    let file = match file::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("read the kept secret"))?,
    };
    // Asked of the open file, so that it cannot be exchanged between the question and the read.
    let metadata = file.metadata().map_err(failed("read the kept secret"))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::SecretFileOpen { path: path.to_owned(), mode });
    }
    let mut content = Zeroizing::new(Vec::new());
    file.take(SECRET_BYTES_MAX as u64 + 3)
        .read_to_end(&mut content)
        .map_err(failed("read the kept secret"))?;
    let secret = str::from_utf8(&content)
        .ok()
        .map(|line| SecretKey::new(line.trim_end_matches(['\r', '\n'])))
        .filter(|secret| !secret.0.trim().is_empty() && fits_a_packet(secret).is_ok());
    secret.map(Some).ok_or_else(|| ConfigError::SecretFileContent { path: path.to_owned() })
}

/// Writes the secret so that after a crash the file is there whole or not at all.
fn keep(data_dir: &Path, path: &Path, secret: &SecretKey) -> Result<(), ConfigError> {
    let failed = |path: &Path, action| {
        let path = path.to_owned();
        move |source| ConfigError::SecretFile { path, action, source }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(failed(data_dir, "make the data directory"))?;
    let unfinished = path.with_extension("new");
    let write = || {
        // What a crash left there is not written to: its mode is not known.
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(secret.expose().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(data_dir)?.sync_all()
    };
    write().map_err(failed(path, "keep the secret"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listen;

    fn config(listen: &str, secret: &str, data_dir: Option<&Path>) -> Config {
        Config {
            listen: listen.parse::<Listen>().unwrap(),
            secret_key: SecretKey::new(secret),
            data_dir: data_dir.map(Path::to_owned),
            ..Config::default()
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn beyond_loopback_an_empty_or_well_known_secret_is_refused() {
        for (secret, what) in [
            ("", "empty"),
            ("  ", "empty"),
            ("secret", "well known"),
            ("Change-Me!", "well known"),
            ("watchtowers_are_awesome", "well known"),
        ] {
            for listen in ["0.0.0.0:3033", "[::]:0", "192.0.2.1:3033"] {
                let mut config = config(listen, secret, None);
                let message = config.fill_in_secret().unwrap_err().to_string();
                assert!(message.contains(listen), "{message}");
                assert!(message.contains(&format!("secret_key is {what};")), "{message}");
                assert!(message.contains("set secret_key"), "{message}");
            }
            assert!(config("localhost:3033", secret, None).check_exposure().is_ok());
        }
        assert!(config("0.0.0.0:1", "nx2-41f", None).check_exposure().is_ok());
    }

    #[test]
    fn without_a_data_directory_every_start_makes_a_secret() {
        let mut first = config("127.0.0.1:0", "", None);
        let mut second = first.clone();
        let made = SecretOrigin::Made { kept_in: None };
        assert_eq!(first.fill_in_secret().unwrap(), made);
        assert_eq!(second.fill_in_secret().unwrap(), made);
        assert_ne!(first.secret_key, second.secret_key);
        assert_eq!(first.secret_key.expose().len(), 32);
    }

    #[test]
    fn a_secret_that_was_made_is_kept_for_its_owner_alone_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let file = data_dir.join("secret_key");
        let mut first = config("127.0.0.1:0", "", Some(&data_dir));
        let kept_in = Some(file.clone());
        let made = first.fill_in_secret().unwrap();
        assert_eq!(made, SecretOrigin::Made { kept_in });
        assert!(!data_dir.exists());
        first.keep_secret(&made).unwrap();
        assert_eq!((mode(&data_dir), mode(&file)), (0o700, 0o600));
        let content = fs::read_to_string(&file).unwrap();
        assert_eq!(content, format!("{}\n", first.secret_key.expose()));

        let mut second = config("127.0.0.1:0", "", Some(&data_dir));
        let kept = second.fill_in_secret().unwrap();
        assert_eq!(kept, SecretOrigin::Kept(file));
        second.keep_secret(&kept).unwrap();
        assert_eq!(second.secret_key, first.secret_key);
    }

    #[test]
    fn a_configured_secret_goes_before_the_kept_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret_key"), "kept").unwrap();
        let mut config = config("127.0.0.1:0", "mine", Some(folder.path()));
        assert_eq!(config.fill_in_secret().unwrap(), SecretOrigin::Configured);
        assert_eq!(config.secret_key.expose(), "mine");
    }

    #[test]
    fn a_kept_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret_key");
        fs::write(&file, "kept").unwrap();
        for open in [0o644, 0o640, 0o604, 0o660] {
            fs::set_permissions(&file, fs::Permissions::from_mode(open)).unwrap();
            let refused = config("127.0.0.1:0", "", Some(folder.path())).fill_in_secret();
            let message = refused.unwrap_err().to_string();
            assert!(message.contains(&format!("(mode {open:04o})")), "{message}");
            assert_eq!(mode(&file), open);
        }
    }

    #[test]
    fn a_kept_secret_that_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("secret_key")).unwrap();
        let refused = config("127.0.0.1:0", "", Some(folder.path())).fill_in_secret();
        let message = refused.unwrap_err().to_string();
        assert!(message.ends_with("cannot read the kept secret: it is not a file"), "{message}");
    }

    #[test]
    fn a_kept_secret_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret_key");
        let too_long = [b'x'; 256];
        for content in [&b""[..], b"\n", b"  \n", b"\xff\xfe", &too_long] {
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            let refused = config("127.0.0.1:0", "", Some(folder.path())).fill_in_secret();
            assert!(matches!(refused, Err(ConfigError::SecretFileContent { .. })));
        }
    }

    #[test]
    fn a_secret_is_matched_by_itself_alone_and_an_empty_one_by_nothing() {
        let secret = SecretKey::new("s3");
        assert!(secret.matches(b"s3"));
        for wrong in ["s", "s33", "S3", "s3 ", ""] {
            assert!(!secret.matches(wrong.as_bytes()), "{wrong:?}");
        }
        assert!(!SecretKey::default().matches(b""));
    }

    #[test]
    fn a_secret_is_not_shown_by_debug() {
        let config = config("127.0.0.1:0", "s3cr3t-text", None);
        assert!(!format!("{config:?}").contains("s3cr3t-text"));
    }
}
