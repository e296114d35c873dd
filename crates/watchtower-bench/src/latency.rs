//! `latency`: how long deliveries take at one load after the other.
//!
//! The load is open: messages are published when they are due, whether or not the last have
//! arrived, and latency counts from when they were due. So a server that falls behind cannot make
//! the load wait with it and look fast.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::cores::Placement;
use crate::doors::{door, open_publishers, open_subscribers};
use crate::error::Error;
use crate::load::{Load, Pace};
use crate::options::{Options, Protocol};
use crate::progress::{Phase, Progress};
use crate::report::{Cores, Latency, LoadCost, chart, count};
use crate::run::on_its_core;
use crate::server::Server;
use crate::side::Side;

/// What share of the messages that were due must have arrived when the last was due, for a rate to
/// count as kept.
const KEPT_SHARE: f64 = 0.95;

/// What a latency bench found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LatencyReport {
    /// What the subscribers spoke.
    pub protocol: Protocol,
    /// To how many subscribers each message went.
    pub subscribers: u32,
    /// Bytes of content in a message.
    pub size_bytes: usize,
    /// For how long messages were published at each rate.
    pub seconds: f64,
    /// Rate by rate, up to the first that was not kept.
    pub points: Vec<LatencyPoint>,
    /// Why there is no point of a higher rate, where the bench broke off.
    pub broken_off: Option<String>,
    /// Which core ran what.
    pub cores: Cores,
}

/// What was found at one rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LatencyPoint {
    /// Messages that were due in a second.
    pub rate: u32,
    /// Copies that arrived in a second, from the start to the last.
    pub deliveries_per_second: f64,
    /// Copies that did not arrive.
    pub lost: u64,
    /// Whether deliveries kept up with the rate.
    pub kept: bool,
    /// From when publishing was due to delivery.
    pub latency: Latency,
    /// CPU time of the server for one delivery, where it can be seen.
    pub server_cpu_ns_per_delivery: Option<f64>,
    /// CPU time of the server over the time that it took: 1 is a core.
    pub server_core_share: Option<f64>,
    /// What the load side used.
    pub load: LoadCost,
}

/// Publishes for so many seconds at one rate after the other, until one cannot be kept.
///
/// Otherwise as [`fanout`](crate::fanout()); the pace, the messages and the bare loop of the options
/// are passed over.
///
/// # Errors
/// As `fanout`. What goes wrong after the first rate ends the bench, and the report says so.
pub fn latency(
    options: &Options,
    rates: &[u32],
    seconds: f64,
    progress: &mut dyn Progress,
) -> Result<LatencyReport, Error> {
    if rates.is_empty() || rates.contains(&0) || !rates.is_sorted() {
        return Err(Error::Options("rates rise, and start at 1".into()));
    }
    if !(seconds > 0.0 && seconds <= 3600.0) {
        return Err(Error::Options("a rate is kept for at most an hour, and for some time".into()));
    }
    let options = Options { pace: Pace::Rate(rates[0]), floor: false, ..options.clone() };
    on_its_core(&options, options.sockets(), |placement| {
        measure(&options, rates, seconds, placement, progress)
    })
}

fn measure(
    options: &Options,
    rates: &[u32],
    seconds: f64,
    placement: Placement,
    progress: &mut dyn Progress,
) -> Result<LatencyReport, Error> {
    progress.begin(Phase::Starting, 0);
    let server = Server::start(options, placement.server)?;
    let mut door = door(options, server.addresses())?;
    let publishers = open_publishers(&mut *door, options.topology().publishers)?;
    let links = open_subscribers(&mut *door, options.topology().subscribers(), progress)?;
    let load = Load::new(links, publishers, options.copies(), options.pace, options.protocol.patience())?;
    let mut side = Side::new(load, server.cpu_clock()?);

    let messages = |rate: u32| ((f64::from(rate) * seconds) as u32).max(1);
    progress.begin(Phase::WarmingUp, 0);
    side.warm_up(messages(rates[0]).min(rates[0]))?;
    progress.begin(Phase::Measuring, rates.len() as u64);
    let mut report = LatencyReport {
        protocol: options.protocol,
        subscribers: options.topology().deliveries(),
        size_bytes: options.size,
        seconds,
        points: Vec::new(),
        broken_off: None,
        cores: server.cores(placement),
    };
    for (done, rate) in (1..).zip(rates) {
        match point_or_another(&mut side, *rate, messages(*rate)) {
            Ok(point) => report.points.push(point),
            Err(error) if report.points.is_empty() => return Err(error),
            Err(error) => {
                report.broken_off = Some(format!("at {rate} messages a second: {error}"));
                break;
            }
        }
        progress.done(done);
        if report.points.last().is_some_and(|point| !point.kept) {
            break;
        }
    }
    Ok(report)
}

/// A rate that is not kept is tried once more: something else may have had a processor for a moment,
/// which says nothing of the server, and would end the bench.
fn point_or_another(side: &mut Side, rate: u32, messages: u32) -> Result<LatencyPoint, Error> {
    let first = point(side, rate, messages)?;
    if first.kept { Ok(first) } else { point(side, rate, messages) }
}

fn point(side: &mut Side, rate: u32, messages: u32) -> Result<LatencyPoint, Error> {
    side.set_pace(Pace::Rate(rate));
    let cost = side.measure(messages)?;
    let took = cost.run.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    // The first is due at once.
    let due = f64::from(messages - 1) / f64::from(rate);
    let cpu = cost.spent.cpu.map(|cpu| cpu.as_secs_f64() / cost.spent.took.as_secs_f64());
    Ok(LatencyPoint {
        rate,
        deliveries_per_second: cost.run.deliveries as f64 / took,
        lost: cost.run.lost,
        kept: due >= took * KEPT_SHARE || messages == 1 || took - due < ALLOWED_DELAY_SECONDS,
        latency: Latency::of(side.latencies()),
        server_cpu_ns_per_delivery: cost.cpu_ns_per_delivery(),
        server_core_share: cpu,
        load: cost.spent.load_cost(cost.run.deliveries),
    })
}

/// The last delivery may come so much after it was due, however short the bench is.
const ALLOWED_DELAY_SECONDS: f64 = 0.05;

impl LatencyReport {
    /// What was run, in one line.
    #[must_use]
    pub fn title(&self) -> String {
        format!(
            "latency over {}: {}, messages of {} bytes, {} s at each rate",
            self.protocol.name(),
            count(self.subscribers.into(), "subscriber"),
            self.size_bytes,
            self.seconds,
        )
    }

    /// Draws latency by load.
    ///
    /// # Errors
    /// [`Error::Plot`], mostly for a file that cannot be written.
    pub fn plot_svg(&self, path: &Path) -> Result<(), Error> {
        let line = |name, latency: fn(&Latency) -> u64| {
            let point = |point: &LatencyPoint| {
                (f64::from(point.rate) * f64::from(self.subscribers), latency(&point.latency) as f64 / 1e3)
            };
            (name, self.points.iter().map(point).collect())
        };
        let lines = [
            line("p50", |latency| latency.p50_ns),
            line("p99", |latency| latency.p99_ns),
            line("p99.9", |latency| latency.p999_ns),
            line("max", |latency| latency.max_ns),
        ];
        chart(path, &self.title(), "deliveries due in a second", "latency, µs", &lines)
    }
}

impl fmt::Display for LatencyReport {
    /// A table of plain text, without a newline at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::report::duration;
        writeln!(f, "{}", self.title())?;
        write!(
            f,
            "{:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>7} {:>6} {:>6}",
            "messages/s", "deliveries/s", "p50", "p99", "p99.9", "max", "lost", "server", "load"
        )?;
        for point in &self.points {
            let Latency { p50_ns, p99_ns, p999_ns, max_ns, .. } = point.latency;
            let [p50, p99, p999, max] = [p50_ns, p99_ns, p999_ns, max_ns].map(duration);
            let percent = |share: f64| format!("{:.0} %", share * 100.0);
            let server = point.server_core_share.map_or_else(|| "?".to_owned(), percent);
            write!(
                f,
                "\n{:>10} {:>12.0} {p50:>10} {p99:>10} {p999:>10} {max:>10} {:>7} {server:>6} {:>6}",
                point.rate,
                point.deliveries_per_second,
                point.lost,
                percent(point.load.core_share),
            )?;
            if point.load.saturated {
                write!(f, "  the load had no time left: these latencies are its own")?;
            } else if !point.kept {
                write!(f, "  not kept")?;
            }
        }
        match &self.broken_off {
            Some(reason) => write!(f, "\nbroken off {reason}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::full;

    fn report() -> LatencyReport {
        let full = full();
        let point = |rate, kept, saturated| LatencyPoint {
            rate,
            deliveries_per_second: f64::from(rate) * 10.0,
            lost: 0,
            kept,
            latency: full.latency.clone(),
            server_cpu_ns_per_delivery: Some(3_000.0),
            server_core_share: Some(0.3),
            load: LoadCost { saturated, ..full.load },
        };
        LatencyReport {
            protocol: Protocol::Sse,
            subscribers: 10,
            size_bytes: 128,
            seconds: 2.5,
            points: vec![point(100, true, false), point(1000, false, false), point(2000, false, true)],
            broken_off: Some("at 5000 messages a second: it closed".into()),
            cores: full.cores,
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_rate() {
        let latencies = "    850 ns    12.3 µs    4.56 ms     1.23 s       0   30 %   96 %";
        let expected = [
            "latency over sse: 10 subscribers, messages of 128 bytes, 2.5 s at each rate",
            "messages/s deliveries/s        p50        p99      p99.9        max    lost server   load",
            &format!("       100         1000 {latencies}"),
            &format!("      1000        10000 {latencies}  not kept"),
            &format!(
                "      2000        20000 {latencies}  the load had no time left: these latencies are its own"
            ),
            "broken off at 5000 messages a second: it closed",
        ];
        assert_eq!(report().to_string().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn latency_is_drawn_by_load() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latency.svg");
        report().plot_svg(&path).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        for text in ["latency, µs", "deliveries due in a second", "p99.9"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn rates_that_fall_are_refused() {
        let options = Options { server_command: vec!["server".into()], ..Options::default() };
        for (rates, seconds) in [(&[][..], 1.0), (&[0, 1], 1.0), (&[2, 1], 1.0), (&[1], 0.0)] {
            let error = latency(&options, rates, seconds, &mut ()).unwrap_err();
            assert!(matches!(error, Error::Options(_)), "{error}");
        }
    }
}
