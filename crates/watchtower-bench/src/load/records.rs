//! A stream of bytes that is one record after the other, as other servers' protocols are, and what a
//! bench says on it.
//!
//! A record is read as far as it says what it is, and the rest of it is skipped; bytes may be split
//! or joined in any way, and only a record that is split is copied.

use crate::error::WireError;
use crate::load::packets::Arrival;
use crate::load::payload::Number;

/// The most of a record that is read before it says what it is.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What the bytes of a stream begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    /// Less of a record than says what it is.
    Incomplete,
    /// A record of so many bytes, of which the rest may be still to come.
    Whole {
        /// What it says, if a bench wants to know.
        arrival: Option<Arrival>,
        /// Its length.
        bytes: usize,
        /// What it is to be answered with.
        answer: &'static [u8],
    },
}

impl Record {
    /// One that is not answered.
    pub(crate) fn new(arrival: Option<Arrival>, bytes: usize) -> Self {
        Self::Whole { arrival, bytes, answer: b"" }
    }
}

/// A protocol of another server, as far as a bench speaks it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    /// Appends what a client says first, and says how often that is acknowledged.
    pub(crate) hello: fn(&mut Vec<u8>) -> usize,
    /// Appends a subscription to a channel, which is acknowledged once.
    pub(crate) subscribe: fn(u32, &mut Vec<u8>),
    /// Appends a message with a content of that many bytes.
    pub(crate) publish: fn(u32, Number, usize, &mut Vec<u8>),
    /// Reads the first record of some bytes.
    pub(crate) read: fn(&[u8]) -> Result<Record, WireError>,
}

/// Counts what the records of a stream say.
#[derive(Debug)]
pub(crate) struct RecordCounter {
    read: fn(&[u8]) -> Result<Record, WireError>,
    /// The beginning of a record that does not say yet what it is. Invariant: at most
    /// [`HEAD_BYTES_MAX`].
    partial: Vec<u8>,
    /// How much of a record that nobody reads is still to come.
    to_skip: usize,
    /// Answers that are to be written.
    owed: Vec<u8>,
}

impl RecordCounter {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { read: wire.read, partial: Vec::new(), to_skip: 0, owed: Vec::new() }
    }

    /// Takes the next bytes and hands on what they complete.
    ///
    /// # Errors
    /// What the peer refused, and what is no record.
    pub(crate) fn feed(&mut self, mut input: &[u8], mut on: impl FnMut(Arrival)) -> Result<(), WireError> {
        loop {
            let skipped = self.to_skip.min(input.len());
            self.to_skip -= skipped;
            input = input.get(skipped..).unwrap_or_default();
            if input.is_empty() {
                return Ok(());
            }
            let before = self.partial.len();
            let record = if before == 0 {
                (self.read)(input)?
            } else {
                let room = HEAD_BYTES_MAX - before;
                self.partial.extend_from_slice(input.get(..room).unwrap_or(input));
                (self.read)(&self.partial)?
            };
            match record {
                Record::Incomplete => {
                    if before == 0 {
                        self.partial.extend_from_slice(input);
                    }
                    if self.partial.len() < HEAD_BYTES_MAX {
                        return Ok(());
                    }
                    return Err(WireError::TooLong { what: "record", limit: HEAD_BYTES_MAX });
                }
                Record::Whole { arrival, bytes, answer } => {
                    if let Some(arrival) = arrival {
                        on(arrival);
                    }
                    self.owed.extend_from_slice(answer);
                    self.partial.clear();
                    // What was kept was looked at before, and did not end the record.
                    self.to_skip = bytes.saturating_sub(before);
                }
            }
        }
    }

    /// Whether nothing of a record is outstanding.
    pub(crate) fn is_between_records(&self) -> bool {
        self.partial.is_empty() && self.to_skip == 0
    }

    /// What is to be answered, if anything is.
    pub(crate) fn take_owed(&mut self) -> Option<Vec<u8>> {
        (!self.owed.is_empty()).then(|| std::mem::take(&mut self.owed))
    }
}

/// The last whole message among these records.
pub(crate) fn last_message(wire: Wire, mut bytes: &[u8]) -> Option<&[u8]> {
    let mut last = None;
    while let Ok(Record::Whole { arrival, bytes: length, .. }) = (wire.read)(bytes) {
        let (record, rest) = bytes.split_at_checked(length)?;
        if matches!(arrival, Some(Arrival::Message(_))) {
            last = Some(record);
        }
        bytes = rest;
    }
    last
}

/// A line without its end, and how many bytes it takes with it; `None` if it has not ended.
pub(crate) fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr::memmem::find(bytes, b"\r\n")?;
    Some((bytes.get(..end)?, end + 2))
}

/// A number in decimal digits.
pub(crate) fn decimal(digits: &[u8]) -> Result<usize, WireError> {
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.ok_or(WireError::Framing("a length is not a number"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Counts these bytes whole, and piece by piece with pieces of any length.
    pub(crate) fn check(wire: Wire, bytes: &[u8], expected: &[Arrival]) {
        for length in 1..=bytes.len() {
            let mut counter = RecordCounter::new(wire);
            let mut arrivals = Vec::new();
            for piece in bytes.chunks(length) {
                counter.feed(piece, |arrival| arrivals.push(arrival)).unwrap();
            }
            assert_eq!(arrivals, expected, "in pieces of {length}");
            assert!(counter.is_between_records());
        }
    }

    /// A message that the wire was told to publish.
    pub(crate) fn published(wire: Wire, size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        (wire.publish)(7, Number(0x2a), size, &mut bytes);
        bytes
    }

    pub(crate) const MESSAGE: Arrival = Arrival::Message(Some(Number(0x2a)));

    #[test]
    fn a_record_without_an_end_is_given_up() {
        let wire = Wire { read: |_| Ok(Record::Incomplete), ..crate::load::redis::REDIS };
        let mut counter = RecordCounter::new(wire);
        let told = (0..20).find_map(|_| counter.feed(&[b'x'; 1000], |_| ()).err());
        assert_eq!(told, Some(WireError::TooLong { what: "record", limit: HEAD_BYTES_MAX }));
    }
}
