//! Connections that one task drives together, in turns of two halves.
//!
//! In the first half each connection that was woken gathers what there is for it,
//! in the second each writes. After a system call the code that ran before it
//! is out of the processor's nearest caches: so a delivery's code is fetched
//! once a turn, not once a delivery. And a publisher that wakes a group's
//! connections sets a bit for each, and wakes one task.
//!
//! Knows no socket and no protocol, and of a connection only [`Member`].

use std::array;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::unconstrained;

/// How many connections one task drives: a bit each, beside the one that tells
/// of arrivals.
const MEMBERS_MAX: usize = u64::BITS as usize - 1;

/// The bit that tells of arrivals.
const ARRIVALS: u64 = 1 << MEMBERS_MAX;

/// How many groups there are before one is filled up, for each of the runtime's
/// workers: with few connections all workers have some to drive.
const GROUPS_PER_WORKER: usize = 4;

/// A connection as its group sees it.
pub(crate) trait Member: Send {
    /// Loads what `gather` looks at into the processor's caches, without waiting
    /// for it.
    fn warm(&self);

    /// The first half of a turn: may gather what is to be written, and makes no
    /// system call.
    fn gather(&mut self, cx: &mut Context<'_>);

    /// The second half: everything else. Ready once the connection is over.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// It is over, since there was a fault in its code.
    fn faulted(&self) {}
}

/// All groups of a server. Connections are spread over them, and a group ends
/// with its last one.
#[derive(Default)]
pub(crate) struct Groups(Mutex<Vec<Arc<Bell>>>);

/// How a group is told whose turn it is.
#[derive(Default)]
struct Bell {
    /// Who was woken since the last turn began, a bit each.
    woken: AtomicU64,
    /// What drives the group. Set at its first turn, which looks at `woken`
    /// afterwards.
    task: OnceLock<Waker>,
    arrivals: Mutex<Vec<Box<dyn Member>>>,
    /// Its members, arrivals included. Invariant: at most [`MEMBERS_MAX`]; it grows
    /// under the lock of [`Groups`] alone.
    members: AtomicUsize,
}

/// A connection's part of the bell.
struct Seat {
    bell: Arc<Bell>,
    bit: u64,
}

/// The task that drives a group.
struct Group {
    groups: Arc<Groups>,
    bell: Arc<Bell>,
    seats: Box<[Option<Box<dyn Member>>; MEMBERS_MAX]>,
    /// What wakes who is in each seat: made one after the other, so that they are
    /// together in memory when all are woken.
    wakers: Box<[Waker; MEMBERS_MAX]>,
}

impl Groups {
    /// Has a connection driven to its end. To be called within a runtime.
    pub(crate) fn add(self: &Arc<Groups>, member: impl Member + 'static) {
        let bell = self.choose();
        bell.arrivals.lock().push(Box::new(member));
        bell.ring(ARRIVALS);
    }

    /// The group that a newcomer is counted into.
    fn choose(self: &Arc<Groups>) -> Arc<Bell> {
        let runtime = Handle::current();
        let mut groups = self.0.lock();
        let emptiest = groups.iter().min_by_key(|bell| bell.members.load(Ordering::Relaxed));
        let has_room = |bell: &&Arc<Bell>| bell.members.load(Ordering::Relaxed) < MEMBERS_MAX;
        let bell = match emptiest.filter(has_room) {
            Some(bell) if groups.len() >= GROUPS_PER_WORKER * runtime.metrics().num_workers() => bell.clone(),
            _ => {
                let group = Group::new(self.clone());
                let bell = group.bell.clone();
                groups.push(bell.clone());
                // Each member bounds its turn itself.
                runtime.spawn(unconstrained(group));
                bell
            }
        };
        bell.members.fetch_add(1, Ordering::Relaxed);
        bell
    }

    /// Takes a group off the list, unless it has members.
    fn remove_if_empty(&self, bell: &Arc<Bell>) -> bool {
        let mut groups = self.0.lock();
        // Looked at once more: nobody is counted in meanwhile.
        let is_empty = bell.is_empty();
        if is_empty {
            groups.retain(|other| !Arc::ptr_eq(other, bell));
        }
        is_empty
    }
}

impl Bell {
    fn is_empty(&self) -> bool {
        self.members.load(Ordering::Relaxed) == 0
    }

    /// Says that it is somebody's turn. What the caller did before is seen by that
    /// turn.
    fn ring(&self, bit: u64) {
        // Whoever finds bits set needs to wake nobody: the turn that was woken
        // for them has yet to take them.
        if self.woken.fetch_or(bit, Ordering::AcqRel) == 0
            && let Some(task) = self.task.get()
        {
            task.wake_by_ref();
        }
    }
}

impl Wake for Seat {
    fn wake(self: Arc<Self>) {
        self.bell.ring(self.bit);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.bell.ring(self.bit);
    }
}

impl Group {
    fn new(groups: Arc<Groups>) -> Group {
        let bell = Arc::<Bell>::default();
        let waker = |seat: usize| Waker::from(Arc::new(Seat { bell: bell.clone(), bit: 1_u64 << seat }));
        let wakers = Box::new(array::from_fn(waker));
        Group { groups, seats: Box::new([const { None }; MEMBERS_MAX]), wakers, bell }
    }

    /// Gives the newcomers seats; the bits of these.
    fn seat_arrivals(&mut self) -> u64 {
        let mut arrivals = mem::take(&mut *self.bell.arrivals.lock()).into_iter();
        let mut bits = 0;
        for (seat, member) in self.seats.iter_mut().enumerate().filter(|(_, member)| member.is_none()) {
            *member = arrivals.next();
            if member.is_none() {
                break;
            }
            bits |= 1 << seat;
        }
        debug_assert!(arrivals.next().is_none(), "there is a seat for each member");
        bits
    }

    /// Calls `half` for each of these members; those for whom it says so, or
    /// in whose code is a fault, are over.
    fn each(&mut self, seats: u64, half: impl Fn(&mut dyn Member, &mut Context<'_>) -> Poll<()>) {
        let seated = self.seats.iter_mut().zip(self.wakers.iter()).enumerate();
        for (_, (seat, waker)) in seated.filter(|(at, _)| seats & 1 << at != 0) {
            // Who was woken may have left since.
            let Some(member) = seat else { continue };
            let cx = &mut Context::from_waker(waker);
            // A fault in one connection's protocol is not to end the others, its
            // last words included.
            let is_over = catch_unwind(AssertUnwindSafe(|| half(member.as_mut(), cx).is_ready()));
            let has_fault = is_over.is_err();
            if is_over.unwrap_or(true) {
                let member = seat.take();
                let _fault = catch_unwind(AssertUnwindSafe(|| {
                    if let (true, Some(member)) = (has_fault, &member) {
                        member.faulted();
                    }
                    drop(member);
                }));
                self.bell.members.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Future for Group {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let group = self.get_mut();
        group.bell.task.get_or_init(|| cx.waker().clone());
        let mut woken = group.bell.woken.swap(0, Ordering::AcqRel);
        if woken & ARRIVALS != 0 {
            woken = woken & !ARRIVALS | group.seat_arrivals();
        }
        for (_, member) in group.seats.iter().enumerate().filter(|(at, _)| woken & 1 << at != 0) {
            member.iter().for_each(|member| member.warm());
        }
        group.each(woken, |member, cx| {
            member.gather(cx);
            Poll::Pending
        });
        group.each(woken, |member, cx| member.turn(cx));
        let is_over = group.bell.is_empty() && group.groups.remove_if_empty(&group.bell);
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests;
