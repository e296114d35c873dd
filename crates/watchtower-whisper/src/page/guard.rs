//! Whose requests are answered.
//!
//! A browser lets the page of any site make requests to any address, this
//! one's too, and says in `Origin` which site that is. A site whose name leads
//! to this machine for a moment would be the same origin: its requests say in
//! `Host` whom they were meant for. What changes something needs the token,
//! which only the page has.

use std::io;
use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::refusal::Refusal;

/// Where the page puts the token.
const TOKEN_HEADER: &str = "x-page-token";

/// What every answer has in its head. Files have a policy of their own.
const HEADERS: [(HeaderName, &str); 8] = [
    (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // For browsers that know no `frame-ancestors`.
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// What the page may load and run: its own files, and pictures that are being
/// sent from it.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// The address that a connection came in at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Local(pub(super) SocketAddr);

/// Lets a request on that is for this page, and by no other page; and puts
/// into every answer's head what protects it.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let local = request.extensions().get::<Local>().copied();
    let mut response = match judge(request.headers(), local) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

fn judge(headers: &HeaderMap, local: Option<Local>) -> Result<(), Refusal> {
    let local = local.ok_or(Refusal::Host)?.0.ip();
    let host = only(headers, &header::HOST).ok_or(Refusal::Host)?;
    if !is_ours(host, local) {
        return Err(Refusal::Host);
    }
    match (headers.contains_key(header::ORIGIN), only(headers, &header::ORIGIN)) {
        // No page: a program, or a browser that was told to open the page.
        (false, _) => Ok(()),
        (true, Some(origin)) if is_of(origin, host) => Ok(()),
        (true, _) => Err(Refusal::Origin),
    }
}

/// A header that is there once, as text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// Whether a `Host` is `localhost` or the address that the connection came in
/// at. A tunnel may have changed the port, which no site can make use of.
fn is_ours(host: &str, local: IpAddr) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    if host.contains('@') {
        return false;
    }
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let Ok(ip) = literal.parse::<IpAddr>() else { return false };
    let (ip, local) = (ip.to_canonical(), local.to_canonical());
    ip == local || (ip.is_loopback() && local.is_loopback())
}

/// Whether an `Origin` is that of the page which this host serves.
fn is_of(origin: &str, host: &str) -> bool {
    origin.strip_prefix("http://").is_some_and(|of| of.eq_ignore_ascii_case(host))
}

/// What only the page knows, another one at each start. `Debug` does not show
/// it.
#[derive(Clone)]
pub(super) struct Token(String);

impl Token {
    /// A random one.
    pub(super) fn new() -> io::Result<Token> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Token(hex(&bytes)))
    }

    /// As the page is given it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a request has it in its head. The time that takes does not
    /// depend on where it differs.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let given = headers.get(TOKEN_HEADER).ok_or(Refusal::Token)?;
        self.matches(given.as_bytes())
    }

    /// As [`check`](Token::check), among the subprotocols that a request for a
    /// WebSocket offers: there a page can set no header of its own.
    pub(super) fn check_offered(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL).ok_or(Refusal::Token)?;
        let last = offered.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
        self.matches(last.trim_ascii())
    }

    fn matches(&self, given: &[u8]) -> Result<(), Refusal> {
        let is_equal = self.0.as_bytes().ct_eq(given);
        if is_equal.into() { Ok(()) } else { Err(Refusal::Token) }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// In lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_localhost_or_where_the_connection_came_in() {
        let (loopback, lan): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [192, 168, 1, 5].into());
        for (host, local, ours) in [
            ("localhost:8888", loopback, true),
            ("LOCALHOST", loopback, true),
            ("localhost:1", lan, true),
            ("127.0.0.1:8888", loopback, true),
            ("127.0.0.1", loopback, true),
            ("[::1]:8888", loopback, true),
            ("192.168.1.5:8888", lan, true),
            ("[::ffff:192.168.1.5]:8888", lan, true),
            ("192.168.1.5:8888", loopback, false),
            ("192.168.1.6:8888", lan, false),
            ("127.0.0.1:8888", lan, false),
            ("evil.example:8888", loopback, false),
            ("evil.example", lan, false),
            ("localhost.evil.example", loopback, false),
            ("127.0.0.1.evil.example", loopback, false),
            ("localhost.", loopback, false),
            ("me@localhost", loopback, false),
            ("localhost@evil.example", loopback, false),
            ("2130706433", loopback, false),
            ("", loopback, false),
            ("localhost:8888/x", loopback, false),
        ] {
            assert_eq!(is_ours(host, local), ours, "{host:?} at {local}");
        }
    }

    #[test]
    fn an_origin_is_the_pages_own() {
        for (origin, host, same) in [
            ("http://localhost:8888", "localhost:8888", true),
            ("http://[::1]:8888", "[::1]:8888", true),
            ("http://localhost:8888", "127.0.0.1:8888", false),
            ("http://localhost:8889", "localhost:8888", false),
            ("http://localhost", "localhost:8888", false),
            ("https://localhost:8888", "localhost:8888", false),
            ("null", "localhost:8888", false),
            ("", "localhost:8888", false),
            ("http://evil.example", "localhost:8888", false),
        ] {
            assert_eq!(is_of(origin, host), same, "{origin:?} for {host:?}");
        }
    }

    #[test]
    fn a_host_or_an_origin_that_is_there_twice_is_refused() {
        let judged = |headers: &[(HeaderName, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            let mut all = HeaderMap::new();
            headers.for_each(|(name, value)| {
                all.append(name, value);
            });
            judge(&all, Some(Local(([127, 0, 0, 1], 1).into()))).map_err(|refusal| refusal.to_string())
        };
        let host = (header::HOST, "localhost:1");
        let origin = (header::ORIGIN, "http://localhost:1");
        assert_eq!(judged(&[host.clone(), origin.clone()]), Ok(()));
        assert_eq!(judged(&[host.clone(), host.clone()]), Err(Refusal::Host.to_string()));
        assert_eq!(judged(&[]), Err(Refusal::Host.to_string()));
        assert_eq!(judged(&[host, origin.clone(), origin]), Err(Refusal::Origin.to_string()));
    }

    #[test]
    fn a_token_is_random_and_matches_itself_alone() {
        let (token, other) = (Token::new().unwrap(), Token::new().unwrap());
        assert_eq!(token.as_str().len(), 64);
        let check = |given: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TOKEN_HEADER, given.parse().unwrap());
            token.check(&headers).is_ok()
        };
        assert!(check(token.as_str()));
        for wrong in ["", other.as_str(), &token.as_str()[1..], &format!("{}0", token.as_str())] {
            assert!(!check(wrong), "{wrong}");
        }
        assert!(token.check(&HeaderMap::new()).is_err());
        assert_eq!(format!("{token:?}"), "Token");
    }
}
