//! What the peer tells, made into JSON once for all pages that are open.
//!
//! One task takes the peer's events. A page that opens is told what is kept,
//! and from then on everything, without a gap: both happen under one lock.
//! Nobody waits for a page: one that is slow misses updates, is told so by
//! its socket, and comes again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::files::Files;
use super::log::Log;
use super::update::{Hello, Peers, Transfer, Update, sentence};
use crate::clock;
use crate::protocol::safe_text::safe_nick;
use crate::{Event, Events, Peer};

/// Updates that may wait for a slow page.
const UPDATES_MAX: usize = 512;

/// Files under way that the page is told of. Of more it is told when they came.
const TRANSFERS_MAX: usize = 64;

/// How often the page is told how far a file is.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// How often the peers are looked at, besides when something is told of them.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What all pages of a peer see.
#[derive(Debug)]
pub(super) struct Feed {
    peer: Peer,
    files: Files,
    upload_bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    log: Log,
    /// Those under way, and when the page was last told of them. Invariant: at
    /// most [`TRANSFERS_MAX`].
    transfers: BTreeMap<u64, (Transfer, Instant)>,
    peers: Peers,
    nick: Option<String>,
    /// None once the peer has ended, or the page.
    updates: Option<broadcast::Sender<Utf8Bytes>>,
}

/// What a page that opens is told, and what it is told from then on.
pub(super) struct Subscription {
    pub(super) hello: Utf8Bytes,
    pub(super) updates: broadcast::Receiver<Utf8Bytes>,
}

impl Feed {
    pub(super) fn new(peer: Peer, files: Files, upload_bytes_max: u64) -> Feed {
        let state = State {
            log: Log::default(),
            transfers: BTreeMap::new(),
            peers: Peers::default(),
            nick: None,
            updates: Some(broadcast::Sender::new(UPDATES_MAX)),
        };
        Feed { peer, files, upload_bytes_max, state: Mutex::new(state) }
    }

    /// The files that came.
    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// Takes the peer's events until it ends.
    pub(super) async fn run(self: Arc<Self>, mut events: Events) {
        self.take_recent().await;
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Ok(Some(event)) => self.take(event).await,
                    Ok(None) => break,
                    Err(skipped) => {
                        self.keep(|log| log.warning(&format!("{skipped}, since there were so many")));
                        self.take_recent().await;
                    }
                },
                _ = look.tick() => self.look().await,
            }
        }
        self.end();
    }

    /// Ends every page's socket: there is nothing more to tell.
    pub(super) fn end(&self) {
        self.state.lock().updates = None;
    }

    /// What a page is told that opens. None when there is nothing more to tell.
    pub(super) fn subscribe(&self) -> Option<Subscription> {
        let state = self.state.lock();
        let updates = state.updates.as_ref()?.subscribe();
        let hello = Update::Hello(Box::new(Hello {
            address: self.peer.address(),
            key: self.peer.public_key().to_string(),
            nick: state.nick.as_deref(),
            upload_bytes_max: self.upload_bytes_max,
            peers: &state.peers,
            transfers: state.transfers.values().map(|(transfer, _)| transfer).collect(),
            log: state.log.items().collect(),
        }));
        Some(Subscription { hello: json(&hello)?, updates })
    }

    /// Looks at what the peer tells no events of, and tells it if it changed.
    pub(super) async fn look(&self) {
        let refused = self.peer.refused().await;
        let peers = Peers::new(&self.peer.peers().await, refused.into_iter().map(|(ip, _)| ip));
        let nick = self.peer.nick().as_deref().and_then(safe_nick);
        let mut state = self.state.lock();
        if state.peers != peers {
            state.tell(&Update::Peers(peers.clone()));
            state.peers = peers;
        }
        if state.nick != nick {
            state.tell(&Update::Nick { nick: nick.as_deref() });
            state.nick = nick;
        }
    }

    /// Keeps what was said before the events began, or was missed.
    async fn take_recent(&self) {
        for shown in self.peer.recent().await {
            // Who said it is not told here; that it was this peer is said of
            // nothing that others might have sent.
            self.keep(|log| log.message(&shown, false));
        }
    }

    async fn take(&self, event: Event) {
        match event {
            Event::Shown(shown) => self.keep(|log| log.message(&shown, false)),
            Event::Said(shown) => self.keep(|log| log.message(&shown, true)),
            Event::Notice(notice) => {
                if let Some(text) = sentence(&notice) {
                    self.state.lock().tell(&Update::Notice { text });
                }
                self.look().await;
            }
            Event::Progress { transfer, name, outgoing, bytes_done, bytes_all } => {
                let transfer = Transfer { transfer, name, outgoing, done: bytes_done, all: bytes_all };
                let sent = self.state.lock().progress(transfer);
                if let Some(sent) = sent {
                    self.keep(|log| log.sent(&sent.name, sent.all, clock::now()));
                }
            }
            Event::Saved { transfer, name, path, nick, .. } => {
                self.state.lock().transfer_ended(transfer);
                self.saved(&name, &path, nick.as_deref()).await;
            }
            Event::Failed { transfer, name, reason } => {
                self.state.lock().transfer_ended(transfer);
                self.keep(|log| log.failed(&name, &reason));
            }
            Event::Warning(text) => self.keep(|log| log.warning(&text)),
        }
    }

    async fn saved(&self, name: &str, path: &Path, nick: Option<&str>) {
        match self.files.add(name, path).await {
            Ok(file) => self.keep(|log| log.saved(nick, file, clock::now())),
            // Somebody was quick to move it.
            Err(error) => self.keep(|log| log.failed(name, &format!("it came, and is gone: {error}"))),
        }
    }

    /// Keeps something and tells it.
    fn keep(&self, item: impl FnOnce(&mut Log) -> Option<&RawValue>) {
        let mut state = self.state.lock();
        let State { log, updates, .. } = &mut *state;
        if let (Some(json), Some(updates)) = (item(log), updates) {
            // Nobody looks: it is kept.
            let _ = updates.send(json.get().into());
        }
    }
}

impl State {
    fn tell(&self, update: &Update<'_>) {
        if let (Some(json), Some(updates)) = (json(update), &self.updates) {
            let _ = updates.send(json);
        }
    }

    /// Takes note of how far a file is. Returns one that is out, in parts: what
    /// went in one message was seen as that.
    fn progress(&mut self, transfer: Transfer) -> Option<Transfer> {
        let number = transfer.transfer;
        if transfer.outgoing && transfer.done >= transfer.all {
            return self.transfer_ended(number).then_some(transfer);
        }
        let now = Instant::now();
        let told = self.transfers.get(&number).map(|(_, told)| *told);
        if told.is_none() && self.transfers.len() >= TRANSFERS_MAX {
            return None;
        }
        let is_due = told.is_none_or(|told| now.duration_since(told) >= PROGRESS_EVERY);
        if is_due {
            self.tell(&Update::Transfer(transfer.clone()));
        }
        let told = if is_due { now } else { told.unwrap_or(now) };
        self.transfers.insert(number, (transfer, told));
        None
    }

    /// Whether it was under way.
    fn transfer_ended(&mut self, transfer: u64) -> bool {
        let was_under_way = self.transfers.remove(&transfer).is_some();
        if was_under_way {
            self.tell(&Update::TransferEnded { transfer });
        }
        was_under_way
    }
}

/// Text and numbers are always JSON.
fn json(update: &Update<'_>) -> Option<Utf8Bytes> {
    serde_json::to_string(update).ok().map(Utf8Bytes::from)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Options;

    struct Watched {
        feed: Feed,
        updates: broadcast::Receiver<Utf8Bytes>,
    }

    impl Watched {
        async fn new() -> Watched {
            let listen = ([127, 0, 0, 1], 0).into();
            let peer = Peer::start(Options { listen, ..Options::default() }).await.unwrap();
            let feed = Feed::new(peer, Files::default(), 1_000);
            let updates = feed.subscribe().unwrap().updates;
            Watched { feed, updates }
        }

        /// What the page is told of an event.
        async fn told(&mut self, event: Event) -> Vec<Value> {
            self.feed.take(event).await;
            let updates = std::iter::from_fn(|| self.updates.try_recv().ok());
            updates.map(|update| serde_json::from_str(&update).unwrap()).collect()
        }

        fn hello(&self) -> Value {
            serde_json::from_str(&self.feed.subscribe().unwrap().hello).unwrap()
        }
    }

    fn progress(transfer: u64, outgoing: bool, bytes_done: u64) -> Event {
        Event::Progress { transfer, name: "a.png".to_owned(), outgoing, bytes_done, bytes_all: 100 }
    }

    #[tokio::test]
    async fn a_file_under_way_is_told_of_until_it_is_there() {
        let mut watched = Watched::new().await;
        let transfer = json!({ "is": "transfer", "transfer": 7, "name": "a.png", "outgoing": false, "done": 10, "all": 100 });
        assert_eq!(watched.told(progress(7, false, 10)).await, [transfer]);
        // Not so soon again; who comes now is told the newest.
        assert_eq!(watched.told(progress(7, false, 20)).await, [] as [Value; 0]);
        assert_eq!(watched.hello()["transfers"][0]["done"], 20);
        assert_eq!(watched.told(progress(7, false, 100)).await, [] as [Value; 0]);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, b"\x89PNG\r\n\x1a\n").unwrap();
        watched.feed.state.lock().transfer_ended(7);
        watched.feed.saved("a.png", &path, Some("goldy")).await;
        let told = watched.told(Event::Warning("end".to_owned())).await;
        assert_eq!(told[0], json!({ "is": "transfer-ended", "transfer": 7 }));
        assert_eq!((&told[1]["is"], &told[1]["name"]), (&json!("saved"), &json!("goldy")));
        assert_eq!(told[1]["file"]["image"], true);
        let id = told[1]["file"]["id"].as_str().unwrap();
        assert!(watched.feed.files().serve(id).await.is_ok());
        assert_eq!(watched.hello()["transfers"], json!([]));
    }

    #[tokio::test]
    async fn a_file_that_went_out_in_parts_is_kept_and_one_in_a_message_is_not() {
        let mut watched = Watched::new().await;
        assert_eq!(watched.told(progress(1, true, 100)).await, [] as [Value; 0]);
        watched.told(progress(2, true, 50)).await;
        let ended = json!({ "is": "transfer-ended", "transfer": 2 });
        let told = watched.told(progress(2, true, 100)).await;
        let sent = json!({ "is": "sent", "n": 1, "name": "a.png", "bytes": 100, "time": told[1]["time"] });
        assert_eq!(told, [ended, sent.clone()]);
        assert_eq!(watched.hello()["log"], json!([sent]));
    }

    #[tokio::test]
    async fn a_file_that_does_not_come_is_told_of_with_its_reason() {
        let mut watched = Watched::new().await;
        watched.told(progress(1, false, 50)).await;
        let failed =
            Event::Failed { transfer: 1, name: "a.png".to_owned(), reason: "the disk\nis full".to_owned() };
        let ended = json!({ "is": "transfer-ended", "transfer": 1 });
        let failed_json = json!({ "is": "failed", "n": 1, "name": "a.png", "reason": "the disk↵is full" });
        assert_eq!(watched.told(failed).await, [ended, failed_json]);
    }

    #[tokio::test]
    async fn no_more_files_under_way_are_told_of_than_may_be() {
        let mut watched = Watched::new().await;
        for transfer in 0..2 * TRANSFERS_MAX as u64 {
            watched.told(progress(transfer, false, 1)).await;
        }
        assert_eq!(watched.hello()["transfers"].as_array().unwrap().len(), TRANSFERS_MAX);
    }

    #[tokio::test]
    async fn who_comes_when_all_is_over_is_told_nothing() {
        let watched = Watched::new().await;
        watched.feed.end();
        assert!(watched.feed.subscribe().is_none());
    }
}
