//! Pages of history, held against all that a channel's history has.
//!
//! Knows what is kept, and not how it is found; durable channels are not asked,
//! since they read theirs from the ledger.

use fastrand::Rng;
use watchtower_hub::{ChannelName, Epoch, History, HistoryQuery, Position, Span, Timestamp};

use super::disk::is_durable;
use super::model::{Channel, HISTORY_MESSAGES, HISTORY_TTL, Message, has_history};
use super::world::World;

/// All of a history.
const EVERYTHING: HistoryQuery =
    HistoryQuery { span: Span::Last, messages_max: usize::MAX, bytes_max: u64::MAX };

/// The messages for everyone that a channel keeps.
struct Kept<'a> {
    epoch: Epoch,
    /// The offsets that are kept: the first, and the one after the last.
    first: u64,
    next: u64,
    messages: Vec<&'a Message>,
}

impl World {
    /// [http: channels/history] All that each channel keeps, and some page of it.
    pub(super) fn check_pages(&self) -> Result<(), String> {
        let channels = self.oracle.model.channels.iter().filter(|(name, _)| !is_durable(name));
        for (name, channel) in channels {
            self.check_pages_of(name, channel)?;
        }
        Ok(())
    }

    fn check_pages_of(&self, name: &ChannelName, channel: &Channel) -> Result<(), String> {
        let Some(epoch) = channel.epoch else { return Ok(()) };
        let kept = Kept::of(name, channel, epoch, self.now);
        let mut rng = Rng::with_seed(self.now.as_millis() ^ (self.oracle.model.counted.published << 20));
        for query in [EVERYTHING, kept.some_page(&mut rng)] {
            let page = self.hub.history(name, &query, self.now).and_then(|page| page.now().ok()?.ok());
            let page = page.ok_or_else(|| format!("the history of channel {name} is not known at once"))?;
            kept.check(&query, &page).map_err(|error| {
                let offsets: Vec<_> = page.entries.iter().map(|entry| entry.position().offset).collect();
                format!(
                    "the history of channel {name}, kept from {} to before {}, for {query:?} is {offsets:?}: {error}",
                    kept.first, kept.next
                )
            })?;
        }
        Ok(())
    }
}

impl<'a> Kept<'a> {
    fn of(name: &ChannelName, channel: &'a Channel, epoch: Epoch, now: Timestamp) -> Kept<'a> {
        let next = channel.next_offset();
        let is_kept = |message: &&Message| {
            has_history(name)
                && next - message.offset <= HISTORY_MESSAGES as u64
                && now.since(message.time) < HISTORY_TTL
        };
        let messages = channel.log.iter().map(AsRef::as_ref).filter(is_kept);
        let first = messages.clone().next().map_or(next, |message| message.offset);
        Kept { epoch, first, next, messages: messages.filter(|message| message.to.is_none()).collect() }
    }

    /// A page around what is kept, at times of another log.
    fn some_page(&self, rng: &mut Rng) -> HistoryQuery {
        let epoch = if rng.u8(..8) == 0 { Epoch::from_bits(rng.u64(..)) } else { self.epoch };
        let offset = rng.u64(self.first.saturating_sub(3)..self.next + 3);
        let position = Position { epoch, offset };
        let span = [Span::Last, Span::After(position), Span::Before(position)][rng.usize(..3)];
        HistoryQuery { span, messages_max: rng.usize(1..7), bytes_max: rng.u64(1..600) }
    }

    fn check(&self, query: &HistoryQuery, page: &History) -> Result<(), String> {
        let (recovered, expected) = self.page(query);
        let offsets: Vec<u64> = expected.iter().map(|message| message.offset).collect();
        if !page.entries.iter().map(|entry| entry.position().offset).eq(offsets.iter().copied()) {
            return Err(format!("it is to be {offsets:?}"));
        }
        if page.recovered != recovered {
            return Err(format!("something is missing before it: {recovered}, and it says the contrary"));
        }
        let Some((first, last)) = offsets.first().zip(offsets.last()) else { return Ok(()) };
        let is_more = (page.more_before, page.more_after);
        let expected = (
            self.messages.iter().any(|message| message.offset < *first),
            self.messages.iter().any(|message| message.offset > *last),
        );
        if is_more != expected || page.first > *first || page.last < *last {
            return Err(format!("there is more before and after it: {expected:?}, and it says {is_more:?}"));
        }
        Ok(())
    }

    /// What a page is to have, and whether nothing is missing up to where it was
    /// asked for.
    fn page(&self, query: &HistoryQuery) -> (bool, Vec<&'a Message>) {
        let is_here = |position: Position| position.epoch == self.epoch && position.offset <= self.next;
        let (recovered, from) = match query.span {
            Span::Last => (true, None),
            Span::Before(position) if is_here(position) => {
                let until = position.offset.max(1);
                let before = self.messages.iter().rev().filter(|message| message.offset < until);
                return (until == 1 || until > self.first, fitting(before, query, true));
            }
            Span::Before(_) => (false, None),
            Span::After(position) if is_here(position) && position.offset < self.next => {
                (position.offset + 1 >= self.first, Some(position.offset + 1))
            }
            Span::After(_) => (false, Some(self.first)),
        };
        let page = match from {
            Some(from) => {
                fitting(self.messages.iter().filter(|message| message.offset >= from), query, false)
            }
            None => fitting(self.messages.iter().rev(), query, true),
        };
        (recovered, page)
    }
}

/// As many as there is room for, from the first on; at least one.
fn fitting<'a: 'b, 'b>(
    messages: impl Iterator<Item = &'b &'a Message>,
    query: &HistoryQuery,
    is_backwards: bool,
) -> Vec<&'a Message> {
    let mut bytes = 0;
    let mut page: Vec<&Message> = Vec::new();
    for message in messages.take(query.messages_max) {
        bytes += message.content.bytes().len() as u64;
        if bytes > query.bytes_max && !page.is_empty() {
            break;
        }
        page.push(message);
    }
    if is_backwards {
        page.reverse();
    }
    page
}
