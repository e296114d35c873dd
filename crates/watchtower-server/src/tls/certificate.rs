//! The certificate and the private key of the server, as files.
//!
//! Knows PEM and what rustls takes; does not know when files are read.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use zeroize::Zeroizing;

use crate::file;

/// The bit of a file's mode that lets users read it who are neither its owner
/// nor of its group.
const READABLE_BY_OTHERS: u32 = 0o004;

/// Where the certificate and its private key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// What the two files were like at a time: as long as this is the same, so is
/// what is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp([Option<FileStamp>; 2]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{file}: cannot read it: {error}; expected {}", file.expected())]
    Unreadable {
        /// Which.
        file: TlsFile,
        /// Why.
        error: io::Error,
    },
    /// A file begins a section of PEM, and does not go on like one.
    #[error("{file}: not valid PEM: {why}; expected {}", file.expected())]
    NotPem {
        /// Which.
        file: TlsFile,
        /// What is wrong with it.
        why: String,
    },
    /// A file has no section of the kind that is needed.
    #[error("{file}: there is none in it; expected {}", file.expected())]
    Missing {
        /// Which.
        file: TlsFile,
    },
    /// What a file holds cannot be used.
    #[error("{file}: {why}; expected {}", file.expected())]
    Unusable {
        /// Which.
        file: TlsFile,
        /// What is wrong with it.
        why: Error,
    },
    /// The key belongs to another certificate.
    #[error(
        "{key}: this is not the private key of the first certificate in {cert}; \
         expected the one that it was made with"
    )]
    Mismatch {
        /// The key.
        key: TlsFile,
        /// The certificate.
        cert: TlsFile,
    },
    /// TLS cannot be set up at all.
    #[error("cannot set up TLS: {0}")]
    Setup(Error),
}

/// One of the two files, by its key in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsFile {
    /// That of `tls.cert`.
    Cert(PathBuf),
    /// That of `tls.key`.
    Key(PathBuf),
}

impl TlsFile {
    fn path(&self) -> &Path {
        match self {
            TlsFile::Cert(path) | TlsFile::Key(path) => path,
        }
    }

    fn expected(&self) -> &'static str {
        match self {
            TlsFile::Cert(_) => {
                "a file with the server's certificate and those between it and its root, as PEM: \
                 -----BEGIN CERTIFICATE-----"
            }
            TlsFile::Key(_) => {
                "a file with an RSA, ECDSA or Ed25519 private key, as PEM and not encrypted: \
                 -----BEGIN PRIVATE KEY-----"
            }
        }
    }

    /// All that is in it, wiped from memory when it is dropped.
    fn read(&self) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
        let mut bytes = Zeroizing::new(Vec::new());
        match file::open(self.path()).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(CertificateError::Unreadable { file: self.clone(), error }),
        }
    }

    fn not_pem(&self, error: &pem::Error) -> CertificateError {
        let not_pem = |why: &str| CertificateError::NotPem { file: self.clone(), why: why.to_owned() };
        match error {
            pem::Error::NoItemsFound => CertificateError::Missing { file: self.clone() },
            // What stands in a line of a key is not for a log.
            pem::Error::IllegalSectionStart { .. } => not_pem("a section begins in a wrong way"),
            pem::Error::MissingSectionEnd { .. } => not_pem("a section has no -----END line"),
            pem::Error::Base64Decode(_) => not_pem("a section is not in base64"),
            error => not_pem(&error.to_string()),
        }
    }

    fn unusable(&self, why: Error) -> CertificateError {
        CertificateError::Unusable { file: self.clone(), why }
    }
}

impl fmt::Display for TlsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if let TlsFile::Cert(_) = self { "tls.cert" } else { "tls.key" };
        write!(f, "{key} = \"{}\"", self.path().display())
    }
}

impl Files {
    /// Reads both, and checks that they belong together.
    pub(crate) fn load(&self, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
        let (cert, key) = (TlsFile::Cert(self.cert.clone()), TlsFile::Key(self.key.clone()));
        let chain = CertificateDer::pem_slice_iter(&cert.read()?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| cert.not_pem(&error))?;
        if chain.is_empty() {
            return Err(CertificateError::Missing { file: cert });
        }
        let private = PrivateKeyDer::from_pem_slice(&key.read()?).map_err(|error| key.not_pem(&error))?;
        let private = provider.key_provider.load_private_key(private).map_err(|error| key.unusable(error))?;
        let certified = CertifiedKey::new(chain, private);
        match certified.keys_match() {
            // Of some keys the public half is not known: clients will see.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => return Err(CertificateError::Mismatch { key, cert }),
            Err(error) => return Err(cert.unusable(error)),
        }
        Ok(certified)
    }

    /// Warns of a key that every user of this machine can read.
    pub(crate) fn warn_of_an_open_key(&self) {
        let Ok(metadata) = fs::metadata(&self.key) else { return };
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & READABLE_BY_OTHERS != 0 {
            let key = self.key.display();
            tracing::warn!(
                "tls.key = \"{key}\": every user of this machine can read this private key \
                 (mode {mode:04o}); run: chmod 600 {key}"
            );
        }
    }

    /// What the files are like now.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp([&self.cert, &self.key].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some(FileStamp {
                inode: (metadata.dev(), metadata.ino()),
                size: metadata.len(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            })
        }))
    }
}

/// The algorithms that are used: those of ring.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
