//! The door of other servers: subscriptions on a stream of records, or for nchan on a WebSocket.

use std::ops::Range;

use crate::doors::conversation::Conversation;
use crate::doors::{Door, Publisher, WebSocketDoor};
use crate::error::Error;
use crate::load::payload::Number;
use crate::load::records::{RecordCounter, Wire};
use crate::load::websocket::{self, Reading};
use crate::load::{Counter, Link, Socket, Source, nchan, publisher_name};
use crate::options::{Options, Protocol};
use crate::process::Addresses;
use crate::topology::Topology;

/// Subscriptions that are asked for at a time.
const SUBSCRIPTIONS: usize = 1000;

/// A server of another kind.
pub(crate) struct PeerDoor<'a> {
    addresses: Addresses,
    wire: Wire,
    topology: Topology,
    size: usize,
    first: Number,
    /// Whether publishers are subscribed.
    hears: bool,
    /// The options, where subscribers are WebSockets.
    websockets: Option<&'a Options>,
}

impl<'a> PeerDoor<'a> {
    pub(crate) fn new(options: &'a Options, addresses: Addresses, wire: Wire) -> Self {
        Self {
            addresses,
            wire,
            topology: options.topology(),
            size: options.size,
            first: options.first_number(),
            hears: options.protocol.publisher_hears(),
            websockets: (options.protocol == Protocol::Nchan).then_some(options),
        }
    }

    /// Connects, and subscribes to these channels.
    fn connect(&self, name: String, channels: Range<u32>) -> Result<Conversation, Error> {
        let socket = Socket::stream(self.addresses.tcp).map_err(Error::io(format!("connect {name}")))?;
        let counter = Counter::Records(RecordCounter::new(self.wire));
        let mut conversation = Conversation::new(socket, counter, name);
        let mut request = Vec::new();
        let answers = (self.wire.hello)(&mut request);
        conversation.ask(&request, answers)?;
        for first in channels.clone().step_by(SUBSCRIPTIONS) {
            let some = first..first.saturating_add(SUBSCRIPTIONS as u32).min(channels.end);
            request.clear();
            some.clone().for_each(|channel| (self.wire.subscribe)(channel, &mut request));
            conversation.ask(&request, some.len())?;
        }
        Ok(conversation)
    }

    /// A WebSocket that is subscribed to the channel of its path.
    fn connect_websocket(&self, options: &Options, name: String, channel: u32) -> Result<Link, Error> {
        let path = nchan::subscriber_path(channel);
        let mut door = WebSocketDoor::new(options, self.addresses, Reading::Content);
        door.path = &path;
        let mut conversation = door.connect(name, false)?;
        // The answer to a ping says that it is there to stay.
        let mut ping = Vec::new();
        websocket::write_ping(&mut ping);
        conversation.ask(&ping, 1)?;
        Ok(conversation.link)
    }
}

impl Door for PeerDoor<'_> {
    fn open_publisher(&mut self, index: u32) -> Result<Publisher, Error> {
        let Topology { publishers, .. } = self.topology;
        let name = publisher_name(index as usize, publishers as usize);
        let channels = if self.hears { self.topology.published_by(index) } else { 0..0 };
        let Link { socket, counter } = self.connect(name, channels)?.link;
        let next = self.topology.first_of(index, self.first);
        let counter = match self.hears {
            true => counter,
            false => Counter::InOrder { answers: Box::new(counter), next, step: publishers },
        };
        let source = PeerSource { wire: self.wire, topology: self.topology, size: self.size };
        Ok(Publisher { link: Link { socket, counter }, source: Box::new(source) })
    }

    fn open_subscriber(&mut self, index: u32) -> Result<Link, Error> {
        let (name, channels) = (format!("subscriber {index}"), self.topology.heard_by(index));
        match self.websockets {
            Some(options) => self.connect_websocket(options, name, channels.start),
            None => Ok(self.connect(name, channels)?.link),
        }
    }
}

struct PeerSource {
    wire: Wire,
    topology: Topology,
    size: usize,
}

impl Source for PeerSource {
    fn encode(&mut self, numbers: Range<u32>, out: &mut Vec<u8>) {
        for number in numbers {
            (self.wire.publish)(self.topology.channel_of(number), Number(number), self.size, out);
        }
    }
}
