//! `watchtower bench`.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use watchtower_bench::{Error, FanoutOptions, Pace, Phase, Progress, Protocol, fanout, floor};

use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchtower bench fanout --subscribers 1000 --floor")]
pub(crate) struct Bench {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// One publisher, many subscribers: deliveries a second, latency, loss and cost.
    Fanout(Box<Fanout>),
    /// Run the bare loop that --floor measures.
    #[command(hide = true)]
    FloorServer,
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
struct Fanout {
    /// What the subscribers speak.
    #[arg(long, value_enum, default_value_t = ProtocolName::Tcp)]
    protocol: ProtocolName,
    /// How many subscribers there are, a connection each.
    #[arg(long, value_name = "N", default_value_t = 100)]
    subscribers: u32,
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
    /// Publish to so many channels in turn, every subscriber joined to all.
    #[arg(long, value_name = "N", default_value_t = 1)]
    channels: u32,
    /// Measure a server that is running; what it costs cannot be seen then.
    #[arg(long, value_name = "ADDR")]
    server: Option<SocketAddr>,
    /// The server's secret, where registering needs it; for webrocket the hub's for read-write
    /// access, for webtalk that of the private link.
    #[arg(long, value_name = "KEY")]
    secret: Option<String>,
    /// The hub's secret for read-only access; without it webrocket subscribers use the other one.
    #[arg(long, value_name = "KEY")]
    read_only_secret: Option<String>,
    /// The path of the WebSockets: by default /webrocket or /webtalk.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Have messages over WebSocket deflated.
    #[arg(long)]
    deflate: bool,
    /// The private link of that server's WebTalk.
    #[arg(long, value_name = "ADDR", requires = "server")]
    private: Option<SocketAddr>,
    /// Set a key of the configuration of the server that is started.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "server")]
    set: Vec<String>,
    /// Measure a bare loop in the same run, one that writes the same bytes to as many sockets, and
    /// print the ratio.
    #[arg(long, conflicts_with = "server")]
    floor: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Draw the latency and the deliveries of each round.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// The processor of the server and of the bare loop, by number; by default the first of two.
    #[arg(long, value_name = "CPU")]
    server_cpu: Option<usize>,
    /// The processor of the load, by number; by default the second of two.
    #[arg(long, value_name = "CPU")]
    load_cpu: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProtocolName {
    /// Packets over TCP.
    Tcp,
    /// Packets over UDP.
    Udp,
    /// JSON lines in an HTTP stream.
    Http,
    /// Server-Sent Events.
    Sse,
    /// WebRocket: JSON over WebSocket.
    #[value(name = "webrocket")]
    WebRocket,
    /// WebTalk: text over WebSocket.
    #[value(name = "webtalk")]
    WebTalk,
}

impl Bench {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.kind {
            Kind::Fanout(fanout) => fanout.run(),
            Kind::FloorServer => Ok(floor::serve()?),
        }
    }
}

impl Fanout {
    fn run(self) -> Result<(), Failure> {
        let (json, plot) = (self.json, self.plot.clone());
        let options = self.into_options()?;
        let report = if io::stderr().is_terminal() {
            fanout(&options, &mut Bar::new())?
        } else {
            fanout(&options, &mut ())?
        };
        let text = if json {
            serde_json::to_string_pretty(&report).context("cannot write the report as JSON")?
        } else {
            report.to_string()
        };
        output::print_line(text.as_bytes())?;
        if let Some(file) = plot {
            report.plot_svg(&file)?;
        }
        Ok(())
    }

    fn into_options(self) -> Result<FanoutOptions, Failure> {
        let this = std::env::current_exe().context("cannot find this program to start it")?;
        let this_with = |arguments: &[&str]| -> Vec<OsString> {
            let arguments = arguments.iter().map(OsString::from);
            [OsString::from(&this)].into_iter().chain(arguments).collect()
        };
        let mut server_command = this_with(&["serve", "--listen", "127.0.0.1:0"]);
        if self.protocol == ProtocolName::WebTalk {
            server_command.extend(["--set".into(), "webtalk.private=127.0.0.1:0".into()]);
        }
        for set in self.set {
            server_command.extend(["--set".into(), set.into()]);
        }
        Ok(FanoutOptions {
            protocol: match self.protocol {
                ProtocolName::Tcp => Protocol::Tcp,
                ProtocolName::Udp => Protocol::Udp,
                ProtocolName::Http => Protocol::Http,
                ProtocolName::Sse => Protocol::Sse,
                ProtocolName::WebRocket => Protocol::WebRocket,
                ProtocolName::WebTalk => Protocol::WebTalk,
            },
            subscribers: self.subscribers,
            messages: self.messages,
            size: self.size,
            pace: self.rate.map_or(Pace::Window(self.window), Pace::Rate),
            channels: self.channels,
            server: self.server,
            secret: self.secret,
            read_only_secret: self.read_only_secret,
            path: self.path,
            deflate: self.deflate,
            webtalk_private: self.private,
            server_command,
            floor: self.floor,
            floor_command: this_with(&["bench", "floor-server"]),
            server_cpu: self.server_cpu,
            load_cpu: self.load_cpu,
        })
    }
}

/// Shows a person how far the bench is.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        Self(ProgressBar::new(0))
    }
}

impl Progress for Bar {
    fn begin(&mut self, phase: Phase, total: u64) {
        let template = match total {
            0 => "{msg}",
            _ => "{msg:28} {wide_bar} {human_pos}/{human_len}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        self.0.set_length(total);
        self.0.set_position(0);
        self.0.set_message(phase.label());
    }

    fn done(&mut self, count: u64) {
        self.0.set_position(count);
    }
}

/// What was drawn makes room for the report.
impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
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
