//! Telling every task that the server shuts down, and waiting for them.

use std::future::Future;
use std::hint;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// The server's side: starts the shutdown and waits for its end.
#[derive(Debug, Default, Clone)]
pub(crate) struct ShutdownControl(Arc<State>);

#[derive(Debug, Default)]
struct State {
    started: AtomicBool,
    start: Arc<Notify>,
    tasks: AtomicUsize,
    ended: Notify,
}

/// A task's side. The server waits until all of them are dropped.
#[derive(Debug)]
pub(crate) struct Shutdown {
    state: Arc<State>,
    /// Registered at the first poll, by the one task that polls.
    start: Option<Pin<Box<OwnedNotified>>>,
}

impl ShutdownControl {
    /// A part in the shutdown for a new task.
    pub(crate) fn part(&self) -> Shutdown {
        self.0.tasks.fetch_add(1, Ordering::Relaxed);
        Shutdown { state: self.0.clone(), start: None }
    }

    pub(crate) fn start(&self) {
        self.0.started.store(true, Ordering::SeqCst);
        self.0.start.notify_waiters();
    }

    /// Completes when [`start`](Self::start) was called.
    pub(crate) async fn started(&self) {
        let notified = self.0.start.notified();
        if !self.0.started.load(Ordering::SeqCst) {
            notified.await;
        }
    }

    /// How many tasks have a part in it.
    pub(crate) fn tasks(&self) -> usize {
        self.0.tasks.load(Ordering::Relaxed)
    }

    /// Completes when no task has a part any more.
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.0.tasks.load(Ordering::SeqCst) == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Shutdown {
    /// Loads what a poll looks at into the processor's caches.
    #[inline]
    pub(crate) fn warm(&self) {
        hint::black_box(self.start.is_some());
    }

    /// Ready once the shutdown has started. Must always be polled by the same
    /// task: only the first poll takes its waker, so that the others cost a
    /// load.
    pub(crate) fn poll_started(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.start.is_none() {
            let start = self.start.insert(Box::pin(self.state.start.clone().notified_owned()));
            if start.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        if self.state.started.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Completes once the shutdown has started.
    pub(crate) async fn started(&mut self) {
        std::future::poll_fn(|cx| self.poll_started(cx)).await;
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        if self.state.tasks.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.state.ended.notify_waiters();
        }
    }
}
