//! The load generator behind `watchtower bench`: what a message costs a server, and how long it
//! takes to arrive.
//!
//! One kind of bench is one module: [`fanout()`], from one publisher or many to many subscribers;
//! [`scale()`], the same with more and more of them; [`latency()`] under one load after the other;
//! [`churn()`] of connections; [`idle()`] ones; and [`durable()`], what is kept on disk. The parts that any kind needs stand beside it: sockets that count what arrives (`load`), child
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

mod churn;
mod cores;
mod doors;
mod durable;
mod error;
mod fanout;
pub mod floor;
mod idle;
mod latency;
mod load;
mod options;
mod process;
mod progress;
mod report;
mod run;
mod scale;
mod server;
mod side;
pub mod store_alone;
mod topology;

pub use churn::{ChurnCost, ChurnReport, churn};
pub use durable::{Beside, DURABLE_PATH, DurableOptions, DurableReport, MEMORY_PATH, durable};
pub use error::{Error, WireError};
pub use fanout::fanout;
pub use idle::{IdleReport, idle};
pub use latency::{LatencyPoint, LatencyReport, latency};
pub use load::Pace;
pub use options::{Options, Protocol};
pub use progress::{Phase, Progress};
pub use report::{Cores, CurvePoint, FloorCost, Latency, LoadCost, Report, RoundCost, ServerCost, SideCost};
pub use scale::{ScaleReport, scale};
