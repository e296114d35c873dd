//! The shape of a protocol on a stream of bytes, as a driver sees it.
//!
//! Knows no socket and no clock: the driver reads, writes and keeps time.

use std::task::{Context, Poll};
use std::time::Duration;

use watchtower_hub::{Format, Session, Timestamp};

/// How much of the answers to a client may wait for it to read. From there on
/// what it says waits too, so that short requests for long answers take no more
/// memory than this and one answer.
pub const ANSWERS_BYTES_MAX: usize = 64 * 1024;

/// One client's side of a protocol on a stream of bytes (TCP, or the open end
/// of an HTTP response).
///
/// The driver calls one method at a time. Bytes that a method appends to `out`
/// are written before anything that the hub delivers afterwards.
pub trait StreamSession: Send {
    /// The hub's side of this client, which the driver drains.
    fn session(&self) -> &Session;

    /// What delivered messages look like on this stream.
    fn format(&self) -> &dyn Format;

    /// What the client is told before it has said anything.
    fn begin(&mut self, _out: &mut Vec<u8>) {}

    /// Takes what came. Returns how many bytes are done with; the rest is the
    /// beginning of something incomplete, and comes again with more behind it.
    ///
    /// Once `out` holds [`ANSWERS_BYTES_MAX`], nothing more is carried out: the
    /// rest comes again when the client has taken what it was answered.
    ///
    /// # Errors
    ///
    /// [`Close`]: what is in `out` is written, then the connection is closed.
    /// The input after that is not looked at.
    fn receive(&mut self, input: &[u8], now: Timestamp, out: &mut Vec<u8>) -> Result<usize, Close>;

    /// Whether what the client says next waits until something that it
    /// published is kept. Asked after each [`receive`](Self::receive): what that
    /// left comes again when this has changed, and what follows it is not read
    /// before.
    fn is_waiting(&self) -> bool {
        false
    }

    /// Says what became of what the client published and was not answered for
    /// yet, as far as that is known and in order. `Ready` when all is answered;
    /// otherwise `cx` is woken when there is more to say.
    fn poll_answered(&mut self, _cx: &mut Context<'_>, _now: Timestamp, _out: &mut Vec<u8>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Whether a client that sends nothing more may still read. Then it is given
    /// what was published until now, and the connection is closed; otherwise it
    /// is closed at once, and what was not written waits for its return.
    fn reads_after_end_of_input(&self) -> bool {
        true
    }

    /// How long the client may take to complete what it has begun to say, or
    /// must say first; `None` while it owes nothing.
    fn patience(&self) -> Option<Duration>;

    /// For how long nothing more of what the client says is to be looked at.
    /// Asked once after each [`receive`](Self::receive); what that left comes
    /// again afterwards, and what follows it is not read before.
    fn pause(&mut self) -> Option<Duration> {
        None
    }

    /// The patience with the client ran out. `Ok` means to go on: then
    /// [`patience`](Self::patience) is asked again.
    ///
    /// # Errors
    ///
    /// [`Close`]: what is in `out` is written, then the connection is closed.
    fn out_of_patience(&mut self, now: Timestamp, out: &mut Vec<u8>) -> Result<(), Close>;

    /// Whether the connection is to be closed for a reason that came neither
    /// from the client nor from the time: `Ready` after saying so in `out`.
    /// Otherwise `cx` is woken when it is.
    fn poll_close(&mut self, _cx: &mut Context<'_>, _out: &mut Vec<u8>) -> Poll<()> {
        Poll::Pending
    }

    /// After how much silence towards the client a sign of life is due.
    fn heartbeat(&self) -> Option<Duration> {
        None
    }

    /// The sign of life.
    fn beat(&mut self, _out: &mut Vec<u8>) {}

    /// The client fell behind too far: says so; the connection is closed
    /// ([model: log]).
    fn lagging(&mut self, out: &mut Vec<u8>);

    /// The server shuts down: says so; the connection is closed.
    fn shut_down(&mut self, out: &mut Vec<u8>);
}

/// The connection is to be closed, after what was written for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close;
