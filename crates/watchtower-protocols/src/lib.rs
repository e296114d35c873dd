//! .

pub mod packets;
