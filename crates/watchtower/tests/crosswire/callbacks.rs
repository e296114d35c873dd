//! Callbacks of the real binary to a receiver that does what receivers do [http: callbacks].

use std::time::Duration;

use serde_json::json;

use super::receiver::{Receiver, Reply};
use super::server::{Server, until};

/// A sender whose messages on channel 5 are posted to the receiver.
fn subscribe(server: &Server, receiver: &Receiver) -> u32 {
    let sender = server.register();
    join(server, sender, receiver);
    sender
}

fn join(server: &Server, sender: u32, receiver: &Receiver) {
    let request = json!({ "sender": sender, "channels": [5], "callback_url": receiver.url() });
    server.post("/channels/join/async", &request.to_string()).is(200, r#"{"channels":[5]}"#);
}

fn publish(server: &Server, sender: u32, texts: &[&str]) {
    for text in texts {
        server.broadcast(sender, &json!(5), text);
    }
}

#[test]
fn a_message_that_is_refused_comes_again_under_its_id_before_the_next_one() {
    let server = Server::start(&[]);
    let receiver = Receiver::start();
    let failure = Reply::status("500 Internal Server Error");
    receiver.answers([failure.clone(), failure], Reply::status("204 No Content"));
    let sender = subscribe(&server, &receiver);
    publish(&server, sender, &["one", "two", "three"]);

    let attempts = [receiver.next(), receiver.next(), receiver.next()];
    for attempt in &attempts {
        assert_eq!((attempt.text().as_str(), attempt.delivery()), ("one", attempts[0].delivery()));
        assert_eq!(attempt.body, attempts[0].body);
    }
    // "the first time within 1 s": the second one would not come before 1 s by itself, and what a
    // busy machine adds is well below the difference to a schedule that begins later.
    let delay = attempts[1].at - attempts[0].at;
    assert!(delay < Duration::from_secs(3), "{delay:?}");

    let (two, three) = (receiver.next(), receiver.next());
    assert_eq!((two.text().as_str(), three.text().as_str()), ("two", "three"));
    let ids = [attempts[0].delivery(), two.delivery(), three.delivery()];
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
    until("all accepted", || {
        server.metric("watchtower_callback_attempts_total{outcome=\"accepted\"}") == Some(3.0)
    });
}

#[test]
fn a_receiver_that_hangs_is_left_in_time_and_holds_up_nobody_else() {
    let server = Server::start(&["--set", "callbacks.timeout=1s"]);
    let (hanging, quick) = (Receiver::start(), Receiver::start());
    hanging.answers([], Reply::Silence);
    subscribe(&server, &hanging);
    let sender = subscribe(&server, &quick);
    publish(&server, sender, &["one", "two", "three"]);
    // It has not accepted anything, and does not until these have come.
    for text in ["one", "two", "three"] {
        assert_eq!(quick.next().text(), text);
    }
    let first = hanging.next();
    hanging.answers([], Reply::status("200 OK"));
    let second = hanging.next();
    assert_eq!((second.text().as_str(), second.delivery()), ("one", first.delivery()));
    // Whether that one was answered or not.
    let mut next = hanging.next();
    while next.delivery() == first.delivery() {
        next = hanging.next();
    }
    assert_eq!((next.text().as_str(), hanging.next().text().as_str()), ("two", "three"));
}

#[test]
fn a_redirect_is_a_failure_and_is_not_followed() {
    let server = Server::start(&[]);
    let (receiver, target) = (Receiver::start(), Receiver::start());
    let elsewhere = |status| Reply::Answer(format!("{status}\r\nLocation: {}", target.url()));
    receiver
        .answers([elsewhere("307 Temporary Redirect"), elsewhere("303 See Other")], Reply::status("200 OK"));
    let sender = subscribe(&server, &receiver);
    publish(&server, sender, &["one", "two"]);
    let attempts = [receiver.next(), receiver.next(), receiver.next()];
    assert!(attempts.iter().all(|attempt| attempt.delivery() == attempts[0].delivery()), "{attempts:?}");
    assert_eq!(receiver.next().text(), "two");
    target.was_never_called();
}

#[test]
fn gone_ends_a_subscription_at_once() {
    let server = Server::start(&[]);
    let receiver = Receiver::start();
    receiver.answers([Reply::status("410 Gone")], Reply::status("200 OK"));
    let subscriber = subscribe(&server, &receiver);
    let sender = server.joined(&json!([5]));
    publish(&server, sender, &["one"]);
    assert_eq!(receiver.next().text(), "one");
    until("ended and counted", || {
        server.metric("watchtower_callback_subscriptions_ended_total{reason=\"gone\"}") == Some(1.0)
    });
    assert_eq!(server.metric("watchtower_callback_subscriptions"), Some(0.0));

    publish(&server, sender, &["two"]);
    join(&server, subscriber, &receiver);
    publish(&server, sender, &["three"]);
    assert_eq!(receiver.next().text(), "three");
}

#[test]
fn the_same_sender_and_url_again_is_the_same_subscription() {
    let server = Server::start(&[]);
    let receiver = Receiver::start();
    let sender = subscribe(&server, &receiver);
    join(&server, sender, &receiver);
    assert_eq!(server.metric("watchtower_callback_subscriptions"), Some(1.0));
    publish(&server, sender, &["one", "two", "three"]);
    for text in ["one", "two", "three"] {
        assert_eq!(receiver.next().text(), text);
    }
    // For another sender it is another one.
    subscribe(&server, &receiver);
    assert_eq!(server.metric("watchtower_callback_subscriptions"), Some(2.0));
    publish(&server, sender, &["four"]);
    let (a, b) = (receiver.next(), receiver.next());
    assert_eq!((a.text().as_str(), b.text().as_str()), ("four", "four"));
    assert_ne!(a.delivery(), b.delivery());
}

#[test]
fn a_leave_ends_a_subscription() {
    let server = Server::start(&[]);
    let receiver = Receiver::start();
    let subscriber = subscribe(&server, &receiver);
    let sender = server.joined(&json!([5]));
    publish(&server, sender, &["one"]);
    assert_eq!(receiver.next().text(), "one");

    let leave = json!({ "sender": subscriber, "channels": [5] }).to_string();
    server.post("/channels/leave", &leave).is(200, r#"{"channels":[5]}"#);
    assert_eq!(server.metric("watchtower_callback_subscriptions"), Some(0.0));
    assert_eq!(server.metric("watchtower_callback_subscriptions_ended_total{reason=\"left\"}"), Some(1.0));
    publish(&server, sender, &["two"]);
    join(&server, subscriber, &receiver);
    publish(&server, sender, &["three"]);
    assert_eq!(receiver.next().text(), "three");
}

#[test]
fn a_url_that_must_not_be_called_is_refused_when_joining() {
    let server = Server::start(&[]);
    let sender = server.register();
    for url in [
        "http://169.254.169.254/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[fe80::1]/",
        "http://10.0.0.1/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "http://user:password@example.com/",
        "http://user@example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "/callbacks",
        "",
    ] {
        let request = json!({ "sender": sender, "channels": [5], "callback_url": url }).to_string();
        let answer = server.post("/channels/join/async", &request);
        assert_eq!(answer.status, 400, "{url}: {answer:?}");
        assert_eq!(answer.json()["error"], "invalid_callback_url", "{url}: {answer:?}");
    }
    assert_eq!(server.metric("watchtower_callback_subscriptions"), Some(0.0));
    // None of them has joined anything.
    let broadcast = json!({ "sender": sender, "channels": [5], "message": "one" }).to_string();
    assert_eq!(server.post("/broadcast", &broadcast).json()["error"], "not_joined");
}
