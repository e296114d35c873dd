//! Seeded simulations of whole networks, in virtual time.
//!
//! The same seed gives the same run, to the byte. Nothing here opens a socket or
//! reads a clock. [`whispernet`] simulates many nodes of the whispernet.

mod schedule;
pub mod whispernet;
