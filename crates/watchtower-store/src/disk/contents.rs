//! What is in a segment, in memory: where each message is, and what else is
//! said. The file beside a finished segment says the same; see `index`.

use std::collections::BTreeMap;
use std::ops::Range;

use watchtower_hub::{ChannelName, Epoch, Timestamp};

use super::codec::{self, Payload};
use crate::state::Step;

/// Which log: a channel and its epoch.
pub(crate) type LogKey = (ChannelName, u64);

/// Messages of one log whose offsets follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    /// Where their frames begin in the file, by offset.
    pub(crate) positions: Vec<u32>,
    /// The bytes of all messages of the log up to the last of these.
    pub(crate) total: u64,
    /// The time of the first.
    pub(crate) oldest: Timestamp,
    /// What their frames take in the file.
    pub(crate) size: u64,
    /// Whether the next message begins another run: these were dropped before it
    /// came, and the time of the first that is kept is to be known.
    closed: bool,
}

impl Run {
    /// The offset after the last.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.positions.len() as u64
    }
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    /// Invariant: no list is empty, and each is in the order of offsets.
    pub(crate) runs: BTreeMap<LogKey, Vec<Run>>,
    /// The last payload about each log and each record.
    pub(crate) metas: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

impl Contents {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.metas.is_empty()
    }

    /// In the order of logs.
    pub(crate) fn all_runs(&self) -> impl Iterator<Item = (&LogKey, &Run)> {
        self.runs.iter().flat_map(|(key, runs)| runs.iter().map(move |run| (key, run)))
    }

    /// Notes a frame at `at` of `size` bytes. `false` when its payload is none
    /// that was ever written.
    #[must_use]
    pub(crate) fn add(&mut self, at: u32, size: u64, payload: &[u8]) -> bool {
        match codec::look(payload) {
            Some(Payload::Message(outline)) => {
                let key = (outline.channel, outline.epoch.to_bits());
                let total = outline.before + outline.bytes;
                self.add_message(key, outline.offset, (at, size), total, outline.time);
                true
            }
            Some(Payload::Meta(key)) => {
                self.close_dropped(payload);
                self.metas.insert(key, payload.into());
                true
            }
            None => false,
        }
    }

    /// Adds what an index says of everything but messages.
    pub(crate) fn add_metas(&mut self, payloads: Vec<Box<[u8]>>) {
        for payload in payloads {
            if let Some(Payload::Meta(key)) = codec::look(&payload) {
                self.metas.insert(key, payload);
            }
        }
    }

    pub(crate) fn add_message(
        &mut self,
        key: LogKey,
        offset: u64,
        (at, size): (u32, u64),
        total: u64,
        time: Timestamp,
    ) {
        let runs = self.runs.entry(key).or_default();
        match runs.last_mut() {
            Some(run) if run.end() == offset && !run.closed => {
                run.positions.push(at);
                run.total = total;
                run.size += size;
            }
            _ => runs.push(Run {
                first: offset,
                positions: vec![at],
                total,
                oldest: time,
                size,
                closed: false,
            }),
        }
    }

    fn close_dropped(&mut self, payload: &[u8]) {
        let Some(Step::Log(channel, Some(log))) = codec::decode_meta(payload) else { return };
        let runs = self.runs.get_mut(&(channel, log.epoch.to_bits()));
        if let Some(run) = runs.and_then(|runs| runs.last_mut()).filter(|run| run.end() == log.first) {
            run.closed = true;
        }
    }

    /// The places of the messages of a log from offset `from` on, no more than
    /// `count` of them.
    pub(crate) fn locate(&self, key: &LogKey, from: u64, count: usize) -> Vec<Located> {
        let mut located = Vec::new();
        let mut left = count;
        for run in self.runs.get(key).into_iter().flatten().filter(|run| run.end() > from) {
            let skipped = from.saturating_sub(run.first);
            let positions = &run.positions[skipped as usize..];
            let positions = &positions[..positions.len().min(left)];
            left -= positions.len();
            if !positions.is_empty() {
                located.push(Located { first: run.first + skipped, positions: positions.to_vec() });
            }
        }
        located
    }
}

impl Contents {
    /// Which of these offsets of a log are not here.
    pub(crate) fn lost(&self, key: &LogKey, had: Range<u64>) -> Vec<Range<u64>> {
        let mut expected = had.start;
        let mut lost = Vec::new();
        for run in self.runs.get(key).into_iter().flatten().filter(|run| run.end() > had.start) {
            lost.push(expected..run.first.min(had.end));
            expected = expected.max(run.end());
        }
        lost.push(expected..had.end);
        lost.retain(|offsets| !offsets.is_empty());
        lost
    }
}

/// Where messages are whose offsets follow each other.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) first: u64,
    pub(crate) positions: Vec<u32>,
}

/// The key of a log.
pub(crate) fn log_key(channel: &ChannelName, epoch: Epoch) -> LogKey {
    (channel.clone(), epoch.to_bits())
}
