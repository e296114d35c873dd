//! Redis as a bench speaks it: RESP, `SUBSCRIBE` and `PUBLISH`.

use crate::error::WireError;
use crate::load::packets::Arrival;
use crate::load::payload::{NUMBER_BYTES, Number};
use crate::load::records::{Record, Wire, decimal, line};

pub(crate) const REDIS: Wire = Wire {
    hello: |_| 0,
    subscribe: |channel, out| write_command(&[b"SUBSCRIBE", channel.to_string().as_bytes()], out),
    publish: |channel, number, size, out| {
        let channel = channel.to_string();
        let head = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${size}\r\n", channel.len());
        out.extend_from_slice(head.as_bytes());
        number.write_content(size, out);
        out.extend_from_slice(b"\r\n");
    },
    read,
};

fn write_command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// `*3 subscribe CHANNEL COUNT`, `*3 message CHANNEL CONTENT`, or the `:COUNT` that answers a
/// publication.
fn read(bytes: &[u8]) -> Result<Record, WireError> {
    let Some((first, mut at)) = line(bytes) else { return Ok(Record::Incomplete) };
    match first {
        [b':', ..] => return Ok(Record::new(Some(Arrival::Acknowledged(0)), at)),
        [b'-', error @ ..] => return Err(WireError::Rejected(String::from_utf8_lossy(error).into_owned())),
        b"*3" => (),
        _ => return Err(WireError::Framing("a reply is not one that was asked for")),
    }
    let mut kind: &[u8] = b"";
    for word in 0..2 {
        let Some((head, taken)) = bytes.get(at..).and_then(line) else { return Ok(Record::Incomplete) };
        let length = decimal(head.strip_prefix(b"$").unwrap_or_default())?;
        let start = at + taken;
        let Some(text) = bytes.get(start..start.saturating_add(length)) else {
            return Ok(Record::Incomplete);
        };
        if word == 0 {
            kind = text;
        }
        at = start + length + 2;
    }
    let Some((last, taken)) = bytes.get(at..).and_then(line) else { return Ok(Record::Incomplete) };
    at += taken;
    match (kind, last) {
        (b"subscribe", _) => Ok(Record::new(Some(Arrival::Acknowledged(0)), at)),
        (b"message", [b'$', length @ ..]) => {
            let Some(number) = bytes.get(at..at + NUMBER_BYTES) else { return Ok(Record::Incomplete) };
            let arrival = Arrival::Message(Number::parse(number));
            Ok(Record::new(Some(arrival), at.saturating_add(decimal(length)?).saturating_add(2)))
        }
        _ => Err(WireError::Framing("a push is not one that was asked for")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::records::last_message;
    use crate::load::records::tests::{MESSAGE, check, published};

    const DELIVERED: &[u8] = b"*3\r\n$7\r\nmessage\r\n$1\r\n7\r\n$12\r\n0000002axxxx\r\n";

    #[test]
    fn messages_and_answers_are_counted_however_they_are_split() {
        let bytes =
            [b"*3\r\n$9\r\nsubscribe\r\n$1\r\n7\r\n:1\r\n".as_slice(), DELIVERED, b":12\r\n"].concat();
        check(REDIS, &bytes, &[Arrival::Acknowledged(0), MESSAGE, Arrival::Acknowledged(0)]);
        assert_eq!(last_message(REDIS, &bytes), Some(DELIVERED));
    }

    #[test]
    fn commands_are_arrays_of_texts() {
        assert_eq!(published(REDIS, 9), b"*3\r\n$7\r\nPUBLISH\r\n$1\r\n7\r\n$9\r\n0000002ax\r\n");
        let mut out = Vec::new();
        (REDIS.subscribe)(12, &mut out);
        assert_eq!(out, b"*2\r\n$9\r\nSUBSCRIBE\r\n$2\r\n12\r\n");
    }

    #[test]
    fn a_refusal_is_told() {
        assert_eq!(read(b"-ERR no\r\n"), Err(WireError::Rejected("ERR no".into())));
        assert!(read(b"*2\r\n").is_err());
    }
}
