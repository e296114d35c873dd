//! Parts: how a file that is too large for one message goes in several
//! ([whispernet: 10]).
//!
//! A part is a message with one more key, `FilePart`. A peer that does not know
//! the key shows the `Body`, `photo.jpg (part 3 of 160, JUd8wTzS2-p5Mn0q)`, and
//! passes it on like any other. What stands behind the numbers there is a hash
//! of all that the key says. So a hashed id, and with it a signature, covers
//! the part and the file that it is of, though neither is in `FileContents`.
//!
//! Knows one part at a time; [`Assembler`](super::Assembler) puts them together.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Message;
use super::assembler::TransferError;
use super::id::hex;
use super::safe_text::safe_file_name;

/// How many bytes of a file go in one part, and the largest file that goes
/// without parts. A mebibyte in base64: an eighth of what a message may have,
/// so that words which wait behind a part wait for little, and few enough parts
/// that a plain peer, which shows each, is not buried.
pub const PART_BYTES: u64 = 768 << 10;

/// How many parts a file has at most: whoever puts them together keeps a byte
/// for each.
pub const PARTS_MAX: u64 = 1 << 16;

/// The largest file that is sent, in bytes.
pub const WHOLE_BYTES_MAX: u64 = PARTS_MAX * PART_BYTES;

/// How long a MIME type is at most.
const TYPE_BYTES_MAX: usize = 255;

/// How much of the hash stands in a `Body`: too much to be found by trying.
const CHECK_BYTES: usize = 12;

/// A file that goes in parts: what all its parts say alike. `Debug` shows its
/// length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whole {
    /// 32 hexadecimal digits.
    transfer: String,
    /// Invariant: what [`safe_file_name`] makes.
    name: String,
    mime_type: String,
    bytes: u64,
    /// Invariant: at least 1.
    part_bytes: u64,
    /// 64 hexadecimal digits.
    sha256: String,
}

impl Whole {
    /// A file to be sent. `transfer` is random, and tells it from the same file
    /// sent another time. What is unsafe in `name`, or too long in `mime_type`,
    /// is left out.
    ///
    /// # Errors
    ///
    /// [`TransferError::TooLarge`] above [`WHOLE_BYTES_MAX`].
    pub fn new(
        name: &str,
        mime_type: &str,
        bytes: u64,
        sha256: [u8; 32],
        transfer: [u8; 16],
    ) -> Result<Whole, TransferError> {
        if bytes > WHOLE_BYTES_MAX {
            return Err(TransferError::TooLarge { bytes, bytes_max: WHOLE_BYTES_MAX });
        }
        Ok(Whole {
            transfer: hex(&transfer),
            name: safe_file_name(name),
            mime_type: mime_type[..mime_type.floor_char_boundary(TYPE_BYTES_MAX)].to_owned(),
            bytes,
            part_bytes: PART_BYTES,
            sha256: hex(&sha256),
        })
    }

    #[cfg(test)]
    pub(super) fn with_part_bytes(self, part_bytes: u64) -> Whole {
        Whole { part_bytes, ..self }
    }

    /// A safe name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The MIME type, as the sender says.
    pub fn mime_type(&self) -> &str {
        &self.mime_type
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many parts it has: at least one, which may be empty.
    pub fn parts(&self) -> u64 {
        self.bytes.div_ceil(self.part_bytes).max(1)
    }

    /// Which of its bytes the `number`th part has, counted from 1. All parts
    /// are of one length, but for the last.
    pub fn range(&self, number: u64) -> Range<u64> {
        let start = number.saturating_sub(1).saturating_mul(self.part_bytes).min(self.bytes);
        start..start.saturating_add(self.part_bytes).min(self.bytes)
    }

    /// Whether that is the SHA-256 of its contents.
    pub fn has_hash(&self, sha256: [u8; 32]) -> bool {
        hex(&sha256) == self.sha256
    }

    /// Its `number`th part, with the bytes in its [`range`](Whole::range).
    pub fn part(&self, number: u64, contents: Bytes) -> Part {
        Part { whole: self.clone(), number, contents }
    }

    /// What the `Body` of a part has behind the file's name.
    fn ending(&self, number: u64, contents: &[u8]) -> String {
        // All but the last are of a fixed length: no two files are the same text.
        let hash = Sha256::new()
            .chain_update(&self.transfer)
            .chain_update(&self.sha256)
            .chain_update(Sha256::digest(contents))
            .chain_update(self.bytes.to_be_bytes())
            .chain_update(self.part_bytes.to_be_bytes())
            .chain_update(&self.mime_type)
            .finalize();
        let check = URL_SAFE_NO_PAD.encode(&hash[..CHECK_BYTES]);
        format!(" (part {number} of {}, {check})", self.parts())
    }
}

impl fmt::Debug for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Whole({} bytes)", self.bytes)
    }
}

/// One part of a file. `Debug` shows its number.
#[derive(Clone, PartialEq, Eq)]
pub struct Part {
    /// The file.
    pub whole: Whole,
    /// Which part it is, counted from 1.
    pub number: u64,
    /// What stands in its [`range`](Whole::range).
    pub contents: Bytes,
}

impl Part {
    /// The part in a message. `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`NotItsPart`]: the message is to be dropped.
    pub fn of(message: &Message<'_>) -> Result<Option<Part>, NotItsPart> {
        let Some(keys) = &message.file_part else { return Ok(None) };
        let is_known = is_hex(&keys.transfer, 32) && is_hex(&keys.sha256, 64) && keys.part_bytes > 0;
        if !is_known || keys.mime_type.len() > TYPE_BYTES_MAX {
            return Err(NotItsPart);
        }
        let mut whole = Whole {
            transfer: keys.transfer.to_string(),
            name: String::new(),
            mime_type: keys.mime_type.to_string(),
            bytes: keys.bytes,
            part_bytes: keys.part_bytes,
            sha256: keys.sha256.to_string(),
        };
        let contents = STANDARD.decode(&*keys.contents).map_err(|_| NotItsPart)?;
        let Range { start, end } = whole.range(keys.number);
        let is_one = (1..=whole.parts()).contains(&keys.number);
        if !is_one || contents.len() as u64 != end - start {
            return Err(NotItsPart);
        }
        let ending = whole.ending(keys.number, &contents);
        whole.name = safe_file_name(message.body.strip_suffix(&ending).ok_or(NotItsPart)?);
        Ok(Some(Part { whole, number: keys.number, contents: contents.into() }))
    }

    /// Where in the file its contents begin.
    pub fn offset(&self) -> u64 {
        self.whole.range(self.number).start
    }

    pub(super) fn body(&self) -> String {
        format!("{}{}", self.whole.name, self.whole.ending(self.number, &self.contents))
    }

    pub(super) fn keys(&self) -> FilePart<'_> {
        FilePart {
            transfer: (&*self.whole.transfer).into(),
            number: self.number,
            bytes: self.whole.bytes,
            part_bytes: self.whole.part_bytes,
            sha256: (&*self.whole.sha256).into(),
            mime_type: (&*self.whole.mime_type).into(),
            contents: STANDARD.encode(&self.contents).into(),
        }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({} of {})", self.number, self.whole.parts())
    }
}

/// A `FilePart` that is not the one which the `Body` tells of: somebody changed
/// it on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotItsPart;

/// The key `FilePart`, as it is sent. `Debug` shows no content.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart<'a> {
    /// Tells the file from others of its sender.
    #[serde(rename = "Transfer", borrow)]
    pub transfer: Cow<'a, str>,
    /// Which part it is, counted from 1.
    #[serde(rename = "Number")]
    pub number: u64,
    /// How many bytes the file has.
    #[serde(rename = "Bytes")]
    pub bytes: u64,
    /// How many bytes every part has but the last.
    #[serde(rename = "PartBytes")]
    pub part_bytes: u64,
    /// Of the file, in hexadecimal digits.
    #[serde(rename = "SHA256", borrow)]
    pub sha256: Cow<'a, str>,
    /// The file's MIME type.
    #[serde(rename = "Type", borrow)]
    pub mime_type: Cow<'a, str>,
    /// The part in base64.
    #[serde(rename = "Contents", borrow)]
    pub contents: Cow<'a, str>,
}

impl fmt::Debug for FilePart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilePart({} bytes in base64)", self.contents.len())
    }
}

/// Whether it is that many hexadecimal digits, in lower case.
fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
