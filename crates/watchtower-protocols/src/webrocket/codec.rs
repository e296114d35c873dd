//! The seam to how commands, replies and events are written: three functions.
//!
//! Knows no such way; [`Json`](super::Json) is one.

use bytes::BytesMut;

use super::{Command, Event, Malformed, Reply};
use crate::websocket::{Incoming, MessageKind, Outgoing};

/// How a hub's commands, replies and events are written, each one WebSocket
/// message.
///
/// It judges what belongs to the way of writing: whether a field is there and
/// is a text. What the texts may say is the hub's to judge.
pub trait Codec: Send + Sync + 'static {
    /// Reads what came from a client.
    ///
    /// Must take no more memory than a small multiple of the message, and no
    /// more stack however deep it is nested.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it is no command: the client is told, and may go on.
    fn decode<'a>(&self, message: Incoming<'a>) -> Result<Command<'a>, Malformed>;

    /// What a client is answered; `room` is for what is not always the same.
    fn reply<'a>(&self, reply: &Reply, room: &'a mut BytesMut) -> Outgoing<'a>;

    /// Appends a message as subscribers see it, and says what it is; what is
    /// `Text` must be valid UTF-8.
    ///
    /// Must depend on the event alone: it is called once for all subscribers, and
    /// once for all who asked for positions.
    fn encode(&self, event: &Event<'_>, out: &mut BytesMut) -> MessageKind;
}
