//! Flood control: how much each address sends, and who is refused for it
//! ([whispernet: 12]).
//!
//! Closes nothing itself. An address is an IP alone: the port that a peer
//! connects from is another each time.

use std::collections::BTreeMap;
use std::mem;
use std::net::IpAddr;
use std::time::Duration;

use watchtower_hub::Timestamp;

/// How long a second is.
const SECOND: Duration = Duration::from_secs(1);

/// How many addresses are counted at a time. With more of them within one
/// second, all begin anew.
const COUNTED_MAX: usize = 4_096;

/// How many addresses are refused at a time. With more, the one is let in again
/// that was to be next.
const REFUSED_MAX: usize = 1_024;

/// What a repeat counts less than what is new, in messages and bytes alike. Each
/// message comes once from every peer, so that honest peers of one address,
/// behind a router or on one machine, send mostly repeats.
const REPEATS_FOR_ONE: u64 = 8;

/// How much one address may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloodLimits {
    /// Objects within a second, whatever they say; of messages that had come
    /// before, eight times as many.
    pub messages_per_second: u64,
    /// Bytes within a second; of messages that had come before, eight times as
    /// many.
    pub bytes_per_second: u64,
    /// For how long an address is refused that sent more.
    pub refused_for: Duration,
}

impl Default for FloodLimits {
    fn default() -> FloodLimits {
        FloodLimits {
            messages_per_second: 1_000,
            bytes_per_second: 16 << 20,
            refused_for: Duration::from_secs(10 * 60),
        }
    }
}

/// What every address sends, and the addresses that are refused.
pub(super) struct Flood {
    limits: FloodLimits,
    /// Invariant: at most [`COUNTED_MAX`].
    counted: BTreeMap<IpAddr, Second>,
    /// Until when. Invariant: at most [`REFUSED_MAX`].
    refused: BTreeMap<IpAddr, Timestamp>,
}

/// What an address sent in the second that began with its first byte.
struct Second {
    since: Timestamp,
    messages: u64,
    /// Of messages that had come before.
    repeats: u64,
    bytes: u64,
}

impl Second {
    fn new(since: Timestamp) -> Second {
        Second { since, messages: 0, repeats: 0, bytes: 0 }
    }
}

impl Flood {
    pub(super) fn new(limits: FloodLimits) -> Flood {
        Flood { limits, counted: BTreeMap::new(), refused: BTreeMap::new() }
    }

    /// Counts what came. False when the address has passed a threshold.
    pub(super) fn allows(&mut self, ip: IpAddr, messages: u64, bytes: usize, now: Timestamp) -> bool {
        if !self.counted.contains_key(&ip) {
            self.make_room(now);
        }
        let second = self.counted.entry(ip).or_insert(Second::new(now));
        // A clock that was set back would hold a second for ever.
        if now.since(second.since) >= SECOND || now < second.since {
            *second = Second::new(now);
        }
        second.messages += messages;
        second.bytes += bytes as u64;
        let messages = second.messages + second.repeats / REPEATS_FOR_ONE;
        messages <= self.limits.messages_per_second && second.bytes <= self.limits.bytes_per_second
    }

    /// What [`allows`](Flood::allows) has just counted was a message that had
    /// come before.
    pub(super) fn was_repeat(&mut self, ip: IpAddr, bytes: usize) {
        if let Some(second) = self.counted.get_mut(&ip) {
            let bytes = bytes as u64;
            second.repeats += 1;
            second.messages = second.messages.saturating_sub(1);
            second.bytes = second.bytes.saturating_sub(bytes - bytes / REPEATS_FOR_ONE);
        }
    }

    fn make_room(&mut self, now: Timestamp) {
        if self.counted.len() < COUNTED_MAX {
            return;
        }
        self.counted.retain(|_, second| now.since(second.since) < SECOND);
        if self.counted.len() >= COUNTED_MAX {
            self.counted.clear();
        }
    }

    /// Refuses the address from now on; returns until when.
    pub(super) fn refuse(&mut self, ip: IpAddr, now: Timestamp) -> Timestamp {
        let until = now.after(self.limits.refused_for);
        self.refused.retain(|_, until| *until > now);
        if self.refused.len() >= REFUSED_MAX
            && let Some(next) = self.refused.iter().min_by_key(|(_, until)| **until).map(|(ip, _)| *ip)
        {
            self.refused.remove(&next);
        }
        self.refused.insert(ip, until);
        self.counted.remove(&ip);
        until
    }

    /// Until when the address is refused, if it is.
    pub(super) fn refused_until(&self, ip: IpAddr, now: Timestamp) -> Option<Timestamp> {
        self.refused.get(&ip).copied().filter(|until| *until > now)
    }

    pub(super) fn refused(&self, now: Timestamp) -> impl Iterator<Item = (IpAddr, Timestamp)> {
        self.refused.iter().map(|(ip, until)| (*ip, *until)).filter(move |(_, until)| *until > now)
    }

    /// Refuses nobody any more; returns whom it had refused.
    pub(super) fn clear_refused(&mut self) -> impl Iterator<Item = IpAddr> + use<> {
        mem::take(&mut self.refused).into_keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_255_200_000);

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + number).into())
    }

    fn after(millis: u64) -> Timestamp {
        NOW.after(Duration::from_millis(millis))
    }

    /// [whispernet: 12]
    #[test]
    fn a_thousand_messages_a_second_are_allowed_and_one_more_is_not() {
        let mut flood = Flood::new(FloodLimits::default());
        for millis in 0..1_000 {
            assert!(flood.allows(ip(1), 1, 10, after(millis)));
        }
        assert!(!flood.allows(ip(1), 1, 10, after(999)));
        assert!(flood.allows(ip(2), 1, 10, after(999)), "another address");
        assert!(flood.allows(ip(1), 1, 10, after(1_000)), "another second");
    }

    /// [whispernet: 12]
    #[test]
    fn sixteen_mebibytes_a_second_are_allowed_and_one_byte_more_is_not() {
        let mut flood = Flood::new(FloodLimits::default());
        assert!(flood.allows(ip(1), 0, 16 << 20, NOW));
        assert!(!flood.allows(ip(1), 0, 1, after(999)));
        assert!(flood.allows(ip(1), 0, 16 << 20, after(1_000)));
    }

    /// Nine peers behind one address pass on what the tenth says.
    #[test]
    fn eight_repeats_count_as_one_message() {
        let mut flood = Flood::new(FloodLimits::default());
        let mut repeat = |bytes| {
            let is_allowed = flood.allows(ip(1), 0, bytes, NOW) && flood.allows(ip(1), 1, 0, NOW);
            flood.was_repeat(ip(1), bytes);
            is_allowed
        };
        for _ in 0..7_999 {
            assert!(repeat(16));
        }
        assert!(repeat(8 << 20), "of which a mebibyte counts");
        assert!(!repeat(16));
        assert!(!flood.allows(ip(1), 0, 15 << 20, NOW));
    }

    #[test]
    fn a_clock_that_goes_back_does_not_hold_a_second() {
        let mut flood = Flood::new(FloodLimits { messages_per_second: 1, ..FloodLimits::default() });
        assert!(flood.allows(ip(1), 1, 0, NOW));
        assert!(flood.allows(ip(1), 1, 0, Timestamp::from_millis(0)));
    }

    #[test]
    fn an_address_is_refused_for_a_while() {
        let mut flood =
            Flood::new(FloodLimits { refused_for: Duration::from_secs(1), ..FloodLimits::default() });
        let until = flood.refuse(ip(1), NOW);
        assert_eq!(until, after(1_000));
        assert_eq!(flood.refused_until(ip(1), after(999)), Some(until));
        assert_eq!(flood.refused_until(ip(2), after(999)), None);
        assert_eq!(flood.refused(after(999)).collect::<Vec<_>>(), [(ip(1), until)]);
        assert_eq!(flood.refused_until(ip(1), until), None);
        assert_eq!(flood.refused(until).count(), 0);
    }

    #[test]
    fn a_million_addresses_take_bounded_memory() {
        let mut flood = Flood::new(FloodLimits::default());
        for number in 0..1_000_000 {
            assert!(flood.allows(ip(number), 1, 1, after(u64::from(number / 5_000))));
            assert!(flood.counted.len() <= COUNTED_MAX);
        }
        for number in 0..5_000 {
            flood.refuse(ip(number), after(u64::from(number)));
            assert!(flood.refused.len() <= REFUSED_MAX);
        }
        assert_eq!(flood.refused_until(ip(0), after(5_000)), None, "was to be next");
        assert!(flood.refused_until(ip(4_999), after(5_000)).is_some());
    }
}
