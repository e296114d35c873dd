//! The places that a channel keeps for those who are away.
//!
//! They are shared and sorted: to find the oldest, or to move on all that are
//! too old, nobody looks at each of those who are away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::Limits;
use crate::counters::Counters;
use crate::log::Place;

/// The smallest share of the lag limits that anybody has, as halvings.
const HALVINGS_MAX: u8 = 7;

/// What of the lag limits is kept for somebody: they are halved so often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share(u8);

impl Share {
    /// A share of which `holders` together have at most `whole` times the
    /// limits, as long as that leaves each of them a little.
    pub(crate) fn among(holders: usize, whole: u64) -> Share {
        let each = (holders as u64).div_ceil(whole).max(1);
        Share(u8::try_from(each.next_power_of_two().ilog2()).unwrap_or(HALVINGS_MAX).min(HALVINGS_MAX))
    }
}

/// A hold on a place. It has no effect when it is dropped: it is to be given
/// back.
#[derive(Debug)]
#[must_use]
pub(super) struct Hold {
    offset: u64,
    share: Share,
}

/// The places that are held.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// One for each share, as far as they were ever used.
    shelves: Vec<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    /// Places and how many hold each, by offset.
    ///
    /// Invariant: a hold is on the place of its offset, or on that of `floor`
    /// when it is below.
    places: BTreeMap<u64, (Arc<Place>, usize)>,
    floor: u64,
}

impl Kept {
    /// Keeps `place` and what follows it, within this share of the limits.
    pub(super) fn hold(&mut self, place: &Arc<Place>, share: Share) -> Hold {
        let index = usize::from(share.0);
        if self.shelves.len() <= index {
            self.shelves.resize_with(index + 1, Shelf::default);
        }
        let shelf = &mut self.shelves[index];
        let place = Place::seek(place, shelf.floor);
        shelf.add(place, 1);
        Hold { offset: place.offset(), share }
    }

    /// The offset from which on everything is kept for this hold.
    pub(super) fn offset(&self, hold: &Hold) -> u64 {
        let floor = self.shelves.get(usize::from(hold.share.0)).map_or(0, |shelf| shelf.floor);
        hold.offset.max(floor)
    }

    /// Ends a hold, and returns the place.
    pub(super) fn give_back(&mut self, hold: &Hold) -> Option<Arc<Place>> {
        let offset = self.offset(hold);
        let shelf = self.shelves.get_mut(usize::from(hold.share.0))?;
        let (place, holds) = shelf.places.get_mut(&offset)?;
        let place = place.clone();
        *holds -= 1;
        if *holds == 0 {
            shelf.places.remove(&offset);
        }
        Some(place)
    }

    /// The oldest place that is kept.
    pub(super) fn oldest(&self) -> Option<&Arc<Place>> {
        let first = |shelf: &'_ Shelf| shelf.places.first_key_value().map(|(&offset, _)| offset);
        let shelf = self.shelves.iter().filter(|shelf| !shelf.places.is_empty()).min_by_key(|s| first(s))?;
        shelf.places.first_key_value().map(|(_, (place, _))| place)
    }

    /// The last place that is kept at or before `offset`.
    pub(super) fn before(&self, offset: u64) -> Option<&Arc<Place>> {
        let last = |shelf: &'_ Shelf| shelf.places.range(..=offset).next_back().map(|(&offset, _)| offset);
        let nearest = self.shelves.iter().filter_map(last).max()?;
        self.shelves.iter().find_map(|shelf| shelf.places.get(&nearest)).map(|(place, _)| place)
    }

    /// Moves those on that are too far behind `end` ([model: log]).
    pub(super) fn move_on(&mut self, end: &Arc<Place>, limits: &Limits, counters: &Counters) {
        for (halvings, shelf) in self.shelves.iter_mut().enumerate() {
            let (bytes, messages) = (limits.lag_bytes >> halvings, limits.lag_messages >> halvings);
            shelf.move_on(
                |place| {
                    end.bytes_before() - place.bytes_before() > bytes
                        || end.offset() - place.offset() > messages
                },
                counters,
            );
        }
    }
}

impl Shelf {
    fn add(&mut self, place: &Arc<Place>, holds: usize) {
        self.places.entry(place.offset()).or_insert_with(|| (place.clone(), 0)).1 += holds;
    }

    fn move_on(&mut self, is_old: impl Fn(&Arc<Place>) -> bool, counters: &Counters) {
        let mut moved = Vec::new();
        while let Some(first) = self.places.first_entry()
            && is_old(&first.get().0)
        {
            moved.push(first.remove());
        }
        let Some((newest, _)) = moved.last() else { return };
        let mut place = newest;
        while is_old(place) {
            let Some(next) = place.next() else { break };
            place = next;
        }
        self.floor = place.offset();
        for (from, holds) in &moved {
            self.add(place, *holds);
            let skipped = (place.offset() - from.offset()) * *holds as u64;
            counters.lagging_skipped.add(skipped);
            counters.skipped_away.fetch_add(skipped, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Content, Epoch, Message, Position, Timestamp};

    fn log(messages: u64) -> Vec<Arc<Place>> {
        let mut places = vec![Place::first(1)];
        for offset in 1..=messages {
            let position = Position { epoch: Epoch::from_bits(1), offset };
            let message =
                Message::detached(5.into(), position, None, Content::text("x"), Timestamp::default());
            let next = places[places.len() - 1].append(message);
            places.push(next);
        }
        places
    }

    #[test]
    fn a_share_is_the_smaller_the_more_there_are() {
        let halvings = [0, 1, 16, 17, 32, 33, 100, 10_000].map(|holders| Share::among(holders, 16).0);
        assert_eq!(halvings, [0, 0, 0, 1, 1, 2, 3, HALVINGS_MAX]);
    }

    #[test]
    fn what_is_too_old_is_moved_on_at_once_for_all_and_within_each_share() {
        let places = log(20);
        let mut kept = Kept::default();
        let (whole, half) = (Share::among(1, 16), Share::among(17, 16));
        let holds: Vec<_> = [0, 1, 12]
            .iter()
            .flat_map(|&i| [kept.hold(&places[i], whole), kept.hold(&places[i], half)])
            .collect();
        let limits = Limits { lag_messages: 10, ..Limits::default() };
        let counters = Counters::default();
        kept.move_on(&places[20], &limits, &counters);
        let offsets: Vec<_> = holds.iter().map(|hold| kept.offset(hold)).collect();
        assert_eq!(offsets, [11, 16, 11, 16, 13, 16]);
        assert_eq!(counters.read(0, 0).lagging_skipped, 10 + 15 + 9 + 14 + 3);
        assert_eq!(kept.oldest().unwrap().offset(), 11);
        assert_eq!(kept.before(10).map(|place| place.offset()), None);
        assert_eq!(kept.before(15).map(|place| place.offset()), Some(13));
        // What comes late with something older has no more than the others.
        let late = kept.hold(&places[2], whole);
        assert_eq!(kept.give_back(&late).unwrap().offset(), 11);
        for hold in &holds {
            assert_eq!(kept.give_back(hold).unwrap().offset(), kept.offset(hold));
        }
        assert!(kept.oldest().is_none());
    }
}
