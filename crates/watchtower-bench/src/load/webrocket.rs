//! WebRocket as a bench needs it: commands to write, and what a message from the server is.
//!
//! It knows just enough JSON to find a key and what follows it.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::error::WireError;
use crate::load::packets::Arrival;
use crate::load::payload::{NUMBER_BYTES, Number};
use crate::load::websocket::write_text;

/// How much of a message is looked at: event, channel and the number fit.
pub(crate) const START_BYTES: usize = 128;

/// The event of every message.
const EVENT: &str = "bench";

/// Which of the two accesses of a hub is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// Appends `auth`.
pub(crate) fn write_auth(access: Access, secret: &str, out: &mut Vec<u8>) {
    let access = match access {
        Access::ReadOnly => "read-only",
        Access::ReadWrite => "read-write",
    };
    let secret = json_string(secret);
    write_text(format!(r#"{{"auth":{{"access":"{access}","secret":{secret}}}}}"#).as_bytes(), out);
}

/// Appends `subscribe`.
pub(crate) fn write_subscribe(channel: u32, out: &mut Vec<u8>) {
    write_text(format!(r#"{{"subscribe":{{"channel":"{channel}"}}}}"#).as_bytes(), out);
}

/// Appends `publish` with a content of `size` bytes.
pub(crate) fn write_publish(channel: u32, number: Number, size: usize, out: &mut Vec<u8>) {
    let mut command =
        format!(r#"{{"publish":{{"event":"{EVENT}","channel":"{channel}","data":""#).into_bytes();
    number.write_content(size, &mut command);
    command.extend_from_slice(b"\"}}");
    write_text(&command, out);
}

/// What a message is that starts like this.
///
/// # Errors
/// [`WireError::Rejected`] for an `err`.
pub(crate) fn read(start: &[u8]) -> Result<Arrival, WireError> {
    static DATA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"data\""));
    static ERR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"err\""));
    if let Some(data) = string_after(&DATA, start) {
        return Ok(Arrival::Message(data.get(..NUMBER_BYTES).and_then(Number::parse)));
    }
    if let Some(code) = string_after(&ERR, start) {
        let code = code.split(|byte| *byte == b'"').next().unwrap_or_default();
        return Err(WireError::Rejected(String::from_utf8_lossy(code).into_owned()));
    }
    let answer = memchr::memmem::find(start, b"\"ok\"");
    Ok(if answer.is_some() { Arrival::Acknowledged(0) } else { Arrival::Message(None) })
}

/// What follows a key, if it is a string: from behind its quotation mark on.
fn string_after<'a>(key: &Finder<'_>, json: &'a [u8]) -> Option<&'a [u8]> {
    let after = json.get(key.find(json)? + key.needle().len()..)?;
    after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")
}

/// Text as a JSON string.
fn json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            '\0'..='\x1f' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, expected: Arrival) {
        assert_eq!(read(message.as_bytes()), Ok(expected), "{message}");
    }

    #[test]
    fn a_message_is_told_by_the_number_in_its_data() {
        let message = Arrival::Message(Some(Number(42)));
        check(r#"{"event":"bench","channel":"1","data":"0000002axx"}"#, message);
        check(r#"{"event": "bench", "channel": "1", "data": "0000002axx"}"#, message);
        check(r#"{"data":"0000002a","event":"ok","channel":"1"}"#, message);
        check(r#"{"event":"foo","channel":"1","data":[1]}"#, Arrival::Message(None));
        check(r#"{"event":"foo","channel":"1","data":"hello"}"#, Arrival::Message(None));
    }

    #[test]
    fn an_answer_is_ok_or_an_error() {
        check(r#"{"ok":true}"#, Arrival::Acknowledged(0));
        check(r#"{"ok": true}"#, Arrival::Acknowledged(0));
        for error in [r#"{"err":"access_denied"}"#, r#"{"err": "access_denied"}"#] {
            let told = read(error.as_bytes()).unwrap_err();
            assert_eq!(told.to_string(), "refused with `access_denied`");
        }
    }

    /// The payload of the masked text frame that these bytes are.
    fn unmasked(frame: &[u8]) -> String {
        let payload = frame[6..].iter().zip(frame[2..6].iter().cycle()).map(|(byte, mask)| byte ^ mask);
        String::from_utf8(payload.collect()).unwrap()
    }

    #[test]
    fn commands_are_one_object_with_one_key() {
        // [webrocket: commands]
        let write = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            unmasked(&out)
        };
        assert_eq!(
            write(&|out| write_auth(Access::ReadOnly, "a\"\\\n", out)),
            r#"{"auth":{"access":"read-only","secret":"a\"\\\u000a"}}"#
        );
        assert_eq!(
            write(&|out| write_auth(Access::ReadWrite, "", out)),
            r#"{"auth":{"access":"read-write","secret":""}}"#
        );
        assert_eq!(write(&|out| write_subscribe(7, out)), r#"{"subscribe":{"channel":"7"}}"#);
        assert_eq!(
            write(&|out| write_publish(7, Number(0x2a), 10, out)),
            r#"{"publish":{"event":"bench","channel":"7","data":"0000002axx"}}"#
        );
    }
}
