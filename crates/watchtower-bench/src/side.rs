//! One side of a comparison, a server or the bare loop: its load, and what a run of it costs both.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::cores::{CpuClock, waited_for_core};
use crate::error::Error;
use crate::load::{Load, Pace, Run, latency_histogram};
use crate::process::Process;
use crate::report::{LoadCost, SideCost};

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
    /// With the clock of the server's process, if that may be read.
    pub(crate) fn new(load: Load, clock: Option<CpuClock>) -> Self {
        Self { load, clock, latencies: latency_histogram(), _process: None }
    }

    /// For a process that nobody else needs.
    pub(crate) fn owning(load: Load, process: Process) -> Result<Self, Error> {
        let side = Self::new(load, Some(process.cpu_clock()?));
        Ok(Self { _process: Some(process), ..side })
    }

    /// Of all that was measured since the pace was last set.
    pub(crate) fn latencies(&self) -> &Histogram<u64> {
        &self.latencies
    }

    /// From now on messages are spaced so.
    pub(crate) fn set_pace(&mut self, pace: Pace) {
        self.load.set_pace(pace);
        self.latencies.reset();
    }

    /// Runs messages that are not measured.
    pub(crate) fn warm_up(&mut self, messages: u32) -> Result<(), Error> {
        self.load.run(messages, &mut latency_histogram()).map(drop)
    }

    /// Runs messages, and says what they cost.
    pub(crate) fn measure(&mut self, messages: u32) -> Result<Cost, Error> {
        let watch = Stopwatch::start(self.clock)?;
        let run = self.load.run(messages, &mut self.latencies)?;
        Ok(Cost { run, spent: watch.stop()? })
    }
}

/// What passed on the clocks of both sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// On the clock on the wall.
    pub(crate) took: Duration,
    /// What the server, or the bare loop, used.
    pub(crate) cpu: Option<Duration>,
    /// What this process used.
    load_cpu: Duration,
    /// How long the load could have run, but something else had its core.
    load_waited: Duration,
}

/// The clocks of both sides, read.
pub(crate) struct Stopwatch {
    clock: Option<CpuClock>,
    started: Instant,
    cpu: Option<Duration>,
    load_cpu: Duration,
    load_waited: Duration,
}

impl Stopwatch {
    /// With the clock of the server's process, if that may be read.
    pub(crate) fn start(clock: Option<CpuClock>) -> Result<Self, Error> {
        let (load_cpu, load_waited) = (CpuClock::own().read()?, waited_for_core()?);
        let started = Instant::now();
        Ok(Self { clock, started, cpu: clock.map(CpuClock::read).transpose()?, load_cpu, load_waited })
    }

    pub(crate) fn stop(self) -> Result<Spent, Error> {
        let took = self.started.elapsed();
        let cpu = self.clock.map(CpuClock::read).transpose()?;
        Ok(Spent {
            took,
            cpu: cpu.zip(self.cpu).map(|(after, before)| after.saturating_sub(before)),
            load_cpu: CpuClock::own().read()?.saturating_sub(self.load_cpu),
            load_waited: waited_for_core()?.saturating_sub(self.load_waited),
        })
    }
}

impl Spent {
    /// What the load side used, for so many deliveries.
    pub(crate) fn load_cost(self, deliveries: u64) -> LoadCost {
        let share = |part: Duration| part.as_secs_f64() / self.took.as_secs_f64().max(f64::MIN_POSITIVE);
        LoadCost {
            core_share: share(self.load_cpu),
            waiting_share: share(self.load_waited),
            cpu_ns_per_delivery: per_delivery(self.load_cpu, deliveries),
            saturated: share(self.load_cpu + self.load_waited) >= SATURATED_SHARE,
        }
    }
}

/// What a round came to on one side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) run: Run,
    pub(crate) spent: Spent,
}

impl Cost {
    pub(crate) fn cpu_ns_per_delivery(&self) -> Option<f64> {
        per_delivery(self.spent.cpu?, self.run.deliveries)
    }

    pub(crate) fn to_report(self) -> SideCost {
        SideCost {
            deliveries: self.run.deliveries,
            lost: self.run.lost,
            seconds: self.run.elapsed.as_secs_f64(),
            cpu_ns_per_delivery: self.cpu_ns_per_delivery(),
        }
    }
}

/// What this process used in these rounds.
pub(crate) fn load_cost(rounds: &[Cost]) -> LoadCost {
    let sum = |part: fn(&Spent) -> Duration| rounds.iter().map(|cost| part(&cost.spent)).sum();
    let spent = Spent {
        took: sum(|spent| spent.took),
        cpu: None,
        load_cpu: sum(|spent| spent.load_cpu),
        load_waited: sum(|spent| spent.load_waited),
    };
    spent.load_cost(rounds.iter().map(|cost| cost.run.deliveries).sum())
}

fn per_delivery(cpu: Duration, deliveries: u64) -> Option<f64> {
    (deliveries > 0).then(|| cpu.as_nanos() as f64 / deliveries as f64)
}

pub(crate) fn deliveries_per_second(rounds: &[Cost]) -> f64 {
    let deliveries: u64 = rounds.iter().map(|cost| cost.run.deliveries).sum();
    let seconds: f64 = rounds.iter().map(|cost| cost.run.elapsed.as_secs_f64()).sum();
    if deliveries == 0 { 0.0 } else { deliveries as f64 / seconds }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn cost(deliveries: u64, cpu: u64, load_cpu: u64) -> Cost {
        Cost {
            run: Run { messages: 1, deliveries, lost: 2, unexpected: 0, elapsed: Duration::from_micros(10) },
            spent: Spent {
                took: Duration::from_micros(10),
                cpu: Some(Duration::from_nanos(cpu)),
                load_cpu: Duration::from_nanos(load_cpu),
                load_waited: Duration::ZERO,
            },
        }
    }

    #[test]
    fn a_load_that_has_no_time_left_says_so() {
        let busy = load_cost(&[cost(10, 0, 9_500), cost(10, 0, 9_500)]);
        assert!(busy.saturated);
        assert_eq!(busy.cpu_ns_per_delivery, Some(950.0));
        assert!(!load_cost(&[cost(10, 0, 5_000)]).saturated);
        let mut crowded = cost(10, 0, 5_000);
        crowded.spent.load_waited = Duration::from_nanos(4_500);
        assert!(load_cost(&[crowded]).saturated, "others had the rest of its core");
    }

    #[test]
    fn rounds_in_which_nothing_arrived_have_no_cost_a_delivery() {
        assert_eq!(cost(0, 100, 0).cpu_ns_per_delivery(), None);
        assert_eq!(load_cost(&[cost(0, 100, 1)]).cpu_ns_per_delivery, None);
        assert_eq!(deliveries_per_second(&[cost(0, 100, 1)]), 0.0);
    }
}
