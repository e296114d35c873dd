//! HTTP callbacks.

pub mod address;
pub mod delivery;
pub mod metrics;
pub mod post;
pub mod schedule;
pub mod sign;
pub mod target;
pub mod worker;

#[cfg(test)]
mod testing;
