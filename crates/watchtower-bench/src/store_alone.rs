//! A store and nothing else, for a server to be held against that keeps messages in one: a process
//! of its own, as the server is.

use std::io::{self, BufRead, Write};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::mpsc;
use std::time::Instant;

use watchtower_hub::{ChannelName, Content, Epoch, Message, Position, Timestamp};
use watchtower_store::{Change, DiskOptions, DiskStore, Store};

/// Opens a store in that folder and prints `ready`; then, for each line with a number, keeps so many
/// messages of so many bytes, and prints how many nanoseconds that took. `in_flight` for each
/// publisher are submitted at once, each by itself and to the publisher's own channel, and waited for.
///
/// # Errors
/// What the store or the operating system says; a line that is no number.
pub fn serve(folder: &Path, publishers: u32, in_flight: u32, size: usize) -> io::Result<()> {
    let store = DiskStore::open(DiskOptions::new(folder)).map_err(io::Error::other)?;
    let channels: Vec<_> = (1..=publishers).map(ChannelName::from).collect();
    let epoch = Epoch::from_bits(1);
    let begin = |channel: &ChannelName| Change::Begin { channel: channel.clone(), epoch };
    store.commit(channels.iter().map(begin).collect()).wait().map_err(io::Error::other)?;
    say("ready")?;
    let content = "x".repeat(size);
    let mut offset = 0;
    for line in io::stdin().lock().lines() {
        let messages: u64 = line?.trim().parse().map_err(io::Error::other)?;
        let started = Instant::now();
        let at_once = u64::from(publishers.max(1)) * u64::from(in_flight.max(1));
        for _ in 0..messages.div_ceil(at_once) {
            let offsets = offset + 1..=offset + u64::from(in_flight.max(1));
            offset = *offsets.end();
            keep(&store, &channels, epoch, offsets, &content)?;
        }
        say(&started.elapsed().as_nanos().to_string())?;
    }
    Ok(())
}

/// Submits the messages with these offsets to each channel, and waits until all of them are kept.
fn keep(
    store: &DiskStore,
    channels: &[ChannelName],
    epoch: Epoch,
    offsets: RangeInclusive<u64>,
    content: &str,
) -> io::Result<()> {
    let (kept, answers) = mpsc::channel();
    for channel in channels {
        for offset in offsets.clone() {
            let content = Content::text(content.to_owned());
            let position = Position { epoch, offset };
            let message =
                Message::detached(channel.clone(), position, None, content, Timestamp::from_millis(offset));
            let kept = kept.clone();
            store.submit(vec![Change::Append(message)], Box::new(move |result| drop(kept.send(result))));
        }
    }
    drop(kept);
    answers.iter().try_for_each(|answer| answer.map_err(io::Error::other))
}

fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
