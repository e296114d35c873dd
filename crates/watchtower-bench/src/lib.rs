//! The load generator behind `watchtower bench`: what a message costs a server, and how long it
//! takes to arrive.
//!
//! One kind of bench is one module; [`fanout()`] is the first: one publisher, many subscribers.
//! The parts that any kind needs stand beside it: sockets that count what arrives (`load`), child
//! processes and what they cost (`process`), cores, the bare write loop that a server is held
//! against ([`floor`]), and the [`Report`].
//!
//! It speaks the wires of the server with code of its own, so that a fault in the server's codecs
//! cannot hide from it, and it knows neither the command line nor the terminal: a binary hands in
//! options and, if it has something to draw on, a [`Progress`].
//!
//! Linux only (the crate is empty elsewhere): costs are read from the kernel's per-process CPU
//! clocks and from `/proc`, and the load side waits on epoll.
#![cfg(target_os = "linux")]

mod cores;
mod error;
mod fanout;
pub mod floor;
mod load;
mod process;
mod progress;
mod report;

pub use error::{Error, WireError};
pub use fanout::{FanoutOptions, Protocol, fanout};
pub use load::Pace;
pub use progress::{Phase, Progress};
pub use report::{Cores, CurvePoint, FloorCost, Latency, LoadCost, Report, RoundCost, ServerCost, SideCost};
