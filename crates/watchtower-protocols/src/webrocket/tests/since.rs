//! Going on where one was ([webrocket: since]).

use super::*;

/// A core whose channels keep so many messages, and the epoch of `hello`, on
/// which these were published.
fn core_with_history(history_messages: usize, published: &[&str]) -> (Hub, String) {
    let core = core_ruled(ChannelRule { history_messages, ..ChannelRule::default() });
    for text in published {
        publish(&core, "hello", Content::text(*text));
    }
    let epoch = core.epoch(&name("hello")).map_or_else(String::new, |epoch| epoch.to_string());
    (core, epoch)
}

fn subscribe(since: &str) -> String {
    format!(r#"{{"subscribe": {{"channel": "hello", "since": {since}}}}}"#)
}

fn after(epoch: &str, offset: u64) -> String {
    subscribe(&format!(r#""{epoch}:{offset}""#))
}

fn followed(recovered: bool, epoch: &str, offset: u64) -> String {
    format!(r#"{{"ok": true, "recovered": {recovered}, "position": "{epoch}:{offset}"}}"#)
}

fn event(data: &str, epoch: &str, offset: u64) -> String {
    format!(r#"{{"event": "message", "channel": "hello", "data": "{data}", "position": "{epoch}:{offset}"}}"#)
}

fn plain(data: &str) -> String {
    format!(r#"{{"event": "message", "channel": "hello", "data": "{data}"}}"#)
}

#[test]
fn since_gives_what_is_kept_after_a_position_and_then_what_comes() {
    let (core, epoch) = core_with_history(3, &["a", "b", "c"]);
    let mut page = Page::open(&core, open_to_all());
    let received = page.send(&after(&epoch, 1));
    assert_eq!(received, [followed(true, &epoch, 1), event("b", &epoch, 2), event("c", &epoch, 3)]);
    publish(&core, "hello", Content::text("d"));
    assert_eq!(page.read(), [event("d", &epoch, 4)]);
}

#[test]
fn a_position_that_is_not_kept_is_said_and_answered_with_all_that_is() {
    let (core, epoch) = core_with_history(2, &["a", "b", "c", "d"]);
    let all = [followed(false, &epoch, 2), event("c", &epoch, 3), event("d", &epoch, 4)];
    for since in [after(&epoch, 1), after(&epoch, 9), after("another", 3), after("0000000000000000", 4)] {
        assert_eq!(Page::open(&core, open_to_all()).send(&since), all, "{since}");
    }
    assert_eq!(Page::open(&core, open_to_all()).send(&after(&epoch, 4)), [followed(true, &epoch, 4)]);
}

#[test]
fn null_begins_with_what_comes_and_says_where_that_is() {
    let (core, epoch) = core_with_history(9, &["a"]);
    let mut page = Page::open(&core, open_to_all());
    assert_eq!(page.send(&subscribe("null")), [followed(true, &epoch, 1)]);
    publish(&core, "hello", Content::text("b"));
    assert_eq!(page.read(), [event("b", &epoch, 2)]);
}

#[test]
fn a_channel_that_is_new_has_no_earlier_position() {
    let (core, _) = core_with_history(9, &[]);
    let received = Page::open(&core, open_to_all()).send(&after("another", 3));
    let epoch = core.epoch(&name("hello")).unwrap().to_string();
    assert_eq!(received, [followed(false, &epoch, 0)]);
}

#[test]
fn who_did_not_ask_is_shown_no_position() {
    let (core, epoch) = core_with_history(9, &["a"]);
    let mut other = Page::open(&core, open_to_all()).after(&[HELLO]);
    let mut page = Page::open(&core, open_to_all());
    page.send(&after(&epoch, 1));
    publish(&core, "hello", Content::text("b"));
    assert_eq!(other.read(), [plain("b")]);
    assert_eq!(page.read(), [event("b", &epoch, 2)]);
}

#[test]
fn once_asked_for_positions_are_on_all_channels_of_the_connection() {
    let (core, epoch) = core_with_history(9, &["a"]);
    publish(&core, "other", Content::text("x"));
    let mut page = Page::open(&core, open_to_all()).after(&[HELLO]);
    publish(&core, "hello", Content::text("b"));
    assert_eq!(page.read(), [plain("b")]);
    let other = core.epoch(&name("other")).unwrap();
    assert_eq!(
        page.send(r#"{"subscribe": {"channel": "other", "since": null}}"#),
        [followed(true, &other.to_string(), 1)]
    );
    publish(&core, "hello", Content::text("c"));
    assert_eq!(page.read(), [event("c", &epoch, 3)]);
}

#[test]
fn asking_again_begins_anew() {
    let (core, epoch) = core_with_history(9, &["a", "b"]);
    let mut page = Page::open(&core, open_to_all()).after(&[HELLO]);
    let since = after(&epoch, 1);
    assert_eq!(page.send(&since), [followed(true, &epoch, 1), event("b", &epoch, 2)]);
    assert_eq!(page.send(&since), [followed(true, &epoch, 1), event("b", &epoch, 2)]);
    assert_eq!(page.send(HELLO), [OK], "without it, twice changes nothing");
    publish(&core, "hello", Content::text("c"));
    assert_eq!(page.read(), [event("c", &epoch, 3)], "once");
}

#[test]
fn a_position_is_a_text_of_its_form_or_null() {
    // [webrocket: since]
    for wrong in ["1", "true", "[]", r#""""#, r#""7""#, r#""0000000000000006:""#, r#""0000000000000006:x""#] {
        check(&subscribe(wrong), &[INVALID_DATA]);
    }
}

#[test]
fn access_is_looked_at_first() {
    let (core, epoch) = core_with_history(9, &["a"]);
    let mut page = Page::open(&core, options());
    assert_eq!(page.send(&after(&epoch, 0)), [ACCESS_DENIED]);
    assert_eq!(page.send(&subscribe("7")), [ACCESS_DENIED]);
    publish(&core, "hello", Content::text("b"));
    assert_eq!(page.read(), [] as [String; 0]);
}

#[test]
fn a_further_field_cannot_pass_for_the_position() {
    // [webrocket: further fields]
    let (core, epoch) = core_with_history(9, &["a"]);
    let mut page = Page::open(&core, open_to_all());
    page.send(&after(&epoch, 1));
    let fields = r#""data": "x", "n": 1, "position": "5:5", "Position": [2], "m": {"position": 3}"#;
    let published = page.send(&format!(r#"{{"publish": {{"event": "e", "channel": "hello", {fields}}}}}"#));
    let expected = format!(
        r#"{{"event": "e", "channel": "hello", "data": "x", "position": "{epoch}:2", "n": 1, "m": {{"position": 3}}}}"#
    );
    assert_eq!(published, [OK.to_owned(), expected]);
    let mut other = Page::open(&core, open_to_all()).after(&[HELLO]);
    let publish = format!(r#"{{"publish": {{"event": "e", "channel": "hello", {fields}}}}}"#);
    let received = other.send(&publish);
    assert_eq!(received, [OK.to_owned(), format!(r#"{{"event": "e", "channel": "hello", {fields}}}"#)]);
}

#[test]
fn a_direct_message_to_somebody_else_is_not_in_what_is_kept() {
    let (core, epoch) = core_with_history(9, &["a"]);
    let to = core.register(NOW).unwrap();
    core.join(to, &[name("hello")], NOW).unwrap();
    let receivers = [to.get()];
    let direct = Publish::new(Content::text("for you")).by(to).to(&receivers);
    core.publish(&name("hello"), direct, NOW).unwrap();
    publish(&core, "hello", Content::text("c"));
    let received = Page::open(&core, open_to_all()).send(&after(&epoch, 0));
    assert_eq!(received, [followed(true, &epoch, 0), event("a", &epoch, 1), event("c", &epoch, 3)]);
}
