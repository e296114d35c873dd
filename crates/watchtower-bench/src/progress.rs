//! How a bench tells how far it is, without knowing who shows it.

/// What a bench is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The server is starting. Counts nothing.
    Starting,
    /// Subscribers connect and join. Counts subscribers.
    Joining,
    /// Sockets connect to the bare loop. Counts sockets.
    ConnectingFloor,
    /// Messages that are not measured run through everything. Counts nothing.
    WarmingUp,
    /// Messages are measured. Counts messages.
    Measuring,
    /// Connections come and go. Counts connections.
    Churning,
    /// Nothing is published. Counts nothing.
    Resting,
}

impl Phase {
    /// A word or two for a person.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Joining => "joining",
            Self::ConnectingFloor => "connecting to the bare loop",
            Self::WarmingUp => "warming up",
            Self::Measuring => "measuring",
            Self::Churning => "coming and going",
            Self::Resting => "resting",
        }
    }
}

/// Is told how far a bench is.
///
/// Calls come from the thread that generates the load, never within a measured round: they may
/// draw, but should not take long.
pub trait Progress: Send {
    /// A phase begins, in which `total` things are to be done (0: nobody knows).
    fn begin(&mut self, phase: Phase, total: u64);
    /// So many of the phase's things are done, from its beginning.
    fn done(&mut self, count: u64);
}

/// Shows nothing.
impl Progress for () {
    fn begin(&mut self, _phase: Phase, _total: u64) {}
    fn done(&mut self, _count: u64) {}
}
