//! Results that are there at once, or come once something was written or read.
//!
//! Knows no runtime: whoever waits leaves a waker.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::{NotKept, NotRead, Position, Refused};

/// Where a message stands, or several do: known at once, save on durable
/// channels, where it is known when they are kept ([model: promises]).
///
/// Who does not wait for it is not told of a refusal. The message is published
/// all the same, or not.
pub type Published<T = Position> = Soon<T, Refused>;

/// A result that is there, or comes: a future that does not depend on any
/// runtime. It gives its result once.
pub struct Soon<T, E>(Outcome<T, E>);

enum Outcome<T, E> {
    /// Small, and without an error in it: nearly all are this.
    Known(Option<T>),
    Awaited(Arc<Answer<T, E>>),
}

struct Answer<T, E>(Mutex<State<T, E>>);

struct State<T, E> {
    result: Option<Result<T, E>>,
    is_given: bool,
    waker: Option<Waker>,
}

/// What gives a [`Soon`] its result. One that is let go of gives the error for
/// that.
pub(crate) struct Promise<T, E: Abandoned>(Arc<Answer<T, E>>);

/// An error that says that nobody will give a result any more.
pub trait Abandoned {
    /// That error.
    fn abandoned() -> Self;
}

impl Abandoned for Refused {
    fn abandoned() -> Refused {
        Refused::Closed
    }
}

impl Abandoned for NotRead {
    fn abandoned() -> NotRead {
        NotRead::Closed
    }
}

impl Abandoned for NotKept {
    fn abandoned() -> NotKept {
        NotKept::Closed
    }
}

impl<T, E> Soon<T, E> {
    /// A result that is there.
    pub fn known(result: T) -> Soon<T, E> {
        Soon(Outcome::Known(Some(result)))
    }

    /// An error that is there.
    pub fn refused(error: E) -> Soon<T, E> {
        let state = State { result: Some(Err(error)), is_given: true, waker: None };
        Soon(Outcome::Awaited(Arc::new(Answer(Mutex::new(state)))))
    }

    /// Whether the result was known at once.
    #[inline]
    pub fn is_known(&self) -> bool {
        matches!(self.0, Outcome::Known(_))
    }

    /// The result, if it was known at once.
    #[inline]
    pub fn take_known(&mut self) -> Option<T> {
        match &mut self.0 {
            Outcome::Known(result) => result.take(),
            Outcome::Awaited(_) => None,
        }
    }

    /// One that comes, and what gives it.
    pub(crate) fn awaited() -> (Soon<T, E>, Promise<T, E>)
    where
        E: Abandoned,
    {
        let answer = Arc::new(Answer(Mutex::new(State { result: None, is_given: false, waker: None })));
        (Soon(Outcome::Awaited(answer.clone())), Promise(answer))
    }

    /// The result, once it is there; until then `waker` is woken when it is, in
    /// place of one that was given before. `Pending` for ever after it was given.
    pub fn poll_with(&mut self, waker: &Waker) -> Poll<Result<T, E>> {
        let taken = match &mut self.0 {
            Outcome::Known(result) => result.take().map(Ok),
            Outcome::Awaited(answer) => {
                let mut state = answer.0.lock();
                let result = state.result.take();
                if result.is_none() && !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                    state.waker = Some(waker.clone());
                }
                result
            }
        };
        taken.map_or(Poll::Pending, Poll::Ready)
    }

    /// The result, if it is there, or the same again.
    ///
    /// # Errors
    ///
    /// This, when it has yet to come.
    pub fn now(mut self) -> Result<Result<T, E>, Soon<T, E>> {
        match self.poll_with(Waker::noop()) {
            Poll::Ready(result) => Ok(result),
            Poll::Pending => Err(self),
        }
    }
}

impl<T, E: Abandoned> Promise<T, E> {
    /// Gives the result, and wakes who waits for it.
    pub(crate) fn keep(self, result: Result<T, E>) {
        self.0.give(result);
    }
}

impl<T, E: Abandoned> Drop for Promise<T, E> {
    fn drop(&mut self) {
        self.0.give(Err(E::abandoned()));
    }
}

impl<T, E> Answer<T, E> {
    /// Gives the first result that there is.
    fn give(&self, result: Result<T, E>) {
        let mut state = self.0.lock();
        if std::mem::replace(&mut state.is_given, true) {
            return;
        }
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T: Unpin, E: Unpin> Future for Soon<T, E> {
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, E>> {
        self.get_mut().poll_with(cx.waker())
    }
}

impl<T, E> fmt::Debug for Soon<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_known = match &self.0 {
            Outcome::Known(_) => true,
            Outcome::Awaited(answer) => answer.0.lock().result.is_some(),
        };
        f.debug_struct("Soon").field("is_known", &is_known).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_comes_wakes_who_waits_last_and_is_given_once() {
        let [first, second] = [(); 2].map(|()| Arc::new(Count::default()));
        let (mut soon, promise) = Published::awaited();
        assert_eq!(soon.poll_with(&first.clone().into()), Poll::Pending);
        assert_eq!(soon.poll_with(&second.clone().into()), Poll::Pending);
        promise.keep(Ok(7));
        assert_eq!([first, second].map(|count| count.0.load(Ordering::Relaxed)), [0, 1]);
        assert_eq!(soon.poll_with(Waker::noop()), Poll::Ready(Ok(7)));
        assert_eq!(soon.poll_with(Waker::noop()), Poll::Pending);
    }

    #[test]
    fn what_is_known_is_there_now_and_what_is_not_comes_back() {
        assert_eq!(Published::known(7).now().unwrap(), Ok(7));
        assert_eq!(Published::<()>::refused(Refused::Closed).now().unwrap(), Err(Refused::Closed));
        let (soon, promise) = Published::awaited();
        let soon = soon.now().unwrap_err();
        promise.keep(Err(Refused::TooLarge { bytes: 2, limit: 1 }));
        assert_eq!(soon.now().unwrap(), Err::<(), _>(Refused::TooLarge { bytes: 2, limit: 1 }));
        let (soon, promise) = Published::<()>::awaited();
        drop(promise);
        assert_eq!(soon.now().unwrap(), Err(Refused::Closed));
    }
}
