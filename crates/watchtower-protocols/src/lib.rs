//! Pure codecs and session state machines of every Watchtower protocol.
//!
//! One folder a protocol, and beside them the transports that several share:
//! [`stream`] for bytes, [`websocket`] for messages; and [`byline`], by which a bridge says who
//! speaks. Bytes in, calls on the hub out; messages in, bytes
//! out. Nothing here knows a socket, a runtime or a clock, and no protocol
//! knows another.

mod byline;
pub mod http;
mod json;
pub mod packets;
#[cfg(test)]
#[path = "../../watchtower-hub/tests/model/shelf.rs"]
mod shelf;
pub mod stream;
mod unanswered;
pub mod webrocket;
pub mod websocket;
pub mod webtalk;
pub mod whispernet;

pub use byline::byline;
