//! The WebRocket protocol: publish and subscribe over WebSocket, for browsers.
//!
//! A hub ([`WebRocket`]) stands at a path and has two secrets. A client logs in
//! (`auth`), subscribes, publishes events, and is answered each command with
//! one reply; what is published on its channels it is sent unasked. Commands,
//! replies and events are written by a [`Codec`], which is [`Json`] unless a
//! program that embeds the server has its own.
//!
//! Written with the public interface of [`websocket`](crate::websocket) alone,
//! as a protocol of anybody's own would be.

mod access;
mod codec;
mod command;
mod error_code;
mod events;
mod failures;
mod handler;
mod json;
mod namespace;
mod observer;
mod refusals;
mod slowdown;

pub use access::{Access, Secret, UnknownAccess};
pub use codec::Codec;
pub use command::{Command, CommandName, Event, Malformed, Publication, Reply, Since};
pub use error_code::ErrorCode;
pub use failures::LoginFailures;
pub use handler::{Connection, HubOptions, WebRocket};
pub use json::Json;
pub use namespace::{InvalidNamespace, Namespace};
pub use observer::{Activity, Observer};
pub use refusals::RefusalCounts;

#[cfg(test)]
mod tests;
