//! The arguments of each kind of bench.

use std::time::Duration;

use clap::Args;
use watchtower_bench::{
    ChurnReport, LatencyReport, Options, Pace, Report, ScaleReport, churn, fanout, idle, latency, scale,
};

use super::target::Target;
use super::{Output, print, show};
use crate::failure::Failure;

/// What is published, and how.
#[derive(Debug, Args)]
struct Messages {
    /// How many messages are measured; some more go before them to warm up.
    #[arg(long, value_name = "M", default_value_t = 1000)]
    messages: u32,
    /// Bytes of content in a message, at least 8.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    size: usize,
    /// Publish so many messages a second, whether or not the last have arrived.
    #[arg(long, value_name = "R", conflicts_with = "window")]
    rate: Option<u32>,
    /// Publish so many messages at once, and the next when all of them have arrived.
    #[arg(long, value_name = "W", default_value_t = 1)]
    window: u32,
    /// Measure a bare loop in the same run, one that writes the same bytes to as many sockets, and
    /// print the ratio.
    #[arg(long)]
    floor: bool,
}

impl Messages {
    fn with(self, target: Target) -> Result<Options, Failure> {
        Ok(Options {
            messages: self.messages,
            size: self.size,
            pace: self.rate.map_or(Pace::Window(self.window), Pace::Rate),
            floor: self.floor,
            ..target.into_options()?
        })
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without --server a server is started on a free port, with the default configuration and what --set
changes of it; its CPU time and memory are measured too. Messages are published one at a time unless
--rate or --window says otherwise.

The publisher speaks tcp, but for webrocket, where it is another connection to the hub, and webtalk,
where it is an application on the private link.

Examples:
  watchtower bench fanout --subscribers 1000 --floor
  watchtower bench fanout --protocol sse --messages 10000 --window 64 --json
  watchtower bench fanout --rate 500 --size 1024 --plot latency.svg
  watchtower bench fanout --protocol webrocket --deflate --floor
  watchtower bench fanout --protocol udp --server 127.0.0.1:3033
  watchtower bench fanout --protocol webtalk --server 127.0.0.1:3033 --private 127.0.0.1:12344")]
pub(super) struct Fanout {
    #[command(flatten)]
    messages: Messages,
    /// How many subscribers there are, a connection each.
    #[arg(long, value_name = "N", default_value_t = 100)]
    subscribers: u32,
    /// Publish to so many channels in turn, every subscriber joined to all.
    #[arg(long, value_name = "N", default_value_t = 1)]
    channels: u32,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

impl Fanout {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { messages, subscribers, channels, target, output } = self;
        let options = Options { subscribers, channels, ..messages.with(target)? };
        output.print(&show(|progress| fanout(&options, progress))?, Report::plot_svg)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
The publishers divide the channels among them; where there are more publishers than channels, several
share one. They publish in turn. A publisher that speaks tcp is in its channels, and gets what is
published there: that is waited for, and not counted as a delivery.

Examples:
  watchtower bench many --publishers 10 --channels 100 --subscribers 10 --floor
  watchtower bench many --protocol webrocket --publishers 50 --channels 1 --window 50")]
pub(super) struct Many {
    /// How many publishers there are, a connection each.
    #[arg(long, value_name = "P", default_value_t = 10)]
    publishers: u32,
    /// How many channels there are.
    #[arg(long, value_name = "C", default_value_t = 100)]
    channels: u32,
    /// How many subscribers each channel has, a connection each.
    #[arg(long, value_name = "S", default_value_t = 10)]
    subscribers: u32,
    #[command(flatten)]
    messages: Messages,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

impl Many {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { publishers, channels, subscribers, messages, target, output } = self;
        let publishers = Some(publishers);
        let options = Options { publishers, channels, subscribers, ..messages.with(target)? };
        output.print(&show(|progress| fanout(&options, progress))?, Report::plot_svg)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
A fan-out bench for each number of subscribers, one after the other, each with a server of its own.

Examples:
  watchtower bench scale --subscribers 10,100,1000 --floor --plot cost.svg
  watchtower bench scale --protocol sse --window 64 --json")]
pub(super) struct Scale {
    /// How many subscribers there are each time.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [10, 100, 1000])]
    subscribers: Vec<u32>,
    #[command(flatten)]
    messages: Messages,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

impl Scale {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { subscribers, messages, target, output } = self;
        let options = messages.with(target)?;
        let report = show(|progress| scale(&options, &subscribers, progress))?;
        output.print(&report, ScaleReport::plot_svg)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Messages are published when they are due, whether or not the last have arrived, and latency counts
from when they were due. The first rate that is not kept, and not when tried once more, ends the
bench.

Examples:
  watchtower bench latency --subscribers 100 --rates 100,500,1000,2000 --plot latency.svg
  watchtower bench latency --protocol webrocket --seconds 10")]
pub(super) struct Latency {
    /// Messages in a second, one rate after the other.
    #[arg(long, value_name = "R,…", value_delimiter = ',', default_values_t = [100, 200, 500, 1000, 2000, 5000])]
    rates: Vec<u32>,
    /// For how long each is kept.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    seconds: f64,
    /// How many subscribers there are, a connection each.
    #[arg(long, value_name = "N", default_value_t = 100)]
    subscribers: u32,
    /// Bytes of content in a message, at least 8.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    size: usize,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

impl Latency {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { rates, seconds, subscribers, size, target, output } = self;
        let options = Options { subscribers, size, ..target.into_options()? };
        let report = show(|progress| latency(&options, &rates, seconds, progress))?;
        output.print(&report, LatencyReport::plot_svg)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
So many connections are held. Each newcomer connects, joins, and takes the place of the oldest, which
is closed; they come one after the other.

Examples:
  watchtower bench churn --connections 10000
  watchtower bench churn --protocol webrocket --held 1000 --plot joining.svg")]
pub(super) struct Churn {
    /// How many connections come, and go.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    connections: u32,
    /// How many there are at a time.
    #[arg(long, value_name = "N", default_value_t = 100)]
    held: u32,
    /// How many channels each joins.
    #[arg(long, value_name = "N", default_value_t = 1)]
    channels: u32,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

impl Churn {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { connections, held, channels, target, output } = self;
        let options = Options { subscribers: held, channels, ..target.into_options()? };
        let report = show(|progress| churn(&options, connections, progress))?;
        output.print(&report, ChurnReport::plot_svg)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchtower bench idle --connections 9000 --protocol sse
  watchtower bench idle --seconds 60 --json")]
pub(super) struct Idle {
    /// How many connections there are.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    connections: u32,
    /// How many channels each joins.
    #[arg(long, value_name = "N", default_value_t = 1)]
    channels: u32,
    /// For how long nothing is published.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u32,
    #[command(flatten)]
    target: Target,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Idle {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { connections, channels, seconds, target, json } = self;
        let options = Options { subscribers: connections, channels, ..target.into_options()? };
        let rest = Duration::from_secs(seconds.into());
        print(&show(|progress| idle(&options, rest, progress))?, json)
    }
}
