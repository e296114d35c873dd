//! A clock that jumps: a server's own time is what the system says, which may be wrong.

use std::fs;

use super::super::support::packets::*;
use super::super::support::{Server, eventually};

/// The clock of the process is what a file says; its monotonic clock goes on.
const FAKED: &str = "export LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketime.so.1) FAKETIME_NO_CACHE=1 \
                     FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_TIMESTAMP_FILE=$PWD/clock";

#[test]
fn who_is_connected_does_not_notice_a_clock_that_jumps() {
    let server = Server::start_after_in(FAKED, &[], |folder| fs::write(folder.join("clock"), "+0d").unwrap());
    let set_clock = |by: &str| fs::write(server.folder().join("clock"), by).unwrap();
    let (mut a, mut b, mut udp) = (server.connect(), server.connect(), server.peer());
    let (id, _, _) = (a.enter(1), b.enter(1), udp.enter(1));
    let away = server.connect().register();
    // Further than a sender lives that says nothing, back to before the start, and on.
    for (round, by) in ["+0d", "+40d", "-400d", "+0d", "+4000d", "+0d"].into_iter().enumerate() {
        set_clock(by);
        // Each but the first is a jump, and only once it was seen it could have done harm.
        eventually("the jump is seen", || server.metric("clock_jumps_total") == round as u64);
        let text = format!("round {round}");
        a.ask(say(id, 1, &text), said(id, 1, &text));
        b.expect(said(id, 1, &text));
        udp.expect(said(id, 1, &text));
        server.connect().enter(1);
    }
    // A jump is no time that somebody was silent for.
    server.connect().ask(join(away, 1), ack(1));
    a.expect_nothing();
    server.stop();
}
