//! Which channels there are; joining them to send or by callback, and leaving
//! them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use watchtower_hub::ChannelName;

use super::error::{ApiError, ErrorAnswer};
use super::extract::{Field, Parameters, WholeBody};
use super::openapi::Channel;
use super::{ChannelJson, HttpState, answer};
use crate::callbacks::NotJoined;

/// What a join or leave has come to that could not be kept.
const DONE: &str = "it is done, but not kept on disk";

/// Channels.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelsAnswer {
    #[schema(value_type = Vec<Channel>, example = json!([5, 6, "hello"]))]
    channels: Vec<ChannelJson>,
}

/// A sender and channels.
#[derive(Deserialize, ToSchema)]
pub(super) struct ChannelsRequest<'a> {
    /// Who.
    #[serde(borrow, default)]
    #[schema(value_type = u32, required = true, example = 72)]
    sender: Field<'a>,
    /// The channels, one or more.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<Channel>, required = true, min_items = 1, example = json!([5]))]
    channels: Field<'a>,
}

/// A sender, channels, and where to post what is published there.
#[derive(Deserialize, ToSchema)]
pub(super) struct JoinAsyncRequest<'a> {
    /// Who.
    #[serde(borrow, default)]
    #[schema(value_type = u32, required = true, example = 72)]
    sender: Field<'a>,
    /// The channels, one or more.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<Channel>, required = true, min_items = 1, example = json!([5]))]
    channels: Field<'a>,
    /// An `http` or `https` URL without credentials.
    #[serde(borrow, default)]
    #[schema(value_type = String, required = true, example = "http://client-url.com/callbacks")]
    callback_url: Field<'a>,
}

/// List the channels that exist, numbers first.
#[utoipa::path(
    get,
    path = "/channels",
    tag = "channels",
    params(("sender" = u32, Query, description = "A registered sender")),
    responses(
        (status = 200, description = "The channels", body = ChannelsAnswer),
        (status = 204, description = "No channels created yet"),
        (status = 401, description = "The sender is missing or not registered", body = ErrorAnswer),
    )
)]
pub(super) async fn list(
    State(state): State<Arc<HttpState>>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    state.known(parameters.sender()?)?;
    let channels = state.hub.channels();
    if channels.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(channels_answer(channels))
}

/// Join channels to send: nothing is delivered. The join lasts until the
/// sender leaves or expires.
#[utoipa::path(
    post,
    path = "/channels/join",
    tag = "channels",
    request_body = inline(ChannelsRequest),
    responses(
        (status = 200, description = "Joined", body = ChannelsAnswer),
        (status = 400, description = "Malformed JSON, or a field of the wrong form", body = ErrorAnswer),
        (status = 401, description = "The sender is missing or not registered", body = ErrorAnswer),
        (status = 503, description = "A limit is reached, and nothing was joined; or `not_kept`, and it was", body = ErrorAnswer),
    )
)]
pub(super) async fn join(State(state): State<Arc<HttpState>>, body: WholeBody) -> Result<Response, ApiError> {
    let request: ChannelsRequest<'_> = body.json()?;
    let channels = request.channels.channels()?;
    state.hub.join(state.known(request.sender.sender()?)?, &channels, state.now())?;
    state.kept(DONE).await?;
    Ok(channels_answer(channels))
}

/// Join channels and have each message posted to a URL.
#[utoipa::path(
    post,
    path = "/channels/join/async",
    tag = "channels",
    request_body = inline(JoinAsyncRequest),
    responses(
        (status = 200, description = "Channels joined or created", body = ChannelsAnswer),
        (status = 400, description = "Malformed JSON, a field of the wrong form, or an invalid callback URL", body = ErrorAnswer),
        (status = 401, description = "The sender is missing or not registered", body = ErrorAnswer),
        (status = 503, description = "A limit is reached, or the server is shutting down, and nothing was joined; or `not_kept`, and it was", body = ErrorAnswer),
    )
)]
pub(super) async fn join_async(
    State(state): State<Arc<HttpState>>,
    body: WholeBody,
) -> Result<Response, ApiError> {
    let request: JoinAsyncRequest<'_> = body.json()?;
    let channels = request.channels.channels()?;
    let url = request.callback_url.string("callback_url")?;
    let sender = state.known(request.sender.sender()?)?;
    let url = url.ok_or_else(|| ApiError::InvalidCallbackUrl("it is missing".to_owned()))?;
    let url =
        state.callbacks.parse_url(&url).map_err(|error| ApiError::InvalidCallbackUrl(error.to_string()))?;
    state.callbacks.join(sender, &url, &channels, state.now())?;
    state.kept(DONE).await?;
    Ok(channels_answer(channels))
}

/// Leave channels: whatever was joined there by this sender ends, streams and
/// callbacks included. Leaving what is not joined is no error.
#[utoipa::path(
    post,
    path = "/channels/leave",
    tag = "channels",
    request_body = inline(ChannelsRequest),
    responses(
        (status = 200, description = "Left", body = ChannelsAnswer),
        (status = 400, description = "Malformed JSON, or a field of the wrong form", body = ErrorAnswer),
        (status = 401, description = "The sender is missing or not registered", body = ErrorAnswer),
    )
)]
pub(super) async fn leave(
    State(state): State<Arc<HttpState>>,
    body: WholeBody,
) -> Result<Response, ApiError> {
    let request: ChannelsRequest<'_> = body.json()?;
    let channels = request.channels.channels()?;
    let (sender, now) = (state.known(request.sender.sender()?)?, state.now());
    for channel in &channels {
        state.hub.leave(sender, channel, now)?;
    }
    state.callbacks.sender_left(sender);
    state.kept(DONE).await?;
    Ok(channels_answer(channels))
}

fn channels_answer(channels: Vec<ChannelName>) -> Response {
    let channels = channels.into_iter().map(ChannelJson).collect();
    answer(StatusCode::OK, &ChannelsAnswer { channels })
}

impl From<NotJoined> for ApiError {
    fn from(error: NotJoined) -> ApiError {
        match error {
            NotJoined::Refused(refused) => refused.into(),
            NotJoined::TooMany { .. } => ApiError::LimitReached(error.to_string()),
            NotJoined::Draining => ApiError::Draining,
            NotJoined::NoRandomness => ApiError::Internal,
        }
    }
}
