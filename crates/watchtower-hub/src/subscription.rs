//! A session's place in a channel: a cursor, and for whom it reads.
//!
//! Knows no lock and no limit: the session reads along it, and the channel moves
//! it on.

use std::mem;
use std::sync::Arc;

use crate::channel::Channel;
use crate::few::FewMap;
use crate::idle::IdleSet;
use crate::log::{Place, Run};
use crate::{Audience, Message, SenderId};

/// A session's place in a channel ([model: terms]).
///
/// Laid out so that what each delivery looks at comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Subscription {
    /// The first offset that was not handed out, or a lower one where what
    /// lies between is for others. It only grows, save when it is put back for
    /// [`again`](Self::again): nothing is handed out twice.
    pub(crate) next: u64,
    /// Where to read on; `None` while it rests at the end of the log, holding
    /// nothing.
    pub(crate) cursor: Option<Arc<Place>>,
    pub(crate) set: Arc<IdleSet>,
    /// What is read a second time. `None` while it rests.
    again: Option<Box<Again>>,
    pub(crate) slot: u32,
    /// Whether its key is among those that are ready.
    pub(crate) queued: bool,
    /// Whether it has one of the pages that its session may have at a time.
    pub(crate) has_page: bool,
    here: Here,
    pub(crate) channel: Arc<Channel>,
    /// While a page is being read from the ledger, or is to be: what tells it from
    /// others.
    page: Option<Arc<PageMark>>,
    /// The senders that it delivers to, each from an offset on; none for a
    /// mailbox.
    senders: FewMap<SenderId, u64>,
}

/// Has the most values to spare of all fields of a [`Subscription`]: so an `Option`
/// of one has its mark here, beside what a delivery looks at.
#[derive(Debug)]
#[repr(u8)]
enum Here {
    Here,
}

/// What was read before some senders came here, and is read again for the
/// direct messages to them that they had not been handed elsewhere.
#[derive(Debug, Default)]
struct Again {
    /// The first offset that was not read yet.
    until: u64,
    /// Those senders, and the first offset that each has not been handed.
    late: FewMap<SenderId, u64>,
    /// What is retained and the subscription was to begin with, until that is handed
    /// out, too.
    first: Option<Message>,
}

/// A page that was asked for.
#[derive(Debug)]
pub(crate) struct PageMark;

/// Why a subscription stopped reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It has read all there is, and rests.
    AtEnd,
    /// There was no room for more.
    Full,
    /// What follows has to be read from the ledger.
    AtPage,
}

/// What became of the message at a place.
pub(crate) enum Step<'a> {
    /// It is dealt with.
    One,
    /// It is, and what follows up to the end of the run.
    Run(&'a Run),
    /// There is no room for it.
    Full,
}

/// Takes messages, one place after the other.
pub(crate) trait Visit {
    /// Takes what is at `place`, as far as it is for the subscription.
    fn visit<'a>(&mut self, subscription: &Subscription, place: &'a Arc<Place>) -> Step<'a>;

    /// Takes the one message at `place`; whether there was room for it. Apart from
    /// [`visit`](Self::visit), which is to be inlined where deliveries go.
    fn visit_again(&mut self, place: &Arc<Place>) -> bool;
}

impl Subscription {
    /// As far as a delivery looks at it.
    pub(crate) const HOT_BYTES: usize = mem::offset_of!(Subscription, channel);

    /// A subscription that goes on at `from` once it is rung for.
    pub(crate) fn new(channel: Arc<Channel>, set: Arc<IdleSet>, slot: u32, from: &Place) -> Subscription {
        Subscription {
            channel,
            set,
            slot,
            here: Here::Here,
            next: from.offset(),
            cursor: None,
            queued: false,
            page: None,
            has_page: false,
            again: None,
            senders: FewMap::default(),
        }
    }

    /// Hands out what there is.
    pub(crate) fn read(&mut self, visit: &mut impl Visit) -> Stop {
        let Some(start) = self.cursor.take() else { return Stop::AtEnd };
        // What `start` holds keeps all places after it: no counting on the way.
        let mut place = &start;
        if self.again.is_some() {
            match self.read_again(place, visit) {
                Some(first_unread) => place = first_unread,
                None => return Stop::Full,
            }
        }
        loop {
            if place.is_empty() {
                self.next = place.offset();
                if place.is_detached() {
                    return Stop::AtPage;
                }
                if self.set.rest(self.slot, || place.is_empty()) {
                    return Stop::AtEnd;
                }
                continue;
            }
            match visit.visit(self, place) {
                Step::Run(run) => place = &run.end,
                Step::One => place = place.next().unwrap_or(place),
                Step::Full => {
                    self.stop_at(place);
                    return Stop::Full;
                }
            }
        }
    }

    /// Waits for the page from `next` on.
    pub(crate) fn await_page(&mut self) {
        self.page = Some(Arc::new(PageMark));
    }

    /// What tells the page that it waits for from others.
    pub(crate) fn awaited_page(&self) -> Option<&Arc<PageMark>> {
        self.page.as_ref()
    }

    /// Whether this page is the one that it waits for, which it does no longer.
    pub(crate) fn take_page(&mut self, mark: &Arc<PageMark>) -> bool {
        self.page.take_if(|page| Arc::ptr_eq(page, mark)).is_some()
    }

    /// Where it reads on; `end` is the end of the log.
    fn place(&self, end: &Arc<Place>) -> Arc<Place> {
        match &self.cursor {
            Some(cursor) => cursor.clone(),
            None if self.page.is_some() => Place::detached(self.next),
            None => end.clone(),
        }
    }

    /// Hands out what some senders missed, and returns the first place that was
    /// not read yet; `None` when there was no room for all.
    #[cold]
    #[inline(never)]
    fn read_again<'a>(&mut self, start: &'a Arc<Place>, visit: &mut impl Visit) -> Option<&'a Arc<Place>> {
        let mut again = self.again.take()?;
        let mut place = start;
        while place.offset() < again.until
            && let (Some(message), Some(next)) = (place.message(), place.next())
        {
            let is_first = again.first.as_ref().is_some_and(|first| first.offset == message.offset);
            if (is_first || again.owes(message, &self.senders)) && !visit.visit_again(place) {
                self.stop_at(place);
                self.again = Some(again);
                return None;
            }
            again.first.take_if(|_| is_first);
            place = next;
        }
        if place.offset() < again.until && place.is_detached() {
            // It goes on with the next page.
            self.again = Some(again);
        }
        Some(place)
    }

    fn stop_at(&mut self, place: &Arc<Place>) {
        self.page = None;
        self.next = place.offset();
        self.cursor = Some(place.clone());
    }

    /// Whether the message is for one of the senders that this delivers to.
    pub(crate) fn hears(&self, message: &Message) -> bool {
        match message.audience() {
            Audience::Channel => true,
            Audience::Senders(ids) => self.senders.any_of(ids, |&from| from <= message.offset),
        }
    }

    /// The bytes that were published from this place on.
    pub(crate) fn bytes_from(&self, place: &Place) -> u64 {
        self.channel.bytes().saturating_sub(place.bytes_before())
    }

    /// Whether it delivers to any sender.
    pub(crate) fn has_senders(&self) -> bool {
        !self.senders.is_empty()
    }

    /// Whether it delivers to this one.
    pub(crate) fn has_sender(&self, sender: SenderId) -> bool {
        self.senders.get(sender).is_some()
    }

    pub(crate) fn senders(&self) -> Vec<SenderId> {
        self.senders.keys()
    }

    /// Delivers to one more sender, from `from` on. What is for everyone comes
    /// once, from where the cursor is; what is for this sender alone and was read
    /// already is read again. Returns whether the cursor was put back for that.
    ///
    /// `end` is the end of the log. To be called under the channel's lock, with
    /// all rings answered.
    pub(crate) fn add(&mut self, sender: SenderId, from: &Arc<Place>, end: &Arc<Place>) -> bool {
        // What is ahead of the log is for who comes first, and there it is read once.
        let (cursor, from) = (self.place(end), from.in_log());
        self.senders.insert(sender, from.offset());
        let reads_at = cursor.in_log();
        let until = self.again.as_ref().map_or(0, |again| again.until).max(reads_at.offset());
        if from.offset() >= until {
            return false;
        }
        let mut again = self.again.take().unwrap_or_default();
        again.until = until;
        let is_before = from.offset() < reads_at.offset();
        if is_before {
            // The others are not to get again what lies between.
            again.late.for_each_value(|unread| *unread = reads_at.offset().max(*unread));
            if again.first.is_none() && !Arc::ptr_eq(&cursor, reads_at) {
                again.first = cursor.message().map(Message::detached_copy);
            }
            self.set.remove(self.slot);
            self.stop_at(&again.behind_first(from));
        }
        again.late.insert(sender, from.offset());
        self.again = Some(again);
        is_before
    }

    /// Delivers to this sender no longer. Returns what it was not handed, and where
    /// the others read on, if that is elsewhere now. `end` is the end of the log, and
    /// `place_at` where it is read from an offset on.
    pub(crate) fn remove(
        &mut self,
        sender: SenderId,
        end: &Arc<Place>,
        place_at: impl Fn(u64) -> Arc<Place>,
    ) -> (Arc<Place>, Option<Arc<Place>>) {
        let heard_from = self.senders.remove(sender).unwrap_or_default();
        let cursor = self.place(end);
        // A page may end before the offset.
        let seek = |offset| match Place::seek(&cursor, offset) {
            place if place.is_detached() && place.offset() < offset => place_at(offset),
            place => place.clone(),
        };
        let Some(again) = &mut self.again else {
            // With what is ahead of the log, if that was not read.
            let unread = if cursor.in_log().offset() < heard_from { seek(heard_from) } else { cursor };
            return (unread, None);
        };
        let unread = match again.late.remove(sender) {
            Some(unread) => seek(unread),
            None => again.behind_first(&seek(heard_from.max(again.until))),
        };
        if !again.late.is_empty() {
            return (unread, None);
        }
        let first_unread = again.behind_first(&seek(again.until));
        self.again = None;
        self.stop_at(&first_unread);
        (unread, Some(first_unread))
    }
}

impl Again {
    /// Where to read on, if not from this place on: ahead of it with what is to be
    /// handed out first, unless that comes from there on.
    fn behind_first(&self, place: &Arc<Place>) -> Arc<Place> {
        match &self.first {
            Some(first) if first.offset < place.offset() => Place::ahead_of(place, first.detached_copy()),
            _ => place.clone(),
        }
    }

    /// Whether a message that was read before is for a sender that came later, and
    /// was handed to none that was here. Who has left since is not known any more:
    /// a message to several may then come here twice, for one of them each time.
    fn owes(&self, message: &Message, senders: &FewMap<SenderId, u64>) -> bool {
        let Audience::Senders(ids) = message.audience() else { return false };
        let offset = message.offset;
        let was_handed = |id: &SenderId| {
            senders.get(*id).is_some_and(|&from| from <= offset)
                && self.late.get(*id).is_none_or(|&unread| offset < unread)
        };
        self.late.any_of(ids, |&unread| unread <= offset) && !ids.iter().any(was_handed)
    }
}
