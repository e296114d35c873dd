//! The whispernet: chat from peer to peer, as JSON objects on streams of bytes.
//!
//! A [`Node`] is one peer, without its sockets: events go in, [`Action`]s come
//! out. Below it, [`ObjectReader`] takes a stream apart into objects, and
//! [`Message`] reads and writes one. [`safe_text`] is for whoever shows what
//! peers send.

mod address;
mod assembler;
mod audience;
mod backlog;
mod events;
mod file;
mod flood;
mod id;
mod identity;
mod message;
mod node;
mod object;
mod part;
mod peers;
mod routing;
pub mod safe_text;
mod seen;

pub use assembler::{Assembler, FileLimits, Sender, Taken, TransferError, TransferId};
pub use backlog::{BacklogLimits, Last};
pub use events::{Action, CloseReason, ConnectionId, Counts, GREETING, Notice, Options, Said, Shown, Unsaid};
pub use file::{File, NotBase64};
pub use flood::FloodLimits;
pub use id::{IdKind, check_id, hashed_id};
pub use identity::{Identity, Mark, PublicKey};
pub use message::Message;
pub use node::Node;
pub use object::{Malformed, OBJECT_DEPTH_MAX, ObjectReader};
pub use part::{FilePart, NotItsPart, PART_BYTES, PARTS_MAX, Part, WHOLE_BYTES_MAX, Whole};
pub use peers::{Keep, PeerLimits, PeerState};
pub use routing::RoutingLimits;
pub use seen::SeenLimits;

#[cfg(test)]
mod network_tests;
#[cfg(test)]
mod node_tests;
#[cfg(test)]
mod part_tests;
#[cfg(test)]
mod routing_tests;
#[cfg(test)]
mod tests;
