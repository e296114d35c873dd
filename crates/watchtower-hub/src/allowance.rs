//! How much costly work may be done at the wish of one who pays nothing for it.

use crate::Timestamp;

/// An amount that is used up and comes back with time.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    /// What was used and was not back at `as_of`, in thousandths.
    used: u64,
    as_of: Timestamp,
}

impl Allowance {
    /// Uses `amount`, unless with it more than `most` would be used. What was
    /// used comes back at so much a second.
    pub(crate) fn take(&mut self, amount: u64, most: u64, per_second: u64, now: Timestamp) -> bool {
        let millis = u64::try_from(now.since(self.as_of).as_millis()).unwrap_or(u64::MAX);
        self.used = self.used.saturating_sub(per_second.saturating_mul(millis));
        self.as_of = self.as_of.max(now);
        let used = self.used.saturating_add(amount.saturating_mul(1_000));
        let may = used <= most.saturating_mul(1_000);
        if may {
            self.used = used;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_comes_back_with_time() {
        let mut allowance = Allowance::default();
        let mut take = |amount, millis| allowance.take(amount, 20, 10, Timestamp::from_millis(millis));
        assert_eq!([take(15, 1_000), take(6, 1_000), take(5, 1_000)], [true, false, true]);
        assert_eq!([take(1, 1_099), take(1, 1_100)], [false, true]);
        assert_eq!([take(20, 3_099), take(20, 3_100)], [false, true]);
        assert!(!take(1, 0), "a clock that was set back gives nothing");
    }
}
