//! What clients do: they connect, and ask.
//!
//! Requests over HTTP are carried out at once, since they have no machine of
//! their own: here is what the server's handlers do with the hub.

use std::collections::BTreeSet;
use std::slice;
use std::time::Duration;

use http::Request as HttpRequest;
use watchtower_hub::{ChannelName, Content, Position, Publish, Refused, SenderId, Start, WhenLagging};
use watchtower_protocols::http::{Form, Framing, HttpStream, Opening};
use watchtower_protocols::packets::PacketStream;
use watchtower_protocols::stream::StreamSession;
use watchtower_protocols::websocket::{Compression, Endpoint, Settings};
use watchtower_protocols::webtalk::{Gate, Link as Application};

use super::connection::Connection;
use super::disk::is_durable;
use super::model::{Publication, Refusal, Start as ModelStart, tells_presence};
use super::protocols::Party;
use super::script::{Ask, Protocol, Since};
use super::words::{self, Request};
use super::world::{Link, World};

/// The channels, by their numbers in a script.
const CHANNELS: [&str; 6] = ["2", "3", "6", "5", "1", "4"];

/// What the last of them is in some runs.
const NAME: &str = "news";

/// An id that nobody was given.
const STRANGER: u32 = 7;

/// A client mostly goes by one id, up to this of the numbers in a script.
const MOSTLY: u8 = 170;

/// How many messages there are not yet, when somebody has seen too many.
const TOO_MANY: u64 = 3;

/// What WebSockets agree on, each time another.
const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Deflate, Compression::DeflateSmall];

/// How often a stream says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The private link is open.
struct Open;

impl Gate for Open {
    fn is_locked(&self) -> bool {
        false
    }

    fn admits(&self, _secret: &[u8]) -> bool {
        true
    }
}

impl World {
    fn channel(&self, number: u8) -> ChannelName {
        let at = usize::from(number) % CHANNELS.len();
        let is_named = self.setting.has_names && at == CHANNELS.len() - 1;
        ChannelName::parse(if is_named { NAME } else { CHANNELS[at] }).expect("it is a name")
    }

    /// A client connects anew, if it is not connected.
    pub(super) fn connect(&mut self, client: usize) -> Result<(), String> {
        let it = &mut self.clients[client];
        if it.link.is_some() || it.protocol == Protocol::Udp {
            return Ok(());
        }
        it.connected += 1;
        let compression = COMPRESSIONS[(client + it.connected) % COMPRESSIONS.len()];
        let (protocol, model, now) = (it.protocol, &mut self.oracle.model, self.now);
        let (session, party): (Box<dyn StreamSession>, _) = match protocol {
            Protocol::Packets => {
                (Box::new(PacketStream::new(&self.hub, self.packets.clone())), model.open("tcp", true))
            }
            Protocol::WebRocket => {
                (self.accept(&self.rocket, compression), self.oracle.model.open("webrocket", true))
            }
            Protocol::Browser => {
                (self.accept(&self.browsers, compression), self.oracle.model.open("webtalk", true))
            }
            Protocol::Application => (
                Box::new(Application::new(&self.talk, std::sync::Arc::new(Open))),
                model.open("webtalk-private", true),
            ),
            Protocol::Lines | Protocol::Events | Protocol::Udp => return self.follow(client),
        };
        let connection = Connection::new(session, self.waker(client), self.setting.room, now);
        let link = Link::new(connection, Party::new(protocol, party, now));
        self.clients[client].link = Some(Link { compression, ..link });
        Ok(())
    }

    fn accept(&self, endpoint: &Endpoint, compression: Compression) -> Box<dyn StreamSession> {
        let (request, ()) = HttpRequest::new(()).into_parts();
        Box::new(endpoint.accept(&self.hub, &request, compression, Settings::default(), self.now))
    }

    /// A stream over HTTP, which goes on where the client was.
    fn follow(&mut self, client: usize) -> Result<(), String> {
        let channels: BTreeSet<_> =
            [client as u8, client as u8 * 2 + 1].map(|number| self.channel(number)).into();
        let id = self.clients[client].ids.first().copied().unwrap_or(STRANGER);
        if !self.is_registered(id)? {
            return Ok(());
        }
        let it = &self.clients[client];
        let resumes =
            !it.connected.is_multiple_of(4) && channels.iter().all(|name| it.seen.contains_key(name));
        let session = self.hub.open("http", WhenLagging::Close);
        session.resumes_by_position();
        let number = self.oracle.model.open("http", true);
        self.oracle.model.sessions.get_mut(&number).expect("it was opened").resumes = true;
        let mut openings = Vec::new();
        for name in channels {
            let asked = it.seen.get(&name).filter(|_| resumes).copied();
            let start = asked.map_or(Start::End, |(epoch, offset)| Start::After(Position { epoch, offset }));
            let result = session.subscribe(sender(id), &name, start, self.now);
            let expected = self.oracle.model.may_follow(id, &name).err();
            agree(&format!("a stream of {name}"), expected, result.as_ref().err().map(refusal_of))?;
            let Ok(joined) = result else {
                session.end_joins_on_close();
                drop(session);
                self.oracle.model.close(number, false);
                return Ok(());
            };
            let Position { epoch, offset } = joined.position;
            let start = ModelStart { asked, epoch, offset, recovered: joined.recovered };
            self.oracle.model.follow(number, id, &name, start)?;
            openings.push(Opening { channel: name, joined });
        }
        let (form, framing) = match it.protocol {
            Protocol::Lines => (Form::Ndjson, Framing::UntilClose),
            _ => (Form::Sse, Framing::Chunked),
        };
        let party = Party::new(it.protocol, number, self.now);
        let stream = HttpStream::new(session, form, framing, HEARTBEAT, &openings, resumes);
        let connection = Connection::new(Box::new(stream), self.waker(client), self.setting.room, self.now);
        self.clients[client].link = Some(Link::new(connection, party));
        Ok(())
    }

    /// Whether the hub knows a sender that a request over HTTP may name.
    fn is_registered(&mut self, id: u32) -> Result<bool, String> {
        let is_known = self.hub.is_registered(sender(id), self.now);
        let model = &mut self.oracle.model;
        let expected = if model.is_passing(id) { Err(Refusal::UnknownSender) } else { model.touch(id) };
        let came = is_known.then_some(()).ok_or(Refusal::UnknownSender).err();
        agree(&format!("a request of {id}"), expected.err(), came)?;
        Ok(is_known)
    }

    /// A client asks for something.
    pub(super) fn ask(&mut self, client: usize, ask: &Ask) -> Result<(), String> {
        let protocol = self.clients[client].protocol;
        if matches!(protocol, Protocol::Lines | Protocol::Events) {
            return self
                .request(client, ask)
                .map_err(|error| self.blame(client, &format!("{ask:?}: {error}")));
        }
        let Some(request) = self.words(client, ask) else { return Ok(()) };
        // Who publishes on a durable channel waits for the ledger: here that is for
        // requests over HTTP alone.
        if matches!(&request, Request::Publish { channel, .. } if is_durable(channel)) {
            return Ok(());
        }
        let it = &mut self.clients[client];
        if protocol == Protocol::Udp {
            let bytes = words::packet(&request);
            it.datagrams.extend(bytes.map(|bytes| (request, bytes)));
        } else if let Some(link) = it.link.as_mut().filter(|link| !link.ends_input) {
            link.send(protocol, request);
        }
        Ok(())
    }

    fn id(&self, client: usize, who: u8) -> u32 {
        let (known, own) = (&self.oracle.known, &self.clients[client].ids);
        match own.last() {
            Some(id) if who < MOSTLY => *id,
            _ => known.get(usize::from(who) % (known.len() + 1)).copied().unwrap_or(STRANGER),
        }
    }

    fn receiver(&self, to: u8) -> u32 {
        let known = &self.oracle.known;
        let at = usize::from(to) % known.len().max(1);
        known.get(at).copied().filter(|_| to < 240).unwrap_or(STRANGER)
    }

    /// What a client says that it has seen of a channel.
    fn position(&self, client: usize, channel: &ChannelName, since: Since) -> Option<Position> {
        let (epoch, offset) = *self.clients[client].seen.get(channel)?;
        let offset = match since {
            Since::Nothing => return None,
            Since::Seen { before } => offset.saturating_sub(before.into()),
            Since::TooMuch => offset + TOO_MANY,
        };
        Some(Position { epoch, offset })
    }

    /// The same for who has counted. No packet says an offset: whoever asks is taken
    /// to have seen all that there is.
    fn offset(&self, channel: &ChannelName, since: Since) -> u64 {
        let there_are = self.oracle.model.channels.get(channel).map_or(0, |channel| channel.log.len() as u64);
        match since {
            Since::Nothing => 0,
            Since::Seen { before } => there_are.saturating_sub(before.into()),
            Since::TooMuch => there_are + TOO_MANY,
        }
    }

    fn user(&self, user: u8) -> u32 {
        let users = &self.oracle.talk.users;
        users.keys().nth(usize::from(user) % (users.len() + 1)).copied().unwrap_or(STRANGER)
    }

    /// What a client asks for, of those who are there now.
    fn words(&mut self, client: usize, ask: &Ask) -> Option<Request> {
        self.contents += 1;
        let protocol = self.clients[client].protocol;
        let is_application = protocol == Protocol::Application;
        let who = |who: u8| if is_application { self.user(who) } else { self.id(client, who) };
        let content = |shape| words::content(shape, self.contents);
        Some(match *ask {
            Ask::Register { secret } => Request::Register { secret },
            Ask::KeepAlive => Request::KeepAlive,
            // That is how it asks for positions, from then on.
            Ask::Join { channel: name, .. }
                if protocol == Protocol::WebRocket && self.setting.needs_positions() =>
            {
                Request::Follow { channel: self.channel(name), since: None }
            }
            Ask::Join { who: id, channel: name } => {
                Request::Join { id: who(id), channel: self.channel(name) }
            }
            Ask::Follow { channel: name, since } => {
                let channel = self.channel(name);
                let since = self.position(client, &channel, since);
                Request::Follow { channel, since }
            }
            Ask::FollowFrom { who: id, channel: name, since } => {
                let channel = self.channel(name);
                // What is told of presence repeats itself: nobody could say which came.
                let is_told = tells_presence(&channel, self.setting);
                let since = if is_told { Since::Seen { before: 0 } } else { since };
                let offset = self.offset(&channel, since);
                Request::FollowFrom { id: who(id), channel, offset }
            }
            Ask::Leave { who: id, channel: name } => {
                Request::Leave { id: who(id), channel: self.channel(name) }
            }
            Ask::Publish { who: id, channel: name, content: shape } => Request::Publish {
                id: who(id),
                channel: self.channel(name),
                to: None,
                content: content(shape),
            },
            Ask::Send { who: id, channel: name, ref to, content: shape } => {
                let to = Some(to.iter().map(|to| self.receiver(*to)).collect());
                Request::Publish { id: who(id), channel: self.channel(name), to, content: content(shape) }
            }
            Ask::Authenticate { may_publish, is_right } => Request::Authenticate { may_publish, is_right },
            Ask::LogOut => Request::LogOut,
            Ask::Goodbye => Request::Goodbye,
            Ask::LogIn { user, is_right } => {
                let id = self.user(user);
                let salt = self.oracle.talk.users.get(&id).map(|user| user.salt.clone());
                Request::LogIn { id, salt: salt.unwrap_or_default(), is_right }
            }
            Ask::NewUser => Request::NewUser,
            Ask::KillUser { user } => Request::KillUser { id: self.user(user) },
            Ask::Whisper { user, content: shape } => {
                Request::Whisper { id: self.user(user), content: content(shape) }
            }
            Ask::NewChannel => Request::NewChannel,
            Ask::KillChannel { channel: name } => Request::KillChannel { channel: self.channel(name) },
            Ask::Rubbish(number) => Request::Rubbish(number),
            Ask::JoinToSend { .. } | Ask::PublishOnTwo { .. } => return None,
        })
    }

    // HTTP.

    fn request(&mut self, client: usize, ask: &Ask) -> Result<(), String> {
        let now = self.now;
        match ask {
            Ask::Register { .. } => {
                let expected = self.oracle.model.may_register().err();
                let result = self.hub.register(now);
                agree("a registration", expected, result.as_ref().err().map(refusal_of))?;
                let Ok(id) = result else { return Ok(()) };
                self.oracle.model.registered(id.get(), None)?;
                self.oracle.known.push(id.get());
                self.clients[client].ids.push(id.get());
                Ok(())
            }
            Ask::JoinToSend { who, channel: name } => {
                let (id, name) = (self.id(client, *who), self.channel(*name));
                if !self.is_registered(id)? {
                    return Ok(());
                }
                let expected = self.oracle.model.join_to_send(id, &name).err();
                let result = self.hub.join(sender(id), &[name], now);
                agree("a join", expected, result.err().as_ref().map(refusal_of))
            }
            Ask::Leave { who, channel: name } => {
                let (id, name) = (self.id(client, *who), self.channel(*name));
                if !self.is_registered(id)? {
                    return Ok(());
                }
                let expected = self.oracle.model.leave(id, &name).err();
                let result = self.hub.leave(sender(id), &name, now);
                agree("a leave", expected, result.err().as_ref().map(refusal_of))
            }
            Ask::Publish { who, channel: name, content } => {
                self.broadcast(self.id(client, *who), &[self.channel(*name)], None, *content)
            }
            Ask::PublishOnTwo { who, channels, content } => self.broadcast(
                self.id(client, *who),
                &channels.map(|number| self.channel(number)),
                None,
                *content,
            ),
            Ask::Send { who, channel: name, to, content } => {
                let to: Vec<u32> = to.iter().map(|to| self.receiver(*to)).collect();
                self.broadcast(self.id(client, *who), &[self.channel(*name)], Some(&to), *content)
            }
            _ => Ok(()),
        }
    }

    fn broadcast(
        &mut self,
        id: u32,
        channels: &[ChannelName],
        to: Option<&[u32]>,
        shape: super::script::Shape,
    ) -> Result<(), String> {
        if !self.is_registered(id)? {
            return Ok(());
        }
        self.contents += 1;
        let content = words::content(shape, self.contents);
        let mut message = Publish::new(content.clone()).by(sender(id));
        if let Some(to) = to {
            message = message.to(to);
        }
        if channels.iter().any(is_durable) {
            return self.submit(&channels[..1], message, id, to, content);
        }
        let result = self.hub.publish_all(channels, message, self.now);
        let publication =
            Publication { sender: id, is_guest: false, to: to.map(<[u32]>::to_vec), content, event_bytes: 0 };
        let expected = self.oracle.model.publish(channels, &publication);
        self.oracle.model.counted.refused += u64::from(expected.is_err());
        agree("a publication", expected.as_ref().err().copied(), result.as_ref().err().map(refusal_of))?;
        let positions = result.ok().map(|published| published.now().map_err(|_| "it is not known at once"));
        let positions = positions.transpose()?.and_then(Result::ok);
        let offsets = positions.map(|positions| positions.iter().map(|position| position.offset).collect());
        let expected: Option<Vec<u64>> = expected.ok();
        if offsets == expected {
            Ok(())
        } else {
            Err(format!("it stands at {offsets:?}, not at {expected:?}"))
        }
    }
}

impl World {
    /// A message to a durable channel, if the first is one.
    fn submit(
        &mut self,
        channels: &[ChannelName],
        message: Publish<'_>,
        id: u32,
        to: Option<&[u32]>,
        content: Content,
    ) -> Result<(), String> {
        let name = &channels[0];
        if !is_durable(name) {
            return Ok(());
        }
        let result = self.hub.publish_all(channels, message, self.now);
        let to = to.map(<[u32]>::to_vec);
        let publication = Publication { sender: id, is_guest: false, to, content, event_bytes: 0 };
        let judged = self.oracle.model.judge_all(channels, &publication).map(drop);
        let expected = judged.and_then(|()| self.oracle.model.may_submit(name)).err();
        self.oracle.model.counted.refused += u64::from(expected.is_some());
        agree("a durable publication", expected, result.as_ref().err().map(refusal_of))?;
        if let Ok(published) = result {
            self.oracle.model.submit(name.clone(), publication);
            self.awaited.push_back(published);
        }
        self.check_kept()
    }
}

impl World {
    /// Nothing is retained any more, so that channels may end.
    pub(super) fn end_retained(&mut self) -> Result<(), String> {
        let retaining = self.oracle.model.channels.iter().filter(|(_, channel)| channel.retained.is_some());
        let names: Vec<ChannelName> = retaining.map(|(name, _)| name.clone()).collect();
        for name in names {
            let content = Content::text("");
            let publication = Publication {
                sender: 0,
                is_guest: false,
                to: None,
                content: content.clone(),
                event_bytes: 0,
            };
            let expected = self.oracle.model.publish(slice::from_ref(&name), &publication).err();
            let result = self.hub.publish(&name, Publish::new(content), self.now);
            agree("a message without content", expected, result.as_ref().err().map(refusal_of))?;
        }
        self.settle()
    }
}

fn sender(id: u32) -> SenderId {
    SenderId::new(id).expect("nobody goes by 0 here")
}

fn refusal_of(refused: &Refused) -> Refusal {
    match refused {
        Refused::UnknownSender(_) | Refused::Closed => Refusal::UnknownSender,
        Refused::BoundElsewhere(_) => Refusal::BoundElsewhere,
        Refused::NotJoined { .. } => Refusal::NotJoined,
        Refused::NoSuchChannel { .. } => Refusal::NoSuchChannel,
        Refused::ReceiverNotJoined { .. } => Refusal::ReceiverNotJoined,
        Refused::TooLarge { .. } => Refusal::TooLarge,
        Refused::BadContent { .. } | Refused::ReservedEvent { .. } => Refusal::BadContent,
        Refused::Limit { .. } => Refusal::Limit,
        Refused::NotKept { .. } => Refusal::NotKept,
    }
}

fn agree(what: &str, expected: Option<Refusal>, refused: Option<Refusal>) -> Result<(), String> {
    if expected == refused {
        return Ok(());
    }
    Err(format!("{what}: the hub says {refused:?}, and {expected:?} is expected"))
}
