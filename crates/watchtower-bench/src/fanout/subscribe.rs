//! How subscribers and the publisher get in: connect, register, join, one after the other, waiting
//! for every answer.

use crate::error::{Error, WireError};
use crate::fanout::options::Protocol;
use crate::load::http::{self, StreamCounter, StreamForm};
use crate::load::packets::{self, Arrival};
use crate::load::{Counter, Link, Socket};
use crate::process::Addresses;
use crate::progress::{Phase, Progress};

/// Joins that are asked for at a time on a stream, and in one datagram of below 1,400 bytes.
const STREAM_JOINS: usize = 1000;
const DATAGRAM_JOINS: usize = 150;

/// What one read of an answer takes.
const ANSWER_READ_BYTES: usize = 64 * 1024;

/// A server, and what is joined there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door<'a> {
    pub(crate) addresses: Addresses,
    pub(crate) secret: Option<&'a str>,
    /// Channels 1 to this are joined.
    pub(crate) channels: u32,
}

impl Door<'_> {
    /// A registered sender on TCP packets that has joined, and its id.
    pub(crate) fn open_publisher(&self) -> Result<(Link, u32), Error> {
        self.open_packets(Protocol::Tcp, "the publisher".into())
    }

    /// Subscribers that have all joined.
    pub(crate) fn open_subscribers(
        &self,
        protocol: Protocol,
        count: u32,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Link>, Error> {
        progress.begin(Phase::Joining, count.into());
        let mut registrar = match protocol.stream_form() {
            None => None,
            Some(form) => Some((form, self.connect(Protocol::Tcp, "the registrar".into())?)),
        };
        let mut links = Vec::with_capacity(count as usize);
        for index in 0..count {
            let name = format!("subscriber {index}");
            links.push(match &mut registrar {
                None => self.open_packets(protocol, name)?.0,
                Some((form, registrar)) => {
                    self.open_stream(*form, registrar.register(self.secret)?, &name)?
                }
            });
            progress.done(links.len() as u64);
        }
        Ok(links)
    }

    fn connect(&self, protocol: Protocol, name: String) -> Result<Conversation, Error> {
        let socket = match protocol {
            Protocol::Udp => Socket::datagrams(self.addresses.udp),
            _ => Socket::stream(self.addresses.tcp),
        };
        let socket = socket.map_err(Error::io(format!("connect {name}")))?;
        Ok(Conversation { link: Link { socket, counter: protocol.packet_counter() }, name })
    }

    fn open_packets(&self, protocol: Protocol, name: String) -> Result<(Link, u32), Error> {
        let mut conversation = self.connect(protocol, name)?;
        let sender = conversation.register(self.secret)?;
        conversation.join(sender, self.channels)?;
        Ok((conversation.link, sender))
    }

    fn open_stream(&self, form: StreamForm, sender: u32, name: &str) -> Result<Link, Error> {
        let socket = Socket::stream(self.addresses.tcp).map_err(Error::io(format!("connect {name}")))?;
        let mut request = Vec::new();
        let target = http::join_target(sender, self.channels);
        http::write_join(&target, form, self.addresses.tcp, &mut request);
        socket.send(&request).map_err(Error::io(format!("write to {name}")))?;
        let mut counter = StreamCounter::new(form);
        let mut buffer = vec![0; ANSWER_READ_BYTES];
        while !counter.has_joined() {
            let length = socket.receive(&mut buffer, name)?;
            let answer = buffer.get(..length).unwrap_or_default();
            counter.feed(answer, |_| ()).map_err(Error::peer(name))?;
        }
        Ok(Link { socket, counter: Counter::Stream(counter) })
    }
}

/// A connection on which packets are asked and answered.
struct Conversation {
    link: Link,
    name: String,
}

impl Conversation {
    /// The id of a new sender.
    fn register(&mut self, secret: Option<&str>) -> Result<u32, Error> {
        let mut request = Vec::new();
        packets::write_register(secret, &mut request);
        match self.ask(&request, 1)?.as_slice() {
            [id, ..] => Ok(*id),
            [] => Err(Error::peer(self.name.as_str())(WireError::Closed)),
        }
    }

    fn join(&mut self, sender: u32, channels: u32) -> Result<(), Error> {
        let at_a_time = if self.link.socket.is_stream() { STREAM_JOINS } else { DATAGRAM_JOINS };
        let mut request = Vec::with_capacity(at_a_time * packets::JOIN_BYTES);
        for first in (1..=channels).step_by(at_a_time) {
            let last = first.saturating_add(at_a_time as u32 - 1).min(channels);
            request.clear();
            for channel in first..=last {
                packets::write_join(sender, channel, &mut request);
            }
            self.ask(&request, (last - first + 1) as usize)?;
        }
        Ok(())
    }

    /// Sends, and waits for so many acknowledgements.
    fn ask(&mut self, request: &[u8], answers: usize) -> Result<Vec<u32>, Error> {
        let Link { socket, counter } = &mut self.link;
        let name = self.name.as_str();
        socket.send(request).map_err(Error::io(format!("write to {name}")))?;
        let mut acknowledged = Vec::with_capacity(answers);
        let mut buffer = vec![0; ANSWER_READ_BYTES];
        while acknowledged.len() < answers {
            let length = socket.receive(&mut buffer, name)?;
            let answer = buffer.get(..length).unwrap_or_default();
            counter
                .feed(answer, |arrival| {
                    if let Arrival::Acknowledged(id) = arrival {
                        acknowledged.push(id);
                    }
                })
                .map_err(Error::peer(name))?;
        }
        Ok(acknowledged)
    }
}
