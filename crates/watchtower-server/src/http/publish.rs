//! `POST /broadcast` and `POST /send`: a message to channels, or to some who
//! are there.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use watchtower_hub::{ChannelName, Content, Publish, SenderId};

use super::error::{ApiError, ErrorAnswer};
use super::extract::{Field, Parameters, WholeBody, event_name, without_doubles};
use super::openapi::Channel;
use super::{ChannelJson, HttpState, answer};
use crate::metrics::Publication;

/// A message to everyone in some channels.
#[derive(Deserialize, ToSchema)]
pub(super) struct BroadcastRequest<'a> {
    /// The channels, one or more; all must be joined.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<Channel>, required = true, min_items = 1, example = json!([5]))]
    channels: Field<'a>,
    /// Who sends.
    #[serde(borrow, default)]
    #[schema(value_type = u32, required = true, example = 72)]
    sender: Field<'a>,
    /// The content: a string is text, anything else JSON.
    #[serde(borrow, default)]
    #[schema(value_type = serde_json::Value, required = true, example = "all your base are belong to us")]
    message: Field<'a>,
    /// With `base64`, `message` is a string of base64, and the content binary.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "base64")]
    encoding: Field<'a>,
    /// The event's name; `message` when left out.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, max_length = 128)]
    event: Field<'a>,
}

/// A message to some who are in the channels.
#[derive(Deserialize, ToSchema)]
pub(super) struct SendRequest<'a> {
    /// The channels, one or more; all must be joined.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<Channel>, required = true, min_items = 1, example = json!([5]))]
    channels: Field<'a>,
    /// Who sends.
    #[serde(borrow, default)]
    #[schema(value_type = u32, required = true, example = 72)]
    sender: Field<'a>,
    /// For whom: senders, one or more, who have all joined.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<u32>, required = true, min_items = 1, example = json!([52, 34]))]
    receivers: Field<'a>,
    /// The content: a string is text, anything else JSON.
    #[serde(borrow, default)]
    #[schema(value_type = serde_json::Value, required = true, example = "all your base are belong to us")]
    message: Field<'a>,
    /// With `base64`, `message` is a string of base64, and the content binary.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "base64")]
    encoding: Field<'a>,
    /// The event's name; `message` when left out.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, max_length = 128)]
    event: Field<'a>,
}

/// What was sent.
#[derive(Serialize, ToSchema)]
pub(super) struct PublishAnswer {
    /// One for each channel, in the order of `channels`.
    messages: Vec<Published>,
}

/// Where a message stands.
#[derive(Serialize, ToSchema)]
pub(super) struct Published {
    /// The channel.
    #[schema(value_type = Channel)]
    channel: ChannelJson,
    /// Its number in the channel.
    #[schema(example = 12)]
    offset: u64,
    /// The incarnation of the channel's log.
    #[schema(example = "9f2c61c05e7a4d3b")]
    epoch: String,
}

/// A message as it is asked for, in whatever form.
struct Outgoing {
    channels: Vec<ChannelName>,
    sender: SenderId,
    event: Option<String>,
    content: Content,
    receivers: Option<Vec<u32>>,
}

/// Send a message to everyone in some channels: to all of them, or to none.
///
/// With `Content-Type: application/octet-stream` or `text/plain` the body is
/// the content, and the rest is in the query.
#[utoipa::path(
    post,
    path = "/broadcast",
    tag = "messages",
    params(
        ("channels" = Option<String>, Query, description = "With a body that is the content: channels separated by commas", example = "5,hello"),
        ("sender" = Option<u32>, Query, description = "With a body that is the content: who sends"),
        ("event" = Option<String>, Query, description = "With a body that is the content: the event's name"),
    ),
    request_body(content(
        (inline(BroadcastRequest) = "application/json"),
        (Vec<u8> = "application/octet-stream"),
        (String = "text/plain"),
    )),
    responses(
        (status = 200, description = "Message broadcasted", body = PublishAnswer),
        (status = 400, description = "A channel is not joined, does not accept such content, or a field has the wrong form", body = ErrorAnswer),
        (status = 401, description = "The sender is missing or not registered", body = ErrorAnswer),
        (status = 413, description = "The content or the body is above the limit", body = ErrorAnswer),
        (status = 500, description = "Broadcast failed", body = ErrorAnswer),
        (status = 503, description = "A channel is durable, and the message could not be kept", body = ErrorAnswer),
    )
)]
pub(super) async fn broadcast(
    State(state): State<Arc<HttpState>>,
    parameters: Parameters,
    headers: HeaderMap,
    body: WholeBody,
) -> Result<Response, ApiError> {
    if let Some(kind) = BodyKind::of(&headers) {
        return publish(&state, kind.outgoing(&parameters, &body)?).await;
    }
    let request: BroadcastRequest<'_> = body.json()?;
    publish(
        &state,
        Outgoing {
            channels: request.channels.channels()?,
            content: request.message.content(request.encoding)?,
            event: request.event.string("event")?.map(event_name).transpose()?,
            receivers: None,
            sender: request.sender.sender()?,
        },
    )
    .await
}

/// Send a message to some who have joined the channels: to all of them in all
/// channels, or to none.
#[utoipa::path(
    post,
    path = "/send",
    tag = "messages",
    request_body = inline(SendRequest),
    responses(
        (status = 200, description = "Message sent to all parties", body = PublishAnswer),
        (status = 400, description = "A channel is not joined, or not by all receivers (`receivers` lists who has not), or a field has the wrong form", body = ErrorAnswer),
        (status = 401, description = "The sender is missing or not registered", body = ErrorAnswer),
        (status = 413, description = "The content or the body is above the limit", body = ErrorAnswer),
        (status = 500, description = "Sending failed", body = ErrorAnswer),
        (status = 503, description = "A channel is durable, and the message could not be kept", body = ErrorAnswer),
    )
)]
pub(super) async fn send(State(state): State<Arc<HttpState>>, body: WholeBody) -> Result<Response, ApiError> {
    let request: SendRequest<'_> = body.json()?;
    publish(
        &state,
        Outgoing {
            channels: request.channels.channels()?,
            receivers: Some(request.receivers.receivers()?),
            content: request.message.content(request.encoding)?,
            event: request.event.string("event")?.map(event_name).transpose()?,
            sender: request.sender.sender()?,
        },
    )
    .await
}

/// A body that is the content itself.
#[derive(Clone, Copy)]
enum BodyKind {
    Octets,
    Text,
}

impl BodyKind {
    /// By the request's `Content-Type`; `None` for JSON, which needs none.
    fn of(headers: &HeaderMap) -> Option<BodyKind> {
        let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/octet-stream") {
            Some(BodyKind::Octets)
        } else if media_type.eq_ignore_ascii_case("text/plain") {
            Some(BodyKind::Text)
        } else {
            None
        }
    }

    fn outgoing(self, parameters: &Parameters, body: &WholeBody) -> Result<Outgoing, ApiError> {
        let content = match self {
            BodyKind::Octets => Content::binary(body.0.clone()),
            BodyKind::Text => {
                let text = String::from_utf8(body.0.to_vec());
                Content::text(
                    text.map_err(|_| ApiError::field("body", "is not UTF-8, as text/plain must be"))?,
                )
            }
        };
        Ok(Outgoing {
            channels: without_doubles(parameters.channels()?),
            content,
            event: parameters.event()?,
            receivers: None,
            sender: parameters.sender()?,
        })
    }
}

async fn publish(state: &HttpState, outgoing: Outgoing) -> Result<Response, ApiError> {
    let Outgoing { channels, sender, event, content, receivers } = outgoing;
    let mut message = Publish::new(content).by(state.known(sender)?);
    if let Some(event) = &event {
        message = message.event(event);
    }
    if let Some(receivers) = &receivers {
        message = message.to(receivers);
    }
    // What is kept first is waited for below, and measured by who keeps it.
    let publication = Publication::sample(|| state.hub.clone());
    let positions = state.hub.publish_all(&channels, message, state.now())?;
    if let Some(publication) = publication {
        state.metrics.latencies.carried_out(publication, &state.hub);
    }
    let positions = positions.await?;
    let published = |(channel, position): (_, watchtower_hub::Position)| Published {
        channel: ChannelJson(channel),
        offset: position.offset,
        epoch: position.epoch.to_string(),
    };
    let messages = channels.into_iter().zip(positions).map(published).collect();
    Ok(answer(StatusCode::OK, &PublishAnswer { messages }))
}
