//! What a peer tells those who watch it.
//!
//! Each watcher has a queue of its own, bounded in number and bytes: whoever is
//! slow misses the oldest, is told how many, and keeps nobody waiting.

use std::collections::VecDeque;
use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Notify;
use watchtower_protocols::whispernet::{Notice, Shown};

/// How many events wait for one watcher.
const EVENTS_MAX: usize = 4_096;

/// How many bytes of messages and files wait for one watcher.
const BYTES_MAX: usize = 32 << 20;

/// Something that happened. Cheap to clone: what is large is shared.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// Somebody else said something. All text is as it came:
    /// `protocol::safe_text` makes it safe to show.
    Shown(Arc<Shown>),
    /// This peer said something, by whichever of its faces: what a terminal
    /// typed, a page shows too.
    Said(Arc<Shown>),
    /// Something changed with the peers.
    Notice(Notice),
    /// A file is under way.
    Progress {
        /// The same in all events of one file.
        transfer: u64,
        /// A safe name.
        name: String,
        /// Whether it goes out.
        outgoing: bool,
        /// How many bytes are done.
        bytes_done: u64,
        /// How many bytes it has.
        bytes_all: u64,
    },
    /// A file came whole, its hash is right, and it is saved.
    Saved {
        /// As in [`Event::Progress`].
        transfer: u64,
        /// A safe name.
        name: String,
        /// The MIME type as the sender says.
        mime_type: String,
        /// The MIME type of an image that is safe to show, whatever the sender
        /// says: by the contents.
        image: Option<&'static str>,
        /// Where it is.
        path: PathBuf,
        /// Who sent it, as it came.
        nick: Option<String>,
    },
    /// A file did not come to its end, or could not be saved.
    Failed {
        /// As in [`Event::Progress`].
        transfer: u64,
        /// A safe name.
        name: String,
        /// A sentence for a person.
        reason: String,
    },
    /// Something that a person should know: a busy discovery port, say.
    Warning(String),
}

impl Event {
    /// How many bytes of messages and files it keeps.
    fn bytes(&self) -> usize {
        match self {
            Event::Shown(shown) | Event::Said(shown) => shown_bytes(shown),
            _ => 0,
        }
    }
}

/// How many bytes a message keeps.
pub(crate) fn shown_bytes(shown: &Shown) -> usize {
    let texts = [Some(&shown.id), Some(&shown.body), shown.nick.as_ref(), shown.addr.as_ref()];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    texts + shown.file.as_ref().map_or(0, |file| file.contents.len())
}

/// What happens from the moment of subscribing on. Whoever is slow is told how
/// many events it missed, and nobody waits for it.
#[derive(Debug)]
pub struct Events(Arc<Queue>);

/// That many events were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} events were missed")]
pub struct Skipped(pub u64);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Invariant: at most [`EVENTS_MAX`], and [`BYTES_MAX`] or one.
    events: VecDeque<Event>,
    /// Invariant: the sum of what they keep.
    bytes: usize,
    skipped: u64,
    has_ended: bool,
}

impl Events {
    /// The next event; `None` once the peer has ended. Nothing is lost when the
    /// future is dropped.
    ///
    /// # Errors
    ///
    /// [`Skipped`]; the next call goes on behind what was missed.
    pub async fn next(&mut self) -> Result<Option<Event>, Skipped> {
        loop {
            {
                let mut waiting = self.0.waiting.lock();
                let skipped = mem::take(&mut waiting.skipped);
                if skipped > 0 {
                    return Err(Skipped(skipped));
                }
                if let Some(event) = waiting.pop() {
                    return Ok(Some(event));
                }
                if waiting.has_ended {
                    return Ok(None);
                }
            }
            self.0.ready.notified().await;
        }
    }
}

impl Waiting {
    fn push(&mut self, event: Event) {
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.events.len() > EVENTS_MAX || (self.bytes > BYTES_MAX && self.events.len() > 1) {
            self.pop();
            self.skipped += 1;
        }
    }

    fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.bytes -= event.bytes();
        Some(event)
    }
}

/// Those who watch.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    queues: Vec<Weak<Queue>>,
    has_ended: bool,
}

impl Watchers {
    /// One more, who is told of nothing that was before.
    pub(crate) fn watch(&mut self) -> Events {
        self.queues.retain(|queue| queue.strong_count() > 0);
        let queue: Arc<Queue> = Arc::default();
        queue.waiting.lock().has_ended = self.has_ended;
        self.queues.push(Arc::downgrade(&queue));
        Events(queue)
    }

    /// Tells all of them.
    pub(crate) fn tell(&mut self, event: &Event) {
        for queue in self.queues.iter().filter_map(Weak::upgrade) {
            queue.waiting.lock().push(event.clone());
            queue.ready.notify_one();
        }
    }

    /// Nothing happens any more.
    pub(crate) fn end(&mut self) {
        self.has_ended = true;
        for queue in mem::take(&mut self.queues).iter().filter_map(Weak::upgrade) {
            queue.waiting.lock().has_ended = true;
            queue.ready.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use watchtower_hub::Timestamp;
    use watchtower_protocols::whispernet::{File, Mark};

    use super::*;

    fn file(bytes: usize) -> Event {
        let contents = vec![0; bytes].into();
        let file = File { name: "a".into(), mime_type: "image/gif".into(), contents };
        Event::Shown(Arc::new(Shown {
            id: String::new(),
            addr: None,
            nick: None,
            body: String::new(),
            time: Timestamp::default(),
            file: Some(file),
            part: None,
            key: None,
            mark: Mark::Unverified,
        }))
    }

    #[tokio::test]
    async fn events_come_in_order_and_end_with_the_peer() {
        let mut watchers = Watchers::default();
        let mut events = watchers.watch();
        watchers.tell(&Event::Warning("one".into()));
        watchers.tell(&Event::Warning("two".into()));
        watchers.end();
        for expected in ["one", "two"] {
            let event = events.next().await;
            assert!(matches!(&event, Ok(Some(Event::Warning(text))) if text == expected), "{event:?}");
        }
        assert!(matches!(events.next().await, Ok(None)));
    }

    #[tokio::test]
    async fn who_is_slow_is_told_how_many_were_missed() {
        let mut watchers = Watchers::default();
        let mut events = watchers.watch();
        for number in 0..EVENTS_MAX + 3 {
            watchers.tell(&Event::Warning(number.to_string()));
        }
        assert_eq!(events.next().await.unwrap_err(), Skipped(3));
        let event = events.next().await;
        assert!(matches!(&event, Ok(Some(Event::Warning(text))) if text == "3"), "{event:?}");
    }

    #[tokio::test]
    async fn files_that_nobody_takes_are_bounded_by_their_bytes() {
        let mut watchers = Watchers::default();
        let mut events = watchers.watch();
        for _ in 0..3 {
            watchers.tell(&file(BYTES_MAX / 2));
        }
        assert_eq!(events.next().await.unwrap_err(), Skipped(1));
        watchers.tell(&file(BYTES_MAX + 1));
        assert_eq!(events.next().await.unwrap_err(), Skipped(2));
        assert!(matches!(events.next().await, Ok(Some(Event::Shown(_)))));
    }
}
