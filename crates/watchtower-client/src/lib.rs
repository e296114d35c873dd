//! A client for Watchtower over TCP and UDP packets, HTTP and WebRocket.
//!
//! [`Client::connect`] reaches a server; then [`register`](Client::register) or
//! [`with_sender`](Client::with_sender) says who publishes and listens, and
//! [`subscribe`](Client::subscribe) turns the client into a stream of messages.
//! Over WebRocket nobody registers: [`Options::secret`] is that of the hub.
//! Every wait for an answer ends after [`Options::timeout`]. The crate keeps no
//! state on disk and does not reconnect: both are for its caller.
//!
//! ```no_run
//! # async fn example() -> Result<(), watchtower_client::ClientError> {
//! use watchtower_client::{ChannelName, Client, Content, DEFAULT_SERVER, Options, Protocol};
//!
//! let channel = ChannelName::from(5);
//! let mut client = Client::connect(Protocol::Tcp, DEFAULT_SERVER, Options::default()).await?;
//! client.register().await?;
//! client.join(std::slice::from_ref(&channel)).await?;
//! client.publish(&channel, &Content::text("all your base are belong to us")).await?;
//! # Ok(())
//! # }
//! ```

mod client;
mod early;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod history;
mod http;
mod link;
mod message;
mod packets;
mod subscription;
mod webrocket;
mod websocket;

pub use client::{Client, DEFAULT_SERVER, Options, Protocol};
pub use error::{ClientError, Refusal};
pub use history::{History, Resumed, Span};
pub use message::Message;
pub use subscription::Subscription;
pub use watchtower_hub::{ChannelName, Content, ContentKind, Epoch, Position, SenderId, Timestamp};
pub use watchtower_protocols::packets::ErrorCode;
pub use webrocket::HubError;
