//! Watchtower packets as a bench needs them: requests to write, and a counter of what arrives.
//!
//! The counter reads headers and the number of each message and skips the rest of the content; it
//! takes bytes split or joined in any way and allocates only for a packet that is split.

use crate::error::WireError;
use crate::load::payload::{NUMBER_BYTES, Number};

/// Bytes before the content of a message that a client sends [packets: client to server].
pub(crate) const PUBLISH_HEADER_BYTES: usize = 13;
/// Bytes before the content of a message that a server sends [packets: server to client].
pub(crate) const MESSAGE_HEADER_BYTES: usize = 15;
/// `J` ID CH.
pub(crate) const JOIN_BYTES: usize = 9;

/// Appends `S` with the secret, or `R` without one.
///
/// # Panics
/// Not for a secret of at most 255 bytes, which is what [`crate::Options`] lets through.
pub(crate) fn write_register(secret: Option<&str>, out: &mut Vec<u8>) {
    match secret {
        None => out.push(b'R'),
        Some(secret) => {
            let length = u8::try_from(secret.len()).expect("the options limit the secret's length");
            out.extend_from_slice(&[b'S', length]);
            out.extend_from_slice(secret.as_bytes());
        }
    }
}

/// Appends `J`.
pub(crate) fn write_join(sender: u32, channel: u32, out: &mut Vec<u8>) {
    out.push(b'J');
    out.extend_from_slice(&sender.to_le_bytes());
    out.extend_from_slice(&channel.to_le_bytes());
}

/// Appends `M` with a content of `size` bytes.
pub(crate) fn write_publish(sender: u32, channel: u32, number: Number, size: usize, out: &mut Vec<u8>) {
    out.push(b'M');
    out.extend_from_slice(&sender.to_le_bytes());
    out.extend_from_slice(&channel.to_le_bytes());
    out.extend_from_slice(&(size as u32).to_le_bytes());
    number.write_content(size, out);
}

/// What a server sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// `A`: a sender's id, or a channel's. Of other protocols: an answer, without an id (0).
    Acknowledged(u32),
    /// A message, told as soon as its number is there; `None` if it carries none of ours.
    Message(Option<Number>),
}

/// Counts packets in a stream of bytes, or in a datagram.
#[derive(Debug, Default)]
pub(crate) struct PacketCounter {
    /// The beginning of a packet that has not arrived as far as it must be read.
    /// Invariant: shorter than the longest `E` packet.
    partial: Vec<u8>,
    /// How much of a content that nobody reads is still to come.
    to_skip: usize,
}

impl PacketCounter {
    /// Takes the next bytes and hands on what they complete.
    ///
    /// # Errors
    /// An `E` packet, whatever it says, and a byte that starts no packet.
    pub(crate) fn feed(&mut self, mut input: &[u8], mut on: impl FnMut(Arrival)) -> Result<(), WireError> {
        loop {
            let skipped = self.to_skip.min(input.len());
            self.to_skip -= skipped;
            input = input.get(skipped..).unwrap_or_default();
            if input.is_empty() {
                return Ok(());
            }
            if self.partial.is_empty() {
                match Head::read(input)? {
                    Head::Needs(_) => {
                        self.partial.extend_from_slice(input);
                        return Ok(());
                    }
                    Head::Complete { arrival, taken, to_skip } => {
                        on(arrival);
                        self.to_skip = to_skip;
                        input = input.get(taken..).unwrap_or_default();
                    }
                }
            } else {
                input = self.complete(input, &mut on)?;
            }
        }
    }

    /// Whether nothing of a packet is outstanding.
    pub(crate) fn is_between_packets(&self) -> bool {
        self.partial.is_empty() && self.to_skip == 0
    }

    /// Adds to a partial packet exactly what it needs and returns the rest of the input.
    fn complete<'a>(
        &mut self,
        mut input: &'a [u8],
        on: &mut impl FnMut(Arrival),
    ) -> Result<&'a [u8], WireError> {
        loop {
            match Head::read(&self.partial)? {
                Head::Needs(length) => {
                    let missing = length.saturating_sub(self.partial.len());
                    let Some((now, rest)) = input.split_at_checked(missing) else {
                        self.partial.extend_from_slice(input);
                        return Ok(&[]);
                    };
                    self.partial.extend_from_slice(now);
                    input = rest;
                }
                Head::Complete { arrival, taken, to_skip } => {
                    debug_assert_eq!(taken, self.partial.len());
                    on(arrival);
                    self.to_skip = to_skip;
                    self.partial.clear();
                    return Ok(input);
                }
            }
        }
    }
}

/// What the beginning of a packet says.
enum Head {
    /// It must be at least so long to say anything.
    Needs(usize),
    /// A packet of which `taken` bytes were read and `to_skip` more follow.
    Complete { arrival: Arrival, taken: usize, to_skip: usize },
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Self, WireError> {
        match bytes.first() {
            None => Ok(Self::Needs(1)),
            Some(b'M') => Ok(Self::read_message(bytes)),
            Some(b'A') => Ok(match read_u32(bytes, 1) {
                None => Self::Needs(5),
                Some(id) => Self::Complete { arrival: Arrival::Acknowledged(id), taken: 5, to_skip: 0 },
            }),
            Some(b'E') => Self::read_error(bytes),
            Some(other) => Err(WireError::UnknownPacket(*other)),
        }
    }

    /// `M` sender, channel, u16 type, u32 length, content.
    fn read_message(bytes: &[u8]) -> Self {
        let Some(length) = read_u32(bytes, MESSAGE_HEADER_BYTES - 4) else {
            return Self::Needs(MESSAGE_HEADER_BYTES);
        };
        let length = length as usize;
        let numbered = length.min(NUMBER_BYTES);
        let taken = MESSAGE_HEADER_BYTES + numbered;
        match bytes.get(MESSAGE_HEADER_BYTES..taken) {
            None => Self::Needs(taken),
            Some(start) => Self::Complete {
                arrival: Arrival::Message(Number::parse(start)),
                taken,
                to_skip: length - numbered,
            },
        }
    }

    /// `E` code, length, text.
    fn read_error(bytes: &[u8]) -> Result<Self, WireError> {
        let (Some(code), Some(length)) = (bytes.get(1), bytes.get(2)) else {
            return Ok(Self::Needs(3));
        };
        let end = 3 + usize::from(*length);
        match bytes.get(3..end) {
            None => Ok(Self::Needs(end)),
            Some(text) => {
                Err(WireError::Refused { code: *code, text: String::from_utf8_lossy(text).into_owned() })
            }
        }
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the counter tells of these bytes, fed in these pieces.
    fn count<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Arrival>, WireError> {
        let mut counter = PacketCounter::default();
        let mut arrivals = Vec::new();
        for piece in pieces {
            counter.feed(piece, |arrival| arrivals.push(arrival))?;
        }
        assert!(counter.is_between_packets());
        Ok(arrivals)
    }

    fn check(bytes: &[u8], expected: &[Arrival]) {
        assert_eq!(count([bytes]).unwrap(), expected, "whole");
        assert_eq!(count(bytes.chunks(1)).unwrap(), expected, "byte by byte");
    }

    /// `M` as a server sends it.
    fn message(content: &[u8]) -> Vec<u8> {
        let mut bytes = b"M\x05\0\0\0\x01\0\0\0\0\0".to_vec();
        bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
        bytes.extend_from_slice(content);
        bytes
    }

    #[test]
    fn the_worked_example_is_an_id_a_join_and_a_message_of_someone_else() {
        // [packets: worked example]
        check(
            b"\x41\x05\0\0\0\x41\x01\0\0\0\
              \x4d\x05\0\0\0\x01\0\0\0\0\0\x0a\0\0\0helloworld",
            &[Arrival::Acknowledged(5), Arrival::Acknowledged(1), Arrival::Message(None)],
        );
    }

    #[test]
    fn a_message_is_told_by_its_number() {
        let mut bytes = message(b"0000002axxxx");
        bytes.extend(message(b"0000002b"));
        bytes.extend(message(b""));
        check(
            &bytes,
            &[Arrival::Message(Some(Number(42))), Arrival::Message(Some(Number(43))), Arrival::Message(None)],
        );
    }

    #[test]
    fn an_error_is_handed_on_with_its_code_and_text() {
        let refused = WireError::Refused { code: 8, text: "lagging".into() };
        let bytes = b"A\x01\0\0\0E\x08\x07lagging";
        assert_eq!(count([bytes.as_slice()]).unwrap_err(), refused);
        assert_eq!(count(bytes.chunks(1)).unwrap_err(), refused);
    }

    #[test]
    fn a_byte_that_starts_no_packet_is_named() {
        assert_eq!(count([b"HTTP".as_slice()]).unwrap_err(), WireError::UnknownPacket(b'H'));
    }

    #[test]
    fn requests_have_the_documented_bytes() {
        // [packets: worked example]
        let mut out = Vec::new();
        write_register(None, &mut out);
        write_register(Some("key"), &mut out);
        write_join(5, 1, &mut out);
        write_publish(5, 1, Number(0x2a), 10, &mut out);
        assert_eq!(out, b"RS\x03key\x4a\x05\0\0\0\x01\0\0\0\x4d\x05\0\0\0\x01\0\0\0\x0a\0\0\x000000002axx");
    }

    proptest! {
        #[test]
        fn messages_are_counted_alike_however_they_are_split(
            sizes in proptest::collection::vec(NUMBER_BYTES..300, 1..20),
            piece in 1..64_usize,
        ) {
            let mut bytes = Vec::new();
            for (number, size) in sizes.iter().enumerate() {
                let mut content = Vec::new();
                Number(number as u32).write_content(*size, &mut content);
                bytes.extend(message(&content));
            }
            let expected: Vec<_> =
                (0..sizes.len() as u32).map(|n| Arrival::Message(Some(Number(n)))).collect();
            prop_assert_eq!(count([bytes.as_slice()]).unwrap(), expected.clone());
            prop_assert_eq!(count(bytes.chunks(piece)).unwrap(), expected);
        }

        #[test]
        fn no_input_panics_or_is_kept_without_bound(bytes: Vec<u8>, piece in 1..9_usize) {
            let mut counter = PacketCounter::default();
            for piece in bytes.chunks(piece) {
                if counter.feed(piece, |_| ()).is_err() {
                    break;
                }
                prop_assert!(counter.partial.len() <= 3 + 255);
            }
        }
    }
}
