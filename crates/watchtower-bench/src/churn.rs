//! `churn`: connections that come and go. So many are held; each newcomer connects, joins, and
//! takes the place of the oldest, which is closed.
//!
//! They come one after the other, each when the last has joined: what is measured is the work for a
//! connection from its first byte to its last, not how many can be waited for at a time.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::cores::Placement;
use crate::doors::door;
use crate::error::Error;
use crate::load::{latency_histogram, nanoseconds};
use crate::options::{Options, Protocol};
use crate::progress::{Phase, Progress};
use crate::report::{Cores, Latency, LoadCost, chart, count, on_core};
use crate::run::on_its_core;
use crate::server::Server;
use crate::side::Stopwatch;

/// After how many connections progress is told.
const PROGRESS_STEP: u32 = 64;

/// What a churn bench found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChurnReport {
    /// What the connections spoke.
    pub protocol: Protocol,
    /// How many there were at a time.
    pub held: u32,
    /// How many came, and went.
    pub connections: u32,
    /// How many came in a second, one after the other.
    pub connections_per_second: f64,
    /// From before it connected to when it had joined.
    pub joining: Latency,
    /// What the server used, where it can be seen.
    pub server: Option<ChurnCost>,
    /// What the load side used.
    pub load: LoadCost,
    /// Which core ran what.
    pub cores: Cores,
}

/// What a server used for connections that came and went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ChurnCost {
    /// CPU time for one: connecting, joining, and the end of another.
    pub cpu_ns_per_connection: f64,
    /// Resident memory before they came, with those that are held.
    pub resident_bytes_before: u64,
    /// Resident memory when all had come, as many held as before.
    pub resident_bytes_after: u64,
    /// The difference, for each that came and went: what the server keeps of it for a while, for its
    /// return.
    pub bytes_kept_per_connection: f64,
}

/// Has so many connections come and go, `subscribers` of the options held at a time.
///
/// Otherwise as [`fanout`](crate::fanout()); what is about messages is passed over.
///
/// # Errors
/// As `fanout`.
pub fn churn(options: &Options, connections: u32, progress: &mut dyn Progress) -> Result<ChurnReport, Error> {
    if connections == 0 {
        return Err(Error::Options("there must be at least one connection that comes".into()));
    }
    let options = Options { floor: false, publishers: None, ..options.clone() };
    on_its_core(&options, options.sockets() + 1, |placement| {
        measure(&options, connections, placement, progress)
    })
}

fn measure(
    options: &Options,
    connections: u32,
    placement: Placement,
    progress: &mut dyn Progress,
) -> Result<ChurnReport, Error> {
    progress.begin(Phase::Starting, 0);
    let server = Server::start(options, placement.server)?;
    let mut door = door(options, server.addresses())?;
    progress.begin(Phase::Joining, options.subscribers.into());
    let mut held = VecDeque::with_capacity(options.subscribers as usize + 1);
    for index in 0..options.subscribers {
        held.push_back(door.open_subscriber(index)?);
        progress.done(held.len() as u64);
    }

    progress.begin(Phase::Churning, connections.into());
    let before = server.resident_bytes()?;
    let mut joining = latency_histogram();
    let watch = Stopwatch::start(server.cpu_clock()?)?;
    for come in 0..connections {
        let started = Instant::now();
        held.push_back(door.open_subscriber(options.subscribers.saturating_add(come))?);
        joining.saturating_record(nanoseconds(started.elapsed()));
        drop(held.pop_front());
        if come % PROGRESS_STEP == 0 {
            progress.done(come.into());
        }
    }
    let spent = watch.stop()?;
    progress.done(connections.into());
    let after = server.resident_bytes()?;
    let per_connection = |total: f64| total / f64::from(connections);
    let memory = before.zip(after);
    Ok(ChurnReport {
        protocol: options.protocol,
        held: options.subscribers,
        connections,
        connections_per_second: f64::from(connections) / spent.took.as_secs_f64(),
        joining: Latency::of(&joining),
        server: spent.cpu.zip(memory).map(|(cpu, (before, after))| ChurnCost {
            cpu_ns_per_connection: per_connection(cpu.as_nanos() as f64),
            resident_bytes_before: before,
            resident_bytes_after: after,
            bytes_kept_per_connection: per_connection(after as f64 - before as f64),
        }),
        load: spent.load_cost(0),
        cores: server.cores(placement),
    })
}

impl ChurnReport {
    /// What was run, in one line.
    #[must_use]
    pub fn title(&self) -> String {
        format!(
            "churn over {}: {} came and went, {} held",
            self.protocol.name(),
            count(self.connections.into(), "connection"),
            self.held,
        )
    }

    /// Draws the distribution of how long joining took.
    ///
    /// # Errors
    /// [`Error::Plot`], mostly for a file that cannot be written.
    pub fn plot_svg(&self, path: &Path) -> Result<(), Error> {
        let beyond = |quantile: f64| 1.0 / (1.0 - quantile).max(1e-6);
        let point =
            |point: &crate::report::CurvePoint| (beyond(point.quantile), point.latency_ns as f64 / 1e3);
        let points: Vec<_> = self.joining.curve.iter().map(point).collect();
        chart(
            path,
            &self.title(),
            "one connection of so many",
            "took so long or longer, µs",
            &[("joining", points)],
        )
    }
}

impl fmt::Display for ChurnReport {
    /// A table of plain text, without a newline at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title())?;
        writeln!(f, "{:<11}{:.0} a second, one after the other", "came", self.connections_per_second)?;
        writeln!(f, "{:<11}{}", "joining", self.joining)?;
        if let Some(server) = &self.server {
            let core = on_core(self.cores.server);
            writeln!(f, "{:<11}{:.0} ns of CPU a connection{core}", "server", server.cpu_ns_per_connection)?;
            writeln!(
                f,
                "{:<11}{:.0} bytes kept of a connection ({} KiB before, {} KiB after)",
                "",
                server.bytes_kept_per_connection,
                server.resident_bytes_before / 1024,
                server.resident_bytes_after / 1024,
            )?;
        }
        let [ran, waited] = [self.load.core_share, self.load.waiting_share].map(|x| x * 100.0);
        let core = on_core(self.cores.load);
        write!(f, "{:<11}{ran:.0} % of a core and {waited:.0} % waiting for it{core}", "load")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::full;

    #[test]
    fn the_table_says_what_a_connection_costs() {
        let full = full();
        let report = ChurnReport {
            protocol: Protocol::WebRocket,
            held: 10,
            connections: 1000,
            connections_per_second: 4_321.0,
            joining: full.latency,
            server: Some(ChurnCost {
                cpu_ns_per_connection: 51_234.0,
                resident_bytes_before: 10_240,
                resident_bytes_after: 20_480,
                bytes_kept_per_connection: 10.24,
            }),
            load: full.load,
            cores: full.cores,
        };
        let expected = [
            "churn over webrocket: 1000 connections came and went, 10 held",
            "came       4321 a second, one after the other",
            "joining    p50 850 ns, p99 12.3 µs, p99.9 4.56 ms, max 1.23 s",
            "server     51234 ns of CPU a connection, on core 0",
            "           10 bytes kept of a connection (10 KiB before, 20 KiB after)",
            "load       96 % of a core and 2 % waiting for it, on core 1",
        ];
        assert_eq!(report.to_string().lines().collect::<Vec<_>>(), expected);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("joining.svg");
        report.plot_svg(&path).unwrap();
        assert!(std::fs::read_to_string(path).unwrap().contains("one connection of so many"));
    }
}
