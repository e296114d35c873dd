//! The WebRocket protocol: publish and subscribe in JSON commands over
//! WebSocket.

mod access;

pub use access::{Access, Secret, UnknownAccess};
