//! Which offsets of logs are in any segment, to tell which are missing.
//!
//! Knows no file: it is told of the runs of messages that there are, oldest
//! segment first.

use std::collections::HashMap;
use std::ops::Range;

use super::contents::LogKey;

/// See the module. Has little more in memory than one entry for each log.
#[derive(Debug, Default)]
pub(crate) struct Coverage(HashMap<LogKey, Covered>);

#[derive(Debug)]
struct Covered {
    first: u64,
    next: u64,
    /// What is missing between these.
    gaps: Vec<Range<u64>>,
}

impl Coverage {
    /// Notes that there are messages of these offsets.
    pub(crate) fn add(&mut self, key: &LogKey, offsets: Range<u64>) {
        match self.0.get_mut(key) {
            Some(covered) => {
                if covered.next < offsets.start {
                    covered.gaps.push(covered.next..offsets.start);
                }
                covered.next = covered.next.max(offsets.end);
            }
            None => {
                let covered = Covered { first: offsets.start, next: offsets.end, gaps: Vec::new() };
                self.0.insert(key.clone(), covered);
            }
        }
    }

    /// Which of the offsets that a log should have are nowhere.
    pub(crate) fn missing(&self, key: &LogKey, offsets: Range<u64>) -> Vec<Range<u64>> {
        let Some(Covered { first, next, gaps }) = self.0.get(key) else {
            return if offsets.is_empty() { Vec::new() } else { vec![offsets] };
        };
        let ends = [offsets.start..*first, *next..offsets.end];
        let all = ends[..1].iter().chain(gaps).chain(&ends[1..]);
        let within = all.map(|gap| gap.start.max(offsets.start)..gap.end.min(offsets.end));
        within.filter(|gap| !gap.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use watchtower_hub::ChannelName;

    use super::*;

    #[test]
    fn what_is_in_no_run_is_missing() {
        let key = |channel: u32, epoch| (ChannelName::from(channel), epoch);
        let mut coverage = Coverage::default();
        for offsets in [3..5, 5..7, 9..10, 12..20] {
            coverage.add(&key(1, 1), offsets);
        }
        assert_eq!(coverage.missing(&key(1, 1), 1..22), [1..3, 7..9, 10..12, 20..22]);
        assert_eq!(coverage.missing(&key(1, 1), 4..11), [7..9, 10..11]);
        assert_eq!(coverage.missing(&key(1, 1), 13..20), [0..0; 0]);
        assert_eq!(coverage.missing(&key(1, 2), 1..3), std::slice::from_ref(&(1..3)), "another epoch's");
        assert_eq!(coverage.missing(&key(2, 1), 1..1), [0..0; 0]);
    }
}
