//! Generates load on one target: publishes at a pace, on one connection or several, and counts what
//! arrives on many.
//!
//! One thread on one epoll instance does everything. The load side shares the machine with what it
//! measures, so a delivery costs it one `read` into a buffer that all connections share, a look at
//! a header, one clock reading, and a count; nothing is allocated per delivery. What it publishes,
//! and to whom, it is told: a server and the bare loop are alike to it.

mod alarm;
mod arrivals;
mod counter;
pub(crate) mod http;
pub(crate) mod inflater;
pub(crate) mod packets;
pub(crate) mod payload;
mod round;
mod schedule;
mod socket;
pub(crate) mod webrocket;
pub(crate) mod websocket;
pub(crate) mod webtalk;

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::error::{Error, WireError};
use crate::topology::Topology;
use alarm::Alarm;
pub(crate) use arrivals::Arrivals;
pub(crate) use counter::Counter;
pub(crate) use round::{Round, Run};
pub use schedule::Pace;
pub(crate) use schedule::Schedule;
pub(crate) use socket::{Socket, make_room_for};

/// What one `read` takes at most: more than a burst of a window usually is.
pub(crate) const READ_BYTES: usize = 256 * 1024;

/// How many ready connections are read before the schedule is looked at again: at one or two
/// microseconds each, a message that is due waits a quarter of a millisecond at most.
const READY_MAX: usize = 128;

/// Events of the alarm. Connections go by their index.
const ALARM: u64 = u64::MAX;

/// A connection, and what is written to it to publish.
pub(crate) struct Publisher {
    /// Gets a copy of each message, or an answer that stands for it.
    pub(crate) link: Link,
    pub(crate) source: Box<dyn Source>,
}

/// How many copies there are of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copies {
    /// How many connections are subscribers.
    pub(crate) subscribers: usize,
    /// To how many of them each message goes.
    pub(crate) deliveries: u64,
    /// How many publishers get a copy or an answer, by the number of the message modulo the length
    /// of this. Invariant: not empty.
    pub(crate) answers: Vec<u32>,
    /// Who is subscribed to what, if not everybody to everything.
    pub(crate) apart: Option<Topology>,
}

impl Copies {
    /// Whether a connection, the subscribers before the publishers, is to get this message.
    pub(crate) fn is_for(&self, link: usize, number: u32) -> bool {
        self.apart.is_none_or(|topology| {
            let channel = topology.channel_of(number);
            match link.checked_sub(self.subscribers) {
                None => topology.listeners(channel).contains(&(link as u32)),
                Some(publisher) => topology.published_by(publisher as u32).contains(&channel),
            }
        })
    }

    /// Of this message.
    pub(crate) fn of(&self, number: u32) -> u64 {
        self.deliveries + u64::from(self.answers[number as usize % self.answers.len()])
    }
}

/// Writes what is to be published, in a target's own wire.
pub(crate) trait Source {
    /// Appends the messages of these numbers, to be written at once.
    fn encode(&mut self, numbers: Range<u32>, out: &mut Vec<u8>);
}

/// A connection and what counts its arrivals.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: Socket,
    pub(crate) counter: Counter,
}

/// What to do when deliveries are outstanding and nothing arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// They are lost, as datagrams may be.
    GiveUp(Duration),
    /// That is an error: this protocol loses nothing.
    Fail(Duration),
}

/// One target with all its connections.
pub(crate) struct Load {
    epoll: OwnedFd,
    /// The subscribers, and last the publishers, which get copies as well, or answers that stand for
    /// them.
    links: Vec<Link>,
    copies: Copies,
    /// Goes off when the next message is due, if that is a matter of time.
    alarm: Alarm,
    /// What publishers publish. Message n is the one's at n modulo their number.
    outlets: Vec<Outlet>,
    pace: Pace,
    patience: Patience,
    arrivals: Arrivals,
    /// The number of the next message.
    next: u32,
    buffer: Box<[u8]>,
    events: Vec<epoll::Event>,
}

/// What a publisher publishes.
struct Outlet {
    source: Box<dyn Source>,
    /// What has been published and not written yet, from `written` on.
    outgoing: Vec<u8>,
    written: usize,
}

impl Load {
    /// Takes over connections on which everything is joined.
    ///
    /// Message 0 is taken as used; what still arrives of it is passed over.
    pub(crate) fn new(
        mut links: Vec<Link>,
        publishers: Vec<Publisher>,
        copies: Copies,
        pace: Pace,
        patience: Patience,
    ) -> Result<Self, Error> {
        debug_assert_eq!(links.len(), copies.subscribers);
        let mut outlets = Vec::with_capacity(publishers.len());
        for Publisher { link, source } in publishers {
            links.push(link);
            outlets.push(Outlet { source, outgoing: Vec::new(), written: 0 });
        }
        let epoll = watch(&links, copies.subscribers).map_err(Error::io("wait for many sockets"))?;
        let alarm = Alarm::new(&epoll, ALARM).map_err(Error::io("make a timer"))?;
        Ok(Self {
            epoll,
            alarm,
            arrivals: Arrivals::new(links.len(), pace.in_flight_max()),
            links,
            copies,
            outlets,
            pace,
            patience,
            next: 1,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            events: Vec::with_capacity(READY_MAX),
        })
    }

    /// From now on messages are spaced so, with as many in flight as before.
    pub(crate) fn set_pace(&mut self, pace: Pace) {
        debug_assert_eq!(pace.in_flight_max(), self.pace.in_flight_max());
        self.pace = pace;
    }

    /// Publishes so many messages and waits until everyone has had them, or they are given up.
    /// Latencies of deliveries go to `latencies`, in nanoseconds.
    ///
    /// # Errors
    /// [`Error::Peer`] when a connection is closed or says something wrong, [`Error::Stalled`].
    pub(crate) fn run(&mut self, messages: u32, latencies: &mut Histogram<u64>) -> Result<Run, Error> {
        self.alarm.reset();
        let mut schedule = Schedule::new(self.pace, messages);
        let mut round = Round::start(self.next, &self.copies);
        loop {
            let due = schedule.take_due(round.elapsed(), round.is_settled());
            if due > 0 {
                self.publish(due, &schedule, &mut round)?;
            } else if schedule.is_over() && round.is_settled() {
                return Ok(round.finish());
            }
            if let Some((index, at)) = schedule.next() {
                let from_now = at.saturating_sub(round.elapsed());
                self.alarm.set(index, from_now).map_err(Error::io("set a timer"))?;
            }
            let (Patience::GiveUp(timeout) | Patience::Fail(timeout)) = self.patience;
            if !self.wait_and_read(timeout, &mut round, latencies)? {
                self.consider_silence(&mut round)?;
            }
        }
    }

    /// Publishes nothing for so long, and answers pings.
    pub(crate) fn rest(&mut self, time: Duration) -> Result<(), Error> {
        let mut round = Round::start(self.next, &self.copies);
        let mut unused = latency_histogram();
        while let Some(left) = time.checked_sub(round.elapsed()).filter(|left| !left.is_zero()) {
            self.wait_and_read(left, &mut round, &mut unused)?;
        }
        Ok(())
    }

    fn publish(&mut self, messages: u32, schedule: &Schedule, round: &mut Round) -> Result<(), Error> {
        let numbers = self.next..self.next + messages;
        self.next = numbers.end;
        round.publish(messages, schedule, &self.copies);
        if let [outlet] = self.outlets.as_mut_slice() {
            outlet.source.encode(numbers, &mut outlet.outgoing);
            return self.flush(0);
        }
        let outlets = self.outlets.len();
        for number in numbers {
            let Outlet { source, outgoing, .. } = &mut self.outlets[number as usize % outlets];
            source.encode(number..number + 1, outgoing);
        }
        (0..outlets).try_for_each(|outlet| self.flush(outlet))
    }

    /// Writes what there is to write, as far as the publisher's socket takes it.
    fn flush(&mut self, outlet: usize) -> Result<(), Error> {
        let Link { socket, .. } = &self.links[self.copies.subscribers + outlet];
        let Outlet { outgoing, written, .. } = &mut self.outlets[outlet];
        while let Some(rest @ [_, ..]) = outgoing.get(*written..) {
            match socket.write(rest) {
                Ok(length) => *written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => return Err(Error::io("publish")(error)),
            }
        }
        outgoing.clear();
        *written = 0;
        Ok(())
    }

    /// Waits for events and reads what is there. False if no connection had anything.
    fn wait_and_read(
        &mut self,
        timeout: Duration,
        round: &mut Round,
        latencies: &mut Histogram<u64>,
    ) -> Result<bool, Error> {
        let timeout =
            Timespec::try_from(timeout).map_err(|error| Error::io("wait")(io::Error::other(error)))?;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(errno) => return Err(Error::io("wait for many sockets")(errno.into())),
        }
        let mut progress = false;
        for at in 0..self.events.len() {
            let epoll::Event { flags, data, .. } = self.events[at];
            if data.u64() == ALARM {
                continue;
            }
            let index = data.u64() as usize;
            progress |= self.read(index, flags, round, latencies)?;
            if let Some(outlet) = index.checked_sub(self.copies.subscribers) {
                self.flush(outlet)?;
            }
        }
        Ok(progress)
    }

    /// Reads a connection empty. True if there was anything.
    fn read(
        &mut self,
        index: usize,
        flags: epoll::EventFlags,
        round: &mut Round,
        latencies: &mut Histogram<u64>,
    ) -> Result<bool, Error> {
        use epoll::EventFlags as Flags;
        let outlet = index.checked_sub(self.copies.subscribers);
        let outlets = self.outlets.len();
        let name = || match outlet {
            Some(outlet) => publisher_name(outlet, outlets),
            None => format!("subscriber {index}"),
        };
        let Link { socket, counter } = &mut self.links[index];
        // A short read has emptied a stream, unless its end is still to be read.
        let may_stop_short = socket.is_stream() && !flags.intersects(Flags::RDHUP | Flags::HUP | Flags::ERR);
        let mut progress = false;
        loop {
            let length = match socket.read(&mut self.buffer) {
                Ok(0) if socket.is_stream() => return Err(Error::peer(name())(WireError::Closed)),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(progress),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io(format!("read from {}", name()))(error)),
            };
            progress = true;
            let now = round.elapsed();
            let (arrivals, copies) = (&mut self.arrivals, &self.copies);
            counter
                .feed(&self.buffer[..length], |arrival| {
                    round.note(index, arrival, now, copies, arrivals, latencies);
                })
                .map_err(|source| Error::peer(name())(source))?;
            round.record(now, latencies);
            match (counter.take_owed(), outlet) {
                (None, _) => (),
                // Behind what is half written.
                (Some(owed), Some(outlet)) => self.outlets[outlet].outgoing.extend_from_slice(&owed),
                (Some(owed), None) => {
                    socket.send(&owed).map_err(Error::io(format!("write to {}", name())))?;
                }
            }
            if may_stop_short && length < self.buffer.len() {
                return Ok(progress);
            }
        }
    }

    fn consider_silence(&self, round: &mut Round) -> Result<(), Error> {
        let (Patience::GiveUp(limit) | Patience::Fail(limit)) = self.patience;
        if round.is_settled() || round.silence() < limit {
            return Ok(());
        }
        match self.patience {
            Patience::GiveUp(_) => {
                round.give_up();
                Ok(())
            }
            Patience::Fail(waited) => Err(Error::Stalled { missing: round.outstanding(), waited }),
        }
    }
}

/// What a publisher is called, of so many.
pub(crate) fn publisher_name(index: usize, publishers: usize) -> String {
    if publishers == 1 { "the publisher".to_owned() } else { format!("publisher {index}") }
}

/// An epoll instance that tells of every change on these connections, by index.
fn watch(links: &[Link], subscribers: usize) -> io::Result<OwnedFd> {
    use epoll::EventFlags as Flags;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (index, link) in links.iter().enumerate() {
        link.socket.set_nonblocking()?;
        let mut flags = Flags::IN | Flags::RDHUP | Flags::ET;
        flags.set(Flags::OUT, index >= subscribers);
        epoll::add(&epoll, &link.socket, epoll::EventData::new_u64(index as u64), flags)?;
    }
    Ok(epoll)
}

/// A histogram for latencies in nanoseconds: three digits, up to an hour.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    const HOUR_NANOSECONDS: u64 = 3_600_000_000_000;
    Histogram::new_with_bounds(1, HOUR_NANOSECONDS, 3).expect("the bounds are constant and valid")
}

/// Nanoseconds, as far as a histogram knows them.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
