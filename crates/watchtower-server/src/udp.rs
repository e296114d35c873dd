//! Packets over UDP: one socket, a session for each address that has shown a
//! registered id.
//!
//! Knows sockets and datagrams; what a datagram means is [`PacketPeer`]'s.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Wake, Waker};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};
use watchtower_hub::{Drained, Timestamp};
use watchtower_protocols::packets::{PACKET_FORMAT, PacketPeer};

use crate::clock;
use crate::metrics::{Publication, sample_delivery};
use crate::server::Shared;
use crate::shutdown::Shutdown;
use crate::tcp::Guest;

/// The longest datagram over IPv4 ([packets: rules]).
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// What fits the frames of nearly every network: several messages share a
/// datagram up to this, and longer messages are warned of.
const DATAGRAM_BYTES_SAFE: usize = 1_400;

/// How many datagrams are read, or written with one call, before others get
/// their turn.
const DATAGRAMS_PER_TURN: usize = 64;

/// How many messages one peer gets before others get theirs.
const MESSAGES_PER_TURN: usize = 256;

/// How often silent peers are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// Serves one UDP socket until the server shuts down.
pub(crate) async fn serve(socket: UdpSocket, shared: Arc<Shared>, mut shutdown: Shutdown) {
    let ready = Arc::new(Ready::default());
    let mut driver = Driver {
        socket,
        shared,
        ready: ready.clone(),
        peers: HashMap::new(),
        outbox: Vec::new(),
        measured: None,
        warned: false,
    };
    let mut datagram = vec![0; 1 << 16].into_boxed_slice();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // An error here is about the socket as such, and shows up below.
            _ = driver.socket.readable() => driver.receive(&mut datagram),
            () = ready.changed.notified() => {}
            _ = sweep.tick() => driver.sweep(),
            () = shutdown.started() => break,
        }
        driver.deliver().await;
    }
    driver.take_leave().await;
}

struct Driver {
    socket: UdpSocket,
    shared: Arc<Shared>,
    ready: Arc<Ready>,
    peers: HashMap<SocketAddr, Peer>,
    /// What one turn has to send.
    outbox: Vec<(SocketAddr, Bytes)>,
    /// When a message there was published whose delivery is measured.
    measured: Option<Timestamp>,
    warned: bool,
}

struct Peer {
    machine: PacketPeer,
    waker: Waker,
    heard: Instant,
    _guest: Guest,
}

/// The peers that the hub has something for.
#[derive(Default)]
struct Ready {
    peers: Mutex<Vec<SocketAddr>>,
    changed: Notify,
}

struct PeerWaker {
    address: SocketAddr,
    ready: Arc<Ready>,
}

impl Wake for PeerWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut peers = self.ready.peers.lock();
        peers.push(self.address);
        if peers.len() == 1 {
            self.ready.changed.notify_one();
        }
    }
}

impl Driver {
    fn receive(&mut self, buffer: &mut [u8]) {
        let now = clock::now();
        for _ in 0..DATAGRAMS_PER_TURN {
            match self.socket.try_recv_from(buffer) {
                Ok((length, address)) => {
                    self.answer(buffer.get(..length).unwrap_or_default(), address, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Linux reports here that an earlier datagram found nobody.
                Err(error) => tracing::debug!(%error, "a datagram could not be received"),
            }
        }
        // More may wait: the others' turn first.
        self.ready.changed.notify_one();
    }

    /// Carries out a datagram and answers it.
    fn answer(&mut self, datagram: &[u8], address: SocketAddr, now: Timestamp) {
        let mut answers = Datagram::default();
        let outbox = &mut self.outbox;
        let mut too_large = 0;
        let publication = Publication::sample(|| self.shared.hub.clone());
        let mut answer = |packet: Bytes| {
            if packet.len() > DATAGRAM_BYTES_MAX {
                too_large += 1;
            } else if let Some(full) = answers.add(&packet) {
                outbox.push((address, full));
            }
        };
        if let Some(peer) = self.peers.get_mut(&address) {
            peer.machine.receive(datagram, now, &mut answer);
            peer.heard = Instant::now();
            if peer.machine.has_unanswered() {
                // It is answered by way of its waker.
                peer.waker.wake_by_ref();
            }
        } else if !datagram.is_empty() {
            let Some(guest) = Guest::admit(&self.shared, address) else { return };
            let mut machine = PacketPeer::new(&self.shared.hub, self.shared.packet_options(address.ip()));
            machine.receive(datagram, now, &mut answer);
            if machine.is_registered() {
                let waker = Waker::from(Arc::new(PeerWaker { address, ready: self.ready.clone() }));
                // Whatever came before there was a waker.
                waker.wake_by_ref();
                self.peers.insert(address, Peer { machine, waker, heard: Instant::now(), _guest: guest });
            }
        }
        if let Some(publication) = publication {
            self.shared.metrics.latencies.carried_out(publication, &self.shared.hub);
        }
        if let Some(last) = answers.take() {
            self.outbox.push((address, last));
        }
        self.shared.metrics.udp_too_large.inc_by(too_large);
    }

    /// Sends what there is for the peers that were woken.
    async fn deliver(&mut self) {
        let ready = std::mem::take(&mut *self.ready.peers.lock());
        for address in ready {
            self.gather(address);
            if self.outbox.len() >= DATAGRAMS_PER_TURN {
                self.send().await;
            }
        }
        self.send().await;
    }

    /// Sends what there is, and then each peer that the server shuts down
    /// ([running: SIGTERM]).
    async fn take_leave(&mut self) {
        let ready = self.ready.clone();
        loop {
            while !ready.peers.lock().is_empty() {
                self.deliver().await;
            }
            if !self.peers.values().any(|peer| peer.machine.has_unanswered()) {
                break;
            }
            ready.changed.notified().await;
        }
        let registered = self.peers.iter().filter(|(_, peer)| peer.machine.is_registered());
        let farewell = |peer: &Peer| {
            let mut farewell = Vec::new();
            peer.machine.shut_down(&mut farewell);
            Bytes::from(farewell)
        };
        self.outbox = registered.map(|(&address, peer)| (address, farewell(peer))).collect();
        self.send().await;
    }

    /// Puts what there is for one peer into datagrams.
    fn gather(&mut self, address: SocketAddr) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let mut datagram = Datagram::default();
        let (mut messages, mut too_large, mut long) = (0, 0, false);
        let outbox = &mut self.outbox;
        peer.machine.answer(&peer.waker, |refusal| {
            outbox.extend(datagram.add(&refusal).map(|full| (address, full)));
        });
        let measured = sample_delivery(|| peer.machine.session().woken_by());
        self.measured = self.measured.or(measured);
        let drained = peer.machine.session().drain_messages(Some(&peer.waker), |message| {
            let frame = message.frame(&PACKET_FORMAT);
            if frame.len() > DATAGRAM_BYTES_MAX {
                too_large += 1;
            } else if !frame.is_empty() {
                long |= frame.len() > DATAGRAM_BYTES_SAFE;
                if let Some(full) = datagram.add(frame) {
                    outbox.push((address, full));
                }
            }
            messages += 1;
            messages < MESSAGES_PER_TURN
        });
        if let Some(last) = datagram.take() {
            outbox.push((address, last));
        }
        if drained == Drained::More {
            peer.waker.wake_by_ref();
        }
        self.shared.metrics.udp_too_large.inc_by(too_large);
        if long && !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                "messages above {DATAGRAM_BYTES_SAFE} bytes go out by UDP: networks may drop them (said once)"
            );
        }
    }

    /// Sends the outbox, with as few system calls as possible. What the system
    /// does not take is counted as lost: nothing resends it.
    async fn send(&mut self) {
        let outbox = std::mem::take(&mut self.outbox);
        let mut rest = outbox.as_slice();
        while !rest.is_empty() {
            let chunk = rest.get(..DATAGRAMS_PER_TURN).unwrap_or(rest);
            match self.socket.try_io(Interest::WRITABLE, || send_batch(&self.socket, chunk)) {
                Ok(sent) => rest = rest.get(sent.max(1)..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.socket.writable().await {
                        tracing::debug!(%error, "datagrams could not be sent");
                        self.shared.metrics.udp_unsent.inc_by(rest.len() as u64);
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a datagram could not be sent");
                    self.shared.metrics.udp_unsent.inc();
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
        }
        self.outbox = outbox;
        self.outbox.clear();
        if let Some(published) = self.measured.take() {
            self.shared.metrics.latencies.delivered(clock::now().since(published));
        }
    }

    /// Lets go of peers that were silent for too long ([packets: rules]), and
    /// of those whose ids have moved on: one id, shown from many addresses,
    /// must not take the places of all others.
    fn sweep(&mut self) {
        let idle = self.shared.config.load().udp_idle;
        self.peers.retain(|_, peer| peer.machine.is_registered() && peer.heard.elapsed() < idle);
    }
}

/// A datagram that is being filled with whole messages.
#[derive(Default)]
struct Datagram {
    /// A message that is alone so far is not copied.
    first: Option<Bytes>,
    joined: BytesMut,
}

impl Datagram {
    /// Adds a message, and returns the datagram before it when it does not
    /// fit there.
    fn add(&mut self, frame: &Bytes) -> Option<Bytes> {
        let length = self.first.as_ref().map_or(self.joined.len(), Bytes::len);
        let full = (length > 0 && length + frame.len() > DATAGRAM_BYTES_SAFE).then(|| self.take()).flatten();
        match self.first.take() {
            None if self.joined.is_empty() => self.first = Some(frame.clone()),
            first => {
                self.joined.extend_from_slice(first.as_deref().unwrap_or_default());
                self.joined.extend_from_slice(frame);
            }
        }
        full
    }

    fn take(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        (!self.joined.is_empty()).then(|| self.joined.split().freeze())
    }
}

/// Sends datagrams with one system call; how many it took.
fn send_batch(socket: &UdpSocket, datagrams: &[(SocketAddr, Bytes)]) -> io::Result<usize> {
    let addresses: Vec<SocketAddrAny> = datagrams.iter().map(|(address, _)| address.as_any()).collect();
    let contents: Vec<[IoSlice<'_>; 1]> = datagrams.iter().map(|(_, bytes)| [IoSlice::new(bytes)]).collect();
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> =
        datagrams.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut headers: Vec<MMsgHdr<'_>> = addresses
        .iter()
        .zip(&contents)
        .zip(&mut controls)
        .map(|((address, content), control)| MMsgHdr::new_with_addr(address, content, control))
        .collect();
    Ok(rustix::net::sendmmsg(socket, &mut headers, SendFlags::NOSIGNAL)?)
}
