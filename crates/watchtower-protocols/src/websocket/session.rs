//! One client on a WebSocket, as a driver of streams sees it: messages to its
//! handler, pings, and the end.
//!
//! Knows no protocol; what the messages mean is the handler's.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use watchtower_hub::{Format, Session, Timestamp};

use super::client::{Client, Line};
use super::decoder::{Decoder, Event, Rules, Violation};
use super::frame::{self, Opcode};
use super::handler::Conversation;
use super::inflation::InflationMeter;
use super::{CloseCode, Compression, InflationCounts, ViolationCounts};
use crate::stream::{ANSWERS_BYTES_MAX, Close, StreamSession};

/// The shortest pause between two calls of a handler that ran out of patience.
const PATIENCE_MIN: Duration = Duration::from_millis(1);

/// How much of a client's messages is looked at before others get their turn. A
/// few bytes can stand for much, once they are inflated.
const LOOK_BYTES_MAX: usize = 128 * 1024;

/// How long the client waits then for its next turn.
const BREATH: Duration = Duration::from_millis(1);

/// What a server sets for all its WebSockets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The longest message of a client, in bytes, after decompression. A longer
    /// one closes the connection with 1009.
    pub message_bytes_max: usize,
    /// How often a client is pinged. One that says nothing at all between two
    /// pings is closed.
    pub ping_interval: Duration,
    /// How long a client may take to complete a message that it has begun. It
    /// is looked at when a ping is due.
    pub message_timeout: Duration,
    /// Where it is counted what compression led to.
    pub inflation: Arc<InflationCounts>,
    /// Where it is counted what clients sent that they must not.
    pub violations: Arc<ViolationCounts>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            message_bytes_max: 1 << 20,
            ping_interval: Duration::from_secs(30),
            message_timeout: Duration::from_secs(10),
            inflation: Arc::default(),
            violations: Arc::default(),
        }
    }
}

/// A client on a WebSocket whose handshake is done: made by
/// [`Endpoint::accept`](super::Endpoint::accept).
pub struct WebSocket {
    /// Comes before the line: its handler is told of the end while the hub
    /// still knows the connection. `None` once that is closing: for the handler
    /// it is over then, however long the client takes to see it.
    conversation: Option<Box<dyn Conversation>>,
    line: Line,
    decoder: Decoder,
    settings: Settings,
    /// What was sent while it opened, until it is written.
    opening: Vec<u8>,
    /// How long until the next ping is due.
    until_ping: Duration,
    /// How long until the handler is out of patience.
    until_patience: Option<Duration>,
    /// Whether anything came since the last ping, or since the opening.
    was_heard: bool,
    /// Whether it is not listened to, so that its silence means nothing.
    is_paused: bool,
    /// Since when a message is not complete.
    unfinished_since: Option<Timestamp>,
    inflated: InflationMeter,
}

impl WebSocket {
    pub(super) fn new(
        line: Line,
        conversation: Box<dyn Conversation>,
        settings: Settings,
        opening: Vec<u8>,
    ) -> WebSocket {
        let until_patience = conversation.patience().map(|until| until.max(PATIENCE_MIN));
        WebSocket {
            line,
            decoder: Decoder::default(),
            conversation: Some(conversation),
            until_ping: settings.ping_interval.max(PATIENCE_MIN),
            settings,
            opening,
            until_patience,
            was_heard: true,
            is_paused: false,
            unfinished_since: None,
            inflated: InflationMeter::default(),
        }
    }
}

impl WebSocket {
    /// What the client may send now.
    fn rules(&self) -> Rules {
        Rules {
            message_bytes_max: self.settings.message_bytes_max,
            inflated_bytes_max: self.conversation.as_ref().map_or(0, |talk| talk.inflated_bytes_max()),
            may_deflate: self.line.compression != Compression::None,
        }
    }

    /// Whether nothing more is to be looked at for now.
    fn breaks_off(&self, out: &[u8]) -> bool {
        self.line.is_closing
            || self.line.pause.is_some()
            || self.line.is_waiting()
            || out.len() >= ANSWERS_BYTES_MAX
    }

    /// Takes input until it breaks off, or the rules change.
    fn look(
        &mut self,
        input: &[u8],
        looked_at: &mut usize,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> Result<usize, Violation> {
        let rules = self.rules();
        let WebSocket { line, conversation, decoder, settings, inflated, .. } = self;
        let per_second = rules.inflated_bytes_max.min(rules.message_bytes_max);
        let result = decoder.decode(input, rules, |event| {
            let mut has_new_rules = false;
            match event {
                Event::Message { message, sent_bytes } => {
                    *looked_at += message.length();
                    let wait = inflated.charge(sent_bytes, message.length(), per_second, now);
                    if let Some(conversation) = conversation {
                        conversation.message(&mut Client { line, now, out }, message);
                        has_new_rules = conversation.inflated_bytes_max() != rules.inflated_bytes_max;
                    }
                    if let Some(wait) = wait {
                        line.pause = Some(line.pause.map_or(wait, |pause| pause.max(wait)));
                        settings.inflation.count_wait();
                    }
                }
                // What answers a ping is not longer than it was, so that answers
                // are bounded by the input.
                Event::Ping(payload) => frame::write_control(Opcode::Pong, payload, out),
                Event::Pong => {}
                Event::Close(code) => line.answer_close(code, out),
            }
            if *looked_at > LOOK_BYTES_MAX {
                line.pause.get_or_insert(BREATH);
            }
            let breaks_off = line.is_closing || line.pause.is_some() || line.is_waiting();
            if has_new_rules || breaks_off || out.len() >= ANSWERS_BYTES_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if result == Err(Violation::InflatesTooFar) {
            settings.inflation.count_refusal();
        }
        result
    }

    fn end_if_closing(&mut self) -> Result<(), Close> {
        if self.line.is_closing {
            self.conversation = None;
            return Err(Close);
        }
        Ok(())
    }
}

impl StreamSession for WebSocket {
    fn session(&self) -> &Session {
        &self.line.session
    }

    fn format(&self) -> &dyn Format {
        self.line.frames.format(self.line.compression)
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.opening);
        self.opening = Vec::new();
    }

    fn receive(&mut self, input: &[u8], now: Timestamp, out: &mut Vec<u8>) -> Result<usize, Close> {
        if self.line.is_closing {
            return Err(Close);
        }
        self.was_heard |= !input.is_empty();
        self.line.seen = now;
        if std::mem::take(&mut self.is_paused)
            && let Some(conversation) = &mut self.conversation
        {
            conversation.resumed(&mut Client { line: &mut self.line, now, out });
        }
        let (mut taken, mut looked_at) = (0, 0);
        while taken < input.len() && !self.breaks_off(out) {
            let rest = input.get(taken..).unwrap_or_default();
            match self.look(rest, &mut looked_at, now, out) {
                Ok(more) => taken += more,
                Err(violation) => {
                    self.settings.violations.count(violation.close_code());
                    self.line.close(violation.close_code(), &violation.to_string(), out);
                    taken = input.len();
                }
            }
        }
        if !self.decoder.is_amid_message() {
            self.unfinished_since = None;
        } else if self.unfinished_since.is_none() || looked_at > 0 {
            self.unfinished_since = Some(now);
        }
        self.end_if_closing().map(|()| taken)
    }

    fn pause(&mut self) -> Option<Duration> {
        self.is_paused |= self.line.pause.is_some();
        self.line.pause.take()
    }

    fn is_waiting(&self) -> bool {
        self.line.is_waiting()
    }

    fn poll_answered(&mut self, cx: &mut Context<'_>, now: Timestamp, out: &mut Vec<u8>) -> Poll<()> {
        while let Some((result, ())) = self.line.unanswered.next(cx.waker()) {
            if let Some(conversation) = &mut self.conversation {
                conversation.published(&mut Client { line: &mut self.line, now, out }, result);
            }
        }
        if !self.line.unanswered.is_empty() {
            return Poll::Pending;
        }
        self.line.is_held = false;
        Poll::Ready(())
    }

    /// A client that is gone without a word does not read either: WebSocket
    /// says goodbye by a close frame.
    fn reads_after_end_of_input(&self) -> bool {
        false
    }

    fn patience(&self) -> Option<Duration> {
        Some(self.until_patience.map_or(self.until_ping, |until| until.min(self.until_ping)))
    }

    fn out_of_patience(&mut self, now: Timestamp, out: &mut Vec<u8>) -> Result<(), Close> {
        self.line.seen = now;
        let waited = self.patience().unwrap_or_default();
        self.until_ping = self.until_ping.saturating_sub(waited);
        self.until_patience = self.until_patience.map(|until| until.saturating_sub(waited));
        if self.until_patience.is_some_and(|until| until.is_zero()) {
            self.until_patience = self.conversation.as_mut().and_then(|conversation| {
                conversation.out_of_patience(&mut Client { line: &mut self.line, now, out });
                Some(conversation.patience()?.max(PATIENCE_MIN))
            });
        }
        if self.until_ping.is_zero() && !self.line.is_closing {
            self.until_ping = self.settings.ping_interval.max(PATIENCE_MIN);
            let unfinished = self.unfinished_since.map_or(Duration::ZERO, |since| now.since(since));
            let was_heard = std::mem::take(&mut self.was_heard) || self.is_paused;
            if unfinished >= self.settings.message_timeout && self.unfinished_since.is_some() {
                self.line.close(CloseCode::POLICY, "a message took too long", out);
            } else if was_heard {
                frame::write_control(Opcode::Ping, &[], out);
            } else {
                self.line.close(CloseCode::POLICY, "no answer to a ping", out);
            }
        }
        self.end_if_closing()
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<()> {
        let closed = self.line.poll_close(cx, out);
        if closed.is_ready() {
            self.conversation = None;
        }
        closed
    }

    /// With 1008, as other brokers do: 1013 would tell it to stay away, though
    /// it is welcome to come back at once.
    fn lagging(&mut self, out: &mut Vec<u8>) {
        self.line.close(CloseCode::POLICY, "too far behind: read faster, or come back", out);
        self.conversation = None;
    }

    fn shut_down(&mut self, out: &mut Vec<u8>) {
        self.line.deliver(out);
        self.line.close(CloseCode::GOING_AWAY, "the server shuts down", out);
        self.conversation = None;
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("line", &self.line).finish_non_exhaustive()
    }
}
