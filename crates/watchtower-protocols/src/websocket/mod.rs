//! WebSocket (RFC 6455) with permessage-deflate (RFC 7692), the server's side:
//! a transport for protocols of whole messages, as TCP is one for bytes.
//!
//! A protocol is a [`Handler`]; what it delivers looks as its [`Codec`] says.
//! Here are the handshake, frames, messages, compression, pings and the end.
//! Nothing here knows a socket, a clock, or what the messages mean.
//!
//! Two things are decided otherwise than in most libraries:
//!
//! - A server's frame has no mask, so the whole frame, compressed or not, is
//!   part of the shared encoding of a message ([`Frames`]): it is made once,
//!   however many subscribers there are.
//! - No connection keeps a compressor: both sides start anew with each message
//!   (`server_no_context_takeover` and `client_no_context_takeover`), and those
//!   of the thread are used.

mod client;
mod close;
mod decoder;
mod deflate;
mod format;
mod frame;
mod handler;
mod handshake;
mod inflation;
mod scratch;
mod session;
#[cfg(test)]
mod tests;
mod violations;

/// The head of the request that asked for a WebSocket.
pub use ::http::request::Parts;
pub use client::{Client, Closer, Incoming, Outgoing};
pub use close::CloseCode;
pub use format::{Codec, Compression, Frames, MessageKind};
pub use handler::{Endpoint, Handler, RemoteAddress, Subprotocol};
pub use handshake::{Accepted, HandshakeError, handshake, subprotocol};
pub use inflation::InflationCounts;
pub use session::{Settings, WebSocket};
pub use violations::ViolationCounts;
