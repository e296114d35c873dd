//! Hosts and the connections between them, in virtual time.
//!
//! A connection is one way and in order, with a latency that depends on who is
//! at its ends. Some dials fail for no reason, and now and then a connection
//! breaks. Knows nothing of what a run is to show.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use rustc_hash::FxHashSet;
use watchtower_hub::Timestamp;
use watchtower_protocols::whispernet::RoutingLimits;

use super::host::{Effect, Host, Ours, Plain};
use super::messages::{MessageId, Messages};
use crate::schedule::{Millis, Schedule};

/// When a run begins, to the nodes.
const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// Where hosts listen.
const PORT: u16 = 55_555;

/// The latencies in one direction, in milliseconds.
const LATENCY: std::ops::Range<u64> = 5..80;

/// One dial in so many fails though there is somebody.
const DIALS_A_FAILURE: usize = 64;

/// How long a dial takes that nobody answers.
const DIAL_TIMEOUT: Millis = 3_000;

/// A connection breaks this often.
const BREAK_EVERY: Millis = 2_000;

/// How long it takes at most until a host that failed is missed.
const MISSED_WITHIN: Millis = 2_000;

/// A host's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct HostId(pub(super) usize);

/// A connection's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LinkId(usize);

/// Where a host listens: each has an address of its own.
pub(super) fn address(host: HostId) -> SocketAddr {
    let number = u32::try_from(host.0).expect("there are not that many hosts") + 1;
    SocketAddr::new(IpAddr::V4((0x0a00_0000 + number).into()), PORT)
}

/// The host at an address of the network.
pub(super) fn host_at(address: SocketAddr) -> HostId {
    match address.ip() {
        IpAddr::V4(ip) => HostId((u32::from(ip) & 0x00ff_ffff) as usize - 1),
        IpAddr::V6(_) => unreachable!("no host has such an address"),
    }
}

enum Event {
    /// A dial comes in.
    Arriving {
        from: HostId,
        to: HostId,
    },
    /// It was accepted, or seemed so.
    Established {
        link: LinkId,
        is_accepted: bool,
    },
    Unanswered {
        from: HostId,
        to: HostId,
    },
    Object {
        link: LinkId,
        object: Bytes,
    },
    /// At the one end or the other.
    Ended {
        link: LinkId,
        at: HostId,
    },
    Tick(HostId),
    Break,
}

struct Link {
    from: HostId,
    to: HostId,
    is_open: bool,
    /// Whether what is sent on it is lost, which nobody has noticed yet.
    is_dead: bool,
    /// When the last object that was sent on it arrives: none overtakes another.
    last: Millis,
    /// The messages that a node sent on it, a bit each.
    sent: Vec<u64>,
}

/// What a host received.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    pub(super) message_bytes: u64,
    pub(super) control_bytes: u64,
}

/// How a message came to a host first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) at: Millis,
    pub(super) hops: u16,
}

/// What goes wrong while there is a storm.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storm {
    /// How often a connection breaks, or is half dead.
    pub(super) break_every: Millis,
    /// By how much an object may be late.
    pub(super) delay_max: Millis,
}

/// How long it takes at most until a connection that is half dead is given up.
const DEAD_FOR: Millis = 20_000;

pub(super) struct Network {
    limits: RoutingLimits,
    storm: Option<Storm>,
    /// Whether connections break in fair weather, too.
    breaks: bool,
    schedule: Schedule<Event>,
    rng: Rng,
    seed: u64,
    hosts: Vec<Host>,
    is_up: Vec<bool>,
    /// When each is ticked next.
    ticks: Vec<Option<Millis>>,
    links: Vec<Link>,
    /// Who has connected to whom, whatever became of it.
    met: FxHashSet<(HostId, HostId)>,
    messages: Messages,
    traffic: Vec<Traffic>,
    /// By message and host.
    arrivals: Vec<Vec<Option<Arrival>>>,
    /// What must not happen, and how often it did.
    pub(super) faults: Faults,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Messages that a node sent twice on a connection.
    pub(super) sent_twice: usize,
    /// Messages that a host showed twice.
    pub(super) shown_twice: usize,
    /// Plain peers that were sent what they fail on.
    pub(super) crashed: usize,
}

impl Network {
    pub(super) fn new(limits: RoutingLimits, seed: u64) -> Network {
        Network {
            limits,
            storm: None,
            breaks: false,
            schedule: Schedule::new(),
            rng: Rng::with_seed(seed),
            seed,
            hosts: Vec::new(),
            is_up: Vec::new(),
            ticks: Vec::new(),
            links: Vec::new(),
            met: FxHashSet::default(),
            messages: Messages::default(),
            traffic: Vec::new(),
            arrivals: Vec::new(),
            faults: Faults::default(),
        }
    }

    pub(super) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    pub(super) fn now(&self) -> Millis {
        self.schedule.now()
    }

    fn timestamp(&self) -> Timestamp {
        START.after(Duration::from_millis(self.now()))
    }

    // Hosts.

    /// A new host, which knows one other.
    pub(super) fn join(&mut self, is_plain: bool, contact: Option<HostId>) -> HostId {
        let host = HostId(self.hosts.len());
        let now = self.timestamp();
        self.hosts.push(if is_plain {
            Host::Plain(Plain::new(host))
        } else {
            let key = self.rng.u128(..).to_le_bytes();
            Host::Node(Box::new(Ours::new(host, self.limits, key, now)))
        });
        self.is_up.push(true);
        self.ticks.push(None);
        self.traffic.push(Traffic::default());
        if let Some(contact) = contact {
            self.hosts[host.0].connect(contact, now);
            self.carry_out(host, None);
        }
        host
    }

    pub(super) fn is_plain(&self, host: HostId) -> bool {
        self.hosts[host.0].is_plain()
    }

    /// Whether the one has connected to the other.
    pub(super) fn has_met(&self, from: HostId, to: HostId) -> bool {
        self.met.contains(&(from, to))
    }

    /// Those that have not failed.
    pub(super) fn up(&self) -> Vec<HostId> {
        (0..self.hosts.len()).map(HostId).filter(|host| self.is_up[host.0]).collect()
    }

    /// How many neighbours it has, if it routes.
    pub(super) fn neighbours(&self, host: HostId) -> usize {
        self.hosts[host.0].neighbours()
    }

    /// From now on connections break.
    pub(super) fn begin_to_break(&mut self) {
        self.breaks = true;
        self.schedule.add(self.now() + BREAK_EVERY, Event::Break);
    }

    /// From now on there is a storm, or none.
    pub(super) fn set_storm(&mut self, storm: Option<Storm>) {
        if storm.is_some() && self.storm.is_none() {
            self.schedule.add(self.now(), Event::Break);
        }
        self.storm = storm;
    }

    /// Whom what a host says reaches, by connections that are open.
    pub(super) fn reached_from(&self, host: HostId) -> Vec<HostId> {
        let mut reached = vec![host];
        let mut looked_at = 0;
        while let Some(from) = reached.get(looked_at).copied() {
            looked_at += 1;
            for link in self.links.iter().filter(|link| link.from == from && link.is_open && !link.is_dead) {
                if self.is_up[link.to.0] && !reached.contains(&link.to) {
                    reached.push(link.to);
                }
            }
        }
        reached
    }

    /// They fail at once, and are missed within a while.
    pub(super) fn kill(&mut self, killed: &[HostId]) {
        for host in killed {
            self.is_up[host.0] = false;
        }
        for number in 0..self.links.len() {
            let Link { from, to, is_open, .. } = self.links[number];
            for (end, other) in [(from, to), (to, from)] {
                if is_open && !self.is_up[end.0] && self.is_up[other.0] {
                    let at = self.now() + self.rng.u64(0..MISSED_WITHIN);
                    self.schedule.add(at, Event::Ended { link: LinkId(number), at: other });
                }
            }
        }
    }

    /// A host says something.
    pub(super) fn say(&mut self, host: HostId, body: &str) -> MessageId {
        let now = self.timestamp();
        let message = self.hosts[host.0].say(body, &mut self.messages, now);
        self.show(host, message, None);
        self.carry_out(host, None);
        message
    }

    // Time.

    /// Lets time pass.
    pub(super) fn run_until(&mut self, end: Millis) {
        while let Some(events) = self.schedule.next(end) {
            for event in events {
                self.handle(event);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.timestamp();
        match event {
            Event::Arriving { from, to } => self.arrive(from, to),
            Event::Established { link, is_accepted } => self.establish(link, is_accepted),
            Event::Unanswered { from, to } => {
                if self.is_up[from.0] {
                    self.hosts[from.0].dial_failed(to, now);
                    self.carry_out(from, None);
                }
            }
            Event::Object { link, object } => self.deliver(link, &object),
            Event::Ended { link, at } => {
                self.links[link.0].is_open = false;
                if self.is_up[at.0] {
                    self.hosts[at.0].ended(link, now);
                    self.carry_out(at, None);
                }
            }
            Event::Tick(host) => {
                if self.is_up[host.0] && self.ticks[host.0] == Some(self.now()) {
                    self.ticks[host.0] = None;
                    self.hosts[host.0].tick(now);
                    self.carry_out(host, None);
                }
            }
            Event::Break => {
                let is_over = self.storm.is_none() && !self.breaks;
                if !is_over {
                    let every = self.storm.map_or(BREAK_EVERY, |storm| storm.break_every);
                    self.schedule.add(self.now() + every, Event::Break);
                    self.break_one();
                }
            }
        }
    }

    /// How long it takes from the one to the other, and back.
    fn latency(&self, one: HostId, other: HostId) -> Millis {
        let (low, high) = (one.0.min(other.0) as u64, one.0.max(other.0) as u64);
        let mixed = (self.seed ^ low << 32 ^ high).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        LATENCY.start + (mixed >> 40) % (LATENCY.end - LATENCY.start)
    }

    // Connections.

    fn dial(&mut self, from: HostId, to: HostId) {
        if !self.is_up[to.0] || self.rng.usize(..DIALS_A_FAILURE) == 0 {
            self.schedule.add(self.now() + DIAL_TIMEOUT, Event::Unanswered { from, to });
        } else {
            self.schedule.add(self.now() + self.latency(from, to), Event::Arriving { from, to });
        }
    }

    fn arrive(&mut self, from: HostId, to: HostId) {
        let now = self.timestamp();
        if !self.is_up[to.0] {
            return self.schedule.add(self.now() + DIAL_TIMEOUT, Event::Unanswered { from, to });
        }
        let link = LinkId(self.links.len());
        self.links.push(Link { from, to, is_open: true, is_dead: false, last: 0, sent: Vec::new() });
        let is_accepted = self.hosts[to.0].accepted(local_end(from, link), link, now);
        self.carry_out(to, None);
        self.schedule.add(self.now() + self.latency(from, to), Event::Established { link, is_accepted });
    }

    fn establish(&mut self, link: LinkId, is_accepted: bool) {
        let now = self.timestamp();
        let Link { from, to, is_open, .. } = self.links[link.0];
        if !self.is_up[from.0] {
            return self.close(link, from);
        }
        let is_wanted = self.hosts[from.0].dialled(to, local_end(from, link), link, now);
        if !is_wanted {
            self.close(link, from);
        } else if !is_accepted || !is_open {
            self.links[link.0].is_open = false;
            self.hosts[from.0].ended(link, now);
        } else {
            self.met.insert((from, to));
        }
        self.carry_out(from, None);
    }

    /// One end closes it.
    fn close(&mut self, link: LinkId, end: HostId) {
        let Link { from, to, .. } = self.links[link.0];
        let other = if end == from { to } else { from };
        if std::mem::take(&mut self.links[link.0].is_open) {
            self.schedule.add(self.now() + self.latency(from, to), Event::Ended { link, at: other });
        }
    }

    fn break_one(&mut self) {
        if self.links.is_empty() {
            return;
        }
        let link = LinkId(self.rng.usize(..self.links.len()));
        let Link { from, to, is_open, .. } = self.links[link.0];
        if is_open && self.storm.is_some() && self.rng.bool() {
            self.links[link.0].is_dead = true;
            for end in [from, to] {
                let at = self.now() + self.rng.u64(0..DEAD_FOR);
                self.schedule.add(at, Event::Ended { link, at: end });
            }
        } else if is_open {
            self.schedule.add(self.now(), Event::Ended { link, at: from });
            self.schedule.add(self.now(), Event::Ended { link, at: to });
        }
    }

    // Messages.

    fn send(&mut self, host: HostId, link: LinkId, object: Bytes) {
        let (from, to) = (self.links[link.0].from, self.links[link.0].to);
        debug_assert_eq!(from, host, "connections are one way");
        if !self.hosts[from.0].is_plain()
            && let Some(MessageId(message)) = self.messages.read(&object)
        {
            let sent = &mut self.links[link.0].sent;
            sent.resize(sent.len().max(message / 64 + 1), 0);
            let bit = 1 << (message % 64);
            self.faults.sent_twice += usize::from(sent[message / 64] & bit != 0);
            sent[message / 64] |= bit;
        }
        let late = self.storm.map_or(0, |storm| self.rng.u64(..=storm.delay_max));
        let at = (self.now() + self.latency(from, to) + late).max(self.links[link.0].last);
        self.links[link.0].last = at;
        self.schedule.add(at, Event::Object { link, object });
    }

    fn deliver(&mut self, link: LinkId, object: &Bytes) {
        let Link { from, to, is_open, is_dead, .. } = self.links[link.0];
        if !is_open || is_dead || !self.is_up[to.0] {
            return;
        }
        let traffic = &mut self.traffic[to.0];
        let length = object.len() as u64;
        if self.messages.read(object).is_some() {
            traffic.message_bytes += length;
        } else {
            traffic.control_bytes += length;
        }
        let now = self.timestamp();
        self.hosts[to.0].received(link, object, &mut self.messages, now);
        self.carry_out(to, Some(from));
    }

    fn show(&mut self, host: HostId, message: MessageId, from: Option<HostId>) {
        if self.arrivals.len() <= message.0 {
            self.arrivals.resize_with(message.0 + 1, Vec::new);
        }
        let arrivals = &mut self.arrivals[message.0];
        arrivals.resize(arrivals.len().max(self.hosts.len()), None);
        if arrivals[host.0].is_some() {
            self.faults.shown_twice += 1;
            return;
        }
        let hops = from.and_then(|from| arrivals[from.0]).map_or(0, |arrival| arrival.hops + 1);
        arrivals[host.0] = Some(Arrival { at: self.schedule.now(), hops });
    }

    /// Does what a host wants done. `from` is where what it shows came from.
    fn carry_out(&mut self, host: HostId, from: Option<HostId>) {
        while let Some(effect) = self.hosts[host.0].next_effect(&mut self.messages) {
            match effect {
                Effect::Dial(to) => self.dial(host, to),
                Effect::Send(link, object) => self.send(host, link, object),
                Effect::Close(link) => self.close(link, host),
                Effect::Show(message) => self.show(host, message, from),
                Effect::Crash => self.faults.crashed += 1,
            }
        }
        let deadline = self.hosts[host.0].deadline();
        let deadline = deadline.map(since_start);
        if let Some(at) = deadline
            && self.ticks[host.0].is_none_or(|tick| at < tick)
        {
            let at = at.max(self.now());
            self.ticks[host.0] = Some(at);
            self.schedule.add(at, Event::Tick(host));
        }
    }

    // What there is to see.

    /// How a message came to each host.
    pub(super) fn arrival(&self, message: MessageId, host: HostId) -> Option<Arrival> {
        self.arrivals.get(message.0)?.get(host.0).copied().flatten()
    }

    /// The bytes of one copy.
    pub(super) fn length(&self, message: MessageId) -> u64 {
        self.messages.length(message)
    }

    /// What a host received since it was asked last.
    pub(super) fn take_traffic(&mut self) -> Vec<Traffic> {
        let none = vec![Traffic::default(); self.traffic.len()];
        std::mem::replace(&mut self.traffic, none)
    }
}

fn since_start(at: Timestamp) -> Millis {
    at.as_millis().saturating_sub(START.as_millis())
}

/// The end of a connection at the host that dialled.
fn local_end(host: HostId, link: LinkId) -> SocketAddr {
    let port = 1_024 + link.0 % 50_000;
    SocketAddr::new(address(host).ip(), u16::try_from(port).unwrap_or(u16::MAX))
}
