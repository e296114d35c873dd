//! What happens in a run: a value that is made from a seed, so that it can be
//! replayed, and made shorter.
//!
//! Clients, channels, senders and users are numbers that are taken round the
//! number there is, so that a script makes sense whichever of its steps are
//! left out. Knows no protocol's bytes and no hub.

use std::iter;

use fastrand::Rng;

use crate::schedule::Millis;

/// How many clients there are.
const CLIENTS: std::ops::Range<usize> = 2..9;

/// The channel that is durable.
const DURABLE: u8 = 2;

/// Lag limits that no run comes near.
const LAG_MESSAGES: u64 = 10_000;
const LAG_BYTES: u64 = 1 << 20;

/// The most bytes that a connection's way to the client holds.
const ROOMS: [usize; 3] = [64, 1_024, 65_536];

/// A run: who is there, and what they do.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) setting: Setting,
    pub(super) clients: Vec<Protocol>,
    pub(super) steps: Vec<Step>,
}

/// How the hub is set up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    /// What the hub draws its ids from.
    pub(super) entropy: u64,
    pub(super) lag_messages: u64,
    pub(super) lag_bytes: u64,
    pub(super) senders_max: usize,
    pub(super) channels_max: usize,
    pub(super) channels_per_sender_max: usize,
    pub(super) bind_ids: bool,
    /// Whether there is a channel with a name, which packets cannot show.
    pub(super) has_names: bool,
    /// Whether one of the channels retains its last message.
    pub(super) retains: bool,
    /// Whether two channels are told who comes and who goes.
    pub(super) tells_presence: bool,
    /// Whether the server ends in the middle of it all, and says so.
    pub(super) shuts_down: bool,
    /// The room of a connection's way to the client, in bytes.
    pub(super) room: usize,
}

impl Setting {
    /// Whether clients are to be told positions. What is told of presence repeats
    /// itself: where some of it may be skipped, nobody could say else which it is
    /// that came.
    pub(super) fn needs_positions(&self) -> bool {
        let lags = self.lag_messages < LAG_MESSAGES || self.lag_bytes < LAG_BYTES;
        self.tells_presence && lags
    }

    /// Of how many channels clients join one when they begin: with presence, the
    /// durable one is among them.
    fn channels_joined(&self) -> u8 {
        if self.tells_presence { DURABLE + 1 } else { DURABLE }
    }
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Packets,
    Udp,
    /// An HTTP stream of lines, and requests beside it.
    Lines,
    /// The same, of Server-Sent Events, in chunks.
    Events,
    WebRocket,
    /// A user's browser.
    Browser,
    /// The application of WebTalk.
    Application,
}

impl Protocol {
    fn can_say_positions(self) -> bool {
        !matches!(self, Protocol::Packets | Protocol::Udp | Protocol::Browser)
    }
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Time passes.
    Wait(Millis),
    /// One of the connections that were woken has its turn.
    Turn(u8),
    /// The network carries all, and all have their turns, until nothing moves.
    Settle,
    /// The ledger answers so many submissions.
    Disk { answers: u8, is_kept: bool },
    /// The hub stops without a word, and another one begins.
    Restart { kept: u8 },
    /// A client, or the network between it and the server, does something.
    Do(u8, Act),
}

#[derive(Debug, Clone)]
pub(super) enum Act {
    Connect,
    /// It is gone without a word: the connection is reset.
    Crash,
    /// It says that it sends no more.
    EndInput,
    /// It reads nothing until it listens.
    Stall,
    Listen,
    /// So many bytes of what it sent reach the server.
    Carry(u16),
    /// It reads so many bytes.
    Read(u16),
    /// Something becomes of a datagram under way.
    Datagram(u8, Fate),
    Ask(Ask),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Arrives,
    ArrivesTwice,
    IsLost,
}

/// What a client asks for. A protocol that has no words for it leaves it.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Register {
        secret: Option<bool>,
    },
    KeepAlive,
    Join {
        who: u8,
        channel: u8,
    },
    /// To hear, too, what came since the client was there.
    Follow {
        channel: u8,
        since: Since,
    },
    /// The same, by a device that has counted what it heard.
    FollowFrom {
        who: u8,
        channel: u8,
        since: Since,
    },
    /// To send: nothing is delivered.
    JoinToSend {
        who: u8,
        channel: u8,
    },
    Leave {
        who: u8,
        channel: u8,
    },
    Publish {
        who: u8,
        channel: u8,
        content: Shape,
    },
    PublishOnTwo {
        who: u8,
        channels: [u8; 2],
        content: Shape,
    },
    Send {
        who: u8,
        channel: u8,
        to: Vec<u8>,
        content: Shape,
    },
    Authenticate {
        may_publish: bool,
        is_right: bool,
    },
    LogOut,
    Goodbye,
    LogIn {
        user: u8,
        is_right: bool,
    },
    NewUser,
    KillUser {
        user: u8,
    },
    Whisper {
        user: u8,
        content: Shape,
    },
    NewChannel,
    KillChannel {
        channel: u8,
    },
    Rubbish(u8),
}

/// What a client says that it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    Nothing,
    /// The last that it has seen there, and so many before.
    Seen {
        before: u8,
    },
    /// More than there is.
    TooMuch,
}

/// What a content is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    pub(super) bytes: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Json,
    Binary,
}

impl Script {
    /// The script of a seed.
    pub(super) fn new(seed: u64, steps: usize) -> Script {
        let mut rng = Rng::with_seed(seed);
        let setting = setting(&mut rng);
        let count = rng.usize(CLIENTS);
        let protocols = iter::repeat_with(|| protocol(&mut rng));
        let fit = |it: &Protocol| it.can_say_positions() || !setting.needs_positions();
        let clients: Vec<_> = protocols.filter(fit).take(count).collect();
        let mut script = Script { setting, steps: Vec::with_capacity(steps), clients };
        // Some runs are about one channel, some about many.
        let channels = rng.u8(1..=6);
        // In some, the network does its work at once.
        let settles = [0, 5, 40][rng.usize(..3)];
        for client in 0..script.clients.len() {
            script.begin(client, true, &mut rng);
        }
        while script.steps.len() < steps {
            if rng.u8(..60) == 0 {
                script.burst(channels, &mut rng);
            }
            let step = script.step(channels, &mut rng);
            let is_restart = matches!(step, Step::Restart { .. });
            script.steps.push(step);
            if is_restart {
                // Those whose senders were kept may go on as these.
                for client in 0..script.clients.len() {
                    let registers = rng.bool();
                    script.begin(client, registers, &mut rng);
                }
            }
            if rng.usize(..100) < settles {
                script.steps.push(Step::Settle);
            }
        }
        script
    }

    /// Most are there from the beginning.
    fn begin(&mut self, client: usize, registers: bool, rng: &mut Rng) {
        let number = client as u8;
        self.steps.push(Step::Do(number, Act::Connect));
        let join = Ask::Join { who: 0, channel: rng.u8(..self.setting.channels_joined()) };
        let asks = match self.clients[client] {
            Protocol::Packets | Protocol::Udp => vec![Ask::Register { secret: None }, join],
            Protocol::Lines | Protocol::Events => {
                vec![Ask::Register { secret: None }, Ask::JoinToSend { who: 0, channel: rng.u8(..3) }]
            }
            Protocol::WebRocket => {
                let channel = rng.u8(..self.setting.channels_joined());
                let follow = Ask::Follow { channel, since: Since::Seen { before: 0 } };
                vec![Ask::Authenticate { may_publish: true, is_right: true }, follow]
            }
            Protocol::Browser => vec![Ask::LogIn { user: number, is_right: true }],
            Protocol::Application => vec![Ask::NewUser, Ask::NewUser, Ask::NewChannel, Ask::NewChannel],
        };
        for ask in asks.into_iter().filter(|_| rng.u8(..10) > 0) {
            if matches!(ask, Ask::Register { .. }) && !registers {
                continue;
            }
            self.steps.extend([Step::Do(number, Act::Ask(ask)), Step::Settle]);
        }
    }

    /// One says much at once, while some read and some do not.
    fn burst(&mut self, channels: u8, rng: &mut Rng) {
        let client = rng.usize(..self.clients.len()) as u8;
        let channel = channel(channels, rng);
        let sleeper = rng.usize(..self.clients.len()) as u8;
        self.steps.push(Step::Do(sleeper, Act::Stall));
        // It comes and goes so often that the channel is told the number alone.
        let flaps = self.setting.tells_presence && rng.bool();
        let (channel, least) = if flaps { ([0, DURABLE][rng.usize(..2)], 20) } else { (channel, 5) };
        for _ in 0..rng.usize(least..30) {
            if flaps {
                let asks = [Ask::Join { who: 0, channel }, Ask::Leave { who: 0, channel }];
                self.steps.extend(asks.map(|ask| Step::Do(client, Act::Ask(ask))));
            }
            let content = shape(rng);
            self.steps.push(Step::Do(client, Act::Ask(Ask::Publish { who: 0, channel, content })));
            if rng.u8(..8) == 0 {
                self.steps.push(Step::Settle);
            }
        }
        self.steps.push(Step::Settle);
    }

    fn step(&self, channels: u8, rng: &mut Rng) -> Step {
        match rng.u8(..100) {
            0..=3 => Step::Wait(match rng.u8(..12) {
                0 => rng.u64(20_000..60_000),
                1..=3 => rng.u64(5_000..20_000),
                _ => rng.u64(1..3_000),
            }),
            4..=5 => Step::Settle,
            6 => match rng.u8(..8) {
                0 => Step::Restart { kept: rng.u8(..if self.setting.tells_presence { 9 } else { 3 }) },
                number => Step::Disk { answers: rng.u8(1..4), is_kept: number > 1 },
            },
            // What is told of presence is much for a ledger.
            7..=9 if self.setting.tells_presence => {
                Step::Disk { answers: rng.u8(1..16), is_kept: rng.u8(..6) > 0 }
            }
            7..=25 => Step::Turn(rng.u8(..)),
            _ => {
                let client = rng.usize(..self.clients.len());
                Step::Do(client as u8, act(self.clients[client], channels, rng))
            }
        }
    }
}

fn setting(rng: &mut Rng) -> Setting {
    let (is_small, lags) = (rng.u8(..4) == 0, rng.bool());
    Setting {
        entropy: rng.u64(..),
        lag_messages: if lags && rng.u8(..4) > 0 { 12 } else { LAG_MESSAGES },
        lag_bytes: if lags && rng.bool() { 16_384 } else { LAG_BYTES },
        senders_max: if is_small { 4 } else { 1_000 },
        channels_max: if is_small { 3 } else { 1_000 },
        channels_per_sender_max: if is_small { 2 } else { 1_000 },
        bind_ids: rng.u8(..4) == 0,
        has_names: rng.u8(..4) == 0,
        retains: rng.u8(..3) == 0,
        tells_presence: rng.u8(..3) == 0,
        shuts_down: rng.u8(..4) == 0,
        room: ROOMS[rng.usize(..ROOMS.len())],
    }
}

fn protocol(rng: &mut Rng) -> Protocol {
    match rng.u8(..12) {
        0..=3 => Protocol::Packets,
        4..=5 => Protocol::Udp,
        6 => Protocol::Lines,
        7 => Protocol::Events,
        8..=9 => Protocol::WebRocket,
        10 => Protocol::Browser,
        _ => Protocol::Application,
    }
}

/// One of so many channels, the first ones more often.
fn channel(channels: u8, rng: &mut Rng) -> u8 {
    rng.u8(..channels).min(rng.u8(..channels))
}

fn act(protocol: Protocol, channels: u8, rng: &mut Rng) -> Act {
    if matches!(protocol, Protocol::Lines | Protocol::Events) && rng.u8(..6) == 0 {
        return if rng.u8(..3) == 0 { Act::Crash } else { Act::Connect };
    }
    if protocol == Protocol::Udp && rng.u8(..3) == 0 {
        let fate = [Fate::Arrives, Fate::Arrives, Fate::ArrivesTwice, Fate::IsLost][rng.usize(..4)];
        return Act::Datagram(rng.u8(..), fate);
    }
    match rng.u8(..100) {
        0..=1 => Act::Crash,
        2 => Act::EndInput,
        3..=13 => Act::Connect,
        14..=17 => Act::Stall,
        18..=19 => Act::Listen,
        20..=34 => Act::Carry(if rng.bool() { rng.u16(1..20) } else { u16::MAX }),
        35..=44 => Act::Read(if rng.bool() { rng.u16(1..100) } else { u16::MAX }),
        _ => Act::Ask(ask(protocol, channels, rng)),
    }
}

fn ask(protocol: Protocol, channels: u8, rng: &mut Rng) -> Ask {
    let channel = channel(channels, rng);
    let who = rng.u8(..);
    let content = shape(rng);
    if rng.u8(..60) == 0 {
        return Ask::Rubbish(rng.u8(..));
    }
    // They alone publish where it is to be kept.
    let is_http = matches!(protocol, Protocol::Lines | Protocol::Events);
    let channel = if is_http && rng.bool() { DURABLE } else { channel };
    match protocol {
        Protocol::Packets | Protocol::Udp => match rng.u8(..40) {
            0..=1 => Ask::Register { secret: [None, Some(true), Some(false)][rng.usize(..3)] },
            2 => Ask::KeepAlive,
            3..=10 => Ask::Join { who, channel },
            11..=13 => Ask::FollowFrom { who, channel, since: since(rng) },
            14..=16 => Ask::Leave { who, channel },
            17..=32 => Ask::Publish { who, channel, content },
            _ => Ask::Send { who, channel, to: receivers(rng), content },
        },
        Protocol::Lines | Protocol::Events => match rng.u8(..20) {
            0 => Ask::Register { secret: None },
            1..=3 => Ask::JoinToSend { who, channel },
            4 => Ask::Leave { who, channel },
            5..=12 => Ask::Publish { who, channel, content },
            13..=15 => Ask::PublishOnTwo { who, channels: [channel, rng.u8(..channels)], content },
            _ => Ask::Send { who, channel, to: receivers(rng), content },
        },
        Protocol::WebRocket => match rng.u8(..20) {
            0 => Ask::Authenticate { may_publish: rng.bool(), is_right: rng.bool() },
            1 => Ask::Authenticate { may_publish: true, is_right: true },
            2..=3 => Ask::Join { who, channel },
            4..=7 => Ask::Follow { channel, since: since(rng) },
            8 => Ask::Leave { who, channel },
            9 if rng.u8(..4) == 0 => Ask::LogOut,
            10 if rng.u8(..4) == 0 => Ask::Goodbye,
            _ => Ask::Publish { who, channel, content },
        },
        Protocol::Browser => match rng.u8(..4) {
            0 => Ask::Publish { who, channel, content },
            _ => Ask::LogIn { user: who, is_right: rng.u8(..8) > 0 },
        },
        Protocol::Application => match rng.u8(..40) {
            0..=2 => Ask::NewUser,
            3 if rng.bool() => Ask::KillUser { user: who },
            4..=9 => Ask::Whisper { user: who, content },
            10..=11 => Ask::NewChannel,
            12 if rng.bool() => Ask::KillChannel { channel },
            13 if rng.u8(..4) == 0 => Ask::Goodbye,
            14..=22 => Ask::Join { who, channel },
            23..=25 => Ask::Leave { who, channel },
            _ => Ask::Publish { who, channel, content },
        },
    }
}

fn since(rng: &mut Rng) -> Since {
    match rng.u8(..12) {
        0..=1 => Since::Nothing,
        2..=3 => Since::Seen { before: rng.u8(1..4) },
        4 => Since::TooMuch,
        _ => Since::Seen { before: 0 },
    }
}

fn receivers(rng: &mut Rng) -> Vec<u8> {
    (0..rng.usize(..4)).map(|_| rng.u8(..)).collect()
}

fn shape(rng: &mut Rng) -> Shape {
    let kind = [Kind::Text, Kind::Text, Kind::Json, Kind::Binary][rng.usize(..4)];
    let bytes = match rng.u8(..40) {
        0 => 5_000,
        1..=3 => rng.u16(1_000..3_000),
        _ => rng.u16(..200),
    };
    Shape { kind, bytes }
}
