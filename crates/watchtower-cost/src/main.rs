//! Counts the instructions of each case and holds them against the recorded figures.
//!
//! `watchtower-cost` fails when a case has grown; `watchtower-cost --record` writes the figures
//! down as they are now. `watchtower-cost run CASE` is what valgrind runs.

mod callgrind;
mod figures;

use std::env;
use std::process::ExitCode;

use anyhow::{Context, bail};
use watchtower_cost::{Case, cases};

use crate::figures::{Figures, Toolchain};

const USAGE: &str = "usage: watchtower-cost [--record | run CASE]";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        [] => compare(),
        ["--record"] => record(),
        ["run", name] => run(name),
        _ => Err(anyhow::Error::msg(USAGE)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("watchtower-cost: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what callgrind counts.
fn run(name: &str) -> anyhow::Result<()> {
    let cases = cases();
    let case = cases.iter().find(|case| case.name == name).context("no such case")?;
    callgrind::counted(&mut *case.staged());
    Ok(())
}

fn count_all() -> anyhow::Result<Figures> {
    let mut figures = Figures::new(Toolchain::here()?);
    for case in cases() {
        let total = callgrind::instructions(case.name).with_context(|| case.name)?;
        figures.insert(case.name, total as f64 / case.units as f64);
    }
    Ok(figures)
}

fn record() -> anyhow::Result<()> {
    let figures = count_all()?;
    print(&figures, &figures);
    figures.write()
}

fn compare() -> anyhow::Result<()> {
    let recorded = Figures::read()?;
    let counted = count_all()?;
    print(&counted, &recorded);
    if !counted.can_be_held_against(&recorded) {
        eprintln!("what is recorded is of another architecture: nothing was compared");
        return Ok(());
    }
    let complaints = counted.held_against(&recorded);
    if complaints.is_empty() {
        return Ok(());
    }
    complaints.iter().for_each(|complaint| eprintln!("{complaint}"));
    bail!(
        "{} differ from what is recorded. If that is meant, record it and commit the figures \
         with the change: cargo run --release -p watchtower-cost -- --record",
        complaints.len()
    )
}

fn print(counted: &Figures, recorded: &Figures) {
    let mut lines = String::new();
    for Case { name, unit, .. } in cases() {
        lines += &counted.line(name, unit, recorded);
        lines.push('\n');
    }
    eprint!("{lines}");
}
