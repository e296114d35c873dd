//! A channel's log: what is taken, from whom, and for how long.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use watchtower_hub::{ChannelName, Content, ContentKind, Timestamp};

use super::super::disk::is_durable;
use super::super::script::Setting;
use super::{
    Announcements, Channel, ENTRY_BYTES, HISTORY_TTL, MESSAGE_BYTES_MAX, Message, Model, RETAINING, Refusal,
    SESSION_TTL, SessionId, Subscription, Whispers,
};

/// A stream's channel has this after what was handed out for at least so long.
const TRAIL: Duration = Duration::from_secs(8);

/// A message on its way into a channel.
#[derive(Debug, Clone)]
pub(in super::super) struct Publication {
    /// 0: the server itself.
    pub(in super::super) sender: u32,
    /// Whether its sender need not have joined.
    pub(in super::super) is_guest: bool,
    pub(in super::super) to: Option<Vec<u32>>,
    pub(in super::super) content: Content,
    /// What is beside the content, in bytes.
    pub(in super::super) event_bytes: usize,
}

/// Whether a channel has a history.
pub(in super::super) fn has_history(name: &ChannelName) -> bool {
    name.number() == Some(3)
}

/// Whether a channel retains its last message.
fn retains(name: &ChannelName, setting: Setting) -> bool {
    setting.retains && name.to_string() == RETAINING
}

/// Whether a channel takes JSON alone.
fn takes_json(name: &ChannelName) -> bool {
    name.number() == Some(5)
}

impl Model {
    /// The channel of that name, made when there is none.
    pub(super) fn channel(&mut self, name: &ChannelName) -> &mut Channel {
        let unused_until = self.ticked.after(SESSION_TTL);
        let put_aside = &mut self.put_aside;
        self.channels
            .entry(name.clone())
            .or_insert_with(|| Channel { unused_until, ..put_aside.remove(name).unwrap_or_default() })
    }

    /// The durable channels, and what they keep.
    pub(in super::super) fn durable(&self) -> impl Iterator<Item = (&ChannelName, &[Rc<Message>])> {
        let all = self.channels.iter().chain(&self.put_aside);
        all.filter(|(name, _)| is_durable(name)).map(|(name, channel)| (name, channel.log.as_slice()))
    }

    /// A channel leaves memory. One that is durable goes on later.
    pub(in super::super) fn put_aside(&mut self, name: &ChannelName) {
        let channel =
            self.channels.remove(name).filter(|channel| is_durable(name) && !channel.log.is_empty());
        let begins_anew = |channel| Channel { announcements: Announcements::default(), ..channel };
        self.put_aside.extend(channel.map(|channel| (name.clone(), begins_anew(channel))));
    }

    /// The same durable channels, and nothing else.
    pub(in super::super) fn after_restart(mut self) -> Model {
        let names: Vec<_> = self.channels.keys().cloned().collect();
        for name in names {
            if let Some(channel) = self.channels.get_mut(&name) {
                channel.members.clear();
            }
            self.put_aside(&name);
        }
        let anew = Model::new(self.setting, self.now, &watchtower_hub::Counts::default());
        Model { put_aside: self.put_aside, ..anew }
    }

    /// Publishes on all of the channels, or on none.
    pub(in super::super) fn publish(
        &mut self,
        names: &[ChannelName],
        publication: &Publication,
    ) -> Result<Vec<u64>, Refusal> {
        for (name, content) in self.judge_all(names, publication)? {
            self.append(&name, publication, content);
        }
        Ok(names.iter().map(|name| self.channels[name].next_offset() - 1).collect())
    }

    /// What each of the channels is to be given, in the order of their names.
    pub(in super::super) fn judge_all(
        &mut self,
        names: &[ChannelName],
        publication: &Publication,
    ) -> Result<Vec<(ChannelName, Content)>, Refusal> {
        if publication.content.bytes().len() > MESSAGE_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        if publication.sender != 0 {
            self.touch(publication.sender)?;
        }
        let sorted: BTreeSet<_> = names.iter().collect();
        // Channels are looked for before anything is judged.
        let mut made = 0;
        for name in &sorted {
            let is_there = self.channels.contains_key(*name);
            match publication {
                _ if is_there => {}
                Publication { sender: 0, .. } => made += 1,
                Publication { is_guest: true, .. } => return Err(Refusal::NoSuchChannel),
                _ => return Err(Refusal::NotJoined),
            }
        }
        if made > 0 && self.channels.len() + made > self.setting.channels_max {
            return Err(Refusal::Limit);
        }
        let judge = |name: &&ChannelName| Ok(((*name).clone(), self.judge(name, publication)?));
        sorted.iter().map(judge).collect()
    }

    /// In the order of [packets: rules].
    fn judge(&self, name: &ChannelName, publication: &Publication) -> Result<Content, Refusal> {
        let has_joined = |id: &u32| self.has_joined(*id, name);
        if publication.sender != 0 && !publication.is_guest && !has_joined(&publication.sender) {
            return Err(Refusal::NotJoined);
        }
        let mut content = publication.content.clone();
        if takes_json(name) && content.kind() != ContentKind::Json {
            content = content
                .as_text()
                .and_then(|text| Content::json(text.to_owned()))
                .ok_or(Refusal::BadContent)?;
        }
        let is_for_some = |to: &Vec<u32>| !to.is_empty() && to.iter().all(has_joined);
        if !publication.to.as_ref().is_none_or(is_for_some) {
            return Err(Refusal::ReceiverNotJoined);
        }
        Ok(content)
    }

    pub(super) fn append(&mut self, name: &ChannelName, publication: &Publication, content: Content) {
        let (is_value, retains) = (!content.bytes().is_empty(), retains(name, self.setting));
        let offset = self.append_at(name, publication, content, self.now);
        if retains && publication.to.is_none() {
            self.channel(name).retained = is_value.then_some(offset);
        }
    }

    /// Appends a message, which is not retained, and returns its offset.
    pub(super) fn append_at(
        &mut self,
        name: &ChannelName,
        publication: &Publication,
        content: Content,
        now: Timestamp,
    ) -> u64 {
        // What a ledger answers has no clock but the last tick.
        let ticked = self.ticked;
        self.counted.published += 1;
        self.counted.published_bytes += content.bytes().len() as u64;
        let channel = self.channel(name);
        let message = channel.append(name, publication, content, now);
        for (sender, member) in &mut channel.members {
            if let Some(away) = member.away.as_mut().filter(|_| message.is_for(*sender)) {
                away.unread.due.insert(message.offset);
            }
        }
        channel.note_unused(ticked);
        for session in self.sessions.values_mut() {
            if let Some(subscription) = session.subscriptions.get_mut(name).filter(|it| it.hears(&message)) {
                subscription.wake(message.offset);
            }
        }
        message.offset
    }

    /// Says something to one session alone.
    pub(in super::super) fn whisper(&mut self, id: SessionId, content: Content) -> Result<(), Refusal> {
        let bytes = content.bytes().len();
        let now = self.now;
        let Some(session) = self.sessions.get_mut(&id) else { return Err(Refusal::UnknownSender) };
        let whispers = session.whispers.get_or_insert_with(|| Whispers {
            channel: Channel::default(),
            subscription: Subscription::at(1),
        });
        if bytes > MESSAGE_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let publication = Publication { sender: 0, is_guest: false, to: None, content, event_bytes: 0 };
        let content = publication.content.clone();
        let message = whispers.channel.append(&0.into(), &publication, content, now);
        whispers.subscription.wake(message.offset);
        self.counted.published += 1;
        self.counted.published_bytes += bytes as u64;
        Ok(())
    }

    /// Whether a message is so far behind that the hub need not keep it for
    /// anybody.
    pub(super) fn may_be_skipped(&self, channel: &Channel, offset: u64) -> bool {
        let bytes_before = channel.log.get(offset as usize - 1).map_or(channel.bytes, |it| it.bytes_before);
        let behind = channel.bytes - bytes_before;
        channel.next_offset() - offset > self.setting.lag_messages || behind > self.setting.lag_bytes
    }
}

impl Channel {
    pub(in super::super) fn next_offset(&self) -> u64 {
        self.log.len() as u64 + 1
    }

    fn append(
        &mut self,
        name: &ChannelName,
        publication: &Publication,
        content: Content,
        now: Timestamp,
    ) -> Rc<Message> {
        let message = Rc::new(Message {
            channel: name.clone(),
            offset: self.next_offset(),
            sender: publication.sender,
            to: publication.to.as_ref().map(|to| to.iter().copied().collect()),
            bytes_before: self.bytes,
            time: now,
            content,
        });
        self.bytes += message.content.bytes().len() as u64 + ENTRY_BYTES + publication.event_bytes as u64;
        self.log.push(message.clone());
        message
    }

    pub(super) fn message(&self, offset: u64) -> &Rc<Message> {
        &self.log[offset as usize - 1]
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// From where on everything is kept for streams that end now.
    pub(super) fn trail(&self, lag_bytes: u64, now: Timestamp) -> u64 {
        let is_kept = |message: &&Rc<Message>| {
            now.since(message.time) < TRAIL && self.bytes - message.bytes_before < lag_bytes / 8
        };
        self.log.iter().rev().take_while(is_kept).last().map_or(self.next_offset(), |message| message.offset)
    }

    /// Nobody is in it from now on, if nobody is.
    pub(super) fn note_unused(&mut self, now: Timestamp) {
        if self.members.is_empty() {
            self.unused_until = now.after(SESSION_TTL);
        }
    }

    /// Whether it must be there.
    pub(in super::super) fn must_be_there(&self, name: &ChannelName, now: Timestamp) -> bool {
        let is_kept = |message: &Rc<Message>| now.since(message.time) < HISTORY_TTL;
        !self.members.is_empty()
            || self.retained.is_some()
            || now < self.unused_until
            || is_durable(name) && self.announcements.has_some()
            || has_history(name) && self.log.last().is_some_and(is_kept)
    }
}

impl Message {
    pub(super) fn bytes_before(&self) -> u64 {
        self.bytes_before
    }
}

impl Subscription {
    fn hears(&self, message: &Message) -> bool {
        self.senders.iter().any(|(id, from)| message.is_for(*id) && *from <= message.offset)
    }
}
