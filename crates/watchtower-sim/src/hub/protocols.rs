//! What a request comes to, by the words of the specification: the answer that
//! it must have, and what changes in the model.
//!
//! Knows no bytes and no hub.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use watchtower_hub::{ChannelName, Content, Counts, Position, Timestamp};

use super::ears::Item;
use super::model::{MESSAGE_BYTES_MAX, Message, Model, Publication, Refusal, SessionId, Start};
use super::script::{Protocol, Setting};
use super::words::Request;

/// The model of the hub, and of what protocols keep beside it.
pub(super) struct Oracle {
    pub(super) model: Model,
    pub(super) talk: Talk,
    /// The ids that somebody was given.
    pub(super) known: Vec<u32>,
    /// What the hub drew its ids from, in the last call.
    pub(super) drawn: Vec<u64>,
}

/// What WebTalk keeps.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) users: BTreeMap<u32, User>,
    channels: BTreeSet<u32>,
    last_channel: u32,
}

#[derive(Debug)]
pub(super) struct User {
    pub(super) session: SessionId,
    pub(super) salt: String,
    pub(super) has_browser: bool,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Party {
    pub(super) protocol: Protocol,
    pub(super) session: SessionId,
    /// Whether its last words were said.
    pub(super) is_closing: bool,
    /// When it last said something that was whole.
    pub(super) heard_at: Timestamp,
    /// When its session last had something to do, for one that has no clock.
    pub(super) seen: Timestamp,
    /// The sender of a WebRocket connection.
    sender: Option<u32>,
    /// What `auth` gave: 1 to read, 2 to write.
    access: u8,
    subscribed: BTreeSet<ChannelName>,
    /// The user whose browser it is.
    pub(super) user: Option<u32>,
    is_logged_in: bool,
}

type Items = VecDeque<Item>;
type Outcome = Result<(), String>;

impl Party {
    pub(super) fn new(protocol: Protocol, session: SessionId, now: Timestamp) -> Party {
        Party {
            protocol,
            session,
            is_closing: false,
            heard_at: now,
            seen: now,
            sender: None,
            access: 0,
            subscribed: BTreeSet::new(),
            user: None,
            is_logged_in: false,
        }
    }
}

impl Talk {
    fn new() -> Talk {
        Talk { users: BTreeMap::new(), channels: [1].into(), last_channel: 1 }
    }
}

impl Oracle {
    pub(super) fn new(setting: Setting, now: Timestamp) -> Oracle {
        let model = Model::new(setting, now, &Counts::default());
        Oracle { model, talk: Talk::new(), known: Vec::new(), drawn: Vec::new() }
    }

    /// A request was carried out, and answered by the first of `items`.
    pub(super) fn carry_out(&mut self, party: &mut Party, request: &Request, items: &mut Items) -> Outcome {
        party.heard_at = self.model.now;
        match party.protocol {
            Protocol::Packets | Protocol::Udp => self.packet(party, request, items),
            Protocol::WebRocket => self.command(party, request, items),
            Protocol::Browser => self.log_in(party, request, items),
            Protocol::Application => self.link(party, request, items),
            Protocol::Lines | Protocol::Events => Ok(()),
        }
    }

    // What all have in common.

    fn answer(&self, items: &mut Items, expected: &str) -> Outcome {
        match items.pop_front() {
            Some(Item::Answer(answer)) if answer == expected => Ok(()),
            other => Err(format!("the answer is to be `{expected}`, and was {other:?}")),
        }
    }

    fn last_words(&mut self, party: &mut Party, items: &mut Items, expected: &str) -> Outcome {
        party.is_closing = true;
        self.answer(items, expected)
    }

    /// Messages, as far as there are some.
    pub(super) fn messages(&mut self, party: &Party, items: &mut Items) -> Result<Vec<Rc<Message>>, String> {
        let mut heard = Vec::new();
        while let Some(Item::Message(message)) = items.front() {
            heard.push(self.model.heard(party.session, message)?);
            items.pop_front();
        }
        Ok(heard)
    }

    /// All messages that were published before now; none for one who lags.
    pub(super) fn all_messages(&mut self, party: &Party, items: &mut Items) -> Outcome {
        let may_lag = self.model.may_lag(party.session);
        self.messages(party, items)?;
        self.that_was_all(party, may_lag)
    }

    fn that_was_all(&mut self, party: &Party, may_lag: bool) -> Outcome {
        if may_lag && self.model.unheard(party.session).is_some() {
            return Ok(());
        }
        self.model.heard_all(party.session)
    }

    /// The server ends: all that was published comes, and then a word of the end.
    pub(super) fn farewell(&mut self, party: &mut Party, items: &mut Items) -> Outcome {
        let may_lag = self.model.may_lag(party.session);
        self.all_messages(party, items)?;
        let words = match party.protocol {
            Protocol::Packets | Protocol::Udp => "E 8",
            Protocol::Lines | Protocol::Events if may_lag => {
                items.clear();
                return Ok(());
            }
            Protocol::Lines | Protocol::Events => "error shutting_down",
            Protocol::WebRocket | Protocol::Browser => "close 1001",
            Protocol::Application => "[error] the server shuts down",
        };
        self.last_words(party, items, words)
    }

    fn count(&mut self, result: Result<(), Refusal>) -> Result<(), Refusal> {
        self.model.counted.refused += u64::from(result.is_err());
        result
    }

    // Packets.

    fn packet(&mut self, party: &mut Party, request: &Request, items: &mut Items) -> Outcome {
        let is_udp = party.protocol == Protocol::Udp;
        match request {
            Request::KeepAlive => self.answer(items, "A 0"),
            Request::Register { secret: Some(false) } => self.answer(items, "E 5"),
            Request::Register { .. } => {
                if self.model.may_register().is_err() {
                    return self.answer(items, "E 5");
                }
                let Some(Item::Answer(answer)) = items.pop_front() else { return Err("no id came".into()) };
                let id = answer.strip_prefix("A ").and_then(|id| id.parse().ok());
                let id = id.ok_or(format!("an id was to come, and {answer} did"))?;
                self.known.push(id);
                self.model.registered(id, Some(party.session))
            }
            Request::Join { id, channel } => {
                let result = self.model.join(party.session, *id, channel);
                self.acknowledge(items, channel, result)
            }
            Request::FollowFrom { id, channel, offset } => {
                let result = self.model.may_follow_here(party.session, *id, channel);
                if result.is_ok() {
                    let told = goes_on_elsewhere(items, channel);
                    self.model.follow_from(party.session, *id, channel, *offset, told)?;
                }
                self.acknowledge(items, channel, result)
            }
            Request::Leave { id, channel } => {
                let is_here = self.model.attach(party.session, *id).is_ok();
                if !is_udp || is_here {
                    let may_lag = self.model.may_lag(party.session);
                    self.messages(party, items)?;
                    if may_lag && matches!(items.front(), Some(Item::Answer(answer)) if answer == "E 8") {
                        self.model.counted.lagging += 1;
                        return self.last_words(party, items, "E 8");
                    }
                    self.that_was_all(party, may_lag)?;
                }
                let result = self.model.attach(party.session, *id).and_then(|()| {
                    if !self.model.has_joined(*id, channel) {
                        return Err(Refusal::NotJoined);
                    }
                    self.model.leave(*id, channel)
                });
                self.acknowledge(items, channel, result)
            }
            Request::Publish { content, .. } if content.bytes().len() > MESSAGE_BYTES_MAX => {
                self.bad_packet(party, items, "E 4")
            }
            Request::Publish { id, channel, to, content } => {
                let publication = Publication {
                    sender: *id,
                    is_guest: false,
                    to: to.clone(),
                    content: Content::sniff(content.bytes().clone()),
                    event_bytes: 0,
                };
                let attached = self.model.attach(party.session, *id);
                let channels = [channel.clone()];
                let result = attached.and_then(|()| self.model.publish(&channels, &publication)).map(drop);
                match self.count(result) {
                    Ok(()) => Ok(()),
                    Err(refusal) => self.answer(items, packet_error(refusal)),
                }
            }
            Request::Rubbish(number) => {
                self.bad_packet(party, items, if number % 2 == 0 { "E 1" } else { "E 4" })
            }
            _ => Ok(()),
        }
    }

    fn acknowledge(
        &mut self,
        items: &mut Items,
        channel: &ChannelName,
        result: Result<(), Refusal>,
    ) -> Outcome {
        match self.count(result) {
            Ok(()) => self.answer(items, &format!("A {channel}")),
            Err(refusal) => self.answer(items, packet_error(refusal)),
        }
    }

    /// What was published before a packet that closes the connection is
    /// delivered before the `E` ([packets: rules]).
    fn bad_packet(&mut self, party: &mut Party, items: &mut Items, error: &str) -> Outcome {
        if party.protocol == Protocol::Udp {
            return self.answer(items, error);
        }
        self.all_messages(party, items)?;
        self.last_words(party, items, error)
    }

    // WebRocket.

    fn command(&mut self, party: &mut Party, request: &Request, items: &mut Items) -> Outcome {
        match request {
            Request::Authenticate { may_publish, is_right: true } => {
                party.access = if *may_publish { 2 } else { 1 };
                self.answer(items, "ok")
            }
            Request::Authenticate { .. } => {
                party.access = 0;
                self.end_subscriptions(party, items)?;
                self.answer(items, "err invalid_credentials")
            }
            Request::LogOut => {
                party.access = 0;
                self.end_subscriptions(party, items)?;
                self.answer(items, "ok")
            }
            Request::Goodbye => {
                self.end_subscriptions(party, items)?;
                self.answer(items, "ok")?;
                self.all_messages(party, items)?;
                self.last_words(party, items, "close 1000")
            }
            Request::Join { channel, .. } => {
                if party.access < 1 {
                    return self.answer(items, "err access_denied");
                }
                let result = self.sender(party).and_then(|id| self.model.join(party.session, id, channel));
                if result.is_ok() {
                    party.subscribed.insert(channel.clone());
                }
                self.reply(items, result)
            }
            Request::Follow { channel, since } => {
                if party.access < 1 {
                    return self.answer(items, "err access_denied");
                }
                let sender = self.sender(party);
                let sender =
                    sender.and_then(|id| self.model.may_follow_here(party.session, id, channel).map(|()| id));
                let id = match sender {
                    Ok(id) => id,
                    Err(refusal) => return self.reply(items, Err(refusal)),
                };
                let Some(Item::Subscribed { position, recovered }) = items.pop_front() else {
                    return Err("it was not told where it goes on".into());
                };
                party.subscribed.insert(channel.clone());
                let Position { epoch, offset } = position;
                let asked = since.map(|position| (position.epoch, position.offset));
                self.model.follow_here(party.session, id, channel, Start { asked, epoch, offset, recovered })
            }
            Request::Leave { channel, .. } => {
                if party.subscribed.remove(channel) {
                    self.end_subscription(party, channel, items)?;
                }
                self.answer(items, "ok")
            }
            Request::Publish { channel, content, .. } => {
                if party.access < 2 {
                    return self.answer(items, "err access_denied");
                }
                let result = self.sender(party).and_then(|id| {
                    let content = content.clone();
                    let publication =
                        Publication { sender: id, is_guest: true, to: None, content, event_bytes: "e".len() };
                    self.model.publish(std::slice::from_ref(channel), &publication).map(drop)
                });
                self.reply(items, result)
            }
            Request::Rubbish(number) if number % 4 == 3 => self.last_words(party, items, "close 1002"),
            Request::Rubbish(_) => self.answer(items, "err invalid_data"),
            _ => Ok(()),
        }
    }

    fn reply(&mut self, items: &mut Items, result: Result<(), Refusal>) -> Outcome {
        let code = match self.count(result) {
            Ok(()) => return self.answer(items, "ok"),
            Err(Refusal::NoSuchChannel | Refusal::NotJoined) => "err invalid_channel",
            Err(Refusal::TooLarge | Refusal::BadContent | Refusal::ReceiverNotJoined) => "err invalid_data",
            Err(Refusal::Limit | Refusal::UnknownSender | Refusal::BoundElsewhere | Refusal::NotKept) => {
                "err access_denied"
            }
        };
        self.answer(items, code)
    }

    /// The sender of a connection, registered when it is first needed.
    fn sender(&mut self, party: &mut Party) -> Result<u32, Refusal> {
        if let Some(id) = party.sender {
            return Ok(id);
        }
        self.model.may_register()?;
        // Nothing but the hub knows it; it is drawn before anything else.
        let id = self.drawn.first().map_or(0, |drawn| *drawn as u32);
        self.model.registered_passing(id, party.session).map_err(|_| Refusal::UnknownSender)?;
        self.known.push(id);
        party.sender = Some(id);
        Ok(id)
    }

    fn end_subscriptions(&mut self, party: &mut Party, items: &mut Items) -> Outcome {
        for channel in std::mem::take(&mut party.subscribed) {
            self.end_subscription(party, &channel, items)?;
        }
        Ok(())
    }

    fn end_subscription(&mut self, party: &Party, channel: &ChannelName, items: &mut Items) -> Outcome {
        self.all_messages(party, items)?;
        let id = party.sender.ok_or("it is subscribed, and has no sender")?;
        // Who is gone has left already.
        let _ = self.model.leave(id, channel);
        Ok(())
    }

    // WebTalk.

    fn log_in(&mut self, party: &mut Party, request: &Request, items: &mut Items) -> Outcome {
        if let Request::Rubbish(number) = request
            && number % 2 == 0
        {
            return self.last_words(party, items, "close 1002");
        }
        if party.user.is_some() || matches!(request, Request::Pong | Request::Rubbish(_)) {
            return Ok(());
        }
        let login = match request {
            Request::LogIn { id, salt, is_right: true } => {
                let user = self.talk.users.get(id);
                user.filter(|user| user.salt == *salt && !user.has_browser).map(|user| (*id, user.session))
            }
            _ => None,
        };
        let login = login.filter(|(id, session)| self.model.attach(*session, *id).is_ok());
        let Some((id, session)) = login else { return self.last_words(party, items, "close 4001") };
        self.model.close(party.session, false);
        party.session = session;
        party.user = Some(id);
        party.is_logged_in = true;
        self.talk.users.get_mut(&id).expect("it was found").has_browser = true;
        let session = self.model.sessions.get_mut(&session).expect("a user has a session");
        (session.closes, session.was_behind) = (true, false);
        Ok(())
    }

    fn link(&mut self, party: &mut Party, request: &Request, items: &mut Items) -> Outcome {
        let result = match request {
            Request::NewUser => return self.new_user(items),
            Request::Goodbye => return self.last_words(party, items, "[ok] goodbye"),
            Request::Rubbish(0 | 3 | 6) => Err("a command stands in brackets"),
            Request::Rubbish(number) => match number % 3 {
                0 => Err("a command stands in brackets"),
                1 => Err("unknown command"),
                _ => {
                    let words = "[error] a frame begins with its length in five digits";
                    return self.last_words(party, items, words);
                }
            },
            Request::KillUser { id } => self.kill_user(*id).map(|()| "user killed".to_owned()),
            Request::Whisper { id, content } => {
                self.whisper(*id, content).map(|()| "message sent".to_owned())
            }
            Request::NewChannel => self.new_channel(),
            Request::KillChannel { channel } => {
                self.kill_channel(channel).map(|()| "channel killed".to_owned())
            }
            Request::Publish { channel, content, .. } => {
                self.shout(channel, content).map(|()| "message sent".to_owned())
            }
            Request::Join { id, channel } => self.user_joins(*id, channel).map(|()| "user joined".to_owned()),
            Request::Leave { id, channel } => {
                self.user_leaves(*id, channel).map(|()| "user leaved".to_owned())
            }
            _ => return Ok(()),
        };
        match result {
            Ok(words) => self.answer(items, &format!("[ok] {words}")),
            Err(sentence) => self.answer(items, &format!("[error] {sentence}")),
        }
    }

    fn new_user(&mut self, items: &mut Items) -> Outcome {
        let model = &mut self.model;
        let one = ChannelName::from(1);
        let may_join = model.setting.channels_per_sender_max > 0
            && (model.channels.contains_key(&one) || model.channels.len() < model.setting.channels_max);
        let session = model.open("webtalk", false);
        if model.may_register().is_err() || !may_join {
            model.close(session, true);
            return self.answer(items, "[error] a limit of the server is reached");
        }
        let Some(Item::Answer(answer)) = items.pop_front() else { return Err("no user came".into()) };
        let user = answer.strip_prefix("[ok] ").and_then(|user| user.split_once('!'));
        let (id, salt) = user.ok_or(format!("a user was to come, and {answer} did"))?;
        let id: u32 = id.parse().map_err(|_| format!("{answer} has no id"))?;
        self.known.push(id);
        self.model.registered_passing(id, session)?;
        self.model.join(session, id, &one).map_err(|refusal| format!("{refusal:?}"))?;
        self.talk.users.insert(id, User { session, salt: salt.to_owned(), has_browser: false });
        Ok(())
    }

    pub(super) fn kill_user(&mut self, id: u32) -> Result<(), &'static str> {
        let user = self.talk.users.remove(&id).ok_or("unknown user")?;
        self.model.unregister(id, self.model.now);
        if !user.has_browser {
            self.model.close(user.session, true);
        }
        Ok(())
    }

    fn whisper(&mut self, id: u32, content: &Content) -> Result<(), &'static str> {
        let session = self.talk.users.get(&id).ok_or("unknown user")?.session;
        let content = Content::sniff(content.bytes().clone());
        let result = self.model.whisper(session, content);
        self.count(result).map_err(link_error)
    }

    fn new_channel(&mut self) -> Result<String, &'static str> {
        if self.talk.channels.len() >= self.model.setting.channels_max {
            return Err("a limit of the server is reached");
        }
        self.talk.last_channel += 1;
        self.talk.channels.insert(self.talk.last_channel);
        Ok(self.talk.last_channel.to_string())
    }

    fn talk_channel(&self, channel: &ChannelName) -> Result<u32, &'static str> {
        let number = channel.number().filter(|number| self.talk.channels.contains(number));
        number.ok_or("unknown channel")
    }

    fn kill_channel(&mut self, channel: &ChannelName) -> Result<(), &'static str> {
        let number = self.talk_channel(channel)?;
        if number == 1 {
            return Err("channel 1 cannot be killed");
        }
        self.talk.channels.remove(&number);
        let users: Vec<u32> = self.talk.users.keys().copied().collect();
        for id in users.into_iter().filter(|id| self.model.has_joined(*id, channel)).collect::<Vec<_>>() {
            let _ = self.model.leave(id, channel);
        }
        Ok(())
    }

    fn shout(&mut self, channel: &ChannelName, content: &Content) -> Result<(), &'static str> {
        self.talk_channel(channel)?;
        let content = Content::sniff(content.bytes().clone());
        let publication = Publication { sender: 0, is_guest: false, to: None, content, event_bytes: 0 };
        let result = self.model.publish(std::slice::from_ref(channel), &publication).map(drop);
        self.count(result).map_err(link_error)
    }

    fn user_joins(&mut self, id: u32, channel: &ChannelName) -> Result<(), &'static str> {
        self.talk_channel(channel)?;
        let session = self.talk.users.get(&id).ok_or("unknown user")?.session;
        let result = self.model.join(session, id, channel);
        self.count(result).map_err(link_error)
    }

    fn user_leaves(&mut self, id: u32, channel: &ChannelName) -> Result<(), &'static str> {
        self.talk_channel(channel)?;
        self.talk.users.get(&id).ok_or("unknown user")?;
        self.model.leave(id, channel).map_err(link_error)
    }

    // The end.

    /// A connection said its last words: a browser's user may log in again.
    pub(super) fn closes(&mut self, party: &mut Party) {
        let Some(id) = party.user.filter(|_| party.is_logged_in) else { return };
        party.is_logged_in = false;
        let Some(session) = self.model.sessions.get_mut(&party.session) else { return };
        match self.talk.users.get_mut(&id).filter(|user| user.session == party.session) {
            Some(user) => {
                user.has_browser = false;
                (session.closes, session.was_behind) = (false, false);
            }
            None => session.whispers = None,
        }
    }

    /// A connection is over; whether it was the last one of its session.
    pub(super) fn ended(&mut self, mut party: Party, is_last: bool) {
        self.closes(&mut party);
        if let Some(id) = party.sender {
            self.model.unregister(id, party.seen);
        }
        let is_kept = |id: &u32| self.talk.users.get(id).is_some_and(|user| user.session == party.session);
        if is_last && !party.user.as_ref().is_some_and(is_kept) {
            self.model.close(party.session, party.protocol != Protocol::WebRocket);
        }
    }
}

/// After which offset a channel goes on, if that is said behind an acknowledgement:
/// then it is not where the client was.
fn goes_on_elsewhere(items: &mut Items, channel: &ChannelName) -> Option<u64> {
    let Some(Item::Answer(answer)) = items.get(1) else { return None };
    let after = answer.strip_prefix(&format!("E 9 channel {channel} goes on after "))?.parse().ok()?;
    items.remove(1);
    Some(after)
}

/// [packets: error codes]
fn packet_error(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownSender | Refusal::BoundElsewhere => "E 2",
        Refusal::NotJoined | Refusal::NoSuchChannel => "E 3",
        Refusal::TooLarge => "E 4",
        Refusal::Limit | Refusal::NotKept => "E 5",
        Refusal::ReceiverNotJoined => "E 6",
        Refusal::BadContent => "E 7",
    }
}

/// [webtalk: private link]
fn link_error(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::TooLarge => "too large",
        Refusal::BadContent => "the channel does not accept this message",
        Refusal::Limit => "a limit of the server is reached",
        _ => "unknown user",
    }
}
