//! HTTP.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::join;
use tokio::net::{TcpListener, TcpStream};
use watchtower_client::{
    Client, ClientError, Content, Epoch, Message, Options, Position, Protocol, Resumed, Span, Subscription,
    Timestamp,
};

use crate::{channel, nothing_is_answered_any_more, sender, with_secret};

/// A server that takes one request after another.
struct Server {
    listener: TcpListener,
    stream: TcpStream,
}

impl Server {
    /// Takes one request and answers it. `expected` is its first line and its
    /// body, the latter empty for a GET.
    async fn answer(&mut self, expected: (&str, &str), answer: &str) {
        let (head, body) = self.request().await;
        let mut lines = head.lines();
        assert_eq!((lines.next().unwrap(), body.as_str()), expected);
        let address = self.listener.local_addr().unwrap();
        assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
        let json = head.contains("content-type: application/json\r\n");
        assert_eq!(json, head.starts_with("POST"), "{head}");
        self.send(answer).await;
    }

    async fn request(&mut self) -> (String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.stream.read_exact(&mut body).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    async fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
    }

    async fn chunk(&mut self, bytes: &str) {
        self.send(&format!("{:x}\r\n{bytes}\r\n", bytes.len())).await;
    }

    /// Closes the connection and takes the next one.
    async fn accept_again(&mut self) {
        self.stream.shutdown().await.unwrap();
        self.stream = self.listener.accept().await.unwrap().0;
    }
}

fn json(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

async fn connected_with(options: Options) -> (Client, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (client, accepted) = join!(Client::connect(Protocol::Http, &address, options), listener.accept());
    let stream = accepted.unwrap().0;
    (client.unwrap(), Server { listener, stream })
}

/// A client as sender 72.
async fn registered() -> (Client, Server) {
    let (client, server) = connected_with(Options::default()).await;
    (client.with_sender(sender(72)), server)
}

const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\
                      Transfer-Encoding: chunked\r\n\r\n";

async fn subscribed_with(options: Options) -> (Subscription, Server) {
    let (client, mut server) = connected_with(options).await;
    let channels = [channel("5"), channel("a b&c/é")];
    let script = async {
        let (head, _) = server.request().await;
        let line = "GET /channels/join?channels=5,a+b%26c%2F%C3%A9&sender=72 HTTP/1.1\r\n";
        assert!(head.starts_with(line), "{head}");
        assert!(head.contains("accept: application/x-ndjson\r\n"), "{head}");
        server.send(STREAM).await;
    };
    let (subscription, ()) = join!(client.with_sender(sender(72)).subscribe(&channels), script);
    (subscription.unwrap(), server)
}

async fn subscribed() -> (Subscription, Server) {
    subscribed_with(Options::default()).await
}

fn text(number: u32, content: &str) -> Message {
    Message {
        channel: number.into(),
        sender: None,
        direct: false,
        content: Content::text(content),
        event: None,
        position: None,
        time: None,
    }
}

#[tokio::test]
async fn registers_with_the_secret() {
    let (mut client, mut server) = connected_with(with_secret("to\"wer")).await;
    let expected = ("POST /register HTTP/1.1", r#"{"secret_key":"to\"wer"}"#);
    let answer = json("200 OK", r#"{"id": 72}"#);
    let (id, ()) = join!(client.register(), server.answer(expected, &answer));
    assert_eq!(id.unwrap(), sender(72));
}

#[tokio::test]
async fn an_error_is_told_in_the_servers_words_and_the_client_goes_on() {
    let (mut client, mut server) = connected_with(Options::default()).await;
    let script = async {
        let body = r#"{"error": "unauthorized", "message": "the secret key is missing"}"#;
        let expected = ("POST /register HTTP/1.1", "{}");
        server.answer(expected, &json("401 Unauthorized", body)).await;
        server.answer(expected, &json("200 OK", r#"{"id": 72}"#)).await;
    };
    let calls = async {
        let error = client.register().await.unwrap_err();
        assert_eq!(error.to_string(), "the server answered: the secret key is missing (HTTP 401)");
        let ClientError::Http { status: 401, code, .. } = error else { panic!("{error:?}") };
        assert_eq!(code, "unauthorized");
        client.register().await.unwrap();
    };
    join!(script, calls);
}

#[tokio::test]
async fn an_error_that_is_not_watchtowers_is_told_by_its_status() {
    let (mut client, mut server) = connected_with(Options::default()).await;
    let answer = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>";
    let (registered, ()) = join!(client.register(), server.answer(("POST /register HTTP/1.1", "{}"), answer));
    assert_eq!(registered.unwrap_err().to_string(), "the server answered: Bad Gateway (HTTP 502)");
}

#[tokio::test]
async fn joins_numbers_and_names() {
    let (mut client, mut server) = registered().await;
    let expected = ("POST /channels/join HTTP/1.1", r#"{"sender":72,"channels":[5,"hello"]}"#);
    let channels = [channel("5"), channel("hello")];
    let answer = json("200 OK", "");
    let (joined, ()) = join!(client.join(&channels), server.answer(expected, &answer));
    joined.unwrap();
}

#[tokio::test]
async fn leaves_numbers_and_names() {
    let (mut client, mut server) = registered().await;
    let expected = ("POST /channels/leave HTTP/1.1", r#"{"sender":72,"channels":[5,"news"]}"#);
    let answer = json("200 OK", r#"{"channels": [5, "news"]}"#);
    let channels = [channel("5"), channel("news")];
    let (left, ()) = join!(client.leave(&channels), server.answer(expected, &answer));
    left.unwrap();
}

#[tokio::test]
async fn publishes_text_json_and_bytes() {
    // [model: projection]
    let (mut client, mut server) = registered().await;
    let sent = json("200 OK", r#"{"messages": [{"channel": 5, "offset": 12, "epoch": "x"}]}"#);
    let broadcast = "POST /broadcast HTTP/1.1";
    let script = async {
        let text = r#"{"channels":[5],"sender":72,"message":"a \"b\""}"#;
        server.answer((broadcast, text), &sent).await;
        let value = r#"{"channels":["hello"],"sender":72,"message":{"a": 1.0}}"#;
        server.answer((broadcast, value), &sent).await;
        let bytes = r#"{"channels":[5],"sender":72,"message":"/wA=","encoding":"base64"}"#;
        server.answer((broadcast, bytes), &sent).await;
        let direct = r#"{"channels":[5],"sender":72,"receivers":[52,34],"message":"hi"}"#;
        server.answer(("POST /send HTTP/1.1", direct), &sent).await;
    };
    let calls = async {
        let five = channel("5");
        client.publish(&five, &Content::text("a \"b\"")).await.unwrap();
        let value = Content::json(r#"{"a": 1.0}"#).unwrap();
        client.publish(&channel("hello"), &value).await.unwrap();
        client.publish(&five, &Content::binary(vec![0xff, 0])).await.unwrap();
        let receivers = [sender(52), sender(34)];
        client.publish_direct(&five, &receivers, &Content::text("hi")).await.unwrap();
    };
    join!(script, calls);
}

#[tokio::test]
async fn lists_channels() {
    let (mut client, mut server) = registered().await;
    let expected = ("GET /channels?sender=72 HTTP/1.1", "");
    let script = async {
        server.answer(expected, "HTTP/1.1 204 No Content\r\n\r\n").await;
        server.answer(expected, &json("200 OK", r#"{"channels": [5, "hello"]}"#)).await;
        server.answer(expected, &json("200 OK", r#"{"channels": ["07"]}"#)).await;
    };
    let calls = async {
        assert_eq!(client.channels().await.unwrap(), []);
        assert_eq!(client.channels().await.unwrap(), [channel("5"), channel("hello")]);
        let error = client.channels().await.unwrap_err();
        assert!(matches!(error, ClientError::NotUnderstood { .. }), "{error}");
    };
    join!(script, calls);
}

#[tokio::test]
async fn a_connection_that_was_closed_between_requests_is_opened_again() {
    let (mut client, mut server) = connected_with(Options::default()).await;
    let expected = ("POST /register HTTP/1.1", "{}");
    let script = async {
        server.answer(expected, &json("200 OK", r#"{"id": 1}"#)).await;
        server.accept_again().await;
        server.answer(expected, &json("200 OK", r#"{"id": 2}"#)).await;
    };
    let calls = async {
        assert_eq!(client.register().await.unwrap(), sender(1));
        assert_eq!(client.register().await.unwrap(), sender(2));
    };
    join!(script, calls);
}

#[tokio::test]
async fn a_connection_that_closes_before_the_answer_is_an_error() {
    let (mut client, mut server) = connected_with(Options::default()).await;
    let script = async {
        server.request().await;
        drop(server);
    };
    let (registered, ()) = join!(client.register(), script);
    assert!(matches!(registered, Err(ClientError::Lost { .. })), "{registered:?}");
}

#[tokio::test]
async fn no_answer_ends_with_the_time_out() {
    let (mut registering, _server) = connected_with(Options::default()).await;
    let (subscribing, _other) = connected_with(Options::default()).await;
    nothing_is_answered_any_more();
    let error = registering.register().await.unwrap_err();
    assert!(matches!(error, ClientError::Silent { .. }), "{error}");
    let error = subscribing.with_sender(sender(72)).subscribe(&[channel("5")]).await.unwrap_err();
    assert!(matches!(error, ClientError::Silent { .. }), "{error}");
}

#[tokio::test]
async fn a_stream_is_read_line_by_line_however_it_is_cut() {
    let (mut subscription, mut server) = subscribed().await;
    let script = async {
        server.chunk("\n").await;
        server.chunk("{\"channel\":5,\"offset\":12,\"epoch\":\"00000000000000ff\",\"sen").await;
        server.chunk("der\":72,\"message\":\"a\",\"time\":\"2026-11-21T10:00:00.000Z\",").await;
        server.chunk("\"event\":\"greeting\",\"direct\":true}").await;
        server.chunk("\n\n{\"channel\":6,\"message\":\"b\"}\n{\"channel\":6,\"message\":\"c\"}\n").await;
        for byte in "{\"channel\":6,\"message\":\"d\"}\n".chars() {
            server.chunk(&byte.to_string()).await;
            tokio::task::yield_now().await;
        }
        server.send("0\r\n\r\n").await;
    };
    let calls = async {
        let mut messages = Vec::new();
        while let Some(message) = subscription.next().await.unwrap() {
            messages.push(message);
        }
        messages
    };
    let ((), messages) = join!(script, calls);
    let full = Message {
        sender: Some(sender(72)),
        direct: true,
        event: Some("greeting".to_owned()),
        position: Position::parse("00000000000000ff:12"),
        time: Some(Timestamp::from_millis(1_795_255_200_000)),
        ..text(5, "a")
    };
    assert_eq!(messages, [full, text(6, "b"), text(6, "c"), text(6, "d")]);
}

#[tokio::test]
async fn a_refused_subscription_names_the_reason() {
    let (client, mut server) = registered().await;
    let expected = ("GET /channels/join?channels=5&sender=72 HTTP/1.1", "");
    let body = r#"{"error": "unknown_sender", "message": "sender 72 is not registered"}"#;
    let channels = [channel("5")];
    let answer = json("401 Unauthorized", body);
    let (subscribed, ()) = join!(client.subscribe(&channels), server.answer(expected, &answer));
    assert_eq!(
        subscribed.unwrap_err().to_string(),
        "the server answered: sender 72 is not registered (HTTP 401)"
    );
}

#[tokio::test]
async fn a_stream_that_breaks_is_an_error() {
    let (mut subscription, mut server) = subscribed().await;
    server.chunk("{\"channel\":5,\"message\":\"a\"}\n{\"channel").await;
    drop(server);
    assert_eq!(subscription.next().await.unwrap(), Some(text(5, "a")));
    let error = subscription.next().await.unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error}");
}

#[tokio::test]
async fn a_stream_that_ends_within_a_line_is_an_error() {
    let (mut subscription, mut server) = subscribed().await;
    server.chunk("{\"channel").await;
    server.send("0\r\n\r\n").await;
    let error = subscription.next().await.unwrap_err().to_string();
    assert!(error.ends_with(": it ended within a line"), "{error}");
}

#[tokio::test]
async fn a_line_that_is_no_message_is_told_and_passed_over() {
    let (mut subscription, mut server) = subscribed().await;
    server.chunk("{\"channel\":5}\n{\"channel\":5,\"message\":\"a\"}\n").await;
    let error = subscription.next().await.unwrap_err();
    assert!(matches!(error, ClientError::NotUnderstood { .. }), "{error}");
    assert_eq!(subscription.next().await.unwrap(), Some(text(5, "a")));
}

#[tokio::test]
async fn a_stream_that_says_why_it_ends_is_told_in_the_servers_words() {
    let (mut subscription, mut server) = subscribed().await;
    server.chunk("{\"error\":\"overloaded\",\"message\":\"too far\\u001b[2J behind\"}\n").await;
    let error = subscription.next().await.unwrap_err();
    assert!(matches!(&error, ClientError::Ended { code, .. } if code == "overloaded"), "{error}");
    assert_eq!(error.to_string(), "the server ended the stream: too far?[2J behind");
}

#[tokio::test]
async fn a_line_without_end_is_not_kept() {
    let options = Options { content_bytes_max: 10, ..Options::default() };
    let (mut subscription, mut server) = subscribed_with(options).await;
    server.chunk(&"x".repeat(4157)).await;
    let error = subscription.next().await.unwrap_err().to_string();
    assert!(error.ends_with(": a line of more than 4156 bytes"), "{error}");
}

#[tokio::test]
async fn waiting_for_a_message_can_be_cancelled_within_a_line() {
    let (mut subscription, mut server) = subscribed().await;
    server.chunk("{\"channel\":5,").await;
    for _ in 0..10 {
        tokio::select! {
            biased;
            next = subscription.next() => panic!("{next:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    server.chunk("\"message\":\"a\"}\n").await;
    assert_eq!(subscription.next().await.unwrap(), Some(text(5, "a")));
}

#[tokio::test]
async fn leaving_or_dropping_a_stream_closes_its_connection() {
    for leave in [true, false] {
        let (subscription, mut server) = subscribed().await;
        if leave {
            subscription.leave().await;
        } else {
            drop(subscription);
        }
        assert_eq!(server.stream.read(&mut [0; 16]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn more_channels_than_a_request_can_name_are_told() {
    let (client, _server) = registered().await;
    let channels: Vec<_> = (0..20_000).map(|number| channel(&number.to_string())).collect();
    let error = client.subscribe(&channels).await.unwrap_err();
    assert!(matches!(error, ClientError::TooManyChannels), "{error}");
}

#[tokio::test]
async fn reads_what_a_channel_keeps_page_by_page() {
    // [http: history]
    let (mut client, mut server) = registered().await;
    let place = |offset| Position { epoch: Epoch::from_bits(255), offset };
    let answer = json(
        "200 OK",
        r#"{"epoch":"00000000000000ff","recovered":true,"first":"00000000000000ff:2","last":"00000000000000ff:2","more":{"before":true,"after":false},"messages":[{"channel":"a b/é","offset":2,"epoch":"00000000000000ff","sender":0,"message":"hi"}]}"#,
    );
    let script = async {
        for query in ["", "&since=00000000000000ff:1&limit=1", "&before=00000000000000ff:3"] {
            let line = format!("GET /channels/a%20b%2F%C3%A9/history?sender=72{query} HTTP/1.1");
            server.answer((line.as_str(), ""), &answer).await;
        }
    };
    let calls = async {
        let name = channel("a b/é");
        let history = client.history(&name, Span::Last, None).await.unwrap();
        assert_eq!(history.messages[0].position, Some(place(2)));
        assert_eq!((history.first, history.more_before), (Some(place(2)), true));
        client.history(&name, Span::After(place(1)), Some(1)).await.unwrap();
        client.history(&name, Span::Before(place(3)), None).await.unwrap();
    };
    join!(script, calls);
}

#[tokio::test]
async fn a_stream_that_goes_on_at_positions_says_first_where() {
    // [http: since]
    let (client, mut server) = registered().await;
    let place = |offset| Position { epoch: Epoch::from_bits(255), offset };
    // A channel that is named twice is followed once.
    let (channels, since) = ([channel("5"), channel("6"), channel("5")], [place(1), place(2), place(1)]);
    let script = async {
        let (head, _) = server.request().await;
        let since = "00000000000000ff:1,00000000000000ff:2,00000000000000ff:1";
        let line = format!("GET /channels/join?channels=5,6,5&sender=72&since={since} HTTP/1.1\r\n");
        assert!(head.starts_with(&line), "{head}");
        server.send(STREAM).await;
        server.chunk("\n").await;
        server
            .chunk("{\"channel\":5,\"recovered\":true,\"epoch\":\"00000000000000ff\",\"offset\":1}\n")
            .await;
        server
            .chunk("{\"channel\":6,\"recovered\":false,\"epoch\":\"00000000000000ff\",\"offset\":7}\n")
            .await;
        server.chunk("{\"channel\":6,\"message\":\"hi\"}\n").await;
    };
    let (subscription, ()) = join!(client.subscribe_since(&channels, &since), script);
    let mut subscription = subscription.unwrap();
    let resumed = |number: u32, offset, recovered| Resumed {
        channel: number.into(),
        position: place(offset),
        recovered,
    };
    assert_eq!(subscription.resumed(), [resumed(5, 1, true), resumed(6, 7, false)]);
    assert_eq!(subscription.next().await.unwrap(), Some(text(6, "hi")));
}
