//! The decoders that a fuzzer calls. For tests of this workspace: no part of the interface.

use crate::Message;
use crate::webrocket::Incoming;

/// Reads one line of a stream over HTTP.
///
/// # Errors
///
/// What is wrong with the line.
pub fn message_of_stream(line: &[u8]) -> Result<Message, String> {
    Message::from_json(line)
}

/// Reads one message of a WebRocket hub: a message of a channel, or `None` for an answer.
///
/// # Errors
///
/// What is wrong with it, or what the answer refuses.
pub fn message_of_hub(message: &[u8]) -> Result<Option<Message>, String> {
    match Incoming::read(message)? {
        Incoming::Message(message) => Ok(Some(message)),
        Incoming::Answer(answer) => answer.map(|_| None).map_err(|error| error.to_string()),
    }
}
