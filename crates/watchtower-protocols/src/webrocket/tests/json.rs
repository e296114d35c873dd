//! How commands are read and events are written: content of every kind, and
//! what publishers put beside it.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// What a subscriber is shown of `{"publish": {"event": "e", "channel":
/// "hello", FIELDS}}`, behind its event and channel.
#[track_caller]
fn check_shown(fields: &str, expected: &str) {
    let event = format!(r#"{{"event": "e", "channel": "hello", {expected}}}"#);
    check(&format!(r#"{{"publish": {{"event": "e", "channel": "hello", {fields}}}}}"#), &[OK, &event]);
}

#[test]
fn data_is_kept_byte_for_byte() {
    // [model: projection]
    for data in [
        "1",
        "-0.0",
        "1e999",
        "1.000",
        "12345678901234567890123",
        "null",
        "true",
        "[]",
        "{}",
        r#"{"b": 1,"a" :2 , "b":3}"#,
        r#"["\u0061", "\/", "\ud800", "ä"]"#,
        "[1,\n\t2]",
    ] {
        check_shown(&format!(r#""data": {data}"#), &format!(r#""data": {data}"#));
    }
}

#[test]
fn a_text_is_shown_as_a_text_however_it_was_escaped() {
    check_shown(r#""data": """#, r#""data": """#);
    check_shown(r#""data": "\u0061\/\u00e4\ud83d\ude00\n\u0000""#, r#""data": "a/ä😀\n\u0000""#);
}

#[test]
fn a_text_that_is_none_is_invalid_data() {
    for data in [r#""\ud800""#, r#""\ud800\u0061""#, "\"a\nb\"", r#""\x""#, r#""open"#] {
        check(
            &format!(r#"{{"publish": {{"event": "e", "channel": "hello", "data": {data}}}}}"#),
            &[INVALID_DATA],
        );
    }
}

#[test]
fn binary_content_is_base64_with_its_encoding_beside_it() {
    // [model: projection]
    check_shown(r#""data": "/wAB", "encoding": "base64""#, r#""data": "/wAB", "encoding": "base64""#);
    check_shown(r#""encoding": "base64", "data": """#, r#""data": "", "encoding": "base64""#);
}

#[test]
fn content_of_other_protocols_is_shown_by_its_kind() {
    let core = core();
    let mut page = Page::open(&core, options()).after(&[READ, HELLO, r#"{"subscribe": {"channel": "5"}}"#]);
    publish(&core, "hello", Content::text("a\"b"));
    publish(&core, "hello", Content::json(r#"{ "a":1}"#).unwrap());
    publish(&core, "hello", Content::binary(&b"\xff\x00\x01\x02"[..]));
    publish(&core, "5", Content::text("numbered"));
    let expected = [
        r#"{"event": "message", "channel": "hello", "data": "a\"b"}"#,
        r#"{"event": "message", "channel": "hello", "data": { "a":1}}"#,
        r#"{"event": "message", "channel": "hello", "data": "/wABAg==", "encoding": "base64"}"#,
        r#"{"event": "message", "channel": "5", "data": "numbered"}"#,
    ];
    let mut received = page.read();
    received.sort_by_key(|event| expected.iter().position(|expected| expected == event));
    assert_eq!(received, expected);
}

#[test]
fn further_fields_reach_subscribers_as_they_were_written_and_in_that_order() {
    // [webrocket: further fields]
    check_shown(r#""z": 1, "data": 0, "a": {"x" : [1, 2]}"#, r#""data": 0, "z": 1, "a": {"x" : [1, 2]}"#);
    check_shown(
        r#""id":"\u0061", "data":"/w==","encoding":"base64""#,
        r#""data": "/w==", "encoding": "base64", "id": "\u0061""#,
    );
    // Names are shown in one way, whatever they were written like.
    check_shown(r#""data": 0, "\u0061\"": null, "": 1"#, r#""data": 0, "a\"": null, "": 1"#);
}

#[test]
fn keys_may_be_escaped() {
    check(r#"{"\u0061uth": {"acc\u0065ss": "read-\u006fnly", "secret": "\u0072"}}"#, &[OK]);
    check(r#"{"publish": {"\u0065vent": "foo", "channel": "hell\u006f", "d\u0061ta": "x"}}"#, &[OK, SAID]);
}

#[test]
fn the_same_field_twice_is_invalid_data_however_it_is_written() {
    for fields in [
        r#""event": "e", "channel": "hello", "data": 1, "data": 2"#,
        r#""event": "e", "channel": "hello", "channel": "other", "data": 1"#,
        r#""event": "e", "channel": "hello", "data": 1, "\u0065vent": "f""#,
        r#""event": "e", "channel": "hello", "data": 1, "d\u0061ta": 2"#,
        r#""event": "e", "channel": "hello", "data": "", "encoding": "base64", "\u0065ncoding": "base64""#,
        r#""event": "e", "channel": "hello", "data": 1, "x": 1, "x": 1"#,
    ] {
        check(&format!(r#"{{"publish": {{{fields}}}}}"#), &[INVALID_DATA]);
    }
    check(r#"{"auth": {"access": "read-only", "secret": "x", "secret": "r"}}"#, &[INVALID_DATA]);
    check(r#"{"subscribe": {"channel": "a", "channel": "b"}}"#, &[INVALID_DATA]);
    check(r#"{"subscribe": {"channel": "a", "x": 1, "x": 2}}"#, &[INVALID_DATA]);
}

#[test]
fn a_field_that_some_parsers_take_for_a_known_one_is_invalid_data() {
    for field in ["Event", "CHANNEL", "Data", "eNcOdInG", r"\u0043hannel"] {
        let command =
            format!(r#"{{"publish": {{"event": "e", "channel": "hello", "data": 1, "{field}": "x"}}}}"#);
        check(&command, &[INVALID_DATA]);
    }
    check_shown(r#""data": 1, "events": 1, "_data": 2"#, r#""data": 1, "events": 1, "_data": 2"#);
}

#[test]
fn further_fields_reach_subscribers_of_webrocket_alone() {
    // [webrocket: further fields]
    let core = core();
    let rule = ChannelRule { history_messages: 10, ..ChannelRule::default() };
    core.configure(Settings { channels: vec![rule], ..Settings::default() });
    let mut page = Page::open(&core, options()).after(&[WRITE, HELLO]);
    page.send(r#"{"publish": {"event": "e", "channel": "hello", "data": {"a": 1}, "x": 2}}"#);
    let last = watchtower_hub::HistoryQuery {
        span: watchtower_hub::Span::Last,
        messages_max: 1,
        bytes_max: u64::MAX,
    };
    let history = core.history(&name("hello"), &last, NOW).unwrap().now().unwrap().unwrap();
    let [entry] = &history.entries[..] else { panic!("{history:?}") };
    assert_eq!(entry.content().bytes(), r#"{"a": 1}"#);
    assert_eq!(entry.event(), Some("e"));
}

#[test]
fn what_other_protocols_put_beside_a_message_is_not_shown() {
    let core = core();
    let mut page = Page::open(&core, options()).after(&[READ, HELLO]);
    for extras in [&b""[..], b"\"channel\": \"other\"", b"\x09\"x\": 1", b"\xff"] {
        let message = Publish::new(Content::text("x")).extras(extras.into());
        core.publish(&name("hello"), message, NOW).unwrap();
        assert_eq!(page.read(), [r#"{"event": "message", "channel": "hello", "data": "x"}"#]);
    }
}

/// JSON of any form.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A name for a further field.
fn any_field() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_]{0,8}", any::<String>()].prop_filter("a known field", |name| {
        !["event", "channel", "data", "encoding"].iter().any(|known| known.eq_ignore_ascii_case(name))
    })
}

/// The fields of a publish, in any order, with white space at will.
fn any_publication() -> impl Strategy<Value = Map<String, Value>> {
    let further = proptest::collection::btree_map(any_field(), any_json(), 0..5);
    let event = "[^\\p{Cc}]{1,20}";
    let binary = proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(bytes)
    });
    let data = prop_oneof![3 => any_json().prop_map(|data| (data, false)), 1 => binary.prop_map(|text| (text.into(), true))];
    (further, event, data).prop_map(|(further, event, (data, is_base64))| {
        let mut fields: Map<String, Value> = further.into_iter().collect();
        fields.insert("event".to_owned(), event.into());
        fields.insert("channel".to_owned(), "hello".into());
        fields.insert("data".to_owned(), data);
        if is_base64 {
            fields.insert("encoding".to_owned(), "base64".into());
        }
        fields
    })
}

proptest! {
    /// [webrocket: events]
    #[test]
    fn subscribers_receive_the_publish_object_itself(fields in any_publication(), is_pretty: bool) {
        let command = json!({ "publish": fields });
        let text = if is_pretty { format!("{command:#}") } else { command.to_string() };
        let mut page = Page::open(&core(), options()).after(&[WRITE, HELLO]);
        let received = page.send(&text);
        prop_assert_eq!(&received[0], OK);
        // Both from text, since a parser may round a number.
        let [sent, received]: [Value; 2] = [&text, &received[1]].map(|text| serde_json::from_str(text).unwrap());
        prop_assert_eq!(&received, &sent["publish"]);
    }
}
