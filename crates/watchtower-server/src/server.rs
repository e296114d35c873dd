//! Puts the server together: sockets, drivers, the hub, and their end.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{MissedTickBehavior, interval, timeout};
use watchtower_hub::{
    Accepts, ChannelName, ChannelRule, Hub, Limits, Publish, Published, Refused, Settings, Timestamp,
};
use watchtower_protocols::http::MessageJson;
use watchtower_protocols::packets::{self, Admission, Registrar};
use watchtower_protocols::webrocket::Observer;
use watchtower_protocols::websocket::{Endpoint, Handler};
use watchtower_store::OpenError;

use crate::callbacks::address::AddressPolicy;
use crate::callbacks::post::Network;
use crate::callbacks::sign::SigningKey;
use crate::callbacks::{CallbackSettings, Callbacks, Records};
use crate::clock::{self, JumpWatch, SystemEntropy};
use crate::config::{Config, ContentFormat};
use crate::http::{Http, HttpState};
use crate::inside::Subscriber;
use crate::ledger::DiskLedger;
use crate::listeners::{ListenerInfo, Listeners};
use crate::metrics::{ByProtocol, Metrics};
use crate::request_limiter::RequestLimiter;
use crate::shutdown::ShutdownControl;
use crate::stream::Groups;
use crate::tcp::{self, Guests};
use crate::tls::{CertificateError, Tls};
use crate::udp;
use crate::websockets::{Additions, WebSockets};
use crate::whispernet::Whispernet;

/// How often the hub looks at what is due.
const TICK: Duration = Duration::from_secs(1);

/// How often callbacks of senders that are gone are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// What every part of the server may use.
pub(crate) struct Shared {
    pub(crate) hub: Hub,
    /// What outlives the server; none without a data directory.
    ledger: Option<Arc<DiskLedger>>,
    pub(crate) config: ArcSwap<Config>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) http: Http,
    pub(crate) websockets: WebSockets,
    callbacks: Callbacks,
    pub(crate) guests: Guests,
    pub(crate) groups: Arc<Groups>,
    pub(crate) tls: Tls,
    pub(crate) shutdown: ShutdownControl,
    /// This, for the packet protocol.
    gate: Arc<Gate>,
}

/// Decides who may register, by the configuration in force.
struct Gate {
    config: ArcSwap<Config>,
    registrations: Arc<RequestLimiter>,
    metrics: Arc<Metrics>,
}

impl Registrar for Gate {
    fn admit(&self, address: IpAddr, secret: Option<&[u8]>) -> Admission {
        let config = self.config.load();
        let limit = config.limits.max_registrations_per_second_per_address;
        if self.registrations.count(address, limit).is_err() {
            self.metrics.registrations_limited.inc();
            return Admission::TooMany;
        }
        let is_granted = match secret {
            Some(secret) => config.secret_key.matches(secret),
            None => config.registers_without_secret(),
        };
        if is_granted {
            return Admission::Granted;
        }
        self.metrics.registrations_refused.get_or_create(&ByProtocol { protocol: "packets" }).inc();
        Admission::Refused
    }
}

impl Shared {
    fn new(config: Config, additions: &Additions) -> Result<Shared, StartError> {
        let tls = Tls::new(&config.tls)?;
        let failed = |why: &dyn fmt::Display| StartError::Setup { what: "callbacks", why: why.to_string() };
        let metrics = Arc::new(Metrics::default());
        let open = |data_dir| DiskLedger::open(data_dir, settings(&config), metrics.disk.clone());
        let ledger = config.data_dir.as_deref().map(open).transpose()?.map(Arc::new);
        if let Some(ledger) = &ledger {
            metrics.collect(ledger.collector());
        }
        let hub = match ledger.clone() {
            Some(ledger) => Hub::with_ledger(settings(&config), Box::new(SystemEntropy), ledger),
            None => Hub::new(settings(&config), Box::new(SystemEntropy)),
        };
        let records = ledger.clone().map(|ledger| ledger as Arc<dyn Records>);
        let network = Network::of_this_machine().map_err(|error| failed(&error))?;
        let callbacks =
            Callbacks::new(hub.clone(), Arc::new(MessageJson), network, callback_settings(&config), records)
                .map_err(|error| failed(&error))?;
        metrics.show_hub(hub.clone());
        metrics.register(|registry| callbacks.metrics().register(registry));
        let registrations = Arc::new(RequestLimiter::new());
        let http = Http::new(HttpState::new(
            hub.clone(),
            Arc::new(config.clone()),
            metrics.clone(),
            callbacks.clone(),
            Arc::new(RequestLimiter::new()),
            registrations.clone(),
            clock::now,
        ));
        let (websockets, http) = WebSockets::new(&config, &hub, http, additions, &metrics);
        Ok(Shared {
            hub,
            ledger,
            gate: Arc::new(Gate {
                config: ArcSwap::from_pointee(config.clone()),
                registrations,
                metrics: metrics.clone(),
            }),
            metrics,
            http,
            websockets,
            callbacks,
            guests: Guests::default(),
            groups: Arc::default(),
            tls,
            shutdown: ShutdownControl::default(),
            config: ArcSwap::from_pointee(config),
        })
    }

    /// Takes up the senders and the callbacks of an earlier process. Needs a
    /// tokio runtime.
    fn restore(&self, now: Timestamp) {
        let Some(ledger) = &self.ledger else { return };
        ledger.restore(&self.hub, now);
        ledger.restore_callbacks(&self.callbacks, now);
    }

    /// How many registrations were let through uncounted.
    pub(crate) fn registrations_uncounted(&self) -> u64 {
        self.gate.registrations.uncounted()
    }

    /// What the packet protocol is told of a client at `address`.
    pub(crate) fn packet_options(&self, address: IpAddr) -> packets::Options {
        packets::Options {
            address,
            registrar: self.gate.clone(),
            patience: self.config.load().limits.header_timeout,
            errors: self.metrics.packet_errors.clone(),
        }
    }

    fn configure(&self, config: &Config) {
        self.hub.configure(settings(config));
        self.gate.config.store(Arc::new(config.clone()));
        self.config.store(Arc::new(config.clone()));
        self.http.configure(Arc::new(config.clone()));
        self.websockets.configure(config);
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
        durable: rule.durable,
        history_messages: rule.history_messages,
        history_bytes: rule.history_bytes as u64,
        history_ttl: rule.history_ttl,
        accepts: match rule.format {
            ContentFormat::Any => Accepts::Any,
            ContentFormat::Json => Accepts::Json,
            ContentFormat::Text => Accepts::Text,
        },
        presence_events: rule.presence_events,
        retain: rule.retain,
    };
    Settings {
        limits: Limits {
            message_bytes_max: config.limits.max_message_bytes,
            channels_max: config.limits.max_channels,
            channels_per_sender_max: config.limits.max_channels_per_sender,
            senders_max: config.limits.max_senders,
            retained_bytes_max: config.limits.max_retained_bytes as u64,
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
    listeners: Listeners,
    whispernet: Option<Whispernet>,
    infos: Vec<ListenerInfo>,
}

/// A server that is being put together: made by [`Server::builder`].
pub struct ServerBuilder {
    config: Config,
    additions: Additions,
    with_shared_port: bool,
}

impl ServerBuilder {
    /// Serves WebSockets at this path of the shared port by a protocol of the
    /// program's own. It goes before a hub of WebRocket at the same path.
    #[must_use]
    pub fn handle(mut self, path: impl Into<String>, handler: impl Handler) -> ServerBuilder {
        self.additions.endpoints.push((path.into(), Endpoint::new(handler)));
        self
    }

    /// Tells `observer` what happens in the WebRocket hub at this path.
    #[must_use]
    pub fn observe_hub(mut self, path: impl Into<String>, observer: Arc<dyn Observer>) -> ServerBuilder {
        self.additions.observers.push((path.into(), observer));
        self
    }

    /// Does not open the port that packets, HTTP and WebSockets share, but only
    /// those that `[webrocket]` and `[webtalk]` have of their own.
    #[must_use]
    pub fn without_shared_port(mut self) -> ServerBuilder {
        self.with_shared_port = false;
        self
    }

    /// Binds all sockets. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`], whose text says what a person can do.
    pub async fn bind(self) -> Result<Server, StartError> {
        let listeners = Listeners::bind(&self.config, self.with_shared_port)?;
        let shared = Arc::new(Shared::new(self.config, &self.additions)?);
        shared.restore(clock::now());
        shared.hub.tick(clock::now());
        shared.metrics.show_server(&shared);
        let whispernet = Whispernet::start(&shared.config.load(), &shared.hub, &shared.metrics).await?;
        let infos = listeners.infos().into_iter().chain(whispernet.as_ref().map(Whispernet::info)).collect();
        Ok(Server { shared, listeners, whispernet, infos })
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
    /// What is kept in the data directory cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
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
        // Before anybody is told: what is acknowledged is heard by all.
        self.0.hub.close();
        self.0.shutdown.start();
    }

    /// Publishes, as the program itself: nobody need have joined. Where the
    /// message stands is to be waited for on a durable channel.
    ///
    /// # Errors
    ///
    /// As [`Hub::publish`].
    pub fn publish(&self, channel: &ChannelName, message: Publish<'_>) -> Result<Published, Refused> {
        self.0.hub.publish(channel, message, clock::now())
    }

    /// Follows channels from now on; they are created when new.
    ///
    /// # Errors
    ///
    /// [`Refused::Limit`].
    pub fn subscribe(&self, channels: &[ChannelName]) -> Result<Subscriber, Refused> {
        Subscriber::new(&self.0.hub, channels)
    }

    /// The hub, for all else.
    pub fn hub(&self) -> &Hub {
        &self.0.hub
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
    /// A server with this configuration, to which more can be added.
    pub fn builder(config: Config) -> ServerBuilder {
        ServerBuilder { config, additions: Additions::default(), with_shared_port: true }
    }

    /// The server of this configuration: see [`ServerBuilder::bind`].
    ///
    /// # Errors
    ///
    /// [`StartError`], whose text says what a person can do.
    pub async fn bind(config: Config) -> Result<Server, StartError> {
        Server::builder(config).bind().await
    }

    /// Where the server can be reached, with the ports that were taken.
    pub fn listeners(&self) -> &[ListenerInfo] {
        &self.infos
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
        for (listener, door) in self.listeners.tcp {
            tokio::spawn(tcp::accept(listener, shared.clone(), door));
        }
        for socket in self.listeners.udp {
            tokio::spawn(udp::serve(socket, shared.clone(), shared.shutdown.part()));
        }
        if let Some(whispernet) = self.whispernet {
            tokio::spawn(whispernet.run(shared.shutdown.part()));
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
        shared.callbacks.save();
        if let Some(ledger) = shared.ledger.clone() {
            let closed = tokio::task::spawn_blocking(move || ledger.close()).await;
            debug_assert!(closed.is_ok(), "closing does not panic");
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
    let mut clock = JumpWatch::new();
    loop {
        tokio::select! {
            _ = interval.tick() => {
                if let Some((from, to)) = clock.jumped() {
                    tracing::warn!(?from, ?to, "the clock has jumped: senders are kept as if it had not");
                    shared.hub.clock_jumped(from, to);
                    shared.metrics.clock_jumps.inc();
                }
                shared.hub.tick(clock::now());
                shared.callbacks.save();
                if let Some(ledger) = &shared.ledger {
                    ledger.retry();
                }
            }
            _ = sweep.tick() => shared.callbacks.sweep(),
            () = shutdown.started() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::ByReason;
    use crate::tcp::Guest;

    #[test]
    fn the_limits_of_callbacks_are_those_of_the_configuration() {
        let mut config = Config::default();
        config.callbacks.max_subscriptions = 3;
        config.callbacks.max_subscriptions_per_sender = 2;
        let settings = callback_settings(&config);
        assert_eq!((settings.subscriptions_max, settings.subscriptions_per_sender_max), (3, 2));
    }

    // [running: limits] "per-address ones do not count loopback"
    #[test]
    fn connections_of_an_address_are_limited_and_those_of_loopback_only_with_all_others() {
        let mut config = Config::default();
        config.limits.max_connections_per_address = 2;
        config.limits.max_connections = 7;
        let shared = Arc::new(Shared::new(config, &Additions::default()).expect("nothing is missing"));
        let admit =
            |address: &str| Guest::admit(&shared, SocketAddr::new(address.parse().expect("an address"), 9));
        let mut guests: Vec<_> = ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"].map(admit).into();
        assert!(guests.iter().all(Option::is_some));
        assert!(admit("192.0.2.1").is_none());
        guests.extend(["127.0.0.1", "127.0.0.1", "127.0.0.1", "::1"].map(admit));
        assert!(guests.iter().all(Option::is_some));
        assert!(admit("192.0.2.3").is_none() && admit("127.0.0.1").is_none(), "there are seven");
        guests.remove(0);
        assert!(admit("192.0.2.1").is_some());
        let refused = ["max_connections_per_address", "max_connections"]
            .map(|reason| shared.metrics.connections_refused.get_or_create(&ByReason { reason }).get());
        assert_eq!(refused, [1, 2]);
    }

    #[test]
    fn an_address_registers_so_often_over_packets_and_loopback_as_often_as_it_likes() {
        let mut config = Config::default();
        config.limits.max_registrations_per_second_per_address = 2;
        let shared = Shared::new(config, &Additions::default()).expect("nothing is missing");
        let admitted = |address: &str, secret| {
            let options = shared.packet_options(address.parse().expect("an address"));
            options.registrar.admit(options.address, secret)
        };
        assert_eq!(admitted("192.0.2.1", None), Admission::Granted);
        assert_eq!(admitted("192.0.2.1", Some(b"wrong")), Admission::Refused);
        assert_eq!(admitted("192.0.2.1", None), Admission::TooMany);
        assert_eq!(admitted("192.0.2.2", None), Admission::Granted);
        assert!((0..10).all(|_| admitted("127.0.0.1", None) == Admission::Granted));
        assert_eq!(shared.metrics.registrations_limited.get(), 1);
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
