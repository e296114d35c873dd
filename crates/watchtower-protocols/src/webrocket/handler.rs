//! A hub of WebRocket: carries out commands, and shows messages to
//! subscribers.
//!
//! Knows neither how commands and events are written nor how WebSocket works.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::header::ORIGIN;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use watchtower_hub::{ChannelName, Position, Publish, Refused};

use super::events::Shapes;
use super::namespace::Names;
use super::slowdown::Slowdown;
use super::{
    Access, Activity, Codec, Command, CommandName, ErrorCode, Json, LoginFailures, Namespace, Observer,
    Publication, RefusalCounts, Reply, Secret, Since,
};
use crate::websocket::{Client, CloseCode, Frames, Handler, Incoming, RemoteAddress};

/// The first of the six formats of hubs that write JSON.
const JSON_FORMATS: u8 = 16;

/// The longest compressed message of a client that may not publish, in bytes.
/// No secret and no channel's name needs more.
const COMMAND_BYTES_MAX: usize = 4096;

/// How many of those who are in a channel are listed.
const PRESENT_MAX: usize = 1_000;

/// The longest event name, in bytes.
const EVENT_BYTES_MAX: usize = 128;

/// What a hub is told by its surroundings.
#[derive(Clone, Default)]
pub struct HubOptions {
    /// The secret for [`Access::ReadOnly`]; an empty one accepts any.
    pub read_only: Secret,
    /// The secret for [`Access::ReadWrite`]; an empty one accepts any.
    pub read_write: Secret,
    /// What a client may do without `auth`, and in any case.
    pub anonymous: Access,
    /// Where the hub's channels are, if they are its own; those of the server
    /// otherwise.
    pub namespace: Option<Namespace>,
    /// The namespaces of all hubs of the server. What is in one of them, other
    /// than the hub's own, is out of its reach.
    pub foreign_namespaces: Vec<Namespace>,
    /// The origins of the pages that may connect, such as
    /// `https://example.org`; empty: all, and who names none.
    pub origins: Vec<String>,
    /// Who is told what happens.
    pub observer: Option<Arc<dyn Observer>>,
    /// The logins that failed, by address: those of all hubs that have the same.
    pub failures: Arc<LoginFailures>,
    /// The commands that were refused: those of all hubs that have the same.
    pub refusals: Arc<RefusalCounts>,
}

/// A hub: the WebRocket protocol at one path. Clones are the same hub.
pub struct WebRocket<C = Json>(Arc<Inner<C>>);

struct Inner<C> {
    codec: Arc<C>,
    /// What further fields begin with: the number of the codec's first format.
    extras_tag: u8,
    shapes: Shapes,
    entrance: ArcSwap<Entrance>,
    anonymous: Access,
    names: Names,
    observer: Option<Arc<dyn Observer>>,
    failures: Arc<LoginFailures>,
    refusals: Arc<RefusalCounts>,
    connections: AtomicU64,
}

/// What lets clients in, and changes while the hub is open.
struct Entrance {
    read_only: Secret,
    read_write: Secret,
    origins: Vec<String>,
}

/// What a hub keeps of one connection.
#[derive(Debug)]
pub struct Connection {
    number: u64,
    /// By `auth` alone; the least is what everybody has.
    access: Access,
    /// Sorted, and bounded by the hub's limit of channels for one sender. A
    /// list, since for the one or two that most have it takes the least memory.
    subscribed: Vec<ChannelName>,
    slowdown: Slowdown,
    address: Option<IpAddr>,
    /// A login that has to wait.
    waiting: Option<Login>,
    /// What was published and is not answered yet, in order.
    publishing: VecDeque<Publishing>,
    /// What is looked at once all of that is answered.
    deferred: Option<Deferred>,
}

/// A message that is being kept, for whoever is told once it is.
#[derive(Debug)]
struct Publishing {
    channel: ChannelName,
    bytes: usize,
}

/// A client's message that has to wait.
#[derive(Debug)]
enum Deferred {
    Text(String),
    Binary(Vec<u8>),
}

impl Deferred {
    fn new(message: Incoming<'_>) -> Deferred {
        match message {
            Incoming::Text(text) => Deferred::Text(text.to_owned()),
            Incoming::Binary(bytes) => Deferred::Binary(bytes.to_owned()),
        }
    }

    fn as_incoming(&self) -> Incoming<'_> {
        match self {
            Deferred::Text(text) => Incoming::Text(text),
            Deferred::Binary(bytes) => Incoming::Binary(bytes),
        }
    }
}

/// An `auth` that was looked at.
#[derive(Debug)]
struct Login {
    access: Access,
    is_accepted: bool,
}

impl WebRocket {
    /// A hub that writes JSON.
    pub fn new(options: HubOptions) -> WebRocket {
        WebRocket::with_codec(Json, JSON_FORMATS, options)
    }
}

impl<C: Codec> WebRocket<C> {
    /// A hub that writes otherwise. `first_format` is the number of the first
    /// of the six formats of that codec's messages, three without and three with
    /// a position, as for [`Frames::new`]; all hubs of one codec have the same,
    /// and no others.
    ///
    /// # Panics
    ///
    /// When `first_format` is above 58.
    pub fn with_codec(codec: C, first_format: u8, options: HubOptions) -> WebRocket<C> {
        let HubOptions {
            read_only,
            read_write,
            anonymous,
            namespace,
            foreign_namespaces,
            origins,
            observer,
            failures,
            refusals,
        } = options;
        let codec = Arc::new(codec);
        let names = Names::new(namespace, foreign_namespaces);
        WebRocket(Arc::new(Inner {
            shapes: Shapes::new(first_format, &codec, &names),
            codec,
            extras_tag: first_format,
            entrance: ArcSwap::from_pointee(Entrance { read_only, read_write, origins }),
            anonymous,
            names,
            observer,
            failures,
            refusals,
            connections: AtomicU64::new(0),
        }))
    }

    /// Replaces what lets clients in. Who was let in stays so.
    pub fn configure(&self, read_only: Secret, read_write: Secret, origins: Vec<String>) {
        self.0.entrance.store(Arc::new(Entrance { read_only, read_write, origins }));
    }
}

impl<C> Clone for WebRocket<C> {
    fn clone(&self) -> Self {
        WebRocket(self.0.clone())
    }
}

impl<C> fmt::Debug for WebRocket<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { anonymous, names, .. } = &*self.0;
        f.debug_struct("WebRocket")
            .field("anonymous", anonymous)
            .field("names", names)
            .finish_non_exhaustive()
    }
}

impl<C: Codec> Handler for WebRocket<C> {
    type State = Connection;

    fn protocol(&self) -> &'static str {
        "webrocket"
    }

    fn frames(&self) -> Arc<Frames> {
        self.0.shapes.plain.clone()
    }

    fn admit(&self, request: &Parts) -> Result<(), StatusCode> {
        if self.0.entrance.load().admits(&request.headers) { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
    }

    fn open(&self, _client: &mut Client<'_>, request: &Parts) -> Connection {
        let number = self.0.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let connection = Connection {
            number,
            access: Access::None,
            subscribed: Vec::new(),
            slowdown: Slowdown::default(),
            address: request.extensions.get().map(|RemoteAddress(address)| *address),
            waiting: None,
            publishing: VecDeque::new(),
            deferred: None,
        };
        self.0.tell(&connection, &Activity::Connected { request });
        connection
    }

    fn inflated_bytes_max(&self, connection: &Connection) -> usize {
        let may_publish = self.0.access(connection) >= CommandName::Publish.needs();
        if may_publish { usize::MAX } else { COMMAND_BYTES_MAX }
    }

    fn message(&self, connection: &mut Connection, client: &mut Client<'_>, message: Incoming<'_>) {
        self.0.message(connection, client, message);
    }

    fn published(
        &self,
        connection: &mut Connection,
        client: &mut Client<'_>,
        result: Result<Position, Refused>,
    ) {
        let Some(publishing) = connection.publishing.pop_front() else { return };
        let result = self.0.published(result, &publishing, connection);
        self.0.answer(Some(CommandName::Publish), result, connection, client);
        if !client.is_awaiting()
            && let Some(deferred) = connection.deferred.take()
        {
            self.0.message(connection, client, deferred.as_incoming());
        }
    }

    fn resumed(&self, connection: &mut Connection, client: &mut Client<'_>) {
        if let Some(login) = connection.waiting.take() {
            let result = self.0.finish(&login, connection, client);
            self.0.answer(Some(CommandName::Auth), result, connection, client);
        }
    }

    fn closed(&self, connection: Connection) {
        self.0.tell(&connection, &Activity::Disconnected);
    }
}

impl<C: Codec> Inner<C> {
    fn message(&self, connection: &mut Connection, client: &mut Client<'_>, message: Incoming<'_>) {
        let is_awaiting = client.is_awaiting();
        let decoded = self.codec.decode(message);
        let name = match &decoded {
            Ok(command) => Some(command.name()),
            Err(malformed) => malformed.command,
        };
        // Access comes first: who does not have it learns nothing else.
        let result = match decoded {
            // Answers come in the order of the commands; publications need not
            // wait for one another.
            _ if is_awaiting && name != Some(CommandName::Publish) => None,
            _ if name.is_some_and(|name| self.access(connection) < name.needs()) => {
                Some(Err(ErrorCode::AccessDenied))
            }
            Err(_) => Some(Err(ErrorCode::InvalidData)),
            Ok(command) => self.carry_out(command, connection, client),
        };
        if is_awaiting && (name != Some(CommandName::Publish) || result.is_some()) {
            // What was refused now has no effect: it can be tried again.
            connection.deferred = Some(Deferred::new(message));
            client.hold();
        } else if let Some(result) = result {
            self.answer(name, result, connection, client);
        }
    }

    fn answer(
        &self,
        name: Option<CommandName>,
        result: Result<Reply, ErrorCode>,
        connection: &Connection,
        client: &mut Client<'_>,
    ) {
        if let Err(code) = result {
            self.refusals.count(code);
            self.tell(connection, &Activity::Refused { command: name, code });
        }
        let is_refused = result.is_err();
        let mut room = BytesMut::new();
        client.send(self.codec.reply(&result.unwrap_or_else(Reply::Error), &mut room));
        if name == Some(CommandName::Disconnect) && !is_refused {
            client.close(CloseCode::NORMAL, "");
        }
    }

    /// Carries out what the connection has the access for. `None` when it is
    /// to be answered later.
    fn carry_out(
        &self,
        command: Command<'_>,
        connection: &mut Connection,
        client: &mut Client<'_>,
    ) -> Option<Result<Reply, ErrorCode>> {
        Some(match command {
            Command::Auth { access, secret } => return self.log_in(access, &secret, connection, client),
            Command::Subscribe { channel, since } => self.subscribe(&channel, since, connection, client),
            Command::Unsubscribe { channel } => {
                self.unsubscribe(&channel, connection, client);
                Ok(Reply::Ok)
            }
            Command::Publish(publication) => {
                return self.publish(publication, connection, client).transpose();
            }
            Command::Presence { channel } => self.presence(&channel, client),
            Command::Logout => {
                self.tell(connection, &Activity::LoggedOut);
                self.set_access(Access::None, connection, client);
                Ok(Reply::Ok)
            }
            Command::Disconnect => {
                // Ended one by one, they give the client what it has yet to
                // read.
                self.end_subscriptions(connection, client);
                Ok(Reply::Ok)
            }
        })
    }

    /// Lets a login in or not, at once or after the wait of its address. Who does
    /// not wait for the answer has learnt nothing: a right secret waits as well.
    fn log_in(
        &self,
        access: Access,
        secret: &str,
        connection: &mut Connection,
        client: &mut Client<'_>,
    ) -> Option<Result<Reply, ErrorCode>> {
        let login = Login { access, is_accepted: self.entrance.load().accepts(access, secret) };
        let note = |address| self.failures.note(address, !login.is_accepted, client.now());
        let wait = connection.address.map_or(Duration::ZERO, note);
        if wait.is_zero() {
            return Some(self.finish(&login, connection, client));
        }
        client.pause(wait);
        connection.waiting = Some(login);
        None
    }

    /// What becomes of a login that need not wait any longer.
    fn finish(
        &self,
        login: &Login,
        connection: &mut Connection,
        client: &mut Client<'_>,
    ) -> Result<Reply, ErrorCode> {
        let Login { access, is_accepted } = *login;
        if is_accepted {
            self.tell(connection, &Activity::Authenticated { access });
            self.set_access(access, connection, client);
            return Ok(Reply::Ok);
        }
        // [webrocket: a failed auth also drops the earlier authentication]
        self.set_access(Access::None, connection, client);
        let pause = connection.slowdown.after_failure();
        if pause > Duration::ZERO {
            client.pause(pause);
        }
        Err(ErrorCode::InvalidCredentials)
    }

    /// What the connection may do.
    fn access(&self, connection: &Connection) -> Access {
        connection.access.max(self.anonymous)
    }

    /// Changes what `auth` gave, and ends the subscriptions that needed more.
    fn set_access(&self, access: Access, connection: &mut Connection, client: &mut Client<'_>) {
        connection.access = access;
        if self.access(connection) < CommandName::Subscribe.needs() {
            self.end_subscriptions(connection, client);
        }
    }

    fn subscribe(
        &self,
        name: &str,
        since: Option<Since>,
        connection: &mut Connection,
        client: &mut Client<'_>,
    ) -> Result<Reply, ErrorCode> {
        let channel = self.names.channel(name).ok_or(ErrorCode::InvalidChannelName)?;
        let reply = match since {
            None => client.subscribe(&channel).map(|_| Reply::Ok),
            Some(since) => client.follow(&channel, since.start()).map(Reply::Subscribed),
        };
        let reply = reply.map_err(|refused| code(&refused))?;
        if since.is_some() {
            client.deliver_as(self.shapes.positioned.clone());
        }
        if let Err(place) = connection.subscribed.binary_search(&channel) {
            self.tell(connection, &Activity::Subscribed { channel: &channel });
            connection.subscribed.insert(place, channel);
        }
        Ok(reply)
    }

    /// What can be no channel is not subscribed to either.
    fn unsubscribe(&self, name: &str, connection: &mut Connection, client: &mut Client<'_>) {
        let Some(channel) = self.names.channel(name) else { return };
        if let Ok(place) = connection.subscribed.binary_search(&channel) {
            connection.subscribed.remove(place);
            self.end_subscription(&channel, connection, client);
        }
    }

    fn end_subscriptions(&self, connection: &mut Connection, client: &mut Client<'_>) {
        for channel in std::mem::take(&mut connection.subscribed) {
            self.end_subscription(&channel, connection, client);
        }
    }

    fn end_subscription(&self, channel: &ChannelName, connection: &Connection, client: &mut Client<'_>) {
        // Refused if the sender is gone, and the subscription with it.
        let _ = client.unsubscribe(channel);
        self.tell(connection, &Activity::Unsubscribed { channel });
    }

    /// `None` when it is known later what comes of it.
    fn publish(
        &self,
        publication: Publication<'_>,
        connection: &mut Connection,
        client: &mut Client<'_>,
    ) -> Result<Option<Reply>, ErrorCode> {
        let Publication { channel, event, content, extras } = publication;
        if !is_event_name(&event) {
            return Err(ErrorCode::InvalidData);
        }
        let bytes = content.bytes().len() + extras.as_ref().map_or(0, Bytes::len);
        let channel = self.names.channel(&channel).ok_or(ErrorCode::InvalidChannel)?;
        let sender = client.sender().map_err(|refused| code(&refused))?;
        let mut message = Publish::new(content).by_guest(sender).event(&event);
        if let Some(extras) = &extras {
            message = message.extras([&[self.extras_tag], &extras[..]].concat().into());
        }
        let result = client.publish_awaited(&channel, message);
        let publishing = Publishing { channel, bytes };
        match result {
            Some(result) => self.published(result, &publishing, connection).map(Some),
            None => {
                connection.publishing.push_back(publishing);
                Ok(None)
            }
        }
    }

    /// What a publication is answered with.
    fn published(
        &self,
        result: Result<Position, Refused>,
        publishing: &Publishing,
        connection: &Connection,
    ) -> Result<Reply, ErrorCode> {
        result.map_err(|refused| code(&refused))?;
        let Publishing { channel, bytes } = publishing;
        self.tell(connection, &Activity::Published { channel, bytes: *bytes });
        Ok(Reply::Ok)
    }

    fn presence(&self, name: &str, client: &mut Client<'_>) -> Result<Reply, ErrorCode> {
        let channel = self.names.channel(name).ok_or(ErrorCode::InvalidChannel)?;
        let hub = client.hub();
        let mut first = hub.presence(&channel).ok_or(ErrorCode::InvalidChannel)?;
        // An id is all that it takes to send as its sender: a channel has to say
        // that its readers may learn it.
        if !hub.tells_presence(&channel) {
            return Err(ErrorCode::AccessDenied);
        }
        let count = first.len();
        first.truncate(PRESENT_MAX);
        if count > PRESENT_MAX {
            // To gather many takes a while: who asks again and again waits as long.
            client.pause(Duration::from_micros(count as u64));
        }
        Ok(Reply::Present { first, count })
    }

    fn tell(&self, connection: &Connection, activity: &Activity<'_>) {
        if let Some(observer) = &self.observer {
            observer.observe(connection.number, activity);
        }
    }
}

impl Entrance {
    /// Whether the page that connects may ([webrocket: browser safety]). With a
    /// list, who does not say where it is from is not on it.
    fn admits(&self, headers: &HeaderMap) -> bool {
        if self.origins.is_empty() {
            return true;
        }
        let mut given = headers.get_all(ORIGIN).iter();
        let is_listed = |given: &str| self.origins.iter().any(|origin| origin.eq_ignore_ascii_case(given));
        match (given.next(), given.next()) {
            (Some(origin), None) => origin.to_str().is_ok_and(is_listed),
            _ => false,
        }
    }

    fn accepts(&self, access: Access, secret: &str) -> bool {
        match access {
            Access::None => false,
            Access::ReadOnly => self.read_only.accepts(secret),
            Access::ReadWrite => self.read_write.accepts(secret),
        }
    }
}

/// The rule of the HTTP requests: what they cannot send, they need not be able
/// to show.
fn is_event_name(name: &str) -> bool {
    (1..=EVENT_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// The hub's refusals in the protocol's codes ([webrocket: commands]).
fn code(refused: &Refused) -> ErrorCode {
    match refused {
        Refused::NoSuchChannel { .. } | Refused::NotJoined { .. } => ErrorCode::InvalidChannel,
        Refused::TooLarge { .. }
        | Refused::BadContent { .. }
        | Refused::ReservedEvent { .. }
        | Refused::ReceiverNotJoined { .. } => ErrorCode::InvalidData,
        Refused::NotKept { .. } => ErrorCode::NotKept,
        // The command is right, and would be carried out for others, or at
        // another time: this session may not have it.
        Refused::Limit { .. } | Refused::UnknownSender(_) | Refused::BoundElsewhere(_) | Refused::Closed => {
            ErrorCode::AccessDenied
        }
    }
}
