//! Callbacks among senders and receivers that do anything, in virtual time: the
//! real subscriptions and workers on a real hub, and receivers that are scripts.
//!
//! `model` says which attempts there may be, and judges each; here are the steps
//! of a run, which proptest draws and makes fewer of where one fails.

mod model;

use std::any::Any;
use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::sample::select;
use tokio::time::Instant;
use watchtower_hub::{
    ChannelName, ChannelRule, Content, Entropy, Format, FormatId, Hub, Message, Publish, SenderId, Settings,
    Timestamp,
};

use self::model::{Model, Mood};
use super::address::AddressPolicy;
use super::delivery::{DeliveryId, SubscriptionId};
use super::post::{Failure, Outcome};
use super::sign::{Signature, SigningKey};
use super::target::CallbackUrl;
use super::worker::Post;
use super::{CallbackSettings, Callbacks, Record, Records};

const SENDERS: usize = 2;
const URLS: usize = 2;
const CHANNELS: u32 = 3;

const DAY: Duration = Duration::from_secs(86_400);

/// Places enough for all subscriptions at once.
const PLENTY: usize = 100;

/// How long an attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// After how long every retry there can be was made.
const ALL_RETRIED: Duration = Duration::from_secs(1_000);

#[derive(Debug, Clone)]
enum Step {
    Join {
        sender: usize,
        url: usize,
        channels: Vec<u32>,
    },
    /// Over HTTP, where callbacks are told at once.
    Leave {
        sender: usize,
        channel: u32,
    },
    /// By another protocol, some time before the callbacks are saved.
    LeaveElsewhere {
        sender: usize,
        channel: u32,
    },
    /// Leaves and joins again at once.
    Again {
        sender: usize,
        url: usize,
        channel: u32,
        elsewhere: bool,
    },
    /// The sender's id is forgotten by another protocol, and it gets another.
    Forget {
        sender: usize,
    },
    Publish {
        channel: u32,
        receiver: Option<usize>,
    },
    /// As many messages as make a receiver that does not keep up skip some.
    Burst {
        channel: u32,
        messages: usize,
    },
    Wait(Duration),
    Mood {
        url: usize,
        mood: Mood,
    },
    GiveUp(Duration),
    /// How many messages a subscription may be behind.
    Lag(u64),
    Save,
    Sweep,
    /// The server ends in order within that time, and starts again.
    Restart(Duration),
    /// The server is killed, and starts again with what was kept.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let channel = || 1..=CHANNELS;
    let channels = proptest::collection::btree_set(channel(), 1..3).prop_map(|set| set.into_iter().collect());
    let moods = [Mood::Takes, Mood::Takes, Mood::Fails, Mood::Hangs, Mood::Anything, Mood::Anything];
    let waits = [10, 700, 3_000, 20_000, 400_000, 90_000_000].map(Duration::from_millis);
    let graces = [Duration::ZERO, TIMEOUT / 3, 2 * TIMEOUT];
    let give_up = [0, 2, 60, 600, 86_400].map(Duration::from_secs);
    prop_oneof![
        4 => (0..SENDERS, 0..URLS, channels)
            .prop_map(|(sender, url, channels)| Step::Join { sender, url, channels }),
        1 => (0..SENDERS, channel()).prop_map(|(sender, channel)| Step::Leave { sender, channel }),
        1 => (0..SENDERS, channel()).prop_map(|(sender, channel)| Step::LeaveElsewhere { sender, channel }),
        3 => (0..SENDERS, 0..URLS, channel(), any::<bool>())
            .prop_map(|(sender, url, channel, elsewhere)| Step::Again { sender, url, channel, elsewhere }),
        12 => (channel(), proptest::option::weighted(0.2, 0..SENDERS))
            .prop_map(|(channel, receiver)| Step::Publish { channel, receiver }),
        1 => (channel(), 5..40usize).prop_map(|(channel, messages)| Step::Burst { channel, messages }),
        1 => (0..SENDERS).prop_map(|sender| Step::Forget { sender }),
        6 => select(waits.to_vec()).prop_map(Step::Wait),
        4 => (0..URLS, select(moods.to_vec())).prop_map(|(url, mood)| Step::Mood { url, mood }),
        1 => select(give_up.to_vec()).prop_map(Step::GiveUp),
        1 => select(vec![8, 10_000]).prop_map(Step::Lag),
        2 => Just(Step::Save),
        1 => Just(Step::Sweep),
        1 => select(graces.to_vec()).prop_map(Step::Restart),
        1 => Just(Step::Crash),
    ]
}

/// The receivers: each attempt is judged when it begins, and answered as the mood
/// of its URL has it.
struct Receivers(Arc<Mutex<Model>>, Arc<Verdict>);

/// What was wrong with the first attempt that something was wrong with.
type Verdict = Mutex<Option<Box<dyn Any + Send>>>;

impl Post for Receivers {
    async fn post(&self, url: &CallbackUrl, body: Bytes, id: DeliveryId, _: Signature) -> Outcome {
        let judge = || self.0.lock().begins(url.as_str(), &body, id);
        let (attempt, after, outcome) = match panic::catch_unwind(AssertUnwindSafe(judge)) {
            Ok(judged) => judged,
            Err(said) => {
                // A task's panic is its own: the run has to end by it.
                self.1.lock().get_or_insert(said);
                std::future::pending().await
            }
        };
        let _in_flight = InFlight(&self.0, attempt.subscription);
        // An answer that takes too long is none.
        let outcome = if after < TIMEOUT { outcome } else { Outcome::Failed(Failure::TimedOut) };
        tokio::time::sleep(after.min(TIMEOUT)).await;
        self.0.lock().ends(&attempt, &outcome);
        outcome
    }
}

/// Also one that is cut off ends.
struct InFlight<'a>(&'a Mutex<Model>, SubscriptionId);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.lock().in_flight.remove(&self.1);
    }
}

/// What is on disk.
#[derive(Default)]
struct Kept(Mutex<HashMap<SubscriptionId, Record>>);

impl Records for Kept {
    fn put(&self, record: &Record) {
        self.0.lock().insert(record.id, record.clone());
    }

    fn end(&self, id: SubscriptionId) {
        self.0.lock().remove(&id);
    }
}

struct Counting(Mutex<u64>);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        let mut last = self.0.lock();
        *last = last.wrapping_add(0x9e37_79b9_7f4a_7c15);
        *last
    }
}

/// The content alone.
struct Plain;

impl Format for Plain {
    fn id(&self) -> FormatId {
        FormatId::new(62)
    }

    fn encode(&self, message: &Message, out: &mut BytesMut) {
        out.extend_from_slice(message.content().bytes());
    }
}

struct World {
    hub: Hub,
    senders: Vec<SenderId>,
    model: Arc<Mutex<Model>>,
    kept: Arc<Kept>,
    verdict: Arc<Verdict>,
    callbacks: Callbacks<Receivers>,
    settings: CallbackSettings,
    /// Of attempts in flight, and of retries.
    places: usize,
    began: Instant,
    /// When joins that a restart interrupted have ended.
    interrupted_until: Instant,
}

impl World {
    fn new(seed: u64, places: usize) -> World {
        let rule = ChannelRule {
            pattern: "*".into(),
            history_messages: 10_000,
            // Longer than any run.
            history_ttl: 1_000 * DAY,
            ..ChannelRule::default()
        };
        let settings = Settings { channels: vec![rule], ..Settings::default() };
        let hub = Hub::new(settings, Box::new(Counting(Mutex::new(7))));
        let began = Instant::now();
        let register = || hub.register(at(began)).expect("room");
        let senders = (0..SENDERS).map(|_| register()).collect();
        // The channels are there from the first to the last.
        let all: Vec<ChannelName> = (1..=CHANNELS).map(ChannelName::from).collect();
        hub.join(register(), &all, at(began)).expect("room");
        let epochs =
            (1..=CHANNELS).map(|channel| (channel, hub.epoch(&channel.into()).expect("it is there")));
        let settings = CallbackSettings {
            policy: AddressPolicy::new([], true),
            timeout: TIMEOUT,
            ..CallbackSettings::new(SigningKey::new("secret"))
        };
        let model = Arc::new(Mutex::new(Model::new(seed, places, epochs.collect(), settings.give_up)));
        let kept = Arc::new(Kept::default());
        let verdict = Arc::new(Verdict::default());
        let receivers = Receivers(model.clone(), verdict.clone());
        let callbacks = callbacks(receivers, &hub, &kept, &settings, places);
        let interrupted_until = began;
        World { hub, senders, model, kept, verdict, callbacks, settings, places, began, interrupted_until }
    }

    fn now(&self) -> Timestamp {
        at(self.began)
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Join { sender, url, channels } => self.join(*sender, *url, channels),
            Step::Leave { sender, channel } => {
                if self.leave(*sender, *channel) {
                    self.callbacks.sender_left(self.senders[*sender]);
                }
            }
            Step::LeaveElsewhere { sender, channel } => {
                // Who left is not forgotten before a second has passed.
                if self.leave(*sender, *channel) {
                    self.save();
                }
            }
            Step::Again { sender, url, channel, elsewhere } => {
                if self.leave(*sender, *channel) {
                    if !elsewhere {
                        self.callbacks.sender_left(self.senders[*sender]);
                    }
                    self.join(*sender, *url, &[*channel]);
                    // As above: what was left elsewhere is kept soon.
                    self.save();
                }
            }
            Step::Forget { sender } => self.forget(*sender),
            Step::Publish { channel, receiver } => self.publish(*channel, *receiver),
            Step::Burst { channel, messages } => (0..*messages).for_each(|_| self.publish(*channel, None)),
            Step::Wait(time) => tokio::time::sleep(*time).await,
            Step::Mood { url, mood } => self.model.lock().set_mood(address(*url), *mood),
            Step::GiveUp(give_up) => {
                self.settings.give_up = *give_up;
                self.model.lock().give_up = *give_up;
                self.callbacks.0.shared.reload(self.settings.key.clone(), *give_up);
            }
            Step::Lag(messages) => {
                let mut settings = (*self.hub.settings()).clone();
                settings.limits.lag_messages = *messages;
                self.hub.configure(settings);
                self.model.lock().lag_messages = *messages;
            }
            Step::Save => self.save(),
            Step::Sweep => self.callbacks.sweep(),
            Step::Restart(grace) => {
                let began = Instant::now();
                let is_idle = self.model.lock().in_flight.is_empty();
                let most = if is_idle { Duration::ZERO } else { TIMEOUT.min(*grace) };
                self.callbacks.drain(*grace).await;
                assert!(began.elapsed() <= most + model::TICK, "{:?}", began.elapsed());
                self.save();
                self.start_again();
            }
            Step::Crash => {
                self.callbacks.drain(Duration::ZERO).await;
                self.start_again();
            }
        }
        // Time passes once nobody has anything to do.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.hub.tick(self.now());
        self.check(matches!(step, Step::Sweep));
    }

    fn check(&self, is_swept: bool) {
        if let Some(said) = self.verdict.lock().take() {
            panic::resume_unwind(said);
        }
        let mut model = self.model.lock();
        model.check(&self.callbacks.records(), is_swept);
        model.check_counted(self.callbacks.metrics());
        let skipped = self.hub.counts().lagging_skipped;
        assert!(model.skipped <= skipped, "{} of {skipped} were counted", model.skipped);
        if Instant::now() > self.interrupted_until + model::TICK {
            for (sender, channel) in
                self.senders.iter().flat_map(|id| (1..=CHANNELS).map(move |at| (*id, at)))
            {
                let has_joined = self.hub.has_joined(sender, &channel.into());
                assert_eq!(has_joined, model.has_joined(sender, channel), "{sender} in channel {channel}");
            }
        }
    }

    fn join(&self, sender: usize, url: usize, channels: &[u32]) {
        let (sender, now) = (self.senders[sender], self.now());
        let url = CallbackUrl::parse(&address(url), &self.settings.policy).expect("a URL");
        let names: Vec<ChannelName> = channels.iter().map(|channel| (*channel).into()).collect();
        self.callbacks.join(sender, &url, &names, now).expect("there is room");
        let record =
            self.callbacks.records().into_iter().find(|record| record.sender == sender && record.url == url);
        let id = record.expect("it has just begun").id;
        self.model.lock().joined(id, sender, url.as_str(), channels);
    }

    /// Whether it had joined.
    fn leave(&self, sender: usize, channel: u32) -> bool {
        let (sender, name) = (self.senders[sender], channel.into());
        let has_joined = self.hub.has_joined(sender, &name);
        if has_joined {
            self.hub.leave(sender, &name, self.now()).expect("it is registered");
            self.model.lock().left(sender, channel);
        }
        has_joined
    }

    fn forget(&mut self, sender: usize) {
        for channel in 1..=CHANNELS {
            self.model.lock().left(self.senders[sender], channel);
        }
        self.hub.unregister(self.senders[sender], self.now()).expect("it is registered");
        self.senders[sender] = self.hub.register(self.now()).expect("room");
        // As for who leaves elsewhere.
        self.save();
    }

    fn publish(&self, channel: u32, receiver: Option<usize>) {
        let receiver = receiver.map(|receiver| self.senders[receiver]);
        if receiver.is_some_and(|receiver| !self.hub.has_joined(receiver, &channel.into())) {
            return;
        }
        let content = self.model.lock().publish(channel, receiver);
        let receivers = receiver.map(|receiver| [receiver.get()]);
        let mut message = Publish::new(Content::text(content));
        if let Some(receivers) = &receivers {
            message = message.to(receivers);
        }
        self.hub.publish(&channel.into(), message, self.now()).expect("it is taken");
    }

    fn start_again(&mut self) {
        let records: Vec<_> = self.kept.0.lock().values().cloned().collect();
        self.interrupted_until = Instant::now() + self.hub.settings().session_ttl;
        let receivers = Receivers(self.model.clone(), self.verdict.clone());
        self.callbacks = callbacks(receivers, &self.hub, &self.kept, &self.settings, self.places);
        self.model.lock().starts_again(&records);
        for record in &records {
            self.callbacks.restore(record, self.now()).expect("there is room");
        }
    }

    fn save(&self) {
        self.callbacks.save();
        self.model.lock().check_kept(&self.kept.0.lock());
    }

    /// Everybody takes what there is, and leaves.
    async fn end(&mut self) {
        (0..URLS).for_each(|url| self.model.lock().set_mood(address(url), Mood::Takes));
        tokio::time::sleep(ALL_RETRIED).await;
        self.model.lock().check_all_accepted();
        for sender in 0..SENDERS {
            for channel in 1..=CHANNELS {
                self.leave(sender, channel);
            }
        }
        self.callbacks.sweep();
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.check(true);
        assert_eq!(self.callbacks.records(), []);
        assert_eq!(self.callbacks.metrics().subscriptions(), (0, 0));
        assert_eq!(self.hub.counts().subscriptions, 0);
        assert_eq!(self.kept.0.lock().len(), 0);
        let sessions: Vec<_> = self.hub.counts_by_protocol().iter().map(|counts| counts.sessions).collect();
        assert!(sessions.iter().all(|sessions| *sessions == 0), "{sessions:?}");
    }
}

fn at(began: Instant) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000).after(began.elapsed())
}

fn address(url: usize) -> String {
    format!("http://receiver-{url}.test/")
}

fn callbacks(
    receivers: Receivers,
    hub: &Hub,
    kept: &Arc<Kept>,
    settings: &CallbackSettings,
    places: usize,
) -> Callbacks<Receivers> {
    let kept: Arc<dyn Records> = kept.clone();
    let callbacks =
        Callbacks::posted_by(receivers, hub.clone(), Arc::new(Plain), settings.clone(), Some(kept));
    callbacks.0.shared.leave_places(places, places);
    callbacks
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn receivers_get_what_is_theirs_in_order_and_as_often_as_they_must(
        seed: u64,
        places in select(vec![1, 2, PLENTY]),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let mut world = World::new(seed, places);
            for step in &steps {
                world.take(step).await;
            }
            world.end().await;
        });
    }
}
