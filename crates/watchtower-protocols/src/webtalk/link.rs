//! The private link: one application on a TCP connection.
//!
//! Frames in, calls on [`WebTalk`], replies out, in order. Knows no socket and
//! no clock. Nothing is delivered here: an application talks to users, it is
//! none.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use watchtower_hub::{Format, FormatId, Message, Position, Refused, Session, Timestamp, WhenLagging};

use super::command::Command;
use super::frame::{self, Body, Decoded};
use super::{LinkError, WebTalk};
use crate::stream::{ANSWERS_BYTES_MAX, Close, StreamSession};
use crate::unanswered::Unanswered;

/// At which failed login the link closes.
const LOGIN_FAILURES_MAX: u8 = 3;

/// For how long after a wrong secret none is looked at: it takes that long to
/// try the next one.
const LOGIN_PAUSE: Duration = Duration::from_secs(1);

/// Who may use the private link.
pub trait Gate: Send + Sync {
    /// Whether an application must show the secret first
    /// ([running: webtalk.secret]).
    fn is_locked(&self) -> bool;

    /// Whether this is the secret. Takes the same time for every wrong one.
    fn admits(&self, secret: &[u8]) -> bool;
}

/// One application on the private link.
pub struct Link {
    talk: WebTalk,
    gate: Arc<dyn Gate>,
    /// Opened to be counted; it is subscribed to nothing.
    session: Session,
    /// `None` once the application may do everything.
    lock: Option<Lock>,
    /// What was shouted and is not answered yet.
    unanswered: Unanswered<()>,
    /// Whether a frame waits until all of that is answered.
    is_waiting: bool,
    /// Whether it has begun a frame, or has yet to send its first.
    owes: bool,
}

/// What keeps an application out that has not shown the secret.
#[derive(Debug, Default)]
struct Lock {
    /// When it first said something.
    since: Option<Timestamp>,
    failures: u8,
    last_failure: Option<Timestamp>,
}

/// What a command is answered with: what stands behind `[ok]`, or the error.
type Reply = Result<Cow<'static, [u8]>, LinkError>;

impl Link {
    /// An application that has just connected.
    pub fn new(talk: &WebTalk, gate: Arc<dyn Gate>) -> Link {
        let session = talk.hub().open("webtalk-private", WhenLagging::Close);
        let lock = gate.is_locked().then(Lock::default);
        Link {
            talk: talk.clone(),
            gate,
            session,
            lock,
            unanswered: Unanswered::default(),
            is_waiting: false,
            owes: true,
        }
    }

    /// Answers one frame.
    fn answer(&mut self, frame: &[u8], now: Timestamp, out: &mut Vec<u8>) -> Result<(), Close> {
        let command = Command::parse(frame);
        let may_be_said_first = matches!(command, Ok(Command::Login(_) | Command::Goodbye));
        let result = match command {
            // Who may do nothing is not told either what is wrong with it.
            _ if self.lock.is_some() && !may_be_said_first => Some(Err(LinkError::LoginNeeded)),
            Ok(command) => self.carry_out(command, now).transpose(),
            Err(error) => Some(Err(error)),
        };
        if let Some(result) = &result {
            reply(result, out);
        }
        let is_locked_out = self.lock.as_ref().is_some_and(|lock| lock.failures >= LOGIN_FAILURES_MAX);
        if is_locked_out || command == Ok(Command::Goodbye) { Err(Close) } else { Ok(()) }
    }

    /// Whether the time to log in is over. The driver's own clock for it begins
    /// anew with each frame that has another behind it.
    fn is_locked_for_too_long(&mut self, now: Timestamp) -> bool {
        let patience = self.talk.header_timeout();
        self.lock.as_mut().is_some_and(|lock| now.since(*lock.since.get_or_insert(now)) >= patience)
    }

    /// [webtalk: login]
    fn log_in(&mut self, secret: &[u8], now: Timestamp) -> Result<(), LinkError> {
        let Some(lock) = &mut self.lock else { return Ok(()) };
        let is_too_soon = lock.last_failure.is_some_and(|failure| now.since(failure) < LOGIN_PAUSE);
        if is_too_soon {
            lock.failures += 1;
            return Err(LinkError::LoginTooSoon);
        }
        if !self.gate.admits(secret) {
            lock.failures += 1;
            lock.last_failure = Some(now);
            return Err(LinkError::WrongSecret);
        }
        self.lock = None;
        Ok(())
    }

    /// Whether a frame has to wait for the replies to those before it. Shouts need
    /// not, as long as they are no errors.
    fn must_wait(&self, frame: &[u8]) -> bool {
        if self.unanswered.is_empty() {
            return false;
        }
        let may_shout = |channel| self.lock.is_none() && self.talk.has_channel(channel);
        let may_go_ahead =
            matches!(Command::parse(frame), Ok(Command::Shout { channel, .. }) if may_shout(channel));
        !may_go_ahead || self.unanswered.is_full()
    }

    /// [webtalk: private link] The reply, or none when it is known later.
    fn carry_out(
        &mut self,
        command: Command<'_>,
        now: Timestamp,
    ) -> Result<Option<Cow<'static, [u8]>>, LinkError> {
        let talk = &self.talk;
        let done = |words: &'static str| Ok(words.as_bytes().into());
        let reply: Reply = match command {
            Command::Goodbye => done("goodbye"),
            Command::Login(secret) => self.log_in(secret, now).and_then(|()| done("logged in")),
            Command::Shout { channel, message } => {
                let published = talk.shout(channel, message, now)?;
                return self.unanswered.add(Ok(published), ()).map(|(result, ())| sent(result)).transpose();
            }
            Command::NewUser => Ok(talk.new_user(now)?.to_string().into_bytes().into()),
            Command::KillUser(user) => talk.kill_user(user, now).and_then(|()| done("user killed")),
            Command::Whisper { user, message } => {
                talk.whisper(user, message, now).and_then(|()| done("message sent"))
            }
            Command::NewChannel => Ok(talk.new_channel()?.to_string().into_bytes().into()),
            Command::KillChannel(channel) => {
                talk.kill_channel(channel, now).and_then(|()| done("channel killed"))
            }
            Command::Join { channel, user } => {
                talk.join(channel, user, now).and_then(|()| done("user joined"))
            }
            Command::Leave { channel, user } => {
                talk.leave(channel, user, now).and_then(|()| done("user leaved"))
            }
            Command::Store { key, value } => {
                talk.store(key, value)?;
                Ok([b"stored ", key].concat().into())
            }
            Command::Retrieve(key) => Ok(Vec::from(talk.retrieve(key)?).into()),
            Command::Clear(key) => {
                talk.clear(key)?;
                Ok([b"cleared ", key].concat().into())
            }
        };
        reply.map(Some)
    }
}

/// What a shout is answered with.
fn sent(result: Result<Position, Refused>) -> Reply {
    Ok(result.map(|_| b"message sent".as_slice().into())?)
}

/// Appends the frame that answers a command.
fn reply(reply: &Reply, out: &mut Vec<u8>) {
    let body = match reply {
        Ok(data) => Body { word: b"ok", data },
        Err(error) => Body { word: b"error", data: error.sentence().as_bytes() },
    };
    if body.encode(out).is_err() {
        // A value that came otherwise than by a link.
        refuse(LinkError::TooLarge, out);
    }
}

fn refuse(error: LinkError, out: &mut Vec<u8>) {
    reply(&Err(error), out);
}

impl StreamSession for Link {
    fn session(&self) -> &Session {
        &self.session
    }

    fn format(&self) -> &dyn Format {
        &NOTHING
    }

    fn receive(&mut self, input: &[u8], now: Timestamp, out: &mut Vec<u8>) -> Result<usize, Close> {
        if self.is_locked_for_too_long(now) {
            return self.out_of_patience(now, out).map(|()| 0);
        }
        let mut done = 0;
        while out.len() < ANSWERS_BYTES_MAX {
            let rest = input.get(done..).unwrap_or_default();
            let decoded = frame::decode(rest);
            let must_wait = match decoded {
                Decoded::Frame { bytes, .. } => self.must_wait(bytes),
                Decoded::Incomplete => false,
                Decoded::BadLength => !self.unanswered.is_empty(),
            };
            if must_wait {
                self.owes = false;
                self.is_waiting = true;
                return Ok(done);
            }
            match decoded {
                Decoded::Frame { bytes, consumed } => {
                    done += consumed;
                    self.owes = false;
                    self.answer(bytes, now, out)?;
                }
                Decoded::Incomplete => {
                    self.owes |= !rest.is_empty();
                    return Ok(done);
                }
                Decoded::BadLength => {
                    refuse(LinkError::BadLength, out);
                    return Err(Close);
                }
            }
        }
        Ok(done)
    }

    fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    fn poll_answered(&mut self, cx: &mut Context<'_>, _now: Timestamp, out: &mut Vec<u8>) -> Poll<()> {
        while let Some((result, ())) = self.unanswered.next(cx.waker()) {
            reply(&sent(result), out);
        }
        if !self.unanswered.is_empty() {
            return Poll::Pending;
        }
        self.is_waiting = false;
        Poll::Ready(())
    }

    /// An application that has logged in and begun nothing may be silent for
    /// as long as it likes.
    fn patience(&self) -> Option<Duration> {
        (self.owes || self.lock.is_some()).then(|| self.talk.header_timeout())
    }

    fn out_of_patience(&mut self, _now: Timestamp, out: &mut Vec<u8>) -> Result<(), Close> {
        refuse(LinkError::OutOfPatience, out);
        Err(Close)
    }

    /// Never called: nothing is delivered here that could be too much.
    fn lagging(&mut self, _out: &mut Vec<u8>) {}

    fn shut_down(&mut self, out: &mut Vec<u8>) {
        refuse(LinkError::ShutsDown, out);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("lock", &self.lock).field("owes", &self.owes).finish_non_exhaustive()
    }
}

/// The format of a client that nothing is delivered to.
struct Nothing;

static NOTHING: Nothing = Nothing;

impl Format for Nothing {
    fn id(&self) -> FormatId {
        FormatId::new(14)
    }

    fn encode(&self, _message: &Message, _out: &mut BytesMut) {}
}
