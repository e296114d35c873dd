//! What a newcomer gets at once, and what the others are told of it, on every wire
//! [http: the last message] [model: presence].

use serde_json::{Value, json};

use super::http::Stream;
use super::packets::{Packets, delivered};
use super::receiver::Receiver;
use super::server::Server;
use super::webrocket::{OK, WebRocket};
use super::websockets::By;

const NDJSON: &str = "application/x-ndjson";
const SSE: &str = "text/event-stream";
const OCTETS: &str = "application/octet-stream";

fn value(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// The next event of a stream: its name and its data.
fn event(stream: &mut Stream) -> (String, Value) {
    loop {
        let line = stream.line();
        if let Some(event) = line.strip_prefix("event: ") {
            let data = stream.line();
            assert_eq!(stream.line(), "");
            return (event.to_owned(), value(data.strip_prefix("data: ").unwrap()));
        }
    }
}

#[test]
fn the_last_message_comes_first_on_every_wire_and_once() {
    let server = Server::start(&["--set", r#"channels=[{pattern="5",retain=true}]"#]);
    let sender = server.joined(&json!([5]));
    server.broadcast(sender, &json!(5), "older");
    server.broadcast(sender, &json!(5), "value");
    // For its receivers alone, whoever comes later.
    let direct = json!({ "channels": [5], "sender": sender, "receivers": [sender], "message": "secret" });
    assert_eq!(server.post("/send", &direct.to_string()).status, 200);

    let mut packets = [Packets::tcp(&server, &[5]), Packets::udp(&server, &[5])];
    let mut lines = Stream::open(&server, "5", server.register(), NDJSON);
    let mut events = Stream::open(&server, "5", server.register(), SSE);
    let mut octets = Stream::open(&server, "5", server.register(), OCTETS);
    let rocket = WebRocket::open(&server, By::Package);
    rocket.subscribe("5");
    let receiver = Receiver::start();
    let callback = json!({ "channels": [5], "sender": server.register(), "callback_url": receiver.url() });
    assert_eq!(server.post("/channels/join/async", &callback.to_string()).status, 200);
    // Who joined to send is no subscriber yet, and the one who publishes no exception.
    let mut own = Stream::open(&server, "5", sender, NDJSON);

    for text in ["value", "next"] {
        if text == "next" {
            server.broadcast(sender, &json!(5), text);
        }
        let bytes = delivered(sender, 5, false, text.as_bytes());
        packets.iter_mut().for_each(|packets| packets.expect(&bytes));
        octets.expect(&bytes);
        assert_eq!(value(&lines.line())["message"], text);
        assert_eq!(value(&own.line())["message"], text);
        let (name, data) = event(&mut events);
        assert_eq!((name.as_str(), &data["message"]), ("message", &json!(text)));
        rocket.socket.expect(&format!(r#"{{"event": "message", "channel": "5", "data": "{text}"}}"#));
        assert_eq!(receiver.next().text(), text);
    }
}

#[test]
fn who_goes_on_at_a_position_gets_the_last_message_no_second_time() {
    let server = Server::start(&["--set", r#"channels=[{pattern="5",retain=true,history_messages=9}]"#]);
    let sender = server.joined(&json!([5]));
    for text in ["one", "two"] {
        server.broadcast(sender, &json!(5), text);
    }
    let epoch = server.epoch(sender, "5");
    for (seen, expected) in [(2, vec![]), (1, vec!["two"]), (0, vec!["one", "two"])] {
        let mut stream = Stream::open(&server, &format!("5&since={epoch}:{seen}"), server.register(), NDJSON);
        let told = value(&stream.line());
        assert_eq!((&told["recovered"], &told["offset"]), (&json!(true), &json!(seen)));
        let rocket = WebRocket::open(&server, By::Package);
        let position = format!("{epoch}:{seen}");
        rocket.ask(
            &format!(r#"{{"subscribe": {{"channel": "5", "since": "{position}"}}}}"#),
            &format!(r#"{{"ok": true, "recovered": true, "position": "{position}"}}"#),
        );
        for text in expected {
            assert_eq!(value(&stream.line())["message"], text);
            assert_eq!(value(&rocket.socket.text())["data"], text);
        }
        // Nothing stands before what comes next.
        rocket.ask(r#"{"unsubscribe": {"channel": "other"}}"#, OK);
    }
}

#[test]
fn events_that_begin_with_the_last_message_are_resumed_where_they_broke_off() {
    let rule = r#"channels=[{pattern="*",retain=true,history_messages=1}]"#;
    let server = Server::start(&["--set", rule]);
    let sender = server.joined(&json!([5, 8]));
    for channel in [5, 8] {
        server.broadcast(sender, &json!(channel), "value");
    }
    // Newer than what is retained, and for nobody who follows here.
    let direct = json!({ "channels": [5, 8], "sender": sender, "receivers": [sender], "message": "secret" });
    for _ in 0..3 {
        assert_eq!(server.post("/send", &direct.to_string()).status, 200);
    }
    for channels in ["5", "5,8"] {
        let mut events = Stream::open(&server, channels, server.register(), SSE);
        let mut id = String::new();
        let mut values = 0;
        while values < channels.split(',').count() {
            // A browser keeps the last `id` there was.
            match events.line() {
                line if line.starts_with("id: ") => id = line["id: ".len()..].to_owned(),
                line => values += usize::from(line.starts_with("data: ")),
            }
        }
        drop(events);
        let headers = format!("Accept: {SSE}\r\nLast-Event-ID: {id}\r\n");
        let (mut again, _) = Stream::open_with(&server, channels, server.register(), &headers);
        for _ in channels.split(',') {
            let (name, data) = event(&mut again);
            assert_eq!(
                (name.as_str(), &data["recovered"]),
                ("recovered", &json!(true)),
                "{channels}: {data}"
            );
            assert_eq!(data["offset"], 4, "{channels}: {data}");
        }
    }
}

#[test]
fn who_joins_and_leaves_is_told_on_every_wire() {
    let server = Server::start(&["--set", r#"channels=[{pattern="5",presence_events=true}]"#]);
    let rocket = WebRocket::open(&server, By::Package);
    rocket.socket.send(r#"{"subscribe": {"channel": "5"}}"#);
    rocket.socket.expect(OK);
    let own = value(&rocket.socket.text());
    assert_eq!(own["data"]["protocol"], "webrocket", "{own}");
    let mut packets = Packets::tcp(&server, &[5]);
    let told = |what: &str, sender: u32, protocol: &str, present: usize| {
        format!(r#"{{"{what}":{sender},"protocol":"{protocol}","present":{present}}}"#)
    };
    let joined = told("joined", packets.id, "tcp", 2);
    packets.expect(&delivered(0, 5, false, joined.as_bytes()));
    rocket.socket.expect(&format!(r#"{{"event": "presence", "channel": "5", "data": {joined}}}"#));
    let mut lines = Stream::open(&server, "5", server.register(), NDJSON);
    let mut events = Stream::open(&server, "5", server.register(), SSE);
    assert_eq!(value(&lines.line())["message"]["present"], 3);
    assert_eq!(event(&mut events).1["message"]["present"], 4);
    assert_eq!(value(&lines.line())["message"]["present"], 4);

    let passer = server.joined(&json!([5]));
    let leave = json!({ "sender": passer, "channels": [5] }).to_string();
    assert_eq!(server.post("/channels/leave", &leave).status, 200);
    for (what, present) in [("joined", 5), ("left", 4)] {
        let line = value(&lines.line());
        assert_eq!(line["message"], json!({ what: passer, "protocol": "http", "present": present }));
        assert_eq!((&line["event"], &line["sender"]), (&json!("presence"), &json!(0)));
        let (name, data) = event(&mut events);
        assert_eq!((name.as_str(), &data["message"]), ("presence", &line["message"]));
    }
    let who = r#"{"presence": {"channel": "5"}}"#;
    rocket.socket.send(who);
    let texts = std::iter::repeat_with(|| value(&rocket.socket.text()));
    let last = texts.take(99).find(|text| text.get("ok").is_some()).expect("an answer");
    assert_eq!(last["count"], 4, "{last}");
    let asker = server.register();
    let listed = server.get(&format!("/channels/5/presence?sender={asker}")).json();
    assert_eq!(last["presence"], listed["senders"]);

    let forged = json!({ "channels": [5], "sender": passer, "message": {"joined": 1}, "event": "presence" });
    let join = json!({ "sender": passer, "channels": [5] }).to_string();
    assert_eq!(server.post("/channels/join", &join).status, 200);
    let answer = server.post("/broadcast", &forged.to_string());
    assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_field")), "{answer:?}");
}
