//! What holds for any input: however it is cut, whatever it is made of, and
//! whoever else talks at the same time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::frame::{Decoded, Limits, ServerPacket};
use super::*;

/// Ids and channels that there are, and some that there are not.
fn any_id() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 5..7u32, 1 => Just(0), 1 => any::<u32>()]
}

fn any_channel() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 1..3u32, 1 => any::<u32>()]
}

fn any_content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..40), Just(b"{\"a\":1}".to_vec()), Just(vec![b'x'; 2_000])]
}

fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let pair = || (any_id(), any_channel());
    prop_oneof![
        1 => Just(b"R".to_vec()),
        1 => Just(b"K".to_vec()),
        1 => Just(b"\r\n\0".to_vec()),
        1 => vec(any::<u8>(), 0..6).prop_map(|secret| [&[b'S', secret.len() as u8], &secret[..]].concat()),
        1 => (pair(), any::<u64>())
            .prop_map(|((id, channel), offset)| [ids(b'F', id, channel), offset.to_le_bytes().to_vec()].concat()),
        3 => pair().prop_map(|(id, channel)| join(id, channel)),
        2 => pair().prop_map(|(id, channel)| leave(id, channel)),
        6 => (pair(), any_content()).prop_map(|((id, channel), content)| say(id, channel, content)),
        3 => (pair(), vec(any_id(), 0..4), any_content())
            .prop_map(|((id, channel), receivers, content)| whisper(id, channel, &receivers, content)),
    ]
}

/// Packets one after the other; some streams end in what ends a connection.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![
        6 => Just(vec![]),
        1 => Just(b"?".to_vec()),
        1 => Just([ids(b'M', 5, 1), vec![0xff; 4]].concat()),
    ];
    (vec(any_packet(), 0..30), end).prop_map(|(packets, end)| [packets.concat(), end].concat())
}

/// The packets in what a client read.
fn packets(mut bytes: &[u8]) -> Vec<ServerPacket<'_>> {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        let limits = Limits { content_bytes_max: u32::MAX };
        let Decoded::Packet { packet, consumed } = ServerPacket::decode(bytes, limits) else {
            panic!("a server sends whole packets alone: {bytes:?}");
        };
        packets.push(packet);
        bytes = &bytes[consumed..];
    }
    packets
}

/// How long an answer is.
fn bytes(packet: &ServerPacket<'_>) -> usize {
    match packet {
        ServerPacket::Error { text, .. } => 3 + text.len(),
        _ => 5,
    }
}

fn is_message(packet: &ServerPacket<'_>) -> bool {
    matches!(packet, ServerPacket::Message { .. })
}

/// What a client is answered, and what it is delivered by each channel. How
/// the two interleave depends on what came in one piece.
fn answers_and_messages(out: &[u8]) -> (Vec<ServerPacket<'_>>, BTreeMap<u32, Vec<ServerPacket<'_>>>) {
    let (mut answers, mut messages) = (Vec::new(), BTreeMap::<u32, Vec<_>>::new());
    for packet in packets(out) {
        match packet {
            ServerPacket::Message { channel, .. } => messages.entry(channel).or_default().push(packet),
            // Where it goes on depends on what was delivered before.
            ServerPacket::Error { code: 9, .. } => answers.push(ServerPacket::Error { code: 9, text: b"" }),
            answer => answers.push(answer),
        }
    }
    (answers, messages)
}

/// A server with one client, which has registered ids 5 and 6.
fn one_client() -> (Tower, Stream) {
    let tower = Tower::new();
    let mut client = tower.stream();
    assert_eq!(client.send(b"RR"), [ack(5), ack(6)].concat());
    (tower, client)
}

proptest! {
    #[test]
    fn a_stream_is_answered_the_same_however_it_is_split(
        input in any_stream(),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let (_tower, mut client) = one_client();
        let whole = client.send(&input);
        let ends_open = !client.is_closed;

        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let (_tower, mut client) = one_client();
        let mut pieces = Vec::new();
        for piece in cuts.windows(2) {
            if !client.is_closed {
                pieces.extend(client.send(&input[piece[0]..piece[1]]));
            }
        }
        prop_assert_eq!(answers_and_messages(&pieces), answers_and_messages(&whole));
        prop_assert_eq!(!client.is_closed, ends_open);
    }

    #[test]
    fn any_bytes_are_answered_in_whole_packets_without_a_panic(
        pieces in vec(prop_oneof![vec(any::<u8>(), 0..60), any_packet(), vec(0..96u8, 0..30)], 0..20),
    ) {
        let (_tower, mut client) = one_client();
        for piece in &pieces {
            if client.is_closed {
                break;
            }
            let out = client.send(piece);
            let told = packets(&out);
            prop_assert!(told.iter().all(is_short), "{:?}", told);
            let ended = told.iter().any(|packet| matches!(packet, ServerPacket::Error { code: 1 | 4, .. }));
            prop_assert_eq!(client.is_closed, ended);
            let longest = Limits { content_bytes_max: 65_535 }.packet_bytes_max();
            prop_assert!(client.partial.len() < longest);
        }

        let tower = Tower::new();
        let mut peer = tower.peer();
        for piece in &pieces {
            prop_assert!(packets(&peer.send(piece)).iter().all(is_short));
            let _ = packets(&peer.hears());
        }
    }

    #[test]
    fn an_unregistered_address_is_never_answered_with_much_more_than_it_sent(
        datagram in prop_oneof![
            any_stream(),
            vec(any::<u8>(), 0..100),
            vec(prop_oneof![Just(b'R'), Just(b'K'), Just(b'?'), Just(0)], 0..100),
        ],
        known in any::<bool>(),
    ) {
        // Ids 5 and 6 may belong to somebody who lends them to the datagram.
        let tower = Tower::new();
        let _owner = known.then(|| {
            let mut owner = tower.stream();
            assert_eq!(owner.send(b"RR"), [ack(5), ack(6)].concat());
            owner
        });
        let mut peer = tower.peer();
        let sent = peer.send(&datagram);
        let mut told = packets(&sent);
        // Ahead of a leave's acknowledgement, to who has shown an id; and the last, behind
        // that of a follow.
        let is_incomplete = |packet: &ServerPacket<'_>| matches!(packet, ServerPacket::Error { code: 9, .. });
        prop_assert!(peer.0.has_shown_id || !told.iter().any(|one| is_message(one) || is_incomplete(one)));
        told.retain(|packet| !is_message(packet));
        told.pop_if(|last| is_incomplete(last));
        let answered: usize = told.iter().map(bytes).sum();
        prop_assert!(
            answered <= datagram.len() || told.len() == 1 && answered <= 3 + ERROR_TEXT_BYTES_MAX,
            "{} bytes for {}: {:?}", answered, datagram.len(), told
        );
    }

    #[test]
    fn everyone_hears_everything_once_and_in_order_while_it_has_joined(steps in vec(any_step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.check();
    }
}

/// [packets: rules]: text of at most 60 bytes, and of those that there are.
fn is_short(packet: &ServerPacket<'_>) -> bool {
    match packet {
        ServerPacket::Error { code, text } => (1..=9).contains(code) && text.len() <= 60 && text.is_ascii(),
        _ => true,
    }
}

/// Something that one of a few devices does.
#[derive(Debug, Clone)]
enum Step {
    Join(usize, u32),
    Leave(usize, u32),
    Say(usize, u32),
    Whisper(usize, u32, Vec<usize>),
    /// Reads what is there for it.
    Read(usize),
    /// Goes on by a new connection or from a new address; the old one may
    /// still be there.
    Reconnect {
        device: usize,
        by_udp: bool,
        old_stays: bool,
    },
}

const DEVICES: usize = 4;

fn any_step() -> impl Strategy<Value = Step> {
    let device = || 0..DEVICES;
    let channel = || 1..3u32;
    prop_oneof![
        3 => (device(), channel()).prop_map(|(device, channel)| Step::Join(device, channel)),
        1 => (device(), channel()).prop_map(|(device, channel)| Step::Leave(device, channel)),
        6 => (device(), channel()).prop_map(|(device, channel)| Step::Say(device, channel)),
        2 => (device(), channel(), vec(device(), 0..4))
            .prop_map(|(device, channel, receivers)| Step::Whisper(device, channel, receivers)),
        3 => device().prop_map(Step::Read),
        2 => (device(), any::<bool>(), any::<bool>())
            .prop_map(|(device, by_udp, old_stays)| Step::Reconnect { device, by_udp, old_stays }),
    ]
}

enum Link {
    Tcp(Stream),
    Udp(Peer),
}

impl Link {
    fn send(&mut self, packet: &[u8]) -> Vec<u8> {
        match self {
            Link::Tcp(stream) => stream.send(packet),
            Link::Udp(peer) => [peer.send(packet), peer.hears()].concat(),
        }
    }

    fn hears(&self) -> Vec<u8> {
        match self {
            Link::Tcp(stream) => stream.hears(),
            Link::Udp(peer) => peer.hears(),
        }
    }
}

struct Device {
    id: u32,
    link: Link,
    joined: BTreeSet<u32>,
    heard: Vec<u8>,
    /// What the page promises that it hears, by channel, in order.
    promised: BTreeMap<u32, Vec<u8>>,
}

/// A server with a few devices, and what each of them is owed.
struct World {
    tower: Tower,
    devices: Vec<Device>,
    /// Connections that their devices have forgotten.
    stale: Vec<Link>,
    messages: u32,
}

impl World {
    fn new() -> World {
        let tower = Tower::new();
        let device = |_| {
            let (stream, id) = tower.registered();
            let (joined, heard, promised) = Default::default();
            Device { id, link: Link::Tcp(stream), joined, heard, promised }
        };
        let devices = (0..DEVICES).map(device).collect();
        World { tower, devices, stale: Vec::new(), messages: 0 }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Join(device, channel) => {
                let device = &mut self.devices[device];
                device.send(&join(device.id, channel));
                device.joined.insert(channel);
            }
            Step::Leave(device, channel) => {
                let device = &mut self.devices[device];
                if let Link::Udp(_) = device.link {
                    // A datagram with the answer holds no messages: what an
                    // address is still owed must be on its way before.
                    device.send(&join(device.id, 3));
                    device.read();
                }
                device.send(&leave(device.id, channel));
                device.joined.remove(&channel);
            }
            Step::Say(device, channel) => {
                let (id, text) = (self.devices[device].id, self.next_text());
                if self.devices[device].joined.contains(&channel) {
                    let all: Vec<usize> = (0..DEVICES).collect();
                    self.promise(&all, channel, &said(id, channel, &text));
                }
                self.devices[device].send(&say(id, channel, &text));
            }
            Step::Whisper(device, channel, ref receivers) => {
                let (id, text) = (self.devices[device].id, self.next_text());
                let is_in = |device: &usize| self.devices[*device].joined.contains(&channel);
                if is_in(&device) && !receivers.is_empty() && receivers.iter().all(is_in) {
                    self.promise(receivers, channel, &whispered(id, channel, &text));
                }
                let named: Vec<u32> = receivers.iter().map(|device| self.devices[*device].id).collect();
                self.devices[device].send(&whisper(id, channel, &named, &text));
            }
            Step::Read(device) => self.devices[device].read(),
            Step::Reconnect { device, by_udp, old_stays } => {
                let link = if by_udp { Link::Udp(self.tower.peer()) } else { Link::Tcp(self.tower.stream()) };
                let old = std::mem::replace(&mut self.devices[device].link, link);
                if old_stays {
                    self.stale.push(old);
                }
            }
        }
    }

    fn next_text(&mut self) -> String {
        self.messages += 1;
        self.messages.to_string()
    }

    fn promise(&mut self, devices: &[usize], channel: u32, packet: &[u8]) {
        let devices: BTreeSet<usize> = devices.iter().copied().collect();
        for device in devices {
            let device = &mut self.devices[device];
            if device.joined.contains(&channel) {
                device.promised.entry(channel).or_default().extend(packet);
            }
        }
    }

    /// Every device shows itself once more and reads to the end.
    fn check(&mut self) {
        for device in &mut self.devices {
            device.send(&join(device.id, 3));
            device.read();
            let mut heard = BTreeMap::<u32, Vec<u8>>::new();
            for packet in packets(&device.heard) {
                if let ServerPacket::Message { sender, channel, kind, content } = packet {
                    let bytes = match kind as u16 {
                        0 => said(sender, channel, content),
                        _ => whispered(sender, channel, content),
                    };
                    heard.entry(channel).or_default().extend(bytes);
                }
            }
            assert_eq!(heard, device.promised, "device {}", device.id);
        }
    }
}

impl Device {
    fn send(&mut self, packet: &[u8]) {
        let out = self.link.send(packet);
        self.heard.extend(out);
    }

    fn read(&mut self) {
        let out = self.link.hears();
        self.heard.extend(out);
    }
}
