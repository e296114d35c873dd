//! What a session may do, and the secrets that let it.
//!
//! Knows no session and no hub: who was let in, and for how long, is the
//! session's to remember.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a session may do. Each level includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Access {
    /// Neither subscribe nor publish.
    #[default]
    None,
    /// Subscribe.
    ReadOnly,
    /// Subscribe and publish.
    ReadWrite,
}

impl Access {
    /// All levels, in order.
    pub const ALL: [Access; 3] = [Access::None, Access::ReadOnly, Access::ReadWrite];

    /// The level's name, in commands and in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Access::None => "none",
            Access::ReadOnly => "read-only",
            Access::ReadWrite => "read-write",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Access {
    type Err = UnknownAccess;

    fn from_str(name: &str) -> Result<Access, UnknownAccess> {
        Access::ALL.into_iter().find(|access| access.name() == name).ok_or(UnknownAccess)
    }
}

/// A text that names no level of access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("access is \"none\", \"read-only\" or \"read-write\"")]
pub struct UnknownAccess;

/// A hub's secret for one level of access.
///
/// Only its digest is kept, so that neither a log nor a dump of memory can show
/// it, and so that a comparison takes a time that depends on what was given
/// alone: neither on where the two differ nor on how long the secret is
/// ([webrocket: secrets]).
#[derive(Clone, Copy, Default)]
pub struct Secret {
    /// `None`: anything is accepted.
    digest: Option<[u8; 32]>,
}

impl Secret {
    /// A secret of this text; the empty one accepts any ([webrocket: empty
    /// secrets]).
    pub fn new(secret: &str) -> Secret {
        Secret { digest: (!secret.is_empty()).then(|| digest(secret)) }
    }

    /// Whether anything is accepted.
    pub fn is_empty(&self) -> bool {
        self.digest.is_none()
    }

    /// Whether a client that gives this text is to be let in.
    pub fn accepts(&self, given: &str) -> bool {
        self.digest.is_none_or(|expected| expected.ct_eq(&digest(given)).into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "Secret(empty)" } else { "Secret(hidden)" })
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_of_access_is_read_as_it_is_written() {
        for access in Access::ALL {
            assert_eq!(access.to_string().parse(), Ok(access));
        }
        for wrong in ["", "readonly", "read_only", "Read-Only", "read-write "] {
            assert_eq!(wrong.parse::<Access>(), Err(UnknownAccess), "{wrong:?}");
        }
    }

    #[test]
    fn a_level_of_access_includes_the_ones_before_it() {
        // [webrocket: access]
        assert!(Access::ReadWrite > Access::ReadOnly && Access::ReadOnly > Access::None);
    }

    #[test]
    fn a_secret_is_matched_by_itself_alone() {
        let secret = Secret::new("s3");
        assert!(secret.accepts("s3"));
        for wrong in ["", "s", "s33", "S3", "s4", " s3", "s3\0"] {
            assert!(!secret.accepts(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn an_empty_secret_accepts_any() {
        // [webrocket: empty secrets]
        for given in ["", "x", "anything at all"] {
            assert!(Secret::new("").accepts(given) && Secret::default().accepts(given), "{given:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown_by_debug() {
        assert_eq!(format!("{:?}", Secret::new("s3cr3t")), "Secret(hidden)");
        assert_eq!(format!("{:?}", Secret::new("")), "Secret(empty)");
    }
}
