//! What a run showed: as a table, and held against what is promised.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::network::Faults;
use super::{Error, Options, plot};

/// How many copies of what is said a routing node receives at most, in the mean
/// and control counted.
const COPIES_MAX: f64 = 2.0;

/// After how many rounds messages reach everybody again.
const ROUNDS_MAX: usize = 10;

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// What was simulated.
    pub options: Options,
    /// With all nodes.
    pub before: Measured,
    /// The fewest neighbours of a routing node, and the most.
    pub neighbours: (usize, usize),
    /// After some failed, round by round.
    pub(super) rounds: Vec<Round>,
    /// With those that did not fail.
    pub after: Option<Measured>,
    pub(super) faults: Faults,
    /// How long it took, in the network's time.
    pub virtual_time: Duration,
}

/// What some messages cost, and whom they reached.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// How many there were.
    pub messages: usize,
    /// How often one reached a node.
    pub deliveries: usize,
    /// How often one would have.
    pub deliveries_due: usize,
    /// For each routing node the bytes that it received, control included, over
    /// those of one copy of each message of others; the fewest first.
    pub copies: Vec<f64>,
    /// The control among them.
    pub control_copies: Vec<f64>,
    /// As `copies`, for plain nodes.
    pub plain_copies: Vec<f64>,
    /// How many nodes each delivery came by.
    pub hops: Vec<u16>,
    /// How long each delivery took, in milliseconds.
    pub latencies: Vec<u64>,
}

impl Measured {
    pub(super) fn sort(&mut self) {
        for copies in [&mut self.copies, &mut self.control_copies, &mut self.plain_copies] {
            copies.sort_by(f64::total_cmp);
        }
        self.hops.sort_unstable();
        self.latencies.sort_unstable();
    }
}

/// A message after some failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Round {
    /// How many it reached within a second, whoever said it included.
    pub(super) at_once: usize,
    /// How many it reached within five.
    pub(super) in_time: usize,
    /// How many it reached at all.
    pub(super) ever: usize,
    pub(super) due: usize,
}

/// Something that is promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// What.
    pub text: String,
    /// Whether it was kept.
    pub is_kept: bool,
}

impl Report {
    /// How many rounds it took until every message reached everybody in time
    /// again.
    pub fn rounds_to_heal(&self) -> usize {
        let last = self.rounds.iter().rposition(|round| round.in_time < round.due);
        last.map_or(0, |last| last + 1)
    }

    /// The first ones, and those until it was healed.
    fn rounds_shown(&self) -> usize {
        (self.rounds_to_heal() + 1).max(5).min(self.rounds.len())
    }

    /// What is promised, and whether it was kept.
    pub fn promises(&self) -> Vec<Promise> {
        let mut promises = Vec::new();
        let mut promise = |text: String, is_kept| promises.push(Promise { text, is_kept });
        let measured = || [Some(&self.before), self.after.as_ref()].into_iter().flatten();
        let reached = measured().all(|measured| measured.deliveries == measured.deliveries_due);
        promise("every message reached every node".into(), reached);
        if self.is_routed() {
            let copies = measured().map(|measured| mean(&measured.copies)).fold(0.0, f64::max);
            promise(
                format!("a routing node received at most {COPIES_MAX} copies in the mean"),
                copies <= COPIES_MAX,
            );
        }
        if self.options.kill > 0 {
            let healed = self.rounds_to_heal() <= ROUNDS_MAX.min(self.rounds.len() - 1);
            promise(format!("healed within {ROUNDS_MAX} rounds"), healed);
        }
        let Faults { sent_twice, shown_twice, crashed } = self.faults;
        promise("no node sent a message twice to another".into(), sent_twice == 0);
        promise("no message was shown twice".into(), shown_twice == 0);
        if self.options.plain > 0 {
            promise("no plain node was sent what it fails on".into(), crashed == 0);
        }
        promises
    }

    /// Whether there are enough nodes that they do not flood.
    fn is_routed(&self) -> bool {
        let Options { nodes, plain, kill, routing, .. } = self.options;
        nodes - plain - kill > routing.flooded + 1
    }

    /// Whether all was kept that is promised.
    pub fn is_kept(&self) -> bool {
        self.promises().iter().all(|promise| promise.is_kept)
    }

    /// Draws it.
    ///
    /// # Errors
    ///
    /// [`Error::Plot`], when the file cannot be written.
    pub fn plot_svg(&self, path: &Path) -> Result<(), Error> {
        plot::draw(self, path)
    }

    pub(super) fn title(&self) -> String {
        let Options { nodes, plain, kill, seed, .. } = self.options;
        let plain = if plain > 0 { format!(", {plain} of them plain") } else { String::new() };
        let kill = if kill > 0 { format!(", {kill} fail") } else { String::new() };
        format!("whispernet: {nodes} nodes{plain}{kill}; seed {seed}")
    }

    fn row(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        value: impl Fn(&Measured) -> String,
    ) -> fmt::Result {
        write!(f, "{name:<34}{:>14}", value(&self.before))?;
        if let Some(after) = &self.after {
            write!(f, "{:>14}", value(after))?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title())?;
        write!(f, "{:<34}{:>14}", "", "all up")?;
        if self.after.is_some() {
            write!(f, "{:>14}", format!("{} failed", self.options.kill))?;
        }
        writeln!(f)?;
        self.row(f, "messages", |m| m.messages.to_string())?;
        self.row(f, "reached", |m| percent(m.deliveries, m.deliveries_due))?;
        self.row(f, "copies a routing node, mean", |m| format!("{:.2}", mean(&m.copies)))?;
        self.row(f, "  control in that", |m| format!("{:.2}", mean(&m.control_copies)))?;
        self.row(f, "  99 of 100 nodes, at most", |m| format!("{:.2}", quantile(&m.copies, 0.99)))?;
        self.row(f, "  any node, at most", |m| format!("{:.2}", quantile(&m.copies, 1.0)))?;
        if self.options.plain > 0 {
            self.row(f, "copies a plain node, mean", |m| format!("{:.2}", mean(&m.plain_copies)))?;
        }
        self.row(f, "hops, median", |m| quantile(&m.hops, 0.5).to_string())?;
        self.row(f, "  at most", |m| quantile(&m.hops, 1.0).to_string())?;
        self.row(f, "milliseconds, median", |m| quantile(&m.latencies, 0.5).to_string())?;
        self.row(f, "  at most", |m| quantile(&m.latencies, 1.0).to_string())?;
        writeln!(f, "{:<34}{:>14}", "neighbours", format!("{} to {}", self.neighbours.0, self.neighbours.1))?;
        if !self.rounds.is_empty() {
            writeln!(
                f,
                "\n{:<34}{:>14}{:>14}{:>14}",
                "round after the failure", "within 1 s", "5 s", "in the end"
            )?;
            for (number, round) in (1..).zip(&self.rounds[..self.rounds_shown()]) {
                let [at_once, in_time, ever] =
                    [round.at_once, round.in_time, round.ever].map(|count| percent(count, round.due));
                writeln!(f, "{number:<34}{at_once:>14}{in_time:>14}{ever:>14}")?;
            }
        }
        writeln!(f)?;
        for Promise { text, is_kept } in self.promises() {
            writeln!(f, "{}  {text}", if is_kept { "kept  " } else { "BROKEN" })?;
        }
        Ok(())
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Of sorted values.
fn quantile<T: Copy + Default>(values: &[T], quantile: f64) -> T {
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * quantile).round() as usize).copied().unwrap_or_default()
}

/// Never rounded up to all.
fn percent(count: usize, of: usize) -> String {
    let percent = 100.0 * count as f64 / of.max(1) as f64;
    if count == of { "100 %".into() } else { format!("{:.3} %", (percent * 1_000.0).floor() / 1_000.0) }
}
