//! `watchtower bench durable`: its arguments, and the server that it needs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use watchtower_bench::{DURABLE_PATH, DurableOptions, MEMORY_PATH, Options, durable, store_alone};

use super::target::this_program;
use super::{print, show};
use crate::failure::Failure;

#[derive(Debug, Args)]
#[command(after_help = "\
A server is started that keeps what is published in a folder below --folder, which is removed at the
end. All publishers publish at once, and again when all of them were answered. The store alone is
given as many messages at once, and waited for. Both take turns. With --in-flight each publisher
writes several messages before it waits.

Then a channel in memory is measured alone, beside publishers in memory, and beside as many on
durable channels: --load messages a second, or half as many as were acknowledged before.

Examples:
  watchtower bench durable
  watchtower bench durable --in-flight 16 --messages 204800
  watchtower bench durable --publishers 256 --messages 25600 --folder /var/tmp --json")]
pub(super) struct Durable {
    /// How many publishers there are, each with a durable channel of its own.
    #[arg(long, value_name = "P", default_value_t = 64)]
    publishers: u32,
    /// How many messages each has under way at a time.
    #[arg(long, value_name = "N", default_value_t = 1)]
    in_flight: u32,
    /// How many messages are measured.
    #[arg(long, value_name = "M", default_value_t = 12_800)]
    messages: u32,
    /// Bytes of content in a message, at least 8.
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    size: usize,
    /// How many messages a second go over the channel in memory.
    #[arg(long, value_name = "R", default_value_t = 500)]
    rate: u32,
    /// How many messages a second are published beside it [default: half of what was acknowledged]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    load: Option<u32>,
    /// How long that is measured each time; 0: not at all.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    seconds: f64,
    /// Where messages are kept: on the disk that is to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Set a key of the configuration of the server that is started.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The processor of the server and of the store alone, by number; by default the first of two.
    #[arg(long, value_name = "CPU")]
    server_cpu: Option<usize>,
    /// The processor of the load, by number; by default the second of two.
    #[arg(long, value_name = "CPU")]
    load_cpu: Option<usize>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Durable {
    pub(super) fn run(self) -> Result<(), Failure> {
        let beside = Duration::try_from_secs_f64(self.seconds)
            .map_err(|_| Failure::Usage("--seconds is 0 or more".to_owned()))?;
        let folder = tempfile::tempdir_in(&self.folder)
            .with_context(|| format!("cannot make a folder in {}", self.folder.display()))?;
        let hub =
            |path: &str| format!("{{path=\"{path}\",namespace=\"{}\",anonymous=\"read-write\"}}", &path[1..]);
        let [durable_hub, memory_hub] = [hub(DURABLE_PATH), hub(MEMORY_PATH)];
        let sets = [
            format!(
                "webrocket.hubs=[{durable_hub},{memory_hub},{{path=\"/webrocket\",anonymous=\"read-write\"}}]"
            ),
            format!("channels=[{{pattern=\"{}/*\",durable=true}}]", &DURABLE_PATH[1..]),
        ];
        let mut server_command = this_program(["serve", "--listen", "127.0.0.1:0", "--data-dir"])?;
        server_command.push(folder.path().join("server").into());
        for set in sets.into_iter().chain(self.set) {
            server_command.extend(["--set".into(), set.into()]);
        }
        let mut store_command = this_program(["bench", "store-alone"])?;
        store_command.push(folder.path().join("alone").into());
        let numbers = [self.publishers.to_string(), self.in_flight.to_string(), self.size.to_string()];
        store_command.extend(numbers.map(OsString::from));
        let options = DurableOptions {
            target: Options {
                server_command,
                server_cpu: self.server_cpu,
                load_cpu: self.load_cpu,
                ..Options::default()
            },
            publishers: self.publishers,
            in_flight: self.in_flight,
            messages: self.messages,
            size: self.size,
            store_command,
            beside_rate: self.rate,
            beside_load: self.load,
            beside,
        };
        print(&show(|progress| durable(&options, progress))?, self.json)
    }
}

/// Runs the store alone that [`Durable`] measures.
#[derive(Debug, Args)]
pub(super) struct StoreAlone {
    /// Where it is.
    folder: PathBuf,
    /// How many channels there are.
    publishers: u32,
    /// How many messages are submitted at once for each.
    in_flight: u32,
    /// Bytes of content in each.
    size: usize,
}

impl StoreAlone {
    pub(super) fn run(&self) -> Result<(), Failure> {
        Ok(store_alone::serve(&self.folder, self.publishers, self.in_flight, self.size)?)
    }
}
