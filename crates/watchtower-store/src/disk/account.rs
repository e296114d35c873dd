//! What all segments amount to, taken in their order: the logs and records that
//! there are, and which messages of these are in no file.
//!
//! Tells nobody: who takes the segments does.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use watchtower_hub::{ChannelName, Epoch, Timestamp};

use super::codec;
use super::contents::{Contents, LogKey, Run};
use super::coverage::Coverage;
use super::index::{Entry, Index};
use crate::state::{State, Step};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) state: State,
    coverage: Coverage,
}

/// A log's messages in one segment.
#[derive(Debug)]
struct FoundRun<'a> {
    key: &'a LogKey,
    offsets: Range<u64>,
    total: u64,
    oldest: Timestamp,
}

impl<'a> From<&'a Entry> for FoundRun<'a> {
    fn from(entry: &'a Entry) -> FoundRun<'a> {
        let Entry { key, total, oldest, .. } = entry;
        FoundRun { key, offsets: entry.first..entry.end(), total: *total, oldest: *oldest }
    }
}

impl<'a> From<(&'a LogKey, &'a Run)> for FoundRun<'a> {
    fn from((key, run): (&'a LogKey, &'a Run)) -> FoundRun<'a> {
        FoundRun { key, offsets: run.first..run.end(), total: run.total, oldest: run.oldest }
    }
}

/// Whether the messages that an index says can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Messages {
    There,
    /// What is there is said by [`Account::cover`].
    Unsure,
}

impl Account {
    /// Notes what the index of a segment says. Tells `gap` of the offsets before each
    /// run that no segment before has said anything of.
    ///
    /// # Errors
    /// That of reading the index, which was whole a moment ago.
    pub(super) fn describe_index(
        &mut self,
        index: &Index,
        messages: Messages,
        mut gap: impl FnMut(&ChannelName, Range<u64>),
    ) -> io::Result<()> {
        let mut said = index.said()?;
        let mut channels = BTreeSet::new();
        while let Some(payload) = said.meta()? {
            self.describe_meta(payload, &mut channels);
        }
        while let Some(entry) = said.entry()? {
            self.describe_run(&FoundRun::from(&entry), &channels, &mut gap);
            if messages == Messages::There {
                self.coverage.add(&entry.key, entry.first..entry.end());
            }
        }
        said.finish()
    }

    /// Notes what a segment that was gone through says. Tells `gap` as
    /// [`describe_index`](Account::describe_index) does.
    pub(super) fn describe(&mut self, contents: &Contents, mut gap: impl FnMut(&ChannelName, Range<u64>)) {
        let mut channels = BTreeSet::new();
        contents.metas.values().for_each(|payload| self.describe_meta(payload, &mut channels));
        for run in contents.all_runs() {
            self.describe_run(&run.into(), &channels, &mut gap);
        }
    }

    /// Notes which messages of a segment can be read.
    pub(super) fn cover(&mut self, contents: &Contents) {
        for (key, run) in contents.all_runs() {
            self.coverage.add(key, run.first..run.end());
        }
    }

    /// Adds the channel to those of which the segment says something.
    fn describe_meta(&mut self, payload: &[u8], channels: &mut BTreeSet<ChannelName>) {
        let Some(step) = codec::decode_meta(payload) else { return };
        if let Step::Log(channel, _) = &step {
            channels.insert(channel.clone());
        }
        self.state.apply(step);
    }

    fn describe_run(
        &mut self,
        run: &FoundRun<'_>,
        channels: &BTreeSet<ChannelName>,
        gap: &mut impl FnMut(&ChannelName, Range<u64>),
    ) {
        let (channel, epoch) = run.key;
        let epoch = Epoch::from_bits(*epoch);
        // A log that was begun before and not ended is known. If it is not,
        // its beginning was damaged.
        let is_known = self.state.log(channel).is_some_and(|log| log.epoch == epoch);
        if !is_known && !channels.contains(channel) {
            self.state.adopt(channel, epoch, run.offsets.start, run.total);
        }
        let next = self.state.log(channel).filter(|log| log.epoch == epoch).map(|log| log.next);
        if let Some(next) = next.filter(|next| *next < run.offsets.start) {
            gap(channel, next..run.offsets.start);
        }
        self.state.found(channel, epoch, run.offsets.clone(), run.total, run.oldest);
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
