//! The measured rounds: server and bare loop in turn, on the same cores, so that what the machine
//! does beside them falls on both.

use hdrhistogram::Histogram;

use crate::error::Error;
use crate::load::{Pace, Run, latency_histogram};
use crate::options::Options;
use crate::progress::{Phase, Progress};
use crate::report::{Cores, FloorCost, Latency, Report, RoundCost, ServerCost, median};
use crate::side::{Cost, Side, deliveries_per_second, load_cost};

/// Into how many rounds the messages are divided, if there are bursts enough.
const ROUNDS: u32 = 10;

/// The most messages that run before anything is measured.
const WARM_UP_MESSAGES_MAX: u32 = 1000;

/// Every round.
pub(crate) struct Measurement {
    server: Vec<Cost>,
    floor: Vec<Cost>,
    server_latencies: Histogram<u64>,
    floor_latencies: Histogram<u64>,
}

impl Measurement {
    /// Runs all the messages on each side.
    ///
    /// Every round begins with one burst that is not counted: what the other side pushed out of
    /// the caches is back then.
    pub(crate) fn take(
        options: &Options,
        server: &mut Side,
        mut floor: Option<&mut Side>,
        progress: &mut dyn Progress,
    ) -> Result<Self, Error> {
        let burst = options.pace.burst().min(options.messages);
        progress.begin(Phase::WarmingUp, 0);
        let warm_up = (options.messages / 10).clamp(1, WARM_UP_MESSAGES_MAX).max(burst);
        server.warm_up(warm_up)?;
        if let Some(floor) = &mut floor {
            floor.warm_up(warm_up)?;
        }

        progress.begin(Phase::Measuring, options.messages.into());
        let rounds = match options.pace {
            // A backlog that builds up must not be cut off by the end of a round.
            Pace::Rate(_) if floor.is_none() => 1,
            Pace::Rate(_) | Pace::Window(_) => ROUNDS,
        };
        let (mut of_server, mut of_floor) = (Vec::new(), Vec::new());
        let mut done = 0;
        for messages in divide(options.messages, burst, rounds) {
            server.warm_up(burst)?;
            of_server.push(server.measure(messages)?);
            if let Some(floor) = &mut floor {
                floor.warm_up(burst)?;
                of_floor.push(floor.measure(messages)?);
            }
            done += u64::from(messages);
            progress.done(done);
        }
        Ok(Self {
            server: of_server,
            floor: of_floor,
            server_latencies: server.latencies().clone(),
            floor_latencies: floor.map_or_else(latency_histogram, |floor| floor.latencies().clone()),
        })
    }

    /// The median round's; `None` if the server's clock is not ours to read, or nothing arrived.
    pub(crate) fn server_cpu_ns_per_delivery(&self) -> Option<f64> {
        median(self.server.iter().filter_map(Cost::cpu_ns_per_delivery))
    }

    /// What there is to tell.
    pub(crate) fn report(self, options: &Options, cores: Cores, server: Option<ServerCost>) -> Report {
        let total = |count: fn(&Run) -> u64| self.server.iter().map(|cost| count(&cost.run)).sum();
        let deliveries: u64 = total(|run| run.deliveries);
        Report {
            protocol: options.protocol,
            deflate: options.deflate,
            subscribers: options.topology().subscribers(),
            publishers: options.publishers,
            channels: options.channels,
            size_bytes: options.size,
            pace: options.pace,
            messages: total(|run| run.messages),
            deliveries,
            lost: total(|run| run.lost),
            unexpected: total(|run| run.unexpected),
            deliveries_per_second: deliveries_per_second(&self.server),
            latency: Latency::of(&self.server_latencies),
            server,
            floor: self.floor_cost(),
            load: load_cost(&self.server),
            cores,
            rounds: self.rounds(),
        }
    }

    fn floor_cost(&self) -> Option<FloorCost> {
        if self.floor.is_empty() {
            return None;
        }
        let ratios =
            self.server.iter().zip(&self.floor).filter_map(|(server, floor)| {
                Some(server.cpu_ns_per_delivery()? / floor.cpu_ns_per_delivery()?)
            });
        Some(FloorCost {
            cpu_ns_per_delivery: median(self.floor.iter().filter_map(Cost::cpu_ns_per_delivery)),
            ratio: median(ratios),
            lost: self.floor.iter().map(|cost| cost.run.lost).sum(),
            deliveries_per_second: deliveries_per_second(&self.floor),
            latency: Latency::of(&self.floor_latencies),
            load: load_cost(&self.floor),
        })
    }

    fn rounds(&self) -> Vec<RoundCost> {
        let floors = self.floor.iter().map(|cost| Some(cost.to_report()));
        self.server
            .iter()
            .zip(floors.chain(std::iter::repeat(None)))
            .map(|(server, floor)| RoundCost { server: server.to_report(), floor })
            .collect()
    }
}

/// Divides messages into at most so many rounds of whole bursts; the last may hold fewer.
fn divide(messages: u32, burst: u32, rounds: u32) -> impl Iterator<Item = u32> {
    let bursts = messages.div_ceil(burst);
    let rounds = rounds.min(bursts);
    (0..rounds).scan(messages, move |left, round| {
        let bursts = bursts / rounds + u32::from(round < bursts % rounds);
        let now = bursts.saturating_mul(burst).min(*left);
        *left -= now;
        Some(now)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::side::tests::cost;

    #[test]
    fn messages_are_divided_into_rounds_of_whole_bursts() {
        let check = |messages, burst, expected: &[u32]| {
            assert_eq!(divide(messages, burst, 4).collect::<Vec<_>>(), expected);
        };
        check(100, 1, &[25, 25, 25, 25]);
        check(3, 1, &[1, 1, 1]);
        check(10, 4, &[4, 4, 2]);
        check(6 * 64, 64, &[128, 128, 64, 64]);
    }

    proptest! {
        #[test]
        fn no_message_is_lost_in_the_division(
            messages in 1..100_000_u32,
            burst in 1..1000_u32,
            rounds in 1..20_u32,
        ) {
            let parts: Vec<_> = divide(messages, burst.min(messages), rounds).collect();
            prop_assert_eq!(parts.iter().sum::<u32>(), messages);
            prop_assert!(parts.iter().all(|part| *part > 0));
        }
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_and_not_of_their_sums() {
        let measurement = Measurement {
            server: vec![cost(10, 110, 0), cost(10, 9_000, 0), cost(10, 240, 0)],
            floor: vec![cost(10, 100, 0), cost(10, 100, 0), cost(10, 200, 0)],
            server_latencies: latency_histogram(),
            floor_latencies: latency_histogram(),
        };
        let floor = measurement.floor_cost().unwrap();
        assert_eq!(floor.ratio, Some(1.2));
        assert_eq!(floor.cpu_ns_per_delivery, Some(10.0));
        assert_eq!(floor.lost, 6);
        assert_eq!(measurement.server_cpu_ns_per_delivery(), Some(24.0));
    }
}
