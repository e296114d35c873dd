//! The protocols on WebSocket that come with the server, made as the
//! configuration says: WebRocket's hubs, and WebTalk.
//!
//! Knows no socket: which path or port leads to which of them is all.

use std::sync::Arc;

use arc_swap::ArcSwap;
use watchtower_hub::Hub;
use watchtower_protocols::webrocket::{HubOptions, Observer, Secret, WebRocket};
use watchtower_protocols::websocket::Endpoint;
use watchtower_protocols::webtalk::{self, Link, WebTalk};

use crate::clock::SystemEntropy;
use crate::config::{Config, HubPath, SecretKey, WEBTALK_PATH, WebRocketHub};
use crate::http::Http;
use crate::metrics::Metrics;

/// What a program adds to the configuration.
#[derive(Default)]
pub(crate) struct Additions {
    /// Handlers of its own, by path.
    pub(crate) endpoints: Vec<(String, Endpoint)>,
    /// Who is told what happens in WebRocket's hubs, by path.
    pub(crate) observers: Vec<(String, Arc<dyn Observer>)>,
}

/// WebRocket and WebTalk, and the HTTP that leads to them.
pub(crate) struct WebSockets {
    hubs: Vec<(HubPath, WebRocket)>,
    talk: Option<(WebTalk, Arc<TalkGate>)>,
    /// On WebRocket's own port.
    pub(crate) webrocket_http: Http,
    /// On WebTalk's own public port.
    pub(crate) webtalk_http: Http,
}

/// Who may use WebTalk's private link, by the configuration in force.
struct TalkGate {
    secret: ArcSwap<SecretKey>,
    metrics: Arc<Metrics>,
}

impl webtalk::Gate for TalkGate {
    fn is_locked(&self) -> bool {
        !self.secret.load().is_empty()
    }

    fn admits(&self, secret: &[u8]) -> bool {
        let is_right = self.secret.load().matches(secret);
        if !is_right {
            self.metrics.webtalk_logins_failed.inc();
        }
        is_right
    }
}

impl WebSockets {
    /// Also gives `http` with all of them, for the shared port.
    ///
    /// What is refused is counted in `metrics`, for all hubs together.
    pub(crate) fn new(
        config: &Config,
        hub: &Hub,
        http: Http,
        additions: &Additions,
        metrics: &Arc<Metrics>,
    ) -> (WebSockets, Http) {
        let to_hub = |settings: &WebRocketHub| {
            (settings.path.clone(), webrocket(config, settings, additions, metrics))
        };
        let hubs: Vec<_> = config.webrocket.hubs.iter().map(to_hub).collect();
        // Without a private link there would be no users to log in.
        let talk = config.webtalk.private.map(|_| {
            let patience = config.limits.header_timeout;
            let secret = ArcSwap::from_pointee(config.webtalk.secret.clone());
            let gate = TalkGate { secret, metrics: metrics.clone() };
            (WebTalk::new(hub, Box::new(SystemEntropy), patience), Arc::new(gate))
        });
        let hub_endpoints =
            hubs.iter().map(|(path, hub)| (path.as_str().to_owned(), Endpoint::new(hub.clone())));
        let hub_endpoints: Vec<_> = hub_endpoints.collect();
        let talk_endpoint = talk.iter().map(|(talk, _)| Endpoint::new(talk.clone()));
        // On a port of its own, a browser need not know the path.
        let talk_at = |paths: &'static [&'static str]| {
            let endpoints = talk_endpoint.clone();
            endpoints
                .flat_map(|endpoint| paths.iter().map(move |path| ((*path).to_owned(), endpoint.clone())))
        };
        let webrocket_http = http.only(hub_endpoints.iter().cloned().collect());
        let webtalk_http = http.only(talk_at(&[WEBTALK_PATH, "/"]).collect());
        let all = hub_endpoints.into_iter().chain(talk_at(&[WEBTALK_PATH]));
        let http = http.with_endpoints(all.chain(additions.endpoints.iter().cloned()).collect());
        (WebSockets { hubs, talk, webrocket_http, webtalk_http }, http)
    }

    /// An application on WebTalk's private link, if there is one.
    pub(crate) fn link(&self) -> Option<Link> {
        let (talk, gate) = self.talk.as_ref()?;
        Some(Link::new(talk, gate.clone()))
    }

    /// Takes over the secrets of a new configuration.
    pub(crate) fn configure(&self, config: &Config) {
        for (path, hub) in &self.hubs {
            let settings = config.webrocket.hubs.iter().find(|settings| settings.path == *path);
            if let Some(settings) = settings {
                let (read_only, read_write) = config.hub_secrets(settings);
                hub.configure(secret(read_only), secret(read_write), origins(settings));
            }
        }
        if let Some((_, gate)) = &self.talk {
            gate.secret.store(Arc::new(config.webtalk.secret.clone()));
        }
    }
}

fn webrocket(
    config: &Config,
    settings: &WebRocketHub,
    additions: &Additions,
    metrics: &Metrics,
) -> WebRocket {
    let (read_only, read_write) = config.hub_secrets(settings);
    let observer = additions.observers.iter().find(|(path, _)| path == settings.path.as_str());
    WebRocket::new(HubOptions {
        read_only: secret(read_only),
        read_write: secret(read_write),
        anonymous: settings.anonymous,
        namespace: settings.namespace.get().cloned(),
        foreign_namespaces: config
            .webrocket
            .hubs
            .iter()
            .filter_map(|hub| hub.namespace.get().cloned())
            .collect(),
        origins: origins(settings),
        observer: observer.map(|(_, observer)| observer.clone()),
        failures: metrics.login_failures.clone(),
        refusals: metrics.webrocket_refusals.clone(),
    })
}

fn secret(secret: &SecretKey) -> Secret {
    Secret::new(secret.expose())
}

fn origins(settings: &WebRocketHub) -> Vec<String> {
    settings.origins.iter().map(|origin| origin.as_str().to_owned()).collect()
}
