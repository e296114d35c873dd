//! How subscribers and the publisher get in, one after the other, waiting for every answer. Each
//! family of protocols has a door of its own.

pub(crate) mod conversation;
mod packets;
mod webrocket;
mod webtalk;

use std::cell::RefCell;
use std::rc::Rc;

use crate::doors::conversation::Conversation;
use crate::doors::packets::PacketDoor;
use crate::doors::webrocket::WebRocketDoor;
use crate::doors::webtalk::WebTalkDoor;
use crate::error::Error;
use crate::load::inflater::Inflater;
use crate::load::websocket::{self, FrameCounter, Reading};
use crate::load::{Counter, Link, Publisher, Socket};
use crate::options::{Options, Protocol};
use crate::process::Addresses;
use crate::progress::{Phase, Progress};

/// A way into a server.
pub(crate) trait Door {
    /// A publisher of the topology, ready to publish.
    fn open_publisher(&mut self, index: u32) -> Result<Publisher, Error>;

    /// A subscriber of the topology that has joined its channels.
    fn open_subscriber(&mut self, index: u32) -> Result<Link, Error>;
}

/// The door that these options ask for.
pub(crate) fn door(options: &Options, addresses: Addresses) -> Result<Box<dyn Door + '_>, Error> {
    Ok(match options.protocol {
        Protocol::WebRocket => Box::new(WebRocketDoor::new(options, addresses)),
        Protocol::WebTalk => Box::new(WebTalkDoor::new(options, addresses)?),
        _ => Box::new(PacketDoor::new(options, addresses)),
    })
}

/// All publishers.
pub(crate) fn open_publishers(door: &mut dyn Door, count: u32) -> Result<Vec<Publisher>, Error> {
    (0..count).map(|index| door.open_publisher(index)).collect()
}

/// Subscribers that have all joined.
pub(crate) fn open_subscribers(
    door: &mut dyn Door,
    count: u32,
    progress: &mut dyn Progress,
) -> Result<Vec<Link>, Error> {
    progress.begin(Phase::Joining, count.into());
    let mut links = Vec::with_capacity(count as usize);
    for index in 0..count {
        links.push(door.open_subscriber(index)?);
        progress.done(links.len() as u64);
    }
    Ok(links)
}

/// A path that turns connections into WebSockets.
pub(crate) struct WebSocketDoor<'a> {
    pub(crate) addresses: Addresses,
    pub(crate) path: &'a str,
    pub(crate) reading: Reading,
    /// Whether subscribers deflate: then what they share.
    pub(crate) inflater: Option<Rc<RefCell<Inflater>>>,
}

impl<'a> WebSocketDoor<'a> {
    pub(crate) fn new(options: &'a Options, addresses: Addresses, reading: Reading) -> Self {
        let inflater = options.deflate.then(|| Rc::new(RefCell::new(Inflater::new())));
        Self { addresses, path: options.websocket_path(), reading, inflater }
    }

    /// Connects and shakes hands.
    pub(crate) fn connect(&self, name: String, deflate: bool) -> Result<Conversation, Error> {
        let socket = Socket::stream(self.addresses.tcp).map_err(Error::io(format!("connect {name}")))?;
        let inflater = self.inflater.clone().filter(|_| deflate);
        let counter = Counter::Frames(FrameCounter::new(self.reading, inflater));
        let mut conversation = Conversation::new(socket, counter, name);
        let mut request = Vec::new();
        websocket::write_upgrade(self.path, self.addresses.tcp, deflate, &mut request);
        conversation.send(&request)?;
        let mut answer = Vec::new();
        let mut upgraded = false;
        while !upgraded {
            conversation.receive(|counter, bytes| {
                answer.extend_from_slice(bytes);
                let Some(head) = websocket::read_upgrade(&answer, deflate)? else { return Ok(()) };
                upgraded = true;
                let frames = answer.get(head..).unwrap_or_default();
                counter.feed(frames, |_| ())
            })?;
        }
        Ok(conversation)
    }
}
