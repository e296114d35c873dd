//! The client: one set of calls over four protocols.
//!
//! Knows which protocol can do what; how it does it is for `packets`, `http` and
//! `webrocket`.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use watchtower_hub::{ChannelName, Content, Position, SenderId};

use crate::http::HttpClient;
use crate::packets::PacketClient;
use crate::subscription::{Source, Subscription};
use crate::webrocket::WebRocketClient;
use crate::{ClientError, History, Message, Span};

/// Where a server listens unless it was told otherwise.
pub const DEFAULT_SERVER: &str = "127.0.0.1:3033";

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Watchtower packets over a TCP connection. Numeric channels.
    Tcp,
    /// Watchtower packets in UDP datagrams. Numeric channels; messages can get lost.
    Udp,
    /// Watchtower HTTP. Numeric and named channels.
    Http,
    /// WebRocket: JSON over WebSocket. Numeric and named channels; no senders.
    WebRocket,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Http => "HTTP",
            Protocol::WebRocket => "WebRocket",
        })
    }
}

/// How a client behaves. `Debug` does not show the secret.
#[derive(Clone)]
pub struct Options {
    /// The server's secret, where registration needs it. Over WebRocket one of
    /// the hub's: the one for read-write access to publish, either to subscribe.
    /// A hub whose secrets are empty, or that lets anybody in, needs none.
    pub secret: Option<String>,
    /// How long to wait for a connection or an answer; 5 seconds by default. A
    /// subscription waits for messages without end.
    pub timeout: Duration,
    /// The longest content of a message that is taken from the server, in bytes;
    /// 16 MiB by default. It bounds the client's memory.
    pub content_bytes_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options { secret: None, timeout: Duration::from_secs(5), content_bytes_max: 16 * 1024 * 1024 }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("secret", &self.secret.as_ref().map(|_| "(not shown)"))
            .field("timeout", &self.timeout)
            .field("content_bytes_max", &self.content_bytes_max)
            .finish()
    }
}

/// A client that has reached its server.
///
/// After a refusal ([`ClientError::Refused`], [`ClientError::Http`],
/// [`ClientError::Hub`]) the client can be used on. After any other error, or when
/// a call was cancelled before its end, a TCP or WebRocket client answers [`ClientError::Closed`], since answers carry no
/// reference to what they answer: connect again, and take up the same sender with
/// [`with_sender`](Client::with_sender). Dropping it closes the connection.
pub struct Client {
    connection: Connection,
    options: Options,
    sender: Option<SenderId>,
}

enum Connection {
    Packets(PacketClient),
    Http(HttpClient),
    WebRocket(WebRocketClient),
}

impl Client {
    /// Reaches the server at `host:port`. Over UDP that means that it answered a
    /// keep-alive. Over WebRocket `server` may name a hub's path, and TLS:
    /// `host:port/path`, `ws://host:port/path`, `wss://host:port/path`; without a
    /// path it is `/webrocket`.
    ///
    /// # Errors
    /// [`ClientError::Address`] and [`ClientError::Unreachable`]; over WebRocket
    /// also [`ClientError::Url`], [`ClientError::Tls`], and [`ClientError::Http`]
    /// where there is no hub.
    pub async fn connect(protocol: Protocol, server: &str, options: Options) -> Result<Client, ClientError> {
        let connection = match protocol {
            Protocol::Tcp => Connection::Packets(PacketClient::connect_tcp(server, &options).await?),
            Protocol::Udp => Connection::Packets(PacketClient::connect_udp(server, &options).await?),
            Protocol::Http => Connection::Http(HttpClient::connect(server, &options).await?),
            Protocol::WebRocket => Connection::WebRocket(WebRocketClient::connect(server, &options).await?),
        };
        Ok(Client { connection, options, sender: None })
    }

    /// The same client as a sender that is registered already.
    #[must_use]
    pub fn with_sender(mut self, sender: SenderId) -> Client {
        self.sender = Some(sender);
        self
    }

    /// Who this client is, once it is someone.
    pub fn sender(&self) -> Option<SenderId> {
        self.sender
    }

    /// Registers a new sender and becomes it; with [`Options::secret`] if there
    /// is one.
    ///
    /// Over UDP an answer that gets lost is asked for again, and the server then
    /// registers twice: the id that nobody got expires unused.
    ///
    /// # Errors
    /// A refusal when the secret is missing or wrong;
    /// [`ClientError::CannotRegister`] over WebRocket.
    pub async fn register(&mut self) -> Result<SenderId, ClientError> {
        let secret = self.options.secret.as_deref();
        let sender = match &mut self.connection {
            Connection::Packets(packets) => packets.register(secret).await?,
            Connection::Http(http) => http.register(secret).await?,
            Connection::WebRocket(_) => {
                return Err(ClientError::CannotRegister { protocol: Protocol::WebRocket });
            }
        };
        self.sender = Some(sender);
        Ok(sender)
    }

    /// Joins channels, so that this client's sender may publish to them. Over
    /// WebRocket it subscribes, so that they are there.
    ///
    /// # Errors
    /// A refusal, or [`ClientError::NamedChannel`] over packets. Over packets,
    /// channels are joined one by one: those before the one refused stay joined.
    pub async fn join(&mut self, channels: &[ChannelName]) -> Result<(), ClientError> {
        match &mut self.connection {
            Connection::Packets(packets) => packets.join(required(self.sender)?, channels).await,
            Connection::Http(http) => http.join(required(self.sender)?, channels).await,
            Connection::WebRocket(webrocket) => webrocket.join(channels).await,
        }
    }

    /// Leaves channels: what this client's sender joined there ends, with what it
    /// has not been given. Leaving what is not joined does nothing. Over WebRocket
    /// it unsubscribes.
    ///
    /// # Errors
    /// As [`join`](Client::join).
    pub async fn leave(&mut self, channels: &[ChannelName]) -> Result<(), ClientError> {
        match &mut self.connection {
            Connection::Packets(packets) => packets.leave(required(self.sender)?, channels).await,
            Connection::Http(http) => http.leave(required(self.sender)?, channels).await,
            Connection::WebRocket(webrocket) => webrocket.leave(channels).await,
        }
    }

    /// Publishes to everyone in a channel that the sender has joined, and waits
    /// until the server took it: over packets until the message came back. Over
    /// WebRocket the channel must be there, as it is for who has joined it.
    ///
    /// Over UDP a message is never sent twice: when it or its echo gets lost the
    /// call ends with [`ClientError::Silent`].
    ///
    /// # Errors
    /// A refusal when the channel is not joined or the content not accepted.
    pub async fn publish(&mut self, channel: &ChannelName, content: &Content) -> Result<(), ClientError> {
        match &mut self.connection {
            Connection::Packets(packets) => packets.publish(required(self.sender)?, channel, content).await,
            Connection::Http(http) => http.publish(required(self.sender)?, channel, None, content).await,
            Connection::WebRocket(webrocket) => webrocket.publish(channel, content).await,
        }
    }

    /// Publishes to named senders in a channel alone, and waits until the server
    /// took it. Over UDP as [`publish`](Client::publish).
    ///
    /// # Errors
    /// A refusal when the sender or a receiver has not joined the channel, or
    /// `receivers` is empty; [`ClientError::CannotSendDirect`] over WebRocket.
    pub async fn publish_direct(
        &mut self,
        channel: &ChannelName,
        receivers: &[SenderId],
        content: &Content,
    ) -> Result<(), ClientError> {
        match &mut self.connection {
            Connection::Packets(packets) => {
                packets.publish_direct(required(self.sender)?, channel, receivers, content).await
            }
            Connection::Http(http) => {
                http.publish(required(self.sender)?, channel, Some(receivers), content).await
            }
            Connection::WebRocket(_) => Err(ClientError::CannotSendDirect { protocol: Protocol::WebRocket }),
        }
    }

    /// Reads and drops what the joined channels carry, until it is cancelled or
    /// the connection ends. Over TCP and WebRocket a client that has joined a busy
    /// channel and pauses without reading lags and is disconnected; over HTTP nothing comes,
    /// and this waits for ever. Cancelling it loses nothing else.
    ///
    /// # Errors
    /// How the connection ended, or what the server said meanwhile.
    pub async fn idle(&mut self) -> Result<Infallible, ClientError> {
        match &mut self.connection {
            Connection::Packets(packets) => packets.idle().await,
            Connection::WebRocket(webrocket) => webrocket.idle().await,
            Connection::Http(_) => std::future::pending().await,
        }
    }

    /// The channels of the server, sorted; over HTTP alone.
    ///
    /// # Errors
    /// [`ClientError::CannotList`] over packets and WebRocket; a refusal when the sender is
    /// not registered.
    pub async fn channels(&mut self) -> Result<Vec<ChannelName>, ClientError> {
        match &mut self.connection {
            Connection::Packets(packets) => Err(ClientError::CannotList { protocol: packets.protocol() }),
            Connection::WebRocket(_) => Err(ClientError::CannotList { protocol: Protocol::WebRocket }),
            Connection::Http(http) => http.channels(required(self.sender)?).await,
        }
    }

    /// What a channel keeps, `limit` messages of it or fewer: the server has a
    /// bound of its own. Over HTTP alone.
    ///
    /// # Errors
    /// [`ClientError::CannotReadHistory`] over packets and WebRocket; a refusal
    /// when the sender is not registered.
    pub async fn history(
        &mut self,
        channel: &ChannelName,
        span: Span,
        limit: Option<u64>,
    ) -> Result<History, ClientError> {
        match &mut self.connection {
            Connection::Http(http) => http.history(required(self.sender)?, channel, span, limit).await,
            Connection::Packets(packets) => {
                Err(ClientError::CannotReadHistory { protocol: packets.protocol() })
            }
            Connection::WebRocket(_) => Err(ClientError::CannotReadHistory { protocol: Protocol::WebRocket }),
        }
    }

    /// Subscribes to channels: joins them and turns the client into the stream
    /// of their messages, the sender's own included.
    ///
    /// # Errors
    /// As [`join`](Client::join); [`ClientError::Overrun`] when the first
    /// channels flood the client while the last ones are joined.
    pub async fn subscribe(self, channels: &[ChannelName]) -> Result<Subscription, ClientError> {
        self.subscribe_from(channels, None).await
    }

    /// The same, beginning with what is kept after a position on each channel,
    /// which `since` gives in the order of `channels`; both have the same length.
    /// [`Subscription::resumed`] says whether that is all that came since.
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe); [`ClientError::CannotResume`] over
    /// packets.
    pub async fn subscribe_since(
        self,
        channels: &[ChannelName],
        since: &[Position],
    ) -> Result<Subscription, ClientError> {
        debug_assert_eq!(channels.len(), since.len());
        self.subscribe_from(channels, Some(since)).await
    }

    async fn subscribe_from(
        self,
        channels: &[ChannelName],
        since: Option<&[Position]>,
    ) -> Result<Subscription, ClientError> {
        let sender = self.sender;
        match self.connection {
            Connection::Packets(packets) if since.is_some() => {
                Err(ClientError::CannotResume { protocol: packets.protocol() })
            }
            Connection::Packets(packets) => {
                let stream = packets.subscribe(required(sender)?, channels).await?;
                Ok(Subscription::new(Source::Packets(stream), sender, Vec::new()))
            }
            Connection::Http(http) => {
                let (stream, resumed) = http.subscribe(required(sender)?, channels, since).await?;
                Ok(Subscription::new(Source::Http(stream), sender, resumed))
            }
            Connection::WebRocket(webrocket) => {
                let (stream, resumed) = webrocket.subscribe(channels, since).await?;
                Ok(Subscription::new(Source::WebRocket(stream), None, resumed))
            }
        }
    }
}

fn required(sender: Option<SenderId>) -> Result<SenderId, ClientError> {
    sender.ok_or(ClientError::NoSender)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match &self.connection {
            Connection::Packets(packets) => packets.protocol(),
            Connection::Http(_) => Protocol::Http,
            Connection::WebRocket(_) => Protocol::WebRocket,
        };
        f.debug_struct("Client")
            .field("protocol", &protocol)
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}

/// What [`Subscription::next`] ends with; named for the sources' signatures.
pub(crate) type NextMessage = Result<Option<Message>, ClientError>;
