//! A real server in a process of its own, and clients that speak the bytes of the packet page to
//! it. Nothing here uses the project's own codec, so that no fault in it can hide.

pub(crate) mod packets;
mod server;
mod tcp;
mod udp;

use std::time::{Duration, Instant};

pub(crate) use server::{Server, watchtower};
pub(crate) use tcp::Tcp;
pub(crate) use udp::Udp;

/// After how long something that does not happen is a failure. Nothing waits this long when all
/// is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again, each time by a round trip to the server, until it is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never came: {what}");
    }
}
