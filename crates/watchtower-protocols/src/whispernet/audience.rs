//! Who may hear a message.
//!
//! Decided once, when the message comes, and kept with it: who asks for it later
//! may hear it as little as those that it was passed on to at once.

use std::net::SocketAddr;

/// All peers but the one that the message is from, and some others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Audience {
    /// The peer that it is from, as far as that is known.
    pub(super) origin: Option<SocketAddr>,
    /// Whether peers on the node's own machine are not to hear it.
    pub(super) is_kept_from_machine: bool,
}

impl Audience {
    /// Of a message that all may hear but the peer that it is from.
    pub(super) fn all_but(origin: Option<SocketAddr>) -> Audience {
        Audience { origin, is_kept_from_machine: false }
    }

    pub(super) fn has(&self, peer: SocketAddr) -> bool {
        self.origin != Some(peer) && !(self.is_kept_from_machine && peer.ip().is_loopback())
    }
}
