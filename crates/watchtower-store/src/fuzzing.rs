//! The decoder that a fuzzer calls. For tests of this workspace: no part of the interface.

pub use crate::disk::read_and_write;
