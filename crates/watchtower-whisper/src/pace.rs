//! How fast a peer is written to.
//!
//! Peers refuse an address that sends more than a threshold within a second
//! ([whispernet: 12]), and one that passes messages on cannot choose how many
//! there are. So on each connection at most half of the threshold is written in
//! a second of this side: whichever second the other side counts, it covers no
//! more than two of these. The threshold is taken to be this peer's own.

use std::time::Duration;

use tokio::time::Instant;
use watchtower_protocols::whispernet::FloodLimits;

/// How long a second is.
const SECOND: Duration = Duration::from_secs(1);

/// What was written to a peer in the second that began with the first object.
pub(crate) struct Pace {
    messages_max: u64,
    bytes_max: u64,
    since: Instant,
    messages: u64,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(flood: FloodLimits, now: Instant) -> Pace {
        Pace {
            messages_max: flood.messages_per_second / 2,
            bytes_max: flood.bytes_per_second / 2,
            since: now,
            messages: 0,
            bytes: 0,
        }
    }

    /// Counts an object that is written now; or when it may be. One object a
    /// second goes out however large it is.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) -> Result<(), Instant> {
        if self.messages == 0 || now.duration_since(self.since) >= SECOND {
            (self.since, self.messages, self.bytes) = (now, 0, 0);
        }
        let (messages, bytes) = (self.messages + 1, self.bytes.saturating_add(bytes as u64));
        if self.messages > 0 && (messages > self.messages_max || bytes > self.bytes_max) {
            return Err(self.since + SECOND);
        }
        (self.messages, self.bytes) = (messages, bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(messages_per_second: u64, bytes_per_second: u64) -> (Pace, Instant) {
        let now = Instant::now();
        let flood = FloodLimits { messages_per_second, bytes_per_second, ..FloodLimits::default() };
        (Pace::new(flood, now), now)
    }

    /// [whispernet: 12]
    #[test]
    fn half_of_the_threshold_is_written_within_a_second() {
        let (mut pace, now) = pace(10, 1_000);
        for _ in 0..5 {
            assert_eq!(pace.take(1, now), Ok(()));
        }
        assert_eq!(pace.take(1, now), Err(now + SECOND));
        assert_eq!(pace.take(500, now + SECOND), Ok(()));
        assert_eq!(pace.take(1, now + SECOND), Err(now + 2 * SECOND));
    }

    #[test]
    fn an_object_above_the_threshold_goes_out_by_itself() {
        let (mut pace, now) = pace(10, 1_000);
        assert_eq!(pace.take(5_000, now), Ok(()));
        assert_eq!(pace.take(1, now), Err(now + SECOND));
        assert_eq!(pace.take(5_000, now + SECOND), Ok(()));
    }
}
