//! `durable`: how many messages a second are kept and acknowledged, beside what the store alone
//! keeps in the same groups; and what that does to a channel in memory beside it.
//!
//! Each publisher has one message under way at a time, or several, and all publish at once when all
//! are answered: so the server can keep all of these with one sync, and the store alone is given
//! just as many. Server and store take turns, round by round.

use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cores::{Placement, pin_this_thread};
use crate::doors::{door, open_publishers, open_subscribers};
use crate::error::Error;
use crate::load::{Copies, Load, Pace, latency_histogram};
use crate::options::{Options, Protocol};
use crate::process::{Addresses, spawn_speaking};
use crate::progress::{Phase, Progress};
use crate::report::{Cores, Latency, count, median, on_core};
use crate::run::on_its_core;
use crate::server::Server;
use crate::side::Side;
use crate::topology::{Audience, Topology};

/// The path of the hub whose channels are durable.
pub const DURABLE_PATH: &str = "/durable";
/// The path of the hub whose channels are in memory.
pub const MEMORY_PATH: &str = "/memory";

/// How often server and store take turns, and the loads beside a channel.
const ROUNDS: u32 = 10;
const BESIDE_ROUNDS: u32 = 3;

/// What part of what the server kept in a second the load beside a channel is.
const BESIDE_SHARE: f64 = 0.5;

/// What a bench of durable channels is asked to do.
#[derive(Debug, Clone)]
pub struct DurableOptions {
    /// The server, which has hubs at both paths; and the cores. What else is in it is passed over.
    pub target: Options,
    /// How many publishers there are, each with a channel of its own.
    pub publishers: u32,
    /// How many messages each has under way at a time.
    pub in_flight: u32,
    /// How many messages are measured.
    pub messages: u32,
    /// Bytes of content in each.
    pub size: usize,
    /// The command that keeps messages in a store alone: it prints `ready`, and for each line with a
    /// number how many nanoseconds it took to keep so many.
    pub store_command: Vec<OsString>,
    /// How many messages a second go over the channel beside.
    pub beside_rate: u32,
    /// How many messages a second others publish beside it; half as many as were
    /// acknowledged, if it is `None`.
    pub beside_load: Option<u32>,
    /// How long that is measured each time; not at all if it is zero.
    pub beside: Duration,
}

/// What a bench of durable channels found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DurableReport {
    /// How many publishers there were.
    pub publishers: u32,
    /// How many messages each had under way at a time.
    pub in_flight: u32,
    /// Messages measured.
    pub messages: u64,
    /// Bytes of content in each.
    pub size_bytes: usize,
    /// Messages that the server kept and acknowledged in a second.
    pub acknowledged_per_second: f64,
    /// From publishing to delivery, which comes once a message is kept.
    pub latency: Latency,
    /// Messages that the store alone kept in a second, in the same groups.
    pub store_per_second: f64,
    /// What the server did of that: the median of the rounds.
    pub ratio: f64,
    /// What became of a channel beside it.
    pub beside: Option<Beside>,
    /// Which core ran what.
    pub cores: Cores,
}

/// A channel in memory, with others publishing beside it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Beside {
    /// Messages a second on that channel.
    pub rate: u32,
    /// Messages a second beside it.
    pub load_rate: u32,
    /// From publishing to delivery, when nothing goes on beside it.
    pub alone: Latency,
    /// The same while others publish in memory.
    pub in_memory: Latency,
    /// The same while as many are published on durable channels.
    pub durable: Latency,
    /// How much longer half of the deliveries took beside durable channels than beside ones in
    /// memory, as a factor: the median of the rounds.
    pub slowed: f64,
    /// The same held against when nothing goes on beside it.
    pub slowed_from_alone: f64,
}

/// Runs the bench and reports. Blocks until it is over.
///
/// # Errors
/// As [`fanout`](crate::fanout()).
pub fn durable(options: &DurableOptions, progress: &mut dyn Progress) -> Result<DurableReport, Error> {
    if options.publishers == 0 {
        return Err(Error::Options("there must be at least one publisher".into()));
    }
    if options.in_flight == 0 {
        return Err(Error::Options("a publisher has at least one message under way".into()));
    }
    if options.beside_rate == 0 || options.beside_load == Some(0) {
        return Err(Error::Options(
            "the channel beside and the load have at least one message a second".into(),
        ));
    }
    let checked = options.publishing_at(DURABLE_PATH);
    on_its_core(&checked, 2 * u64::from(options.publishers) + 4, |placement| {
        measure(options, placement, progress)
    })
}

fn measure(
    options: &DurableOptions,
    placement: Placement,
    progress: &mut dyn Progress,
) -> Result<DurableReport, Error> {
    progress.begin(Phase::Starting, 0);
    let server = Server::start(&options.target, placement.server)?;
    let mut store = StoreAlone::start(&options.store_command, placement.server)?;
    let pace = Pace::Window(options.at_once());
    let load = options.load(DURABLE_PATH, pace, server.addresses())?;
    let mut side = Side::new(load, server.cpu_clock()?);

    progress.begin(Phase::WarmingUp, 0);
    side.warm_up(options.at_once().saturating_mul(4))?;
    store.keep(options.at_once().saturating_mul(4))?;
    progress.begin(Phase::Measuring, options.messages.into());
    let (mut messages, mut took, mut store_took) = (0, Duration::ZERO, Duration::ZERO);
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let some = (options.messages / ROUNDS).next_multiple_of(options.at_once()).max(options.at_once());
        let run = side.measure(some)?.run;
        let alone = store.keep(some)?;
        ratios.push(alone.as_secs_f64() / run.elapsed.as_secs_f64());
        messages += run.messages;
        took += run.elapsed;
        store_took += alone;
        progress.done(u64::from(round + 1) * u64::from(options.messages) / u64::from(ROUNDS));
    }
    let latency = Latency::of(side.latencies());
    drop((side, store));
    let acknowledged_per_second = messages as f64 / took.as_secs_f64();
    let half = (acknowledged_per_second * BESIDE_SHARE).max(1.0) as u32;
    let load_rate = options.beside_load.unwrap_or(half);
    let beside = match options.beside {
        Duration::ZERO => None,
        _ => Some(measure_beside(options, load_rate, &server, placement, progress)?),
    };
    Ok(DurableReport {
        publishers: options.publishers,
        in_flight: options.in_flight,
        messages,
        size_bytes: options.size,
        acknowledged_per_second,
        latency,
        store_per_second: messages as f64 / store_took.as_secs_f64(),
        ratio: median(ratios.into_iter()).unwrap_or_default(),
        beside,
        cores: server.cores(placement),
    })
}

fn measure_beside(
    options: &DurableOptions,
    load_rate: u32,
    server: &Server,
    placement: Placement,
    progress: &mut dyn Progress,
) -> Result<Beside, Error> {
    let pace = Pace::Rate(options.beside_rate);
    let probe = Options {
        publishers: None,
        subscribers: 1,
        channels: 1,
        pace,
        ..options.publishing_at("/webrocket")
    };
    let mut door = door(&probe, server.addresses())?;
    let publishers = open_publishers(&mut *door, 1)?;
    let links = open_subscribers(&mut *door, 1, &mut ())?;
    let load = Load::new(links, publishers, probe.copies(), pace, probe.protocol.patience())?;
    let mut side = Side::new(load, None);

    let seconds = options.beside.as_secs_f64();
    let messages = (f64::from(options.beside_rate) * seconds).max(1.0) as u32;
    progress.begin(Phase::Measuring, u64::from(BESIDE_ROUNDS) * 3);
    let mut measured = [latency_histogram(), latency_histogram(), latency_histogram()];
    let (mut slowed, mut slowed_from_alone) = (Vec::new(), Vec::new());
    for round in 0..BESIDE_ROUNDS {
        let mut medians = [0; 3];
        for (index, path) in [None, Some(MEMORY_PATH), Some(DURABLE_PATH)].into_iter().enumerate() {
            let beside = path.map(|path| (path, load_rate));
            let latencies = options.beside(beside, server.addresses(), placement, || {
                side.set_pace(pace);
                side.warm_up(messages.div_ceil(2))?;
                side.set_pace(pace);
                side.measure(messages)?;
                Ok(side.latencies().clone())
            })?;
            medians[index] = latencies.value_at_quantile(0.5);
            add(&mut measured[index], &latencies);
            progress.done(u64::from(round) * 3 + index as u64 + 1);
        }
        let [alone, in_memory, durable] = medians.map(|median| median.max(1) as f64);
        slowed.push(durable / in_memory);
        slowed_from_alone.push(durable / alone);
    }
    let [alone, in_memory, durable] = measured.map(|latencies| Latency::of(&latencies));
    let [slowed, slowed_from_alone] =
        [slowed, slowed_from_alone].map(|rounds| median(rounds.into_iter()).unwrap_or_default());
    let rate = options.beside_rate;
    Ok(Beside { rate, load_rate, alone, in_memory, durable, slowed, slowed_from_alone })
}

fn add(all: &mut Histogram<u64>, more: &Histogram<u64>) {
    // Both are made alike.
    let _ = all.add(more);
}

impl DurableOptions {
    /// How many messages are published at once.
    fn at_once(&self) -> u32 {
        self.publishers.saturating_mul(self.in_flight)
    }

    /// Publishers at this path, each with a channel of its own.
    fn publishing_at(&self, path: &str) -> Options {
        Options {
            protocol: Protocol::WebRocket,
            publishers: Some(self.publishers),
            subscribers: 1,
            channels: self.publishers,
            path: Some(path.to_owned()),
            messages: self.messages,
            size: self.size,
            pace: Pace::Window(self.at_once()),
            floor: false,
            ..self.target.clone()
        }
    }

    /// Publishers at this path, and one subscriber to all of their channels: a channel of WebRocket
    /// is there while somebody is in it.
    fn load(&self, path: &str, pace: Pace, addresses: Addresses) -> Result<Load, Error> {
        let publishing = Options { pace, ..self.publishing_at(path) };
        let listening = Options { publishers: None, ..publishing.clone() };
        let links = open_subscribers(&mut *door(&listening, addresses)?, 1, &mut ())?;
        let publishers = open_publishers(&mut *door(&publishing, addresses)?, self.publishers)?;
        let audience = Audience::OfAll(1);
        let topology = Topology { publishers: self.publishers, channels: self.publishers, audience };
        let copies = Copies { subscribers: 1, deliveries: 1, answers: vec![1], apart: Some(topology) };
        Load::new(links, publishers, copies, pace, publishing.protocol.patience())
    }

    /// Does something while publishers publish at this path, so many messages a second.
    fn beside<T>(
        &self,
        load: Option<(&str, u32)>,
        addresses: Addresses,
        placement: Placement,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some((path, rate)) = load else { return work() };
        thread::scope(|scope| {
            let (begun, has_begun) = mpsc::channel();
            // Until the channel's ends are gone: what is under way is waited for.
            let (keeps_on, is_over) = mpsc::channel::<()>();
            let publishing = scope.spawn(move || {
                placement.load.map_or(Ok(()), pin_this_thread)?;
                let mut load = self.load(path, Pace::Rate(rate), addresses)?;
                let some = rate.div_ceil(4);
                while is_over.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    load.run(some, &mut latency_histogram())?;
                    // Nobody is left to hear it when the other side has failed.
                    let _ = begun.send(());
                }
                Ok(())
            });
            // An error of the load is told below.
            let done = has_begun.recv().is_ok().then(work);
            drop(keeps_on);
            let published = publishing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            published.and(done.unwrap_or_else(|| Err(Error::Options("the load did not begin".into()))))
        })
    }
}

/// A process that keeps messages in a store and does nothing else.
struct StoreAlone {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl StoreAlone {
    fn start(command: &[OsString], core: Option<usize>) -> Result<StoreAlone, Error> {
        let mut child = spawn_speaking(command, core, Stdio::piped(), Stdio::inherit())?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::io("speak with the store alone")(std::io::ErrorKind::BrokenPipe.into()));
        };
        let mut store = StoreAlone { child, input, output: BufReader::new(output) };
        match store.line()?.as_str() {
            "ready" => Ok(store),
            _ => Err(store.wrong()),
        }
    }

    /// How long it takes to keep so many messages.
    fn keep(&mut self, messages: u32) -> Result<Duration, Error> {
        writeln!(self.input, "{messages}").map_err(Error::io("ask the store alone"))?;
        let nanoseconds = self.line()?.parse().map_err(|_| self.wrong())?;
        Ok(Duration::from_nanos(nanoseconds))
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(Error::io("hear from the store alone"))?;
        Ok(line.trim_end().to_owned())
    }

    fn wrong(&self) -> Error {
        Error::io("hear from the store alone")(std::io::ErrorKind::UnexpectedEof.into())
    }
}

impl Drop for StoreAlone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl DurableReport {
    /// What was run, in one line.
    #[must_use]
    pub fn title(&self) -> String {
        let publishers = count(self.publishers.into(), "publisher");
        let messages = count(self.messages, "message");
        let at_a_time = if self.in_flight == 1 {
            "one at a time".into()
        } else {
            format!("{} at a time", self.in_flight)
        };
        format!("durable over webrocket: {publishers}, {messages} of {} bytes, {at_a_time}", self.size_bytes)
    }
}

impl fmt::Display for DurableReport {
    /// A table of plain text, without a newline at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title())?;
        let core = on_core(self.cores.server);
        writeln!(f, "{:<13}{:.0} acknowledged a second{core}", "server", self.acknowledged_per_second)?;
        writeln!(f, "{:<13}{}", "latency", self.latency)?;
        writeln!(f, "{:<13}{:.0} kept a second{core}", "store alone", self.store_per_second)?;
        write!(f, "{:<13}{:.2} of the store alone (median of {ROUNDS} rounds)", "ratio", self.ratio)?;
        let Some(beside) = &self.beside else { return Ok(()) };
        let Beside { rate, load_rate, alone, in_memory, durable, slowed, slowed_from_alone } = beside;
        write!(f, "\n\na channel in memory with {rate} messages a second")?;
        write!(f, "\n{:<13}{alone}", "alone")?;
        write!(f, "\n{:<13}{in_memory}, beside {load_rate} a second in memory", "")?;
        write!(f, "\n{:<13}{durable}, beside as many on durable channels", "")?;
        write!(
            f,
            "\n{:<13}{slowed:.2} times as long beside durable channels as beside ones in memory, \
             {slowed_from_alone:.2} times as long as alone (medians of {BESIDE_ROUNDS} rounds)",
            "slowed"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::full;

    #[test]
    fn the_table_says_what_is_kept_in_a_second() {
        let Latency { .. } = full().latency;
        let report = DurableReport {
            publishers: 64,
            in_flight: 1,
            messages: 6400,
            size_bytes: 256,
            acknowledged_per_second: 12_345.6,
            latency: full().latency,
            store_per_second: 14_000.0,
            ratio: 0.88,
            beside: None,
            cores: full().cores,
        };
        let expected = [
            "durable over webrocket: 64 publishers, 6400 messages of 256 bytes, one at a time",
            "server       12346 acknowledged a second, on core 0",
            "latency      p50 850 ns, p99 12.3 µs, p99.9 4.56 ms, max 1.23 s",
            "store alone  14000 kept a second, on core 0",
            "ratio        0.88 of the store alone (median of 10 rounds)",
        ];
        assert_eq!(report.to_string().lines().collect::<Vec<_>>(), expected);
        let latency = || full().latency;
        let beside = Beside {
            rate: 500,
            load_rate: 6000,
            alone: latency(),
            in_memory: latency(),
            durable: latency(),
            slowed: 1.04,
            slowed_from_alone: 0.98,
        };
        let report = DurableReport { beside: Some(beside), ..report }.to_string();
        let expected = "slowed       1.04 times as long beside durable channels as beside ones in memory, \
                        0.98 times as long as alone (medians of 3 rounds)";
        assert!(report.ends_with(expected), "{report}");
    }

    #[test]
    fn a_store_alone_is_asked_and_answers_in_lines() {
        let shell = ["sh", "-c", "echo ready; while read n; do echo $((n * 1000)); done"];
        let mut store = StoreAlone::start(&shell.map(OsString::from), None).unwrap();
        assert_eq!(store.keep(7).unwrap(), Duration::from_micros(7));
        let silent = StoreAlone::start(&["true"].map(OsString::from), None);
        assert!(silent.err().unwrap().to_string().contains("store alone"));
    }
}
