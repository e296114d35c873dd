//! What a refused request is answered: a status, and a sentence in JSON.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use thiserror::Error;

use crate::Unsendable;
use crate::protocol::Unsaid;

/// Why a request is refused.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("this is not the host that was asked for: open the page by its address, or as localhost")]
    Host,
    #[error("pages of other sites may ask for nothing here")]
    Origin,
    #[error("the token is missing or wrong: load the page anew")]
    Token,
    #[error("there is nothing here")]
    NotFound,
    #[error("this cannot be done with what is here")]
    Method,
    #[error("{}", .0.body_text())]
    Json(#[from] JsonRejection),
    #[error("the request took too long")]
    Late,
    #[error("a file may have {bytes_max} bytes")]
    TooLarge { bytes_max: u64 },
    #[error("the file did not come to its end")]
    CutOff,
    #[error("expected HOST:PORT, such as 192.0.2.7:55555")]
    NoAddress,
    #[error("no address was found for {0}")]
    Unknown(String),
    #[error("{0} is this node itself")]
    Itself(SocketAddr),
    #[error("{0} is no peer")]
    NoPeer(SocketAddr),
    #[error(transparent)]
    Unsaid(#[from] Unsaid),
    #[error("{reason}")]
    Unsendable { reason: String, too_large: bool },
    #[error("too many files are on their way: wait for one to end")]
    TooManyFiles,
    #[error("too many pages are open")]
    TooManyPages,
    #[error("the file cannot be kept for sending: {0}")]
    Storage(#[from] io::Error),
}

impl Refusal {
    /// Why a file cannot be sent, without where it was kept meanwhile.
    pub(super) fn unsendable(error: &Unsendable, path: &Path) -> Refusal {
        let reason = error.to_string();
        let kept_at = format!("{}: ", path.display());
        let reason = reason.strip_prefix(&kept_at).unwrap_or(&reason).to_owned();
        let too_large = matches!(error, Unsendable::Unsaid(Unsaid::TooLarge { .. }));
        Refusal::Unsendable { reason, too_large }
    }

    fn status(&self) -> StatusCode {
        match self {
            Refusal::Host | Refusal::Origin | Refusal::Token => StatusCode::FORBIDDEN,
            Refusal::NotFound | Refusal::NoPeer(_) => StatusCode::NOT_FOUND,
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Json(rejection) => rejection.status(),
            Refusal::Late => StatusCode::REQUEST_TIMEOUT,
            Refusal::TooLarge { .. }
            | Refusal::Unsaid(Unsaid::TooLarge { .. })
            | Refusal::Unsendable { too_large: true, .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::CutOff
            | Refusal::NoAddress
            | Refusal::Unknown(_)
            | Refusal::Itself(_)
            | Refusal::Unsaid(Unsaid::Empty) => StatusCode::BAD_REQUEST,
            Refusal::Unsendable { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::TooManyFiles | Refusal::TooManyPages => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Storage(error) if error.kind() == io::ErrorKind::StorageFull => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            Refusal::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(json!({ "error": self.to_string() }))).into_response();
        // What was not read of the request would be taken for the next one.
        if matches!(self, Refusal::TooLarge { .. } | Refusal::Late | Refusal::CutOff | Refusal::TooManyFiles)
        {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
