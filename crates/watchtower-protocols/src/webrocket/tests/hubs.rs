//! What a hub is told: its namespace, origins, secrets, observer and codec.

use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use http::StatusCode;

use super::super::{Activity, Command, CommandName, Event, Json, Malformed, Namespace, Observer, Reply};
use super::*;
use crate::websocket::{Incoming, MessageKind, Outgoing};

fn within(namespace: &str) -> HubOptions {
    let foreign_namespaces = ["x", "y"].map(|text| Namespace::parse(text).unwrap()).into();
    HubOptions { namespace: Namespace::parse(namespace).ok(), foreign_namespaces, ..open_to_all() }
}

fn subscribe(channel: &str) -> String {
    format!(r#"{{"subscribe": {{"channel": "{channel}"}}}}"#)
}

#[test]
fn a_hub_with_a_namespace_has_channels_of_its_own_and_shows_their_names_without_it() {
    // [webrocket: namespaces]
    let core = core();
    let mut x = Page::open(&core, within("x")).after(&[HELLO]);
    let mut y = Page::open(&core, within("y")).after(&[HELLO]);
    let mut shared = Page::open(&core, within("")).after(&[HELLO]);
    let mut channels = core.channels();
    channels.sort();
    assert_eq!(channels, ["hello", "x/hello", "y/hello"].map(name));
    assert_eq!(x.send(SAY), [OK, SAID]);
    assert_eq!([y.read(), shared.read()], [[""; 0]; 2]);
    assert_eq!(shared.send(SAY), [OK, SAID]);
    assert_eq!([x.read(), y.read()], [[""; 0]; 2]);
}

#[test]
fn hubs_of_one_namespace_meet_in_it() {
    let core = core();
    let mut one = Page::open(&core, within("x")).after(&[HELLO]);
    let mut other = Page::open(&core, within("x")).after(&[HELLO]);
    assert_eq!(one.send(SAY), [OK, SAID]);
    assert_eq!(other.read(), [SAID]);
}

#[test]
fn no_hub_reaches_the_channels_of_another() {
    let core = core();
    let _readers = ["x", "y"].map(|namespace| Page::open(&core, within(namespace)).after(&[HELLO]));
    for (namespace, channel) in [("", "x/hello"), ("", "y/hello"), ("x", "y/hello"), ("y", "x/hello")] {
        let mut page = Page::open(&core, within(namespace));
        assert_eq!(page.send(&subscribe(channel)), [INVALID_CHANNEL_NAME]);
        assert_eq!(page.send(&SAY.replace("hello", channel)), [INVALID_CHANNEL]);
        assert_eq!(page.send(&subscribe(channel).replace("sub", "unsub")), [OK]);
    }
}

#[test]
fn hubs_share_the_servers_channels_by_default() {
    // [webrocket: namespaces]
    let core = core();
    let mut one = Page::open(&core, open_to_all()).after(&[HELLO]);
    let mut other = Page::open(&core, open_to_all()).after(&[HELLO]);
    assert_eq!(one.send(SAY), [OK, SAID]);
    assert_eq!(other.read(), [SAID]);
}

#[track_caller]
fn check_origin(origins: &[&str], headers: &[(&str, &str)], is_admitted: bool) {
    let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
    let hub = WebRocket::new(HubOptions { origins, ..options() });
    let expected = if is_admitted { Ok(()) } else { Err(StatusCode::FORBIDDEN) };
    assert_eq!(hub.admit(&request(headers)), expected, "{headers:?}");
}

#[test]
fn a_page_may_connect_if_its_origin_is_on_the_list_or_there_is_none() {
    // [webrocket: browser safety]
    let page = |origin| [("origin", origin)];
    check_origin(&[], &[], true);
    check_origin(&[], &page("https://anywhere.example"), true);
    let list = ["https://a.example", "http://localhost:8080"];
    check_origin(&list, &page("https://a.example"), true);
    check_origin(&list, &page("http://localhost:8080"), true);
    check_origin(&list, &page("https://A.example"), true);
    check_origin(&list, &[], false);
    for wrong in [
        "",
        "null",
        "http://a.example",
        "https://a.example:444",
        "https://a.example.evil.example",
        "https://evil.example/https://a.example",
        "https://a.example, https://evil.example",
    ] {
        check_origin(&list, &page(wrong), false);
    }
    check_origin(&list, &[("origin", "https://evil.example"), ("origin", "https://a.example")], false);
    check_origin(&list, &[("origin", "https://a.example"), ("origin", "https://a.example")], false);
}

#[test]
fn secrets_and_origins_are_replaced_while_the_hub_is_open() {
    let core = core();
    let hub = WebRocket::new(options());
    let mut before = Page::visit(&core, &hub).after(&[WRITE, HELLO]);
    hub.configure(Secret::new("new"), Secret::new("w2"), vec!["https://a.example".to_owned()]);
    // Who was let in stays so.
    assert_eq!(before.send(SAY), [OK, SAID]);
    assert_eq!(before.send(WRITE), [INVALID_CREDENTIALS]);
    assert_eq!(before.send(&WRITE.replace("\"w\"", "\"w2\"")), [OK]);
    assert_eq!(hub.admit(&request(&[])), Err(StatusCode::FORBIDDEN));
    assert_eq!(hub.admit(&request(&[("origin", "https://a.example")])), Ok(()));
}

/// Writes down what it is told.
#[derive(Default)]
struct Diary(Mutex<Vec<String>>);

impl Observer for Diary {
    fn observe(&self, connection: u64, activity: &Activity<'_>) {
        let line = match activity {
            Activity::Connected { request } => format!("{connection} connected to {}", request.uri),
            activity => format!("{connection} {activity:?}"),
        };
        self.0.lock().unwrap().push(line);
    }
}

#[test]
fn the_observer_is_told_what_happens_but_neither_secrets_nor_contents() {
    let core = core();
    let diary = Arc::new(Diary::default());
    let hub = WebRocket::new(HubOptions { observer: Some(diary.clone()), ..options() });
    let _other = Page::visit(&core, &hub);
    let mut page = Page::visit(&core, &hub);
    for command in [
        "nonsense",
        SAY,
        r#"{"auth": {"access": "read-only", "secret": "guess"}}"#,
        WRITE,
        HELLO,
        r#"{"publish": {"event": "e", "channel": "hello", "data": "content", "x": 1}}"#,
        r#"{"unsubscribe": {"channel": "hello"}}"#,
        HELLO,
        r#"{"logout": true}"#,
        r#"{"disconnect": true}"#,
    ] {
        page.send(command);
    }
    drop(page);
    let told = diary.0.lock().unwrap().join("\n");
    let expected = r#"1 connected to /webrocket
2 connected to /webrocket
2 Refused { command: None, code: InvalidData }
2 Refused { command: Some(Publish), code: AccessDenied }
2 Refused { command: Some(Auth), code: InvalidCredentials }
2 Authenticated { access: ReadWrite }
2 Subscribed { channel: "hello" }
2 Published { channel: "hello", bytes: 13 }
2 Unsubscribed { channel: "hello" }
2 Subscribed { channel: "hello" }
2 LoggedOut
2 Unsubscribed { channel: "hello" }
2 Disconnected"#;
    assert_eq!(told, expected);
}

#[test]
fn presence_shows_subscribers_while_they_are_connected() {
    // [model: identity]
    let core = core();
    let page = Page::open(&core, options()).after(&[READ, HELLO]);
    let presence = core.presence(&name("hello")).unwrap();
    assert_eq!(presence.iter().map(|present| present.protocol).collect::<Vec<_>>(), ["webrocket"]);
    drop(page);
    assert_eq!(core.presence(&name("hello")).unwrap(), []);
}

/// Commands and events in a few words, as binary messages.
struct Terse;

impl Codec for Terse {
    fn decode<'a>(&self, message: Incoming<'a>) -> Result<Command<'a>, Malformed> {
        let Incoming::Binary(bytes) = message else { return Err(Malformed { command: None }) };
        match bytes {
            [b's', channel @ ..] => {
                Ok(Command::Subscribe { channel: String::from_utf8_lossy(channel), since: None })
            }
            [b'a', ..] => Ok(Command::Auth { access: Access::None, secret: "".into() }),
            [b'p', ..] => Err(Malformed { command: Some(CommandName::Publish) }),
            _ => Err(Malformed { command: None }),
        }
    }

    fn reply<'a>(&self, reply: &Reply, _room: &'a mut BytesMut) -> Outgoing<'a> {
        Outgoing::Binary(if *reply == Reply::Ok { b"+" } else { b"-" })
    }

    fn encode(&self, event: &Event<'_>, out: &mut BytesMut) -> MessageKind {
        assert_eq!(event.extras, None, "another codec's further fields are no business of this one");
        out.extend_from_slice(event.channel.as_bytes());
        out.extend_from_slice(event.content.bytes());
        MessageKind::Binary
    }
}

#[test]
fn another_codec_serves_the_same_hub_in_its_own_words() {
    // [webrocket: codec]
    let core = core();
    let mut terse = Page::visit(&core, &WebRocket::with_codec(Terse, 32, open_to_all()));
    let binary = |text: &str| format!("binary {:?}", text.as_bytes());
    assert_eq!(terse.send_frames(&frame(BINARY, b"shello")), [binary("+")]);
    for refused in [&b"s"[..], b"a", b"p", b"?"] {
        assert_eq!(terse.send_frames(&frame(BINARY, refused)), [binary("-")]);
    }
    let mut page = Page::visit(&core, &WebRocket::with_codec(Json, 16, open_to_all()));
    let publish = r#"{"publish": {"event": "e", "channel": "hello", "data": "x", "n": 1}}"#;
    assert_eq!(page.send(publish), [OK]);
    assert_eq!(terse.read(), [binary("hellox")]);
}
