//! What a bench found, as numbers for a program and as a table for a person.
//!
//! Names of fields carry their units, since they are the keys of the JSON form.

mod plot;

pub(crate) use plot::chart;

use std::fmt;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::error::Error;
use crate::load::Pace;
use crate::options::Protocol;

/// How finely the latency curve is drawn: points for each halving of the distance to 100 %.
const CURVE_POINTS_PER_HALVING: u32 = 4;

/// What a fan-out bench found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What the subscribers spoke.
    pub protocol: Protocol,
    /// Whether messages came to them deflated.
    pub deflate: bool,
    /// How many there were.
    pub subscribers: u32,
    /// How many publishers divided the channels, if there was more than one for all.
    pub publishers: Option<u32>,
    /// How many channels the messages were spread over: each joined by every subscriber, or with
    /// `publishers` by an equal part of them.
    pub channels: u32,
    /// Bytes of content in a message.
    pub size_bytes: usize,
    /// How messages were spaced.
    pub pace: Pace,
    /// Messages measured.
    pub messages: u64,
    /// Copies that subscribers got.
    pub deliveries: u64,
    /// Copies that subscribers did not get.
    pub lost: u64,
    /// What arrived and was no first copy of a message of the bench.
    pub unexpected: u64,
    /// Deliveries over the time from each round's start to its last delivery.
    pub deliveries_per_second: f64,
    /// From publishing to delivery.
    pub latency: Latency,
    /// What the server used, if it was started by the bench.
    pub server: Option<ServerCost>,
    /// What the bare loop used, if it was asked for.
    pub floor: Option<FloorCost>,
    /// What the load side used while it measured the server.
    pub load: LoadCost,
    /// Which core ran what.
    pub cores: Cores,
    /// Round by round.
    pub rounds: Vec<RoundCost>,
}

/// The time from publishing to delivery; at a rate, from when publishing was due.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the deliveries took no longer.
    pub p50_ns: u64,
    /// 99 % took no longer.
    pub p99_ns: u64,
    /// 99.9 % took no longer.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// The whole distribution.
    pub curve: Vec<CurvePoint>,
}

/// A point of a latency distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CurvePoint {
    /// This part of the deliveries, from 0 to 1,
    pub quantile: f64,
    /// took no longer than this.
    pub latency_ns: u64,
}

/// What a server used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ServerCost {
    /// CPU time for one delivery: the median of the rounds. The publisher's copies are not counted
    /// as deliveries, but what they cost is in it.
    pub cpu_ns_per_delivery: Option<f64>,
    /// From its start to its `ready`, if it was started by the bench.
    pub ready_ms: Option<f64>,
    /// Resident memory before the subscribers came.
    pub resident_bytes_before: u64,
    /// Resident memory when all had joined and nothing had been published.
    pub resident_bytes_after: u64,
    /// The difference, for each subscriber. Allocators take memory in steps, some of megabytes:
    /// this says something from about a thousand subscribers on, and more with more.
    pub idle_bytes_per_connection: f64,
}

/// What the bare loop used to write the same bytes to as many sockets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FloorCost {
    /// CPU time for one delivery: the median of the rounds.
    pub cpu_ns_per_delivery: Option<f64>,
    /// The server's CPU time for a delivery over the bare loop's: the median of the rounds' ratios.
    pub ratio: Option<f64>,
    /// Copies that were lost on the way.
    pub lost: u64,
    /// As for the server.
    pub deliveries_per_second: f64,
    /// As for the server.
    pub latency: Latency,
    /// What the load side used while it measured the bare loop.
    pub load: LoadCost,
}

/// What the load side used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LoadCost {
    /// CPU time over wall-clock time of the rounds: 1 is a core that did nothing else.
    pub core_share: f64,
    /// The share of the time in which it could have run, but something else had its core.
    pub waiting_share: f64,
    /// CPU time for one delivery, on average.
    pub cpu_ns_per_delivery: Option<f64>,
    /// Whether it had no time left: then rates and latencies are the load side's, not the
    /// server's. CPU time a delivery holds all the same.
    pub saturated: bool,
}

/// The cores that the sides were tied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cores {
    /// Of the server, if it was started by the bench, and of the bare loop.
    pub server: Option<usize>,
    /// Of the load.
    pub load: Option<usize>,
}

/// A round: so many messages through the server, then as many through the bare loop.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RoundCost {
    /// Through the server.
    pub server: SideCost,
    /// Through the bare loop.
    pub floor: Option<SideCost>,
}

/// One side's part of a round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SideCost {
    /// Copies that arrived.
    pub deliveries: u64,
    /// Copies that did not.
    pub lost: u64,
    /// From the start to the last arrival.
    pub seconds: f64,
    /// CPU time for one delivery, where it can be seen.
    pub cpu_ns_per_delivery: Option<f64>,
}

impl SideCost {
    /// Deliveries a second; 0 if nothing arrived.
    #[must_use]
    pub fn deliveries_per_second(&self) -> f64 {
        if self.deliveries == 0 { 0.0 } else { self.deliveries as f64 / self.seconds }
    }
}

impl Report {
    /// Draws the latency distribution and the deliveries of each round.
    ///
    /// # Errors
    /// [`Error::Plot`], mostly for a file that cannot be written.
    pub fn plot_svg(&self, path: &Path) -> Result<(), Error> {
        plot::draw(self, path)
    }

    /// What was run, in one line.
    #[must_use]
    pub fn title(&self) -> String {
        let pace = match self.pace {
            Pace::Window(1) => "one at a time".to_owned(),
            Pace::Window(messages) => format!("{messages} in flight"),
            Pace::Rate(rate) => format!("{rate} a second"),
        };
        let over = format!("{}{}", self.protocol.name(), if self.deflate { " with deflate" } else { "" });
        let channels = count(self.channels.into(), "channel");
        let subscribers = |number: u32| count(number.into(), "subscriber");
        let who = match self.publishers {
            None => format!("fanout over {over}: {channels} to {}", subscribers(self.subscribers)),
            Some(publishers) => format!(
                "many to many over {over}: {}, {channels} with {} each",
                count(publishers.into(), "publisher"),
                subscribers(self.subscribers / self.channels),
            ),
        };
        format!("{who}, {} of {} bytes, {pace}", count(self.messages, "message"), self.size_bytes)
    }
}

impl Latency {
    /// Of latencies in nanoseconds.
    pub(crate) fn of(latencies: &Histogram<u64>) -> Self {
        let curve = latencies.iter_quantiles(CURVE_POINTS_PER_HALVING).map(|at| CurvePoint {
            quantile: at.quantile_iterated_to(),
            latency_ns: at.value_iterated_to().min(latencies.max()),
        });
        Self {
            p50_ns: latencies.value_at_quantile(0.5),
            p99_ns: latencies.value_at_quantile(0.99),
            p999_ns: latencies.value_at_quantile(0.999),
            max_ns: latencies.max(),
            curve: if latencies.is_empty() { Vec::new() } else { curve.collect() },
        }
    }
}

impl fmt::Display for Report {
    /// A table of plain text, without a newline at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title())?;
        write!(f, "{:<11}{} ({} lost", "deliveries", self.deliveries, self.lost)?;
        if self.unexpected > 0 {
            write!(f, ", {} unexpected", self.unexpected)?;
        }
        writeln!(f, "), {:.0} a second", self.deliveries_per_second)?;
        writeln!(f, "{:<11}{}", "latency", self.latency)?;
        if let Some(server) = &self.server {
            let cpu = cpu(server.cpu_ns_per_delivery);
            writeln!(f, "{:<11}{cpu}{}", "server", on_core(self.cores.server))?;
            writeln!(
                f,
                "{:<11}{:.0} bytes resident an idle connection ({} KiB before, {} KiB after)",
                "",
                server.idle_bytes_per_connection,
                server.resident_bytes_before / 1024,
                server.resident_bytes_after / 1024,
            )?;
            if let Some(ready_ms) = server.ready_ms {
                writeln!(f, "{:<11}ready after {ready_ms:.1} ms", "")?;
            }
        }
        if let Some(floor) = &self.floor {
            let cpu = cpu(floor.cpu_ns_per_delivery);
            write!(f, "{:<11}{cpu}, {:.0} a second", "bare loop", floor.deliveries_per_second)?;
            writeln!(f, "{}", if floor.lost > 0 { format!(", {} lost", floor.lost) } else { String::new() })?;
            writeln!(f, "{:<11}latency {}", "", floor.latency)?;
            if let Some(ratio) = floor.ratio {
                let rounds = count(self.rounds.len() as u64, "round");
                writeln!(f, "{:<11}{ratio:.2} times the bare loop's CPU (median of {rounds})", "ratio")?;
            }
        }
        let cpu = cpu(self.load.cpu_ns_per_delivery);
        let [ran, waited] = [self.load.core_share, self.load.waiting_share].map(|x| x * 100.0);
        let core = on_core(self.cores.load);
        write!(f, "{:<11}{cpu}, {ran:.0} % of a core and {waited:.0} % waiting for it{core}", "load")?;
        if self.load.saturated {
            write!(
                f,
                "\n{:<11}the load had no time left: rates and latencies are its own, not the server's",
                "note"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50_ns, p99_ns, p999_ns, max_ns, .. } = *self;
        let [p50, p99, p999, max] = [p50_ns, p99_ns, p999_ns, max_ns].map(duration);
        write!(f, "p50 {p50}, p99 {p99}, p99.9 {p999}, max {max}")
    }
}

/// The middle of these numbers, or the mean of the two in the middle.
pub(crate) fn median(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

pub(crate) fn cpu(ns_per_delivery: Option<f64>) -> String {
    match ns_per_delivery {
        Some(cost) => format!("{cost:.0} ns of CPU a delivery"),
        None => "CPU a delivery unknown".to_owned(),
    }
}

pub(crate) fn on_core(core: Option<usize>) -> String {
    core.map_or_else(String::new, |core| format!(", on core {core}"))
}

pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Nanoseconds in the unit that a person would choose.
pub(crate) fn duration(nanoseconds: u64) -> String {
    let nanoseconds = nanoseconds as f64;
    match nanoseconds {
        0.0..1e3 => format!("{nanoseconds:.0} ns"),
        1e3..1e6 => format!("{:.1} µs", nanoseconds / 1e3),
        1e6..1e9 => format!("{:.2} ms", nanoseconds / 1e6),
        _ => format!("{:.2} s", nanoseconds / 1e9),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report of made-up figures with everything in it.
    pub(crate) fn full() -> Report {
        let latency = Latency {
            p50_ns: 850,
            p99_ns: 12_300,
            p999_ns: 4_560_000,
            max_ns: 1_230_000_000,
            curve: [(0.0, 700), (0.5, 850), (0.99, 12_300), (1.0, 1_230_000_000)]
                .map(|(quantile, latency_ns)| CurvePoint { quantile, latency_ns })
                .to_vec(),
        };
        let load = LoadCost {
            core_share: 0.956,
            waiting_share: 0.02,
            cpu_ns_per_delivery: Some(1_200.4),
            saturated: true,
        };
        let side = SideCost { deliveries: 100, lost: 0, seconds: 0.5, cpu_ns_per_delivery: Some(3_000.0) };
        Report {
            protocol: Protocol::Tcp,
            deflate: false,
            subscribers: 10,
            publishers: None,
            channels: 1,
            size_bytes: 128,
            pace: Pace::Window(64),
            messages: 20,
            deliveries: 199,
            lost: 1,
            unexpected: 2,
            deliveries_per_second: 200.4,
            latency: latency.clone(),
            server: Some(ServerCost {
                cpu_ns_per_delivery: Some(3_300.0),
                ready_ms: Some(12.34),
                resident_bytes_before: 10 * 1024,
                resident_bytes_after: 30 * 1024,
                idle_bytes_per_connection: 2_048.0,
            }),
            floor: Some(FloorCost {
                cpu_ns_per_delivery: Some(3_000.0),
                ratio: Some(1.104),
                lost: 0,
                deliveries_per_second: 250.0,
                latency,
                load,
            }),
            load,
            cores: Cores { server: Some(0), load: Some(1) },
            rounds: vec![RoundCost { server: side, floor: Some(side) }; 2],
        }
    }

    #[test]
    fn the_table_says_everything_in_plain_text() {
        let latency = "p50 850 ns, p99 12.3 µs, p99.9 4.56 ms, max 1.23 s";
        let expected = [
            "fanout over tcp: 1 channel to 10 subscribers, 20 messages of 128 bytes, 64 in flight",
            "deliveries 199 (1 lost, 2 unexpected), 200 a second",
            &format!("latency    {latency}"),
            "server     3300 ns of CPU a delivery, on core 0",
            "           2048 bytes resident an idle connection (10 KiB before, 30 KiB after)",
            "           ready after 12.3 ms",
            "bare loop  3000 ns of CPU a delivery, 250 a second",
            &format!("           latency {latency}"),
            "ratio      1.10 times the bare loop's CPU (median of 2 rounds)",
            "load       1200 ns of CPU a delivery, 96 % of a core and 2 % waiting for it, on core 1",
            "note       the load had no time left: rates and latencies are its own, not the server's",
        ];
        assert_eq!(full().to_string().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let cores = Cores { server: None, load: None };
        let load = LoadCost { saturated: false, ..full().load };
        let report = Report { server: None, floor: None, unexpected: 0, cores, load, ..full() };
        let text = report.to_string();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(
            text.ends_with("load       1200 ns of CPU a delivery, 96 % of a core and 2 % waiting for it"),
            "{text}"
        );
    }

    #[test]
    fn the_title_says_what_was_deflated() {
        let report = Report { protocol: Protocol::WebTalk, deflate: true, ..full() };
        assert!(report.title().starts_with("fanout over webtalk with deflate: 1 channel"));
    }

    #[test]
    fn the_title_of_many_to_many_says_who_is_where() {
        let report = Report { publishers: Some(3), channels: 5, ..full() };
        let title = "many to many over tcp: 3 publishers, 5 channels with 2 subscribers each, 20 messages";
        assert!(report.title().starts_with(title), "{}", report.title());
    }

    #[test]
    fn json_names_every_figure_with_its_unit() {
        let json = serde_json::to_value(full()).unwrap();
        assert_eq!(json["protocol"], "tcp");
        assert_eq!(json["pace"]["window"], 64);
        assert_eq!(json["latency"]["p999_ns"], 4_560_000);
        assert_eq!(json["server"]["idle_bytes_per_connection"], 2048.0);
        assert_eq!(json["floor"]["ratio"], 1.104);
        assert_eq!(json["load"]["saturated"], true);
        assert_eq!(json["rounds"][1]["floor"]["deliveries"], 100);
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latencies = Histogram::new_with_bounds(1, 1_000_000, 3).unwrap();
        (1..=1000).for_each(|value| latencies.record(value).unwrap());
        let latency = Latency::of(&latencies);
        let Latency { p50_ns, p99_ns, p999_ns, max_ns, .. } = latency;
        assert_eq!([p50_ns, p99_ns, p999_ns, max_ns], [500, 990, 999, 1000]);
        assert_eq!(latency.curve.last().unwrap().latency_ns, 1000);
        assert!(latency.curve.is_sorted_by(|a, b| a.latency_ns <= b.latency_ns));
        assert_eq!(Latency::of(&Histogram::new(3).unwrap()).curve, []);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let check = |numbers: &[f64], expected| {
            assert_eq!(median(numbers.iter().copied()), expected);
        };
        check(&[], None);
        check(&[3.0], Some(3.0));
        check(&[9.0, 1.0, 2.0], Some(2.0));
        check(&[9.0, 1.0, 2.0, 4.0], Some(3.0));
    }
}
