//! Buffers for the time of one message, shared by all connections of a thread,
//! so that no connection keeps one.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// A longer buffer is not kept for the next message.
const KEPT_BYTES_MAX: usize = 128 * 1024;

/// How many are kept: a message is unmasked into one, inflated into another,
/// and its answer deflated into a third.
const KEPT_MAX: usize = 3;

thread_local! {
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer, which goes back to the thread when it is dropped.
#[derive(Debug)]
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    pub(super) fn take() -> Scratch {
        Scratch(KEPT.with_borrow_mut(Vec::pop).unwrap_or_default())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.capacity() > KEPT_BYTES_MAX {
            return;
        }
        self.0.clear();
        KEPT.with_borrow_mut(|kept| {
            if kept.len() < KEPT_MAX {
                kept.push(std::mem::take(&mut self.0));
            }
        });
    }
}

impl Deref for Scratch {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}
