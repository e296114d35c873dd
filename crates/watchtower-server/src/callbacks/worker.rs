//! The task that delivers one callback subscription ([http: callbacks]).
//!
//! It has one attempt in flight at most, so a receiver sees each channel's
//! messages in order, and one that hangs or fails holds up its own
//! subscription alone. Deliberately knows nothing of the hub, of HTTP and of
//! other subscriptions: messages come from a [`Feed`], answers from a [`Post`].

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::FutureExt;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::delivery::DeliveryId;
use super::metrics::CallbackMetrics;
use super::post::{CallbackClient, Failure, Outcome};
use super::schedule::{Retry, RetrySchedule};
use super::sign::{Signature, SigningKey};
use super::target::CallbackUrl;

/// The attempts in flight, over all subscriptions, of those whose last attempt
/// did not fail. More have to wait for one of these to end.
const ATTEMPTS_MAX: usize = 512;

/// The attempts in flight of those whose last one failed. They have places of
/// their own, so that receivers that hang cannot take those of the others.
const RETRIES_MAX: usize = 128;

/// One message on its way to a callback URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The same at every attempt.
    pub id: DeliveryId,
    /// The message as JSON, without a line end.
    pub body: Bytes,
}

/// The messages of one subscription.
pub trait Feed: Send {
    /// The first message that was not accepted yet, in offset order per
    /// channel: the same one until [`accept`](Feed::accept), unless its
    /// channel was left meanwhile. Waits until there is one; `None` when there
    /// will be none, because every channel was left.
    ///
    /// Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Option<Delivery>> + Send;

    /// The receiver has this message: the cursor moves on.
    fn accept(&mut self, delivery: DeliveryId);
}

/// Makes one attempt; see [`CallbackClient::post`] for the promises.
pub trait Post: Send + Sync {
    /// Posts a message once and says what came of it.
    fn post(
        &self,
        url: &CallbackUrl,
        body: Bytes,
        delivery: DeliveryId,
        signature: Signature,
    ) -> impl Future<Output = Outcome> + Send;
}

impl Post for CallbackClient {
    fn post(
        &self,
        url: &CallbackUrl,
        body: Bytes,
        delivery: DeliveryId,
        signature: Signature,
    ) -> impl Future<Output = Outcome> + Send {
        CallbackClient::post(self, url, body, delivery, signature)
    }
}

/// What all subscriptions share.
pub struct Shared<P> {
    pub(super) post: P,
    key: ArcSwap<SigningKey>,
    give_up: ArcSwap<Duration>,
    attempts: Semaphore,
    retries: Semaphore,
    pub(super) metrics: CallbackMetrics,
}

/// Why a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The receiver answered 410.
    Gone,
    /// Nothing but failures for as long as is allowed.
    GaveUp,
    /// Every channel was left.
    Left,
    /// The server is stopping; the subscription itself goes on.
    Draining,
}

impl End {
    /// Every reason.
    pub const ALL: [End; 4] = [End::Gone, End::GaveUp, End::Left, End::Draining];

    /// One word for it, for a metric's label.
    pub fn reason(self) -> &'static str {
        match self {
            End::Gone => "gone",
            End::GaveUp => "gave_up",
            End::Left => "left",
            End::Draining => "draining",
        }
    }
}

impl<P: Post> Shared<P> {
    /// Attempts are made by `post` and signed with `key`; a subscription is
    /// given up after failing for `give_up`.
    pub fn new(post: P, key: SigningKey, give_up: Duration) -> Shared<P> {
        Shared {
            post,
            key: ArcSwap::from_pointee(key),
            give_up: ArcSwap::from_pointee(give_up),
            attempts: Semaphore::new(ATTEMPTS_MAX),
            retries: Semaphore::new(RETRIES_MAX),
            metrics: CallbackMetrics::default(),
        }
    }

    /// Changes the key and the patience, from the next attempt on.
    pub fn reload(&self, key: SigningKey, give_up: Duration) {
        self.key.store(Arc::new(key));
        self.give_up.store(Arc::new(give_up));
    }

    /// Delivers what `feed` holds to `url`, in order and at least once each,
    /// until the subscription ends or `draining` turns true. An attempt in
    /// flight is finished first; whoever cannot wait that long drops the
    /// future, which cuts the attempt off and leaves the cursor before its
    /// message.
    pub async fn deliver(
        &self,
        url: &CallbackUrl,
        feed: &mut impl Feed,
        mut draining: watch::Receiver<bool>,
    ) -> End {
        let mut schedule = RetrySchedule::default();
        let mut mark = self.metrics.failing_mark();
        loop {
            let first = tokio::select! {
                biased;
                () = turned_true(&mut draining) => return End::Draining,
                first = feed.next() => first,
            };
            if first.is_none() {
                return End::Left;
            }
            let places = if schedule.is_failing() { &self.retries } else { &self.attempts };
            let place = tokio::select! {
                biased;
                () = turned_true(&mut draining) => return End::Draining,
                place = places.acquire() => place,
            };
            // Its channel may have been left while it waited for the place.
            let Some(Some(delivery)) = feed.next().now_or_never() else { continue };
            let began = Instant::now();
            let outcome = self.attempt(url, &delivery).await;
            drop(place);
            self.metrics.attempted(&outcome, began.elapsed());
            mark.set(matches!(outcome, Outcome::Failed(_)));
            match outcome {
                Outcome::Accepted => {
                    feed.accept(delivery.id);
                    schedule.succeeded();
                }
                Outcome::Gone => return End::Gone,
                Outcome::Failed(failure) => match self.after_failure(&mut schedule, url, &failure) {
                    Retry::GiveUp => return End::GaveUp,
                    Retry::After(delay) => tokio::select! {
                        biased;
                        () = turned_true(&mut draining) => return End::Draining,
                        () = tokio::time::sleep(delay) => {}
                    },
                },
            }
        }
    }

    /// Leaves so many places for attempts in flight, and so many for retries.
    #[cfg(test)]
    pub(super) fn leave_places(&self, attempts: usize, retries: usize) {
        self.attempts.forget_permits(ATTEMPTS_MAX - attempts);
        self.retries.forget_permits(RETRIES_MAX - retries);
    }

    async fn attempt(&self, url: &CallbackUrl, delivery: &Delivery) -> Outcome {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = since_1970.map_or(0, |time| time.as_secs());
        let signature = self.key.load().sign(now, &delivery.body);
        self.post.post(url, delivery.body.clone(), delivery.id, signature).await
    }

    fn after_failure(&self, schedule: &mut RetrySchedule, url: &CallbackUrl, failure: &Failure) -> Retry {
        // Without randomness the retry is as late as it may be.
        let random = getrandom::u32().unwrap_or(0);
        let retry = schedule.failed(Instant::now().into_std(), **self.give_up.load(), random);
        tracing::debug!(%url, %failure, ?retry, "a callback failed");
        retry
    }
}

/// Returns when the value is true, or nobody is left to make it so.
async fn turned_true(value: &mut watch::Receiver<bool>) {
    let _ = value.wait_for(|value| *value).await;
}

#[cfg(test)]
mod tests;
