//! The measured rounds: server and bare loop in turn, on the same cores, so that what the machine
//! does beside them falls on both.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::cores::{CpuClock, Placement, waited_for_core};
use crate::error::Error;
use crate::fanout::options::FanoutOptions;
use crate::load::{Load, Pace, Run, latency_histogram};
use crate::process::Process;
use crate::progress::{Phase, Progress};
use crate::report::{Cores, FloorCost, Latency, LoadCost, Report, RoundCost, ServerCost, SideCost, median};

/// Into how many rounds the messages are divided, if there are bursts enough.
const ROUNDS: u32 = 10;

/// The most messages that run before anything is measured.
const WARM_UP_MESSAGES_MAX: u32 = 1000;

/// A load that ran, or waited for its core, so much of the time had none left.
const SATURATED_SHARE: f64 = 0.9;

/// One target, with the clock of its process if that is ours.
pub(crate) struct Side {
    load: Load,
    clock: Option<CpuClock>,
    latencies: Histogram<u64>,
    /// Held so that it lives as long as its connections.
    _process: Option<Process>,
}

impl Side {
    pub(crate) fn new(load: Load, process: Option<&Process>) -> Result<Self, Error> {
        let clock = process.map(Process::cpu_clock).transpose()?;
        Ok(Self { load, clock, latencies: latency_histogram(), _process: None })
    }

    /// For a process that nobody else needs.
    pub(crate) fn owning(load: Load, process: Process) -> Result<Self, Error> {
        let side = Self::new(load, Some(&process))?;
        Ok(Self { _process: Some(process), ..side })
    }

    /// Runs messages that are not measured.
    fn warm_up(&mut self, messages: u32) -> Result<(), Error> {
        self.load.run(messages, &mut latency_histogram()).map(drop)
    }

    /// Runs messages, and says what they cost.
    fn measure(&mut self, messages: u32) -> Result<Cost, Error> {
        let read = |clock: Option<CpuClock>| clock.map(CpuClock::read).transpose();
        let own = CpuClock::own();
        let (own_before, waited_before) = (own.read()?, waited_for_core()?);
        let (started, before) = (Instant::now(), read(self.clock)?);
        let run = self.load.run(messages, &mut self.latencies)?;
        let (took, after) = (started.elapsed(), read(self.clock)?);
        let (own_after, waited_after) = (own.read()?, waited_for_core()?);
        Ok(Cost {
            run,
            took,
            cpu: after.zip(before).map(|(after, before)| after.saturating_sub(before)),
            load_cpu: own_after.saturating_sub(own_before),
            load_waited: waited_after.saturating_sub(waited_before),
        })
    }
}

/// What a round came to on one side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    run: Run,
    /// From just before the run to just after it.
    took: Duration,
    /// What the server, or the bare loop, used.
    cpu: Option<Duration>,
    /// What this process used.
    load_cpu: Duration,
    /// How long the load could have run, but something else had its core.
    load_waited: Duration,
}

impl Cost {
    fn cpu_ns_per_delivery(&self) -> Option<f64> {
        per_delivery(self.cpu?, self.run.deliveries)
    }

    fn to_report(self) -> SideCost {
        SideCost {
            deliveries: self.run.deliveries,
            lost: self.run.lost,
            seconds: self.run.elapsed.as_secs_f64(),
            cpu_ns_per_delivery: self.cpu_ns_per_delivery(),
        }
    }
}

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
        options: &FanoutOptions,
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
            server_latencies: server.latencies.clone(),
            floor_latencies: floor.map_or_else(latency_histogram, |floor| floor.latencies.clone()),
        })
    }

    /// The median round's; `None` if the server's clock is not ours to read, or nothing arrived.
    pub(crate) fn server_cpu_ns_per_delivery(&self) -> Option<f64> {
        median(self.server.iter().filter_map(Cost::cpu_ns_per_delivery))
    }

    /// What there is to tell.
    pub(crate) fn report(
        self,
        options: &FanoutOptions,
        placement: Placement,
        server: Option<ServerCost>,
    ) -> Report {
        let total = |count: fn(&Run) -> u64| self.server.iter().map(|cost| count(&cost.run)).sum();
        let deliveries: u64 = total(|run| run.deliveries);
        Report {
            protocol: options.protocol,
            deflate: options.deflate,
            subscribers: options.subscribers,
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
            cores: Cores {
                // Where another's server runs is not known.
                server: placement.server.filter(|_| options.server.is_none()),
                load: placement.load,
            },
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

/// What this process used in these rounds.
fn load_cost(rounds: &[Cost]) -> LoadCost {
    let cpu: Duration = rounds.iter().map(|cost| cost.load_cpu).sum();
    let waited: Duration = rounds.iter().map(|cost| cost.load_waited).sum();
    let took: Duration = rounds.iter().map(|cost| cost.took).sum();
    let deliveries = rounds.iter().map(|cost| cost.run.deliveries).sum();
    let share = |part: Duration| part.as_secs_f64() / took.as_secs_f64().max(f64::MIN_POSITIVE);
    LoadCost {
        core_share: share(cpu),
        waiting_share: share(waited),
        cpu_ns_per_delivery: per_delivery(cpu, deliveries),
        saturated: share(cpu + waited) >= SATURATED_SHARE,
    }
}

fn per_delivery(cpu: Duration, deliveries: u64) -> Option<f64> {
    (deliveries > 0).then(|| cpu.as_nanos() as f64 / deliveries as f64)
}

fn deliveries_per_second(rounds: &[Cost]) -> f64 {
    let deliveries: u64 = rounds.iter().map(|cost| cost.run.deliveries).sum();
    let seconds: f64 = rounds.iter().map(|cost| cost.run.elapsed.as_secs_f64()).sum();
    if deliveries == 0 { 0.0 } else { deliveries as f64 / seconds }
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

    fn cost(deliveries: u64, cpu: u64, load_cpu: u64) -> Cost {
        Cost {
            run: Run { messages: 1, deliveries, lost: 2, unexpected: 0, elapsed: Duration::from_micros(10) },
            took: Duration::from_micros(10),
            cpu: Some(Duration::from_nanos(cpu)),
            load_cpu: Duration::from_nanos(load_cpu),
            load_waited: Duration::ZERO,
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

    #[test]
    fn a_load_that_has_no_time_left_says_so() {
        let busy = load_cost(&[cost(10, 0, 9_500), cost(10, 0, 9_500)]);
        assert!(busy.saturated);
        assert_eq!(busy.cpu_ns_per_delivery, Some(950.0));
        assert!(!load_cost(&[cost(10, 0, 5_000)]).saturated);
        let crowded = Cost { load_waited: Duration::from_nanos(4_500), ..cost(10, 0, 5_000) };
        assert!(load_cost(&[crowded]).saturated, "others had the rest of its core");
    }

    #[test]
    fn rounds_in_which_nothing_arrived_have_no_cost_a_delivery() {
        assert_eq!(cost(0, 100, 0).cpu_ns_per_delivery(), None);
        assert_eq!(load_cost(&[cost(0, 100, 1)]).cpu_ns_per_delivery, None);
        assert_eq!(deliveries_per_second(&[cost(0, 100, 1)]), 0.0);
    }
}
