//! How a stream without a known length is laid into an HTTP response.
//!
//! Knows nothing of what is carried.

use bytes::BytesMut;
use watchtower_hub::{Format, FormatId, Message};

/// The chunk that ends a chunked response.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The longest head of a chunk: 16 hexadecimal digits, CR and LF.
const HEAD_BYTES_MAX: usize = 18;

/// What a frame has room for beside its content and the head of its chunk: the
/// names, numbers and times of JSON and of an event. More makes it grow.
const FRAME_BYTES_BESIDE: usize = 208;

/// How a client learns where a response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// In chunks, the last of which is empty: HTTP/1.1.
    Chunked,
    /// By the end of the connection: HTTP/1.0.
    UntilClose,
}

impl Framing {
    /// Appends `bytes` as a piece of the response.
    pub(super) fn write(self, bytes: &[u8], out: &mut Vec<u8>) {
        match self {
            Framing::UntilClose => out.extend_from_slice(bytes),
            // An empty chunk would be the last one.
            Framing::Chunked if bytes.is_empty() => {}
            Framing::Chunked => {
                let (head, start) = chunk_head(bytes.len());
                out.extend_from_slice(&head[start..]);
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Ends the response.
    pub(super) fn finish(self, out: &mut Vec<u8>) {
        if self == Framing::Chunked {
            out.extend_from_slice(LAST_CHUNK);
        }
    }
}

/// A format with each of its frames in a chunk of its own, so that the shared
/// frame goes to the socket as it is.
#[derive(Debug)]
pub struct Chunked<F> {
    id: FormatId,
    inner: F,
}

impl<F: Format> Chunked<F> {
    /// The format of that id, whose chunks hold the frames of `inner`.
    pub const fn new(id: FormatId, inner: F) -> Chunked<F> {
        Chunked { id, inner }
    }
}

impl<F: Format> Format for Chunked<F> {
    fn id(&self) -> FormatId {
        self.id
    }

    fn encode(&self, message: &Message, out: &mut BytesMut) {
        let start = out.len();
        out.reserve(HEAD_BYTES_MAX + message.content().bytes().len() + FRAME_BYTES_BESIDE);
        out.extend_from_slice(&[0; HEAD_BYTES_MAX]);
        self.inner.encode(message, out);
        let length = out.len() - start - HEAD_BYTES_MAX;
        if length == 0 {
            // What the format cannot show is no chunk: an empty one would be
            // the last.
            out.truncate(start);
            return;
        }
        // The length of the head is known only now: the content moves up to it.
        let (head, unused) = chunk_head(length);
        out.copy_within(start + HEAD_BYTES_MAX.., start + HEAD_BYTES_MAX - unused);
        out.truncate(out.len() - unused);
        out[start..start + HEAD_BYTES_MAX - unused].copy_from_slice(&head[unused..]);
        out.extend_from_slice(b"\r\n");
    }
}

/// The head of a chunk of `length` bytes, and where it starts in the array.
fn chunk_head(length: usize) -> ([u8; HEAD_BYTES_MAX], usize) {
    let mut head = [b'\r'; HEAD_BYTES_MAX];
    head[HEAD_BYTES_MAX - 1] = b'\n';
    let mut start = HEAD_BYTES_MAX - 2;
    let mut rest = length;
    loop {
        start -= 1;
        head[start] = b"0123456789abcdef"[rest & 0xf];
        rest >>= 4;
        if rest == 0 {
            return (head, start);
        }
    }
}
