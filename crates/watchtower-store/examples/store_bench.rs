//! Measures a store on disk: acknowledged messages a second beside a bare loop
//! that writes and syncs as much at once, and how long opening takes, and what
//! memory, which files that are merged in these seconds take, too.
//!
//! ```text
//! cargo run --release -p watchtower-store --example store_bench -- publish FOLDER [PUBLISHERS [SECONDS]]
//! cargo run --release -p watchtower-store --example store_bench -- fill FOLDER [CHANNELS [MESSAGES_EACH [SENDERS]]]
//! cargo run --release -p watchtower-store --example store_bench -- open FOLDER [SECONDS]
//! ```
#![expect(clippy::print_stdout, reason = "it is for that")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use std::{env, process, thread};

use watchtower_hub::{ChannelName, Content, Epoch, Message, Position, SenderId, Timestamp};
use watchtower_store::{Change, DiskOptions, DiskStore, ReadLimit, Record, Store};

/// The length of each message's content.
const MESSAGE_BYTES: usize = 256;
/// What a frame of such a message takes.
const FRAME_BYTES: usize = 350;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |index: usize, usual: u64| {
        arguments.get(index).map_or(Ok(usual), |text| text.parse()).map_err(io::Error::other)
    };
    match (arguments.first().map(String::as_str), arguments.get(1).map(Path::new)) {
        (Some("publish"), Some(folder)) => {
            publish(folder, number(2, 64)?, Duration::from_secs(number(3, 5)?))
        }
        (Some("fill"), Some(folder)) => fill(folder, number(2, 10_000)?, number(3, 100)?, number(4, 0)?),
        (Some("open"), Some(folder)) => open_again(folder, Duration::from_secs(number(2, 0)?)),
        _ => {
            eprintln!("usage: store_bench publish|fill|open FOLDER [NUMBERS]");
            process::exit(2);
        }
    }
}

fn open(folder: &Path) -> io::Result<DiskStore> {
    DiskStore::open(DiskOptions::new(folder).observed(|notice| eprintln!("{notice}")))
        .map_err(io::Error::other)
}

fn message(channel: &ChannelName, offset: u64) -> Change {
    let position = Position { epoch: Epoch::from_bits(1), offset };
    let content = Content::text("x".repeat(MESSAGE_BYTES));
    Change::Append(Message::detached(
        channel.clone(),
        position,
        None,
        content,
        Timestamp::from_millis(offset),
    ))
}

fn begin(channel: &ChannelName) -> Change {
    Change::Begin { channel: channel.clone(), epoch: Epoch::from_bits(1) }
}

/// Each publisher waits for its answer before it publishes again. The store and
/// the bare loop take turns.
fn publish(folder: &Path, publishers: u64, time: Duration) -> io::Result<()> {
    for round in 0..3 {
        let folder = folder.join(format!("bench{round}"));
        let acknowledged = publish_once(&folder, publishers, time)?;
        let bare = bare_loop(&folder.join("bare"), publishers, time)?;
        let ratio = acknowledged / bare;
        println!(
            "{publishers} publishers: {acknowledged:.0} acknowledged a second, bare loop {bare:.0}, ratio {ratio:.2}"
        );
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

fn publish_once(folder: &Path, publishers: u64, time: Duration) -> io::Result<f64> {
    let store = open(folder)?;
    let (is_over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    thread::scope(|scope| {
        for publisher in 0..publishers {
            let (store, is_over, count) = (&store, &is_over, &count);
            scope.spawn(move || {
                let channel = ChannelName::from(publisher as u32);
                store.commit(vec![begin(&channel)]).wait().expect("it is kept");
                for offset in 1.. {
                    store.commit(vec![message(&channel, offset)]).wait().expect("it is kept");
                    count.fetch_add(1, Ordering::Relaxed);
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        thread::sleep(time);
        is_over.store(true, Ordering::Relaxed);
    });
    Ok(count.into_inner() as f64 / started.elapsed().as_secs_f64())
}

/// Writes and syncs as many bytes as a message of each publisher takes.
fn bare_loop(path: &Path, publishers: u64, time: Duration) -> io::Result<f64> {
    let mut file = File::create(path)?;
    let group = vec![b'x'; FRAME_BYTES * publishers as usize];
    let (started, mut groups) = (Instant::now(), 0);
    while started.elapsed() < time {
        file.write_all(&group)?;
        file.sync_data()?;
        groups += 1;
    }
    Ok((groups * publishers) as f64 / started.elapsed().as_secs_f64())
}

fn fill(folder: &Path, channels: u64, messages: u64, senders: u64) -> io::Result<()> {
    let store = open(folder)?;
    let channels: Vec<_> = (0..channels).map(|number| ChannelName::from(number as u32)).collect();
    let started = Instant::now();
    for chunk in channels.chunks(1000) {
        store.commit(chunk.iter().map(begin).collect()).wait().map_err(io::Error::other)?;
    }
    for offset in 1..=messages {
        for chunk in channels.chunks(1000) {
            let changes = chunk.iter().map(|channel| message(channel, offset)).collect();
            store.commit(changes).wait().map_err(io::Error::other)?;
        }
    }
    let senders: Vec<_> = (1..=senders).filter_map(|number| SenderId::new(number as u32)).collect();
    for some in senders.chunks(1000) {
        let changes = some.iter().flat_map(|sender| registered(*sender, &channels)).collect();
        store.commit(changes).wait().map_err(io::Error::other)?;
    }
    println!(
        "{} messages in {} channels, and {} senders, in {:.1?}",
        channels.len() as u64 * messages,
        channels.len(),
        senders.len(),
        started.elapsed()
    );
    // As a crash leaves it.
    process::exit(0);
}

/// A sender that is in a channel, as a server keeps it.
fn registered(id: SenderId, channels: &[ChannelName]) -> [Change; 2] {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let since = Timestamp::from_millis(now.as_millis() as u64);
    let channel = channels[id.get() as usize % channels.len()].clone();
    [
        Change::Put(Record::Sender { id, last_active: since }),
        Change::Put(Record::Join { sender: id, channel, since, standing: true }),
    ]
}

fn open_again(folder: &Path, time: Duration) -> io::Result<()> {
    let started = Instant::now();
    let store = open(folder)?;
    println!("opened in {:.1?}", started.elapsed());
    let started = Instant::now();
    let channels = store.channels(None, usize::MAX);
    let messages: u64 = channels.iter().map(|(_, ends)| ends.messages()).sum();
    println!("{messages} messages in {} channels, listed in {:.1?}", channels.len(), started.elapsed());
    let started = Instant::now();
    for (channel, ends) in channels.iter().take(1000) {
        let page = store
            .read(channel, ends.next.saturating_sub(50), ReadLimit::messages(50))
            .map_err(io::Error::other)?;
        assert_eq!(page.messages.len() as u64, ends.messages().min(50), "they are all there");
    }
    println!("the last 50 messages of a channel are read in {:.1?}", started.elapsed() / 1000);
    thread::sleep(time);
    let status = fs::read_to_string("/proc/self/status")?;
    for memory in status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM")) {
        println!("{memory}");
    }
    Ok(())
}
