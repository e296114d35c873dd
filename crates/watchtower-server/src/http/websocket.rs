//! Requests that ask for a WebSocket: which paths have one, and the answer that
//! switches protocols.
//!
//! The handshake's rules are in `watchtower_protocols::websocket`; the
//! connection goes on with the byte-stream driver, see
//! [`takeover`](super::takeover).

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Request, StatusCode};
use tower::ServiceExt;
use watchtower_protocols::websocket::{
    Accepted, Endpoint, HandshakeError, Settings, Subprotocol, handshake, subprotocol,
};

use super::error::ApiError;
use super::takeover::Takeover;
use super::{Http, HttpState};
use crate::metrics::ByProtocol;

/// The paths at which WebSockets are served. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Endpoints(Arc<HashMap<String, Endpoint>>);

impl FromIterator<(String, Endpoint)> for Endpoints {
    fn from_iter<I: IntoIterator<Item = (String, Endpoint)>>(endpoints: I) -> Endpoints {
        Endpoints(Arc::new(endpoints.into_iter().collect()))
    }
}

impl Endpoints {
    /// What is spoken there.
    pub(super) fn protocols(&self) -> impl Iterator<Item = &'static str> {
        self.0.values().map(Endpoint::protocol)
    }

    fn get(&self, path: &str) -> Option<&Endpoint> {
        self.0.get(path)
    }
}

impl Http {
    /// The answer to a request, be it for a WebSocket or for something else.
    pub(super) async fn route(&self, request: Request<Body>) -> Response {
        let Some(endpoint) = self.endpoints.get(request.uri().path()) else {
            return self.route_plainly(request).await;
        };
        let (mut parts, body) = request.into_parts();
        match handshake(&parts) {
            Ok(mut accepted) => {
                if let Some(agreed) = subprotocol(&parts.headers, endpoint.subprotocols()) {
                    accepted.speak(agreed);
                    parts.extensions.insert(Subprotocol(agreed));
                }
                open(&self.state, endpoint, &parts, accepted)
            }
            // Where something else is too, that is meant.
            Err(error @ HandshakeError::NotAsked) => {
                let response = self.route_plainly(Request::from_parts(parts, body)).await;
                let is_elsewhere = response.status() != StatusCode::NOT_FOUND;
                if is_elsewhere { response } else { ApiError::Handshake(error).into_response() }
            }
            Err(error) => ApiError::Handshake(error).into_response(),
        }
    }

    async fn route_plainly(&self, request: Request<Body>) -> Response {
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Opens a client's WebSocket, and says so.
fn open(state: &HttpState, endpoint: &Endpoint, request: &Parts, accepted: Accepted) -> Response {
    if state.is_draining() {
        return ApiError::Draining.into_response();
    }
    if let Err(status) = endpoint.admit(request) {
        // The sentence is for one status; a handler may choose another.
        let mut response = ApiError::NotAdmitted.into_response();
        *response.status_mut() = status;
        return response;
    }
    let Some(takeover) = request.extensions.get::<Takeover>() else {
        return ApiError::Internal.into_response();
    };
    let config = state.config.load();
    let settings = Settings {
        message_bytes_max: config.websocket.max_message_bytes,
        ping_interval: config.websocket.heartbeat,
        message_timeout: config.limits.header_timeout,
        inflation: state.metrics.inflation.clone(),
        violations: state.metrics.violations.clone(),
    };
    let socket = endpoint.accept(&state.hub, request, accepted.compression, settings, state.now());
    state.metrics.websockets.get_or_create(&ByProtocol { protocol: endpoint.protocol() }).inc();
    takeover.upgrade(socket);
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    *response.headers_mut() = accepted.headers;
    response
}
