//! WebSocket as a bench needs it: the handshake and masked frames to write, and a counter of the
//! frames that arrive.
//!
//! The counter reads a frame's header, as much of its payload as holds the message's number, and
//! skips the rest; it takes bytes split or joined in any way and copies only a frame that is split.
//! What a payload says is for [`Reading`], and inflating for [`Inflater`].

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::error::WireError;
use crate::load::inflater::Inflater;
use crate::load::packets::Arrival;
use crate::load::payload::{NUMBER_BYTES, Number};
use crate::load::webrocket;

/// The key of the handshake, and the answer to it: the example of [RFC 6455: 1.3]. It need not be
/// random, since nothing stands between the bench and the server that could keep an answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What is offered with `--deflate`: no context is kept between messages on either side, so that
/// the server can compress a message once for all.
const DEFLATE_OFFER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The masking key of every frame: the mask guards proxies against browsers, and here is neither.
const MASK: [u8; 4] = [0x57, 0x61, 0x74, 0x63];

/// The most that a response's head may take.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The longest frame: a message of the largest content, as JSON, fits.
const FRAME_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The longest payload of a ping, a pong or a close [RFC 6455: 5.5].
const CONTROL_BYTES_MAX: u64 = 125;

const FIN: u8 = 0x80;
const DEFLATED: u8 = 0x40;
const RESERVED: u8 = 0x30;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Appends the request for a WebSocket.
pub(crate) fn write_upgrade(path: &str, host: SocketAddr, deflate: bool, out: &mut Vec<u8>) {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
    );
    out.extend_from_slice(request.as_bytes());
    if deflate {
        out.extend_from_slice(format!("Sec-WebSocket-Extensions: {DEFLATE_OFFER}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Reads the answer to [`write_upgrade`], if it is all there, and says how long its head is.
///
/// # Errors
/// [`WireError::NotAWebSocket`] for what is not the answer to that request, and for a server that
/// would deflate, or not deflate, against what was asked for.
pub(crate) fn read_upgrade(bytes: &[u8], deflate: bool) -> Result<Option<usize>, WireError> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        let what = "response head";
        let too_long = bytes.len() > HEAD_BYTES_MAX;
        return if too_long { Err(WireError::TooLong { what, limit: HEAD_BYTES_MAX }) } else { Ok(None) };
    };
    let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101") {
        return Err(WireError::NotAWebSocket(status.to_owned()));
    }
    let headers: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
    let header = |wanted: &str| {
        let found = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map_or("", |(_, value)| value.trim())
    };
    let extension = header("Sec-WebSocket-Extensions");
    let granted = extension.split(';').next().is_some_and(|name| name.trim() == "permessage-deflate");
    let shares = extension.contains("server_no_context_takeover");
    match (deflate, granted && shares, extension.is_empty()) {
        _ if header("Sec-WebSocket-Accept") != ACCEPT => {
            Err(WireError::NotAWebSocket(format!("{status}, with another key's answer")))
        }
        (true, false, _) => Err(WireError::NotAWebSocket(format!("{status}, without deflating"))),
        (false, _, false) => Err(WireError::NotAWebSocket(format!("{status}, with {extension}"))),
        _ => Ok(Some(end + 4)),
    }
}

/// Appends a text message.
pub(crate) fn write_text(text: &[u8], out: &mut Vec<u8>) {
    write_frame(TEXT, text, out);
}

/// Appends a ping, whose pong says that what was written before it has been read.
pub(crate) fn write_ping(out: &mut Vec<u8>) {
    write_frame(PING, b"", out);
}

fn write_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(FIN | opcode);
    match payload.len() {
        length @ ..126 => out.push(MASKED | length as u8),
        length @ ..=0xffff => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// The last whole message among these frames, as a frame, without pings and the like.
pub(crate) fn last_message(mut bytes: &[u8]) -> Option<&[u8]> {
    let mut last = None;
    while let Ok(head) = Head::read(bytes) {
        let end = head.bytes.checked_add(usize::try_from(head.length).ok()?)?;
        let (frame, rest) = bytes.split_at_checked(end)?;
        if head.is_message() {
            last = Some(frame);
        }
        bytes = rest;
    }
    last
}

/// Whether a frame's payload is deflated.
pub(crate) fn is_deflated(frame: &[u8]) -> bool {
    Head::read(frame).is_ok_and(Head::is_deflated)
}

/// What messages are looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// WebRocket: JSON, with the content in `data`.
    WebRocket,
    /// WebTalk and nchan: the content and nothing else.
    Content,
    /// Nothing: each message counts as an answer, the next in order.
    Nothing,
}

impl Reading {
    /// How much of a message says what it is.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::WebRocket => webrocket::START_BYTES,
            Self::Content => NUMBER_BYTES,
            Self::Nothing => 0,
        }
    }

    /// What a message is that starts like this.
    pub(crate) fn arrival(self, start: &[u8]) -> Result<Arrival, WireError> {
        match self {
            Self::WebRocket => webrocket::read(start),
            Self::Content => Ok(Arrival::Message(Number::parse(start))),
            Self::Nothing => Ok(Arrival::Acknowledged(0)),
        }
    }
}

/// Counts the messages of a WebSocket. Pongs count as acknowledgements.
#[derive(Debug)]
pub(crate) struct FrameCounter {
    reading: Reading,
    /// If the server may deflate: what all connections inflate with.
    inflater: Option<Rc<RefCell<Inflater>>>,
    /// The beginning of a frame that has not arrived as far as it must be read.
    /// Invariant: at most [`FRAME_BYTES_MAX`] and a header.
    partial: Vec<u8>,
    /// How much of a payload that nobody reads is still to come.
    to_skip: u64,
    /// Answers to pings that are to be written.
    pongs: Vec<u8>,
}

/// What became of the bytes of a frame.
enum Step {
    /// There must be at least so many.
    Needs(usize),
    /// So many were read, and more of the same frame are skipped.
    Taken { taken: usize, to_skip: u64 },
}

impl FrameCounter {
    /// Starts behind the head of the handshake's answer.
    pub(crate) fn new(reading: Reading, inflater: Option<Rc<RefCell<Inflater>>>) -> Self {
        Self { reading, inflater, partial: Vec::new(), to_skip: 0, pongs: Vec::new() }
    }

    /// Takes the next bytes and hands on what they complete.
    ///
    /// # Errors
    /// A close, an error of WebRocket, and frames that no server may send.
    pub(crate) fn feed(&mut self, mut input: &[u8], mut on: impl FnMut(Arrival)) -> Result<(), WireError> {
        loop {
            let skipped = usize::try_from(self.to_skip).unwrap_or(usize::MAX).min(input.len());
            self.to_skip -= skipped as u64;
            input = input.get(skipped..).unwrap_or_default();
            if input.is_empty() {
                return Ok(());
            }
            if !self.partial.is_empty() {
                input = self.complete(input, &mut on)?;
                continue;
            }
            match self.read_frame(input, &mut on)? {
                Step::Needs(_) => {
                    self.partial.extend_from_slice(input);
                    return Ok(());
                }
                Step::Taken { taken, to_skip } => {
                    self.to_skip = to_skip;
                    input = input.get(taken..).unwrap_or_default();
                }
            }
        }
    }

    /// Whether nothing of a frame is outstanding.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.partial.is_empty() && self.to_skip == 0
    }

    /// The frames that answer the pings that came, if any did.
    pub(crate) fn take_pongs(&mut self) -> Option<Vec<u8>> {
        (!self.pongs.is_empty()).then(|| std::mem::take(&mut self.pongs))
    }

    /// Adds to a partial frame exactly what it needs and returns the rest of the input.
    fn complete<'a>(
        &mut self,
        mut input: &'a [u8],
        on: &mut impl FnMut(Arrival),
    ) -> Result<&'a [u8], WireError> {
        let mut partial = std::mem::take(&mut self.partial);
        loop {
            match self.read_frame(&partial, on)? {
                Step::Needs(length) => {
                    let missing = length.saturating_sub(partial.len());
                    let (now, rest) = input.split_at(missing.min(input.len()));
                    partial.extend_from_slice(now);
                    if now.len() < missing {
                        self.partial = partial;
                        return Ok(rest);
                    }
                    input = rest;
                }
                Step::Taken { taken, to_skip } => {
                    debug_assert_eq!(taken, partial.len());
                    self.to_skip = to_skip;
                    partial.clear();
                    self.partial = partial;
                    return Ok(input);
                }
            }
        }
    }

    fn read_frame(&mut self, bytes: &[u8], on: &mut impl FnMut(Arrival)) -> Result<Step, WireError> {
        let head = match Head::read(bytes) {
            Ok(head) => head,
            Err(needed) => return Ok(Step::Needs(needed)),
        };
        head.check(self.inflater.is_some() || self.reading == Reading::Nothing)?;
        // Below its limit it fits.
        let length = head.length as usize;
        let read = match head.opcode() {
            CONTINUATION => 0,
            TEXT | BINARY if head.is_deflated() => match self.inflater {
                Some(_) => length,
                None => 0,
            },
            TEXT | BINARY => length.min(self.reading.bytes()),
            _ => length,
        };
        let taken = head.bytes + read;
        let Some(payload) = bytes.get(head.bytes..taken) else {
            return Ok(Step::Needs(taken));
        };
        match head.opcode() {
            CONTINUATION => (),
            PING => write_frame(PONG, payload, &mut self.pongs),
            PONG => on(Arrival::Acknowledged(0)),
            CLOSE => return Err(closed_with(payload)),
            _ => on(match &self.inflater {
                Some(inflater) if head.is_deflated() => {
                    inflater.borrow_mut().arrival(self.reading, payload)?
                }
                _ => self.reading.arrival(payload)?,
            }),
        }
        Ok(Step::Taken { taken, to_skip: (length - read) as u64 })
    }
}

fn closed_with(payload: &[u8]) -> WireError {
    match payload.split_first_chunk() {
        None => WireError::ClosedWith { code: 1005, reason: String::new() },
        Some((code, reason)) => WireError::ClosedWith {
            code: u16::from_be_bytes(*code),
            reason: String::from_utf8_lossy(reason).into_owned(),
        },
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy)]
struct Head {
    /// Final or not, extensions, opcode.
    first: u8,
    masked: bool,
    /// Of the payload.
    length: u64,
    /// How long the header is itself, a masking key not counted.
    bytes: usize,
}

impl Head {
    /// Reads a header, or says how many bytes there must be.
    fn read(bytes: &[u8]) -> Result<Self, usize> {
        let [first, second, rest @ ..] = bytes else { return Err(2) };
        let (length, extended) = match second & !MASKED {
            126 => (rest.first_chunk().map(|length| u16::from_be_bytes(*length).into()), 2),
            127 => (rest.first_chunk().map(|length| u64::from_be_bytes(*length)), 8),
            length => (Some(length.into()), 0),
        };
        let bytes = 2 + extended;
        let length = length.ok_or(bytes)?;
        Ok(Self { first: *first, masked: second & MASKED != 0, length, bytes })
    }

    fn opcode(self) -> u8 {
        self.first & OPCODE
    }

    fn is_deflated(self) -> bool {
        self.first & DEFLATED != 0
    }

    /// Whether a message starts with it.
    fn is_message(self) -> bool {
        matches!(self.opcode(), TEXT | BINARY)
    }

    /// Whether a server may send it.
    fn check(self, may_deflate: bool) -> Result<(), WireError> {
        let is_control = self.opcode() >= CLOSE;
        let wrong = match self.opcode() {
            CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG => None,
            _ => Some("a frame has an unknown opcode"),
        };
        let refusals = [
            (self.masked, "a server's frame is masked"),
            (self.first & RESERVED != 0, "a frame has reserved bits"),
            (self.is_deflated() && !(may_deflate && self.is_message()), "a frame is deflated unasked"),
            (is_control && (self.length > CONTROL_BYTES_MAX || self.first & FIN == 0), "a ping is too long"),
        ];
        let refused = refusals.into_iter().find(|(refused, _)| *refused).map(|(_, why)| why);
        match wrong.or(refused) {
            Some(why) => Err(WireError::Framing(why)),
            None if self.length > FRAME_BYTES_MAX => {
                Err(WireError::TooLong { what: "frame", limit: FRAME_BYTES_MAX as usize })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::load::inflater::tests::deflate;

    /// A frame as a server sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ ..126 => bytes.push(length as u8),
            length @ ..=0xffff => {
                bytes.push(126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }

    fn content(number: u32, size: usize) -> Vec<u8> {
        let mut content = Vec::new();
        Number(number).write_content(size, &mut content);
        content
    }

    fn rocket(number: u32, size: usize) -> Vec<u8> {
        let head = br#"{"event":"bench","channel":"1","data":""#;
        [head, content(number, size).as_slice(), b"\"}"].concat()
    }

    fn counter(reading: Reading, deflates: bool) -> FrameCounter {
        FrameCounter::new(reading, deflates.then(|| Rc::new(RefCell::new(Inflater::new()))))
    }

    fn count<'a>(
        mut counter: FrameCounter,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<Arrival>, WireError> {
        let mut arrivals = Vec::new();
        for piece in pieces {
            counter.feed(piece, |arrival| arrivals.push(arrival))?;
        }
        assert!(counter.is_between_frames());
        Ok(arrivals)
    }

    fn numbers(numbers: impl IntoIterator<Item = u32>) -> Vec<Arrival> {
        numbers.into_iter().map(|number| Arrival::Message(Some(Number(number)))).collect()
    }

    fn check(reading: Reading, deflates: bool, bytes: &[u8], expected: &[Arrival]) {
        assert_eq!(count(counter(reading, deflates), [bytes]).unwrap(), expected, "whole");
        assert_eq!(count(counter(reading, deflates), bytes.chunks(1)).unwrap(), expected, "byte by byte");
    }

    #[test]
    fn messages_of_every_length_are_told_by_their_number() {
        let mut bytes = Vec::new();
        for (number, size) in [(0, 8), (1, 125), (2, 126), (3, 65_536)] {
            bytes.extend(frame(0x81, &content(number, size)));
        }
        bytes.extend(frame(0x82, b"bytes of another"));
        let mut expected = numbers(0..4);
        expected.push(Arrival::Message(None));
        check(Reading::Content, false, &bytes, &expected);

        let bytes = [frame(0x81, br#"{"ok":true}"#), frame(0x81, &rocket(9, 300))].concat();
        let mut expected = vec![Arrival::Acknowledged(0)];
        expected.extend(numbers([9]));
        check(Reading::WebRocket, false, &bytes, &expected);
    }

    #[test]
    fn deflated_messages_are_told_by_what_they_hold() {
        let mut bytes = Vec::new();
        for number in [7, 7, 8] {
            bytes.extend(frame(0xc1, &deflate(&rocket(number, 200))));
            bytes.extend(frame(0x81, &rocket(number + 2, 8)));
        }
        check(Reading::WebRocket, true, &bytes, &numbers([7, 9, 7, 9, 8, 10]));
    }

    #[test]
    fn a_message_in_fragments_counts_once() {
        let bytes = [frame(0x01, b"0000002ax"), frame(0x00, b"xx"), frame(0x80, b"x")].concat();
        check(Reading::Content, false, &bytes, &numbers([42]));
    }

    #[test]
    fn without_a_reading_each_message_is_an_answer_deflated_or_not() {
        let bytes = [frame(0xc1, b"?"), frame(0x81, b"")].concat();
        check(Reading::Nothing, false, &bytes, &[Arrival::Acknowledged(0); 2]);
    }

    #[test]
    fn a_ping_is_answered_with_what_it_holds_and_a_pong_acknowledges() {
        let mut counter = counter(Reading::Content, false);
        let mut arrivals = Vec::new();
        for piece in [frame(0x89, b"hi"), frame(0x8a, b"")].concat().chunks(1) {
            counter.feed(piece, |arrival| arrivals.push(arrival)).unwrap();
        }
        assert_eq!(arrivals, [Arrival::Acknowledged(0)]);
        assert_eq!(
            counter.take_pongs().unwrap(),
            [&[0x8a, 0x82][..], &MASK, &[b'h' ^ 0x57, b'i' ^ 0x61]].concat()
        );
        assert_eq!(counter.take_pongs(), None);
    }

    #[test]
    fn a_close_is_told_with_its_code_and_reason() {
        let close = frame(0x88, b"\x0f\xa1wrong salt");
        let closed = WireError::ClosedWith { code: 4001, reason: "wrong salt".into() };
        assert_eq!(count(counter(Reading::Content, false), close.chunks(1)).unwrap_err(), closed);
        let error = count(counter(Reading::Content, false), [b"\x88\0".as_slice()]).unwrap_err();
        assert_eq!(error, WireError::ClosedWith { code: 1005, reason: String::new() });
    }

    #[test]
    fn what_no_server_may_send_is_an_error() {
        for (bytes, told) in [
            (&b"\x81\x80"[..], "masked"),
            (b"\xc1\x01x", "deflated unasked"),
            (b"\xa1\x00", "reserved"),
            (b"\x83\x00", "opcode"),
            (b"\x09\x00", "too long"),
            (b"\x89\x7e\x00\x80", "too long"),
            (b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", "frame is longer than"),
        ] {
            let error = count(counter(Reading::Content, false), [bytes]).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn the_handshake_is_the_one_of_the_standard() {
        // [RFC 6455: 1.3]
        let host = SocketAddr::from(([127, 0, 0, 1], 3033));
        let mut out = Vec::new();
        write_upgrade("/webrocket", host, true, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "GET /webrocket HTTP/1.1\r\nHost: 127.0.0.1:3033\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate; \
             server_no_context_takeover; client_no_context_takeover\r\n\r\n"
        );
    }

    const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
        connection: Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    #[test]
    fn the_answer_to_the_handshake_must_be_what_was_asked_for() {
        let deflate = "sec-websocket-extensions: permessage-deflate; server_no_context_takeover\r\n";
        let keeps = "sec-websocket-extensions: permessage-deflate\r\n";
        let check = |head: &str, deflates: bool, expected: Result<(), &str>| {
            let bytes = format!("{head}\r\n\x01\x02");
            let read = read_upgrade(bytes.as_bytes(), deflates);
            match expected {
                Ok(()) => assert_eq!(read, Ok(Some(head.len() + 2)), "{head}"),
                Err(told) => assert!(read.unwrap_err().to_string().contains(told), "{head}"),
            }
        };
        check(SWITCHING, false, Ok(()));
        check(&format!("{SWITCHING}{deflate}"), true, Ok(()));
        check(SWITCHING, true, Err("without deflating"));
        check(&format!("{SWITCHING}{keeps}"), true, Err("without deflating"));
        check(&format!("{SWITCHING}{deflate}"), false, Err("with permessage-deflate"));
        check("HTTP/1.1 404 Not Found\r\n", false, Err("got `HTTP/1.1 404 Not Found`"));
        check(&SWITCHING.replace("s3pP", "xxxx"), false, Err("another key"));
        assert_eq!(read_upgrade(SWITCHING.as_bytes(), false), Ok(None));
        let endless = vec![b'x'; HEAD_BYTES_MAX + 1];
        assert!(matches!(read_upgrade(&endless, false), Err(WireError::TooLong { .. })));
    }

    #[test]
    fn the_last_message_among_other_frames_is_found() {
        let message = frame(0x81, b"0000002a");
        let bytes = [frame(0x81, b"{\"ok\":true}"), frame(0x89, b""), message.clone(), frame(0x8a, b"")];
        assert_eq!(last_message(&bytes.concat()), Some(message.as_slice()));
        assert_eq!(last_message(&frame(0x89, b"")), None);
        assert_eq!(last_message(b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }

    proptest! {
        #[test]
        fn messages_are_counted_alike_however_they_are_split(
            sizes in proptest::collection::vec(NUMBER_BYTES..300, 1..20),
            piece in 1..64_usize,
            deflates: bool,
        ) {
            let mut bytes = Vec::new();
            for (number, size) in sizes.iter().enumerate() {
                let message = rocket(number as u32, *size);
                bytes.extend(match deflates {
                    true => frame(0xc1, &deflate(&message)),
                    false => frame(0x81, &message),
                });
            }
            let expected = numbers(0..sizes.len() as u32);
            let counted = count(counter(Reading::WebRocket, deflates), bytes.chunks(piece)).unwrap();
            prop_assert_eq!(counted, expected);
        }

        #[test]
        fn no_input_panics(bytes: Vec<u8>, piece in 1..9_usize) {
            for mut counter in [counter(Reading::WebRocket, true), counter(Reading::Content, false)] {
                for piece in bytes.chunks(piece) {
                    if counter.feed(piece, |_| ()).is_err() {
                        break;
                    }
                }
            }
            let _ = read_upgrade(&bytes, true);
            let _ = last_message(&bytes);
        }
    }
}
