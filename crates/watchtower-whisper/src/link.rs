//! A connection that was dialled, and how it stands with it once the other side
//! has ended it.
//!
//! That something was written says only that this machine's kernel has it. Who
//! hangs up without reading it is known by the reset with which its kernel
//! answers. Knows nothing of what is written.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;

/// How much a peer may send on a connection on which it has nothing to say.
const UNASKED_BYTES_MAX: usize = 1 << 20;

/// With what a TLS alert begins, and no JSON does: the other side wants TLS.
const ALERT: u8 = 0x15;

/// How long the other side's kernel has to say what it made of the rest.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// How often it is looked whether it has.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A connection, within TLS or not.
pub(crate) trait Link: AsyncRead + AsyncWrite + Send + Unpin {
    /// What it goes over.
    fn socket(&self) -> &TcpStream;
}

impl Link for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Link for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Reads what nobody asked for, to see the end of the connection. Whether that
/// was an orderly one.
pub(crate) async fn discard(mut input: impl AsyncRead + Unpin) -> bool {
    let mut ignored = [0; 512];
    let mut bytes = 0;
    while bytes <= UNASKED_BYTES_MAX {
        match input.read(&mut ignored).await {
            Ok(0) => return true,
            Ok(_) if bytes == 0 && ignored.first() == Some(&ALERT) => return false,
            Ok(length) => bytes += length,
            // Within TLS few say that they end.
            Err(error) => return error.kind() == std::io::ErrorKind::UnexpectedEof,
        }
    }
    false
}

/// Whether the other side, which has ended in order, had read all that was
/// written before it did.
pub(crate) async fn took_all(mut link: Box<dyn Link>) -> bool {
    let closed = async {
        // Both sides have ended then, and the rest is between the kernels.
        link.shutdown().await.ok();
        while link.socket().peer_addr().is_ok() {
            sleep(LOOK_INTERVAL).await;
        }
    };
    timeout(ANSWER_TIMEOUT, closed).await.is_ok() && matches!(link.socket().take_error(), Ok(None))
}
