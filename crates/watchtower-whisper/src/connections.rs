//! What runs on each connection: reading what others opened, writing what this
//! peer opened.
//!
//! Knows nothing of messages: bytes go to the node as they come, and come from
//! an outbox.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use watchtower_protocols::whispernet::ConnectionId;

use crate::driver::{Closed, Driver};
use crate::link::{self, Link};
use crate::names;
use crate::outbox::Outbox;
use crate::pace::Pace;

/// How long another peer's side of a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a dial may take, a handshake included.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long accepting waits when the system has no more room for connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How much is read at a time.
const INPUT_BYTES: usize = 16 << 10;

/// When a peer that says nothing is asked whether it is there.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));

/// Takes connections from others.
pub(crate) async fn accept(driver: Arc<Driver>, listener: TcpListener) {
    loop {
        let accepted = listener.accept().await.and_then(|(stream, remote)| {
            let local = set_up(&stream)?;
            Ok((stream, remote, local))
        });
        match accepted {
            Ok((stream, remote, local)) => take(&driver, stream, remote, local),
            // The connection is gone already, or there is no room for one.
            Err(error) if is_of_the_connection(&error) => {}
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | InvalidInput | NotConnected)
}

fn take(driver: &Arc<Driver>, stream: TcpStream, remote: SocketAddr, local: SocketAddr) {
    driver.update(|state, now| {
        let Ok(connection) = state.node.accepted(remote, local, now) else { return };
        let Some(closed) = state.open(connection, remote, None) else { return };
        driver.spawn(state, receive(driver.clone(), stream, connection, closed));
    });
}

/// Reads until either side ends.
async fn receive(driver: Arc<Driver>, stream: TcpStream, connection: ConnectionId, closed: Closed) {
    let read = async {
        let mut stream = match timeout(HANDSHAKE_TIMEOUT, input(&driver, stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return driver.refused(connection, &error.to_string()),
            Err(_) => return driver.refused(connection, "the TLS handshake takes too long"),
        };
        let mut input = vec![0; INPUT_BYTES];
        while let Ok(length) = stream.read(&mut input).await
            && length > 0
        {
            let input = input.get(..length).unwrap_or_default();
            driver.update(|state, now| state.node.received(connection, input, now));
        }
    };
    tokio::select! {
        () = read => driver.closed(connection),
        _ = closed => {}
    }
}

/// What comes on a connection, within TLS or not.
async fn input(driver: &Driver, stream: TcpStream) -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
    Ok(match &driver.tls {
        Some(tls) => Box::new(tls.current().accept(stream).await?),
        None => Box::new(stream),
    })
}

/// Dials a peer, and writes to it until either side ends.
pub(crate) async fn dial(driver: Arc<Driver>, addr: SocketAddr) {
    let name = driver.look(|state| state.name(addr));
    let dialled = match name {
        Some(name) => connect_by_name(&driver, &name, addr).await,
        None => connect(&driver, addr).await,
    };
    let Dialled { stream, addr, local } = match dialled {
        Ok(dialled) if dialled.addr == addr => dialled,
        Ok(dialled) => {
            driver.update(|state, _| state.moved(addr, dialled.addr));
            dialled
        }
        Err(error) => return driver.update(|state, now| state.dial_failed(addr, &error, now)),
    };
    let outbox = driver.outbox();
    let opened = driver.update(|state, now| {
        let connection = state.node.dialled(addr, local, now).ok()?;
        Some((connection, state.open(connection, addr, Some(outbox.clone()))?))
    });
    let Some((connection, closed)) = opened else { return };
    let pace = Pace::new(driver.flood, Instant::now());
    tokio::select! {
        hang_up = talk(&outbox, pace, stream) => driver.hung_up(connection, addr, &hang_up),
        _ = closed => {}
    }
}

/// The other side ended a connection that was dialled.
pub(crate) struct HangUp {
    /// How long the connection was there.
    pub(crate) lasted: Duration,
    /// Whether all was read that was written.
    pub(crate) took_all: bool,
}

/// Writes until the other side ends, which it does too when nothing is to come
/// any more.
async fn talk(outbox: &Outbox, pace: Pace, stream: Box<dyn Link>) -> HangUp {
    let begin = Instant::now();
    let (mut input, mut output) = tokio::io::split(stream);
    let is_orderly = {
        let mut ended = pin!(link::discard(&mut input));
        tokio::select! {
            is_orderly = &mut ended => is_orderly,
            written = write(outbox, pace, &mut output) => written.is_ok() && ended.await,
        }
    };
    let lasted = begin.elapsed();
    HangUp { lasted, took_all: is_orderly && link::took_all(input.unsplit(output)).await }
}

/// A connection that was dialled.
struct Dialled {
    stream: Box<dyn Link>,
    /// Where it leads to.
    addr: SocketAddr,
    /// This side's address.
    local: SocketAddr,
}

/// Looks the name up and tries what it finds: first `known`, if that is still
/// an address of it.
async fn connect_by_name(driver: &Driver, name: &str, known: SocketAddr) -> io::Result<Dialled> {
    let mut addrs = names::look_up(name).await?;
    addrs.sort_by_key(|addr| *addr != known);
    let mut result = Err(io::ErrorKind::NotFound.into());
    for addr in addrs {
        result = connect(driver, addr).await;
        if result.is_ok() {
            break;
        }
    }
    result
}

async fn connect(driver: &Driver, addr: SocketAddr) -> io::Result<Dialled> {
    let connect = async {
        let stream = TcpStream::connect(addr).await?;
        let local = set_up(&stream)?;
        // Where nobody listens, a connection may be given the port that it
        // dials, and meet itself.
        if local == addr {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let stream: Box<dyn Link> = match &driver.tls {
            Some(tls) => Box::new(tls.current().connect(stream).await?),
            None => Box::new(stream),
        };
        Ok(Dialled { stream, addr, local })
    };
    let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer");
    timeout(DIAL_TIMEOUT, connect).await.map_err(timed_out)?
}

/// This side's address.
fn set_up(stream: &TcpStream) -> io::Result<SocketAddr> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE)?;
    stream.local_addr()
}

/// Writes what is in the outbox, each object with a line's end behind it: for
/// people, and for peers that read lines.
async fn write(outbox: &Outbox, mut pace: Pace, mut output: impl AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let mut batch = outbox.batch().await;
        if batch.is_empty() {
            return output.shutdown().await;
        }
        let mut allowed = 0;
        for object in &batch {
            match pace.take(object.len(), Instant::now()) {
                Ok(()) => allowed += 1,
                Err(at) if allowed == 0 => {
                    outbox.set_paced(true);
                    sleep_until(at).await;
                    outbox.set_paced(false);
                    break;
                }
                Err(_) => break,
            }
        }
        batch.truncate(allowed);
        write_all(&mut output, &batch).await?;
        outbox.written(allowed);
    }
}

async fn write_all(output: &mut (impl AsyncWrite + Unpin), objects: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> =
        objects.iter().flat_map(|object| [IoSlice::new(object), IoSlice::new(b"\n")]).collect();
    let mut slices = slices.as_mut_slice();
    while !slices.is_empty() {
        let written = output.write_vectored(slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut slices, written);
    }
    output.flush().await
}
