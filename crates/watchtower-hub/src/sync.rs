//! The locks and atomics of the parts that loom checks: loom's under
//! `--cfg loom`, the real ones otherwise.

#[cfg(not(loom))]
pub(crate) use parking_lot::Mutex;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic;

#[cfg(loom)]
pub(crate) use loom::sync::atomic;

/// Loom's mutex with the signature of the real one.
#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(loom)]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().expect("no thread panics while it holds this")
    }
}

/// Has the processor load what the lock guards: asking a lock how it stands is
/// a read that nobody waits for.
#[cfg(not(loom))]
pub(crate) fn warm<T>(lock: &Mutex<T>) {
    std::hint::black_box(lock.is_locked());
}

/// Nothing that loom could check.
#[cfg(loom)]
pub(crate) fn warm<T>(_lock: &Mutex<T>) {}
