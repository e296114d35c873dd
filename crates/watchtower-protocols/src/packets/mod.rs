//! The Watchtower packet protocol: small binary packets over TCP and UDP, for
//! devices with the barest of network stacks.
//!
//! A device registers (`R`), joins channels (`J`), publishes (`M`, `W`) and
//! reads what the channels carry (`M`), all in packets of a one-byte tag and
//! little-endian integers. [`frame`] turns bytes into packets and back, in both
//! directions, so that the server, the client and the octet-stream form of the
//! HTTP streams share one codec.

mod error_code;
mod error_counts;
mod format;
pub mod frame;
mod session;

pub use error_code::ErrorCode;
pub use error_counts::{ErrorCounts, Transport};
pub use format::{PACKET_FORMAT, PacketFormat};
pub use session::{Admission, Options, PacketPeer, PacketStream, Registrar};

#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod tests;
