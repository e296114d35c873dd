//! The store: damaged files, an export, and the bytes in a frame.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use watchtower_hub::{ChannelName, Content, Epoch, Message, Position, Timestamp};
use watchtower_store::transfer::{export, import};
use watchtower_store::{
    Change, DiskOptions, DiskStore, Kind, MemoryStore, ReadLimit, Record, Store, check, fuzzing,
};

use crate::folder;
use crate::script::Script;

fn epoch() -> Epoch {
    Epoch::from_bits(0x5eed)
}

/// How many messages the store has that is damaged.
const MESSAGES: u64 = 12;

/// A file by its name.
type File = (String, Vec<u8>);

fn channel() -> ChannelName {
    ChannelName::from(5)
}

fn message(offset: u64) -> Message {
    let content = Content::text(format!("this is message {offset}"));
    let position = Position { epoch: epoch(), offset };
    Message::detached(channel(), position, None, content, Timestamp::from_millis(offset))
}

fn options(folder: &Path) -> DiskOptions {
    DiskOptions { segment_bytes: 4096, ..DiskOptions::new(folder) }
}

/// A store's files, some of them finished.
fn whole_files() -> &'static [File] {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = folder::new();
        for part in 0..2 {
            let store = DiskStore::open(options(folder.path())).expect("a new store");
            let value = Record::Value { name: "key".into(), bytes: vec![7; 40].into() };
            let begin = Change::Begin { channel: channel(), epoch: epoch() };
            let first = 1 + part * MESSAGES / 2;
            let messages = (first..first + MESSAGES / 2).map(|offset| Change::Append(message(offset)));
            let changes = [begin, Change::Put(value)].into_iter().chain(messages).collect();
            store.commit(changes).wait().expect("room");
            store.close();
        }
        let mut files: Vec<File> = fs::read_dir(folder.path())
            .expect("the folder")
            .map(|entry| entry.expect("an entry"))
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, fs::read(entry.path()).ok()?)))
            .collect();
        files.sort();
        files
    })
}

/// A store opens however its files are damaged, or says why not; it serves what it finds, and
/// goes on taking more.
pub(crate) fn files(data: &[u8]) {
    let mut files = whole_files().to_vec();
    let mut script = Script::new(data);
    while let Some(what) = script.byte() {
        let which = usize::from(script.byte().unwrap_or_default()) % files.len();
        let bytes = &mut files[which].1;
        let at = script.number().min(bytes.len());
        match what % 5 {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= what | 1),
            1 => bytes.truncate(at),
            2 => {
                let new = script.bytes();
                bytes.resize(bytes.len().max(at + new.len()), 0);
                bytes[at..at + new.len()].copy_from_slice(new);
            }
            3 => drop(bytes.splice(at..at, script.bytes().iter().copied())),
            _ => bytes.clear(),
        }
    }
    let folder = folder::new();
    for (name, bytes) in &files {
        fs::write(folder.path().join(name), bytes).expect("room");
    }
    let _ = check(folder.path(), Arc::new(|_| {}), &mut |_| {});
    let Ok(store) = DiskStore::open(options(folder.path())) else { return };
    read_all(&store);
    let next = store.ends(&channel()).map_or(1, |ends| ends.next);
    let epoch = store.ends(&channel()).map_or_else(epoch, |ends| ends.epoch);
    let position = Position { epoch, offset: next };
    let last = Message::detached(channel(), position, None, Content::text("last"), Timestamp::default());
    let begin = Change::Begin { channel: channel(), epoch };
    let taken = store.commit(vec![begin, Change::Append(last)]).wait();
    store.close();
    drop(store);
    if taken.is_ok() {
        let store = DiskStore::open(options(folder.path())).expect("it was opened before");
        read_all(&store);
        let page = store.read(&channel(), next, ReadLimit::messages(1)).expect("it was kept");
        let last = page.messages.first().expect("it was acknowledged");
        assert_eq!((last.position(), last.content().as_text()), (position, Some("last")));
    }
}

/// Reads to the end of each log, which moves on with each page.
fn read_all(store: &dyn Store) {
    for (name, ends) in store.channels(None, 100) {
        let mut from = ends.first;
        while from < ends.next {
            let Ok(page) = store.read(&name, from, ReadLimit::messages(5)) else { break };
            assert!(page.next > from && page.messages.len() <= 5, "{page:?}");
            from = page.next;
        }
    }
    for kind in [Kind::Sender, Kind::Join, Kind::Callback, Kind::Value] {
        assert!(store.records(kind, None, 100).len() <= 100);
    }
}

/// What can be imported comes out again as it went in.
pub(crate) fn text(data: &[u8]) {
    let store = MemoryStore::default();
    let Ok(transferred) = import(&store, &mut &data[..]) else { return };
    let mut first = Vec::new();
    assert_eq!(export(&store, &mut first, &mut |_| {}).expect("memory"), transferred);
    let again = MemoryStore::default();
    assert_eq!(import(&again, &mut &first[..]).expect("it was written"), transferred);
    let mut second = Vec::new();
    assert_eq!(export(&again, &mut second, &mut |_| {}).expect("memory"), transferred);
    assert!(first == second, "{}\n{}", first.escape_ascii(), second.escape_ascii());
}

/// Any bytes in a frame are read, or are none.
pub(crate) fn frame(data: &[u8]) {
    if let Some(written) = fuzzing::read_and_write(data) {
        assert_eq!(fuzzing::read_and_write(&written), Some(written.clone()));
    }
}
