//! Inflates the messages of permessage-deflate, each once.
//!
//! A server that shares its frames sends the same bytes to every subscriber. Only as much of a
//! message is inflated as says what it is, and what that was is kept under a hash of the bytes, so
//! that the copies of the other subscribers cost no more than the hash. A server that compresses
//! for each connection anew is counted as correctly, only more slowly.

use std::hash::Hasher;

use flate2::{Decompress, FlushDecompress};
use rustc_hash::FxHasher;

use crate::error::WireError;
use crate::load::packets::Arrival;
use crate::load::webrocket;
use crate::load::websocket::Reading;

/// How many messages are remembered: more than are usually on their way. Two that fall to the same
/// place are inflated again and again, which is slower and not wrong.
const PLACES: usize = 8192;

/// Inflates, for all connections of a target.
pub(crate) struct Inflater {
    decompress: Decompress,
    /// What was inflated last at each place.
    known: Vec<Option<Known>>,
}

#[derive(Clone, Copy)]
struct Known {
    hash: u64,
    length: usize,
    arrival: Arrival,
}

impl Inflater {
    pub(crate) fn new() -> Self {
        Self { decompress: Decompress::new(false), known: vec![None; PLACES] }
    }

    /// What a deflated message is, by its payload.
    ///
    /// # Errors
    /// [`WireError::Framing`] for what cannot be inflated, and what the message says.
    pub(crate) fn arrival(&mut self, reading: Reading, payload: &[u8]) -> Result<Arrival, WireError> {
        let hash = hash(payload);
        let place = (hash >> 32) as usize % PLACES;
        if let Some(known) = self.known[place]
            && (known.hash, known.length) == (hash, payload.len())
        {
            return Ok(known.arrival);
        }
        let mut start = [0; webrocket::START_BYTES];
        let start = self.inflate(payload, &mut start)?;
        let arrival = reading.arrival(start)?;
        self.known[place] = Some(Known { hash, length: payload.len(), arrival });
        Ok(arrival)
    }

    /// Inflates as much as fits.
    fn inflate<'a>(&mut self, payload: &[u8], start: &'a mut [u8]) -> Result<&'a [u8], WireError> {
        self.decompress.reset(false);
        self.decompress
            .decompress(payload, start, FlushDecompress::None)
            .map_err(|_| WireError::Framing("a message cannot be inflated"))?;
        let length = usize::try_from(self.decompress.total_out()).unwrap_or_default();
        Ok(start.get(..length).unwrap_or_default())
    }
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
pub(crate) mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;
    use crate::load::payload::Number;

    /// A message as permessage-deflate has it [RFC 7692: 7.2.1].
    pub(crate) fn deflate(message: &[u8]) -> Vec<u8> {
        let mut deflated = Vec::with_capacity(message.len() + 64);
        let mut compress = Compress::new(Compression::default(), false);
        compress.compress_vec(message, &mut deflated, FlushCompress::Sync).unwrap();
        deflated.strip_suffix(b"\0\0\xff\xff").unwrap().to_vec()
    }

    #[test]
    fn the_copies_of_a_message_are_told_as_the_first() {
        let mut inflater = Inflater::new();
        for number in [1, 2, 1, 0x2a, 2, 0x2a] {
            let mut content = Vec::new();
            Number(number).write_content(5000, &mut content);
            let arrival = inflater.arrival(Reading::Content, &deflate(&content));
            assert_eq!(arrival, Ok(Arrival::Message(Some(Number(number)))));
        }
        assert_eq!(inflater.known.iter().flatten().count(), 3);
    }

    #[test]
    fn the_example_of_the_standard_is_inflated() {
        // [RFC 7692: 7.2.3.1]
        let mut start = [0; 16];
        let hello = Inflater::new().inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", &mut start).unwrap().to_vec();
        assert_eq!(hello, b"Hello");
    }

    #[test]
    fn what_cannot_be_inflated_is_an_error() {
        let error = Inflater::new().arrival(Reading::Content, b"\xff\xff\xff\xff").unwrap_err();
        assert_eq!(error, WireError::Framing("a message cannot be inflated"));
    }
}
