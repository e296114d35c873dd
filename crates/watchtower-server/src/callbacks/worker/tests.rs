//! The task against a feed and a receiver that are no more than a list and a
//! script; time is virtual.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Duration, Instant};
use watchtower_hub::{ChannelName, Epoch, Position};

use super::super::address::AddressPolicy;
use super::super::delivery::SubscriptionId;
use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn delivery(offset: u64) -> Delivery {
    let position = Position { epoch: Epoch::from_bits(1), offset };
    let id = SubscriptionId::from_bytes([7; 16]).delivery(&ChannelName::from(5), position);
    Delivery { id, body: Bytes::from(format!("{{\"offset\":{offset}}}")) }
}

fn url(text: &str) -> CallbackUrl {
    CallbackUrl::parse(text, &AddressPolicy::default()).expect("a URL")
}

/// Messages in a list; ends when the list does, or waits for ever.
struct List {
    left: VecDeque<Delivery>,
    accepted: Vec<DeliveryId>,
    ends: bool,
}

impl List {
    fn of(offsets: impl IntoIterator<Item = u64>) -> List {
        List { left: offsets.into_iter().map(delivery).collect(), accepted: Vec::new(), ends: true }
    }
}

impl Feed for List {
    async fn next(&mut self) -> Option<Delivery> {
        if self.left.is_empty() && !self.ends {
            std::future::pending::<()>().await;
        }
        self.left.front().cloned()
    }

    fn accept(&mut self, delivery: DeliveryId) {
        assert_eq!(self.left.pop_front().map(|first| first.id), Some(delivery));
        self.accepted.push(delivery);
    }
}

type Attempt = (Duration, DeliveryId, Bytes, Signature);

/// A receiver that answers by a script, and notes what it got and when.
struct Script {
    begin: Instant,
    answers: Mutex<VecDeque<Answer>>,
    attempts: Mutex<Vec<Attempt>>,
}

#[derive(Clone)]
enum Answer {
    Now(Outcome),
    After(Duration, Outcome),
}

fn failed() -> Outcome {
    Outcome::Failed(Failure::Status(StatusCode::INTERNAL_SERVER_ERROR))
}

impl Script {
    /// The last answer stands for all that follow.
    fn new(answers: impl IntoIterator<Item = Answer>) -> Script {
        let answers = Mutex::new(answers.into_iter().collect());
        Script { begin: Instant::now(), answers, attempts: Mutex::default() }
    }

    fn at(&self) -> Vec<Duration> {
        self.attempts.lock().iter().map(|(at, ..)| *at).collect()
    }
}

impl Post for Script {
    async fn post(&self, _: &CallbackUrl, body: Bytes, id: DeliveryId, signature: Signature) -> Outcome {
        self.attempts.lock().push((self.begin.elapsed(), id, body, signature));
        let answer = {
            let mut answers = self.answers.lock();
            let next = answers.pop_front().expect("an answer");
            if answers.is_empty() {
                answers.push_back(next.clone());
            }
            next
        };
        match answer {
            Answer::Now(outcome) => outcome,
            Answer::After(delay, outcome) => {
                tokio::time::sleep(delay).await;
                outcome
            }
        }
    }
}

fn shared<P: Post>(post: P, give_up: Duration) -> Shared<P> {
    Shared::new(post, SigningKey::new("secret"), give_up)
}

async fn run(feed: &mut List, shared: &Shared<Script>) -> End {
    let (_running, draining) = watch::channel(false);
    shared.deliver(&url("http://receiver.test/"), feed, draining).await
}

// [http: callbacks] "Per channel in order, at least once: the cursor moves on after a 2xx"
#[tokio::test(start_paused = true)]
async fn messages_are_delivered_in_order_and_each_until_it_is_accepted() {
    let script = [failed(), Outcome::Accepted, Outcome::Accepted, failed(), failed(), Outcome::Accepted];
    let shared = shared(Script::new(script.map(Answer::Now)), DAY);
    let mut feed = List::of(1..=3);
    assert_eq!(run(&mut feed, &shared).await, End::Left);
    assert_eq!(feed.accepted, [1, 2, 3].map(|offset| delivery(offset).id));
    let seen: Vec<_> = shared.post.attempts.lock().iter().map(|(_, id, ..)| *id).collect();
    assert_eq!(seen, [1, 1, 2, 3, 3, 3].map(|offset| delivery(offset).id));
    assert_eq!(shared.metrics.attempts("accepted"), 3);
    assert_eq!(shared.metrics.attempts("status"), 3);
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_signed_with_the_key_of_its_time_over_its_body() {
    let shared = shared(Script::new([Answer::Now(Outcome::Accepted)]), DAY);
    run(&mut List::of([1]), &shared).await;
    shared.reload(SigningKey::new("another"), DAY);
    run(&mut List::of([2]), &shared).await;
    let attempts = shared.post.attempts.lock();
    for ((_, _, body, signature), (key, offset)) in attempts.iter().zip([("secret", 1), ("another", 2)]) {
        assert_eq!(*body, delivery(offset).body);
        let text = signature.to_string();
        let (at, _) = text.strip_prefix("t=").and_then(|rest| rest.split_once(',')).expect("a time");
        let at: u64 = at.parse().expect("seconds");
        assert!(at > 1_700_000_000);
        assert_eq!(*signature, SigningKey::new(key).sign(at, body));
    }
    assert_eq!(attempts.len(), 2);
}

// [http: callbacks] "retried, the first time within 1 s, then with exponential backoff and jitter"
#[tokio::test(start_paused = true)]
async fn retries_come_within_a_second_and_then_ever_later() {
    let shared = shared(Script::new([Answer::Now(failed())]), Duration::from_secs(3_600));
    assert_eq!(run(&mut List::of([1]), &shared).await, End::GaveUp);
    let at = shared.post.at();
    let delays: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (delay, longest) in delays.iter().zip([1, 2, 4, 8, 16, 32, 64, 128, 256, 300]) {
        // The timer's own grain is a millisecond.
        let longest = Duration::from_secs(longest) + Duration::from_millis(1);
        assert!(*delay >= longest / 2 - Duration::from_millis(1) && *delay <= longest, "{delays:?}");
    }
    assert!(delays.len() > 10, "{delays:?}");
}

// [http: callbacks] "after callback_give_up (default 24 h) of failures the subscription is ended"
#[tokio::test(start_paused = true)]
async fn it_gives_up_after_a_day_of_failures_and_not_before() {
    let shared = shared(Script::new([Answer::Now(failed())]), DAY);
    let mut feed = List::of([1]);
    assert_eq!(run(&mut feed, &shared).await, End::GaveUp);
    let last = *shared.post.at().last().expect("attempts");
    assert!(last >= DAY && last < DAY + Duration::from_secs(1), "{last:?}");
    assert_eq!(feed.accepted, []);
}

#[tokio::test(start_paused = true)]
async fn a_success_starts_the_patience_afresh() {
    let hour = Duration::from_secs(3_600);
    let slow = |outcome| Answer::After(hour, outcome);
    // Five hours of failures in all, never two without a success between.
    let script = [failed(), Outcome::Accepted].map(slow).into_iter().cycle().take(10);
    let shared = shared(Script::new(script), hour * 2);
    let mut feed = List::of(1..=5);
    assert_eq!(run(&mut feed, &shared).await, End::Left);
    assert_eq!(feed.accepted.len(), 5);
}

// [http: callbacks] "410 ends it at once"
#[tokio::test(start_paused = true)]
async fn gone_ends_it_at_once_and_the_message_is_not_accepted() {
    let script = [Outcome::Accepted, Outcome::Gone].map(Answer::Now);
    let shared = shared(Script::new(script), DAY);
    let mut feed = List::of(1..=3);
    assert_eq!(run(&mut feed, &shared).await, End::Gone);
    assert_eq!(feed.accepted, [delivery(1).id]);
    assert_eq!(shared.post.at(), [Duration::ZERO; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_channel_was_left_is_not_tried_again() {
    /// Gives up its first message once it was asked for it a second time.
    struct Leaving(List, usize);
    impl Feed for Leaving {
        async fn next(&mut self) -> Option<Delivery> {
            self.1 += 1;
            if self.1 == 2 {
                self.0.left.pop_front();
            }
            self.0.next().await
        }
        fn accept(&mut self, delivery: DeliveryId) {
            self.0.accept(delivery);
        }
    }
    let script = [failed(), Outcome::Accepted].map(Answer::Now);
    let shared = shared(Script::new(script), DAY);
    let (_running, draining) = watch::channel(false);
    let mut feed = Leaving(List::of([1, 2]), 0);
    let end = shared.deliver(&url("http://receiver.test/"), &mut feed, draining).await;
    assert_eq!(end, End::Left);
    assert_eq!(feed.0.accepted, [delivery(2).id]);
}

#[tokio::test(start_paused = true)]
async fn draining_ends_a_wait_for_messages_and_a_wait_for_a_retry_at_once() {
    let shared = shared(Script::new([Answer::Now(failed())]), DAY);
    for (mut feed, attempts) in [(List { ends: false, ..List::of([]) }, 0), (List::of([1]), 1)] {
        let (drain, draining) = watch::channel(false);
        let target = url("http://receiver.test/");
        let deliver = shared.deliver(&target, &mut feed, draining);
        tokio::pin!(deliver);
        // Whatever can be done without time passing is done.
        let blocked = tokio::time::timeout(Duration::from_millis(1), &mut deliver).await;
        assert!(blocked.is_err());
        assert_eq!(shared.post.attempts.lock().len(), attempts);
        let begin = Instant::now();
        drain.send(true).expect("it listens");
        assert_eq!(deliver.await, End::Draining);
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_an_attempt_in_flight_and_begins_no_other() {
    let second = Duration::from_secs(1);
    let shared = shared(Script::new([Answer::After(second, Outcome::Accepted)]), DAY);
    let (drain, draining) = watch::channel(false);
    let mut feed = List::of([1, 2]);
    let target = url("http://receiver.test/");
    {
        let deliver = shared.deliver(&target, &mut feed, draining);
        tokio::pin!(deliver);
        assert!(tokio::time::timeout(second / 2, &mut deliver).await.is_err());
        drain.send(true).expect("it listens");
        assert_eq!(deliver.await, End::Draining);
    }
    assert_eq!(feed.accepted, [delivery(1).id]);
    assert_eq!(shared.post.at(), [Duration::ZERO]);
}

/// Receivers of which those at `hanging.test` do not answer before `release`.
struct Hanging {
    release: Notify,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    attempts: mpsc::UnboundedSender<String>,
}

impl Post for Hanging {
    async fn post(&self, url: &CallbackUrl, _: Bytes, _: DeliveryId, _: Signature) -> Outcome {
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(now, Ordering::SeqCst);
        let _ = self.attempts.send(url.to_string());
        let outcome = if url.to_string().contains("hanging") {
            self.release.notified().await;
            Outcome::Failed(Failure::TimedOut)
        } else {
            Outcome::Accepted
        };
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        outcome
    }
}

fn hanging() -> (Arc<Shared<Hanging>>, mpsc::UnboundedReceiver<String>) {
    let (attempts, attempted) = mpsc::unbounded_channel();
    let post = Hanging {
        release: Notify::new(),
        in_flight: AtomicUsize::new(0),
        most_in_flight: AtomicUsize::new(0),
        attempts,
    };
    (Arc::new(shared(post, DAY)), attempted)
}

fn spawn(
    shared: &Arc<Shared<Hanging>>,
    host: &str,
    draining: &watch::Receiver<bool>,
) -> tokio::task::JoinHandle<End> {
    let (shared, target, draining) = (shared.clone(), url(&format!("http://{host}/")), draining.clone());
    tokio::spawn(async move { shared.deliver(&target, &mut List::of([1]), draining).await })
}

/// Has as many attempts hang as there may be.
async fn take_all_places(
    shared: &Arc<Shared<Hanging>>,
    attempted: &mut mpsc::UnboundedReceiver<String>,
    draining: &watch::Receiver<bool>,
) {
    for _ in 0..ATTEMPTS_MAX {
        spawn(shared, "hanging.test", draining);
    }
    for _ in 0..ATTEMPTS_MAX {
        attempted.recv().await.expect("an attempt");
    }
}

#[tokio::test(start_paused = true)]
async fn receivers_that_hang_again_and_again_do_not_block_others() {
    let (shared, mut attempted) = hanging();
    let (_running, draining) = watch::channel(false);
    take_all_places(&shared, &mut attempted, &draining).await;
    // They fail together, and hang in their retries: as many as may.
    shared.post.release.notify_waiters();
    for _ in 0..RETRIES_MAX {
        attempted.recv().await.expect("a retry");
    }
    // All retries are due by then.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(shared.post.in_flight.load(Ordering::SeqCst), RETRIES_MAX);
    let others: Vec<_> = (0..3).map(|_| spawn(&shared, "receiver.test", &draining)).collect();
    for other in others {
        assert_eq!(other.await.expect("it ends"), End::Left);
    }
    assert_eq!(shared.post.in_flight.load(Ordering::SeqCst), RETRIES_MAX);
}

#[tokio::test(start_paused = true)]
async fn the_attempts_in_flight_are_bounded() {
    let (shared, mut attempted) = hanging();
    let (drain, draining) = watch::channel(false);
    let tasks: Vec<_> = (0..ATTEMPTS_MAX + 50).map(|_| spawn(&shared, "hanging.test", &draining)).collect();
    for _ in 0..ATTEMPTS_MAX {
        attempted.recv().await.expect("an attempt");
    }
    // Those without a place are told to stop while they wait for one.
    drain.send(true).expect("they listen");
    shared.post.release.notify_waiters();
    for task in tasks {
        assert_eq!(task.await.expect("it ends"), End::Draining);
    }
    assert_eq!(shared.post.most_in_flight.load(Ordering::SeqCst), ATTEMPTS_MAX);
    assert!(attempted.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_channel_was_left_while_it_waited_for_a_place_is_not_posted() {
    /// A list that messages can be taken from by others.
    struct Open(Arc<Mutex<List>>);
    impl Feed for Open {
        async fn next(&mut self) -> Option<Delivery> {
            self.0.lock().left.front().cloned()
        }
        fn accept(&mut self, delivery: DeliveryId) {
            self.0.lock().accept(delivery);
        }
    }
    let (shared, mut attempted) = hanging();
    let (_running, draining) = watch::channel(false);
    take_all_places(&shared, &mut attempted, &draining).await;
    let list = Arc::new(Mutex::new(List::of([1, 2])));
    let target = url("http://receiver.test/");
    let mut feed = Open(list.clone());
    let deliver = shared.deliver(&target, &mut feed, draining);
    tokio::pin!(deliver);
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut deliver).await.is_err());
    list.lock().left.pop_front();
    shared.post.release.notify_waiters();
    assert_eq!(deliver.await, End::Left);
    assert_eq!(list.lock().accepted, [delivery(2).id]);
    // Once, for the message that was not left.
    let attempted: Vec<_> = std::iter::from_fn(|| attempted.try_recv().ok()).collect();
    assert_eq!(attempted.iter().filter(|url| url.contains("receiver")).count(), 1);
}
