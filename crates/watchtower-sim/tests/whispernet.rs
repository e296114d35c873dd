//! What is promised of a whispernet holds, whatever the seed; and the program
//! that says so.

use std::process::{Command, Output};

use watchtower_sim::whispernet::{Options, Report, run, weather};

fn simulated(nodes: usize, plain: usize, seed: u64) -> Report {
    run(Options { nodes, plain, kill: nodes / 10, messages: 30, seed, ..Options::default() }).unwrap()
}

/// [whispernet: 14]
#[test]
fn every_node_is_reached_for_less_than_two_copies_and_a_tenth_may_fail() {
    for (nodes, seed) in [(100, 1), (60, 2)] {
        let report = simulated(nodes, 0, seed);
        assert!(report.is_kept(), "{report}");
        assert!(report.neighbours.1 <= 8);
    }
}

/// [whispernet: 14]
#[test]
fn a_third_of_the_nodes_may_know_nothing_but_flooding() {
    let report = simulated(90, 30, 1);
    assert!(report.is_kept(), "{report}");
}

#[test]
fn few_nodes_flood_as_ever() {
    let report = simulated(12, 0, 1);
    assert!(report.is_kept(), "{report}");
    let control: f64 = report.before.control_copies.iter().sum();
    assert_eq!((control, report.neighbours), (0.0, (0, 0)));
}

#[test]
fn plain_nodes_alone_flood_too() {
    let report = simulated(20, 18, 1);
    assert!(report.is_kept(), "{report}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let [one, same, other] = [7, 7, 8].map(|seed| simulated(40, 10, seed));
    assert_eq!(one.to_string(), same.to_string());
    assert_eq!(one.before, same.before);
    assert_ne!(one.before, other.before);
}

#[test]
fn what_is_not_kept_is_said_so() {
    let mut report = simulated(20, 0, 1);
    assert!(report.is_kept(), "{report}");
    report.before.deliveries -= 1;
    assert!(!report.is_kept());
    assert!(report.to_string().contains("BROKEN  every message reached every node"), "{report}");
}

#[test]
fn after_a_storm_what_is_said_reaches_everybody_that_there_is_a_way_to() {
    let mesh = weather(1, 25);
    assert!(mesh.broken.is_none() && mesh.seeds == 25, "{mesh}");
    assert!(mesh.messages > 500 && mesh.deliveries > 500, "{mesh}");
}

fn watchtower_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_watchtower-sim")).arg("whispernet").args(arguments).output().unwrap()
}

#[test]
fn the_program_prints_the_table_and_draws_the_plot() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("plot.svg");
    let arguments = ["--nodes", "20", "--messages", "40", "--kill", "2", "--plot", plot.to_str().unwrap()];
    let output = watchtower_sim(&arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("whispernet: 20 nodes, 2 fail; seed 1\n"), "{text}");
    assert!(text.contains("kept    every message reached every node"), "{text}");
    let svg = std::fs::read_to_string(plot).unwrap();
    for text in ["<svg", "copies", "milliseconds", "after the failure"] {
        assert!(svg.contains(text), "{text}");
    }
    assert!(!svg.contains("NaN"));
}

#[test]
fn the_program_refuses_what_is_no_network() {
    for (arguments, reason) in [
        (vec!["--nodes", "1"], "at least 2 nodes"),
        (vec!["--nodes", "10", "--plain", "9"], "the plain ones are 9 of 10"),
        (vec!["--nodes", "10", "--kill", "9"], "those that fail are 9 of 10"),
        (vec!["--nodes", "4", "--messages", "1", "--plot", "/nowhere/plot.svg"], "/nowhere/plot.svg"),
    ] {
        let output = watchtower_sim(&arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(reason), "{error}");
    }
}
