//! `watchtower bench`: the kinds of bench, and what they print.

mod bar;
mod durable;
mod kinds;
mod target;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use watchtower_bench::{Error, Progress, floor};

use self::bar::Bar;
use self::durable::{Durable, StoreAlone};
use self::kinds::{Churn, Fanout, Idle, Latency, Many, Scale};
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchtower bench fanout --subscribers 1000 --floor
  watchtower bench latency --protocol sse --rates 100,1000,5000")]
pub(crate) struct Bench {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// One publisher, many subscribers: deliveries a second, latency, loss and cost.
    Fanout(Box<Fanout>),
    /// Many publishers, and many channels with subscribers of their own.
    Many(Box<Many>),
    /// What a delivery costs with more and more subscribers.
    Scale(Box<Scale>),
    /// How long deliveries take under one load after the other.
    Latency(Box<Latency>),
    /// Connections that come and go.
    Churn(Box<Churn>),
    /// Connections that hear nothing: their memory, and what keeping them costs.
    Idle(Box<Idle>),
    /// Publishing on durable channels: what is kept in a second, and what it does to others.
    Durable(Durable),
    /// Run the bare loop that --floor measures.
    #[command(hide = true)]
    FloorServer,
    /// Run the store alone that durable measures.
    #[command(hide = true)]
    StoreAlone(StoreAlone),
}

impl Bench {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.kind {
            Kind::Fanout(fanout) => fanout.run(),
            Kind::Many(many) => many.run(),
            Kind::Scale(scale) => scale.run(),
            Kind::Latency(latency) => latency.run(),
            Kind::Churn(churn) => churn.run(),
            Kind::Idle(idle) => idle.run(),
            Kind::Durable(durable) => durable.run(),
            Kind::StoreAlone(store) => store.run(),
            Kind::FloorServer => Ok(floor::serve()?),
        }
    }
}

/// Where a report goes.
#[derive(Debug, Args)]
struct Output {
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Draw the report.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// Runs a bench, with a bar on a terminal.
fn show<R>(bench: impl FnOnce(&mut dyn Progress) -> Result<R, Error>) -> Result<R, Error> {
    if io::stderr().is_terminal() { bench(&mut Bar::new()) } else { bench(&mut ()) }
}

/// Prints a report for a person, or as JSON.
fn print<R: Serialize + ToString>(report: &R, json: bool) -> Result<(), Failure> {
    let text = if json {
        serde_json::to_string_pretty(report).context("cannot write the report as JSON")?
    } else {
        report.to_string()
    };
    output::print_line(text.as_bytes())?;
    Ok(())
}

impl Output {
    /// Prints a report, and draws it if that was asked for.
    fn print<R: Serialize + ToString>(
        &self,
        report: &R,
        draw: impl FnOnce(&R, &Path) -> Result<(), Error>,
    ) -> Result<(), Failure> {
        print(report, self.json)?;
        self.plot.as_deref().map_or(Ok(()), |file| draw(report, file))?;
        Ok(())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Options(reason) => Self::Usage(reason),
            // Its sources are in its message already.
            other => Self::Other(anyhow::Error::msg(other.to_string())),
        }
    }
}
