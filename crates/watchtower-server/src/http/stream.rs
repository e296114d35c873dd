//! `GET /channels/join`: a stream of what is published
//! ([http: channels/join]).
//!
//! Decides what the stream carries and where it starts. The response that is
//! returned never ends: its connection is taken over, see
//! [`takeover`](super::takeover).

use std::collections::HashSet;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use watchtower_hub::{ChannelName, FormatId, Position, SenderId, Session, Start, WhenLagging};
use watchtower_protocols::http::{Chunked, Form, Framing, HttpStream, Octets, Opening};
use watchtower_protocols::packets::frame::encode_incomplete;
use watchtower_protocols::packets::{PACKET_FORMAT, PacketFormat};

use super::HttpState;
use super::error::{ApiError, ErrorAnswer};
use super::extract::Parameters;
use super::takeover::Takeover;
use crate::metrics::ByForm;

/// A stream of packets, as on a TCP connection.
static PACKETS: Octets = Octets {
    plain: &PACKET_FORMAT,
    chunked: &PACKETS_CHUNKED,
    overloaded: b"E\x08\x1ethe stream fell behind too far",
    shutting_down: b"E\x08\x15the server shuts down",
    incomplete: encode_incomplete,
};

static PACKETS_CHUNKED: Chunked<PacketFormat> = Chunked::new(FormatId::new(5), PACKET_FORMAT);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Follow channels: a response that goes on with what is published.
///
/// The stream joins its channels while it is open. `Accept` chooses the form:
/// `text/event-stream`, `application/octet-stream` (packets; numeric channels
/// only), and otherwise `application/x-ndjson`.
#[utoipa::path(
    get,
    path = "/channels/join",
    tag = "channels",
    params(
        ("channels" = String, Query, description = "Channels separated by commas", example = "5,6,hello"),
        ("sender" = u32, Query, description = "Who joins"),
        ("since" = Option<String>, Query, description = "Where the client was: an `epoch:offset` for each channel, separated by commas in the order of `channels`"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event seen; goes before `since`"),
    ),
    responses(
        (
            status = 200,
            description = "The stream: a message a line, or an event, or a packet. See docs/http.md",
            content(
                (super::openapi::Message = "application/x-ndjson"),
                (String = "text/event-stream"),
                (Vec<u8> = "application/octet-stream"),
            )
        ),
        (status = 400, description = "A parameter has the wrong form, or a named channel is asked for as packets", body = ErrorAnswer),
        (status = 401, description = "The sender is missing or not registered", body = ErrorAnswer),
        (status = 503, description = "A limit is reached", body = ErrorAnswer),
    )
)]
pub(super) async fn open(
    State(state): State<Arc<HttpState>>,
    takeover: Option<Extension<Takeover>>,
    method: Method,
    version: Version,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let form = form(&headers);
    let Starts { channels, positions } = starts(&state, &parameters, &headers)?;
    if let Form::Octets(_) = form {
        numbers_only(&channels)?;
    }
    let sender = state.known(parameters.sender()?)?;
    if method == Method::HEAD {
        // What a stream would be; a stream it is not.
        let mut head = head(form, Body::empty());
        head.headers_mut().remove(header::CONNECTION);
        return Ok(head);
    }
    let Some(Extension(takeover)) = takeover else { return Err(ApiError::Internal) };
    let session = state.hub.open("http", WhenLagging::Close);
    session.resumes_by_position();
    let resumes = positions.is_some();
    let starts = match positions {
        Some(positions) => positions.into_iter().map(Start::After).collect(),
        None => vec![Start::End; channels.len()],
    };
    let openings =
        subscribe(&state, &session, sender, channels.into_iter().zip(starts)).inspect_err(|_| {
            // What was refused leaves no trace.
            session.end_joins_on_close();
        })?;
    let framing = if version == Version::HTTP_10 { Framing::UntilClose } else { Framing::Chunked };
    let heartbeat = state.config.load().http.heartbeat;
    let stream = HttpStream::new(session, form, framing, heartbeat, &openings, resumes);
    state.metrics.http_streams.get_or_create(&ByForm { form: form.media_type() }).inc();
    let mut head = head(form, takeover.prepare(stream));
    // Or hyper would promise a client of 1.0 that the connection goes on.
    *head.version_mut() = version;
    Ok(head)
}

/// By the first form in `Accept` that there is; lines of JSON when none is.
fn form(headers: &HeaderMap) -> Form {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let media_types = accepted
        .flat_map(|accept| accept.split(','))
        .map(|range| range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let form = |media_type: String| match media_type.as_str() {
        "application/x-ndjson" => Some(Form::Ndjson),
        "text/event-stream" => Some(Form::Sse),
        "application/octet-stream" => Some(Form::Octets(&PACKETS)),
        _ => None,
    };
    media_types.into_iter().find_map(form).unwrap_or(Form::Ndjson)
}

/// Packets name channels by number ([http: channels/join]).
fn numbers_only(channels: &[ChannelName]) -> Result<(), ApiError> {
    match channels.iter().find(|channel| channel.number().is_none()) {
        None => Ok(()),
        Some(named) => {
            let problem = format!("has {named}: application/octet-stream carries numeric channels only");
            Err(ApiError::field("channels", problem))
        }
    }
}

/// What a stream is asked to follow.
struct Starts {
    /// Each channel once.
    channels: Vec<ChannelName>,
    /// Where the client was on each of them, if it says so ([http: since]).
    positions: Option<Vec<Position>>,
}

/// `Last-Event-ID` goes before `since`: a browser that reconnects repeats the
/// URL that it began with, and the header says where it has got to.
fn starts(state: &HttpState, parameters: &Parameters, headers: &HeaderMap) -> Result<Starts, ApiError> {
    let listed = parameters.channels()?;
    let since = parameters.since(listed.len())?;
    let mut named = HashSet::with_capacity(listed.len());
    let is_first: Vec<bool> = listed.iter().map(|channel| named.insert(channel.clone())).collect();
    let mut first = is_first.iter();
    let channels: Vec<_> = listed.into_iter().filter(|_| first.next() == Some(&true)).collect();
    let last_event_id = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty());
    let positions = match (last_event_id, since) {
        (Some(id), _) => Some(seen(state, &channels, id)),
        (None, Some(since)) => Some(
            since
                .into_iter()
                .zip(is_first)
                .filter_map(|(position, first)| first.then_some(position))
                .collect(),
        ),
        (None, None) => None,
    };
    Ok(Starts { channels, positions })
}

/// Where a client was that saw the event of that id last.
///
/// An id is the position of one message, or, before the first one, a position
/// for each channel. From one position on a stream of several channels follows
/// nothing about the others: these start with all that is kept, and say
/// `recovered: false`, so that nothing is skipped in silence.
fn seen(state: &HttpState, channels: &[ChannelName], id: &HeaderValue) -> Vec<Position> {
    let positions: Option<Vec<_>> =
        id.to_str().ok().and_then(|id| id.split(',').map(Position::of_client).collect());
    match positions.as_deref() {
        Some(positions) if positions.len() == channels.len() => positions.to_vec(),
        Some(&[one]) => {
            // An epoch is random: it belongs to one channel alone.
            let is_here = |channel| state.hub.epoch(channel) == Some(one.epoch);
            channels.iter().map(|channel| if is_here(channel) { one } else { Position::NOWHERE }).collect()
        }
        _ => vec![Position::NOWHERE; channels.len()],
    }
}

fn subscribe(
    state: &HttpState,
    session: &Session,
    sender: SenderId,
    channels: impl Iterator<Item = (ChannelName, Start)>,
) -> Result<Vec<Opening>, ApiError> {
    let now = state.now();
    let subscribe = |(channel, start)| {
        let joined = session.subscribe(sender, &channel, start, now)?;
        Ok(Opening { channel, joined })
    };
    channels.map(subscribe).collect()
}

fn head(form: Form, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(form.media_type())),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // A stream is the last response on its connection.
        (header::CONNECTION, HeaderValue::from_static("close")),
        // Proxies that gather a response before they pass it on would keep a
        // stream for themselves.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use watchtower_protocols::packets::{ErrorCode, frame::encode_error};

    use super::*;

    #[test]
    fn the_last_words_of_a_stream_of_packets_are_packets() {
        let packet = |text: &str| {
            let mut out = Vec::new();
            encode_error(&mut out, ErrorCode::Overloaded, text);
            out
        };
        assert_eq!(PACKETS.overloaded, packet("the stream fell behind too far"));
        assert_eq!(PACKETS.shutting_down, packet("the server shuts down"));
    }

    #[test]
    fn accept_chooses_the_first_form_that_there_is() {
        let check = |accept: &'static str, expected: &str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(form(&headers).media_type(), expected, "{accept}");
        };
        assert_eq!(form(&HeaderMap::new()).media_type(), "application/x-ndjson");
        check("*/*", "application/x-ndjson");
        check("application/json", "application/x-ndjson");
        check("text/event-stream", "text/event-stream");
        check("text/html, Text/Event-Stream;q=0.9, */*", "text/event-stream");
        check("application/octet-stream", "application/octet-stream");
        check("application/x-ndjson, text/event-stream", "application/x-ndjson");
    }
}
