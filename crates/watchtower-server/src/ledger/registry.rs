//! What senders, joins and callback subscriptions come to, on its way to the
//! disk.
//!
//! Of several notes about the same thing only the last is written, and whatever
//! is noted while the disk is at work is written together. What the disk refuses
//! is tried again. Knows no channel's messages.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use watchtower_hub::{Appended, KeptJoin, NotKept, Note};
use watchtower_store::{Change, DiskStore, Key, Record, Refused, Store};

use super::not_kept;

/// How much is written at once.
const GROUP_MAX: usize = 10_000;

/// How many things may wait to be written; what is noted beyond that is lost at a
/// restart, which the log says.
const WAITING_MAX: usize = 1 << 20;

/// The notes. Clones are the same.
#[derive(Clone)]
pub(super) struct Registry(Arc<Shared>);

struct Shared {
    store: Arc<DiskStore>,
    state: Mutex<State>,
}

/// Invariant: `order` holds the keys of `waiting`, each once.
#[derive(Default)]
struct State {
    waiting: HashMap<Key, Option<Record>>,
    order: VecDeque<Key>,
    /// What the disk is at work on; empty when it is not.
    in_flight: HashMap<Key, Option<Record>>,
    /// How many things were kept so far.
    kept: u64,
    /// Who waits until so many are, in that order.
    waiters: VecDeque<(u64, Appended)>,
    /// How many notes were lost since everything was kept.
    lost: u64,
    is_closed: bool,
}

impl Registry {
    pub(super) fn new(store: Arc<DiskStore>) -> Registry {
        Registry(Arc::new(Shared { store, state: Mutex::default() }))
    }

    /// Notes what has become of a sender. Waits for nothing.
    pub(super) fn note(&self, note: Note) {
        match note {
            Note::Registered { sender: id, last_active } => self.put(Record::Sender { id, last_active }),
            Note::Forgotten(sender) => self.change(Key::Sender(sender), None),
            Note::Joined(sender, KeptJoin { channel, since, standing }) => {
                self.put(Record::Join { sender, channel, since, standing });
            }
            Note::Left(sender, channel) => self.change(Key::Join(sender, channel), None),
        }
    }

    pub(super) fn put(&self, record: Record) {
        self.change(record.key(), Some(record));
    }

    pub(super) fn change(&self, key: Key, record: Option<Record>) {
        let mut state = self.0.state.lock();
        if let Some(waiting) = state.waiting.get_mut(&key) {
            *waiting = record;
            return;
        }
        let is_known = match state.in_flight.get(&key) {
            Some(in_flight) => *in_flight == record,
            None => self.0.store.record(&key) == record,
        };
        if is_known {
            return;
        }
        if state.order.len() >= WAITING_MAX {
            if state.lost == 0 {
                tracing::error!("more waits to be kept than may: what is not kept is gone after a restart");
            }
            state.lost += 1;
            return;
        }
        state.order.push_back(key.clone());
        state.waiting.insert(key, record);
        // If the disk is behind, it is tried again.
        let _ = self.0.submit(&mut state);
    }

    /// Tells `done`, from within this call or later, when all that was noted
    /// until now is kept, or that the disk refused it.
    pub(super) fn when_kept(&self, done: Appended) {
        let mut state = self.0.state.lock();
        if state.is_closed {
            drop(state);
            return done(Err(NotKept::Closed));
        }
        let after = state.kept + (state.in_flight.len() + state.order.len()) as u64;
        if after > state.kept {
            return state.waiters.push_back((after, done));
        }
        drop(state);
        done(Ok(()));
    }

    /// Tries again what the disk refused. To be called about once a second.
    pub(super) fn retry(&self) {
        let mut state = self.0.state.lock();
        if let Err(reason) = self.0.submit(&mut state) {
            let waiters = std::mem::take(&mut state.waiters);
            drop(state);
            tell(waiters, &Err(reason));
        }
    }

    /// Has everything written that was noted. Waits for the disk.
    pub(super) fn close(&self) {
        self.0.state.lock().is_closed = true;
        loop {
            let changes = self.0.state.lock().take_group();
            if changes.is_empty() {
                break;
            }
            if let Err(refused) = self.0.store.commit(changes).wait() {
                tracing::error!(%refused, "what came last of senders and joins is not kept");
                break;
            }
        }
        let waiters = std::mem::take(&mut self.0.state.lock().waiters);
        tell(waiters, &Err(NotKept::Closed));
    }
}

impl Shared {
    /// Gives the disk what waits, unless it is at work.
    fn submit(self: &Arc<Self>, state: &mut State) -> Result<(), NotKept> {
        if !state.in_flight.is_empty() || state.is_closed {
            return Ok(());
        }
        let changes = state.take_group();
        if changes.is_empty() {
            return Ok(());
        }
        let this = self.clone();
        let done = Box::new(move |result| this.answered(result));
        self.store.offer(changes, done).map_err(|(refused, _)| {
            state.put_back();
            not_kept(&refused)
        })
    }

    /// The disk has done its work, or refuses it.
    fn answered(self: &Arc<Self>, result: Result<(), Refused>) {
        let mut state = self.state.lock();
        let waiters = match &result {
            Ok(()) => state.kept(),
            Err(_) => {
                state.put_back();
                std::mem::take(&mut state.waiters)
            }
        };
        if result.is_ok() {
            // If the disk is behind, it is tried again.
            let _ = self.submit(&mut state);
        }
        drop(state);
        tell(waiters, &result.map_err(|refused| not_kept(&refused)));
    }
}

impl State {
    /// Takes what has waited longest, to be written together.
    fn take_group(&mut self) -> Vec<Change> {
        let keys = self.order.drain(..self.order.len().min(GROUP_MAX));
        let taken = keys.filter_map(|key| self.waiting.remove_entry(&key));
        self.in_flight = taken.collect();
        let change = |(key, record): (&Key, &Option<Record>)| match record {
            Some(record) => Change::Put(record.clone()),
            None => Change::Delete(key.clone()),
        };
        self.in_flight.iter().map(change).collect()
    }

    /// What was in flight waits again, unless something newer does.
    fn put_back(&mut self) {
        for (key, record) in self.in_flight.drain() {
            self.waiting.entry(key).or_insert_with_key(|key| {
                self.order.push_front(key.clone());
                record
            });
        }
    }

    /// What was in flight is kept; who has waited for that.
    fn kept(&mut self) -> VecDeque<(u64, Appended)> {
        self.kept += self.in_flight.len() as u64;
        self.in_flight.clear();
        if self.order.is_empty() {
            self.lost = 0;
        }
        let later = self.waiters.partition_point(|(after, _)| *after <= self.kept);
        let still_waiting = self.waiters.split_off(later);
        std::mem::replace(&mut self.waiters, still_waiting)
    }
}

fn tell(waiters: VecDeque<(u64, Appended)>, result: &Result<(), NotKept>) {
    for (_, done) in waiters {
        done(result.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use tempfile::TempDir;
    use watchtower_hub::{ChannelName, SenderId, Timestamp};
    use watchtower_store::{DiskOptions, Kind};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn open(folder: &TempDir) -> Arc<DiskStore> {
        Arc::new(DiskStore::open(DiskOptions::new(folder.path())).expect("a store"))
    }

    fn sender(number: u32) -> SenderId {
        SenderId::new(number).expect("not 0")
    }

    fn registered(number: u32, millis: u64) -> Note {
        Note::Registered { sender: sender(number), last_active: Timestamp::from_millis(millis) }
    }

    fn join(standing: bool) -> KeptJoin {
        KeptJoin { channel: ChannelName::from(5), since: Timestamp::from_millis(1), standing }
    }

    /// What is told when all that was noted until now is kept, or not.
    fn kept(registry: &Registry) -> mpsc::Receiver<Result<(), NotKept>> {
        let (done, kept) = mpsc::channel();
        registry.when_kept(Box::new(move |result| done.send(result).expect("the test waits")));
        kept
    }

    #[test]
    fn what_was_noted_last_is_kept_before_it_is_said_to_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        let registry = Registry::new(store.clone());
        for round in 0..1000 {
            registry.note(registered(7, round));
            registry.note(Note::Joined(sender(7), join(round % 2 == 0)));
            registry.note(Note::Joined(sender(8), join(true)));
            registry.note(Note::Left(sender(8), ChannelName::from(5)));
        }
        assert_eq!(kept(&registry).recv_timeout(PATIENCE), Ok(Ok(())));
        let last_active = Timestamp::from_millis(999);
        assert_eq!(store.records(Kind::Sender, None, 9), [Record::Sender { id: sender(7), last_active }]);
        let KeptJoin { channel, since, standing } = join(false);
        let joins = store.records(Kind::Join, None, 9);
        assert_eq!(joins, [Record::Join { sender: sender(7), channel, since, standing }]);
        assert_eq!(kept(&registry).try_recv(), Ok(Ok(())), "at once");
    }

    #[test]
    fn what_is_noted_when_the_server_ends_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        let registry = Registry::new(store.clone());
        (1..=GROUP_MAX as u32 * 2).for_each(|number| registry.note(registered(number, 1)));
        registry.close();
        assert_eq!(store.records(Kind::Sender, None, usize::MAX).len(), GROUP_MAX * 2);
        registry.note(registered(1, 2));
        assert_eq!(kept(&registry).try_recv(), Ok(Err(NotKept::Closed)));
    }

    #[test]
    fn what_the_disk_refuses_waits_and_is_told_not_to_be_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        let registry = Registry::new(store.clone());
        store.close();
        registry.note(registered(7, 1));
        let waits = kept(&registry);
        assert_eq!(waits.try_recv(), Err(mpsc::TryRecvError::Empty));
        registry.retry();
        assert_eq!(waits.try_recv(), Ok(Err(NotKept::Closed)));
        let state = registry.0.state.lock();
        assert!(state.waiting.contains_key(&Key::Sender(sender(7))) && state.in_flight.is_empty());
    }
}
