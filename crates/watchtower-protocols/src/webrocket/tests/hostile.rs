//! What is sent to do harm: it is answered, it costs no more than its length,
//! and the connection goes on.

use proptest::prelude::*;

use super::super::json::FIELDS_MAX;
use super::*;

/// Refused, by a page that may do everything and can go on.
#[track_caller]
fn check_refused(command: &str) {
    let mut page = Page::open(&core(), options()).after(&[WRITE, HELLO]);
    let shown: String = command.chars().take(60).collect();
    assert_eq!(page.send(command), [INVALID_DATA], "{shown}");
    assert_eq!(page.send(SAY), [OK, SAID], "{shown}");
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn depth_is_bounded_wherever_it_is() {
    for depth in [129, 500_000] {
        let deep = nested(depth);
        check_refused(&deep);
        check_refused(&"{\"logout\":".repeat(depth.min(100_000)));
        check_refused(&"[".repeat(depth));
        check_refused(&format!(r#"{{"logout": {deep}}}"#));
        check_refused(&format!(r#"{{"auth": {{"access": {deep}, "secret": "w"}}}}"#));
        check_refused(&format!(r#"{{"publish": {{"event": {deep}, "channel": "hello", "data": 1}}}}"#));
        check_refused(&format!(r#"{{"publish": {{"event": "e", "channel": "hello", "data": {deep}}}}}"#));
        check_refused(&format!(
            r#"{{"publish": {{"event": "e", "channel": "hello", "data": 1, "x": {deep}}}}}"#
        ));
    }
    let deepest = nested(128);
    let event = format!(r#"{{"event": "e", "channel": "hello", "data": {deepest}, "x": {deepest}}}"#);
    check(&format!(r#"{{"publish": {event}}}"#), &[OK, &event]);
    // What is not looked at may be as deep as it likes.
    check(&format!(r#"{{"subscribe": {{"channel": "hello", "x": {}}}}}"#, nested(100_000)), &[OK]);
}

#[test]
fn the_number_of_fields_is_bounded() {
    let publish = |further: usize| {
        let fields: String = (0..further).map(|n| format!(r#", "{n}": {n}"#)).collect();
        format!(r#"{{"event": "e", "channel": "hello", "data": 1{fields}}}"#)
    };
    let most = publish(FIELDS_MAX - 3);
    check(&format!(r#"{{"publish": {most}}}"#), &[OK, &most]);
    check_refused(&format!(r#"{{"publish": {}}}"#, publish(FIELDS_MAX - 2)));
    check_refused(&format!(r#"{{"publish": {}}}"#, publish(50_000)));
    check_refused(&publish(50_000));
}

#[test]
fn numbers_that_are_none_are_refused() {
    for number in ["NaN", "Infinity", "-Infinity", "+1", "01", ".5", "1.", "0x10", "1e", "--1"] {
        check_refused(&format!(r#"{{"publish": {{"event": "e", "channel": "hello", "data": {number}}}}}"#));
        check_refused(&format!(
            r#"{{"publish": {{"event": "e", "channel": "hello", "data": 1, "x": {number}}}}}"#
        ));
    }
}

#[test]
fn no_data_ends_its_event_and_begins_another() {
    for data in [
        r#"1}, "channel": "other""#,
        r#"1, "channel": "other""#,
        r#"1}} {"publish": {"event": "e", "channel": "other", "data": 1"#,
        r#""\"", "channel": "other""#,
    ] {
        check_refused(&format!(r#"{{"publish": {{"event": "e", "channel": "hello", "data": {data}}}}}"#));
    }
}

#[test]
fn text_with_any_characters_comes_back_as_it_was() {
    let core = core();
    let mut page = Page::open(&core, options()).after(&[WRITE, HELLO]);
    for text in ["</script>", "\u{2028}\u{2029}", "\u{202e}", "\u{0}\u{1f}\u{7f}", "\u{10ffff}", "\\\"\\"] {
        let command = serde_json::json!({"publish": {"event": text.trim_matches(char::is_control).to_owned() + "e", "channel": "hello", "data": text}});
        let received = page.send(&command.to_string());
        let event: serde_json::Value = serde_json::from_str(&received[1]).unwrap();
        assert_eq!(event["data"], text);
    }
}

#[test]
fn what_is_short_on_the_wire_may_become_long_for_publishers_alone() {
    let padded = |command: &str, bytes: usize| format!("{command}{}", " ".repeat(bytes - command.len()));
    let check = |options: HubOptions, first: &[&str], is_publisher: bool| {
        let visit = || {
            let mut page = Page::visit_with(&core(), &WebRocket::new(options.clone()), Compression::Deflate);
            for command in first {
                assert_eq!(page.send_frames(&deflated(command)), [OK]);
            }
            page
        };
        assert_eq!(visit().send_frames(&deflated(&padded(r#"{"logout": true}"#, 4096))), [OK]);
        let mut page = visit();
        let answer = page.send_frames(&deflated(&padded(r#"{"logout": true}"#, 4097)));
        if is_publisher {
            assert_eq!(answer, [OK]);
        } else {
            assert_eq!(answer, ["close 1009 a compressed message must be shorter here"]);
        }
    };
    check(options(), &[], false);
    check(options(), &[READ], false);
    check(options(), &[WRITE, READ], false);
    check(options(), &[WRITE], true);
    check(open_to_all(), &[], true);
    check(HubOptions { anonymous: Access::ReadOnly, ..options() }, &[], false);
    check(HubOptions { anonymous: Access::ReadOnly, ..options() }, &[WRITE], true);
}

#[test]
fn debug_shows_neither_secrets_nor_contents() {
    use super::super::Json;
    use crate::websocket::Incoming;
    for command in
        [r#"{"auth": {"access": "read-only", "secret": "hidden"}}"#, &SAY.replace("\"x\"", "\"hidden\"")]
    {
        let shown = format!("{:?}", Json.decode(Incoming::Text(command)).unwrap());
        assert!(shown.starts_with("Command(") && !shown.contains("hidden"), "{shown}");
    }
}

/// Parts that commands are made of, and what breaks them.
fn any_part() -> impl Strategy<Value = String> {
    let known: Vec<String> = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        " ",
        "\"",
        "\\",
        "\\u0061",
        "\"auth\"",
        "\"access\"",
        "\"read-only\"",
        "\"read-write\"",
        "\"secret\"",
        "\"w\"",
        "\"subscribe\"",
        "\"channel\"",
        "\"hello\"",
        "\"unsubscribe\"",
        "\"publish\"",
        "\"event\"",
        "\"data\"",
        "\"encoding\"",
        "\"base64\"",
        "\"logout\"",
        "true",
        "false",
        "null",
        "1",
        "-",
        "e5",
        "NaN",
        "\u{feff}",
        "\0",
        "\"x\"",
        "{\"publish\": ",
        "{\"auth\": {",
        "}}",
        "\"channel\": \"hello\"",
        "\"event\": \"foo\"",
        "\"data\": ",
        ", ",
    ]
    .map(str::to_owned)
    .into();
    prop_oneof![8 => proptest::sample::select(known), 1 => any::<String>()]
}

/// A command in which some characters were exchanged, taken out or put in.
fn any_damaged() -> impl Strategy<Value = String> {
    let whole = proptest::sample::select(vec![READ, WRITE, HELLO, SAY]);
    let damage = (any::<proptest::sample::Index>(), 0..3usize, any::<char>());
    (whole, proptest::collection::vec(damage, 1..4)).prop_map(|(whole, damages)| {
        let mut text: Vec<char> = whole.chars().collect();
        for (index, kind, character) in damages {
            let index = index.index(text.len());
            match kind {
                0 => text[index] = character,
                1 => drop(text.remove(index)),
                _ => text.insert(index, character),
            }
        }
        text.into_iter().collect()
    })
}

proptest! {
    /// [webrocket: what is no command]
    #[test]
    fn whatever_comes_is_answered_once_and_the_connection_stays(
        texts in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any_part(), 0..20).prop_map(|parts| parts.concat()),
                any_damaged(),
            ],
            1..6,
        ),
    ) {
        // Any secret will do, so that nobody is slowed down for a wrong one.
        let options = HubOptions { anonymous: Access::ReadWrite, ..HubOptions::default() };
        let mut page = Page::open(&core(), options).after(&[HELLO]);
        let replies = [OK, INVALID_DATA, INVALID_CREDENTIALS, ACCESS_DENIED, INVALID_CHANNEL_NAME, INVALID_CHANNEL];
        for text in texts {
            let received = page.send(&text);
            let answers = received.iter().filter(|message| replies.contains(&&***message)).count();
            prop_assert_eq!(answers, 1, "{:?}", received);
            for event in received.iter().filter(|message| !replies.contains(&&***message)) {
                let event: serde_json::Value = serde_json::from_str(event).unwrap();
                prop_assert!(event["event"].is_string() && event["channel"] == "hello", "{}", event);
            }
            prop_assert!(!page.is_closed);
        }
    }
}
