//! Channel names: what is one, and the one place where text becomes one.
//!
//! Knows nothing of protocols; a protocol that numbers its channels gets the
//! same names through [`ChannelName::from`].

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// The longest channel name, in bytes of UTF-8 ([model: terms]).
pub const NAME_BYTES_MAX: usize = 128;

/// The name of a channel ([model: terms]).
///
/// 1 to 128 bytes of UTF-8 without control characters and without a space at
/// either end. The decimal text of a `u32` *is* the channel of that number:
/// numeric and named protocols meet there, so `"5"` and `5` are equal.
///
/// Ordered as lists show them: numbers first, by value, then names by their
/// bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ChannelName(Name);

/// Invariant: `Text` never holds digits alone, so that each name has one form.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Name {
    Number(u32),
    Text(Arc<str>),
}

impl ChannelName {
    /// Reads a name.
    ///
    /// # Errors
    ///
    /// Says which rule the text breaks.
    pub fn parse(text: &str) -> Result<ChannelName, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(InvalidName::TooLong { bytes: text.len() });
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let canonical = text == "0" || !text.starts_with('0');
            return match text.parse::<u32>() {
                Ok(number) if canonical => Ok(number.into()),
                _ => Err(InvalidName::NotCanonical),
            };
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidName::ControlCharacter);
        }
        if text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace) {
            return Err(InvalidName::OuterSpace);
        }
        Ok(ChannelName(Name::Text(text.into())))
    }

    /// The number, for a channel that protocols with numeric channels reach.
    pub fn number(&self) -> Option<u32> {
        match self.0 {
            Name::Number(number) => Some(number),
            Name::Text(_) => None,
        }
    }

    /// The name as text, unless it is a number.
    pub fn text(&self) -> Option<&str> {
        match &self.0 {
            Name::Number(_) => None,
            Name::Text(text) => Some(text),
        }
    }
}

impl From<u32> for ChannelName {
    fn from(number: u32) -> Self {
        ChannelName(Name::Number(number))
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Name::Number(number) => number.fmt(f),
            Name::Text(text) => text.fmt(f),
        }
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl PartialOrd for ChannelName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ChannelName {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Name::Number(a), Name::Number(b)) => a.cmp(b),
            (Name::Number(_), Name::Text(_)) => Ordering::Less,
            (Name::Text(_), Name::Number(_)) => Ordering::Greater,
            (Name::Text(a), Name::Text(b)) => a.cmp(b),
        }
    }
}

/// Why a text is no channel name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// There is nothing in it.
    #[error("a channel name is not empty")]
    Empty,
    /// It is longer than [`NAME_BYTES_MAX`].
    #[error("a channel name has at most {NAME_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is made of digits, but is not how a `u32` is written.
    #[error("a channel name of digits is a number from 0 to 4294967295 without leading zeros")]
    NotCanonical,
    /// It holds a control character.
    #[error("a channel name holds no control characters")]
    ControlCharacter,
    /// It begins or ends with a space.
    #[error("a channel name neither begins nor ends with a space")]
    OuterSpace,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, InvalidName>) {
        let parsed = ChannelName::parse(text).map(|name| name.to_string());
        assert_eq!(parsed, expected.map(str::to_owned), "{text:?}");
    }

    #[test]
    fn a_name_is_short_printable_text_and_digits_are_canonical_numbers() {
        // [model: terms]
        check("5", Ok("5"));
        check("0", Ok("0"));
        check("4294967295", Ok("4294967295"));
        check("4294967296", Err(InvalidName::NotCanonical));
        check("07", Err(InvalidName::NotCanonical));
        check("00", Err(InvalidName::NotCanonical));
        check("hello", Ok("hello"));
        check("orders/é 7", Ok("orders/é 7"));
        check("-7", Ok("-7"));
        check("", Err(InvalidName::Empty));
        check(" a", Err(InvalidName::OuterSpace));
        check("a ", Err(InvalidName::OuterSpace));
        check("a\u{7}b", Err(InvalidName::ControlCharacter));
        check("a\u{85}b", Err(InvalidName::ControlCharacter));
        check(&"é".repeat(64), Ok(&"é".repeat(64)));
        let long = format!("{}x", "é".repeat(64));
        check(&long, Err(InvalidName::TooLong { bytes: 129 }));
    }

    #[test]
    fn a_number_and_its_decimal_text_are_the_same_channel() {
        assert_eq!(ChannelName::parse("5"), Ok(ChannelName::from(5)));
        assert_eq!(ChannelName::from(5).number(), Some(5));
        assert_eq!(ChannelName::parse("five").map(|name| name.number()), Ok(None));
    }

    #[test]
    fn lists_show_numbers_first_and_by_value() {
        let mut names: Vec<_> = ["hello", "10", "a", "9"].map(|t| ChannelName::parse(t).unwrap()).into();
        names.sort();
        let shown: Vec<_> = names.iter().map(ChannelName::to_string).collect();
        assert_eq!(shown, ["9", "10", "a", "hello"]);
    }
}
