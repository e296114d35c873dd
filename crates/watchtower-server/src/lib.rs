//! The Watchtower server, usable as a library: drivers for each transport,
//! HTTP, callbacks, configuration and assembly.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use watchtower_server::{Server, config::Config};
//!
//! let server = Server::bind(Config::default()).await?;
//! for listener in server.listeners() {
//!     println!("listening {listener}");
//! }
//! server.run().await;
//! # Ok(())
//! # }
//! ```

pub mod callbacks;
pub mod config;
pub mod http;

mod clock;
mod door;
mod metrics;
mod request_limiter;
mod server;
mod shutdown;
mod stream;
mod tcp;
mod tls;
mod udp;
mod wire;

pub use server::{Handle, ListenerInfo, ReloadReport, Server, StartError};
pub use tls::{CertificateError, TlsFile};
