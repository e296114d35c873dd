//! How long a login has to wait where many have failed, whatever connections
//! they came by.
//!
//! Knows neither connections nor a clock.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use watchtower_hub::Timestamp;

/// How many logins of an address may fail before the next one waits.
const FREE: u32 = 20;

/// How long a failure counts. One after the other, so that this is how much
/// later the next login is looked at.
const EACH: Duration = Duration::from_millis(100);

/// No login waits longer. Whoever shares an address with somebody who guesses,
/// and has the right secret, is let in after that at the latest.
const LONGEST: Duration = Duration::from_secs(5);

/// How many addresses are remembered at a time. While there are more, logins of
/// those that are not do not wait: who has that many would be held up little.
const ADDRESSES_MAX: usize = 16_384;

/// The logins that failed, by address: an IPv4 address, or the 64 bits of an
/// IPv6 one that tell one subscriber from another.
///
/// Loopback is one like all others: behind a proxy, it is where everybody comes
/// from, and they are let in a little later.
#[derive(Debug, Default)]
pub struct LoginFailures {
    addresses: Mutex<Addresses>,
    failed: AtomicU64,
    delayed: AtomicU64,
}

#[derive(Debug, Default)]
struct Addresses {
    /// When the last failure ceases to count.
    forgotten_at: HashMap<IpAddr, Timestamp>,
    /// When those that are forgotten were last taken out.
    swept: Timestamp,
}

impl LoginFailures {
    /// Notes a login, and returns how long it is to wait for its answer. That
    /// must not depend on whether it `failed`: who could tell by it need not
    /// wait.
    pub(super) fn note(&self, address: IpAddr, failed: bool, now: Timestamp) -> Duration {
        let address = network(address);
        let mut addresses = self.addresses.lock();
        let counts_until = addresses.forgotten_at.get(&address).copied().unwrap_or_default();
        let wait = counts_until.since(now).saturating_sub((FREE - 1) * EACH).min(LONGEST);
        if failed {
            let until = counts_until.max(now).after(EACH);
            let latest = now.after(FREE * EACH + LONGEST);
            addresses.remember(address, until.min(latest), now);
        }
        drop(addresses);
        self.failed.fetch_add(u64::from(failed), Ordering::Relaxed);
        self.delayed.fetch_add(u64::from(!wait.is_zero()), Ordering::Relaxed);
        wait
    }

    /// How many logins failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// How many logins had to wait.
    pub fn delayed(&self) -> u64 {
        self.delayed.load(Ordering::Relaxed)
    }
}

impl Addresses {
    fn remember(&mut self, address: IpAddr, until: Timestamp, now: Timestamp) {
        let is_new = !self.forgotten_at.contains_key(&address);
        if is_new && self.forgotten_at.len() >= ADDRESSES_MAX && now.since(self.swept) >= EACH {
            self.forgotten_at.retain(|_, until| *until > now);
            self.swept = now;
        }
        if !is_new || self.forgotten_at.len() < ADDRESSES_MAX {
            self.forgotten_at.insert(address, until);
        }
    }
}

/// What the address is counted as.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn waits(failures: &LoginFailures, count: usize, failed: bool, millis: u64) -> Vec<u128> {
        (0..count).map(|_| failures.note(ADDRESS, failed, at(millis)).as_millis()).collect()
    }

    #[test]
    fn after_some_failures_each_login_waits_longer_and_none_longer_than_it_may() {
        let failures = LoginFailures::default();
        assert_eq!(waits(&failures, 20, true, 0), [0; 20]);
        assert_eq!(waits(&failures, 3, true, 0), [100, 200, 300]);
        // The right secret waits as long as a wrong one, and costs nothing.
        assert_eq!(waits(&failures, 2, false, 0), [400, 400]);
        assert_eq!(waits(&failures, 2, true, 200), [200, 300]);
        assert_eq!((failures.failed(), failures.delayed()), (25, 7));
        assert_eq!(waits(&failures, 1_000, true, 200)[999], 5_000);
        // It is all forgotten in the end.
        assert_eq!(waits(&failures, 1, false, 5_200), [100]);
        assert_eq!(waits(&failures, 1, false, 5_300), [0]);
        assert_eq!(waits(&failures, 20, true, 7_400), [0; 20]);
    }

    #[test]
    fn one_subscriber_of_ipv6_is_one_address_and_others_do_not_wait_for_him() {
        let failures = LoginFailures::default();
        let wait = |address: &str, failed| failures.note(address.parse().unwrap(), failed, at(0));
        for host in 0..40 {
            wait(&format!("2001:db8::{host}"), true);
            wait(&format!("::ffff:192.0.2.{}", 1), true);
        }
        assert!(!wait("2001:db8::ffff", false).is_zero());
        assert!(!wait("192.0.2.1", false).is_zero());
        assert!(wait("2001:db8:0:1::1", false).is_zero());
        assert!(wait("192.0.2.2", false).is_zero());
    }

    #[test]
    fn many_addresses_take_no_more_memory_than_there_is_for_them() {
        let failures = LoginFailures::default();
        for round in 0..3 {
            for number in 0..2 * ADDRESSES_MAX as u32 {
                failures.note(IpAddr::V4((number + round).into()), true, at(10_000 * u64::from(round)));
            }
            assert_eq!(failures.addresses.lock().forgotten_at.len(), ADDRESSES_MAX);
        }
        assert_eq!(waits(&failures, 21, true, 60_000)[20], 100, "those that are quiet make room");
    }
}
