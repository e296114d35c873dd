//! What outlives a server, however it ended [packets: rules] [http: callbacks].

use rustix::process::Signal;
use serde_json::json;

use super::http::Stream;
use super::packets::{Packets, delivered};
use super::receiver::{Receiver, Reply};
use super::server::{Server, until};

/// Both ways to end: in an orderly way, and by surprise.
const ENDS: [Signal; 2] = [Signal::TERM, Signal::KILL];

fn presence(server: &Server, sender: u32, channel: &str) -> serde_json::Value {
    server.get(&format!("/channels/{channel}/presence?sender={sender}")).json()
}

#[test]
fn senders_and_what_they_joined_outlive_the_server() {
    for signal in ENDS {
        let server = Server::start_kept(&[]);
        let sender = server.joined(&json!([5, "hello"]));
        let gone = server.joined(&json!([5]));
        let leave = json!({ "sender": sender, "channels": ["hello"] }).to_string();
        server.post("/channels/leave", &leave).is(200, r#"{"channels":["hello"]}"#);
        let since = presence(&server, sender, "5")["senders"].clone();
        let server = server.restarted_after(signal, &[]);
        let restored = presence(&server, sender, "5")["senders"].clone();
        for (before, after) in since.as_array().unwrap().iter().zip(restored.as_array().unwrap()) {
            assert_eq!((&before["id"], &before["since"]), (&after["id"], &after["since"]));
            assert_eq!(after["protocol"], "kept");
        }
        assert_eq!(server.broadcast(sender, &json!(5), "again"), 1);
        let left = json!({ "sender": sender, "channels": ["hello"], "message": "x" }).to_string();
        assert_eq!(server.post("/broadcast", &left).json()["error"], "not_joined");
        // Ids that were given are not given again, and stay with whom they belong to.
        assert!(![sender, gone].contains(&server.register()));
        let server = server.restarted_after(signal, &[]);
        assert_eq!(server.broadcast(gone, &json!(5), "once more"), 1);
    }
}

#[test]
fn a_device_that_comes_back_after_a_restart_is_still_in_its_channels() {
    for signal in ENDS {
        let server = Server::start_kept(&[]);
        let device = Packets::tcp(&server, &[5]);
        let other = server.joined(&json!([5]));
        let server = server.restarted_after(signal, &[]);
        server.broadcast(other, &json!(5), "missed");
        let mut device = device.again(&server);
        device.publish(5, b"back");
        device.expect(&delivered(other, 5, false, b"missed"));
        device.expect(&delivered(device.id, 5, false, b"back"));
    }
}

#[test]
fn who_was_silent_for_too_long_while_the_server_was_down_is_forgotten() {
    let ttl = ["--set", "sender_ttl=1s"];
    let server = Server::start_kept(&ttl);
    let sender = server.joined(&json!([5]));
    let server = server.restarted_after(Signal::KILL, &ttl);
    until("forgotten", || server.metric("watchtower_senders") == Some(0.0));
    assert_eq!(presence(&server, sender, "5")["error"], "unknown_sender");
    let server = server.restarted_after(Signal::TERM, &[]);
    assert_eq!(server.metric("watchtower_senders"), Some(0.0), "it does not come back");
}

#[test]
fn callbacks_outlive_the_server_and_go_on_until_they_are_ended() {
    for signal in ENDS {
        let server = Server::start_kept(&[]);
        let receiver = Receiver::start();
        let (sender, ended) = (server.register(), server.register());
        for (sender, channel) in [(sender, 5), (ended, 6)] {
            let request = json!({ "sender": sender, "channels": [channel], "callback_url": receiver.url() });
            assert_eq!(server.post("/channels/join/async", &request.to_string()).status, 200);
        }
        let leave = json!({ "sender": ended, "channels": [6] }).to_string();
        assert_eq!(server.post("/channels/leave", &leave).status, 200);
        let server = server.restarted_after(signal, &[]);
        assert_eq!(server.metric("watchtower_callback_subscriptions"), Some(1.0));
        server.broadcast(sender, &json!(5), "one");
        assert_eq!(receiver.next().text(), "one");
        receiver.answers([Reply::status("410 Gone")], Reply::status("200 OK"));
        server.broadcast(sender, &json!(5), "two");
        assert_eq!(receiver.next().text(), "two");
        until("ended", || server.metric("watchtower_callback_subscriptions") == Some(0.0));
        let server = server.restarted_after(Signal::TERM, &[]);
        assert_eq!(server.metric("watchtower_callback_subscriptions"), Some(0.0));
    }
}

#[test]
fn clients_that_cannot_come_back_are_not_kept() {
    let server = Server::start_kept(&[]);
    let sender = server.register();
    let _stream = Stream::open(&server, "5", sender, "application/x-ndjson");
    let server = server.restarted_after(Signal::KILL, &[]);
    assert_eq!(server.metric("watchtower_senders"), Some(1.0));
    assert_eq!(presence(&server, sender, "5")["senders"], json!([]), "the stream has to join again");
}

#[test]
fn a_callback_goes_on_where_its_receiver_was_on_a_durable_channel() {
    let durable = ["--set", r#"channels=[{pattern="9",durable=true}]"#];
    for signal in ENDS {
        let server = Server::start_kept(&durable);
        let receiver = Receiver::start();
        let sender = server.register();
        let request = json!({ "sender": sender, "channels": [9], "callback_url": receiver.url() });
        assert_eq!(server.post("/channels/join/async", &request.to_string()).status, 200);
        server.broadcast(sender, &json!(9), "one");
        let one = receiver.next();
        receiver.answers([], Reply::status("500 Internal Server Error"));
        server.broadcast(sender, &json!(9), "two");
        server.broadcast(sender, &json!(9), "three");
        let two = receiver.next();
        let server = server.restarted_after(signal, &durable);
        receiver.answers([], Reply::status("200 OK"));
        // How far it was is kept once a second, and at an orderly end.
        let mut next = receiver.next();
        while next.text() != "three" {
            let same = if next.text() == "one" { &one } else { &two };
            assert_eq!((next.text(), next.delivery()), (same.text(), same.delivery()));
            assert!(next.text() != "one" || signal == Signal::KILL);
            next = receiver.next();
        }
        server.broadcast(sender, &json!(9), "four");
        assert_eq!(receiver.next().text(), "four");
    }
}
