//! Puts the server together: sockets, drivers, the hub, and their end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{MissedTickBehavior, interval, timeout};
use watchtower_hub::{Accepts, ChannelRule, Hub, Limits, Settings};
use watchtower_protocols::http::MessageJson;
use watchtower_protocols::packets::{self, Registrar};

use crate::callbacks::address::AddressPolicy;
use crate::callbacks::post::Network;
use crate::callbacks::sign::SigningKey;
use crate::callbacks::{CallbackSettings, Callbacks};
use crate::clock::{self, SystemEntropy};
use crate::config::{Config, ContentFormat};
use crate::door::Door;
use crate::http::{Http, HttpState};
use crate::metrics::Metrics;
use crate::request_limiter::RequestLimiter;
use crate::shutdown::ShutdownControl;
use crate::tcp::{self, Guests};
use crate::tls::{CertificateError, Tls};
use crate::udp;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How often the hub looks at what is due.
const TICK: Duration = Duration::from_secs(1);

/// How often callbacks of senders that are gone are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// How often a free port is looked for that is free for TCP and UDP both.
const PORT_TRIES: usize = 32;

/// What every part of the server may use.
pub(crate) struct Shared {
    pub(crate) hub: Hub,
    pub(crate) config: ArcSwap<Config>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) http: Http,
    callbacks: Callbacks,
    pub(crate) guests: Guests,
    pub(crate) tls: Tls,
    pub(crate) shutdown: ShutdownControl,
    /// This, for the packet protocol.
    gate: Arc<Gate>,
}

/// Decides who may register, by the configuration in force.
struct Gate(ArcSwap<Config>);

impl Registrar for Gate {
    fn admits(&self, secret: Option<&[u8]>) -> bool {
        let config = self.0.load();
        match secret {
            Some(secret) => config.secret_key.matches(secret),
            None => config.registers_without_secret(),
        }
    }
}

impl Shared {
    fn new(config: Config) -> Result<Shared, StartError> {
        let tls = Tls::new(&config.tls)?;
        let failed = |why: &dyn fmt::Display| StartError::Setup { what: "callbacks", why: why.to_string() };
        let hub = Hub::new(settings(&config), Box::new(SystemEntropy));
        let network = Network::of_this_machine().map_err(|error| failed(&error))?;
        let callbacks =
            Callbacks::new(hub.clone(), Arc::new(MessageJson), network, callback_settings(&config))
                .map_err(|error| failed(&error))?;
        let metrics = Arc::new(Metrics::default());
        metrics.show_hub(hub.clone());
        metrics.register(|registry| callbacks.metrics().register(registry));
        let http = Http::new(HttpState::new(
            hub.clone(),
            Arc::new(config.clone()),
            metrics.clone(),
            callbacks.clone(),
            Arc::new(RequestLimiter::new()),
            clock::now,
        ));
        Ok(Shared {
            hub,
            metrics,
            http,
            callbacks,
            guests: Guests::default(),
            tls,
            shutdown: ShutdownControl::default(),
            gate: Arc::new(Gate(ArcSwap::from_pointee(config.clone()))),
            config: ArcSwap::from_pointee(config),
        })
    }

    /// What the packet protocol is told.
    pub(crate) fn packet_options(&self) -> packets::Options {
        packets::Options { registrar: self.gate.clone(), patience: self.config.load().limits.header_timeout }
    }

    fn configure(&self, config: &Config) {
        self.hub.configure(settings(config));
        self.gate.0.store(Arc::new(config.clone()));
        self.config.store(Arc::new(config.clone()));
        self.http.configure(Arc::new(config.clone()));
        if let Err(error) = self.callbacks.reload(callback_settings(config)) {
            tracing::error!(%error, "callbacks go on with the former settings");
        }
        if let Err(error) = self.tls.take_over(&config.tls) {
            tracing::error!(%error, "the former certificate stays in use");
        }
    }
}

/// What of the configuration is for callbacks.
fn callback_settings(config: &Config) -> CallbackSettings {
    let key = SigningKey::new(config.secret_key.expose());
    let allow = config.callbacks.allow.iter().copied();
    CallbackSettings {
        policy: AddressPolicy::new(allow, config.listens_on_loopback_only()),
        timeout: config.callbacks.timeout,
        give_up: config.callbacks.give_up,
        subscriptions_per_sender_max: config.callbacks.max_subscriptions_per_sender,
        subscriptions_max: config.callbacks.max_subscriptions,
        key,
    }
}

/// What of the configuration is the hub's.
fn settings(config: &Config) -> Settings {
    let rule = |rule: &crate::config::ChannelRule| ChannelRule {
        pattern: rule.pattern.as_str().to_owned(),
        history_messages: rule.history_messages,
        history_ttl: rule.history_ttl,
        accepts: match rule.format {
            ContentFormat::Any => Accepts::Any,
            ContentFormat::Json => Accepts::Json,
            ContentFormat::Text => Accepts::Text,
        },
    };
    Settings {
        limits: Limits {
            message_bytes_max: config.limits.max_message_bytes,
            channels_max: config.limits.max_channels,
            channels_per_sender_max: config.limits.max_channels_per_sender,
            senders_max: config.limits.max_senders,
            lag_bytes: config.limits.lag_bytes as u64,
            lag_messages: config.limits.lag_messages as u64,
        },
        sender_ttl: config.sender_ttl,
        session_ttl: config.session_ttl,
        bind_ids: config.bind_ids,
        channels: config.channels.iter().map(rule).collect(),
    }
}

/// A server whose sockets are bound: connections queue up, [`run`](Server::run)
/// serves them.
pub struct Server {
    shared: Arc<Shared>,
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    listeners: Vec<ListenerInfo>,
}

/// Where the server can be reached, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerInfo {
    /// `tcp` or `udp`.
    pub transport: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// The protocols that are told apart there, with commas between them.
    pub protocols: &'static str,
}

impl fmt::Display for ListenerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.transport, self.address, self.protocols)
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {transport} {address}: {error}{}", hint(.error))]
    Bind {
        /// `tcp` or `udp`.
        transport: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The certificate or its private key cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A part of the server cannot be set up.
    #[error("cannot set up {what}: {why}")]
    Setup {
        /// Which.
        what: &'static str,
        /// Why.
        why: String,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (is another server running? choose another port with --listen)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need rights that this user lacks)",
        io::ErrorKind::AddrNotAvailable => " (this machine has no such address)",
        _ => "",
    }
}

/// Steers a running server. Clones steer the same one.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadReport {
    /// The keys that differ and take effect at the next start only.
    pub needs_restart: Vec<String>,
}

impl Handle {
    /// Starts the shutdown: [`Server::run`] returns when it is done. Calling it
    /// again changes nothing.
    pub fn shutdown(&self) {
        self.0.http.drain();
        self.0.shutdown.start();
    }

    /// Takes over the secrets and limits of a new configuration, and reads the
    /// certificate again ([running: SIGHUP]). A certificate that cannot be used
    /// is logged, and the former one stays in use.
    pub fn reload(&self, config: &Config) -> ReloadReport {
        let reloaded = self.0.config.load().reloaded(config);
        self.0.configure(&reloaded.config);
        ReloadReport { needs_restart: reloaded.needs_restart }
    }
}

impl Server {
    /// Binds all sockets. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`], whose text says what a person can do.
    pub async fn bind(config: Config) -> Result<Server, StartError> {
        let addresses = config.listen_addrs();
        let shared = Arc::new(Shared::new(config)?);
        shared.hub.tick(clock::now());
        let mut tries = PORT_TRIES;
        let (tcp, udp) = loop {
            match bind_all(&addresses) {
                // The port that TCP was given may be taken on UDP.
                Err(StartError::Bind { error, .. })
                    if addresses.iter().all(|address| address.port() == 0)
                        && error.kind() == io::ErrorKind::AddrInUse
                        && tries > 0 =>
                {
                    tries -= 1;
                }
                bound => break bound?,
            }
        };
        let info = |transport, protocols| move |address| ListenerInfo { transport, address, protocols };
        let listeners = tcp
            .iter()
            .filter_map(|listener: &TcpListener| listener.local_addr().ok())
            .map(info("tcp", "packets,http"))
            .chain(udp.iter().filter_map(|s: &UdpSocket| s.local_addr().ok()).map(info("udp", "packets")))
            .collect();
        Ok(Server { shared, tcp, udp, listeners })
    }

    /// Where the server can be reached, with the ports that were taken.
    pub fn listeners(&self) -> &[ListenerInfo] {
        &self.listeners
    }

    /// What steers this server while it runs.
    pub fn handle(&self) -> Handle {
        Handle(self.shared.clone())
    }

    /// Serves until [`Handle::shutdown`], then until every session was told and
    /// closed, or `shutdown_grace` is over.
    pub async fn run(self) {
        let shared = self.shared;
        tokio::spawn(tick(shared.clone()));
        tokio::spawn(shared.tls.clone().watch(shared.shutdown.part()));
        for listener in self.tcp {
            tokio::spawn(tcp::accept(listener, shared.clone(), Door::Shared));
        }
        for socket in self.udp {
            tokio::spawn(udp::serve(socket, shared.clone(), shared.shutdown.part()));
        }
        shared.shutdown.started().await;
        let grace = shared.config.load().shutdown_grace;
        // The process is to be gone within the grace: its own end takes a part.
        let wait = grace - grace / 10;
        let ended = timeout(wait, shared.shutdown.ended());
        let (ended, ()) = tokio::join!(ended, shared.callbacks.drain(wait));
        if ended.is_err() {
            let sessions = shared.shutdown.tasks();
            tracing::warn!(sessions, ?grace, "the grace is over: the rest is cut off");
        }
    }
}

/// Lets the hub look at what is due, for as long as the server runs.
async fn tick(shared: Arc<Shared>) {
    let mut interval = interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shutdown = shared.shutdown.part();
    loop {
        tokio::select! {
            _ = interval.tick() => shared.hub.tick(clock::now()),
            _ = sweep.tick() => shared.callbacks.sweep(),
            () = shutdown.started() => return,
        }
    }
}

type Sockets = (Vec<TcpListener>, Vec<UdpSocket>);

/// Binds TCP and UDP of one port number on every address.
fn bind_all(addresses: &[SocketAddr]) -> Result<Sockets, StartError> {
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    let mut port = 0;
    for (index, &address) in addresses.iter().enumerate() {
        let address = if address.port() == 0 { SocketAddr::new(address.ip(), port) } else { address };
        let listener = match bind_tcp(address) {
            // A machine without IPv6 has no ::1.
            Err(StartError::Bind { error, .. })
                if index > 0 && error.kind() == io::ErrorKind::AddrNotAvailable =>
            {
                continue;
            }
            bound => bound?,
        };
        let bound = listener.local_addr().map_err(failed("tcp", address))?;
        port = bound.port();
        tcp.push(listener);
        udp.push(bind_udp(bound)?);
    }
    Ok((tcp, udp))
}

fn bind_tcp(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let socket = new_socket(address, socket2::Type::STREAM)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(failed("tcp", address))
}

fn bind_udp(address: SocketAddr) -> Result<UdpSocket, StartError> {
    let bind = || {
        let socket = new_socket(address, socket2::Type::DGRAM)?;
        // Bursts wait here while the server does something else. The system
        // may give less; it says nothing then.
        socket.set_recv_buffer_size(UDP_BUFFER_BYTES)?;
        socket.set_send_buffer_size(UDP_BUFFER_BYTES)?;
        socket.bind(&address.into())?;
        UdpSocket::from_std(socket.into())
    };
    bind().map_err(failed("udp", address))
}

/// What the system is asked to keep of datagrams, each way.
const UDP_BUFFER_BYTES: usize = 4 << 20;

fn new_socket(address: SocketAddr, kind: socket2::Type) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != std::net::Ipv6Addr::UNSPECIFIED)?;
    }
    Ok(socket)
}

fn failed(transport: &'static str, address: SocketAddr) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::Bind { transport, address, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_callbacks_are_those_of_the_configuration() {
        let mut config = Config::default();
        config.callbacks.max_subscriptions = 3;
        config.callbacks.max_subscriptions_per_sender = 2;
        let settings = callback_settings(&config);
        assert_eq!((settings.subscriptions_max, settings.subscriptions_per_sender_max), (3, 2));
    }

    // [http: callbacks] "While the server itself listens on loopback only, loopback is allowed."
    #[test]
    fn callbacks_reach_loopback_while_the_server_listens_there_alone_or_where_it_is_allowed() {
        let reached = |listen: &str, allow: &[&str]| {
            let mut config = Config { listen: listen.parse().expect("an address"), ..Config::default() };
            config.callbacks.allow = allow.iter().map(|net| net.parse().expect("a network")).collect();
            let policy = callback_settings(&config).policy;
            ["127.0.0.1", "::1", "192.168.0.1"]
                .map(|address| policy.permits(address.parse().expect("an address")).is_ok())
        };
        assert_eq!(reached("127.0.0.1:3033", &[]), [true, true, false]);
        assert_eq!(reached("localhost:3033", &[]), [true, true, false]);
        assert_eq!(reached("0.0.0.0:3033", &[]), [false, false, false]);
        assert_eq!(reached("[::]:3033", &[]), [false, false, false]);
        assert_eq!(reached("192.0.2.1:3033", &[]), [false, false, false]);
        assert_eq!(reached("0.0.0.0:3033", &["127.0.0.0/8"]), [true, false, false]);
        assert_eq!(reached("0.0.0.0:3033", &["192.168.0.0/16"]), [false, false, true]);
    }
}
