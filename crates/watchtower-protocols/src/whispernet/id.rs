//! Hashed ids: an id that can be checked against its message ([whispernet: 4]).
//!
//! The hash is over three texts with nothing between them, so it does not tell
//! apart messages that share the text but cut it elsewhere: it finds accidents
//! and simple forgery, and is no signature.

use sha2::{Digest, Sha256};

use super::Message;

/// What a hashed id begins with.
const PREFIX: &str = "hash:sha256:";

/// What an id says of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdKind {
    /// Nothing: any text, a hash by an unknown function, or one of a message
    /// without a `Timestamp`.
    Plain,
    /// It is the hash of `Addr`, `Body` and `Timestamp`.
    Hashed,
    /// It claims to be, and is not: the message is to be dropped.
    Mismatch,
}

/// Checks the id of a message.
pub fn check_id(message: &Message<'_>) -> IdKind {
    let (Some(hash), Some(timestamp)) = (message.id.strip_prefix(PREFIX), message.timestamp) else {
        return IdKind::Plain;
    };
    let addr = message.addr.as_deref().unwrap_or_default();
    // Digits in upper case are no match either: one message has one id.
    if hash == hash_of(addr, &message.body, timestamp) { IdKind::Hashed } else { IdKind::Mismatch }
}

/// The id of a message that a node originates. `timestamp` is the number that
/// is sent.
pub fn hashed_id(addr: &str, body: &str, timestamp: i64) -> String {
    format!("{PREFIX}{}", hash_of(addr, body, timestamp))
}

fn hash_of(addr: &str, body: &str, timestamp: i64) -> String {
    let mut digits = itoa::Buffer::new();
    let hash =
        Sha256::new().chain_update(addr).chain_update(body).chain_update(digits.format(timestamp)).finalize();
    hex(&hash)
}

/// In lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}
