//! TCP listeners: accepts connections within the limits.
//!
//! Knows nothing of what is spoken: that is up to the [`Door`] behind which the
//! connections arrive.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::door::{Arrival, Door};
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
                if let Some(guest) = Guest::admit(&shared, address.ip()) {
                    tokio::spawn(Arrival::new(guest, door).greet(socket));
                } else {
                    shared.metrics.connections_refused.inc();
                }
            }
            // The client's own doing; the next one may do better.
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // Usually too many open files: others must close theirs first.
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
