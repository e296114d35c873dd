//! The client against receivers on loopback. Names never leave the process:
//! each test brings its own answers.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use watchtower_hub::{ChannelName, Epoch, Position};

use super::super::delivery::SubscriptionId;
use super::super::sign::SigningKey;
use super::super::testing::{Noticed, OK, Receiver, Reply, header, read_request};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const PATIENT: Duration = Duration::from_secs(60);
const BODY: &[u8] = br#"{"channel":5,"offset":1,"message":"hello"}"#;

/// A name server that gives its answers in turn, and the last for ever.
struct Answers {
    left: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

impl Answers {
    fn new(answers: &[&[&str]]) -> Arc<Answers> {
        let parse = |answer: &&[&str]| answer.iter().map(|a| a.parse().expect("an address")).collect();
        Arc::new(Answers { left: Mutex::new(answers.iter().map(parse).collect()), asked: Mutex::default() })
    }
}

impl Lookup for Answers {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked.lock().push(name);
        let mut left = self.left.lock();
        let answer = match left.len() {
            0 => Err(io::Error::other("no such name")),
            1 => Ok(left[0].clone()),
            _ => Ok(left.pop_front().unwrap_or_default()),
        };
        std::future::ready(answer).boxed()
    }
}

fn trusting(roots: rustls::RootCertStore) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn client(lookup: &Arc<Answers>, policy: AddressPolicy, timeout: Duration) -> CallbackClient {
    let tls = trusting(rustls::RootCertStore::empty());
    let network = Network { lookup: lookup.clone(), tls };
    CallbackClient::new(network, policy, timeout).expect("a client")
}

fn loopback() -> AddressPolicy {
    AddressPolicy::new([], true)
}

fn listing(network: &str) -> AddressPolicy {
    AddressPolicy::new([network.parse().expect("a network")], false)
}

/// A URL as it was accepted earlier, under a policy that allowed everything.
fn accepted_url(text: &str) -> CallbackUrl {
    let all = ["0.0.0.0/0", "::/0"].map(|network| network.parse().expect("a network"));
    CallbackUrl::parse(text, &AddressPolicy::new(all, true)).expect("a URL")
}

fn delivery(offset: u64) -> DeliveryId {
    let position = Position { epoch: Epoch::from_bits(1), offset };
    SubscriptionId::from_bytes([7; 16]).delivery(&ChannelName::from(5), position)
}

async fn post(client: &CallbackClient, url: &str) -> Outcome {
    let signature = SigningKey::new("secret").sign(1_700_000_000, BODY);
    let body = Bytes::from_static(BODY);
    client.post(&accepted_url(url), body, delivery(1), signature).await
}

/// What the client makes of one answer, and the receiver that gave it.
async fn answered(reply: Reply) -> (Outcome, Receiver) {
    let receiver = Receiver::start(move |_| reply.clone()).await;
    let client = client(&Answers::new(&[]), loopback(), PATIENT);
    (post(&client, &receiver.url("127.0.0.1")).await, receiver)
}

fn forbidden(kind: Forbidden) -> Outcome {
    Outcome::Failed(Failure::Forbidden(kind))
}

fn is_broken(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(Failure::Broken(_)))
}

// [http: callbacks] "POST callback_url with one message as JSON. Headers: …"
#[tokio::test]
async fn a_message_is_posted_as_json_with_the_headers_of_a_delivery() {
    let (outcome, mut receiver) = answered(Reply::ok()).await;
    assert_eq!(outcome, Outcome::Accepted);
    let (_, head, body) = receiver.request().await;
    assert!(head.starts_with("POST /hook?q=1 HTTP/1.1\r\n"), "{head}");
    assert_eq!(body, BODY);
    let signature = SigningKey::new("secret").sign(1_700_000_000, BODY).to_string();
    for (name, value) in [
        ("host", receiver.address.to_string()),
        ("content-type", "application/json".to_owned()),
        ("content-length", BODY.len().to_string()),
        ("x-server-name", "Watchtower".to_owned()),
        ("x-watchtower-delivery", delivery(1).to_string()),
        ("x-watchtower-signature", signature),
    ] {
        assert_eq!(header(&head, name), Some(value.as_str()), "{name}");
    }
}

// [http: callbacks] "the cursor moves on after a 2xx. Otherwise (a redirect included) retried […]. 410 ends it at once"
#[tokio::test]
async fn the_status_alone_decides_what_an_answer_means() {
    let failed = |code| Outcome::Failed(Failure::Status(StatusCode::from_u16(code).expect("a code")));
    let elsewhere = |code| Outcome::Failed(Failure::Redirect(StatusCode::from_u16(code).expect("a code")));
    for (line, outcome) in [
        ("200 OK", Outcome::Accepted),
        ("202 Accepted", Outcome::Accepted),
        ("204 No Content", Outcome::Accepted),
        ("299 Fine", Outcome::Accepted),
        ("410 Gone", Outcome::Gone),
        ("304 Not Modified", elsewhere(304)),
        ("400 Bad Request", failed(400)),
        ("404 Not Found", failed(404)),
        ("429 Too Many Requests", failed(429)),
        ("500 Internal Server Error", failed(500)),
        ("503 Service Unavailable", failed(503)),
    ] {
        assert_eq!(answered(Reply::status(line)).await.0, outcome, "{line}");
    }
}

// [http: callbacks] "redirects not followed"
#[tokio::test]
async fn a_redirect_is_a_failure_and_nobody_else_is_called() {
    let elsewhere = Receiver::start(|_| Reply::ok()).await;
    for code in [301, 302, 303, 307, 308] {
        for location in [
            elsewhere.url("127.0.0.1"),
            elsewhere.url("elsewhere.test"),
            "/hook".to_owned(),
            "http://169.254.169.254/latest/meta-data/".to_owned(),
        ] {
            let answer = format!("HTTP/1.1 {code} -\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
            let mut receiver = Receiver::start(move |_| Reply::Bytes(answer.clone().into())).await;
            let names = Answers::new(&[&["127.0.0.1"]]);
            let client = client(&names, loopback(), PATIENT);
            let outcome = post(&client, &receiver.url("127.0.0.1")).await;
            let status = StatusCode::from_u16(code).expect("a code");
            assert_eq!(outcome, Outcome::Failed(Failure::Redirect(status)), "{code} {location}");
            assert!(names.asked.lock().is_empty(), "{code} {location}");
            // One connection, one request: the next one is this test's own.
            receiver.request().await;
            drop(client);
            let last = receiver.next().await;
            assert_eq!(last, Noticed::Cut { connection: 0, answered: 0 }, "{code} {location}");
        }
    }
    elsewhere.was_never_called().await;
}

// [http: callbacks] "connect and total timeouts"
#[tokio::test]
async fn a_receiver_that_hangs_is_left_when_the_time_is_up() {
    for reply in [
        Reply::silence(),
        Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        // Informational answers are no answer.
        Reply::Endless(Vec::new(), b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()),
    ] {
        let mut receiver = Receiver::start(move |_| reply.clone()).await;
        let client = client(&Answers::new(&[]), loopback(), SECOND / 5);
        let outcome = post(&client, &receiver.url("127.0.0.1")).await;
        assert_eq!(outcome, Outcome::Failed(Failure::TimedOut));
        receiver.request().await;
        assert!(matches!(receiver.next().await, Noticed::Cut { connection: 0, .. }));
    }
}

#[tokio::test]
async fn a_name_server_that_hangs_is_left_when_the_time_is_up() {
    struct Never;
    impl Lookup for Never {
        fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            std::future::pending().boxed()
        }
    }
    let tls = trusting(rustls::RootCertStore::empty());
    let network = Network { lookup: Arc::new(Never), tls };
    let client = CallbackClient::new(network, loopback(), SECOND / 5).expect("a client");
    let outcome = post(&client, "http://receiver.test/").await;
    assert_eq!(outcome, Outcome::Failed(Failure::TimedOut));
}

// [http: callbacks] "response body ignored beyond 64 KiB"
#[tokio::test]
async fn an_endless_body_is_cut_off_and_does_not_change_the_answer() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"1000\r\n".as_slice(), &[b'x'; 0x1000], b"\r\n"].concat();
    let huge = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n".to_vec();
    for (head, piece) in [(chunked, chunk), (huge, vec![b'x'; 4_096])] {
        let (outcome, mut receiver) = answered(Reply::Endless(head, piece)).await;
        assert_eq!(outcome, Outcome::Accepted);
        receiver.request().await;
        match receiver.next().await {
            // What was read, what the sockets hold, and what the reader takes at once.
            Noticed::Cut { answered, .. } => assert!(answered < 16 << 20, "{answered}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_body_that_never_comes_does_not_hold_up_the_answer_for_the_whole_time() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc".to_vec();
    let begin = std::time::Instant::now();
    let (outcome, mut receiver) = answered(Reply::Bytes(head)).await;
    assert_eq!(outcome, Outcome::Accepted);
    assert!(begin.elapsed() < PATIENT / 2);
    receiver.request().await;
    assert_eq!(receiver.next().await, Noticed::Cut { connection: 0, answered: 0 });
}

#[tokio::test]
async fn headers_that_are_too_long_or_too_many_break_the_attempt() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(10_000));
    for answer in [long, many] {
        let (outcome, _) = answered(Reply::Close(answer.into_bytes())).await;
        assert!(is_broken(&outcome), "{outcome:?}");
    }
    let head = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
    let (outcome, mut receiver) = answered(Reply::Endless(head, vec![b' '; 32 * 1024])).await;
    assert!(is_broken(&outcome), "{outcome:?}");
    receiver.request().await;
    assert!(matches!(receiver.next().await, Noticed::Cut { .. }));
}

#[tokio::test]
async fn an_answer_that_is_not_http_breaks_the_attempt() {
    for answer in
        [&b""[..], b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 20", b"HTTP/1.1 999999 X\r\n\r\n", b"\0\0\0"]
    {
        let (outcome, _) = answered(Reply::Close(answer.to_vec())).await;
        assert!(is_broken(&outcome), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_a_failure_to_connect() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let client = client(&Answers::new(&[]), loopback(), PATIENT);
    let outcome = post(&client, &format!("http://127.0.0.1:{port}/")).await;
    assert!(matches!(outcome, Outcome::Failed(Failure::Connect(_))), "{outcome:?}");
}

// [http: callbacks] "the address that is really connected to (after DNS, at every attempt)"
#[tokio::test]
async fn a_host_that_is_a_forbidden_address_is_never_connected_to() {
    let receiver = Receiver::start(|_| Reply::ok()).await;
    let names = Answers::new(&[]);
    let client = client(&names, AddressPolicy::default(), PATIENT);
    for host in ["127.0.0.1", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost"] {
        let outcome = post(&client, &receiver.url(host)).await;
        assert_eq!(outcome, forbidden(Forbidden::Loopback), "{host}");
    }
    let outcome = post(&client, "http://169.254.169.254/latest/meta-data/").await;
    assert_eq!(outcome, forbidden(Forbidden::LinkLocal));
    assert!(names.asked.lock().is_empty());
    receiver.was_never_called().await;
}

#[tokio::test]
async fn a_name_of_a_forbidden_address_is_never_connected_to() {
    let receiver = Receiver::start(|_| Reply::ok()).await;
    for (address, kind) in [
        ("127.0.0.1", Forbidden::Loopback),
        ("::ffff:127.0.0.1", Forbidden::Loopback),
        ("0.0.0.0", Forbidden::Unspecified),
        ("169.254.169.254", Forbidden::LinkLocal),
        ("::ffff:169.254.169.254", Forbidden::LinkLocal),
        ("64:ff9b::7f00:1", Forbidden::Translated),
    ] {
        let names = Answers::new(&[&[address]]);
        let client = client(&names, AddressPolicy::default(), PATIENT);
        let outcome = post(&client, &receiver.url("receiver.test")).await;
        assert_eq!(outcome, forbidden(kind), "{address}");
        assert_eq!(*names.asked.lock(), ["receiver.test"]);
    }
    receiver.was_never_called().await;
}

#[tokio::test]
async fn of_a_names_addresses_only_the_permitted_ones_are_dialled() {
    let (mut permitted, forbidden) = Receiver::start_beside_another(|_| Reply::ok()).await;
    let names = Answers::new(&[&["127.0.0.2", "10.0.0.1", "127.0.0.1", "::1"]]);
    let client = client(&names, listing("127.0.0.1/32"), PATIENT);
    assert_eq!(post(&client, &permitted.url("receiver.test")).await, Outcome::Accepted);
    permitted.request().await;
    forbidden.was_never_called().await;
}

#[tokio::test]
async fn a_name_whose_address_changes_is_judged_anew_at_every_attempt() {
    let closing = Reply::Close([&OK[..OK.len() - 2], b"Connection: close\r\n\r\n"].concat());
    let (mut receiver, rebound) = Receiver::start_beside_another(move |_| closing.clone()).await;
    let names = Answers::new(&[&["127.0.0.1"], &["127.0.0.2"], &["127.0.0.1"]]);
    let client = client(&names, listing("127.0.0.1/32"), PATIENT);
    let url = receiver.url("receiver.test");
    assert_eq!(post(&client, &url).await, Outcome::Accepted);
    assert_eq!(post(&client, &url).await, forbidden(Forbidden::Loopback));
    assert_eq!(post(&client, &url).await, Outcome::Accepted);
    receiver.request().await;
    receiver.request().await;
    assert_eq!(names.asked.lock().len(), 3);
    rebound.was_never_called().await;
}

#[tokio::test]
async fn a_connection_is_used_again_and_still_leads_where_it_was_checked_to_lead() {
    let mut receiver = Receiver::start(|_| Reply::ok()).await;
    let names = Answers::new(&[&["127.0.0.1"], &["10.0.0.1"]]);
    let client = client(&names, loopback(), PATIENT);
    let url = receiver.url("receiver.test");
    for _ in 0..3 {
        assert_eq!(post(&client, &url).await, Outcome::Accepted);
        assert_eq!(receiver.request().await.0, 0);
    }
    assert_eq!(names.asked.lock().len(), 1);
}

#[tokio::test]
async fn a_new_policy_begins_without_the_connections_of_the_old_one() {
    let mut receiver = Receiver::start(|_| Reply::ok()).await;
    let names = Answers::new(&[&["127.0.0.1"]]);
    let client = client(&names, loopback(), PATIENT);
    for url in [receiver.url("receiver.test"), receiver.url("127.0.0.1")] {
        client.reload(loopback(), PATIENT).expect("a client");
        assert_eq!(post(&client, &url).await, Outcome::Accepted);
        receiver.request().await;
        client.reload(AddressPolicy::default(), PATIENT).expect("a client");
        assert_eq!(post(&client, &url).await, forbidden(Forbidden::Loopback), "{url}");
        let (connection, _) = match receiver.next().await {
            Noticed::Cut { connection, answered } => (connection, answered),
            request => panic!("called in spite of the policy: {request:?}"),
        };
        assert!(connection < 2);
    }
}

#[tokio::test]
async fn localhost_means_loopback_without_a_name_server() {
    let mut receiver = Receiver::start(|_| Reply::ok()).await;
    let names = Answers::new(&[&["8.8.8.8"]]);
    let client = client(&names, listing("127.0.0.0/8"), PATIENT);
    for host in ["localhost", "sub.localhost"] {
        assert_eq!(post(&client, &receiver.url(host)).await, Outcome::Accepted, "{host}");
        receiver.request().await;
    }
    assert!(names.asked.lock().is_empty());
}

#[tokio::test]
async fn a_name_that_is_not_found_is_a_failure_that_shows_no_url() {
    let client = client(&Answers::new(&[]), AddressPolicy::default(), PATIENT);
    let outcome = post(&client, "http://nowhere.test/hook/token").await;
    let failure = Failure::Lookup("no such name".to_owned());
    assert_eq!(failure.to_string(), "the host's name was not found: no such name");
    assert_eq!(outcome, Outcome::Failed(failure));
}

#[tokio::test]
async fn a_name_without_addresses_is_a_failure() {
    let client = client(&Answers::new(&[&[]]), loopback(), PATIENT);
    let outcome = post(&client, "http://nowhere.test/").await;
    assert!(matches!(outcome, Outcome::Failed(Failure::Connect(_) | Failure::Lookup(_))), "{outcome:?}");
}

/// A receiver of one request over TLS, and the certificate that it shows.
async fn https_receiver(name: &str) -> (SocketAddr, rustls::RootCertStore) {
    let issued = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key.into())
        .expect("a certificate and its key");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(issued.cert.der().clone()).expect("a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            if read_request(&mut stream).await.is_some() {
                let _ = stream.write_all(OK).await;
            }
        }
    });
    (address, roots)
}

#[tokio::test]
async fn https_is_accepted_from_a_receiver_whose_certificate_is_trusted_and_is_its_own() {
    let (address, roots) = https_receiver("receiver.test").await;
    let client = |roots| {
        let lookup = Answers::new(&[&["127.0.0.1"]]);
        let network = Network { lookup, tls: trusting(roots) };
        CallbackClient::new(network, loopback(), PATIENT).expect("a client")
    };
    let url = |name| format!("https://{name}:{}/", address.port());
    assert_eq!(post(&client(roots.clone()), &url("receiver.test")).await, Outcome::Accepted);
    for (trusted, name) in [(rustls::RootCertStore::empty(), "receiver.test"), (roots, "other.test")] {
        let outcome = post(&client(trusted), &url(name)).await;
        assert!(matches!(outcome, Outcome::Failed(Failure::Connect(_))), "{outcome:?}");
    }
}

#[tokio::test]
async fn the_systems_network_calls_a_receiver_on_this_machine() {
    let mut receiver = Receiver::start(|_| Reply::ok()).await;
    let network = Network::of_this_machine().expect("TLS");
    let found = network.lookup.lookup("127.0.0.1".to_owned()).await.expect("a number needs no server");
    assert_eq!(found, [IpAddr::from([127, 0, 0, 1])]);
    let client = CallbackClient::new(network, loopback(), PATIENT).expect("a client");
    assert_eq!(post(&client, &receiver.url("127.0.0.1")).await, Outcome::Accepted);
    receiver.request().await;
}
