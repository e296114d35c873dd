//! What only a store on disk can get wrong: failing disks, damaged files, and
//! merging, held against the store in memory.

mod damage;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use tempfile::TempDir;
use watchtower_hub::{ChannelName, Content, Epoch, Message, Position, SenderId, Timestamp};

use super::*;
use crate::{MemoryStore, Refused, Ticket};

/// What was told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Notice>>>);

impl Told {
    fn options(&self, folder: &Path, segment_bytes: u64) -> DiskOptions {
        let told = self.clone();
        let options = DiskOptions::new(folder).observed(move |notice| {
            // Temporary folders are open to others.
            if !matches!(notice, Notice::Exposed { .. }) {
                told.0.lock().push(notice.clone());
            }
        });
        DiskOptions { segment_bytes, ..options }
    }

    fn all(&self) -> Vec<Notice> {
        self.0.lock().clone()
    }

    /// The messages that were told to be lost, of a channel.
    fn lost(&self, channel: &ChannelName) -> Vec<u64> {
        let mut lost: Vec<u64> = Vec::new();
        for notice in self.all() {
            match notice {
                Notice::Lost { channel: of, offsets, .. } if of == *channel => lost.extend(offsets),
                _ => {}
            }
        }
        lost.sort_unstable();
        lost.dedup();
        lost
    }
}

fn message(channel: &ChannelName, epoch: u64, offset: u64) -> Message {
    let position = Position { epoch: Epoch::from_bits(epoch), offset };
    let content = Content::text(format!("{channel} {offset}"));
    Message::detached(channel.clone(), position, None, content, Timestamp::from_millis(offset))
}

fn append(channel: &ChannelName, offset: u64) -> Vec<Change> {
    vec![Change::Append(message(channel, 1, offset))]
}

fn begin(channel: &ChannelName) -> Vec<Change> {
    vec![Change::Begin { channel: channel.clone(), epoch: Epoch::from_bits(1) }]
}

/// Waits until a store has put its files in order.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "not in a minute: {what}");
        std::thread::yield_now();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect();
    files.sort();
    files
}

/// What a channel holds, and what of it is said to be lost.
fn read_all(store: &dyn Store, channel: &ChannelName) -> (Vec<u64>, Vec<u64>) {
    let page = store.read(channel, 0, ReadLimit::messages(10_000)).unwrap();
    for message in &page.messages {
        let expected = format!("{channel} {}", message.position().offset);
        assert_eq!(message.content().as_text(), Some(&expected[..]));
    }
    let offsets = page.messages.iter().map(|message| message.position().offset);
    (offsets.collect(), page.lost.into_iter().flatten().collect())
}

#[test]
fn a_failed_sync_refuses_its_group_and_everything_until_there_is_a_new_segment() {
    let folder = tempfile::tempdir().unwrap();
    let told = Told::default();
    let medium = Medium::default();
    let faults = medium.faults.clone();
    let store = DiskStore::open_on(medium, told.options(folder.path(), 1 << 20)).unwrap();
    let a = ChannelName::from(1);
    store.commit(begin(&a)).wait().unwrap();
    store.commit(append(&a, 1)).wait().unwrap();
    for fault in [&faults.sync, &faults.write] {
        let next = store.ends(&a).unwrap().next;
        faults.create.store(true, Ordering::SeqCst);
        fault.store(true, Ordering::SeqCst);
        let refused = store.commit(append(&a, next)).wait();
        assert!(matches!(refused, Err(Refused::Storage(_))), "{refused:?}");
        fault.store(false, Ordering::SeqCst);
        let refused = store.commit(append(&a, next)).wait();
        assert!(matches!(refused, Err(Refused::Storage(_))), "{refused:?}");
        assert_eq!(store.ends(&a).unwrap().next, next, "reading goes on, and what was refused is not there");
        faults.create.store(false, Ordering::SeqCst);
        until("it is kept again", || store.commit(append(&a, next)).wait().is_ok());
    }
    let trouble: Vec<_> = told.all().iter().map(|notice| matches!(notice, Notice::Failing { .. })).collect();
    assert_eq!(trouble, [true, false, true, false], "{:?}", told.all());
    drop(store);
    let store = DiskStore::open(told.options(folder.path(), 1 << 20)).unwrap();
    assert_eq!(read_all(&store, &a), (vec![1, 2, 3], vec![]));
    assert_eq!(told.all().len(), 4, "nothing more is told");
}

#[test]
fn what_was_refused_is_not_there_after_a_crash_either() {
    let folder = tempfile::tempdir().unwrap();
    let medium = Medium::default();
    let faults = medium.faults.clone();
    let options = || Told::default().options(folder.path(), 1 << 20);
    let store = DiskStore::open_on(medium, options()).unwrap();
    let a = ChannelName::from(1);
    store.commit(begin(&a)).wait().unwrap();
    store.commit(append(&a, 1)).wait().unwrap();
    faults.create.store(true, Ordering::SeqCst);
    faults.sync.store(true, Ordering::SeqCst);
    assert!(store.commit(append(&a, 2)).wait().is_err());
    // A copy is what a crash would leave.
    let crashed = copy_of(folder.path());
    let store = DiskStore::open(Told::default().options(crashed.path(), 1 << 20)).unwrap();
    assert_eq!(read_all(&store, &a), (vec![1], vec![]));
}

fn copy_of(folder: &Path) -> TempDir {
    try_copy(folder).unwrap()
}

fn try_copy(folder: &Path) -> std::io::Result<TempDir> {
    let copy = tempfile::tempdir()?;
    for file in files(folder) {
        let to = copy.path().join(file.strip_prefix(folder).unwrap());
        fs::create_dir_all(to.parent().unwrap())?;
        fs::copy(file, to)?;
    }
    Ok(copy)
}

#[test]
fn more_than_may_wait_is_refused_and_what_waits_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let options = DiskOptions { queue_bytes_max: 4096, ..DiskOptions::new(folder.path()) };
    let store = DiskStore::open(options).unwrap();
    let a = ChannelName::from(1);
    store.commit(begin(&a)).wait().unwrap();
    let tickets: Vec<_> = (1..=100).map(|offset| store.commit(append(&a, offset))).collect();
    let results: Vec<_> = tickets.into_iter().map(Ticket::wait).collect();
    let kept = results.iter().filter(|result| result.is_ok()).count() as u64;
    assert!(results.iter().any(|result| matches!(result, Err(Refused::Behind { limit: 4096 }))));
    assert_eq!(store.ends(&a).unwrap().next, kept + 1);
    let name = "x".repeat(5000).into_boxed_str();
    let large = Change::Put(Record::Value { name, bytes: Bytes::new() });
    assert!(matches!(store.commit(vec![large]).wait(), Err(Refused::TooLarge { .. })));
}

/// A store of several channels in several segments, and one that was not
/// finished, as a crash leaves it. In the first channel each message is in
/// another segment.
fn sample() -> (TempDir, Vec<ChannelName>) {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::open(Told::default().options(folder.path(), 4096)).unwrap();
    let channels: Vec<_> = (1..=8).map(ChannelName::from).collect();
    for channel in &channels {
        store.commit(begin(channel)).wait().unwrap();
    }
    let value = Record::Value { name: "secret".into(), bytes: Bytes::from_static(b"s") };
    store.commit(vec![Change::Put(value)]).wait().unwrap();
    for offset in 1..=40 {
        let round = channels.iter().flat_map(|channel| append(channel, offset));
        store.commit(round.collect()).wait().unwrap();
    }
    until("all is in order", || {
        let view = store.shared.view.read();
        view.sealed.iter().all(|segment| matches!(segment.places(), segment::Places::Disk(_)))
    });
    (crash(folder.path()), channels)
}

#[test]
fn a_newer_store_is_refused_and_left_as_it_is() {
    let (whole, _) = sample();
    let log = whole.path().join("log");
    fs::write(log.join("1.log.tmp"), "what was being written").unwrap();
    for last in [1001, 1002] {
        let merged = folder::Numbers { first: 1001, last };
        fs::write(log.join(merged.log_name()), "and what was part of another").unwrap();
    }
    let text = "watchtower store\nversion 2\nid whatever\n";
    let text = format!("{text}check {:08x}\n", crc32fast::hash(text.as_bytes()));
    fs::write(whole.path().join("store"), &text).unwrap();
    let before: Vec<_> = files(whole.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    let refused = DiskStore::open(DiskOptions::new(whole.path())).err().unwrap();
    assert!(matches!(refused, OpenError::Newer { found: 2, known: 1, .. }), "{refused}");
    let after: Vec<_> = files(whole.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(before, after);
}

#[test]
fn where_there_is_no_store_none_is_made_unless_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let opened = DiskStore::open(DiskOptions { create: false, ..DiskOptions::new(&path) });
    assert!(matches!(opened, Err(OpenError::Missing { .. })));
    assert!(matches!(check(&path, Arc::new(|_: &Notice| {}), &mut |_| {}), Err(OpenError::Missing { .. })));
    assert!(!path.exists());
    drop(DiskStore::open(DiskOptions::new(&path)).unwrap());
    assert!(DiskStore::open(DiskOptions { create: false, ..DiskOptions::new(&path) }).is_ok());
}

#[test]
fn checking_tells_of_each_file_what_is_in_it_and_whether_it_is_damaged() {
    let (folder, _) = sample();
    let checked = || {
        let mut reports = Vec::new();
        let observer = Arc::new(|_: &Notice| {});
        let report = check(folder.path(), observer, &mut |file| reports.push(file.clone())).unwrap();
        (report, reports)
    };
    let (report, files) = checked();
    assert_eq!((report.damaged, report.segments), (0, files.len()));
    assert_eq!(files.iter().map(|file| file.messages).sum::<u64>(), report.messages);
    assert!(files.iter().map(|file| file.to_do).eq((1..=files.len()).rev()));
    assert!(files.iter().all(|file| !file.is_damaged && file.bytes > 0));
    let (path, length) = (&files[1].file, files[1].bytes);
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length - 1).unwrap();
    let mut identity = fs::read(folder.path().join("store")).unwrap();
    identity[30] ^= 1;
    fs::write(folder.path().join("store"), identity).unwrap();
    let (report, files) = checked();
    assert_eq!(report.damaged, 2, "a segment, and the file that says whose they are");
    let damaged: Vec<bool> = files.iter().map(|file| file.is_damaged).collect();
    assert!(damaged.iter().enumerate().all(|(index, is_damaged)| *is_damaged == (index == 1)), "{damaged:?}");
}

#[test]
fn a_store_that_is_open_is_refused_and_files_are_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let store = DiskStore::open(DiskOptions::new(&path)).unwrap();
    let second = DiskStore::open(DiskOptions::new(&path)).err().unwrap();
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    let checked = check(&path, Arc::new(|_: &Notice| {}), &mut |_| {});
    assert!(matches!(checked, Err(OpenError::InUse { .. })));
    for file in files(&path) {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    drop(store);
    let opened = || {
        let told = Told::default();
        let all = told.clone();
        let options = DiskOptions::new(&path).observed(move |notice| all.0.lock().push(notice.clone()));
        drop(DiskStore::open(options).unwrap());
        told.all()
    };
    assert_eq!(opened(), []);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    assert_eq!(opened(), [Notice::Exposed { folder: path.clone(), mode: 0o750 }]);
}

#[test]
fn merging_takes_no_more_memory_for_more_channels() {
    let peak = |count: u32| {
        let folder = tempfile::tempdir().unwrap();
        let options = || Told::default().options(folder.path(), 64 << 20);
        let store = DiskStore::open(options()).unwrap();
        let channels: Vec<_> = (0..count).map(ChannelName::from).collect();
        for some in channels.chunks(1000) {
            let changes =
                some.iter().flat_map(|channel| begin(channel).into_iter().chain(append(channel, 1)));
            store.commit(changes.collect()).wait().unwrap();
        }
        drop(store);
        let (shared, _) = open_files(&Medium::default(), options()).unwrap();
        let sealed = shared.view.read().sealed.clone();
        assert!(matches!(sealed[0].places(), segment::Places::Disk(_)), "it has its index");
        let merging = allocation_counter::measure(|| drop(merge::merge(&shared, &sealed, true).unwrap()));
        merging.bytes_max
    };
    let few = peak(10_000);
    let many = peak(30_000);
    // A number for each run, in a list that has grown.
    assert!(many < few + 32 * 20_000, "{few} bytes for 10,000 channels, {many} for 30,000");
}

#[test]
fn what_is_dropped_gives_its_room_back() {
    let folder = tempfile::tempdir().unwrap();
    let told = Told::default();
    let store = DiskStore::open(told.options(folder.path(), 16 << 10)).unwrap();
    let (kept, dropped) = (ChannelName::from(1), ChannelName::from(2));
    store.commit([begin(&kept), begin(&dropped)].into_iter().flatten().collect()).wait().unwrap();
    for offset in 1..=2000 {
        let mut changes = append(&dropped, offset);
        if offset % 100 == 0 {
            changes.extend(append(&kept, offset / 100));
        }
        store.commit(changes);
    }
    let (ticket, done) = Ticket::new();
    store.commit(vec![]).wait().unwrap();
    store.trim(&dropped, Epoch::from_bits(1), 1991, done).unwrap();
    ticket.wait().unwrap();
    let size = || {
        files(folder.path()).iter().filter_map(|file| fs::metadata(file).ok()).map(|m| m.len()).sum::<u64>()
    };
    until("there is room", || size() < 48 << 10);
    assert_eq!(read_all(&store, &kept).0, (1..=20).collect::<Vec<_>>());
    assert_eq!(read_all(&store, &dropped).0, (1991..=2000).collect::<Vec<_>>());
    assert_eq!(told.all(), []);
}

/// What may be done to a store, on three channels.
#[derive(Debug, Clone)]
enum Act {
    Begin(u32),
    Append(u32, usize),
    Forget(u32),
    Trim(u32, u64),
    Put(u32, u64),
    Delete(u32),
    Reopen,
    /// As [`Act::Reopen`], without closing.
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    let channel = 1u32..4;
    prop_oneof![
        2 => channel.clone().prop_map(Act::Begin),
        20 => (channel.clone(), 0usize..2000).prop_map(|(channel, bytes)| Act::Append(channel, bytes)),
        1 => channel.clone().prop_map(Act::Forget),
        4 => (channel, 0u64..40).prop_map(|(channel, first)| Act::Trim(channel, first)),
        3 => (1u32..5, any::<u64>()).prop_map(|(id, time)| Act::Put(id, time)),
        1 => (1u32..5).prop_map(Act::Delete),
        1 => Just(Act::Reopen),
        1 => Just(Act::Crash),
    ]
}

fn perform(store: &dyn Store, act: &Act, epochs: &mut u64) {
    let changes = match act {
        Act::Begin(channel) => {
            *epochs += 1;
            vec![Change::Begin { channel: (*channel).into(), epoch: Epoch::from_bits(*epochs) }]
        }
        Act::Append(channel, bytes) => {
            let channel = ChannelName::from(*channel);
            let Some(ends) = store.ends(&channel) else { return };
            let content = Content::text("x".repeat(*bytes));
            let time = Timestamp::from_millis(ends.next);
            vec![Change::Append(Message::detached(channel, ends.next_position(), None, content, time))]
        }
        Act::Forget(channel) => vec![Change::Forget { channel: (*channel).into() }],
        Act::Trim(channel, first) => {
            let channel = ChannelName::from(*channel);
            let Some(ends) = store.ends(&channel) else { return };
            let (ticket, done) = Ticket::new();
            store.trim(&channel, ends.epoch, *first, done).unwrap();
            return ticket.wait().unwrap();
        }
        Act::Put(id, time) => {
            let last_active = Timestamp::from_millis(*time);
            vec![Change::Put(Record::Sender { id: SenderId::new(*id).unwrap(), last_active })]
        }
        Act::Delete(id) => vec![Change::Delete(Key::Sender(SenderId::new(*id).unwrap()))],
        Act::Reopen | Act::Crash => return,
    };
    store.commit(changes).wait().unwrap();
}

/// All that a store says of itself.
fn dump(store: &dyn Store) -> String {
    let mut out = String::new();
    for (channel, ends) in store.channels(None, 100) {
        let page = store.read(&channel, 0, ReadLimit { messages: 10_000, bytes: u64::MAX }).unwrap();
        let shown = page.messages.iter().map(|m| (m.position(), m.content().bytes().len(), m.time()));
        out += &format!("{channel} {ends:?} {:?} {:?}\n", shown.collect::<Vec<_>>(), page.lost);
    }
    for kind in Kind::ALL {
        for record in store.records(kind, None, 100) {
            let time = match &record {
                Record::Sender { last_active, .. } => Some(*last_active),
                _ => None,
            };
            out += &format!("{record:?} {time:?}\n");
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_store_on_disk_says_what_one_in_memory_does(acts in prop::collection::vec(act(), 1..120)) {
        let mut folder = tempfile::tempdir().unwrap();
        let told = Told::default();
        let mut store = Some(DiskStore::open(told.options(folder.path(), 4096)).unwrap());
        let memory = MemoryStore::new();
        let (mut disk_epochs, mut memory_epochs) = (0, 0);
        for act in &acts {
            if let Some(store) = &store {
                perform(store, act, &mut disk_epochs);
            }
            perform(&memory, act, &mut memory_epochs);
            if matches!(act, Act::Crash) {
                let crashed = crash(folder.path());
                store = None;
                folder = crashed;
            }
            if matches!(act, Act::Reopen | Act::Crash) {
                store = None;
                store = store.or(Some(DiskStore::open(told.options(folder.path(), 4096)).unwrap()));
            }
        }
        let store = store.unwrap();
        prop_assert_eq!(dump(&store), dump(&memory));
        prop_assert_eq!(told.all(), vec![]);
    }
}

/// What a crash leaves of a store that nobody writes to: its files, once none
/// comes or goes while they are copied.
fn crash(folder: &Path) -> TempDir {
    loop {
        let before = files(folder);
        if let Ok(copy) = try_copy(folder)
            && before == files(folder)
        {
            return copy;
        }
    }
}
