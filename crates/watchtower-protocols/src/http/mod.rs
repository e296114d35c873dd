//! Watchtower HTTP: messages as JSON, and the streams that carry them.
//!
//! Requests and answers belong to the server; here is what is shared by all
//! who listen: the JSON of a message, its frame in each form of stream, and
//! the little that such a stream says besides messages.

mod framing;
mod message;
mod stream;
#[cfg(test)]
mod tests;

pub use framing::{Chunked, Framing};
pub use message::{MessageJson, write_channel, write_message, write_time};
pub use stream::{Form, HttpStream, Octets, Opening};
