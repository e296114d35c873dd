//! What the packet page promises of a session, in exact bytes: whole packets
//! in, and out what the client is answered and delivered. No sockets; the
//! order in which a driver writes is [`Stream::send`]'s.

mod bounds;
mod datagrams;
mod durable;
mod errors;
mod kept;
mod properties;
mod rules;

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

/// What follows the acknowledgement of a follow for which not all is kept.
fn goes_on(channel: u32, after: u64) -> Vec<u8> {
    error(9, &format!("channel {channel} goes on after {after}"))
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
