//! The packet protocol over real sockets against the real server: what the packet page promises
//! [packets], and what hostile input must not do.

#[path = "../support/mod.rs"]
mod support;

mod abuse;
mod delivery;
mod faults;
mod hostile;
mod identity;
mod lifecycle;
mod limits;
mod websocket;
