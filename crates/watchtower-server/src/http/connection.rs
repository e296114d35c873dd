//! One HTTP connection: hyper within its limits, until it ends or a stream
//! takes it over.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::Http;
use super::takeover::{Onward, Takeover, Tap};
use crate::metrics::ByReason;

/// The most headers that a request may have.
pub(super) const HEADERS_MAX: usize = 100;

/// The least that hyper may buffer, whatever the limit of heads is.
const BUFFER_BYTES_MIN: usize = 64 * 1024;

/// How long a connection that is idle, when the server begins to shut down,
/// stays open to be told so.
const DRAIN_IDLE: Duration = Duration::from_secs(2);

/// How long a closed connection waits for the client to see why, and how much
/// of what it still sends is thrown away meanwhile.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// A connection on which something else goes on.
pub(crate) struct TakenOver<IO> {
    /// The connection itself; the head of the response is out.
    pub(crate) io: IO,
    /// What was read after the request.
    pub(crate) read_already: Bytes,
    /// What goes on.
    pub(crate) onward: Onward,
}

impl Http {
    /// Serves a connection of a client at `address`, of which `read_already`
    /// was read, to its end, or until a stream goes on with it.
    ///
    /// Once `drain` is ready, the connection ends with the request in flight,
    /// with the next one, or after a short while. Dropping the future closes
    /// the connection at once.
    pub(crate) fn serve<'a, IO: AsyncRead + AsyncWrite + Unpin + Send + 'a>(
        &self,
        io: IO,
        read_already: impl Into<Bytes>,
        address: IpAddr,
        drain: impl Future<Output = ()> + Send + 'a,
    ) -> Pin<Box<dyn Future<Output = Option<TakenOver<IO>>> + Send + 'a>> {
        let (http, read_already) = (self.clone(), read_already.into());
        // In a box of its own, whose memory is free again when a stream, which
        // needs little, goes on for hours.
        Box::pin(async move {
            let takeover = Takeover::default();
            let tap = Tap::new(io, read_already, takeover.clone(), http.state.metrics.clone());
            let (tap, read_last, onward) = http.run(tap, takeover, address, drain).await;
            let Some(onward) = onward else {
                close(tap).await;
                return None;
            };
            let (io, read_first) = tap.into_parts();
            // Nearly always one of them is empty, and mostly both are.
            let read_already = match (read_last.is_empty(), read_first.is_empty()) {
                (_, true) => read_last,
                (true, false) => read_first,
                (false, false) => [read_last, read_first].concat().into(),
            };
            Some(TakenOver { io, read_already, onward })
        })
    }

    async fn run<IO: AsyncRead + AsyncWrite + Unpin>(
        self,
        tap: Tap<IO>,
        takeover: Takeover,
        address: IpAddr,
        drain: impl Future<Output = ()>,
    ) -> (Tap<IO>, Bytes, Option<Onward>) {
        let builder = self.builder();
        let for_requests = takeover.clone();
        let metrics = self.state.metrics.clone();
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(for_requests.clone());
            let answer = self.clone().answer(request, address);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut connection = builder.serve_connection(TokioIo::new(tap), service);
        let mut drained = pin!(async {
            drain.await;
            sleep(DRAIN_IDLE).await;
        });
        let mut is_drained = false;
        let onward = poll_fn(|cx| {
            if !is_drained && drained.as_mut().poll(cx).is_ready() {
                is_drained = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            // An error means that the client is gone, or was told already.
            let polled = Pin::new(&mut connection).poll(cx);
            if let Poll::Ready(Err(error)) = &polled
                && error.is_timeout()
            {
                metrics.http_timeouts.get_or_create(&ByReason { reason: "request" }).inc();
            }
            let ended = polled.is_ready();
            match takeover.take() {
                Some(Onward::Stream(_)) | None if ended => Poll::Ready(None),
                None => Poll::Pending,
                onward => Poll::Ready(onward),
            }
        });
        let onward = onward.await;
        let parts = connection.into_parts();
        (parts.io.into_inner(), parts.read_buf, onward)
    }

    fn builder(&self) -> http1::Builder {
        let limits = &self.state.config.load().limits;
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            // Counts while a connection waits for its next request too.
            .header_read_timeout(limits.header_timeout)
            .max_headers(HEADERS_MAX)
            .max_header_size(limits.max_header_bytes)
            .max_buf_size(limits.max_header_bytes.max(BUFFER_BYTES_MIN))
            // A client may say that its request was the last, and read on.
            .half_close(true);
        builder
    }
}

/// Closes a connection so that the client sees its last answer: closing while
/// input waits unread would reset it, and the answer with it.
async fn close<IO: AsyncRead + AsyncWrite + Unpin>(tap: Tap<IO>) {
    let at_end = tap.at_end;
    let (mut io, _) = tap.into_parts();
    if io.shutdown().await.is_err() || at_end {
        return;
    }
    let discard = async {
        let mut discarded = 0;
        let mut chunk = [0; 4096];
        while discarded < LINGER_BYTES_MAX {
            match io.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(length) => discarded += length,
            }
        }
    };
    let _ = timeout(LINGER, discard).await;
}
