//! What waits to be written to one peer, within bounds.
//!
//! Objects are shared with the other peers' outboxes. An object is in it until
//! it is written, so an empty outbox says that all is. Writes nothing itself.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many objects wait at most.
const OBJECTS_MAX: usize = 16_384;

/// How many bytes wait at most.
const BYTES_MAX: usize = 32 << 20;

/// With how many bytes waiting no further part of a file is put behind them.
const BUSY_BYTES: usize = 2 << 20;

/// How many objects are written at a time.
const BATCH_OBJECTS_MAX: usize = 64;

/// After how many bytes no further object is written at the same time.
const BATCH_BYTES: usize = 64 << 10;

/// The objects for one peer, in order.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    ready: Notify,
    /// Told when objects were written, and of what else others wait for.
    progress: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Waiting {
    objects: VecDeque<Bytes>,
    /// Invariant: the sum of their lengths.
    bytes: usize,
    /// Whether the writer waits for its pace, and not for the peer.
    is_paced: bool,
    /// Whether an object was.
    has_written: bool,
    /// Nothing is to come any more.
    is_finished: bool,
}

/// Why an object is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The peer takes too little.
    Slow,
    /// There is more than may be sent to any peer.
    Paced,
}

impl Outbox {
    /// An empty one. `progress` is told whenever objects were written.
    pub(crate) fn new(progress: Arc<Notify>) -> Outbox {
        Outbox { waiting: Mutex::default(), ready: Notify::new(), progress }
    }

    /// Puts an object behind the others.
    pub(crate) fn push(&self, object: Bytes) -> Result<(), Full> {
        let mut waiting = self.waiting.lock();
        if waiting.objects.len() >= OBJECTS_MAX || waiting.bytes + object.len() > BYTES_MAX {
            return Err(waiting.why());
        }
        waiting.bytes += object.len();
        waiting.objects.push_back(object);
        drop(waiting);
        self.ready.notify_one();
        Ok(())
    }

    /// Whether it is more than half full: who can wait should.
    pub(crate) fn is_behind(&self) -> Option<Full> {
        let waiting = self.waiting.lock();
        let is_behind = waiting.objects.len() > OBJECTS_MAX / 2 || waiting.bytes > BYTES_MAX / 2;
        is_behind.then(|| waiting.why())
    }

    /// Whether words that come now would wait for more than some parts of a
    /// file.
    pub(crate) fn is_busy(&self) -> Option<Full> {
        let waiting = self.waiting.lock();
        (waiting.bytes > BUSY_BYTES).then(|| waiting.why())
    }

    /// Whether all is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.lock().objects.is_empty()
    }

    /// Whether there was something to write, and all of it is written.
    pub(crate) fn is_delivered(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.has_written && waiting.objects.is_empty()
    }

    /// Nothing is to come any more: the writer ends when all is written.
    pub(crate) fn finish(&self) {
        self.waiting.lock().is_finished = true;
        self.ready.notify_one();
    }

    /// The next objects, which stay until they are [`written`](Outbox::written).
    /// None once there are no more and nothing is to come. For one writer.
    pub(crate) async fn batch(&self) -> Vec<Bytes> {
        loop {
            {
                let waiting = self.waiting.lock();
                if waiting.is_finished || !waiting.objects.is_empty() {
                    return waiting.batch();
                }
            }
            self.ready.notified().await;
        }
    }

    /// The first `count` objects are written.
    pub(crate) fn written(&self, count: usize) {
        let mut waiting = self.waiting.lock();
        let bytes: usize = waiting.objects.drain(..count).map(|object| object.len()).sum();
        waiting.bytes -= bytes;
        waiting.has_written |= count > 0;
        if waiting.objects.is_empty() {
            // What has been full once need not stay large.
            waiting.objects.shrink_to(BATCH_OBJECTS_MAX);
        }
        drop(waiting);
        self.progress.notify_waiters();
    }

    /// Whether the writer waits for its pace from now on.
    pub(crate) fn set_paced(&self, is_paced: bool) {
        self.waiting.lock().is_paced = is_paced;
    }
}

impl Waiting {
    /// What it is that much waits for.
    fn why(&self) -> Full {
        if self.is_paced { Full::Paced } else { Full::Slow }
    }

    fn batch(&self) -> Vec<Bytes> {
        let mut bytes = 0;
        let fits = |object: &&Bytes| {
            let before = bytes;
            bytes += object.len();
            before < BATCH_BYTES
        };
        self.objects.iter().take(BATCH_OBJECTS_MAX).take_while(fits).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Outbox {
        Outbox::new(Arc::default())
    }

    #[tokio::test]
    async fn objects_come_in_order_and_stay_until_they_are_written() {
        let outbox = outbox();
        outbox.push("a".into()).unwrap();
        outbox.push("b".into()).unwrap();
        assert_eq!(outbox.batch().await, ["a", "b"]);
        outbox.written(1);
        assert_eq!(outbox.batch().await, ["b"]);
        assert!(!outbox.is_empty() && !outbox.is_delivered());
        outbox.written(1);
        assert!(outbox.is_empty() && outbox.is_delivered());
        outbox.finish();
        assert_eq!(outbox.batch().await, Vec::<Bytes>::new());
    }

    #[test]
    fn what_was_never_there_is_not_delivered() {
        assert!(outbox().is_empty() && !outbox().is_delivered());
    }

    #[test]
    fn bytes_and_objects_are_bounded() {
        let many = outbox();
        for _ in 0..OBJECTS_MAX {
            many.push("x".into()).unwrap();
        }
        assert_eq!(many.push("x".into()), Err(Full::Slow));
        many.set_paced(true);
        assert_eq!(many.push("x".into()), Err(Full::Paced));
        many.written(1);
        assert_eq!(many.push("x".into()), Ok(()));

        let large = outbox();
        let half = Bytes::from(vec![b'x'; BYTES_MAX / 2]);
        large.push(half.clone()).unwrap();
        assert_eq!(large.is_behind(), None);
        large.push(half).unwrap();
        assert_eq!(large.is_behind(), Some(Full::Slow));
        assert_eq!(large.push("x".into()), Err(Full::Slow));
    }

    #[tokio::test]
    async fn a_batch_is_no_longer_than_one_object_beyond_its_bytes() {
        let outbox = outbox();
        for length in [BATCH_BYTES - 1, 1 << 20, 1] {
            outbox.push(vec![b'x'; length].into()).unwrap();
        }
        let lengths: Vec<usize> = outbox.batch().await.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [BATCH_BYTES - 1, 1 << 20]);
    }
}
