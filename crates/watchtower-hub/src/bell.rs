//! How publishers tell a session that there is something to read.
//!
//! Knows no channel and no log: it keeps what was rung for until the session
//! takes it, and wakes the session once, however often it is rung meanwhile.

use std::task::Waker;

use smallvec::SmallVec;

use crate::sync::{Mutex, warm};

/// What a session was rung for; most sessions read few channels.
pub(crate) type Rung<T> = SmallVec<[T; 1]>;

/// The bell of one session.
///
/// Its lock is held for a few instructions, by a publisher that rings or by
/// the session that answers.
#[derive(Debug)]
pub(crate) struct Bell<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    rung: Rung<T>,
    /// Invariant: when `rung` is not empty, either this was woken after the
    /// session last looked, or the session has yet to look.
    waker: Option<Waker>,
    woken: bool,
    /// Whether it was poked since the session last looked with a waker.
    poked: bool,
}

impl<T> Bell<T> {
    pub(crate) fn new() -> Bell<T> {
        Bell(Mutex::new(State { rung: Rung::new(), waker: None, woken: false, poked: false }))
    }

    /// Loads what a call looks at into the processor's caches.
    pub(crate) fn warm(&self) {
        warm(&self.0);
    }

    /// Adds to what the session was rung for, and wakes it unless that was
    /// done since it last looked.
    pub(crate) fn ring(&self, item: T) {
        let mut state = self.0.lock();
        state.rung.push(item);
        if !std::mem::replace(&mut state.woken, true)
            && let Some(waker) = &state.waker
        {
            waker.wake_by_ref();
        }
    }

    /// Wakes the session though it was woken before: for what it must see even
    /// while it waits for something else and does not look.
    pub(crate) fn wake_again(&self) {
        let mut state = self.0.lock();
        state.woken = true;
        if let Some(waker) = &state.waker {
            waker.wake_by_ref();
        }
    }

    /// Wakes the session for something that is not published, whether or not
    /// it was woken before.
    pub(crate) fn poke(&self) {
        let mut state = self.0.lock();
        state.poked = true;
        if let Some(waker) = &state.waker {
            waker.wake_by_ref();
        }
    }

    /// Moves what was rung for to the end of `into`. `waker`, when given, is
    /// woken by the next ring or poke; rings that came before are in `into`.
    /// With a waker, tells whether there was a poke since it last was so.
    pub(crate) fn answer(&self, waker: Option<&Waker>, into: &mut Rung<T>) -> bool {
        let mut state = self.0.lock();
        into.append(&mut state.rung);
        let Some(waker) = waker else { return false };
        state.woken = false;
        if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        std::mem::take(&mut state.poked)
    }

    /// Has `waker` woken by what comes next, with nothing taken. What came
    /// before woke nobody or another, so that the caller has to look.
    pub(crate) fn wait(&self, waker: &Waker) {
        let mut state = self.0.lock();
        state.woken = false;
        state.waker = Some(waker.clone());
    }

    /// Shows what the session was rung for and has not looked at.
    pub(crate) fn peek(&self, show: impl FnMut(&T)) {
        self.0.lock().rung.iter().for_each(show);
    }

    /// Takes back what the session was rung for and `unwanted` names.
    pub(crate) fn take_back(&self, mut unwanted: impl FnMut(&T) -> bool) -> Rung<T> {
        let mut state = self.0.lock();
        let (taken, kept) = std::mem::take(&mut state.rung).into_iter().partition(|item| unwanted(item));
        state.rung = kept;
        taken
    }

    /// Forgets the waker, and with it whatever it keeps alive.
    pub(crate) fn silence(&self) {
        self.0.lock().waker = None;
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::task::Wake;

    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn no_poke_is_lost_between_looking_and_going_to_sleep() {
        loom::model(|| {
            let bell = Arc::new(Bell::<()>::new());
            let count = std::sync::Arc::new(Count(AtomicUsize::new(0)));
            let waker = Waker::from(count.clone());
            let poker = {
                let bell = bell.clone();
                thread::spawn(move || bell.poke())
            };
            let mut rung = Rung::new();
            let seen = bell.answer(Some(&waker), &mut rung);
            poker.join().unwrap();
            assert_eq!(count.0.load(Ordering::SeqCst), usize::from(!seen));
            assert_eq!(bell.answer(Some(&waker), &mut rung), !seen);
        });
    }

    #[test]
    fn no_ring_is_lost_while_another_driver_begins_to_wait() {
        loom::model(|| {
            let bell = Arc::new(Bell::new());
            let [old, new] = [(); 2].map(|()| std::sync::Arc::new(Count(AtomicUsize::new(0))));
            bell.answer(Some(&Waker::from(old.clone())), &mut Rung::new());
            let publisher = {
                let bell = bell.clone();
                thread::spawn(move || (0..2).for_each(|item| bell.ring(item)))
            };
            bell.wait(&Waker::from(new.clone()));
            // Who begins to wait looks afterwards, since what came before may
            // have woken the driver that is gone.
            let mut seen = 0;
            bell.peek(|_| seen += 1);
            publisher.join().unwrap();
            let [old, new] = [old, new].map(|count| count.0.load(Ordering::SeqCst));
            assert!(seen == 2 || new == 1, "saw {seen}, woken {new} times");
            assert!(old <= 1 && old + new >= 1, "woken {old} and {new} times");
            let mut rung = Rung::new();
            bell.answer(None, &mut rung);
            assert_eq!(rung.len(), 2, "nothing was taken");
        });
    }

    #[test]
    fn no_poke_is_lost_while_another_driver_begins_to_wait() {
        loom::model(|| {
            let bell = Arc::new(Bell::<()>::new());
            let [old, new] = [(); 2].map(|()| std::sync::Arc::new(Count(AtomicUsize::new(0))));
            bell.answer(Some(&Waker::from(old.clone())), &mut Rung::new());
            let poker = {
                let bell = bell.clone();
                thread::spawn(move || bell.poke())
            };
            let waker = Waker::from(new.clone());
            bell.wait(&waker);
            poker.join().unwrap();
            let [old, new] = [old, new].map(|count| count.0.load(Ordering::SeqCst));
            assert_eq!(old + new, 1, "woken {old} and {new} times");
            assert!(bell.answer(Some(&waker), &mut Rung::new()), "the next look says so");
        });
    }

    #[test]
    fn no_ring_is_lost_between_looking_and_going_to_sleep() {
        loom::model(|| {
            let bell = Arc::new(Bell::new());
            let count = std::sync::Arc::new(Count(AtomicUsize::new(0)));
            let waker = Waker::from(count.clone());
            let publishers: Vec<_> = (0..2)
                .map(|item| {
                    let bell = bell.clone();
                    thread::spawn(move || bell.ring(item))
                })
                .collect();
            let mut rung = Rung::new();
            bell.answer(Some(&waker), &mut rung);
            let seen = rung.len();
            for publisher in publishers {
                publisher.join().unwrap();
            }
            let wakes = count.0.load(Ordering::SeqCst);
            assert!(
                seen == 2 || wakes == 1,
                "rings after the look wake once: saw {seen}, woken {wakes} times"
            );
            bell.answer(Some(&waker), &mut rung);
            assert_eq!(rung.len(), 2);
        });
    }
}
