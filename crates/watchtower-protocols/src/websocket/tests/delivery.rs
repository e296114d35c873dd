//! Messages of the hub as frames: exact bytes, made once, and read back as a
//! client reads them.

use std::sync::atomic::AtomicUsize;

use bytes::BytesMut;
use watchtower_hub::{Epoch, FormatId, Message, Position};

use super::*;

const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Deflate, Compression::DeflateSmall];

fn message(content: Content) -> Message {
    let position = Position { epoch: Epoch::from_bits(1), offset: 1 };
    Message::detached(name("news"), position, None, content, Timestamp::default())
}

/// A payload and whether it is compressed, of a frame that is all of `bytes`.
fn parse(bytes: &[u8]) -> (u8, bool, Vec<u8>) {
    let (header, length) = match bytes[1] {
        126 => (4, u64::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
        127 => (10, u64::from_be_bytes(bytes[2..10].try_into().expect("8 bytes"))),
        length => (2, u64::from(length)),
    };
    assert_eq!(bytes.len() as u64, header as u64 + length, "one whole frame");
    (bytes[0] & !0x40, bytes[0] & 0x40 != 0, bytes[header..].to_vec())
}

#[test]
fn content_is_one_frame_of_text_or_binary() {
    // RFC 6455 5.7: a text message and what surrounds it, without a mask.
    let check = |content: Content, first: u8| {
        let expected = frame(first, content.bytes());
        for compression in COMPRESSIONS {
            let message = message(content.clone());
            assert_eq!(message.frame(Frames::content().format(compression)), &expected);
        }
    };
    check(Content::text("Hello"), 0x81);
    check(Content::json("[1]").expect("JSON"), 0x81);
    check(Content::binary(&b"\xff"[..]), 0x82);
    check(Content::text(""), 0x81);
    let hello = message(Content::text("Hello"));
    let plain = Frames::content();
    let plain = plain.format(Compression::None);
    assert_eq!(hello.frame(plain), &[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f][..]);
}

#[test]
fn headers_are_as_short_as_the_length_allows() {
    for (length, header) in [
        (0, vec![0x82, 0]),
        (125, vec![0x82, 125]),
        (126, vec![0x82, 126, 0, 126]),
        (65_535, vec![0x82, 126, 0xff, 0xff]),
        (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        (100_000, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0x86, 0xa0]),
    ] {
        let payload: Vec<u8> = (0..length).map(|i: u32| i as u8).collect();
        let message = message(Content::binary(payload.clone()));
        let expected = [header, payload].concat();
        let frames = Frames::content();
        // Alone, and behind what is there already.
        assert!(message.frame(frames.format(Compression::None)) == &expected, "{length}");
        let mut out = BytesMut::from(&b"before"[..]);
        frames.format(Compression::None).encode(&message, &mut out);
        assert!(out[..] == [b"before", &expected[..]].concat(), "{length}");
    }
}

#[test]
fn a_message_is_deflated_where_that_makes_it_shorter_and_read_back() {
    let frames = Frames::content();
    let check = |content: Content, is_shorter: bool| {
        for (compression, window_bits) in [(Compression::Deflate, 15), (Compression::DeflateSmall, 9)] {
            let message = message(content.clone());
            let (first, is_deflated, payload) = parse(message.frame(frames.format(compression)));
            assert_eq!((first, is_deflated), (0x81, is_shorter));
            let read = if is_deflated {
                inflated_by_client(&payload, window_bits).expect("deflated")
            } else {
                payload
            };
            assert!(read == content.bytes()[..], "{compression:?}");
        }
    };
    check(Content::text("a".repeat(127)), false);
    check(Content::text("a".repeat(128)), true);
    check(Content::text("all your base are belong to us ".repeat(10)), true);
    check(Content::text("a".repeat(300_000)), true);
    // Alike at a distance that only the larger window reaches.
    let noise: String = (0..3000_u32).map(|i| char::from(b' ' + (i * i % 89 + i / 97) as u8)).collect();
    check(Content::text(noise.repeat(3)), true);
    let length =
        |compression| message(Content::text(noise.repeat(3))).frame(frames.format(compression)).len();
    assert!(length(Compression::Deflate) < length(Compression::DeflateSmall));
}

#[test]
fn what_does_not_get_shorter_is_sent_as_it_is() {
    // Every byte once: there is nothing to find.
    let noise: Vec<u8> = (0..=255).collect();
    let message = message(Content::binary(noise.clone()));
    let expected = frame(0x82, &noise);
    for compression in COMPRESSIONS {
        assert_eq!(message.frame(Frames::content().format(compression)), &expected);
    }
}

/// Shows text alone, and counts how often it is asked.
struct Shouting(Arc<AtomicUsize>);

impl Codec for Shouting {
    fn encode(&self, message: &Message, out: &mut BytesMut) -> Option<MessageKind> {
        self.0.fetch_add(1, Ordering::Relaxed);
        // What was written does not matter when it is not shown.
        out.extend_from_slice(b"!");
        out.extend_from_slice(message.content().as_text()?.to_uppercase().as_bytes());
        Some(MessageKind::Text)
    }
}

/// Shows what is shouted on one channel.
struct Crowd(Arc<Frames>);

impl Handler for Crowd {
    type State = ();

    fn protocol(&self) -> &'static str {
        "crowd"
    }

    fn frames(&self) -> Arc<Frames> {
        self.0.clone()
    }

    fn open(&self, client: &mut Client<'_>, _request: &Parts) {
        client.subscribe(&name("news")).expect("there is room");
    }

    fn message(&self, _state: &mut (), _client: &mut Client<'_>, _message: Incoming<'_>) {}
}

#[test]
fn a_message_is_encoded_once_for_each_way_to_send_it_however_many_hear_it() {
    let count = Arc::new(AtomicUsize::new(0));
    let frames = Frames::new(32, Shouting(count.clone()));
    let hub = new_hub();
    let open = |compression| Connection::with(&hub, Crowd(frames.clone()), compression, Settings::default());
    let crowd: Vec<Connection> = (0..9).map(|i| open(COMPRESSIONS[i % 3])).collect();
    hub.publish(&name("news"), Publish::new(Content::text("x".repeat(200))), Timestamp::default())
        .expect("it is accepted");
    for connection in &crowd {
        let (first, is_deflated, payload) = parse(&connection.hears());
        assert_eq!(first, 0x81);
        let read = if is_deflated { inflated_by_client(&payload, 15).expect("deflated") } else { payload };
        assert_eq!(read, format!("!{}", "X".repeat(200)).as_bytes());
    }
    assert_eq!(count.load(Ordering::Relaxed), 3);
}

#[test]
fn what_a_codec_cannot_show_is_not_sent() {
    let frames = Frames::new(32, Shouting(Arc::default()));
    let message = message(Content::binary(&b"\xff"[..]));
    for compression in COMPRESSIONS {
        let mut out = BytesMut::from(&b"before"[..]);
        frames.format(compression).encode(&message, &mut out);
        assert_eq!(out, "before");
    }
}

#[test]
fn each_way_to_send_has_a_format_of_its_own() {
    let ids = |frames: &Frames| COMPRESSIONS.map(|compression| frames.format(compression).id());
    assert_eq!(ids(&Frames::content()), [11, 12, 13].map(FormatId::new));
    assert_eq!(ids(&Frames::new(61, Shouting(Arc::default()))), [61, 62, 63].map(FormatId::new));
}

#[test]
#[should_panic(expected = "format numbers are below 64")]
fn there_are_64_formats() {
    Frames::new(62, Shouting(Arc::default()));
}
