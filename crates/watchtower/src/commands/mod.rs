//! The commands, one a file: its options, its help and what it does.

#[cfg(target_os = "linux")]
pub(crate) mod bench;
pub(crate) mod channels;
pub(crate) mod config;
pub(crate) mod describe;
pub(crate) mod history;
mod line;
mod notice;
pub(crate) mod original;
pub(crate) mod publish;
pub(crate) mod register;
mod remote;
pub(crate) mod rocket;
pub(crate) mod serve;
pub(crate) mod store;
pub(crate) mod subscribe;
pub(crate) mod webtalk;
pub(crate) mod whisper;

use crate::cli::Command;
use crate::failure::Failure;

/// Carries a command out.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Rocket(rocket) => rocket.run(),
        Command::Webtalk(webtalk) => webtalk.run(),
        Command::Whisper(whisper) => whisper.run(),
        Command::Config(config) => config.run(),
        Command::Register(register) => register.run(),
        Command::Pub(publish) => publish.run(),
        Command::Sub(subscribe) => subscribe.run(),
        Command::History(history) => history.run(),
        Command::Channels(channels) => channels.run(),
        Command::Store(store) => store.run(),
        #[cfg(target_os = "linux")]
        Command::Bench(bench) => bench.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    }
}
