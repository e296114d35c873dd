//! The opening handshake (RFC 6455 4.2) and the negotiation of compression
//! (RFC 7692 5 and 7.1).
//!
//! Knows the head of a request, and no connection.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Version};
use sha1::{Digest, Sha1};

use super::Compression;

/// What a key is hashed with (RFC 6455 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How many bytes a key stands for (RFC 6455 4.2.1).
const KEY_BYTES: usize = 16;

/// How an offer of compression is taken: neither side remembers what came
/// before, so that a compressed message can be shared. A window that was asked
/// for is answered (RFC 7692 7.1.2.1).
const TAKEN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const TAKEN_WITH_WINDOW: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";
const TAKEN_WITH_SMALL_WINDOW: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9";

/// The only version there is.
const VERSION: &str = "13";

/// How a handshake is answered: with status 101 and these headers.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The headers of the response.
    pub headers: HeaderMap,
    /// What was negotiated.
    pub compression: Compression,
}

impl Accepted {
    /// Says that this subprotocol is spoken, which the client must have
    /// [asked for](subprotocol).
    pub fn speak(&mut self, subprotocol: &'static str) {
        self.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    }
}

/// The first subprotocol that the client asks for and is one of `spoken`.
///
/// `None` when there is none. Then none is answered (RFC 6455 4.2.2), which a
/// browser that asked for some takes for a refusal: it closes, rather than speak
/// with somebody who may mean something else.
pub fn subprotocol(headers: &HeaderMap, spoken: &[&'static str]) -> Option<&'static str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut asked = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    asked.find_map(|asked| spoken.iter().copied().find(|spoken| *spoken == asked.trim()))
}

/// Why a request opens no WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// It does not ask for one.
    #[error("this path speaks WebSocket: ask with Upgrade: websocket")]
    NotAsked,
    /// A method other than GET.
    #[error("a WebSocket is asked for with GET")]
    Method,
    /// A version of HTTP that cannot be upgraded.
    #[error("a WebSocket is asked for in HTTP/1.1")]
    HttpVersion,
    /// No header `Host`, or several.
    #[error("one header Host is needed")]
    Host,
    /// No header `Connection: Upgrade`.
    #[error("the header Connection: Upgrade is missing")]
    Connection,
    /// A body, whose end another server on the way could take to be elsewhere.
    #[error("a request for a WebSocket has no body")]
    Body,
    /// Another version of the protocol.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    /// No key, several, or one that is not 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
}

impl HandshakeError {
    /// The status of the response.
    pub fn status(self) -> StatusCode {
        match self {
            HandshakeError::NotAsked | HandshakeError::Version => StatusCode::UPGRADE_REQUIRED,
            HandshakeError::Method => StatusCode::METHOD_NOT_ALLOWED,
            HandshakeError::HttpVersion
            | HandshakeError::Host
            | HandshakeError::Connection
            | HandshakeError::Body
            | HandshakeError::Key => StatusCode::BAD_REQUEST,
        }
    }

    /// The headers that the response must have.
    pub fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match self {
            HandshakeError::NotAsked | HandshakeError::Version => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
            }
            HandshakeError::Method => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
            }
            HandshakeError::HttpVersion
            | HandshakeError::Host
            | HandshakeError::Connection
            | HandshakeError::Body
            | HandshakeError::Key => {}
        }
        headers
    }
}

/// What a request for a WebSocket is answered with.
///
/// Whether a WebSocket is served there, and to whom, is not asked here.
///
/// # Errors
///
/// [`HandshakeError`], the first that applies in the order of its variants.
pub fn handshake(request: &Parts) -> Result<Accepted, HandshakeError> {
    if !has_token(&request.headers, header::UPGRADE, "websocket") {
        return Err(HandshakeError::NotAsked);
    }
    if request.method != Method::GET {
        return Err(HandshakeError::Method);
    }
    if request.version != Version::HTTP_11 {
        return Err(HandshakeError::HttpVersion);
    }
    if only(&request.headers, header::HOST).is_none() {
        return Err(HandshakeError::Host);
    }
    if !has_token(&request.headers, header::CONNECTION, "upgrade") {
        return Err(HandshakeError::Connection);
    }
    let has_length = request.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_length || request.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(HandshakeError::Body);
    }
    if only(&request.headers, header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(HandshakeError::Version);
    }
    let key = only(&request.headers, header::SEC_WEBSOCKET_KEY).ok_or(HandshakeError::Key)?;
    if STANDARD.decode(key).map_err(|_| HandshakeError::Key)?.len() != KEY_BYTES {
        return Err(HandshakeError::Key);
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::try_from(accept(key)).map_err(|_| HandshakeError::Key)?;
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    let mut compression = Compression::None;
    if let Some((taken, answer)) = negotiate(&request.headers) {
        compression = taken;
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(answer));
    }
    Ok(Accepted { headers, compression })
}

/// What proves that the server understood (RFC 6455 4.2.2).
fn accept(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// The value of a header that must be there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| value.trim())
}

/// Whether one of the tokens of a header, which are separated by commas, is
/// this, in whatever case.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(token))
}

/// The first offer of the client that can be taken (RFC 7692 5.1), and how it
/// is answered.
fn negotiate(headers: &HeaderMap) -> Option<(Compression, &'static str)> {
    let values = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.flat_map(|value| split(value, ',')).find_map(take_offer)
}

/// The parts of a header that `separator` stands between, unless in quotes.
fn split(value: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut in_quotes, mut escaped) = (false, false);
    value.split(move |c| {
        if in_quotes && !escaped && c == '\\' {
            escaped = true;
            return false;
        }
        in_quotes ^= c == '"' && !escaped;
        escaped = false;
        c == separator && !in_quotes
    })
}

/// How one offer is taken, if it is one of permessage-deflate with valid
/// parameters (RFC 7692 7.1). None of them may be there twice.
fn take_offer(offer: &str) -> Option<(Compression, &'static str)> {
    let mut parts = split(offer, ';').map(str::trim);
    if parts.next()? != "permessage-deflate" {
        return None;
    }
    let mut seen: Vec<&str> = Vec::new();
    let mut taken = (Compression::Deflate, TAKEN);
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start())?)),
            None => (part, None),
        };
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            (
                "server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits",
                None,
            ) => {}
            ("client_max_window_bits", Some(bits)) => {
                window_bits(bits)?;
            }
            ("server_max_window_bits", Some(bits)) => match window_bits(bits)? {
                15 => taken.1 = TAKEN_WITH_WINDOW,
                9..15 => taken = (Compression::DeflateSmall, TAKEN_WITH_SMALL_WINDOW),
                // What zlib compresses needs 9 at least.
                _ => return None,
            },
            _ => return None,
        }
    }
    Some(taken)
}

/// A value without its quotes, if it has any (RFC 6455 9.1).
fn unquoted(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"'),
        None => Some(value),
    }
}

/// A window's size: 8 to 15, without leading zeros (RFC 7692 7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    if value.starts_with('0') || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    value.parse().ok().filter(|bits| (8..=15).contains(bits))
}
