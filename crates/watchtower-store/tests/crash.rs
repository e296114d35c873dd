//! `kill -9` at random moments: nothing that was acknowledged is lost, there is
//! no gap, and epochs and offsets go on.
//!
//! `STORE_CRASHES` says how often, `STORE_SEED` when: it is printed, and gives
//! the same moments again, counted in acknowledgements.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use watchtower_hub::{ChannelName, Content, Epoch, Message, Position, Timestamp};
use watchtower_store::{
    Change, DiskOptions, DiskStore, Keeper, Key, Notice, ReadLimit, Record, Retention, Store,
};

const PUBLISHERS: u32 = 6;
const CHANNELS_EACH: u32 = 3;
/// How many messages of each channel are kept.
const KEPT: u64 = 300;

fn open(folder: &Path) -> DiskStore {
    let options = DiskOptions { segment_bytes: 64 << 10, ..DiskOptions::new(folder) };
    let options = options.observed(|notice| {
        assert!(matches!(notice, Notice::Unfinished { .. }), "a crash damages nothing: {notice}");
    });
    DiskStore::open(options).unwrap()
}

fn variable(name: &str, usual: u64) -> u64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}

/// The child: publishes until it is killed, and says of each message that it was
/// acknowledged. It is started by the test below; on its own it does nothing.
#[test]
fn child() {
    let Some(folder) = env::var_os("STORE_CRASH_FOLDER") else { return };
    let store = open(Path::new(&folder));
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let store = &store;
            scope.spawn(move || publish(store, publisher));
        }
        let rule = |_: &ChannelName| Retention { messages: KEPT, ..Retention::ALL };
        let mut keeper = Keeper::new(Timestamp::default());
        while keeper.step(&store, rule, Timestamp::default(), Duration::ZERO).is_ok() {}
    });
}

fn publish(store: &DiskStore, publisher: u32) {
    let channels: Vec<_> =
        (0..CHANNELS_EACH).map(|number| ChannelName::from(publisher * CHANNELS_EACH + number)).collect();
    for channel in &channels {
        if store.ends(channel).is_none() {
            let epoch = Epoch::from_bits(u64::from(std::process::id()));
            store.commit(vec![Change::Begin { channel: channel.clone(), epoch }]).wait().unwrap();
        }
    }
    let name: Box<str> = format!("publisher{publisher}").into();
    for round in 0u64.. {
        let channel = &channels[(round % u64::from(CHANNELS_EACH)) as usize];
        let position = store.ends(channel).unwrap().next_position();
        let text = format!("{channel} {position} {}", "x".repeat((round % 500) as usize));
        let time = Timestamp::from_millis(position.offset);
        let message = Message::detached(channel.clone(), position, None, Content::text(text), time);
        let seen = Record::Value { name: name.clone(), bytes: position.to_string().into_bytes().into() };
        store.commit(vec![Change::Append(message), Change::Put(seen)]).wait().unwrap();
        let mut out = std::io::stdout().lock();
        // Whole lines: a killed process leaves no half of one.
        out.write_all(format!("acknowledged {channel} {position}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

/// The last acknowledgement of each channel, of one child that was killed after
/// so many.
fn crash(folder: &Path, after: u64, acknowledged: &mut BTreeMap<ChannelName, Position>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("STORE_CRASH_FOLDER", folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut count = 0;
    for line in lines {
        let line = line.unwrap();
        let Some(rest) = line.strip_prefix("acknowledged ") else { continue };
        let (channel, position) = rest.split_once(' ').unwrap();
        let position = Position::parse(position).unwrap();
        let before = acknowledged.insert(ChannelName::parse(channel).unwrap(), position);
        if let Some(before) = before {
            assert_eq!(position.epoch, before.epoch, "the epoch of {channel} has changed");
            assert!(position.offset > before.offset, "{position} of {channel} was given twice");
        }
        count += 1;
        if count == after {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(count >= after, "it ended by itself: {status}");
}

fn verify(folder: &Path, acknowledged: &BTreeMap<ChannelName, Position>) {
    let store = open(folder);
    for (channel, last) in acknowledged {
        let ends = store.ends(channel).unwrap_or_else(|| panic!("channel {channel} is gone"));
        assert_eq!(ends.epoch, last.epoch);
        assert!(ends.next > last.offset, "{last} of {channel} was acknowledged, and {} is next", ends.next);
        let page = store.read(channel, 0, ReadLimit { messages: usize::MAX, bytes: u64::MAX }).unwrap();
        assert_eq!(page.lost, [], "{channel}");
        let offsets: Vec<_> = page.messages.iter().map(|message| message.position().offset).collect();
        assert_eq!(offsets, (ends.first..ends.next).collect::<Vec<_>>(), "{channel}");
        for message in &page.messages {
            let expected = format!("{channel} {} ", message.position());
            assert!(message.content().as_text().unwrap().starts_with(&expected));
        }
    }
    for publisher in 0..PUBLISHERS {
        let value = store.record(&Key::Value(format!("publisher{publisher}").into()));
        let Some(Record::Value { bytes, .. }) = value else { continue };
        let position = Position::parse(std::str::from_utf8(&bytes).unwrap()).unwrap();
        let channels = (0..CHANNELS_EACH).map(|number| ChannelName::from(publisher * CHANNELS_EACH + number));
        // It was kept together with that message.
        assert!(
            channels
                .filter_map(|channel| store.ends(&channel))
                .any(|ends| { ends.epoch == position.epoch && ends.next == position.offset + 1 })
        );
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_being_killed() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("store");
    let mut random = variable("STORE_SEED", 1);
    let crashes = variable("STORE_CRASHES", 24);
    eprintln!("STORE_SEED={random} STORE_CRASHES={crashes}");
    let mut acknowledged = BTreeMap::new();
    let mut total = 0;
    for round in 0..crashes {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let after = 1 + (random >> 33) % 400;
        crash(&folder, after, &mut acknowledged);
        total += after;
        // Every other time it is opened after a crash by the next child, so that
        // crashes pile up.
        if round % 2 == 1 {
            verify(&folder, &acknowledged);
        }
    }
    verify(&folder, &acknowledged);
    eprintln!("{total} messages and more were acknowledged");
}
