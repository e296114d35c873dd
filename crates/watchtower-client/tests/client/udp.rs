//! Packets over UDP. Where a test waits for minutes, time is virtual: it moves
//! on when everyone waits.

use tokio::join;
use tokio::net::UdpSocket;
use tokio::time::{Duration, Instant};
use watchtower_client::{Client, ClientError, Content, Options, Protocol, Refusal, Subscription};

use crate::{channel, hex, sender, with_secret};

/// A server's socket that speaks with one client.
struct Server(UdpSocket);

impl Server {
    async fn bind() -> (Server, String) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap().to_string();
        (Server(socket), address)
    }

    /// Takes one datagram, which must be exactly these bytes.
    async fn expect(&self, bytes: &str) {
        let mut datagram = vec![0; 65_536];
        let (length, from) = self.0.recv_from(&mut datagram).await.unwrap();
        assert_eq!(datagram[..length], hex(bytes), "{bytes}");
        self.0.connect(from).await.unwrap();
    }

    /// Sends one datagram.
    async fn send(&self, bytes: &str) {
        self.0.send(&hex(bytes)).await.unwrap();
    }

    async fn answer(&self, expected: &str, answer: &str) {
        self.expect(expected).await;
        self.send(answer).await;
    }

    /// What has arrived by now and was not expected.
    fn arrived(&self) -> Option<usize> {
        self.0.try_recv(&mut [0; 2048]).ok()
    }
}

async fn connected_with(options: Options) -> (Client, Server) {
    let (server, address) = Server::bind().await;
    let (client, ()) =
        join!(Client::connect(Protocol::Udp, &address, options), server.answer("4b", "41 00000000"),);
    (client.unwrap(), server)
}

async fn connected() -> (Client, Server) {
    connected_with(Options::default()).await
}

async fn subscribed() -> (Subscription, Server) {
    let (client, server) = connected().await;
    let channels = [channel("1")];
    let (subscription, ()) = join!(
        client.with_sender(sender(5)).subscribe(&channels),
        server.answer("4a 05000000 01000000", "41 01000000"),
    );
    (subscription.unwrap(), server)
}

#[tokio::test]
async fn nobody_at_the_address_is_told_with_what_to_do() {
    let (server, address) = Server::bind().await;
    // It holds the port, and takes datagrams from itself alone.
    server.0.connect(&address).await.unwrap();
    let error = Client::connect(Protocol::Udp, &address, Options::default()).await.unwrap_err();
    let expected =
        format!("cannot reach {address}: connection refused; is the server running? (watchtower serve)");
    assert_eq!(error.to_string(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_not_reached() {
    let (_server, address) = Server::bind().await;
    let error = Client::connect(Protocol::Udp, &address, Options::default()).await.unwrap_err();
    let expected =
        format!("cannot reach {address}: no answer within 5s; is the server running? (watchtower serve)");
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn registers_joins_and_publishes_in_one_datagram_each() {
    let (mut client, server) = connected_with(with_secret("tower")).await;
    let script = async {
        server.answer("53 05 746f776572", "41 05000000").await;
        server.answer("4a 05000000 01000000", "41 01000000").await;
        server.answer("4d 05000000 01000000 02000000 6869", "4d 05000000 01000000 0000 02000000 6869").await;
        server.answer("57 05000000 01000000 0100 34000000 02000000 6869 4b", "41 00000000").await;
    };
    let (one, hi) = (channel("1"), Content::text("hi"));
    let calls = async {
        assert_eq!(client.register().await.unwrap(), sender(5));
        client.join(std::slice::from_ref(&one)).await.unwrap();
        client.publish(&one, &hi).await.unwrap();
        client.publish_direct(&one, &[sender(52)], &hi).await.unwrap();
    };
    join!(script, calls);
}

#[tokio::test]
async fn what_may_be_asked_twice_is_asked_again_until_an_answer_comes() {
    let (client, server) = connected().await;
    let mut client = client.with_sender(sender(5));
    let script = async {
        // The first two are lost.
        server.expect("4a 05000000 01000000").await;
        server.expect("4a 05000000 01000000").await;
        server.answer("4a 05000000 01000000", "41 01000000").await;
        server.expect("52").await;
        server.answer("52", "41 07000000").await;
    };
    let calls = async {
        client.join(&[channel("1")]).await.unwrap();
        assert_eq!(client.register().await.unwrap(), sender(7));
    };
    join!(script, calls);
}

#[tokio::test]
async fn a_late_answer_to_a_join_is_not_taken_for_a_sender_or_another_channel() {
    let (client, server) = connected().await;
    let mut client = client.with_sender(sender(5));
    let script = async {
        server.answer("4a 05000000 01000000", "41 01000000").await;
        server.expect("4a 05000000 02000000").await;
        server.send("41 01000000").await;
        server.send("41 02000000").await;
        server.expect("52").await;
        server.send("41 01000000").await;
        server.send("41 07000000").await;
    };
    let calls = async {
        client.join(&[channel("1"), channel("2")]).await.unwrap();
        assert_eq!(client.register().await.unwrap(), sender(7));
    };
    join!(script, calls);
}

#[tokio::test(start_paused = true)]
async fn a_leave_whose_answer_is_lost_is_asked_for_again() {
    let (client, server) = connected().await;
    let mut client = client.with_sender(sender(5));
    let script = async {
        server.expect("4c 05000000 01000000").await;
        server.answer("4c 05000000 01000000", "45 03 00").await;
    };
    let channels = [channel("1")];
    let (left, ()) = join!(client.leave(&channels), script);
    left.unwrap();
}

#[tokio::test]
async fn a_refused_join_is_told() {
    let (client, server) = connected().await;
    let mut client = client.with_sender(sender(5));
    let channels = [channel("1")];
    let (joined, ()) = join!(client.join(&channels), server.answer("4a 05000000 01000000", "45 02 00"));
    match joined {
        Err(ClientError::Refused(Refusal { code: 2, .. })) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_never_published_twice() {
    let (client, server) = connected().await;
    let mut client = client.with_sender(sender(5));
    let (one, hi) = (channel("1"), Content::text("hi"));
    let begin = Instant::now();
    let error = client.publish(&one, &hi).await.unwrap_err();
    assert!(matches!(error, ClientError::Silent { .. }), "{error}");
    assert_eq!(begin.elapsed().as_secs(), 5);
    server.expect("4d 05000000 01000000 02000000 6869").await;
    assert_eq!(server.arrived(), None);

    // Unlike a connection, a socket can be used on.
    let (registered, ()) = join!(client.register(), server.answer("52", "41 07000000"));
    assert_eq!(registered.unwrap(), sender(7));
}

#[tokio::test]
async fn a_content_fits_when_its_echo_does() {
    let (client, server) = connected().await;
    let mut client = client.with_sender(sender(5));
    let one = channel("1");
    let too_long = client.publish(&one, &Content::text("x".repeat(65_493))).await;
    assert_eq!(
        too_long.unwrap_err().to_string(),
        "65493 bytes do not fit a datagram: at most 65492 do; use TCP or HTTP"
    );
    assert_eq!(server.arrived(), None);

    let content = "78".repeat(65_492);
    let request = format!("4d 05000000 01000000 d4ff0000 {content}");
    let echo = format!("4d 05000000 01000000 0000 d4ff0000 {content}");
    let fits = Content::text("x".repeat(65_492));
    let (published, ()) = join!(client.publish(&one, &fits), server.answer(&request, &echo));
    published.unwrap();
}

#[tokio::test]
async fn a_datagram_may_hold_several_messages_and_a_damaged_one_is_passed_over() {
    let (mut subscription, server) = subscribed().await;
    server.send("4d 06000000 01000000 0000 01000000 61  4d 06000000 01000000 0000 01000000 62").await;
    server.send("4d 06000000 01000000 0000 ff000000 63").await;
    server.send("").await;
    server.send("4d 06000000 01000000 0000 01000000 64 0a").await;
    for expected in ["a", "b", "d"] {
        let message = subscription.next().await.unwrap().unwrap();
        assert_eq!(message.content, Content::text(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_subscription_keeps_itself_alive() {
    let (mut subscription, server) = subscribed().await;
    let begin = Instant::now();
    let script = async {
        for _ in 0..20 {
            server.answer("4b", "41 00000000").await;
        }
        // More than `udp_idle`, after which the server would have forgotten.
        assert!(begin.elapsed() > Duration::from_secs(300));
        server.send("4d 06000000 01000000 0000 01000000 61").await;
    };
    let (message, ()) = join!(subscription.next(), script);
    assert_eq!(message.unwrap().unwrap().content, Content::text("a"));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_whose_server_is_gone_ends() {
    let (mut subscription, _server) = subscribed().await;
    let error = subscription.next().await.unwrap_err();
    assert!(matches!(error, ClientError::Silent { .. }), "{error}");
}

#[tokio::test]
async fn leaving_tells_the_server() {
    let (subscription, server) = subscribed().await;
    subscription.leave().await;
    server.expect("4c 05000000 01000000").await;
}
