//! The real binary, driven as a person or a script drives it.

mod client;
mod config;
mod process;
mod serve;
mod usage;
