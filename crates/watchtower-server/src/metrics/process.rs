//! What the system says of this process, under the names that programs for
//! Prometheus agree on.
//!
//! Knows `/proc` of Linux; what is not there is not shown.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};

/// How many ticks of `/proc/self/stat` make a second: Linux shows a hundredth
/// to programs, whatever it counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads what the system says when it is asked for.
#[derive(Debug)]
pub(super) struct Process {
    began: SystemTime,
}

/// A reading.
#[derive(Debug)]
struct Reading {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    open_files: Option<u64>,
}

impl Reading {
    fn now() -> Reading {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The second field is the program's name in brackets, which may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        // Counted from the third, which is the first here.
        let ticks = |field: usize| Some(fields.get(field - 3)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        let cpu_seconds = ticks(14).zip(ticks(15)).map(|(user, system)| user + system);
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        Reading {
            cpu_seconds,
            resident_bytes: pages.map(|pages| pages * rustix::param::page_size() as u64),
            // Linux counts them since 6.2; to list them all would take too long.
            open_files: fs::metadata("/proc/self/fd")
                .ok()
                .map(|folder| folder.len())
                .filter(|&count| count > 0),
        }
    }
}

impl Process {
    /// This process, which has just begun.
    pub(super) fn new() -> Process {
        Process { began: SystemTime::now() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let reading = Reading::now();
        let began = self.began.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64());
        if let Some(seconds) = reading.cpu_seconds {
            let counter = ConstCounter::new(seconds);
            let help = "Time of processors that the process used.";
            let metric_type = counter.metric_type();
            counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, metric_type)?)?;
        }
        let as_float = |count: Option<u64>| count.map(|count| count as f64);
        let gauges = [
            ("process_start_time_seconds", "When the process began, since 1970.", began),
            (
                "process_resident_memory_bytes",
                "Memory that the process holds.",
                as_float(reading.resident_bytes),
            ),
            ("process_open_fds", "Open files, sockets among them.", as_float(reading.open_files)),
            ("process_max_fds", "Files that may be open.", as_float(getrlimit(Resource::Nofile).current)),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_what_this_process_takes() {
        let reading = Reading::now();
        assert!(reading.cpu_seconds.is_some_and(|seconds| (0.0..1e6).contains(&seconds)), "{reading:?}");
        assert!(reading.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{reading:?}");
    }
}
