//! The content of a published message: which one it is, and padding.
//!
//! The number is text, so that a message is the same to every protocol: bytes, a JSON string, a
//! text frame. When it was published stands in a table of the publisher's, not in the message.

/// How many bytes of a content its number takes: what the smallest message holds.
pub(crate) const NUMBER_BYTES: usize = 8;

const PADDING: u8 = b'x';

/// The value of each byte as a hexadecimal digit: every delivery reads eight of them.
const DIGIT_VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
};
/// Of a byte that is none. No digits together have all of its bits.
const NO_DIGIT: u8 = 0xff;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The number of a message within a run, counted over everything that was published to one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number(pub(crate) u32);

impl Number {
    /// The eight hexadecimal digits that a content starts with.
    pub(crate) fn digits(self) -> [u8; NUMBER_BYTES] {
        let mut rest = self.0;
        let mut digits = [0; NUMBER_BYTES];
        for digit in digits.iter_mut().rev() {
            *digit = DIGITS[(rest % 16) as usize];
            rest /= 16;
        }
        digits
    }

    /// Reads the number that a content starts with; `None` if it is none of ours.
    pub(crate) fn parse(content: &[u8]) -> Option<Self> {
        let digits = content.first_chunk::<NUMBER_BYTES>()?;
        let (mut number, mut all) = (0, 0);
        for digit in digits {
            let value = DIGIT_VALUES[usize::from(*digit)];
            all |= value;
            number = number << 4 | u32::from(value);
        }
        (all != NO_DIGIT).then_some(Self(number))
    }

    /// Appends a content of `size` bytes (at least [`NUMBER_BYTES`]).
    pub(crate) fn write_content(self, size: usize, out: &mut Vec<u8>) {
        debug_assert!(size >= NUMBER_BYTES);
        let end = out.len() + size;
        out.extend_from_slice(&self.digits());
        out.resize(end, PADDING);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_content_is_the_number_and_padding() {
        let mut content = Vec::new();
        Number(0x2a).write_content(12, &mut content);
        assert_eq!(content, b"0000002axxxx");
    }

    #[test]
    fn what_is_not_ours_has_no_number() {
        assert_eq!(Number::parse(b"helloworld"), None);
        assert_eq!(Number::parse(b"0000002"), None);
        assert_eq!(Number::parse(b"0000002A"), None);
    }

    proptest! {
        #[test]
        fn every_number_is_read_back(number: u32, size in NUMBER_BYTES..64) {
            let mut content = Vec::new();
            Number(number).write_content(size, &mut content);
            prop_assert_eq!(content.len(), size);
            prop_assert_eq!(Number::parse(&content), Some(Number(number)));
        }
    }
}
