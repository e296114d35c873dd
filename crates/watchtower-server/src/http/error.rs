//! What a request is refused with: one table of codes, and one error type that
//! becomes an answer ([http: errors]).

use std::fmt::Write;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use watchtower_hub::{ChannelName, NotKept, NotRead, Refused};
use watchtower_protocols::websocket::HandshakeError;

use super::answer;

/// How many receivers an error's sentence names; the list beside it has all.
const RECEIVERS_NAMED_MAX: usize = 10;

/// The `error` of an answer that refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// What came is not HTTP.
    BadRequest,
    /// The body is not a JSON object.
    InvalidJson,
    /// A field or a parameter is missing or has the wrong form.
    InvalidField,
    /// A callback URL that cannot be called.
    InvalidCallbackUrl,
    /// The sender has not joined the channel.
    NotJoined,
    /// A receiver has not joined the channel.
    ReceiverNotJoined,
    /// Content that the channel does not accept.
    BadContent,
    /// The secret key is missing or wrong.
    InvalidSecretKey,
    /// The sender is missing or not registered.
    UnknownSender,
    /// A WebSocket that is not for this page, or this client.
    Forbidden,
    /// There is nothing at this path.
    NotFound,
    /// The path does not take this method.
    MethodNotAllowed,
    /// The path speaks WebSocket.
    UpgradeRequired,
    /// The body did not come in time.
    Timeout,
    /// The content or the body is above the limit.
    TooLarge,
    /// The request's target is too long.
    UriTooLong,
    /// The address makes too many requests.
    TooManyRequests,
    /// The head of the request is above the limit.
    HeaderTooLarge,
    /// The server failed.
    Internal,
    /// A limit of the server is reached.
    LimitReached,
    /// A message on a durable channel that is not on disk.
    NotKept,
    /// The server is shutting down.
    Draining,
}

impl ErrorCode {
    /// Every code, by status.
    pub const ALL: [ErrorCode; 22] = [
        ErrorCode::BadRequest,
        ErrorCode::InvalidJson,
        ErrorCode::InvalidField,
        ErrorCode::InvalidCallbackUrl,
        ErrorCode::NotJoined,
        ErrorCode::ReceiverNotJoined,
        ErrorCode::BadContent,
        ErrorCode::InvalidSecretKey,
        ErrorCode::UnknownSender,
        ErrorCode::Forbidden,
        ErrorCode::NotFound,
        ErrorCode::MethodNotAllowed,
        ErrorCode::Timeout,
        ErrorCode::TooLarge,
        ErrorCode::UriTooLong,
        ErrorCode::UpgradeRequired,
        ErrorCode::TooManyRequests,
        ErrorCode::HeaderTooLarge,
        ErrorCode::Internal,
        ErrorCode::LimitReached,
        ErrorCode::NotKept,
        ErrorCode::Draining,
    ];

    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        self.row().0
    }

    /// The code as clients see it.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// When it is sent, for a page of documentation.
    pub fn meaning(self) -> &'static str {
        self.row().2
    }

    /// The one table of codes.
    fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::BadRequest => (S::BAD_REQUEST, "bad_request", "what came is not HTTP"),
            Self::InvalidJson => (S::BAD_REQUEST, "invalid_json", "the body is not a JSON object"),
            Self::InvalidField => (
                S::BAD_REQUEST,
                "invalid_field",
                "a field or parameter is missing or has the wrong form; the message names it",
            ),
            Self::InvalidCallbackUrl => {
                (S::BAD_REQUEST, "invalid_callback_url", "`callback_url` is not one that may be called")
            }
            Self::NotJoined => {
                (S::BAD_REQUEST, "not_joined", "the sender has not joined a channel; nothing was sent")
            }
            Self::ReceiverNotJoined => (
                S::BAD_REQUEST,
                "receiver_not_joined",
                "receivers have not joined a channel; `receivers` lists them, and nothing was sent",
            ),
            Self::BadContent => (S::BAD_REQUEST, "bad_content", "a channel does not accept such content"),
            Self::InvalidSecretKey => {
                (S::UNAUTHORIZED, "invalid_secret_key", "`secret_key` is missing or wrong")
            }
            Self::UnknownSender => {
                (S::UNAUTHORIZED, "unknown_sender", "`sender` is missing or not registered")
            }
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "the WebSocket is not open to this page"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "there is nothing at this path"),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method_not_allowed", "the path takes other methods")
            }
            Self::Timeout => (S::REQUEST_TIMEOUT, "timeout", "the body did not come in time"),
            Self::TooLarge => {
                (S::PAYLOAD_TOO_LARGE, "too_large", "the content or the body is above the limit")
            }
            Self::UriTooLong => (S::URI_TOO_LONG, "uri_too_long", "the path and query are too long"),
            Self::UpgradeRequired => (
                S::UPGRADE_REQUIRED,
                "upgrade_required",
                "the path speaks WebSocket, version 13: ask for it with `Upgrade`",
            ),
            Self::TooManyRequests => (
                S::TOO_MANY_REQUESTS,
                "too_many_requests",
                "the address makes too many requests, or registers too many senders; `Retry-After` says when to try again",
            ),
            Self::HeaderTooLarge => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "header_too_large",
                "the head of the request is above the limit",
            ),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "the server failed; nothing was sent"),
            Self::LimitReached => {
                (S::SERVICE_UNAVAILABLE, "limit_reached", "a limit of the server is reached")
            }
            Self::NotKept => (
                S::SERVICE_UNAVAILABLE,
                "not_kept",
                "what is to be on disk could not be kept there: a message, and nothing was sent; a registration, and there is none; or a join or leave, which may hold only until the server ends. `Retry-After` says when to try again",
            ),
            Self::Draining => (S::SERVICE_UNAVAILABLE, "draining", "the server is shutting down"),
        }
    }
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("the body is not a JSON object: {0}")]
    InvalidJson(String),
    #[error("`{field}` {problem}")]
    InvalidField { field: &'static str, problem: String },
    #[error("`callback_url`: {0}")]
    InvalidCallbackUrl(String),
    #[error("`secret_key` is missing or wrong")]
    InvalidSecretKey,
    #[error("`sender` is missing or not registered")]
    UnknownSender,
    #[error("the sender has not joined channel {channel}")]
    NotJoined { channel: ChannelName },
    #[error("{}", receivers_sentence(.channel, .missing))]
    ReceiverNotJoined { channel: ChannelName, missing: Vec<u32> },
    #[error("channel {channel} accepts {accepts} only")]
    BadContent { channel: ChannelName, accepts: &'static str },
    #[error("there is nothing at this path")]
    NotFound,
    #[error("this path takes other methods: see `Allow`")]
    MethodNotAllowed,
    #[error("the body did not come in time")]
    Timeout,
    #[error("the {what} has more than {limit} bytes")]
    TooLarge { what: &'static str, limit: usize },
    #[error("this address makes too many requests")]
    TooManyRequests { wait: Duration },
    #[error("{0}")]
    LimitReached(String),
    #[error("{0}")]
    NotKept(String),
    #[error("the server is shutting down")]
    Draining,
    #[error("{0}")]
    Handshake(HandshakeError),
    #[error("this WebSocket is not open to you: see its `origins`")]
    NotAdmitted,
    #[error("the server failed")]
    Internal,
}

/// The body of an answer that refuses.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorAnswer {
    /// The code, for programs.
    #[schema(example = "unknown_sender")]
    error: &'static str,
    /// A sentence, for a person.
    #[schema(example = "`sender` is missing or not registered")]
    message: String,
    /// With `receiver_not_joined`: who has not joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    receivers: Option<Vec<u32>>,
}

/// Goes with an answer that refuses, for who counts them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal(pub(super) ErrorCode);

impl ApiError {
    /// A field or parameter that is missing or wrong.
    pub(super) fn field(field: &'static str, problem: impl Into<String>) -> ApiError {
        ApiError::InvalidField { field, problem: problem.into() }
    }

    fn code(&self) -> ErrorCode {
        match self {
            ApiError::BadRequest(_) => ErrorCode::BadRequest,
            ApiError::InvalidJson(_) => ErrorCode::InvalidJson,
            ApiError::InvalidField { .. } => ErrorCode::InvalidField,
            ApiError::InvalidCallbackUrl(_) => ErrorCode::InvalidCallbackUrl,
            ApiError::InvalidSecretKey => ErrorCode::InvalidSecretKey,
            ApiError::UnknownSender => ErrorCode::UnknownSender,
            ApiError::NotJoined { .. } => ErrorCode::NotJoined,
            ApiError::ReceiverNotJoined { .. } => ErrorCode::ReceiverNotJoined,
            ApiError::BadContent { .. } => ErrorCode::BadContent,
            ApiError::NotFound => ErrorCode::NotFound,
            ApiError::MethodNotAllowed => ErrorCode::MethodNotAllowed,
            ApiError::Timeout => ErrorCode::Timeout,
            ApiError::TooLarge { .. } => ErrorCode::TooLarge,
            ApiError::TooManyRequests { .. } => ErrorCode::TooManyRequests,
            ApiError::LimitReached(_) => ErrorCode::LimitReached,
            ApiError::NotKept(_) => ErrorCode::NotKept,
            ApiError::Draining => ErrorCode::Draining,
            ApiError::Handshake(error) => match error.status() {
                StatusCode::UPGRADE_REQUIRED => ErrorCode::UpgradeRequired,
                StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
                _ => ErrorCode::BadRequest,
            },
            ApiError::NotAdmitted => ErrorCode::Forbidden,
            ApiError::Internal => ErrorCode::Internal,
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> ApiError {
        match refused {
            Refused::UnknownSender(_) | Refused::BoundElsewhere(_) => ApiError::UnknownSender,
            Refused::NotJoined { channel } => ApiError::NotJoined { channel },
            Refused::NoSuchChannel { .. } => ApiError::NotFound,
            Refused::ReceiverNotJoined { channel, missing } => {
                ApiError::ReceiverNotJoined { channel, missing }
            }
            Refused::TooLarge { limit, .. } => ApiError::TooLarge { what: "content", limit },
            Refused::BadContent { channel, accepts } => ApiError::BadContent { channel, accepts },
            Refused::ReservedEvent { channel } => {
                ApiError::field("event", format!("is the server's own on channel {channel}"))
            }
            Refused::Limit { .. } => ApiError::LimitReached(refused.to_string()),
            Refused::NotKept { reason: NotKept::Closed, .. } => ApiError::Draining,
            Refused::NotKept { .. } => ApiError::NotKept(refused.to_string()),
            Refused::Closed => ApiError::Draining,
        }
    }
}

impl From<NotRead> for ApiError {
    fn from(error: NotRead) -> ApiError {
        match error {
            NotRead::Behind => ApiError::LimitReached(error.to_string()),
            NotRead::Closed => ApiError::Draining,
            NotRead::NoLog | NotRead::Failed(_) => {
                tracing::error!(%error, "a durable channel could not be read");
                ApiError::Internal
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.code();
        let message = self.to_string();
        let receivers = match &self {
            ApiError::ReceiverNotJoined { missing, .. } => Some(missing.clone()),
            _ => None,
        };
        let body = ErrorAnswer { error: code.name(), message, receivers };
        let mut response = answer(code.status(), &body);
        response.extensions_mut().insert(Refusal(code));
        if let ApiError::Handshake(error) = &self {
            response.headers_mut().extend(error.headers());
        }
        let wait = match self {
            ApiError::TooManyRequests { wait } => Some(wait),
            ApiError::NotKept(_) => Some(Duration::from_secs(1)),
            _ => None,
        };
        if let Some(wait) = wait {
            // Whole seconds: not earlier than it helps.
            let seconds = wait.as_millis().div_ceil(1000).max(1) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The whole answer to what is not HTTP enough for a router to see it, by its
/// status.
pub(super) fn refusal(status: StatusCode) -> Option<(ErrorCode, Vec<u8>)> {
    let code = match status {
        StatusCode::URI_TOO_LONG => ErrorCode::UriTooLong,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => ErrorCode::HeaderTooLarge,
        StatusCode::BAD_REQUEST => ErrorCode::BadRequest,
        _ => return None,
    };
    let body = ErrorAnswer { error: code.name(), message: code.meaning().to_owned(), receivers: None };
    Some((code, serde_json::to_vec(&body).ok()?))
}

fn receivers_sentence(channel: &ChannelName, missing: &[u32]) -> String {
    if missing.is_empty() {
        return "`receivers` names nobody".to_owned();
    }
    let mut sentence = "receivers that have not joined channel ".to_owned();
    let _ = write!(sentence, "{channel}: ");
    for (index, id) in missing.iter().take(RECEIVERS_NAMED_MAX).enumerate() {
        let _ = write!(sentence, "{}{id}", if index == 0 { "" } else { ", " });
    }
    if missing.len() > RECEIVERS_NAMED_MAX {
        let _ = write!(sentence, " and {} more", missing.len() - RECEIVERS_NAMED_MAX);
    }
    sentence
}
