//! What a channel keeps a little longer than those who read it need it: for
//! streams whose clients say where they were when they come back
//! ([http: since]).
//!
//! What was written to a connection was not received yet, and when one breaks,
//! nobody knows how much was. A cursor that trails each reader would cost every
//! delivery something; this is one for all of them, which publishers move.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::log::Place;
use crate::{Limits, Timestamp};

/// For how long a message is kept that was handed out: longer than a client
/// that lost its connection takes to come back.
pub(crate) const TRAIL: Duration = Duration::from_secs(10);

/// How much is kept, as a part of the lag limit: by default 256 KiB, about what
/// a socket's buffers hold.
const PART_OF_LAG: u64 = 4;

/// Places are noted down so many times in that time, or that many bytes.
const STEPS: u32 = 8;

/// The last messages of a channel that has readers who may ask for them again.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// The subscriptions of sessions that are resumed by position.
    readers: u32,
    /// Places, and when they were filled, oldest first.
    marks: VecDeque<(Timestamp, Arc<Place>)>,
    /// When the last message came.
    last: Timestamp,
}

impl Trail {
    pub(super) fn add_reader(&mut self) {
        self.readers += 1;
    }

    /// Whether it was the last one.
    pub(super) fn remove_reader(&mut self) -> bool {
        self.readers -= 1;
        self.readers == 0
    }

    /// Keeps the message that `place` was just filled with, and lets go of what
    /// is too much for that.
    pub(super) fn note(&mut self, place: &Arc<Place>, now: Timestamp, limits: &Limits) {
        let bytes_max = limits.lag_bytes / PART_OF_LAG;
        self.last = now;
        let is_due = self.marks.back().is_none_or(|(time, last)| {
            now.since(*time) >= TRAIL / STEPS
                || place.bytes_before() - last.bytes_before() >= bytes_max / u64::from(STEPS)
        });
        if is_due {
            self.marks.push_back((now, place.clone()));
            self.let_go(|time, mark| {
                now.since(time) >= TRAIL || place.bytes_before() - mark.bytes_before() >= bytes_max
            });
        }
    }

    /// Lets go of what is older than it need be.
    pub(super) fn trim(&mut self, now: Timestamp) {
        if now.since(self.last) >= TRAIL {
            self.marks.clear();
        }
        self.let_go(|time, _| now.since(time) >= TRAIL);
    }

    /// The first mark goes once the second is enough.
    fn let_go(&mut self, is_enough: impl Fn(Timestamp, &Place) -> bool) {
        while self.marks.get(1).is_some_and(|(time, place)| is_enough(*time, place)) {
            self.marks.pop_front();
        }
    }

    /// The oldest place that is kept.
    pub(super) fn oldest(&self) -> Option<&Arc<Place>> {
        self.marks.front().map(|(_, place)| place)
    }

    /// The last place that was noted down at or before `offset`.
    pub(super) fn before(&self, offset: u64) -> Option<&Arc<Place>> {
        self.marks.iter().rev().map(|(_, place)| place).find(|place| place.offset() <= offset)
    }
}
