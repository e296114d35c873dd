//! Bytes of the private link to frames and back. Commands and replies have the
//! same form ([webtalk: private link]), so one codec reads both.
//!
//! Decoding borrows from the input and takes no memory; how long a frame is,
//! is known from its first five bytes. What the word in brackets means is for
//! others to say.

use std::io::Write;

/// How many digits a frame's length has.
pub const LENGTH_DIGITS: usize = 5;

/// The most bytes that five digits can announce.
pub const BODY_BYTES_MAX: usize = 99_999;

/// What a frame holds: `[word] data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body<'a> {
    /// What stands in the brackets.
    pub word: &'a [u8],
    /// What follows them, and one space.
    pub data: &'a [u8],
}

/// What the input begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole frame.
    Frame {
        /// What it holds; [`Body::parse`] reads it.
        bytes: &'a [u8],
        /// How many bytes of the input it is.
        consumed: usize,
    },
    /// Too little to say.
    Incomplete,
    /// Something that is not five digits: nobody can tell where the next frame
    /// begins.
    BadLength,
}

/// Reads the first frame of `input`.
pub fn decode(input: &[u8]) -> Decoded<'_> {
    let digits = input.get(..LENGTH_DIGITS).unwrap_or(input);
    // Judged as they come: what begins wrong need not be waited for.
    if !digits.iter().all(u8::is_ascii_digit) {
        return Decoded::BadLength;
    }
    let length = digits.iter().fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    let consumed = LENGTH_DIGITS + length;
    match input.get(LENGTH_DIGITS..consumed) {
        Some(bytes) if digits.len() == LENGTH_DIGITS => Decoded::Frame { bytes, consumed },
        _ => Decoded::Incomplete,
    }
}

impl<'a> Body<'a> {
    /// Reads `[word] data`; none when there are no brackets. The word ends at
    /// the first `]`, and the space after that may be missing.
    pub fn parse(bytes: &'a [u8]) -> Option<Body<'a>> {
        let (word, data) = split_once(bytes.strip_prefix(b"[")?, b']')?;
        Some(Body { word, data: data.strip_prefix(b" ").unwrap_or(data) })
    }

    /// Appends the whole frame to `out`, with the space even if there is no
    /// data.
    ///
    /// # Errors
    ///
    /// [`TooLong`] when five digits cannot say how long it is; nothing is
    /// appended then.
    pub fn encode(self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let length = body_bytes(self.word, self.data.len());
        if length > BODY_BYTES_MAX {
            return Err(TooLong { length });
        }
        let written = write!(out, "{length:0LENGTH_DIGITS$}[");
        debug_assert!(written.is_ok(), "a vector takes all that is written to it");
        out.extend_from_slice(self.word);
        out.extend_from_slice(b"] ");
        out.extend_from_slice(self.data);
        Ok(())
    }
}

/// The length of `[word] data`.
const fn body_bytes(word: &[u8], data_bytes: usize) -> usize {
    word.len() + "[] ".len() + data_bytes
}

/// What stands before the first `separator`, and what behind it.
pub(super) fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    let (before, rest) = bytes.split_at_checked(at)?;
    Some((before, rest.get(1..)?))
}

/// A frame whose length does not fit into five digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame holds at most {BODY_BYTES_MAX} bytes, this one would hold {length}")]
pub struct TooLong {
    /// How long it would be.
    pub length: usize,
}
