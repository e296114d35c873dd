//! What only a store on disk can get wrong: failing disks, damaged files, and
//! merging, held against the store in memory.

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
    let crashed = copy_of(folder.path());
    (crashed, channels)
}

/// All that a channel's log is said to have lost, without reading it.
fn losses(store: &dyn Store, channel: &ChannelName) -> Vec<u64> {
    let mut from = 0;
    let ranges = std::iter::from_fn(|| {
        let lost = store.lost(channel, from)?;
        from = lost.end;
        Some(lost)
    });
    ranges.flatten().collect()
}

/// Opens a damaged store, and sees that nothing is missing but what is said to
/// be, that no offset is given again, and that it is whole afterwards. Returns
/// how many messages were lost.
fn survives(folder: &Path, channels: &[ChannelName], what: &str) -> usize {
    let told = Told::default();
    let store = DiskStore::open(told.options(folder, 4096)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut lost_in_all = 0;
    for channel in channels {
        let Some(ends) = store.ends(channel) else { panic!("{what}: channel {channel} is gone") };
        let (found, lost) = read_all(&store, channel);
        let mut all = [&found[..], &lost[..]].concat();
        all.sort_unstable();
        assert_eq!(all, (ends.first..ends.next).collect::<Vec<_>>(), "{what}: {:?}", told.all());
        assert!(ends.next >= 41, "{what}: offsets of {channel} would be given again: {:?}", told.all());
        assert_eq!(ends.first, 1, "{what}");
        // The time of the first message: of one that is lost, if that is known,
        // else of the first that is not.
        let oldest = ends.oldest.map_or(0, Timestamp::as_millis);
        assert!((1..=found[0]).contains(&oldest), "{what}: {channel} began {oldest}, and has {found:?}");
        assert_eq!(losses(&store, channel), lost, "{what}: {channel}, without reading");
        lost_in_all += lost.iter().filter(|offset| **offset <= 40).count();
        for offset in lost {
            assert!(told.lost(channel).contains(&offset), "{what}: {channel} {offset}: {:?}", told.all());
        }
        store.commit(append(channel, ends.next)).wait().unwrap();
    }
    let secret = store.record(&Key::Value("secret".into()));
    let is_as_it_was =
        secret == Some(Record::Value { name: "secret".into(), bytes: Bytes::from_static(b"s") });
    assert!(is_as_it_was || (secret.is_none() && !told.all().is_empty()), "{what}: {secret:?}");
    until("the damaged files are set aside", || {
        let view = store.shared.view.read();
        view.sealed.iter().all(|segment| !segment.is_damaged())
    });
    let ends: Vec<_> = channels.iter().map(|channel| store.ends(channel)).collect();
    let lost: Vec<_> = channels.iter().map(|channel| losses(&store, channel)).collect();
    drop(store);
    let told_again = Told::default();
    let report = check(folder, told_again.options(folder, 4096).observer, &mut |_| {}).unwrap();
    // What is not a message is not read while there is an index that says it too.
    let unnoticed = usize::from(told.all().is_empty());
    assert_eq!(report.missing, lost.iter().flatten().count() as u64, "{what}");
    assert!(report.damaged <= unnoticed, "{what}: {:?} after {:?}", told_again.all(), told.all());
    let store = DiskStore::open(told_again.options(folder, 4096)).unwrap();
    assert_eq!(channels.iter().map(|channel| store.ends(channel)).collect::<Vec<_>>(), ends, "{what}");
    let still = channels.iter().map(|channel| losses(&store, channel));
    assert_eq!(still.collect::<Vec<_>>(), lost, "{what}, after another start");
    lost_in_all
}

/// The places of a file that are tried: a few, unless `STORE_DAMAGES` says how
/// many, or `all`.
fn places(length: u64, usual: usize, at: &mut u64) -> Vec<u64> {
    let asked = std::env::var("STORE_DAMAGES").unwrap_or_default();
    if asked == "all" {
        return (0..length).collect();
    }
    let tried = (0..asked.parse().unwrap_or(usual)).filter_map(|_| {
        *at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*at >> 16).checked_rem(length)
    });
    tried.collect()
}

#[test]
fn a_flipped_byte_in_any_file_costs_one_message_at_most_and_is_told() {
    let (whole, channels) = sample();
    let mut costs = BTreeMap::new();
    let mut at = 0x5eed_u64;
    for file in files(whole.path()) {
        let name = file.strip_prefix(whole.path()).unwrap();
        let length = fs::metadata(&file).unwrap().len();
        for position in places(length, 6, &mut at) {
            let folder = copy_of(whole.path());
            let mut bytes = fs::read(folder.path().join(name)).unwrap();
            // Each bit has its turn.
            bytes[position as usize] ^= 1 << (position % 8);
            fs::write(folder.path().join(name), bytes).unwrap();
            let lost = survives(folder.path(), &channels, &format!("{} at {position}", name.display()));
            assert!(lost <= 1, "{} at {position}: {lost} are lost", name.display());
            *costs.entry(lost).or_insert(0) += 1;
        }
    }
    assert!(costs[&0] > 0 && costs[&1] > 0, "both were tried: {costs:?}");
}

#[test]
fn a_byte_that_flips_while_a_store_is_open_costs_one_message_at_most_and_is_told() {
    use std::os::unix::fs::FileExt;
    let (whole, channels) = sample();
    let mut at = 0xbeef_u64;
    for file in files(&whole.path().join("log")) {
        let name = file.strip_prefix(whole.path()).unwrap();
        let bytes = fs::read(&file).unwrap();
        for position in places(bytes.len() as u64, 6, &mut at) {
            let what = format!("{} at {position}", name.display());
            let folder = copy_of(whole.path());
            let flipped = fs::OpenOptions::new().write(true).open(folder.path().join(name)).unwrap();
            let told = Told::default();
            let store = DiskStore::open(told.options(folder.path(), 4096)).unwrap();
            let byte = bytes[position as usize] ^ 1 << (position % 8);
            flipped.write_all_at(&[byte], position).unwrap();
            let mut lost_in_all = 0;
            for channel in &channels {
                let (found, lost) = read_all(&store, channel);
                assert_eq!(found.len() + lost.len(), 40, "{what}: {channel}");
                assert_eq!(losses(&store, channel), lost, "{what}: {channel}");
                assert_eq!(told.lost(channel), lost, "{what}: {channel}: {:?}", told.all());
                lost_in_all += lost.len();
            }
            assert!(lost_in_all <= 1, "{what}: {lost_in_all} are lost: {:?}", told.all());
        }
    }
}

#[test]
fn what_was_lost_is_told_again_at_each_start_and_by_a_check() {
    let (whole, channels) = sample();
    let segments: Vec<_> = files(&whole.path().join("log"));
    let middle = segments.iter().filter(|path| path.extension().unwrap() == "log").nth(1).unwrap();
    fs::OpenOptions::new().write(true).open(middle).unwrap().set_len(64).unwrap();
    let store = DiskStore::open(Told::default().options(whole.path(), 4096)).unwrap();
    let lost: Vec<_> = channels.iter().map(|channel| store.lost(channel, 0).unwrap()).collect();
    until("the damaged file is set aside", || {
        store.shared.view.read().sealed.iter().all(|segment| !segment.is_damaged())
    });
    drop(store);
    let missing = |told: &Told| {
        let missing = |notice| match notice {
            Notice::Missing { channel, offsets } => Some((channel, offsets)),
            _ => None,
        };
        told.all().into_iter().filter_map(missing).collect::<Vec<_>>()
    };
    let expected: Vec<_> = channels.iter().cloned().zip(lost.iter().cloned()).collect();
    let told = Told::default();
    let store = DiskStore::open(told.options(whole.path(), 4096)).unwrap();
    assert_eq!(missing(&told), expected);
    // What is dropped is not missing.
    let (ticket, done) = Ticket::new();
    store.trim(&channels[0], Epoch::from_bits(1), lost[0].end, done).unwrap();
    ticket.wait().unwrap();
    assert_eq!(store.lost(&channels[0], 0), None);
    drop(store);
    let told = Told::default();
    let report = check(whole.path(), told.options(whole.path(), 4096).observer, &mut |_| {}).unwrap();
    assert_eq!(missing(&told), expected[1..]);
    assert_eq!(report.missing, lost[1..].iter().map(|lost| lost.end - lost.start).sum::<u64>());
}

#[test]
fn a_truncated_file_is_told_and_the_rest_is_served() {
    let (whole, channels) = sample();
    let segments: Vec<_> = files(whole.path());
    let mut at = 0xfeed_u64;
    for file in &segments {
        let name = file.strip_prefix(whole.path()).unwrap();
        let length = fs::metadata(file).unwrap().len();
        let has_index = file.with_extension("index").exists();
        for position in places(length, 3, &mut at) {
            let folder = copy_of(whole.path());
            let truncated = fs::OpenOptions::new().write(true).open(folder.path().join(name)).unwrap();
            truncated.set_len(position).unwrap();
            // What the process was writing when it ended, and lost by damage,
            // cannot be told from what it had not written yet.
            if has_index || name.extension().is_none_or(|extension| extension != "log") {
                survives(folder.path(), &channels, &format!("{} cut to {position}", name.display()));
            } else {
                let told = Told::default();
                let store = DiskStore::open(told.options(folder.path(), 4096)).unwrap();
                assert!(channels.iter().all(|channel| store.ends(channel).unwrap().next > 30));
            }
        }
    }
}

#[test]
fn a_missing_segment_is_told_and_the_rest_is_served() {
    let (whole, channels) = sample();
    let segments: Vec<_> = files(&whole.path().join("log"));
    let middle = segments.iter().filter(|path| path.extension().unwrap() == "log").nth(1).unwrap();
    fs::remove_file(middle).unwrap();
    fs::remove_file(middle.with_extension("index")).unwrap();
    let told = Told::default();
    let store = DiskStore::open(told.options(whole.path(), 4096)).unwrap();
    assert!(matches!(told.all()[0], Notice::Damaged { .. }), "{:?}", told.all());
    for channel in &channels {
        let (found, lost) = read_all(&store, channel);
        assert_eq!(found.len() + lost.len(), 40);
        assert!(!lost.is_empty());
        assert_eq!(told.lost(channel), lost);
    }
}

#[test]
fn an_index_that_says_the_wrong_places_is_found_out_and_nothing_is_lost() {
    let (whole, channels) = sample();
    let index =
        files(&whole.path().join("log")).into_iter().find(|path| path.extension().unwrap() == "index");
    let index = index.unwrap();
    let mut bytes = fs::read(&index).unwrap();
    // The places are behind the header of 32 bytes.
    bytes[33] ^= 1;
    fs::write(&index, bytes).unwrap();
    assert_eq!(survives(whole.path(), &channels, "places"), 0);
}

#[test]
fn what_a_reader_finds_damaged_while_it_is_merged_is_not_left_out() {
    let (whole, channels) = sample();
    let log = files(&whole.path().join("log"));
    let index = log.iter().find(|path| path.extension().unwrap() == "index").unwrap();
    let mut bytes = fs::read(index).unwrap();
    bytes[33] ^= 1;
    fs::write(index, bytes).unwrap();
    let told = Told::default();
    let (shared, _) = open_files(&Medium::default(), told.options(whole.path(), 4096)).unwrap();
    let sealed = shared.view.read().sealed.clone();
    let sources: Vec<_> = sealed[..1].iter().map(merge::Source::of).collect();
    let offsets = |channel| {
        let page = shared.read(channel, 0, ReadLimit::messages(100)).unwrap();
        page.messages.iter().map(|message| message.position().offset).collect::<Vec<_>>()
    };
    let all: Vec<u64> = (1..=40).collect();
    assert_eq!(offsets(&channels[0]), all, "who reads finds out where everything is");
    let by_wrong_places = merge::merge_known(&shared, &sources, true);
    assert!(by_wrong_places.is_err_and(|error| error.kind() == std::io::ErrorKind::Interrupted));
    let merged = merge::merge(&shared, &sealed[..1], true).unwrap();
    let key = contents::log_key(&channels[0], Epoch::from_bits(1));
    assert_eq!(merged.locate(&key, 1, 1).unwrap()[0].first, 1);
}

#[test]
fn a_newer_store_is_refused_and_left_as_it_is() {
    let (whole, _) = sample();
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
