//! The door of packets and HTTP streams: connect, register, join.
//!
//! The publisher is one more registered sender on TCP packets, whatever the subscribers speak. It
//! is joined, so it gets its own messages back.

use std::ops::Range;

use crate::doors::conversation::Conversation;
use crate::doors::{Door, Publisher};
use crate::error::{Error, WireError};
use crate::load::http::{self, StreamCounter, StreamForm};
use crate::load::payload::Number;
use crate::load::{Counter, Link, Socket, Source, packets, publisher_name};
use crate::options::{Options, Protocol};
use crate::process::Addresses;
use crate::topology::Topology;

/// Joins that are asked for at a time on a stream, and in one datagram of below 1,400 bytes.
const STREAM_JOINS: usize = 1000;
const DATAGRAM_JOINS: usize = 150;

/// A server, and what is joined there.
pub(crate) struct PacketDoor<'a> {
    addresses: Addresses,
    protocol: Protocol,
    secret: Option<&'a str>,
    topology: Topology,
    size: usize,
    /// What registers the senders of HTTP streams, which cannot by themselves.
    registrar: Option<Registrar>,
}

impl<'a> PacketDoor<'a> {
    pub(crate) fn new(options: &'a Options, addresses: Addresses) -> Self {
        Self {
            addresses,
            protocol: options.protocol,
            secret: options.secret.as_deref(),
            topology: options.topology(),
            size: options.size,
            registrar: None,
        }
    }

    fn connect(&self, protocol: Protocol, name: String) -> Result<Registrar, Error> {
        let socket = match protocol {
            Protocol::Udp => Socket::datagrams(self.addresses.udp),
            _ => Socket::stream(self.addresses.tcp),
        };
        let socket = socket.map_err(Error::io(format!("connect {name}")))?;
        Ok(Registrar(Conversation::new(socket, protocol.packet_counter(), name)))
    }

    fn open_packets(
        &self,
        protocol: Protocol,
        name: String,
        channels: Range<u32>,
    ) -> Result<(Link, u32), Error> {
        let mut registrar = self.connect(protocol, name)?;
        let sender = registrar.register(self.secret)?;
        registrar.join(sender, channels)?;
        Ok((registrar.0.link, sender))
    }

    fn open_stream(&mut self, form: StreamForm, name: String, channels: Range<u32>) -> Result<Link, Error> {
        let registrar = match &mut self.registrar {
            Some(registrar) => registrar,
            None => {
                let registrar = self.connect(Protocol::Tcp, "the registrar".into())?;
                self.registrar.insert(registrar)
            }
        };
        let sender = registrar.register(self.secret)?;
        let socket = Socket::stream(self.addresses.tcp).map_err(Error::io(format!("connect {name}")))?;
        let mut request = Vec::new();
        let target = http::join_target(sender, channels);
        http::write_join(&target, form, self.addresses.tcp, &mut request);
        let counter = Counter::Stream(StreamCounter::new(form));
        let mut conversation = Conversation::new(socket, counter, name);
        conversation.send(&request)?;
        while !matches!(&conversation.link.counter, Counter::Stream(stream) if stream.has_joined()) {
            conversation.receive(|counter, answer| counter.feed(answer, |_| ()))?;
        }
        Ok(conversation.link)
    }
}

impl Door for PacketDoor<'_> {
    fn open_publisher(&mut self, index: u32) -> Result<Publisher, Error> {
        let name = publisher_name(index as usize, self.topology.publishers as usize);
        let channels = self.topology.published_by(index);
        let (link, sender) = self.open_packets(Protocol::Tcp, name, channels)?;
        let source = PacketSource { sender, topology: self.topology, size: self.size };
        Ok(Publisher { link, source: Box::new(source) })
    }

    fn open_subscriber(&mut self, index: u32) -> Result<Link, Error> {
        let (name, channels) = (format!("subscriber {index}"), self.topology.heard_by(index));
        match self.protocol.stream_form() {
            None => Ok(self.open_packets(self.protocol, name, channels)?.0),
            Some(form) => self.open_stream(form, name, channels),
        }
    }
}

/// A connection that registers senders and joins channels.
struct Registrar(Conversation);

impl Registrar {
    /// The id of a new sender.
    fn register(&mut self, secret: Option<&str>) -> Result<u32, Error> {
        let mut request = Vec::new();
        packets::write_register(secret, &mut request);
        match self.0.ask(&request, 1)?.as_slice() {
            [id, ..] => Ok(*id),
            [] => Err(self.0.error(WireError::Closed)),
        }
    }

    fn join(&mut self, sender: u32, channels: Range<u32>) -> Result<(), Error> {
        let at_a_time = if self.0.link.socket.is_stream() { STREAM_JOINS } else { DATAGRAM_JOINS };
        let mut request = Vec::with_capacity(at_a_time * packets::JOIN_BYTES);
        for first in channels.clone().step_by(at_a_time) {
            let some = first..first.saturating_add(at_a_time as u32).min(channels.end);
            request.clear();
            some.clone().for_each(|channel| packets::write_join(sender, channel, &mut request));
            self.0.ask(&request, some.len())?;
        }
        Ok(())
    }
}

/// Publishes packets.
#[derive(Debug, Clone, Copy)]
struct PacketSource {
    sender: u32,
    topology: Topology,
    size: usize,
}

impl Source for PacketSource {
    fn encode(&mut self, numbers: Range<u32>, out: &mut Vec<u8>) {
        out.reserve(numbers.len() * (packets::PUBLISH_HEADER_BYTES + self.size));
        for number in numbers {
            let channel = self.topology.channel_of(number);
            packets::write_publish(self.sender, channel, Number(number), self.size, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Audience;

    #[test]
    fn messages_go_to_the_channels_in_turn() {
        let topology = Topology { publishers: 1, channels: 2, audience: Audience::OfAll(1) };
        let mut source = PacketSource { sender: 5, topology, size: 8 };
        let mut out = Vec::new();
        source.encode(1..4, &mut out);
        assert_eq!(
            out,
            b"M\x05\0\0\0\x02\0\0\0\x08\0\0\x0000000001\
              M\x05\0\0\0\x01\0\0\0\x08\0\0\x0000000002\
              M\x05\0\0\0\x02\0\0\0\x08\0\0\x0000000003"
        );
    }
}
