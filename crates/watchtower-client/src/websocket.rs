//! A WebSocket to a server, with or without TLS: text out, text in, pings answered.
//!
//! Knows nothing of what the messages say.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Uri;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_websockets::upgrade::Error as UpgradeError;
use tokio_websockets::{ClientBuilder, CloseCode, Error, Limits, MaybeTlsStream, Message, WebSocketStream};

use crate::http::printable;
use crate::{ClientError, Options, link};

/// A WebSocket that is open.
pub(crate) struct WebSocket {
    /// In a box, for it is large.
    stream: Box<WebSocketStream<MaybeTlsStream<TcpStream>>>,
    server: String,
    timeout: Duration,
}

impl WebSocket {
    /// Opens one at `ws://host:port/path`, `wss://host:port/path` or `host:port/path`; without a
    /// path, at `path`. Messages longer than `message_bytes_max` are not taken.
    pub(crate) async fn connect(
        server: &str,
        path: &str,
        message_bytes_max: usize,
        options: &Options,
    ) -> Result<WebSocket, ClientError> {
        let target =
            Target::parse(server, path).ok_or_else(|| ClientError::Url { server: server.to_owned() })?;
        let stream = link::open_tcp(&target.address, options.timeout).await?;
        let opening = async {
            let stream = match target.tls_name {
                None => MaybeTlsStream::Plain(stream),
                Some(name) => MaybeTlsStream::Rustls(
                    open_tls(name, stream)
                        .await
                        .map_err(|source| ClientError::Tls { server: server.to_owned(), source })?,
                ),
            };
            let limits = Limits::default().max_payload_len(Some(message_bytes_max));
            let path = target.uri.path().to_owned();
            let (stream, _) = ClientBuilder::from_uri(target.uri)
                .limits(limits)
                .connect_on(stream)
                .await
                .map_err(|error| failed_upgrade(server, &path, error))?;
            Ok(WebSocket { stream: Box::new(stream), server: server.to_owned(), timeout: options.timeout })
        };
        let opened = timeout(options.timeout, opening).await;
        opened.unwrap_or_else(|_| {
            Err(ClientError::Silent { server: server.to_owned(), timeout: options.timeout })
        })
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Sends a text message. Not to be cancelled and gone on with.
    pub(crate) async fn send(&mut self, text: String) -> Result<(), ClientError> {
        let sent = self.stream.send(Message::text(text)).await;
        sent.map_err(|error| failed(&self.server, error))
    }

    /// Waits for the next message; `None` when the server ended the connection in order.
    /// Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`ClientError::Ended`] when the server closed it with another code than 1000 and 1001.
    pub(crate) async fn receive(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(message) = self.stream.next().await {
            let message = message.map_err(|error| failed(&self.server, error))?;
            let closed = match message.as_close() {
                Some((CloseCode::NORMAL_CLOSURE | CloseCode::GOING_AWAY, _)) => Ok(None),
                Some((code, reason)) => Err(ended(code, reason)),
                // What the next reading writes out first is the pong.
                None if message.is_ping() || message.is_pong() => continue,
                None => return Ok(Some(Bytes::from(message.into_payload()))),
            };
            // The same is so for the answer to a close.
            let _ = timeout(self.timeout, self.stream.next()).await;
            return closed;
        }
        Ok(None)
    }

    /// Tells the server that this is the end.
    pub(crate) async fn close(mut self) {
        let close = Message::close(Some(CloseCode::NORMAL_CLOSURE), "");
        // The server notices by itself what cannot be told to it.
        let _ = timeout(self.timeout, self.stream.send(close)).await;
    }
}

/// Where to connect, and what to ask for there.
struct Target {
    uri: Uri,
    /// Host and port.
    address: String,
    /// Whose certificate is expected, with TLS.
    tls_name: Option<ServerName<'static>>,
}

impl Target {
    fn parse(server: &str, path: &str) -> Option<Target> {
        let (scheme, rest) = server.split_once("://").unwrap_or(("", server));
        let tls = match scheme {
            "" | "ws" => false,
            "wss" => true,
            _ => return None,
        };
        let path = if rest.contains(['/', '?']) { "" } else { path };
        let scheme_here = if tls { "wss" } else { "ws" };
        let uri: Uri = format!("{scheme_here}://{rest}{path}").parse().ok()?;
        let authority = uri.authority()?;
        let port = match (authority.port_u16(), scheme) {
            (Some(port), _) => port,
            (None, "ws") => 80,
            (None, "wss") => 443,
            (None, _) => return None,
        };
        let host = authority.host();
        if host.is_empty() || authority.as_str().contains('@') {
            return None;
        }
        let address = format!("{host}:{port}");
        let tls_name = match tls {
            false => None,
            true => Some(ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()?),
        };
        Some(Target { uri, address, tls_name })
    }
}

/// Trusts what the system trusts.
async fn open_tls(
    name: ServerName<'static>,
    stream: TcpStream,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_platform_verifier())
        .map_err(io::Error::other)?
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn failed_upgrade(server: &str, path: &str, error: Error) -> ClientError {
    match error {
        Error::Upgrade(UpgradeError::DidNotSwitchProtocols(status)) => ClientError::Http {
            status,
            code: String::new(),
            message: format!("there is no WebSocket at {path}"),
        },
        error => failed(server, error),
    }
}

fn failed(server: &str, error: Error) -> ClientError {
    match error {
        Error::Io(source) => ClientError::lost(server, source),
        Error::AlreadyClosed => ClientError::Closed { server: server.to_owned() },
        error => ClientError::not_understood(server, error),
    }
}

fn ended(code: CloseCode, reason: &str) -> ClientError {
    let code = u16::from(code);
    let reason = printable(reason);
    let blank = if reason.is_empty() { "" } else { " " };
    ClientError::Ended { code: code.to_string(), message: format!("{reason}{blank}(WebSocket code {code})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(server: &str, expected: Option<(&str, &str, bool)>) {
        let target = Target::parse(server, "/webrocket");
        let parts = target.as_ref().map(|target| {
            let path = target.uri.path_and_query().unwrap().as_str();
            (target.address.as_str(), path, target.tls_name.is_some())
        });
        assert_eq!(parts, expected, "{server}");
    }

    #[test]
    fn a_server_is_an_address_with_or_without_scheme_and_path() {
        check("127.0.0.1:3033", Some(("127.0.0.1:3033", "/webrocket", false)));
        check("127.0.0.1:3033/echo", Some(("127.0.0.1:3033", "/echo", false)));
        check("[::1]:3033", Some(("[::1]:3033", "/webrocket", false)));
        check("ws://example.org", Some(("example.org:80", "/webrocket", false)));
        check("ws://example.org/", Some(("example.org:80", "/", false)));
        check("wss://example.org/a/b?c=d", Some(("example.org:443", "/a/b?c=d", true)));
        check("wss://[::1]:9772", Some(("[::1]:9772", "/webrocket", true)));
    }

    #[test]
    fn what_is_no_address_is_none() {
        for server in
            ["", "nowhere", "http://example.org", "ws://", "ws://me@example.org", "a b:1", "h:99999", ":1"]
        {
            check(server, None);
        }
    }
}
