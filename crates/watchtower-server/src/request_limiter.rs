//! How many requests an address may make in a second
//! ([running: limits], [http: errors]).
//!
//! Knows neither requests nor sockets: whoever serves one asks first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The table is split, so that the threads of the server seldom meet.
const SHARDS: usize = 16;

/// How many addresses a shard counts at a time. While there are more, those
/// that are not in it are not limited: refusing them would let anyone with
/// many addresses lock out everyone else.
const ADDRESSES_PER_SHARD_MAX: usize = 4096;

/// What a limit is counted over, and so how much may come at once.
const PERIOD: Duration = Duration::from_secs(1);

/// Counts requests by address.
///
/// An address may use up a second's worth at once, and gets it back evenly:
/// the generic cell rate algorithm, which keeps one moment an address.
#[derive(Debug)]
pub(crate) struct RequestLimiter {
    start: Instant,
    shards: [Mutex<Shard>; SHARDS],
    uncounted: AtomicU64,
}

/// By network, the moment up to which its requests are paid for.
#[derive(Debug, Default)]
struct Shard {
    paid_until: HashMap<Network, Duration>,
    /// When those that owe nothing were last taken out.
    swept: Duration,
}

/// Whose requests are counted together: an IPv4 address, or the 64 bits of an
/// IPv6 one that tell one subscriber from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Network {
    V4(u32),
    V6(u64),
}

impl RequestLimiter {
    pub(crate) fn new() -> RequestLimiter {
        RequestLimiter {
            start: Instant::now(),
            shards: std::array::from_fn(|_| Mutex::default()),
            uncounted: AtomicU64::new(0),
        }
    }

    /// How many requests were let through uncounted, since too many addresses
    /// were counted already.
    pub(crate) fn uncounted(&self) -> u64 {
        self.uncounted.load(Ordering::Relaxed)
    }

    /// Counts one request of `address`, of which there may be `limit` a
    /// second. Loopback is not counted.
    ///
    /// # Errors
    ///
    /// How long to wait, when it is one too many.
    pub(crate) fn count(&self, address: IpAddr, limit: usize) -> Result<(), Duration> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return Ok(());
        }
        let network = Network::of(address);
        let cost = PERIOD / u32::try_from(limit).unwrap_or(u32::MAX).max(1);
        let now = self.start.elapsed();
        let mut shard = self.shards[network.shard()].lock();
        let paid_until = shard.paid_until.get(&network).copied().unwrap_or_default().max(now);
        if let Some(wait) = (paid_until + cost).checked_sub(now + PERIOD).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        if shard.has_room_for(network, now) {
            shard.paid_until.insert(network, paid_until + cost);
        } else {
            self.uncounted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Shard {
    fn has_room_for(&mut self, network: Network, now: Duration) -> bool {
        let is_full = |shard: &Shard| shard.paid_until.len() >= ADDRESSES_PER_SHARD_MAX;
        if is_full(self) && !self.paid_until.contains_key(&network) && now >= self.swept + PERIOD {
            self.paid_until.retain(|_, paid_until| *paid_until > now);
            self.swept = now;
        }
        !is_full(self) || self.paid_until.contains_key(&network)
    }
}

impl Network {
    fn of(address: IpAddr) -> Network {
        match address {
            IpAddr::V4(address) => Network::V4(address.to_bits()),
            IpAddr::V6(address) => Network::V6((address.to_bits() >> 64) as u64),
        }
    }

    fn shard(self) -> usize {
        let bits = match self {
            Network::V4(bits) => u64::from(bits),
            Network::V6(bits) => bits,
        };
        // The low bits of networks are often all zero.
        (bits ^ bits >> 16 ^ bits >> 32 ^ bits >> 48) as usize % SHARDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_s_worth_may_come_at_once_and_comes_back_evenly() {
        let limiter = RequestLimiter::new();
        let ours = address("192.0.2.1");
        for _ in 0..10 {
            assert_eq!(limiter.count(ours, 10), Ok(()));
        }
        assert_eq!(limiter.count(ours, 10), Err(Duration::from_millis(100)));
        assert_eq!(limiter.count(address("192.0.2.2"), 10), Ok(()));
        assert_eq!(limiter.count(address("::ffff:192.0.2.1"), 10), Err(Duration::from_millis(100)));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(limiter.count(ours, 10), Ok(()));
        assert_eq!(limiter.count(ours, 10), Err(Duration::from_millis(100)));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((0..20).filter(|_| limiter.count(ours, 10).is_ok()).count(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn loopback_is_not_counted_and_one_ipv6_subscriber_is_one_address() {
        let limiter = RequestLimiter::new();
        for _ in 0..3 {
            assert_eq!(limiter.count(address("127.0.0.1"), 1), Ok(()));
            assert_eq!(limiter.count(address("::1"), 1), Ok(()));
        }
        assert_eq!(limiter.count(address("2001:db8::1"), 1), Ok(()));
        assert!(limiter.count(address("2001:db8::2"), 1).is_err());
        assert_eq!(limiter.count(address("2001:db8:0:1::1"), 1), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_are_quiet_make_room() {
        let limiter = RequestLimiter::new();
        let many = SHARDS * ADDRESSES_PER_SHARD_MAX * 2;
        for round in 0..3u32 {
            for number in 0..many as u32 {
                let bits = 0x0a00_0000 + round * 0x0010_0000 + number;
                assert_eq!(limiter.count(IpAddr::V4(bits.into()), 2), Ok(()));
            }
            let counted: usize = limiter.shards.iter().map(|shard| shard.lock().paid_until.len()).sum();
            assert!(counted <= SHARDS * ADDRESSES_PER_SHARD_MAX, "{counted}");
            tokio::time::advance(PERIOD * 2).await;
        }
        assert_eq!(limiter.count(address("192.0.2.1"), 1), Ok(()));
        assert!(limiter.count(address("192.0.2.1"), 1).is_err());
    }
}
