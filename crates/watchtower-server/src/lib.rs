//! .

pub mod callbacks;
