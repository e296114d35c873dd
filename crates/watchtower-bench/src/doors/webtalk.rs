//! The door of WebTalk: the private link makes channels and users, who log in over WebSocket.
//!
//! The publisher is the application on the private link. Its reply to each `[shout]` stands for a
//! copy.

use std::net::SocketAddr;
use std::ops::Range;

use crate::doors::{Door, Publisher, WebSocketDoor};
use crate::error::{Error, WireError};
use crate::load::payload::Number;
use crate::load::websocket::{self, Reading};
use crate::load::webtalk::{self, ReplyReader};
use crate::load::{Counter, Link, Socket, Source, publisher_name};
use crate::options::Options;
use crate::process::Addresses;
use crate::topology::Topology;

/// Commands that are given at a time.
const COMMANDS: usize = 1000;

/// What one read of replies takes.
const REPLY_READ_BYTES: usize = 16 * 1024;

/// A server with both of its faces.
pub(crate) struct WebTalkDoor<'a> {
    socket: WebSocketDoor<'a>,
    private: SocketAddr,
    secret: Option<&'a str>,
    topology: Topology,
    size: usize,
    first: Number,
    /// What makes users, once there are channels for them.
    application: Option<Application>,
}

impl<'a> WebTalkDoor<'a> {
    pub(crate) fn new(options: &'a Options, addresses: Addresses) -> Result<Self, Error> {
        let private = addresses.webtalk_private.ok_or_else(|| {
            Error::Options("WebTalk is off at this server: it has told of no private link".into())
        })?;
        Ok(Self {
            socket: WebSocketDoor::new(options, addresses, Reading::WebTalk),
            private,
            secret: options.secret.as_deref(),
            topology: options.topology(),
            size: options.size,
            first: options.first_number(),
            application: None,
        })
    }

    /// The application, which makes the channels when it is first asked for.
    fn application(&mut self) -> Result<&mut Application, Error> {
        if self.application.is_none() {
            let link = self.login("the private link".into())?;
            let mut application = Application { link, channels: Vec::new(), users: Vec::new() };
            application.make_channels(self.topology.channels)?;
            self.application = Some(application);
        }
        self.application.as_mut().ok_or_else(|| Error::peer("the private link")(WireError::Closed))
    }

    /// A private link on which commands may be given.
    fn login(&self, name: String) -> Result<PrivateLink, Error> {
        let socket = Socket::stream(self.private).map_err(Error::io(format!("connect {name}")))?;
        let mut link = PrivateLink { socket, replies: ReplyReader::default(), name };
        if let Some(secret) = self.secret {
            let mut login = Vec::new();
            webtalk::write_command("login", secret, &mut login);
            link.ask(&login, 1)?;
        }
        Ok(link)
    }
}

impl Door for WebTalkDoor<'_> {
    fn open_publisher(&mut self, index: u32) -> Result<Publisher, Error> {
        let channels = self.application()?.channels.clone();
        let Topology { publishers, .. } = self.topology;
        let name = publisher_name(index as usize, publishers as usize);
        let PrivateLink { socket, .. } = self.login(name)?;
        let answers = Box::new(Counter::Replies(ReplyReader::default()));
        let next = self.topology.first_of(index, self.first);
        let counter = Counter::InOrder { answers, next, step: publishers };
        let source = WebTalkSource { channels, topology: self.topology, size: self.size };
        Ok(Publisher { link: Link { socket, counter }, source: Box::new(source) })
    }

    fn open_subscriber(&mut self, index: u32) -> Result<Link, Error> {
        let channels = self.topology.heard_by(index);
        let login = self.application()?.make_user(channels)?;
        let mut conversation =
            self.socket.connect(format!("subscriber {index}"), self.socket.inflater.is_some())?;
        let mut request = Vec::new();
        websocket::write_text(login.as_bytes(), &mut request);
        // A login has no answer, so that of a ping stands for it.
        websocket::write_ping(&mut request);
        conversation.ask(&request, 1)?;
        Ok(conversation.link)
    }
}

/// A private link on which replies are waited for.
struct PrivateLink {
    socket: Socket,
    replies: ReplyReader,
    name: String,
}

impl PrivateLink {
    /// Sends, and waits for so many replies.
    fn ask(&mut self, request: &[u8], replies: usize) -> Result<Vec<String>, Error> {
        self.socket.send(request).map_err(Error::io(format!("write to {}", self.name)))?;
        let mut told = Vec::with_capacity(replies);
        let mut buffer = vec![0; REPLY_READ_BYTES];
        while told.len() < replies {
            let length = self.socket.receive(&mut buffer, &self.name)?;
            let bytes = buffer.get(..length).unwrap_or_default();
            let fed = self.replies.feed(bytes, |reply| told.push(reply.to_owned()));
            fed.map_err(Error::peer(self.name.as_str()))?;
        }
        Ok(told)
    }

    fn id(&self, text: &str) -> Result<u64, Error> {
        text.parse().map_err(|_| Error::peer(self.name.as_str())(WireError::Framing("an id is not a number")))
    }
}

/// An application, and what it has made.
struct Application {
    link: PrivateLink,
    channels: Vec<u64>,
    users: Vec<u64>,
}

impl Application {
    fn make_channels(&mut self, count: u32) -> Result<(), Error> {
        let mut left = count as usize;
        while left > 0 {
            let now = left.min(COMMANDS);
            let mut request = Vec::new();
            for _ in 0..now {
                webtalk::write_command("newchannel", "", &mut request);
            }
            for id in self.link.ask(&request, now)? {
                let id = self.link.id(&id)?;
                self.channels.push(id);
            }
            left -= now;
        }
        Ok(())
    }

    /// A user in these of the channels, by what it logs in with.
    fn make_user(&mut self, channels: Range<u32>) -> Result<String, Error> {
        let mut request = Vec::new();
        webtalk::write_command("newuser", "", &mut request);
        let login = self.link.ask(&request, 1)?.pop().unwrap_or_default();
        let user = self.link.id(login.split('!').next().unwrap_or_default())?;
        self.users.push(user);
        let channels = channels.start as usize - 1..channels.end as usize - 1;
        let channels = self.channels.get(channels).unwrap_or_default().to_vec();
        self.each(&channels, "join", |channel| format!("{channel}!{user}"))?;
        Ok(login)
    }

    /// Gives the same command about each of these.
    fn each(&mut self, ids: &[u64], command: &str, about: impl Fn(u64) -> String) -> Result<(), Error> {
        for ids in ids.chunks(COMMANDS) {
            let mut request = Vec::new();
            ids.iter().for_each(|id| webtalk::write_command(command, &about(*id), &mut request));
            self.link.ask(&request, ids.len())?;
        }
        Ok(())
    }
}

/// A server that goes on is left without the users and channels of the bench, which would keep
/// what is shouted to them.
impl Drop for Application {
    fn drop(&mut self) {
        let (users, channels) = (std::mem::take(&mut self.users), std::mem::take(&mut self.channels));
        // A server that has ended has forgotten them.
        let _ = self
            .each(&users, "killuser", |user| user.to_string())
            .and_then(|()| self.each(&channels, "killchannel", |channel| channel.to_string()));
    }
}

struct WebTalkSource {
    /// Their ids there. Invariant: as many as the topology has.
    channels: Vec<u64>,
    topology: Topology,
    size: usize,
}

impl Source for WebTalkSource {
    fn encode(&mut self, numbers: Range<u32>, out: &mut Vec<u8>) {
        for number in numbers {
            let channel = self.channels[self.topology.channel_of(number) as usize - 1];
            webtalk::write_shout(channel, Number(number), self.size, out);
        }
    }
}
