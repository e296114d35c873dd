//! The time and the randomness that the pure crates are handed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use watchtower_hub::{Entropy, Timestamp};

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// By how much the clock must be off what has passed to have jumped. Less is put
/// right by a time server in passing.
const JUMP: Duration = Duration::from_secs(60);

/// Finds out when the wall clock jumps, by one that does not. The time that a
/// machine sleeps counts as a jump.
pub(crate) struct JumpWatch {
    wall: Timestamp,
    steady: Instant,
}

impl JumpWatch {
    pub(crate) fn new() -> JumpWatch {
        JumpWatch { wall: now(), steady: Instant::now() }
    }

    /// From which time to which the clock has jumped since the last look, if so.
    pub(crate) fn jumped(&mut self) -> Option<(Timestamp, Timestamp)> {
        self.look(now(), Instant::now())
    }

    fn look(&mut self, wall: Timestamp, steady: Instant) -> Option<(Timestamp, Timestamp)> {
        let expected = self.wall.after(steady.duration_since(self.steady));
        *self = JumpWatch { wall, steady };
        let is_off = wall.since(expected).max(expected.since(wall)) >= JUMP;
        is_off.then_some((expected, wall))
    }
}

/// The operating system's random generator.
pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn next_u64(&self) -> u64 {
        // Without randomness every id could be guessed: better no server.
        getrandom::u64().expect("the operating system has a random generator")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_what_has_passed_by_a_minute_has_jumped() {
        let (wall, steady) = (Timestamp::from_millis(1_800_000_000_000), Instant::now());
        let seconds = Duration::from_secs;
        let mut watch = JumpWatch { wall, steady };
        assert_eq!(watch.look(wall.after(seconds(400)), steady + seconds(341)), None);
        let (from, to) = (wall.after(seconds(401)), wall.after(seconds(461)));
        assert_eq!(watch.look(to, steady + seconds(342)), Some((from, to)));
        assert_eq!(watch.look(wall, steady + seconds(343)), Some((to.after(seconds(1)), wall)));
        assert_eq!(watch.look(wall.after(seconds(1)), steady + seconds(344)), None);
    }
}
