//! What a [`Handler`](super::Handler) sees of a connection.
//!
//! Knows no frames beyond asking for them, and no decoder.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use watchtower_hub::{
    Batch, ChannelName, Drained, Hub, Joined, Position, Publish, Published, Refused, SenderId, Session,
    Start, Timestamp,
};

use super::format::{Compression, Frames, MessageKind};
use super::frame::Opcode;
use super::{CloseCode, frame};
use crate::unanswered::Unanswered;

/// How much a client is given at once ahead of leaving a channel.
const DELIVER_BYTES_MAX: usize = 4 << 20;

/// A message from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
}

impl Incoming<'_> {
    /// How many bytes it has.
    pub(super) fn length(&self) -> usize {
        match self {
            Incoming::Text(text) => text.len(),
            Incoming::Binary(bytes) => bytes.len(),
        }
    }
}

/// A message to one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outgoing<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
}

/// One connection's side towards the hub, and how messages to it are framed.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) session: Held,
    pub(super) frames: Arc<Frames>,
    pub(super) compression: Compression,
    /// The sender that was registered for this connection alone.
    sender: Option<SenderId>,
    /// Invariant: once set, the last thing written is a close frame.
    pub(super) is_closing: bool,
    closer: Option<Closer>,
    /// Who was last told to the closer.
    watcher: Option<Waker>,
    /// When something last happened here.
    pub(super) seen: Timestamp,
    /// For how long the client is not to be listened to.
    pub(super) pause: Option<Duration>,
    /// What was published and the handler is to be told of.
    pub(super) unanswered: Unanswered<()>,
    /// Whether the client is not to be listened to until all of that was told.
    pub(super) is_held: bool,
}

/// The session that a connection delivers: nearly always its own, which is
/// found here without another step.
#[derive(Debug)]
pub(super) enum Held {
    Own(Session),
    Shared(Arc<Session>),
}

impl Deref for Held {
    type Target = Session;

    fn deref(&self) -> &Session {
        match self {
            Held::Own(session) => session,
            Held::Shared(session) => session,
        }
    }
}

impl Line {
    pub(super) fn new(
        session: Session,
        frames: Arc<Frames>,
        compression: Compression,
        now: Timestamp,
    ) -> Line {
        // Nobody can come back to a connection that is gone.
        session.end_joins_on_close();
        Line {
            session: Held::Own(session),
            frames,
            compression,
            sender: None,
            is_closing: false,
            closer: None,
            watcher: None,
            seen: now,
            pause: None,
            unanswered: Unanswered::default(),
            is_held: false,
        }
    }

    fn forget_sender(&mut self) {
        if let Some(sender) = self.sender.take() {
            // Who is unknown already need not be forgotten.
            let _ = self.session.hub().unregister(sender, self.seen);
        }
    }

    /// Whether the client is not listened to until publications are answered.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_held || self.unanswered.is_full()
    }

    /// Sends a close frame, if none was sent.
    pub(super) fn close(&mut self, code: CloseCode, reason: &str, out: &mut Vec<u8>) {
        if !self.is_closing {
            self.is_closing = true;
            frame::write_close(code, reason, out);
        }
    }

    /// Answers a client's close frame with the same code (RFC 6455 5.5.1).
    pub(super) fn answer_close(&mut self, code: Option<CloseCode>, out: &mut Vec<u8>) {
        match code {
            Some(code) => self.close(code, "", out),
            None if !self.is_closing => {
                self.is_closing = true;
                frame::write_control(Opcode::Close, &[], out);
            }
            None => {}
        }
    }

    /// Whether the connection is to be closed, by what a [`Closer`] said.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<()> {
        if self.is_closing {
            return Poll::Ready(());
        }
        let Some(Closer(verdict)) = &self.closer else { return Poll::Pending };
        if !self.watcher.as_ref().is_some_and(|watcher| watcher.will_wake(cx.waker())) {
            self.watcher = Some(cx.waker().clone());
            verdict.register(cx.waker());
        }
        let Some((code, reason)) = verdict.said.get().cloned() else { return Poll::Pending };
        self.deliver(out);
        self.close(code, &reason, out);
        Poll::Ready(())
    }

    /// Appends what was published before now, as far as it is not more than a
    /// client may have unread that is not lagging.
    pub(super) fn deliver(&self, out: &mut Vec<u8>) {
        if self.is_closing {
            return;
        }
        let format = self.frames.format(self.compression);
        let mut batch = Batch::default();
        let room = DELIVER_BYTES_MAX.saturating_sub(out.len());
        // Who lags too far for it is closed when it is drained next.
        let _: Drained = self.session.drain(format, None, room, &mut batch);
        batch.frames.iter().for_each(|frame| out.extend_from_slice(frame));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.forget_sender();
    }
}

/// One client's connection, as its handler sees it while it is called.
pub struct Client<'a> {
    pub(super) line: &'a mut Line,
    pub(super) now: Timestamp,
    pub(super) out: &'a mut Vec<u8>,
}

impl Client<'_> {
    /// The sender of this connection, registered when it is first asked for.
    /// It ends with the connection.
    ///
    /// # Errors
    ///
    /// [`Refused::Limit`] when there are too many.
    pub fn sender(&mut self) -> Result<SenderId, Refused> {
        if let Some(sender) = self.line.sender {
            return Ok(sender);
        }
        let sender = self.line.session.register_passing(self.now)?;
        self.line.sender = Some(sender);
        Ok(sender)
    }

    /// The session that this connection delivers.
    pub fn session(&self) -> &Session {
        &self.line.session
    }

    /// Delivers another session from now on: one that was there before this
    /// connection, and goes on after it. What this connection was subscribed to
    /// until now ends, and so does its [`sender`](Self::sender).
    ///
    /// The caller sees to it that a session is delivered by one connection at a
    /// time, [resumes](Session::resume) it before, and
    /// [suspends](Session::suspend) it when the connection is over.
    pub fn adopt(&mut self, session: Arc<Session>) {
        self.line.forget_sender();
        self.line.session = Held::Shared(session);
    }

    /// The hub.
    pub fn hub(&self) -> Hub {
        self.line.session.hub()
    }

    /// The time of this call.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Joins [`sender`](Self::sender) to a channel and delivers what is
    /// published there from now on. The channel is created when new. Twice
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// [`Refused::Limit`].
    pub fn subscribe(&mut self, channel: &ChannelName) -> Result<Joined, Refused> {
        let sender = self.sender()?;
        self.line.session.join(sender, channel, self.now)
    }

    /// The same from `start` on, whatever was delivered here before, or missed.
    /// Twice starts anew.
    ///
    /// # Errors
    ///
    /// [`Refused::Limit`].
    pub fn follow(&mut self, channel: &ChannelName, start: Start) -> Result<Joined, Refused> {
        let sender = self.sender()?;
        self.line.session.follow(sender, channel, start, self.now)
    }

    /// What is delivered from now on looks like this, on all channels: another
    /// of the protocol's [`Frames`].
    pub fn deliver_as(&mut self, frames: Arc<Frames>) {
        self.line.frames = frames;
    }

    /// Leaves a channel. What was published there before is delivered first.
    /// Leaving what is not joined does nothing.
    ///
    /// # Errors
    ///
    /// [`Refused::UnknownSender`] when the sender was unregistered by somebody.
    pub fn unsubscribe(&mut self, channel: &ChannelName) -> Result<(), Refused> {
        let Some(sender) = self.line.sender else { return Ok(()) };
        self.line.deliver(self.out);
        self.hub().leave(sender, channel, self.now)
    }

    /// Publishes. Who publishes is what `message` says: nearly always
    /// [`sender`](Self::sender).
    ///
    /// On a durable channel it is known later what comes of it. Who has to know
    /// [awaits](Self::publish_awaited) it.
    ///
    /// # Errors
    ///
    /// As [`Hub::publish`].
    pub fn publish(&mut self, channel: &ChannelName, message: Publish<'_>) -> Result<Published, Refused> {
        self.line.session.publish(channel, message, self.now)
    }

    /// Publishes, and returns what came of it if that is known now. Otherwise
    /// [`Handler::published`](super::Handler::published) is told it later, in
    /// the order of these calls. After some 1,000 that wait the client is not
    /// listened to until it was told of all.
    pub fn publish_awaited(
        &mut self,
        channel: &ChannelName,
        message: Publish<'_>,
    ) -> Option<Result<Position, Refused>> {
        let published = self.publish(channel, message);
        self.line.unanswered.add(published, ()).map(|(result, ())| result)
    }

    /// Whether something is [awaited](Self::publish_awaited).
    pub fn is_awaiting(&self) -> bool {
        !self.line.unanswered.is_empty()
    }

    /// Listens to nothing more that the client says until all that is
    /// [awaited](Self::publish_awaited) was told: what it sends meanwhile waits.
    pub fn hold(&mut self) {
        self.line.is_held = self.is_awaiting();
    }

    /// Sends one message to this client alone, before anything that is
    /// delivered later. Nothing is sent after [`close`](Self::close).
    pub fn send(&mut self, message: Outgoing<'_>) {
        if self.line.is_closing {
            return;
        }
        let (kind, payload) = match message {
            Outgoing::Text(text) => (MessageKind::Text, text.as_bytes()),
            Outgoing::Binary(bytes) => (MessageKind::Binary, bytes),
        };
        frame::write_message(self.line.compression, kind, payload, self.out);
    }

    /// Closes the connection, after what was sent and published before. The
    /// reason is cut at 123 bytes. Nothing more that the client says is looked
    /// at. The first call counts.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.line.deliver(self.out);
        self.line.close(code, reason, self.out);
    }

    /// Listens to nothing more that the client says for that long: what it
    /// sends meanwhile waits, and is not lost. What it receives does not wait.
    pub fn pause(&mut self, pause: Duration) {
        self.line.pause = Some(pause);
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closing(&self) -> bool {
        self.line.is_closing
    }

    /// What closes this connection from elsewhere, at any time, from any
    /// thread.
    pub fn closer(&mut self) -> Closer {
        self.line.closer.get_or_insert_with(Closer::default).clone()
    }
}

impl fmt::Debug for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("line", &self.line).finish_non_exhaustive()
    }
}

/// Closes one connection from elsewhere: what was published before is sent,
/// then the close frame. Clones close the same connection; one that is over
/// stays so.
#[derive(Debug, Clone, Default)]
pub struct Closer(Arc<Verdict>);

#[derive(Debug, Default)]
struct Verdict {
    said: OnceLock<(CloseCode, String)>,
    waker: Mutex<Option<Waker>>,
}

impl Closer {
    /// Closes the connection. The first call counts.
    pub fn close(&self, code: CloseCode, reason: &str) {
        if self.0.said.set((code, reason.to_owned())).is_err() {
            return;
        }
        let waker = self.0.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Verdict {
    /// Wakes `waker` when something is said, if nothing is yet: to be looked at
    /// after this.
    fn register(&self, waker: &Waker) {
        *self.waker.lock() = Some(waker.clone());
    }
}
