//! What holds for any input, however it is cut and whatever it is made of.

use std::collections::BTreeMap;

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
        let answer = tower.peer().send(&datagram);
        let told = packets(&answer);
        prop_assert!(!told.iter().any(is_message));
        prop_assert!(
            answer.len() <= datagram.len() || told.len() == 1 && answer.len() <= 3 + ERROR_TEXT_BYTES_MAX,
            "{} bytes for {}: {:?}", answer.len(), datagram.len(), told
        );
    }
}

/// [packets: rules]: text of at most 60 bytes, and of those that there are.
fn is_short(packet: &ServerPacket<'_>) -> bool {
    match packet {
        ServerPacket::Error { code, text } => (1..=8).contains(code) && text.len() <= 60 && text.is_ascii(),
        _ => true,
    }
}
