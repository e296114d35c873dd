//! Packets over TCP.

use std::future::Future;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::join;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use watchtower_client::{Client, ClientError, Content, Message, Options, Protocol, Refusal, Subscription};

use crate::{channel, hex, nothing_is_answered_any_more, sender, with_secret};

/// The server's end of a connection.
struct Server(TcpStream);

impl Server {
    async fn expect(&mut self, bytes: &str) {
        let expected = hex(bytes);
        let mut came = vec![0; expected.len()];
        self.0.read_exact(&mut came).await.unwrap();
        assert_eq!(came, expected, "{bytes}");
    }

    async fn send(&mut self, bytes: &str) {
        self.0.write_all(&hex(bytes)).await.unwrap();
    }

    /// Byte by byte, and lets the client run after each.
    async fn trickle(&mut self, bytes: &str) {
        for byte in hex(bytes) {
            self.0.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    }

    async fn answer(&mut self, expected: &str, answer: &str) {
        self.expect(expected).await;
        self.send(answer).await;
    }

    async fn expect_end(mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    }
}

async fn connected_with(options: Options) -> (Client, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (client, accepted) = join!(Client::connect(Protocol::Tcp, &address, options), listener.accept());
    let (stream, _) = accepted.unwrap();
    stream.set_nodelay(true).unwrap();
    (client.unwrap(), Server(stream))
}

async fn connected() -> (Client, Server) {
    connected_with(Options::default()).await
}

/// A client as sender 5.
async fn registered() -> (Client, Server) {
    let (client, server) = connected().await;
    (client.with_sender(sender(5)), server)
}

async fn subscribed() -> (Subscription, Server) {
    let (client, mut server) = registered().await;
    let channels = [channel("1")];
    let (subscription, ()) =
        join!(client.subscribe(&channels), server.answer("4a 05000000 01000000", "41 01000000"),);
    (subscription.unwrap(), server)
}

fn message(number: &str, from: u32, content: &str) -> Message {
    Message {
        channel: channel(number),
        sender: Some(sender(from)),
        direct: false,
        content: Content::text(content),
        event: None,
        position: None,
        time: None,
    }
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, ClientError>, code: u8, text: &str) {
    match result {
        Err(ClientError::Refused(refusal)) => {
            assert_eq!(refusal, Refusal { code, text: text.to_owned() });
        }
        other => panic!("{other:?}"),
    }
}

/// [packets: worked example]
#[tokio::test]
async fn registers_joins_and_publishes_as_documented() {
    let (mut client, mut server) = connected().await;
    let script = async {
        server.answer("52", "41 05000000").await;
        server.answer("4a 05000000 01000000", "41 01000000").await;
        server
            .answer(
                "4d 05000000 01000000 0a000000 68656c6c6f776f726c64",
                "4d 05000000 01000000 0000 0a000000 68656c6c6f776f726c64",
            )
            .await;
    };
    let calls = async {
        assert_eq!(client.register().await.unwrap(), sender(5));
        assert_eq!(client.sender(), Some(sender(5)));
        client.join(&[channel("1")]).await.unwrap();
        client.publish(&channel("1"), &Content::text("helloworld")).await.unwrap();
    };
    join!(script, calls);
}

#[tokio::test]
async fn leaving_ends_with_the_answer_and_what_is_not_joined_is_left_already() {
    let (mut client, mut server) = registered().await;
    let script = async {
        // What was published before comes before the answer.
        server.expect("4c 05000000 01000000").await;
        server.send("4d 06000000 01000000 0000 01000000 78 41 01000000").await;
        server.answer("4c 05000000 02000000", "45 03 00").await;
        server.answer("4c 05000000 01000000", "45 02 00").await;
    };
    let calls = async {
        client.leave(&[channel("1"), channel("2")]).await.unwrap();
        assert_refused(client.leave(&[channel("1")]).await, 2, "");
    };
    join!(script, calls);
}

#[tokio::test]
async fn answers_may_come_byte_by_byte() {
    let (mut client, mut server) = connected().await;
    let script = async {
        server.expect("52").await;
        server.trickle("41 05000000").await;
        server.expect("4d 05000000 01000000 02000000 6869").await;
        server.trickle("0d0a00 4d 05000000 01000000 0000 02000000 6869").await;
    };
    let calls = async {
        client.register().await.unwrap();
        client.publish(&channel("1"), &Content::text("hi")).await.unwrap();
    };
    join!(script, calls);
}

#[tokio::test]
async fn registers_with_the_secret_when_there_is_one() {
    let (mut client, mut server) = connected_with(with_secret("tower")).await;
    let (id, ()) = join!(client.register(), server.answer("53 05 746f776572", "41 48000000"));
    assert_eq!(id.unwrap(), sender(72));
}

#[tokio::test]
async fn a_refusal_is_told_in_the_servers_words_and_the_client_goes_on() {
    let (mut client, mut server) = connected().await;
    let script = async {
        server.answer("52", "45 05 03 6e6f21").await;
        server.answer("52", "41 05000000").await;
    };
    let calls = async {
        let error = client.register().await.unwrap_err();
        assert_eq!(error.to_string(), "the server answered: no! (error 5)");
        client.register().await.unwrap();
    };
    join!(script, calls);
}

#[tokio::test]
async fn a_refusal_without_words_is_told_by_its_code() {
    let (mut client, mut server) = connected().await;
    let (refused, ()) = join!(client.register(), server.answer("52", "45 08 00"));
    assert_eq!(refused.unwrap_err().to_string(), "the server answered: overloaded (error 8)");
}

#[tokio::test]
async fn what_a_server_says_cannot_control_a_terminal() {
    let (mut client, mut server) = connected().await;
    let (refused, ()) = join!(client.register(), server.answer("52", "45 05 03 1b5b4a"));
    assert_refused(refused, 5, "?[J");
}

#[tokio::test]
async fn only_its_own_echo_confirms_a_publication() {
    let (mut client, mut server) = registered().await;
    let script = async {
        server.expect("4d 05000000 01000000 01000000 78").await;
        // Another's, another channel's, a direct one, another content; then the echo
        // is missing, and the channel turns out not to be joined.
        server.send("4d 06000000 01000000 0000 01000000 78").await;
        server.send("4d 05000000 02000000 0000 01000000 78").await;
        server.send("4d 05000000 01000000 0100 01000000 78").await;
        server.send("4d 05000000 01000000 0000 01000000 79").await;
        server.send("45 03 00").await;
    };
    let (one, x) = (channel("1"), Content::text("x"));
    let (published, ()) = join!(client.publish(&one, &x), script);
    assert_refused(published, 3, "");
}

#[tokio::test]
async fn a_direct_message_is_confirmed_by_the_answer_to_what_follows_it() {
    let (mut client, mut server) = registered().await;
    let request = "57 05000000 01000000 0200 34000000 22000000 02000000 6869 4b";
    let script = async {
        server.answer(request, "41 00000000").await;
        // After a refusal the keep-alive's answer still comes; it confirms nothing else.
        server.answer(request, "45 06 00 41 00000000").await;
        server.answer("52", "41 07000000").await;
    };
    let (one, hi) = (channel("1"), Content::text("hi"));
    let calls = async {
        let receivers = [sender(52), sender(34)];
        client.publish_direct(&one, &receivers, &hi).await.unwrap();
        assert_refused(client.publish_direct(&one, &receivers, &hi).await, 6, "");
        assert_eq!(client.register().await.unwrap(), sender(7));
    };
    join!(script, calls);
}

#[tokio::test]
async fn a_connection_that_closes_before_the_answer_is_an_error() {
    let (mut client, mut server) = connected().await;
    let script = async {
        server.expect("52").await;
        drop(server);
    };
    let (registered, ()) = join!(client.register(), script);
    assert!(matches!(registered, Err(ClientError::Closed { .. })), "{registered:?}");
}

#[tokio::test]
async fn a_connection_that_closes_within_an_answer_is_an_error() {
    let (mut client, mut server) = connected().await;
    let script = async {
        server.answer("52", "41 0500").await;
        drop(server);
    };
    let (registered, ()) = join!(client.register(), script);
    let error = registered.unwrap_err().to_string();
    assert!(error.starts_with("lost the connection to 127.0.0.1:"), "{error}");
    assert!(error.ends_with(": it ended within a packet"), "{error}");
}

#[tokio::test]
async fn a_server_that_refuses_a_content_before_reading_it_is_heard() {
    let (mut client, mut server) = registered().await;
    let script = async {
        server.answer("4d 05000000 01000000 00000001", "45 04 00").await;
        drop(server);
    };
    let content = Content::text("x".repeat(16 * 1024 * 1024));
    let one = channel("1");
    let (published, ()) = join!(client.publish(&one, &content), script);
    assert_refused(published, 4, "");
}

#[tokio::test]
async fn no_answer_ends_with_the_time_out_and_later_answers_are_not_mistaken() {
    let (mut client, mut server) = connected().await;
    nothing_is_answered_any_more();
    let silent = client.register().await.unwrap_err().to_string();
    assert!(silent.ends_with(" did not answer within 5s"), "{silent}");
    server.answer("52", "41 05000000").await;
    let again = client.register().await;
    assert!(matches!(again, Err(ClientError::Closed { .. })), "{again:?}");
}

#[tokio::test]
async fn nobody_at_the_address_is_told_with_what_to_do() {
    // Bound, so that nobody else takes the port, and not listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    for protocol in [Protocol::Tcp, Protocol::Http] {
        let error = Client::connect(protocol, &address, Options::default()).await.unwrap_err();
        let expected =
            format!("cannot reach {address}: connection refused; is the server running? (watchtower serve)");
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn what_is_no_address_is_told() {
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Http] {
        for server in ["localhost", "127.0.0.1:99999", "", "http://127.0.0.1:3033", "127.0.0.1:3033/"] {
            let error = Client::connect(protocol, server, Options::default()).await.unwrap_err();
            assert!(matches!(error, ClientError::Address { .. }), "{server}: {error}");
        }
    }
}

#[tokio::test]
async fn what_packets_cannot_do_is_told_before_anything_is_sent() {
    let (mut client, server) = registered().await;
    let (named, hi) = (channel("hello"), Content::text("hi"));
    assert_eq!(
        client.publish(&named, &hi).await.unwrap_err().to_string(),
        "over TCP channels are numbers, `hello` is a name: use HTTP for it"
    );
    // The first of these channels has a number; nothing is joined all the same.
    let joined = client.join(&[channel("1"), named.clone()]).await;
    assert!(matches!(joined, Err(ClientError::NamedChannel { .. })), "{joined:?}");
    assert_eq!(
        client.channels().await.unwrap_err().to_string(),
        "over TCP channels cannot be listed: use HTTP"
    );
    drop(client);
    server.expect_end().await;
}

#[tokio::test]
async fn a_secret_that_fits_no_packet_is_told_before_anything_is_sent() {
    let (mut client, server) = connected_with(with_secret(&"x".repeat(256))).await;
    let error = client.register().await.unwrap_err();
    assert!(matches!(error, ClientError::DoesNotFit(_)), "{error}");
    drop(client);
    server.expect_end().await;
}

#[tokio::test]
async fn without_a_sender_nothing_is_joined_or_published() {
    let (mut client, _server) = connected().await;
    let published = client.publish(&channel("1"), &Content::text("hi")).await;
    assert!(matches!(published, Err(ClientError::NoSender)), "{published:?}");
    let joined = client.join(&[channel("1")]).await;
    assert!(matches!(joined, Err(ClientError::NoSender)), "{joined:?}");
    let subscribed = client.subscribe(&[channel("1")]).await;
    assert!(matches!(subscribed, Err(ClientError::NoSender)), "{subscribed:?}");
}

#[tokio::test]
async fn a_subscription_keeps_what_comes_while_it_is_made() {
    let (client, mut server) = registered().await;
    let script = async {
        server.expect("4a 05000000 01000000").await;
        server.send("41 01000000  4d 06000000 01000000 0000 01000000 61").await;
        server.expect("4a 05000000 02000000").await;
        server.send("4d 06000000 01000000 0000 01000000 62  41 02000000").await;
        server.send("4d 06000000 02000000 0000 01000000 63").await;
        drop(server);
    };
    let calls = async {
        let mut subscription = client.subscribe(&[channel("1"), channel("2")]).await.unwrap();
        assert_eq!(subscription.sender(), Some(sender(5)));
        let mut messages = Vec::new();
        while let Some(message) = subscription.next().await.unwrap() {
            messages.push(message);
        }
        messages
    };
    let ((), messages) = join!(script, calls);
    let expected = [message("1", 6, "a"), message("1", 6, "b"), message("2", 6, "c")];
    assert_eq!(messages, expected);
}

#[tokio::test]
async fn what_comes_before_a_subscription_is_made_is_not_kept() {
    let (mut client, mut server) = registered().await;
    let script = async {
        server.answer("52", "4d 06000000 01000000 0000 01000000 61  41 05000000").await;
        server.answer("4a 05000000 01000000", "41 01000000").await;
        drop(server);
    };
    let calls = async {
        client.register().await.unwrap();
        let mut subscription = client.subscribe(&[channel("1")]).await.unwrap();
        assert_eq!(subscription.next().await.unwrap(), None);
    };
    join!(script, calls);
}

#[tokio::test]
async fn a_refused_subscription_names_the_reason() {
    let (client, mut server) = registered().await;
    let channels = [channel("1")];
    let (subscribed, ()) =
        join!(client.subscribe(&channels), server.answer("4a 05000000 01000000", "45 02 00"),);
    assert_refused(subscribed, 2, "");
}

#[tokio::test]
async fn messages_show_what_packets_carry() {
    let (mut subscription, mut server) = subscribed().await;
    server.send("4d 00000000 01000000 0100 02000000 ff00").await;
    let expected = Message {
        sender: None,
        direct: true,
        content: Content::binary(vec![0xff, 0]),
        ..message("1", 6, "")
    };
    assert_eq!(subscription.next().await.unwrap(), Some(expected));
}

#[tokio::test]
async fn a_lagging_subscription_is_told_so_and_then_ends() {
    let (mut subscription, mut server) = subscribed().await;
    server.send("45 08 07 6c616767696e67").await;
    drop(server);
    assert_refused(subscription.next().await, 8, "lagging");
    assert_eq!(subscription.next().await.unwrap(), None);
}

#[tokio::test]
async fn waiting_for_a_message_can_be_cancelled_within_a_packet() {
    let (mut subscription, mut server) = subscribed().await;
    server.send("4d 06000000 01000000 0000").await;
    // Long enough to read the first part, since it is there already.
    for _ in 0..3 {
        assert_pending(subscription.next()).await;
    }
    server.send("01000000 61").await;
    assert_eq!(subscription.next().await.unwrap(), Some(message("1", 6, "a")));
}

async fn assert_pending<T: std::fmt::Debug>(future: impl Future<Output = T>) {
    tokio::select! {
        biased;
        done = future => panic!("{done:?}"),
        () = tokio::task::yield_now() => {}
    }
}

#[tokio::test]
async fn what_is_no_packet_is_told() {
    let (mut subscription, mut server) = subscribed().await;
    server.send("48 545450").await;
    let error = subscription.next().await.unwrap_err().to_string();
    let expected = "sent what is not understood: no packet begins with byte 0x48; expected A, M or E";
    assert!(error.ends_with(expected), "{error}");
}

#[tokio::test]
async fn a_content_above_the_clients_limit_is_refused_by_its_length() {
    let options = Options { content_bytes_max: 10, ..Options::default() };
    let (mut client, mut server) = connected_with(options).await;
    server.send("4d 06000000 01000000 0000 0b000000").await;
    let error = client.register().await.unwrap_err();
    assert!(matches!(error, ClientError::NotUnderstood { .. }), "{error}");
}

#[tokio::test]
async fn leaving_tells_the_server_and_closes() {
    let (subscription, mut server) = subscribed().await;
    subscription.leave().await;
    server.expect("4c 05000000 01000000").await;
    server.expect_end().await;
}

#[tokio::test]
async fn dropping_a_subscription_closes_without_a_word() {
    let (subscription, server) = subscribed().await;
    drop(subscription);
    server.expect_end().await;
}

#[tokio::test]
async fn an_idle_client_reads_on_until_the_server_says_something() {
    let (mut client, mut server) = registered().await;
    server.send("4d 06000000 01000000 0000 01000000 61").await;
    assert_pending(client.idle()).await;
    server.send("45 08 00").await;
    assert_refused(client.idle().await, 8, "");
    drop(server);
    let ended = client.idle().await;
    assert!(matches!(ended, Err(ClientError::Closed { .. })), "{ended:?}");
}
