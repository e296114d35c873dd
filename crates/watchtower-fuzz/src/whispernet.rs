//! The whispernet: objects in a stream of bytes, and what befalls a node.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use watchtower_protocols::whispernet::{
    Action, ConnectionId, FloodLimits, Identity, Keep, Malformed, Message, Node, ObjectReader, Options,
    PeerLimits, RoutingLimits, Said, check_id, safe_text,
};

use crate::scene::NOW;
use crate::script::lines;

/// The longest object, in bytes: few enough to be reached.
const OBJECT_BYTES_MAX: usize = 2_000;

/// The objects of a stream are the same however it is cut, and a message that is read is written
/// as one that means the same.
pub(crate) fn objects(data: &[u8]) {
    let whole = read(std::iter::once(data));
    assert_eq!(whole, read(data.chunks(1)));
    for object in whole.0 {
        let Ok(Some(message)) = Message::parse(&object) else { continue };
        let written = message.encode();
        assert_eq!(Message::parse(&written), Ok(Some(message.clone())));
        check_id(&message);
        let shown = safe_text::safe_body(&message.body, 200);
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        let name = safe_text::safe_file_name(&message.body);
        assert!(!name.is_empty() && !name.contains(['/', '\0']) && !name.starts_with('.'), "{name:?}");
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<Malformed>) {
    let mut reader = ObjectReader::new(OBJECT_BYTES_MAX);
    let mut objects = Vec::new();
    for mut piece in pieces {
        loop {
            match reader.read(&mut piece) {
                Ok(Some(object)) => {
                    assert!(object.len() <= OBJECT_BYTES_MAX);
                    objects.push(object.to_vec());
                }
                Ok(None) => break,
                Err(malformed) => return (objects, Some(malformed)),
            }
        }
        assert!(reader.unfinished_bytes() <= OBJECT_BYTES_MAX);
    }
    (objects, None)
}

/// The address that a peer of this number listens on.
fn peer(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, (number % 16) as u8], 55_555))
}

/// A node, and the driver that would carry its actions out.
struct Bench {
    node: Node,
    now: watchtower_hub::Timestamp,
    incoming: Vec<ConnectionId>,
    outgoing: BTreeSet<ConnectionId>,
    dials: Vec<SocketAddr>,
    ports: u16,
}

/// The first byte says whether the node routes. Then the first byte of a line says what happens,
/// and the second to whom: `a` a connection comes in, `r` bytes come on one, `c` one is closed,
/// `d` a dial succeeds, `f` one fails, `s` a peer is too slow, `b` the user speaks, `k` and `x`
/// the user wants a peer, and no longer; anything else lets time pass.
pub(crate) fn node(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let mut bench = Bench::new(kind % 2 == 1, kind & 2 == 2);
    for (what, who, said) in lines(data).take(300) {
        bench.take(what, who, said);
    }
}

impl Bench {
    fn new(routes: bool, signs: bool) -> Bench {
        let own = SocketAddr::from(([10, 0, 0, 1], 55_555));
        let options = Options {
            object_bytes_max: OBJECT_BYTES_MAX,
            incoming_max: 6,
            unfinished_bytes_max: 2 * OBJECT_BYTES_MAX,
            peers: PeerLimits { connected: 5, candidates: 4, dials: 2, ..PeerLimits::default() },
            flood: FloodLimits { messages_per_second: 50, ..FloodLimits::default() },
            routing: routes.then(|| RoutingLimits { flooded: 2, ..RoutingLimits::default() }),
            identity: signs.then(|| Identity::from_seed(&[9; 32])),
            pins_max: 3,
            ..Options::new(own, own)
        };
        let (incoming, outgoing, dials) = Default::default();
        Bench { node: Node::new(options, [7; 16], NOW), now: NOW, incoming, outgoing, dials, ports: 30_000 }
    }

    fn take(&mut self, what: u8, who: usize, said: &[u8]) {
        let now = self.now;
        let local = SocketAddr::from(([10, 0, 0, 1], 55_555));
        self.ports = self.ports.wrapping_add(1);
        let some = |connections: &[ConnectionId]| connections.get(who % connections.len().max(1)).copied();
        match what {
            b'a' => {
                let remote = SocketAddr::new(peer(who).ip(), self.ports);
                self.incoming.extend(self.node.accepted(remote, local, now));
            }
            b'r' => {
                if let Some(connection) = some(&self.incoming) {
                    self.node.received(connection, said, now);
                }
            }
            b'c' => {
                if let Some(connection) = some(&self.incoming) {
                    self.incoming.retain(|other| *other != connection);
                    self.node.closed(connection, now);
                }
            }
            b'd' if !self.dials.is_empty() => {
                let addr = self.dials.remove(who % self.dials.len());
                let from = SocketAddr::from(([10, 0, 0, 1], self.ports));
                self.outgoing.extend(self.node.dialled(addr, from, now));
            }
            b'f' if !self.dials.is_empty() => {
                let addr = self.dials.remove(who % self.dials.len());
                self.node.dial_failed(addr, now);
            }
            b's' => {
                let connection = self.outgoing.iter().nth(who % self.outgoing.len().max(1)).copied();
                if let Some(connection) = connection {
                    self.node.too_slow(connection, now);
                }
            }
            b'b' => {
                let body = String::from_utf8_lossy(said);
                let _ = self.node.say(Said { nick: Some("me"), body: &body, file: None }, now);
            }
            b'k' => drop(self.node.connect(peer(who), Keep::WhileReachable, now)),
            b'x' => drop(self.node.disconnect(peer(who), now)),
            _ => {
                if let Some(deadline) = self.node.deadline() {
                    self.now = self.now.max(deadline);
                    self.node.tick(self.now);
                }
            }
        }
        self.carry_out(said.len());
    }

    /// Each connection is written to while it is open, and closed once.
    fn carry_out(&mut self, said_bytes: usize) {
        let mut actions = 0;
        while let Some(action) = self.node.next_action() {
            actions += 1;
            match action {
                Action::Dial(addr) => self.dials.push(addr),
                Action::Send { connection, object } => {
                    assert!(self.outgoing.contains(&connection), "{connection:?} is not open");
                    assert!(object.len() <= OBJECT_BYTES_MAX);
                }
                Action::Close { connection, .. } => {
                    let was_incoming = self.incoming.iter().position(|other| *other == connection);
                    let was_there = was_incoming.map(|at| self.incoming.remove(at)).is_some();
                    assert!(was_there | self.outgoing.remove(&connection), "{connection:?} was not open");
                }
                Action::Show(shown) => assert!(!shown.body.is_empty()),
                Action::Greet | Action::Tell(_) => {}
            }
        }
        // A message has some ten bytes, and is for every peer; the backlog is for a new one.
        assert!(actions <= 200 + said_bytes, "{actions} actions for {said_bytes} bytes");
        assert!(self.node.unfinished_bytes() <= 2 * OBJECT_BYTES_MAX);
        assert!(self.node.peers().count() <= 64 && self.dials.len() <= 64);
    }
}
