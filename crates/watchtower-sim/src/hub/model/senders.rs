//! Who is registered, who owns whom, and who has joined what.

use std::collections::BTreeSet;
use std::time::Duration;

use watchtower_hub::{ChannelName, Timestamp};

use super::{Member, Model, Moves, Refusal, SENDER_TTL, Sender, SessionId, Unread};

/// How often it is looked whether a sender is connected, which counts as activity.
pub(super) const LOOK_EVERY: Duration = SENDER_TTL.checked_div(LOOKS).expect("it is not zero");
const LOOKS: u32 = 8;

impl Model {
    /// Whether one more sender may register.
    pub(in super::super) fn may_register(&self) -> Result<(), Refusal> {
        if self.senders.len() >= self.setting.senders_max { Err(Refusal::Limit) } else { Ok(()) }
    }

    /// A sender that the hub gave this id.
    pub(in super::super) fn registered(&mut self, id: u32, owner: Option<SessionId>) -> Result<(), String> {
        if id == 0 || self.senders.contains_key(&id) {
            return Err(format!("the hub gave out {id}, which is taken or nobody's"));
        }
        let mut moves = Moves::default();
        if owner.is_some() {
            moves.take(0, self.setting.channels_per_sender_max, self.now);
        }
        let (joins, last_active) = (BTreeSet::new(), self.now);
        let expiry = self.now.after(LOOK_EVERY);
        self.senders.insert(id, Sender { owner, is_passing: false, joins, last_active, expiry, moves });
        Ok(())
    }

    /// A sender that the hub gave this id, and that is its session's alone.
    pub(in super::super) fn registered_passing(&mut self, id: u32, owner: SessionId) -> Result<(), String> {
        self.registered(id, Some(owner))?;
        self.senders.get_mut(&id).expect("it was put there").is_passing = true;
        Ok(())
    }

    /// Whether it is there, and nobody but its session may use it.
    pub(in super::super) fn is_passing(&self, id: u32) -> bool {
        self.senders.get(&id).is_some_and(|sender| sender.is_passing)
    }

    /// Forgets a sender at once, by the clock of whoever says so.
    pub(in super::super) fn unregister(&mut self, id: u32, now: Timestamp) {
        self.forget(id, now);
    }

    fn forget(&mut self, id: u32, now: Timestamp) {
        let joins = self.senders.get(&id).map(|sender| sender.joins.clone());
        for name in joins.into_iter().flatten() {
            self.take_out(id, &name, now);
        }
        self.senders.remove(&id);
    }

    /// Forgets those who were silent for too long and have no session.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let due: Vec<u32> =
            self.senders.iter().filter(|(_, sender)| sender.expiry <= now).map(|(id, _)| *id).collect();
        for id in due {
            let sender = &self.senders[&id];
            let is_connected =
                sender.owner.is_some() || sender.joins.iter().any(|name| self.delivers_to(id, name));
            if is_connected {
                let _ = self.touch(id);
            }
            let sender = self.senders.get_mut(&id).expect("it was found");
            let due = sender.last_active.after(SENDER_TTL);
            if due > now {
                sender.expiry = due.min(now.after(LOOK_EVERY));
            } else {
                self.forget(id, now);
                self.counted.expired += 1;
            }
        }
    }

    /// Notes that a sender lives, if it is registered.
    pub(in super::super) fn touch(&mut self, id: u32) -> Result<(), Refusal> {
        let now = self.now;
        let sender = self.senders.get_mut(&id).ok_or(Refusal::UnknownSender)?;
        if now.as_millis() >= sender.last_active.as_millis() + 1_000 {
            sender.last_active = now;
        }
        Ok(())
    }

    /// Whether it is in the channel.
    pub(in super::super) fn has_joined(&self, id: u32, name: &ChannelName) -> bool {
        self.senders.get(&id).is_some_and(|sender| sender.joins.contains(name))
    }

    /// Makes a session the owner of a sender: what its joins deliver comes here.
    pub(in super::super) fn attach(&mut self, session: SessionId, id: u32) -> Result<(), Refusal> {
        self.touch(id)?;
        let (now, most) = (self.now, self.setting.channels_per_sender_max);
        let sender = self.senders.get_mut(&id).ok_or(Refusal::UnknownSender)?;
        if sender.owner == Some(session) {
            return Ok(());
        }
        if sender.owner.is_some() && (sender.is_passing || self.setting.bind_ids) {
            return Err(Refusal::BoundElsewhere);
        }
        if !sender.moves.take(sender.joins.len() as u64, most, now) {
            return Err(Refusal::Limit);
        }
        let before = sender.owner.replace(session);
        for name in sender.joins.clone() {
            let unread = match before.and_then(|before| self.unsubscribe(before, &name, id)) {
                Some(unread) => Some(unread),
                None => self.take_up(id, &name),
            };
            if let Some(unread) = unread {
                self.enter(id, &name, self.sessions[&session].protocol);
                self.subscribe(session, &name, id, Some(unread));
            }
        }
        Ok(())
    }

    /// What a former owner of a sender left in a channel.
    pub(super) fn take_up(&mut self, id: u32, name: &ChannelName) -> Option<Unread> {
        let member = self.channels.get_mut(name)?.members.get_mut(&id)?;
        member.away.take().map(|away| away.unread)
    }

    /// Joins an owned sender to a channel.
    pub(in super::super) fn join(
        &mut self,
        session: SessionId,
        id: u32,
        name: &ChannelName,
    ) -> Result<(), Refusal> {
        self.attach(session, id)?;
        self.may_enter(id, name)?;
        let was_there = self.has_joined(id, name);
        self.enter(id, name, self.sessions[&session].protocol);
        let unread = self.take_up(id, name);
        self.subscribe(session, name, id, unread);
        self.came(was_there, id, name);
        Ok(())
    }

    /// Joins a sender to a channel, to send.
    pub(in super::super) fn join_to_send(&mut self, id: u32, name: &ChannelName) -> Result<(), Refusal> {
        self.touch(id)?;
        self.may_enter(id, name)?;
        let was_there = self.has_joined(id, name);
        self.enter(id, name, "http").standing = true;
        self.came(was_there, id, name);
        Ok(())
    }

    pub(super) fn may_enter(&self, id: u32, name: &ChannelName) -> Result<(), Refusal> {
        let joins = &self.senders[&id].joins;
        let is_one_more = !joins.contains(name) && joins.len() >= self.setting.channels_per_sender_max;
        let is_new = !self.channels.contains_key(name) && self.channels.len() >= self.setting.channels_max;
        if is_one_more || is_new { Err(Refusal::Limit) } else { Ok(()) }
    }

    pub(super) fn enter(&mut self, id: u32, name: &ChannelName, protocol: &'static str) -> &mut Member {
        if let Some(sender) = self.senders.get_mut(&id) {
            sender.joins.insert(name.clone());
        }
        let since = self.now;
        let members = &mut self.channel(name).members;
        let member = members.entry(id).or_insert(Member {
            protocol,
            since,
            standing: false,
            away: None,
            streams: None,
        });
        member.protocol = protocol;
        member
    }

    /// Ends a sender's place in a channel, by whatever sessions.
    pub(in super::super) fn leave(&mut self, id: u32, name: &ChannelName) -> Result<(), Refusal> {
        self.touch(id)?;
        self.take_out(id, name, self.now);
        Ok(())
    }

    fn take_out(&mut self, id: u32, name: &ChannelName, now: Timestamp) {
        let Some(sender) = self.senders.get_mut(&id) else { return };
        if !sender.joins.remove(name) {
            return;
        }
        let sessions: Vec<_> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.unsubscribe(session, name, id);
        }
        let ticked = self.ticked;
        let Some(channel) = self.channels.get_mut(name) else { return };
        let member = channel.members.remove(&id);
        channel.note_unused(now.max(ticked));
        if let Some(member) = member {
            self.went(id, member.protocol, name, now);
        }
    }
}

impl Moves {
    /// [`Session::attach`](watchtower_hub::Session::attach) says how many.
    fn take(&mut self, joins: u64, joins_max: usize, now: Timestamp) -> bool {
        let most = 2 * joins_max as u64;
        let millis = u64::try_from(now.since(self.as_of).as_millis()).unwrap_or(u64::MAX);
        self.used = self.used.saturating_sub(most.div_ceil(10).saturating_mul(millis));
        self.as_of = self.as_of.max(now);
        let may = self.used + 1_000 * joins <= 1_000 * most;
        if may {
            self.used += 1_000 * joins;
        }
        may
    }
}
