//! `idle`: connections that have joined and hear nothing: the memory that they take, and what it
//! costs to keep them.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::cores::Placement;
use crate::doors::{door, open_publishers, open_subscribers};
use crate::error::Error;
use crate::load::Load;
use crate::options::{Options, Protocol};
use crate::progress::{Phase, Progress};
use crate::report::{Cores, count, on_core};
use crate::run::on_its_core;
use crate::server::Server;
use crate::side::Stopwatch;

/// What an idle bench found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct IdleReport {
    /// What the connections spoke.
    pub protocol: Protocol,
    /// How many there were.
    pub connections: u32,
    /// For how long nothing was published.
    pub seconds: f64,
    /// Resident memory of the server before they came.
    pub resident_bytes_before: u64,
    /// Resident memory after the rest.
    pub resident_bytes_after: u64,
    /// The difference, for each connection. The system's own memory for sockets is not in it.
    pub bytes_per_connection: f64,
    /// CPU time of the server for one connection to come and join.
    pub join_cpu_ns_per_connection: f64,
    /// CPU time of the server while nothing was published, for one connection in one second: signs
    /// of life, mostly.
    pub cpu_ns_per_connection_second: f64,
    /// Which core ran what.
    pub cores: Cores,
}

/// Has `subscribers` of the options join, and publishes nothing for so long.
///
/// Otherwise as [`fanout`](crate::fanout()); what is about messages is passed over.
///
/// # Errors
/// As `fanout`, and [`Error::Options`] for a server whose process is not known.
pub fn idle(options: &Options, rest: Duration, progress: &mut dyn Progress) -> Result<IdleReport, Error> {
    if options.server.is_some() && options.server_pid.is_none() {
        let reason = "what connections cost at rest can be seen only with the server's process";
        return Err(Error::Options(reason.into()));
    }
    let options = Options { floor: false, publishers: None, ..options.clone() };
    on_its_core(&options, options.sockets(), |placement| measure(&options, rest, placement, progress))
}

fn measure(
    options: &Options,
    rest: Duration,
    placement: Placement,
    progress: &mut dyn Progress,
) -> Result<IdleReport, Error> {
    let unseen = || Error::Options("there is no process to look at".into());
    progress.begin(Phase::Starting, 0);
    let server = Server::start(options, placement.server)?;
    let mut door = door(options, server.addresses())?;
    let publishers = open_publishers(&mut *door, 1)?;
    let before = server.resident_bytes()?.ok_or_else(unseen)?;
    let watch = Stopwatch::start(server.cpu_clock()?)?;
    let links = open_subscribers(&mut *door, options.subscribers, progress)?;
    let joining = watch.stop()?.cpu.ok_or_else(unseen)?;
    let patience = options.protocol.patience();
    let mut load = Load::new(links, publishers, options.copies(), options.pace, patience)?;

    progress.begin(Phase::Resting, 0);
    let watch = Stopwatch::start(server.cpu_clock()?)?;
    load.rest(rest)?;
    let resting = watch.stop()?;
    let after = server.resident_bytes()?.ok_or_else(unseen)?;
    let connections = f64::from(options.subscribers);
    let seconds = resting.took.as_secs_f64();
    let rested = resting.cpu.ok_or_else(unseen)?.as_nanos() as f64;
    Ok(IdleReport {
        protocol: options.protocol,
        connections: options.subscribers,
        seconds,
        resident_bytes_before: before,
        resident_bytes_after: after,
        bytes_per_connection: (after as f64 - before as f64) / connections,
        join_cpu_ns_per_connection: joining.as_nanos() as f64 / connections,
        cpu_ns_per_connection_second: rested / connections / seconds.max(f64::MIN_POSITIVE),
        cores: server.cores(placement),
    })
}

impl fmt::Display for IdleReport {
    /// A table of plain text, without a newline at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = count(self.connections.into(), "connection");
        writeln!(f, "idle over {}: {connections} for {:.1} s", self.protocol.name(), self.seconds)?;
        writeln!(
            f,
            "{:<11}{:.0} bytes resident a connection ({} KiB before, {} KiB after)",
            "memory",
            self.bytes_per_connection,
            self.resident_bytes_before / 1024,
            self.resident_bytes_after / 1024,
        )?;
        let core = on_core(self.cores.server);
        writeln!(f, "{:<11}{:.0} ns of CPU a connection{core}", "joining", self.join_cpu_ns_per_connection)?;
        let rest = self.cpu_ns_per_connection_second;
        write!(f, "{:<11}{rest:.0} ns of CPU a connection in a second", "resting")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_rest_costs() {
        let report = IdleReport {
            protocol: Protocol::Tcp,
            connections: 1000,
            seconds: 5.0,
            resident_bytes_before: 10_240,
            resident_bytes_after: 1_034_240,
            bytes_per_connection: 1_024.0,
            join_cpu_ns_per_connection: 51_234.0,
            cpu_ns_per_connection_second: 12.3,
            cores: Cores { server: Some(0), load: None },
        };
        let expected = [
            "idle over tcp: 1000 connections for 5.0 s",
            "memory     1024 bytes resident a connection (10 KiB before, 1010 KiB after)",
            "joining    51234 ns of CPU a connection, on core 0",
            "resting    12 ns of CPU a connection in a second",
        ];
        assert_eq!(report.to_string().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_server_whose_process_is_not_known_is_refused() {
        let server = Some("127.0.0.1:1".parse().unwrap());
        let error = idle(&Options { server, ..Options::default() }, Duration::ZERO, &mut ());
        assert!(matches!(error.unwrap_err(), Error::Options(_)));
    }
}
