//! The compression of permessage-deflate (RFC 7692 7.2), without a memory of
//! earlier messages.
//!
//! Knows no frames and no connection: compressors and decompressors are the
//! thread's, and start anew with each message. One is made when a thread needs
//! it first.

use std::cell::RefCell;

use flate2::{Compress, Compression as Level, Decompress, FlushCompress, FlushDecompress, Status};

use super::Compression;
use super::scratch::Scratch;

/// What ends each compressed message and is not sent (RFC 7692 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The windows that messages are compressed with, as powers of two. Not 8,
/// which RFC 7692 allows: zlib quietly makes 9 of it, and such a client could
/// not read what comes.
const WINDOW_BITS: u8 = 15;
const SMALL_WINDOW_BITS: u8 = 9;

/// How far back compressed content may point.
const WINDOW_BYTES: usize = 1 << WINDOW_BITS;

thread_local! {
    static COMPRESS: RefCell<Option<Compress>> = const { RefCell::new(None) };
    static COMPRESS_SMALL: RefCell<Option<Compress>> = const { RefCell::new(None) };
    static DECOMPRESS: RefCell<Option<Decompress>> = const { RefCell::new(None) };
}

/// Why a compressed message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InflateError {
    /// It is longer than the limit.
    TooLong,
    /// It was not made by deflating.
    Broken,
}

/// The payload of a message, compressed.
pub(super) fn deflate(compression: Compression, payload: &[u8]) -> Scratch {
    let (compress, bits) = match compression {
        Compression::None | Compression::Deflate => (&COMPRESS, WINDOW_BITS),
        Compression::DeflateSmall => (&COMPRESS_SMALL, SMALL_WINDOW_BITS),
    };
    let mut out = Scratch::take();
    compress.with_borrow_mut(|compress| {
        let compress =
            compress.get_or_insert_with(|| Compress::new_with_window_bits(Level::default(), false, bits));
        compress.reset();
        // Nearly always it fits at once.
        out.reserve(payload.len() + 64);
        loop {
            let rest = rest(payload, compress.total_in());
            // It fails for wrong parameters alone.
            let status = compress.compress_vec(rest, &mut out, FlushCompress::Sync);
            debug_assert!(status.is_ok());
            // A flush that had room to spare is complete.
            if out.len() < out.capacity() || status.is_err() {
                break;
            }
            out.reserve(payload.len().max(64));
        }
    });
    debug_assert!(out.ends_with(&TAIL));
    let length = out.len().saturating_sub(TAIL.len());
    out.truncate(length);
    out
}

/// What a compressed payload stands for. No more memory is taken than for
/// `bytes_max` bytes, however many it claims to be.
pub(super) fn inflate(payload: &[u8], bytes_max: usize) -> Result<Scratch, InflateError> {
    let mut out = Scratch::take();
    DECOMPRESS.with_borrow_mut(|decompress| {
        let decompress =
            decompress.get_or_insert_with(|| Decompress::new_with_window_bits(false, WINDOW_BITS));
        decompress.reset(false);
        let mut rest = payload;
        while !rest.is_empty() {
            let ended = inflate_piece(decompress, &mut rest, &mut out, bytes_max)?;
            if ended {
                // A block may say that it is the last, and others follow, which
                // may point back before it (RFC 7692 7.2.3.4).
                decompress.reset(false);
                let window = out.get(out.len().saturating_sub(WINDOW_BYTES)..).unwrap_or_default();
                decompress.set_dictionary(window).map_err(|_| InflateError::Broken)?;
            }
        }
        inflate_piece(decompress, &mut TAIL.as_slice(), &mut out, bytes_max)
    })?;
    Ok(out)
}

/// Inflates until `input` is used up, or a last block ends; whether it did.
fn inflate_piece(
    decompress: &mut Decompress,
    input: &mut &[u8],
    out: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<bool, InflateError> {
    loop {
        if out.len() == out.capacity() {
            // One more than the limit shows that there is more.
            let room = bytes_max.saturating_add(1).saturating_sub(out.len());
            out.reserve_exact(out.len().max(1024).min(room));
        }
        let read_before = decompress.total_in();
        let status = decompress.decompress_vec(input, out, FlushDecompress::None);
        let status = status.map_err(|_| InflateError::Broken)?;
        if out.len() > bytes_max {
            return Err(InflateError::TooLong);
        }
        *input = rest(input, decompress.total_in() - read_before);
        if status == Status::StreamEnd {
            return Ok(true);
        }
        // While all room is used there may be more to come from what was read.
        if out.len() < out.capacity() {
            return if input.is_empty() { Ok(false) } else { Err(InflateError::Broken) };
        }
    }
}

fn rest(bytes: &[u8], done: u64) -> &[u8] {
    usize::try_from(done).ok().and_then(|done| bytes.get(done..)).unwrap_or_default()
}
