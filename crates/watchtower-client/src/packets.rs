//! The client over packets: what is asked, and which packet answers it.
//!
//! Answers carry no reference to what they answer, so one thing is asked at a
//! time and the server's order tells. Over UDP what may safely be asked twice
//! (`R`, `S`, `J`, `L`, `K`) is asked again while no answer comes; a late answer to
//! such a second asking is ignored where it can be told from a wanted one. An `E`
//! cannot be told: one that is late is taken for the answer to the next thing.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use watchtower_hub::{ChannelName, Content, SenderId};
use watchtower_protocols::packets::ErrorCode;
use watchtower_protocols::packets::frame::{ClientPacket, MESSAGE_HEADER_BYTES, Receivers};

use crate::client::NextMessage;
use crate::early::Early;
use crate::link::{self, Incoming, Link};
use crate::{ClientError, Message, Options, Protocol};

/// The longest payload of a datagram ([packets: rules]).
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// When a datagram is sent again for the first time; each later pause is twice as long.
const REPEAT_PAUSE: Duration = Duration::from_millis(250);

/// How long a UDP subscription hears nothing before it asks whether the server
/// is there. Below the time after which address translators forget, and the
/// server's own (`udp_idle`).
const KEEP_ALIVE_PAUSE: Duration = Duration::from_secs(25);

/// How often it asks while no answer comes.
const KEEP_ALIVE_REPEAT: Duration = Duration::from_secs(1);

/// A client over TCP or UDP packets.
pub(crate) struct PacketClient {
    link: Link,
    timeout: Duration,
    /// Channels whose join was acknowledged, and may be so again.
    joined: BTreeSet<u32>,
    early: Early,
    /// Whether the answer to all that was asked has come.
    settled: bool,
}

/// Whether a datagram may be sent again while no answer comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    WhileSilent,
    Never,
}

impl PacketClient {
    pub(crate) async fn connect_tcp(server: &str, options: &Options) -> Result<Self, ClientError> {
        let stream = link::open_tcp(server, options.timeout).await?;
        Ok(Self::new(Link::tcp(stream, server, options.content_bytes_max), options))
    }

    pub(crate) async fn connect_udp(server: &str, options: &Options) -> Result<Self, ClientError> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for socket in link::open_udp(server, options.timeout).await? {
            let link = Link::udp(socket, server, options.content_bytes_max);
            let mut client = Self::new(link, options);
            match client.keep_alive().await {
                Ok(()) => return Ok(client),
                Err(error) => failure = connect_failure(error)?,
            }
        }
        Err(link::cannot_reach(server, failure))
    }

    fn new(link: Link, options: &Options) -> Self {
        PacketClient {
            link,
            timeout: options.timeout,
            joined: BTreeSet::new(),
            early: Early::default(),
            settled: true,
        }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.link.protocol()
    }

    pub(crate) async fn register(&mut self, secret: Option<&str>) -> Result<SenderId, ClientError> {
        let packet = match secret {
            Some(secret) => ClientPacket::RegisterWithSecret(secret.as_bytes()),
            None => ClientPacket::Register,
        };
        let request = encode(&[packet])?;
        let late = match self.protocol() {
            Protocol::Udp => self.joined.clone(),
            _ => BTreeSet::new(),
        };
        let id = self.ask(&request, Repeat::WhileSilent, |incoming| match incoming {
            Incoming::Ack(id) if !late.contains(id) => Some(*id),
            _ => None,
        });
        let id = id.await?;
        SenderId::new(id).ok_or_else(|| ClientError::not_understood(self.link.server(), "a sender id of 0"))
    }

    pub(crate) async fn join(
        &mut self,
        sender: SenderId,
        channels: &[ChannelName],
    ) -> Result<(), ClientError> {
        for channel in self.numbers(channels)? {
            let request = encode(&[ClientPacket::Join { sender: sender.get(), channel }])?;
            self.ask(&request, Repeat::WhileSilent, |incoming| match incoming {
                Incoming::Ack(number) if *number == channel => Some(()),
                _ => None,
            })
            .await?;
            self.joined.insert(channel);
        }
        Ok(())
    }

    pub(crate) async fn leave(
        &mut self,
        sender: SenderId,
        channels: &[ChannelName],
    ) -> Result<(), ClientError> {
        for channel in self.numbers(channels)? {
            let request = encode(&[ClientPacket::Leave { sender: sender.get(), channel }])?;
            let answer = self.ask(&request, Repeat::WhileSilent, |incoming| match incoming {
                Incoming::Ack(number) if *number == channel => Some(()),
                _ => None,
            });
            match answer.await {
                // Not joined: it was left before, or by a first asking whose answer got lost.
                Err(ClientError::Refused(refusal)) if refusal.code == ErrorCode::NotJoined.byte() => {}
                answer => answer?,
            }
        }
        Ok(())
    }

    pub(crate) async fn publish(
        &mut self,
        sender: SenderId,
        channel: &ChannelName,
        content: &Content,
    ) -> Result<(), ClientError> {
        // The echo is the longer of the two, and it is the answer.
        self.check_datagram(content, MESSAGE_HEADER_BYTES)?;
        let number = self.number(channel)?;
        let request = encode(&[ClientPacket::Message {
            sender: sender.get(),
            channel: number,
            content: content.bytes(),
        }])?;
        self.ask(&request, Repeat::Never, |incoming| match incoming {
            Incoming::Message(message) => {
                let echo = message.sender == Some(sender)
                    && message.channel == *channel
                    && !message.direct
                    && message.content.bytes() == content.bytes();
                echo.then_some(())
            }
            _ => None,
        })
        .await
    }

    /// A direct message has no echo. What follows it has an answer: a keep-alive
    /// in the same write, whose `A` says that no `E` came before it.
    pub(crate) async fn publish_direct(
        &mut self,
        sender: SenderId,
        channel: &ChannelName,
        receivers: &[SenderId],
        content: &Content,
    ) -> Result<(), ClientError> {
        const BYTES_BESIDE: usize = 15 + 1;
        self.check_datagram(content, BYTES_BESIDE + 4 * receivers.len())?;
        let ids: Vec<_> = receivers.iter().map(|id| id.get().to_le_bytes()).collect();
        let direct = ClientPacket::Direct {
            sender: sender.get(),
            channel: self.number(channel)?,
            receivers: Receivers::new(&ids),
            content: content.bytes(),
        };
        let request = encode(&[direct, ClientPacket::KeepAlive])?;
        let answer = self.ask(&request, Repeat::Never, is_keep_alive).await;
        if matches!(answer, Err(ClientError::Refused(_))) {
            self.pass_keep_alive().await;
        }
        answer
    }

    /// Waits for the `A` that is still to come after an `E` answered what was
    /// sent before the keep-alive, so that it answers nothing else.
    async fn pass_keep_alive(&mut self) {
        let patience = match self.protocol() {
            // It may be lost, or kept back from an address that is not registered.
            Protocol::Udp => REPEAT_PAUSE,
            _ => self.timeout,
        };
        let passed = timeout(patience, self.answer(&is_keep_alive)).await;
        self.settled = matches!(passed, Ok(Ok(())));
    }

    pub(crate) async fn idle(&mut self) -> Result<Infallible, ClientError> {
        loop {
            match self.link.receive().await? {
                Some(Incoming::Ack(_) | Incoming::Message(_)) => {}
                Some(Incoming::Refusal(refusal)) => return Err(ClientError::Refused(refusal)),
                None => return Err(self.closed()),
            }
        }
    }

    pub(crate) async fn subscribe(
        mut self,
        sender: SenderId,
        channels: &[ChannelName],
    ) -> Result<PacketStream, ClientError> {
        self.early.keep();
        self.join(sender, channels).await?;
        Ok(PacketStream {
            sender,
            channels: self.numbers(channels)?,
            early: self.early.take(),
            link: self.link,
            timeout: self.timeout,
            asked: None,
            wake: Instant::now() + KEEP_ALIVE_PAUSE,
        })
    }

    async fn keep_alive(&mut self) -> Result<(), ClientError> {
        let request = encode(&[ClientPacket::KeepAlive])?;
        self.ask(&request, Repeat::WhileSilent, is_keep_alive).await
    }

    /// Sends a request and waits for what `accept` takes as its answer, or an `E`.
    async fn ask<T>(
        &mut self,
        request: &[u8],
        repeat: Repeat,
        accept: impl Fn(&Incoming) -> Option<T>,
    ) -> Result<T, ClientError> {
        let datagrams = self.protocol() == Protocol::Udp;
        if !self.settled && !datagrams {
            return Err(self.closed());
        }
        self.settled = false;
        let repeat = if datagrams { repeat } else { Repeat::Never };
        let answer = self.send_and_wait(request, repeat, accept).await;
        self.settled = matches!(answer, Ok(_) | Err(ClientError::Refused(_)));
        answer
    }

    async fn send_and_wait<T>(
        &mut self,
        request: &[u8],
        repeat: Repeat,
        accept: impl Fn(&Incoming) -> Option<T>,
    ) -> Result<T, ClientError> {
        let deadline = Instant::now() + self.timeout;
        let mut pause = REPEAT_PAUSE;
        loop {
            let wake = match repeat {
                Repeat::WhileSilent => deadline.min(Instant::now() + pause),
                Repeat::Never => deadline,
            };
            let sent = timeout_at(wake, self.link.send(request)).await.unwrap_or(Ok(()));
            // What could not be sent may still have an answer: a server that
            // closes while it is written to has said why.
            match (timeout_at(wake, self.answer(&accept)).await, sent) {
                (Ok(Err(ClientError::Lost { .. } | ClientError::Closed { .. })), Err(error))
                | (Err(_), Err(error)) => return Err(error),
                (Ok(answer), _) => return answer,
                (Err(_), Ok(())) if Instant::now() >= deadline => return Err(self.silent()),
                (Err(_), Ok(())) => pause *= 2,
            }
        }
    }

    async fn answer<T>(&mut self, accept: &impl Fn(&Incoming) -> Option<T>) -> Result<T, ClientError> {
        loop {
            let incoming = self.link.receive().await?.ok_or_else(|| self.closed())?;
            if let Some(answer) = accept(&incoming) {
                return Ok(answer);
            }
            match incoming {
                Incoming::Ack(_) => {}
                Incoming::Message(message) => self.early.push(message)?,
                Incoming::Refusal(refusal) => return Err(ClientError::Refused(refusal)),
            }
        }
    }

    fn numbers(&self, channels: &[ChannelName]) -> Result<Vec<u32>, ClientError> {
        channels.iter().map(|channel| self.number(channel)).collect()
    }

    fn number(&self, channel: &ChannelName) -> Result<u32, ClientError> {
        channel
            .number()
            .ok_or_else(|| ClientError::NamedChannel { channel: channel.clone(), protocol: self.protocol() })
    }

    fn check_datagram(&self, content: &Content, bytes_beside: usize) -> Result<(), ClientError> {
        let bytes = content.bytes().len();
        let bytes_max = DATAGRAM_BYTES_MAX.saturating_sub(bytes_beside);
        if self.protocol() == Protocol::Udp && bytes > bytes_max {
            return Err(ClientError::DatagramTooLong { bytes, bytes_max });
        }
        Ok(())
    }

    fn closed(&self) -> ClientError {
        ClientError::Closed { server: self.link.server().to_owned() }
    }

    fn silent(&self) -> ClientError {
        ClientError::Silent { server: self.link.server().to_owned(), timeout: self.timeout }
    }
}

/// The messages of joined channels over packets.
pub(crate) struct PacketStream {
    link: Link,
    sender: SenderId,
    channels: Vec<u32>,
    /// What came while the channels were joined.
    early: VecDeque<Message>,
    timeout: Duration,
    /// Since when a keep-alive waits for its answer.
    asked: Option<Instant>,
    /// When the next keep-alive is due.
    wake: Instant,
}

impl PacketStream {
    pub(crate) async fn next(&mut self) -> NextMessage {
        if let Some(message) = self.early.pop_front() {
            return Ok(Some(message));
        }
        loop {
            let incoming = match self.link.protocol() {
                Protocol::Udp => match timeout_at(self.wake, self.link.receive()).await {
                    Ok(incoming) => incoming?,
                    Err(_) => {
                        self.ask_for_life().await?;
                        continue;
                    }
                },
                // The operating system watches over the connection.
                _ => self.link.receive().await?,
            };
            self.asked = None;
            self.wake = Instant::now() + KEEP_ALIVE_PAUSE;
            match incoming {
                Some(Incoming::Message(message)) => return Ok(Some(message)),
                Some(Incoming::Ack(_)) => {}
                Some(Incoming::Refusal(refusal)) => return Err(ClientError::Refused(refusal)),
                None => return Ok(None),
            }
        }
    }

    /// Sends a keep-alive, which also keeps the server from forgetting this
    /// address, unless one has waited too long.
    async fn ask_for_life(&mut self) -> Result<(), ClientError> {
        let asked = *self.asked.get_or_insert_with(Instant::now);
        if asked.elapsed() >= self.timeout {
            let server = self.link.server().to_owned();
            return Err(ClientError::Silent { server, timeout: self.timeout });
        }
        self.wake = Instant::now() + KEEP_ALIVE_REPEAT;
        self.link.send(&encode(&[ClientPacket::KeepAlive])?).await
    }

    pub(crate) async fn leave(mut self) {
        const CHANNELS_PER_DATAGRAM: usize = 100;
        let sender = self.sender.get();
        let leaving = async {
            for channels in self.channels.chunks(CHANNELS_PER_DATAGRAM) {
                let leave = |&channel| ClientPacket::Leave { sender, channel };
                let packets: Vec<_> = channels.iter().map(leave).collect();
                self.link.send(&encode(&packets)?).await?;
            }
            self.link.finish().await;
            Ok::<(), ClientError>(())
        };
        // The server notices by itself what cannot be told to it.
        let _ = timeout(self.timeout, leaving).await;
    }
}

fn is_keep_alive(incoming: &Incoming) -> Option<()> {
    matches!(incoming, Incoming::Ack(0)).then_some(())
}

fn encode(packets: &[ClientPacket<'_>]) -> Result<Vec<u8>, ClientError> {
    let mut bytes = Vec::new();
    for packet in packets {
        packet.encode(&mut bytes)?;
    }
    Ok(bytes)
}

/// What a failed first keep-alive says about the address; an answer that is not
/// a keep-alive's is an error of another kind.
fn connect_failure(error: ClientError) -> Result<io::Error, ClientError> {
    match error {
        ClientError::Silent { timeout, .. } => Ok(link::no_answer(timeout)),
        ClientError::Lost { source, .. } => {
            Ok(source.downcast::<io::Error>().map_or_else(io::Error::other, |error| *error))
        }
        other => Err(other),
    }
}
