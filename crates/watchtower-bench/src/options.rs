//! What a bench is asked to do, and whether that can be done.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::error::Error;
use crate::load::http::StreamForm;
use crate::load::payload::{NUMBER_BYTES, Number};
use crate::load::{Copies, Counter, Pace, Patience, packets, webtalk};
use crate::topology::{Audience, Topology};

/// The most channels that fit in the one line that a join over HTTP is.
const HTTP_CHANNELS_MAX: u32 = 10_000;
/// The largest datagram; a message with its header must fit in one.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// The largest content that is worth measuring: a window of them must fit in memory.
const SIZE_MAX: usize = 16 * 1024 * 1024;
/// Messages are told apart by 32-bit numbers, those of warm-ups included.
const MESSAGES_MAX: u32 = u32::MAX / 4;

/// More than a system has open files.
const CONNECTIONS_MAX: u32 = 10_000_000;

/// How long nothing may arrive before what is outstanding counts as lost.
const LOSS_SILENCE: Duration = Duration::from_millis(200);
/// How long nothing may arrive on a protocol that loses nothing before the bench fails.
const STALL_SILENCE: Duration = Duration::from_secs(30);

/// The protocol of the subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Protocol {
    /// Packets in a TCP stream.
    Tcp,
    /// Packets in datagrams.
    Udp,
    /// JSON lines in an HTTP stream.
    Http,
    /// Server-Sent Events.
    Sse,
    /// JSON over WebSocket.
    WebRocket,
    /// Text over WebSocket, published over the private link.
    WebTalk,
}

impl Protocol {
    /// As in the option's value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Sse => "sse",
            Self::WebRocket => "webrocket",
            Self::WebTalk => "webtalk",
        }
    }

    /// The form of its stream, if that is an HTTP response.
    pub(crate) fn stream_form(self) -> Option<StreamForm> {
        match self {
            Self::Tcp | Self::Udp | Self::WebRocket | Self::WebTalk => None,
            Self::Http => Some(StreamForm::JsonLines),
            Self::Sse => Some(StreamForm::Events),
        }
    }

    pub(crate) fn is_websocket(self) -> bool {
        matches!(self, Self::WebRocket | Self::WebTalk)
    }

    /// Whether publishers are in their channels, and get what is published there.
    pub(crate) fn publisher_hears(self) -> bool {
        !self.is_websocket()
    }

    /// What counts the packets of a subscriber that speaks packets.
    pub(crate) fn packet_counter(self) -> Counter {
        match self {
            Self::Udp => Counter::Datagrams,
            _ => Counter::Packets(packets::PacketCounter::default()),
        }
    }

    pub(crate) fn patience(self) -> Patience {
        match self {
            Self::Udp => Patience::GiveUp(LOSS_SILENCE),
            _ => Patience::Fail(STALL_SILENCE),
        }
    }
}

/// What a bench is asked to do. A kind of bench that has no use for something passes it over.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the subscribers speak.
    pub protocol: Protocol,
    /// How many there are, a connection (or UDP socket) each; with `publishers`, in each channel.
    pub subscribers: u32,
    /// `None`: there is one publisher, and every subscriber is joined to all channels. Otherwise so
    /// many publishers divide the channels, and each channel has subscribers of its own.
    pub publishers: Option<u32>,
    /// How many messages are measured; some more run before them to warm up.
    pub messages: u32,
    /// Bytes of content in a message; at least 8.
    pub size: usize,
    /// How messages are spaced.
    pub pace: Pace,
    /// The messages go to channels 1 to this in turn.
    pub channels: u32,
    /// A server that is running. Its costs are not known then, unless `server_pid` is.
    pub server: Option<SocketAddr>,
    /// The process of that server. It must run on the core that `server_cpu` names, if the bare loop
    /// is to be compared with it.
    pub server_pid: Option<u32>,
    /// The server's secret key; `None`: its registration is open. Over WebRocket, the hub's secret
    /// for read-write access, over WebTalk that of the private link.
    pub secret: Option<String>,
    /// Over WebRocket, the hub's secret for read-only access, which the subscribers ask for then;
    /// `None`: they use the other one.
    pub read_only_secret: Option<String>,
    /// The path of the WebSockets; `None`: `/webrocket` or `/webtalk`.
    pub path: Option<String>,
    /// Whether subscribers over WebSocket have messages deflated.
    pub deflate: bool,
    /// The private link of the WebTalk of a server that is running; one that is started here tells
    /// its own.
    pub webtalk_private: Option<SocketAddr>,
    /// The command that starts a server, when none is running.
    pub server_command: Vec<OsString>,
    /// Whether the bare loop is measured beside the server.
    pub floor: bool,
    /// The command that runs [`crate::floor::serve`].
    pub floor_command: Vec<OsString>,
    /// The core of the server and of the bare loop; `None`: the first that may be used, if there
    /// are two.
    pub server_cpu: Option<usize>,
    /// The core of the load; `None`: the second that may be used, if there are two.
    pub load_cpu: Option<usize>,
}

impl Default for Options {
    /// 100 TCP subscribers, 1,000 messages of 128 bytes, one at a time, on one channel; no server.
    fn default() -> Self {
        Self {
            protocol: Protocol::Tcp,
            subscribers: 100,
            publishers: None,
            messages: 1000,
            size: 128,
            pace: Pace::Window(1),
            channels: 1,
            server: None,
            server_pid: None,
            secret: None,
            read_only_secret: None,
            path: None,
            deflate: false,
            webtalk_private: None,
            server_command: Vec::new(),
            floor: false,
            floor_command: Vec::new(),
            server_cpu: None,
            load_cpu: None,
        }
    }
}

impl Options {
    /// Where WebSockets are asked for.
    pub(crate) fn websocket_path(&self) -> &str {
        match (&self.path, self.protocol) {
            (Some(path), _) => path,
            (None, Protocol::WebTalk) => "/webtalk",
            (None, _) => "/webrocket",
        }
    }

    /// Who publishes where, and who hears it.
    pub(crate) fn topology(&self) -> Topology {
        let Self { publishers, channels, subscribers, .. } = *self;
        match publishers {
            None => Topology { publishers: 1, channels, audience: Audience::OfAll(subscribers) },
            Some(publishers) => Topology { publishers, channels, audience: Audience::OfEach(subscribers) },
        }
    }

    /// How many sockets connect to a server.
    pub(crate) fn sockets(&self) -> u64 {
        let topology = self.topology();
        u64::from(topology.subscribers()) + u64::from(topology.publishers)
    }

    /// How many copies of its messages a server is asked for.
    pub(crate) fn copies(&self) -> Copies {
        let topology = self.topology();
        // Elsewhere a publisher is answered, and hears nobody else.
        let hears = self.protocol.publisher_hears();
        Copies {
            subscribers: topology.subscribers() as usize,
            deliveries: topology.deliveries().into(),
            answers: if hears { topology.publishers_beside() } else { vec![1] },
            apart: self.publishers.map(|_| topology),
        }
    }

    /// The number of the first message: message 0 is what the bare loop learns from.
    pub(crate) fn first_number(&self) -> Number {
        Number(u32::from(!self.floor))
    }

    /// Whether this can be done at all.
    ///
    /// # Errors
    /// [`Error::Options`] that says what cannot, and what could.
    pub fn check(&self) -> Result<(), Error> {
        let (Pace::Window(pace) | Pace::Rate(pace)) = self.pace;
        let datagram_content_max = DATAGRAM_BYTES_MAX - packets::MESSAGE_HEADER_BYTES;
        let refusals = [
            (self.subscribers == 0, "there must be at least one subscriber".into()),
            (self.publishers == Some(0), "there must be at least one publisher".into()),
            (
                self.publishers.is_some_and(|publishers| {
                    let subscribers = self.subscribers.checked_mul(self.channels);
                    subscribers
                        .and_then(|count| count.checked_add(publishers))
                        .is_none_or(|count| count > CONNECTIONS_MAX)
                }),
                format!("at most {CONNECTIONS_MAX} connections"),
            ),
            (
                self.publishers.is_some() && self.deflate && self.floor,
                "deflated messages of several publishers cannot be compared with the bare loop".into(),
            ),
            (self.messages == 0, "there must be at least one message".into()),
            (self.messages > MESSAGES_MAX, format!("at most {MESSAGES_MAX} messages")),
            (pace == 0, "window and rate start at 1".into()),
            (
                self.size < NUMBER_BYTES || self.size > SIZE_MAX,
                format!("a message is {NUMBER_BYTES} to {SIZE_MAX} bytes: it carries its number"),
            ),
            (
                self.protocol == Protocol::Udp && self.size > datagram_content_max,
                format!("a message in a datagram is at most {datagram_content_max} bytes"),
            ),
            (self.channels == 0, "there must be at least one channel".into()),
            (
                self.protocol.stream_form().is_some() && self.channels > HTTP_CHANNELS_MAX,
                format!("a join over HTTP names at most {HTTP_CHANNELS_MAX} channels"),
            ),
            (
                !self.protocol.is_websocket()
                    && self.secret.as_ref().is_some_and(|secret| secret.len() > u8::MAX.into()),
                "a secret is at most 255 bytes".into(),
            ),
            (
                self.server.is_none() && self.server_command.is_empty(),
                "there is neither a server nor a command to start one".into(),
            ),
            (
                self.floor && self.server.is_some() && self.server_pid.is_none(),
                "the bare loop can only be compared with a server that is started here, or whose \
                 process is named: what another one costs cannot be seen"
                    .into(),
            ),
            (
                self.floor && self.floor_command.is_empty(),
                "there is no command to start the bare loop".into(),
            ),
        ];
        match refusals.into_iter().chain(self.websocket_refusals()).find(|(refused, _)| *refused) {
            Some((_, reason)) => Err(Error::Options(reason)),
            None => Ok(()),
        }
    }

    /// What of the options for WebSockets does not go together, with the reason.
    fn websocket_refusals(&self) -> [(bool, String); 5] {
        let shout_max = webtalk::FRAME_BYTES_MAX - webtalk::SHOUT_BYTES_BESIDE_MAX;
        let is_webtalk = self.protocol == Protocol::WebTalk;
        let is_plain_path =
            |path: &String| path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
        [
            (
                is_webtalk && self.size > shout_max,
                format!("a message over WebTalk is at most {shout_max} bytes"),
            ),
            (
                is_webtalk && self.server.is_some() && self.webtalk_private.is_none(),
                "the private link of that server's WebTalk must be named: it publishes".into(),
            ),
            (
                !self.protocol.is_websocket() && (self.deflate || self.path.is_some()),
                "there is no path and no deflating but over WebSocket".into(),
            ),
            (
                self.path.as_ref().is_some_and(|path| !is_plain_path(path)),
                "a path starts with / and has no blanks".into(),
            ),
            (
                self.protocol != Protocol::WebRocket && self.read_only_secret.is_some(),
                "there is no secret for reading but over WebRocket".into(),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options { server_command: vec!["server".into()], ..Options::default() }
    }

    fn check_refused(options: &Options, told: &str) {
        let error = options.check().unwrap_err();
        assert!(matches!(error, Error::Options(_)));
        assert!(error.to_string().contains(told), "{error}");
    }

    #[test]
    fn the_defaults_need_a_server_and_nothing_else() {
        check_refused(&Options::default(), "neither a server nor a command");
        options().check().unwrap();
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_the_reason() {
        let server = Some("127.0.0.1:3033".parse().unwrap());
        check_refused(&Options { subscribers: 0, ..options() }, "one subscriber");
        check_refused(&Options { messages: 0, ..options() }, "one message");
        check_refused(&Options { messages: u32::MAX, ..options() }, "messages");
        check_refused(&Options { pace: Pace::Window(0), ..options() }, "start at 1");
        check_refused(&Options { pace: Pace::Rate(0), ..options() }, "start at 1");
        check_refused(&Options { size: 7, ..options() }, "8 to");
        check_refused(&Options { channels: 0, ..options() }, "one channel");
        check_refused(&Options { secret: Some("s".repeat(256)), ..options() }, "255");
        check_refused(&Options { floor: true, ..options() }, "command to start the bare");
        check_refused(&Options { floor: true, server, ..options() }, "started here");
    }

    #[test]
    fn what_only_websockets_have_is_refused_elsewhere() {
        let path = Some("/my/hub".to_owned());
        check_refused(&Options { deflate: true, ..options() }, "but over WebSocket");
        check_refused(&Options { path: path.clone(), ..options() }, "but over WebSocket");
        let secret = Some("s".to_owned());
        check_refused(&Options { read_only_secret: secret.clone(), ..options() }, "over WebRocket");
        let protocol = Protocol::WebRocket;
        let all = Options { protocol, path, deflate: true, read_only_secret: secret, ..options() };
        all.check().unwrap();
        for path in ["hub", "/my hub", "/hub\r\n"] {
            check_refused(&Options { path: Some(path.into()), ..all.clone() }, "starts with /");
        }
    }

    #[test]
    fn webtalk_needs_a_private_link_and_messages_that_fit_it() {
        let webtalk = Options { protocol: Protocol::WebTalk, ..options() };
        Options { size: 99_970, ..webtalk.clone() }.check().unwrap();
        check_refused(&Options { size: 99_971, ..webtalk.clone() }, "at most 99970 bytes");
        let server = Some("127.0.0.1:3033".parse().unwrap());
        let elsewhere = Options { server, ..webtalk };
        check_refused(&elsewhere, "must be named");
        Options { webtalk_private: server, ..elsewhere }.check().unwrap();
    }

    #[test]
    fn limits_of_one_protocol_are_not_those_of_another() {
        let size = 65_493;
        options().check().unwrap();
        Options { size, ..options() }.check().unwrap();
        check_refused(&Options { size, protocol: Protocol::Udp, ..options() }, "at most 65492 bytes");
        let channels = 10_001;
        Options { channels, ..options() }.check().unwrap();
        check_refused(&Options { channels, protocol: Protocol::Sse, ..options() }, "at most 10000 channels");
    }
}
