//! The Watchtower server, usable as a library: drivers for each transport,
//! HTTP, callbacks, configuration and assembly.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use watchtower_server::{Server, config::Config};
//!
//! let config = Config { listen: "127.0.0.1:3033".parse()?, ..Config::default() };
//! let server = Server::bind(config).await?;
//! for listener in server.listeners() {
//!     println!("listening {listener}");
//! }
//! let handle = server.handle();
//! tokio::spawn(async move { server.run().await });
//! // … later: tells every session, closes them, and ends within shutdown_grace.
//! handle.shutdown();
//! # Ok(())
//! # }
//! ```
//!
//! Publishing and subscribing from inside:
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let config = watchtower_server::config::Config { listen: "127.0.0.1:0".parse()?, ..Default::default() };
//! # let handle = watchtower_server::Server::bind(config).await?.handle();
//! use watchtower_server::hub::{ChannelName, Content, Publish};
//!
//! let news = ChannelName::parse("news")?;
//! let mut subscriber = handle.subscribe(&[news.clone()])?;
//! handle.publish(&news, Publish::new(Content::text("it works")))?.await?;
//! let message = subscriber.next().await;
//! assert_eq!(message.content().as_text(), Some("it works"));
//! # Ok(())
//! # }
//! ```
//!
//! A protocol of one's own is a [`websocket::Handler`] under a path; this is the
//! whole of a server with one:
//!
//! ```no_run
#![doc = include_str!("../examples/custom_protocol.rs")]
//! ```

pub mod callbacks;
pub mod config;
pub mod http;

mod clock;
mod door;
mod file;
mod hub_log;
mod inside;
mod ledger;
mod listeners;
mod metrics;
mod request_limiter;
mod server;
mod shutdown;
mod stream;
mod tcp;
mod timer;
mod tls;
mod udp;
mod websockets;
mod whispernet;
mod wire;

pub use hub_log::HubLog;
pub use inside::Subscriber;
pub use listeners::ListenerInfo;
pub use server::{Handle, ReloadReport, Server, ServerBuilder, StartError};
pub use tls::{CertificateError, TlsFile};

/// The hub: channels, messages, and the calls that change them.
pub use watchtower_hub as hub;
/// Publish and subscribe in JSON over WebSocket, as a handler.
pub use watchtower_protocols::webrocket;
pub use watchtower_protocols::websocket;
/// Browsers that another application talks to, as a handler.
pub use watchtower_protocols::webtalk;
