//! `watchtower completions` and `watchtower man`: what is made from the command line's own
//! definition.

use std::io;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchtower completions bash > watchtower.bash
  watchtower completions zsh > _watchtower
  watchtower completions fish > watchtower.fish")]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  watchtower man > watchtower.1
  watchtower man | man -l -")]
pub(crate) struct Man {}

impl Completions {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "watchtower", &mut script);
        Ok(output::print(&script)?)
    }
}

impl Man {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut command = Cli::command();
        command.build();
        let mut pages = Vec::new();
        write_pages(&command, &mut pages)?;
        Ok(output::print(&pages)?)
    }
}

/// The page of a command, then those of the commands below it.
fn write_pages(command: &Command, pages: &mut Vec<u8>) -> io::Result<()> {
    let version = concat!("watchtower ", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(command.clone()).source(version).render(pages)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write_pages(sub, pages)?;
    }
    Ok(())
}
