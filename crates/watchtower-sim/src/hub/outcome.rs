//! What came of some runs, for a person.

use std::fmt;

use super::Broken;
use super::model::Counted;
use super::script::{Script, Step};

/// What came of some runs.
#[derive(Debug)]
pub struct Outcome {
    /// What happened in those that did not fail.
    pub totals: Totals,
    /// The first that failed.
    pub failure: Option<Failure>,
}

/// What happened in some runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// How many there were.
    pub seeds: u64,
    /// Messages that were taken.
    pub published: u64,
    /// Messages that a session was handed.
    pub delivered: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Messages that one who was too far behind did not get.
    pub skipped: u64,
    /// Sessions that were closed for that.
    pub lagging: u64,
    /// Streams that went on where they had been.
    pub recovered: u64,
    /// Senders that were forgotten.
    pub expired: u64,
    /// Messages that a ledger kept.
    pub kept: u64,
    /// Changes of presence that were too many to be told one by one.
    pub untold: u64,
    /// Changes of presence that a ledger kept, or the number of some.
    pub announced: u64,
    /// Senders that were there again after that.
    pub restored: u64,
    /// Hubs that stopped, and were started anew.
    pub restarts: u64,
}

impl Totals {
    pub(super) fn of(counted: &Counted) -> Totals {
        let Counted {
            published,
            delivered,
            skipped,
            lagging,
            expired,
            recovered,
            refused,
            kept,
            left_out,
            announced,
            restored,
            ..
        } = *counted;
        Totals {
            seeds: 1,
            published,
            delivered,
            refused,
            skipped,
            lagging,
            recovered,
            expired,
            kept,
            untold: left_out,
            announced,
            restored,
            restarts: 0,
        }
    }

    pub(super) fn add(&mut self, other: &Totals) {
        self.seeds += other.seeds;
        self.published += other.published;
        self.delivered += other.delivered;
        self.refused += other.refused;
        self.skipped += other.skipped;
        self.lagging += other.lagging;
        self.recovered += other.recovered;
        self.expired += other.expired;
        self.kept += other.kept;
        self.untold += other.untold;
        self.announced += other.announced;
        self.restored += other.restored;
        self.restarts += other.restarts;
    }
}

/// A run that failed.
#[derive(Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// How it is run again.
    pub replay: String,
    /// Why it failed, and at which step.
    pub reason: String,
    /// The shortest script that was found, which may fail for another reason.
    pub script: Vec<String>,
    /// Why that fails.
    pub script_reason: String,
}

impl Failure {
    pub(super) fn new(
        seed: u64,
        steps: usize,
        script: &Script,
        shortest: &Script,
        play: impl Fn(&Script) -> Option<Broken>,
    ) -> Failure {
        let Broken { step, reason } = play(script).unwrap_or_default();
        let broken = play(shortest).unwrap_or_default();
        let show = |(number, step): (usize, &Step)| {
            let mark = if number == broken.step { ">" } else { " " };
            let words = match step {
                Step::Do(client, act) => {
                    format!("client {client} ({:?}): {act:?}", script.clients[usize::from(*client)])
                }
                step => format!("{step:?}"),
            };
            format!("{mark} {words}")
        };
        let end = if broken.step >= shortest.steps.len() { "> all leave" } else { "  …" };
        let mut lines = vec![format!("  {:?}", shortest.setting)];
        lines.extend(shortest.steps.iter().enumerate().map(show));
        lines.push(end.to_owned());
        Failure {
            seed,
            replay: format!("watchtower-sim hub --seed {seed} --steps {steps}"),
            reason: format!("at step {step} of {}: {}", script.steps.len(), short(&reason)),
            script: lines,
            script_reason: short(&broken.reason),
        }
    }
}

/// As much as a person reads: contents are long.
fn short(reason: &str) -> String {
    const LENGTH_MAX: usize = 500;
    let end = reason.floor_char_boundary(LENGTH_MAX);
    let ellipsis = if end < reason.len() { "…" } else { "" };
    format!("{}{ellipsis}", &reason[..end])
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals {
            seeds,
            published,
            delivered,
            refused,
            skipped,
            lagging,
            recovered,
            expired,
            kept,
            untold,
            announced,
            restored,
            restarts,
        } = self.totals;
        writeln!(
            f,
            "{seeds} seeds: {published} messages published, {delivered} delivered, {skipped} skipped; \
             {refused} requests refused, {lagging} sessions too far behind, {recovered} streams resumed, \
             {expired} senders expired, {untold} changes of presence too many to tell; {kept} messages kept, {announced} of them of presence, {restarts} restarts, {restored} senders there again"
        )?;
        let Some(failure) = &self.failure else {
            return writeln!(f, "kept    every promise, after every step");
        };
        writeln!(f, "BROKEN  seed {}, {}", failure.seed, failure.reason)?;
        writeln!(f, "\n{} steps are enough:", failure.script.len() - 2)?;
        failure.script.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(f, "{}\n\nAgain: {}", failure.script_reason, failure.replay)
    }
}
