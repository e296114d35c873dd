//! A hub without sockets, whose ids count up and whose clock is moved by hand.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use watchtower_hub::{Batch, ChannelRule, Drained, Entropy, Hub, Limits, Settings, Timestamp};
use watchtower_protocols::packets::{Admission, Options, Registrar};
use watchtower_protocols::stream::{ANSWERS_BYTES_MAX, Close, StreamSession};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The longest content in these scenes, in bytes: few enough to be reached.
pub(crate) const MESSAGE_BYTES_MAX: usize = 2_000;

/// What may be delivered ahead of an answer.
const DELIVER_BYTES_MAX: usize = 4 << 20;

/// The first id that is given out.
pub(crate) const FIRST_ID: u32 = 5;

pub(crate) struct Counting(AtomicU64);

impl Counting {
    pub(crate) fn from(first: u64) -> Box<Counting> {
        Box::new(Counting(AtomicU64::new(first)))
    }
}

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// A hub with limits that a short input reaches, and channels that keep something.
pub(crate) fn hub() -> Hub {
    let kept = ChannelRule { pattern: "7".to_owned(), history_messages: 3, ..ChannelRule::default() };
    let limits = Limits {
        message_bytes_max: MESSAGE_BYTES_MAX,
        channels_max: 8,
        channels_per_sender_max: 5,
        senders_max: 12,
        lag_messages: 40,
        ..Limits::default()
    };
    let settings = Settings { limits, channels: vec![kept], ..Settings::default() };
    Hub::new(settings, Counting::from(FIRST_ID.into()))
}

/// Lets anyone register who shows no secret, or `tower`.
struct Anyone;

impl Registrar for Anyone {
    fn admit(&self, _address: IpAddr, secret: Option<&[u8]>) -> Admission {
        match secret {
            None | Some(b"tower") => Admission::Granted,
            Some(b"again") => Admission::TooMany,
            Some(_) => Admission::Refused,
        }
    }
}

pub(crate) fn packet_options() -> Options {
    Options {
        address: Ipv4Addr::LOCALHOST.into(),
        registrar: Arc::new(Anyone),
        patience: PATIENCE,
        errors: Arc::default(),
    }
}

/// A connection, and the part of its driver that matters: input that is not done with comes
/// again, a pause passes, and what is delivered follows what is answered.
pub(crate) struct Connection<S> {
    pub(crate) session: S,
    pub(crate) is_closed: bool,
    partial: Vec<u8>,
}

impl<S: StreamSession> Connection<S> {
    pub(crate) fn new(mut session: S) -> (Connection<S>, Vec<u8>) {
        let mut out = Vec::new();
        session.begin(&mut out);
        (Connection { session, is_closed: false, partial: Vec::new() }, out)
    }

    /// What the client reads after it wrote this in one piece, which takes time if the client is
    /// made to wait. Of what it has begun to say it keeps `partial_bytes_max` at most.
    pub(crate) fn send(
        &mut self,
        input: &[u8],
        now: &mut Timestamp,
        answer_bytes_max: usize,
        partial_bytes_max: usize,
    ) -> Vec<u8> {
        let mut read = Vec::new();
        if self.is_closed {
            return read;
        }
        self.partial.extend_from_slice(input);
        loop {
            let mut out = Vec::new();
            let received = self.session.receive(&self.partial, *now, &mut out);
            let bytes_max = ANSWERS_BYTES_MAX + DELIVER_BYTES_MAX + answer_bytes_max;
            assert!(out.len() <= bytes_max, "{} bytes at once", out.len());
            let is_full = out.len() >= ANSWERS_BYTES_MAX;
            read.append(&mut out);
            let Ok(done) = received else {
                self.is_closed = true;
                return read;
            };
            assert!(done <= self.partial.len(), "more was taken than there is");
            self.partial.drain(..done);
            let pause = self.session.pause();
            if let Some(pause) = pause {
                assert!(pause <= Duration::from_secs(5), "a pause of {pause:?}");
                *now = now.after(pause);
            }
            if !(is_full || pause.is_some()) {
                break;
            }
        }
        assert!(self.partial.len() <= partial_bytes_max, "{} bytes are kept", self.partial.len());
        read.extend(self.hear());
        read
    }

    /// What is delivered to the client.
    pub(crate) fn hear(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.is_closed {
            return out;
        }
        let mut context = std::task::Context::from_waker(Waker::noop());
        if self.session.poll_close(&mut context, &mut out).is_ready() {
            self.is_closed = true;
            return out;
        }
        let mut batch = Batch::default();
        let drained =
            self.session.session().drain(self.session.format(), Some(Waker::noop()), usize::MAX, &mut batch);
        batch.frames.iter().for_each(|frame| out.extend_from_slice(frame));
        if drained == Drained::Lagging {
            self.session.lagging(&mut out);
            self.is_closed = true;
        }
        out
    }

    /// What the client reads if it says nothing for as long as it may.
    pub(crate) fn wait(&mut self, now: &mut Timestamp) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(patience) = self.session.patience().filter(|_| !self.is_closed) else { return out };
        *now = now.after(patience);
        if let Err(Close) = self.session.out_of_patience(*now, &mut out) {
            self.is_closed = true;
        }
        out
    }

    /// What the client reads last, when the server ends.
    pub(crate) fn shut_down(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.is_closed {
            self.session.shut_down(&mut out);
            self.is_closed = true;
        }
        out
    }
}
