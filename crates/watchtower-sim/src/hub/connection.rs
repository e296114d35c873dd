//! The server's end of one connection: drives a protocol on a stream of bytes
//! as the server does, one turn at a time, in virtual time.
//!
//! The way to the client has a bounded room; of what is on it only the length
//! is kept, since what the server said is looked at when it says it. Knows no
//! protocol and no model.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use watchtower_hub::{Batch, Drained, Timestamp};
use watchtower_protocols::stream::{ANSWERS_BYTES_MAX, Close, StreamSession};

/// How long the last bytes may take to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Something that happened in a turn.
#[derive(Debug)]
pub(super) enum Event {
    /// The session took all up to here of what the client ever sent, and answered.
    Took { until: u64, closes: bool, out: Vec<u8> },
    /// It was handed messages, and whether these were all.
    Gathered { out: Vec<u8>, is_all: bool },
    /// It said something by itself.
    Said { why: Why, closes: bool, out: Vec<u8> },
}

/// Why a session says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Begins,
    Closed,
    Lags,
    OutOfPatience,
    Beats,
    ShutsDown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nothing more is read; what was published until now is delivered.
    Ending,
    /// What there is, is written.
    Flushing,
    Over,
}

pub(super) struct Connection {
    session: Box<dyn StreamSession>,
    waker: Waker,
    poker: Waker,
    phase: Phase,
    /// What the network brought.
    arrived: Vec<u8>,
    has_ended: bool,
    /// How much of all that was ever sent is done with.
    taken: u64,
    partial: Vec<u8>,
    is_held: bool,
    answers: Vec<u8>,
    unsent: usize,
    /// What is written and not read.
    on_the_way: usize,
    room: usize,
    timer: Option<Timestamp>,
    pause: Option<Timestamp>,
    last_sent: Timestamp,
    now: Timestamp,
    events: Vec<Event>,
}

impl Connection {
    pub(super) fn new(
        session: Box<dyn StreamSession>,
        waker: Waker,
        room: usize,
        now: Timestamp,
    ) -> Connection {
        let poker = session.session().poker();
        // Its first turn comes by itself.
        waker.wake_by_ref();
        let mut connection = Connection {
            session,
            waker,
            poker,
            phase: Phase::Open,
            arrived: Vec::new(),
            has_ended: false,
            taken: 0,
            partial: Vec::new(),
            is_held: false,
            answers: Vec::new(),
            unsent: 0,
            on_the_way: 0,
            room,
            timer: None,
            pause: None,
            last_sent: now,
            now,
            events: Vec::new(),
        };
        connection.say(Why::Begins, |session, out| {
            session.begin(out);
            Ok(())
        });
        connection
    }

    // The network.

    /// Bytes of the client arrive.
    pub(super) fn carry(&mut self, bytes: &[u8]) {
        self.arrived.extend_from_slice(bytes);
        self.poker.wake_by_ref();
    }

    /// The client said that it sends no more.
    pub(super) fn end_input(&mut self) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.poker.wake_by_ref();
        }
    }

    /// The client reads so many bytes at most; how many there were.
    pub(super) fn read(&mut self, most: usize) -> usize {
        let length = self.on_the_way.min(most);
        self.on_the_way -= length;
        if length > 0 && self.unsent > 0 {
            self.poker.wake_by_ref();
        }
        length
    }

    /// Wakes it if something is due.
    pub(super) fn look_at_clock(&self, now: Timestamp) {
        if self.timer.into_iter().chain(self.pause).any(|due| due <= now) {
            self.poker.wake_by_ref();
            if self.phase != Phase::Open {
                self.waker.wake_by_ref();
            }
        }
    }

    /// Whether it is over, so that it is to be dropped.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether it is still in the middle of its conversation.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    // Turns.

    /// Does what there is to do.
    pub(super) fn turn(&mut self, now: Timestamp) -> Vec<Event> {
        self.now = now;
        if self.phase == Phase::Open {
            self.turn_open();
        }
        if self.phase != Phase::Open {
            self.turn_closing();
        }
        std::mem::take(&mut self.events)
    }

    /// The server ends; what it says then.
    pub(super) fn shut_down(&mut self, now: Timestamp) -> Vec<Event> {
        self.now = now;
        if self.is_open() {
            self.say(Why::ShutsDown, |session, out| {
                session.shut_down(out);
                Err(Close)
            });
        }
        std::mem::take(&mut self.events)
    }

    fn turn_open(&mut self) {
        let poker = self.poker.clone();
        let start = self.answers.len();
        if self.session.poll_close(&mut Context::from_waker(&poker), &mut self.answers) == Poll::Ready(()) {
            let out = self.answers[start..].to_vec();
            self.events.push(Event::Said { why: Why::Closed, closes: true, out });
            return self.flush_and_close();
        }
        if self.pause.is_some_and(|due| due <= self.now) {
            self.pause = None;
            self.take(&[]);
        } else if self.may_read() && self.is_held {
            self.take(&[]);
        } else if self.may_read() && !self.arrived.is_empty() {
            let input = std::mem::take(&mut self.arrived);
            self.take(&input);
        } else if self.may_read() && self.has_ended {
            if !self.session.reads_after_end_of_input() {
                self.phase = Phase::Over;
                return;
            }
            self.flush_and_close();
            self.phase = Phase::Ending;
            return;
        }
        self.write();
        self.look_at_timer();
        if self.phase == Phase::Open && self.unsent > 0 && self.session.session().is_lagging() {
            self.lag();
        }
        if self.phase == Phase::Open {
            self.follow_session();
            let is_ready = !self.arrived.is_empty() || self.has_ended || self.is_held;
            if self.may_read() && is_ready {
                self.waker.wake_by_ref();
            }
        }
    }

    fn turn_closing(&mut self) {
        if self.timer.is_some_and(|due| due <= self.now) {
            self.phase = Phase::Over;
        }
        self.write();
        if self.phase == Phase::Flushing && self.unsent == 0 && self.answers.is_empty() {
            self.phase = Phase::Over;
        }
    }

    /// Not while the client has to wait, or leaves too many answers unread.
    fn may_read(&self) -> bool {
        self.pause.is_none() && self.answers.len() < ANSWERS_BYTES_MAX
    }

    /// Hands input to the session.
    fn take(&mut self, input: &[u8]) {
        self.partial.extend_from_slice(input);
        let (start, length) = (self.answers.len(), self.partial.len());
        let result = self.session.receive(&self.partial, self.now, &mut self.answers);
        let done = result.unwrap_or(length).min(length);
        self.partial.drain(..done);
        self.taken += done as u64;
        let (out, closes) = (self.answers[start..].to_vec(), result.is_err());
        self.events.push(Event::Took { until: self.taken, closes, out });
        self.is_held = self.answers.len() >= ANSWERS_BYTES_MAX && !self.partial.is_empty();
        self.pause = self.session.pause().map(|pause| self.now.after(pause));
        match result {
            Err(Close) => self.flush_and_close(),
            Ok(_) if self.pause.is_some() || self.is_held => {}
            Ok(done) if self.session.patience().is_none() || (done > 0 && done < length) => self.timer = None,
            Ok(_) => {}
        }
    }

    fn flush_and_close(&mut self) {
        self.phase = Phase::Flushing;
        self.partial.clear();
        self.timer = Some(self.now.after(FLUSH_TIMEOUT));
        // The server goes on with that in the same turn.
        self.waker.wake_by_ref();
    }

    /// Writes until there is nothing more, or the way takes no more.
    fn write(&mut self) {
        loop {
            let written = self.unsent.min(self.room - self.on_the_way);
            self.unsent -= written;
            self.on_the_way += written;
            if self.unsent > 0 || !self.fill() {
                return;
            }
        }
    }

    /// Gathers answers and messages; whether there is something to write.
    fn fill(&mut self) -> bool {
        let mut batch = Batch::default();
        if matches!(self.phase, Phase::Open | Phase::Ending) {
            // About what the way takes: with little room, a drain ends amid a log.
            let session = self.session.session();
            let drained = session.drain(self.session.format(), Some(&self.waker), self.room, &mut batch);
            if drained == Drained::Lagging {
                self.lag();
            } else {
                let is_all = drained == Drained::All;
                self.events.push(Event::Gathered { out: batch.frames.concat(), is_all });
                if self.phase == Phase::Ending && batch.frames.is_empty() {
                    self.phase = Phase::Flushing;
                }
            }
        }
        self.unsent = self.answers.len() + batch.bytes;
        self.answers.clear();
        if self.unsent > 0 {
            self.last_sent = self.now;
        }
        self.unsent > 0
    }

    fn lag(&mut self) {
        self.say(Why::Lags, |session, out| {
            session.lagging(out);
            Err(Close)
        });
    }

    fn say(&mut self, why: Why, say: impl FnOnce(&mut dyn StreamSession, &mut Vec<u8>) -> Result<(), Close>) {
        let start = self.answers.len();
        let closes = say(&mut *self.session, &mut self.answers).is_err();
        let out = self.answers[start..].to_vec();
        self.events.push(Event::Said { why, closes, out });
        if closes {
            self.flush_and_close();
        }
    }

    fn look_at_timer(&mut self) {
        if self.phase != Phase::Open {
            return;
        }
        if self.timer.is_none() {
            self.timer = self.next_timer();
        }
        if self.timer.is_none_or(|due| due > self.now) {
            return;
        }
        self.timer = None;
        let now = self.now;
        if self.session.patience().is_some() {
            self.say(Why::OutOfPatience, |session, out| session.out_of_patience(now, out));
        } else if let Some(heartbeat) = self.session.heartbeat()
            && now.since(self.last_sent) >= heartbeat
            && self.unsent == 0
        {
            self.say(Why::Beats, |session, out| {
                session.beat(out);
                Ok(())
            });
            self.last_sent = now;
        }
        self.write();
        if self.phase == Phase::Open {
            self.timer = self.next_timer();
        }
    }

    fn next_timer(&self) -> Option<Timestamp> {
        if let Some(patience) = self.session.patience() {
            return Some(self.now.after(patience));
        }
        let from = if self.unsent > 0 { self.now } else { self.last_sent };
        self.session.heartbeat().map(|heartbeat| from.after(heartbeat))
    }

    /// Is poked by the session that is delivered now, if that has changed.
    fn follow_session(&mut self) {
        let session = self.session.session();
        let poker = session.poker();
        if !poker.will_wake(&self.poker) {
            session.wait(&self.waker);
            self.poker = poker;
            self.waker.wake_by_ref();
        }
    }
}
