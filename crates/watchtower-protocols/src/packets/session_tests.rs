//! What the packet page promises of a session, in exact bytes: whole packets
//! in, and out what the client is answered and delivered. No sockets; the
//! order in which a driver writes is [`Stream::send`]'s.

mod bounds;
mod durable;
mod kept;
mod properties;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use watchtower_hub::{
    Accepts, Batch, ChannelRule, Drained, Entropy, Hub, Limits, Session, Settings, Timestamp,
};

use super::frame::ERROR_TEXT_BYTES_MAX;
use super::{Admission, Options, PACKET_FORMAT, PacketPeer, PacketStream, Registrar};
use crate::shelf::Shelf;
use crate::stream::{Close, StreamSession};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Counts from 5, so that the first id is that of the documented example.
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

struct Gate {
    open: bool,
    /// How many more it looks at.
    room: AtomicU64,
}

impl Registrar for Gate {
    fn admit(&self, address: IpAddr, secret: Option<&[u8]>) -> Admission {
        assert_eq!(address, ADDRESS);
        if self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1)).is_err() {
            return Admission::TooMany;
        }
        let is_granted = secret.map_or(self.open, |secret| secret == b"tower");
        if is_granted { Admission::Granted } else { Admission::Refused }
    }
}

/// A server without sockets.
struct Tower {
    hub: Hub,
    options: Options,
}

impl Tower {
    fn new() -> Tower {
        Tower::with(Settings::default())
    }

    fn with(settings: Settings) -> Tower {
        let options = Options {
            address: ADDRESS,
            registrar: Arc::new(Gate { open: true, room: AtomicU64::new(u64::MAX) }),
            patience: Duration::from_secs(10),
            errors: Arc::default(),
        };
        Tower { hub: Hub::new(settings, Box::new(Counting(AtomicU64::new(5)))), options }
    }

    /// Every channel is durable, and kept there.
    fn keeping(shelf: &Shelf) -> Tower {
        let rule = ChannelRule { durable: true, ..ChannelRule::default() };
        let settings = Settings { channels: vec![rule], ..Settings::default() };
        let entropy = Box::new(Counting(AtomicU64::new(5)));
        Tower { hub: Hub::with_ledger(settings, entropy, Arc::new(shelf.clone())), ..Tower::new() }
    }

    fn closed() -> Tower {
        let mut tower = Tower::new();
        tower.options.registrar = Arc::new(Gate { open: false, room: AtomicU64::new(u64::MAX) });
        tower
    }

    fn limited(limits: Limits) -> Tower {
        Tower::with(Settings { limits, ..Settings::default() })
    }

    /// Every channel accepts this alone.
    fn accepting(accepts: Accepts) -> Tower {
        let rule = ChannelRule { accepts, ..ChannelRule::default() };
        Tower::with(Settings { channels: vec![rule], ..Settings::default() })
    }

    fn stream(&self) -> Stream {
        Stream {
            session: PacketStream::new(&self.hub, self.options.clone()),
            partial: Vec::new(),
            is_closed: false,
        }
    }

    fn peer(&self) -> Peer {
        Peer(PacketPeer::new(&self.hub, self.options.clone()))
    }

    /// A stream, and the id that it registered.
    fn registered(&self) -> (Stream, u32) {
        let mut stream = self.stream();
        let id = stream.registers();
        (stream, id)
    }

    /// A stream that has joined channel 1, and its id.
    fn joined(&self) -> (Stream, u32) {
        let (mut stream, id) = self.registered();
        assert_eq!(stream.send(&join(id, 1)), ack(1));
        (stream, id)
    }
}

/// A TCP connection as its client sees it.
struct Stream {
    session: PacketStream,
    partial: Vec<u8>,
    is_closed: bool,
}

impl Stream {
    /// What the client reads after it wrote this in one piece.
    fn send(&mut self, input: &[u8]) -> Vec<u8> {
        assert!(!self.is_closed, "nobody reads this any more");
        let mut out = Vec::new();
        self.partial.extend_from_slice(input);
        match self.session.receive(&self.partial, NOW, &mut out) {
            Ok(done) => drop(self.partial.drain(..done)),
            Err(Close) => {
                self.is_closed = true;
                return out;
            }
        }
        out.extend(self.hears());
        out
    }

    /// What the client reads after it wrote this byte by byte.
    fn send_slowly(&mut self, input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in input {
            if self.is_closed {
                break;
            }
            out.extend(self.send(&[*byte]));
        }
        out
    }

    /// What is delivered to the client.
    fn hears(&self) -> Vec<u8> {
        delivered(self.session.session())
    }

    fn registers(&mut self) -> u32 {
        id_in(&self.send(b"R"))
    }
}

/// A UDP address as its client sees it.
struct Peer(PacketPeer);

impl Peer {
    /// What the datagram is answered with.
    fn send(&mut self, datagram: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.0.receive(datagram, NOW, |packet| out.extend_from_slice(&packet));
        out
    }

    fn hears(&self) -> Vec<u8> {
        delivered(self.0.session())
    }

    fn registers(&mut self) -> u32 {
        id_in(&self.send(b"R"))
    }
}

fn delivered(session: &Session) -> Vec<u8> {
    let mut batch = Batch::default();
    assert_eq!(session.drain(&PACKET_FORMAT, None, usize::MAX, &mut batch), Drained::All);
    batch.frames.concat()
}

fn id_in(answer: &[u8]) -> u32 {
    let [b'A', id @ ..] = answer else { panic!("not registered: {answer:?}") };
    u32::from_le_bytes(id.try_into().unwrap())
}

// The bytes of the packet page, written once more by hand: the codec is not
// to vouch for itself.

fn ids(tag: u8, sender: u32, channel: u32) -> Vec<u8> {
    [&[tag][..], &sender.to_le_bytes(), &channel.to_le_bytes()].concat()
}

fn join(sender: u32, channel: u32) -> Vec<u8> {
    ids(b'J', sender, channel)
}

fn leave(sender: u32, channel: u32) -> Vec<u8> {
    ids(b'L', sender, channel)
}

fn follow(sender: u32, channel: u32, offset: u64) -> Vec<u8> {
    [ids(b'F', sender, channel), offset.to_le_bytes().to_vec()].concat()
}

fn sized(content: &[u8]) -> Vec<u8> {
    [&u32::try_from(content.len()).unwrap().to_le_bytes()[..], content].concat()
}

fn say(sender: u32, channel: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    [ids(b'M', sender, channel), sized(content.as_ref())].concat()
}

fn whisper(sender: u32, channel: u32, receivers: &[u32], content: impl AsRef<[u8]>) -> Vec<u8> {
    let count = u16::try_from(receivers.len()).unwrap().to_le_bytes();
    let receivers = receivers.iter().flat_map(|id| id.to_le_bytes()).collect();
    [ids(b'W', sender, channel), count.to_vec(), receivers, sized(content.as_ref())].concat()
}

fn ack(number: u32) -> Vec<u8> {
    [&b"A"[..], &number.to_le_bytes()].concat()
}

fn said(sender: u32, channel: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    [ids(b'M', sender, channel), vec![0, 0], sized(content.as_ref())].concat()
}

fn whispered(sender: u32, channel: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    [ids(b'M', sender, channel), vec![1, 0], sized(content.as_ref())].concat()
}

fn error(code: u8, text: &str) -> Vec<u8> {
    [&[b'E', code, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

const UNKNOWN: &str = "unknown sender";
const ELSEWHERE: &str = "this sender belongs to another connection";
const NOT_JOINED: &str = "join the channel first";
const NO_RECEIVER: &str = "no receiver, or one that has not joined";
const BAD_CONTENT: &str = "the channel does not accept this content";
const LIMIT: &str = "a limit of the server is reached";
const TOO_LARGE_UDP: &str = "content above the limit";
const UNKNOWN_UDP: &str = "unknown packet";
const PARTIAL_UDP: &str = "the datagram ends within a packet";
const DISK: &str = "the channel is durable, and the disk refused the message";
const AGAIN: &str = "the message was not kept: try again";

/// A new client of this server that sends `input` reads `expected`, whether it
/// sends it in one piece or byte by byte; whether it is then still connected.
fn check(tower: impl Fn() -> Tower, input: &[u8], expected: &[u8], stays: bool) {
    let whole = tower();
    let mut client = whole.stream();
    assert_eq!(client.send(input), expected, "whole: {input:?}");
    assert_eq!(!client.is_closed, stays, "whole: {input:?}");
    let slow = tower();
    let mut client = slow.stream();
    assert_eq!(client.send_slowly(input), expected, "byte by byte: {input:?}");
    assert_eq!(!client.is_closed, stays, "byte by byte: {input:?}");
}

/// After `before`, the stream answers `input` with that error, and stays open
/// or not.
fn check_error(tower: impl Fn() -> Tower, before: &[&[u8]], input: &[u8], code: u8, text: &str, stays: bool) {
    type Send = fn(&mut Stream, &[u8]) -> Vec<u8>;
    for send in [Stream::send as Send, Stream::send_slowly as Send] {
        let tower = tower();
        let mut client = tower.stream();
        for packet in before {
            let _ = client.send(packet);
        }
        assert_eq!(send(&mut client, input), error(code, text), "{input:?}");
        assert_eq!(!client.is_closed, stays, "{input:?}");
        if stays {
            assert_eq!(client.send(b"K"), ack(0), "it can be used on after {input:?}");
        }
    }
}

// [packets: worked example]

#[test]
fn the_worked_example_is_answered_byte_for_byte() {
    let input = b"R\x4a\x05\0\0\0\x01\0\0\0\x4d\x05\0\0\0\x01\0\0\0\x0a\0\0\0helloworld";
    let expected = b"\x41\x05\0\0\0\x41\x01\0\0\0\x4d\x05\0\0\0\x01\0\0\0\0\0\x0a\0\0\0helloworld";
    check(Tower::new, input, expected, true);
}

// [packets: client to server]

#[test]
fn the_secret_registers_where_nothing_else_does() {
    check(Tower::closed, b"S\x05tower", &ack(5), true);
    check(Tower::new, b"S\x05tower", &ack(5), true);
    check(Tower::closed, b"R", &error(5, "registration needs the secret: send S"), true);
    check(Tower::closed, b"S\x05towel", &error(5, "wrong secret"), true);
    check(Tower::closed, b"S\0", &error(5, "wrong secret"), true);
    // Even where it is not needed, a wrong one is wrong.
    check(Tower::new, b"S\x05towel", &error(5, "wrong secret"), true);
}

#[test]
fn a_keep_alive_is_acknowledged_with_zero() {
    check(Tower::new, b"K", b"A\0\0\0\0", true);
    check(Tower::new, b"KKK", &ack(0).repeat(3), true);
}

#[test]
fn a_direct_message_reaches_each_named_receiver_once_and_nobody_else() {
    let tower = Tower::new();
    let ((mut a, id_a), (b, id_b), (c, _)) = (tower.joined(), tower.joined(), tower.joined());
    assert_eq!(a.send(&whisper(id_a, 1, &[id_b, id_b, id_b], "psst")), b"");
    assert_eq!(b.hears(), whispered(id_a, 1, "psst"));
    assert_eq!(c.hears(), b"");
    // The sender only when it is named.
    assert_eq!(a.send(&whisper(id_a, 1, &[id_b, id_a], "both")), whispered(id_a, 1, "both"));
    assert_eq!(b.hears(), whispered(id_a, 1, "both"));
    assert_eq!(c.hears(), b"");
}

#[test]
fn a_direct_message_may_name_as_many_receivers_as_its_count_can_say() {
    let tower = Tower::new();
    let ((mut a, id_a), (b, id_b)) = (tower.joined(), tower.joined());
    assert_eq!(a.send(&whisper(id_a, 1, &[id_b; 65_535], "x")), b"");
    assert_eq!(b.hears(), whispered(id_a, 1, "x"));
    let strangers: Vec<u32> = (1_000..1_000 + 65_535).collect();
    assert_eq!(a.send(&whisper(id_a, 1, &strangers, "x")), error(6, NO_RECEIVER));
}

#[test]
fn direct_and_public_messages_come_in_the_order_they_were_published() {
    let tower = Tower::new();
    let ((mut a, id_a), (b, id_b)) = (tower.joined(), tower.joined());
    let packets = [say(id_a, 1, "1"), whisper(id_a, 1, &[id_b], "2"), say(id_a, 1, "3")].concat();
    assert_eq!(a.send(&packets), [said(id_a, 1, "1"), said(id_a, 1, "3")].concat());
    assert_eq!(b.hears(), [said(id_a, 1, "1"), whispered(id_a, 1, "2"), said(id_a, 1, "3")].concat());
}

#[test]
fn content_of_no_bytes_and_of_the_limit_is_delivered_as_it_came() {
    let tower = Tower::new();
    let (mut client, id) = tower.joined();
    for content in [vec![], vec![0xff; 65_535], "caf\u{e9}".into(), br#"{"a":[1, 2]}"#.to_vec()] {
        assert_eq!(client.send(&say(id, 1, &content)), said(id, 1, &content));
    }
}

// [packets: error codes]

#[test]
fn a_byte_that_begins_no_packet_is_error_1_and_ends_the_connection() {
    let text = |byte: u8| format!("no packet begins with byte 0x{byte:02x}; expected one of RSJLMWFK");
    for byte in [0xff, b'r', b'Q', b'A', b'E', b' ', 0x16, b'{', b'7'] {
        let told = text(byte);
        check_error(Tower::new, &[], &[byte], 1, &told, false);
        check_error(Tower::new, &[b"R", &join(5, 1)], &[byte], 1, &told, false);
    }
}

#[test]
fn an_id_that_is_not_registered_is_error_2_whatever_names_it() {
    for id in [0, 6, u32::MAX] {
        for packet in [join(id, 1), leave(id, 1), say(id, 1, "x"), whisper(id, 1, &[5], "x")] {
            check_error(Tower::new, &[b"R", &join(5, 1)], &packet, 2, UNKNOWN, true);
        }
    }
}

#[test]
fn with_bind_ids_the_id_of_another_connection_is_error_2_until_that_is_gone() {
    let tower = Tower::with(Settings { bind_ids: true, ..Settings::default() });
    let (mut owner, id) = tower.joined();
    let mut other = tower.stream();
    for packet in [join(id, 1), leave(id, 1), say(id, 1, "x"), whisper(id, 1, &[id], "x")] {
        assert_eq!(other.send(&packet), error(2, ELSEWHERE), "{packet:?}");
    }
    let mut peer = tower.peer();
    assert_eq!(peer.send(&say(id, 1, "x")), error(2, ELSEWHERE));
    assert_eq!(owner.send(&say(id, 1, "mine")), said(id, 1, "mine"), "it has lost nothing");
    drop(owner);
    assert_eq!(other.send(&say(id, 1, "x")), said(id, 1, "x"));
}

#[test]
fn to_say_or_leave_where_one_has_not_joined_is_error_3() {
    for packet in [say(5, 2, "x"), whisper(5, 2, &[5], "x"), leave(5, 2)] {
        // Channel 2 is not there at all, then it is there without this sender.
        check_error(Tower::new, &[b"R", &join(5, 1)], &packet, 3, NOT_JOINED, true);
        let with_others = || {
            let tower = Tower::new();
            let mut other = tower.stream();
            assert_eq!(other.send(b"RR"), [ack(5), ack(6)].concat());
            assert_eq!(other.send(&join(6, 2)), ack(2));
            tower
        };
        check_error(with_others, &[], &packet, 3, NOT_JOINED, true);
    }
}

#[test]
fn a_length_above_the_limit_is_error_4_before_any_content_and_ends_the_connection() {
    for length in [65_536, 1 << 31, u32::MAX] {
        let text = format!("content of {length} bytes; at most 65535 are accepted");
        for header in [ids(b'M', 5, 1), [ids(b'W', 5, 1), vec![1, 0, 5, 0, 0, 0]].concat()] {
            let packet = [header, length.to_le_bytes().to_vec()].concat();
            check_error(Tower::new, &[b"R", &join(5, 1)], &packet, 4, &text, false);
        }
    }
}

#[test]
fn a_limit_that_is_reached_is_error_5() {
    let senders = || Tower::limited(Limits { senders_max: 2, ..Limits::default() });
    check_error(senders, &[b"RR"], b"R", 5, LIMIT, true);
    let channels_of_one = || Tower::limited(Limits { channels_per_sender_max: 2, ..Limits::default() });
    check_error(channels_of_one, &[b"R", &join(5, 1), &join(5, 2)], &join(5, 3), 5, LIMIT, true);
    let channels = || Tower::limited(Limits { channels_max: 1, ..Limits::default() });
    check_error(channels, &[b"R", &join(5, 1)], &join(5, 2), 5, LIMIT, true);
}

#[test]
fn what_was_joined_before_a_limit_was_reached_goes_on() {
    let tower = Tower::limited(Limits { channels_per_sender_max: 1, ..Limits::default() });
    let (mut client, id) = tower.joined();
    assert_eq!(client.send(&join(id, 2)), error(5, LIMIT));
    assert_eq!(client.send(&join(id, 1)), ack(1));
    assert_eq!(client.send(&[leave(id, 1), join(id, 2)].concat()), [ack(1), ack(2)].concat());
}

#[test]
fn a_receiver_that_has_not_joined_or_none_at_all_is_error_6() {
    let tower = || {
        let tower = Tower::new();
        let mut other = tower.stream();
        assert_eq!(other.send(b"RR"), [ack(5), ack(6)].concat());
        tower
    };
    for receivers in [&[][..], &[0], &[6], &[99], &[5, 6], &[5, 0], &[0, 99, 5]] {
        let packet = whisper(5, 1, receivers, "x");
        check_error(tower, &[&join(5, 1)], &packet, 6, NO_RECEIVER, true);
    }
}

#[test]
fn content_that_the_channel_does_not_accept_is_error_7() {
    let json = || Tower::accepting(Accepts::Json);
    for content in [&b"{"[..], b"", b"hello", b"{} {}", b"\xff"] {
        let packet = say(5, 1, content);
        check_error(json, &[b"R", &join(5, 1)], &packet, 7, BAD_CONTENT, true);
    }
    let text = || Tower::accepting(Accepts::Text);
    check_error(text, &[b"R", &join(5, 1)], &say(5, 1, b"\xff"), 7, BAD_CONTENT, true);
    check_error(text, &[b"R", &join(5, 1)], &whisper(5, 1, &[5], b"\xff"), 7, BAD_CONTENT, true);
}

#[test]
fn content_that_the_channel_accepts_is_kept_byte_for_byte() {
    // [model: projection]
    let tower = Tower::accepting(Accepts::Json);
    let (mut client, id) = tower.joined();
    for content in [r#" { "b" : 1.0e2, "a": "\u00e9" }"#, "null", "\"x\"", "[]"] {
        assert_eq!(client.send(&say(id, 1, content)), said(id, 1, content));
    }
    let tower = Tower::accepting(Accepts::Text);
    let (mut client, id) = tower.joined();
    for content in ["", "{}", "caf\u{e9}"] {
        assert_eq!(client.send(&say(id, 1, content)), said(id, 1, content));
    }
}

#[test]
fn who_falls_behind_too_far_is_told_error_8() {
    let tower = Tower::limited(Limits { lag_messages: 8, ..Limits::default() });
    let ((mut slow, _), (mut quick, id)) = (tower.joined(), tower.joined());
    // Four times the limit, for who had no turn yet.
    for _ in 0..40 {
        assert_eq!(quick.send(&say(id, 1, "x")), said(id, 1, "x"));
    }
    let mut batch = Batch::default();
    let drained = slow.session.session().drain(&PACKET_FORMAT, None, usize::MAX, &mut batch);
    assert_eq!((drained, batch.bytes), (Drained::Lagging, 0));
    let mut out = Vec::new();
    slow.session.lagging(&mut out);
    assert_eq!(out, error(8, "too far behind: read faster, or join again"));
}

#[test]
fn a_shutdown_delivers_what_was_published_and_says_error_8() {
    let tower = Tower::new();
    let ((mut a, id), (mut b, _)) = (tower.joined(), tower.joined());
    assert_eq!(a.send(&say(id, 1, "last")), said(id, 1, "last"));
    let mut out = Vec::new();
    b.session.shut_down(&mut out);
    assert_eq!(out, [said(id, 1, "last"), error(8, "the server shuts down")].concat());
}

#[test]
fn of_several_errors_the_first_of_4_2_3_7_6_is_told() {
    // [packets: rules]
    let tower = || {
        let tower = Tower::accepting(Accepts::Json);
        let mut other = tower.stream();
        assert_eq!(other.send(b"R"), ack(5));
        assert_eq!(other.send(&join(5, 1)), ack(1));
        tower
    };
    const BAD: &[u8] = b"not JSON";
    let large = |header: Vec<u8>| [header, 65_536u32.to_le_bytes().to_vec()].concat();
    let (too_large, one_receiver) =
        ("content of 65536 bytes; at most 65535 are accepted", [1, 0, 99, 0, 0, 0]);
    // Unknown, not joined, bad content, no receiver: all of it, then ever less.
    for (packet, code, text) in [
        (large([ids(b'W', 99, 2), one_receiver.to_vec()].concat()), 4, too_large),
        (large(ids(b'M', 99, 2)), 4, too_large),
        (large(ids(b'M', 5, 2)), 4, too_large),
        (whisper(99, 2, &[99], BAD), 2, UNKNOWN),
        (say(99, 2, BAD), 2, UNKNOWN),
        (whisper(5, 2, &[99], BAD), 3, NOT_JOINED),
        (whisper(5, 2, &[], BAD), 3, NOT_JOINED),
        (say(5, 2, BAD), 3, NOT_JOINED),
        (whisper(5, 1, &[99], BAD), 7, BAD_CONTENT),
        (whisper(5, 1, &[], BAD), 7, BAD_CONTENT),
        (whisper(5, 1, &[99], "{}"), 6, NO_RECEIVER),
        (whisper(5, 1, &[0], "{}"), 6, NO_RECEIVER),
    ] {
        check_error(tower, &[], &packet, code, text, code != 4);
    }
}

#[test]
fn what_is_refused_is_delivered_to_nobody() {
    // [model: delivery promises]
    let tower = Tower::new();
    let ((mut a, id_a), (b, id_b)) = (tower.joined(), tower.joined());
    for packet in [say(99, 1, "x"), say(id_a, 2, "x"), whisper(id_a, 1, &[id_b, 99], "x")] {
        assert_eq!(a.send(&packet)[0], b'E', "{packet:?}");
        assert_eq!(b.hears(), b"");
    }
}

// [packets: rules]

#[test]
fn cr_lf_and_nul_between_packets_are_skipped() {
    check(Tower::new, b"R\n", &ack(5), true);
    check(Tower::new, b"\r\n\0R\0\0\0\0", &ack(5), true);
    let input = [b"\0R\r\n".to_vec(), join(5, 1), b"\0\0\0".to_vec(), say(5, 1, "\0\n"), b"\n".to_vec()];
    check(Tower::new, &input.concat(), &[ack(5), ack(1), said(5, 1, "\0\n")].concat(), true);
}

#[test]
fn endless_padding_is_done_with_at_once() {
    let tower = Tower::new();
    let mut client = tower.stream();
    assert_eq!(client.send(&[0; 65_536]), b"");
    assert_eq!(client.partial, b"");
    assert!(client.session.patience().is_some(), "padding is not what a client must say first");
}

#[test]
fn padding_before_half_a_packet_is_not_kept() {
    let tower = Tower::new();
    let mut client = tower.stream();
    assert_eq!(client.send(&[&[0; 60_000][..], b"J"].concat()), b"");
    assert!(client.partial == b"J", "each byte that follows would be searched for from the start");
}

#[test]
fn the_acknowledgement_of_a_join_precedes_the_first_message() {
    check(
        Tower::new,
        &[b"R".to_vec(), join(5, 1), say(5, 1, "x")].concat(),
        &[ack(5), ack(1), said(5, 1, "x")].concat(),
        true,
    );
}

#[test]
fn a_join_starts_at_the_end_of_the_channel() {
    let tower = Tower::new();
    let (mut a, id_a) = tower.joined();
    assert_eq!(a.send(&say(id_a, 1, "before")), said(id_a, 1, "before"));
    let (b, _) = tower.joined();
    assert_eq!(a.send(&say(id_a, 1, "after")), said(id_a, 1, "after"));
    assert_eq!(b.hears(), said(id_a, 1, "after"));
}

#[test]
fn joining_twice_changes_nothing() {
    let tower = Tower::new();
    let (mut client, id) = tower.joined();
    let packets = [say(id, 1, "1"), join(id, 1), say(id, 1, "2")].concat();
    assert_eq!(client.send(&packets), [ack(1), said(id, 1, "1"), said(id, 1, "2")].concat());
}

#[test]
fn the_acknowledgement_of_a_leave_follows_the_last_message() {
    let tower = Tower::new();
    let ((mut a, id_a), (mut b, id_b)) = (tower.joined(), tower.joined());
    assert_eq!(a.send(&say(id_a, 1, "last")), said(id_a, 1, "last"));
    assert_eq!(b.send(&leave(id_b, 1)), [said(id_a, 1, "last"), ack(1)].concat());
    assert_eq!(a.send(&say(id_a, 1, "later")), said(id_a, 1, "later"));
    assert_eq!(b.hears(), b"");
    // In one read with what it says itself, too.
    let packets = [say(id_a, 1, "bye"), leave(id_a, 1), say(id_a, 1, "x")].concat();
    assert_eq!(a.send(&packets), [said(id_a, 1, "bye"), ack(1), error(3, NOT_JOINED)].concat());
}

#[test]
fn a_leave_from_a_new_connection_is_acknowledged_after_what_was_missed() {
    let tower = Tower::new();
    let ((mut a, id_a), (b, id_b)) = (tower.joined(), tower.joined());
    drop(b);
    assert_eq!(a.send(&say(id_a, 1, "missed")), said(id_a, 1, "missed"));
    let mut b = tower.stream();
    assert_eq!(b.send(&leave(id_b, 1)), [said(id_a, 1, "missed"), ack(1)].concat());
}

#[test]
fn joining_again_after_a_leave_starts_at_the_end() {
    let tower = Tower::new();
    let ((mut a, id_a), (mut b, id_b)) = (tower.joined(), tower.joined());
    assert_eq!(b.send(&leave(id_b, 1)), ack(1));
    assert_eq!(a.send(&say(id_a, 1, "unheard")), said(id_a, 1, "unheard"));
    assert_eq!(b.send(&join(id_b, 1)), ack(1));
    assert_eq!(b.hears(), b"");
}

#[test]
fn what_was_published_before_a_packet_that_closes_is_delivered_before_the_error() {
    let tower = Tower::new();
    let ((mut a, id_a), (mut b, id_b)) = (tower.joined(), tower.joined());
    assert_eq!(a.send(&say(id_a, 1, "of another")), said(id_a, 1, "of another"));
    let out = b.send(&[say(id_b, 1, "its own"), b"?".to_vec(), say(id_b, 1, "never")].concat());
    let told = error(1, "no packet begins with byte 0x3f; expected one of RSJLMWFK");
    assert_eq!(out, [said(id_a, 1, "of another"), said(id_b, 1, "its own"), told].concat());
    assert!(b.is_closed);
    assert_eq!(a.hears(), said(id_b, 1, "its own"), "what follows the packet is not carried out");
}

#[test]
fn who_lags_is_told_of_what_closes_the_connection_all_the_same() {
    let lagging = || {
        let tower = Tower::limited(Limits { lag_messages: 8, ..Limits::default() });
        let ((slow, id), (mut quick, other)) = (tower.joined(), tower.joined());
        for _ in 0..40 {
            assert_eq!(quick.send(&say(other, 1, "x")), said(other, 1, "x"));
        }
        (tower, slow, id)
    };
    let (_tower, mut slow, _) = lagging();
    assert_eq!(slow.send(b"?"), error(1, "no packet begins with byte 0x3f; expected one of RSJLMWFK"));
    let (_tower, mut slow, id) = lagging();
    assert_eq!(slow.send(&leave(id, 1)), error(8, "too far behind: read faster, or join again"));
    assert!(slow.is_closed);
    let (_tower, mut slow, _) = lagging();
    let mut out = Vec::new();
    slow.session.shut_down(&mut out);
    assert_eq!(out, error(8, "the server shuts down"));
}

#[test]
fn one_connection_may_use_every_id_that_it_registered() {
    let tower = Tower::new();
    let (mut client, id) = tower.joined();
    let second = client.registers();
    assert_ne!(id, second);
    assert_eq!(client.send(&join(second, 2)), ack(2));
    assert_eq!(client.send(&say(id, 1, "1")), said(id, 1, "1"));
    assert_eq!(client.send(&say(second, 2, "2")), said(second, 2, "2"));
    // Each has joined its own channel only.
    assert_eq!(client.send(&say(id, 2, "x")), error(3, NOT_JOINED));
}

#[test]
fn two_ids_of_one_connection_in_one_channel_are_one_copy() {
    let tower = Tower::new();
    let ((mut a, id_a), (mut b, first)) = (tower.joined(), tower.joined());
    let second = b.registers();
    assert_eq!(b.send(&join(second, 1)), ack(1));
    assert_eq!(a.send(&say(id_a, 1, "once")), said(id_a, 1, "once"));
    assert_eq!(b.hears(), said(id_a, 1, "once"));
    assert_eq!(a.send(&whisper(id_a, 1, &[first, second], "psst")), b"");
    assert_eq!(b.hears(), whispered(id_a, 1, "psst"));
    // When one of them leaves, the other goes on.
    assert_eq!(b.send(&leave(first, 1)), ack(1));
    assert_eq!(a.send(&say(id_a, 1, "more")), said(id_a, 1, "more"));
    assert_eq!(b.hears(), said(id_a, 1, "more"));
    assert_eq!(a.send(&whisper(id_a, 1, &[first], "gone")), error(6, NO_RECEIVER));
    assert_eq!(b.send(&leave(second, 1)), ack(1));
    assert_eq!(a.send(&say(id_a, 1, "unheard")), said(id_a, 1, "unheard"));
    assert_eq!(b.hears(), b"");
}

#[test]
fn whatever_names_an_id_moves_its_delivery_to_that_connection() {
    for attach in [|id| join(id, 2), |id| say(id, 1, "x"), |id| leave(id, 2), |id| whisper(id, 1, &[id], "x")]
    {
        let tower = Tower::new();
        let ((mut a, id_a), (mut b, id)) = (tower.joined(), tower.joined());
        assert_eq!(b.send(&join(id, 2)), ack(2));
        let mut moved = tower.stream();
        let _ = moved.send(&attach(id));
        let _ = a.hears();
        assert_eq!(a.send(&say(id_a, 1, "here")), said(id_a, 1, "here"));
        assert_eq!(b.hears(), b"", "delivery moves to the newest");
        assert_eq!(moved.hears(), said(id_a, 1, "here"));
    }
}

#[test]
fn what_a_connection_has_not_been_given_yet_moves_with_the_id() {
    let tower = Tower::new();
    let ((mut a, id_a), (b, id_b)) = (tower.joined(), tower.joined());
    assert_eq!(a.send(&say(id_a, 1, "1")), said(id_a, 1, "1"));
    assert_eq!(b.hears(), said(id_a, 1, "1"));
    assert_eq!(a.send(&say(id_a, 1, "2")), said(id_a, 1, "2"));
    let mut newer = tower.stream();
    assert_eq!(newer.send(&join(id_b, 1)), [ack(1), said(id_a, 1, "2")].concat());
    assert_eq!(b.hears(), b"");
}

#[test]
fn a_keep_alive_or_a_registration_moves_no_id() {
    let tower = Tower::new();
    let ((mut a, id_a), (b, _)) = (tower.joined(), tower.joined());
    let mut other = tower.stream();
    let _ = other.send(b"KR");
    assert_eq!(a.send(&say(id_a, 1, "here")), said(id_a, 1, "here"));
    assert_eq!(b.hears(), said(id_a, 1, "here"));
    assert_eq!(other.hears(), b"");
}

#[test]
fn a_join_survives_a_reconnect_with_what_was_missed_meanwhile() {
    let tower = Tower::new();
    let ((mut a, id_a), (b, id_b)) = (tower.joined(), tower.joined());
    drop(b);
    let packets = [say(id_a, 1, "1"), whisper(id_a, 1, &[id_b], "2"), say(id_a, 1, "3")].concat();
    assert_eq!(a.send(&packets), [said(id_a, 1, "1"), said(id_a, 1, "3")].concat());
    let missed = [said(id_a, 1, "1"), whispered(id_a, 1, "2"), said(id_a, 1, "3")].concat();
    let mut b = tower.stream();
    assert_eq!(b.send(&join(id_b, 1)), [ack(1), missed].concat());
}

#[test]
fn after_session_ttl_a_join_is_over() {
    let tower = Tower::with(Settings { session_ttl: Duration::from_secs(120), ..Settings::default() });
    tower.hub.tick(NOW);
    let ((mut a, id_a), (b, id_b)) = (tower.joined(), tower.joined());
    drop(b);
    tower.hub.tick(NOW.after(Duration::from_secs(119)));
    assert_eq!(a.send(&whisper(id_a, 1, &[id_b], "1")), b"", "it is still there");
    tower.hub.tick(NOW.after(Duration::from_secs(121)));
    assert_eq!(a.send(&whisper(id_a, 1, &[id_b], "2")), error(6, NO_RECEIVER));
    let mut b = tower.stream();
    assert_eq!(b.send(&say(id_b, 1, "x")), error(3, NOT_JOINED));
    assert_eq!(b.send(&join(id_b, 1)), ack(1), "the registration outlives the join");
}

#[test]
fn a_client_owes_its_first_packet_and_the_rest_of_one_it_has_begun() {
    // [running: header_timeout]
    let tower = Tower::new();
    let mut client = tower.stream();
    let patience = Some(Duration::from_secs(10));
    assert_eq!(client.session.patience(), patience);
    let _ = client.send(b"\r\n");
    assert_eq!(client.session.patience(), patience);
    let _ = client.send(b"R");
    assert_eq!(client.session.patience(), None);
    let _ = client.send(b"\0");
    assert_eq!(client.session.patience(), None);
    let _ = client.send(b"J\x05");
    assert_eq!(client.session.patience(), patience);
    let mut out = Vec::new();
    assert_eq!(client.session.out_of_patience(Timestamp::default(), &mut out), Err(Close));
    assert_eq!(out, error(5, "nothing came, or half a packet, for too long"));
}

// [packets: rules, UDP]

#[test]
fn a_datagram_holds_one_or_more_whole_packets() {
    let tower = Tower::new();
    let mut peer = tower.peer();
    assert_eq!(peer.send(b"R"), ack(5));
    let packets = [join(5, 1), say(5, 1, "1"), b"\0\r\n".to_vec(), say(5, 1, "2"), b"K".to_vec()];
    assert_eq!(peer.send(&packets.concat()), [ack(1), ack(0)].concat());
    assert_eq!(peer.hears(), [said(5, 1, "1"), said(5, 1, "2")].concat());
}

#[test]
fn the_documented_example_works_over_udp() {
    let tower = Tower::new();
    let mut peer = tower.peer();
    assert_eq!(peer.send(b"R\n"), ack(5));
    assert_eq!(peer.send(&join(5, 1)), ack(1));
    assert_eq!(peer.send(&say(5, 1, "helloworld")), b"");
    assert_eq!(peer.hears(), said(5, 1, "helloworld"));
}

#[test]
fn of_a_datagram_that_ends_within_a_packet_the_whole_ones_are_carried_out() {
    let packet = say(5, 1, "never");
    for length in 1..packet.len() {
        let tower = Tower::new();
        let mut peer = tower.peer();
        let _ = peer.send(b"R");
        let _ = peer.send(&join(5, 1));
        let datagram = [&say(5, 1, "whole"), &packet[..length]].concat();
        assert_eq!(peer.send(&datagram), error(1, PARTIAL_UDP));
        assert_eq!(peer.hears(), said(5, 1, "whole"));
        // A next datagram is not the rest of the last.
        assert_eq!(peer.send(b"K"), ack(0));
    }
}

#[test]
fn an_empty_datagram_and_one_of_padding_are_ignored() {
    let tower = Tower::new();
    let mut peer = tower.peer();
    for datagram in [&b""[..], b"\0", b"\r\n\0\0"] {
        assert_eq!(peer.send(datagram), b"");
    }
}

#[test]
fn a_datagram_that_cannot_be_read_on_is_answered_once_and_the_rest_ignored() {
    let tower = Tower::new();
    let mut peer = tower.peer();
    let id = peer.registers();
    assert_eq!(peer.send(&join(id, 1)), ack(1));
    assert_eq!(peer.send(b"K?KKKK"), [ack(0), error(1, UNKNOWN_UDP)].concat());
    let large = [ids(b'M', 5, 1), u32::MAX.to_le_bytes().to_vec()].concat();
    assert_eq!(peer.send(&[large, b"KK".to_vec()].concat()), error(4, TOO_LARGE_UDP));
    assert_eq!(peer.send(b"K"), ack(0), "a peer is not closed");
}

#[test]
fn every_error_is_answered_over_udp_as_over_tcp() {
    let tower = Tower::accepting(Accepts::Json);
    let mut peer = tower.peer();
    let _ = peer.send(b"R");
    let _ = peer.send(&join(5, 1));
    for (packet, code, text) in [
        (say(99, 1, "{}"), 2, UNKNOWN),
        (say(0, 1, "{}"), 2, UNKNOWN),
        (say(5, 2, "{}"), 3, NOT_JOINED),
        (leave(5, 2), 3, NOT_JOINED),
        (b"S\x01x".to_vec(), 5, "wrong secret"),
        (follow(99, 1, 0), 2, UNKNOWN),
        (whisper(5, 1, &[99], "{}"), 6, NO_RECEIVER),
        (say(5, 1, "{"), 7, BAD_CONTENT),
    ] {
        assert_eq!(peer.send(&packet), error(code, text));
    }
}

#[test]
fn a_new_address_takes_an_id_along() {
    // NAT rebinding.
    let tower = Tower::new();
    let (mut a, id_a) = tower.joined();
    let mut old = tower.peer();
    let id = old.registers();
    assert_eq!(old.send(&join(id, 1)), ack(1));
    let mut new = tower.peer();
    assert!(!new.0.is_registered());
    assert_eq!(new.send(&say(id, 1, "moved")), b"");
    assert!(new.0.is_registered() && !old.0.is_registered());
    assert_eq!(a.hears(), said(id, 1, "moved"));
    assert_eq!(a.send(&say(id_a, 1, "here")), said(id_a, 1, "here"));
    assert_eq!(old.hears(), b"");
    assert_eq!(new.hears(), [said(id, 1, "moved"), said(id_a, 1, "here")].concat());
}

#[test]
fn an_id_moves_between_a_connection_and_an_address() {
    let tower = Tower::new();
    let (mut a, id_a) = tower.joined();
    let (stream, id) = tower.joined();
    let mut peer = tower.peer();
    assert_eq!(peer.send(&join(id, 1)), ack(1));
    assert_eq!(a.send(&say(id_a, 1, "1")), said(id_a, 1, "1"));
    assert_eq!((stream.hears(), peer.hears()), (vec![], said(id_a, 1, "1")));
    let mut stream = stream;
    assert_eq!(stream.send(&join(id, 1)), ack(1));
    assert_eq!(a.send(&say(id_a, 1, "2")), said(id_a, 1, "2"));
    assert_eq!((stream.hears(), peer.hears()), (said(id_a, 1, "2"), vec![]));
}

#[test]
fn the_acknowledgement_of_a_leave_follows_the_last_message_over_udp_too() {
    // [packets: rules] "`A` for a leave follows its last."
    let tower = Tower::new();
    let (mut other, other_id) = tower.joined();
    let mut peer = tower.peer();
    let id = peer.registers();
    assert_eq!(peer.send(&join(id, 1)), ack(1));
    let _ = other.send(&[say(other_id, 1, "1"), whisper(other_id, 1, &[id], "2")].concat());
    let last = [said(other_id, 1, "1"), whispered(other_id, 1, "2"), ack(1)].concat();
    assert_eq!(peer.send(&leave(id, 1)), last);
    assert_eq!(peer.hears(), b"");
    // What it missed at its old address comes to the new one, which shows the id.
    assert_eq!(peer.send(&join(id, 1)), ack(1));
    let _ = other.send(&say(other_id, 1, "3"));
    let mut moved = tower.peer();
    assert_eq!(moved.send(&leave(id, 1)), [said(other_id, 1, "3"), ack(1)].concat());
    // A refusal delivers nothing to whom nothing is known of.
    assert_eq!(tower.peer().send(&leave(99, 1)), error(2, UNKNOWN));
}

#[test]
fn a_peer_that_falls_behind_skips_ahead() {
    let tower = Tower::limited(Limits { lag_messages: 8, ..Limits::default() });
    let (mut quick, id) = tower.joined();
    let mut peer = tower.peer();
    let other = peer.registers();
    assert_eq!(peer.send(&join(other, 1)), ack(1));
    for number in 0..20 {
        let text = number.to_string();
        assert_eq!(quick.send(&say(id, 1, &text)), said(id, 1, &text));
    }
    let kept: Vec<u8> = (12..20).flat_map(|number| said(id, 1, number.to_string())).collect();
    assert_eq!(peer.hears(), kept, "the last ones, and it goes on");
    assert_eq!(quick.send(&say(id, 1, "next")), said(id, 1, "next"));
    assert_eq!(peer.hears(), said(id, 1, "next"));
    assert_eq!(tower.hub.counts().lagging_skipped, 12, "nothing is dropped silently");
}

#[test]
fn to_an_unregistered_address_an_answer_is_one_packet_or_no_longer_than_the_datagram() {
    let tower = Tower::new();
    let answered = |datagram: &[u8]| tower.peer().send(datagram);
    assert_eq!(answered(b"KKKK"), ack(0), "a second one would make it longer");
    assert_eq!(answered(b"RRRR").len(), 5);
    // Ten bytes may be answered with ten.
    assert_eq!(answered(&[b'K'; 10]), ack(0).repeat(2));
    assert_eq!(answered(b"?"), error(1, UNKNOWN_UDP));
    assert_eq!(answered(&join(99, 1).repeat(2)), error(2, UNKNOWN));
    // 14 + 3 bytes each, in four times nine.
    assert_eq!(answered(&join(99, 1).repeat(4)), error(2, UNKNOWN).repeat(2));
}

#[test]
fn a_registration_alone_proves_nothing_about_an_address() {
    // Whoever makes up an address does not hear the id.
    let tower = Tower::new();
    let mut peer = tower.peer();
    let id = peer.registers();
    assert!(!peer.0.is_registered());
    assert_eq!(peer.send(&[b'K'; 9]), ack(0));
    assert_eq!(peer.send(&[join(0, 1), b"KK".to_vec()].concat()), error(2, UNKNOWN));
    assert_eq!(peer.send(&[follow(0, 1, 0), b"KK".to_vec()].concat()), error(2, UNKNOWN));
    assert!(!peer.0.is_registered());
    assert_eq!(peer.send(&join(id, 1)), ack(1));
    assert!(peer.0.is_registered());
    assert_eq!(peer.send(&[b'K'; 9]), ack(0).repeat(9));
}

#[test]
fn a_registration_that_could_not_be_answered_is_not_made() {
    let tower = Tower::new();
    let mut peer = tower.peer();
    assert_eq!(peer.send(&[b'R'; 1_000]).len(), 1_000);
    assert_eq!(tower.hub.counts().senders, 200);
}

#[test]
fn the_texts_of_errors_are_short_and_printable() {
    for text in [
        UNKNOWN,
        ELSEWHERE,
        NOT_JOINED,
        NO_RECEIVER,
        BAD_CONTENT,
        LIMIT,
        TOO_LARGE_UDP,
        UNKNOWN_UDP,
        PARTIAL_UDP,
        DISK,
        AGAIN,
    ] {
        assert!(text.len() <= ERROR_TEXT_BYTES_MAX && text.is_ascii(), "{text}");
    }
}
