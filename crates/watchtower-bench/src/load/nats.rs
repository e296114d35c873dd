//! NATS as a bench speaks it: `SUB`, `PUB` and `MSG`.
//!
//! Nothing of it is acknowledged, so each subscription is followed by a `PING`, whose `PONG` says
//! that it was read. A publisher is subscribed, and gets its own messages back.

use crate::error::WireError;
use crate::load::packets::Arrival;
use crate::load::payload::{NUMBER_BYTES, Number};
use crate::load::records::{Record, Wire, decimal, line};

pub(crate) const NATS: Wire = Wire {
    hello: |out| {
        out.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n");
        1
    },
    subscribe: |channel, out| {
        out.extend_from_slice(format!("SUB {channel} {channel}\r\nPING\r\n").as_bytes());
    },
    publish: |channel, number, size, out| {
        out.extend_from_slice(format!("PUB {channel} {size}\r\n").as_bytes());
        number.write_content(size, out);
        out.extend_from_slice(b"\r\n");
    },
    read,
};

/// `INFO …`, `PONG`, `PING`, or `MSG CHANNEL SUBSCRIPTION LENGTH` with a content.
fn read(bytes: &[u8]) -> Result<Record, WireError> {
    let Some((line, taken)) = line(bytes) else { return Ok(Record::Incomplete) };
    let mut words = line.split(|byte| *byte == b' ');
    match words.next().unwrap_or_default() {
        b"MSG" => {
            let Some(number) = bytes.get(taken..taken + NUMBER_BYTES) else { return Ok(Record::Incomplete) };
            let length = decimal(words.next_back().unwrap_or_default())?;
            let arrival = Arrival::Message(Number::parse(number));
            Ok(Record::new(Some(arrival), taken.saturating_add(length).saturating_add(2)))
        }
        b"PONG" => Ok(Record::new(Some(Arrival::Acknowledged(0)), taken)),
        b"PING" => Ok(Record::Whole { arrival: None, bytes: taken, answer: b"PONG\r\n" }),
        b"INFO" | b"+OK" => Ok(Record::new(None, taken)),
        b"-ERR" => Err(WireError::Rejected(String::from_utf8_lossy(line).into_owned())),
        _ => Err(WireError::Framing("a line is not one that was asked for")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::records::tests::{MESSAGE, check, published};
    use crate::load::records::{RecordCounter, last_message};

    const DELIVERED: &[u8] = b"MSG 7 7 12\r\n0000002axxxx\r\n";

    #[test]
    fn messages_and_answers_are_counted_however_they_are_split() {
        let bytes = [b"INFO {\"a\": 1}\r\nPONG\r\n".as_slice(), DELIVERED, b"PING\r\n"].concat();
        check(NATS, &bytes, &[Arrival::Acknowledged(0), MESSAGE]);
        assert_eq!(last_message(NATS, &bytes), Some(DELIVERED));
    }

    #[test]
    fn a_ping_is_answered() {
        let mut counter = RecordCounter::new(NATS);
        counter.feed(b"PING\r\n", |_| ()).unwrap();
        assert_eq!(counter.take_owed().as_deref(), Some(b"PONG\r\n".as_slice()));
        assert_eq!(counter.take_owed(), None);
    }

    #[test]
    fn publications_are_lines_with_a_content() {
        assert_eq!(published(NATS, 9), b"PUB 7 9\r\n0000002ax\r\n");
    }

    #[test]
    fn a_refusal_is_told() {
        assert_eq!(read(b"-ERR 'no'\r\n"), Err(WireError::Rejected("-ERR 'no'".into())));
    }
}
