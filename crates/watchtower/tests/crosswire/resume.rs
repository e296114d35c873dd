//! Streams that are cut off and come back within `session_ttl` [http: since].

use serde_json::{Value, json};

use super::http::Stream;
use super::server::{Server, until};

/// A publisher on channels 5, 8 and `hello`, whose messages are `one`, `two` and so on.
struct Scene {
    server: Server,
    sender: u32,
    follower: u32,
}

impl Scene {
    fn new() -> Scene {
        Scene::with(&[])
    }

    fn with(arguments: &[&str]) -> Scene {
        let server = Server::start(arguments);
        let sender = server.joined(&json!([5, 8, "hello"]));
        let follower = server.register();
        Scene { server, sender, follower }
    }

    fn publish(&self, channel: &Value, texts: &[&str]) {
        for text in texts {
            self.server.broadcast(self.sender, channel, text);
        }
    }

    fn epoch(&self, channel: &str) -> String {
        self.server.epoch(self.sender, channel)
    }

    /// Cuts the only stream off, and waits until the server knows.
    fn cut_off(&self, stream: Stream) {
        drop(stream);
        until("noticed", || self.server.metric("watchtower_sessions") == Some(0.0));
    }

    /// Lines from `since` on, of which the sign of life was read.
    fn lines_since(&self, channels: &str, since: &str) -> Stream {
        let channels = format!("{channels}&since={since}");
        Stream::open(&self.server, &channels, self.follower, "application/x-ndjson")
    }

    /// Events after that id, of which the sign of life was read.
    fn events_after(&self, channels: &str, id: &str) -> Stream {
        let headers = format!("Accept: text/event-stream\r\nLast-Event-ID: {id}\r\n");
        let (mut stream, _) = Stream::open_with(&self.server, channels, self.follower, &headers);
        stream.expect(b":\n\n");
        stream
    }
}

/// Reads these messages, which are next on the stream; the position of the last.
#[track_caller]
fn lines(stream: &mut Stream, texts: &[&str]) -> String {
    let mut position = String::new();
    for text in texts {
        let line = stream.line();
        let message: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(message["message"], *text, "{line}");
        position = format!("{}:{}", message["epoch"].as_str().unwrap(), message["offset"]);
    }
    position
}

/// Reads these messages, which are next on the stream; the id of the last.
#[track_caller]
fn events(stream: &mut Stream, texts: &[&str]) -> String {
    let mut id = String::new();
    for text in texts {
        stream.line().strip_prefix("id: ").unwrap().clone_into(&mut id);
        assert_eq!(stream.line(), "event: message");
        let data = stream.line();
        let message: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(message["message"], *text, "{data}");
        assert_eq!(stream.line(), "");
    }
    id
}

fn recovered(channel: &str, position: &str) -> String {
    let (epoch, offset) = position.split_once(':').unwrap();
    format!(r#"{{"channel":{channel},"recovered":true,"epoch":"{epoch}","offset":{offset}}}"#)
}

#[test]
fn a_stream_of_lines_goes_on_since_what_was_seen() {
    let scene = Scene::new();
    let five = json!(5);
    let mut stream = Stream::open(&scene.server, "5", scene.follower, "application/x-ndjson");
    scene.publish(&five, &["one", "two"]);
    let seen = lines(&mut stream, &["one", "two"]);
    scene.cut_off(stream);
    scene.publish(&five, &["three", "four"]);
    let mut stream = scene.lines_since("5", &seen);
    assert_eq!(stream.line(), recovered("5", &seen));
    let seen = lines(&mut stream, &["three", "four"]);
    scene.publish(&five, &["five"]);
    lines(&mut stream, &["five"]);

    // The same place again: what was missed is kept for all of `session_ttl`.
    let mut stream = scene.lines_since("5", &seen);
    assert_eq!(stream.line(), recovered("5", &seen));
    lines(&mut stream, &["five"]);
}

#[test]
fn what_a_stream_was_sent_and_did_not_see_comes_again_with_a_history_and_without() {
    let scene = Scene::new();
    for channel in ["8", "5"] {
        let id: Value = channel.parse::<u32>().unwrap().into();
        let mut stream = Stream::open(&scene.server, channel, scene.follower, "application/x-ndjson");
        scene.publish(&id, &["one", "two", "three"]);
        let seen = lines(&mut stream, &["one"]);
        // A client may be back before the server knows that it was gone.
        let mut second = scene.lines_since(channel, &seen);
        assert_eq!(second.line(), recovered(channel, &seen));
        lines(&mut second, &["two", "three"]);
        drop(stream);
        scene.publish(&id, &["four"]);
        lines(&mut second, &["four"]);
        // And once it knows as well.
        scene.cut_off(second);
        let mut third = scene.lines_since(channel, &seen);
        assert_eq!(third.line(), recovered(channel, &seen));
        lines(&mut third, &["two", "three", "four"]);
        scene.cut_off(third);
    }
}

#[test]
fn what_is_kept_no_longer_is_said_to_be_lost() {
    // A quarter of that is kept of what was sent.
    let scene = Scene::with(&["--set", "limits.lag_bytes=4096", "--set", "limits.max_message_bytes=2000"]);
    let mut stream = Stream::open(&scene.server, "5", scene.follower, "application/x-ndjson");
    scene.publish(&json!(5), &["one", "two", "three"]);
    let seen = lines(&mut stream, &["one"]);
    let epoch = scene.epoch("5");
    lines(&mut stream, &["two", "three"]);
    let long = "x".repeat(1_000);
    for _ in 0..3 {
        scene.publish(&json!(5), &[&long]);
        lines(&mut stream, &[&long]);
    }
    scene.cut_off(stream);
    scene.publish(&json!(5), &["last"]);
    let mut stream = scene.lines_since("5", &seen);
    let told: Value = serde_json::from_str(&stream.line()).unwrap();
    let offset = told["offset"].as_u64().unwrap();
    let lost = json!({ "channel": 5, "recovered": false, "epoch": epoch, "offset": offset });
    assert!(told == lost && (2..=5).contains(&offset), "{told}");
    // All that is kept comes after it.
    for _ in offset..6 {
        lines(&mut stream, &[&long]);
    }
    lines(&mut stream, &["last"]);
}

#[test]
fn a_stream_of_lines_on_several_channels_goes_on_since_what_was_seen_on_each() {
    let scene = Scene::new();
    let mut stream = Stream::open(&scene.server, "5,hello", scene.follower, "application/x-ndjson");
    scene.publish(&json!(5), &["one", "two"]);
    let five = lines(&mut stream, &["one", "two"]);
    scene.publish(&json!("hello"), &["other"]);
    let hello = lines(&mut stream, &["other"]);
    scene.cut_off(stream);
    scene.publish(&json!(5), &["three"]);
    // In the order of this request's channels.
    let mut stream = scene.lines_since("hello,5", &format!("{hello},{five}"));
    assert_eq!(stream.line(), recovered("\"hello\"", &hello));
    assert_eq!(stream.line(), recovered("5", &five));
    lines(&mut stream, &["three"]);
    scene.publish(&json!("hello"), &["another"]);
    lines(&mut stream, &["another"]);
}

#[test]
fn a_stream_of_events_goes_on_after_the_last_id() {
    let scene = Scene::new();
    let mut stream = Stream::open(&scene.server, "5", scene.follower, "text/event-stream");
    // Before its first event it is told where it is, so that it misses nothing even now.
    let opening = format!("{}:0", scene.epoch("5"));
    assert_eq!((stream.line(), stream.line()), (format!("id: {opening}"), String::new()));
    scene.cut_off(stream);
    scene.publish(&json!(5), &["one", "two"]);

    let mut stream = scene.events_after("5", &opening);
    let expect_recovered = |stream: &mut Stream, id: &str| {
        // Where it goes on is its position from now on.
        assert_eq!((stream.line(), stream.line()), (format!("id: {id}"), String::new()));
        let data = recovered("5", id);
        stream.expect(format!("event: recovered\ndata: {data}\n\n").as_bytes());
    };
    expect_recovered(&mut stream, &opening);
    let id = events(&mut stream, &["one"]);
    scene.cut_off(stream);
    scene.publish(&json!(5), &["three"]);

    let mut stream = scene.events_after("5", &id);
    expect_recovered(&mut stream, &id);
    events(&mut stream, &["two", "three"]);
    scene.publish(&json!(5), &["four"]);
    events(&mut stream, &["four"]);
}

#[test]
fn a_place_that_never_was_is_said_not_to_be_recovered() {
    let scene = Scene::new();
    let epoch = scene.epoch("5");
    let since = |since: &str| {
        let mut stream = scene.lines_since("5", since);
        serde_json::from_str::<Value>(&stream.line()).unwrap()
    };
    let unknown = since("00000000000000ff:3");
    assert_eq!(unknown, json!({ "channel": 5, "recovered": false, "epoch": epoch, "offset": 0 }));
}
