//! WebRocket.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::join;
use tokio::net::{TcpListener, TcpStream};
use watchtower_client::{
    Client, ClientError, Content, Epoch, HubError, Message, Options, Position, Protocol, Resumed, Span,
    Subscription,
};

use crate::{channel, hex, nothing_is_answered_any_more, sender, with_secret};

const OK: &str = r#"{"ok":true}"#;

/// The server's end of a WebSocket.
struct Server(TcpStream);

impl Server {
    /// Reads the request for a WebSocket, and says by whose key it was asked.
    async fn request(&mut self, path: &str) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:")), "{head}");
        for line in ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"] {
            assert!(head.lines().any(|there| there == line), "{head}");
        }
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        key.unwrap().to_owned()
    }

    async fn accept(&mut self, key: &str) {
        let accept = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
        let accept = BASE64.encode(accept);
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.0.write_all(head.as_bytes()).await.unwrap();
    }

    /// Reads a frame: its first byte and what it holds.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let first = self.0.read_u8().await.unwrap();
        let second = self.0.read_u8().await.unwrap();
        assert!(second & 0x80 != 0, "a client's frame is masked");
        let length = match second & 0x7f {
            126 => self.0.read_u16().await.unwrap().into(),
            length => usize::from(length),
        };
        let mut mask = [0; 4];
        self.0.read_exact(&mut mask).await.unwrap();
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.unwrap();
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        (first, payload)
    }

    async fn expect(&mut self, text: &str) {
        let (first, payload) = self.frame().await;
        assert_eq!((first, String::from_utf8(payload).unwrap().as_str()), (0x81, text));
    }

    async fn send(&mut self, text: &str) {
        let mut frame = vec![0x81];
        match text.len() {
            length @ ..126 => frame.push(length as u8),
            length => {
                frame.push(126);
                frame.extend((length as u16).to_be_bytes());
            }
        }
        frame.extend(text.as_bytes());
        self.0.write_all(&frame).await.unwrap();
    }

    async fn send_bytes(&mut self, bytes: &str) {
        self.0.write_all(&hex(bytes)).await.unwrap();
    }

    async fn answer(&mut self, expected: &str, answer: &str) {
        self.expect(expected).await;
        self.send(answer).await;
    }
}

async fn connected_to(path: &str, options: Options) -> (Result<Client, ClientError>, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("{}{path}", listener.local_addr().unwrap());
    let expected = if path.is_empty() { "/webrocket" } else { path };
    let serving = async {
        let mut server = Server(listener.accept().await.unwrap().0);
        server.0.set_nodelay(true).unwrap();
        let key = server.request(expected).await;
        server.accept(&key).await;
        server
    };
    join!(Client::connect(Protocol::WebRocket, &address, options), serving)
}

async fn connected_with(options: Options) -> (Client, Server) {
    let (client, server) = connected_to("", options).await;
    (client.unwrap(), server)
}

async fn subscribed() -> (Subscription, Server) {
    let (client, mut server) = connected_with(with_secret("hush")).await;
    let channels = [channel("hello")];
    let script = async {
        server.answer(r#"{"auth":{"access":"read-only","secret":"hush"}}"#, OK).await;
        server.answer(r#"{"subscribe":{"channel":"hello"}}"#, OK).await;
    };
    let (subscription, ()) = join!(client.subscribe(&channels), script);
    (subscription.unwrap(), server)
}

fn message(name: &str, content: Content) -> Message {
    Message {
        channel: channel(name),
        sender: None,
        direct: false,
        content,
        event: None,
        position: None,
        time: None,
    }
}

#[tokio::test]
async fn subscribes_with_read_only_access_and_keeps_what_comes_meanwhile() {
    // [webrocket: commands]
    let (client, mut server) = connected_with(with_secret("hu\"sh")).await;
    let channels = [channel("hello"), channel("5")];
    let early = r#"{"event":"foo","channel":"hello","data":"early"}"#;
    let script = async {
        server.answer(r#"{"auth":{"access":"read-only","secret":"hu\"sh"}}"#, OK).await;
        server.answer(r#"{"subscribe":{"channel":"hello"}}"#, OK).await;
        server.expect(r#"{"subscribe":{"channel":"5"}}"#).await;
        server.send(early).await;
        server.send(OK).await;
        server.send(r#"{"event":"message","channel":"5","data":{"a": 1.0},"more":[1]}"#).await;
    };
    let calls = async {
        let mut subscription = client.subscribe(&channels).await.unwrap();
        assert_eq!(subscription.sender(), None);
        [subscription.next().await.unwrap().unwrap(), subscription.next().await.unwrap().unwrap()]
    };
    let ((), messages) = join!(script, calls);
    let early = Message { event: Some("foo".to_owned()), ..message("hello", Content::text("early")) };
    assert_eq!(messages, [early, message("5", Content::json(r#"{"a": 1.0}"#).unwrap())]);
}

#[tokio::test]
async fn data_is_text_a_value_or_base64() {
    // [model: projection]
    let (mut subscription, mut server) = subscribed().await;
    for (data, expected) in [
        (r#""é\n""#, Content::text("é\n")),
        ("null", Content::json("null").unwrap()),
        (r#""/wA=","encoding":"base64""#, Content::binary(vec![255, 0])),
    ] {
        server.send(&format!(r#"{{"event":"message","channel":"hello","data":{data}}}"#)).await;
        assert_eq!(subscription.next().await.unwrap(), Some(message("hello", expected)));
    }
}

#[tokio::test]
async fn publishes_with_read_write_access_that_is_asked_for_once() {
    let (mut client, mut server) = connected_with(with_secret("hush")).await;
    let script = async {
        server.answer(r#"{"auth":{"access":"read-write","secret":"hush"}}"#, OK).await;
        server.answer(r#"{"subscribe":{"channel":"5"}}"#, OK).await;
        let text = r#"{"event":"message","channel":"5","data":"a \"b\""}"#;
        server.expect(&format!(r#"{{"publish":{text}}}"#)).await;
        // Its own copy may come before the answer.
        server.send(text).await;
        server.send(OK).await;
        let value = r#"{"publish":{"event":"message","channel":"5","data":{"a": 1.0}}}"#;
        server.answer(value, OK).await;
        let bytes = r#"{"publish":{"event":"message","channel":"5","data":"/wA=","encoding":"base64"}}"#;
        server.answer(bytes, OK).await;
    };
    let calls = async {
        let five = channel("5");
        client.join(std::slice::from_ref(&five)).await.unwrap();
        client.publish(&five, &Content::text("a \"b\"")).await.unwrap();
        client.publish(&five, &Content::json(r#"{"a": 1.0}"#).unwrap()).await.unwrap();
        client.publish(&five, &Content::binary(vec![0xff, 0])).await.unwrap();
    };
    join!(script, calls);
}

#[tokio::test]
async fn a_secret_for_more_does_for_subscribing_too() {
    let (client, mut server) = connected_with(with_secret("hush")).await;
    let script = async {
        let refused = r#"{"err":"invalid_credentials"}"#;
        server.answer(r#"{"auth":{"access":"read-only","secret":"hush"}}"#, refused).await;
        server.answer(r#"{"auth":{"access":"read-write","secret":"hush"}}"#, OK).await;
        server.answer(r#"{"subscribe":{"channel":"hello"}}"#, OK).await;
    };
    let channels = [channel("hello")];
    let (subscription, ()) = join!(client.subscribe(&channels), script);
    subscription.unwrap();
}

#[tokio::test]
async fn without_a_secret_the_empty_one_is_tried_and_then_none() {
    let (mut client, mut server) = connected_with(Options::default()).await;
    let script = async {
        let auth = r#"{"auth":{"access":"read-write","secret":""}}"#;
        server.answer(auth, r#"{"err":"invalid_credentials"}"#).await;
        let publish = r#"{"publish":{"event":"message","channel":"5","data":"hi"}}"#;
        server.answer(publish, OK).await;
        server.answer(publish, r#"{"err":"access_denied"}"#).await;
    };
    let calls = async {
        let (five, hi) = (channel("5"), Content::text("hi"));
        client.publish(&five, &hi).await.unwrap();
        let error = client.publish(&five, &hi).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the server answered: this is not allowed here without the right secret, \
             or a limit is reached (access_denied)"
        );
    };
    join!(script, calls);
}

#[tokio::test]
async fn every_error_is_told_and_the_client_goes_on() {
    // [webrocket: errors]
    let (mut client, mut server) = connected_with(with_secret("hush")).await;
    let errors = [
        ("invalid_channel_name", HubError::InvalidChannelName),
        ("invalid_channel", HubError::InvalidChannel),
        ("access_denied", HubError::AccessDenied),
        ("invalid_data", HubError::InvalidData),
        ("no\\u001b[2Jne", HubError::Other("no?[2Jne".to_owned())),
    ];
    let script = async {
        let auth = r#"{"auth":{"access":"read-write","secret":"hush"}}"#;
        server.answer(auth, r#"{"err":"invalid_credentials"}"#).await;
        server.answer(auth, OK).await;
        for (code, _) in &errors {
            let publish = r#"{"publish":{"event":"message","channel":"5","data":"hi"}}"#;
            server.answer(publish, &format!(r#"{{"err":"{code}"}}"#)).await;
        }
    };
    let calls = async {
        let (five, hi) = (channel("5"), Content::text("hi"));
        let all = [("invalid_credentials", HubError::InvalidCredentials)].into_iter().chain(errors.clone());
        for (code, expected) in all {
            match client.publish(&five, &hi).await {
                Err(ClientError::Hub(error)) => {
                    assert_eq!(error, expected);
                    assert!(error.to_string().contains(&code.replace("\\u001b", "?")), "{error}");
                }
                other => panic!("{other:?}"),
            }
        }
    };
    join!(script, calls);
}

#[tokio::test]
async fn frames_may_come_byte_by_byte_and_messages_in_fragments() {
    let (mut subscription, mut server) = subscribed().await;
    // {"event":"message", | a ping | "channel":"hello","data":1}
    let bytes = "01 13 7b226576656e74223a226d657373616765222c 89 01 70 \
                 80 1b 226368616e6e656c223a2268656c6c6f222c2264617461223a317d";
    let script = async {
        for byte in hex(bytes) {
            server.0.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let ((), received) = join!(script, subscription.next());
    assert_eq!(received.unwrap(), Some(message("hello", Content::json("1").unwrap())));
    assert_eq!(server.frame().await, (0x8a, b"p".to_vec()), "the ping is answered");
}

#[tokio::test]
async fn a_ping_is_answered_while_nothing_else_comes() {
    let (mut subscription, mut server) = subscribed().await;
    let script = async {
        server.send_bytes("89 02 6869").await;
        assert_eq!(server.frame().await, (0x8a, b"hi".to_vec()));
        server.send(r#"{"event":"message","channel":"hello","data":"a"}"#).await;
    };
    let ((), received) = join!(script, subscription.next());
    assert_eq!(received.unwrap(), Some(message("hello", Content::text("a"))));
}

#[tokio::test]
async fn an_orderly_close_is_the_end_and_any_other_is_told_with_its_reason() {
    for close in ["88 02 03e8", "88 02 03e9"] {
        let (mut subscription, mut server) = subscribed().await;
        server.send_bytes(close).await;
        assert_eq!(subscription.next().await.unwrap(), None);
        assert_eq!(server.frame().await.0, 0x88, "it is answered");
    }
    let (mut subscription, mut server) = subscribed().await;
    server.send_bytes("88 09 03f0 6c61671b5b4a21").await;
    let error = subscription.next().await.unwrap_err();
    assert!(matches!(&error, ClientError::Ended { code, .. } if code == "1008"), "{error}");
    assert_eq!(error.to_string(), "the server ended the stream: lag?[J! (WebSocket code 1008)");

    let (mut subscription, server) = subscribed().await;
    drop(server);
    assert_eq!(subscription.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_connection_that_ends_within_a_frame_is_lost() {
    let (mut subscription, mut server) = subscribed().await;
    server.send_bytes("81 05 61").await;
    drop(server);
    let error = subscription.next().await.unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_message_is_told_without_its_content_and_passed_over() {
    let (mut subscription, mut server) = subscribed().await;
    for text in [r#"{"event":"e","channel":"hello"}"#, "secret stuff", r#"{"ok":false}"#] {
        server.send(text).await;
        let error = subscription.next().await.unwrap_err();
        assert!(matches!(error, ClientError::NotUnderstood { .. }), "{error}");
        assert!(!error.to_string().contains("stuff"), "{error}");
    }
    server.send(r#"{"event":"message","channel":"hello","data":"a"}"#).await;
    assert_eq!(subscription.next().await.unwrap(), Some(message("hello", Content::text("a"))));
}

#[tokio::test]
async fn a_message_longer_than_the_limit_is_not_taken() {
    let options = Options { content_bytes_max: 10, ..with_secret("hush") };
    let (mut client, mut server) = connected_with(options).await;
    let script = async {
        server.expect(r#"{"auth":{"access":"read-write","secret":"hush"}}"#).await;
        server.send(&"x".repeat(4157)).await;
    };
    let (joined, ()) = join!(client.join(&[]), script);
    let error = joined.unwrap_err().to_string();
    assert!(error.ends_with("payload length of 4157 exceeds the limit of 4156"), "{error}");
}

#[tokio::test]
async fn a_hub_may_have_any_path() {
    let (client, _server) = connected_to("/my/hub?a=b", Options::default()).await;
    client.unwrap();
}

#[tokio::test]
async fn where_there_is_no_websocket_the_status_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("ws://{}/nowhere", listener.local_addr().unwrap());
    let script = async {
        let mut server = Server(listener.accept().await.unwrap().0);
        server.request("/nowhere").await;
        server.0.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        server
    };
    let connecting = Client::connect(Protocol::WebRocket, &address, Options::default());
    let (error, _server) = join!(connecting, script);
    let error = error.unwrap_err();
    assert_eq!(error.to_string(), "the server answered: there is no WebSocket at /nowhere (HTTP 404)");
}

#[tokio::test]
async fn the_answer_to_another_key_is_not_understood() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let script = async {
        let mut server = Server(listener.accept().await.unwrap().0);
        server.request("/webrocket").await;
        server.accept("dGhlIHNhbXBsZSBub25jZQ==").await;
        server
    };
    let connecting = Client::connect(Protocol::WebRocket, &address, Options::default());
    let (error, _server) = join!(connecting, script);
    let error = error.unwrap_err();
    assert!(matches!(error, ClientError::NotUnderstood { .. }), "{error}");
}

#[tokio::test]
async fn no_answer_ends_with_the_time_out_and_then_nothing_can_be_asked() {
    let (mut client, _server) = connected_with(Options::default()).await;
    nothing_is_answered_any_more();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let error = Client::connect(Protocol::WebRocket, &address, Options::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Silent { .. }), "{error}");

    let (five, hi) = (channel("5"), Content::text("hi"));
    let error = client.publish(&five, &hi).await.unwrap_err();
    assert!(matches!(error, ClientError::Silent { .. }), "{error}");
    let error = client.publish(&five, &hi).await.unwrap_err();
    assert!(matches!(error, ClientError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn what_a_hub_has_no_form_for_is_refused_and_not_sent() {
    let (mut client, mut server) = connected_with(Options::default()).await;
    let register = client.register().await.unwrap_err();
    assert!(matches!(register, ClientError::CannotRegister { .. }), "{register}");
    let list = client.channels().await.unwrap_err();
    assert_eq!(list.to_string(), "over WebRocket channels cannot be listed: use HTTP");
    let direct = client.publish_direct(&channel("5"), &[sender(7)], &Content::text("hi")).await.unwrap_err();
    assert!(matches!(direct, ClientError::CannotSendDirect { .. }), "{direct}");
    drop(client);
    let mut rest = Vec::new();
    server.0.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn what_is_no_address_of_a_hub_is_refused_in_words() {
    for address in ["nowhere", "http://127.0.0.1:1/webrocket"] {
        let error = Client::connect(Protocol::WebRocket, address, Options::default()).await.unwrap_err();
        assert!(error.to_string().contains("expected host:port or ws://host:port/path"), "{error}");
    }
}

#[tokio::test]
async fn leaving_channels_unsubscribes() {
    let (mut client, mut server) = connected_with(Options::default()).await;
    let channels = [channel("hello")];
    let script = server.answer(r#"{"unsubscribe":{"channel":"hello"}}"#, OK);
    let (left, ()) = join!(client.leave(&channels), script);
    left.unwrap();
}

#[tokio::test]
async fn leaving_closes_in_order() {
    let (subscription, mut server) = subscribed().await;
    subscription.leave().await;
    assert_eq!(server.frame().await, (0x88, vec![0x03, 0xe8]));
}

#[tokio::test]
async fn goes_on_at_a_position_and_is_told_whether_that_is_all() {
    // [webrocket: since]
    let (client, mut server) = connected_with(with_secret("hush")).await;
    let place = |offset| Position { epoch: Epoch::from_bits(255), offset };
    let script = async {
        server.answer(r#"{"auth":{"access":"read-only","secret":"hush"}}"#, OK).await;
        server.expect(r#"{"subscribe":{"channel":"hello","since":"00000000000000ff:1"}}"#).await;
        server.send(r#"{"ok": true, "recovered": false, "position": "00000000000000ff:4"}"#).await;
        server
            .send(
                r#"{"event": "message", "channel": "hello", "data": "x", "position": "00000000000000ff:5"}"#,
            )
            .await;
    };
    let (channels, since) = ([channel("hello")], [place(1)]);
    let (subscription, ()) = join!(client.subscribe_since(&channels, &since), script);
    let mut subscription = subscription.unwrap();
    let resumed = Resumed { channel: channel("hello"), position: place(4), recovered: false };
    assert_eq!(subscription.resumed(), [resumed]);
    let expected = Message { position: Some(place(5)), ..message("hello", Content::text("x")) };
    assert_eq!(subscription.next().await.unwrap(), Some(expected));
}

#[tokio::test]
async fn a_hub_that_knows_no_positions_is_told_apart() {
    let (client, mut server) = connected_with(with_secret("hush")).await;
    let script = async {
        server.answer(r#"{"auth":{"access":"read-only","secret":"hush"}}"#, OK).await;
        server.expect(r#"{"subscribe":{"channel":"hello","since":"00000000000000ff:1"}}"#).await;
        server.send(OK).await;
    };
    let since = [Position { epoch: Epoch::from_bits(255), offset: 1 }];
    let channels = [channel("hello")];
    let (subscription, ()) = join!(client.subscribe_since(&channels, &since), script);
    let error = subscription.unwrap_err().to_string();
    assert!(error.ends_with("an answer that does not say where the subscription goes on"), "{error}");
}

#[tokio::test]
async fn what_a_channel_keeps_is_not_read_here() {
    let (mut client, _server) = connected_with(Options::default()).await;
    let error = client.history(&channel("hello"), Span::Last, None).await.unwrap_err();
    assert_eq!(error.to_string(), "over WebRocket what a channel keeps cannot be read: use HTTP");
}
