//! Few nodes in a storm: connections that break, or are dead before anybody
//! notices, objects that are late, and nodes that fail. Then the sky clears, and
//! what is said reaches everybody that there is a way to.

use std::fmt;

use fastrand::Rng;
use watchtower_protocols::whispernet::RoutingLimits;

use super::network::{Faults, HostId, Network, Storm};
use crate::schedule::Millis;

/// How many nodes there are.
const NODES: std::ops::Range<usize> = 3..14;

/// How long the storm lasts.
const STORM: Millis = 120_000;

/// How long it takes until connections are given up that are dead, and others
/// are made in their place.
const CLEARING: Millis = 180_000;

/// How long a message may take.
const ARRIVAL: Millis = 10_000;

/// What came of some seeds.
#[derive(Debug, Clone, Default)]
pub struct Mesh {
    /// How many seeds there were.
    pub seeds: u64,
    /// How many messages were said, in a storm or after it.
    pub messages: usize,
    /// How often one was shown after the storm.
    pub deliveries: usize,
    /// How often after a storm somebody was out of everybody's reach.
    pub apart: usize,
    /// The first promise that was broken.
    pub broken: Option<Broken>,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// By which seed.
    pub seed: u64,
    /// Which, and by whom.
    pub reason: String,
}

/// Has a whispernet for each of so many seeds through a storm.
pub fn weather(first: u64, seeds: u64) -> Mesh {
    let mut mesh = Mesh::default();
    for seed in first..first.saturating_add(seeds) {
        match endure(seed, &mut mesh) {
            Ok(()) => mesh.seeds += 1,
            Err(reason) => {
                mesh.broken = Some(Broken { seed, reason });
                break;
            }
        }
    }
    mesh
}

fn endure(seed: u64, mesh: &mut Mesh) -> Result<(), String> {
    let mut rng = Rng::with_seed(seed);
    // In half of the storms nobody fails, and all dial again whom they have lost.
    let is_harsh = rng.bool();
    let mut network = grow(seed, is_harsh, &mut rng);
    network.set_storm(Some(Storm {
        break_every: rng.u64(200..5_000),
        delay_max: [0, 100, 3_000][rng.usize(..3)],
    }));
    let end = network.now() + STORM;
    while network.now() < end {
        network.run_until(network.now() + rng.u64(1..8_000));
        let up = network.up();
        let host = up[rng.usize(..up.len())];
        match rng.u8(..20) {
            0 if is_harsh && up.len() > 2 => network.kill(&[host]),
            1 => drop(network.join(false, Some(host))),
            _ => {
                network.say(host, &words(mesh.messages));
                mesh.messages += 1;
            }
        }
    }
    network.set_storm(None);
    network.run_until(network.now() + CLEARING);
    // Nobody knows of one who came in the storm and was not heard.
    for host in network.up() {
        network.say(host, &words(mesh.messages));
        mesh.messages += 1;
        network.run_until(network.now() + ARRIVAL);
    }
    say_all(&mut network, is_harsh, mesh)?;
    let Faults { sent_twice, shown_twice, crashed } = network.faults;
    for (what, count) in [
        ("messages were sent twice on a connection", sent_twice),
        ("messages were shown twice", shown_twice),
        ("plain nodes were sent what they fail on", crashed),
    ] {
        if count > 0 {
            return Err(format!("{count} {what}"));
        }
    }
    Ok(())
}

fn grow(seed: u64, is_harsh: bool, rng: &mut Rng) -> Network {
    let mut limits = RoutingLimits::default();
    if rng.bool() {
        // Or they would all flood: there are so few.
        limits.flooded = 3;
    }
    let mut network = Network::new(limits, seed);
    for number in 0..rng.usize(NODES) {
        let contact = (number > 0).then(|| HostId(rng.usize(..number)));
        // Whom plain nodes know is a node that dials them back.
        let is_plain = is_harsh && number > 0 && rng.u8(..4) == 0;
        let host = network.join(is_plain, contact);
        network.run_until(network.now() + rng.u64(10..4_000));
        network.say(host, &words(number));
    }
    network
}

/// Each who is up says something, which all are to show that it can reach.
fn say_all(network: &mut Network, is_harsh: bool, mesh: &mut Mesh) -> Result<(), String> {
    for host in network.up() {
        let reached = network.reached_from(host);
        let is_apart = reached.len() < network.up().len();
        mesh.apart += usize::from(is_apart);
        if is_apart && !is_harsh {
            return Err(format!("node {} reaches {reached:?} alone, long after the storm", host.0));
        }
        let message = network.say(host, &words(mesh.messages));
        mesh.messages += 1;
        network.run_until(network.now() + ARRIVAL);
        for other in reached {
            if network.arrival(message, other).is_none() {
                return Err(format!("what node {} said never came to node {}", host.0, other.0));
            }
            mesh.deliveries += 1;
        }
    }
    Ok(())
}

fn words(number: usize) -> String {
    format!("Message {number}, through wind and weather.")
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mesh { seeds, messages, deliveries, apart, broken } = self;
        writeln!(
            f,
            "{seeds} seeds: {messages} messages said, {deliveries} shown after the storm; {apart} times somebody was out of reach"
        )?;
        match broken {
            None => writeln!(f, "kept    every promise"),
            Some(Broken { seed, reason }) => {
                writeln!(f, "BROKEN  {reason}\n\nAgain: watchtower-sim mesh --seed {seed}")
            }
        }
    }
}
