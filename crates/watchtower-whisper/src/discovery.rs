//! Finding the peers of a network by UDP broadcast ([whispernet: 5]).
//!
//! Says `IP:PORT` to all at the start and every minute, and when somebody new
//! is heard, so that both find each other; and to each peer that is connected
//! to, which may be where no broadcast goes and knows of this one no earlier
//! than it says something. What is heard is a claim like any other: the node
//! says whether it is dialled.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, interval_at, sleep, sleep_until};
use watchtower_protocols::whispernet::Notice;

use crate::driver::Driver;
use crate::{Event, Events, local};

/// How often a peer announces itself.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(60);

/// How soon after an announcement there may be another.
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(500);

/// The longest announcement that is read: `IP:PORT` is shorter.
const ANNOUNCEMENT_BYTES_MAX: usize = 128;

/// How many announcements are heard within a second. Of more the system drops
/// what it has no room for.
const HEARD_PER_SECOND: u32 = 200;

/// Opens the port. Others on this machine may have it too, and all of them hear
/// what is broadcast.
pub(crate) fn open(port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    UdpSocket::from_std(socket.into())
}

/// Announces and hears. `is_local`: the peer is meant to be for this machine
/// alone. `events` are those from the start on.
pub(crate) async fn run(
    driver: Arc<Driver>,
    socket: UdpSocket,
    port: u16,
    is_local: bool,
    mut events: Events,
) {
    let announced = driver.look(|state| state.node.address());
    let (is_told, hearing) = (false, Hearing::new());
    let mut discovery = Discovery { driver, socket, announced, port, is_local, is_told, hearing };
    let mut minutes = interval_at(Instant::now(), ANNOUNCE_INTERVAL);
    let mut last = None;
    loop {
        // Somebody new has yet to hear of this peer.
        tokio::select! {
            _ = minutes.tick() => {}
            peer = next_connected(&mut events) => {
                discovery.announce_to(peer).await;
                continue;
            }
            () = discovery.hear_somebody_new() => {
                if let Some(last) = last {
                    sleep_until(last + ANNOUNCE_PAUSE).await;
                }
            }
        }
        discovery.announce().await;
        last = Some(Instant::now());
    }
}

/// The next peer that is connected to. Of those that were missed the next
/// message tells them.
async fn next_connected(events: &mut Events) -> SocketAddr {
    loop {
        match events.next().await {
            Ok(Some(Event::Notice(Notice::Connected(addr)))) => return addr,
            Ok(Some(_)) | Err(_) => {}
            Ok(None) => std::future::pending().await,
        }
    }
}

struct Discovery {
    driver: Arc<Driver>,
    socket: UdpSocket,
    announced: SocketAddr,
    port: u16,
    /// Whether it is meant to be for this machine alone.
    is_local: bool,
    /// Whether the user knows that there is nobody to announce to.
    is_told: bool,
    hearing: Hearing,
}

impl Discovery {
    /// Tells everybody. A network that cannot be told leaves the others.
    async fn announce(&mut self) {
        let announcement = self.announced.to_string();
        let mut result = Ok(());
        let mut is_heard = false;
        for broadcast in local::broadcasts(self.announced.ip()) {
            match self.socket.send_to(announcement.as_bytes(), (broadcast, self.port)).await {
                // This machine alone is no network, unless none is wanted.
                Ok(_) => is_heard |= !broadcast.is_loopback() || self.is_local,
                Err(error) => result = Err(error),
            }
        }
        if !is_heard && !std::mem::replace(&mut self.is_told, true) {
            let reason = result.err().map_or("no network has it".to_owned(), |error| error.to_string());
            self.warn(format!("peers nearby are not told of this one by broadcast: {reason}"));
        }
    }

    /// Tells one peer, where it can do something with it.
    async fn announce_to(&self, peer: SocketAddr) {
        if peer.is_ipv4() && (peer.ip().is_loopback() || !self.announced.ip().is_loopback()) {
            let announcement = self.announced.to_string();
            // Nobody may be there to hear it.
            self.socket.send_to(announcement.as_bytes(), (peer.ip(), self.port)).await.ok();
        }
    }

    /// Hears until somebody is heard who was not known.
    async fn hear_somebody_new(&mut self) {
        let mut heard = [0; ANNOUNCEMENT_BYTES_MAX];
        loop {
            self.hearing.wait().await;
            let Ok((length, from)) = self.socket.recv_from(&mut heard).await else {
                // An answer to what was sent, of a network that does not have it.
                sleep(ANNOUNCE_PAUSE).await;
                continue;
            };
            let text = heard.get(..length).and_then(|heard| std::str::from_utf8(heard).ok());
            if text.is_some_and(|text| self.is_new(text.trim(), from.ip())) {
                return;
            }
        }
    }

    fn is_new(&self, addr: &str, from: IpAddr) -> bool {
        self.driver.update(|state, now| {
            let before = state.node.peers().count();
            state.node.announced(addr, from, now);
            state.node.peers().count() > before
        })
    }

    fn warn(&self, warning: String) {
        self.driver.look(|state| state.warn(warning));
    }
}

/// How much was heard within a second.
struct Hearing {
    since: Instant,
    heard: u32,
}

impl Hearing {
    fn new() -> Hearing {
        Hearing { since: Instant::now(), heard: 0 }
    }

    /// Waits for the next second where this one has heard enough.
    async fn wait(&mut self) {
        let next = self.since + Duration::from_secs(1);
        if self.heard >= HEARD_PER_SECOND {
            sleep_until(next).await;
        }
        if Instant::now() >= next {
            *self = Hearing::new();
        }
        self.heard += 1;
    }
}
