//! Passing on: what a message of the whispernet costs a node that is sent it and has other peers.

use std::hint::black_box;
use std::net::SocketAddr;

use watchtower_protocols::whispernet::{
    Action, ConnectionId, FloodLimits, Keep, Node, Options, RoutingLimits,
};

use crate::scene::{NOW, text};
use crate::{Case, Work};

/// How many peers the message is passed on to.
const PEERS: u8 = 50;

/// How many messages one run passes on.
const MESSAGES: u64 = 64;

/// Passing on.
pub fn relay_cases() -> Vec<Case> {
    let stage = || -> Box<dyn Work> { Box::new(Relaying::open()) };
    vec![Case { name: "relay/whispernet-to-50", unit: "message", units: MESSAGES, stage }]
}

/// A node, and messages that it has not seen.
struct Relaying {
    node: Node,
    /// From a peer that dialled it, and is not dialled.
    source: ConnectionId,
    messages: Vec<u8>,
    said: u64,
}

impl Relaying {
    fn open() -> Relaying {
        let listen = address(0, 55_555);
        // A node refuses who sends it this much at the same time.
        let flood = FloodLimits {
            messages_per_second: u64::MAX,
            bytes_per_second: u64::MAX,
            ..FloodLimits::default()
        };
        let routing = Some(RoutingLimits::default());
        let options = Options { flood, routing, ..Options::new(listen, listen) };
        let mut node = Node::new(options, [7; 16], NOW);
        for number in 1..=PEERS {
            let peer = address(number, 55_555);
            node.connect(peer, Keep::Always, NOW);
            node.dialled(peer, address(0, 40_000), NOW).expect("the node dialled it");
        }
        let source = node.accepted(address(u8::MAX, 50_000), listen, NOW).expect("there is room");
        while node.next_action().is_some() {}
        Relaying { node, source, messages: Vec::new(), said: 0 }
    }

    /// Passes them on; how many objects are to be sent.
    fn relay(&mut self) -> u64 {
        self.node.received(self.source, &self.messages, NOW);
        let mut sent = 0;
        while let Some(action) = self.node.next_action() {
            sent += u64::from(matches!(action, Action::Send { .. }));
            black_box(action);
        }
        sent
    }
}

fn address(host: u8, port: u16) -> SocketAddr {
    ([10, 0, 0, host], port).into()
}

impl Work for Relaying {
    fn set_up(&mut self) {
        let (text, said) = (text(), self.said);
        // From a peer that says no address to dial.
        let message = |number| format!(r#"{{"ID":"{number:016x}","Addr":"","Body":"{text}","Nick":"ann"}}"#);
        self.messages = (said..said + MESSAGES).map(message).collect::<String>().into_bytes();
        self.said += MESSAGES;
    }

    fn run(&mut self) {
        let sent = self.relay();
        debug_assert_eq!(sent, MESSAGES * u64::from(PEERS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_passed_on_to_every_peer_each_time() {
        let mut relaying = Relaying::open();
        for _ in 0..3 {
            relaying.set_up();
            assert_eq!(relaying.relay(), MESSAGES * u64::from(PEERS));
        }
    }
}
