//! What operators and their programs ask: health, readiness, metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, ErrorAnswer};
use super::{HttpState, answer};

/// What `GET /` says to a person.
const HINT: &str = "Watchtower: a real-time messaging hub.\n\
    POST /register {\"secret_key\": \"...\"} gives a sender's id;\n\
    GET /channels/join?channels=5&sender=ID follows a channel;\n\
    POST /broadcast {\"channels\": [5], \"sender\": ID, \"message\": \"hello\"} sends.\n\
    /openapi.json describes every request.\n";

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How the server is.
#[derive(Serialize, ToSchema)]
pub(super) struct StatusAnswer {
    #[schema(example = "ok")]
    status: &'static str,
    /// What does not work while everything else does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "nothing can be kept on disk: No space left on device (os error 28)")]
    degraded: Option<String>,
}

/// Say what this is.
#[utoipa::path(
    get,
    path = "/",
    tag = "operation",
    responses((status = 200, description = "A hint for a person", body = String, content_type = "text/plain"))
)]
pub(super) async fn index() -> &'static str {
    HINT
}

/// Say that the server runs.
#[utoipa::path(
    get,
    path = "/health",
    tag = "operation",
    responses((status = 200, description = "It runs", body = StatusAnswer))
)]
pub(super) async fn health() -> Response {
    answer(StatusCode::OK, &StatusAnswer { status: "ok", degraded: None })
}

/// Say whether the server wants requests.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "operation",
    responses(
        (status = 200, description = "It does", body = StatusAnswer),
        (status = 503, description = "It is shutting down", body = ErrorAnswer),
    )
)]
pub(super) async fn ready(State(state): State<Arc<HttpState>>) -> Result<Response, ApiError> {
    if state.is_draining() {
        return Err(ApiError::Draining);
    }
    let degraded =
        state.metrics.disk.failing().map(|reason| format!("nothing can be kept on disk: {reason}"));
    Ok(answer(StatusCode::OK, &StatusAnswer { status: "ready", degraded }))
}

/// Show what the server counts, in the text format of Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses((status = 200, description = "The counters", body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(state): State<Arc<HttpState>>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let wants_openmetrics =
        accepted.into_iter().any(|accept| accept.contains("application/openmetrics-text"));
    let (content_type, text) = if wants_openmetrics {
        (OPENMETRICS, state.metrics.to_openmetrics())
    } else {
        (PROMETHEUS, state.metrics.to_text())
    };
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}
