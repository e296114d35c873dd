//! What `conformance/power-cut` runs in a machine whose power it cuts: says what
//! of a store is there, then publishes for as long as there is power.
//!
//! ```text
//! cargo run -p watchtower-store --example power_cut -- FOLDER
//! ```
//!
//! Prints `kept CHANNEL POSITION` of each log, its last message; `wrong …` of
//! whatever is not as it should be; `begun`; and then of each message that was
//! acknowledged `acknowledged CHANNEL POSITION`.
#![expect(clippy::print_stdout, reason = "it is for that")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::{env, process, thread};

use watchtower_hub::{ChannelName, Content, Epoch, Message, Position, Timestamp};
use watchtower_store::{
    Change, DiskOptions, DiskStore, Keeper, Key, Notice, ReadLimit, Record, Retention, Store,
};

const PUBLISHERS: u32 = 6;
const CHANNELS_EACH: u32 = 3;
/// How many messages of each channel are kept: so few that files are merged and
/// removed all the time.
const KEPT: u64 = 300;

fn main() {
    let Some(folder) = env::args_os().nth(1) else {
        eprintln!("usage: power_cut FOLDER");
        process::exit(2);
    };
    let options = DiskOptions { segment_bytes: 64 << 10, ..DiskOptions::new(Path::new(&folder)) };
    let store = DiskStore::open(options.observed(|notice| {
        if !matches!(notice, Notice::Unfinished { .. }) {
            println!("wrong {notice}");
        }
    }));
    let store = store.unwrap_or_else(|error| {
        println!("wrong {error}");
        process::exit(1);
    });
    say_what_is_there(&store);
    println!("begun");
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

fn channels(publisher: u32) -> impl Iterator<Item = ChannelName> + Clone {
    (0..CHANNELS_EACH).map(move |number| ChannelName::from(publisher * CHANNELS_EACH + number))
}

fn value_name(publisher: u32) -> Box<str> {
    format!("publisher{publisher}").into()
}

fn text(channel: &ChannelName, position: Position) -> String {
    format!("{channel} {position} {}", "x".repeat((position.offset % 500) as usize))
}

fn say_what_is_there(store: &DiskStore) {
    let mut last = BTreeMap::new();
    for (channel, ends) in store.channels(None, usize::MAX) {
        let read = store.read(&channel, 0, ReadLimit { messages: usize::MAX, bytes: u64::MAX });
        let page = match read {
            Ok(page) => page,
            Err(error) => {
                println!("wrong {error}");
                continue;
            }
        };
        let mut next = ends.first;
        for message in &page.messages {
            let position = Position { epoch: ends.epoch, offset: next };
            let is_whole = message.position() == position
                && message.content().as_text() == Some(text(&channel, position).as_str());
            if !is_whole {
                println!("wrong channel {channel}: {} is where {position} should be", message.position());
            }
            next += 1;
        }
        if next != ends.next || !page.lost.is_empty() {
            println!("wrong channel {channel}: there is a gap");
        }
        let position = Position { epoch: ends.epoch, offset: ends.next - 1 };
        println!("kept {channel} {position}");
        last.insert(channel, position);
    }
    // Each value was kept together with a message, the last of its publisher.
    for publisher in 0..PUBLISHERS {
        let Some(Record::Value { bytes, .. }) = store.record(&Key::Value(value_name(publisher))) else {
            continue;
        };
        let is_last = |channel: &ChannelName| {
            last.get(channel).is_some_and(|position| position.to_string().as_bytes() == &bytes[..])
        };
        if !channels(publisher).any(|channel| is_last(&channel)) {
            println!("wrong what publisher {publisher} kept together is not there together");
        }
    }
}

fn publish(store: &DiskStore, publisher: u32) {
    for channel in channels(publisher) {
        if store.ends(&channel).is_none() {
            let epoch = Epoch::from_bits(u64::from(publisher) + 1);
            store.commit(vec![Change::Begin { channel, epoch }]).wait().expect("there is room");
        }
    }
    for channel in channels(publisher).cycle() {
        let position = store.ends(&channel).expect("it was begun").next_position();
        let content = Content::text(text(&channel, position));
        let message = Message::detached(channel.clone(), position, None, content, Timestamp::from_millis(1));
        let seen =
            Record::Value { name: value_name(publisher), bytes: position.to_string().into_bytes().into() };
        store.commit(vec![Change::Append(message), Change::Put(seen)]).wait().expect("there is room");
        println!("acknowledged {channel} {position}");
    }
}
