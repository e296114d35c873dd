//! What a channel keeps for those who come later, a page at a time.
//!
//! Knows neither how positions are written nor who may ask.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::Channel;
use crate::log::{Entry, Place};
use crate::{Epoch, Position};

/// Which part of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// The last messages.
    Last,
    /// The first ones after a position.
    After(Position),
    /// The last ones before a position.
    Before(Position),
}

/// A part of what is kept, and how much of it at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Which.
    pub span: Span,
    /// How many messages at most.
    pub messages_max: usize,
    /// How many bytes of content at most; a message that is longer comes alone.
    pub bytes_max: u64,
}

/// What a channel keeps from one offset to another, both included: all of it but
/// direct messages, which are between their sender and receivers alone.
#[derive(Debug)]
pub struct History {
    /// The incarnation of the log.
    pub epoch: Epoch,
    /// Whether nothing is missing between the position that was asked for and the
    /// other end of this: `false` when the log is another one, does not reach so
    /// far, does not keep what comes next to it any more, or has lost some of it.
    pub recovered: bool,
    /// What of it was lost on disk, in order, as far as there are not very many.
    pub lost: Vec<Range<u64>>,
    /// In order.
    pub entries: Vec<Entry>,
    /// The first offset that this covers: what was kept earlier is before it.
    pub first: u64,
    /// The last offset that this covers, the one before `first` when there is
    /// none: what comes later is after it.
    pub last: u64,
    /// Whether there are messages for everyone before this.
    pub more_before: bool,
    /// Whether there are messages for everyone after this.
    pub more_after: bool,
}

impl Channel {
    /// A page of what history keeps in memory ([http: channels/history]): from
    /// `oldest` to before the offset `next`. `first` is the first offset that is
    /// kept, which in a durable log may be before those in memory.
    pub(crate) fn history(
        &self,
        first: Option<u64>,
        oldest: &Arc<Place>,
        next: u64,
        page: &HistoryQuery,
    ) -> (History, Part) {
        let oldest = oldest.clone();
        let first = first.unwrap_or(oldest.offset());
        let part = Part::of(page.span, self.epoch, first, next);
        let stretch = Stretch { epoch: self.epoch, oldest, first, next };
        let history = match part.edge {
            Edge::From(from) => stretch.first_from(from, part.recovered, page),
            Edge::Until(until) => stretch.last_until(until, part.recovered, page),
        };
        (history, part)
    }
}

/// What a query is about, in a log that keeps certain offsets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) edge: Edge,
    /// The offsets that are kept: the first, and the one after the last.
    pub(crate) first: u64,
    pub(crate) next: u64,
    pub(crate) recovered: bool,
}

/// Where a page begins or ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Edge {
    /// It has the first messages from this offset on.
    From(u64),
    /// It has the last ones before this offset.
    Until(u64),
}

impl Part {
    fn of(span: Span, epoch: Epoch, first: u64, next: u64) -> Part {
        let (edge, recovered) = match span {
            // The log goes as far as `next - 1`: who was further was elsewhere.
            Span::After(seen) if seen.epoch == epoch && seen.offset < next => {
                let from = seen.offset + 1;
                (Edge::From(from.max(first)), from >= first)
            }
            Span::Before(seen) if seen.epoch == epoch && seen.offset <= next => {
                let until = seen.offset.max(1);
                (Edge::Until(until), until > first || until == 1)
            }
            Span::After(_) => (Edge::From(first), false),
            Span::Before(_) => (Edge::Until(next), false),
            Span::Last => (Edge::Until(next), true),
        };
        Part { edge, first, next, recovered }
    }
}

/// What is kept at a moment: from `first` on, before the offset `next`; of that
/// from `oldest` on in memory.
struct Stretch {
    epoch: Epoch,
    oldest: Arc<Place>,
    first: u64,
    next: u64,
}

impl Stretch {
    /// The places whose messages are for everyone.
    fn for_everyone(&self) -> impl Iterator<Item = &Arc<Place>> {
        let places = std::iter::successors(Some(&self.oldest), |place| place.next());
        let kept = places.take_while(|place| place.offset() < self.next);
        kept.filter(|place| place.message().is_some_and(|message| !message.is_direct()))
    }

    /// The first messages from the offset `from` on.
    fn first_from(&self, from: u64, recovered: bool, page: &HistoryQuery) -> History {
        let mut taken = Taken::default();
        let (mut more_before, mut more_after) = (self.first < self.oldest.offset().min(from), false);
        for place in self.for_everyone() {
            if place.offset() < from {
                more_before = true;
                continue;
            }
            taken.push(place);
            more_after = taken.are_above(page);
            if more_after {
                taken.places.pop_back();
                break;
            }
        }
        let last = if more_after { taken.last().unwrap_or(from - 1) } else { self.next - 1 };
        let (entries, lost) = (taken.into_entries(), Vec::new());
        History { epoch: self.epoch, recovered, lost, entries, first: from, last, more_before, more_after }
    }

    /// The last messages before the offset `until`.
    fn last_until(&self, until: u64, recovered: bool, page: &HistoryQuery) -> History {
        let mut taken = Taken::default();
        let (mut more_before, mut more_after) = (false, false);
        for place in self.for_everyone() {
            if place.offset() >= until {
                more_after = true;
                break;
            }
            taken.push(place);
            while taken.are_above(page) {
                taken.pop_first();
                more_before = true;
            }
        }
        let all = self.first.min(until);
        let first = if more_before { taken.first().unwrap_or(until) } else { all };
        let (entries, lost) = (taken.into_entries(), Vec::new());
        let last = until - 1;
        History { epoch: self.epoch, recovered, lost, entries, first, last, more_before, more_after }
    }
}

/// Successive places with messages for everyone.
#[derive(Default)]
struct Taken<'a> {
    places: VecDeque<&'a Arc<Place>>,
    /// The bytes of their content.
    bytes: u64,
}

impl<'a> Taken<'a> {
    fn push(&mut self, place: &'a Arc<Place>) {
        self.bytes += content_bytes(place);
        self.places.push_back(place);
    }

    fn pop_first(&mut self) {
        self.bytes -= self.places.pop_front().map_or(0, content_bytes);
    }

    /// Whether they are more than a page holds.
    fn are_above(&self, page: &HistoryQuery) -> bool {
        let count = self.places.len();
        count > page.messages_max || (count > 1 && self.bytes > page.bytes_max)
    }

    fn first(&self) -> Option<u64> {
        self.places.front().map(|place| place.offset())
    }

    fn last(&self) -> Option<u64> {
        self.places.back().map(|place| place.offset())
    }

    fn into_entries(self) -> Vec<Entry> {
        self.places.into_iter().filter_map(Entry::at).collect()
    }
}

fn content_bytes(place: &Arc<Place>) -> u64 {
    place.message().map_or(0, |message| message.content().bytes().len() as u64)
}
