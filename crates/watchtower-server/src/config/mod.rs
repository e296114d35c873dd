//! What can be configured: every key with its type, its default and its explanation, once.
//!
//! The structs below are that one definition. The parser, the search for the nearest known
//! key and the default file are derived from it by the macro in `key`, so a key cannot be in one
//! of them and missing in another. The doc comment of a field is its explanation in the
//! default file, which is why those comments speak to the person who runs a server.
//!
//! This module reads files and the environment's variables as they are handed to it. It does
//! not know the command line's grammar, opens no socket, and does not apply anything: the hub
//! and the drivers take what concerns them.

mod channels;
mod error;
mod key;
mod listen;
mod load;
mod secret;
#[cfg(test)]
mod tests;
mod value;
mod webrocket;
mod whispernet;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use watchtower_hub::ChannelName;

pub use channels::{ChannelPattern, ContentFormat};
pub use error::{ConfigError, ConfigErrors, Nearest, Origin};
pub use listen::{InvalidListen, Listen};
pub use load::{Flag, Sources};
pub use secret::{SecretKey, SecretOrigin};
pub use value::{InvalidOrigin, OpenRegistration, WebOrigin};
pub use watchtower_protocols::webrocket::Access;
pub use webrocket::{HubNamespace, HubPath, Hubs, WEBTALK_PATH};
pub use whispernet::{InvalidPeer, Nick, PeerName};

use key::{Row, Table, keys, within};
use secret::fits_a_packet;

/// The longest duration that a key takes, a hundred years: a deadline that far ahead can
/// still be computed without overflow.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// The shortest duration of keys for which zero would mean a busy loop or a refusal of all.
const DURATION_MIN: Duration = Duration::from_millis(1);
/// The most that a count may be set to. Beyond it lies a slip of the finger, not a need.
const COUNT_MAX: usize = 1_000_000_000;
/// The most bytes that may be set to be kept of a channel, an exbibyte.
const HISTORY_BYTES_MAX: usize = 1 << 60;
/// The most bytes that a message may be allowed to have; packets carry lengths of 32 bits.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

keys! {
    /// Everything that can be configured, with the defaults of [running: serve].
    pub struct Config {
        /// Where the server listens: one port for packets and HTTP on TCP, told apart by
        /// their first bytes, and packets on UDP of the same number. "localhost" means
        /// 127.0.0.1 and ::1; port 0 takes a free port.
        listen: Listen = Listen::default();
        /// The secret for POST /register and for the packet S; it also signs callbacks. At
        /// most 255 bytes. Empty: one is made at the first start, printed once, and kept in
        /// data_dir. Beyond loopback it must be set, to something that cannot be guessed.
        secret_key: SecretKey = SecretKey::default(), fits_a_packet;
        /// Whether the packet R registers without the secret: true, false, or "auto", which
        /// means only while the server listens on loopback alone.
        open_registration: OpenRegistration = OpenRegistration::Auto;
        /// The folder for what outlives the server: senders, joins, callbacks, messages of
        /// durable channels. Empty: nothing is kept on disk.
        data_dir: Option<PathBuf> = None;
        /// Whether a sender belongs to the connection or UDP address that registered it, so
        /// that no other may use its id while that one is connected.
        bind_ids: bool = false;
        /// How long a sender that does nothing stays registered.
        sender_ttl: Duration = Duration::from_secs(30 * 24 * 60 * 60), within(DURATION_MIN..=DURATION_MAX);
        /// How long joins outlive their connection, so that a quick reconnect misses nothing.
        session_ttl: Duration = Duration::from_secs(2 * 60), within(Duration::ZERO..=DURATION_MAX);
        /// How long a UDP session may be silent before it is no longer delivered to.
        udp_idle: Duration = Duration::from_secs(5 * 60), within(DURATION_MIN..=DURATION_MAX);
        /// How long a shutdown waits for sessions to take what is theirs and close.
        shutdown_grace: Duration = Duration::from_secs(10), within(Duration::ZERO..=DURATION_MAX);
        /// Every limit has a default that is safe on a small machine. Limits per address do
        /// not count loopback. A reload takes them over.
        limits: Limits = Limits::default();
        /// HTTP on the shared port.
        http: Http = Http::default();
        /// Callbacks: messages that the server posts to a URL.
        callbacks: Callbacks = Callbacks::default();
        /// TLS on every TCP port, beside plain connections, which are still taken.
        tls: Tls = Tls::default();
        /// Rules for channels, any number; the first whose pattern matches a name applies.
        /// What none matches lives in memory only and keeps no history, and takes any
        /// content. This rule says just that for its channels: change it or take it out.
        channels: Vec<ChannelRule> = vec![ChannelRule::default()];
        /// What all WebSockets have in common.
        websocket: WebSocket = WebSocket::default();
        /// WebRocket: JSON publish/subscribe over WebSocket, on the shared port.
        webrocket: WebRocket = WebRocket::default();
        /// WebTalk: browsers that another application talks to. Its public side is the path
        /// /webtalk on the shared port.
        webtalk: WebTalk = WebTalk::default();
        /// The whispernet: chat from peer to peer. The server is a peer whose room is a channel.
        whispernet: Whispernet = Whispernet::default();
    }
}

keys! {
    /// The limits that keep one client, or all of them, from taking the whole machine.
    pub struct Limits {
        /// The most bytes of content that a message may have.
        max_message_bytes: usize = 65_535, within(1..=MESSAGE_BYTES_MAX);
        /// The most connections at a time, over all addresses.
        max_connections: usize = 100_000, within(1..=COUNT_MAX);
        /// The most connections at a time from one address.
        max_connections_per_address: usize = 1_000, within(1..=COUNT_MAX);
        /// The most channels that exist at a time.
        max_channels: usize = 1_000_000, within(1..=COUNT_MAX);
        /// The most channels that one sender may have joined at a time.
        max_channels_per_sender: usize = 10_000, within(1..=COUNT_MAX);
        /// The most senders that are registered at a time.
        max_senders: usize = 1_000_000, within(1..=COUNT_MAX);
        /// The most bytes that all channels with `retain` may retain together. Each message counts
        /// 256 more than its content. What is above is refused.
        max_retained_bytes: usize = 67_108_864, within(1..=MESSAGE_BYTES_MAX);
        /// The most HTTP requests that one address may make in a second. Packets are not
        /// counted.
        max_requests_per_second_per_address: usize = 1_000, within(1..=COUNT_MAX);
        /// The most senders that one address may register in a second, over packets and HTTP.
        /// What is refused, a wrong secret, counts too.
        max_registrations_per_second_per_address: usize = 100, within(1..=COUNT_MAX);
        /// How many bytes of a channel a reader may be behind before it counts as lagging.
        lag_bytes: usize = 1_048_576, within(1..=MESSAGE_BYTES_MAX);
        /// How many messages of a channel a reader may be behind before it counts as lagging.
        lag_messages: usize = 10_000, within(1..=COUNT_MAX);
        /// The most bytes that the head of an HTTP request may have.
        max_header_bytes: usize = 16_384, within(8_192..=MESSAGE_BYTES_MAX);
        /// The most bytes that the body of an HTTP request may have. JSON needs up to six
        /// bytes for one of a message.
        max_body_bytes: usize = 1_048_576, within(1..=MESSAGE_BYTES_MAX);
        /// How long a connection may take to say what its protocol wants first.
        header_timeout: Duration = Duration::from_secs(10), within(DURATION_MIN..=DURATION_MAX);
    }
}

keys! {
    /// HTTP on the shared port.
    pub struct Http {
        /// How long a stream is silent before a heartbeat is written to it.
        heartbeat: Duration = Duration::from_secs(15), within(DURATION_MIN..=DURATION_MAX);
        /// The web origins whose pages may read answers, such as `["https://example.com"]`.
        cors_origins: Vec<WebOrigin> = Vec::new();
    }
}

keys! {
    /// Callbacks: messages that the server posts to a URL.
    pub struct Callbacks {
        /// Networks that may be called besides public ones, such as `["192.168.0.0/16"]`.
        /// While the server listens on loopback alone, loopback may be called too.
        allow: Vec<IpNet> = Vec::new();
        /// How long one call may take, connecting included.
        timeout: Duration = Duration::from_secs(10), within(DURATION_MIN..=DURATION_MAX);
        /// How long calls may fail before their subscription is ended.
        give_up: Duration = Duration::from_secs(24 * 60 * 60), within(DURATION_MIN..=DURATION_MAX);
        /// The most callback subscriptions that there are at a time.
        max_subscriptions: usize = 4_096, within(1..=COUNT_MAX);
        /// The most callback subscriptions that one sender may have at a time.
        max_subscriptions_per_sender: usize = 64, within(1..=COUNT_MAX);
    }
}

keys! {
    /// TLS on every TCP port, beside plain connections, which are still taken. Both files are
    /// read again when they change, and at a reload.
    pub struct Tls {
        /// The file with the server's certificate and those between it and its root, PEM.
        /// Empty: no TLS.
        cert: Option<PathBuf> = None;
        /// The file with the private key of that certificate, PEM, not encrypted.
        key: Option<PathBuf> = None;
    }
}

keys! {
    /// What holds for the channels whose names match a pattern.
    pub struct ChannelRule needs ["pattern"] {
        /// The names that this rule is for: * stands for any run of characters, / included.
        pattern: ChannelPattern = ChannelPattern::example();
        /// Whether messages are kept on disk, in data_dir: a message is acknowledged and
        /// delivered once it is there, and is still there after a crash.
        durable: bool = false;
        /// How many messages are kept for those who come later. 0: none, or, on a durable
        /// channel, no limit by their number.
        history_messages: usize = 0, within(0..=COUNT_MAX);
        /// How many bytes of messages a durable channel keeps. 0: no limit by bytes.
        history_bytes: usize = 0, within(0..=HISTORY_BYTES_MAX);
        /// How long a message is kept for those who come later, on disk too.
        history_ttl: Duration = Duration::from_secs(60 * 60), within(DURATION_MIN..=DURATION_MAX);
        /// The content that is taken: "any", "json", or "text".
        format: ContentFormat = ContentFormat::Any;
        /// Whether subscribers are told which senders join and leave, by messages of the event
        /// name "presence". WebRocket can ask who is there, too: whoever may read the channel
        /// learns the senders' ids.
        presence_events: bool = false;
        /// Whether a new subscriber gets the last message for everyone at once, whenever that was
        /// published. A message without content ends it.
        retain: bool = false;
    }
}

keys! {
    /// What all WebSockets have in common.
    pub struct WebSocket {
        /// How often a client is pinged. One that says nothing at all between two pings is
        /// disconnected.
        heartbeat: Duration = Duration::from_secs(30), within(DURATION_MIN..=DURATION_MAX);
        /// The most bytes that a client's message may have, before and after decompression. JSON
        /// needs up to six bytes for one of content.
        max_message_bytes: usize = 1_048_576, within(1..=MESSAGE_BYTES_MAX);
    }
}

keys! {
    /// WebRocket: JSON publish/subscribe over WebSocket.
    pub struct WebRocket {
        /// A port of its own besides the shared one, such as "127.0.0.1:9772". Empty: none.
        listen: Option<Listen> = None;
        /// The hubs, any number: endpoints with a path and two secrets. While none is
        /// configured there is this one, open to all on this machine; beyond loopback both its
        /// secrets are the secret_key.
        hubs: Hubs = Hubs::default();
    }
}

keys! {
    /// An endpoint of WebRocket.
    pub struct WebRocketHub needs ["path"] {
        /// The path that clients connect to.
        path: HubPath = HubPath::default();
        /// The secret for read-only access. Empty: this access needs none.
        read_only: SecretKey = SecretKey::default();
        /// The secret for read-write access. Empty: this access needs none, which beyond
        /// loopback is refused unless anonymous = "read-write" says so too.
        read_write: SecretKey = SecretKey::default();
        /// The access without a login: "none", "read-only" or "read-write".
        anonymous: Access = Access::None;
        /// Gives the hub channels of its own, named "namespace/channel" in other protocols.
        /// Empty: it shares the server's.
        namespace: HubNamespace = HubNamespace::default();
        /// The web origins whose pages may connect. Empty: any.
        origins: Vec<WebOrigin> = Vec::new();
    }
}

keys! {
    /// WebTalk: browsers that another application talks to.
    pub struct WebTalk {
        /// A port of its own for browsers, such as "0.0.0.0:12345". Empty: none.
        public: Option<Listen> = None;
        /// Where the application that owns the users connects, such as "127.0.0.1:12344".
        /// Empty: WebTalk is off.
        private: Option<Listen> = None;
        /// The secret that the application shows first, with the command login. Beyond loopback
        /// it must be set, and TLS too.
        secret: SecretKey = SecretKey::default();
    }
}

keys! {
    /// The whispernet: chat from peer to peer. The server is a peer whose room is a channel.
    pub struct Whispernet {
        /// Where other peers connect, such as "0.0.0.0:55555". Whoever can reach it can read the
        /// channel and publish on it. Empty: the server is no peer.
        listen: Option<Listen> = None;
        /// What other peers are told to connect to, if that is not where it listens.
        announced: Option<SocketAddr> = None;
        /// Peers that are always dialled, such as `["192.168.1.53:55555"]`.
        peers: Vec<PeerName> = Vec::new();
        /// The channel: what is published on it is said to the peers, and what they say is
        /// published on it.
        channel: ChannelName = whispernet_channel();
        /// Whom the server speaks as. Behind it come three digits for each sender. Empty:
        /// watchtower.
        nick: Nick = Nick::default();
        /// Whether the server announces itself by UDP broadcast on port 5555, and dials what it
        /// hears there.
        discovery: bool = false;
        /// How many of the last messages newly connected peers are sent.
        backlog: usize = 50, within(0..=10_000);
        /// Whether only messages that are signed are published.
        require_signed: bool = false;
        /// Whether the server has a few neighbours where there are many peers; else it dials all
        /// of them, and sends each everything.
        routing: bool = true;
        /// The file with the certificate that is shown to other peers and those between it and
        /// its root, PEM. With it every link is within TLS. Empty: none is.
        tls_cert: Option<PathBuf> = None;
        /// The file with the private key of that certificate, PEM, not encrypted.
        tls_key: Option<PathBuf> = None;
        /// The file with the authorities that the certificates of peers are from, PEM.
        tls_ca: Option<PathBuf> = None;
    }
}

fn whispernet_channel() -> ChannelName {
    ChannelName::parse("whisper").expect("it is a name")
}

/// What [`Config::reloaded`] made of a new configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// The running configuration with the secret, the limits and the certificate's files of
    /// the new one.
    pub config: Config,
    /// The keys that differ and take effect at the next start only, such as `listen`.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// The addresses to listen on, one or (for `localhost`) two, never none.
    ///
    /// All have the same port. Where that is 0, bind the first to learn a port and give the
    /// others that one: one server has one port number. A machine without IPv6 has no `::1`;
    /// that the second of two cannot be bound for that reason is no failure of the first.
    pub fn listen_addrs(&self) -> Vec<SocketAddr> {
        self.listen.addrs()
    }

    /// Whether only this machine can reach the server.
    pub fn listens_on_loopback_only(&self) -> bool {
        self.listen.is_loopback()
    }

    /// Whether a device may register without the secret, `"auto"` resolved.
    pub fn registers_without_secret(&self) -> bool {
        match self.open_registration {
            OpenRegistration::Yes => true,
            OpenRegistration::No => false,
            OpenRegistration::Auto => self.listens_on_loopback_only(),
        }
    }

    /// What this configuration becomes when a running server is told to reload.
    ///
    /// Secrets, limits and `[tls]` are taken over [running: SIGHUP]; an empty `secret_key` keeps the
    /// secret in use, which may be one that was made. All else stays as it is, and so do secrets
    /// that would not do where this server listens, though they do where the next one will.
    pub fn reloaded(&self, new: &Config) -> Reloaded {
        let mut config = self.clone();
        config.limits = new.limits.clone();
        config.tls = new.tls.clone();
        if !new.secret_key.is_empty() {
            config.secret_key = new.secret_key.clone();
        }
        config.webrocket.hubs.take_over_secrets(&new.webrocket.hubs);
        config.webtalk.secret = new.webtalk.secret.clone();
        let kept = config.keep_secrets_where_exposed(self);
        let mut needs_restart = changed_keys(&config, new);
        needs_restart.retain(|key| key != "secret_key");
        needs_restart.extend(kept.into_iter().map(str::to_owned));
        needs_restart.sort();
        needs_restart.dedup();
        Reloaded { config, needs_restart }
    }

    /// Puts those secrets of `before` back in place of which a start would refuse these, and
    /// returns their keys.
    fn keep_secrets_where_exposed(&mut self, before: &Config) -> Vec<&'static str> {
        let mut kept = Vec::new();
        if self.check_exposure().is_err() {
            self.secret_key = before.secret_key.clone();
            kept.push("secret_key");
        }
        let mut wrong_hubs = Vec::new();
        self.check_hubs(&mut wrong_hubs);
        if !wrong_hubs.is_empty() {
            self.webrocket.hubs = before.webrocket.hubs.clone();
            kept.push("webrocket.hubs.read_write");
        }
        if self.check_private_link().is_err() {
            self.webtalk.secret = before.webtalk.secret.clone();
            kept.push("webtalk.secret");
        }
        kept
    }
}

/// The configuration file with every key at its default, none commented out, each explained.
///
/// Reading it gives [`Config::default`].
pub fn render_default() -> String {
    let mut file = String::from(
        "# The configuration of Watchtower: every key at its default.\n\
         #\n\
         # A key that is left out keeps its default. A duration is a text such as \"250ms\", \"10s\",\n\
         # \"1h30m\" or \"30d\". The environment overrides this file (WATCHTOWER_LISTEN,\n\
         # WATCHTOWER_LIMITS__MAX_CONNECTIONS), and the command line overrides both\n\
         # (--listen, --set limits.max_connections=500).\n",
    );
    for row in rows(&Config::default()) {
        file.push('\n');
        match row {
            Row::Table { name, each, explanation } => {
                file.push_str(explanation);
                file.push_str(&if each { format!("[[{name}]]\n") } else { format!("[{name}]\n") });
            }
            Row::Key { name, explanation, value } => {
                let within_its_table = name.rsplit('.').next().unwrap_or(&name);
                file.push_str(explanation);
                file.push_str(&format!("{within_its_table} = {value}\n"));
            }
        }
    }
    file
}

/// Every key and table with its value, in the order of the default file.
fn rows(config: &Config) -> Vec<Row> {
    let mut rows = Vec::new();
    config.rows("", &mut rows);
    rows
}

/// The names of the keys whose values differ; those of `[[channels]]` over all rules.
fn changed_keys(old: &Config, new: &Config) -> Vec<String> {
    let values = |config| {
        let mut values = BTreeMap::<String, Vec<String>>::new();
        for row in rows(config) {
            if let Row::Key { name, value, .. } = row {
                values.entry(name).or_default().push(value);
            }
        }
        values
    };
    let (old, new) = (values(old), values(new));
    old.keys()
        .chain(new.keys().filter(|key| !old.contains_key(*key)))
        .filter(|key| old.get(*key) != new.get(*key))
        .cloned()
        .collect()
}
