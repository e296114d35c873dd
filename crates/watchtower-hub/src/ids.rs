//! The small numbers of the model, each a type of its own.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// A registered identity ([model: terms]).
///
/// Drawn at random, never in sequence: knowing it is what proves that a device
/// received its registration. `0` on a wire means "no registered sender", which
/// is `None` here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SenderId(NonZeroU32);

impl SenderId {
    /// The id of that number; none for 0.
    pub fn new(number: u32) -> Option<SenderId> {
        NonZeroU32::new(number).map(SenderId)
    }

    /// The number as it goes over a wire.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for SenderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The incarnation of a channel's log ([model: terms]): opaque, printed as 16
/// hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of that number.
    pub fn from_bits(bits: u64) -> Epoch {
        Epoch(bits)
    }

    /// The number, for a record of the log.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Reads what [`Epoch`]'s `Display` wrote, and nothing else.
    pub fn parse(text: &str) -> Option<Epoch> {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 16 || !text.bytes().all(digits) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Epoch)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A place in a channel: the last message that was seen there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The incarnation of the log that `offset` counts in.
    pub epoch: Epoch,
    /// A message's number, or 0 for the place before the first.
    pub offset: u64,
}

impl Position {
    /// A place in no log: who was there is told so, and given all that there is.
    pub const NOWHERE: Position = Position { epoch: Epoch(0), offset: u64::MAX };

    /// Reads where a client says it was, `epoch:offset`. An epoch is opaque to
    /// clients: what looks like none is an unknown one, so that this is
    /// [nowhere](Self::NOWHERE). `None` for anything else.
    pub fn of_client(text: &str) -> Option<Position> {
        let (_, offset) = text.rsplit_once(':')?;
        let is_number = !offset.is_empty() && offset.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| Position::parse(text).unwrap_or(Position::NOWHERE))
    }

    /// Reads `epoch:offset`, as [`Position`]'s `Display` writes it.
    pub fn parse(text: &str) -> Option<Position> {
        let (epoch, offset) = text.split_once(':')?;
        let offset = offset.bytes().all(|b| b.is_ascii_digit()).then(|| offset.parse().ok())??;
        Some(Position { epoch: Epoch::parse(epoch)?, offset })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

/// A moment of wall-clock time: milliseconds since the Unix epoch.
///
/// The hub has no clock; whoever calls it hands the time in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// That many milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Timestamp {
        Timestamp(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment `later` after this one.
    pub fn after(self, later: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero when it is not in the past.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let position = Position { epoch: Epoch::from_bits(0xab), offset: 12 };
        assert_eq!(position.to_string(), "00000000000000ab:12");
        assert_eq!(Position::parse("00000000000000ab:12"), Some(position));
        for wrong in [
            "",
            ":",
            "ab:12",
            "00000000000000AB:1",
            "00000000000000ab:+1",
            "00000000000000ab:",
            "00000000000000ab:99999999999999999999",
        ] {
            assert_eq!(Position::parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(Position::of_client("00000000000000ab:12"), Some(position));
        for unknown in ["another:12", ":12", "a:b:12", "00000000000000ab:99999999999999999999"] {
            assert_eq!(Position::of_client(unknown), Some(Position::NOWHERE), "{unknown:?}");
        }
        for wrong in ["", "12", "ab:", "00000000000000ab:+1", "00000000000000ab:x"] {
            assert_eq!(Position::of_client(wrong), None, "{wrong:?}");
        }
    }
}
