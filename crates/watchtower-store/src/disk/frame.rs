//! Frames: how each change stands in a file, so that damage to one byte costs
//! one frame at most, and which one is known.
//!
//! ```text
//! magic 4 | length 4 | serial 4 | channel 4 | offset 8 | check 4 | payload | check 4
//! ```
//!
//! The header has a check of its own. So when the payload is damaged, the header
//! still tells whose message it was, and where the next frame is; and when the
//! header is damaged, the payload is whole and is found by what stands before
//! and behind it. Checks begin with the store's random id: content that looks
//! like a frame is not taken for one.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crc32fast::Hasher;
use watchtower_hub::ChannelName;

use super::codec::{Input, put_u32, put_u64};

/// The longest payload: more than the hub lets a message have by default, by
/// far, so that a configuration may raise that.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 << 20;
pub(crate) const HEADER_BYTES: usize = 28;
/// What a frame has beside its payload.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + 4;

const MAGIC: [u8; 4] = [0xf5, b'W', b't', b'f'];
/// In the length: more frames of the same submission follow.
const MORE: u32 = 1 << 31;
/// How much is read at once when a file is gone through.
const WINDOW_BYTES: usize = 1 << 20;

/// Makes and checks the frames of one store.
#[derive(Debug, Clone)]
pub(crate) struct Seal(Hasher);

/// What was found where a frame should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    Whole,
    /// Its payload is whole, and its header is not.
    Mended,
    /// Not what was written.
    Broken,
}

/// What a frame's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) length: usize,
    pub(crate) more: bool,
    /// The number of this frame in its file, from 0.
    pub(crate) serial: u32,
    /// Tells channels apart, nearly always; 0 for what is no message.
    pub(crate) channel: u32,
    /// A message's offset, else 0.
    pub(crate) offset: u64,
}

impl Seal {
    pub(crate) fn new(id: &[u8; 16]) -> Seal {
        let mut hasher = Hasher::new();
        hasher.update(id);
        Seal(hasher)
    }

    /// Makes a check of what comes a little at a time.
    pub(crate) fn hasher(&self) -> Hasher {
        self.0.clone()
    }

    pub(crate) fn check(&self, bytes: &[u8]) -> u32 {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finalize()
    }

    /// What stands for a channel in a header.
    pub(crate) fn channel(&self, channel: &ChannelName) -> u32 {
        self.check(channel.to_string().as_bytes()).max(1)
    }

    /// Appends a whole frame.
    pub(crate) fn put_frame(&self, header: Header, payload: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        put_u32(header.length as u32 | if header.more { MORE } else { 0 }, out);
        put_u32(header.serial, out);
        put_u32(header.channel, out);
        put_u64(header.offset, out);
        let check = self.check(&out[start..]);
        put_u32(check, out);
        out.extend_from_slice(payload);
        put_u32(self.check(payload), out);
    }

    /// The header that stands at the beginning of `bytes`.
    pub(crate) fn header(&self, bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        if !bytes.starts_with(&MAGIC) {
            return None;
        }
        let (checked, check) = bytes.split_at(HEADER_BYTES - 4);
        if check != self.check(checked).to_le_bytes() {
            return None;
        }
        let mut input = Input(&checked[4..]);
        let (length, serial, channel, offset) = (input.u32()?, input.u32()?, input.u32()?, input.u64()?);
        let header =
            Header { length: (length & !MORE) as usize, more: length & MORE != 0, serial, channel, offset };
        (header.length <= PAYLOAD_BYTES_MAX).then_some(header)
    }

    /// The payload that these bytes are, its check behind it.
    fn payload<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (payload, check) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        (check == self.check(payload).to_le_bytes()).then_some(payload)
    }

    /// Reads the payload of the frame at `at`, in a file that is in force up to
    /// `end`, into the buffer, which holds the one that was read before, if any:
    /// they are often of one length.
    pub(crate) fn read(&self, file: &File, at: u64, end: u64, buffer: &mut Vec<u8>) -> io::Result<Read> {
        /// Most frames are read with one call.
        const GUESS_BYTES: usize = 4096;
        let guess = match buffer.len() {
            0 => GUESS_BYTES,
            last => (OVERHEAD_BYTES + last).next_power_of_two().min(GUESS_BYTES),
        };
        buffer.resize(guess, 0);
        let read = read_up_to(file, buffer, at)?;
        buffer.truncate(read);
        let Some(header) = self.header(buffer) else {
            return self.read_without_header(file, at, end, buffer);
        };
        let whole = OVERHEAD_BYTES + header.length;
        if whole > guess {
            buffer.resize(whole, 0);
            let more = read_up_to(file, &mut buffer[guess..], at + guess as u64)?;
            buffer.truncate(guess + more);
        }
        buffer.truncate(whole);
        if buffer.len() < whole || self.payload(&buffer[HEADER_BYTES..]).is_none() {
            return Ok(Read::Broken);
        }
        buffer.truncate(whole - 4);
        buffer.drain(..HEADER_BYTES);
        Ok(Read::Whole)
    }

    /// The same where the header is damaged.
    fn read_without_header(&self, file: &File, at: u64, end: u64, buffer: &mut Vec<u8>) -> io::Result<Read> {
        buffer.clear();
        let end = end.min(file.metadata()?.len());
        if let Some(Found::Frame { payload, .. }) = Walk::new(file, self, at..end).next()? {
            buffer.extend_from_slice(payload);
            return Ok(Read::Mended);
        }
        Ok(Read::Broken)
    }
}

/// Fills the buffer as far as the file goes.
pub(crate) fn read_up_to(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Something that is in a file.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// A frame that is whole. Its header was made up when that was damaged, and
    /// has no serial then.
    Frame { at: u64, header: Option<Header>, payload: &'a [u8] },
    /// Bytes that are no frame. The header of the one that was there, if that is
    /// whole.
    Broken { at: Range<u64>, header: Option<Header> },
    /// The file ends within a frame, or with bytes in which none begins.
    Unfinished,
}

/// Goes through the frames of a file from its beginning to an end, and finds the
/// way again behind what is damaged.
///
/// Takes as much memory as the longest frame, and a window.
pub(crate) struct Walk<'a> {
    file: &'a File,
    seal: &'a Seal,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    base: u64,
    at: u64,
    end: u64,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(file: &'a File, seal: &'a Seal, range: Range<u64>) -> Walk<'a> {
        Walk { file, seal, buffer: Vec::new(), base: range.start, at: range.start, end: range.end }
    }

    /// What is next; `None` at the end. After [`Found::Unfinished`] comes nothing.
    pub(crate) fn next(&mut self) -> io::Result<Option<Found<'_>>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let at = self.at;
        let header = self.header_at(at)?;
        let Some(header) = header else { return self.behind_broken_header(at).map(Some) };
        let after = at + (OVERHEAD_BYTES + header.length) as u64;
        if after > self.end {
            self.at = self.end;
            return Ok(Some(Found::Unfinished));
        }
        self.at = after;
        let bytes = self.bytes(at, OVERHEAD_BYTES + header.length)?;
        let is_whole = self.seal.payload(&self.buffer[bytes.start + HEADER_BYTES..bytes.end]).is_some();
        if !is_whole {
            return Ok(Some(Found::Broken { at: at..after, header: Some(header) }));
        }
        let payload = &self.buffer[bytes.start + HEADER_BYTES..bytes.end - 4];
        Ok(Some(Found::Frame { at, header: Some(header), payload }))
    }

    fn behind_broken_header(&mut self, at: u64) -> io::Result<Found<'_>> {
        let next = self.next_header(at + 1)?;
        let end = next.unwrap_or(self.end);
        self.at = end;
        let length = usize::try_from(end - at).unwrap_or(usize::MAX);
        if (OVERHEAD_BYTES..=OVERHEAD_BYTES + PAYLOAD_BYTES_MAX).contains(&length) {
            let bytes = self.bytes(at, length)?;
            let payload = bytes.start + HEADER_BYTES..bytes.end;
            if self.seal.payload(&self.buffer[payload.clone()]).is_some() {
                let payload = &self.buffer[payload.start..payload.end - 4];
                return Ok(Found::Frame { at, header: None, payload });
            }
        }
        Ok(match next {
            Some(next) => Found::Broken { at: at..next, header: None },
            None => Found::Unfinished,
        })
    }

    fn next_header(&mut self, mut at: u64) -> io::Result<Option<u64>> {
        while at + HEADER_BYTES as u64 <= self.end {
            let bytes = self.bytes(at, HEADER_BYTES)?;
            let there = &self.buffer[bytes.start..];
            if there.is_empty() {
                break;
            }
            match there.iter().position(|&byte| byte == MAGIC[0]) {
                None => at += there.len() as u64,
                Some(0) if self.seal.header(there).is_some() => return Ok(Some(at)),
                Some(0) => at += 1,
                Some(further) => at += further as u64,
            }
        }
        Ok(None)
    }

    fn header_at(&mut self, at: u64) -> io::Result<Option<Header>> {
        let bytes = self.bytes(at, HEADER_BYTES)?;
        Ok(self.seal.header(&self.buffer[bytes]))
    }

    /// Where in the buffer these bytes of the file are; fewer at its end.
    fn bytes(&mut self, at: u64, length: usize) -> io::Result<Range<usize>> {
        let in_buffer = |base: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
        let length = usize::try_from(self.end - at).unwrap_or(usize::MAX).min(length);
        let has = at >= self.base && in_buffer(self.base).saturating_add(length) <= self.buffer.len();
        if !has {
            self.base = at;
            let window = usize::try_from(self.end - at).unwrap_or(usize::MAX).min(length.max(WINDOW_BYTES));
            self.buffer.resize(window, 0);
            let read = read_up_to(self.file, &mut self.buffer, at)?;
            self.buffer.truncate(read);
        }
        let start = in_buffer(self.base);
        Ok(start..self.buffer.len().min(start + length))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn seal() -> Seal {
        Seal::new(&[1; 16])
    }

    fn frames(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for (serial, payload) in payloads.iter().enumerate() {
            let serial = serial as u32;
            let header = Header { length: payload.len(), more: false, serial, channel: 7, offset: 9 };
            seal().put_frame(header, payload, &mut out);
        }
        out
    }

    /// What is found, in a word each.
    fn walk(bytes: &[u8]) -> Vec<String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let seal = seal();
        let mut walk = Walk::new(&file, &seal, 0..bytes.len() as u64);
        let mut found = Vec::new();
        while let Some(one) = walk.next().unwrap() {
            found.push(match one {
                Found::Frame { payload, header, .. } => {
                    let made_up = if header.is_none() { "?" } else { "" };
                    format!("{}{made_up}", std::str::from_utf8(payload).unwrap())
                }
                Found::Broken { header: Some(header), .. } => format!("broken {}", header.serial),
                Found::Broken { header: None, .. } => "broken".to_owned(),
                Found::Unfinished => "unfinished".to_owned(),
            });
        }
        found
    }

    #[test]
    fn one_flipped_byte_costs_one_payload_at_most_and_it_is_known_which() {
        let whole = frames(&[b"one", b"two", b"three"]);
        assert_eq!(walk(&whole), ["one", "two", "three"]);
        let second = OVERHEAD_BYTES + 3;
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            let found = walk(&flipped);
            let frame = if at < second { 0 } else { 1 + (at - second) / second };
            let frame = frame.min(2);
            let start = frame * second;
            let mut expected = vec!["one".to_owned(), "two".to_owned(), "three".to_owned()];
            expected[frame] = match at - start {
                ..HEADER_BYTES => format!("{}?", expected[frame]),
                _ => format!("broken {frame}"),
            };
            assert_eq!(found, expected, "byte {at}");
        }
    }

    #[test]
    fn a_file_that_ends_within_a_frame_is_unfinished_and_the_rest_is_there() {
        let whole = frames(&[b"one", b"two"]);
        let second = OVERHEAD_BYTES + 3;
        assert_eq!(walk(&whole[..second]), ["one"]);
        for end in second + 1..whole.len() {
            assert_eq!(walk(&whole[..end]), ["one", "unfinished"], "{end}");
        }
    }

    #[test]
    fn content_that_looks_like_a_frame_is_not_taken_for_one() {
        let mut forged = Vec::new();
        let header = Header { length: 1, more: false, serial: 0, channel: 7, offset: 9 };
        Seal::new(&[2; 16]).put_frame(header, b"x", &mut forged);
        let mut bytes = frames(&[&forged, b"two"]);
        bytes[HEADER_BYTES + forged.len()] ^= 1;
        bytes[4] ^= 1;
        assert_eq!(walk(&bytes), ["broken", "two"]);
    }

    #[test]
    fn frames_longer_than_a_window_are_found() {
        let long = vec![b'x'; WINDOW_BYTES * 2];
        let bytes = frames(&[b"one", &long, b"three"]);
        let found = walk(&bytes);
        assert_eq!(found.iter().map(String::len).collect::<Vec<_>>(), [3, long.len(), 5]);
    }
}
