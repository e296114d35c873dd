//! A session's cursors: what a delivery walks along.
//!
//! Knows no driver and no limit: publishers ring, the session reads, and
//! whoever falls behind is moved on by the channel.

use std::collections::VecDeque;
use std::hint;
use std::iter;
use std::mem;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Wake, Waker};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::SenderId;
use crate::bell::{Bell, Rung};
use crate::channel::Channel;
use crate::counters::ProtocolCounters;
use crate::few::FewMap;
use crate::log::Place;
use crate::senders::Sender;
use crate::subscription::Subscription;

/// How many subscriptions of a session have a page from the ledger at a time: being
/// read, or not handed out yet. The others wait.
pub(crate) const PAGES_MAX: usize = 4;

/// How many subscriptions are searched one by one, before an index is made.
const UNINDEXED_MAX: usize = 8;

/// What publishers and the session itself share.
///
/// Laid out so that what each delivery looks at is in two cache lines, each with a
/// lock in it, by which it can be [warmed](Self::warm).
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Link {
    pub(crate) bell: Bell<Ring>,
    /// How many bytes may be published in its channels, before it is weighed how
    /// many of them it has not read.
    allowance: AtomicU64,
    /// Held while frames are gathered, never over a write.
    pub(crate) reader: Mutex<Reader>,
    pub(crate) protocol: Arc<ProtocolCounters>,
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

/// Which of a session's subscriptions is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(NonZero<u32>);

/// A subscription that rested has something to read, from `start` on.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) key: Key,
    pub(crate) start: Arc<Place>,
}

/// A session's cursors, what a delivery looks at first and together.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Reader {
    pub(crate) lagging: bool,
    /// Whether some subscription waits for a page, and has not asked for it.
    pub(crate) awaits_pages: bool,
    /// Whether the subscription in front has something to read, before those that
    /// are ready in `others`.
    is_front_ready: bool,
    /// Whether any is ready in `others`.
    is_other_ready: bool,
    /// The key of the subscription in front, if there is one.
    front_key: Key,
    /// `None` while there was never more than one subscription.
    others: Option<Box<Others>>,
    /// The subscription that was made last, unless it ended. Few sessions have
    /// several, and of these most hear more in the channel that they joined last than
    /// in what they joined to begin with.
    front: Option<Subscription>,
    pub(crate) closed: bool,
    pub(crate) closes_when_lagging: bool,
    /// What is read from the ledger; `None` until something was.
    pages: Option<Box<Pages>>,
    /// The senders that this session owns.
    pub(crate) owned: FewMap<SenderId, Arc<Sender>>,
}

/// What a session with several subscriptions has besides.
#[derive(Debug)]
struct Others {
    /// The subscriptions that have something to read, in turn, but for the one in
    /// front where that is ready before them; and keys of some that ended, or of those
    /// that have these keys now.
    ready: VecDeque<Key>,
    /// How many subscriptions ended with their keys in `ready`, since that was
    /// last tidied.
    ended_ready: usize,
    /// The subscriptions by their keys, but for the one in front.
    subscriptions: Vec<Option<Subscription>>,
    /// How many keys there are, those that nobody has any more included.
    keys: usize,
    /// Keys that nobody has any more.
    free: Vec<Key>,
    /// Channel addresses to keys, once the subscriptions are many.
    index: Option<FxHashMap<usize, Key>>,
}

/// The pages from the ledger of a session's subscriptions.
#[derive(Debug, Default)]
struct Pages {
    /// How many subscriptions have one. Invariant: at most [`PAGES_MAX`].
    count: usize,
    /// Those that wait for one, in turn; and keys of some that ended, or of those
    /// that have these keys now.
    waiting: VecDeque<Key>,
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
            allowance: AtomicU64::new(0),
            reader,
            protocol,
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

impl Default for Key {
    fn default() -> Key {
        Key::FIRST
    }
}

impl Key {
    const FIRST: Key = Key(NonZero::<u32>::MIN);

    fn at(index: usize) -> Key {
        Key(NonZero::<u32>::MIN.saturating_add(index as u32))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Reader {
    /// As far as a delivery looks at it.
    const HOT_BYTES: usize = mem::offset_of!(Reader, front) + Subscription::HOT_BYTES;

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
        if !mem::replace(&mut subscription.queued, true) {
            self.push_ready(ring.key);
        }
    }

    /// Puts a subscription at the end of those that have something to read.
    pub(crate) fn push_ready(&mut self, key: Key) {
        if key == self.front_key && !self.is_front_ready && !self.is_other_ready {
            self.is_front_ready = true;
        } else {
            self.others.get_or_insert_default().ready.push_back(key);
            self.is_other_ready = true;
        }
    }

    /// Takes the first of those that have something to read, or had.
    pub(crate) fn pop_ready(&mut self) -> Option<Key> {
        if mem::take(&mut self.is_front_ready) {
            return Some(self.front_key);
        }
        let others = self.others.as_mut().filter(|_| self.is_other_ready)?;
        let key = others.ready.pop_front();
        self.is_other_ready = !others.ready.is_empty();
        key
    }

    /// What was published and not handed out, in all channels.
    pub(crate) fn unread_bytes(&self, bell: &Bell<Ring>) -> Unread {
        let mut unread = Unread::default();
        for (_, subscription) in self.subscriptions() {
            if let Some(cursor) = &subscription.cursor {
                unread.begun = true;
                unread.bytes += subscription.bytes_from(cursor);
            }
        }
        bell.peek(|ring| {
            let rung = self.look(ring.key);
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
        let behind = self.subscriptions().filter(|(_, subscription)| subscription.cursor.is_some()).count();
        let share = bytes / (behind as u64).max(1);
        let mut skipped = 0;
        let others = self.others.iter_mut().flat_map(|others| &mut others.subscriptions);
        for subscription in iter::once(&mut self.front).chain(others).flatten() {
            let Some(cursor) = &subscription.cursor else { continue };
            let place = Place::seek_bytes(cursor, subscription.channel.bytes().saturating_sub(share)).clone();
            skipped += place.offset() - cursor.offset();
            subscription.next = place.offset();
            subscription.cursor = Some(place);
        }
        skipped
    }

    /// All subscriptions, and their keys.
    fn subscriptions(&self) -> impl Iterator<Item = (Key, &Subscription)> {
        let others = self.others.iter().flat_map(|others| &others.subscriptions).enumerate();
        let others = others.filter_map(|(index, other)| Some((Key::at(index), other.as_ref()?)));
        self.front.iter().map(|front| (self.front_key, front)).chain(others)
    }

    fn look(&self, key: Key) -> Option<&Subscription> {
        if key == self.front_key
            && let Some(front) = &self.front
        {
            return Some(front);
        }
        self.others.as_ref()?.subscriptions.get(key.index())?.as_ref()
    }

    pub(crate) fn get(&mut self, key: Key) -> Option<&mut Subscription> {
        self.slot(key)?.as_mut()
    }

    /// Where the subscription with that key is.
    fn slot(&mut self, key: Key) -> Option<&mut Option<Subscription>> {
        if key == self.front_key && self.front.is_some() {
            return Some(&mut self.front);
        }
        self.others.as_mut()?.subscriptions.get_mut(key.index())
    }

    /// The key of the subscription to this channel.
    pub(crate) fn find(&self, channel: &Arc<Channel>) -> Option<Key> {
        if let Some(index) = self.others.as_ref().and_then(|others| others.index.as_ref()) {
            return index.get(&address(channel)).copied();
        }
        self.subscriptions().find(|(_, other)| Arc::ptr_eq(&other.channel, channel)).map(|(key, _)| key)
    }

    pub(crate) fn insert(&mut self, subscription: Subscription) -> Key {
        let channel = address(&subscription.channel);
        if self.front.is_some() || self.others.is_some() {
            self.make_way();
        }
        self.front = Some(subscription);
        let key = self.front_key;
        let Some(others) = &mut self.others else { return key };
        if let Some(index) = &mut others.index {
            index.insert(channel, key);
        } else if others.keys > UNINDEXED_MAX {
            let index = self.subscriptions().map(|(key, other)| (address(&other.channel), key)).collect();
            self.others.get_or_insert_default().index = Some(index);
        }
        key
    }

    /// Puts the subscription in front, if there is one, with the others. Its place is
    /// for the next key.
    fn make_way(&mut self) {
        let others = self.others.get_or_insert_default();
        if let Some(front) = self.front.take() {
            others.put(self.front_key, front);
        }
        if mem::take(&mut self.is_front_ready) {
            others.ready.push_front(self.front_key);
            self.is_other_ready = true;
        }
        self.front_key = others.next_key();
    }

    pub(crate) fn remove(&mut self, key: Key) {
        let Some(subscription) = self.slot(key).and_then(Option::take) else { return };
        if subscription.has_page {
            self.has_one_page_less();
        }
        let was_first = key == self.front_key && mem::take(&mut self.is_front_ready);
        let Some(others) = &mut self.others else { return };
        others.free.push(key);
        if let Some(index) = &mut others.index {
            index.remove(&address(&subscription.channel));
        }
        if subscription.queued && !was_first {
            // To look for each when many end would be a search for each.
            others.ended_ready += 1;
            if others.ended_ready > others.ready.len() / 2 {
                self.tidy_ready();
            }
        }
    }

    /// Notes that a subscription has come to the end of its page, and waits for the
    /// next, behind the others.
    #[cold]
    pub(crate) fn await_page(&mut self, key: Key) {
        self.give_back_page(key);
        if let Some(subscription) = self.get(key) {
            subscription.await_page();
            self.pages.get_or_insert_default().waiting.push_back(key);
            self.awaits_pages = true;
        }
    }

    /// Notes that a subscription has no page any more.
    #[cold]
    pub(crate) fn give_back_page(&mut self, key: Key) {
        if let Some(subscription) = self.get(key)
            && mem::take(&mut subscription.has_page)
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
    pub(crate) fn next_page(&mut self) -> Option<Key> {
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
                && !mem::replace(&mut subscription.has_page, true)
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
        mem::replace(&mut self.pages.get_or_insert_default().is_refused, is_refused) != is_refused
    }

    /// Takes the keys of those that ended out of `ready`, and doubles.
    fn tidy_ready(&mut self) {
        let mut keys: Vec<Key> = iter::from_fn(|| self.pop_ready()).collect();
        for &key in &keys {
            if let Some(subscription) = self.get(key) {
                subscription.queued = false;
            }
        }
        keys.retain(|&key| {
            self.get(key).is_some_and(|subscription| !mem::replace(&mut subscription.queued, true))
        });
        keys.into_iter().for_each(|key| self.push_ready(key));
        self.others.get_or_insert_default().ended_ready = 0;
    }

    /// How many subscriptions there are.
    pub(crate) fn len(&self) -> usize {
        let front = usize::from(self.front.is_some());
        self.others.as_ref().map_or(front, |others| others.keys - others.free.len())
    }

    /// The channels that this session is subscribed to, and for whom.
    pub(crate) fn channels(&self) -> Vec<(Arc<Channel>, u32, Vec<SenderId>)> {
        self.subscriptions().map(|(_, other)| (other.channel.clone(), other.slot, other.senders())).collect()
    }
}

impl Default for Others {
    /// Of a session that has one subscription, with the first key.
    fn default() -> Others {
        let (ready, subscriptions, free) = (VecDeque::new(), Vec::new(), Vec::new());
        Others { ready, ended_ready: 0, subscriptions, keys: 1, free, index: None }
    }
}

impl Others {
    fn next_key(&mut self) -> Key {
        self.free.pop().unwrap_or_else(|| {
            self.keys += 1;
            Key::at(self.keys - 1)
        })
    }

    fn put(&mut self, key: Key, subscription: Subscription) {
        if self.subscriptions.is_empty() {
            // Nearly all that have several have two, one of them in front.
            self.subscriptions.reserve_exact(key.index() + 1);
        }
        if self.subscriptions.len() <= key.index() {
            self.subscriptions.resize_with(key.index() + 1, || None);
        }
        self.subscriptions[key.index()] = Some(subscription);
    }
}

/// What a delivery looks at is where [`Link::warm`] has it loaded.
#[cfg(all(not(loom), target_pointer_width = "64"))]
const _: () = {
    const LINE: usize = align_of::<Link>();
    assert!(mem::offset_of!(Link, reader) == LINE);
    assert!(size_of::<Mutex<Reader>>() - size_of::<Reader>() + Reader::HOT_BYTES <= LINE);
};

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

    /// However they come and go, and whichever is in front.
    #[test]
    fn what_is_ready_comes_in_the_order_in_which_it_became_so() {
        let mut reader = Reader::default();
        let mut expected = VecDeque::new();
        for turn in 0..100 {
            if turn % 7 == 3 {
                reader.make_way();
            }
            let keys = [Key::at(1_000 + turn), reader.front_key, Key::at(2_000 + turn)];
            for key in keys.into_iter().cycle().skip(turn % 3).take(turn % 4) {
                reader.push_ready(key);
                expected.push_back(key);
            }
            assert_eq!(reader.pop_ready(), expected.pop_front());
        }
        while let Some(key) = expected.pop_front() {
            assert_eq!(reader.pop_ready(), Some(key));
        }
        assert_eq!(reader.pop_ready(), None);
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
        let reader = session.link.reader.lock();
        assert!(reader.others.as_ref().map_or(0, |others| others.ready.len()) <= 2 * 7);
    }
}
