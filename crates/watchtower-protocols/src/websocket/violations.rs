//! How many WebSockets were closed for what their client sent.
//!
//! Knows the codes of the close frames, and not the rules behind them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::CloseCode;

/// The codes that a connection is closed with for what its client sent.
const CODES: [CloseCode; 3] = [CloseCode::PROTOCOL_ERROR, CloseCode::INVALID_PAYLOAD, CloseCode::TOO_BIG];

/// Those of all WebSockets of a server, by the code that they were closed with.
#[derive(Debug, Default)]
pub struct ViolationCounts([AtomicU64; CODES.len()]);

impl ViolationCounts {
    /// Each code, and how often it was sent for this reason.
    pub fn all(&self) -> impl Iterator<Item = (u16, u64)> {
        CODES.iter().zip(&self.0).map(|(code, count)| (code.get(), count.load(Ordering::Relaxed)))
    }

    pub(super) fn count(&self, code: CloseCode) {
        let at = CODES.iter().position(|other| *other == code);
        debug_assert!(at.is_some(), "{code} is counted nowhere");
        at.into_iter().for_each(|at| _ = self.0[at].fetch_add(1, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::decoder::Violation;

    #[test]
    fn what_clients_do_wrong_is_counted_by_code() {
        let counts = ViolationCounts::default();
        for violation in
            [Violation::Utf8, Violation::TooLong, Violation::InflatesTooFar, Violation::NotMasked]
        {
            counts.count(violation.close_code());
        }
        assert_eq!(counts.all().collect::<Vec<_>>(), [(1002, 1), (1007, 1), (1009, 2)]);
    }
}
