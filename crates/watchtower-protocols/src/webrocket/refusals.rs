//! How many commands were refused, by code.
//!
//! Knows neither whose they were nor why.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ErrorCode;

/// Those of all hubs that have the same.
#[derive(Debug, Default)]
pub struct RefusalCounts([AtomicU64; ErrorCode::ALL.len()]);

impl RefusalCounts {
    /// Each code, and how often it was answered.
    pub fn all(&self) -> impl Iterator<Item = (ErrorCode, u64)> {
        ErrorCode::ALL.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    pub(super) fn count(&self, code: ErrorCode) {
        let at = ErrorCode::ALL.iter().position(|other| *other == code);
        at.into_iter().for_each(|at| _ = self.0[at].fetch_add(1, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_counted_apart() {
        let counts = RefusalCounts::default();
        for (times, code) in ErrorCode::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| counts.count(code));
        }
        let expected = ErrorCode::ALL.into_iter().zip(0..);
        assert!(counts.all().eq(expected));
    }
}
