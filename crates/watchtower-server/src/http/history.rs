//! What a channel keeps, and who is in it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use watchtower_hub::{History, HistoryQuery, Span, Timestamp};
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

/// Read what a channel keeps, in pages.
///
/// An answer holds at most as many messages and bytes as a stream may fall
/// behind (`limits.lag_messages`, `limits.lag_bytes`). For what comes later, ask
/// again with `last` as `since`; for what came earlier, with `first` as
/// `before`. Direct messages are left out.
#[utoipa::path(
    get,
    path = "/channels/{channel}/history",
    tag = "channels",
    params(
        ("channel" = Channel, Path, description = "The channel"),
        ("sender" = u32, Query, description = "A registered sender"),
        ("since" = Option<String>, Query, description = "`epoch:offset`: the first messages after this position", example = "9f2c61c05e7a4d3b:12"),
        ("before" = Option<String>, Query, description = "`epoch:offset`: the last messages before this position. Not together with `since`", example = "9f2c61c05e7a4d3b:12"),
        ("limit" = Option<u64>, Query, description = "At most so many: the last ones, unless there is `since`"),
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
    let span = span(&parameters)?;
    let limits = &state.config().limits;
    let page = HistoryQuery {
        span,
        messages_max: parameters.limit()?.unwrap_or(usize::MAX).min(limits.lag_messages),
        bytes_max: limits.lag_bytes as u64,
    };
    Ok(match state.hub.history(&channel, &page, state.now()) {
        Some(history) => json_answer(StatusCode::OK, history_json(&history.await?)),
        None => json_answer(StatusCode::OK, nothing_json(span)),
    })
}

fn span(parameters: &Parameters) -> Result<Span, ApiError> {
    match (parameters.position("since")?, parameters.position("before")?) {
        (None, None) => Ok(Span::Last),
        (Some(seen), None) => Ok(Span::After(seen)),
        (None, Some(seen)) => Ok(Span::Before(seen)),
        (Some(_), Some(_)) => Err(ApiError::field("before", "excludes `since`")),
    }
}

fn history_json(history: &History) -> Bytes {
    let &History { epoch, recovered, first, last, more_before, more_after, .. } = history;
    let head = format!(
        r#"{{"epoch":"{epoch}","recovered":{recovered},"first":"{epoch}:{first}","last":"{epoch}:{last}","more":{{"before":{more_before},"after":{more_after}}},"messages":["#
    );
    let mut json = BytesMut::from(head.as_str());
    for (index, entry) in history.entries.iter().enumerate() {
        if index > 0 {
            json.extend_from_slice(b",");
        }
        write_message(entry, &mut json);
    }
    json.extend_from_slice(b"]");
    if !history.lost.is_empty() {
        let lost =
            history.lost.iter().map(|lost| format!(r#"{{"from":{},"to":{}}}"#, lost.start, lost.end - 1));
        let lost = format!(r#","lost":[{}]"#, lost.collect::<Vec<_>>().join(","));
        json.extend_from_slice(lost.as_bytes());
    }
    json.extend_from_slice(b"}");
    json.freeze()
}

/// The history of a channel that there is not: nobody was at a position in it.
fn nothing_json(span: Span) -> String {
    let recovered = span == Span::Last;
    format!(
        r#"{{"epoch":null,"recovered":{recovered},"first":null,"last":null,"more":{{"before":false,"after":false}},"messages":[]}}"#
    )
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
