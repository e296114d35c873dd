//! HTTP callbacks.

pub mod address;
pub mod delivery;
pub mod post;
pub mod schedule;
pub mod sign;
pub mod target;

#[cfg(test)]
mod testing;
