//! A connection from its opening to its end: the handler's calls, pings, and
//! who closes how.

use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Wake, Waker};

use super::*;

#[test]
fn a_handler_is_told_of_open_messages_and_the_end() {
    let parrot = Parrot { greeting: Some("hi"), ..Parrot::default() };
    let mut connection = Connection::open(&new_hub(), parrot.clone());
    assert_eq!(connection.begins(), frame(TEXT, b"hi"));
    assert_eq!(connection.begins(), b"", "it is said once");
    assert_eq!(connection.says("=polly"), frame(TEXT, b"polly"));
    assert_eq!(connection.send(&masked(BINARY, b"\xff")), frame(BINARY, b"\xff"));
    assert_eq!(connection.says("nothing to answer"), b"");
    assert_eq!(parrot.heard(), ["open /", "=polly", "nothing to answer"]);
    drop(connection);
    assert_eq!(parrot.heard(), ["closed after 3 messages"]);
}

#[test]
fn an_endpoint_is_its_handler() {
    let endpoint = Endpoint::new(Parrot::default());
    assert_eq!(endpoint.protocol(), "parrot");
    assert_eq!(endpoint.admit(&request()), Ok(()));
    let cage = http::Request::builder().uri("/cage").body(()).expect("a request").into_parts().0;
    assert_eq!(endpoint.admit(&cage), Err(StatusCode::FORBIDDEN));
}

#[test]
fn answers_come_in_the_order_of_what_is_answered_however_the_input_is_cut() {
    let input = [
        masked(TEXT, b"=1"),
        masked(PING, b"2"),
        masked(0x01, b"="),
        masked(PING, b""),
        masked(0x80, b"3"),
        masked(PONG, b"nobody asked"),
        masked(CLOSE, b"\x03\xe8bye"),
        masked(TEXT, b"=too late"),
    ]
    .concat();
    let expected =
        [frame(TEXT, b"1"), frame(PONG, b"2"), frame(PONG, b""), frame(TEXT, b"3"), close_frame(1000, "")];
    let mut whole = Connection::open(&new_hub(), Parrot::default());
    assert_eq!(whole.send(&input), expected.concat());
    assert!(whole.is_closed);
    let mut bytewise = Connection::open(&new_hub(), Parrot::default());
    let mut out = Vec::new();
    for byte in input.chunks(1) {
        if !bytewise.is_closed {
            out.extend(bytewise.send(byte));
        }
    }
    assert_eq!(out, expected.concat());
}

#[test]
fn a_ping_is_answered_with_its_payload() {
    // RFC 6455 5.5.3
    let mut connection = Connection::open(&new_hub(), Parrot::default());
    for length in [0, 1, 125] {
        let payload = vec![b'x'; length];
        assert_eq!(connection.send(&masked(PING, &payload)), frame(PONG, &payload));
    }
}

#[test]
fn a_close_is_answered_with_its_code() {
    // RFC 6455 5.5.1 and 7.1.5
    let check = |payload: &[u8], answer: &[u8]| {
        let mut connection = Connection::open(&new_hub(), Parrot::default());
        assert_eq!(connection.send(&masked(CLOSE, payload)), answer);
        assert!(connection.is_closed);
    };
    check(b"", &frame(CLOSE, b""));
    check(b"\x03\xe8", &close_frame(1000, ""));
    check(b"\x03\xe9going away", &close_frame(1001, ""));
    check(b"\x0f\xa0", &close_frame(4000, ""));
}

#[test]
fn what_breaks_the_rules_is_told_and_closed() {
    let check = |input: &[u8], code: u16, reason: &str| {
        let parrot = Parrot::default();
        let mut connection = Connection::open(&new_hub(), parrot.clone());
        let input = [masked(TEXT, b"=1"), input.to_vec(), masked(TEXT, b"=2")].concat();
        assert_eq!(connection.send(&input), [frame(TEXT, b"1"), close_frame(code, reason)].concat());
        assert!(connection.is_closed);
        assert_eq!(parrot.heard(), ["open /", "=1", "closed after 1 messages"]);
    };
    check(&frame(TEXT, b"x"), 1002, "a frame of a client must be masked");
    check(&masked(0xc1, b""), 1002, "a reserved bit is set");
    check(&masked(CLOSE, b"\x03"), 1002, "a close frame without a valid code");
    check(&masked(TEXT, b"\xff"), 1007, "text must be UTF-8");
    check(&masked(TEXT, &vec![b'x'; (1 << 20) + 1]), 1009, "the message is too long");
}

#[test]
fn a_bomb_closes_the_connection() {
    let mut connection =
        Connection::with(&new_hub(), Parrot::default(), Compression::Deflate, Settings::default());
    let bomb = super::super::deflate::deflate(Compression::Deflate, &vec![b'a'; 8 << 20]).to_vec();
    assert!(bomb.len() < 10_000);
    assert_eq!(connection.send(&masked(0xc1, &bomb)), close_frame(1009, "the message is too long"));
    assert!(connection.is_closed);
}

/// A message as a client compresses it.
fn deflated(message: &[u8]) -> Vec<u8> {
    masked(0xc2, &super::super::deflate::deflate(Compression::Deflate, message))
}

#[test]
fn a_client_that_is_yet_unknown_may_make_nothing_long_of_something_short() {
    let parrot = Parrot { stranger_bytes_max: Some(100), ..Parrot::default() };
    let settings = Settings::default();
    let connect = || Connection::with(&new_hub(), parrot.clone(), Compression::Deflate, settings.clone());
    let mut connection = connect();
    assert_eq!(
        connection.send(&deflated(&[b'a'; 101])),
        close_frame(1009, "a compressed message must be shorter here")
    );
    assert!(connection.is_closed);
    // One that is long already is refused before it has come.
    let mut connection = connect();
    let long = masked(0xc2, &[b'a'; 101]);
    assert_eq!(connection.send(&long[..6]), close_frame(1009, "a compressed message must be shorter here"));
    let mut connection = connect();
    let begun = masked(0x42, &[b'a'; 60]);
    let goes_on = masked(0x80, &[b'a'; 60]);
    assert_eq!(connection.send(&begun), b"");
    assert_eq!(
        connection.send(&goes_on[..6]),
        close_frame(1009, "a compressed message must be shorter here")
    );
    assert_eq!(settings.inflation.refused(), 3);
    // What is sent as it is costs what it is long, and the first message makes
    // this client known: the next, in the same read, may be of any length.
    for first in [deflated(&[b'a'; 100]), masked(BINARY, &[b'a'; 101])] {
        let mut connection = connect();
        let out = connection.send(&[first, deflated(&[b'b'; 2000])].concat());
        let echo = super::super::deflate::deflate(Compression::Deflate, &[b'b'; 2000]);
        assert!(out.ends_with(&frame(0xc2, &echo)), "{}", out.escape_ascii());
    }
    assert_eq!(settings.inflation.refused(), 3);
}

#[test]
fn who_sends_one_bomb_after_the_other_waits() {
    let settings = Settings::default();
    let mut connection = Connection::with(&new_hub(), Silent, Compression::Deflate, settings.clone());
    let bomb = deflated(&vec![b'a'; 1 << 20]);
    let mut inflated_in = |at: u64| {
        let result = connection.socket.receive(&bomb, Timestamp::from_millis(at), &mut Vec::new());
        assert_eq!(result, Ok(bomb.len()));
        connection.socket.pause().expect("others get their turn").as_millis()
    };
    let waits = [1_000, 1_001, 2_000, 3_000].map(&mut inflated_in);
    assert!(waits[0] < 5, "{waits:?}");
    assert!(waits[1..].iter().all(|wait| (900..=1_000).contains(wait)), "{waits:?}");
    assert_eq!(inflated_in(60_000), 1, "it is forgiven");
    assert_eq!(settings.inflation.waited(), 3);
}

/// Says nothing, whatever it is told.
struct Silent;

impl Handler for Silent {
    type State = ();

    fn protocol(&self) -> &'static str {
        "silent"
    }

    fn open(&self, _client: &mut Client<'_>, _request: &Parts) {}

    fn message(&self, (): &mut (), _client: &mut Client<'_>, _message: Incoming<'_>) {}
}

#[test]
fn the_limit_of_a_message_is_a_setting() {
    let settings = Settings { message_bytes_max: 3, ..Settings::default() };
    let mut connection = Connection::with(&new_hub(), Parrot::default(), Compression::None, settings);
    assert_eq!(connection.says("=ab"), frame(TEXT, b"ab"));
    assert_eq!(connection.says("=abc"), close_frame(1009, "the message is too long"));
}

#[test]
fn what_is_sent_to_one_client_is_compressed_when_that_was_negotiated() {
    let mut connection =
        Connection::with(&new_hub(), Parrot::default(), Compression::Deflate, Settings::default());
    let text = "a".repeat(1000);
    let deflated = super::super::deflate::deflate(Compression::Deflate, text.as_bytes()).to_vec();
    assert_eq!(connection.says(&format!("={text}")), frame(0xc1, &deflated));
    assert_eq!(connection.says("=short"), frame(TEXT, b"short"));
}

#[test]
fn a_handler_closes_with_a_code_and_a_reason_and_nothing_comes_after() {
    let mut connection = Connection::open(&new_hub(), Parrot::default());
    let input = [masked(TEXT, b"!enough"), masked(TEXT, b"=too late")].concat();
    assert_eq!(connection.send(&input), close_frame(4001, "enough"));
    assert!(connection.is_closed);
    // What comes later is not looked at either.
    assert_eq!(
        connection.socket.receive(&masked(TEXT, b"=x"), Timestamp::default(), &mut Vec::new()),
        Err(Close)
    );
}

#[test]
fn what_was_published_before_a_handler_closes_is_delivered() {
    let mut connection = Connection::open(&new_hub(), Parrot::default());
    let input = [masked(TEXT, b"+news"), masked(TEXT, b">1"), masked(TEXT, b"!enough")].concat();
    assert_eq!(connection.send(&input), [frame(TEXT, b"1"), close_frame(4001, "enough")].concat());
}

#[test]
fn a_reason_that_does_not_fit_is_cut_between_characters() {
    // RFC 6455 5.5: 125 bytes with the code.
    let mut connection = Connection::open(&new_hub(), Parrot::default());
    let reason = format!("{}é", "x".repeat(122));
    assert_eq!(connection.says(&format!("!{reason}")), close_frame(4001, &"x".repeat(122)));
}

#[test]
fn subscribers_hear_what_is_published_and_who_publishes_hears_himself() {
    let hub = new_hub();
    let parrot = Parrot::default();
    let mut alice = Connection::open(&hub, parrot.clone());
    let mut bob = Connection::open(&hub, parrot);
    alice.says("+news");
    bob.says("+news");
    bob.says(">1");
    alice.says("+news");
    bob.says(">2");
    let both = [frame(TEXT, b"1"), frame(TEXT, b"2")].concat();
    assert_eq!(alice.hears(), both);
    assert_eq!(bob.hears(), both);
    // What was published before a client leaves is delivered first.
    bob.says(">3");
    assert_eq!(alice.says("-news"), frame(TEXT, b"3"));
    assert_eq!(alice.says("-news"), b"", "leaving what was left does nothing");
    bob.says(">4");
    assert_eq!(alice.hears(), b"");
    assert_eq!(bob.hears(), [frame(TEXT, b"3"), frame(TEXT, b"4")].concat());
}

#[test]
fn nothing_of_a_connection_stays_in_the_hub() {
    let hub = new_hub();
    let mut connection = Connection::open(&hub, Parrot::default());
    assert_eq!(hub.counts().senders, 0, "who only listens to pings needs no sender");
    connection.says("+news");
    let presence = hub.presence(&name("news")).expect("it was made");
    assert_eq!(presence.len(), 1);
    assert_eq!(hub.counts().senders, 1);
    drop(connection);
    assert_eq!(hub.counts().senders, 0);
    assert_eq!(hub.presence(&name("news")).map(|presence| presence.len()), Some(0));
}

#[test]
fn a_client_is_pinged_and_one_that_gives_no_sign_of_life_is_closed() {
    let mut connection = Connection::open(&new_hub(), Parrot::default());
    let interval = Duration::from_secs(30);
    assert_eq!(connection.waits(), (interval, frame(PING, b"")));
    connection.send(&masked(PONG, b""));
    assert_eq!(connection.waits(), (interval, frame(PING, b"")));
    // Anything is a sign of life, even a part of a frame.
    connection.send(&masked(TEXT, b"=x")[..1]);
    assert_eq!(connection.waits(), (interval, frame(PING, b"")));
    assert_eq!(connection.waits(), (interval, close_frame(1008, "no answer to a ping")));
    assert!(connection.is_closed);
}

#[test]
fn a_message_that_is_never_completed_is_not_kept_for_ever() {
    let mut connection = Connection::open(&new_hub(), Parrot::default());
    let begun = masked(TEXT, b"=hello");
    assert_eq!(connection.send(&begun[..8]), b"");
    assert_eq!(connection.waits().1, close_frame(1008, "a message took too long"));
    assert!(connection.is_closed);
    // One that is completed, and one that has begun just now, are none.
    let mut connection = Connection::open(&new_hub(), Parrot::default());
    assert_eq!(connection.send(&begun[..8]), b"");
    assert_eq!(connection.send(&begun[8..]), frame(TEXT, b"hello"));
    assert!(connection.waits().1.starts_with(b"\x89"));
}

#[test]
fn who_is_not_listened_to_need_not_answer_a_ping() {
    let mut connection = Connection::open(&new_hub(), Parrot::default());
    connection.send(&masked(BINARY, &[0; 1 << 18]));
    assert!(connection.socket.pause().is_some());
    let interval = Duration::from_secs(30);
    for _ in 0..3 {
        assert_eq!(connection.waits(), (interval, frame(PING, b"")));
    }
    // The pause is over.
    connection.send(b"");
    assert_eq!(connection.waits(), (interval, close_frame(1008, "no answer to a ping")));
}

#[test]
fn a_handler_is_asked_when_its_patience_is_over_between_pings() {
    let parrot = Parrot { patience: Some(Duration::from_secs(20)), ..Parrot::default() };
    let mut connection = Connection::open(&new_hub(), parrot.clone());
    connection.says("here I am");
    parrot.heard();
    assert_eq!(connection.waits(), (Duration::from_secs(20), vec![]));
    assert_eq!(parrot.heard(), ["out of patience after 1 messages"]);
    assert_eq!(connection.waits(), (Duration::from_secs(10), frame(PING, b"")));
    connection.send(&masked(PONG, b""));
    assert_eq!(connection.waits(), (Duration::from_secs(10), vec![]));
    assert_eq!(parrot.heard(), ["out of patience after 1 messages"]);
    // Both at once.
    assert_eq!(connection.waits(), (Duration::from_secs(20), frame(PING, b"")));
    assert_eq!(parrot.heard(), ["out of patience after 1 messages"]);
}

#[test]
fn a_handler_closes_a_client_that_says_nothing() {
    let parrot = Parrot { patience: Some(Duration::from_secs(10)), ..Parrot::default() };
    let mut connection = Connection::open(&new_hub(), parrot);
    assert_eq!(connection.waits(), (Duration::from_secs(10), close_frame(1008, "say something")));
    assert!(connection.is_closed);
}

#[test]
fn a_client_that_is_closed_is_not_pinged_as_well() {
    let parrot = Parrot { patience: Some(Duration::from_secs(30)), ..Parrot::default() };
    let mut connection = Connection::open(&new_hub(), parrot);
    assert_eq!(connection.waits(), (Duration::from_secs(30), close_frame(1008, "say something")));
}

#[test]
fn patience_of_no_length_does_not_keep_the_driver_busy() {
    let parrot = Parrot { patience: Some(Duration::ZERO), ..Parrot::default() };
    let mut connection = Connection::open(&new_hub(), parrot);
    connection.says("here I am");
    assert_eq!(connection.waits().0, Duration::from_millis(1));
    assert_eq!(connection.waits().0, Duration::from_millis(1));
}

#[test]
fn what_a_client_is_told_when_it_lags_or_the_server_ends() {
    let hub = new_hub();
    let mut connection = Connection::open(&hub, Parrot::default());
    let mut out = Vec::new();
    connection.socket.lagging(&mut out);
    assert_eq!(out, close_frame(1008, "too far behind: read faster, or come back"));

    let mut connection = Connection::open(&hub, Parrot::default());
    connection.says("+news");
    connection.says(">last words");
    let mut out = Vec::new();
    connection.socket.shut_down(&mut out);
    assert_eq!(out, [frame(TEXT, b"last words"), close_frame(1001, "the server shuts down")].concat());
    connection.socket.shut_down(&mut out);
    assert_eq!(out.iter().filter(|byte| **byte == CLOSE).count(), 1, "one close frame at most");
}

#[test]
fn a_client_that_goes_without_a_word_reads_no_more() {
    assert!(!Connection::open(&new_hub(), Parrot::default()).socket.reads_after_end_of_input());
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_connection_is_closed_from_elsewhere_after_what_was_published() {
    let parrot = Parrot::default();
    let mut connection = Connection::open(&new_hub(), parrot.clone());
    connection.says("+news");
    connection.says(">goodbye");
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(flag.clone());
    let mut out = Vec::new();
    assert_eq!(connection.socket.poll_close(&mut Context::from_waker(&waker), &mut out), Poll::Pending);
    assert!(!flag.0.load(Ordering::SeqCst));

    let closer = parrot.closers.lock().expect("no panic").pop().expect("it was asked for");
    closer.close(CloseCode::new(4002).expect("a code"), "killed");
    closer.close(CloseCode::NORMAL, "the first counts");
    assert!(flag.0.load(Ordering::SeqCst), "the driver is woken");
    assert_eq!(connection.socket.poll_close(&mut Context::from_waker(&waker), &mut out), Poll::Ready(()));
    assert_eq!(out, [frame(TEXT, b"goodbye"), close_frame(4002, "killed")].concat());
    assert_eq!(connection.socket.receive(b"x", Timestamp::default(), &mut out), Err(Close));

    drop(connection);
    closer.close(CloseCode::NORMAL, "nobody is there");
}

/// Closes while it opens.
struct Rude;

impl Handler for Rude {
    type State = ();

    fn protocol(&self) -> &'static str {
        "rude"
    }

    fn open(&self, client: &mut Client<'_>, _request: &Parts) {
        client.close(CloseCode::TRY_AGAIN_LATER, "full");
    }

    fn message(&self, _state: &mut (), _client: &mut Client<'_>, _message: Incoming<'_>) {
        panic!("it was closed before");
    }
}

#[test]
fn a_connection_that_is_closed_while_it_opens_ends_at_once() {
    let mut connection = Connection::open(&new_hub(), Rude);
    assert_eq!(connection.begins(), close_frame(1013, "full"));
    let mut out = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(connection.socket.poll_close(&mut cx, &mut out), Poll::Ready(()));
    assert_eq!(connection.send(&masked(TEXT, b"x")), b"");
    assert!(connection.is_closed && out.is_empty());
}

/// Every connection delivers the one session.
struct Shared(Arc<watchtower_hub::Session>);

impl Handler for Shared {
    type State = Arc<watchtower_hub::Session>;

    fn protocol(&self) -> &'static str {
        "shared"
    }

    fn open(&self, client: &mut Client<'_>, _request: &Parts) -> Self::State {
        client.subscribe(&name("lost")).expect("there is room");
        self.0.resume(watchtower_hub::WhenLagging::Close);
        client.adopt(self.0.clone());
        self.0.clone()
    }

    fn message(&self, _state: &mut Self::State, _client: &mut Client<'_>, _message: Incoming<'_>) {}

    fn closed(&self, session: Self::State) {
        session.suspend();
    }
}

#[test]
fn a_session_that_was_there_before_is_delivered_and_stays() {
    let hub = new_hub();
    let session = Arc::new(hub.open("shared", watchtower_hub::WhenLagging::Close));
    session.suspend();
    let sender = session.register(Timestamp::default()).expect("there is room");
    session.join(sender, &name("news"), Timestamp::default()).expect("there is room");
    let publish = |text: &str| {
        hub.publish(&name("news"), Publish::new(Content::text(text)), Timestamp::default())
            .expect("it is accepted");
    };
    publish("1");
    let connection = Connection::open(&hub, Shared(session.clone()));
    assert_eq!(connection.hears(), frame(TEXT, b"1"));
    assert_eq!(hub.presence(&name("lost")).map(|presence| presence.len()), Some(0));
    drop(connection);
    publish("2");
    let connection = Connection::open(&hub, Shared(session));
    assert_eq!(connection.hears(), frame(TEXT, b"2"));
}

#[test]
fn an_idle_connection_holds_little_memory() {
    assert!(size_of::<WebSocket>() <= 400, "{}", size_of::<WebSocket>());
}

#[test]
fn what_asks_for_long_answers_waits_until_those_before_are_taken() {
    let mut connection = Connection::open(&new_hub(), Parrot::default());
    let echoed = masked(BINARY, &[0; 1 << 15]);
    let mut out = Vec::new();
    let input = echoed.repeat(3);
    assert_eq!(connection.socket.receive(&input, Timestamp::default(), &mut out), Ok(2 * echoed.len()));
    assert_eq!(connection.socket.receive(&echoed, Timestamp::default(), &mut out), Ok(0));
    assert_eq!(out, frame(BINARY, &[0; 1 << 15]).repeat(2));
    assert_eq!(connection.send(&echoed), frame(BINARY, &[0; 1 << 15]));
}

#[test]
fn who_sends_much_at_once_waits_for_the_turns_of_others() {
    // Few bytes stand for many once they are inflated: the driver is to get a
    // word in between two such messages.
    let mut connection = Connection::open(&new_hub(), Parrot::default());
    let long = masked(BINARY, &[0; 1 << 18]);
    let mut out = Vec::new();
    let taken = connection.socket.receive(&long.repeat(2), Timestamp::from_millis(0), &mut out);
    assert_eq!(taken, Ok(long.len()), "the second is left for later");
    assert_eq!(connection.socket.pause(), Some(Duration::from_millis(1)));
    assert_eq!(connection.socket.pause(), None);
    connection.send(&masked(BINARY, &[0; 1 << 14]).repeat(3));
    assert_eq!(connection.socket.pause(), None, "what fits one turn does not wait");
}
