//! WebTalk's private link as a bench needs it: commands to write, and the replies to them, which
//! come in order.

use crate::error::WireError;
use crate::load::payload::Number;

/// The digits that say how long a frame is.
const LENGTH_DIGITS: usize = 5;
/// The longest frame that those digits can say.
pub(crate) const FRAME_BYTES_MAX: usize = 99_999;
/// What stands before the content in a `[shout]`, at most: the command, an id and the `!`.
pub(crate) const SHOUT_BYTES_BESIDE_MAX: usize = "[shout] 18446744073709551615!".len();

/// Appends a command with what it is about, which may be nothing.
pub(crate) fn write_command(command: &str, about: &str, out: &mut Vec<u8>) {
    let blank = if about.is_empty() { "" } else { " " };
    let length = "[]".len() + command.len() + blank.len() + about.len();
    out.extend_from_slice(format!("{length:05}[{command}]{blank}{about}").as_bytes());
}

/// Appends `[shout]` with a content of `size` bytes.
pub(crate) fn write_shout(channel: u64, number: Number, size: usize, out: &mut Vec<u8>) {
    let head = format!("[shout] {channel}!");
    out.extend_from_slice(format!("{:05}{head}", head.len() + size).as_bytes());
    number.write_content(size, out);
}

/// Reads replies from a stream of bytes.
#[derive(Debug, Default)]
pub(crate) struct ReplyReader {
    /// A reply that has not arrived whole. Invariant: shorter than the longest frame.
    partial: Vec<u8>,
}

impl ReplyReader {
    /// Takes the next bytes and hands on what stands behind `[ok]` in each reply that they complete.
    ///
    /// # Errors
    /// [`WireError::Rejected`] for an `[error]`, and what is no reply.
    pub(crate) fn feed(&mut self, input: &[u8], mut on: impl FnMut(&str)) -> Result<(), WireError> {
        self.partial.extend_from_slice(input);
        let mut taken = 0;
        while let Some(reply) = next_frame(self.partial.get(taken..).unwrap_or_default())? {
            taken += LENGTH_DIGITS + reply.len();
            let reply = String::from_utf8_lossy(reply);
            match (reply.strip_prefix("[ok]"), reply.strip_prefix("[error]")) {
                (Some(told), _) => on(told.trim_start()),
                (_, Some(sentence)) => return Err(WireError::Rejected(sentence.trim_start().to_owned())),
                _ => return Err(WireError::Framing("a reply is neither [ok] nor [error]")),
            }
        }
        self.partial.drain(..taken);
        Ok(())
    }

    /// Whether nothing of a reply is outstanding.
    pub(crate) fn is_between_replies(&self) -> bool {
        self.partial.is_empty()
    }
}

/// What the first frame holds, if it is there whole.
fn next_frame(bytes: &[u8]) -> Result<Option<&[u8]>, WireError> {
    let Some((digits, rest)) = bytes.split_first_chunk::<LENGTH_DIGITS>() else { return Ok(None) };
    let length = digits.iter().try_fold(0, |length, digit| match digit {
        b'0'..=b'9' => Ok(length * 10 + usize::from(digit - b'0')),
        _ => Err(WireError::Framing("the length of a reply is not five digits")),
    })?;
    Ok(rest.get(..length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<String>, WireError> {
        let mut replies = ReplyReader::default();
        let mut told = Vec::new();
        for piece in pieces {
            replies.feed(piece, |reply| told.push(reply.to_owned()))?;
        }
        assert!(replies.is_between_replies());
        Ok(told)
    }

    #[test]
    fn replies_are_read_whole_and_byte_by_byte() {
        // [webtalk: private link]
        let bytes = b"00010[ok] 7!abc00005[ok] 00017[ok] message sent";
        let expected = ["7!abc", "", "message sent"];
        assert_eq!(read([bytes.as_slice()]).unwrap(), expected);
        assert_eq!(read(bytes.chunks(1)).unwrap(), expected);
    }

    #[test]
    fn an_error_is_told_in_its_own_words() {
        let error = read([b"00020[error] unknown user0".as_slice()]).unwrap_err();
        assert_eq!(error, WireError::Rejected("unknown user".into()));
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for (bytes, told) in [("0000x", "five digits"), ("00004okay", "neither")] {
            let error = read([bytes.as_bytes()]).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn commands_have_the_documented_bytes() {
        // [webtalk: private link]
        let mut out = Vec::new();
        write_command("newuser", "", &mut out);
        write_command("join", "2!5", &mut out);
        write_shout(2, Number(0x2a), 10, &mut out);
        assert_eq!(out, b"00009[newuser]00010[join] 2!500020[shout] 2!0000002axx");
    }

    proptest! {
        #[test]
        fn no_input_panics_or_is_kept_without_bound(bytes: Vec<u8>, piece in 1..9_usize) {
            let mut replies = ReplyReader::default();
            for piece in bytes.chunks(piece) {
                if replies.feed(piece, |_| ()).is_err() {
                    break;
                }
                prop_assert!(replies.partial.len() < LENGTH_DIGITS + FRAME_BYTES_MAX);
            }
        }
    }
}
