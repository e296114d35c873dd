//! What a channel keeps, and who is in it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::BytesMut;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use watchtower_hub::{Entry, Timestamp};
use watchtower_protocols::http::write_message;

use super::error::{ApiError, ErrorAnswer};
use super::extract::{Parameters, PathChannel};
use super::openapi::{Channel, HistoryAnswer};
use super::{HttpState, answer, json_answer};

/// Who is in a channel.
#[derive(Serialize, ToSchema)]
pub(super) struct PresenceAnswer {
    senders: Vec<PresentSender>,
}

/// A sender that is in a channel.
#[derive(Serialize, ToSchema)]
pub(super) struct PresentSender {
    /// Who.
    #[schema(example = 72)]
    id: u32,
    /// By which protocol it came last.
    #[schema(example = "http")]
    protocol: &'static str,
    /// Since when it is there, reconnects included.
    #[schema(example = "2026-11-21T10:00:00.000Z")]
    since: String,
}

/// Read what a channel keeps.
///
/// An answer holds at most as many messages and bytes as a stream may fall
/// behind (`limits.lag_messages`, `limits.lag_bytes`): ask again with the last
/// one's position as `since` for more.
#[utoipa::path(
    get,
    path = "/channels/{channel}/history",
    tag = "channels",
    params(
        ("channel" = Channel, Path, description = "The channel"),
        ("sender" = u32, Query, description = "A registered sender"),
        ("since" = Option<String>, Query, description = "`epoch:offset`: what follows this position", example = "9f2c61c05e7a4d3b:12"),
        ("limit" = Option<u64>, Query, description = "At most so many: the first after `since`, without it the last"),
    ),
    responses(
        (status = 200, description = "What is kept; empty for a channel without history", body = HistoryAnswer),
        (status = 400, description = "A parameter has the wrong form", body = ErrorAnswer),
        (status = 401, description = "The sender is missing or not registered", body = ErrorAnswer),
    )
)]
pub(super) async fn history(
    State(state): State<Arc<HttpState>>,
    PathChannel(channel): PathChannel,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    state.known(parameters.sender()?)?;
    let since = parameters.since(1)?.and_then(|positions| positions.first().copied());
    let limits = &state.config().limits;
    let limit = parameters.limit()?.unwrap_or(usize::MAX).min(limits.lag_messages);
    let Some(history) = state.hub.history(&channel, since, limit, state.now()) else {
        return Ok(json_answer(StatusCode::OK, r#"{"epoch":null,"messages":[]}"#));
    };
    let (epoch, entries) = history.await?;
    let mut json = BytesMut::from(format!(r#"{{"epoch":"{epoch}","messages":["#).as_str());
    for (index, entry) in within(&entries, limits.lag_bytes, since.is_some()).iter().enumerate() {
        if index > 0 {
            json.extend_from_slice(b",");
        }
        write_message(entry, &mut json);
    }
    json.extend_from_slice(b"]}");
    Ok(json_answer(StatusCode::OK, json.freeze()))
}

/// The first or the last of the entries, so many that their content is not
/// above `bytes_max`; one at least, if there is one.
fn within(entries: &[Entry], bytes_max: usize, first: bool) -> &[Entry] {
    let mut bytes = 0;
    let mut fits = |entry: &Entry| {
        let is_first = bytes == 0;
        bytes += entry.content().bytes().len().max(1);
        is_first || bytes <= bytes_max
    };
    if first {
        let count = entries.iter().take_while(|entry| fits(entry)).count();
        &entries[..count]
    } else {
        let count = entries.iter().rev().take_while(|entry| fits(entry)).count();
        &entries[entries.len() - count..]
    }
}

/// Read who is in a channel.
#[utoipa::path(
    get,
    path = "/channels/{channel}/presence",
    tag = "channels",
    params(
        ("channel" = Channel, Path, description = "The channel"),
        ("sender" = u32, Query, description = "A registered sender"),
    ),
    responses(
        (status = 200, description = "Who is in it, by id", body = PresenceAnswer),
        (status = 400, description = "The channel has the wrong form", body = ErrorAnswer),
        (status = 401, description = "The sender is missing or not registered", body = ErrorAnswer),
    )
)]
pub(super) async fn presence(
    State(state): State<Arc<HttpState>>,
    PathChannel(channel): PathChannel,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    state.known(parameters.sender()?)?;
    let present = state.hub.presence(&channel).unwrap_or_default();
    let senders = present.into_iter().map(|present| PresentSender {
        id: present.sender.get(),
        protocol: present.protocol,
        since: time_text(present.since),
    });
    Ok(answer(StatusCode::OK, &PresenceAnswer { senders: senders.collect() }))
}

fn time_text(time: Timestamp) -> String {
    let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    format!("{time:.3}")
}
