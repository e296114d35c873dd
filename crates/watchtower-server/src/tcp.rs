//! TCP listeners: accepts connections within the limits.
//!
//! Knows nothing of what is spoken: that is up to the [`Door`] behind which the
//! connections arrive.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tracing::{Instrument, Span};

use crate::door::{Arrival, Door};
use crate::metrics::ByReason;
use crate::server::Shared;

/// How long accepting pauses when the system has nothing to accept with.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the server shuts down.
pub(crate) async fn accept(listener: TcpListener, shared: Arc<Shared>, door: Door) {
    let mut shutdown = shared.shutdown.part();
    let mut is_short = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.started() => return,
        };
        match accepted {
            Ok((socket, address)) => {
                is_short = false;
                if let Some(guest) = Guest::admit(&shared, address) {
                    let span = guest.span();
                    tokio::spawn(Arrival::new(guest, door).greet(socket).instrument(span));
                }
            }
            // The client's own doing; the next one may do better.
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // Usually too many open files: others must close theirs first.
                shared.metrics.accepts_failed.inc();
                // Said once for each shortage, not for each try.
                if !std::mem::replace(&mut is_short, true) {
                    tracing::warn!(%error, "cannot accept connections for the moment");
                }
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
    port: u16,
    /// What the log calls the connection: no other of this run has it.
    pub(crate) id: u64,
}

/// The connections there are, in all and by address.
#[derive(Debug, Default)]
pub(crate) struct Guests(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    /// How many were ever admitted.
    admitted: u64,
    /// Loopback is not counted by address ([running: limits]).
    by_address: HashMap<IpAddr, usize>,
}

impl Guests {
    /// How many there are.
    pub(crate) fn open(&self) -> usize {
        self.0.lock().all
    }
}

impl Guest {
    /// Counts a connection in, unless a limit keeps it out, which is counted.
    pub(crate) fn admit(shared: &Arc<Shared>, peer: SocketAddr) -> Option<Guest> {
        let limits = shared.config.load().limits.clone();
        let address = peer.ip().to_canonical();
        let refuse = |reason| {
            shared.metrics.connections_refused.get_or_create(&ByReason { reason }).inc();
            None
        };
        let mut counts = shared.guests.0.lock();
        if counts.all >= limits.max_connections {
            return refuse("max_connections");
        }
        if !address.is_loopback() {
            let count = counts.by_address.entry(address).or_default();
            if *count >= limits.max_connections_per_address {
                return refuse("max_connections_per_address");
            }
            *count += 1;
        }
        counts.all += 1;
        counts.admitted += 1;
        Some(Guest { shared: shared.clone(), address, port: peer.port(), id: counts.admitted })
    }

    /// Says in each line of the log that is written within it which connection
    /// the line is about.
    pub(crate) fn span(&self) -> Span {
        // Of the highest level, so that it is there however little is logged.
        tracing::error_span!("client", connection = self.id, peer = %SocketAddr::new(self.address, self.port))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.shared.metrics.streams.unblocked(self.id);
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
