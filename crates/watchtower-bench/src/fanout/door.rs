//! How subscribers and the publisher get in, one after the other, waiting for every answer. Each
//! family of protocols has a door of its own.

use std::cell::RefCell;
use std::rc::Rc;

use crate::error::{Error, WireError};
use crate::fanout::conversation::Conversation;
use crate::fanout::options::{FanoutOptions, Protocol};
use crate::fanout::packets::PacketDoor;
use crate::fanout::webrocket::WebRocketDoor;
use crate::fanout::webtalk::WebTalkDoor;
use crate::load::inflater::Inflater;
use crate::load::websocket::{self, FrameCounter, Reading};
use crate::load::{Counter, Link, Socket, Source};
use crate::process::Addresses;
use crate::progress::{Phase, Progress};

/// A way into a server.
pub(crate) trait Door {
    /// What publishes, ready to do so.
    fn open_publisher(&mut self) -> Result<Publisher, Error>;

    /// A subscriber that has joined; called after [`Door::open_publisher`].
    fn open_subscriber(&mut self, name: String) -> Result<Link, Error>;
}

/// A connection, and what is written to it to publish.
pub(crate) struct Publisher {
    /// Gets a copy of each message, or an answer that stands for it.
    pub(crate) link: Link,
    pub(crate) source: Box<dyn Source>,
}

/// The door that these options ask for.
pub(crate) fn door(options: &FanoutOptions, addresses: Addresses) -> Result<Box<dyn Door + '_>, Error> {
    let FanoutOptions { protocol, channels, size, .. } = *options;
    let secret = options.secret.as_deref();
    Ok(match protocol {
        Protocol::WebRocket => Box::new(WebRocketDoor::new(options, addresses)),
        Protocol::WebTalk => Box::new(WebTalkDoor::new(options, addresses)?),
        _ => Box::new(PacketDoor::new(addresses, protocol, secret, channels, size)),
    })
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
        links.push(door.open_subscriber(format!("subscriber {index}"))?);
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
    pub(crate) fn new(options: &'a FanoutOptions, addresses: Addresses, reading: Reading) -> Self {
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

/// For a protocol whose door is opened in the wrong order.
pub(crate) fn nobody_publishes() -> Error {
    Error::peer("the publisher")(WireError::Closed)
}
