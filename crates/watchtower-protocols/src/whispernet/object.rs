//! Finds JSON objects in a stream of bytes that has nothing between them.
//!
//! Looks at each byte once, however the stream is cut, and remembers where it
//! stands: a large object that trickles in costs no more than one that comes
//! whole. Knows brackets and strings alone; whether what stands between them is
//! JSON, and what it means, is for [`Message`](super::Message) to say.

use bytes::Bytes;
use thiserror::Error;

/// How deep an object may be nested, itself included ([whispernet: messages]).
pub const OBJECT_DEPTH_MAX: u32 = 32;

/// What a peer sent that is no message: it is disconnected
/// ([whispernet: messages]). Says what was expected and what came, and nothing
/// of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Something that begins no object.
    #[error("expected an object's {{, got byte {byte:#04x}")]
    NotAnObject {
        /// What came.
        byte: u8,
    },
    /// An object that is not JSON.
    #[error("expected JSON in UTF-8")]
    NotJson,
    /// An object above the size limit.
    #[error("expected at most {bytes_max} bytes in an object")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// An object nested too deeply.
    #[error("expected objects nested at most {OBJECT_DEPTH_MAX} deep")]
    TooDeep,
    /// A known key with another type than it has.
    #[error("expected {key} to be {expected}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// The type that it has.
        expected: &'static str,
    },
    /// A `Body` without an `ID`.
    #[error("expected an ID with a Body")]
    NoId,
}

/// Takes a stream of bytes apart into objects.
///
/// Keeps the beginning of one object at most. Its memory is that much, and
/// never above twice the size limit. After an error there is no telling where
/// the next object begins: the reader is of no more use.
pub struct ObjectReader {
    bytes_max: usize,
    /// The beginning of an object. Invariant: at most `bytes_max` bytes, none
    /// if `scan` stands between objects.
    partial: Vec<u8>,
    scan: Scan,
}

impl ObjectReader {
    /// A reader at the beginning of a stream, for objects of at most
    /// `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> ObjectReader {
        ObjectReader { bytes_max, partial: Vec::new(), scan: Scan::default() }
    }

    /// The next object, byte for byte, and in memory of its own size; what was
    /// looked at is taken off `input`. `None` when all of it was, and more is
    /// needed.
    ///
    /// # Errors
    ///
    /// [`Malformed`], at the same byte however the stream is cut.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Bytes>, Malformed> {
        if self.partial.is_empty() {
            *input = skip_whitespace(input);
        }
        let room = self.bytes_max - self.partial.len();
        let looked_at = input.get(..room).unwrap_or(input);
        let end = self.scan.find_end(looked_at)?;
        let taken = end.unwrap_or(looked_at.len());
        let (object, rest) = input.split_at(taken);
        *input = rest;
        if end.is_some() {
            return Ok(Some(self.complete(object)));
        }
        if !rest.is_empty() {
            return Err(Malformed::TooLarge { bytes_max: self.bytes_max });
        }
        self.partial.extend_from_slice(object);
        debug_assert!(self.partial.len() <= self.bytes_max);
        Ok(None)
    }

    /// How many bytes of an unfinished object are kept.
    pub fn unfinished_bytes(&self) -> usize {
        self.partial.len()
    }

    fn complete(&mut self, end: &[u8]) -> Bytes {
        self.scan = Scan::default();
        if self.partial.is_empty() {
            return Bytes::copy_from_slice(end);
        }
        let mut object = std::mem::take(&mut self.partial);
        object.extend_from_slice(end);
        // An object may be kept for long: without the room that it grew in.
        Bytes::from(object.into_boxed_slice())
    }
}

/// Where in an object the next byte stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Outside: only `{` may come.
    #[default]
    Between,
    /// Inside, and in no string.
    Structure,
    String,
    /// In a string, after a backslash.
    Escape,
}

/// The scan for the end of an object.
#[derive(Default)]
struct Scan {
    place: Place,
    /// How many brackets are open. Invariant: 0 exactly between objects, at
    /// most [`OBJECT_DEPTH_MAX`].
    depth: u32,
    /// Which of them are square, the innermost in the lowest bit.
    square: u32,
}

impl Scan {
    /// Goes on over `input`: the length of what belongs to the object, when it
    /// ends there.
    fn find_end(&mut self, input: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            at += 1;
            match self.place {
                Place::Between if byte == b'{' => self.open(false)?,
                Place::Between => return Err(Malformed::NotAnObject { byte }),
                Place::Structure => match byte {
                    b'"' => self.place = Place::String,
                    b'{' => self.open(false)?,
                    b'[' => self.open(true)?,
                    b'}' => self.close(false)?,
                    b']' => self.close(true)?,
                    _ => {}
                },
                Place::String => match byte {
                    b'"' => self.place = Place::Structure,
                    b'\\' => self.place = Place::Escape,
                    // Nearly all of a large object is one string.
                    _ => at += memchr::memchr2(b'"', b'\\', &input[at..]).unwrap_or(input.len() - at),
                },
                Place::Escape => self.place = Place::String,
            }
            if self.depth == 0 {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn open(&mut self, is_square: bool) -> Result<(), Malformed> {
        if self.depth == OBJECT_DEPTH_MAX {
            return Err(Malformed::TooDeep);
        }
        self.depth += 1;
        self.square = self.square << 1 | u32::from(is_square);
        self.place = Place::Structure;
        Ok(())
    }

    /// A bracket that closes one of the other kind would make the scan miss
    /// the end, and swallow the objects that follow.
    fn close(&mut self, is_square: bool) -> Result<(), Malformed> {
        if (self.square & 1 == 1) != is_square {
            return Err(Malformed::NotJson);
        }
        self.depth -= 1;
        self.square >>= 1;
        Ok(())
    }
}

/// Without the white space that it begins with. JSON has four kinds, fewer than
/// [`u8::is_ascii_whitespace`].
fn skip_whitespace(input: &[u8]) -> &[u8] {
    let start = input.iter().position(|byte| !b" \t\n\r".contains(byte));
    &input[start.unwrap_or(input.len())..]
}
