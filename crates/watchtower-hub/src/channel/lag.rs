//! Who falls behind too far, and moving them on ([model: log]).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::State;
use super::subscribers::Slot;
use crate::Limits;
use crate::counters::Counters;
use crate::idle::SLOTS_PER_SET;
use crate::log::Place;
use crate::reader::{Link, Ring};
use crate::settings::SESSION_LAG_FACTOR;

/// How many times the limits a session may be behind that has had no turn since
/// it was woken: only on an overloaded machine, for as long as a turn takes.
const UNHEARD_FACTOR: u64 = 4;

/// The sessions are charged for what is published each time that it is so much
/// of the limit.
const CHARGES_PER_LIMIT: u64 = 128;

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
        let uncharged = end.bytes - self.charged;
        if uncharged >= (limits.lag_bytes / CHARGES_PER_LIMIT).max(1) {
            self.charged = end.bytes;
            self.kept.move_on(&self.end, limits, counters);
            self.charge(uncharged, limits, counters);
        }
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

    /// Tells the sessions that do not rest that so much was published here, and
    /// has those weighed that were told of more than they may have unread.
    fn charge(&mut self, bytes: u64, limits: &Limits, counters: &Counters) {
        for (set, slots) in self.sets.iter().zip(self.slots.chunks(SLOTS_PER_SET as usize)) {
            let resting = set.resting();
            for (index, slot) in slots.iter().enumerate() {
                if let Some(slot) = slot
                    && resting >> index & 1 == 0
                    && slot.link.charge(bytes)
                {
                    slot.link.weigh(limits, counters);
                }
            }
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

impl Link {
    /// Adds up what the session has not read in all its channels. When it is more
    /// than a session may be behind, it skips ahead in each, until it is half of
    /// that, and is lagging.
    fn weigh(&self, limits: &Limits, counters: &Counters) {
        let mut reader = self.reader.lock();
        let closes = reader.closes_when_lagging;
        let most = limits.lag_bytes.saturating_mul(SESSION_LAG_FACTOR);
        let unread = reader.unread_bytes(&self.bell);
        // Who has had no turn yet: not the reader is slow but this machine.
        let is_unheard = closes && !unread.begun;
        if unread.bytes <= most || is_unheard && unread.bytes <= most.saturating_mul(UNHEARD_FACTOR) {
            // Not weighed again and again when it is near.
            self.allow(most.saturating_sub(unread.bytes).max(most / 16));
            return;
        }
        let most = most / 2;
        self.count_skipped(reader.skip_to(most, &self.bell), counters);
        self.allow(most);
        if closes && !std::mem::replace(&mut reader.lagging, true) {
            drop(reader);
            counters.lagging_closed.add(1);
            // Whoever drives it may wait for its socket, and not look.
            self.bell.wake_again();
        }
    }
}

impl Link {
    fn count_skipped(&self, messages: u64, counters: &Counters) {
        counters.lagging_skipped.add(messages);
        self.protocol.skipped.fetch_add(messages, Ordering::Relaxed);
    }
}

impl Slot {
    fn move_on(&mut self, oldest: u64, oldest_unheard: u64, end: &Arc<Place>, counters: &Counters) {
        let mut reader = self.link.reader.lock();
        let closes = reader.closes_when_lagging;
        let Some(subscription) = reader.get(self.key) else { return };
        // Who reads from the ledger is not behind by what is in memory.
        let reads_ledger = subscription.awaited_page().is_some();
        if reads_ledger || subscription.next.max(self.woken_at) >= oldest {
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
        self.link.count_skipped(place.offset() - unread.offset().min(place.offset()), counters);
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
