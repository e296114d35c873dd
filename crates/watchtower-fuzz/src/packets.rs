//! Packets: the codec both ways, a connection, an address, and a crowd of both.

use std::collections::BTreeMap;

use watchtower_hub::{Hub, Timestamp};
use watchtower_protocols::packets::frame::{
    ClientPacket, Decoded, ERROR_TEXT_BYTES_MAX, Limits, ServerPacket, encode_ack, encode_message,
};
use watchtower_protocols::packets::{PacketPeer, PacketStream};

use crate::scene::{Connection, FIRST_ID, MESSAGE_BYTES_MAX, NOW, hub, packet_options};
use crate::script::Script;

const LIMITS: Limits = Limits { content_bytes_max: MESSAGE_BYTES_MAX as u32 };

/// What is read is written as it was, and half of it is known to be half.
pub(crate) fn codec(data: &[u8]) {
    let mut rest = data;
    while let Decoded::Packet { packet, consumed } = ClientPacket::decode(rest, LIMITS) {
        let mut written = Vec::new();
        packet.encode(&mut written).expect("what was read can be written");
        assert!(rest[..consumed].ends_with(&written));
        // A packet for each byte of a long one would take long.
        for end in (0..consumed).step_by(1 + consumed / 64) {
            match ClientPacket::decode(&rest[..end], LIMITS) {
                Decoded::Incomplete { needed } => assert!((end + 1..=consumed).contains(&needed)),
                Decoded::Idle { consumed } => assert_eq!(consumed, end),
                other => panic!("{end} of {consumed} bytes are {other:?}"),
            }
        }
        rest = &rest[consumed..];
    }
    if let Decoded::Incomplete { needed } = ClientPacket::decode(rest, LIMITS) {
        assert!(needed > rest.len() && needed <= rest.len() + LIMITS.packet_bytes_max());
    }
    let mut rest = data;
    while let Decoded::Packet { packet, consumed } = ServerPacket::decode(rest, LIMITS) {
        let mut written = Vec::new();
        match packet {
            ServerPacket::Ack(number) => encode_ack(&mut written, number),
            ServerPacket::Message { sender, channel, kind, content } => {
                encode_message(&mut written, sender, channel, kind, content);
            }
            ServerPacket::Error { code, text } => {
                written.extend_from_slice(&[b'E', code, text.len() as u8]);
                written.extend_from_slice(text);
            }
        }
        assert!(rest[..consumed].ends_with(&written));
        rest = &rest[consumed..];
    }
}

type Stream = Connection<PacketStream>;

fn connect(hub: &Hub) -> Stream {
    Connection::new(PacketStream::new(hub, packet_options())).0
}

fn send(stream: &mut Stream, input: &[u8], now: &mut Timestamp) -> Vec<u8> {
    stream.send(input, now, MESSAGE_BYTES_MAX, LIMITS.packet_bytes_max())
}

/// The packets in what a client read: whole ones alone.
fn packets(mut bytes: &[u8]) -> Vec<ServerPacket<'_>> {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        let Decoded::Packet { packet, consumed } = ServerPacket::decode(bytes, LIMITS) else {
            panic!("a server sends whole packets: {}", bytes.escape_ascii());
        };
        if let ServerPacket::Error { code, text } = packet {
            assert!((1..=9).contains(&code) && text.len() <= ERROR_TEXT_BYTES_MAX && text.is_ascii());
        }
        packets.push(packet);
        bytes = &bytes[consumed..];
    }
    packets
}

/// The answers, and the messages of each channel: how they interleave depends on what came in
/// one piece.
fn by_channel(out: &[u8]) -> (Vec<ServerPacket<'_>>, BTreeMap<u32, Vec<ServerPacket<'_>>>) {
    let (mut answers, mut messages) = (Vec::new(), BTreeMap::<u32, Vec<_>>::new());
    for packet in packets(out) {
        match packet {
            ServerPacket::Message { channel, .. } => messages.entry(channel).or_default().push(packet),
            answer => answers.push(answer),
        }
    }
    (answers, messages)
}

/// Ids 5 and 6 are registered, and in channel 1.
const BEGIN: &[u8] = b"RRJ\x05\0\0\0\x01\0\0\0J\x06\0\0\0\x01\0\0\0";

/// What a client sends, cut before each packet that asks for messages anew: they come once more to
/// who has read them by then, and once to who has not.
fn between_follows(data: &[u8]) -> Vec<&[u8]> {
    let (mut pieces, mut begin, mut end) = (Vec::new(), 0, 0);
    while let Decoded::Packet { packet, consumed } = ClientPacket::decode(&data[end..], LIMITS) {
        if matches!(packet, ClientPacket::Follow { .. }) {
            pieces.push(&data[begin..end]);
            begin = end;
        }
        end += consumed;
    }
    pieces.push(&data[begin..]);
    pieces
}

/// A stream is answered the same however it is cut.
pub(crate) fn stream(data: &[u8]) {
    let (mut whole, mut slow) = (connect(&hub()), connect(&hub()));
    let mut read = [Vec::new(), Vec::new()];
    for (stream, read) in [&mut whole, &mut slow].into_iter().zip(&mut read) {
        read.extend(send(stream, BEGIN, &mut { NOW }));
    }
    for piece in between_follows(data) {
        read[0].extend(send(&mut whole, piece, &mut { NOW }));
    }
    for byte in data {
        read[1].extend(send(&mut slow, &[*byte], &mut { NOW }));
    }
    // Who reads what comes as it comes does not fall behind.
    let lags = |out: &[u8]| {
        packets(out).iter().any(|packet| matches!(packet, ServerPacket::Error { code: 8, text } if text.starts_with(b"too far behind")))
    };
    if !lags(&read[0]) {
        assert_eq!(by_channel(&read[0]), by_channel(&read[1]));
        assert_eq!(whole.is_closed, slow.is_closed);
    }
}

/// What a datagram is answered to an address that has shown no id is no longer than it.
pub(crate) fn peer(data: &[u8]) {
    let hub = hub();
    let mut owner = connect(&hub);
    send(&mut owner, BEGIN, &mut { NOW });
    let mut peer = PacketPeer::new(&hub, packet_options());
    let mut script = Script::new(data);
    while let Some(length) = script.byte() {
        let datagram: Vec<u8> = (0..length).map_while(|_| script.byte()).collect();
        receive(&mut peer, &datagram, NOW);
    }
}

/// What the datagram is answered, which is checked.
fn receive(peer: &mut PacketPeer, datagram: &[u8], now: Timestamp) {
    let was_registered = peer.is_registered();
    let (mut answered, mut answers) = (0, 0);
    peer.receive(datagram, now, |packet| {
        let [packet] = packets(&packet)[..] else { panic!("a packet at a time") };
        // A follow that is told where it goes on has shown an id.
        if !matches!(packet, ServerPacket::Message { .. } | ServerPacket::Error { code: 9, .. }) {
            answers += 1;
            answered += match packet {
                ServerPacket::Error { text, .. } => 3 + text.len(),
                _ => 5,
            };
        }
    });
    if !was_registered {
        let is_short = answers <= 1 && answered <= 3 + ERROR_TEXT_BYTES_MAX;
        assert!(answered <= datagram.len() || is_short, "{answered} bytes for {}", datagram.len());
    }
}

const STREAMS: usize = 4;
const PEERS: usize = 2;

/// Several connections and addresses of one hub: they come, speak, wait, and are gone.
pub(crate) fn crowd(data: &[u8]) {
    let hub = hub();
    let mut now = NOW;
    let mut streams: Vec<Option<Stream>> = (0..STREAMS).map(|_| Some(connect(&hub))).collect();
    let mut peers: Vec<PacketPeer> = (0..PEERS).map(|_| PacketPeer::new(&hub, packet_options())).collect();
    let mut script = Script::new(data);
    while let Some(step) = script.byte() {
        let who = usize::from(step % 8);
        let bytes = if step & 0x20 == 0 { script.bytes() } else { &[] };
        if let Some(peer) = who.checked_sub(STREAMS).and_then(|who| peers.get_mut(who)) {
            match step >> 6 {
                0 | 1 => receive(peer, bytes, now),
                2 => drop(peer.session().drain_messages(None, |_| true)),
                _ => *peer = PacketPeer::new(&hub, packet_options()),
            }
            continue;
        }
        let Some(slot) = streams.get_mut(who) else {
            now = now.after(std::time::Duration::from_millis(script.number() as u64 * 10));
            hub.tick(now);
            continue;
        };
        let stream = slot.get_or_insert_with(|| connect(&hub));
        let out = match (step & 0x20 == 0, step >> 6) {
            (true, _) => send(stream, bytes, &mut now),
            (false, 0) => stream.hear(),
            (false, 1) => stream.wait(&mut now),
            (false, 2) => stream.shut_down(),
            (false, _) => {
                *slot = None;
                continue;
            }
        };
        packets(&out);
        if stream.is_closed {
            *slot = None;
        }
    }
    let counts = hub.counts();
    assert_eq!(counts.sessions, streams.iter().flatten().count() + PEERS);
    assert!(counts.channels <= 8 && counts.senders <= 12, "{counts:?}");
    drop((streams, peers));
    assert_eq!(hub.counts().sessions, 0);
    assert_eq!(hub.counts().subscriptions, 0);
    // All that they left ends by itself.
    for _ in 0..3 {
        now = now.after(std::time::Duration::from_secs(60 * 24 * 3600));
        hub.tick(now);
    }
    let counts = hub.counts();
    assert_eq!((counts.senders, counts.channels), (0, 0), "{} was the first id", FIRST_ID);
}
