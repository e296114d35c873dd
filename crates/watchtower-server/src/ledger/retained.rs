//! What of channels' last messages is on disk and is to be served, and whether it
//! is the last.

use std::ops::Range;

use watchtower_hub::{ChannelName, Message, Settings};
use watchtower_store::{Change, Key, ReadError, ReadLimit, Record, Refused, Store, message_bytes, retained};

/// How many are changed with one sync.
const AT_ONCE: usize = 1024;

/// How many messages are read at once to find the last one.
const PAGE: ReadLimit = ReadLimit { messages: 256, bytes: u64::MAX };

/// Why what is on disk could not be set right.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotRight {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// What a message that is its channel's last one changes: without content it ends
/// what there was.
pub(super) fn change(message: &Message) -> Change {
    match message.content().bytes().is_empty() {
        true => Change::Delete(Key::retained(message.channel())),
        false => Change::Put(Record::retained(message)),
    }
}

/// Ends what is retained of channels that are durable and do not retain any more: it
/// would not be the last message when they do again. Returns how many others are to
/// be served, and their bytes, whether that succeeded or not.
pub(super) fn end_unserved(store: &dyn Store, settings: &Settings) -> ((usize, u64), Result<(), NotRight>) {
    let (mut served, mut bytes, mut unserved) = (0, 0, Vec::new());
    for message in retained(store) {
        let rule = settings.rule(message.channel());
        if rule.durable && !rule.retain {
            unserved.push(Change::Delete(Key::retained(message.channel())));
        } else if rule.durable && is_of_log(store, &message) {
            served += 1;
            bytes += message_bytes(&message);
        }
    }
    ((served, bytes), commit(store, unserved))
}

/// Whether the log that a message is of is still there.
fn is_of_log(store: &dyn Store, message: &Message) -> bool {
    let (ends, position) = (store.ends(message.channel()), message.position());
    ends.is_some_and(|ends| ends.epoch == position.epoch && position.offset < ends.next)
}

/// Sees to it that what is retained is the last message that there is, where damage
/// may have cost the later one, of which the log knows.
pub(super) fn renew(store: &dyn Store, settings: &Settings) -> Result<(), NotRight> {
    let mut changes = Vec::new();
    for (channel, ends) in store.channels(None, usize::MAX) {
        let rule = settings.rule(&channel);
        if !rule.durable || !rule.retain {
            continue;
        }
        let known = store.record(&Key::retained(&channel)).and_then(|record| record.as_retained());
        let known = known.map(|message| message.position()).filter(|known| known.epoch == ends.epoch);
        let from = known.map_or(ends.first, |known| known.offset + 1).max(ends.first);
        let is_last = |message: &Message| rule.retains(message);
        if let Some(message) = last(store, &channel, from..ends.next, is_last)? {
            changes.push(change(&message));
        }
    }
    commit(store, changes)
}

/// The last of some messages that is one to look for.
fn last(
    store: &dyn Store,
    channel: &ChannelName,
    offsets: Range<u64>,
    is_it: impl Fn(&Message) -> bool,
) -> Result<Option<Message>, ReadError> {
    let mut before = offsets.end;
    while before > offsets.start {
        let messages = store.read_before(channel, before, PAGE)?.messages;
        let found = messages.into_iter().rev().find(&is_it);
        if let Some(found) = found {
            return Ok(Some(found).filter(|message| message.position().offset >= offsets.start));
        }
        before = before.saturating_sub(PAGE.messages as u64);
    }
    Ok(None)
}

fn commit(store: &dyn Store, changes: Vec<Change>) -> Result<(), NotRight> {
    let mut changes = changes.into_iter();
    loop {
        let few: Vec<_> = changes.by_ref().take(AT_ONCE).collect();
        if few.is_empty() {
            return Ok(());
        }
        store.commit(few).wait()?;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use watchtower_hub::{
        Batch, ChannelRule, Content, Epoch, Hub, Position, Publish, SenderId, Start, Timestamp, WhenLagging,
    };
    use watchtower_protocols::packets::PacketFormat;
    use watchtower_store::MemoryStore;

    use super::*;
    use crate::clock::SystemEntropy;
    use crate::ledger::{DiskCounts, DiskLedger};

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn settings(retain: bool) -> Settings {
        let rule = ChannelRule { durable: true, retain, ..ChannelRule::default() };
        Settings { channels: vec![rule], ..Settings::default() }
    }

    fn served(data_dir: &Path) -> (Arc<DiskLedger>, Hub) {
        let ledger = DiskLedger::open(data_dir, settings(true), DiskCounts::default()).expect("it opens");
        let ledger = Arc::new(ledger);
        let hub = Hub::with_ledger(settings(true), Box::new(SystemEntropy), ledger.clone());
        (ledger, hub)
    }

    async fn publish(hub: &Hub, channel: u32, text: &str) {
        let published = hub.publish(&channel.into(), Publish::new(Content::text(text)), NOW);
        published.expect("it is submitted").await.expect("it is kept");
    }

    /// What a new subscriber of a channel is handed at once.
    fn handed(hub: &Hub, channel: u32) -> Vec<u8> {
        let session = hub.open("test", WhenLagging::Close);
        let sender = session.register(NOW).expect("there is room");
        session.subscribe(sender, &channel.into(), Start::End, NOW).expect("it is there");
        let mut batch = Batch::default();
        let _ = session.drain(&PacketFormat, None, usize::MAX, &mut batch);
        batch.frames.concat()
    }

    #[tokio::test]
    async fn the_last_message_is_handed_out_after_a_restart_though_its_log_has_dropped_it() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, hub) = served(folder.path());
        for (channel, text) in [(1, "a"), (1, "b"), (2, "c"), (2, "")] {
            publish(&hub, channel, text).await;
        }
        let (ticket, done) = watchtower_store::Ticket::new();
        let ends = ledger.store.ends(&1.into()).unwrap();
        ledger.store.trim(&1.into(), ends.epoch, ends.next, done).unwrap();
        ticket.await.unwrap();
        ledger.close();
        drop((hub, ledger));
        let (ledger, hub) = served(folder.path());
        assert_eq!(ledger.store.ends(&1.into()).unwrap().messages(), 0);
        assert!(handed(&hub, 1).ends_with(b"\x01\x00\x00\x00b"));
        assert_eq!(handed(&hub, 2), b"");
        assert_eq!(hub.counts().retained_bytes, 257);
    }

    fn message(offset: u64, text: &str) -> Message {
        let position = Position { epoch: Epoch::from_bits(1), offset };
        Message::detached(5.into(), position, None, Content::text(text), NOW)
    }

    /// A store with a log of these messages, that says that the first is the last.
    fn stale(messages: Vec<Message>) -> MemoryStore {
        let store = MemoryStore::new();
        let mut changes = vec![Change::Begin { channel: 5.into(), epoch: Epoch::from_bits(1) }];
        changes.push(change(&messages[0]));
        changes.extend(messages.into_iter().map(Change::Append));
        store.commit(changes).wait().unwrap();
        store
    }

    fn kept(store: &dyn Store) -> Vec<u64> {
        retained(store).map(|message| message.position().offset).collect()
    }

    #[test]
    fn what_the_log_has_that_is_later_takes_the_place_of_what_is_retained() {
        let direct = |offset| message(offset, "x").with_receivers(vec![SenderId::new(7).unwrap()]);
        let log = |last: &str| {
            let all = [message(1, "1"), message(2, last)].into_iter();
            // More than a page of what is no value.
            stale(all.chain((3..=700).map(direct)).collect())
        };
        for (last, expected) in [("2", vec![2]), ("", vec![])] {
            let store = log(last);
            renew(&store, &settings(true)).unwrap();
            assert_eq!(kept(&store), expected);
        }
        let store = stale([message(1, "1")].into_iter().chain((2..=3).map(direct)).collect());
        renew(&store, &settings(true)).unwrap();
        assert_eq!(kept(&store), [1]);
        assert_eq!(end_unserved(&store, &settings(true)).0, (1, 1));
    }

    #[test]
    fn what_is_not_retained_any_more_does_not_come_back_later() {
        let store = stale(vec![message(1, "1")]);
        let served = |settings: &Settings| {
            let (served, result) = end_unserved(&store, settings);
            result.unwrap();
            (served, kept(&store))
        };
        assert_eq!(served(&settings(true)), ((1, 1), vec![1]));
        assert_eq!(served(&Settings::default()), ((0, 0), vec![1]), "its log stays as it is, too");
        assert_eq!(served(&settings(false)), ((0, 0), vec![]));
    }

    #[tokio::test]
    async fn a_last_message_that_is_damaged_is_taken_from_the_log_and_not_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let (_ledger, hub) = served(folder.path());
        publish(&hub, 1, "a").await;
        publish(&hub, 1, "b").await;
        // What a crash would leave.
        let crashed = tempfile::tempdir().unwrap();
        fs::create_dir_all(crashed.path().join("store/log")).unwrap();
        let name = "store/log/0000000001-0000000001.log";
        let mut bytes = fs::read(folder.path().join(name)).unwrap();
        let at = bytes.windows(9).rposition(|window| window == b"retained/").unwrap();
        bytes[at] ^= 1;
        fs::write(crashed.path().join(name), bytes).unwrap();
        fs::copy(folder.path().join("store/store"), crashed.path().join("store/store")).unwrap();
        let (_ledger, hub) = served(crashed.path());
        assert!(handed(&hub, 1).ends_with(b"\x01\x00\x00\x00b"));
    }
}
