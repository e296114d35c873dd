//! A session's cursors: what a delivery walks along.
//!
//! Knows no driver and no limit: publishers ring, the session reads, and
//! whoever falls behind is moved on by the channel.

use std::collections::VecDeque;
use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Wake, Waker};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::SenderId;
use crate::bell::{Bell, Rung};
use crate::channel::Channel;
use crate::counters::ProtocolCounters;
use crate::few::FewMap;
use crate::log::Place;
use crate::ready::Ready;
use crate::senders::Sender;
use crate::subscription::Subscription;

/// How many subscriptions of a session have a page from the ledger at a time: being
/// read, or not handed out yet. The others wait.
pub(crate) const PAGES_MAX: usize = 4;

/// How many subscriptions are searched one by one, before an index is made.
const UNINDEXED_MAX: usize = 8;

/// What publishers and the session itself share. Laid out so that what each
/// delivery looks at comes first and together.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Link {
    pub(crate) bell: Bell<Ring>,
    /// Held while frames are gathered, never over a write.
    pub(crate) reader: Mutex<Reader>,
    pub(crate) protocol: Arc<ProtocolCounters>,
    /// How many bytes may be published in its channels, before it is weighed how
    /// many of them it has not read.
    allowance: AtomicU64,
    /// Whether its client says where it was when it comes back.
    is_resumed_by_position: AtomicBool,
}

/// For what is not published: see [`Session::poker`](crate::Session::poker).
impl Wake for Link {
    fn wake(self: Arc<Self>) {
        self.bell.poke();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.bell.poke();
    }
}

/// A subscription that rested has something to read, from `start` on.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) key: u32,
    pub(crate) start: Arc<Place>,
}

/// A session's cursors, what a delivery looks at first and together.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Reader {
    pub(crate) lagging: bool,
    pub(crate) closed: bool,
    pub(crate) closes_when_lagging: bool,
    /// Whether some subscription waits for a page, and has not asked for it.
    pub(crate) awaits_pages: bool,
    /// The subscriptions that have something to read, in turn; and keys of some
    /// that ended, or of those that have these keys now.
    pub(crate) ready: Ready,
    subscriptions: SmallVec<[Option<Subscription>; 1]>,
    /// What is read from the ledger; `None` until something was.
    pages: Option<Box<Pages>>,
    /// How many subscriptions ended with their keys in `ready`, since that was
    /// last tidied.
    ended_ready: usize,
    free: Vec<u32>,
    /// Channel addresses to keys, once the subscriptions are many.
    index: Option<Box<FxHashMap<usize, u32>>>,
    /// The senders that this session owns.
    pub(crate) owned: FewMap<SenderId, Arc<Sender>>,
}

/// The pages from the ledger of a session's subscriptions.
#[derive(Debug, Default)]
struct Pages {
    /// How many subscriptions have one. Invariant: at most [`PAGES_MAX`].
    count: usize,
    /// Those that wait for one, in turn; and keys of some that ended, or of those
    /// that have these keys now.
    waiting: VecDeque<u32>,
    /// Whether the hub is to poke the session, since the ledger refused.
    is_refused: bool,
}

/// How far a session is behind in all its channels.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    pub(crate) bytes: u64,
    /// Whether it has had a turn since it was woken, and did not end it.
    pub(crate) begun: bool,
}

impl Link {
    pub(crate) fn new(protocol: Arc<ProtocolCounters>, closes_when_lagging: bool) -> Link {
        let reader = Mutex::new(Reader { closes_when_lagging, ..Reader::default() });
        Link {
            bell: Bell::new(),
            reader,
            protocol,
            allowance: AtomicU64::new(0),
            is_resumed_by_position: AtomicBool::new(false),
        }
    }

    /// To be called before the session has subscriptions.
    pub(crate) fn resume_by_position(&self) {
        debug_assert_eq!(self.reader.lock().len(), 0);
        self.is_resumed_by_position.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_resumed_by_position(&self) -> bool {
        self.is_resumed_by_position.load(Ordering::Relaxed)
    }

    /// Loads what a drain looks at first into the processor's caches.
    pub(crate) fn warm(&self) {
        self.bell.warm();
        hint::black_box(self.reader.is_locked());
    }

    /// Takes note of bytes that the session may not have read; whether they are
    /// more than it was [allowed](Self::allow).
    pub(crate) fn charge(&self, bytes: u64) -> bool {
        let allowed = self.allowance.load(Ordering::Relaxed);
        // Who is charged by two at once is charged less: it is for later then.
        self.allowance.store(allowed.saturating_sub(bytes), Ordering::Relaxed);
        allowed < bytes
    }

    pub(crate) fn allow(&self, bytes: u64) {
        self.allowance.store(bytes, Ordering::Relaxed);
    }
}

impl Reader {
    /// Takes note of all that the session was rung for.
    /// With a waker, tells whether the session was poked.
    pub(crate) fn hear(&mut self, bell: &Bell<Ring>, waker: Option<&Waker>) -> bool {
        let mut rung = Rung::new();
        let poked = bell.answer(waker, &mut rung);
        for ring in rung {
            self.answer(ring);
        }
        poked
    }

    fn answer(&mut self, ring: Ring) {
        let Some(subscription) = self.get(ring.key) else { return };
        // A ring can come after what it was for has been read already.
        if subscription.cursor.is_none() {
            let behind = ring.start.offset() < subscription.next;
            let place = if behind { Place::seek(&ring.start, subscription.next).clone() } else { ring.start };
            subscription.cursor = Some(place);
        }
        if !std::mem::replace(&mut subscription.queued, true) {
            self.ready.push(ring.key);
        }
    }

    /// What was published and not handed out, in all channels.
    pub(crate) fn unread_bytes(&self, bell: &Bell<Ring>) -> Unread {
        let mut unread = Unread::default();
        for subscription in self.subscriptions.iter().flatten() {
            if let Some(cursor) = &subscription.cursor {
                unread.begun = true;
                unread.bytes += subscription.bytes_from(cursor);
            }
        }
        bell.peek(|ring| {
            let rung = self.subscriptions.get(ring.key as usize).and_then(Option::as_ref);
            if let Some(subscription) = rung.filter(|subscription| subscription.cursor.is_none()) {
                unread.bytes += subscription.bytes_from(&ring.start);
            }
        });
        unread
    }

    /// Moves the cursors on until at most `bytes` are unread, as many for each,
    /// and returns how many messages were skipped.
    pub(crate) fn skip_to(&mut self, bytes: u64, bell: &Bell<Ring>) -> u64 {
        self.hear(bell, None);
        let behind = || self.subscriptions.iter().flatten().filter(|s| s.cursor.is_some()).count();
        let share = bytes / (behind() as u64).max(1);
        let mut skipped = 0;
        for subscription in self.subscriptions.iter_mut().flatten() {
            let Some(cursor) = &subscription.cursor else { continue };
            let place = Place::seek_bytes(cursor, subscription.channel.bytes().saturating_sub(share)).clone();
            skipped += place.offset() - cursor.offset();
            subscription.next = place.offset();
            subscription.cursor = Some(place);
        }
        skipped
    }

    pub(crate) fn get(&mut self, key: u32) -> Option<&mut Subscription> {
        self.subscriptions.get_mut(key as usize)?.as_mut()
    }

    /// The key of the subscription to this channel.
    pub(crate) fn find(&self, channel: &Arc<Channel>) -> Option<u32> {
        match &self.index {
            Some(index) => index.get(&address(channel)).copied(),
            None => {
                let is_here =
                    |s: &Option<Subscription>| s.as_ref().is_some_and(|s| Arc::ptr_eq(&s.channel, channel));
                u32::try_from(self.subscriptions.iter().position(is_here)?).ok()
            }
        }
    }

    pub(crate) fn insert(&mut self, subscription: Subscription) -> u32 {
        let channel = address(&subscription.channel);
        let key = match self.free.pop() {
            Some(key) => {
                self.subscriptions[key as usize] = Some(subscription);
                key
            }
            None => {
                self.subscriptions.push(Some(subscription));
                self.subscriptions.len() as u32 - 1
            }
        };
        if self.index.is_none() && self.subscriptions.len() > UNINDEXED_MAX {
            let entry =
                |(key, s): (usize, &Option<Subscription>)| Some((address(&s.as_ref()?.channel), key as u32));
            self.index = Some(Box::new(self.subscriptions.iter().enumerate().filter_map(entry).collect()));
        } else if let Some(index) = &mut self.index {
            index.insert(channel, key);
        }
        key
    }

    pub(crate) fn remove(&mut self, key: u32) {
        let Some(subscription) = self.subscriptions.get_mut(key as usize).and_then(Option::take) else {
            return;
        };
        self.free.push(key);
        if subscription.has_page {
            self.has_one_page_less();
        }
        if subscription.queued {
            // To look for each when many end would be a search for each.
            self.ended_ready += 1;
            if self.ended_ready > self.ready.len() / 2 {
                self.tidy_ready();
            }
        }
        if let Some(index) = &mut self.index {
            index.remove(&address(&subscription.channel));
        }
    }

    /// Notes that a subscription has come to the end of its page, and waits for the
    /// next, behind the others.
    #[cold]
    pub(crate) fn await_page(&mut self, key: u32) {
        self.give_back_page(key);
        if let Some(subscription) = self.get(key) {
            subscription.await_page();
            self.pages.get_or_insert_default().waiting.push_back(key);
            self.awaits_pages = true;
        }
    }

    /// Notes that a subscription has no page any more.
    #[cold]
    pub(crate) fn give_back_page(&mut self, key: u32) {
        if let Some(subscription) = self.get(key)
            && std::mem::take(&mut subscription.has_page)
        {
            self.has_one_page_less();
        }
    }

    fn has_one_page_less(&mut self) {
        if let Some(pages) = &mut self.pages {
            pages.count -= 1;
        }
    }

    /// The next subscription that may ask for its page, which it has then.
    pub(crate) fn next_page(&mut self) -> Option<u32> {
        while let Some(pages) = &mut self.pages
            && pages.count < PAGES_MAX
        {
            let Some(key) = pages.waiting.pop_front() else {
                self.awaits_pages = false;
                break;
            };
            // It may have ended, or been put elsewhere meanwhile.
            if let Some(subscription) = self.get(key)
                && subscription.awaited_page().is_some()
                && !std::mem::replace(&mut subscription.has_page, true)
            {
                self.pages.get_or_insert_default().count += 1;
                return Some(key);
            }
        }
        None
    }

    /// Notes that the ledger refused to read a page, or that the hub says so no
    /// longer; whether that is new.
    pub(crate) fn refused_page(&mut self, is_refused: bool) -> bool {
        std::mem::replace(&mut self.pages.get_or_insert_default().is_refused, is_refused) != is_refused
    }

    /// Takes the keys of those that ended out of `ready`, and doubles.
    fn tidy_ready(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        for key in ready.iter() {
            if let Some(subscription) = self.get(key) {
                subscription.queued = false;
            }
        }
        let mut is_first = |key| {
            self.get(key).is_some_and(|subscription| !std::mem::replace(&mut subscription.queued, true))
        };
        ready.retain(&mut is_first);
        self.ready = ready;
        self.ended_ready = 0;
    }

    /// How many subscriptions there are.
    pub(crate) fn len(&self) -> usize {
        self.subscriptions.len() - self.free.len()
    }

    /// The channels that this session is subscribed to, and for whom.
    pub(crate) fn channels(&self) -> Vec<(Arc<Channel>, u32, Vec<SenderId>)> {
        let part = |s: &Subscription| (s.channel.clone(), s.slot, s.senders());
        self.subscriptions.iter().flatten().map(part).collect()
    }
}

/// A channel's identity while it is held.
fn address(channel: &Arc<Channel>) -> usize {
    Arc::as_ptr(channel).addr()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::{Content, Entropy, Hub, Publish, Settings, Timestamp, WhenLagging};

    struct Counting(AtomicU64);

    impl Entropy for Counting {
        fn next_u64(&self) -> u64 {
            self.0.fetch_add(1, Ordering::Relaxed)
        }
    }

    #[test]
    fn what_ended_unread_is_not_remembered_for_ever() {
        let now = Timestamp::default();
        let hub = Hub::new(Settings::default(), Box::new(Counting(AtomicU64::new(1))));
        let session = hub.open("test", WhenLagging::Close);
        let id = session.register(now).unwrap();
        for turn in 0..1_000u32 {
            let channel = (turn % 7).into();
            session.unsubscribe(id, &channel, now);
            session.join(id, &channel, now).unwrap();
            hub.publish(&channel, Publish::new(Content::text("x")), now).unwrap();
        }
        assert!(session.link.reader.lock().ready.len() <= 2 * 7 + 1);
    }
}
