//! What clients see of a durable channel across restarts, over each protocol.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::{Http, Rocket, http, place};
use crate::support::packets::{ack, ids, join, said, say, whisper, whispered};
use crate::support::{eventually, watchtower};
use crate::{start, start_with};

fn joined(http: &mut Http, channels: &Value) -> u64 {
    let sender = http.try_register().unwrap();
    http.ask("POST", "/channels/join", &json!({ "sender": sender, "channels": channels }));
    sender
}

fn publish(http: &mut Http, sender: u64, channel: &str, text: &str) -> Value {
    let channel: Value = channel.parse().unwrap_or_else(|_| channel.into());
    let (status, answer) = http.try_broadcast(sender, &json!([channel]), text).unwrap();
    assert_eq!(status, 200, "{answer}");
    answer
}

#[test]
fn a_channel_and_its_messages_are_there_after_a_restart_with_the_same_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let mut client = http(&server);
    let sender = joined(&mut client, &json!([1, "kept/a", "memory"]));
    let first = place(&publish(&mut client, sender, "kept/a", "one"));
    let all = json!([1, "kept/a", "memory"]);
    assert_eq!(client.try_broadcast(sender, &all, "two").unwrap().0, 200);
    server.signal(Signal::KILL);
    drop(server);

    let server = start(folder.path());
    let mut client = http(&server);
    let sender = client.try_register().unwrap();
    let channels = client.ask("GET", &format!("/channels?sender={sender}"), &json!({}));
    // The one in memory is there since its sender is still in it.
    assert_eq!(channels["channels"], json!([1, "kept/a", "memory"]), "{channels}");
    let history = client.log(sender, "kept/a");
    assert_eq!(history, (first.epoch.clone(), vec![(1, "one".into()), (2, "two".into())]));
    assert_eq!(client.log(sender, "memory").1, []);
    let last = |limit: u64| {
        let target = format!("/channels/kept%2Fa/history?sender={sender}&limit={limit}");
        http(&server).ask("GET", &target, &json!({}))["messages"][0]["message"].clone()
    };
    assert_eq!((last(1), last(2)), (json!("two"), json!("one")));
    // Offsets go on.
    let sender = joined(&mut client, &json!(["kept/a"]));
    let next = place(&publish(&mut client, sender, "kept/a", "three"));
    assert_eq!((next.epoch, next.offset), (first.epoch, 3));
    server.stop();
}

#[test]
fn streams_resume_from_disk_and_go_on_with_what_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let mut client = http(&server);
    let sender = joined(&mut client, &json!([1]));
    // More than a page.
    let epoch = place(&publish(&mut client, sender, "1", "1")).epoch;
    for number in 2..=700u32 {
        publish(&mut client, sender, "1", &number.to_string());
    }
    server.stop();

    let server = start(folder.path());
    let mut client = http(&server);
    let sender = joined(&mut client, &json!([1]));
    let mut lines = http(&server).follow(sender, "1", &format!("{epoch}:10"));
    let opening = json!({ "channel": 1, "recovered": true, "epoch": epoch, "offset": 10 });
    assert_eq!(lines.next(), opening);
    publish(&mut client, sender, "1", "701");
    for number in 11..=701u64 {
        let message = lines.next();
        assert_eq!((&message["offset"], &message["message"]), (&json!(number), &json!(number.to_string())));
    }
    let mut unknown = http(&server).follow(sender, "1", "00000000000000aa:10");
    assert_eq!(unknown.next()["recovered"], json!(false));
    assert_eq!(unknown.next()["offset"], json!(1), "everything that is kept");
    server.stop();
}

#[test]
fn packets_follow_a_channel_from_an_offset_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let mut client = server.connect();
    let id = client.enter(1);
    for text in ["a", "b", "c"] {
        client.ask(say(id, 1, text), said(id, 1, text));
    }
    server.signal(Signal::KILL);
    drop(server);

    let server = start(folder.path());
    let mut client = server.connect();
    let new = client.register();
    let follow = |offset: u64| [ids(b'F', new, 1), offset.to_le_bytes().to_vec()].concat();
    client.ask(follow(1), [ack(1), said(id, 1, "b"), said(id, 1, "c")].concat());
    client.ask(say(new, 1, "d"), said(new, 1, "d"));
    client.expect_nothing();
    let mut peer = server.peer();
    let other = peer.register();
    peer.ask([ids(b'F', other, 1), 3u64.to_le_bytes().to_vec()].concat(), ack(1));
    peer.expect(said(new, 1, "d"));
    server.stop();
}

#[test]
fn webrocket_answers_in_the_order_of_its_commands() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let mut client = Rocket::connect(server.tcp).unwrap();
    let publish =
        |text: &str| format!(r#"{{"publish": {{"event": "e", "channel": "kept/b", "data": "{text}"}}}}"#);
    client.send(r#"{"subscribe": {"channel": "kept/b"}}"#).unwrap();
    assert_eq!(client.next().unwrap(), r#"{"ok": true}"#);
    let commands = [publish("1"), publish("2"), r#"{"bad": 1}"#.to_owned(), publish("3")];
    for command in &commands {
        client.send(command).unwrap();
    }
    let mut answers = Vec::new();
    let mut heard = Vec::new();
    while answers.len() < 4 || heard.len() < 3 {
        let text = client.next().unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        match json.get("data") {
            Some(data) => heard.push(data.clone()),
            None => answers.push(text),
        }
    }
    let ok = r#"{"ok": true}"#;
    assert_eq!(answers, [ok, ok, r#"{"err": "invalid_data"}"#, ok]);
    assert_eq!(heard, ["1", "2", "3"]);
    server.stop();
}

#[test]
fn a_newcomer_gets_the_last_message_after_kill_9_and_nothing_where_it_was_ended() {
    let folder = tempfile::tempdir().unwrap();
    let rule = r#"channels=[{pattern="*",durable=true,retain=true,history_messages=1}]"#;
    let server = start_with(folder.path(), &["--set", rule]);
    let mut client = server.connect();
    let id = client.enter(1);
    client.ask(join(id, 2), ack(2));
    client.ask(say(id, 1, "19.5"), said(id, 1, "19.5"));
    client.ask(say(id, 1, "21.5"), said(id, 1, "21.5"));
    // What is for one alone takes its place in the log, and not its own.
    client.ask(whisper(id, 1, &[id], "psst"), whispered(id, 1, "psst"));
    client.ask(say(id, 2, "on"), said(id, 2, "on"));
    client.ask(say(id, 2, ""), said(id, 2, ""));
    server.signal(Signal::KILL);
    drop(server);

    for _ in 0..2 {
        let server = start_with(folder.path(), &["--set", rule]);
        let mut client = server.connect();
        let new = client.register();
        client.ask(join(new, 1), [ack(1), said(id, 1, "21.5")].concat());
        client.ask(join(new, 2), ack(2));
        client.expect_nothing();
        let mut rocket = Rocket::connect(server.tcp).unwrap();
        rocket.send(r#"{"subscribe": {"channel": "1"}}"#).unwrap();
        assert_eq!(rocket.next().unwrap(), r#"{"ok": true}"#);
        assert!(rocket.next().unwrap().contains(r#""data": "21.5""#));
        server.stop();
    }
}

#[test]
fn what_the_rules_do_not_keep_is_dropped_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let rule = r#"channels=[{pattern="*",durable=true,history_messages=2}]"#;
    let server = start_with(folder.path(), &["--set", rule]);
    let mut client = http(&server);
    let sender = joined(&mut client, &json!([1]));
    for text in ["a", "b", "c"] {
        publish(&mut client, sender, "1", text);
    }
    assert_eq!(client.log(sender, "1").1, [(2, "b".into()), (3, "c".into())]);
    server.stop();
    // By and by it is dropped from disk, so that a rule that keeps more does not bring it back.
    eventually("dropped", || {
        start_with(folder.path(), &["--set", rule]).stop();
        let server = start(folder.path());
        let mut client = http(&server);
        let sender = client.try_register().unwrap();
        client.log(sender, "1").1.len() == 2
    });
}

#[test]
fn what_was_sent_before_a_shutdown_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let mut client = server.connect();
    let id = client.enter(1);
    let packets: Vec<u8> = (0..500).flat_map(|number: u32| say(id, 1, number.to_string())).collect();
    client.send(&packets);
    // The first one is there, so all were read that came with it.
    client.expect(said(id, 1, "0"));
    server.signal(Signal::TERM);
    let rest = client.read_to_end();
    assert_eq!(server.ended().code, Some(0));
    let server = start(folder.path());
    let mut client = http(&server);
    let sender = client.try_register().unwrap();
    let text = String::from_utf8_lossy(&rest);
    for (offset, content) in client.log(sender, "1").1.iter().skip(1) {
        assert!(text.contains(content.as_str()), "{offset} was kept, and its sender not told");
    }
    server.stop();
}

#[test]
fn a_durable_channel_without_a_folder_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let output = watchtower(["serve", "--set", r#"channels=[{pattern="a",durable=true}]"#])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("data_dir is empty: set data_dir"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
