//! What Watchtower keeps: logs of channels, registrations and single values.
//!
//! [`Store`] is the trait, with its guarantees; [`DiskStore`] and [`MemoryStore`]
//! are implementations, and [`mod@conformance`] is the suite that every one passes.
//! [`Keeper`] drops what is not to be kept, and [`transfer`] writes a store as
//! text and reads it; both know the trait alone.
//!
//! Knows no protocol, no socket, no async runtime and no configuration. Times
//! are arguments. The threads that write and tidy are its own.
//!
//! # Why a log of its own
//!
//! A channel is a log already; what has to be added is a disk. Embedded key-value
//! stores were tried for it: fjall 3.1 is fast, but one flipped byte in its
//! journal lost 1,800 of 2,000 synced records, without a word, since it takes
//! the first record that it cannot read for the end; one in a table, and nothing
//! is opened at all. One file of redb or SQLite is in one piece or not. Here a
//! damaged byte costs one message, it is known which, and everything else is
//! served. And each message is written once: the log is the data, an index can be
//! made anew from it, and merging sorts it by channel in the background.

mod change;
pub mod conformance;
mod disk;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod memory;
mod notice;
mod ranges;
mod retained;
mod retention;
mod state;
mod store;
pub mod transfer;

pub use change::{Callback, Change, Key, Kind, Record, message_bytes};
pub use disk::{DiskOptions, DiskStore, FileReport, Report, check};
pub use error::{OpenError, ReadError, Refused};
pub use memory::MemoryStore;
pub use notice::{Notice, Observer};
pub use retained::retained;
pub use retention::{Keeper, Retention, StepError};
pub use store::{Done, Store, Ticket};
pub use watchtower_hub::{Ends, Page, ReadLimit};
