//! The `watchtower` command: arguments, signals, exit codes and what a terminal shows. What the
//! commands do is in the crates for the server, the client and the bench.

mod cli;
mod commands;
mod failure;
mod limits;
mod logs;
mod output;
mod runtime;
mod signals;
mod supervisor;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// A message on a durable channel is read by one thread and let go of by another, that of the
/// store, which costs the allocator of the C library much more. Without huge pages, of which a
/// server of few clients would hold several.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let arguments = commands::original::with_two_dashes(std::env::args_os());
    match commands::run(cli::Cli::parse_from(arguments).command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
