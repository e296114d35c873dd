//! The books of one run: what was published when, and what has arrived.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::load::Copies;
use crate::load::arrivals::{Arrivals, Receipt};
use crate::load::nanoseconds;
use crate::load::packets::Arrival;
use crate::load::schedule::Schedule;

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Messages published.
    pub(crate) messages: u64,
    /// Copies that subscribers got; the publisher's own are not among them.
    pub(crate) deliveries: u64,
    /// Copies that subscribers did not get.
    pub(crate) lost: u64,
    /// What arrived and was no first copy of a message of this run.
    pub(crate) unexpected: u64,
    /// From the start to the last arrival.
    pub(crate) elapsed: Duration,
}

/// A run that is under way. Times are counted from its start.
#[derive(Debug)]
pub(crate) struct Round {
    started: Instant,
    /// The number of the run's first message.
    first: u32,
    /// When each message was published, or should have been, in nanoseconds.
    published_at: Vec<u64>,
    /// Connections before this one are subscribers, the others publishers.
    subscribers: usize,
    /// How many subscribers a message goes to.
    deliveries_each: u64,
    /// Messages (by index) before this one are not waited for any more.
    waiting_from: usize,
    /// Copies of messages from `waiting_from` on that have not arrived.
    outstanding: u64,
    deliveries: u64,
    unexpected: u64,
    last_published: Duration,
    last_arrival: Duration,
    /// Deliveries whose latency is not recorded yet: those of one read that were published at one
    /// time, mostly a whole burst, have one latency.
    unrecorded: Unrecorded,
}

#[derive(Debug, Default)]
struct Unrecorded {
    published_at: u64,
    deliveries: u64,
}

impl Unrecorded {
    fn record(&mut self, now: Duration, latencies: &mut Histogram<u64>) {
        if self.deliveries > 0 {
            let latency = nanoseconds(now).saturating_sub(self.published_at);
            latencies.saturating_record_n(latency, std::mem::take(&mut self.deliveries));
        }
    }
}

impl Round {
    pub(crate) fn start(first: u32, copies: &Copies) -> Self {
        Self {
            started: Instant::now(),
            first,
            published_at: Vec::new(),
            subscribers: copies.subscribers,
            deliveries_each: copies.deliveries,
            waiting_from: 0,
            outstanding: 0,
            deliveries: 0,
            unexpected: 0,
            last_published: Duration::ZERO,
            last_arrival: Duration::ZERO,
            unrecorded: Unrecorded::default(),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether nothing is outstanding.
    pub(crate) fn is_settled(&self) -> bool {
        self.outstanding == 0
    }

    pub(crate) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// How long nothing has happened.
    pub(crate) fn silence(&self) -> Duration {
        self.elapsed().saturating_sub(self.last_published.max(self.last_arrival))
    }

    /// Notes that the next messages are published now; they count from when they were due.
    pub(crate) fn publish(&mut self, messages: u32, schedule: &Schedule, copies: &Copies) {
        let now = self.elapsed();
        let index = self.published_at.len() as u32;
        self.published_at.extend(
            (index..index + messages).map(|index| nanoseconds(schedule.due_at(index).unwrap_or(now))),
        );
        let first = self.first + index;
        self.outstanding += (first..first + messages).map(|number| copies.of(number)).sum::<u64>();
        self.last_published = now;
    }

    /// Notes what arrived on a connection; [`Round::record`] must follow before time goes on.
    pub(crate) fn note(
        &mut self,
        link: usize,
        arrival: Arrival,
        now: Duration,
        copies: &Copies,
        arrivals: &mut Arrivals,
        latencies: &mut Histogram<u64>,
    ) {
        let Arrival::Message(Some(number)) = arrival else {
            self.unexpected += 1;
            return;
        };
        // What is late from an earlier run was counted as lost there.
        let Some(index) = number.0.checked_sub(self.first) else { return };
        if !copies.is_for(link, number.0) {
            self.unexpected += 1;
            return;
        }
        let published_at = self.published_at.get(index as usize).copied();
        match (published_at, published_at.map(|_| arrivals.note(link, number))) {
            (Some(published_at), Some(Receipt::First)) => {
                self.last_arrival = now;
                if index as usize >= self.waiting_from {
                    self.outstanding = self.outstanding.saturating_sub(1);
                }
                if link < self.subscribers {
                    self.deliveries += 1;
                    if self.unrecorded.published_at != published_at {
                        self.unrecorded.record(now, latencies);
                        self.unrecorded.published_at = published_at;
                    }
                    self.unrecorded.deliveries += 1;
                }
            }
            _ => self.unexpected += 1,
        }
    }

    /// Records the latencies of what was noted at this time.
    pub(crate) fn record(&mut self, now: Duration, latencies: &mut Histogram<u64>) {
        self.unrecorded.record(now, latencies);
    }

    /// Takes what is outstanding as lost. What arrives of it later still counts as delivered.
    pub(crate) fn give_up(&mut self) {
        self.waiting_from = self.published_at.len();
        self.outstanding = 0;
    }

    pub(crate) fn finish(self) -> Run {
        let messages = self.published_at.len() as u64;
        Run {
            messages,
            deliveries: self.deliveries,
            lost: (messages * self.deliveries_each).saturating_sub(self.deliveries),
            unexpected: self.unexpected,
            elapsed: self.last_arrival,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::latency_histogram;
    use crate::load::payload::Number;
    use crate::load::schedule::Pace;

    /// Two subscribers and a publisher.
    fn copies() -> Copies {
        Copies { subscribers: 2, deliveries: 2, answers: vec![1], apart: None }
    }

    /// Two messages from number 10 on.
    fn started(pace: Pace) -> (Round, Arrivals, Histogram<u64>) {
        let mut round = Round::start(10, &copies());
        round.publish(2, &Schedule::new(pace, 2), &copies());
        (round, Arrivals::new(3, 64), latency_histogram())
    }

    /// Has a message arrive alone.
    fn arrive(
        (round, arrivals, latencies): &mut (Round, Arrivals, Histogram<u64>),
        link: usize,
        arrival: Arrival,
        now: Duration,
    ) {
        round.note(link, arrival, now, &copies(), arrivals, latencies);
        round.record(now, latencies);
    }

    fn message(number: u32) -> Arrival {
        Arrival::Message(Some(Number(number)))
    }

    #[test]
    fn a_run_is_settled_when_every_connection_has_had_every_message() {
        let mut side = started(Pace::Window(2));
        let now = Duration::from_secs(1);
        for (link, number) in [(0, 10), (0, 11), (1, 10), (2, 10), (2, 11)] {
            arrive(&mut side, link, message(number), now);
            assert!(!side.0.is_settled());
        }
        arrive(&mut side, 1, message(11), now);
        assert!(side.0.is_settled());
        let run = side.0.finish();
        let expected = Run { messages: 2, deliveries: 4, lost: 0, unexpected: 0, elapsed: now };
        assert_eq!(run, expected);
        assert_eq!(side.2.len(), 4, "the publisher's copies are no deliveries");
    }

    #[test]
    fn what_was_given_up_is_lost_unless_it_arrives_late() {
        let mut side = started(Pace::Window(2));
        let now = Duration::from_secs(1);
        for (link, number) in [(0, 10), (0, 11), (2, 10), (2, 11)] {
            arrive(&mut side, link, message(number), now);
        }
        side.0.give_up();
        assert!(side.0.is_settled());
        arrive(&mut side, 1, message(11), now);
        assert!(side.0.is_settled());
        let run = side.0.finish();
        assert_eq!((run.deliveries, run.lost), (3, 1));
    }

    #[test]
    fn what_is_not_a_first_copy_of_this_run_is_no_delivery() {
        let mut side = started(Pace::Window(2));
        let now = Duration::ZERO;
        let unexpected = [message(10), message(12), Arrival::Message(None), Arrival::Acknowledged(1)];
        arrive(&mut side, 0, message(10), now);
        for arrival in unexpected {
            arrive(&mut side, 0, arrival, now);
        }
        arrive(&mut side, 0, message(9), now);
        side.0.give_up();
        let run = side.0.finish();
        assert_eq!((run.deliveries, run.unexpected), (1, 4));
    }

    #[test]
    fn at_a_rate_latency_counts_from_when_a_message_was_due() {
        // All were written at once and came in one read, though each was due a second after the
        // last.
        let mut round = Round::start(10, &copies());
        round.publish(3, &Schedule::new(Pace::Rate(1), 3), &copies());
        let (mut arrivals, mut latencies) = (Arrivals::new(3, 64), latency_histogram());
        let now = Duration::from_millis(2500);
        for number in 10..13 {
            round.note(0, message(number), now, &copies(), &mut arrivals, &mut latencies);
        }
        round.record(now, &mut latencies);
        round.record(now, &mut latencies);
        let told: Vec<_> = latencies
            .iter_recorded()
            .map(|at| (at.value_iterated_to() / 10_000_000, at.count_at_value()))
            .collect();
        assert_eq!(told, [(50, 1), (150, 1), (250, 1)]);
    }

    #[test]
    fn a_burst_that_comes_in_one_read_has_one_latency_for_each_delivery() {
        let mut round = Round::start(10, &copies());
        round.publish(3, &Schedule::new(Pace::Window(3), 3), &copies());
        let (mut arrivals, mut latencies) = (Arrivals::new(3, 64), latency_histogram());
        let now = Duration::from_secs(1);
        for number in 10..13 {
            round.note(0, message(number), now, &copies(), &mut arrivals, &mut latencies);
        }
        round.record(now, &mut latencies);
        assert_eq!(latencies.len(), 3);
        assert!(latencies.max() > 900_000_000);
    }
}
