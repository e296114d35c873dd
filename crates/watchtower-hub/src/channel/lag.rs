//! Who falls behind too far, and moving them on ([model: log]).

use std::sync::Arc;

use super::State;
use super::subscribers::Slot;
use crate::Limits;
use crate::counters::Counters;
use crate::idle::SLOTS_PER_SET;
use crate::log::Place;
use crate::reader::Ring;

/// How many times the limits a session may be behind that has had no turn since
/// it was woken: only on an overloaded machine, for as long as a turn takes.
const UNHEARD_FACTOR: u64 = 4;

#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    offset: u64,
    bytes: u64,
}

impl State {
    /// Moves those on who fell behind too far ([model: log]). Looks each time
    /// that an eighth of the limit has been published.
    pub(super) fn check_lag(&mut self, limits: &Limits, counters: &Counters) {
        let end = Mark { offset: self.end.offset(), bytes: self.end.bytes_before() };
        let last = self.marks.back().copied().unwrap_or(Mark { offset: 1, bytes: 0 });
        let due = end.offset - last.offset >= (limits.lag_messages / 8).max(1)
            || end.bytes - last.bytes >= (limits.lag_bytes / 8).max(1);
        if !due {
            return;
        }
        self.kept.move_on(&self.end, limits, counters);
        self.marks.push_back(end);
        let kept = limits.lag_bytes.saturating_mul(UNHEARD_FACTOR);
        while self.marks.get(1).is_some_and(|mark| end.bytes - mark.bytes >= kept) {
            self.marks.pop_front();
        }
        let oldest = self.oldest_within(end, limits, 1);
        if oldest > 1 {
            self.move_on(oldest, self.oldest_within(end, limits, UNHEARD_FACTOR), counters);
        }
    }

    /// The oldest place that is within `factor` times the limits.
    fn oldest_within(&self, end: Mark, limits: &Limits, factor: u64) -> u64 {
        let bytes = limits.lag_bytes.saturating_mul(factor);
        let by_bytes = self.marks.iter().rev().find(|mark| end.bytes - mark.bytes >= bytes);
        let by_messages = end.offset.saturating_sub(limits.lag_messages.saturating_mul(factor));
        by_messages.max(by_bytes.map_or(0, |mark| mark.offset))
    }

    /// Moves every cursor before `oldest` there, save those of sessions that
    /// have had no turn since they were woken: they are moved to `oldest_unheard`.
    fn move_on(&mut self, oldest: u64, oldest_unheard: u64, counters: &Counters) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            let resting =
                self.sets[index / SLOTS_PER_SET as usize].resting() >> (index as u32 % SLOTS_PER_SET) & 1;
            if resting == 0 && slot.woken_at < oldest {
                slot.move_on(oldest, oldest_unheard, &self.end, counters);
            }
        }
    }
}

impl Slot {
    fn move_on(&mut self, oldest: u64, oldest_unheard: u64, end: &Arc<Place>, counters: &Counters) {
        let mut reader = self.link.reader.lock();
        let closes = reader.closes_when_lagging;
        let Some(subscription) = reader.get(self.key) else { return };
        if subscription.next.max(self.woken_at) >= oldest {
            return;
        }
        let rung = self.link.bell.take_back(|ring| ring.key == self.key).pop();
        if let (None, Some(unheard)) = (&subscription.cursor, &rung)
            && closes
            && self.woken_at >= oldest_unheard
        {
            // Not the reader is slow but this machine: no reason to close it.
            self.link.bell.ring(Ring { key: self.key, start: unheard.start.clone() });
            return;
        }
        let unread = subscription.cursor.as_ref().or(rung.as_ref().map(|ring| &ring.start)).unwrap_or(end);
        let place = Place::seek(unread, oldest).clone();
        counters.lagging_skipped.add(place.offset() - unread.offset().min(place.offset()));
        subscription.next = place.offset();
        subscription.cursor = Some(place.clone());
        self.woken_at = place.offset();
        let is_over = closes && !std::mem::replace(&mut reader.lagging, true);
        drop(reader);
        self.link.bell.ring(Ring { key: self.key, start: place });
        if is_over {
            counters.lagging_closed.add(1);
            // Whoever drives it may wait for its socket, and not look.
            self.link.bell.wake_again();
        }
    }
}
