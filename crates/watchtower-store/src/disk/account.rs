//! What all segments amount to, taken in their order: the logs and records that
//! there are, and which messages of these are in no file.
//!
//! Tells nobody: who takes the segments does.

use std::collections::BTreeSet;
use std::ops::Range;

use watchtower_hub::{ChannelName, Epoch, Timestamp};

use super::codec;
use super::contents::{Contents, LogKey};
use super::coverage::Coverage;
use super::index::Outline;
use crate::state::{State, Step};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) state: State,
    coverage: Coverage,
}

/// A log's messages in one segment.
#[derive(Debug)]
pub(super) struct FoundRun<'a> {
    key: &'a LogKey,
    offsets: (u64, u64),
    total: u64,
    oldest: Timestamp,
}

impl FoundRun<'_> {
    /// Those that an index says.
    pub(super) fn said(outline: &Outline) -> Vec<FoundRun<'_>> {
        let runs = outline.entries.iter().map(|entry| FoundRun {
            key: &entry.key,
            offsets: (entry.first, entry.end()),
            total: entry.total,
            oldest: entry.oldest,
        });
        runs.collect()
    }

    /// Those that are there.
    pub(super) fn there(contents: &Contents) -> Vec<FoundRun<'_>> {
        let runs = contents.runs.iter().flat_map(|(key, runs)| runs.iter().map(move |run| (key, run)));
        let runs = runs.map(|(key, run)| FoundRun {
            key,
            offsets: (run.first, run.end()),
            total: run.total,
            oldest: run.oldest,
        });
        runs.collect()
    }
}

impl Account {
    /// Notes what a segment says. Tells `gap` of the offsets before each run that
    /// no segment before has said anything of.
    pub(super) fn describe(
        &mut self,
        metas: &[Box<[u8]>],
        runs: &[FoundRun<'_>],
        mut gap: impl FnMut(&ChannelName, Range<u64>),
    ) {
        let mut said = BTreeSet::new();
        for payload in metas {
            let Some(step) = codec::decode_meta(payload) else { continue };
            if let Step::Log(channel, _) = &step {
                said.insert(channel.clone());
            }
            self.state.apply(step);
        }
        for run in runs {
            let (channel, epoch) = run.key;
            let epoch = Epoch::from_bits(*epoch);
            // A log that was begun before and not ended is known. If it is not,
            // its beginning was damaged.
            let is_known = self.state.log(channel).is_some_and(|log| log.epoch == epoch);
            if !is_known && !said.contains(channel) {
                self.state.adopt(channel, epoch, run.offsets.0, run.total);
            }
            let next = self.state.log(channel).filter(|log| log.epoch == epoch).map(|log| log.next);
            if let Some(next) = next.filter(|next| *next < run.offsets.0) {
                gap(channel, next..run.offsets.0);
            }
            self.state.found(channel, epoch, run.offsets, run.total, run.oldest);
        }
    }

    /// Notes which messages of a segment can be read.
    pub(super) fn cover(&mut self, runs: &[FoundRun<'_>]) {
        for run in runs {
            self.coverage.add(run.key, run.offsets.0..run.offsets.1);
        }
    }

    /// Once all segments were taken: the offsets of each log that are in none. The
    /// state knows them from then on.
    pub(super) fn find_missing(&mut self) -> Vec<(ChannelName, Range<u64>)> {
        // What metas said one after the other made other gaps.
        self.state.forget_losses();
        let mut missing = Vec::new();
        for (channel, log) in self.state.logs() {
            let key = (channel.clone(), log.epoch.to_bits());
            let offsets = self.coverage.missing(&key, log.first..log.next);
            missing.extend(offsets.into_iter().map(|offsets| (channel.clone(), log.epoch, offsets)));
        }
        let lose = missing.into_iter().map(|(channel, epoch, offsets)| {
            self.state.lose(&channel, epoch, offsets.clone());
            (channel, offsets)
        });
        lose.collect()
    }
}
