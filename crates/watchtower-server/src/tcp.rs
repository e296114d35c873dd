//! The shared TCP port: accepts connections within the limits, and tells by
//! the first bytes which protocol each one speaks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use watchtower_protocols::packets::PacketStream;

use crate::http::OpenStream;
use crate::metrics::ByProtocol;
use crate::server::Shared;
use crate::shutdown::Shutdown;
use crate::stream::Drive;
use crate::wire::Plain;

/// When the system is asked whether a silent client is still there, so that
/// one that vanished does not stay forever.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// How long accepting pauses when the system has nothing to accept with.
const PAUSE: Duration = Duration::from_millis(50);

/// How many first bytes are read to tell the protocol. One is enough; what
/// came with it is passed on.
const FIRST_BYTES: usize = 4096;

/// Accepts until the server shuts down.
pub(crate) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut shutdown = shared.shutdown.part();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.started() => return,
        };
        match accepted {
            Ok((socket, address)) => {
                if let Some(guest) = Guest::admit(&shared, address.ip()) {
                    tokio::spawn(greet(socket, guest, shared.shutdown.part()));
                } else {
                    shared.metrics.connections_refused.inc();
                }
            }
            // The client's own doing; the next one may do better.
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // Usually too many open files: others must close theirs first.
                tracing::warn!(%error, "cannot accept connections for the moment");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A connection that was admitted, counted until it is dropped.
pub(crate) struct Guest {
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: IpAddr,
}

/// The connections there are, in all and by address.
#[derive(Debug, Default)]
pub(crate) struct Guests(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    /// Loopback is not counted by address ([running: limits]).
    by_address: HashMap<IpAddr, usize>,
}

impl Guest {
    /// Counts a connection in, unless a limit keeps it out.
    pub(crate) fn admit(shared: &Arc<Shared>, address: IpAddr) -> Option<Guest> {
        let limits = shared.config.load().limits.clone();
        let address = address.to_canonical();
        let mut counts = shared.guests.0.lock();
        if counts.all >= limits.max_connections {
            return None;
        }
        if !address.is_loopback() {
            let count = counts.by_address.entry(address).or_default();
            if *count >= limits.max_connections_per_address {
                return None;
            }
            *count += 1;
        }
        counts.all += 1;
        Some(Guest { shared: shared.clone(), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.shared.guests.0.lock();
        counts.all -= 1;
        if let Entry::Occupied(mut count) = counts.by_address.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Finds out which protocol a client speaks, and serves it.
async fn greet(socket: TcpStream, guest: Guest, mut shutdown: Shutdown) {
    if let Err(error) = prepare(&socket) {
        tracing::debug!(%error, "cannot set up a connection");
        return;
    }
    let Some(first) = first_bytes(&socket, &guest.shared, &mut shutdown).await else { return };
    // What goes on is a task of its own, since this one is larger than a
    // connection should be, with its own part in the shutdown, which wakes
    // only the task that it belongs to.
    let protocol = if first.first().is_some_and(|byte| is_http(*byte)) { "http" } else { "packets" };
    guest.shared.metrics.connections.get_or_create(&ByProtocol { protocol }).inc();
    if protocol == "http" {
        let http = guest.shared.http.clone();
        let served = http.serve(socket, first, guest.address, shutdown.started()).await;
        if let Some(OpenStream { io, stream }) = served {
            let shutdown = guest.shared.shutdown.part();
            tokio::spawn(Drive::new(Plain::from(io), &[], stream, guest, shutdown));
        }
        return;
    }
    let session = PacketStream::new(&guest.shared.hub, guest.shared.packet_options());
    let shutdown = guest.shared.shutdown.part();
    tokio::spawn(Drive::new(Plain::from(socket), &first, session, guest, shutdown));
}

/// Whether a request can begin with it: the first letters of the methods,
/// which begin no packet.
fn is_http(byte: u8) -> bool {
    matches!(byte, b'C' | b'D' | b'G' | b'H' | b'O' | b'P' | b'T')
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    // Every write is whole messages already: waiting for more only delays.
    socket.set_nodelay(true)?;
    SockRef::from(socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))
}

/// The first bytes of a client, within the time that it has; `None` when it
/// says nothing ([running: header_timeout]).
async fn first_bytes(socket: &TcpStream, shared: &Shared, shutdown: &mut Shutdown) -> Option<Vec<u8>> {
    let patience = shared.config.load().limits.header_timeout;
    let read = async {
        loop {
            socket.readable().await?;
            let mut first = [0; FIRST_BYTES];
            match socket.try_read(&mut first) {
                Ok(length) => return Ok::<_, io::Error>(first.get(..length).unwrap_or_default().to_vec()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    tokio::select! {
        read = tokio::time::timeout(patience, read) => match read {
            Ok(read) => read.ok().filter(|first| !first.is_empty()),
            Err(_) => {
                shared.metrics.connections_silent.inc();
                None
            }
        },
        () = shutdown.started() => None,
    }
}
