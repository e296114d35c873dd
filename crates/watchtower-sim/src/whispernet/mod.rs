//! Many nodes of the whispernet: whether every message reaches everybody, what
//! that costs, and how soon it does so again after many fail at once.
//!
//! The nodes are the real ones, with their default options; between them is a
//! network in memory. A run has phases:
//!
//! 1. Nodes join, one after another, each by the address of one that is there
//!    already, and say one thing.
//! 2. Some messages are said, so that the tree forms; then those that are
//!    measured, one a second, each by a node chosen at random.
//! 3. Some fail at once. In rounds of one second each a message is said.
//! 4. Some messages more are measured.
//!
//! Beside that, [`weather`] has few nodes through a storm, from many seeds.

mod host;
mod mesh;
mod messages;
mod network;
mod plot;
mod report;
mod scenario;

pub use mesh::{Broken, Mesh, weather};
pub use report::{Measured, Promise, Report};
pub use scenario::run;
use thiserror::Error;
use watchtower_protocols::whispernet::RoutingLimits;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many nodes there are, plain ones too. At least two.
    pub nodes: usize,
    /// How many of them know nothing of routing.
    pub plain: usize,
    /// How many fail at once.
    pub kill: usize,
    /// How many messages are measured before that; half as many after it.
    pub messages: usize,
    /// What all chance is from.
    pub seed: u64,
    /// How the others route.
    pub routing: RoutingLimits,
}

impl Default for Options {
    fn default() -> Options {
        let routing = RoutingLimits::default();
        Options { nodes: 1_000, plain: 0, kill: 100, messages: 100, seed: 1, routing }
    }
}

/// Why nothing is simulated, or drawn.
#[derive(Debug, Error)]
pub enum Error {
    /// There is nobody to talk to.
    #[error("a whispernet has at least 2 nodes, and at most {max}")]
    Nodes {
        /// How many there may be.
        max: usize,
    },
    /// More are named than there are.
    #[error("{what} are {count} of {nodes} nodes: some have to be left")]
    TooMany {
        /// Who.
        what: &'static str,
        /// How many.
        count: usize,
        /// Of how many.
        nodes: usize,
    },
    /// The plot cannot be written.
    #[error("{}: {reason}", path.display())]
    Plot {
        /// Where to.
        path: std::path::PathBuf,
        /// Why not.
        reason: String,
    },
}
