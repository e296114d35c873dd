//! What one read, or one datagram, may make a session do at once, and what is
//! counted of what is refused.

use super::*;
use crate::packets::{ErrorCode, Transport};
use crate::stream::ANSWERS_BYTES_MAX;

#[test]
fn packets_wait_for_the_answers_before_them_to_be_taken() {
    let tower = Tower::new();
    let mut client = tower.stream();
    let packets = vec![b'K'; ANSWERS_BYTES_MAX];
    let mut out = Vec::new();
    let done = client.session.receive(&packets, NOW, &mut out).unwrap();
    assert_eq!(done, ANSWERS_BYTES_MAX.div_ceil(5));
    assert_eq!(out, ack(0).repeat(done));
    assert_eq!(client.session.receive(&packets, NOW, &mut out), Ok(0), "none are taken");
    assert_eq!(client.send(b"K"), ack(0));
}

#[test]
fn errors_are_counted_by_code_and_transport() {
    let tower = Tower::new();
    let counts = |transport| ErrorCode::ALL.map(|code| tower.options.errors.get(transport, code));
    let (mut client, id) = tower.joined();
    let mut peer = tower.peer();
    let _ = client
        .send(&[join(99, 1), leave(id, 2), whisper(id, 1, &[99], ""), whisper(id, 1, &[], "")].concat());
    let _ = client.send(b"S\0");
    let _ = client.send(b"?");
    let mut lagging = tower.stream();
    lagging.session.lagging(&mut Vec::new());
    lagging.session.shut_down(&mut Vec::new());
    assert_eq!(counts(Transport::Tcp), [1, 1, 1, 0, 1, 2, 0, 2, 0]);
    assert_eq!(counts(Transport::Udp), [0; 9]);
    let _ = peer.send(b"?");
    let _ = peer.send(&join(0, 1));
    let _ = lagging.session.out_of_patience(NOW, &mut Vec::new());
    assert_eq!(counts(Transport::Udp), [1, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(counts(Transport::Tcp), [1, 1, 1, 0, 2, 2, 0, 2, 0]);
}

#[test]
fn who_registers_too_often_is_told_so_and_may_go_on() {
    let mut tower = Tower::new();
    tower.options.registrar = Arc::new(Gate { open: true, room: AtomicU64::new(2) });
    let too_many = error(8, "too many registrations: try again in a second");
    let mut client = tower.stream();
    assert_eq!(client.send(b"RS\x05wrong"), [ack(5), error(5, "wrong secret")].concat());
    // Not even the right secret is looked at.
    assert_eq!(client.send(b"RS\x05towerK"), [too_many.clone(), too_many.clone(), ack(0)].concat());
    assert_eq!(tower.peer().send(b"R"), too_many);
    assert_eq!(tower.hub.counts().senders, 1);
}
