//! WebTalk: messages to browsers, for applications that cannot speak WebSocket
//! themselves.
//!
//! It has two faces. On the private link, a TCP connection ([`Link`]), an
//! application makes users and channels, puts the ones into the others, and
//! talks to both. A user's browser logs in on a WebSocket and listens; there
//! [`WebTalk`] is the [`Handler`](crate::websocket::Handler). Both work on the
//! same [`WebTalk`], whose channels are those of the hub: what is shouted in
//! channel 5 is heard over every protocol, and the other way round.

mod browser;
mod command;
mod error;
pub mod frame;
mod link;
mod store;
mod talk;
mod user;

pub use command::Command;
pub use error::LinkError;
pub use link::{Gate, Link};
pub use store::{KEY_BYTES_MAX, STORE_BYTES_MAX, STORE_KEYS_MAX};
pub use talk::WebTalk;
pub use user::{Credentials, Login};

#[cfg(test)]
mod tests;
