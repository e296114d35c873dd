//! What a connection's bytes go over: a bare TCP socket, or TLS on one.
//!
//! The driver of streams is made for each wire by the compiler, so a bare
//! socket costs no choice at run time. Knows no protocol.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection as hyper reads and writes it, and the wire that it is to the
/// driver of streams.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Sized + Unpin + Send + 'static {
    /// The wire.
    type Wire: Wire + From<Self> + Send + 'static;
}

impl Connection for TcpStream {
    type Wire = Plain;
}

impl Connection for TlsStream<TcpStream> {
    type Wire = Self;
}

/// Both directions of a connection, for one task that polls them.
///
/// What is pending wakes the task of a `Context` that was handed in for that
/// direction: the last one, save that reads may stay with an earlier one until
/// [`forget_waker`](Self::forget_waker). Dropping a wire closes the connection.
pub(crate) trait Wire: Unpin {
    /// Reads what there is, as far as it fits; nothing at the end of the input.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Takes the next read's `Context` for a new one, however alike the last
    /// was.
    fn forget_waker(&mut self) {}

    /// Takes bytes to be written, as many as it says; pending when it takes
    /// none.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Ready once the system has all that was taken.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether bytes were taken that the system has not.
    fn holds_back(&self) -> bool;

    /// Writes all that was taken, and says that nothing follows. Input can
    /// still be read.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A bare TCP socket.
///
/// Laid out so that what each turn looks at comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Plain {
    /// Whether the task is registered to be woken by input.
    awaits_input: bool,
    socket: TcpStream,
}

impl From<TcpStream> for Plain {
    fn from(socket: TcpStream) -> Plain {
        Plain { awaits_input: false, socket }
    }
}

impl Plain {
    #[cold]
    fn poll_write_when_ready(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_write_ready(cx))?;
                }
                written => return Poll::Ready(written),
            }
        }
    }
}

impl Wire for Plain {
    #[inline]
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = false;
            let read = self.socket.try_io(Interest::READABLE, || {
                ready = true;
                Ok(rustix::io::read(&self.socket, &mut *buffer)?)
            });
            // What was registered for is used up once it came.
            self.awaits_input &= !ready;
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Nearly every turn is about output: it must not pay for
                    // registering once more.
                    if self.awaits_input {
                        return Poll::Pending;
                    }
                    self.awaits_input = true;
                    ready!(self.socket.poll_read_ready(cx))?;
                    self.awaits_input = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return Poll::Ready(read),
            }
        }
    }

    fn forget_waker(&mut self) {
        self.awaits_input = false;
    }

    #[inline]
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // The system is asked first: a socket that has room needs nothing of what
        // the runtime knows of it.
        match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
            Ok(written) => Poll::Ready(Ok(written)),
            Err(_) => self.poll_write_when_ready(cx, bytes),
        }
    }

    #[inline]
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn holds_back(&self) -> bool {
        false
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// TLS takes more than the system does: only what was flushed is on its way.
impl Wire for TlsStream<TcpStream> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(AsyncRead::poll_read(Pin::new(self), cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(self), cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(self), cx)
    }

    fn holds_back(&self) -> bool {
        self.get_ref().1.wants_write()
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(self), cx)
    }
}
