//! `watchtower-sim`: simulates a network, prints what came of it, and ends with
//! 1 when something is not as it is promised.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use watchtower_sim::{hub, whispernet};

/// How many whispernets go through a storm if it is not said.
const MESHES: u64 = 100;

/// Seeded simulations of whole networks, in virtual time
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    network: Option<Network>,
    /// Without a command: how many seeds of `hub`, and then of `mesh`, are tried
    #[arg(long)]
    seeds: Option<u64>,
}

#[derive(Subcommand)]
enum Network {
    /// The hub and its protocols, among clients and networks that do anything
    Hub(Hub),
    /// Few nodes of the whispernet, in a storm
    Mesh(Mesh),
    /// Many nodes of the whispernet, of which some fail at once
    Whispernet(Whispernet),
}

#[derive(Args)]
struct Hub {
    /// How many seeds are tried; one if the first is given
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed: the same one gives the same run
    #[arg(long)]
    seed: Option<u64>,
    /// How many steps a run has
    #[arg(long, default_value_t = hub::Options::default().steps)]
    steps: usize,
    /// Spoil what the server says, to see that it is noticed
    #[arg(long)]
    fault: Option<hub::Fault>,
}

#[derive(Args)]
struct Mesh {
    /// How many seeds are tried; one if the first is given
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed: the same one gives the same run
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Args)]
struct Whispernet {
    /// How many nodes there are
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// How many of them know nothing of routing
    #[arg(long, default_value_t = 0)]
    plain: usize,
    /// How many fail at once; a tenth if it is not said
    #[arg(long)]
    kill: Option<usize>,
    /// How many messages are measured
    #[arg(long, default_value_t = 100)]
    messages: usize,
    /// What all chance is from: the same seed gives the same output
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Draw it as SVG, too
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Cli { network, seeds } = Cli::parse();
    let result = match network {
        None => Ok(simulate_both(seeds)),
        Some(Network::Hub(arguments)) => Ok(simulate_hub(&arguments)),
        Some(Network::Mesh(arguments)) => Ok(simulate_mesh(&arguments)),
        Some(Network::Whispernet(arguments)) => simulate(&arguments),
    };
    match result {
        Ok((text, is_kept)) => {
            // Nobody is there to be told when this fails.
            let _ = std::io::stdout().write_all(text.as_bytes());
            if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "watchtower-sim: {error}");
            ExitCode::from(2)
        }
    }
}

fn simulate_both(seeds: Option<u64>) -> (String, bool) {
    let (hub, is_kept) =
        simulate_hub(&Hub { seeds, seed: None, steps: hub::Options::default().steps, fault: None });
    if !is_kept {
        return (hub, false);
    }
    let (mesh, is_kept) = simulate_mesh(&Mesh { seeds, seed: None });
    (hub + &mesh, is_kept)
}

fn simulate_hub(arguments: &Hub) -> (String, bool) {
    let Hub { seeds, seed, steps, fault } = *arguments;
    let default = hub::Options::default();
    let seeds = seeds.unwrap_or(if seed.is_some() { 1 } else { default.seeds });
    let outcome = hub::run(&hub::Options { seed: seed.unwrap_or(default.seed), seeds, steps, fault });
    (outcome.to_string(), outcome.failure.is_none())
}

fn simulate_mesh(arguments: &Mesh) -> (String, bool) {
    let Mesh { seeds, seed } = *arguments;
    let seeds = seeds.unwrap_or(if seed.is_some() { 1 } else { MESHES });
    let mesh = whispernet::weather(seed.unwrap_or(1), seeds);
    (mesh.to_string(), mesh.broken.is_none())
}

fn simulate(arguments: &Whispernet) -> Result<(String, bool), whispernet::Error> {
    let Whispernet { nodes, plain, kill, messages, seed, .. } = *arguments;
    let kill = kill.unwrap_or(nodes / 10);
    let options = whispernet::Options { nodes, plain, kill, messages, seed, ..Default::default() };
    let report = whispernet::run(options)?;
    if let Some(path) = &arguments.plot {
        report.plot_svg(path)?;
    }
    Ok((report.to_string(), report.is_kept()))
}
