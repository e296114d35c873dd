//! The real binary, driven as a person or a script drives it.

#[cfg(target_os = "linux")]
mod bench;
mod client;
mod config;
mod hub;
mod originals;
mod process;
mod serve;
mod store;
mod terminal;
mod usage;
mod whisper;
mod whisper_terminal;
mod whispernet;
