//! Each row of the table of commands, and the rules below it.

use watchtower_hub::Accepts;

use super::super::{CommandName, ErrorCode};
use super::*;

#[test]
fn the_codes_and_commands_are_those_of_the_page() {
    // [webrocket: commands]
    let codes = ErrorCode::ALL.map(ErrorCode::name);
    let page = [
        "invalid_data",
        "invalid_credentials",
        "access_denied",
        "invalid_channel_name",
        "invalid_channel",
        "not_kept",
    ];
    assert_eq!(codes, page);
    let commands = CommandName::ALL.map(CommandName::name);
    assert_eq!(commands, ["auth", "subscribe", "unsubscribe", "publish", "presence", "logout", "disconnect"]);
    for command in CommandName::ALL {
        assert_eq!(CommandName::parse(command.name()), Some(command));
    }
}

#[test]
fn auth_lets_in_by_the_secret_of_that_access() {
    let auth = |access: &str, secret: &str| {
        let mut page = Page::open(&core(), options());
        page.send(&format!(r#"{{"auth": {{"access": "{access}", "secret": "{secret}"}}}}"#)).concat()
    };
    assert_eq!(auth("read-only", "r"), OK);
    assert_eq!(auth("read-write", "w"), OK);
    for (access, secret) in [("read-only", "w"), ("read-write", "r"), ("read-only", ""), ("read-write", "ww")]
    {
        assert_eq!(auth(access, secret), INVALID_CREDENTIALS, "{access} {secret}");
    }
    for access in ["none", "", "READ-ONLY", "read_only", "write"] {
        assert_eq!(auth(access, "w"), INVALID_DATA, "{access}");
    }
}

#[test]
fn auth_with_a_field_that_is_missing_or_no_text_is_invalid_data() {
    for wrong in [
        r#"{"auth": {"access": "read-only"}}"#,
        r#"{"auth": {"secret": "r"}}"#,
        r#"{"auth": {"access": "read-only", "secret": 5}}"#,
        r#"{"auth": {"access": "read-only", "secret": null}}"#,
        r#"{"auth": {"access": 1, "secret": "r"}}"#,
        r#"{"auth": {}}"#,
        r#"{"auth": "r"}"#,
        r#"{"auth": ["read-only", "r"]}"#,
        r#"{"auth": true}"#,
        r#"{"auth": null}"#,
    ] {
        check(wrong, &[INVALID_DATA]);
    }
}

#[test]
fn subscribing_makes_the_channel_and_is_answered_before_its_first_message() {
    let core = core();
    let mut page = Page::open(&core, options()).after(&[READ]);
    assert!(!core.has_channel(&name("hello")));
    assert_eq!(page.send(HELLO), [OK]);
    assert!(core.has_channel(&name("hello")));
    publish(&core, "hello", Content::text("x"));
    assert_eq!(page.read(), [r#"{"event": "message", "channel": "hello", "data": "x"}"#]);
}

#[test]
fn subscribing_twice_delivers_once() {
    let core = core();
    let mut page = Page::open(&core, options()).after(&[WRITE, HELLO, HELLO]);
    assert_eq!(page.send(SAY), [OK, SAID]);
    assert_eq!(page.send(r#"{"unsubscribe": {"channel": "hello"}}"#), [OK]);
    assert_eq!(page.send(SAY), [OK]);
}

#[test]
fn what_is_no_channel_name_cannot_be_subscribed_to() {
    for wrong in ["", " a", "a ", r"a\nb", r"\u0000", "07", "4294967296", &"n".repeat(129)] {
        check(&format!(r#"{{"subscribe": {{"channel": "{wrong}"}}}}"#), &[INVALID_CHANNEL_NAME]);
    }
    check(&format!(r#"{{"subscribe": {{"channel": "{}"}}}}"#, "n".repeat(128)), &[OK]);
}

#[test]
fn subscribing_to_what_is_no_text_is_invalid_data() {
    for wrong in [
        r#"{"subscribe": {}}"#,
        r#"{"subscribe": {"channel": 5}}"#,
        r#"{"subscribe": {"channel": null}}"#,
        r#"{"subscribe": {"channel": ["hello"]}}"#,
        r#"{"subscribe": "hello"}"#,
        r#"{"unsubscribe": {}}"#,
        r#"{"unsubscribe": {"channel": 5}}"#,
        r#"{"unsubscribe": "hello"}"#,
        r#"{"unsubscribe": null}"#,
    ] {
        check(wrong, &[INVALID_DATA]);
    }
}

#[test]
fn unsubscribing_needs_neither_access_nor_a_subscription() {
    // [webrocket: unsubscribing needs none]
    for name in ["hello", "never", "", "07"] {
        let command = format!(r#"{{"unsubscribe": {{"channel": "{name}"}}}}"#);
        check(&command, &[OK]);
        assert_eq!(Page::open(&core(), options()).send(&command), [OK]);
    }
}

#[test]
fn what_was_published_before_unsubscribing_comes_and_nothing_after() {
    let core = core();
    let mut page = Page::open(&core, options()).after(&[READ, HELLO]);
    publish(&core, "hello", Content::text("before"));
    let received = page.send(r#"{"unsubscribe": {"channel": "hello"}}"#);
    assert_eq!(received, [r#"{"event": "message", "channel": "hello", "data": "before"}"#, OK]);
    publish(&core, "hello", Content::text("after"));
    assert_eq!(page.read(), [""; 0]);
}

#[test]
fn a_published_event_reaches_every_subscriber_its_publisher_included() {
    let core = core();
    let mut publisher = Page::open(&core, options()).after(&[WRITE, HELLO]);
    let mut reader = Page::open(&core, options()).after(&[READ, HELLO]);
    let publish = r#"{"publish": {"event": "foo", "channel": "hello", "data": {"foo": "bar"}}}"#;
    let event = r#"{"event": "foo", "channel": "hello", "data": {"foo": "bar"}}"#;
    assert_eq!(publisher.send(publish), [OK, event]);
    assert_eq!(reader.read(), [event]);
}

#[test]
fn publishing_needs_no_subscription_but_a_channel() {
    let core = core();
    let mut publisher = Page::open(&core, options()).after(&[WRITE]);
    assert_eq!(publisher.send(SAY), [INVALID_CHANNEL]);
    assert!(!core.has_channel(&name("hello")));
    let mut reader = Page::open(&core, options()).after(&[READ, HELLO]);
    assert_eq!(publisher.send(SAY), [OK]);
    assert_eq!(reader.read(), [SAID]);
}

#[test]
fn publishing_on_what_is_no_channel_name_is_invalid_channel() {
    for wrong in ["", " hello", "07", r"a\nb", &"n".repeat(129)] {
        let command = format!(r#"{{"publish": {{"event": "e", "channel": "{wrong}", "data": 1}}}}"#);
        check(&command, &[INVALID_CHANNEL]);
    }
}

#[test]
fn publishing_without_event_channel_or_data_or_with_others_than_texts_is_invalid_data() {
    for wrong in [
        r#"{"publish": {"channel": "hello", "data": 1}}"#,
        r#"{"publish": {"event": "e", "data": 1}}"#,
        r#"{"publish": {"event": "e", "channel": "hello"}}"#,
        r#"{"publish": {"event": 1, "channel": "hello", "data": 1}}"#,
        r#"{"publish": {"event": null, "channel": "hello", "data": 1}}"#,
        r#"{"publish": {"event": "e", "channel": 5, "data": 1}}"#,
        r#"{"publish": {"event": "e", "channel": ["hello"], "data": 1}}"#,
        r#"{"publish": {"event": "", "channel": "hello", "data": 1}}"#,
        r#"{"publish": {"event": "a\nb", "channel": "hello", "data": 1}}"#,
        r#"{"publish": {"event": "e", "channel": "hello", "data": "_w==", "encoding": "base64"}}"#,
        r#"{"publish": {"event": "e", "channel": "hello", "data": "/w", "encoding": "base64"}}"#,
        r#"{"publish": {"event": "e", "channel": "hello", "data": 5, "encoding": "base64"}}"#,
        r#"{"publish": {"event": "e", "channel": "hello", "data": "/w==", "encoding": "hex"}}"#,
        r#"{"publish": {"event": "e", "channel": "hello", "data": "/w==", "encoding": null}}"#,
        r#"{"publish": "hello"}"#,
        r#"{"publish": {}}"#,
        // The form is judged before the channel.
        r#"{"publish": {"event": "e", "channel": ""}}"#,
        r#"{"publish": {"channel": "never", "data": 1}}"#,
    ] {
        check(wrong, &[INVALID_DATA]);
    }
    let event = |length| {
        format!(r#"{{"publish": {{"event": "{}", "channel": "never", "data": 1}}}}"#, "e".repeat(length))
    };
    check(&event(129), &[INVALID_DATA]);
    check(&event(128), &[INVALID_CHANNEL]);
}

#[test]
fn content_above_the_limit_is_invalid_data_and_further_fields_count() {
    let core = core_limited(|limits| limits.message_bytes_max = 10);
    let mut page = Page::open(&core, options()).after(&[WRITE, HELLO]);
    let mut publish = |fields: &str| {
        page.send(&format!(r#"{{"publish": {{"event": "e", "channel": "hello", {fields}}}}}"#)).remove(0)
    };
    assert_eq!(publish(r#""data": "0123456789""#), OK);
    assert_eq!(publish(r#""data": "0123456789a""#), INVALID_DATA);
    assert_eq!(publish(r#""data": [123,5678]"#), OK);
    assert_eq!(publish(r#""data": [123,56789]"#), INVALID_DATA);
    assert_eq!(publish(r#""data": "MDEyMzQ1Njc4OQ==", "encoding": "base64""#), OK);
    assert_eq!(publish(r#""data": "MDEyMzQ1Njc4OWE=", "encoding": "base64""#), INVALID_DATA);
    assert_eq!(publish(r#""data": 0, "a": 2"#), OK);
    assert_eq!(publish(r#""data": 0, "a": 234567"#), INVALID_DATA);
    assert_eq!(publish(r#""data": 0, "abcdefghij": 2"#), INVALID_DATA);
}

#[test]
fn content_that_the_channel_does_not_accept_is_invalid_data() {
    let publish = |accepts, data: &str| {
        let core = core_ruled(ChannelRule { accepts, ..ChannelRule::default() });
        let mut page = Page::open(&core, options()).after(&[WRITE, HELLO]);
        page.send(&format!(r#"{{"publish": {{"event": "e", "channel": "hello", "data": {data}}}}}"#)).concat()
    };
    assert_eq!(publish(Accepts::Text, r#"{"a": 1}"#), INVALID_DATA);
    assert_eq!(publish(Accepts::Json, r#""no JSON""#), INVALID_DATA);
    let event = |data: &str| format!(r#"{OK}{{"event": "e", "channel": "hello", "data": {data}}}"#);
    // [model: projection]: text that is JSON becomes it.
    assert_eq!(publish(Accepts::Json, r#""{\"a\":1}""#), event(r#"{"a":1}"#));
    assert_eq!(publish(Accepts::Text, r#""{\"a\":1}""#), event(r#""{\"a\":1}""#));
}

#[test]
fn limits_of_the_server_are_access_denied() {
    let mut page =
        Page::open(&core_limited(|l| l.channels_per_sender_max = 1), options()).after(&[READ, HELLO]);
    assert_eq!(page.send(r#"{"subscribe": {"channel": "more"}}"#), [ACCESS_DENIED]);
    let mut page = Page::open(&core_limited(|l| l.channels_max = 1), options()).after(&[READ, HELLO]);
    assert_eq!(page.send(r#"{"subscribe": {"channel": "more"}}"#), [ACCESS_DENIED]);
    let core = core_limited(|l| l.senders_max = 1);
    let _first = Page::open(&core, options()).after(&[READ, HELLO]);
    let mut second = Page::open(&core, options()).after(&[WRITE]);
    assert_eq!(second.send(HELLO), [ACCESS_DENIED]);
    assert_eq!(second.send(SAY), [ACCESS_DENIED]);
}

#[test]
fn disconnect_is_answered_and_closes() {
    check(r#"{"disconnect": true}"#, &[OK, "close 1000 "]);
    // [webrocket: disconnect]: whoever it is.
    let mut stranger = Page::open(&core(), options());
    assert_eq!(stranger.send(r#"{"disconnect": true}"#), [OK, "close 1000 "]);
    assert!(stranger.is_closed);
}

#[test]
fn what_was_published_before_disconnecting_comes_first() {
    let mut page = Page::open(&core(), options()).after(&[WRITE, HELLO]);
    let frames = [frame(TEXT, SAY.as_bytes()), frame(TEXT, br#"{"disconnect": true}"#)].concat();
    assert_eq!(page.send_frames(&frames), [OK, SAID, OK, "close 1000 "]);
}

#[test]
fn nothing_is_carried_out_after_disconnect() {
    let core = core();
    let mut page = Page::open(&core, options()).after(&[WRITE, HELLO]);
    let mut reader = Page::open(&core, options()).after(&[READ, HELLO]);
    let frames = [frame(TEXT, br#"{"disconnect": true}"#), frame(TEXT, SAY.as_bytes())].concat();
    assert_eq!(page.send_frames(&frames), [OK, "close 1000 "]);
    assert_eq!(reader.read(), [""; 0]);
}

#[test]
fn commands_without_fields_are_true_or_invalid_data() {
    // [webrocket: {"logout": false}]
    for command in ["logout", "disconnect"] {
        for wrong in ["false", "null", "1", "\"true\"", "{}", "[true]"] {
            check(&format!(r#"{{"{command}": {wrong}}}"#), &[INVALID_DATA]);
        }
    }
    check(r#"{"logout":true}"#, &[OK]);
    check(r#" { "logout" : true } "#, &[OK]);
}

#[test]
fn what_is_no_command_is_invalid_data_and_the_connection_stays() {
    for wrong in [
        "",
        " ",
        "hello",
        "{",
        "{}",
        "[]",
        "null",
        "true",
        "5",
        "\"logout\"",
        r#"[{"logout": true}]"#,
        r#"{"logout": true, "auth": 1}"#,
        r#"{"logout": true, "logout": true}"#,
        r#"{"ping": true}"#,
        r#"{"Logout": true}"#,
        r#"{"": true}"#,
        r#"{"logout ": true}"#,
        r#"{logout: true}"#,
        r#"{'logout': true}"#,
        r#"{"logout": true,}"#,
        r#"{"logout": True}"#,
        r#"{"logout": true} x"#,
        r#"{"logout": true}{"logout": true}"#,
        "{\"logout\": true}\0",
        "\u{feff}{\"logout\": true}",
    ] {
        let mut page = Page::open(&core(), options()).after(&[WRITE, HELLO]);
        assert_eq!(page.send(wrong), [INVALID_DATA], "{wrong}");
        assert_eq!(page.send(SAY), [OK, SAID], "{wrong}");
    }
}

#[test]
fn a_binary_message_is_invalid_data_whatever_is_in_it() {
    // [webrocket: binary messages]
    let mut page = Page::open(&core(), options()).after(&[WRITE, HELLO]);
    for payload in [&br#"{"logout": true}"#[..], b"", b"\xff\x00"] {
        assert_eq!(page.send_frames(&frame(BINARY, payload)), [INVALID_DATA]);
    }
    assert_eq!(page.send(SAY), [OK, SAID]);
}

#[test]
fn further_fields_of_other_commands_than_publish_mean_nothing() {
    check(r#"{"subscribe": {"channel": "a", "from": "x", "n": {"b": [1]}}}"#, &[OK]);
    check(r#"{"unsubscribe": {"n": 1, "channel": "hello"}}"#, &[OK]);
    check(r#"{"auth": {"user": "u", "access": "read-only", "secret": "r"}}"#, &[OK]);
}

#[test]
fn several_commands_in_one_read_are_carried_out_in_order() {
    let mut page = Page::open(&core(), options());
    let frames: Vec<u8> =
        [SAY, WRITE, SAY, HELLO, SAY].iter().flat_map(|text| frame(TEXT, text.as_bytes())).collect();
    assert_eq!(page.send_frames(&frames), [ACCESS_DENIED, OK, INVALID_CHANNEL, OK, OK, SAID]);
}

#[test]
fn a_command_that_comes_byte_by_byte_is_the_same() {
    let mut page = Page::open(&core(), options()).after(&[WRITE, HELLO]);
    let frame = frame(TEXT, SAY.as_bytes());
    let (last, first) = frame.split_last().unwrap();
    for byte in first {
        assert_eq!(page.send_frames(&[*byte]), [""; 0]);
    }
    assert_eq!(page.send_frames(&[*last]), [OK, SAID]);
}
