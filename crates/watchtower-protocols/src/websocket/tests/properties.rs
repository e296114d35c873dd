//! The decoder against another one, tungstenite's: the same messages and the
//! same refusals, for whatever comes and however it is cut.

use std::io::{self, Read, Write};

use proptest::prelude::*;
use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::frame::coding::CloseCode as OtherCode;
use tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::super::decoder::Violation;
use super::decoding::{Said, decode};
use super::*;

const LIMIT: usize = 2000;

/// A connection that has sent this, and nothing more.
struct Input<'a>(&'a [u8]);

impl Read for Input<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.read(out)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            length => Ok(length),
        }
    }
}

impl Write for Input<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How the other one takes it.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Refused(u16),
}

fn other_decodes(input: &[u8]) -> (Vec<Said>, Verdict) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT))
        .read_buffer_size(64);
    let mut socket =
        tungstenite::protocol::WebSocket::from_raw_socket(Input(input), Role::Server, Some(config));
    let mut said = Vec::new();
    loop {
        said.push(match socket.read() {
            Ok(Message::Text(text)) => Said::Text(text.to_string()),
            Ok(Message::Binary(bytes)) => Said::Binary(bytes.to_vec()),
            Ok(Message::Ping(payload)) => Said::Ping(payload.to_vec()),
            Ok(Message::Pong(_)) => Said::Pong,
            // What it makes of a code that must not be sent.
            Ok(Message::Close(Some(frame))) if frame.reason == "Protocol violation" => {
                assert_eq!(frame.code, OtherCode::Protocol);
                return (said, Verdict::Refused(1002));
            }
            Ok(Message::Close(frame)) => {
                said.push(Said::Close(frame.map(|frame| frame.code.into())));
                return (said, Verdict::Fine);
            }
            Ok(Message::Frame(_)) => unreachable!("never while reading"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (said, Verdict::Fine);
            }
            Err(Error::Protocol(_)) => return (said, Verdict::Refused(1002)),
            Err(Error::Utf8(_)) => return (said, Verdict::Refused(1007)),
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                return (said, Verdict::Refused(1009));
            }
            Err(error) => panic!("{error}"),
        });
    }
}

/// 1014 was registered after the other one was written.
fn is_known_to_both(said: &[Said]) -> bool {
    !said.contains(&Said::Close(Some(1014)))
}

fn check(input: &[u8], cuts: &[usize]) -> Result<(), TestCaseError> {
    let (said, violation) = decode(pieces(input, cuts), LIMIT, false);
    prop_assert_eq!(&decode([input], LIMIT, false), &(said.clone(), violation), "cut and whole");
    if !is_known_to_both(&said) {
        return Ok(());
    }
    let Some(violation) = violation else {
        prop_assert_eq!(other_decodes(input), (said, Verdict::Fine));
        return Ok(());
    };
    // The other one waits for the whole frame before it refuses it.
    // Not with zeros: for it a length may have more digits than it needs.
    let padded = [input, &[1; LIMIT + 20]].concat();
    let (other_said, verdict) = other_decodes(&padded);
    prop_assert_eq!(other_said, said);
    let code = violation.close_code().get();
    match verdict {
        // What is wrong in several ways is refused for one of them.
        Verdict::Refused(other) => prop_assert!(other == code || code == 1002, "{} {:?}", other, violation),
        Verdict::Fine => prop_assert!(false, "{:?}", violation),
    }
    Ok(())
}

/// `input`, cut at these places.
fn pieces<'a>(input: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.sort_unstable();
    let mut pieces = Vec::new();
    let mut start = 0;
    for cut in cuts.into_iter().chain([input.len()]) {
        pieces.push(&input[start..cut]);
        start = cut;
    }
    pieces
}

#[derive(Debug, Clone)]
enum Sent {
    Text(String, Vec<usize>),
    Binary(Vec<u8>, Vec<usize>),
    Control(u8, Vec<u8>),
}

/// The frames of a message that is cut at these places, with a ping between.
fn fragments(opcode: u8, payload: &[u8], cuts: &[usize]) -> Vec<u8> {
    let pieces = pieces(payload, cuts);
    let last = pieces.len() - 1;
    let frame = |(index, piece): (usize, &&[u8])| {
        let opcode = if index == 0 { opcode } else { 0 };
        let ping = if index % 2 == 1 { masked(PING, b"between") } else { Vec::new() };
        [ping, masked(if index == last { 0x80 } else { 0 } | opcode, piece)].concat()
    };
    pieces.iter().enumerate().flat_map(frame).collect()
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..3000_usize, 0..6)
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        ("[ -~é€🎈]{0,300}", cuts()).prop_map(|(text, cuts)| Sent::Text(text, cuts)),
        (prop::collection::vec(any::<u8>(), 0..400), cuts())
            .prop_map(|(bytes, cuts)| Sent::Binary(bytes, cuts)),
        (0x89..=0x8a_u8, prop::collection::vec(any::<u8>(), 0..=125))
            .prop_map(|(first, payload)| Sent::Control(first, payload)),
    ]
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let close = prop_oneof![
        Just(Vec::new()),
        Just(masked(CLOSE, b"")),
        (any::<u16>(), "[a-z]{0,9}")
            .prop_map(|(code, reason)| masked(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())),
    ];
    (prop::collection::vec(sent(), 0..8), close).prop_map(|(sent, close)| {
        let frames = sent.iter().map(|sent| match sent {
            Sent::Text(text, cuts) => fragments(1, text.as_bytes(), cuts),
            Sent::Binary(bytes, cuts) => fragments(2, bytes, cuts),
            Sent::Control(first, payload) => masked(*first, payload),
        });
        frames.chain([close]).flatten().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn what_clients_may_send_is_read_as_another_decoder_reads_it(input in frames(), cuts in cuts()) {
        check(&input, &cuts)?;
    }

    #[test]
    fn what_was_garbled_on_the_way_is_taken_as_another_decoder_takes_it(
        mut input in frames(),
        garbled in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        cuts in cuts(),
    ) {
        for (at, byte) in garbled {
            let length = input.len().max(1);
            if let Some(found) = input.get_mut(at % length) {
                *found = byte;
            }
        }
        check(&input, &cuts)?;
    }

    #[test]
    fn any_bytes_are_taken_as_another_decoder_takes_them(
        headers in prop::collection::vec((any::<u8>(), 0x80..=0xff_u8, prop::collection::vec(any::<u8>(), 0..40)), 0..5),
        cuts in cuts(),
    ) {
        let input: Vec<u8> = headers
            .into_iter()
            // Mostly opcodes that there are, without reserved bits.
            .flat_map(|(first, second, rest)| [vec![first & 0x8f, second], rest].concat())
            .collect();
        check(&input, &cuts)?;
    }

    /// Compressed, in fragments, cut anywhere.
    #[test]
    fn compressed_messages_are_read_however_they_are_cut(
        text in "[a-z]{0,400}",
        message_cuts in cuts(),
        cuts in cuts(),
    ) {
        let deflated = super::super::deflate::deflate(Compression::Deflate, text.as_bytes()).to_vec();
        let input = fragments(0x41, &deflated, &message_cuts);
        let (mut said, violation) = decode(pieces(&input, &cuts), LIMIT, true);
        said.retain(|said| !matches!(said, Said::Ping(_)));
        prop_assert_eq!((said, violation), (vec![Said::Text(text)], None::<Violation>));
    }
}
