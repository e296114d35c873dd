//! What all changes so far amount to, the contents of messages aside, and which
//! change may follow. Both implementations stand on it, so that they cannot
//! differ here.
//!
//! Knows neither where messages are nor whether a change is on disk yet.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, Range};

use watchtower_hub::{ChannelName, Epoch, Message, Timestamp};

use crate::ranges::Ranges;
use crate::{Change, Ends, Key, Kind, Record, Refused, message_bytes};

/// A channel's log, without its messages. Within one epoch every number here
/// only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) epoch: Epoch,
    /// The first offset that is kept.
    pub(crate) first: u64,
    /// The offset of the next message.
    pub(crate) next: u64,
    /// The bytes of all messages before `first`, since the log began.
    pub(crate) dropped: u64,
    /// The bytes of all messages, since the log began.
    pub(crate) total: u64,
    /// The time of the message at `first`, or, if that is lost and its time not
    /// known, of the first one behind it; 0 when there is none. Means nothing when
    /// nothing is kept.
    pub(crate) oldest: Timestamp,
}

impl Log {
    pub(crate) fn new(epoch: Epoch) -> Log {
        Log { epoch, first: 1, next: 1, dropped: 0, total: 0, oldest: Timestamp::default() }
    }

    pub(crate) fn ends(&self) -> Ends {
        Ends {
            epoch: self.epoch,
            first: self.first,
            next: self.next,
            bytes: self.total.saturating_sub(self.dropped),
            oldest: (self.first < self.next).then_some(self.oldest),
        }
    }

    /// Notes that messages up to `next`, of `total` bytes since the log began,
    /// are there; the first of them is of `time`.
    pub(crate) fn extend(&mut self, next: u64, total: u64, time: Timestamp) {
        let has_none = self.next <= self.first || self.oldest == Timestamp::default();
        if has_none && self.first < next {
            self.oldest = time;
        }
        self.next = self.next.max(next);
        self.total = self.total.max(total);
    }

    /// Notes what another account of the same log says.
    fn catch_up(&mut self, other: &Log) {
        let has_none = self.next <= self.first || self.oldest == Timestamp::default();
        if other.first > self.first || (has_none && other.first == self.first) {
            self.oldest = other.oldest;
        }
        self.first = self.first.max(other.first);
        self.next = self.next.max(other.next);
        self.dropped = self.dropped.max(other.dropped);
        self.total = self.total.max(other.total);
    }
}

/// One change, judged: nothing is left to decide.
#[derive(Debug)]
pub(crate) enum Step {
    /// The message, and the bytes of all before it in its log.
    Append(Message, u64),
    /// What a channel's log is from now on, or that there is none.
    Log(ChannelName, Option<Log>),
    Put(Record),
    Delete(Key),
}

/// What is asked for: a change, or that a log drops its beginning.
#[derive(Debug)]
pub(crate) enum Asked {
    Change(Change),
    Trim(ChannelName, Trim),
}

/// A log's new beginning. Unlike a [`Change`] it holds what only a store knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trim {
    pub(crate) epoch: Epoch,
    pub(crate) first: u64,
    pub(crate) dropped: u64,
    pub(crate) oldest: Timestamp,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct State {
    logs: BTreeMap<ChannelName, Log>,
    /// What the logs of some channels had, and have no more.
    lost: BTreeMap<ChannelName, Ranges>,
    records: BTreeMap<Key, Record>,
}

impl State {
    pub(crate) fn log(&self, channel: &ChannelName) -> Option<&Log> {
        self.logs.get(channel)
    }

    pub(crate) fn logs(&self) -> impl ExactSizeIterator<Item = (&ChannelName, &Log)> {
        self.logs.iter()
    }

    pub(crate) fn channels(&self, after: Option<&ChannelName>, limit: usize) -> Vec<(ChannelName, Ends)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let logs = self.logs.range((start, Bound::Unbounded)).take(limit);
        logs.map(|(channel, log)| (channel.clone(), log.ends())).collect()
    }

    pub(crate) fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    pub(crate) fn records(&self, kind: Kind, after: Option<&Key>, limit: usize) -> Vec<Record> {
        let start = match after {
            Some(key) if key.kind() as u8 >= kind as u8 => Bound::Excluded(key.clone()),
            _ => first_key(kind),
        };
        let of_kind = self.records.range((start, Bound::Unbounded)).take_while(|(key, _)| key.kind() == kind);
        of_kind.take(limit).map(|(_, record)| record.clone()).collect()
    }

    /// Notes that a run of messages is there, as a store finds it when it opens.
    pub(crate) fn found(
        &mut self,
        channel: &ChannelName,
        epoch: Epoch,
        offsets: Range<u64>,
        total: u64,
        time: Timestamp,
    ) {
        if let Some(log) = self.logs.get_mut(channel)
            && log.epoch == epoch
        {
            log.extend(offsets.end, total, time);
        }
    }

    /// Takes a log for granted whose beginning was lost: what is there of it
    /// begins with `first`.
    pub(crate) fn adopt(&mut self, channel: &ChannelName, epoch: Epoch, first: u64, total: u64) {
        let log = Log { first, next: first, dropped: 0, total, ..Log::new(epoch) };
        self.logs.insert(channel.clone(), log);
    }

    /// Notes that a log has messages of these offsets no more.
    pub(crate) fn lose(&mut self, channel: &ChannelName, epoch: Epoch, offsets: Range<u64>) {
        if self.logs.get(channel).is_some_and(|log| log.epoch == epoch) {
            self.lost.entry(channel.clone()).or_default().insert(offsets);
        }
    }

    /// Forgets what is said to be lost, to be told anew.
    pub(crate) fn forget_losses(&mut self) {
        self.lost.clear();
    }

    /// The first offsets from `from` on that a log has lost of those that it keeps.
    pub(crate) fn lost(&self, channel: &ChannelName, from: u64) -> Option<Range<u64>> {
        let (log, lost) = (self.logs.get(channel)?, self.lost.get(channel)?);
        lost.within(from.max(log.first)..log.next).next()
    }

    /// Whether it is known that all of these offsets are lost.
    pub(crate) fn knows_lost(&self, channel: &ChannelName, offsets: &Range<u64>) -> bool {
        self.lost.get(channel).is_some_and(|lost| lost.covers(offsets))
    }

    pub(crate) fn apply(&mut self, step: Step) {
        match step {
            Step::Append(message, before) => {
                let position = message.position();
                let total = before + message_bytes(&message);
                let offsets = position.offset..position.offset + 1;
                self.found(message.channel(), position.epoch, offsets, total, message.time());
            }
            Step::Log(channel, None) => {
                self.logs.remove(&channel);
                self.lost.remove(&channel);
            }
            Step::Log(channel, Some(log)) => self.apply_log(&channel, log),
            Step::Put(record) => {
                self.records.insert(record.key(), record);
            }
            Step::Delete(key) => {
                self.records.remove(&key);
            }
        }
    }
}

impl State {
    fn apply_log(&mut self, channel: &ChannelName, log: Log) {
        let known = self.logs.entry(channel.clone()).or_insert(log);
        if known.epoch != log.epoch {
            *known = log;
            self.lost.remove(channel);
            return;
        }
        // No message came: these offsets were given up.
        let skipped = known.next.max(log.first)..log.next;
        known.catch_up(&log);
        if !skipped.is_empty() {
            self.lose(channel, log.epoch, skipped);
        }
        if let Some(lost) = self.lost.get_mut(channel) {
            lost.forget_before(log.first);
            if lost.is_empty() {
                self.lost.remove(channel);
            }
        }
    }
}

/// Where the keys of a kind begin.
fn first_key(kind: Kind) -> Bound<Key> {
    let lowest = watchtower_hub::SenderId::new(1);
    match (kind, lowest) {
        (Kind::Join, Some(sender)) => Bound::Included(Key::Join(sender, ChannelName::from(0))),
        (Kind::Callback, _) => Bound::Included(Key::Callback([0; 16])),
        (Kind::Value, _) => Bound::Included(Key::Value("".into())),
        (Kind::Sender | Kind::Join, _) => Bound::Unbounded,
    }
}

/// Judges changes against a state and those judged before them, which that
/// state does not show yet.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    state: &'a State,
    /// The logs that differ from the state's.
    ahead: HashMap<ChannelName, Option<Log>>,
    /// What `ahead` said before of what is changed together.
    touched: Vec<(ChannelName, Option<Log>)>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(state: &'a State) -> Judge<'a> {
        Judge { state, ahead: HashMap::new(), touched: Vec::new() }
    }

    /// Adds the steps that all of `asked` are to `steps`, or says why none of it
    /// may be, and adds none. A change that has no effect gives no step.
    pub(crate) fn judge(
        &mut self,
        asked: impl IntoIterator<Item = Asked>,
        steps: &mut Vec<Step>,
    ) -> Result<(), Refused> {
        self.touched.clear();
        let before = steps.len();
        for one in asked {
            match self.judge_one(one) {
                Ok(step) => steps.extend(step),
                Err(refused) => {
                    self.ahead.extend(self.touched.drain(..).rev());
                    steps.truncate(before);
                    return Err(refused);
                }
            }
        }
        Ok(())
    }

    fn judge_one(&mut self, asked: Asked) -> Result<Option<Step>, Refused> {
        match asked {
            Asked::Change(Change::Append(message)) => {
                let (channel, position) = (message.channel(), message.position());
                let log = self.log(channel);
                let next = log.map(|log| log.ends().next_position());
                let (Some(mut log), true) = (log, next == Some(position)) else {
                    return Err(Refused::NotNext { channel: channel.clone(), next });
                };
                let before = log.total;
                let total = before + message_bytes(&message);
                log.extend(position.offset + 1, total, message.time());
                self.set(channel.clone(), Some(log));
                Ok(Some(Step::Append(message, before)))
            }
            Asked::Change(Change::Begin { channel, epoch }) => {
                if self.log(&channel).is_some_and(|log| log.epoch == epoch) {
                    return Ok(None);
                }
                let log = Some(Log::new(epoch));
                self.set(channel.clone(), log);
                Ok(Some(Step::Log(channel, log)))
            }
            Asked::Change(Change::Skip { channel, next }) => {
                let Some(mut log) = self.log(&channel) else {
                    return Err(Refused::NotNext { channel, next: None });
                };
                if next <= log.next {
                    return Ok(None);
                }
                log.first = if log.first == log.next { next } else { log.first };
                log.next = next;
                self.set(channel.clone(), Some(log));
                Ok(Some(Step::Log(channel, Some(log))))
            }
            Asked::Change(Change::Forget { channel }) => {
                if self.log(&channel).is_none() {
                    return Ok(None);
                }
                self.set(channel.clone(), None);
                Ok(Some(Step::Log(channel, None)))
            }
            Asked::Change(Change::Put(record)) => Ok(Some(Step::Put(record))),
            Asked::Change(Change::Delete(key)) => Ok(Some(Step::Delete(key))),
            Asked::Trim(channel, trim) => {
                let Some(mut log) = self.log(&channel) else { return Ok(None) };
                if log.epoch != trim.epoch || trim.first <= log.first {
                    return Ok(None);
                }
                log.first = trim.first;
                log.dropped = trim.dropped;
                log.oldest = trim.oldest;
                self.set(channel.clone(), Some(log));
                Ok(Some(Step::Log(channel, Some(log))))
            }
        }
    }

    fn log(&self, channel: &ChannelName) -> Option<Log> {
        match self.ahead.get(channel) {
            Some(log) => *log,
            None => self.state.log(channel).copied(),
        }
    }

    fn set(&mut self, channel: ChannelName, log: Option<Log>) {
        self.touched.push((channel.clone(), self.log(&channel)));
        self.ahead.insert(channel, log);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_whose_first_message_is_lost_is_as_old_as_the_next_one() {
        let (channel, epoch) = (ChannelName::from(1), Epoch::from_bits(1));
        let time = Timestamp::from_millis;
        let oldest = |state: &State| state.log(&channel).and_then(|log| log.ends().oldest);
        let mut state = State::default();
        state.apply(Step::Log(channel.clone(), Some(Log::new(epoch))));
        state.found(&channel, epoch, 2..4, 20, time(7));
        assert_eq!(oldest(&state), Some(time(7)));
        state.found(&channel, epoch, 4..9, 50, time(8));
        assert_eq!(oldest(&state), Some(time(7)));
        // Another account of it that knows of the first.
        let mut first = State::default();
        first.apply(Step::Log(channel.clone(), Some(Log { next: 2, oldest: time(6), ..Log::new(epoch) })));
        assert_eq!(oldest(&first), Some(time(6)));
        first.found(&channel, epoch, 2..4, 20, time(7));
        assert_eq!(oldest(&first), Some(time(6)));
    }
}
