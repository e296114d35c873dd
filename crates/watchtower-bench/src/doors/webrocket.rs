//! The door of WebRocket: a hub's path, its secrets, and channels named by their numbers.
//!
//! The publisher is one more connection, with read-write access. It subscribes to nothing: the
//! hub's answer to each `publish` stands for its copy.

use std::ops::Range;

use crate::doors::{Door, Publisher, WebSocketDoor};
use crate::error::Error;
use crate::load::payload::Number;
use crate::load::webrocket::{self, Access};
use crate::load::websocket::Reading;
use crate::load::{Counter, Link, Source, publisher_name};
use crate::options::Options;
use crate::process::Addresses;
use crate::topology::Topology;

/// Subscriptions that are asked for at a time.
const SUBSCRIPTIONS: usize = 1000;

/// A hub, and what is subscribed to there.
pub(crate) struct WebRocketDoor<'a> {
    socket: WebSocketDoor<'a>,
    read_write: &'a str,
    /// `None`: subscribers use the other one.
    read_only: Option<&'a str>,
    topology: Topology,
    size: usize,
    first: Number,
}

impl<'a> WebRocketDoor<'a> {
    pub(crate) fn new(options: &'a Options, addresses: Addresses) -> Self {
        Self {
            socket: WebSocketDoor::new(options, addresses, Reading::WebRocket),
            read_write: options.secret.as_deref().unwrap_or_default(),
            read_only: options.read_only_secret.as_deref(),
            topology: options.topology(),
            size: options.size,
            first: options.first_number(),
        }
    }
}

impl Door for WebRocketDoor<'_> {
    fn open_publisher(&mut self, index: u32) -> Result<Publisher, Error> {
        let Topology { publishers, .. } = self.topology;
        let name = publisher_name(index as usize, publishers as usize);
        let mut conversation = self.socket.connect(name, false)?;
        // A channel is there once somebody has subscribed to it.
        let mut request = Vec::new();
        webrocket::write_auth(Access::ReadWrite, self.read_write, &mut request);
        conversation.ask(&request, 1)?;
        let Link { socket, counter } = conversation.link;
        let next = self.topology.first_of(index, self.first);
        let counter = Counter::InOrder { answers: Box::new(counter), next, step: publishers };
        let source = WebRocketSource { topology: self.topology, size: self.size };
        Ok(Publisher { link: Link { socket, counter }, source: Box::new(source) })
    }

    fn open_subscriber(&mut self, index: u32) -> Result<Link, Error> {
        let name = format!("subscriber {index}");
        let mut conversation = self.socket.connect(name, self.socket.inflater.is_some())?;
        let mut request = Vec::new();
        match self.read_only {
            Some(secret) => webrocket::write_auth(Access::ReadOnly, secret, &mut request),
            None => webrocket::write_auth(Access::ReadWrite, self.read_write, &mut request),
        }
        conversation.ask(&request, 1)?;
        let channels = self.topology.heard_by(index);
        for first in channels.clone().step_by(SUBSCRIPTIONS) {
            let some = first..first.saturating_add(SUBSCRIPTIONS as u32).min(channels.end);
            request.clear();
            some.clone().for_each(|channel| webrocket::write_subscribe(channel, &mut request));
            conversation.ask(&request, some.len())?;
        }
        Ok(conversation.link)
    }
}

struct WebRocketSource {
    topology: Topology,
    size: usize,
}

impl Source for WebRocketSource {
    fn encode(&mut self, numbers: Range<u32>, out: &mut Vec<u8>) {
        for number in numbers {
            webrocket::write_publish(self.topology.channel_of(number), Number(number), self.size, out);
        }
    }
}
