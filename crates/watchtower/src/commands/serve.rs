//! `watchtower serve`: from the command line to a running server, and its signals.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use watchtower_server::config::{Config, Flag, Sources};
use watchtower_server::{Handle, Server, ServerBuilder};

use super::notice;
use crate::failure::Failure;
use crate::logs::{self, LogFormat};
use crate::signals::{Request, Signals};
use crate::supervisor::{self, State};
use crate::{limits, output, runtime};

/// How often the log says what it left out.
const LEFT_OUT_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(after_help = "\
What is configured: defaults, then the file, then WATCHTOWER_* variables of the environment
(WATCHTOWER_LISTEN, WATCHTOWER_LIMITS__MAX_SENDERS), then flags, then --set. All keys:
watchtower config default.

When ready, prints a line for each listener and then the line ready. SIGTERM and SIGINT end it in
an orderly way, a second one at once; SIGHUP reloads the secret, the limits and the certificate.

Examples:
  watchtower serve
  watchtower serve --listen 127.0.0.1:0 --data-dir data
  watchtower serve --listen 0.0.0.0:3033 --secret \"$SECRET\"
  watchtower serve --config watchtower.toml --set limits.max_senders=500
  watchtower serve --set 'callbacks.allow=[\"192.168.0.0/16\"]' --log-format json")]
pub(crate) struct Serve {
    /// The configuration file, TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one, localhost means 127.0.0.1 and ::1.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// The secret for registering; others on this machine can see it in the list of processes,
    /// unlike WATCHTOWER_SECRET_KEY.
    #[arg(long, value_name = "KEY")]
    secret: Option<String>,
    /// The folder for what outlives the server.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Set any key of the configuration; VALUE is TOML, or else a text.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// How the log on standard error is written; RUST_LOG says how much of it.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let _log = logs::start(self.log_format)?;
        let log_format = self.log_format;
        let sources = self.into_sources();
        let mut config = Config::load(&sources)?;
        config.check_files()?;
        let secret = config.fill_in_secret()?;
        let registers_without_secret = config.registers_without_secret();
        until_stopped(
            Server::builder(config.clone()),
            || {
                config.keep_secret(&secret)?;
                notice::of_secret(&config, &secret, log_format);
                Ok(())
            },
            |server| notice::of_what_to_try(server.listeners(), registers_without_secret),
            || Config::load(&sources).map_err(Failure::from),
        )
    }

    fn into_sources(self) -> Sources {
        let flags = [
            ("--listen", "listen", self.listen),
            ("--secret", "secret_key", self.secret),
            ("--data-dir", "data_dir", self.data_dir),
        ];
        Sources {
            file: self.config,
            environment: std::env::vars_os().collect(),
            flags: flags
                .into_iter()
                .filter_map(|(name, key, value)| Some(Flag { name, key, value: value? }))
                .collect(),
            set: self.set,
        }
    }
}

/// Runs a server until a signal ends it. `bound` does what is to be done for a server alone that
/// has its sockets, before anybody is told that it is ready; `welcome` speaks to the person at a terminal once it is
/// ready; `reload` gives the configuration anew.
pub(super) fn until_stopped(
    server: ServerBuilder,
    bound: impl FnOnce() -> Result<(), Failure>,
    welcome: impl FnOnce(&Server),
    reload: impl Fn() -> Result<Config, Failure>,
) -> Result<(), Failure> {
    limits::raise_open_files();
    let runtime = runtime::for_server()?;
    let served = runtime.block_on(serve(server, bound, welcome, reload));
    // What a second signal cut short is not waited for.
    runtime.shutdown_background();
    served
}

async fn serve(
    server: ServerBuilder,
    bound: impl FnOnce() -> Result<(), Failure>,
    welcome: impl FnOnce(&Server),
    reload: impl Fn() -> Result<Config, Failure>,
) -> Result<(), Failure> {
    // Before the sockets are open, so that no signal can end a server that has clients.
    let signals = Signals::to_stop_or_reload()?;
    let server = server.bind().await.map_err(anyhow::Error::from)?;
    bound()?;
    let mut lines = String::new();
    for listener in server.listeners() {
        lines.push_str(&format!("listening {listener}\n"));
    }
    // A server outlives the reader of these lines.
    output::print(format!("{lines}ready\n").as_bytes())?;
    supervisor::tell(State::Ready);
    if io::stderr().is_terminal() {
        welcome(&server);
    }
    let handle = server.handle();
    obey(signals, &handle, reload, server.run()).await
}

/// Runs the server to its end, and does what signals ask for meanwhile.
async fn obey(
    mut signals: Signals,
    handle: &Handle,
    reload: impl Fn() -> Result<Config, Failure>,
    running: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let mut running = pin!(running);
    let mut is_stopping = false;
    let mut left_out = tokio::time::interval(LEFT_OUT_INTERVAL);
    loop {
        let request = tokio::select! {
            () = &mut running => {
                logs::tell_what_was_left_out();
                return Ok(());
            }
            request = signals.next() => request,
            _ = left_out.tick() => {
                logs::tell_what_was_left_out();
                continue;
            }
        };
        match request {
            Request::Reload => take_over(handle, reload()),
            Request::Stop if is_stopping => {
                return Err(anyhow!("ended by a second signal, before all sessions were closed").into());
            }
            Request::Stop => {
                is_stopping = true;
                supervisor::tell(State::Stopping);
                tracing::info!("shutting down; a second signal ends the server at once");
                handle.shutdown();
            }
        }
    }
}

/// Takes over what can be; a configuration that is wrong changes nothing.
fn take_over(handle: &Handle, loaded: Result<Config, Failure>) {
    match loaded {
        Ok(config) => {
            let report = handle.reload(&config);
            tracing::info!(needs_restart = ?report.needs_restart, "reloaded secrets and limits, and read the certificate again");
        }
        Err(Failure::Configuration(errors)) => {
            for error in errors.iter() {
                tracing::error!(%error, "not reloaded");
            }
        }
        Err(error) => tracing::error!(%error, "not reloaded"),
    }
}
