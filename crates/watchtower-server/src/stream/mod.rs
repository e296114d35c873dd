//! Drives one protocol on one stream of bytes.
//!
//! Knows the runtime, of the connection only [`Wire`], and of the protocol only
//! [`StreamSession`]. An idle connection is a socket, this struct and its cursors:
//! the input buffer is shared by all connections of a thread, and output is
//! written from the bytes that all subscribers share.

mod group;
mod owner;

use std::cell::RefCell;
use std::hint;
use std::io;
use std::mem;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use tokio::time::Instant;
use watchtower_hub::{Batch, Drained, Timestamp};
use watchtower_protocols::stream::{ANSWERS_BYTES_MAX, Close, StreamSession};

use crate::clock;
use crate::metrics::{Publication, sample_delivery};
use crate::shutdown::Shutdown;
use crate::tcp::Guest;
use crate::timer::Timer;
use crate::wire::Wire;

pub(crate) use group::Groups;
use group::Member;
pub(crate) use owner::{Ending, Owner};

/// What one read takes, and one write about.
const CHUNK_BYTES: usize = 64 * 1024;

/// How many writes one turn may make before others get theirs.
const WRITES_PER_TURN: usize = 16;

/// How long a closed connection waits for the client to see why, and how much
/// of what it still sends is thrown away meanwhile.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// How much of what was published before the end a client is given at most,
/// while others go on publishing.
const LAST_BYTES_MAX: usize = 16 << 20;

/// How long the last bytes may take to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

thread_local! {
    static CHUNK: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK_BYTES]);
}

/// One connection, to be polled to its end.
///
/// Laid out so that what each delivery looks at comes first and together: with
/// many connections every one of them is out of the processor's caches when
/// its turn comes.
#[repr(C)]
pub(crate) struct Drive<W, S, G = Guest> {
    phase: Phase,
    gathered: Gathered,
    /// Whether something may have happened besides publications: input, the
    /// timer, what the session is closed for.
    is_poked: bool,
    /// Whether what was read waits until the client takes its answers, or
    /// until there are some.
    is_held: bool,
    /// Whether somebody waits to be told that all is written.
    is_watched: bool,
    /// Whether its owner was told that the client takes nothing.
    is_blocked: bool,
    /// What the wire did not take yet.
    unsent: Bytes,
    shutdown: Shutdown,
    wire: W,
    /// Answers that wait for `unsent`.
    answers: Vec<u8>,
    last_sent: Option<Instant>,
    session: S,
    /// What is woken by all but publications.
    poker: Waker,
    /// When the client's patience, a heartbeat, or the end of a phase is due.
    timer: Option<Timer>,
    /// Until when nothing is read.
    pause: Option<Timer>,
    /// The beginning of something incomplete.
    partial: Vec<u8>,
    /// When the message was published whose delivery is measured.
    measured: Option<Timestamp>,
    owner: G,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nothing more is read; what was published until now is delivered.
    Ending {
        end: End,
        bytes_left: usize,
    },
    /// Nothing more is read; what there is, is written.
    Flushing,
    /// Everything is written; the client may take its time to see it.
    Lingering {
        discarded: usize,
    },
}

/// What the first half of a turn has brought into `unsent`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Gathered {
    /// It was not looked for.
    #[default]
    Nothing,
    /// Some of it.
    Some,
    /// All that there was.
    All,
}

/// Why a connection is closed that is told all that was published before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client said that it sends no more.
    OfInput,
    /// The server shuts down.
    OfServer,
}

impl<W: Wire, S: StreamSession, G: Owner> Drive<W, S, G> {
    /// Takes over a connection.
    pub(crate) fn new(wire: W, session: S, owner: G, shutdown: Shutdown) -> Drive<W, S, G> {
        let last_sent = session.heartbeat().map(|_| Instant::now());
        let poker = session.session().poker();
        let mut drive = Drive {
            wire,
            poker,
            session,
            partial: Vec::new(),
            answers: Vec::new(),
            unsent: Bytes::new(),
            phase: Phase::Open,
            gathered: Gathered::Nothing,
            is_poked: true,
            is_held: false,
            is_watched: false,
            is_blocked: false,
            measured: None,
            timer: None,
            pause: None,
            last_sent,
            shutdown,
            owner,
        };
        drive.session.begin(&mut drive.answers);
        drive
    }

    /// The same, after `first` was read. What that leaves unfinished is to be
    /// finished by `due`, if that is given.
    pub(crate) fn after(mut self, first: &[u8], due: Option<Instant>) -> Drive<W, S, G> {
        self.timer = due.map(Timer::at);
        self.take(first);
        self
    }

    /// Hands input to the session.
    fn take(&mut self, input: &[u8]) {
        let now = clock::now();
        let publication = Publication::sample(|| self.session.session().hub());
        let (result, length) = if self.partial.is_empty() {
            let result = self.session.receive(input, now, &mut self.answers);
            if let Ok(done) = result {
                self.partial.extend_from_slice(input.get(done..).unwrap_or_default());
            }
            (result, input.len())
        } else {
            self.partial.extend_from_slice(input);
            let result = self.session.receive(&self.partial, now, &mut self.answers);
            let length = self.partial.len();
            if let Ok(done) = result {
                self.partial.drain(..done.min(length));
            }
            (result, length)
        };
        if let Some(publication) = publication {
            self.owner.carried_out(publication, &self.session.session().hub());
        }
        if self.partial.is_empty() {
            self.partial = Vec::new();
        }
        self.is_held = !self.partial.is_empty()
            && (self.answers.len() >= ANSWERS_BYTES_MAX || self.session.is_waiting());
        self.pause = self.session.pause().map(Timer::after);
        match result {
            Err(Close) => self.flush_and_close(Ending::Protocol),
            // What is due goes on being due, however often the client waits.
            Ok(_) if self.pause.is_some() || self.is_held => {}
            // Something was completed: what has begun behind it has its own
            // time. Padding alone completes nothing.
            Ok(done) if self.session.patience().is_none() || (done > 0 && done < length) => self.timer = None,
            Ok(_) => {}
        }
    }

    fn deliver_and_close(&mut self, end: End) {
        self.flush_and_close(match end {
            End::OfInput => Ending::EndOfInput,
            End::OfServer => Ending::Shutdown,
        });
        self.phase = Phase::Ending { end, bytes_left: LAST_BYTES_MAX };
    }

    fn flush_and_close(&mut self, ending: Ending) {
        if self.phase == Phase::Open {
            self.owner.ends(self.session.session().protocol(), ending);
        }
        self.phase = Phase::Flushing;
        self.partial = Vec::new();
        self.timer = Some(Timer::after(FLUSH_TIMEOUT));
    }

    /// Not while the client has to wait, or leaves too many answers unread.
    fn may_read(&self) -> bool {
        self.pause.is_none() && self.answers.len() < ANSWERS_BYTES_MAX && !self.session.is_waiting()
    }

    /// Has the client told what became of what it published; whether that is
    /// all of it. What comes later pokes the session.
    fn is_answered(&mut self) -> bool {
        let cx = &mut Context::from_waker(&self.poker);
        self.session.poll_answered(cx, clock::now(), &mut self.answers).is_ready()
    }

    /// Reads once; whether there may be more.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        CHUNK.with_borrow_mut(|chunk| {
            let length = ready!(self.wire.poll_read(cx, chunk))?;
            match &mut self.phase {
                Phase::Lingering { discarded } => *discarded += length,
                Phase::Open if length > 0 => self.take(chunk.get(..length).unwrap_or_default()),
                _ => {}
            }
            Poll::Ready(Ok(length > 0))
        })
    }

    /// Writes until there is nothing more, or the wire takes no more.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..WRITES_PER_TURN {
            ready!(self.poll_unsent(cx))?;
            if !self.fill(cx) {
                return self.poll_unsent(cx);
            }
        }
        // There may be more: after the others' turns.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what was gathered, as far as the wire takes it.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let Poll::Ready(written) = self.wire.poll_write(cx, &self.unsent) else {
                self.note_blocked();
                return Poll::Pending;
            };
            self.unsent.advance(written?);
        }
        if self.is_watched {
            self.note_written();
        }
        if self.wire.holds_back() { self.wire.poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    #[cold]
    fn note_blocked(&mut self) {
        if !mem::replace(&mut self.is_blocked, true) {
            self.is_watched = true;
            self.owner.blocked(self.session.session().backlog());
        }
    }

    #[cold]
    fn note_written(&mut self) {
        self.is_watched = false;
        if mem::take(&mut self.is_blocked) {
            self.owner.unblocked();
        }
        if let Some(published) = self.measured.take() {
            self.owner.delivered(clock::now().since(published));
        }
    }

    /// Whether the client has yet to take what was written for it.
    fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || self.wire.holds_back()
    }

    /// Gathers answers and messages, to be written at once. Whether there is more
    /// behind them. Not to be called while something is unsent.
    fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        let (mut batch, more) = self.gather_batch(cx);
        match (batch.frames.as_mut_slice(), self.answers.is_empty()) {
            ([], true) => return more,
            // Nearly always: one frame, or one run of frames, that is shared.
            ([frame], true) => self.unsent = mem::take(frame),
            (frames, _) => {
                // One piece costs less than a list of pieces, while it is small.
                let mut joined = mem::take(&mut self.answers);
                joined.reserve_exact(batch.bytes);
                frames.iter().for_each(|frame| joined.extend_from_slice(frame));
                self.unsent = joined.into();
            }
        }
        if self.last_sent.is_some() {
            self.last_sent = Some(Instant::now());
        }
        more
    }

    /// What the hub has for the client now, and whether there is more; at the
    /// end of it, the last words.
    fn gather_batch(&mut self, cx: &mut Context<'_>) -> (Batch, bool) {
        let mut batch = Batch::default();
        let is_over = matches!(self.phase, Phase::Ending { bytes_left: 0, .. });
        if is_over || !matches!(self.phase, Phase::Open | Phase::Ending { .. }) {
            self.say_last_words();
            return (batch, false);
        }
        // Before what was published is looked for, so that nothing comes between.
        let is_answered = self.phase == Phase::Open || self.is_answered();
        let format = self.session.format();
        let drained = self.session.session().drain(format, Some(cx.waker()), CHUNK_BYTES, &mut batch);
        self.is_poked |= batch.poked;
        let mut more = drained == Drained::More;
        if drained == Drained::Lagging {
            self.session.lagging(&mut self.answers);
            self.flush_and_close(Ending::Lagging);
        } else if batch.frames.is_empty() {
            if is_answered {
                self.say_last_words();
            }
        } else if let Phase::Ending { bytes_left, .. } = &mut self.phase {
            *bytes_left = bytes_left.saturating_sub(batch.bytes.max(1));
            more = true; // the last words at least
        }
        (batch, more)
    }

    /// Once all is delivered that was published before the end.
    fn say_last_words(&mut self) {
        let Phase::Ending { end, .. } = self.phase else { return };
        if end == End::OfServer {
            self.session.shut_down(&mut self.answers);
        }
        self.phase = Phase::Flushing;
    }

    /// What has come due; whether there is something new to write.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause
            && pause.poll_unpin(cx).is_ready()
        {
            self.take(&[]);
            // What it published may be answered by now.
            self.is_poked = true;
            return Poll::Ready(());
        }
        if self.timer.is_none() {
            self.timer = self.next_timer();
        }
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        ready!(timer.poll_unpin(cx));
        self.timer = None;
        if self.phase == Phase::Open {
            if self.session.patience().is_some() {
                if self.session.out_of_patience(clock::now(), &mut self.answers).is_err() {
                    self.flush_and_close(Ending::Late);
                }
            } else if let (Some(heartbeat), Some(last_sent)) = (self.session.heartbeat(), self.last_sent)
                && last_sent.elapsed() >= heartbeat
                && !self.has_unsent()
            {
                self.session.beat(&mut self.answers);
                self.last_sent = Some(Instant::now());
            }
        }
        Poll::Ready(())
    }

    fn next_timer(&self) -> Option<Timer> {
        if let Some(patience) = self.session.patience() {
            return Some(Timer::after(patience));
        }
        let (heartbeat, last_sent) = (self.session.heartbeat()?, self.last_sent?);
        // A client that takes nothing needs no sign of life, and no busy loop.
        let from = if self.has_unsent() { Instant::now() } else { last_sent };
        Some(Timer::at(from + heartbeat))
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shutdown.poll_started(cx).is_ready() {
            self.deliver_and_close(End::OfServer);
            return Poll::Ready(Ok(()));
        }
        let gathered = mem::take(&mut self.gathered);
        if gathered != Gathered::Nothing && !self.is_poked {
            // Nearly always something was published, and nothing else has happened.
            let mut output = self.poll_unsent(cx);
            if gathered == Gathered::Some && matches!(output, Poll::Ready(Ok(()))) {
                output = self.poll_output(cx);
            }
            if let Poll::Ready(Err(error)) = output {
                return Poll::Ready(Err(error));
            }
        }
        if (self.is_poked || self.has_unsent()) && self.phase == Phase::Open {
            return self.poll_all(cx);
        }
        if self.phase == Phase::Open { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// Looks at everything that may have happened.
    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poker = self.poker.clone();
        let poked_cx = &mut Context::from_waker(&poker);
        self.is_poked = false;
        self.is_answered();
        if self.session.poll_close(poked_cx, &mut self.answers).is_ready() {
            self.flush_and_close(Ending::Ordered);
            return Poll::Ready(Ok(()));
        }
        let may_read = self.may_read();
        if may_read && self.is_held {
            self.take(&[]);
            self.is_poked = true;
        } else if may_read && let Poll::Ready(read) = self.poll_input(poked_cx) {
            // There may be more.
            self.is_poked = read?;
            if !self.is_poked && self.phase == Phase::Open {
                if !self.session.reads_after_end_of_input() {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                self.deliver_and_close(End::OfInput);
                return Poll::Ready(Ok(()));
            }
        }
        let mut output = self.poll_output(cx);
        while self.phase == Phase::Open && self.poll_timer(poked_cx).is_ready() {
            output = self.poll_output(cx);
        }
        if let Poll::Ready(Err(error)) = output {
            return Poll::Ready(Err(error));
        }
        if self.phase == Phase::Open && self.has_unsent() && self.session.session().is_lagging() {
            // Nothing is gathered while the wire takes nothing: whoever reads
            // nothing at all would never be seen to lag.
            self.session.lagging(&mut self.answers);
            self.flush_and_close(Ending::Lagging);
        }
        if self.phase != Phase::Open {
            return Poll::Ready(Ok(()));
        }
        self.follow_session(cx);
        // Input that had to wait is looked at again: nothing else would wake this
        // task for it. What poked before the first drain woke nobody.
        self.is_poked |= !may_read && self.may_read();
        if self.is_poked {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Is poked by the session that is delivered now, if that has changed.
    fn follow_session(&mut self, cx: &Context<'_>) {
        let session = self.session.session();
        let poker = session.poker();
        if !poker.will_wake(&self.poker) {
            // While the client takes nothing, the new session is not drained,
            // and whatever poked it would wake nobody.
            session.wait(cx.waker());
            self.poker = poker;
            self.wire.forget_waker();
            self.is_poked = true;
        }
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(timer) = &mut self.timer
            && timer.poll_unpin(cx).is_ready()
        {
            if !matches!(self.phase, Phase::Lingering { .. }) {
                self.owner.unflushed();
            }
            return Poll::Ready(Ok(()));
        }
        if matches!(self.phase, Phase::Ending { .. } | Phase::Flushing) {
            ready!(self.poll_output(cx))?;
            if matches!(self.phase, Phase::Ending { .. }) {
                // Something that it published is not answered yet.
                return Poll::Pending;
            }
            ready!(self.wire.poll_shutdown(cx))?;
            self.phase = Phase::Lingering { discarded: 0 };
            // From here on nothing is drained, so nobody is poked.
            self.wire.forget_waker();
            self.timer = Some(Timer::after(LINGER));
            cx.waker().wake_by_ref();
        }
        // Closing while input waits unread would reset the connection, and
        // with it what the client was to be told.
        while let Phase::Lingering { discarded } = self.phase {
            if discarded > LINGER_BYTES_MAX || !ready!(self.poll_input(cx))? {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: Wire + Send, S: StreamSession, G: Owner + Send> Member for Drive<W, S, G> {
    fn warm(&self) {
        hint::black_box((self.is_poked, self.unsent.len(), self.answers.len()));
        self.shutdown.warm();
        self.session.session().warm();
    }

    fn gather(&mut self, cx: &mut Context<'_>) {
        if self.phase == Phase::Open && !self.is_poked && !self.has_unsent() {
            if let Some(published) = sample_delivery(|| self.session.session().woken_by()) {
                self.measured = Some(published);
                self.is_watched = true;
            }
            let more = self.fill(cx);
            self.gathered = if more { Gathered::Some } else { Gathered::All };
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error means that the client is gone.
        let over = self.poll(cx);
        if let (Poll::Ready(Err(_)), Phase::Open) = (&over, self.phase) {
            self.owner.ends(self.session.session().protocol(), Ending::Gone);
        }
        over.map(drop)
    }

    fn faulted(&self) {
        self.owner.faulted(self.session.session().protocol());
    }
}

impl<W: Wire, S: StreamSession, G: Owner> Drive<W, S, G> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.phase == Phase::Open {
            ready!(self.poll_open(cx))?;
        }
        self.poll_closing(cx)
    }
}
