//! A join stream over HTTP as a bench needs it: the request to write, and a counter of the
//! messages in the answer.
//!
//! The counter knows just enough HTTP/1.1 to find the body (status line, chunked framing) and just
//! enough JSON to find a message's number; a line that arrives whole is never copied.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::error::WireError;
use crate::load::packets::Arrival;
use crate::load::payload::Number;

/// The most that a response's head may take.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The most that one line of a stream may take: the largest content as a JSON string of ASCII,
/// and what stands beside it, fit many times.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Which of the two forms a join stream has [http: join].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamForm {
    /// One JSON message a line.
    JsonLines,
    /// Server-Sent Events.
    Events,
}

impl StreamForm {
    fn accept(self) -> &'static str {
        match self {
            Self::JsonLines => "application/x-ndjson",
            Self::Events => "text/event-stream",
        }
    }

    /// The message that a line carries, if it carries one.
    fn message(self, line: &[u8]) -> Option<Arrival> {
        static MESSAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"message\":\""));
        let json = match self {
            Self::JsonLines => line,
            Self::Events => line.strip_prefix(b"data:")?,
        };
        if json.trim_ascii().is_empty() {
            return None;
        }
        let start = MESSAGE.find(json).map(|at| at + MESSAGE.needle().len());
        let number = start.and_then(|start| json.get(start..)).and_then(Number::parse);
        Some(Arrival::Message(number))
    }
}

/// The path and query of a join of these channels.
pub(crate) fn join_target(sender: u32, channels: Range<u32>) -> String {
    let mut target = String::from("/channels/join?channels=");
    for (index, channel) in channels.enumerate() {
        target.push_str(if index == 0 { "" } else { "," });
        target.push_str(&channel.to_string());
    }
    target.push_str("&sender=");
    target.push_str(&sender.to_string());
    target
}

/// Appends the request for a stream.
pub(crate) fn write_join(target: &str, form: StreamForm, host: SocketAddr, out: &mut Vec<u8>) {
    let accept = form.accept();
    out.extend_from_slice(
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n").as_bytes(),
    );
}

/// Counts the messages in the response to a join.
#[derive(Debug)]
pub(crate) struct StreamCounter {
    part: Part,
    lines: Lines,
}

/// What comes next in a response.
#[derive(Debug)]
enum Part {
    /// The head, of which so much is here.
    Head(Vec<u8>),
    /// The body, in chunks.
    Chunks(ChunkReader),
    /// The body, as it is.
    Plain,
}

impl StreamCounter {
    /// Starts before the status line.
    pub(crate) fn new(form: StreamForm) -> Self {
        Self { part: Part::Head(Vec::new()), lines: Lines::new(form) }
    }

    /// Starts within a chunked body, between two chunks.
    pub(crate) fn in_body(form: StreamForm) -> Self {
        Self { part: Part::Chunks(ChunkReader::default()), lines: Lines::new(form) }
    }

    /// Takes the next bytes and hands on the messages that they complete.
    ///
    /// # Errors
    /// A status other than 200, broken framing, the end of the body.
    pub(crate) fn feed(&mut self, input: &[u8], mut on: impl FnMut(Arrival)) -> Result<(), WireError> {
        if let Part::Head(head) = &mut self.part {
            head.extend_from_slice(input);
            let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") else {
                return within("response head", head.len(), HEAD_BYTES_MAX);
            };
            let (head, body) = head.split_at(end + 4);
            let (chunked, body) = (is_chunked(head)?, body.to_vec());
            self.part = if chunked { Part::Chunks(ChunkReader::default()) } else { Part::Plain };
            return self.feed_body(&body, &mut on);
        }
        self.feed_body(input, &mut on)
    }

    /// Whether the body has begun: the server sends a lone newline as soon as it has joined.
    pub(crate) fn has_joined(&self) -> bool {
        self.lines.any
    }

    /// Whether nothing of a message or of a chunk is outstanding.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.lines.partial.is_empty()
            && match &self.part {
                Part::Head(_) => false,
                Part::Chunks(chunks) => chunks.is_between_chunks(),
                Part::Plain => true,
            }
    }

    fn feed_body(&mut self, input: &[u8], on: &mut impl FnMut(Arrival)) -> Result<(), WireError> {
        let lines = &mut self.lines;
        match &mut self.part {
            Part::Head(_) => Ok(()),
            Part::Chunks(chunks) => chunks.feed(input, |body| lines.feed(body, on)),
            Part::Plain => lines.feed(input, on),
        }
    }
}

/// Checks the status and says whether the body is chunked.
fn is_chunked(head: &[u8]) -> Result<bool, WireError> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200") {
        return Err(WireError::NotAStream(status.to_owned()));
    }
    Ok(lines.filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked")
    }))
}

/// Takes the chunked framing off a body.
#[derive(Debug, Default)]
pub(crate) struct ChunkReader {
    place: Place,
}

/// Where in the framing the next byte belongs.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Among the digits of a chunk's size.
    Size { size: u64, digits: u8 },
    /// After the digits, before the end of that line.
    Extension { size: u64 },
    /// In a chunk that has so many bytes left.
    Content { left: u64 },
    /// Before the line end that closes a chunk.
    End,
}

impl Default for Place {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

impl ChunkReader {
    /// Takes the next bytes and hands on what of them is body.
    ///
    /// # Errors
    /// Broken framing, and [`WireError::Closed`] at the last chunk.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        mut on: impl FnMut(&[u8]) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        while let Some((byte, rest)) = input.split_first() {
            if let Place::Content { left } = self.place {
                let now = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let (body, rest) = input.split_at(now);
                on(body)?;
                let left = left - now as u64;
                self.place = if left == 0 { Place::End } else { Place::Content { left } };
                input = rest;
            } else {
                self.place = self.place.after(*byte)?;
                input = rest;
            }
        }
        Ok(())
    }

    fn is_between_chunks(&self) -> bool {
        matches!(self.place, Place::Size { digits: 0, .. })
    }
}

impl Place {
    /// The place after a byte of the framing.
    fn after(self, byte: u8) -> Result<Self, WireError> {
        match (self, byte) {
            (Self::Size { digits: 1.., size } | Self::Extension { size }, b'\n') => match size {
                0 => Err(WireError::Closed),
                left => Ok(Self::Content { left }),
            },
            (Self::Size { digits: 1.., size }, b'\r' | b';') => Ok(Self::Extension { size }),
            (Self::Size { size, digits: digits @ ..16 }, _) => match (byte as char).to_digit(16) {
                None => Err(WireError::Framing("a chunk size is not hexadecimal")),
                Some(digit) => Ok(Self::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }),
            },
            (Self::Size { .. }, _) => Err(WireError::Framing("a chunk size has too many digits")),
            (Self::Extension { .. }, _) => Ok(self),
            (Self::End, b'\r') => Ok(Self::End),
            (Self::End, b'\n') => Ok(Self::default()),
            (Self::End | Self::Content { .. }, _) => {
                Err(WireError::Framing("a chunk is longer than it says"))
            }
        }
    }
}

/// Finds the lines of a body and the messages in them.
#[derive(Debug)]
struct Lines {
    form: StreamForm,
    /// A line whose end has not arrived. Invariant: at most [`LINE_BYTES_MAX`] long.
    partial: Vec<u8>,
    /// Whether a line has arrived.
    any: bool,
}

impl Lines {
    fn new(form: StreamForm) -> Self {
        Self { form, partial: Vec::new(), any: false }
    }

    fn feed(&mut self, body: &[u8], on: &mut impl FnMut(Arrival)) -> Result<(), WireError> {
        let mut rest = body;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end + 1);
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            if self.partial.is_empty() {
                self.form.message(line).map(&mut *on);
            } else {
                self.partial.extend_from_slice(line);
                self.form.message(&self.partial).map(&mut *on);
                self.partial.clear();
            }
            self.any = true;
            rest = after;
        }
        self.partial.extend_from_slice(rest);
        within("line", self.partial.len(), LINE_BYTES_MAX)
    }
}

fn within(what: &'static str, length: usize, limit: usize) -> Result<(), WireError> {
    if length > limit { Err(WireError::TooLong { what, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nX-Server-Name: Watchtower\r\n\
        Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";

    fn json(number: u32) -> String {
        let mut content = Vec::new();
        Number(number).write_content(16, &mut content);
        let content = String::from_utf8(content).unwrap();
        format!(
            "{{\"channel\":1,\"offset\":{number},\"epoch\":\"e\",\"sender\":72,\
             \"message\":\"{content}\",\"time\":\"2026-11-21T10:00:00.000Z\"}}"
        )
    }

    /// A body in chunks of these sizes, over and over.
    fn chunked(body: &[u8], sizes: &[usize]) -> Vec<u8> {
        let (mut bytes, mut rest) = (Vec::new(), body);
        for size in sizes.iter().cycle() {
            let (chunk, after) = rest.split_at((*size).min(rest.len()));
            bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
            rest = after;
            if rest.is_empty() {
                return bytes;
            }
        }
        bytes
    }

    fn count<'a>(
        form: StreamForm,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<Arrival>, WireError> {
        let mut counter = StreamCounter::new(form);
        let mut arrivals = Vec::new();
        for piece in pieces {
            counter.feed(piece, |arrival| arrivals.push(arrival))?;
        }
        assert!(counter.has_joined());
        assert!(counter.is_between_messages());
        Ok(arrivals)
    }

    fn check(form: StreamForm, body: &[u8], expected: &[u32]) {
        let expected: Vec<_> = expected.iter().map(|n| Arrival::Message(Some(Number(*n)))).collect();
        for sizes in [&[body.len()] as &[usize], &[1], &[7, 100, 3]] {
            let bytes = [HEAD, &chunked(body, sizes)].concat();
            assert_eq!(count(form, [bytes.as_slice()]).unwrap(), expected, "whole");
            assert_eq!(count(form, bytes.chunks(1)).unwrap(), expected, "byte by byte");
        }
    }

    #[test]
    fn json_lines_are_counted_and_heartbeats_are_not() {
        let body = format!("\n{}\n\n{}\n", json(1), json(2));
        check(StreamForm::JsonLines, body.as_bytes(), &[1, 2]);
    }

    #[test]
    fn events_are_counted_by_their_data() {
        let body = format!(
            ":\n\nid: e:1\nevent: message\ndata: {}\n\n: beat\n\nid: e:2\ndata:{}\n\n",
            json(1),
            json(2)
        );
        check(StreamForm::Events, body.as_bytes(), &[1, 2]);
    }

    #[test]
    fn a_body_without_chunks_is_counted_too() {
        let bytes = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\n{}\n", json(3));
        let arrivals = count(StreamForm::JsonLines, bytes.as_bytes().chunks(1)).unwrap();
        assert_eq!(arrivals, [Arrival::Message(Some(Number(3)))]);
    }

    #[test]
    fn another_status_is_quoted() {
        let bytes = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(
            count(StreamForm::JsonLines, [bytes.as_slice()]).unwrap_err(),
            WireError::NotAStream("HTTP/1.1 401 Unauthorized".into())
        );
    }

    #[test]
    fn the_last_chunk_is_the_end() {
        let bytes = [HEAD, b"1\r\n\n\r\n0\r\n\r\n"].concat();
        assert_eq!(count(StreamForm::JsonLines, [bytes.as_slice()]).unwrap_err(), WireError::Closed);
    }

    #[test]
    fn a_chunk_size_that_is_no_number_is_an_error() {
        for (size, told) in [("xyz\r\n", "hexadecimal"), ("11112222333344445\r\n", "digits")] {
            let bytes = [HEAD, size.as_bytes()].concat();
            let error = count(StreamForm::JsonLines, [bytes.as_slice()]).unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let mut counter = StreamCounter::in_body(StreamForm::JsonLines);
        counter.feed(b"ffffffff\r\n", |_| ()).unwrap();
        let told = (0..20).find_map(|_| counter.feed(&[b'x'; 100_000], |_| ()).err());
        assert_eq!(told, Some(WireError::TooLong { what: "line", limit: LINE_BYTES_MAX }));
    }

    #[test]
    fn a_join_names_every_channel_and_the_sender() {
        // [http: join]
        assert_eq!(join_target(72, 1..2), "/channels/join?channels=1&sender=72");
        let mut out = Vec::new();
        let host = SocketAddr::from(([127, 0, 0, 1], 3033));
        write_join(&join_target(72, 1..4), StreamForm::Events, host, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "GET /channels/join?channels=1,2,3&sender=72 HTTP/1.1\r\nHost: 127.0.0.1:3033\r\n\
             Accept: text/event-stream\r\n\r\n"
        );
    }

    proptest! {
        #[test]
        fn messages_are_counted_alike_however_they_are_chunked_and_split(
            sizes in proptest::collection::vec(1..200_usize, 1..10),
            piece in 1..64_usize,
            messages in 1..10_u32,
        ) {
            let body: String = (0..messages).map(|n| json(n) + "\n").collect();
            let bytes = [HEAD, &chunked(body.as_bytes(), &sizes)].concat();
            let expected: Vec<_> =
                (0..messages).map(|n| Arrival::Message(Some(Number(n)))).collect();
            prop_assert_eq!(count(StreamForm::JsonLines, bytes.chunks(piece)).unwrap(), expected);
        }

        #[test]
        fn no_input_panics(bytes: Vec<u8>, piece in 1..9_usize) {
            for mut counter in
                [StreamCounter::new(StreamForm::Events), StreamCounter::in_body(StreamForm::JsonLines)]
            {
                for piece in bytes.chunks(piece) {
                    if counter.feed(piece, |_| ()).is_err() {
                        break;
                    }
                }
            }
        }
    }
}
