//! The seam to a protocol on WebSocket: what it is asked, and how it is hung
//! into a server.
//!
//! Knows no protocol, and of a connection only what [`Client`] shows.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use watchtower_hub::{Hub, Position, Refused, Timestamp, WhenLagging};

use super::client::{Client, Incoming, Line};
use super::format::{Compression, Frames};
use super::session::{Settings, WebSocket};

/// What serves WebSocket connections: a protocol of one's own.
///
/// One value serves all connections of a path; what belongs to one connection
/// is its `State`. Calls for one connection come one after another; those for
/// several come from several threads. None may block.
///
/// ```
/// use watchtower_protocols::websocket::{Client, Handler, Incoming, Outgoing};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     type State = ();
///
///     fn protocol(&self) -> &'static str {
///         "echo"
///     }
///
///     fn open(&self, _client: &mut Client<'_>, _request: &http::request::Parts) {}
///
///     fn message(&self, _state: &mut (), client: &mut Client<'_>, message: Incoming<'_>) {
///         client.send(match message {
///             Incoming::Text(text) => Outgoing::Text(text),
///             Incoming::Binary(bytes) => Outgoing::Binary(bytes),
///         });
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// What is kept for each connection.
    type State: Send + 'static;

    /// What presence and metrics call the protocol.
    fn protocol(&self) -> &'static str;

    /// What delivered messages look like, until it is told
    /// [otherwise](Client::deliver_as). Asked once a connection, when it opens;
    /// the same each time. As it stands: the content, as one message of
    /// text or binary.
    fn frames(&self) -> Arc<Frames> {
        Frames::content()
    }

    /// Whether to take the connection at all, by its request: its origin, for
    /// one.
    ///
    /// # Errors
    ///
    /// The status that the request is answered with instead.
    fn admit(&self, _request: &Parts) -> Result<(), StatusCode> {
        Ok(())
    }

    /// The subprotocols that are spoken (RFC 6455 1.9), each a token. Of those
    /// the client is answered the first that it asked for, and the request's
    /// extensions hold it as [`Subprotocol`]; one that asks for none, or for
    /// others, is answered none, which [`admit`](Self::admit) may refuse. As it
    /// stands, none: a browser that asks for one closes then.
    fn subprotocols(&self) -> &'static [&'static str] {
        &[]
    }

    /// A client has connected. What is sent here is the first that it hears.
    ///
    /// The request's extensions hold the client's [`RemoteAddress`], where that
    /// is known.
    fn open(&self, client: &mut Client<'_>, request: &Parts) -> Self::State;

    /// The longest message that this client may send compressed, in bytes before
    /// and after decompression, where that is less than the server's limit for
    /// all. Asked before each message. A longer one closes the connection with
    /// 1009.
    ///
    /// A few bytes can stand for many, which cost time: for a client that has
    /// yet to log in, this is to be little more than a login takes.
    fn inflated_bytes_max(&self, _state: &Self::State) -> usize {
        usize::MAX
    }

    /// A message came. Not called any more once the connection is closing.
    fn message(&self, state: &mut Self::State, client: &mut Client<'_>, message: Incoming<'_>);

    /// What came of a message that was published and
    /// [awaited](Client::publish_awaited); in the order of those calls.
    fn published(
        &self,
        _state: &mut Self::State,
        _client: &mut Client<'_>,
        _result: Result<Position, Refused>,
    ) {
    }

    /// A [pause](Client::pause) is over. Those that the server makes by itself,
    /// for clients that send much, end with this too.
    fn resumed(&self, _state: &mut Self::State, _client: &mut Client<'_>) {}

    /// After how long [`out_of_patience`](Self::out_of_patience) is to be
    /// called, if at all. Asked after `open`, and again after each such call.
    /// A pause of less than a second counts as one.
    fn patience(&self, _state: &Self::State) -> Option<Duration> {
        None
    }

    /// The time has come, whatever the client has said meanwhile: who has not
    /// logged in by now may be [closed](Client::close).
    fn out_of_patience(&self, _state: &mut Self::State, _client: &mut Client<'_>) {}

    /// The connection is over, however it ended. Called once for each that
    /// was opened.
    fn closed(&self, _state: Self::State) {}
}

/// Where a client connects from: in the extensions of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteAddress(pub IpAddr);

/// Which subprotocol was agreed on: in the extensions of the request, if there is
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subprotocol(pub &'static str);

/// A [`Handler`] of any kind, as a server holds it. Clones are the same.
#[derive(Clone)]
pub struct Endpoint(Arc<dyn Serve>);

impl Endpoint {
    /// The endpoint that is served by `handler`.
    pub fn new(handler: impl Handler) -> Endpoint {
        Endpoint(Arc::new(Served(Arc::new(handler))))
    }

    /// What presence and metrics call the protocol.
    pub fn protocol(&self) -> &'static str {
        self.0.protocol()
    }

    /// The subprotocols that the handler speaks.
    pub fn subprotocols(&self) -> &'static [&'static str] {
        self.0.subprotocols()
    }

    /// Whether the handler takes the connection.
    ///
    /// # Errors
    ///
    /// The status that the request is to be answered with.
    pub fn admit(&self, request: &Parts) -> Result<(), StatusCode> {
        self.0.admit(request)
    }

    /// A client whose handshake is done, to be driven.
    pub fn accept(
        &self,
        hub: &Hub,
        request: &Parts,
        compression: Compression,
        settings: Settings,
        now: Timestamp,
    ) -> WebSocket {
        self.0.accept(hub, request, compression, settings, now)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.protocol()).finish()
    }
}

trait Serve: Send + Sync {
    fn protocol(&self) -> &'static str;
    fn subprotocols(&self) -> &'static [&'static str];
    fn admit(&self, request: &Parts) -> Result<(), StatusCode>;
    fn accept(
        &self,
        hub: &Hub,
        request: &Parts,
        compression: Compression,
        settings: Settings,
        now: Timestamp,
    ) -> WebSocket;
}

struct Served<H>(Arc<H>);

impl<H: Handler> Serve for Served<H> {
    fn protocol(&self) -> &'static str {
        self.0.protocol()
    }

    fn subprotocols(&self) -> &'static [&'static str] {
        self.0.subprotocols()
    }

    fn admit(&self, request: &Parts) -> Result<(), StatusCode> {
        self.0.admit(request)
    }

    fn accept(
        &self,
        hub: &Hub,
        request: &Parts,
        compression: Compression,
        settings: Settings,
        now: Timestamp,
    ) -> WebSocket {
        let session = hub.open(self.0.protocol(), WhenLagging::Close);
        let mut line = Line::new(session, self.0.frames(), compression, now);
        let mut opening = Vec::new();
        let mut client = Client { line: &mut line, now, out: &mut opening };
        let state = self.0.open(&mut client, request);
        let conversation = Held { handler: self.0.clone(), state: Some(state) };
        WebSocket::new(line, Box::new(conversation), settings, opening)
    }
}

/// A connection's handler with its state.
pub(super) trait Conversation: Send {
    fn inflated_bytes_max(&self) -> usize;
    fn message(&mut self, client: &mut Client<'_>, message: Incoming<'_>);
    fn published(&mut self, client: &mut Client<'_>, result: Result<Position, Refused>);
    fn resumed(&mut self, client: &mut Client<'_>);
    fn patience(&self) -> Option<Duration>;
    fn out_of_patience(&mut self, client: &mut Client<'_>);
}

struct Held<H: Handler> {
    handler: Arc<H>,
    /// Invariant: there until this is dropped.
    state: Option<H::State>,
}

impl<H: Handler> Conversation for Held<H> {
    fn inflated_bytes_max(&self) -> usize {
        self.state.as_ref().map_or(0, |state| self.handler.inflated_bytes_max(state))
    }

    fn message(&mut self, client: &mut Client<'_>, message: Incoming<'_>) {
        if let Some(state) = &mut self.state {
            self.handler.message(state, client, message);
        }
    }

    fn published(&mut self, client: &mut Client<'_>, result: Result<Position, Refused>) {
        if let Some(state) = &mut self.state {
            self.handler.published(state, client, result);
        }
    }

    fn resumed(&mut self, client: &mut Client<'_>) {
        if let Some(state) = &mut self.state {
            self.handler.resumed(state, client);
        }
    }

    fn patience(&self) -> Option<Duration> {
        self.handler.patience(self.state.as_ref()?)
    }

    fn out_of_patience(&mut self, client: &mut Client<'_>) {
        if let Some(state) = &mut self.state {
            self.handler.out_of_patience(state, client);
        }
    }
}

impl<H: Handler> Drop for Held<H> {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            self.handler.closed(state);
        }
    }
}
