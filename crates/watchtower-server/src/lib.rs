//! .

pub mod config;
