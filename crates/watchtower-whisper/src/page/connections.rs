//! The page's sockets: binding, accepting within limits, and hyper with its
//! limits.
//!
//! Knows no request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::ServiceExt;

use super::guard::Local;
use super::{Limits, ServeError, is_this_machine};

/// The most headers that a request may have, and bytes of them.
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// How long a browser may take nothing of what it is sent.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait when the system has no more connections to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What one connection too many is told.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n";

/// Binds every address, all with the port of the first that have none.
pub(super) async fn bind_each(addrs: &[SocketAddr]) -> Result<Vec<(SocketAddr, TcpListener)>, ServeError> {
    let mut bound: Vec<(SocketAddr, TcpListener)> = Vec::new();
    for addr in addrs {
        let mut addr = *addr;
        if let (0, Some((first, _))) = (addr.port(), bound.first()) {
            addr.set_port(first.port());
        }
        let listener = match TcpListener::bind(addr).await {
            Ok(listener) => listener,
            // A machine without IPv6 has no ::1.
            Err(error) if is_missing(&error) && is_this_machine(addr.ip()) && !bound.is_empty() => continue,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(ServeError::Taken(addr)),
            Err(error) => return Err(ServeError::Listen { addr, error }),
        };
        let addr = listener.local_addr().map_err(|error| ServeError::Listen { addr, error })?;
        bound.push((addr, listener));
    }
    Ok(bound)
}

/// Whether there is no such address here, or no such kind of address.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
}

/// What all connections of a page share. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Door {
    router: Router,
    permits: Arc<Semaphore>,
    header_timeout: Duration,
}

impl Door {
    pub(super) fn new(router: Router, limits: &Limits) -> Door {
        let permits = Arc::new(Semaphore::new(limits.connections_max));
        Door { router, permits, header_timeout: limits.patience }
    }

    /// Serves whoever connects. Dropping it closes all its connections, except
    /// those that WebSockets took over.
    pub(super) async fn open(self, listener: TcpListener, _addr: SocketAddr) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream, &mut connections),
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    fn admit(&self, stream: TcpStream, connections: &mut JoinSet<()>) {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            // What does not fit into the socket at once is not worth a wait.
            let _ = stream.try_write(TOO_MANY);
            return;
        };
        let door = self.clone();
        connections.spawn(async move {
            // A connection that fails is the browser's to open again.
            let _ = door.serve(stream).await;
            drop(permit);
        });
    }

    async fn serve(self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        // The system ends a connection whose other side takes nothing: a file
        // of which nobody reads the end would keep it for ever.
        SockRef::from(&stream).set_tcp_user_timeout(Some(STALL_TIMEOUT))?;
        let local = Local(stream.local_addr()?);
        let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(local);
            self.router.clone().oneshot(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Counts while a connection waits for its next request too.
            .header_read_timeout(self.header_timeout)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        connection.await.map_err(io::Error::other)
    }
}
