//! What receivers are to get, and when.
//!
//! Knows no hub and no worker: what was published, joined and left is told to it,
//! and each attempt.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use fastrand::Rng;
use http::StatusCode;
use tokio::time::Instant;
use watchtower_hub::{Epoch, Position, SenderId};

use super::{Failure, Outcome, PLENTY, Record, SubscriptionId, TIMEOUT};
use crate::callbacks::delivery::DeliveryId;
use crate::callbacks::metrics::CallbackMetrics;
use crate::callbacks::schedule::{DELAY_MAX, FIRST_DELAY_MAX};

/// How exact the clock is.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// How a receiver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Takes,
    Fails,
    Hangs,
    Anything,
}

pub(super) struct Model {
    rng: Rng,
    moods: HashMap<String, Mood>,
    epochs: BTreeMap<u32, Epoch>,
    /// By channel, in the order of their offsets, which count from 1.
    published: BTreeMap<u32, Vec<Published>>,
    /// Those whose last channel was left where callbacks are not told end by the
    /// next sweep.
    subscriptions: Vec<Subscription>,
    /// The deliveries that there have been.
    seen: HashMap<DeliveryId, Seen>,
    /// The subscriptions that an attempt is under way of, and whether it is a retry.
    pub(super) in_flight: HashMap<SubscriptionId, bool>,
    /// How many there may be of attempts, and of retries.
    places: usize,
    pub(super) give_up: Duration,
    pub(super) lag_messages: u64,
    joins: u64,
    /// What receivers did not get since they were too far behind.
    pub(super) skipped: u64,
    /// What the server has counted since it started: attempts, and ends.
    attempts: BTreeMap<&'static str, u64>,
    ends: BTreeMap<&'static str, u64>,
}

struct Published {
    content: String,
    receiver: Option<SenderId>,
}

struct Subscription {
    id: SubscriptionId,
    sender: SenderId,
    url: String,
    channels: BTreeMap<u32, Joined>,
    failing: Option<Failing>,
}

#[derive(Clone, Copy)]
struct Joined {
    /// No other join has it.
    number: u64,
    /// The last message that the receiver has, or that there was when it joined.
    accepted: u64,
    /// The last message that it may do without, for being too far behind.
    dispensable: u64,
}

struct Failing {
    since: Instant,
    times: u32,
    /// When the next attempt may begin.
    earliest: Instant,
    /// When it must have, if its message is still to be sent and a place is free.
    latest: Instant,
    /// What failed.
    attempt: Attempt,
}

/// Which message of which subscription a delivery is.
type Seen = (SubscriptionId, u32, u64);

/// An attempt that is under way.
#[derive(Clone, Copy)]
pub(super) struct Attempt {
    pub(super) subscription: SubscriptionId,
    channel: u32,
    offset: u64,
    join: u64,
}

impl Model {
    pub(super) fn new(seed: u64, places: usize, epochs: BTreeMap<u32, Epoch>, give_up: Duration) -> Model {
        Model {
            rng: Rng::with_seed(seed),
            moods: HashMap::new(),
            published: epochs.keys().map(|channel| (*channel, Vec::new())).collect(),
            epochs,
            subscriptions: Vec::new(),
            seen: HashMap::new(),
            in_flight: HashMap::new(),
            places,
            give_up,
            lag_messages: u64::MAX,
            joins: 0,
            skipped: 0,
            attempts: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }

    pub(super) fn set_mood(&mut self, url: String, mood: Mood) {
        self.moods.insert(url, mood);
    }

    /// The content of the next message on that channel.
    pub(super) fn publish(&mut self, channel: u32, receiver: Option<SenderId>) -> String {
        let published = self.published.entry(channel).or_default();
        let content = format!("{channel}: {}", published.len() + 1);
        published.push(Published { content: content.clone(), receiver });
        let too_far = self.end_of(channel).saturating_sub(self.lag_messages);
        for joined in self.subscriptions.iter_mut().filter_map(|known| known.channels.get_mut(&channel)) {
            joined.dispensable = joined.dispensable.max(too_far);
        }
        content
    }

    pub(super) fn has_joined(&self, sender: SenderId, channel: u32) -> bool {
        let mut of_sender = self.subscriptions.iter().filter(|known| known.sender == sender);
        of_sender.any(|known| known.channels.contains_key(&channel))
    }

    fn end_of(&self, channel: u32) -> u64 {
        self.published[&channel].len() as u64
    }

    pub(super) fn joined(&mut self, id: SubscriptionId, sender: SenderId, url: &str, channels: &[u32]) {
        let at = self.subscriptions.iter().position(|known| known.id == id).unwrap_or_else(|| {
            let (url, channels) = (url.to_owned(), BTreeMap::new());
            self.subscriptions.push(Subscription { id, sender, url, channels, failing: None });
            self.subscriptions.len() - 1
        });
        for channel in channels {
            self.joins += 1;
            let new = Joined { number: self.joins, accepted: self.end_of(*channel), dispensable: 0 };
            self.subscriptions[at].channels.entry(*channel).or_insert(new);
        }
    }

    pub(super) fn left(&mut self, sender: SenderId, channel: u32) {
        for subscription in self.subscriptions.iter_mut().filter(|known| known.sender == sender) {
            subscription.channels.remove(&channel);
        }
    }

    /// Judges an attempt, and says when it is answered with what.
    pub(super) fn begins(&mut self, url: &str, body: &[u8], id: DeliveryId) -> (Attempt, Duration, Outcome) {
        let now = Instant::now();
        let (at, channel, offset) = self.find(url, id).expect("it was published, and is for somebody here");
        let subscription = &self.subscriptions[at];
        let joined = subscription.channels.get(&channel).expect("the channel was not left");
        assert!(self.owed(subscription, channel).any(|owed| owed == offset), "{offset} is not owed");
        let next = self.next(subscription, channel);
        assert!(next.is_none_or(|next| offset <= next), "{offset} comes before {next:?}");
        assert_eq!(body, self.published[&channel][offset as usize - 1].content.as_bytes());
        let attempt = Attempt { subscription: subscription.id, channel, offset, join: joined.number };
        let is_retry = subscription.failing.is_some();
        if let Some(failing) = &subscription.failing {
            assert!(now + TICK >= failing.earliest, "{:?} too early", failing.earliest - now);
            if subscription.owes(&failing.attempt) {
                assert_eq!((channel, offset), (failing.attempt.channel, failing.attempt.offset));
                let is_late = now > failing.latest + TICK && self.places == PLENTY;
                assert!(!is_late, "{:?} too late", now - failing.latest);
            }
        }
        assert_eq!(self.in_flight.insert(attempt.subscription, is_retry), None, "one at a time");
        let alike = self.in_flight.values().filter(|other| **other == is_retry).count();
        assert!(alike <= self.places, "{alike} in flight");
        let (after, outcome) = self.answer(url);
        (attempt, after, outcome)
    }

    fn find(&mut self, url: &str, id: DeliveryId) -> Option<(usize, u32, u64)> {
        let seen = self.seen.get(&id).copied().or_else(|| self.search(url, id))?;
        self.seen.insert(id, seen);
        let (subscription, channel, offset) = seen;
        let is_it = |known: &Subscription| known.id == subscription && known.url == url;
        Some((self.subscriptions.iter().position(is_it)?, channel, offset))
    }

    fn search(&self, url: &str, id: DeliveryId) -> Option<Seen> {
        for subscription in self.subscriptions.iter().filter(|known| known.url == url) {
            for (channel, published) in &self.published {
                for offset in 1..=published.len() as u64 {
                    let position = Position { epoch: self.epochs[channel], offset };
                    if subscription.id.delivery(&(*channel).into(), position) == id {
                        return Some((subscription.id, *channel, offset));
                    }
                }
            }
        }
        None
    }

    /// The messages of the channel that the subscription's receiver has yet to get.
    fn owed<'a>(&'a self, subscription: &'a Subscription, channel: u32) -> impl Iterator<Item = u64> + 'a {
        let accepted = subscription.channels.get(&channel).map_or(u64::MAX, |joined| joined.accepted);
        let is_theirs = |published: &Published| published.receiver.is_none_or(|id| id == subscription.sender);
        let published = self.published[&channel].iter().zip(1..).skip(accepted as usize);
        published.filter(move |(published, _)| is_theirs(published)).map(|(_, offset)| offset)
    }

    /// The first of them that it cannot do without.
    fn next(&self, subscription: &Subscription, channel: u32) -> Option<u64> {
        let dispensable = subscription.channels.get(&channel)?.dispensable;
        self.owed(subscription, channel).find(|offset| *offset > dispensable)
    }

    fn answer(&mut self, url: &str) -> (Duration, Outcome) {
        let failed = Outcome::Failed(Failure::Status(StatusCode::INTERNAL_SERVER_ERROR));
        let soon = Duration::from_millis(self.rng.u64(0..5));
        match self.moods.get(url).copied().unwrap_or(Mood::Takes) {
            Mood::Takes => (soon, Outcome::Accepted),
            Mood::Fails => (soon, failed),
            Mood::Hangs => (TIMEOUT, Outcome::Accepted),
            Mood::Anything => {
                let after = Duration::from_millis(self.rng.u64(0..12_000));
                let outcome = match self.rng.u8(..20) {
                    0 => Outcome::Gone,
                    1..8 => failed,
                    _ => Outcome::Accepted,
                };
                (after, outcome)
            }
        }
    }

    pub(super) fn ends(&mut self, attempt: &Attempt, outcome: &Outcome) {
        let now = Instant::now();
        let Some(at) = self.subscriptions.iter().position(|known| known.id == attempt.subscription) else {
            return;
        };
        *self.attempts.entry(label(outcome)).or_default() += 1;
        let before = |offset: &u64| *offset < attempt.offset;
        let skipped = self.owed(&self.subscriptions[at], attempt.channel).take_while(before).count();
        let subscription = &mut self.subscriptions[at];
        match outcome {
            Outcome::Accepted => {
                subscription.failing = None;
                let joined = subscription.channels.get_mut(&attempt.channel);
                // What was left meanwhile, and joined again, begins anew.
                if let Some(joined) = joined.filter(|joined| joined.number == attempt.join) {
                    joined.accepted = attempt.offset;
                    self.skipped += skipped as u64;
                }
            }
            Outcome::Gone => self.end(at, "gone"),
            Outcome::Failed(_) => {
                let (since, times) = match &subscription.failing {
                    Some(failing) => (failing.since, failing.times),
                    None => (now, 0),
                };
                let left = self.give_up.saturating_sub(now - since);
                if left.is_zero() {
                    self.end(at, "gave_up");
                    return;
                }
                let longest = FIRST_DELAY_MAX.saturating_mul(1 << times.min(20)).min(DELAY_MAX);
                let earliest = now + (longest / 2).min(left);
                let latest = now + longest.min(left);
                let attempt = *attempt;
                subscription.failing = Some(Failing { since, times: times + 1, earliest, latest, attempt });
            }
        }
    }

    fn end(&mut self, at: usize, reason: &'static str) {
        self.subscriptions.remove(at);
        *self.ends.entry(reason).or_default() += 1;
    }

    /// After a restart subscriptions are where they were kept; after one in order
    /// that is where they were.
    pub(super) fn starts_again(&mut self, records: &[Record]) {
        assert_eq!(self.in_flight.len(), 0, "all attempts are over");
        self.attempts.clear();
        self.ends.clear();
        self.subscriptions.iter_mut().for_each(|known| known.failing = None);
        for subscription in self.subscriptions.iter_mut().filter(|known| !known.channels.is_empty()) {
            let record = records.iter().find(|record| record.id == subscription.id);
            let kept = positions(record.expect("it was kept when it began"));
            for (channel, joined) in &mut subscription.channels {
                let kept = *kept.get(channel).expect("the channel was kept when it was joined");
                assert!(kept <= joined.accepted, "{kept} of {} was not accepted", joined.accepted);
                (joined.accepted, joined.dispensable) = (kept, 0);
            }
        }
    }

    /// The subscriptions that there are, are those that there should be, and have
    /// come as far as their receivers.
    pub(super) fn check(&mut self, records: &[Record], is_swept: bool) {
        let is_there = |id| records.iter().any(|record| record.id == id);
        let is_over = |known: &Subscription| known.channels.is_empty() && (is_swept || !is_there(known.id));
        while let Some(at) = self.subscriptions.iter().position(is_over) {
            self.end(at, "left");
        }
        for record in records {
            let known = self.subscriptions.iter().any(|known| known.id == record.id);
            assert!(known, "{record:?} is over");
        }
        for subscription in self.subscriptions.iter().filter(|known| !known.channels.is_empty()) {
            let record = records.iter().find(|record| record.id == subscription.id);
            subscription.is_at(&positions(record.expect("it goes on")));
        }
    }

    /// What happened is what was counted.
    pub(super) fn check_counted(&self, metrics: &CallbackMetrics) {
        for outcome in ["accepted", "gone", "status", "timeout"] {
            assert_eq!(
                metrics.attempts(outcome),
                self.attempts.get(outcome).copied().unwrap_or(0),
                "{outcome}"
            );
        }
        for reason in ["gone", "gave_up", "left", "draining"] {
            assert_eq!(metrics.ends(reason), self.ends.get(reason).copied().unwrap_or(0), "{reason}");
        }
        let failing = self.subscriptions.iter().filter(|known| known.failing.is_some()).count();
        assert_eq!(metrics.subscriptions(), (self.subscriptions.len() as i64, failing as i64));
    }

    /// What was saved is how far they have come.
    pub(super) fn check_kept(&self, kept: &HashMap<SubscriptionId, Record>) {
        for subscription in self.subscriptions.iter().filter(|known| !known.channels.is_empty()) {
            subscription.is_at(&positions(kept.get(&subscription.id).expect("it is kept")));
        }
    }

    pub(super) fn check_all_accepted(&self) {
        for subscription in &self.subscriptions {
            for channel in subscription.channels.keys() {
                assert_eq!(self.next(subscription, *channel), None, "of channel {channel}");
            }
        }
    }
}

impl Subscription {
    /// Whether what failed is still to be sent.
    fn owes(&self, failed: &Attempt) -> bool {
        self.channels.get(&failed.channel).is_some_and(|joined| joined.number == failed.join)
    }

    fn is_at(&self, positions: &BTreeMap<u32, u64>) {
        for (channel, joined) in &self.channels {
            assert_eq!(positions.get(channel), Some(&joined.accepted), "of channel {channel}");
        }
    }
}

fn label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Gone => "gone",
        Outcome::Failed(failure) => failure.cause(),
    }
}

fn positions(record: &Record) -> BTreeMap<u32, u64> {
    let number = |channel: &watchtower_hub::ChannelName| channel.number().expect("all have numbers");
    record.channels.iter().map(|(channel, position)| (number(channel), position.offset)).collect()
}
