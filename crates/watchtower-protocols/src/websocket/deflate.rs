//! The compression of permessage-deflate (RFC 7692 7.2), without a memory of
//! earlier messages.
//!
//! Knows no frames and no connection: compressors and decompressors are the
//! thread's, and start anew with each message. One is made when a thread needs
//! it first.

use std::cell::RefCell;

use flate2::{Compress, Compression as Level, FlushCompress};

use super::Compression;

/// What ends each compressed message and is not sent (RFC 7692 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The windows that compressed messages are made with, as powers of two. Not
/// 8, which RFC 7692 allows: zlib quietly makes 9 of it, and what it compresses
/// could not be read.
pub(super) const WINDOW_BITS: u8 = 15;
pub(super) const SMALL_WINDOW_BITS: u8 = 9;

/// The buffer that is kept between messages is not longer.
const KEPT_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    static COMPRESS: RefCell<Option<Compress>> = const { RefCell::new(None) };
    static COMPRESS_SMALL: RefCell<Option<Compress>> = const { RefCell::new(None) };
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The payload of a message, compressed. To be [given back](give_back).
pub(super) fn deflate(compression: Compression, payload: &[u8]) -> Vec<u8> {
    let (compress, bits) = match compression {
        Compression::None | Compression::Deflate => (&COMPRESS, WINDOW_BITS),
        Compression::DeflateSmall => (&COMPRESS_SMALL, SMALL_WINDOW_BITS),
    };
    let mut out = BUFFER.take();
    out.clear();
    compress.with_borrow_mut(|compress| {
        let compress =
            compress.get_or_insert_with(|| Compress::new_with_window_bits(Level::default(), false, bits));
        compress.reset();
        // Nearly always it fits at once.
        out.reserve(payload.len() + 64);
        loop {
            let done = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
            let rest = payload.get(done..).unwrap_or_default();
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
    out.truncate(out.len().saturating_sub(TAIL.len()));
    out
}

/// Gives a buffer back for the next message.
pub(super) fn give_back(buffer: Vec<u8>) {
    if buffer.capacity() <= KEPT_BYTES_MAX {
        BUFFER.set(buffer);
    }
}
