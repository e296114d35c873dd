//! What clients send, in exact bytes: whole, byte by byte, and broken.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::super::decoder::{Decoder, Event, Rules, Violation};
use super::*;

const LIMIT: usize = 1 << 20;

/// An event that outlives the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

impl From<Event<'_>> for Said {
    fn from(event: Event<'_>) -> Said {
        match event {
            Event::Message { message: Incoming::Text(text), .. } => Said::Text(text.to_owned()),
            Event::Message { message: Incoming::Binary(bytes), .. } => Said::Binary(bytes.to_vec()),
            Event::Ping(payload) => Said::Ping(payload.to_vec()),
            Event::Pong => Said::Pong,
            Event::Close(code) => Said::Close(code.map(CloseCode::get)),
        }
    }
}

/// What was said in these pieces of input, and what was wrong at last.
pub(super) fn decode<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    message_bytes_max: usize,
    may_deflate: bool,
) -> (Vec<Said>, Option<Violation>) {
    let mut decoder = Decoder::default();
    let mut said = Vec::new();
    let rules = Rules { message_bytes_max, inflated_bytes_max: usize::MAX, may_deflate };
    for piece in pieces {
        let result = decoder.decode(piece, rules, |event| {
            said.push(event.into());
            if let Some(Said::Close(_)) = said.last() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if let Err(violation) = result {
            return (said, Some(violation));
        }
        if let Some(Said::Close(_)) = said.last() {
            break;
        }
    }
    (said, None)
}

/// Decodes whole and byte by byte.
fn check(input: &[u8], expected: &[Said], violation: Option<Violation>) {
    check_with(false, input, expected, violation);
}

fn check_with(may_deflate: bool, input: &[u8], expected: &[Said], violation: Option<Violation>) {
    let expected = (expected.to_vec(), violation);
    assert_eq!(decode([input], LIMIT, may_deflate), expected, "whole: {input:02x?}");
    assert_eq!(decode(input.chunks(1), LIMIT, may_deflate), expected, "byte by byte: {input:02x?}");
}

fn text(text: &str) -> Said {
    Said::Text(text.to_owned())
}

fn refuses(input: &[u8], violation: Violation) {
    check(input, &[], Some(violation));
}

#[test]
fn the_examples_of_rfc_6455_are_read() {
    // 5.7
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    check(&hello, &[text("Hello")], None);
    // Those that it shows without a mask, with one.
    check(&[masked(0x01, b"Hel"), masked(0x80, b"lo")].concat(), &[text("Hello")], None);
    check(&masked(PING, b"Hello"), &[Said::Ping(b"Hello".to_vec())], None);
    check(&masked(PONG, b"Hello"), &[Said::Pong], None);
    check(&masked(BINARY, &[7; 256]), &[Said::Binary(vec![7; 256])], None);
    check(&masked(BINARY, &[7; 65_536]), &[Said::Binary(vec![7; 65_536])], None);
}

#[test]
fn the_examples_of_rfc_7692_are_read() {
    // 7.2.3.1, whole and in fragments.
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    check_with(true, &masked(0xc1, &hello), &[text("Hello")], None);
    let fragments = [masked(0x41, &hello[..3]), masked(0x80, &hello[3..])].concat();
    check_with(true, &fragments, &[text("Hello")], None);
    // Not every message is compressed.
    let both = [masked(0xc1, &hello), masked(TEXT, b"Hello"), masked(0xc2, &hello)].concat();
    check_with(true, &both, &[text("Hello"), text("Hello"), Said::Binary(b"Hello".to_vec())], None);
}

#[test]
fn lengths_are_read_in_each_of_their_forms() {
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, LIMIT] {
        let payload = vec![b'x'; length];
        check(&masked(BINARY, &payload), &[Said::Binary(payload)], None);
    }
    // In more bytes than it needs: nobody may send it, and most read it.
    let long = [&[0x82, 0xfe, 0, 1][..], &MASK, &[b'x' ^ MASK[0]]].concat();
    check(&long, &[Said::Binary(b"x".to_vec())], None);
}

#[test]
fn control_frames_come_between_fragments() {
    let input = [
        masked(0x01, b"h\xc3"),
        masked(PING, b"1"),
        masked(0x00, b""),
        masked(PONG, b""),
        masked(0x80, b"\xa9"),
        masked(TEXT, b""),
    ];
    check(&input.concat(), &[Said::Ping(b"1".to_vec()), Said::Pong, text("hé"), text("")], None);
}

#[test]
fn a_message_that_is_not_complete_is_not_handed_over() {
    check(&masked(0x01, b"Hello"), &[], None);
    check(&masked(TEXT, b"Hello")[..10], &[], None);
    check(&[0x81, 0xfe, 0], &[], None);
}

#[test]
fn a_header_that_breaks_the_rules_is_refused_by_its_first_two_bytes() {
    for rsv in [0x10, 0x20, 0x40, 0x70] {
        refuses(&[TEXT | rsv, 0x80], Violation::ReservedBit);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        refuses(&[0x80 | opcode, 0x80], Violation::ReservedOpcode);
    }
    for opcode in [TEXT, BINARY, CLOSE, PING, PONG] {
        refuses(&[opcode, 5], Violation::NotMasked);
    }
    for opcode in [CLOSE, PING, PONG] {
        refuses(&[opcode & 0x7f, 0x80], Violation::ControlFrame);
        refuses(&[opcode, 0xfe], Violation::ControlFrame);
        refuses(&[opcode, 0xff], Violation::ControlFrame);
    }
    refuses(&[0x80, 0x80], Violation::NothingToContinue);
    refuses(&[0x00, 0x80], Violation::NothingToContinue);
    for opcode in [TEXT, BINARY] {
        refuses(&[masked(0x01, b"a"), vec![opcode, 0x80]].concat(), Violation::UnfinishedMessage);
    }
}

#[test]
fn compression_is_marked_where_a_message_begins_and_nowhere_else() {
    // RFC 7692 6
    check_with(true, &[0xc0, 0x80], &[], Some(Violation::ReservedBit));
    for opcode in [CLOSE, PING, PONG] {
        check_with(true, &[opcode | 0x40, 0x80], &[], Some(Violation::ReservedBit));
    }
    let continued = [masked(0x41, b"\xf2"), vec![0xc0, 0x80]].concat();
    check_with(true, &continued, &[], Some(Violation::ReservedBit));
    check_with(true, &masked(0xc1, b"\xff\xff"), &[], Some(Violation::Deflate));
}

#[test]
fn what_is_right_is_handed_over_before_what_is_wrong() {
    let input = [masked(TEXT, b"a"), vec![0x83, 0x80]].concat();
    check(&input, &[text("a")], Some(Violation::ReservedOpcode));
}

#[test]
fn a_length_above_the_limit_is_refused_before_its_content_comes() {
    let header = |length: u64| [&[0x82, 0xff][..], &length.to_be_bytes(), &MASK].concat();
    check(&header(LIMIT as u64), &[], None);
    for length in [LIMIT as u64 + 1, 1 << 32, u64::MAX >> 1] {
        refuses(&header(length), Violation::TooLong);
    }
    for length in [1 << 63, u64::MAX] {
        refuses(&header(length), Violation::Length);
    }
    let fragments = |last: usize| [masked(0x02, &vec![0; LIMIT - 10]), masked(0x80, &vec![0; last])].concat();
    check(&fragments(10), &[Said::Binary(vec![0; LIMIT])], None);
    refuses(&fragments(11), Violation::TooLong);
}

#[test]
fn a_compressed_message_above_the_limit_is_refused() {
    let deflated =
        |length| super::super::deflate::deflate(Compression::Deflate, &vec![b'a'; length]).to_vec();
    let kept = Said::Binary(vec![b'a'; LIMIT]);
    check_with(true, &masked(0xc2, &deflated(LIMIT)), &[kept], None);
    check_with(true, &masked(0xc2, &deflated(LIMIT + 1)), &[], Some(Violation::TooLong));
    check_with(true, &masked(0xc1, &deflated(50 * LIMIT)), &[], Some(Violation::TooLong));
}

#[test]
fn text_that_cannot_become_utf8_is_refused_as_soon_as_it_is_there() {
    refuses(&masked(TEXT, b"\xff"), Violation::Utf8);
    // Cut within a character, at the end of the message.
    refuses(&masked(TEXT, b"h\xc3"), Violation::Utf8);
    refuses(&[masked(0x01, b"h\xc3"), masked(0x80, b"")].concat(), Violation::Utf8);
    // In a fragment, before the rest of it.
    refuses(&[masked(0x01, b"h\xc3"), masked(0x00, b"xyz")[..7].to_vec()].concat(), Violation::Utf8);
    let surrogate = masked(TEXT, b"\xed\xa0\x80 and more");
    assert_eq!(decode([&surrogate[..9]], LIMIT, false), (vec![], Some(Violation::Utf8)));
    // Binary messages are not looked at, nor text while it is compressed.
    check(&masked(BINARY, b"\xff"), &[Said::Binary(vec![0xff])], None);
    let deflated = super::super::deflate::deflate(Compression::Deflate, b"\xff").to_vec();
    check_with(true, &masked(0xc1, &deflated), &[], Some(Violation::Utf8));
}

#[test]
fn close_frames_have_a_code_that_may_be_sent_and_a_reason_in_utf8_or_nothing() {
    // RFC 6455 7.4 and the registry that it made.
    let close = |code: u16, reason: &[u8]| masked(CLOSE, &[&code.to_be_bytes(), reason].concat());
    check(&masked(CLOSE, b""), &[Said::Close(None)], None);
    refuses(&masked(CLOSE, b"\x03"), Violation::CloseCode);
    let valid = |code: u16| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    for code in 0..=u16::MAX {
        let (said, violation) = decode([&close(code, b"bye")[..]], LIMIT, false);
        if valid(code) {
            assert_eq!((said, violation), (vec![Said::Close(Some(code))], None));
        } else {
            assert_eq!((said, violation), (vec![], Some(Violation::CloseCode)), "{code}");
        }
    }
    refuses(&close(1000, b"\xff"), Violation::Utf8);
    check(&close(1000, &[b'x'; 123]), &[Said::Close(Some(1000))], None);
    // Nothing is looked at after it.
    check(&[close(1000, b""), vec![0xff; 100]].concat(), &[Said::Close(Some(1000))], None);
}

#[test]
fn violations_are_told_by_the_code_that_fits() {
    let code = |violation: Violation| violation.close_code().get();
    assert_eq!(code(Violation::NotMasked), 1002);
    assert_eq!(code(Violation::CloseCode), 1002);
    assert_eq!(code(Violation::Utf8), 1007);
    assert_eq!(code(Violation::Deflate), 1007);
    assert_eq!(code(Violation::TooLong), 1009);
}

#[test]
fn an_idle_decoder_holds_next_to_nothing() {
    assert!(size_of::<Decoder>() <= 100, "{}", size_of::<Decoder>());
}

#[test]
fn memory_is_taken_for_what_came_and_not_for_what_was_announced() {
    let mut decoder = Decoder::default();
    let rules = Rules { message_bytes_max: LIMIT, inflated_bytes_max: LIMIT, may_deflate: false };
    let mut input = [&[0x82, 0xff][..], &(LIMIT as u64).to_be_bytes(), &MASK].concat();
    input.extend_from_slice(&[0; 100]);
    decoder.decode(&input, rules, |_| ControlFlow::Continue(())).expect("nothing is wrong");
    assert_eq!(decoder.kept_bytes(), 100);
    for _ in 0..1000 {
        decoder.decode(&[0; 1000], rules, |_| ControlFlow::Continue(())).expect("nothing is wrong");
    }
    assert!(decoder.kept_bytes() <= LIMIT, "{}", decoder.kept_bytes());
    let rest = vec![0; LIMIT - 1_000_100];
    decoder.decode(&rest, rules, |_| ControlFlow::Continue(())).expect("nothing is wrong");
    assert_eq!(decoder.kept_bytes(), 0, "the message was handed over");
}

proptest! {
    /// Whatever the mask, its four bytes go on across pieces.
    #[test]
    fn a_mask_is_taken_off_wherever_the_input_is_cut(
        mask: [u8; 4],
        payload in prop::collection::vec(any::<u8>(), 0..200),
        cut in 0..200_usize,
    ) {
        let input = masked_with(mask, BINARY, &payload);
        let (a, b) = input.split_at(cut.min(input.len()));
        prop_assert_eq!(decode([a, b], LIMIT, false), (vec![Said::Binary(payload)], None));
    }
}
