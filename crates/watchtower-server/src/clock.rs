//! The time and the randomness that the pure crates are handed.

use std::time::{SystemTime, UNIX_EPOCH};

use watchtower_hub::{Entropy, Timestamp};

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// The operating system's random generator.
pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn next_u64(&self) -> u64 {
        // Without randomness every id could be guessed: better no server.
        getrandom::u64().expect("the operating system has a random generator")
    }
}
