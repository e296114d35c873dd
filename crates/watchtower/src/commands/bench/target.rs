//! The server that a bench measures, and how it is reached: what all kinds of bench ask for.

use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;

use anyhow::Context;
use clap::{Args, ValueEnum};
use watchtower_bench::{Options, Protocol};

use crate::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct Target {
    /// What the subscribers speak.
    #[arg(long, value_enum, default_value_t = ProtocolName::Tcp)]
    protocol: ProtocolName,
    /// Measure a server that is running; what it costs cannot be seen then, unless --pid says where.
    #[arg(long, value_name = "ADDR")]
    server: Option<SocketAddr>,
    /// The process of that server: all of its threads, on the processor of --server-cpu.
    #[arg(long, value_name = "PID", requires = "server")]
    pid: Option<u32>,
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
    /// Redis, at --server.
    Redis,
    /// NATS, at --server.
    Nats,
    /// MQTT 3.1.1, at --server.
    Mqtt,
    /// nchan, at --server: WebSockets at /sub?id=N, published to by POST at /pub?id=N.
    Nchan,
}

impl Target {
    /// Options of which only what is about messages and subscribers is left to say.
    pub(super) fn into_options(self) -> Result<Options, Failure> {
        let mut server_command = this_program(["serve", "--listen", "127.0.0.1:0"])?;
        if self.protocol == ProtocolName::WebTalk {
            server_command.extend(["--set".into(), "webtalk.private=127.0.0.1:0".into()]);
        }
        for set in self.set {
            server_command.extend(["--set".into(), set.into()]);
        }
        Ok(Options {
            protocol: match self.protocol {
                ProtocolName::Tcp => Protocol::Tcp,
                ProtocolName::Udp => Protocol::Udp,
                ProtocolName::Http => Protocol::Http,
                ProtocolName::Sse => Protocol::Sse,
                ProtocolName::WebRocket => Protocol::WebRocket,
                ProtocolName::WebTalk => Protocol::WebTalk,
                ProtocolName::Redis => Protocol::Redis,
                ProtocolName::Nats => Protocol::Nats,
                ProtocolName::Mqtt => Protocol::Mqtt,
                ProtocolName::Nchan => Protocol::Nchan,
            },
            server: self.server,
            server_pid: self.pid,
            secret: self.secret,
            read_only_secret: self.read_only_secret,
            path: self.path,
            deflate: self.deflate,
            webtalk_private: self.private,
            server_command,
            floor_command: this_program(["bench", "floor-server"])?,
            server_cpu: self.server_cpu,
            load_cpu: self.load_cpu,
            ..Options::default()
        })
    }
}

/// The command that runs this program with these arguments.
pub(super) fn this_program<const N: usize>(arguments: [&str; N]) -> Result<Vec<OsString>, Failure> {
    let this = env::current_exe().context("cannot find this program to start it")?;
    Ok([this.into()].into_iter().chain(arguments.map(OsString::from)).collect())
}
