//! What one read, or one datagram, may make a session do at once.

use super::*;
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
