//! The threads that read from the disk, so that nobody else waits for it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};
use watchtower_hub::{ChannelName, NotRead, ReadLimit, WasRead};
use watchtower_store::{DiskStore, ReadError, Store};

/// How many read at the same time.
const THREADS: usize = 2;

/// How many requests may wait; what comes beyond is refused.
const WAITING_MAX: usize = 64 * 1024;

/// The threads, and what waits for them. Dropping it closes it.
pub(super) struct Readers {
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Request>,
    is_closed: bool,
}

struct Request {
    channel: ChannelName,
    from: u64,
    limit: ReadLimit,
    done: WasRead,
}

impl Readers {
    pub(super) fn start(store: &Arc<DiskStore>) -> io::Result<Readers> {
        let readers = Readers { queue: Arc::default(), threads: Mutex::default() };
        for _ in 0..THREADS {
            let (queue, store) = (readers.queue.clone(), store.clone());
            let run = move || queue.serve(&*store);
            let thread = thread::Builder::new().name("store-read".to_owned()).spawn(run)?;
            readers.threads.lock().push(thread);
        }
        Ok(readers)
    }

    /// Has this read, after what was asked for before.
    pub(super) fn ask(
        &self,
        channel: &ChannelName,
        from: u64,
        limit: ReadLimit,
        done: WasRead,
    ) -> Result<(), NotRead> {
        let mut state = self.queue.state.lock();
        if state.is_closed {
            return Err(NotRead::Closed);
        }
        if state.waiting.len() >= WAITING_MAX {
            return Err(NotRead::Behind);
        }
        state.waiting.push_back(Request { channel: channel.clone(), from, limit, done });
        drop(state);
        self.queue.came.notify_one();
        Ok(())
    }

    /// Answers all that was asked for, and waits for that.
    pub(super) fn close(&self) {
        self.queue.state.lock().is_closed = true;
        self.queue.came.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // Who is told of a page may be the last to let go of this: it does
            // not wait for itself. One that panicked has said so.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.close();
    }
}

impl Queue {
    /// Reads until the queue is closed and empty.
    fn serve(&self, store: &dyn Store) {
        while let Some(Request { channel, from, limit, done }) = self.take() {
            done(store.read(&channel, from, limit).map_err(|error| not_read(&error)));
        }
    }

    fn take(&self) -> Option<Request> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !state.is_closed {
            self.came.wait(&mut state);
        }
        state.waiting.pop_front()
    }
}

fn not_read(error: &ReadError) -> NotRead {
    match error {
        ReadError::NoLog { .. } => NotRead::NoLog,
        ReadError::Io { .. } => NotRead::Failed(error.to_string().into()),
    }
}
