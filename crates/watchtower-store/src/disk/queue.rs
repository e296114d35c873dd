//! What waits to be written: bounded in bytes, taken in groups.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use smallvec::SmallVec;

use crate::state::Asked;
use crate::{Done, Refused};

/// Changes that were submitted together.
pub(super) struct Submission {
    /// Nearly always one, which takes no memory of its own.
    pub(super) asked: SmallVec<[Asked; 1]>,
    /// What they count for here.
    pub(super) bytes: usize,
    pub(super) done: Done,
}

/// How long the writer waits for a larger group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Patience {
    /// Since the last that came.
    pub(super) quiet: Duration,
    /// Since the first that came.
    pub(super) in_all: Duration,
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

    /// Waits for something, then for as many as `wanted` while that is worth it, and
    /// takes all there is, but no more than `bytes_max` of it when that is
    /// several. Empty when the queue is closed and nothing is left.
    ///
    /// Publishers that wait for their answers come back at about the same time.
    /// Who took the first of them at once would sync for it alone, and all others
    /// would wait for that and for a sync of their own.
    pub(super) fn take(&self, wanted: usize, patience: Patience, bytes_max: usize) -> Vec<Submission> {
        let mut state = self.state.lock();
        state.wanted = 1;
        while state.waiting.is_empty() && !state.is_closed {
            self.came.wait(&mut state);
        }
        let until = Instant::now() + patience.in_all;
        state.wanted = wanted;
        while state.waiting.len() < wanted && !state.is_closed {
            let before = state.waiting.len();
            let quiet_until = Instant::now() + patience.quiet;
            let is_over = self.came.wait_until(&mut state, quiet_until.min(until)).timed_out()
                && (state.waiting.len() == before || Instant::now() >= until);
            if is_over {
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

    /// Makes room again. How many wait already.
    pub(super) fn answered(&self, bytes: usize) -> usize {
        let mut state = self.state.lock();
        state.bytes -= bytes;
        state.waiting.len()
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(1);

    fn push(queue: &Queue) {
        let submission = Submission { asked: SmallVec::new(), bytes: 1, done: Box::new(|_| ()) };
        assert!(queue.push(submission).is_ok());
    }

    fn take(queue: &Queue, wanted: usize, quiet: Duration, in_all: Duration) -> usize {
        queue.take(wanted, Patience { quiet, in_all }, usize::MAX).len()
    }

    #[test]
    fn who_is_wanted_is_waited_for_and_nobody_else() {
        let queue = Queue::new(10);
        push(&queue);
        thread::scope(|scope| {
            scope.spawn(|| (0..2).for_each(|_| push(&queue)));
            assert_eq!(take(&queue, 3, LONG, LONG), 3);
        });
        push(&queue);
        assert_eq!(take(&queue, 1, LONG, LONG), 1);
    }

    #[test]
    fn who_does_not_come_is_waited_for_no_longer_than_agreed() {
        let queue = Queue::new(10);
        push(&queue);
        assert_eq!(take(&queue, 2, SHORT, LONG), 1);
        push(&queue);
        assert_eq!(take(&queue, 2, LONG, SHORT), 1);
    }

    #[test]
    fn those_who_wait_already_when_others_are_answered_are_counted() {
        let queue = Queue::new(10);
        push(&queue);
        assert_eq!(take(&queue, 1, LONG, LONG), 1);
        push(&queue);
        assert_eq!(queue.answered(1), 1);
        queue.close();
        assert_eq!((take(&queue, 9, LONG, LONG), take(&queue, 9, LONG, LONG)), (1, 0));
    }
}
