//! The codec, in exact bytes: whole, byte by byte, and cut anywhere.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value, json};
use watchtower_hub::Timestamp;

use super::*;

const BYTES_MAX: usize = 1_000;

/// The objects in a stream that comes in these pieces, and what ended it.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Bytes>, Option<Malformed>) {
    let mut reader = ObjectReader::new(BYTES_MAX);
    let mut objects = Vec::new();
    for mut piece in pieces {
        loop {
            match reader.read(&mut piece) {
                Ok(Some(object)) => objects.push(object),
                Ok(None) => break assert_eq!(piece, b""),
                Err(malformed) => return (objects, Some(malformed)),
            }
            assert!(reader.unfinished_bytes() <= BYTES_MAX);
        }
    }
    (objects, None)
}

#[track_caller]
fn check_stream(stream: &[u8], objects: &[&str], end: Option<Malformed>) {
    let expected = (objects.iter().map(|object| Bytes::from(object.to_string())).collect(), end);
    assert_eq!(read([stream]), expected, "whole");
    assert_eq!(read(stream.chunks(1)), expected, "byte by byte");
}

// Finding objects.

/// [whispernet: messages]
#[test]
fn objects_follow_one_another_with_or_without_white_space() {
    check_stream(br#"{"ID":"1"}{"ID":"2"}"#, &[r#"{"ID":"1"}"#, r#"{"ID":"2"}"#], None);
    check_stream(b" \r\n\t{}\n\n{} {}\n", &["{}", "{}", "{}"], None);
    check_stream(b"", &[], None);
    check_stream(b" \n", &[], None);
    check_stream(b"{ \n \"a\" : 1 }{", &["{ \n \"a\" : 1 }"], None);
}

#[test]
fn brackets_and_quotes_in_strings_end_nothing() {
    for object in [
        r#"{"a":"}"}"#,
        r#"{"a":"\"}"}"#,
        r#"{"a":"\\"}"#,
        r#"{"a":"\\\"}{["}"#,
        r#"{"}":"]","[":{"{":["\u007d"]}}"#,
    ] {
        check_stream(object.repeat(2).as_bytes(), &[object, object], None);
    }
}

/// [whispernet: messages] What is not an object is disconnected at its first byte.
#[test]
fn what_begins_no_object_is_malformed() {
    for (stream, byte) in [
        ("[1]", b'['),
        ("1", b'1'),
        ("\"a\"", b'"'),
        ("null", b'n'),
        ("GET / HTTP/1.1\r\n", b'G'),
        ("}", b'}'),
        ("]", b']'),
        ("\u{feff}{}", 0xef),
        ("\x0c{}", 0x0c),
        ("\0", 0),
    ] {
        check_stream(stream.as_bytes(), &[], Some(Malformed::NotAnObject { byte }));
        check_stream(format!("{{}}{stream}").as_bytes(), &["{}"], Some(Malformed::NotAnObject { byte }));
    }
}

#[test]
fn a_bracket_that_closes_another_swallows_nothing() {
    for stream in [r#"{"a":[}"#, r#"{]"#, r#"{"a":[{]"#, r#"{"a":[[]}"#] {
        check_stream(stream.as_bytes(), &[], Some(Malformed::NotJson));
    }
}

/// [whispernet: messages]
#[test]
fn an_object_may_be_nested_32_deep_and_no_deeper() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{{\"a\":{}{}}}", open.repeat(depth - 1), close.repeat(depth - 1))
    };
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deepest = nested(open, close, 32).replace("\"a\":}", "\"a\":1}");
        check_stream(deepest.as_bytes(), &[&deepest], None);
        assert_eq!(Message::parse(deepest.as_bytes()), Ok(None));
        check_stream(nested(open, close, 33).as_bytes(), &[], Some(Malformed::TooDeep));
        check_stream(open.repeat(100_000).as_bytes(), &[], {
            let is_object = open.starts_with('{');
            Some(if is_object { Malformed::TooDeep } else { Malformed::NotAnObject { byte: b'[' } })
        });
    }
}

/// [whispernet: messages]
#[test]
fn an_object_may_be_as_long_as_the_limit_and_no_longer() {
    let object = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8));
    let longest = object(BYTES_MAX);
    check_stream(format!(" {longest}\n{longest}").as_bytes(), &[&longest, &longest], None);
    let too_large = Malformed::TooLarge { bytes_max: BYTES_MAX };
    check_stream(object(BYTES_MAX + 1).as_bytes(), &[], Some(too_large));
    check_stream(format!("{{}}{}", object(9 * BYTES_MAX)).as_bytes(), &["{}"], Some(too_large));
    // White space between objects is none of theirs.
    check_stream(format!("{}{{}}", " ".repeat(9 * BYTES_MAX)).as_bytes(), &["{}"], None);
}

#[test]
fn an_endless_object_is_ended_in_bounded_memory() {
    let mut reader = ObjectReader::new(BYTES_MAX);
    let mut piece: &[u8] = b"{\"a\":\"";
    let mut given = piece.len();
    while reader.read(&mut piece) == Ok(None) {
        assert!(given <= BYTES_MAX);
        assert_eq!(reader.unfinished_bytes(), given);
        piece = &[b'x'; 7];
        given += piece.len();
    }
    assert!(given > BYTES_MAX);
}

/// Looking at all of it again with each byte would take hours.
#[test]
fn a_large_object_may_trickle_in() {
    let object = format!("{{\"a\":[{}\"{}\"]}}", "1,".repeat(200_000), "\\\"x".repeat(200_000));
    let mut reader = ObjectReader::new(8 << 20);
    let mut found = None;
    for mut byte in object.as_bytes().chunks(1) {
        assert_eq!(found, None);
        found = reader.read(&mut byte).unwrap();
    }
    assert_eq!(found, Some(object.into()));
}

#[test]
fn an_object_is_handed_out_in_memory_of_its_own_size() {
    let stream = format!("{{}}{}", " ".repeat(100_000));
    let mut input = stream.as_bytes();
    let object = ObjectReader::new(BYTES_MAX).read(&mut input).unwrap().unwrap();
    assert_eq!(Vec::from(object).capacity(), 2);
}

// Reading messages.

fn parse(object: &str) -> Result<Option<Message<'_>>, Malformed> {
    Message::parse(object.as_bytes())
}

#[track_caller]
fn message(object: &str) -> Message<'_> {
    parse(object).unwrap().unwrap()
}

/// [whispernet: messages]
#[test]
fn a_message_has_all_its_keys() {
    let object = concat!(
        r#"{"ID":"abc123","Addr":"192.168.1.53:2345","Body":"cat.gif","Nick":"goldy","#,
        r#""Timestamp":1382050782085,"FileType":"image/gif","FileContents":"R0lG","PubKey":"AAAA","Sig":"BBBB"}"#
    );
    let read = message(object);
    assert_eq!(read.id, "abc123");
    assert_eq!(read.addr.as_deref(), Some("192.168.1.53:2345"));
    assert_eq!(read.body, "cat.gif");
    assert_eq!(read.nick.as_deref(), Some("goldy"));
    assert_eq!(read.timestamp, Some(1_382_050_782_085));
    assert_eq!(read.file_type.as_deref(), Some("image/gif"));
    assert_eq!(read.file_contents.as_deref(), Some("R0lG"));
    assert_eq!(read.pub_key.as_deref(), Some("AAAA"));
    assert_eq!(read.sig.as_deref(), Some("BBBB"));
    assert_eq!(read.encode(), object, "and is written in the same order");
}

#[test]
fn a_plain_message_has_three_keys_and_others_are_ignored() {
    let plain = message(r#"{"ID":"1","Addr":"a","Body":"hi"}"#);
    assert_eq!(plain.encode(), r#"{"ID":"1","Addr":"a","Body":"hi"}"#);
    let extended = r#"{"x":[{"Body":5}],"ID":"1","id":7,"Addr":"a","BODY":{},"Body":"hi","z":1e999}"#;
    assert_eq!(message(extended), plain);
    assert_eq!(message(r#"{"\u0049D":"1","Addr":"a","Body":"h\u0069"}"#), plain);
    assert_eq!(message(r#"{"ID":"1","Body":"hi"}"#).addr, None);
}

/// [whispernet: messages] One deployed peer writes `Nick` so.
#[test]
fn a_nick_may_stand_under_omitempty() {
    for (object, nick) in [
        (r#"{"ID":"1","Body":"b","omitempty":"phil"}"#, Some("phil")),
        (r#"{"ID":"1","Body":"b","omitempty":"phil","Nick":"goldy"}"#, Some("goldy")),
        (r#"{"ID":"1","Body":"b","omitempty":"phil","Nick":""}"#, Some("phil")),
        (r#"{"ID":"1","Body":"b","omitempty":"","Nick":null}"#, None),
        (r#"{"ID":"1","Body":"b","nick":"phil"}"#, None),
    ] {
        assert_eq!(message(object).nick.as_deref(), nick, "{object}");
    }
}

/// [whispernet: messages]
#[test]
fn a_timestamp_below_ten_to_the_eleventh_is_in_seconds() {
    for (timestamp, millis) in [
        ("1382050782085", Some(1_382_050_782_085)),
        ("1382050782", Some(1_382_050_782_000)),
        ("99999999999", Some(99_999_999_999_000)),
        ("100000000000", Some(100_000_000_000)),
        ("1", Some(1_000)),
        ("0", None),
        ("-1", None),
        ("9223372036854775807", Some(i64::MAX as u64)),
        ("null", None),
    ] {
        let object = format!(r#"{{"ID":"1","Body":"b","Timestamp":{timestamp}}}"#);
        assert_eq!(message(&object).time().map(Timestamp::as_millis), millis, "{timestamp}");
    }
}

/// [whispernet: messages] An empty `Body` is none: deployed peers fail on both.
#[test]
fn objects_without_a_body_are_no_messages_and_not_malformed() {
    for object in [
        "{}",
        r#"{"ID":"1"}"#,
        r#"{"ID":"1","Addr":"10.0.0.1:1","Body":null}"#,
        r#"{"ID":"1","Body":""}"#,
        r#"{"ID":null,"Addr":null,"Timestamp":null}"#,
        r#"{"x":{"Body":"hi"}}"#,
    ] {
        assert_eq!(parse(object), Ok(None), "{object}");
    }
}

/// [whispernet: messages] Of a key that comes twice the last one counts, as
/// with deployed peers, so that all show the same.
#[test]
fn the_last_of_two_equal_keys_counts() {
    let last = message(r#"{"ID":"1","Body":"a","Timestamp":1,"Body":"b","Timestamp":2}"#);
    assert_eq!((&*last.body, last.timestamp), ("b", Some(2)));
    assert_eq!(parse(r#"{"ID":"1","Body":"a","Body":null}"#), Ok(None));
    let wrong = Malformed::WrongType { key: "Body", expected: "a string" };
    assert_eq!(parse(r#"{"ID":"1","Body":5,"Body":"a"}"#), Err(wrong));
}

/// [whispernet: messages]
#[test]
fn a_known_key_of_a_wrong_type_is_malformed() {
    let texts = ["ID", "Addr", "Body", "Nick", "omitempty", "FileType", "FileContents", "PubKey", "Sig"];
    let check = |key, value: &str, expected| {
        for object in [
            format!(r#"{{"{key}":{value}}}"#),
            format!(r#"{{"ID":"1","Body":"b","{key}":{value}}}"#),
            format!(r#"{{"{key}":{value},"x":"y"}}"#),
        ] {
            assert_eq!(parse(&object), Err(Malformed::WrongType { key, expected }), "{object}");
        }
    };
    for key in texts {
        for value in ["1", "-1", "1.5", "true", "false", "[]", "[\"a\"]", "{}", r#"{"a":[1]}"#] {
            check(key, value, "a string");
        }
    }
    for value in [
        "\"1\"",
        "1.5",
        "1.0",
        "1e3",
        "-0",
        "9223372036854775808",
        "99999999999999999999",
        "true",
        "[1]",
        "{}",
    ] {
        check("Timestamp", value, "a whole number of 64 bits");
    }
}

/// [whispernet: messages]
#[test]
fn a_body_without_an_id_is_malformed() {
    for object in [r#"{"Body":"hi"}"#, r#"{"Body":"hi","ID":null}"#, r#"{"Body":"","Addr":"a"}"#] {
        assert_eq!(parse(object), Err(Malformed::NoId), "{object}");
    }
    assert_eq!(message(r#"{"Body":"hi","ID":""}"#).id, "", "an id is any string");
}

/// [whispernet: messages]
#[test]
fn what_is_not_json_is_malformed() {
    for object in [
        "{a}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\":1 \"b\":2}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":+1}",
        "{\"a\":nul}",
        "{\"a\":NaN}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12\"}",
        "{\"a\":\"\n\"}",
        "{\"Body\":\"\t\"}",
        "{\"Body\":\"\\ud800\"}",
        "{\"a\":1}}",
        "{1:2}",
        "{/**/}",
    ] {
        assert_eq!(parse(object), Err(Malformed::NotJson), "{object}");
    }
    for object in [b"{\"Body\":\"\xff\"}".as_slice(), b"{\"x\":\"\xc0\xaf\"}", b"{\"x\":\"\xed\xa0\x80\"}"] {
        assert_eq!(Message::parse(object), Err(Malformed::NotJson), "{}", object.escape_ascii());
    }
}

#[test]
fn what_is_said_of_the_malformed_shows_no_content() {
    let told = |object| parse(object).unwrap_err().to_string();
    assert_eq!(told(r#"{"Body":["secret"]}"#), "expected Body to be a string");
    assert_eq!(told(r#"{"Timestamp":"secret"}"#), "expected Timestamp to be a whole number of 64 bits");
    assert_eq!(told(r#"{"Body":secret}"#), "expected JSON in UTF-8");
    assert_eq!(told(r#"{"Body":"secret"}"#), "expected an ID with a Body");
    assert_eq!(Malformed::NotAnObject { byte: b'G' }.to_string(), "expected an object's {, got byte 0x47");
    assert_eq!(Malformed::TooLarge { bytes_max: 5 }.to_string(), "expected at most 5 bytes in an object");
    assert_eq!(Malformed::TooDeep.to_string(), "expected objects nested at most 32 deep");
    let shown = format!("{:?}", message(r#"{"ID":"1","Body":"secret"}"#));
    assert_eq!(shown, "Message(6 bytes of body)");
}

// Hashed ids.

#[track_caller]
fn check_hash(addr: &str, body: &str, timestamp: &str, hash: &str, expected: IdKind) {
    let object = format!(r#"{{"ID":"{hash}","Addr":{addr},"Body":"{body}","Timestamp":{timestamp}}}"#);
    assert_eq!(check_id(&message(&object)), expected, "{object}");
}

/// [whispernet: 4] The digits are those of `sha256sum`.
#[test]
fn an_id_is_the_hash_of_addr_body_and_timestamp_as_sent() {
    let millis = "hash:sha256:e6526de0dd5241781b65ad7a88479d506b1ecb7fb591f9e4c327b448c422b34a";
    assert_eq!(hashed_id("192.168.1.53:2345", "Hello world!", 1_382_050_782_085), millis);
    check_hash("\"192.168.1.53:2345\"", "Hello world!", "1382050782085", millis, IdKind::Hashed);
    let seconds = "hash:sha256:9da535ef41b367008086d4fb9946c29ec19a079eafbfda4e666f67ec3cb67080";
    assert_eq!(hashed_id("10.0.0.9:55555", "hi", 1_382_050_782), seconds);
    check_hash("\"10.0.0.9:55555\"", "hi", "1382050782", seconds, IdKind::Hashed);
    check_hash("null", "x", "1", &hashed_id("", "x", 1), IdKind::Hashed);
}

/// [whispernet: 4]
#[test]
fn an_id_that_is_not_its_hash_is_a_mismatch() {
    let id = hashed_id("10.0.0.9:1", "hi", 1);
    check_hash("\"10.0.0.9:1\"", "ho", "1", &id, IdKind::Mismatch);
    check_hash("\"10.0.0.8:1\"", "hi", "1", &id, IdKind::Mismatch);
    check_hash("\"10.0.0.9:1\"", "hi", "2", &id, IdKind::Mismatch);
    for wrong in ["hash:sha256:", "hash:sha256:00", &id.to_uppercase().replace("HASH:SHA", "hash:sha")] {
        check_hash("\"10.0.0.9:1\"", "hi", "1", wrong, IdKind::Mismatch);
    }
}

/// [whispernet: 4]
#[test]
fn an_unknown_hash_or_no_timestamp_makes_a_plain_id() {
    let id = hashed_id("10.0.0.9:1", "hi", 1);
    for plain in
        ["1", "", "hash:", "hash:sha256", "hash:md5:00", "hash:sha512:00", "HASH:SHA256:00", "sha256:00"]
    {
        check_hash("\"10.0.0.9:1\"", "hi", "1", plain, IdKind::Plain);
    }
    check_hash("\"10.0.0.9:1\"", "ho", "null", &id, IdKind::Plain);
}

// Files.

/// [whispernet: 10]
#[test]
fn a_file_is_decoded_and_named() {
    let file = |keys: &str| {
        let object = format!(r#"{{"ID":"1","Body":"../x/cat.gif"{keys}}}"#);
        File::of(&message(&object)).map(|file| file.map(|f| (f.name, f.mime_type, f.contents)))
    };
    let cat = |mime_type: &str| Ok(Some(("cat.gif".to_owned(), mime_type.to_owned(), "GIF8".into())));
    assert_eq!(file(r#","FileType":"image/gif","FileContents":"R0lGOA==""#), cat("image/gif"));
    assert_eq!(file(r#","FileContents":"R0lGOA""#), cat("application/octet-stream"));
    assert_eq!(file(r#","FileType":"","FileContents":"R0lG\r\nOA==\n""#), cat("application/octet-stream"));
    for none in ["", r#","FileType":"image/gif""#, r#","FileContents":"""#] {
        assert_eq!(file(none), Ok(None), "{none}");
    }
    for wrong in ["R0lG OA==", "R", "-_", "R0lGOA==R", "%"] {
        assert_eq!(file(&format!(r#","FileContents":"{wrong}""#)), Err(NotBase64), "{wrong}");
    }
}

// Any input.

/// Any JSON value, of no great depth.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(?s:.){0,8}".prop_map(Value::from),
        "[\"\\\\{}\\[\\]]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec(("[a-z\"\\\\{}]{0,3}", inner), 0..4).prop_map(|entries| Map::from_iter(entries).into()),
        ]
    })
}

/// Objects, with and without known keys.
fn any_object() -> impl Strategy<Value = String> {
    let known = prop_oneof![
        Just("ID"),
        Just("Body"),
        Just("Addr"),
        Just("Timestamp"),
        Just("Nick"),
        Just("FileContents")
    ];
    let message = ("[a-z]{0,4}", "(?s:.){0,8}", any_value()).prop_map(|(id, body, other)| {
        json!({"ID": id, "Addr": "10.0.0.1:1", "Body": body, "Timestamp": 5, "other": other})
    });
    let object = vec((known, any_value()), 0..4)
        .prop_map(|entries| Map::from_iter(entries.into_iter().map(|(k, v)| (k.to_owned(), v))).into());
    (prop_oneof![message, object], any::<bool>()).prop_map(|(object, is_pretty)| {
        if is_pretty { serde_json::to_string_pretty(&object).unwrap() } else { object.to_string() }
    })
}

/// Objects with white space around them, and the same in one piece.
fn any_stream() -> impl Strategy<Value = (Vec<String>, Vec<u8>)> {
    vec((any_object(), "[ \t\r\n]{0,3}"), 0..6).prop_map(|parts| {
        let stream = parts.iter().map(|(object, space)| format!("{object}{space}")).collect::<String>();
        (parts.into_iter().map(|(object, _)| object).collect(), stream.into_bytes())
    })
}

fn cut<'a>(stream: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|piece| &stream[piece[0]..piece[1]]).collect()
}

proptest! {
    #[test]
    fn objects_are_the_same_however_they_are_cut(
        (objects, stream) in any_stream(),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let (found, end) = read(cut(&stream, &cuts));
        // One above the limit ends the stream.
        let fitting = objects.iter().take_while(|object| object.len() <= BYTES_MAX).count();
        prop_assert_eq!(end.is_some(), fitting < objects.len());
        prop_assert_eq!(&found, &objects[..fitting]);
        for object in &found {
            prop_assert!(Message::parse(object) != Err(Malformed::NotJson));
        }
    }

    #[test]
    fn any_bytes_end_the_same_however_they_are_cut(
        (_, mut stream) in any_stream(),
        changes in vec((any::<Index>(), prop_oneof![any::<u8>(), Just(b'"'), Just(b'{'), Just(b'}')]), 0..10),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        for (at, byte) in &changes {
            if !stream.is_empty() {
                let at = at.index(stream.len());
                stream[at] = *byte;
            }
        }
        let whole = read([stream.as_slice()]);
        prop_assert_eq!(&read(cut(&stream, &cuts)), &whole);
        let mut rest = stream.as_slice();
        for object in &whole.0 {
            // Byte for byte, and only white space left out.
            let at = rest.iter().position(|byte| *byte == b'{').unwrap();
            prop_assert!(rest[..at].is_ascii() && rest[at..].starts_with(object));
            rest = &rest[at + object.len()..];
            if let Ok(Some(message)) = Message::parse(object) {
                // What is written is read again.
                let written = message.encode();
                prop_assert_eq!(Message::parse(&written), Ok(Some(message.clone())));
                check_id(&message);
                File::of(&message).ok();
                message.time();
            }
        }
    }

    #[test]
    fn a_message_is_read_as_it_is_written(
        texts in prop::array::uniform8("(?s:.){1,20}"),
        has in prop::array::uniform6(any::<bool>()),
        timestamp in any::<Option<i64>>(),
        routes in any::<bool>(),
    ) {
        let mut texts = texts.into_iter();
        let mut text = || texts.next().unwrap();
        let (id, body) = (text().into(), text().into());
        let mut has = has.into_iter();
        let mut some = || Some(text().into()).filter(|_| has.next().unwrap());
        let message = Message {
            id, body, timestamp, routes,
            file_part: None,
            addr: some(), nick: some(), file_type: some(), file_contents: some(), pub_key: some(), sig: some(),
        };
        let object = message.encode();
        prop_assert_eq!(read([object.as_ref(), object.as_ref()]).0, [&object[..], &object[..]]);
        prop_assert_eq!(Message::parse(&object), Ok(Some(message)));
    }
}
