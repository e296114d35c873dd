//! What waits to be written: bounded in bytes, taken in groups.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::state::Asked;
use crate::{Done, Refused};

/// Changes that were submitted together.
pub(super) struct Submission {
    pub(super) asked: Vec<Asked>,
    /// What they count for here.
    pub(super) bytes: usize,
    pub(super) done: Done,
}

/// See the module.
pub(super) struct Queue {
    state: Mutex<State>,
    came: Condvar,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Submission>,
    /// Of what waits, and of what was taken and is not answered yet.
    bytes: usize,
    /// How many the writer would like to find.
    wanted: usize,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Queue {
        Queue { state: Mutex::default(), came: Condvar::new(), bytes_max }
    }

    /// Adds to what waits, or says why not and gives back who is to be told.
    pub(super) fn push(&self, submission: Submission) -> Result<(), (Refused, Done)> {
        let mut state = self.state.lock();
        let Submission { bytes, .. } = submission;
        let refused = if state.is_closed {
            Refused::Closed
        } else if bytes > self.bytes_max {
            Refused::TooLarge { bytes, limit: self.bytes_max }
        } else if state.bytes + bytes > self.bytes_max {
            Refused::Behind { limit: self.bytes_max }
        } else {
            state.bytes += bytes;
            state.waiting.push_back(submission);
            let is_enough = state.waiting.len() >= state.wanted;
            drop(state);
            if is_enough {
                self.came.notify_one();
            }
            return Ok(());
        };
        Err((refused, submission.done))
    }

    /// How much waits, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Waits for something, then up to `patience` for as many as `wanted`, and
    /// takes all there is, but no more than `bytes_max` of it when that is
    /// several. Empty when the queue is closed and nothing is left.
    ///
    /// Publishers that wait for their answers come back at about the same time.
    /// Who took the first of them at once would sync for it alone.
    pub(super) fn take(&self, wanted: usize, patience: Duration, bytes_max: usize) -> Vec<Submission> {
        let mut state = self.state.lock();
        state.wanted = 1;
        while state.waiting.is_empty() && !state.is_closed {
            self.came.wait(&mut state);
        }
        let until = Instant::now() + patience;
        state.wanted = wanted;
        while state.waiting.len() < wanted && !state.is_closed {
            if self.came.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        let mut bytes = 0;
        let fits = |submission: &&Submission| {
            bytes += submission.bytes;
            bytes <= bytes_max
        };
        let count = state.waiting.iter().take_while(fits).count().max(1).min(state.waiting.len());
        state.waiting.drain(..count).collect()
    }

    /// Makes room again.
    pub(super) fn answered(&self, bytes: usize) {
        self.state.lock().bytes -= bytes;
    }

    /// Refuses what comes from now on.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.came.notify_all();
    }

    /// Refuses what waits, too: nobody will take it.
    pub(super) fn abandon(&self) {
        self.close();
        let waiting = std::mem::take(&mut self.state.lock().waiting);
        for submission in waiting {
            (submission.done)(Err(Refused::Closed));
        }
    }
}
