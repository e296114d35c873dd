//! `watchtower config`: the default file, and what is wrong with one.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use watchtower_server::config::{self, Sources};

use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchtower config default > watchtower.toml
  watchtower config check watchtower.toml")]
pub(crate) struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print a configuration file with every key at its default, each explained.
    #[command(after_help = "\
Examples:
  watchtower config default > watchtower.toml
  watchtower config default | less")]
    Default,
    /// Say everything that is wrong with a configuration file.
    ///
    /// The file is read as `serve --config FILE` would read it here and now: WATCHTOWER_*
    /// variables of the environment override it, and the files that it names are looked at.
    #[command(after_help = "\
Examples:
  watchtower config check watchtower.toml
  watchtower config check watchtower.toml && watchtower serve --config watchtower.toml")]
    Check {
        /// The file.
        file: PathBuf,
    },
}

impl Config {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Default => output::print(config::render_default().as_bytes())?,
            Action::Check { file } => {
                let name = file.display().to_string();
                let config = config::Config::load(&Sources {
                    file: Some(file),
                    environment: std::env::vars_os().collect(),
                    ..Sources::default()
                })?;
                config.check_files()?;
                output::print(format!("{name}: nothing is wrong\n").as_bytes())?;
            }
        }
        Ok(())
    }
}
