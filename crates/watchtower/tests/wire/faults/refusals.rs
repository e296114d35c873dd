//! What is refused, again and again: it leaves nothing behind.

use std::env;

use super::super::support::packets::*;
use super::super::support::{Server, eventually};

/// How often each of them is tried, unless `FAULTS_LOOPS` says otherwise.
const LOOPS: usize = 400;

/// How much more memory the second half of the tries may leave than the first: nothing that grows
/// with each of them.
const GROWN_BYTES_MAX: usize = 2 << 20;

#[test]
fn what_is_refused_again_and_again_leaves_nothing_behind() {
    let loops = env::var("FAULTS_LOOPS").map_or(LOOPS, |loops| loops.parse().unwrap());
    let server = Server::start(&["--set", "open_registration=false", "--set", "secret_key=k7-22f"]);
    let mut a = server.connect();
    let id = a.register_by(secret("k7-22f"));
    a.ask(join(id, 1), ack(1));
    let refused: [&[u8]; 8] = [
        b"R",
        &secret("guess"),
        &join(99, 1),
        b"?",
        b"\x16\x03\x01\0\x05\x01\0\0\x01\xff",
        b"GET /webtalk HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"POST /register HTTP/1.1\r\nHost: x\r\nContent-Length: 22\r\n\r\n{\"secret_key\":\"guess\"}",
        b"GET /nowhere HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ];
    let try_all = |count: usize| {
        for _ in 0..count {
            for bytes in refused {
                let mut client = server.connect();
                client.send(bytes);
                client.finish();
                client.read_to_end();
            }
            server.peer().ask(b"R", error(5, "registration needs the secret: send S"));
        }
        eventually("all are gone", || server.metric("sessions") == 1);
    };
    try_all(loops / 2);
    let before = server.memory();
    try_all(loops / 2);
    let grown = server.memory().saturating_sub(before);
    assert!(grown < GROWN_BYTES_MAX, "{grown} bytes for {loops} of each");
    assert_eq!(server.metric("senders"), 1);
    a.ask(say(id, 1, "unharmed"), said(id, 1, "unharmed"));
    server.stop();
}
