//! The server as a peer of the whispernet, whose room is a channel.
//!
//! | file | for |
//! | --- | --- |
//! | `carrier` | the two directions |
//! | `counts` | what is shown of it in the metrics |
//!
//! Knows no socket and no object of the whispernet: the peer is
//! `watchtower-whisper`'s.

mod carrier;
mod counts;

use std::slice;

use watchtower_hub::Hub;
use watchtower_whisper::protocol::{BacklogLimits, RoutingLimits};
use watchtower_whisper::{Events, Options, Peer, StartError as PeerError, TlsFiles};

use self::carrier::Carrier;
use self::counts::Counts;
use crate::config::Config;
use crate::inside::Subscriber;
use crate::listeners::ListenerInfo;
use crate::metrics::Metrics;
use crate::server::StartError;
use crate::shutdown::Shutdown;

/// What the hub calls the session, and people the port.
const PROTOCOL: &str = "whispernet";

/// The UDP port of discovery ([whispernet: 5]).
const DISCOVERY_PORT: u16 = 5555;

/// The folder in `data_dir` for the peer's key and those of others.
const FOLDER: &str = "whispernet";

/// A peer that runs, and the channel that is its room.
pub(crate) struct Whispernet {
    peer: Peer,
    events: Events,
    subscriber: Subscriber,
    carrier: Carrier,
}

impl Whispernet {
    /// Starts the peer, if there is to be one.
    pub(crate) async fn start(
        config: &Config,
        hub: &Hub,
        metrics: &Metrics,
    ) -> Result<Option<Whispernet>, StartError> {
        let Some(options) = options(config) else { return Ok(None) };
        let settings = &config.whispernet;
        let subscriber = Subscriber::open(hub, PROTOCOL, slice::from_ref(&settings.channel))
            .map_err(|refused| setup(&refused.to_string()))?;
        let (peer, events) = Peer::start_watched(options).await.map_err(start_error)?;
        let counts = Counts::default();
        metrics.register(|registry| counts.register(registry, peer.clone()));
        let channel = settings.channel.clone();
        let carrier = Carrier::new(hub.clone(), channel, peer.clone(), settings.nick.as_str(), counts);
        Ok(Some(Whispernet { peer, events, subscriber, carrier }))
    }

    /// Where other peers connect.
    pub(crate) fn info(&self) -> ListenerInfo {
        ListenerInfo { transport: "tcp", address: self.peer.listens_at(), protocols: PROTOCOL }
    }

    /// Carries messages both ways until the shutdown, and to the peers what was
    /// published before it.
    pub(crate) async fn run(self, mut shutdown: Shutdown) {
        let Whispernet { peer, mut events, mut subscriber, carrier } = self;
        let mut unsaid = None;
        tokio::select! {
            () = carrier.to_peers(&mut subscriber, &mut unsaid) => {}
            () = carrier.to_channel(&mut events) => {}
            () = shutdown.started() => {}
        }
        carrier.say_the_rest(&mut subscriber, unsaid);
        peer.shut_down().await;
    }
}

/// What the peer is told; `None` where there is to be none.
fn options(config: &Config) -> Option<Options> {
    let settings = &config.whispernet;
    let listen = *settings.listen?.addrs().first()?;
    let tls = match (&settings.tls_cert, &settings.tls_key, &settings.tls_ca) {
        (Some(cert), Some(key), Some(ca)) => {
            Some(TlsFiles { cert: cert.clone(), key: key.clone(), ca: ca.clone() })
        }
        _ => None,
    };
    Some(Options {
        listen,
        announced: settings.announced,
        peers: settings.peers.iter().map(|peer| peer.as_str().to_owned()).collect(),
        nick: Some(settings.nick.as_str().to_owned()),
        data_dir: config.data_dir.as_ref().map(|dir| dir.join(FOLDER)),
        discovery_port: settings.discovery.then_some(DISCOVERY_PORT),
        require_signed: settings.require_signed,
        routing: settings.routing.then(RoutingLimits::default),
        tls,
        backlog: BacklogLimits { messages: settings.backlog, ..BacklogLimits::default() },
        ..Options::default()
    })
}

fn start_error(error: PeerError) -> StartError {
    match error {
        PeerError::Listen { addr, error } => StartError::Bind { transport: "tcp", address: addr, error },
        error => setup(&error.to_string()),
    }
}

fn setup(why: &str) -> StartError {
    StartError::Setup { what: "the whispernet", why: why.to_owned() }
}
