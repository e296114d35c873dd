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
        // Not the fastest level: it is done once, and carried to everybody.
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

/// How many blocks of one message may say that they are the last. Each costs a
/// new beginning, and takes two bytes of a sender that means ill; one that means
/// well ends a message once.
const ENDS_MAX: usize = 64;

/// What a compressed payload stands for. No more memory is taken than for
/// `bytes_max` bytes, however many it claims to be.
pub(super) fn inflate(payload: &[u8], bytes_max: usize) -> Result<Scratch, InflateError> {
    let mut out = Scratch::take();
    // Else it would be seen to be broken, or too long, by what came before.
    out.shrink_to(bytes_max.saturating_add(1));
    inflate_into(payload, bytes_max, &mut out)?;
    Ok(out)
}

fn inflate_into(payload: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), InflateError> {
    DECOMPRESS.with_borrow_mut(|decompress| {
        let decompress =
            decompress.get_or_insert_with(|| Decompress::new_with_window_bits(false, WINDOW_BITS));
        decompress.reset(false);
        let mut rest = payload;
        let mut ends_left = ENDS_MAX;
        while !rest.is_empty() {
            let ended = inflate_piece(decompress, &mut rest, out, bytes_max)?;
            if ended {
                ends_left = usize::checked_sub(ends_left, 1).ok_or(InflateError::Broken)?;
                // A block may say that it is the last, and others follow, which
                // may point back before it (RFC 7692 7.2.3.4).
                decompress.reset(false);
                let window = out.get(out.len().saturating_sub(WINDOW_BYTES)..).unwrap_or_default();
                decompress.set_dictionary(window).map_err(|_| InflateError::Broken)?;
            }
        }
        inflate_piece(decompress, &mut TAIL.as_slice(), out, bytes_max)
    })?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::inflated_by_client;
    use super::*;

    /// What a client sends that compresses like this.
    fn made_by_client(content: &[u8], level: u32, bits: u8) -> Vec<u8> {
        let mut compress = Compress::new_with_window_bits(Level::new(level), false, bits);
        let mut out = Vec::with_capacity(2 * content.len() + 1024);
        compress.compress_vec(content, &mut out, FlushCompress::Sync).expect("room enough");
        assert!(out.len() < out.capacity());
        out.truncate(out.len() - TAIL.len());
        out
    }

    fn inflated(payload: &[u8]) -> Result<Vec<u8>, InflateError> {
        inflate(payload, 1 << 20).map(|out| out.to_vec())
    }

    #[test]
    fn the_examples_of_rfc_7692_are_read() {
        // 7.2.3.1, 7.2.3.3, 7.2.3.4 and 7.2.3.5; 7.2.3.2 needs a memory of
        // earlier messages, which is not negotiated.
        let hello = Ok(b"Hello".to_vec());
        assert_eq!(inflated(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]), hello);
        assert_eq!(inflated(&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00]), hello);
        assert_eq!(inflated(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]), hello);
        assert_eq!(
            inflated(&[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00]),
            hello
        );
        // 7.2.3.6: an empty message.
        assert_eq!(inflated(&[0x00]), Ok(Vec::new()));
        assert_eq!(inflated(&[]), Ok(Vec::new()));
    }

    #[test]
    fn what_is_sent_is_what_rfc_7692_shows() {
        // 7.2.3.1
        let deflated = deflate(Compression::Deflate, b"Hello").to_vec();
        assert_eq!(deflated, [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    }

    #[test]
    fn a_small_window_is_kept_to() {
        let noise = (0..600_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8);
        let content = noise.collect::<Vec<u8>>().repeat(3);
        let small = deflate(Compression::DeflateSmall, &content);
        assert_eq!(inflated_by_client(&small, 9), Some(content.clone()));
        // It is alike at a distance of 600.
        let full = deflate(Compression::Deflate, &content);
        assert_eq!(inflated_by_client(&full, 9), None);
        assert_eq!(inflated_by_client(&full, 15), Some(content));
    }

    #[test]
    fn blocks_after_a_last_block_may_point_back_before_it() {
        let content = b"all your base are belong to us";
        let mut compress = Compress::new_with_window_bits(Level::best(), false, WINDOW_BITS);
        let mut first = Vec::with_capacity(1024);
        compress.compress_vec(content, &mut first, FlushCompress::Finish).expect("room enough");
        let mut compress = Compress::new_with_window_bits(Level::best(), false, WINDOW_BITS);
        compress.set_dictionary(content).expect("nothing was compressed yet");
        let mut second = Vec::with_capacity(1024);
        compress.compress_vec(content, &mut second, FlushCompress::Sync).expect("room enough");
        assert!(second.len() < 16, "it points back");
        second.truncate(second.len() - TAIL.len());
        assert_eq!(inflated(&[first, second].concat()), Ok([&content[..], content].concat()));
    }

    #[test]
    fn what_was_not_deflated_is_broken() {
        assert_eq!(inflated(b"\xff\xff\xff"), Err(InflateError::Broken));
        // It points back before the beginning of this message, though not of
        // the one before it.
        assert_eq!(inflated(&made_by_client(&[b'a'; 1000], 6, 15)).map(|out| out.len()), Ok(1000));
        assert_eq!(inflated(&[0xf2, 0x00, 0x11, 0x00, 0x00]), Err(InflateError::Broken));
    }

    #[test]
    fn the_limit_is_exact() {
        let payload = made_by_client(&[b'a'; 5000], 6, 15);
        assert_eq!(inflate(&payload, 5000).map(|out| out.len()), Ok(5000));
        assert_eq!(inflate(&payload, 4999).map(|out| out.len()), Err(InflateError::TooLong));
        assert_eq!(inflate(&payload, 0).map(|out| out.len()), Err(InflateError::TooLong));
        assert_eq!(inflate(&[0x00], 0).map(|out| out.len()), Ok(0));
    }

    #[test]
    fn a_bomb_takes_no_more_memory_than_the_limit() {
        let bomb = made_by_client(&vec![0; 64 << 20], 9, 15);
        assert!(bomb.len() < 100_000);
        let mut out = Vec::new();
        assert_eq!(inflate_into(&bomb, 1 << 20, &mut out), Err(InflateError::TooLong));
        assert!(out.capacity() <= (1 << 20) + 1, "{}", out.capacity());
    }

    fn content() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..2000),
            prop::collection::vec(b'a'..b'e', 0..5000),
            // Longer than either window, and alike at a distance.
            (prop::collection::vec(any::<u8>(), 1..700), 1..200_usize).prop_map(|(part, n)| part.repeat(n)),
        ]
    }

    proptest! {
        #[test]
        fn clients_read_what_is_sent_with_the_window_that_they_asked_for(content in content()) {
            for (compression, bits) in [(Compression::Deflate, 15), (Compression::DeflateSmall, 9)] {
                let deflated = deflate(compression, &content);
                prop_assert!(inflated_by_client(&deflated, bits).as_ref() == Some(&content));
            }
        }

        #[test]
        fn what_clients_send_is_read_however_they_compress(
            content in content(),
            level in 0..=9_u32,
            bits in 9..=15_u8,
        ) {
            prop_assert_eq!(inflated(&made_by_client(&content, level, bits)), Ok(content));
        }

        #[test]
        fn what_is_wrong_is_the_same_whatever_was_inflated_before(
            content in content(),
            broken in any::<(prop::sample::Index, u8)>(),
            bytes_max in 0..3000_usize,
        ) {
            let mut payload = made_by_client(&content, 6, 15);
            let at = broken.0.index(payload.len());
            payload[at] ^= broken.1;
            let after = |bytes: usize| {
                *Scratch::take() = Vec::with_capacity(bytes);
                inflate(&payload, bytes_max).map(|out| out.to_vec())
            };
            prop_assert_eq!(after(100_000), after(0));
        }

        #[test]
        fn any_bytes_are_read_or_refused(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(out) = inflate(&payload, 10_000) {
                prop_assert!(out.len() <= 10_000);
            }
        }
    }

    #[test]
    fn a_message_may_end_a_few_times_and_not_without_limit() {
        // An empty last block with fixed codes (RFC 1951 3.2.6).
        let ends = |count: usize| inflated(&[3, 0].repeat(count));
        assert_eq!(ends(ENDS_MAX), Ok(Vec::new()));
        assert_eq!(ends(ENDS_MAX + 1), Err(InflateError::Broken));
    }
}
