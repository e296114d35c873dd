//! One run: a hub and its protocols, clients, and a network between them, in
//! virtual time; and beside them the model that all is held against.
//!
//! One thing happens after the other: who is woken waits for a turn that the
//! script gives. Knows no protocol's rules.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use watchtower_hub::{
    Accepts, ChannelName, ChannelRule, Counts, Entropy, Epoch, Hub, Limits, Position, Published, Settings,
    Timestamp,
};
use watchtower_protocols::packets::{self, PacketPeer};
use watchtower_protocols::webrocket::{HubOptions, Secret, WebRocket};
use watchtower_protocols::websocket::{Compression, Endpoint};
use watchtower_protocols::webtalk::WebTalk;

use super::connection::Connection;
use super::fault::Fault;
use super::ledger::Shelf;
use super::model::{
    HISTORY_MESSAGES, HISTORY_TTL, MESSAGE_BYTES_MAX, Model, RETAINING, SENDER_TTL, SESSION_TTL,
};
use super::outcome::Totals;
use super::protocols::{Oracle, Party};
use super::script::{Act, Protocol, Script, Setting, Step};
use super::told::Beginnings;
use super::words::{self, Request};
use crate::schedule::Millis;

/// When a run begins.
const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// How often the hub does what is due.
const TICK: Millis = 1_000;

/// How long clients may take to say what they must say.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// After how long a silent UDP peer is let go.
const UDP_IDLE: Duration = Duration::from_secs(30);

/// More turns than that in a row are not work any more.
const TURNS_MAX: usize = 10_000;

/// How often a client may have to wait, at the end of a run.
const PAUSES_MAX: usize = 100;

pub(super) struct World {
    pub(super) hub: Hub,
    pub(super) talk: WebTalk,
    pub(super) rocket: Endpoint,
    pub(super) browsers: Endpoint,
    pub(super) packets: packets::Options,
    pub(super) oracle: Oracle,
    pub(super) clients: Vec<Client>,
    pub(super) setting: Setting,
    pub(super) now: Timestamp,
    pub(super) drawn: Arc<Drawn>,
    /// How many contents were made.
    pub(super) contents: usize,
    pub(super) fault: Option<Fault>,
    pub(super) shelf: Shelf,
    /// The answers that clients wait for, in the order in which they will come.
    pub(super) awaited: VecDeque<Published<Vec<Position>>>,
    pub(super) beginnings: Beginnings,
    /// What was counted before the hub was started anew.
    pub(super) before: Totals,
    woken: Arc<Mutex<Vec<usize>>>,
}

/// A client, whatever connection it has.
pub(super) struct Client {
    pub(super) protocol: Protocol,
    pub(super) link: Option<Link>,
    /// At the server, if it speaks UDP.
    pub(super) peer: Option<Peer>,
    /// What is under way to the server.
    pub(super) datagrams: Vec<(Request, Vec<u8>)>,
    pub(super) is_stalled: bool,
    /// The senders that it registered.
    pub(super) ids: Vec<u32>,
    /// Where its stream was in each channel.
    pub(super) seen: BTreeMap<ChannelName, (Epoch, u64)>,
    pub(super) connected: usize,
}

/// A connection, and both ways of it.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) party: Party,
    /// How messages to it may be compressed.
    pub(super) compression: Compression,
    /// What was sent and is not carried out, and where each ends.
    pub(super) requests: VecDeque<(u64, Request)>,
    /// What has yet to reach the server.
    pub(super) upstream: VecDeque<u8>,
    pub(super) sent: u64,
    pub(super) ends_input: bool,
    /// What the server said, in bytes, and what of it the client has read.
    pub(super) said: u64,
    pub(super) read: u64,
    /// What the client does once it has read so far.
    pub(super) marks: VecDeque<(u64, Mark)>,
}

/// What a client takes note of.
pub(super) enum Mark {
    Ping,
    Seen(ChannelName, (Epoch, u64)),
}

/// A UDP address that has shown a registered id.
pub(super) struct Peer {
    pub(super) machine: PacketPeer,
    pub(super) party: Party,
    pub(super) heard: Timestamp,
}

/// What the hub's ids come from; and what came last.
pub(super) struct Drawn(Mutex<(Rng, Vec<u64>)>);

impl Drawn {
    /// What was drawn since this was asked last.
    pub(super) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.lock().1)
    }
}

struct Draws(Arc<Drawn>);

impl Entropy for Draws {
    fn next_u64(&self) -> u64 {
        let mut drawn = self.0.0.lock();
        let bits = drawn.0.u64(..);
        drawn.1.push(bits);
        bits
    }
}

struct Salts(Mutex<Rng>);

impl Entropy for Salts {
    fn next_u64(&self) -> u64 {
        self.0.lock().u64(..)
    }
}

/// Everybody may register, and who shows a secret must know it.
struct Door;

impl packets::Registrar for Door {
    fn admit(&self, _address: std::net::IpAddr, secret: Option<&[u8]>) -> packets::Admission {
        match secret {
            Some(secret) if secret != words::SECRET => packets::Admission::Refused,
            _ => packets::Admission::Granted,
        }
    }
}

/// Puts a client on the list of those that were woken.
struct Bell {
    client: usize,
    woken: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut woken = self.woken.lock();
        if !woken.contains(&self.client) {
            woken.push(self.client);
        }
    }
}

fn settings(setting: Setting) -> Settings {
    let rule = |pattern: &str| ChannelRule { pattern: pattern.into(), ..ChannelRule::default() };
    let Setting { lag_messages, lag_bytes, senders_max, channels_max, channels_per_sender_max, .. } = setting;
    Settings {
        limits: Limits {
            message_bytes_max: MESSAGE_BYTES_MAX,
            channels_max,
            channels_per_sender_max,
            senders_max,
            lag_bytes,
            lag_messages,
            ..Limits::default()
        },
        sender_ttl: SENDER_TTL,
        session_ttl: SESSION_TTL,
        bind_ids: setting.bind_ids,
        channels: vec![
            ChannelRule {
                retain: setting.retains,
                presence_events: setting.tells_presence,
                ..rule(RETAINING)
            },
            ChannelRule { presence_events: setting.tells_presence, ..rule("1") },
            ChannelRule { history_messages: HISTORY_MESSAGES, history_ttl: HISTORY_TTL, ..rule("3") },
            ChannelRule { accepts: Accepts::Json, ..rule("5") },
            ChannelRule { durable: true, presence_events: setting.tells_presence, ..rule("6") },
        ],
    }
}

fn hub(setting: Setting, drawn: &Arc<Drawn>, shelf: &Shelf) -> Hub {
    Hub::with_ledger(settings(setting), Box::new(Draws(drawn.clone())), Arc::new(shelf.clone()))
}

fn talk(hub: &Hub, setting: Setting) -> WebTalk {
    let salts = Salts(Mutex::new(Rng::with_seed(setting.entropy)));
    WebTalk::new(hub, Box::new(salts), PATIENCE)
}

fn rocket() -> Endpoint {
    let [read_only, read_write] = [words::READ_ONLY, words::READ_WRITE].map(Secret::new);
    Endpoint::new(WebRocket::new(HubOptions { read_only, read_write, ..HubOptions::default() }))
}

impl World {
    pub(super) fn new(script: &Script, fault: Option<Fault>) -> World {
        let drawn = Arc::new(Drawn(Mutex::new((Rng::with_seed(script.setting.entropy), Vec::new()))));
        let shelf = Shelf::default();
        let hub = hub(script.setting, &drawn, &shelf);
        World::around(hub, drawn, shelf, START, script, fault)
    }

    /// The same once more, with the hub that all have left.
    pub(super) fn begin_again(&mut self, script: &Script) {
        self.shelf.clear();
        let (hub, drawn, shelf) = (self.hub.clone(), self.drawn.clone(), self.shelf.clone());
        *self = World::around(hub, drawn, shelf, self.now, script, self.fault);
    }

    /// The hub stops without a word, and another begins where its ledger ends.
    /// Clients keep what they know.
    pub(super) fn begin_anew(&mut self) {
        let hub = hub(self.setting, &self.drawn, &self.shelf);
        self.hub = hub;
        self.hub.tick(self.now);
        self.talk = talk(&self.hub, self.setting);
        self.browsers = Endpoint::new(self.talk.clone());
        self.rocket = rocket();
        for client in &mut self.clients {
            client.link = None;
            client.peer = None;
        }
        self.before.add(&Totals::of(&self.oracle.model.counted));
        let setting = self.setting;
        let model =
            std::mem::replace(&mut self.oracle.model, Model::new(setting, self.now, &Counts::default()));
        self.oracle = Oracle { model: model.after_restart(), ..Oracle::new(setting, self.now) };
        self.take_up_senders();
    }

    /// What happened so far.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = self.before;
        totals.add(&Totals::of(&self.oracle.model.counted));
        Totals { seeds: 1, ..totals }
    }

    fn around(
        hub: Hub,
        drawn: Arc<Drawn>,
        shelf: Shelf,
        now: Timestamp,
        script: &Script,
        fault: Option<Fault>,
    ) -> World {
        let setting = script.setting;
        hub.tick(now);
        let talk = talk(&hub, setting);
        let packets = packets::Options {
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            registrar: Arc::new(Door),
            patience: PATIENCE,
            errors: Arc::default(),
        };
        World {
            browsers: Endpoint::new(talk.clone()),
            rocket: rocket(),
            talk,
            packets,
            oracle: Oracle { model: Model::new(setting, now, &hub.counts()), ..Oracle::new(setting, now) },
            hub,
            clients: script.clients.iter().map(|protocol| Client::new(*protocol)).collect(),
            setting,
            now,
            drawn,
            contents: 0,
            fault,
            shelf,
            awaited: VecDeque::new(),
            beginnings: Beginnings::default(),
            before: Totals::default(),
            woken: Arc::default(),
        }
    }

    pub(super) fn waker(&self, client: usize) -> Waker {
        Waker::from(Arc::new(Bell { client, woken: self.woken.clone() }))
    }

    /// Whether something happened that is promised nowhere, so that the run ends.
    pub(super) fn is_open(&self) -> bool {
        self.oracle.model.is_open
    }

    /// Does one step, and holds the hub against the model.
    pub(super) fn step(&mut self, step: &Step) -> Result<(), String> {
        if self.is_open() {
            return Ok(());
        }
        let done = match step {
            Step::Wait(millis) => self.wait(*millis),
            Step::Turn(which) => self.turn_of(usize::from(*which)),
            Step::Settle => self.settle(),
            Step::Disk { answers, is_kept } => self.answer_some(usize::from(*answers), *is_kept),
            Step::Restart { kept } => self.restart(usize::from(*kept)),
            Step::Do(client, act) => self.act(usize::from(*client), act),
        };
        // What came after that was promised nowhere.
        if self.is_open() { Ok(()) } else { done.and_then(|()| self.check()) }
    }

    fn act(&mut self, client: usize, act: &Act) -> Result<(), String> {
        let it = &mut self.clients[client];
        match act {
            Act::Connect => self.connect(client)?,
            Act::Crash => self.crash(client),
            Act::EndInput => it.link.iter_mut().for_each(|link| link.ends_input = true),
            Act::Stall => it.is_stalled = true,
            Act::Listen => it.is_stalled = false,
            Act::Carry(most) => self.carry(client, usize::from(*most)),
            Act::Read(most) => self.read(client, usize::from(*most)),
            Act::Datagram(which, fate) => self.datagram(client, usize::from(*which), *fate)?,
            Act::Ask(ask) => self.ask(client, ask)?,
        }
        Ok(())
    }

    // Time.

    pub(super) fn wait(&mut self, millis: Millis) -> Result<(), String> {
        let end = self.now.as_millis() + millis;
        loop {
            let next_tick = (self.now.as_millis() / TICK + 1) * TICK;
            self.now = Timestamp::from_millis(next_tick.min(end));
            self.oracle.model.now = self.now;
            if next_tick <= end {
                self.hub.tick(self.now);
                self.oracle.model.tick(self.now, &self.shelf.submitted());
                if self.is_open() {
                    return Ok(());
                }
                self.sweep();
                self.check_channels()?;
            }
            for client in &self.clients {
                client.link.iter().for_each(|link| link.connection.look_at_clock(self.now));
            }
            if self.now.as_millis() == end {
                return Ok(());
            }
        }
    }

    /// Lets go of UDP peers that were silent for too long, and of those whose
    /// ids have moved on.
    fn sweep(&mut self) {
        for client in 0..self.clients.len() {
            let now = self.now;
            let is_idle =
                |peer: &mut Peer| !peer.machine.is_registered() || now.since(peer.heard) >= UDP_IDLE;
            if let Some(peer) = self.clients[client].peer.take_if(is_idle) {
                drop(peer.machine);
                self.oracle.ended(peer.party, true);
            }
        }
    }

    // The network.

    fn carry(&mut self, client: usize, most: usize) {
        let Some(link) = &mut self.clients[client].link else { return };
        let bytes: Vec<u8> = link.upstream.drain(..most.min(link.upstream.len())).collect();
        if !bytes.is_empty() {
            link.connection.carry(&bytes);
        }
        if link.ends_input && link.upstream.is_empty() {
            link.connection.end_input();
        }
    }

    fn read(&mut self, client: usize, most: usize) {
        let it = &mut self.clients[client];
        let Some(link) = &mut it.link else { return };
        link.read += link.connection.read(most) as u64;
        while let Some((_, mark)) = link.marks.pop_front_if(|(end, _)| *end <= link.read) {
            match mark {
                Mark::Seen(channel, position) => drop(it.seen.insert(channel, position)),
                Mark::Ping if link.ends_input => {}
                Mark::Ping => link.send(it.protocol, Request::Pong),
            }
        }
    }

    /// One of those that were woken has its turn.
    fn turn_of(&mut self, which: usize) -> Result<(), String> {
        let client = {
            let mut woken = self.woken.lock();
            if woken.is_empty() {
                return Ok(());
            }
            let at = which % woken.len();
            woken.remove(at)
        };
        self.turn(client)
    }

    /// The network carries all, and all have their turns, until nothing moves.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        for _ in 0..TURNS_MAX {
            for client in 0..self.clients.len() {
                if !self.clients[client].is_stalled {
                    self.read(client, usize::MAX);
                }
                self.carry(client, usize::MAX);
                self.deliver_datagrams(client)?;
            }
            if self.woken.lock().is_empty() {
                return Ok(());
            }
            self.turn_of(0)?;
        }
        Err(format!("{TURNS_MAX} turns, and it does not come to rest"))
    }

    /// A connection is gone.
    pub(super) fn crash(&mut self, client: usize) {
        let it = &mut self.clients[client];
        it.datagrams.clear();
        if let Some(link) = it.link.take() {
            self.drop_link(link);
        }
    }

    /// All listen, so that all is heard that is to be; then all leave, and time
    /// passes.
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.clients.iter_mut().for_each(|client| client.is_stalled = false);
        self.settle()?;
        self.answer_all()?;
        self.settle()?;
        // Who gave wrong secrets has to wait for each answer.
        for _ in 0..PAUSES_MAX {
            if self.clients.iter().flat_map(|client| &client.link).all(|link| link.requests.is_empty()) {
                break;
            }
            self.wait(TICK)?;
            self.settle()?;
        }
        self.check()?;
        self.check_all_heard()?;
        self.end_retained()?;
        (0..self.clients.len()).for_each(|client| self.crash(client));
        let users: Vec<u32> = self.oracle.talk.users.keys().copied().collect();
        for id in users {
            self.talk.kill_user(id.into(), self.now).map_err(|error| format!("{error:?}"))?;
            self.oracle.kill_user(id)?;
        }
        self.check()?;
        let long = UDP_IDLE + 2 * SESSION_TTL + 2 * SENDER_TTL + HISTORY_TTL;
        self.wait(long.as_millis() as u64 + 5 * TICK)?;
        // A channel stays until all is kept that was to be told.
        self.answer_all()?;
        self.wait(SESSION_TTL.as_millis() as u64 + 5 * TICK)?;
        self.check()?;
        self.check_empty()
    }
}

impl Client {
    fn new(protocol: Protocol) -> Client {
        Client {
            protocol,
            link: None,
            peer: None,
            datagrams: Vec::new(),
            is_stalled: false,
            ids: Vec::new(),
            seen: BTreeMap::new(),
            connected: 0,
        }
    }
}

impl Link {
    pub(super) fn new(connection: Connection, party: Party) -> Link {
        Link {
            connection,
            party,
            compression: Compression::None,
            requests: VecDeque::new(),
            upstream: VecDeque::new(),
            sent: 0,
            ends_input: false,
            said: 0,
            read: 0,
            marks: VecDeque::new(),
        }
    }

    /// The client says something, if its protocol has words for it.
    pub(super) fn send(&mut self, protocol: Protocol, request: Request) {
        let bytes = match protocol {
            Protocol::Packets | Protocol::Udp => words::packet(&request),
            Protocol::WebRocket => words::command(&request),
            Protocol::Browser => words::login(&request),
            Protocol::Application => words::link(&request),
            Protocol::Lines | Protocol::Events => None,
        };
        let Some(bytes) = bytes else { return };
        self.sent += bytes.len() as u64;
        self.upstream.extend(bytes);
        self.requests.push_back((self.sent, request));
    }
}
