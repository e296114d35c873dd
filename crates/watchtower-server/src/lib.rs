//! The Watchtower server, usable as a library: drivers for each transport,
//! HTTP, callbacks, configuration and assembly.

pub mod callbacks;
pub mod config;
