//! A timer that takes nobody for silent while the server itself stood still.
//!
//! A thread can be stopped (a signal, a debugger, a machine that is moved) between
//! the moment in which it asks the system what came and the one in which it looks
//! at its timers. Afterwards they are due, and what came meanwhile has yet to be
//! seen.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// By how much a timer must be late for the server to have stood still.
const LATE: Duration = Duration::from_millis(100);

/// How long the runtime has then to see what came: it asks the system before it
/// looks at timers.
const SECOND_LOOK: Duration = Duration::from_millis(10);

/// Ready when it is due; shortly later where the server stood still until then.
pub(crate) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    pub(crate) fn at(due: Instant) -> Timer {
        Timer(Box::pin(sleep_until(due)))
    }

    pub(crate) fn after(time: Duration) -> Timer {
        Timer::at(Instant::now() + time)
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = &mut self.0;
        ready!(sleep.as_mut().poll(cx));
        let now = Instant::now();
        if now.saturating_duration_since(sleep.deadline()) < LATE {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(now + SECOND_LOOK);
        sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timer_is_ready_when_it_is_due() {
        let mut timer = Timer::after(Duration::from_secs(1));
        assert_eq!((&mut timer).now_or_never(), None);
        advance(Duration::from_millis(999)).await;
        assert_eq!((&mut timer).now_or_never(), None);
        advance(Duration::from_millis(1)).await;
        assert_eq!((&mut timer).now_or_never(), Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_late_lets_the_runtime_look_once_more() {
        let mut timer = Timer::after(Duration::from_secs(1));
        assert_eq!((&mut timer).now_or_never(), None);
        advance(Duration::from_secs(1) + LATE).await;
        assert_eq!((&mut timer).now_or_never(), None);
        let before = Instant::now();
        timer.await;
        assert_eq!(before.elapsed(), SECOND_LOOK);
    }
}
