//! The phases of a run.

use std::collections::VecDeque;

use super::messages::MessageId;
use super::network::{HostId, Network, Traffic};
use super::report::{Measured, Report, Round};
use super::{Error, Options};
use crate::schedule::Millis;

/// The most nodes: their addresses are in one network.
const NODES_MAX: usize = 100_000;

/// How long after another a node joins, and how long after that it says its
/// first words.
const JOIN_EVERY: Millis = 50;
const FIRST_WORDS_AFTER: Millis = 1_000;

/// How long nothing is said after all have joined.
const SETTLE: Millis = 180_000;

/// How many messages form the tree.
const WARM_UP: usize = 50;

/// A round, in which one message is said.
const ROUND: Millis = 1_000;

/// How many there are after nodes failed.
const ROUNDS: usize = 30;

/// How long a message may take to count as one that came in time.
const IN_TIME: Millis = 5_000;

/// How long the last messages are waited for.
const AFTERMATH: Millis = 15_000;

/// Simulates a whispernet.
///
/// # Errors
///
/// For options that make none.
pub fn run(options: Options) -> Result<Report, Error> {
    let Options { nodes, plain, kill, .. } = options;
    if !(2..=NODES_MAX).contains(&nodes) {
        return Err(Error::Nodes { max: NODES_MAX });
    }
    for (what, count) in [("the plain ones", plain), ("those that fail", kill)] {
        if count > nodes - 2 {
            return Err(Error::TooMany { what, count, nodes });
        }
    }
    let mut network = Network::new(options.routing, options.seed);
    grow(&mut network, options);
    say_some(&mut network, WARM_UP);
    let before = measure(&mut network, options.messages);
    let neighbours = neighbours(&network);
    let (mut rounds, mut after) = (Vec::new(), None);
    if kill > 0 {
        fail(&mut network, kill);
        rounds = heal(&mut network);
        after = Some(measure(&mut network, (options.messages / 2).max(1)));
    }
    let virtual_time = std::time::Duration::from_millis(network.now());
    Ok(Report { options, before, neighbours, rounds, after, faults: network.faults, virtual_time })
}

fn grow(network: &mut Network, options: Options) {
    let mut plain: Vec<bool> = (0..options.nodes).map(|number| number < options.plain).collect();
    network.rng().shuffle(&mut plain);
    let mut silent = VecDeque::new();
    for (number, is_plain) in plain.into_iter().enumerate() {
        let contact = (number > 0).then(|| HostId(network.rng().usize(..number)));
        let host = network.join(is_plain, contact);
        network.run_until(network.now() + JOIN_EVERY);
        silent.push_back((network.now() + FIRST_WORDS_AFTER, host, contact));
        first_words(network, &mut silent);
    }
    while !silent.is_empty() {
        network.run_until(network.now() + JOIN_EVERY);
        first_words(network, &mut silent);
    }
    network.begin_to_break();
    network.run_until(network.now() + SETTLE);
}

/// Those whose time it is say something, once they are connected to whom they
/// know.
fn first_words(network: &mut Network, silent: &mut VecDeque<(Millis, HostId, Option<HostId>)>) {
    for _ in 0..silent.len() {
        let Some((at, host, contact)) = silent.pop_front() else { return };
        let is_connected = contact.is_none_or(|contact| network.has_met(host, contact));
        if at <= network.now() && is_connected {
            network.say(host, &words(host.0));
        } else {
            silent.push_back((at, host, contact));
        }
    }
}

/// What people write.
fn words(number: usize) -> String {
    format!("Message {number}: the quick brown fox jumps over the lazy dog, and the dog does not mind.")
}

/// One who is up, at random, says something.
fn say_one(network: &mut Network, number: usize) -> Said {
    let up = network.up();
    let speaker = up[network.rng().usize(..up.len())];
    let message = network.say(speaker, &words(number));
    Said { message, speaker, at: network.now() }
}

struct Said {
    message: MessageId,
    speaker: HostId,
    at: Millis,
}

fn say_some(network: &mut Network, count: usize) -> Vec<Said> {
    let say = |number| {
        let said = say_one(network, number);
        network.run_until(network.now() + ROUND);
        said
    };
    (0..count).map(say).collect()
}

fn measure(network: &mut Network, count: usize) -> Measured {
    network.take_traffic();
    let said = say_some(network, count);
    network.run_until(network.now() + AFTERMATH);
    let traffic = network.take_traffic();
    let mut measured = Measured { messages: count, ..Measured::default() };
    for host in network.up() {
        let others = || said.iter().filter(|said| said.speaker != host);
        for said in others() {
            measured.deliveries_due += 1;
            if let Some(arrival) = network.arrival(said.message, host) {
                measured.deliveries += 1;
                measured.hops.push(arrival.hops);
                measured.latencies.push(arrival.at - said.at);
            }
        }
        let one_copy: u64 = others().map(|said| network.length(said.message)).sum();
        if one_copy == 0 {
            continue;
        }
        let Traffic { message_bytes, control_bytes } = traffic[host.0];
        let copies = (message_bytes + control_bytes) as f64 / one_copy as f64;
        if network.is_plain(host) {
            measured.plain_copies.push(copies);
        } else {
            measured.copies.push(copies);
            measured.control_copies.push(control_bytes as f64 / one_copy as f64);
        }
    }
    measured.sort();
    measured
}

/// The fewest neighbours of a routing node, and the most.
fn neighbours(network: &Network) -> (usize, usize) {
    let up = network.up();
    let counts = || up.iter().filter(|host| !network.is_plain(**host)).map(|host| network.neighbours(*host));
    (counts().min().unwrap_or(0), counts().max().unwrap_or(0))
}

fn fail(network: &mut Network, kill: usize) {
    let mut killed = network.up();
    network.rng().shuffle(&mut killed);
    killed.truncate(kill);
    network.kill(&killed);
}

fn heal(network: &mut Network) -> Vec<Round> {
    let said = say_some(network, ROUNDS);
    network.run_until(network.now() + AFTERMATH);
    let up = network.up();
    let round = |said: &Said| {
        let arrivals = up.iter().filter_map(|host| network.arrival(said.message, *host));
        let mut round = Round { at_once: 0, in_time: 0, ever: 0, due: up.len() };
        for arrival in arrivals {
            round.at_once += usize::from(arrival.at <= said.at + ROUND);
            round.in_time += usize::from(arrival.at <= said.at + IN_TIME);
            round.ever += 1;
        }
        round
    };
    said.iter().map(round).collect()
}
