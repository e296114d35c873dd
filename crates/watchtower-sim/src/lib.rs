//! Seeded simulations of whole networks, in virtual time.
//!
//! The same seed gives the same run, to the byte. Nothing here opens a socket or
//! reads a clock. [`hub`] simulates the hub and its protocols, [`whispernet`] many
//! nodes of the whispernet.

pub mod hub;
mod schedule;
pub mod whispernet;
