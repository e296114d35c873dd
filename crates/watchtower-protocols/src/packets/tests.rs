//! The packet page, row by row, in exact bytes.

use std::fmt::Debug;

use proptest::prelude::*;

use super::ErrorCode;
use super::frame::*;

const LIMITS: Limits = Limits { content_bytes_max: 65_535 };

/// Bytes from hexadecimal text, blanks ignored. They are leaked, so that the
/// packets that borrow from them are easy to hold.
fn hex(text: &str) -> &'static [u8] {
    let digits: Vec<u8> = text
        .chars()
        .filter(|character| !character.is_whitespace())
        .map(|character| character.to_digit(16).unwrap() as u8)
        .collect();
    assert_eq!(digits.len() % 2, 0, "{text}");
    let pairs = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]);
    pairs.collect::<Vec<_>>().leak()
}

fn client(input: &[u8]) -> Decoded<ClientPacket<'_>> {
    ClientPacket::decode(input, LIMITS)
}

fn server(input: &[u8]) -> Decoded<ServerPacket<'_>> {
    ServerPacket::decode(input, LIMITS)
}

fn client_bytes(packet: ClientPacket<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(&mut out).unwrap();
    out
}

fn server_bytes(packet: ServerPacket<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match packet {
        ServerPacket::Ack(value) => encode_ack(&mut out, value),
        ServerPacket::Message { sender, channel, kind, content } => {
            encode_message(&mut out, sender, channel, kind, content)
        }
        ServerPacket::Error { code, text } => {
            let code = ErrorCode::from_byte(code).unwrap();
            encode_error(&mut out, code, str::from_utf8(text).unwrap());
        }
    }
    out
}

fn check(packet: ClientPacket<'static>, expected: &str) {
    assert_eq!(client_bytes(packet), hex(expected), "{packet:?}");
    check_decoding(client, packet, hex(expected));
}

fn check_server(packet: ServerPacket<'static>, expected: &str) {
    assert_eq!(server_bytes(packet), hex(expected), "{packet:?}");
    check_decoding(server, packet, hex(expected));
}

/// The bytes are the packet: whole, with more behind them, and after padding.
/// No part of them is, and each part says how much it waits for.
fn check_decoding<P: Copy + Debug + PartialEq>(
    decode: fn(&'static [u8]) -> Decoded<P>,
    packet: P,
    bytes: &'static [u8],
) {
    let whole = |consumed| Decoded::Packet { packet, consumed };
    assert_eq!(decode(bytes), whole(bytes.len()));
    let followed = [bytes, b"\xff"].concat().leak();
    assert_eq!(decode(followed), whole(bytes.len()));
    let padded = [b"\r\n\0", bytes].concat().leak();
    assert_eq!(decode(padded), whole(bytes.len() + 3));

    assert_eq!(decode(&bytes[..0]), Decoded::Idle { consumed: 0 });
    for (start, input) in [(1, bytes), (4, padded)] {
        for length in start..input.len() {
            check_incomplete(decode(&input[..length]), length, input.len());
        }
    }
}

fn check_incomplete<P: Debug>(decoded: Decoded<P>, length: usize, whole: usize) {
    match decoded {
        Decoded::Incomplete { needed } => {
            assert!(length < needed && needed <= whole, "{length} {needed}");
        }
        other => panic!("the first {length} of {whole} bytes are {other:?}"),
    }
}

// [packets: client to server]

#[test]
fn a_registration_is_one_byte() {
    check(ClientPacket::Register, "52");
}

#[test]
fn a_registration_with_the_secret_carries_its_length_in_a_byte() {
    check(ClientPacket::RegisterWithSecret(b"tower"), "53 05 746f776572");
    check(ClientPacket::RegisterWithSecret(b""), "53 00");
    // Bytes that are padding between packets are content within one.
    check(ClientPacket::RegisterWithSecret(b"\r\n\0"), "53 03 0d0a00");
}

#[test]
fn a_join_is_nine_bytes() {
    let packet = ClientPacket::Join { sender: 5, channel: 1 };
    check(packet, "4a 05000000 01000000");
}

#[test]
fn a_leave_is_nine_bytes_and_little_endian() {
    let packet = ClientPacket::Leave { sender: 0x0102_0304, channel: 0xfffe_fdfc };
    check(packet, "4c 04030201 fcfdfeff");
}

#[test]
fn a_message_is_thirteen_bytes_and_its_content() {
    let message = |content| ClientPacket::Message { sender: 5, channel: 1, content };
    check(message(b"helloworld"), "4d 05000000 01000000 0a000000 68656c6c6f776f726c64");
    check(message(b""), "4d 05000000 01000000 00000000");
}

#[test]
fn a_direct_message_names_its_receivers_before_its_content() {
    let direct = |receivers, content| ClientPacket::Direct {
        sender: 5,
        channel: 1,
        receivers: Receivers::new(receivers),
        content,
    };
    check(
        direct(&[[52, 0, 0, 0], [34, 0, 0, 0]], b"hi"),
        "57 05000000 01000000 0200 34000000 22000000 02000000 6869",
    );
    check(direct(&[], b""), "57 05000000 01000000 0000 00000000");
}

#[test]
fn receivers_are_read_in_order_and_counted() {
    let input = hex("57 05000000 01000000 0300 34000000 00000100 34000000 00000000");
    let Decoded::Packet { packet: ClientPacket::Direct { receivers, .. }, .. } = client(input) else {
        panic!("a direct message is not read as one")
    };
    assert_eq!(receivers.len(), 3);
    assert_eq!(receivers.collect::<Vec<_>>(), [52, 65_536, 52]);
}

#[test]
fn a_follow_carries_an_offset_of_eight_bytes() {
    let packet = ClientPacket::Follow { sender: 5, channel: 1, offset: 0x0102_0304_0506_0708 };
    check(packet, "46 05000000 01000000 0807060504030201");
}

#[test]
fn a_keep_alive_is_one_byte() {
    check(ClientPacket::KeepAlive, "4b");
}

// [packets: server to client]

#[test]
fn an_acknowledgement_is_five_bytes() {
    check_server(ServerPacket::Ack(5), "41 05000000");
    check_server(ServerPacket::Ack(0), "41 00000000");
}

#[test]
fn a_delivered_message_is_fifteen_bytes_and_its_content() {
    let message = |kind, content| ServerPacket::Message { sender: 5, channel: 1, kind, content };
    check_server(
        message(MessageKind::Broadcast, b"helloworld"),
        "4d 05000000 01000000 0000 0a000000 68656c6c6f776f726c64",
    );
    check_server(message(MessageKind::Direct, b""), "4d 05000000 01000000 0100 00000000");
}

#[test]
fn an_error_is_a_code_and_a_short_text() {
    let error = |code: ErrorCode, text| ServerPacket::Error { code: code.byte(), text };
    check_server(error(ErrorCode::TooLarge, b"too large"), "45 04 09 746f6f206c61726765");
    check_server(error(ErrorCode::UnknownPacket, b""), "45 01 00");
}

#[test]
fn a_code_and_a_text_that_this_version_does_not_know_are_still_read() {
    let packet = ServerPacket::Error { code: 99, text: b"\xff" };
    check_decoding(server, packet, hex("45 63 01 ff"));
    assert_eq!(ErrorCode::from_byte(99), None);
}

#[test]
fn the_text_of_an_error_is_cut_at_sixty_characters_and_kept_to_ascii() {
    let mut out = Vec::new();
    encode_error(&mut out, ErrorCode::Refused, &"x".repeat(200));
    assert_eq!(out, [b"E\x05\x3c".as_slice(), &[b'x'; 60]].concat());

    out.clear();
    encode_error(&mut out, ErrorCode::Refused, "naïve\n\u{1F6AB} ~");
    assert_eq!(out, b"E\x05\x09na?ve?? ~");
}

#[test]
fn a_message_of_an_unknown_type_is_bad() {
    assert_eq!(
        server(hex("4d 05000000 01000000 0200 00000000")),
        Decoded::Bad(PacketError::UnknownKind { kind: 2 })
    );
}

// [packets: error codes]

#[test]
fn the_codes_are_one_to_nine_and_two_of_them_end_a_connection() {
    let bytes: Vec<u8> = ErrorCode::ALL.map(ErrorCode::byte).to_vec();
    assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_byte(code.byte()), Some(code));
        assert!(code.name().len() <= ERROR_TEXT_BYTES_MAX && code.name().is_ascii());
    }
    let mut closing = ErrorCode::ALL.to_vec();
    closing.retain(|code| code.closes_connection());
    assert_eq!(closing, [ErrorCode::UnknownPacket, ErrorCode::TooLarge]);
}

#[test]
fn a_byte_that_begins_no_packet_is_bad_and_named() {
    for byte in 0..=255u8 {
        let input = [byte];
        let decoded = client(&input);
        match byte {
            b'\r' | b'\n' | 0 => assert_eq!(decoded, Decoded::Idle { consumed: 1 }),
            b'R' | b'K' => assert!(matches!(decoded, Decoded::Packet { consumed: 1, .. })),
            b'S' | b'J' | b'L' | b'M' | b'W' | b'F' => check_incomplete(decoded, 1, 17),
            _ => match decoded {
                Decoded::Bad(error @ PacketError::Unknown { byte: named, .. }) => {
                    assert_eq!(named, byte);
                    assert_eq!(error.code(), ErrorCode::UnknownPacket);
                }
                other => panic!("byte {byte} decoded as {other:?}"),
            },
        }
    }
}

#[test]
fn an_unknown_byte_is_told_with_what_was_expected() {
    let told = |decoded| match decoded {
        Decoded::Bad(error) => error.to_string(),
        other => panic!("decoded as {other:?}"),
    };
    assert_eq!(told(client(b"\0G")), "no packet begins with byte 0x47; expected one of RSJLMWFK");
    let Decoded::Bad(error) = server(b"R") else { panic!("a server does not register") };
    assert_eq!(error.to_string(), "no packet begins with byte 0x52; expected A, M or E");
}

/// [packets: error codes, 4]
#[test]
fn a_length_above_the_limit_is_bad_before_the_content_comes() {
    let too_large =
        |length| Decoded::Bad(PacketError::TooLarge { sender: 5, channel: 1, length, limit: 65_535 });
    assert_eq!(client(hex("4d 05000000 01000000 00000100")), too_large(65_536));
    assert_eq!(client(hex("4d 05000000 01000000 ffffffff 00")), too_large(u32::MAX));
    assert_eq!(client(hex("57 05000000 01000000 0100 34000000 ffffffff")), too_large(u32::MAX));
    let Decoded::Bad(error) = server(hex("4d 05000000 01000000 0000 ffffffff")) else {
        panic!("4 GiB are not too much")
    };
    assert_eq!(error.code(), ErrorCode::TooLarge);
}

#[test]
fn a_length_at_the_limit_is_waited_for_exactly() {
    let header = hex("4d 05000000 01000000 ffff0000");
    let needed = 13 + 65_535;
    assert_eq!(client(header), Decoded::Incomplete { needed });

    // Even where the limit is all that the field can say, waiting costs nothing.
    let unlimited = Limits { content_bytes_max: u32::MAX };
    let header = hex("4d 05000000 01000000 ffffffff");
    let needed = 13_usize.saturating_add(u32::MAX as usize);
    assert_eq!(ClientPacket::decode(header, unlimited), Decoded::Incomplete { needed });
}

#[test]
fn the_longest_packet_is_a_direct_message_to_as_many_as_can_be_named() {
    let receivers = vec![[1, 0, 0, 0]; usize::from(u16::MAX)];
    let content = vec![b'x'; 65_535];
    let packet = ClientPacket::Direct {
        sender: 5,
        channel: 1,
        receivers: Receivers::new(&receivers),
        content: &content,
    };
    let bytes = client_bytes(packet);
    assert_eq!(bytes.len(), LIMITS.packet_bytes_max());
    let consumed = bytes.len();
    assert_eq!(client(&bytes), Decoded::Packet { packet, consumed });
}

#[test]
fn what_does_not_fit_its_length_field_is_refused_and_writes_nothing() {
    let refusal = |packet: ClientPacket<'_>| {
        let mut out = Vec::new();
        let refusal = packet.encode(&mut out);
        assert_eq!(out, b"");
        refusal
    };
    assert_eq!(refusal(ClientPacket::RegisterWithSecret(&[b'x'; 256])), Err(EncodeError::SecretTooLong));
    assert_eq!(
        refusal(ClientPacket::Direct {
            sender: 5,
            channel: 1,
            receivers: Receivers::new(&[[0; 4]; 65_536]),
            content: b"",
        }),
        Err(EncodeError::TooManyReceivers)
    );
}

// [packets: rules]

/// `echo "R" | nc`, and a client that pads each packet with zeros.
#[test]
fn padding_between_packets_is_skipped() {
    let mut input: &[u8] = b"R\n\0\0\0R\r\nK\n";
    let mut packets = Vec::new();
    let rest = loop {
        match client(input) {
            Decoded::Packet { packet, consumed } => {
                packets.push(packet);
                input = &input[consumed..];
            }
            other => break other,
        }
    };
    use ClientPacket::{KeepAlive, Register};
    assert_eq!(packets, [Register, Register, KeepAlive]);
    assert_eq!(rest, Decoded::Idle { consumed: 1 });
}

#[test]
fn heartbeats_of_an_octet_stream_body_are_skipped() {
    let input = hex("0a 0a 4d 05000000 01000000 0000 01000000 78 0a");
    let packet = ServerPacket::Message { sender: 5, channel: 1, kind: MessageKind::Broadcast, content: b"x" };
    let consumed = input.len() - 1;
    assert_eq!(server(input), Decoded::Packet { packet, consumed });
    assert_eq!(server(&input[consumed..]), Decoded::Idle { consumed: 1 });
}

#[test]
fn the_first_byte_tells_packets_from_everything_else_on_the_port() {
    for byte in *b"RSJLMWFK\r\n\0" {
        assert!(first_byte_is_packet(byte), "{}", byte.escape_ascii());
    }
    // The methods that the server answers, a TLS hello, an MQTT connect, a digit, a brace.
    for other in ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "\x16", "\x10", "0", "{"] {
        assert!(!first_byte_is_packet(other.as_bytes()[0]), "{other:?}");
    }
}

/// Every byte that decoding takes for a packet's first is one that detection knows.
#[test]
fn detection_and_decoding_agree() {
    for byte in 0..=255u8 {
        let decodes = !matches!(client(&[byte]), Decoded::Bad(_));
        assert_eq!(first_byte_is_packet(byte), decodes, "{byte}");
    }
}

#[test]
fn secrets_and_contents_are_not_shown() {
    let shown = format!(
        "{:?} {:?} {:?}",
        ClientPacket::RegisterWithSecret(b"tower"),
        ClientPacket::Message { sender: 5, channel: 1, content: b"tower" },
        ServerPacket::Message { sender: 5, channel: 1, kind: MessageKind::Direct, content: b"tower" },
    );
    assert_eq!(shown, "RegisterWithSecret(5 bytes) Message(5, 1, 5 bytes) Message(5, 1, Direct, 5 bytes)");
}

/// The bytes of any client packet.
fn any_client_packet() -> impl Strategy<Value = Vec<u8>> {
    let bytes = |longest: usize| prop::collection::vec(any::<u8>(), 0..=longest);
    let receivers = prop::collection::vec(any::<[u8; 4]>(), 0..20);
    prop_oneof![
        Just(client_bytes(ClientPacket::Register)),
        Just(client_bytes(ClientPacket::KeepAlive)),
        bytes(255).prop_map(|secret| client_bytes(ClientPacket::RegisterWithSecret(&secret))),
        any::<(u32, u32)>()
            .prop_map(|(sender, channel)| client_bytes(ClientPacket::Join { sender, channel })),
        any::<(u32, u32)>()
            .prop_map(|(sender, channel)| client_bytes(ClientPacket::Leave { sender, channel })),
        (any::<u32>(), any::<u32>(), bytes(300)).prop_map(|(sender, channel, content)| {
            client_bytes(ClientPacket::Message { sender, channel, content: &content })
        }),
        (any::<u32>(), any::<u32>(), receivers, bytes(300)).prop_map(
            |(sender, channel, receivers, content)| {
                client_bytes(ClientPacket::Direct {
                    sender,
                    channel,
                    receivers: Receivers::new(&receivers),
                    content: &content,
                })
            }
        ),
        any::<(u32, u32, u64)>().prop_map(|(sender, channel, offset)| {
            client_bytes(ClientPacket::Follow { sender, channel, offset })
        }),
    ]
}

/// The bytes of any server packet.
fn any_server_packet() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(MessageKind::Broadcast), Just(MessageKind::Direct)];
    let content = prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        any::<u32>().prop_map(|value| server_bytes(ServerPacket::Ack(value))),
        (any::<u32>(), any::<u32>(), kind, content).prop_map(|(sender, channel, kind, content)| {
            server_bytes(ServerPacket::Message { sender, channel, kind, content: &content })
        }),
        (prop::sample::select(&ErrorCode::ALL), "[ -~]{0,60}").prop_map(|(code, text)| {
            server_bytes(ServerPacket::Error { code: code.byte(), text: text.as_bytes() })
        }),
    ]
}

/// What a driver does: adds each chunk to what is left, takes the packets that
/// are whole, and does not ask again before there is as much as was needed.
fn read_in_chunks(
    chunks: impl IntoIterator<Item = Vec<u8>>,
    read: fn(&[u8]) -> Decoded<Vec<u8>>,
) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut packets, mut pending, mut needed) = (Vec::new(), Vec::new(), 1);
    for chunk in chunks {
        pending.extend(chunk);
        while pending.len() >= needed {
            match read(&pending) {
                Decoded::Packet { packet, consumed } => {
                    packets.push(packet);
                    pending.drain(..consumed);
                    needed = 1;
                }
                Decoded::Idle { consumed } => {
                    pending.drain(..consumed);
                    needed = 1;
                }
                Decoded::Incomplete { needed: more } => {
                    assert!(more > pending.len());
                    needed = more;
                }
                Decoded::Bad(error) => panic!("{error}"),
            }
        }
    }
    (packets, pending)
}

/// Decodes, and encodes again: what is the same bytes was the same packet.
fn reencode_client(input: &[u8]) -> Decoded<Vec<u8>> {
    map(client(input), client_bytes)
}

fn reencode_server(input: &[u8]) -> Decoded<Vec<u8>> {
    map(server(input), server_bytes)
}

fn map<P: Copy>(decoded: Decoded<P>, encode: fn(P) -> Vec<u8>) -> Decoded<Vec<u8>> {
    match decoded {
        Decoded::Packet { packet, consumed } => Decoded::Packet { packet: encode(packet), consumed },
        Decoded::Idle { consumed } => Decoded::Idle { consumed },
        Decoded::Incomplete { needed } => Decoded::Incomplete { needed },
        Decoded::Bad(error) => Decoded::Bad(error),
    }
}

/// Packets, each with padding behind it, and the length of the chunks they come in.
fn any_stream(
    packet: impl Strategy<Value = Vec<u8>>,
) -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<u8>, usize)> {
    let padding = prop::collection::vec(prop::sample::select(b"\r\n\0".as_slice()), 0..4);
    (prop::collection::vec((packet, padding), 0..8), 1..50_usize).prop_map(|(parts, chunk)| {
        let stream = parts.iter().flat_map(|(packet, padding)| [packet, padding]);
        let stream = stream.flatten().copied().collect();
        let packets = parts.into_iter().map(|(packet, _)| packet).collect();
        (packets, stream, chunk)
    })
}

fn check_any_input<P: Debug>(decoded: &Decoded<P>, length: usize) {
    match *decoded {
        Decoded::Packet { consumed, .. } => assert!(0 < consumed && consumed <= length),
        Decoded::Idle { consumed } => assert_eq!(consumed, length),
        Decoded::Incomplete { needed } => {
            assert!(length < needed && needed <= length + LIMITS.packet_bytes_max());
        }
        Decoded::Bad(_) => assert!(length > 0),
    }
}

proptest! {
    #[test]
    fn client_packets_are_the_same_however_they_are_split(
        (packets, stream, chunk) in any_stream(any_client_packet()),
    ) {
        let chunks = stream.chunks(chunk).map(<[u8]>::to_vec);
        prop_assert_eq!(read_in_chunks(chunks, reencode_client), (packets, vec![]));
    }

    #[test]
    fn server_packets_are_the_same_however_they_are_split(
        (packets, stream, chunk) in any_stream(any_server_packet()),
    ) {
        let chunks = stream.chunks(chunk).map(<[u8]>::to_vec);
        prop_assert_eq!(read_in_chunks(chunks, reencode_server), (packets, vec![]));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_within_their_length(
        tag in prop::sample::select(b"RSJLMWFKAE\n\0x".as_slice()),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let input = [&[tag], rest.as_slice()].concat();
        check_any_input(&client(&input), input.len());
        check_any_input(&server(&input), input.len());
    }
}
