//! Reading requests: bodies within their limits, fields and parameters with
//! an error that names them ([http: errors]).
//!
//! Fields are kept as the raw JSON that came until they are asked for: so
//! `message` stays byte for byte as it was, and nothing is nested too deeply
//! to be read.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use watchtower_hub::{ChannelName, Content, JSON_DEPTH_MAX, Position, SenderId};

use super::HttpState;
use super::error::ApiError;

/// The longest event name, in bytes.
const EVENT_BYTES_MAX: usize = 128;

/// The whole body of a request, within `limits.max_body_bytes`.
pub(super) struct WholeBody(pub(super) Bytes);

impl FromRequest<Arc<HttpState>> for WholeBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<HttpState>) -> Result<WholeBody, ApiError> {
        let config = state.config();
        let limit = config.limits.max_body_bytes;
        let too_large = || ApiError::TooLarge { what: "body", limit };
        let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        // Refused before any of it is read.
        if announced.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > limit as u64)
        {
            return Err(too_large());
        }
        let body = Limited::new(request.into_body(), limit).collect();
        match tokio::time::timeout(config.limits.header_timeout, body).await {
            Err(_) => Err(ApiError::Timeout),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            // The client broke off, or its framing is wrong.
            Ok(Err(_)) => Err(ApiError::InvalidJson("it is incomplete".to_owned())),
            Ok(Ok(body)) => Ok(WholeBody(body.to_bytes())),
        }
    }
}

impl WholeBody {
    /// Reads a JSON object.
    pub(super) fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        let text =
            std::str::from_utf8(&self.0).map_err(|_| ApiError::InvalidJson("it is not UTF-8".to_owned()))?;
        // Derived code would take an array for a list of the fields.
        if text.trim_start().starts_with('[') {
            return Err(ApiError::InvalidJson("it is an array".to_owned()));
        }
        serde_json::from_str(text).map_err(|error| ApiError::InvalidJson(error.to_string()))
    }
}

/// A field of a JSON object, read when it is asked for. `null` is a value.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Field<'a>(Option<&'a str>);

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Field(Some(raw.get())))
    }
}

impl<'a> Field<'a> {
    /// The sender. One that cannot be registered is unknown; what is not a
    /// number is of the wrong type.
    pub(super) fn sender(self) -> Result<SenderId, ApiError> {
        let raw = self.0.ok_or(ApiError::UnknownSender)?;
        let digits = raw.strip_prefix('-').unwrap_or(raw);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ApiError::field("sender", "must be a number, the `id` that POST /register gave"));
        }
        raw.parse().ok().and_then(SenderId::new).ok_or(ApiError::UnknownSender)
    }

    /// The channels, each once, in order.
    pub(super) fn channels(self) -> Result<Vec<ChannelName>, ApiError> {
        const EXPECTED: &str =
            "must be a non-empty array of channels: numbers such as 5, or strings such as \"hello\"";
        let wrong = || ApiError::field("channels", EXPECTED);
        let items = self.items().filter(|items| !items.is_empty()).ok_or_else(wrong)?;
        let mut channels = Vec::with_capacity(items.len());
        for item in items {
            let raw = item.get();
            let name = if raw.starts_with('"') {
                serde_json::from_str(raw).map_err(|_| wrong())?
            } else {
                raw.to_owned()
            };
            let is_number = raw.bytes().all(|byte| byte.is_ascii_digit());
            if !raw.starts_with('"') && !is_number {
                return Err(wrong());
            }
            channels.push(channel("channels", &name)?);
        }
        Ok(without_doubles(channels))
    }

    /// The receivers of a direct message.
    pub(super) fn receivers(self) -> Result<Vec<u32>, ApiError> {
        const EXPECTED: &str = "must be a non-empty array of sender ids";
        let receivers = self.0.and_then(|raw| serde_json::from_str::<Vec<u32>>(raw).ok());
        receivers.filter(|ids| !ids.is_empty()).ok_or_else(|| ApiError::field("receivers", EXPECTED))
    }

    /// A string; `None` when the field is missing.
    pub(super) fn string(self, name: &'static str) -> Result<Option<String>, ApiError> {
        let read = |raw| serde_json::from_str(raw).map_err(|_| ApiError::field(name, "must be a string"));
        self.0.map(read).transpose()
    }

    /// The content of a message: `encoding` says how it is written
    /// ([model: projection]).
    pub(super) fn content(self, encoding: Field<'_>) -> Result<Content, ApiError> {
        let raw = self.0.ok_or_else(|| ApiError::field("message", "is missing"))?;
        let is_base64 = match encoding.string("encoding")?.as_deref() {
            None => false,
            Some("base64") => true,
            Some(_) => return Err(ApiError::field("encoding", "must be \"base64\", or left out")),
        };
        if !is_base64 && !raw.starts_with('"') {
            let too_deep =
                || ApiError::field("message", format!("is nested deeper than {JSON_DEPTH_MAX} levels"));
            return Content::json(raw.to_owned()).ok_or_else(too_deep);
        }
        let text: String = serde_json::from_str(raw).map_err(|_| {
            ApiError::field(
                "message",
                if is_base64 { "must be a string of base64" } else { "is not valid Unicode" },
            )
        })?;
        if !is_base64 {
            return Ok(Content::text(text));
        }
        let bytes = BASE64.decode(&text);
        bytes.map(Content::binary).map_err(|_| ApiError::field("message", "must be a string of base64"))
    }

    fn items(self) -> Option<Vec<&'a RawValue>> {
        serde_json::from_str(self.0?).ok()
    }
}

/// The channel that a path names.
pub(super) struct PathChannel(pub(super) ChannelName);

impl<S: Send + Sync> FromRequestParts<S> for PathChannel {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathChannel, ApiError> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = name.map_err(|_| ApiError::field("channel", "is not UTF-8"))?;
        channel("channel", &name).map(PathChannel)
    }
}

/// The parameters of a request's query.
pub(super) struct Parameters(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Parameters, Self::Rejection> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Parameters(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

impl Parameters {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The sender; a missing or malformed one is unknown.
    pub(super) fn sender(&self) -> Result<SenderId, ApiError> {
        let number = self.get("sender").filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        number.and_then(|text| text.parse().ok()).and_then(SenderId::new).ok_or(ApiError::UnknownSender)
    }

    /// The channels as they were listed, doubles included.
    pub(super) fn channels(&self) -> Result<Vec<ChannelName>, ApiError> {
        let listed = self.get("channels").ok_or_else(|| {
            ApiError::field("channels", "is missing: channels separated by commas, such as 5,6,hello")
        })?;
        listed.split(',').map(|name| channel("channels", name)).collect()
    }

    /// Where the client was on each of so many channels.
    pub(super) fn since(&self, channels: usize) -> Result<Option<Vec<Position>>, ApiError> {
        let Some(listed) = self.get("since") else { return Ok(None) };
        let wrong = || {
            let problem =
                "must be an epoch:offset for each channel, separated by commas in the order of `channels`";
            ApiError::field("since", problem)
        };
        let positions: Option<Vec<_>> = listed.split(',').map(Position::of_client).collect();
        positions.filter(|positions| positions.len() == channels).map(Some).ok_or_else(wrong)
    }

    /// One position, of one channel.
    pub(super) fn position(&self, name: &'static str) -> Result<Option<Position>, ApiError> {
        let wrong = || ApiError::field(name, "must be an epoch:offset");
        self.get(name).map(|text| Position::of_client(text).ok_or_else(wrong)).transpose()
    }

    pub(super) fn limit(&self) -> Result<Option<usize>, ApiError> {
        let read = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            // More than can be counted is more than there is.
            digits.then(|| text.parse().unwrap_or(usize::MAX))
        };
        let wrong = || ApiError::field("limit", "must be a whole number");
        self.get("limit").map(|text| read(text).ok_or_else(wrong)).transpose()
    }

    /// The event name of a message whose body is its content.
    pub(super) fn event(&self) -> Result<Option<String>, ApiError> {
        self.get("event").map(|event| event_name(event.to_owned())).transpose()
    }
}

/// Reads the name of a channel from `field`.
fn channel(field: &'static str, name: &str) -> Result<ChannelName, ApiError> {
    ChannelName::parse(name)
        .map_err(|reason| ApiError::field(field, format!("has no valid channel: {reason}")))
}

/// Reads an event name.
pub(super) fn event_name(event: String) -> Result<String, ApiError> {
    if event.is_empty() || event.len() > EVENT_BYTES_MAX || event.chars().any(char::is_control) {
        let problem = format!("must have 1 to {EVENT_BYTES_MAX} bytes and no control characters");
        return Err(ApiError::field("event", problem));
    }
    Ok(event)
}

/// The same, each once, in order.
pub(super) fn without_doubles(channels: Vec<ChannelName>) -> Vec<ChannelName> {
    let mut seen = std::collections::HashSet::with_capacity(channels.len());
    channels.into_iter().filter(|channel| seen.insert(channel.clone())).collect()
}
