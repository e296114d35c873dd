//! Which offsets: a few ranges of them, in order.

use std::ops::Range;

/// Ranges that neither touch nor overlap, in their order; at most [`RANGES_MAX`],
/// beyond which what is between two of them counts as well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Range<u64>>);

/// As many losses as one log has ever had will be fewer.
const RANGES_MAX: usize = 1024;

impl Ranges {
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let from = self.0.partition_point(|known| known.end < range.start);
        let until = self.0.partition_point(|known| known.start <= range.end);
        let touched = &self.0[from..until.max(from)];
        let start = touched.first().map_or(range.start, |first| first.start.min(range.start));
        let end = touched.last().map_or(range.end, |last| last.end.max(range.end));
        self.0.splice(from..until.max(from), std::iter::once(start..end));
        if self.0.len() > RANGES_MAX
            && let Some(last) = self.0.pop()
            && let Some(before) = self.0.last_mut()
        {
            before.end = last.end;
        }
    }

    /// Those parts that are within `offsets`.
    pub(crate) fn within(&self, offsets: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let from = self.0.partition_point(|range| range.end <= offsets.start);
        let later = self.0[from..].iter().take_while(move |range| range.start < offsets.end);
        let within = later.map(move |range| range.start.max(offsets.start)..range.end.min(offsets.end));
        within.filter(|range| !range.is_empty())
    }

    /// Whether all of `offsets` is in one of them.
    pub(crate) fn covers(&self, offsets: &Range<u64>) -> bool {
        self.within(offsets.clone()).next().is_some_and(|part| part == *offsets)
    }

    /// Forgets what is before an offset.
    pub(crate) fn forget_before(&mut self, first: u64) {
        self.0.retain(|range| range.end > first);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_what_was_put_in_and_do_not_touch(
            put in prop::collection::vec((0u64..60, 0u64..6), 0..30),
            from in 0u64..60,
            length in 0u64..20,
        ) {
            let mut ranges = Ranges::default();
            let mut all = [false; 80];
            for (start, length) in put {
                ranges.insert(start..start + length);
                all[start as usize..(start + length) as usize].fill(true);
            }
            for pair in ranges.0.windows(2) {
                prop_assert!(pair[0].end < pair[1].start, "{ranges:?}");
            }
            let offsets = from..from + length;
            let within: Vec<u64> = ranges.within(offsets.clone()).flatten().collect();
            let expected: Vec<u64> = offsets.clone().filter(|offset| all[*offset as usize]).collect();
            prop_assert_eq!(&within, &expected);
            prop_assert_eq!(ranges.covers(&offsets), length > 0 && expected.len() as u64 == length);
        }
    }

    #[test]
    fn there_are_never_too_many() {
        let mut ranges = Ranges::default();
        (0..2 * RANGES_MAX as u64).for_each(|number| ranges.insert(number * 2..number * 2 + 1));
        assert_eq!(ranges.0.len(), RANGES_MAX);
        assert_eq!(ranges.0.last().map(|last| last.end), Some(4 * RANGES_MAX as u64 - 1));
    }
}
