//! Subscriptions that go on after what was seen: what the hub must still have for
//! them, and where they begin.

use std::collections::BTreeSet;
use std::rc::Rc;

use watchtower_hub::{ChannelName, Epoch};

use super::super::disk::is_durable;
use super::{
    First, HISTORY_MESSAGES, HISTORY_TTL, Message, Model, Refusal, SessionId, Subscription, has_history,
};

/// Where a stream starts, as the hub said.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Start {
    /// The position that was asked for.
    pub(in super::super) asked: Option<(Epoch, u64)>,
    pub(in super::super) epoch: Epoch,
    pub(in super::super) offset: u64,
    pub(in super::super) recovered: bool,
}

impl Model {
    /// Whether a stream of a sender may subscribe.
    pub(in super::super) fn may_follow(&mut self, id: u32, name: &ChannelName) -> Result<(), Refusal> {
        self.touch(id)?;
        self.may_enter(id, name)
    }

    /// Whether a session's own sender may follow a channel.
    pub(in super::super) fn may_follow_here(
        &mut self,
        session: SessionId,
        id: u32,
        name: &ChannelName,
    ) -> Result<(), Refusal> {
        self.attach(session, id)?;
        self.may_enter(id, name)
    }

    /// A session's own sender goes on somewhere, whatever was delivered to it, or
    /// missed. Where it asked to is not kept, nothing is lost that was to come.
    pub(in super::super) fn follow_here(
        &mut self,
        session: SessionId,
        id: u32,
        name: &ChannelName,
        start: Start,
    ) -> Result<(), String> {
        let here = self.unsubscribe(session, name, id);
        let unread = here.into_iter().chain(self.take_up(id, name));
        let first = unread.filter_map(|unread| unread.due.first().copied()).min();
        if let Some(first) = first.filter(|first| !start.recovered && *first <= start.offset) {
            let lost = format!("{first} of {name} was to come, and it is to go on after {}", start.offset);
            let channel = &self.channels[name];
            if !self.may_be_skipped(channel, first) {
                return Err(lost);
            }
        }
        self.follow(session, id, name, start)
    }

    /// A stream subscribes on behalf of a sender.
    pub(in super::super) fn follow(
        &mut self,
        session: SessionId,
        id: u32,
        name: &ChannelName,
        start: Start,
    ) -> Result<(), String> {
        let first = start.offset + 1;
        if let Some((epoch, seen)) = start.asked {
            let must = self.must_recover(id, name, epoch, seen);
            if must && !start.recovered {
                return Err(format!(
                    "a stream of {id} that had seen {seen} of {name} was told that some is lost"
                ));
            }
            if start.recovered && (first != seen + 1 || epoch != start.epoch) {
                return Err(format!("a stream that had seen {seen} of {name} is to go on at {first}"));
            }
            self.counted.recovered += u64::from(start.recovered && self.channels.contains_key(name));
        }
        let protocol = self.sessions[&session].protocol;
        let was_there = self.has_joined(id, name);
        self.enter(id, name, protocol);
        let channel = self.channel(name);
        let end = channel.next_offset();
        if first > end || start.asked.is_none() && first != end {
            return Err(format!("a stream starts at {first} of {name}, whose end is at {end}"));
        }
        let unread = channel.log[first as usize - 1..].iter().filter(|message| message.is_for(id));
        let pending: BTreeSet<_> = unread.map(|message| message.offset).collect();
        let senders = [(id, first)].into();
        let (rests, resumes) = (first == end, start.asked.is_some());
        let mut subscription = Subscription { pending, senders, rests, resumes, ..Subscription::at(first) };
        // Who resumes has it, unless something is missing.
        let is_new = start.asked.is_none() || !start.recovered;
        if let Some(offset) = channel.retained.filter(|offset| is_new && *offset < first) {
            subscription.begin_with(First { offset, is_due: true });
        }
        self.sessions
            .get_mut(&session)
            .expect("it was opened")
            .subscriptions
            .insert(name.clone(), subscription);
        self.came(was_there, id, name);
        Ok(())
    }

    /// A session's own sender, which [may](Self::may_follow_here), goes on after an offset
    /// of whatever log there is; somewhere else if it is `told` so ([packets: follow
    /// from]). All from there on comes, and nothing is lost that was to come without.
    pub(in super::super) fn follow_from(
        &mut self,
        session: SessionId,
        id: u32,
        name: &ChannelName,
        seen: u64,
        told: Option<u64>,
    ) -> Result<(), String> {
        let protocol = self.sessions[&session].protocol;
        let was_there = self.has_joined(id, name);
        self.enter(id, name, protocol);
        let (end, wanted) = (self.channels[name].next_offset(), seen.saturating_add(1));
        let must = wanted <= end && self.must_keep(id, name, wanted);
        self.counted.recovered += u64::from(told.is_none() && wanted < end);
        // What is delivered here to others goes on there, too.
        let here = self.sessions[&session].subscriptions.get(name);
        let mut senders: BTreeSet<u32> = here.iter().flat_map(|it| it.senders.keys().copied()).collect();
        let unread: Vec<_> = senders.iter().filter_map(|id| self.unsubscribe(session, name, *id)).collect();
        senders.insert(id);
        let unread = unread.into_iter().chain(self.take_up(id, name));
        let due = unread.filter_map(|it| it.due.first().copied()).chain(self.first_in_history(name)).min();
        let due = due.unwrap_or(end);
        let first = match told {
            None if wanted > end => return Err(format!("nobody told {id} that {name} ends before {seen}")),
            None => wanted,
            Some(after) if must => {
                return Err(format!(
                    "{id} that had seen {seen} of {name} was told that it goes on after {after}"
                ));
            }
            Some(after) if after >= due => {
                return Err(format!("{id} was told that {name} goes on after {after}, where {due} is kept"));
            }
            Some(after) => after + 1,
        };
        let channel = &self.channels[name];
        let is_heard = |message: &&Rc<Message>| senders.iter().any(|id| message.is_for(*id));
        let heard = channel.log[first as usize - 1..].iter().filter(is_heard);
        let pending = heard.map(|message| message.offset).collect();
        // Who resumes has it, unless something is missing.
        let retained = channel.retained.filter(|offset| told.is_some() && *offset < first);
        let retained = retained.map(|offset| First { offset, is_due: false });
        let subscription = Subscription {
            pending,
            has_begun: false,
            senders: senders.iter().map(|id| (*id, first)).collect(),
            first: retained,
            rests: first == end && retained.is_none(),
            resumes: true,
            ..Subscription::at(first)
        };
        let session = self.sessions.get_mut(&session).expect("it was opened");
        session.subscriptions.insert(name.clone(), subscription);
        self.came(was_there, id, name);
        Ok(())
    }

    /// The first message that a channel keeps for everybody who comes later.
    fn first_in_history(&self, name: &ChannelName) -> Option<u64> {
        let channel = self.channels.get(name)?;
        let end = channel.next_offset();
        let is_kept = |message: &&Rc<Message>| {
            let is_in_history =
                end - message.offset <= HISTORY_MESSAGES as u64 && self.now.since(message.time) < HISTORY_TTL;
            is_durable(name) || has_history(name) && is_in_history
        };
        channel.log.iter().find(is_kept).map(|message| message.offset)
    }

    /// Whether all that follows what a stream has seen must be kept.
    fn must_recover(&self, id: u32, name: &ChannelName, epoch: Epoch, seen: u64) -> bool {
        let Some(channel) = self.channels.get(name) else { return false };
        let wanted = seen + 1;
        channel.epoch == Some(epoch) && wanted <= channel.next_offset() && self.must_keep(id, name, wanted)
    }

    /// Whether all from an offset on must be kept, for one sender.
    fn must_keep(&self, id: u32, name: &ChannelName, wanted: u64) -> bool {
        let Some(channel) = self.channels.get(name) else { return false };
        let end = channel.next_offset();
        let kept_for = channel.members.get(&id).and_then(|member| member.streams.as_ref());
        let is_kept = kept_for.is_some_and(|streams| streams.kept <= wanted)
            && wanted < end
            && !self.may_be_skipped(channel, wanted);
        wanted == end || is_kept || self.first_in_history(name).is_some_and(|first| first <= wanted)
    }
}
