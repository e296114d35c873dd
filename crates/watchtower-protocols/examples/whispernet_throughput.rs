//! How many messages a whispernet node passes on in a second of one core, without
//! its sockets: what is left of the core is for those.
//!
//! `cargo run --release -p watchtower-protocols --example whispernet_throughput`
#![expect(clippy::print_stdout, reason = "it prints what it measures")]
#![expect(clippy::disallowed_methods, reason = "it measures time; the node is handed it")]

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use watchtower_hub::Timestamp;
use watchtower_protocols::whispernet::{
    Action, ConnectionId, FloodLimits, Identity, Keep, Node, Options, RoutingLimits, Said, hashed_id,
};

const NOW: Timestamp = Timestamp::from_millis(1_795_255_200_000);
const PEERS: u8 = 50;
const MESSAGES: usize = 100_000;
const ROUNDS: usize = 5;

/// How much one read of a socket brings.
const CHUNK_BYTES: usize = 64 << 10;

fn main() {
    let plain = |number: usize| {
        format!(r#"{{"ID":"plain-{number}","Addr":"10.0.9.9:55555","Body":"message {number} of many"}}"#)
    };
    let hashed = |number: usize| {
        let (body, timestamp) = (format!("message {number} of many"), 1_795_255_200_000_i64);
        let id = hashed_id("10.0.9.9:55555", &body, timestamp);
        format!(r#"{{"ID":"{id}","Addr":"10.0.9.9:55555","Body":"{body}","Timestamp":{timestamp}}}"#)
    };
    let signed: Vec<String> = signed(MESSAGES / 10);
    println!("a node with {PEERS} peers, messages of about {} bytes", hashed(1).len());
    measure("plain ids, each message once", 1, (0..MESSAGES).map(plain));
    measure("hashed ids, each message once", 1, (0..MESSAGES).map(hashed));
    measure("hashed ids, each message from every peer", usize::from(PEERS), (0..MESSAGES / 10).map(hashed));
    measure("signed, each message once", 1, signed.into_iter());
}

/// Hands the messages to a node on that many connections, and prints how many
/// it passed on in a second of one core, in the best of several rounds.
fn measure(what: &str, copies: usize, messages: impl Iterator<Item = String>) {
    let (mut stream, mut count) = (Vec::new(), 0_u64);
    for message in messages {
        stream.extend_from_slice(message.as_bytes());
        count += 1;
    }
    let rounds = (0..ROUNDS).map(|_| round(&stream, copies, count));
    let seconds = rounds.fold(f64::INFINITY, f64::min);
    let passed_on = count as f64 / seconds;
    println!("{what}: {passed_on:.0} messages/s passed on, {:.0} sends/s", passed_on * f64::from(PEERS));
}

/// How many seconds of one core it takes to pass on a stream of `count` messages.
fn round(stream: &[u8], copies: usize, count: u64) -> f64 {
    let mut node = node(None);
    let connections: Vec<ConnectionId> = (1..=PEERS).map(|number| connect(&mut node, number)).collect();
    let (mut sent, mut shown) = (0_u64, 0_u64);
    let start = Clock::start();
    for chunk in stream.chunks(CHUNK_BYTES) {
        for connection in &connections[..copies] {
            node.received(*connection, chunk, NOW);
            while let Some(action) = node.next_action() {
                match action {
                    Action::Send { .. } => sent += 1,
                    Action::Show(_) => shown += 1,
                    _ => {}
                }
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!((shown, sent), (count, count * u64::from(PEERS)), "all are passed on to all");
    seconds
}

/// The time that this thread had a core for, where the system tells (Linux
/// does): others on the machine do not count. Elsewhere the time that passed.
struct Clock {
    started: Instant,
    on_core: Option<Duration>,
}

impl Clock {
    fn start() -> Clock {
        Clock { started: Instant::now(), on_core: on_core() }
    }

    fn elapsed(&self) -> Duration {
        match (self.on_core, on_core()) {
            (Some(before), Some(now)) => now - before,
            _ => self.started.elapsed(),
        }
    }
}

fn on_core() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// A node whose peers may send as much as they can.
fn node(identity: Option<Identity>) -> Node {
    let listen = SocketAddr::from(([10, 0, 0, 1], 55_555));
    let flood =
        FloodLimits { messages_per_second: u64::MAX, bytes_per_second: u64::MAX, ..Default::default() };
    let routing = Some(RoutingLimits::DEFAULT);
    Node::new(Options { flood, identity, routing, ..Options::new(listen, listen) }, [7; 16], NOW)
}

/// Connects a node and a peer both ways; returns the connection from the peer.
fn connect(node: &mut Node, number: u8) -> ConnectionId {
    let addr = SocketAddr::from(([10, 0, 1, number], 55_555));
    let end = |port| SocketAddr::from(([10, 0, 0, 1], port));
    node.connect(addr, Keep::Always, NOW);
    node.dialled(addr, end(40_000 + u16::from(number)), NOW).expect("the node dialled it");
    let remote = SocketAddr::from(([10, 0, 1, number], 50_000));
    let connection = node.accepted(remote, end(55_555), NOW).expect("there is room");
    while node.next_action().is_some() {}
    connection
}

/// Messages of a node with a key.
fn signed(count: usize) -> Vec<String> {
    let mut node = node(Some(Identity::from_seed(&[1; 32])));
    connect(&mut node, 1);
    let mut messages = Vec::with_capacity(count);
    for number in 0..count {
        let body = format!("message {number} of many");
        node.say(Said { nick: Some("goldy"), body: &body, file: None }, NOW).expect("it is short");
        while let Some(action) = node.next_action() {
            if let Action::Send { object, .. } = action {
                messages.push(String::from_utf8_lossy(&object).into_owned());
            }
        }
    }
    messages
}
