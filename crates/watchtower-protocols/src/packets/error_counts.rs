//! How many errors clients were told, by transport and code.
//!
//! Knows neither who was told nor why.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ErrorCode;

/// What packets come over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A stream of packets.
    Tcp,
    /// Datagrams of packets.
    Udp,
}

impl Transport {
    /// Every transport.
    pub const ALL: [Transport; 2] = [Transport::Tcp, Transport::Udp];

    /// Its name, in presence and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

/// The errors that all clients of a server were told.
#[derive(Debug, Default)]
pub struct ErrorCounts {
    told: [[AtomicU64; ErrorCode::ALL.len()]; Transport::ALL.len()],
    unanswered: AtomicU64,
}

impl ErrorCounts {
    /// How many of that code went out over that transport.
    pub fn get(&self, transport: Transport, code: ErrorCode) -> u64 {
        self.counter(transport, code).load(Ordering::Relaxed)
    }

    /// How many datagrams were not answered in full, since their address had
    /// not shown an id and the answers would have been longer than they were, or
    /// since they held answers themselves.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    pub(super) fn count_unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self, transport: Transport, code: ErrorCode) {
        self.counter(transport, code).fetch_add(1, Ordering::Relaxed);
    }

    fn counter(&self, transport: Transport, code: ErrorCode) -> &AtomicU64 {
        // Codes count from 1.
        &self.told[transport as usize][usize::from(code.byte()) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_counted_for_each_transport() {
        let counts = ErrorCounts::default();
        let all = || Transport::ALL.into_iter().flat_map(|t| ErrorCode::ALL.map(|code| (t, code)));
        for (times, (transport, code)) in all().enumerate() {
            (0..times).for_each(|_| counts.count(transport, code));
        }
        for (times, (transport, code)) in all().enumerate() {
            assert_eq!(counts.get(transport, code), times as u64, "{transport:?} {code:?}");
        }
    }
}
