//! Clients that vanish all at once, and come back all at once.

use std::env;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::super::support::packets::*;
use super::super::support::{Server, Tcp, eventually};

/// How many clients, unless `FAULTS_CLIENTS` says otherwise.
const CLIENTS: usize = 1_000;

/// How long all of them may take to be back.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// How many knock at the same time.
const THREADS: usize = 8;

const CHANNELS: u32 = 10;

fn channel_of(client: usize) -> u32 {
    client as u32 % CHANNELS
}

#[test]
fn a_crowd_that_vanished_is_back_soon_and_has_missed_nothing() {
    let clients = env::var("FAULTS_CLIENTS").map_or(CLIENTS, |count| count.parse().unwrap());
    let server = Server::start(&["--set", "shutdown_grace=20s"]);
    let mut publisher = server.connect();
    let own = publisher.register();
    for channel in 0..CHANNELS {
        publisher.ask(join(own, channel), ack(channel));
    }
    let crowd: Vec<(Tcp, u32)> = (0..clients)
        .map(|client| {
            let mut one = server.connect();
            let id = one.enter(channel_of(client));
            (one, id)
        })
        .collect();
    let ids: Vec<u32> = crowd.iter().map(|(_, id)| *id).collect();
    crowd.into_iter().for_each(|(one, _)| one.abort());
    eventually("all are gone", || server.metric("sessions") == 1);
    for channel in 0..CHANNELS {
        publisher.ask(say(own, channel, "missed"), said(own, channel, "missed"));
    }

    let started = Instant::now();
    let numbered: Vec<(usize, u32)> = ids.into_iter().enumerate().collect();
    let address = server.tcp;
    let back: Vec<Tcp> = thread::scope(|scope| {
        let parts = numbered.chunks(numbered.len().div_ceil(THREADS));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || come_back(address, own, part))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let took = started.elapsed();
    eprintln!("{clients} clients are back after {took:?}");
    assert!(took < BACK_WITHIN, "{took:?}");
    assert_eq!(back.len(), clients);
    publisher.ask(say(own, 0, "all here"), said(own, 0, "all here"));
    assert_eq!(server.metric("sessions"), clients as u64 + 1);
    server.stop();
}

/// All of them connect before the first is waited for.
fn come_back(server: SocketAddr, publisher: u32, crowd: &[(usize, u32)]) -> Vec<Tcp> {
    let connect = |(client, id): &(usize, u32)| {
        let mut one = Tcp::connect(server);
        one.send(join(*id, channel_of(*client)));
        one
    };
    let mut back: Vec<Tcp> = crowd.iter().map(connect).collect();
    for (one, (client, _)) in back.iter_mut().zip(crowd) {
        let channel = channel_of(*client);
        one.expect([ack(channel), said(publisher, channel, "missed")].concat());
    }
    back
}
