//! What is spoken behind a listener: told by the first bytes of a connection,
//! which may be TLS around what is spoken.
//!
//! Until a protocol is known, a connection costs this task and what the client
//! has sent, and all of it together has `header_timeout`.

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use watchtower_protocols::packets::PacketStream;

use crate::http::{Http, Onward, TakenOver, is_half_a_head};
use crate::metrics::{ByOutcome, ByProtocol, ByReason};
use crate::server::Shared;
use crate::shutdown::Shutdown;
use crate::stream::Drive;
use crate::tcp::Guest;
use crate::timer::Timer;
use crate::tls;
use crate::wire::Connection;

/// When the system is asked whether a silent client is still there, so that
/// one that vanished does not stay forever.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// How many first bytes are read at a time to tell the protocol. One is
/// enough; what came with it is passed on.
const FIRST_BYTES: usize = 4096;

/// What a client begins TLS with: a record of the handshake (RFC 8446 5.1). No
/// packet and no request begins so.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Packets and HTTP, told apart by the first byte.
    Shared,
    /// The hubs of WebRocket.
    WebRocket,
    /// The public side of WebTalk.
    WebTalk,
    /// The private link of WebTalk.
    WebTalkPrivate,
}

/// A protocol that is told by the first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Packets,
    Http,
    WebTalkLink,
}

impl Door {
    /// What can be spoken there, as a person is told.
    pub(crate) fn protocols(self) -> &'static str {
        match self {
            Door::Shared => "packets,http,websocket",
            Door::WebRocket => "webrocket",
            Door::WebTalk => "webtalk",
            Door::WebTalkPrivate => "webtalk-private",
        }
    }

    fn protocol(self, first: u8) -> Protocol {
        match self {
            Door::Shared if !is_http(first) => Protocol::Packets,
            Door::Shared | Door::WebRocket | Door::WebTalk => Protocol::Http,
            Door::WebTalkPrivate => Protocol::WebTalkLink,
        }
    }

    /// Whether what is spoken there may be spoken without TLS by who connects to
    /// `local`. A secret that goes beyond this machine does not go in plain
    /// ([webtalk: private link]).
    fn takes_plain(self, local: IpAddr) -> bool {
        self != Door::WebTalkPrivate || local.to_canonical().is_loopback()
    }

    fn http(self, shared: &Shared) -> &Http {
        match self {
            Door::WebRocket => &shared.websockets.webrocket_http,
            Door::WebTalk => &shared.websockets.webtalk_http,
            Door::Shared | Door::WebTalkPrivate => &shared.http,
        }
    }
}

/// Whether a request can begin with it: the first letters of the methods,
/// which begin no packet.
fn is_http(byte: u8) -> bool {
    matches!(byte, b'C' | b'D' | b'G' | b'H' | b'O' | b'P' | b'T')
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Packets => "packets",
            Protocol::Http => "http",
            Protocol::WebTalkLink => "webtalk-private",
        }
    }
}

/// A client that has yet to say what it speaks.
pub(crate) struct Arrival {
    guest: Guest,
    door: Door,
    /// By when it must have said so.
    due: Instant,
    shutdown: Shutdown,
}

/// Why a client was not waited for any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missed {
    /// Its time is up.
    Late,
    /// It is gone, or did wrong, or the server shuts down.
    Gone,
}

impl Arrival {
    /// A client that was accepted just now.
    pub(crate) fn new(guest: Guest, door: Door) -> Arrival {
        let due = Instant::now() + guest.shared.config.load().limits.header_timeout;
        let shutdown = guest.shared.shutdown.part();
        Arrival { guest, door, due, shutdown }
    }

    /// Finds out which protocol the client speaks, and serves it.
    pub(crate) async fn greet(mut self, mut socket: TcpStream) {
        if let Err(error) = prepare(&socket) {
            tracing::debug!(%error, "cannot set up a connection");
            return;
        }
        let Some(first) = self.first_bytes(&mut socket).await else { return };
        if first.first() == Some(&TLS_HANDSHAKE) {
            // In a box, so that those who say nothing do not pay for it.
            return Box::pin(self.greet_within_tls(socket, first)).await;
        }
        let takes_plain = socket.local_addr().is_ok_and(|local| self.door.takes_plain(local.ip()));
        if !takes_plain {
            let reason = ByReason { reason: "without_tls" };
            self.guest.shared.metrics.connections_refused.get_or_create(&reason).inc();
            return tracing::warn!(door = self.door.protocols(), "closed a connection without TLS");
        }
        self.serve(socket, first).await;
    }

    async fn greet_within_tls(mut self, socket: TcpStream, first: Vec<u8>) {
        let Some(config) = self.guest.shared.tls.current() else {
            return self.count_handshake("refused");
        };
        let accept = async {
            let accepted = tls::accept(config, &first, socket).await;
            accepted.inspect_err(|error| tracing::debug!(%error, "a TLS handshake failed"))
        };
        let accepted = self.in_time(accept).await;
        self.count_handshake(match accepted {
            Ok(_) => "done",
            Err(Missed::Late) => "late",
            Err(Missed::Gone) => "failed",
        });
        let Ok(mut tls) = accepted else { return };
        let Some(first) = self.first_bytes(&mut tls).await else { return };
        self.serve(tls, first).await;
    }

    fn count_handshake(&self, outcome: &'static str) {
        self.guest.shared.metrics.tls_handshakes.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// What the client says first, up to where it is the protocol's to go on;
    /// `None` when it says nothing, or not enough ([running: header_timeout]).
    async fn first_bytes(&mut self, io: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
        let head_bytes_max = self.guest.shared.config.load().limits.max_header_bytes;
        let door = self.door;
        let mut first = Vec::new();
        let read = async {
            // hyper takes some 20 kB for a request: not before it is there.
            let mut seen = 0;
            while read_more(io, &mut first).await? > 0 {
                let is_http = first.first().is_some_and(|byte| door.protocol(*byte) == Protocol::Http);
                if !is_http || first.len() >= head_bytes_max || !is_half_a_head(&first, seen) {
                    break;
                }
                seen = first.len();
            }
            Ok(())
        };
        match self.in_time(read).await {
            Ok(()) => (!first.is_empty()).then_some(first),
            Err(Missed::Late) => {
                self.guest.shared.metrics.connections_silent.inc();
                None
            }
            Err(Missed::Gone) => None,
        }
    }

    /// Waits for the client, but not for longer than it may take altogether,
    /// and not once the server shuts down.
    async fn in_time<T>(&mut self, done: impl Future<Output = io::Result<T>>) -> Result<T, Missed> {
        tokio::select! {
            biased;
            done = done => done.map_err(|_| Missed::Gone),
            () = Timer::at(self.due) => Err(Missed::Late),
            () = self.shutdown.started() => Err(Missed::Gone),
        }
    }

    /// Serves a connection on which `first` was read.
    ///
    /// What goes on for long is a task of its own, since this one is larger
    /// than a connection should be, with its own part in the shutdown, which
    /// wakes only the task that it belongs to.
    async fn serve<C: Connection>(mut self, io: C, first: Vec<u8>) {
        let protocol = first.first().map_or(Protocol::Packets, |byte| self.door.protocol(*byte));
        let shared = self.guest.shared.clone();
        shared.metrics.connections.get_or_create(&ByProtocol { protocol: protocol.name() }).inc();
        tracing::debug!(protocol = protocol.name(), "a client is served");
        match protocol {
            Protocol::Packets => {
                let session = PacketStream::new(&shared.hub, shared.packet_options(self.guest.address));
                let wire = C::Wire::from(io);
                let drive = Drive::new(wire, session, self.guest, shared.shutdown.part());
                shared.groups.add(drive.after(&first, Some(self.due)));
            }
            Protocol::WebTalkLink => {
                let Some(link) = shared.websockets.link() else { return };
                let drive = Drive::new(C::Wire::from(io), link, self.guest, shared.shutdown.part());
                shared.groups.add(drive.after(&first, Some(self.due)));
            }
            Protocol::Http => {
                let drain = self.shutdown.started();
                let served = self.door.http(&shared).serve(io, first, self.guest.address, drain).await;
                let Some(TakenOver { io, read_already, onward }) = served else { return };
                let (wire, shutdown) = (C::Wire::from(io), shared.shutdown.part());
                match onward {
                    // What was read of further requests is not looked at: a
                    // stream is the last response on its connection.
                    Onward::Stream(stream) => {
                        shared.groups.add(Drive::new(wire, stream, self.guest, shutdown));
                    }
                    Onward::WebSocket(socket) => {
                        let drive = Drive::new(wire, *socket, self.guest, shutdown);
                        shared.groups.add(drive.after(&read_already, None));
                    }
                }
            }
        }
    }
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    // Every write is whole messages already: waiting for more only delays.
    socket.set_nodelay(true)?;
    SockRef::from(socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))
}

/// Reads once, behind what was read before; nothing at the end of the input.
///
/// The buffer is there while something is read: a client that is waited for has
/// none.
async fn read_more(io: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut chunk = [0; FIRST_BYTES];
        let mut chunk = ReadBuf::new(&mut chunk);
        ready!(Pin::new(&mut *io).poll_read(cx, &mut chunk))?;
        bytes.extend_from_slice(chunk.filled());
        Ok(chunk.filled().len()).into()
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webtalks_private_link_is_plain_on_this_machine_alone() {
        let takes_plain = |door: Door, local: &str| door.takes_plain(local.parse().expect("an address"));
        for local in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(takes_plain(Door::WebTalkPrivate, local), "{local}");
        }
        for local in ["192.0.2.1", "2001:db8::1"] {
            assert!(!takes_plain(Door::WebTalkPrivate, local), "{local}");
            assert!(takes_plain(Door::WebTalk, local) && takes_plain(Door::Shared, local), "{local}");
        }
    }
}
