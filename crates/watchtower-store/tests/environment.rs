//! Folders that cannot be written: a full disk, and one that is for reading only; and
//! one that cannot be looked into.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use watchtower_hub::{ChannelName, Content, Epoch, Message, Position, Timestamp};
use watchtower_store::{Change, DiskOptions, DiskStore, Notice, OpenError, ReadLimit, Refused, Store, check};

/// A small disk in memory; gone when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where this may not be done, which is said.
    fn mount(bytes: u64) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        if mount(&["-t", "tmpfs", "-o", &size, "watchtower-test"], folder.path()) {
            return Some(SmallDisk(folder));
        }
        eprintln!("skipped: mounting a small disk needs root");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn mount(arguments: &[&str], folder: &Path) -> bool {
    Command::new("mount").args(arguments).arg(folder).output().is_ok_and(|output| output.status.success())
}

fn append(offset: u64) -> Vec<Change> {
    let position = Position { epoch: Epoch::from_bits(1), offset };
    let content = Content::binary(vec![b'x'; 10_000]);
    vec![Change::Append(Message::detached(1.into(), position, None, content, Timestamp::default()))]
}

#[test]
fn a_full_disk_refuses_and_what_was_acknowledged_stays_and_it_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(1 << 20) else { return };
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 400 << 10]).unwrap();
    let data = disk.0.path().join("data");
    let open = || {
        let options = DiskOptions { segment_bytes: 64 << 10, ..DiskOptions::new(&data) };
        DiskStore::open(options.observed(|notice| eprintln!("{notice}"))).unwrap()
    };
    let store = open();
    let channel = ChannelName::from(1);
    let begin = Change::Begin { channel: channel.clone(), epoch: Epoch::from_bits(1) };
    store.commit(vec![begin]).wait().unwrap();
    let mut next = 1;
    let refused = loop {
        match store.commit(append(next)).wait() {
            Ok(()) => next += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(&refused, Refused::Storage(error) if error.kind() == std::io::ErrorKind::StorageFull));
    assert_eq!(refused.to_string(), "it could not be kept on disk: No space left on device (os error 28)");
    let offsets = |store: &DiskStore| -> Vec<u64> {
        let page = store.read(&channel, 0, ReadLimit { messages: 10_000, bytes: u64::MAX }).unwrap();
        page.messages.iter().map(|message| message.position().offset).collect()
    };
    assert_eq!(offsets(&store), (1..next).collect::<Vec<_>>(), "reading goes on");
    fs::remove_file(ballast).unwrap();
    let started = Instant::now();
    while store.commit(append(next)).wait().is_err() {
        assert!(started.elapsed() < Duration::from_secs(60), "there is room again");
        std::thread::yield_now();
    }
    assert_eq!(offsets(&store), (1..=next).collect::<Vec<_>>());
    drop(store);
    assert_eq!(offsets(&open()), (1..=next).collect::<Vec<_>>());
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_with_its_name() {
    let disk = SmallDisk::mount(1 << 20);
    let plain = tempfile::tempdir().unwrap();
    let folder = disk.as_ref().map_or(plain.path(), |disk| disk.0.path());
    drop(DiskStore::open(DiskOptions::new(folder)).unwrap());
    match &disk {
        // Root writes wherever the disk lets it.
        Some(_) => assert!(mount(&["-o", "remount,ro"], folder)),
        None => fs::set_permissions(folder.join("log"), fs::Permissions::from_mode(0o500)).unwrap(),
    }
    let refused = DiskStore::open(DiskOptions::new(folder)).err().unwrap();
    assert!(matches!(refused, OpenError::Io { .. }));
    assert!(refused.to_string().contains(&folder.display().to_string()), "{refused}");
    assert!(refused.source().is_none(), "what the system said is in the message, and would be told twice");
}

#[test]
fn a_store_that_cannot_be_written_is_checked_all_the_same() {
    let Some(disk) = SmallDisk::mount(1 << 20) else { return };
    let disk_folder = disk.0.path();
    let folder = &disk_folder.join("data");
    let store = DiskStore::open(DiskOptions::new(folder)).unwrap();
    store.commit(vec![Change::Begin { channel: 1.into(), epoch: Epoch::from_bits(1) }]).wait().unwrap();
    store.commit(append(1)).wait().unwrap();
    let check = || check(folder, Arc::new(|notice: &Notice| panic!("{notice}")), &mut |_| {});
    assert!(matches!(check(), Err(OpenError::InUse { .. })));
    drop(store);
    assert!(mount(&["-o", "remount,ro"], disk_folder));
    assert_eq!(check().unwrap().messages, 1);
    assert!(mount(&["-o", "remount,rw"], disk_folder));
    // As a copy of what is needed has it.
    fs::remove_file(folder.join("lock")).unwrap();
    assert_eq!(check().unwrap().messages, 1);
    assert!(!folder.join("lock").exists(), "checking changes nothing");
}

#[test]
fn a_folder_that_cannot_be_looked_into_is_not_said_to_have_no_store() {
    // What is no folder is in the way for root too.
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().join("store");
    let options = DiskOptions { create: false, ..DiskOptions::new(&path) };
    let checked = check(&path, Arc::new(|_: &Notice| {}), &mut |_| {}).err();
    for error in [DiskStore::open(options).err(), checked] {
        assert!(matches!(&error, Some(OpenError::Io { doing: "cannot look into", .. })), "{error:?}");
    }
}
