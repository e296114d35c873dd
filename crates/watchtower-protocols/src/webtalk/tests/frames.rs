//! The codec of the private link.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::frame::*;
use super::super::{Command, LinkError};

fn check(bytes: &[u8], body: Body<'_>) {
    let mut out = Vec::new();
    body.encode(&mut out).unwrap();
    assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(bytes));
    check_decoding(bytes, body);
}

/// The bytes are the frame, whole and with more behind them; no part of them
/// is.
fn check_decoding(bytes: &[u8], body: Body<'_>) {
    for input in [bytes, &[bytes, b"0"].concat()] {
        let Decoded::Frame { bytes: inner, consumed } = decode(input) else { panic!("{input:?}") };
        assert_eq!((Body::parse(inner), consumed), (Some(body), bytes.len()));
    }
    for length in 0..bytes.len() {
        assert_eq!(decode(&bytes[..length]), Decoded::Incomplete);
    }
}

fn body<'a>(word: &'a str, data: &'a str) -> Body<'a> {
    Body { word: word.as_bytes(), data: data.as_bytes() }
}

#[test]
fn a_frame_is_five_digits_a_word_in_brackets_and_data() {
    // [webtalk: private link]
    check(b"00005[ok] ", body("ok", ""));
    check(b"00021[ok] 7!0123456789abcd", body("ok", "7!0123456789abcd"));
    check(b"00017[error] sentence!", body("error", "sentence!"));
    check(b"00003[] ", body("", ""));
}

#[test]
fn the_space_may_be_missing_and_only_one_is_taken_away() {
    check_decoding(b"00009[newuser]", body("newuser", ""));
    check_decoding(b"00011[killuser]7", body("killuser", "7"));
    check_decoding(b"00013[whisper]  7!", body("whisper", " 7!"));
    check_decoding(b"00007[a]]] x", body("a", "]] x"));
}

#[test]
fn an_empty_frame_is_one_of_its_own() {
    assert_eq!(decode(b"00000"), Decoded::Frame { bytes: b"", consumed: 5 });
    assert_eq!(decode(b"0000"), Decoded::Incomplete);
}

#[test]
fn a_length_that_is_not_five_digits_is_known_by_its_first_wrong_byte() {
    for input in
        [&b"x"[..], b" 0009[newuser]", b"0x009", b"0000 ", b"-0009", b"+0009", b"9[newuser]", b"\xff"]
    {
        assert_eq!(decode(input), Decoded::BadLength, "{input:?}");
    }
    for input in [&b""[..], b"9", b"9999", b"99999", b"99999["] {
        assert_eq!(decode(input), Decoded::Incomplete, "{input:?}");
    }
}

#[test]
fn what_five_digits_cannot_say_is_refused_and_writes_nothing() {
    let data = vec![b'x'; BODY_BYTES_MAX - "[ok] ".len() + 1];
    let mut out = Vec::new();
    let too_long = Body { word: b"ok", data: &data };
    assert_eq!(too_long.encode(&mut out), Err(TooLong { length: 100_000 }));
    assert_eq!(out, b"");
    let longest = Body { word: b"ok", data: &data[1..] };
    longest.encode(&mut out).unwrap();
    assert!(out.starts_with(b"99999[ok] x"));
    assert!(matches!(decode(&out), Decoded::Frame { consumed: 100_004, .. }));
}

fn check_command(frame: &str, expected: Result<Command<'_>, LinkError>) {
    assert_eq!(Command::parse(frame.as_bytes()), expected, "{frame}");
}

#[test]
fn every_command_is_read_as_the_page_lists_it() {
    // [webtalk: private link]
    check_command("", Ok(Command::Goodbye));
    check_command("[login] a b!c", Ok(Command::Login(b"a b!c")));
    check_command("[newuser]", Ok(Command::NewUser));
    check_command("[newuser] whatever", Ok(Command::NewUser));
    check_command("[killuser] 7", Ok(Command::KillUser(7)));
    check_command("[whisper] 7!a!b!", Ok(Command::Whisper { user: 7, message: b"a!b!" }));
    check_command("[whisper] 7!", Ok(Command::Whisper { user: 7, message: b"" }));
    check_command("[newchannel]", Ok(Command::NewChannel));
    check_command("[killchannel] 0", Ok(Command::KillChannel(0)));
    check_command("[shout] 1! x ", Ok(Command::Shout { channel: 1, message: b" x " }));
    check_command("[join] 2!7", Ok(Command::Join { channel: 2, user: 7 }));
    check_command("[leave] 2!7", Ok(Command::Leave { channel: 2, user: 7 }));
    check_command("[store] k!v!w", Ok(Command::Store { key: b"k", value: b"v!w" }));
    check_command("[retrieve] a!b", Ok(Command::Retrieve(b"a!b")));
    check_command("[clear]k", Ok(Command::Clear(b"k")));
}

#[test]
fn an_id_is_a_decimal_u64() {
    check_command("[killuser] 18446744073709551615", Ok(Command::KillUser(u64::MAX)));
    check_command("[killuser] 007", Ok(Command::KillUser(7)));
    for id in ["", "+7", "-7", " 7", "7 ", "seven", "0x7", "18446744073709551616", "٧", "7\n"] {
        check_command(&format!("[killuser] {id}"), Err(LinkError::BadId));
        check_command(&format!("[shout] {id}!x"), Err(LinkError::BadId));
        check_command(&format!("[join] 1!{id}"), Err(LinkError::BadId));
    }
}

#[test]
fn what_is_no_command_says_why() {
    for frame in ["newuser", "[newuser", "x[newuser]", " [newuser]", "]["] {
        check_command(frame, Err(LinkError::NoBrackets));
    }
    for frame in ["[]", "[NewUser]", "[newuser ]", "[ok] ", "[[newuser]]"] {
        check_command(frame, Err(LinkError::UnknownCommand));
    }
    for command in ["whisper", "shout", "join", "leave", "store"] {
        check_command(&format!("[{command}] 1"), Err(LinkError::NoSeparator));
        check_command(&format!("[{command}]"), Err(LinkError::NoSeparator));
    }
}

#[test]
fn secrets_messages_and_values_are_not_shown() {
    for frame in ["[login] hidden", "[whisper] 1!hidden", "[shout] 1!hidden", "[store] hidden!hidden"] {
        let shown = format!("{:?}", Command::parse(frame.as_bytes()).unwrap());
        assert!(!shown.contains("hidden") && shown.contains("6 bytes"), "{shown}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        word in "[^\\]]{0,20}",
        data in vec(any::<u8>(), 0..300),
        behind in vec(any::<u8>(), 0..20),
    ) {
        let body = Body { word: word.as_bytes(), data: &data };
        let mut bytes = Vec::new();
        body.encode(&mut bytes).unwrap();
        let length = bytes.len();
        bytes.extend(behind);
        let Decoded::Frame { bytes: inner, consumed } = decode(&bytes) else { panic!("{bytes:?}") };
        prop_assert_eq!((Body::parse(inner), consumed), (Some(body), length));
    }

    #[test]
    fn any_bytes_are_judged_alike_whole_and_cut_short(input in vec(any::<u8>(), 0..40)) {
        match decode(&input) {
            Decoded::Frame { bytes, consumed } => {
                prop_assert_eq!(bytes, &input[LENGTH_DIGITS..consumed]);
                prop_assert_eq!(decode(&input[..consumed]), Decoded::Frame { bytes, consumed });
                prop_assert_eq!(decode(&input[..consumed - 1]), Decoded::Incomplete);
            }
            Decoded::Incomplete => {
                for length in 0..input.len() {
                    prop_assert_eq!(decode(&input[..length]), Decoded::Incomplete);
                }
            }
            Decoded::BadLength => {
                let more = [&input[..], b"00000"].concat();
                prop_assert_eq!(decode(&more), Decoded::BadLength);
            }
        }
    }

    #[test]
    fn any_bytes_are_a_command_or_an_error(
        frame in prop_oneof![
            vec(any::<u8>(), 0..40),
            ("\\[(newuser|killuser|whisper|shout|join|leave|store|clear|x)\\] ?[0-9!a]{0,30}")
                .prop_map(String::into_bytes),
        ],
    ) {
        let _ = Command::parse(&frame);
    }
}
