//! The door of WebRocket: a hub's path, its secrets, and channels named by their numbers.
//!
//! The publisher is one more connection, with read-write access. It subscribes to nothing: the
//! hub's answer to each `publish` stands for its copy.

use std::ops::Range;

use crate::error::Error;
use crate::fanout::door::{Door, Publisher, WebSocketDoor};
use crate::fanout::options::FanoutOptions;
use crate::load::payload::Number;
use crate::load::webrocket::{self, Access};
use crate::load::websocket::Reading;
use crate::load::{Counter, Link, Source};
use crate::process::Addresses;

/// Subscriptions that are asked for at a time.
const SUBSCRIPTIONS: usize = 1000;

/// A hub, and what is subscribed to there.
pub(crate) struct WebRocketDoor<'a> {
    socket: WebSocketDoor<'a>,
    read_write: &'a str,
    /// `None`: subscribers use the other one.
    read_only: Option<&'a str>,
    /// Channels 1 to this are subscribed to.
    channels: u32,
    size: usize,
    first: Number,
}

impl<'a> WebRocketDoor<'a> {
    pub(crate) fn new(options: &'a FanoutOptions, addresses: Addresses) -> Self {
        Self {
            socket: WebSocketDoor::new(options, addresses, Reading::WebRocket),
            read_write: options.secret.as_deref().unwrap_or_default(),
            read_only: options.read_only_secret.as_deref(),
            channels: options.channels,
            size: options.size,
            first: options.first_number(),
        }
    }
}

impl Door for WebRocketDoor<'_> {
    fn open_publisher(&mut self) -> Result<Publisher, Error> {
        let mut conversation = self.socket.connect("the publisher".into(), false)?;
        // A channel is there once somebody has subscribed to it.
        let mut request = Vec::new();
        webrocket::write_auth(Access::ReadWrite, self.read_write, &mut request);
        conversation.ask(&request, 1)?;
        let Link { socket, counter } = conversation.link;
        let counter = Counter::InOrder { answers: Box::new(counter), next: self.first };
        let source = WebRocketSource { channels: self.channels, size: self.size };
        Ok(Publisher { link: Link { socket, counter }, source: Box::new(source) })
    }

    fn open_subscriber(&mut self, name: String) -> Result<Link, Error> {
        let mut conversation = self.socket.connect(name, self.socket.inflater.is_some())?;
        let mut request = Vec::new();
        match self.read_only {
            Some(secret) => webrocket::write_auth(Access::ReadOnly, secret, &mut request),
            None => webrocket::write_auth(Access::ReadWrite, self.read_write, &mut request),
        }
        conversation.ask(&request, 1)?;
        for first in (1..=self.channels).step_by(SUBSCRIPTIONS) {
            let last = first.saturating_add(SUBSCRIPTIONS as u32 - 1).min(self.channels);
            request.clear();
            for channel in first..=last {
                webrocket::write_subscribe(channel, &mut request);
            }
            conversation.ask(&request, (last - first + 1) as usize)?;
        }
        Ok(conversation.link)
    }
}

/// Publishes to channels 1 to `channels` in turn.
struct WebRocketSource {
    channels: u32,
    size: usize,
}

impl Source for WebRocketSource {
    fn encode(&mut self, numbers: Range<u32>, out: &mut Vec<u8>) {
        for number in numbers {
            webrocket::write_publish(1 + number % self.channels, Number(number), self.size, out);
        }
    }
}
