//! Watchtower HTTP in exact bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::Value;
use watchtower_hub::{
    Batch, ChannelName, Content, Drained, Entropy, Epoch, Format, FormatId, Hub, Joined, Message, Position,
    Publish, SenderId, Session, Settings, Start, Timestamp, WhenLagging,
};

use super::message::{NDJSON, NDJSON_CHUNKED, SSE, SSE_CHUNKED};
use super::*;
use crate::stream::StreamSession;

const TIME: Timestamp = Timestamp::from_millis(1_795_255_200_000); // 2026-11-21T10:00:00Z

fn message(channel: &str, content: Content) -> Message {
    let position = Position { epoch: Epoch::from_bits(0xab), offset: 12 };
    let channel = ChannelName::parse(channel).expect("a name");
    Message::detached(channel, position, SenderId::new(72), content, TIME)
}

fn json(message: &Message) -> String {
    let mut out = BytesMut::new();
    write_message(message, &mut out);
    String::from_utf8(out.into()).expect("JSON is UTF-8")
}

fn frame(format: &dyn Format, message: &Message) -> String {
    String::from_utf8(message.frame(format).to_vec()).expect("these frames are UTF-8")
}

/// What another protocol put beside the content is that protocol's.
#[test]
fn who_said_it_elsewhere_is_shown_where_a_bridge_told() {
    let told = message("5", Content::text("x")).with_extras(crate::byline("go\"ldy"));
    let of_a_protocol = message("5", Content::text("x")).with_extras(b"\x08goldy".as_slice().into());
    let shown = |beside: &str| {
        format!(
            r#"{{"channel":5,"offset":12,"epoch":"00000000000000ab","sender":72,{beside}"message":"x","time":"2026-11-21T10:00:00.000Z"}}"#
        )
    };
    assert_eq!(json(&told), shown(r#""nick":"go\"ldy","#));
    assert_eq!(json(&of_a_protocol), shown(""));
}

/// [http: messages] [model: projection]
#[test]
fn a_message_is_json_by_the_kind_of_its_content() {
    fn check(message: &Message, expected: &str) {
        assert_eq!(json(message), expected);
        serde_json::from_str::<Value>(expected).expect("what is expected is JSON");
    }
    check(
        &message("5", Content::text("all your base\n\"\u{1}é\u{2028}")),
        "{\"channel\":5,\"offset\":12,\"epoch\":\"00000000000000ab\",\"sender\":72,\
         \"message\":\"all your base\\n\\\"\\u0001é\u{2028}\",\"time\":\"2026-11-21T10:00:00.000Z\"}",
    );
    check(
        &message("a \"b\"", Content::json("{\r\n\"b\": 1.50, \"a\":\t[\"\\n\"]}\n").expect("JSON")),
        concat!(
            r#"{"channel":"a \"b\"","offset":12,"epoch":"00000000000000ab","sender":72,"#,
            r#""message":{  "b": 1.50, "a":"#,
            "\t",
            r#"["\n"]} ,"time":"2026-11-21T10:00:00.000Z"}"#,
        ),
    );
    check(
        &message("5", Content::binary(&b"\xff\0\x01\x02"[..])),
        concat!(
            r#"{"channel":5,"offset":12,"epoch":"00000000000000ab","sender":72,"#,
            r#""message":"/wABAg==","encoding":"base64","time":"2026-11-21T10:00:00.000Z"}"#,
        ),
    );
}

/// [http: messages]
#[test]
fn event_and_direct_are_shown_where_they_apply_and_nobody_is_sender_zero() {
    let to = [SenderId::new(52).expect("not zero")];
    let message = message("5", Content::text("x")).with_event("a\nb").with_receivers(to);
    assert_eq!(
        json(&message),
        concat!(
            r#"{"channel":5,"offset":12,"epoch":"00000000000000ab","sender":72,"event":"a\nb","#,
            r#""message":"x","direct":true,"time":"2026-11-21T10:00:00.000Z"}"#,
        ),
    );
    let position = Position { epoch: Epoch::from_bits(1), offset: 1 };
    let from_nobody = Message::detached(5.into(), position, None, Content::text("x"), TIME);
    assert!(json(&from_nobody).contains(r#""sender":0,"#));
}

#[test]
fn times_have_milliseconds_and_end_with_the_year_9999() {
    fn check(millis: u64, expected: &str) {
        let mut out = BytesMut::new();
        write_time(Timestamp::from_millis(millis), &mut out);
        assert_eq!(out, format!("\"{expected}\""));
    }
    check(0, "1970-01-01T00:00:00.000Z");
    check(TIME.as_millis() + 7, "2026-11-21T10:00:00.007Z");
    check(u64::MAX, "9999-12-30T22:00:00.999Z");
}

/// [http: channels/join]
#[test]
fn a_line_and_an_event_are_whole_in_themselves_with_and_without_a_chunk() {
    let message = message("5", Content::text("x")).with_event("a\r\nb");
    let json = json(&message);
    assert_eq!(frame(&MessageJson, &message), json);
    assert_eq!(frame(&NDJSON, &message), format!("{json}\n"));
    assert_eq!(frame(&NDJSON_CHUNKED, &message), format!("{:x}\r\n{json}\n\r\n", json.len() + 1));
    let event = format!("id: 00000000000000ab:12\nevent: a  b\ndata: {json}\n\n");
    assert_eq!(frame(&SSE, &message), event);
    assert_eq!(frame(&SSE_CHUNKED, &message), format!("{:x}\r\n{event}\r\n", event.len()));
    let default = super::tests::message("5", Content::text("x"));
    assert!(frame(&SSE, &default).contains("\nevent: message\n"));
}

/// Shows the length that its content names, in bytes.
struct Zeros;

impl Format for Zeros {
    fn id(&self) -> FormatId {
        FormatId::new(40)
    }

    fn encode(&self, message: &Message, out: &mut BytesMut) {
        let length: usize = message.content().as_text().expect("text").parse().expect("a length");
        out.resize(out.len() + length, 0);
    }
}

#[test]
fn a_chunk_is_as_long_as_its_head_says_and_nothing_makes_no_chunk() {
    fn check(length: usize, head: &[u8]) {
        let format = Chunked::new(FormatId::new(41), Zeros);
        let mut out = BytesMut::from("before");
        format.encode(&message("5", Content::text(length.to_string())), &mut out);
        let tail: &[u8] = if length == 0 { b"" } else { b"\r\n" };
        assert_eq!(out, [b"before", head, &vec![0; length], tail].concat(), "{length}");
    }
    check(0, b"");
    check(1, b"1\r\n");
    check(15, b"f\r\n");
    check(16, b"10\r\n");
    check(0xffff, b"ffff\r\n");
    check(0x10000, b"10000\r\n");
}

static OCTETS: Octets = Octets {
    plain: &Zeros,
    chunked: &ZEROS_CHUNKED,
    overloaded: b"E8",
    shutting_down: b"E!",
    incomplete: |out, channel, after| out.extend_from_slice(format!("E9 {channel} {after}").as_bytes()),
};
static ZEROS_CHUNKED: Chunked<Zeros> = Chunked::new(FormatId::new(41), Zeros);

struct Counting(AtomicU64);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

fn hub() -> Hub {
    Hub::new(Settings::default(), Box::new(Counting(AtomicU64::new(0xab))))
}

fn open(hub: &Hub, form: Form, framing: Framing, channels: &[Opening], resumes: bool) -> HttpStream {
    let session = hub.open("http", WhenLagging::Close);
    HttpStream::new(session, form, framing, Duration::from_secs(15), channels, resumes)
}

fn stream(form: Form, framing: Framing) -> HttpStream {
    open(&hub(), form, framing, &[], false)
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).expect("UTF-8")
}

/// [http: channels/join]
#[test]
fn a_heartbeat_is_an_empty_line_or_a_comment() {
    fn check(form: Form, framing: Framing, expected: &str) {
        let mut stream = stream(form, framing);
        assert_eq!(stream.heartbeat(), Some(Duration::from_secs(15)));
        assert_eq!(written(|out| stream.beat(out)), expected);
    }
    check(Form::Ndjson, Framing::Chunked, "1\r\n\n\r\n");
    check(Form::Ndjson, Framing::UntilClose, "\n");
    check(Form::Sse, Framing::Chunked, "3\r\n:\n\n\r\n");
    check(Form::Sse, Framing::UntilClose, ":\n\n");
    check(Form::Octets(&OCTETS), Framing::Chunked, "1\r\n\n\r\n");
    check(Form::Octets(&OCTETS), Framing::UntilClose, "\n");
}

#[test]
fn a_stream_that_is_ended_says_why_and_ends_its_response() {
    const LAGGING: &str = r#"{"error":"overloaded","message":"the stream fell behind too far"}"#;
    const SHUT: &str = r#"{"error":"shutting_down","message":"the server is shutting down"}"#;
    let lagging = |form, framing| written(|out| stream(form, framing).lagging(out));
    let shut = |form, framing| written(|out| stream(form, framing).shut_down(out));
    assert_eq!(lagging(Form::Ndjson, Framing::Chunked), format!("42\r\n{LAGGING}\n\r\n0\r\n\r\n"));
    assert_eq!(lagging(Form::Ndjson, Framing::UntilClose), format!("{LAGGING}\n"));
    assert_eq!(
        shut(Form::Sse, Framing::Chunked),
        format!("56\r\nevent: error\ndata: {SHUT}\n\n\r\n0\r\n\r\n")
    );
    assert_eq!(shut(Form::Sse, Framing::UntilClose), format!("event: error\ndata: {SHUT}\n\n"));
    assert_eq!(lagging(Form::Octets(&OCTETS), Framing::Chunked), "2\r\nE8\r\n0\r\n\r\n");
    assert_eq!(shut(Form::Octets(&OCTETS), Framing::UntilClose), "E!");
}

/// [http: since]
#[test]
fn a_stream_begins_with_a_heartbeat_and_when_asked_with_where_it_goes_on() {
    let opening = |channel: &str, offset, recovered| Opening {
        channel: ChannelName::parse(channel).expect("a name"),
        joined: Joined { position: Position { epoch: Epoch::from_bits(0xab), offset }, recovered },
    };
    let channels = [opening("5", 12, true), opening("hello", 0, false)];
    let check = |form, resumes, expected: &str| {
        let mut stream = open(&hub(), form, Framing::Chunked, &channels, resumes);
        let expected = format!("{:x}\r\n{expected}\r\n", expected.len());
        assert_eq!(written(|out| stream.begin(out)), expected);
        assert_eq!(written(|out| stream.begin(out)), "", "it is said once");
    };
    const FIRST: &str = r#"{"channel":5,"recovered":true,"epoch":"00000000000000ab","offset":12}"#;
    const SECOND: &str = r#"{"channel":"hello","recovered":false,"epoch":"00000000000000ab","offset":0}"#;
    const ID: &str = "id: 00000000000000ab:12,00000000000000ab:0\n\n";
    check(Form::Ndjson, false, "\n");
    check(Form::Ndjson, true, &format!("\n{FIRST}\n{SECOND}\n"));
    check(Form::Sse, false, &format!(":\n\n{ID}"));
    check(
        Form::Sse,
        true,
        &format!(":\n\n{ID}event: recovered\ndata: {FIRST}\n\nevent: recovered\ndata: {SECOND}\n\n"),
    );
    check(Form::Octets(&OCTETS), false, "\n");
    check(Form::Octets(&OCTETS), true, "\nE9 hello 0");
}

#[test]
fn what_the_client_says_after_its_request_is_passed_over() {
    let mut stream = stream(Form::Ndjson, Framing::Chunked);
    let mut out = Vec::new();
    assert_eq!(stream.receive(b"GET / HTTP/1.1\r\n", TIME, &mut out), Ok(16));
    assert_eq!(out, b"");
    assert_eq!(stream.patience(), None);
}

fn drained(session: &Session, format: &dyn Format) -> Vec<u8> {
    let mut batch = Batch::default();
    assert_eq!(session.drain(format, None, usize::MAX, &mut batch), Drained::All);
    batch.frames.iter().flat_map(|frame| frame.iter()).copied().collect()
}

#[test]
fn a_run_of_messages_is_their_chunks_one_after_the_other() {
    let hub = hub();
    let sender = hub.register(TIME).expect("room");
    let stream = open(&hub, Form::Ndjson, Framing::Chunked, &[], false);
    stream.session().subscribe(sender, &5.into(), Start::End, TIME).expect("room");
    let publish = |text: &str| {
        let message = Publish::new(Content::text(text)).by(sender);
        hub.publish(&5.into(), message, TIME).expect("joined");
    };
    publish("a");
    publish("bcd");
    let expected = |offset: u64, text: &str| {
        let json = format!(
            "{{\"channel\":5,\"offset\":{offset},\"epoch\":\"00000000000000ac\",\"sender\":171,\
             \"message\":\"{text}\",\"time\":\"2026-11-21T10:00:00.000Z\"}}\n"
        );
        format!("{:x}\r\n{json}\r\n", json.len())
    };
    let all = drained(stream.session(), stream.format());
    assert_eq!(String::from_utf8(all).expect("UTF-8"), expected(1, "a") + &expected(2, "bcd"));
}

#[test]
fn what_was_published_before_the_shutdown_comes_before_the_last_word() {
    let hub = hub();
    let sender = hub.register(TIME).expect("room");
    let mut stream = open(&hub, Form::Ndjson, Framing::UntilClose, &[], false);
    stream.session().subscribe(sender, &5.into(), Start::End, TIME).expect("room");
    let message = Publish::new(Content::text("x"));
    hub.publish(&5.into(), message, TIME).expect("room");
    let last = written(|out| stream.shut_down(out));
    let lines: Vec<_> = last.lines().collect();
    assert_eq!(lines.len(), 2, "{last}");
    assert!(lines[0].contains(r#""message":"x""#) && lines[1].starts_with(r#"{"error":"shutting_down""#));
}

fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|s| serde_json::to_string(&s).expect("a string")),
    ];
    let space = || "[ \t\r\n]{0,3}";
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop::collection::vec((space(), inner, space()), 0..4).prop_map(|items| {
            let items: Vec<_> = items.into_iter().map(|(a, item, b)| a + &item + &b).collect();
            format!("[{}]", items.join(","))
        })
    })
}

proptest! {
    #[test]
    fn whatever_is_published_a_frame_is_one_line_that_says_the_same(
        event in any::<String>(), text in any::<String>(), json_text in json_text(),
    ) {
        for content in [Content::text(text.clone()), Content::json(json_text.clone()).expect("JSON")] {
            let message = message("5", content).with_event(&event);
            let line = json(&message);
            prop_assert!(!line.contains(['\r', '\n']));
            let read: Value = serde_json::from_str(&line).expect("a frame is JSON");
            let expected = match message.content().kind() {
                watchtower_hub::ContentKind::Text => Value::from(text.clone()),
                _ => serde_json::from_str(&json_text).expect("JSON"),
            };
            prop_assert_eq!(&read["message"], &expected);
            prop_assert_eq!(read["event"].as_str().unwrap_or("message"), &event);
            let sse = frame(&SSE, &message);
            prop_assert_eq!(sse.split('\n').count(), 5, "{}", sse);
            prop_assert!(!sse.contains('\r'));
        }
    }

    #[test]
    fn binary_content_reads_back_as_it_was(bytes in any::<Vec<u8>>()) {
        use base64::Engine;
        let read: Value = serde_json::from_str(&json(&message("5", Content::binary(bytes.clone())))).expect("JSON");
        let base64 = read["message"].as_str().expect("a string");
        prop_assert_eq!(base64::engine::general_purpose::STANDARD.decode(base64).expect("base64"), bytes);
        prop_assert_eq!(&read["encoding"], "base64");
    }
}
