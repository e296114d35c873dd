//! What a session is handed, held against what it is to hear.

use std::rc::Rc;

use bytes::Bytes;
use watchtower_hub::{ChannelName, ContentKind, Epoch};

use super::super::disk::is_durable;
use super::{Channel, First, Message, Model, Session, SessionId, Subscription, Whispers};

/// How far behind a message may be that is handed out, in the lag limits: four
/// times, and somewhat more until that is noticed.
const BEHIND_FACTOR: u64 = 4;

/// What part of the lag limit in bytes is kept for streams that resume, and
/// somewhat more.
const TRAIL_PART: u64 = 3;

/// The bytes of two messages and what is beside them.
const TWO_MESSAGES: u64 = 2 * 8_192;

/// A message as a client sees it: what its protocol does not say is `None`.
#[derive(Debug, Clone)]
pub(in super::super) struct Heard {
    pub(in super::super) channel: Option<ChannelName>,
    pub(in super::super) position: Option<(Epoch, u64)>,
    /// Whether an event says that one is there now who has heard it.
    pub(in super::super) has_id: Option<bool>,
    pub(in super::super) sender: Option<u32>,
    pub(in super::super) is_direct: Option<bool>,
    pub(in super::super) kind: Option<ContentKind>,
    pub(in super::super) content: Bytes,
}

impl Model {
    /// A session was handed a message. Returns which it was.
    pub(in super::super) fn heard(&mut self, id: SessionId, heard: &Heard) -> Result<Rc<Message>, String> {
        self.learn(heard);
        let Some((place, message)) = self.find(id, heard) else { return Err(self.explain(id, heard)) };
        self.check_said(&message, heard)?;
        let (channel, subscription) = self.at(id, &place).expect("it was found");
        let is_first = subscription.first.is_some_and(|first| first.offset == message.offset);
        // [http: retained] It was published before that.
        if heard.has_id == Some(is_first) {
            return Err(format!(
                "{} is retained: {is_first}, and has an id all the same, or none",
                message.offset
            ));
        }
        // What comes late, for one who moved there, may be older than it.
        let is_behind_first = subscription.first.is_none_or(|first| first.offset <= message.offset);
        if !is_first {
            if is_behind_first {
                self.check_begun(id, subscription, &message.channel)?;
            }
            self.check_not_too_far_behind(id, channel, subscription, &message)?;
        }
        let skipped = self.skipped(channel, subscription, &message)?;
        let session = self.sessions.get_mut(&id).expect("it was found");
        let subscription = match (&place, &mut session.whispers) {
            (Some(name), _) => session.subscriptions.get_mut(name),
            (None, whispers) => whispers.as_mut().map(|whispers| &mut whispers.subscription),
        };
        let subscription = subscription.expect("it was found");
        subscription.first.take_if(|_| is_behind_first);
        subscription.pending.retain(|offset| *offset > message.offset);
        subscription.possible.retain(|offset| *offset > message.offset);
        // Up to here it was looked at.
        subscription.late.values_mut().for_each(|late| late.retain(|offset| *offset > message.offset));
        if !is_first && !std::mem::replace(&mut subscription.has_begun, true) {
            subscription.pending.append(&mut subscription.possible);
        }
        subscription.next = subscription.next.max(message.offset + 1);
        self.counted.delivered += 1;
        self.counted.skipped += skipped;
        Ok(message)
    }

    /// A session was told that this was all.
    pub(in super::super) fn heard_all(&mut self, id: SessionId) -> Result<(), String> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        let mut skipped = 0;
        for (name, channel, it) in self.places(session) {
            name.map_or(Ok(()), |name| self.check_begun(id, it, name))?;
            // What is for others may push the last one out that is for this one.
            if self.awaits_ledger && name.is_some_and(is_durable) {
                continue;
            }
            if let Some(missed) = it.pending.iter().find(|offset| !self.may_be_skipped(channel, **offset)) {
                let name = name.map_or("whispers".to_owned(), ChannelName::to_string);
                return Err(format!("{missed} of {name} did not come, and that was said to be all"));
            }
            skipped += it.pending.len() as u64;
        }
        self.counted.skipped += skipped;
        let awaits_ledger = self.awaits_ledger;
        let session = self.sessions.get_mut(&id).expect("it was found");
        for (name, subscription) in &mut session.subscriptions {
            if awaits_ledger && is_durable(name) {
                continue;
            }
            subscription.rest_at(self.channels[name].next_offset());
        }
        if let Some(Whispers { channel, subscription }) = &mut session.whispers {
            subscription.rest_at(channel.next_offset());
        }
        Ok(())
    }

    /// All that a session reads: channels, and its own log.
    fn places<'a>(
        &'a self,
        session: &'a Session,
    ) -> impl Iterator<Item = (Option<&'a ChannelName>, &'a Channel, &'a Subscription)> {
        let own = session.whispers.iter().map(|it| (None, &it.channel, &it.subscription));
        session.subscriptions.iter().map(|(name, it)| (Some(name), &self.channels[name], it)).chain(own)
    }

    fn at(&self, id: SessionId, place: &Option<ChannelName>) -> Option<(&Channel, &Subscription)> {
        let mut places = self.places(self.sessions.get(&id)?);
        places.find(|(name, ..)| *name == place.as_ref()).map(|(_, channel, it)| (channel, it))
    }

    /// The message that this can be, of those that the session is to hear: its
    /// next one on a channel, or one behind messages that may have been skipped.
    fn find(&self, id: SessionId, heard: &Heard) -> Option<(Option<ChannelName>, Rc<Message>)> {
        let is_it = |message: &&Rc<Message>| {
            *message.content.bytes() == heard.content
                && heard.position.is_none_or(|(_, offset)| offset == message.offset)
        };
        let is_there = |name: Option<&ChannelName>| heard.channel.is_none() || heard.channel.as_ref() == name;
        let places = self.places(self.sessions.get(&id)?).filter(|(name, ..)| is_there(*name));
        places.into_iter().find_map(|(name, channel, subscription)| {
            let first = subscription.first.as_ref().map(|first| &first.offset);
            let pending = first.into_iter().chain(subscription.pending.union(&subscription.possible));
            let mut pending = pending.map(|offset| channel.message(*offset));
            Some((name.cloned(), pending.find(is_it)?.clone()))
        })
    }

    /// [http: retained] What was retained comes before all else.
    fn check_begun(&self, id: SessionId, it: &Subscription, name: &ChannelName) -> Result<(), String> {
        match it.first {
            Some(First { offset, is_due: true }) if !self.may_lag(id) => {
                Err(format!("{offset} of {name} is retained, and did not come first"))
            }
            _ => Ok(()),
        }
    }

    fn check_said(&self, message: &Message, heard: &Heard) -> Result<(), String> {
        let epoch = self.channels.get(&message.channel).and_then(|channel| channel.epoch);
        let is_true = heard.sender.is_none_or(|sender| sender == message.sender)
            && heard.is_direct.is_none_or(|is_direct| is_direct == message.to.is_some())
            && heard.kind.is_none_or(|kind| kind == message.content.kind())
            && heard.position.is_none_or(|(heard, _)| epoch.is_none_or(|epoch| epoch == heard));
        if is_true { Ok(()) } else { Err(format!("{heard:?} is not what was published: {message:?}")) }
    }

    /// How many messages were left out before this one, if they may have been.
    fn skipped(&self, channel: &Channel, it: &Subscription, message: &Message) -> Result<u64, String> {
        let before = it.pending.range(..message.offset);
        let missed = before.clone().find(|offset| !self.may_be_skipped(channel, **offset));
        match missed {
            None => Ok(before.count() as u64),
            Some(missed) => Err(format!(
                "{missed} of {} was left out, and {} came: out of order, or a gap for one who kept up",
                message.channel, message.offset
            )),
        }
    }

    /// [model: log] What a stream resumes from is kept however many messages it is
    /// ([http: since]), and where it is, whoever resumes gets it.
    fn check_not_too_far_behind(
        &self,
        id: SessionId,
        channel: &Channel,
        it: &Subscription,
        message: &Message,
    ) -> Result<(), String> {
        let messages = channel.next_offset() - message.offset;
        let bytes = channel.bytes() - message.bytes_before();
        let most = |limit: u64, some: u64| BEHIND_FACTOR * limit + limit / 8 + some;
        // Who reads from disk is never too far behind ([durable: reading]).
        let is_kept =
            is_durable(&message.channel) || bytes <= self.setting.lag_bytes / TRAIL_PART + TWO_MESSAGES;
        let is_for_resuming = is_kept && (it.resumes || self.sessions[&id].resumes);
        if is_for_resuming
            || messages <= most(self.setting.lag_messages, 2)
                && bytes <= most(self.setting.lag_bytes, TWO_MESSAGES)
        {
            return Ok(());
        }
        let Message { channel, offset, .. } = message;
        Err(format!(
            "{offset} of {channel} was kept for one who is {messages} messages, {bytes} bytes behind"
        ))
    }

    /// Why a session was not to hear this.
    fn explain(&self, id: SessionId, heard: &Heard) -> String {
        let is_there = |name: &ChannelName| heard.channel.as_ref().is_none_or(|channel| channel == name);
        let is_it = |message: &&Rc<Message>| *message.content.bytes() == heard.content;
        let mut channels = self.channels.iter().filter(|(name, _)| is_there(name));
        let found = channels.find_map(|(name, channel)| Some((name, channel.log.iter().find(is_it)?)));
        let Some((name, message)) = found else {
            return format!("{heard:?} came, which was never published");
        };
        let session = self.sessions.get(&id);
        let offset = message.offset;
        match (session.and_then(|session| session.subscriptions.get(name)), &message.to) {
            (None, _) => format!("{offset} of {name} came to one who is not there"),
            (Some(it), Some(to)) if !it.senders.keys().any(|id| to.contains(id)) => {
                format!("{offset} of {name} is for {to:?} alone, and came to {:?}", it.senders.keys())
            }
            (Some(_), _) => format!("{offset} of {name} came twice, or from before the subscription"),
        }
    }

    /// Whether a session may be closed because it is too far behind.
    pub(in super::super) fn may_lag(&self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get(&id) else { return false };
        session.was_behind
            || self.places(session).any(|(_, channel, it)| !it.rests && self.may_be_skipped(channel, it.next))
    }

    /// What a session has yet to hear, for a person.
    pub(in super::super) fn unheard(&self, id: SessionId) -> Option<String> {
        let is_owed = |it: &Subscription| !it.pending.is_empty() || it.first.is_some_and(|it| it.is_due);
        let (name, _, it) = self.places(self.sessions.get(&id)?).find(|(.., it)| is_owed(it))?;
        let name = name.map_or("whispers".to_owned(), ChannelName::to_string);
        let first = it.first.map(|first| first.offset);
        Some(format!("{:?} of {name}", first.iter().chain(&it.pending).collect::<Vec<_>>()))
    }
}
