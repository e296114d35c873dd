//! `POST /register`: a sender for whoever knows the secret.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use watchtower_protocols::websocket::RemoteAddress;

use super::error::{ApiError, ErrorAnswer};
use super::extract::{Field, WholeBody};
use super::{HttpState, answer};
use crate::metrics::ByProtocol;

/// A wish to be registered.
#[derive(Deserialize, ToSchema)]
pub(super) struct RegisterRequest<'a> {
    /// The server's secret.
    #[serde(borrow, default)]
    #[schema(value_type = String, required = true)]
    secret_key: Field<'a>,
}

/// A new sender.
#[derive(Serialize, ToSchema)]
pub(super) struct RegisterAnswer {
    /// The sender's id, to be given as `sender` from now on. Whoever knows it
    /// can send as this sender.
    #[schema(example = 72)]
    id: u32,
}

/// Register a sender.
#[utoipa::path(
    post,
    path = "/register",
    tag = "senders",
    request_body = inline(RegisterRequest),
    responses(
        (status = 200, description = "Registered", body = RegisterAnswer),
        (status = 400, description = "The body is not a JSON object", body = ErrorAnswer),
        (status = 401, description = "The secret key is missing or wrong", body = ErrorAnswer),
        (status = 429, description = "The address registers too many", body = ErrorAnswer),
        (status = 503, description = "There are as many senders as there may be, or the registration could not be kept", body = ErrorAnswer),
    )
)]
pub(super) async fn register(
    State(state): State<Arc<HttpState>>,
    Extension(RemoteAddress(address)): Extension<RemoteAddress>,
    body: WholeBody,
) -> Result<Response, ApiError> {
    let limit = state.config.load().limits.max_registrations_per_second_per_address;
    if let Err(wait) = state.registrations.count(address, limit) {
        state.metrics.registrations_limited.inc();
        return Err(ApiError::TooManyRequests { wait });
    }
    let refuse = || {
        state.metrics.registrations_refused.get_or_create(&ByProtocol { protocol: "http" }).inc();
        ApiError::InvalidSecretKey
    };
    // No body holds no secret.
    if body.0.is_empty() {
        return Err(refuse());
    }
    let request: RegisterRequest<'_> = body.json()?;
    let given = request.secret_key.string("secret_key").ok().flatten();
    let config = state.config.load();
    if !given.is_some_and(|given| config.secret_key.matches(given.as_bytes())) {
        return Err(refuse());
    }
    let id = state.hub.register(state.now())?;
    if let Err(error) = state.kept("nobody was registered, since that could not be kept").await {
        // Nobody will know the id.
        let _ = state.hub.unregister(id, state.now());
        return Err(error);
    }
    Ok(answer(StatusCode::OK, &RegisterAnswer { id: id.get() }))
}
