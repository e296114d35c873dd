//! A server that the system gives no more descriptors.

use super::super::support::packets::*;
use super::super::support::{Server, Tcp, eventually};

/// Fewer than the connections of the test, more than a server needs at rest.
const DESCRIPTORS: usize = 64;

#[test]
fn without_descriptors_those_who_are_there_are_served_and_the_others_once_there_is_room() {
    let server = Server::start_after(&format!("ulimit -n {DESCRIPTORS}"), &[]);
    let (mut a, mut b) = (server.connect(), server.connect());
    let (id, _) = (a.enter(1), b.enter(1));
    // The system takes them all, the server some.
    let mut crowd: Vec<Tcp> = (0..2 * DESCRIPTORS).map(|_| server.connect()).collect();
    crowd.iter_mut().for_each(|one| one.send(b"K"));
    server.wait_for_log("cannot accept connections for the moment");
    for number in 0..50 {
        let text = format!("{number}");
        a.ask(say(id, 1, &text), said(id, 1, &text));
        b.expect(said(id, 1, &text));
    }
    // The first half leaves, whether it was served or not.
    crowd.drain(..DESCRIPTORS + DESCRIPTORS / 2);
    crowd.iter_mut().for_each(|one| one.expect(ack(0)));
    drop(crowd);
    eventually("there is room again", || server.metric("sessions") == 2);
    a.ask(say(id, 1, "unharmed"), said(id, 1, "unharmed"));
    server.signal(rustix::process::Signal::TERM);
    let ended = server.ended();
    assert_eq!(ended.code, Some(0));
    let complaints = ended.log.iter().filter(|line| line.contains("cannot accept")).count();
    assert!(complaints < 5, "{complaints} more lines in the log for one thing");
}
