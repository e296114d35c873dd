//! Watchtower HTTP on the shared port.
//!
//! | file | for |
//! | --- | --- |
//! | `connection` | one connection: hyper, its limits, and its end |
//! | `head` | whether the head of a request is there |
//! | `takeover` | handing a connection over from hyper, to a stream or a WebSocket |
//! | `websocket` | requests for a WebSocket |
//! | `error` | the table of codes, and what a refused request is answered |
//! | `extract` | reading bodies, fields and parameters |
//! | `register`, `channels`, `publish`, `history`, `stream` | the requests |
//! | `probes` | health, readiness, metrics |
//! | `openapi` | the description of all of them |
//!
//! What a message looks like, and what a stream says, is in
//! `watchtower_protocols::http`; who may do what is the hub's to say.

mod channels;
mod connection;
mod error;
mod extract;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod head;
mod history;
mod openapi;
mod probes;
mod publish;
mod register;
mod stream;
mod takeover;
#[cfg(test)]
mod tests;
mod websocket;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use serde::Serialize;
use tower_http::cors::CorsLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use watchtower_hub::{ChannelName, Hub, SenderId, Timestamp};
use watchtower_protocols::websocket::RemoteAddress;

pub(crate) use self::connection::TakenOver;
pub use self::error::ErrorCode;
use self::error::{ApiError, Refusal};
pub(crate) use self::head::is_half_a_head;
pub(crate) use self::takeover::Onward;
pub(crate) use self::websocket::Endpoints;
use crate::callbacks::Callbacks;
use crate::config::Config;
use crate::metrics::{ByProtocol, ByRefusal, ByStatus, Metrics};
use crate::request_limiter::RequestLimiter;

/// Says on every answer what answered.
const SERVER_NAME: &str = "x-server-name";

/// What all HTTP connections of a server share.
pub struct HttpState {
    hub: Hub,
    /// The secret and the limits follow it; the rest is read once.
    config: ArcSwap<Config>,
    metrics: Arc<Metrics>,
    callbacks: Callbacks,
    requests: Arc<RequestLimiter>,
    registrations: Arc<RequestLimiter>,
    draining: AtomicBool,
    clock: fn() -> Timestamp,
}

/// Watchtower HTTP. Clones are the same.
#[derive(Clone)]
pub struct Http {
    state: Arc<HttpState>,
    router: Router,
    endpoints: Endpoints,
}

impl HttpState {
    /// What HTTP needs: the hub, the configuration with its secret filled in,
    /// where to count, where callbacks are subscribed, what counts requests and
    /// registrations by address, and the time.
    pub(crate) fn new(
        hub: Hub,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        callbacks: Callbacks,
        requests: Arc<RequestLimiter>,
        registrations: Arc<RequestLimiter>,
        clock: fn() -> Timestamp,
    ) -> HttpState {
        let config = ArcSwap::from(config);
        let draining = AtomicBool::new(false);
        HttpState { hub, config, metrics, callbacks, requests, registrations, draining, clock }
    }

    fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The sender, if it is registered. One of another protocol's connection is not:
    /// whoever names that has overheard it.
    fn known(&self, sender: SenderId) -> Result<SenderId, ApiError> {
        let registered = self.hub.is_registered(sender, self.now());
        registered.then_some(sender).ok_or(ApiError::UnknownSender)
    }

    /// Waits until what has become of senders and joins is on disk, if that is
    /// where it is to be. Otherwise says what that means.
    async fn kept(&self, otherwise: &str) -> Result<(), ApiError> {
        let kept = self.hub.kept().await;
        kept.map_err(|reason| ApiError::NotKept(format!("{otherwise}: {reason}")))
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl Http {
    /// The routes, and what they work on.
    pub fn new(state: HttpState) -> Http {
        // Nearly all that it takes to make a router is the description.
        static ROUTER: LazyLock<Router<Arc<HttpState>>> = LazyLock::new(router);
        let state = Arc::new(state);
        let mut router = ROUTER.clone().with_state(state.clone());
        if let Some(cors) = cors(&state.config()) {
            router = router.layer(cors);
        }
        Http { state, router, endpoints: Endpoints::default() }
    }

    /// The same with these WebSockets.
    pub(crate) fn with_endpoints(self, endpoints: Endpoints) -> Http {
        for protocol in endpoints.protocols() {
            drop(self.state.metrics.websockets.get_or_create(&ByProtocol { protocol }));
            self.state.metrics.streams.show_protocol(protocol);
        }
        Http { endpoints, ..self }
    }

    /// These WebSockets alone, for a port of their own.
    pub(crate) fn only(&self, endpoints: Endpoints) -> Http {
        let router = Router::new().fallback(|| async { ApiError::NotFound });
        Http { state: self.state.clone(), router, endpoints }
    }

    /// Takes over the secret and the limits of a new configuration.
    pub fn configure(&self, config: Arc<Config>) {
        self.state.config.store(config);
    }

    /// How many requests were let through uncounted: see [`RequestLimiter`].
    pub(crate) fn requests_uncounted(&self) -> u64 {
        self.state.requests.uncounted()
    }

    /// From now on `/ready` says that the server is shutting down, and each
    /// connection ends with its next answer.
    pub fn drain(&self) {
        self.state.draining.store(true, Ordering::Relaxed);
    }

    /// Answers one request of a client at `address`.
    async fn answer<B>(self, request: Request<B>, address: IpAddr) -> Response
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let began = Instant::now();
        let limit = self.state.config.load().limits.max_requests_per_second_per_address;
        let mut response = match self.state.requests.count(address, limit) {
            Err(wait) => {
                self.state.metrics.requests_limited.inc();
                ApiError::TooManyRequests { wait }.into_response()
            }
            Ok(()) if !is_for_a_host(&request) => {
                ApiError::BadRequest("a request needs one `Host`, which is a name or an address")
                    .into_response()
            }
            Ok(()) => {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(RemoteAddress(address));
                self.route(request).await
            }
        };
        self.state.metrics.latencies.answered(began.elapsed());
        if let Some(Refusal(code)) = response.extensions().get() {
            self.state.metrics.http_refusals.get_or_create(&ByRefusal { code: code.name() }).inc();
        }
        let status = ByStatus { status: response.status().as_u16() };
        self.state.metrics.http_requests.get_or_create(&status).inc();
        let headers = response.headers_mut();
        headers.insert(SERVER_NAME, HeaderValue::from_static("Watchtower"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if self.state.is_draining() && !headers.contains_key(header::UPGRADE) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Whether the request says once which host it is for, which one of HTTP/1.0
/// need not (RFC 9112 3.2).
fn is_for_a_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => request.version() < Version::HTTP_11,
        (Some(host), None) => {
            let host = host.as_bytes();
            // Empty where the target has no host either.
            host.is_empty() || (Authority::try_from(host).is_ok() && !host.contains(&b'@'))
        }
        (Some(_), Some(_)) => false,
    }
}

/// All requests, and what others are answered.
fn router() -> Router<Arc<HttpState>> {
    let (router, api) = routes().split_for_parts();
    router
        .route("/openapi.json", openapi::route(&api))
        .fallback(|| async { ApiError::NotFound })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
}

/// Every request there is, with its description.
fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::with_openapi(openapi::about())
        .routes(routes!(probes::index))
        .routes(routes!(register::register))
        .routes(routes!(channels::list))
        .routes(routes!(stream::open, channels::join))
        .routes(routes!(channels::join_async))
        .routes(routes!(channels::leave))
        .routes(routes!(publish::broadcast))
        .routes(routes!(publish::send))
        .routes(routes!(history::history))
        .routes(routes!(history::presence))
        .routes(routes!(probes::health))
        .routes(routes!(probes::ready))
        .routes(routes!(probes::metrics))
}

/// [http: CORS]: none by default.
fn cors(config: &Config) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> =
        config.http.cors_origins.iter().filter_map(|origin| origin.as_str().parse().ok()).collect();
    let sent = [
        header::ACCEPT,
        header::CACHE_CONTROL,
        header::CONTENT_TYPE,
        HeaderName::from_static("last-event-id"),
    ];
    let cors = CorsLayer::new()
        .allow_origin(origins.clone())
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(sent)
        .expose_headers([HeaderName::from_static(SERVER_NAME), header::RETRY_AFTER]);
    (!origins.is_empty()).then_some(cors)
}

/// An answer in JSON.
fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(json) => json_answer(status, json),
        Err(_) => ApiError::Internal.into_response(),
    }
}

/// An answer in JSON that is written already.
fn json_answer(status: StatusCode, json: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], json.into())
        .into_response()
}

/// A channel in an answer: a number, or a string for a named one.
#[derive(Debug)]
struct ChannelJson(ChannelName);

impl Serialize for ChannelJson {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.0.number(), self.0.text()) {
            (Some(number), _) => serializer.serialize_u32(number),
            (None, text) => serializer.serialize_str(text.unwrap_or_default()),
        }
    }
}
