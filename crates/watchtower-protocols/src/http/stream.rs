//! The open end of an HTTP response: messages from the hub, heartbeats, and a
//! last word.
//!
//! Knows no socket and no request: the head of the response is out before a
//! stream begins here, and whatever the client sends afterwards is not looked
//! at.

use std::fmt;
use std::time::Duration;

use bytes::BytesMut;
use watchtower_hub::{Batch, ChannelName, Drained, Format, Joined, Session, Timestamp};

use super::framing::Framing;
use super::message::{NDJSON, NDJSON_CHUNKED, SSE, SSE_CHUNKED, write_channel};
use crate::json::write_string;
use crate::stream::{Close, StreamSession};

/// What messages look like on a stream.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// A JSON value a line.
    Ndjson,
    /// Server-Sent Events.
    Sse,
    /// Frames of another protocol.
    Octets(&'static Octets),
}

/// A stream of another protocol's frames. Protocols do not know each other:
/// whoever puts them together says what that one's frames are.
pub struct Octets {
    /// Its messages.
    pub plain: &'static dyn Format,
    /// The same, each in a chunk: a [`Chunked`](super::Chunked).
    pub chunked: &'static dyn Format,
    /// What it says to a client that fell behind too far.
    pub overloaded: &'static [u8],
    /// What it says when the server shuts down.
    pub shutting_down: &'static [u8],
    /// Appends what it says to a client for which not all is kept: of which channel, and
    /// the offset after which that goes on.
    pub incomplete: fn(&mut BytesMut, &ChannelName, u64),
}

impl fmt::Debug for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Octets").finish_non_exhaustive()
    }
}

/// Where a stream starts on one of its channels.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The channel.
    pub channel: ChannelName,
    /// What the hub said.
    pub joined: Joined,
}

/// One stream of `GET /channels/join`.
#[derive(Debug)]
pub struct HttpStream {
    session: Session,
    form: Form,
    framing: Framing,
    heartbeat: Duration,
    /// What is said first, until it is said.
    opening: Vec<u8>,
}

impl HttpStream {
    /// A stream of what `session` is subscribed to, with a sign of life after
    /// each `heartbeat` of silence.
    ///
    /// It begins with a sign of life at once, and, when the client said where
    /// it was (`resumes`), with where it goes on for each of `channels`
    /// ([http: since]). SSE is told its position on every channel even
    /// otherwise, as an `id` without an event: a client that is cut off before
    /// its first message comes back with it, and misses nothing.
    pub fn new(
        session: Session,
        form: Form,
        framing: Framing,
        heartbeat: Duration,
        channels: &[Opening],
        resumes: bool,
    ) -> HttpStream {
        let mut opening = BytesMut::from(form.heartbeat());
        if let Form::Sse = form {
            write_positions(channels, &mut opening);
        }
        if resumes {
            channels.iter().for_each(|channel| form.write_recovered(channel, &mut opening));
        }
        HttpStream { session, form, framing, heartbeat, opening: opening.into() }
    }

    fn end(&self, code: &str, message: &str, out: &mut Vec<u8>) {
        let mut last = BytesMut::new();
        match self.form {
            Form::Ndjson => {
                write_error(code, message, &mut last);
                last.extend_from_slice(b"\n");
            }
            Form::Sse => {
                last.extend_from_slice(b"event: error\ndata: ");
                write_error(code, message, &mut last);
                last.extend_from_slice(b"\n\n");
            }
            Form::Octets(octets) if code == OVERLOADED => last.extend_from_slice(octets.overloaded),
            Form::Octets(octets) => last.extend_from_slice(octets.shutting_down),
        }
        self.framing.write(&last, out);
        self.framing.finish(out);
    }
}

const OVERLOADED: &str = "overloaded";
const SHUTTING_DOWN: &str = "shutting_down";

impl Form {
    /// The media type of the response.
    pub fn media_type(self) -> &'static str {
        match self {
            Form::Ndjson => "application/x-ndjson",
            Form::Sse => "text/event-stream",
            Form::Octets(_) => "application/octet-stream",
        }
    }

    fn heartbeat(self) -> &'static [u8] {
        match self {
            Form::Ndjson | Form::Octets(_) => b"\n",
            Form::Sse => b":\n\n",
        }
    }

    /// [http: since]
    fn write_recovered(self, opening: &Opening, out: &mut BytesMut) {
        match self {
            Form::Ndjson => {
                write_recovered(opening, out);
                out.extend_from_slice(b"\n");
            }
            Form::Sse => {
                out.extend_from_slice(b"event: recovered\ndata: ");
                write_recovered(opening, out);
                out.extend_from_slice(b"\n\n");
            }
            Form::Octets(octets) => {
                let Joined { position, recovered } = opening.joined;
                if !recovered {
                    (octets.incomplete)(out, &opening.channel, position.offset);
                }
            }
        }
    }
}

impl StreamSession for HttpStream {
    fn session(&self) -> &Session {
        &self.session
    }

    fn format(&self) -> &dyn Format {
        match (self.form, self.framing) {
            (Form::Ndjson, Framing::Chunked) => &NDJSON_CHUNKED,
            (Form::Ndjson, Framing::UntilClose) => &NDJSON,
            (Form::Sse, Framing::Chunked) => &SSE_CHUNKED,
            (Form::Sse, Framing::UntilClose) => &SSE,
            (Form::Octets(octets), Framing::Chunked) => octets.chunked,
            (Form::Octets(octets), Framing::UntilClose) => octets.plain,
        }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        let opening = std::mem::take(&mut self.opening);
        self.framing.write(&opening, out);
    }

    /// A response is under way: what comes meanwhile is of no interest.
    fn receive(&mut self, input: &[u8], _now: Timestamp, _out: &mut Vec<u8>) -> Result<usize, Close> {
        Ok(input.len())
    }

    /// A client of HTTP ends its side only when it goes away.
    fn reads_after_end_of_input(&self) -> bool {
        false
    }

    fn patience(&self) -> Option<Duration> {
        None
    }

    fn out_of_patience(&mut self, _now: Timestamp, _out: &mut Vec<u8>) -> Result<(), Close> {
        Ok(())
    }

    fn heartbeat(&self) -> Option<Duration> {
        Some(self.heartbeat)
    }

    fn beat(&mut self, out: &mut Vec<u8>) {
        self.framing.write(self.form.heartbeat(), out);
    }

    fn lagging(&mut self, out: &mut Vec<u8>) {
        self.end(OVERLOADED, "the stream fell behind too far", out);
    }

    fn shut_down(&mut self, out: &mut Vec<u8>) {
        let mut batch = Batch::default();
        if self.session.drain(self.format(), None, usize::MAX, &mut batch) == Drained::Lagging {
            return self.lagging(out);
        }
        batch.frames.iter().for_each(|frame| out.extend_from_slice(frame));
        self.end(SHUTTING_DOWN, "the server is shutting down", out);
    }
}

fn write_error(code: &str, message: &str, out: &mut BytesMut) {
    out.extend_from_slice(b"{\"error\":");
    write_string(code, out);
    out.extend_from_slice(b",\"message\":");
    write_string(message, out);
    out.extend_from_slice(b"}");
}

fn write_recovered(opening: &Opening, out: &mut BytesMut) {
    let Joined { position, recovered } = opening.joined;
    out.extend_from_slice(b"{\"channel\":");
    write_channel(&opening.channel, out);
    let rest = format!(
        ",\"recovered\":{recovered},\"epoch\":\"{}\",\"offset\":{}}}",
        position.epoch, position.offset
    );
    out.extend_from_slice(rest.as_bytes());
}

/// An `id` and nothing else, which is kept by the client and shown to nobody:
/// the positions in the order of the channels, as `since` takes them.
fn write_positions(channels: &[Opening], out: &mut BytesMut) {
    for (index, opening) in channels.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"id: " } else { b"," });
        out.extend_from_slice(opening.joined.position.to_string().as_bytes());
    }
    out.extend_from_slice(b"\n\n");
}
