//! A peer as others deploy it, whole: it floods, dials every `Addr` that it
//! sees, passes on no key that it does not know, and fails on an object whose
//! `Body` is missing or empty.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::plain::{Plain, message};
use super::{SOON, local};

/// A peer that runs until the test ends.
pub(super) struct Gopher {
    pub(super) address: SocketAddr,
    state: Arc<State>,
    taking: JoinHandle<()>,
    shown: UnboundedReceiver<String>,
}

struct State {
    address: SocketAddr,
    known: Mutex<Known>,
    shown: UnboundedSender<String>,
}

#[derive(Default)]
struct Known {
    seen: BTreeSet<String>,
    /// Those that it dialled: what it sends them.
    peers: BTreeMap<SocketAddr, UnboundedSender<String>>,
}

impl Gopher {
    pub(super) async fn start() -> Gopher {
        let listener = TcpListener::bind(local()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut plain = Plain::listen(listener);
        let (sender, shown) = unbounded_channel();
        let state = Arc::new(State { address, known: Mutex::default(), shown: sender });
        let taker = state.clone();
        let taking = tokio::spawn(async move {
            loop {
                taker.take(&plain.next_at_all().await);
            }
        });
        Gopher { address, state, taking, shown }
    }

    /// Dials a peer, and says something to all.
    pub(super) fn join(&self, peer: SocketAddr, body: &str) {
        self.state.dial(peer);
        self.say(body);
    }

    pub(super) fn say(&self, body: &str) {
        let id = format!("{} {body}", self.address);
        self.state.known.lock().unwrap().seen.insert(id.clone());
        self.state.broadcast(&message(&id, self.address, body), None);
    }

    /// Whether it has not failed on what it was sent.
    pub(super) fn is_alive(&self) -> bool {
        !self.taking.is_finished()
    }

    /// What others say next.
    pub(super) async fn next_shown(&mut self) -> String {
        timeout(SOON, self.shown.recv()).await.expect("it comes soon").unwrap()
    }
}

impl State {
    fn take(self: &Arc<State>, object: &Value) {
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let (id, body, addr) = (text("ID"), text("Body"), text("Addr").parse().ok());
        if !self.known.lock().unwrap().seen.insert(id.clone()) {
            return;
        }
        let _ = self.shown.send(body.clone());
        let object = json!({"ID": id, "Addr": addr, "Body": body});
        self.broadcast(&object.to_string(), addr);
        if let Some(addr) = addr {
            self.dial(addr);
        }
    }

    fn broadcast(&self, object: &str, except: Option<SocketAddr>) {
        for (peer, sender) in &self.known.lock().unwrap().peers {
            if Some(*peer) != except {
                let _ = sender.send(object.to_owned());
            }
        }
    }

    fn dial(self: &Arc<State>, peer: SocketAddr) {
        let mut known = self.known.lock().unwrap();
        if peer == self.address || known.peers.contains_key(&peer) {
            return;
        }
        let (sender, objects) = unbounded_channel();
        known.peers.insert(peer, sender);
        tokio::spawn(self.clone().write(peer, objects));
    }

    /// Until the connection ends: then it dials again when it sees the address
    /// next.
    async fn write(self: Arc<State>, peer: SocketAddr, mut objects: UnboundedReceiver<String>) {
        if let Ok(mut stream) = TcpStream::connect(peer).await {
            while let Some(object) = objects.recv().await
                && stream.write_all(object.as_bytes()).await.is_ok()
            {}
        }
        self.known.lock().unwrap().peers.remove(&peer);
    }
}
