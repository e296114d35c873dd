//! Members that are no connections, woken in every way.

use std::future::poll_fn;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;

/// What a member did, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Did {
    Gathered(usize),
    Turned(usize),
}

/// A member that tells what it does, and does in its turn what it is told.
struct Scripted {
    name: usize,
    did: mpsc::UnboundedSender<Did>,
    orders: mpsc::UnboundedReceiver<Order>,
}

enum Order {
    End,
    Fail,
}

impl Member for Scripted {
    fn warm(&self) {}

    fn gather(&mut self, _cx: &mut Context<'_>) {
        self.did.send(Did::Gathered(self.name)).expect("the test listens");
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.did.send(Did::Turned(self.name)).expect("the test listens");
        match self.orders.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Order::Fail)) => panic!("a fault in a protocol, as this test wants it"),
            Poll::Ready(Some(Order::End) | None) => Poll::Ready(()),
        }
    }
}

/// Members, and what they do.
struct Troupe {
    groups: Arc<Groups>,
    sender: mpsc::UnboundedSender<Did>,
    did: mpsc::UnboundedReceiver<Did>,
    orders: Vec<mpsc::UnboundedSender<Order>>,
}

impl Troupe {
    fn new() -> Troupe {
        let (sender, did) = mpsc::unbounded_channel();
        Troupe { groups: Arc::default(), sender, did, orders: Vec::new() }
    }

    fn add(&mut self) {
        let (order, orders) = mpsc::unbounded_channel();
        let name = self.orders.len();
        self.orders.push(order);
        self.groups.add(Scripted { name, did: self.sender.clone(), orders });
    }

    async fn next(&mut self) -> Did {
        let next = timeout(Duration::from_secs(10), self.did.recv()).await;
        next.expect("a member has its turn").expect("the sender is kept")
    }

    /// The sizes of the groups, in order.
    fn sizes(&self) -> Vec<usize> {
        let sizes = self.groups.0.lock().iter().map(|bell| bell.members.load(Ordering::Relaxed)).collect();
        sorted(sizes)
    }
}

fn sorted(mut numbers: Vec<usize>) -> Vec<usize> {
    numbers.sort_unstable();
    numbers
}

/// Waits for a condition that other tasks bring about.
async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), waiting).await.expect("it comes about");
}

#[tokio::test]
async fn all_who_were_woken_gather_before_any_has_its_turn() {
    let mut troupe = Troupe::new();
    // On one worker: four groups, each with two members.
    for _ in 0..2 * GROUPS_PER_WORKER {
        troupe.add();
    }
    let mut turns = Vec::new();
    for _ in 0..GROUPS_PER_WORKER {
        let first = [troupe.next().await, troupe.next().await, troupe.next().await, troupe.next().await];
        let [Did::Gathered(one), Did::Gathered(other), Did::Turned(one_then), Did::Turned(other_then)] =
            first
        else {
            panic!("{first:?}")
        };
        assert_eq!((one, other), (one_then, other_then));
        turns.extend([one, other]);
    }
    assert_eq!(sorted(turns), (0..2 * GROUPS_PER_WORKER).collect::<Vec<_>>());
}

#[tokio::test]
async fn members_are_spread_over_groups_which_end_with_the_last_of_them() {
    let mut troupe = Troupe::new();
    for _ in 0..GROUPS_PER_WORKER * MEMBERS_MAX + 1 {
        troupe.add();
    }
    let full = [MEMBERS_MAX; GROUPS_PER_WORKER].to_vec();
    assert_eq!(troupe.sizes(), [vec![1], full].concat());
    for order in troupe.orders.drain(..) {
        order.send(Order::End).expect("it is there");
    }
    let groups = troupe.groups.clone();
    until(|| groups.0.lock().is_empty()).await;
    troupe.add();
    assert_eq!(troupe.sizes(), [1], "and others begin");
}

#[tokio::test]
async fn who_leaves_makes_room() {
    let mut troupe = Troupe::new();
    for _ in 0..GROUPS_PER_WORKER * MEMBERS_MAX {
        troupe.add();
    }
    troupe.orders[100].send(Order::End).expect("it is there");
    let (groups, full) = (troupe.groups.clone(), GROUPS_PER_WORKER * MEMBERS_MAX);
    let members = || groups.0.lock().iter().map(|bell| bell.members.load(Ordering::Relaxed)).sum::<usize>();
    until(|| members() == full - 1).await;
    troupe.add();
    assert_eq!(troupe.sizes(), [MEMBERS_MAX; GROUPS_PER_WORKER]);
    let newcomer = full;
    while troupe.next().await != Did::Turned(newcomer) {}
}

#[tokio::test]
async fn a_fault_in_one_member_ends_that_one_alone() {
    let mut troupe = Troupe::new();
    for _ in 0..2 * GROUPS_PER_WORKER {
        troupe.add();
    }
    troupe.orders[0].send(Order::Fail).expect("it is there");
    // Its neighbour is in the same group.
    let sizes = [vec![1], vec![2; GROUPS_PER_WORKER - 1]].concat();
    until(|| troupe.sizes() == sizes).await;
    while troupe.did.try_recv().is_ok() {}
    let neighbour = GROUPS_PER_WORKER;
    troupe.orders[neighbour].send(Order::End).expect("it is there");
    assert_eq!(troupe.next().await, Did::Gathered(neighbour));
    assert_eq!(troupe.next().await, Did::Turned(neighbour));
    until(|| troupe.sizes() == [2; GROUPS_PER_WORKER - 1]).await;
}

/// Ends at once, and fails when it is dropped.
struct FailsAtItsEnd(mpsc::UnboundedSender<Did>);

impl Member for FailsAtItsEnd {
    fn warm(&self) {}

    fn gather(&mut self, _cx: &mut Context<'_>) {}

    fn turn(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

impl Drop for FailsAtItsEnd {
    fn drop(&mut self) {
        self.0.send(Did::Turned(usize::MAX)).expect("the test listens");
        panic!("a fault in a protocol's last words, as this test wants it");
    }
}

#[tokio::test]
async fn a_fault_at_the_end_of_one_member_ends_that_one_alone() {
    let mut troupe = Troupe::new();
    for _ in 0..GROUPS_PER_WORKER {
        troupe.add();
    }
    // The next one is beside the first of them.
    troupe.groups.add(FailsAtItsEnd(troupe.sender.clone()));
    while troupe.next().await != Did::Turned(usize::MAX) {}
    until(|| troupe.sizes() == [1; GROUPS_PER_WORKER]).await;
    while troupe.did.try_recv().is_ok() {}
    troupe.orders[0].send(Order::End).expect("it is there");
    assert_eq!(troupe.next().await, Did::Gathered(0));
    assert_eq!(troupe.next().await, Did::Turned(0));
}

/// Counts what it is sent through a flag, as the wake-ups of the hub are.
struct Flagged {
    flag: Arc<AtomicBool>,
    seen: Arc<AtomicUsize>,
    waker: mpsc::UnboundedSender<Waker>,
    is_new: bool,
}

impl Member for Flagged {
    fn warm(&self) {}

    fn gather(&mut self, _cx: &mut Context<'_>) {}

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::take(&mut self.is_new) {
            self.waker.send(cx.waker().clone()).expect("the test listens");
        }
        if self.flag.swap(false, Ordering::Relaxed) {
            self.seen.fetch_add(1, Ordering::Release);
        }
        Poll::Pending
    }
}

/// What was done before a wake-up is seen by the turn that follows, whoever
/// else is woken at the same time: otherwise this never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost() {
    const WAKES: usize = 2_000;
    let groups = Arc::<Groups>::default();
    let mut wakers = Vec::new();
    for _ in 0..3 * GROUPS_PER_WORKER * 2 {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let (flag, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        groups.add(Flagged { flag: flag.clone(), seen: seen.clone(), waker: sender, is_new: true });
        let waker = poll_fn(|cx| receiver.poll_recv(cx)).await.expect("its first turn");
        wakers.push((flag, seen, waker));
    }
    let wakings = wakers.chunks(3).map(<[_]>::to_vec).map(|members| {
        thread::spawn(move || {
            for count in 1..=WAKES {
                for (flag, _, waker) in &members {
                    flag.store(true, Ordering::Relaxed);
                    waker.wake_by_ref();
                }
                for (_, seen, _) in &members {
                    while seen.load(Ordering::Acquire) < count {
                        thread::yield_now();
                    }
                }
            }
        })
    });
    let wakings: Vec<_> = wakings.collect();
    let all = tokio::task::spawn_blocking(|| wakings.into_iter().all(|waking| waking.join().is_ok()));
    assert!(timeout(Duration::from_secs(60), all).await.expect("no wake-up is lost").expect("it ends"));
}
