//! The time and the randomness that a node is handed.

use std::time::{SystemTime, UNIX_EPOCH};

use watchtower_hub::Timestamp;

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// Bytes of the operating system's random generator.
pub(crate) fn random<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    // Without randomness keys could be guessed: better no peer.
    getrandom::fill(&mut bytes).expect("the operating system has a random generator");
    bytes
}
