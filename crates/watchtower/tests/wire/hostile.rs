//! Input that means harm: the server goes on, answers the others, and takes no more memory than
//! its limits say.

use std::time::Duration;

use super::support::packets::*;
use super::support::{Server, Tcp, eventually};

const MIB: usize = 1 << 20;

/// The same bytes in every run, without a pattern that a parser would know.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

#[test]
fn random_bytes_harm_nobody() {
    let server = Server::start(&[]);
    let (mut a, mut b) = (server.connect(), server.peer());
    let (id, _) = (a.enter(1), b.enter(1));
    let mut noise = Noise(1);
    for round in 0..300 {
        let (length, mut client) = (noise.next() as usize % 2_000, server.connect());
        let mut bytes = noise.bytes(length + 1);
        // Half of them get past the first byte.
        if round % 2 == 0 {
            bytes[0] = b"RSJLMWFK"[round / 2 % 8];
        }
        client.try_send(&bytes, Duration::from_secs(1));
        client.finish();
        let peer = server.peer();
        peer.send(&bytes);
    }
    a.ask(say(id, 1, "unharmed"), said(id, 1, "unharmed"));
    b.expect(said(id, 1, "unharmed"));
    server.stop();
}

#[test]
fn a_length_of_four_gib_is_refused_at_once_and_takes_no_memory() {
    let server = Server::start(&[]);
    let mut a = server.connect();
    let id = a.enter(1);
    let before = server.memory();
    for _ in 0..200 {
        let mut client = server.connect();
        client.send([ids(b'M', id, 1), vec![0xff; 4], vec![b'x'; 1_000]].concat());
        client.expect_last(error(4, "content of 4294967295 bytes; at most 65535 are accepted"));
        server.peer().ask([ids(b'M', id, 1), vec![0xff; 4]].concat(), error(4, "content above the limit"));
    }
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 4 * MIB, "{grown} bytes");
    a.expect_nothing();
    server.stop();
}

#[test]
fn memory_is_taken_for_what_came_and_not_for_what_was_claimed() {
    // As Mosquitto did (CVE-2017-7651, CVE-2023-0809).
    let server = Server::start(&[]);
    let mut warm = server.connect();
    warm.register();
    let before = server.memory();
    let mut halves: Vec<Tcp> = (0..500).map(|_| server.connect()).collect();
    for client in &mut halves {
        client.send([ids(b'W', 5, 1), vec![0xff, 0xff], vec![1; 100]].concat());
    }
    warm.ask(b"K", ack(0));
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 500 * 16 * 1024, "{grown} bytes for half packets of 111 bytes");
    server.stop();
}

#[test]
fn endless_padding_is_thrown_away() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.register();
    let before = server.memory();
    let padding = [b'\0', b'\r', b'\n', b'\0'].repeat(MIB / 4);
    for _ in 0..64 {
        client.send(&padding);
    }
    client.ask(b"K", ack(0));
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 4 * MIB, "{grown} bytes for 64 MiB of padding");
    server.stop();
}

#[test]
fn sixty_five_thousand_receivers_are_one_copy_or_one_error() {
    let server = Server::start(&[]);
    let (mut a, mut b) = (server.connect(), server.connect());
    let (id_a, id_b) = (a.enter(1), b.enter(1));
    for _ in 0..20 {
        a.send(whisper(id_a, 1, &[id_b; 65_535], "x"));
        b.expect(whispered(id_a, 1, "x"));
        let strangers: Vec<u32> = (0..65_535).collect();
        a.ask(whisper(id_a, 1, &strangers, "x"), error(6, NO_RECEIVER));
    }
    b.expect_nothing();
    server.stop();
}

#[test]
fn registering_in_a_loop_ends_at_the_limit_for_everyone_alike() {
    let server = Server::start(&["--set", "limits.max_senders=1000"]);
    let mut a = server.connect();
    let id = a.enter(1);
    let mut greedy = server.connect();
    greedy.send([b'R'; 10_000]);
    let answers = greedy.read(999 * 5 + 9_001 * error(5, LIMIT).len());
    let (registered, refused) = answers.split_at(999 * 5);
    assert!(registered.chunks(5).all(|answer| answer[0] == b'A'));
    assert!(refused.chunks(error(5, LIMIT).len()).all(|answer| answer == error(5, LIMIT)));
    server.peer().ask(b"R", error(5, LIMIT));
    a.ask(say(id, 1, "unharmed"), said(id, 1, "unharmed"));
    server.stop();
}

#[test]
fn who_asks_and_never_reads_is_not_asked_for_more_than_fits() {
    let server = Server::start(&[]);
    let mut a = server.connect();
    let id = a.enter(1);
    let before = server.memory();
    let mut greedy: Vec<Tcp> = (0..4).map(|_| server.connect()).collect();
    for client in &mut greedy {
        // 16 MiB of questions would be 80 MiB of answers.
        let questions = vec![b'K'; 16 * MIB];
        assert!(!client.try_send(&questions, Duration::from_millis(200)), "somebody kept it all");
    }
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 8 * MIB, "{grown} bytes for 4 clients");
    a.ask(say(id, 1, "unharmed"), said(id, 1, "unharmed"));
    server.stop();
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let server = Server::start(&[]);
    let mut a = server.connect();
    let id = a.enter(1);
    // Each with a session, and some in the middle of a packet.
    let come_and_go = |count: usize| {
        for round in 0..count {
            let mut client = server.connect();
            client.send(&say(id, 9, "x")[..if round % 2 == 0 { 14 } else { 12 }]);
            if round % 3 == 0 {
                client.abort();
            }
        }
        eventually("all are gone", || server.metric("sessions") <= 2);
    };
    come_and_go(1_500);
    let before = server.memory();
    come_and_go(1_500);
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 2 * MIB, "{grown} bytes");
    a.expect_nothing();
    server.stop();
}
