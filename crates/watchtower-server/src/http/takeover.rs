//! Taking a stream's connection over from hyper.
//!
//! hyper reads the request and writes the head of the response; from then on a
//! stream is frames that are shared by all who listen, which the byte-stream
//! driver writes to the connection itself. So a stream costs what a connection of
//! packets costs, and hyper's buffers are gone while it lasts.
//!
//! How we know that hyper is done: the response's body never gives a frame,
//! and notes that it was asked for one, which hyper does after it has put the
//! head, and all earlier responses, into its write buffer. It flushes the
//! connection only when that buffer is empty. So a flush after the body was asked
//! means that every byte is with the system, and that hyper will write no more.
//! (`Conn::poll_flush` and `Dispatcher::poll_write` of hyper 1.12; a test with
//! a reader that is slow to take an earlier response holds us to it.)

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body::Frame;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use watchtower_protocols::http::HttpStream;
use watchtower_protocols::websocket::WebSocket;

use super::SERVER_NAME;
use super::error::{ErrorCode, refusal};
use crate::metrics::{ByReason, ByRefusal, ByStatus, Metrics};

/// How long a client may take nothing of an answer that it asked for, before
/// its connection is closed.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// One connection's part in its takeover, known to its requests too. Clones
/// are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Takeover(Arc<Slot>);

/// What goes on on a connection that hyper is done with.
#[derive(Debug)]
pub(crate) enum Onward {
    /// A response without an end.
    Stream(HttpStream),
    /// Another protocol, which was switched to.
    WebSocket(Box<WebSocket>),
}

#[derive(Debug, Default)]
struct Slot {
    /// What takes over. It goes with the connection, if that ends before.
    onward: Mutex<Option<Onward>>,
    /// hyper has asked for the body: the head is in its write buffer.
    asked: AtomicBool,
    /// hyper's write buffer was empty after that.
    flushed: AtomicBool,
}

impl Takeover {
    /// Lets `stream` take over once the head of the response is out whose body
    /// this returns.
    pub(super) fn prepare(&self, stream: HttpStream) -> Body {
        *self.0.onward.lock() = Some(Onward::Stream(stream));
        Body::new(NeverBody(self.0.clone()))
    }

    /// Lets `socket` take over once the response is out that switches
    /// protocols: hyper ends with that by itself.
    ///
    /// hyper puts its head into the write buffer as soon as it has it, without
    /// flushing before: the next flush is the one that counts.
    pub(super) fn upgrade(&self, socket: WebSocket) {
        *self.0.onward.lock() = Some(Onward::WebSocket(Box::new(socket)));
        self.0.asked.store(true, Ordering::Relaxed);
    }

    /// What goes on, once hyper is done with the connection.
    pub(super) fn take(&self) -> Option<Onward> {
        let done = self.0.flushed.load(Ordering::Relaxed);
        if done { self.0.onward.lock().take() } else { None }
    }
}

/// The body of a stream's response: it has no end, and never gives anything.
struct NeverBody(Arc<Slot>);

impl http_body::Body for NeverBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    /// Nobody is woken: the flush that follows is what is waited for.
    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.asked.store(true, Ordering::Relaxed);
        Poll::Pending
    }
}

/// A connection as hyper sees it.
///
/// Gives what was read before hyper came, notes when hyper has written
/// everything, and puts words to the answers that hyper makes by itself.
#[derive(Debug)]
pub(super) struct Tap<IO> {
    io: IO,
    read_already: Bytes,
    takeover: Takeover,
    /// What is written in place of an answer of hyper's own.
    refusal: Bytes,
    metrics: Arc<Metrics>,
    /// Whether the client has said that it sends no more.
    pub(super) at_end: bool,
    /// While the client takes nothing: when that has been for too long.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Tap<IO> {
    pub(super) fn new(io: IO, read_already: Bytes, takeover: Takeover, metrics: Arc<Metrics>) -> Tap<IO> {
        Tap { io, read_already, takeover, refusal: Bytes::new(), metrics, at_end: false, stalled: None }
    }

    /// The connection, and what was read of it that hyper has not looked at.
    pub(super) fn into_parts(self) -> (IO, Bytes) {
        (self.io, self.read_already)
    }

    /// Whether hyper writes an answer of its own; then ours is to be written.
    fn replaces(&mut self, written: &[u8]) -> bool {
        let Some((code, ours)) = own_refusal(written) else { return false };
        let status = code.status().as_u16();
        self.metrics.http_requests.get_or_create(&ByStatus { status }).inc();
        self.metrics.http_refusals.get_or_create(&ByRefusal { code: code.name() }).inc();
        self.refusal = ours;
        true
    }

    /// Bounds how long a client may take nothing of its answer.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL_TIMEOUT)));
        ready!(stalled.as_mut().poll(cx));
        self.metrics.http_timeouts.get_or_create(&ByReason { reason: "answer" }).inc();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.refusal.is_empty() {
            let written = Pin::new(&mut self.io).poll_write(cx, &self.refusal);
            let written = ready!(self.watch(cx, written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.refusal.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// What to say in place of an answer that hyper made by itself, to what never
/// got as far as our routes.
///
/// Such an answer is a lone head without a body, and without the name that
/// each of our answers has in its head. A later part of one of our answers
/// cannot be taken for it: their bodies hold no CR.
fn own_refusal(written: &[u8]) -> Option<(ErrorCode, Bytes)> {
    let status = written.strip_prefix(b"HTTP/1.1 ").or_else(|| written.strip_prefix(b"HTTP/1.0 "))?;
    let (status, head) = status.split_at_checked(3)?;
    let name = SERVER_NAME.as_bytes();
    let is_ours = head.windows(name.len()).any(|window| window.eq_ignore_ascii_case(name));
    if is_ours || !head.ends_with(b"\r\n\r\n") {
        return None;
    }
    let (code, body) = refusal(StatusCode::from_bytes(status).ok()?)?;
    let status = code.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut answer = format!(
        "HTTP/1.1 {} {reason}\r\nx-server-name: Watchtower\r\nx-content-type-options: nosniff\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        status.as_str(),
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    Some((code, answer.into()))
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tap<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read_already.is_empty() {
            let length = self.read_already.len().min(buf.remaining());
            buf.put_slice(&self.read_already.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.at_end |= buf.filled().len() == before && buf.remaining() > 0;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tap<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.replaces(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [bytes] = bufs
            && self.replaces(bytes)
        {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// Called by hyper with an empty write buffer, and never otherwise.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        let slot = &self.takeover.0;
        if slot.asked.load(Ordering::Relaxed) {
            slot.flushed.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_hyper_makes_by_itself_is_replaced() {
        let ours = own_refusal(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let (code, ours) = ours.expect("hyper's own");
        assert_eq!(code, ErrorCode::BadRequest);
        assert!(ours.starts_with(b"HTTP/1.1 400 Bad Request\r\nx-server-name: Watchtower\r\n"));
        assert!(ours.ends_with(br#"{"error":"bad_request","message":"what came is not HTTP"}"#));
        for kept in [
            &b"HTTP/1.1 400 Bad Request\r\nx-server-name: Watchtower\r\n\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\nX-Server-Name: Watchtower\r\n\r\n{}",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 400",
            b"HTTP/1.1 4",
            b"",
            b"\r\nHTTP/1.1 400 Bad Request\r\n\r\n",
        ] {
            assert_eq!(own_refusal(kept), None, "{}", kept.escape_ascii());
        }
    }
}
