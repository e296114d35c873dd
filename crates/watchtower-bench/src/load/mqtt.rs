//! MQTT 3.1.1 as a bench speaks it, with quality of service 0: nothing of a publication is
//! acknowledged. A publisher is subscribed, and gets its own messages back.

use crate::error::WireError;
use crate::load::packets::Arrival;
use crate::load::payload::{NUMBER_BYTES, Number};
use crate::load::records::{Record, Wire};

pub(crate) const MQTT: Wire = Wire {
    hello: |out| {
        // Protocol level 4, a clean session, no keep-alive, and a name of the server's choice.
        out.extend_from_slice(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00");
        1
    },
    subscribe: |channel, out| {
        let topic = channel.to_string();
        out.push(0x82);
        write_length(2 + 2 + topic.len() + 1, out);
        out.extend_from_slice(&[0, 1]);
        write_text(&topic, out);
        out.push(0);
    },
    publish: |channel, number, size, out| {
        let topic = channel.to_string();
        out.push(PUBLISH << 4);
        write_length(2 + topic.len() + size, out);
        write_text(&topic, out);
        number.write_content(size, out);
    },
    read,
};

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const SUBACK: u8 = 9;

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Channels have ten digits at most.
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Seven bits a byte, the lowest first.
fn write_length(mut length: usize, out: &mut Vec<u8>) {
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        out.push(byte | if length > 0 { 0x80 } else { 0 });
        if length == 0 {
            return;
        }
    }
}

/// The length that stands behind the first byte, and how many bytes it takes.
fn read_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, WireError> {
    let mut length = 0;
    for at in 0..4 {
        let Some(byte) = bytes.get(at) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((length, at + 1)));
        }
    }
    Err(WireError::Framing("a length has more than four bytes"))
}

fn read(bytes: &[u8]) -> Result<Record, WireError> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(Record::Incomplete) };
    let Some((length, taken)) = read_length(rest)? else { return Ok(Record::Incomplete) };
    let body = rest.get(taken..).unwrap_or_default();
    let whole = 1 + taken + length;
    match first >> 4 {
        PUBLISH => {
            let Some((topic, _)) = body.split_first_chunk() else { return Ok(Record::Incomplete) };
            let content = 2 + usize::from(u16::from_be_bytes(*topic));
            let Some(number) = body.get(content..content + NUMBER_BYTES) else {
                return Ok(Record::Incomplete);
            };
            Ok(Record::new(Some(Arrival::Message(Number::parse(number))), whole))
        }
        CONNACK | SUBACK => match body.get(..length) {
            None => Ok(Record::Incomplete),
            // The code of a refusal.
            Some([.., code]) if *code != 0 => Err(WireError::Rejected(format!("code {code}"))),
            Some(_) => Ok(Record::new(Some(Arrival::Acknowledged(0)), whole)),
        },
        _ => Err(WireError::Framing("a packet is not one that was asked for")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::records::last_message;
    use crate::load::records::tests::{MESSAGE, check, published};

    #[test]
    fn messages_and_answers_are_counted_however_they_are_split() {
        for size in [12, 200, 20_000] {
            let delivered = published(MQTT, size);
            let bytes = [b"\x20\x02\x00\x00\x90\x03\x00\x01\x00".as_slice(), &delivered].concat();
            check_some(&bytes);
            assert_eq!(last_message(MQTT, &bytes), Some(delivered.as_slice()));
        }
    }

    fn check_some(bytes: &[u8]) {
        let expected = [Arrival::Acknowledged(0), Arrival::Acknowledged(0), MESSAGE];
        if bytes.len() < 1000 {
            return check(MQTT, bytes, &expected);
        }
        let mut counter = crate::load::records::RecordCounter::new(MQTT);
        let mut arrivals = Vec::new();
        bytes.chunks(7).for_each(|piece| counter.feed(piece, |arrival| arrivals.push(arrival)).unwrap());
        assert_eq!(arrivals, expected);
    }

    #[test]
    fn publications_carry_topic_and_content() {
        assert_eq!(published(MQTT, 9), b"\x30\x0c\x00\x017\x30\x30\x30\x30\x30\x30\x32ax");
        let mut out = Vec::new();
        (MQTT.subscribe)(12, &mut out);
        assert_eq!(out, b"\x82\x07\x00\x01\x00\x0212\x00");
    }

    #[test]
    fn a_refusal_is_told() {
        assert_eq!(read(b"\x20\x02\x00\x05"), Err(WireError::Rejected("code 5".into())));
    }
}
