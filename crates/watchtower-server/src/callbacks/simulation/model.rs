//! What receivers are to get, and when.
//!
//! Knows no hub and no worker: what was published, joined and left is told to it,
//! and each attempt.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use fastrand::Rng;
use http::StatusCode;
use tokio::time::Instant;
use watchtower_hub::{Epoch, Position, SenderId};

use super::{Failure, Outcome, Record, SubscriptionId, TIMEOUT};
use crate::callbacks::delivery::DeliveryId;
use crate::callbacks::schedule::{DELAY_MAX, FIRST_DELAY_MAX};

/// How exact the clock is.
const TICK: Duration = Duration::from_millis(2);

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
    subscriptions: Vec<Subscription>,
    /// Those whose last channel was left where callbacks are not told: they end
    /// by the next sweep.
    lingering: HashSet<SubscriptionId>,
    /// The subscriptions that an attempt is under way of.
    pub(super) in_flight: HashSet<SubscriptionId>,
    pub(super) give_up: Duration,
    joins: u64,
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
}

struct Failing {
    since: Instant,
    times: u32,
    /// When the next attempt may begin.
    earliest: Instant,
    /// When it must have, unless its message is not to be sent any more.
    latest: Option<Instant>,
}

/// An attempt that is under way.
pub(super) struct Attempt {
    pub(super) subscription: SubscriptionId,
    channel: u32,
    offset: u64,
    join: u64,
}

impl Model {
    pub(super) fn new(seed: u64, epochs: BTreeMap<u32, Epoch>, give_up: Duration) -> Model {
        Model {
            rng: Rng::with_seed(seed),
            moods: HashMap::new(),
            published: epochs.keys().map(|channel| (*channel, Vec::new())).collect(),
            epochs,
            subscriptions: Vec::new(),
            lingering: HashSet::new(),
            in_flight: HashSet::new(),
            give_up,
            joins: 0,
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
        content
    }

    fn end_of(&self, channel: u32) -> u64 {
        self.published[&channel].len() as u64
    }

    pub(super) fn joined(&mut self, id: SubscriptionId, sender: SenderId, url: &str, channels: &[u32]) {
        self.lingering.remove(&id);
        let at = self.subscriptions.iter().position(|known| known.id == id).unwrap_or_else(|| {
            let (url, channels) = (url.to_owned(), BTreeMap::new());
            self.subscriptions.push(Subscription { id, sender, url, channels, failing: None });
            self.subscriptions.len() - 1
        });
        for channel in channels {
            self.joins += 1;
            let new = Joined { number: self.joins, accepted: self.end_of(*channel) };
            self.subscriptions[at].channels.entry(*channel).or_insert(new);
        }
    }

    pub(super) fn left(&mut self, sender: SenderId, channel: u32) {
        for subscription in self.subscriptions.iter_mut().filter(|known| known.sender == sender) {
            let was_in = subscription.channels.remove(&channel).is_some();
            if let Some(failing) = &mut subscription.failing {
                failing.latest = None;
            }
            if was_in && subscription.channels.is_empty() {
                self.lingering.insert(subscription.id);
            }
        }
    }

    /// Judges an attempt, and says when it is answered with what.
    pub(super) fn begins(&mut self, url: &str, body: &[u8], id: DeliveryId) -> (Attempt, Duration, Outcome) {
        let now = Instant::now();
        let (at, channel, offset) = self.find(url, id).expect("it was published, and is for somebody here");
        let subscription = &self.subscriptions[at];
        let joined = subscription.channels.get(&channel).expect("the channel was not left");
        assert_eq!(Some(offset), self.next(subscription, channel), "in order, and nothing left out");
        assert_eq!(body, self.published[&channel][offset as usize - 1].content.as_bytes());
        if let Some(Failing { earliest, latest, .. }) = subscription.failing {
            assert!(now + TICK >= earliest, "{:?} too early", earliest - now);
            assert!(latest.is_none_or(|latest| now <= latest + TICK), "later than {latest:?}");
        }
        let attempt = Attempt { subscription: subscription.id, channel, offset, join: joined.number };
        assert!(self.in_flight.insert(attempt.subscription), "one at a time");
        let (after, outcome) = self.answer(url);
        (attempt, after, outcome)
    }

    fn find(&self, url: &str, id: DeliveryId) -> Option<(usize, u32, u64)> {
        let of_url = self.subscriptions.iter().enumerate().filter(|(_, known)| known.url == url);
        for (at, subscription) in of_url {
            for (channel, published) in &self.published {
                for offset in 1..=published.len() as u64 {
                    let position = Position { epoch: self.epochs[channel], offset };
                    if subscription.id.delivery(&(*channel).into(), position) == id {
                        return Some((at, *channel, offset));
                    }
                }
            }
        }
        None
    }

    /// The first message of the channel that the subscription's receiver has yet
    /// to get.
    fn next(&self, subscription: &Subscription, channel: u32) -> Option<u64> {
        let accepted = subscription.channels.get(&channel)?.accepted;
        let is_theirs = |published: &Published| published.receiver.is_none_or(|id| id == subscription.sender);
        let published = self.published[&channel].iter().zip(1..).skip(accepted as usize);
        published.filter(|(published, _)| is_theirs(published)).map(|(_, offset)| offset).next()
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
        let subscription = &mut self.subscriptions[at];
        match outcome {
            Outcome::Accepted => {
                subscription.failing = None;
                let joined = subscription.channels.get_mut(&attempt.channel);
                // What was left meanwhile, and joined again, begins anew.
                if let Some(joined) = joined.filter(|joined| joined.number == attempt.join) {
                    joined.accepted = attempt.offset;
                }
            }
            Outcome::Gone => drop(self.subscriptions.remove(at)),
            Outcome::Failed(_) => {
                let (since, times) = match &subscription.failing {
                    Some(failing) => (failing.since, failing.times),
                    None => (now, 0),
                };
                let left = self.give_up.saturating_sub(now - since);
                if left.is_zero() {
                    self.subscriptions.remove(at);
                    return;
                }
                let longest = FIRST_DELAY_MAX.saturating_mul(1 << times.min(20)).min(DELAY_MAX);
                let earliest = now + (longest / 2).min(left);
                let is_joined = |joined: &Joined| joined.number == attempt.join;
                let is_tried_again = subscription.channels.get(&attempt.channel).is_some_and(is_joined);
                let latest = is_tried_again.then(|| now + longest.min(left));
                subscription.failing = Some(Failing { since, times: times + 1, earliest, latest });
            }
        }
    }

    /// After a restart subscriptions are where they were kept; after one in order
    /// that is where they were.
    pub(super) fn starts_again(&mut self, records: &[Record]) {
        assert_eq!(self.in_flight.len(), 0, "all attempts are over");
        for subscription in self.subscriptions.iter_mut().filter(|known| !known.channels.is_empty()) {
            subscription.failing = None;
            let record = records.iter().find(|record| record.id == subscription.id);
            let kept = positions(record.expect("it was kept when it began"));
            for (channel, joined) in &mut subscription.channels {
                let kept = *kept.get(channel).expect("the channel was kept when it was joined");
                assert!(kept <= joined.accepted, "{kept} of {} was not accepted", joined.accepted);
                joined.accepted = kept;
            }
        }
    }

    /// The subscriptions that there are, are those that there should be, and have
    /// come as far as their receivers.
    pub(super) fn check(&mut self, records: &[Record], is_swept: bool) {
        if is_swept {
            self.lingering.clear();
        }
        let lingering = &self.lingering;
        self.subscriptions.retain(|known| !known.channels.is_empty() || lingering.contains(&known.id));
        for record in records {
            let known = self.subscriptions.iter().any(|known| known.id == record.id);
            assert!(known, "{record:?} is over");
        }
        for subscription in self.subscriptions.iter().filter(|known| !known.channels.is_empty()) {
            let record = records.iter().find(|record| record.id == subscription.id);
            subscription.is_at(&positions(record.expect("it goes on")));
        }
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
    fn is_at(&self, positions: &BTreeMap<u32, u64>) {
        for (channel, joined) in &self.channels {
            assert_eq!(positions.get(channel), Some(&joined.accepted), "of channel {channel}");
        }
    }
}

fn positions(record: &Record) -> BTreeMap<u32, u64> {
    let number = |channel: &watchtower_hub::ChannelName| channel.number().expect("all have numbers");
    record.channels.iter().map(|(channel, position)| (number(channel), position.offset)).collect()
}
