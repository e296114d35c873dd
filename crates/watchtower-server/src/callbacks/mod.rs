//! HTTP callbacks ([http: callbacks]): every message of a channel, posted to a
//! URL that a client named.
//!
//! | file | for |
//! | --- | --- |
//! | `address` | which addresses may be called |
//! | `target` | what is a callback URL |
//! | `sign`, `delivery` | the headers by which a receiver trusts a message and knows it again |
//! | `post` | one attempt |
//! | `schedule` | when there is another one |
//! | `worker` | the attempts of one subscription |
//! | `subscription` | its place in the hub |
//! | `metrics` | what is counted |
//!
//! Here they come together: which subscriptions there are, and how they begin
//! and end. Whether a sender may join a channel is the hub's to say, and who a
//! request comes from is known before it gets here.

pub mod address;
pub mod delivery;
pub mod metrics;
pub mod post;
pub mod schedule;
pub mod sign;
mod subscription;
pub mod target;
pub mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use watchtower_hub::{ChannelName, Format, Hub, Refused, SenderId, Start, Timestamp};

use self::address::AddressPolicy;
use self::delivery::SubscriptionId;
use self::metrics::CallbackMetrics;
use self::post::{CallbackClient, Network, NoClient};
use self::sign::SigningKey;
pub use self::subscription::Record;
use self::subscription::{HubFeed, Subscription};
use self::target::{CallbackUrl, InvalidCallbackUrl};
use self::worker::{End, Post, Shared};

/// The settings of callbacks ([running: callbacks]).
#[derive(Debug, Clone)]
pub struct CallbackSettings {
    /// Signs every attempt.
    pub key: SigningKey,
    /// Which addresses may be called.
    pub policy: AddressPolicy,
    /// How long an attempt may take from its beginning to its answer.
    pub timeout: Duration,
    /// How long a subscription may fail before it is ended.
    pub give_up: Duration,
    /// How many subscriptions one sender may have.
    pub subscriptions_per_sender_max: usize,
    /// How many subscriptions there may be. Each is a task, and may keep one
    /// connection open for a few seconds after a message.
    pub subscriptions_max: usize,
}

impl CallbackSettings {
    /// The settings of a configuration that says nothing of callbacks.
    pub fn new(key: SigningKey) -> CallbackSettings {
        CallbackSettings {
            key,
            policy: AddressPolicy::default(),
            timeout: Duration::from_secs(10),
            give_up: Duration::from_secs(24 * 60 * 60),
            subscriptions_per_sender_max: 64,
            subscriptions_max: 4_096,
        }
    }
}

/// Why a callback subscription was refused. Nothing has changed then.
#[derive(Debug, Error)]
pub enum NotJoined {
    /// The hub refused a channel.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There are as many subscriptions as there may be.
    #[error("the limit of {limit} callback subscriptions {of} is reached")]
    TooMany {
        /// Of whom.
        of: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// The server is stopping.
    #[error("the server is stopping")]
    Draining,
    /// The operating system gave no randomness for an id.
    #[error("no randomness for the id of a callback subscription")]
    NoRandomness,
}

/// Keeps what there is to know of subscriptions, for [`Callbacks::restore`]. Waits
/// for nothing.
pub trait Records: Send + Sync {
    /// A subscription began, or has come further.
    fn put(&self, record: &Record);
    /// A subscription ended.
    fn end(&self, id: SubscriptionId);
}

/// All callback subscriptions of a server, posted by a [`CallbackClient`] save in
/// tests. Clones are the same.
pub struct Callbacks<P = CallbackClient>(Arc<Inner<P>>);

impl<P> Clone for Callbacks<P> {
    fn clone(&self) -> Callbacks<P> {
        Callbacks(self.0.clone())
    }
}

struct Inner<P> {
    hub: Hub,
    format: Arc<dyn Format>,
    shared: Shared<P>,
    /// Where subscriptions are kept; none without a data directory.
    records: Option<Arc<dyn Records>>,
    registry: Mutex<Registry>,
    /// True from the beginning of the end. Every worker holds a receiver while
    /// it runs. Changed under the registry's lock.
    draining: watch::Sender<bool>,
}

/// Invariant: `count` subscriptions in `of_sender`, no list there is empty, and
/// no list holds a URL twice.
struct Registry {
    settings: CallbackSettings,
    of_sender: HashMap<SenderId, Vec<Running>>,
    count: usize,
}

struct Running {
    subscription: Arc<Subscription>,
    worker: AbortHandle,
}

impl Callbacks {
    /// Callbacks for the messages of `hub`, each a JSON text in `format`, which
    /// are kept in `records`.
    ///
    /// # Errors
    ///
    /// When the HTTP library refuses the settings of `network`.
    pub fn new(
        hub: Hub,
        format: Arc<dyn Format>,
        network: Network,
        settings: CallbackSettings,
        records: Option<Arc<dyn Records>>,
    ) -> Result<Callbacks, NoClient> {
        let client = CallbackClient::new(network, settings.policy.clone(), settings.timeout)?;
        Ok(Callbacks::posted_by(client, hub, format, settings, records))
    }

    /// Changes the settings, for attempts and subscriptions that begin from
    /// now on. Subscriptions above a lowered limit stay.
    ///
    /// # Errors
    ///
    /// As for [`Callbacks::new`]; then nothing has changed.
    pub fn reload(&self, settings: CallbackSettings) -> Result<(), NoClient> {
        let mut registry = self.0.registry.lock();
        self.0.shared.post.reload(settings.policy.clone(), settings.timeout)?;
        self.0.shared.reload(settings.key.clone(), settings.give_up);
        registry.settings = settings;
        Ok(())
    }

    /// Reads a callback URL, as far as the policy in force permits it on its
    /// face.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it; the HTTP status is 400.
    pub fn parse_url(&self, text: &str) -> Result<CallbackUrl, InvalidCallbackUrl> {
        CallbackUrl::parse(text, &self.0.shared.post.policy())
    }
}

impl<P: Post + 'static> Callbacks<P> {
    fn posted_by(
        post: P,
        hub: Hub,
        format: Arc<dyn Format>,
        settings: CallbackSettings,
        records: Option<Arc<dyn Records>>,
    ) -> Callbacks<P> {
        let shared = Shared::new(post, settings.key.clone(), settings.give_up);
        let registry = Mutex::new(Registry { settings, of_sender: HashMap::new(), count: 0 });
        let draining = watch::Sender::new(false);
        Callbacks(Arc::new(Inner { hub, format, shared, records, registry, draining }))
    }

    /// Joins `sender` to all of `channels` and posts what is published there
    /// from now on to `url`. The same sender and URL again is the same
    /// subscription, and its channels are those of both calls.
    ///
    /// Needs a tokio runtime. Nothing is sent before there is a message.
    ///
    /// # Errors
    ///
    /// [`NotJoined`]; then none of the channels is joined.
    pub fn join(
        &self,
        sender: SenderId,
        url: &CallbackUrl,
        channels: &[ChannelName],
        now: Timestamp,
    ) -> Result<(), NotJoined> {
        let channels: Vec<_> = channels.iter().map(|channel| (channel.clone(), Start::End)).collect();
        self.0.join(sender, url, None, &channels, now)
    }

    /// Takes up a subscription after a restart, where its receiver was. How many
    /// there may be does not count.
    ///
    /// # Errors
    ///
    /// As for [`Callbacks::join`].
    pub fn restore(&self, record: &Record, now: Timestamp) -> Result<(), NotJoined> {
        let after = |(channel, position): &(_, _)| (ChannelName::clone(channel), Start::After(*position));
        let channels: Vec<_> = record.channels.iter().map(after).collect();
        self.0.join(record.sender, &record.url, Some(record.id), &channels, now)
    }

    /// Keeps how far subscriptions have come that have come further, and which
    /// channels they have left. To be called about once a second, since what is
    /// not kept is delivered again after a restart; and after
    /// [`Callbacks::drain`].
    pub fn save(&self) {
        let registry = self.0.registry.lock();
        self.0.keep_moved(registry.of_sender.values().flatten());
    }

    /// Ends the subscriptions of `sender` that it has left the last channel
    /// of, and keeps of the others what they have left. To be called when it has
    /// left channels; see also [`Callbacks::sweep`].
    pub fn sender_left(&self, sender: SenderId) {
        let mut registry = self.0.registry.lock();
        let left = registry.take(sender, |subscription| subscription.forget_left());
        self.0.end(&registry, left, End::Left);
        self.0.keep_moved(registry.of_sender.get(&sender).into_iter().flatten());
    }

    /// Ends all subscriptions whose last channel was left by other means: by
    /// another protocol, or because the sender has expired. To be called about
    /// once a minute.
    pub fn sweep(&self) {
        let senders: Vec<_> = self.0.registry.lock().of_sender.keys().copied().collect();
        senders.into_iter().for_each(|sender| self.sender_left(sender));
    }

    /// The subscriptions that there are, in no particular order.
    pub fn records(&self) -> Vec<Record> {
        let registry = self.0.registry.lock();
        registry.of_sender.values().flatten().map(|running| running.subscription.record()).collect()
    }

    /// What is counted; clones of the answer go on counting.
    pub fn metrics(&self) -> &CallbackMetrics {
        &self.0.shared.metrics
    }

    /// Stops posting: attempts in flight are finished, or cut off when `grace`
    /// has passed. What [`Callbacks::records`] says then is final.
    pub async fn drain(&self, grace: Duration) {
        {
            let _registry = self.0.registry.lock();
            self.0.draining.send_replace(true);
        }
        if tokio::time::timeout(grace, self.0.draining.closed()).await.is_ok() {
            return;
        }
        for running in self.0.registry.lock().of_sender.values().flatten() {
            running.worker.abort();
        }
        self.0.draining.closed().await;
    }
}

impl<P: Post + 'static> Inner<P> {
    fn join(
        self: &Arc<Self>,
        sender: SenderId,
        url: &CallbackUrl,
        id: Option<SubscriptionId>,
        channels: &[(ChannelName, Start)],
        now: Timestamp,
    ) -> Result<(), NotJoined> {
        let mut registry = self.registry.lock();
        if *self.draining.borrow() {
            return Err(NotJoined::Draining);
        }
        let known = registry.find(sender, url);
        // What it joins again begins anew.
        let _ = known.as_ref().map(|subscription| subscription.forget_left());
        if known.is_none() && id.is_none() {
            registry.has_room(sender, &self.shared.metrics)?;
        }
        let names = channels.iter().map(|(channel, _)| channel);
        let _rehearsal = Subscription::rehearse(&self.hub, sender, names, now)?;
        if let Some(subscription) = known {
            subscription.subscribe(channels, now)?;
            self.keep(&subscription);
            return Ok(());
        }
        let id = id.map_or_else(random_id, Ok)?;
        let subscription = Arc::new(Subscription::open(&self.hub, id, sender, url.clone()));
        subscription.subscribe(channels, now)?;
        self.keep(&subscription);
        let worker = run(self.clone(), subscription.clone(), self.draining.subscribe());
        let worker = tokio::spawn(worker).abort_handle();
        registry.add(Running { subscription, worker });
        self.shared.metrics.set_subscriptions(registry.count);
        Ok(())
    }

    fn keep(&self, subscription: &Subscription) {
        if let Some(records) = &self.records {
            records.put(&subscription.record());
        }
    }

    fn keep_moved<'a>(&self, running: impl IntoIterator<Item = &'a Running>) {
        let Some(records) = &self.records else { return };
        let moved = running.into_iter().filter_map(|running| running.subscription.moved());
        moved.for_each(|record| records.put(&record));
    }

    /// What follows when a worker ended; whether it is not to go on.
    fn conclude(&self, subscription: &Arc<Subscription>, end: End) -> bool {
        if end == End::Draining {
            return true;
        }
        let mut registry = self.registry.lock();
        let is_over = |other: &Arc<Subscription>| {
            // A channel may have been joined since the worker saw none.
            Arc::ptr_eq(other, subscription) && (end != End::Left || other.forget_left())
        };
        let over = registry.take(subscription.sender, is_over);
        let goes_on = registry.holds(subscription);
        self.end(&registry, over, end);
        !goes_on
    }

    // [http: callbacks] "the subscription is ended and counted"
    fn end(&self, registry: &Registry, over: Vec<Running>, end: End) {
        for Running { subscription, worker } in over {
            tracing::info!(url = %subscription.url, reason = end.reason(), "a callback subscription ended");
            subscription.end_joins();
            worker.abort();
            if let Some(records) = &self.records {
                records.end(subscription.id);
            }
            self.shared.metrics.ended(end);
        }
        self.shared.metrics.set_subscriptions(registry.count);
    }
}

/// A subscription's worker, from the first message to the end.
async fn run<P: Post + 'static>(
    inner: Arc<Inner<P>>,
    subscription: Arc<Subscription>,
    draining: watch::Receiver<bool>,
) {
    let mut feed = HubFeed::new(subscription.clone(), inner.format.clone());
    loop {
        let end = inner.shared.deliver(&subscription.url, &mut feed, draining.clone()).await;
        if inner.conclude(&subscription, end) {
            return;
        }
    }
}

fn random_id() -> Result<SubscriptionId, NotJoined> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| NotJoined::NoRandomness)?;
    Ok(SubscriptionId::from_bytes(bytes))
}

impl Registry {
    fn find(&self, sender: SenderId, url: &CallbackUrl) -> Option<Arc<Subscription>> {
        let mut of_sender = self.of_sender.get(&sender)?.iter();
        of_sender.find(|running| running.subscription.url == *url).map(|running| running.subscription.clone())
    }

    fn has_room(&self, sender: SenderId, metrics: &CallbackMetrics) -> Result<(), NotJoined> {
        let of_sender = self.of_sender.get(&sender).map_or(0, Vec::len);
        let for_one = self.settings.subscriptions_per_sender_max;
        let in_all = self.settings.subscriptions_max;
        if of_sender >= for_one {
            metrics.refused("max_subscriptions_per_sender");
            return Err(NotJoined::TooMany { of: "of one sender", limit: for_one });
        }
        if self.count >= in_all {
            metrics.refused("max_subscriptions");
            return Err(NotJoined::TooMany { of: "in all", limit: in_all });
        }
        Ok(())
    }

    fn holds(&self, subscription: &Arc<Subscription>) -> bool {
        let mut of_sender = self.of_sender.get(&subscription.sender).into_iter().flatten();
        of_sender.any(|running| Arc::ptr_eq(&running.subscription, subscription))
    }

    fn add(&mut self, running: Running) {
        self.count += 1;
        self.of_sender.entry(running.subscription.sender).or_default().push(running);
    }

    /// Takes out those subscriptions of `sender` that `which` says.
    fn take(&mut self, sender: SenderId, which: impl Fn(&Arc<Subscription>) -> bool) -> Vec<Running> {
        let Some(of_sender) = self.of_sender.get_mut(&sender) else { return Vec::new() };
        let taken: Vec<_> = of_sender.extract_if(.., |running| which(&running.subscription)).collect();
        if of_sender.is_empty() {
            self.of_sender.remove(&sender);
        }
        self.count -= taken.len();
        taken
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
