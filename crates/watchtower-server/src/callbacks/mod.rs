//! HTTP callbacks.

pub mod address;
pub mod schedule;
pub mod sign;
pub mod target;
