//! The command line: which commands there are. Their options stand with them in `commands`.

use clap::{Parser, Subcommand};

use crate::commands;

/// One hub for every device: messages over TCP, UDP, HTTP and WebSocket on the same channels.
#[derive(Debug, Parser)]
#[command(
    name = "watchtower",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  watchtower serve
  watchtower sub 5
  watchtower pub 5 'all your base are belong to us'

Exit codes: 0 done; 2 bad usage or configuration; 1 anything else."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server.
    Serve(commands::serve::Serve),
    /// Run WebRocket alone, with a configuration of the original's form.
    Rocket(commands::rocket::Rocket),
    /// Run WebTalk alone, with a configuration of the original's form.
    Webtalk(commands::webtalk::WebTalk),
    /// Chat from peer to peer, without a server.
    Whisper(Box<commands::whisper::Whisper>),
    /// Print the default configuration, or check a file.
    Config(commands::config::Config),
    /// Register a new sender and print its id.
    Register(commands::register::Register),
    /// Publish a message to a channel.
    Pub(commands::publish::Publish),
    /// Follow channels: print their messages, one a line.
    Sub(commands::subscribe::Subscribe),
    /// Print what a channel keeps.
    History(commands::history::ReadHistory),
    /// List the channels of a server.
    Channels(commands::channels::Channels),
    /// Check, export or import what a stopped server has kept.
    Store(commands::store::Store),
    /// Measure a server: deliveries a second, latency, cost.
    #[cfg(target_os = "linux")]
    Bench(commands::bench::Bench),
    /// Print a completion script for a shell.
    Completions(commands::describe::Completions),
    /// Print the manual, all commands, as a man page.
    Man(commands::describe::Man),
}

#[cfg(test)]
mod tests {
    use std::process::{Command as Process, Stdio};

    use clap::{Command as Clap, CommandFactory};

    use super::*;

    /// Every command with its path, such as `watchtower config check`.
    fn all_commands(command: &Clap, path: &str, found: &mut Vec<(String, Clap)>) {
        let path = format!("{path}{}", command.get_name());
        for sub in command.get_subcommands() {
            all_commands(sub, &format!("{path} "), found);
        }
        found.push((path, command.clone()));
    }

    fn commands() -> Vec<(String, Clap)> {
        let mut found = Vec::new();
        all_commands(&Cli::command(), "", &mut found);
        found
    }

    fn examples(command: &Clap) -> Vec<String> {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
        lines.map(str::to_owned).collect()
    }

    /// What a shell makes of an example: the arguments of each `watchtower` in it.
    fn as_a_shell_reads_it(example: &str) -> Vec<Vec<String>> {
        // Each call says its arguments, and prints what stands for a sender's id.
        let script = format!(
            "watchtower() {{ printf '%s\\0' watchtower \"$@\" >&3; printf '\\n\\0' >&3; echo 72; }}\n\
             less() {{ cat; }}\nman() {{ cat; }}\n\
             exec 3>&1 >/dev/null\n{example}\n"
        );
        let folder = tempfile::tempdir().unwrap();
        // What examples read.
        std::fs::write(folder.path().join("backup.ndjson"), "").unwrap();
        let output = Process::new("sh")
            .args(["-ec", &script])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{example}: {output:?}");
        let arguments = String::from_utf8(output.stdout).unwrap();
        arguments
            .split_terminator("\n\0")
            .map(|call| call.split_terminator('\0').map(str::to_owned).collect())
            .collect()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for (path, command) in commands() {
            assert!(command.is_hide_set() || !examples(&command).is_empty(), "{path} has no example");
        }
    }

    #[test]
    fn every_example_is_a_command_that_is_understood() {
        for (path, command) in commands() {
            for example in examples(&command) {
                let calls = as_a_shell_reads_it(&example);
                assert!(!calls.is_empty(), "{path}: {example} calls no watchtower");
                for call in calls {
                    let call = commands::original::with_two_dashes(call.into_iter().map(Into::into));
                    if let Err(error) = Cli::try_parse_from(&call) {
                        panic!("{path}: {example}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_option_is_explained() {
        for (path, command) in commands() {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {argument} is not explained");
            }
        }
    }
}
