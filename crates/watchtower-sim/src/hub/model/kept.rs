//! Which senders outlive the hub, and where these are when the next one begins
//! ([running: what outlives the server]).

use std::collections::BTreeSet;
use std::time::Duration;

use watchtower_hub::{KeptJoin, KeptSender, Timestamp};

use super::super::disk::is_durable;
use super::senders::LOOK_EVERY;
use super::{Away, Model, Moves, SENDER_TTL, SESSION_TTL, Sender, Unread};

/// What presence calls those who have not come back.
const PROTOCOL: &str = "kept";

/// For how long nobody expires when a hub has begun.
const GRACE: Duration = SENDER_TTL.checked_div(500).expect("it is not zero");

/// How old the last activity may be that is kept, compared with the last there was.
const ACTIVITY_EVERY: Duration = Duration::from_secs(61);

impl Model {
    /// What is kept of senders is what became of them, when nothing is under way.
    pub(in super::super) fn check_noted(&self, kept: &[KeptSender]) -> Result<(), String> {
        let lasting = self.senders.iter().filter(|(_, sender)| !sender.is_passing);
        if !lasting.clone().map(|(id, _)| *id).eq(kept.iter().map(|sender| sender.id.get())) {
            let lasting: Vec<_> = lasting.map(|(id, _)| *id).collect();
            return Err(format!("the senders {lasting:?} are there, and kept are {kept:?}"));
        }
        for ((_, sender), kept) in lasting.zip(kept) {
            self.check_noted_of(sender, kept)
                .map_err(|error| format!("{error}, and of that sender is kept {kept:?}"))?;
        }
        Ok(())
    }

    fn check_noted_of(&self, sender: &Sender, kept: &KeptSender) -> Result<(), String> {
        let id = kept.id.get();
        if sender.last_active.since(kept.last_active) > ACTIVITY_EVERY {
            return Err(format!("{id} was active at {:?}", sender.last_active));
        }
        if let Some(join) = kept.joins.iter().find(|join| !sender.joins.contains(&join.channel)) {
            return Err(format!("{id} has left channel {}", join.channel));
        }
        for name in &sender.joins {
            let Some(member) = self.channels.get(name).and_then(|channel| channel.members.get(&id)) else {
                continue;
            };
            let owner = sender.owner.and_then(|owner| self.sessions.get(&owner));
            let is_delivered = owner.and_then(|owner| owner.subscriptions.get(name));
            let is_owned = is_delivered.is_some_and(|it| it.senders.contains_key(&id));
            let join = KeptJoin { channel: name.clone(), since: member.since, standing: member.standing };
            let must = member.standing || is_owned || member.away.is_some();
            // A stream may hold what was more than a stream's before.
            let is_right = match kept.joins.iter().find(|join| join.channel == *name) {
                Some(kept) => *kept == join,
                None => !must,
            };
            if !is_right {
                return Err(format!("{id} is in a channel: {join:?}"));
            }
        }
        Ok(())
    }

    /// A sender that was kept is where it was, and waits for its client.
    pub(in super::super) fn restore(&mut self, kept: &KeptSender) {
        let (id, now) = (kept.id.get(), self.now);
        let due = kept.last_active.after(SENDER_TTL).max(now.after(GRACE));
        let sender = Sender {
            owner: None,
            is_passing: false,
            joins: BTreeSet::new(),
            last_active: kept.last_active,
            expiry: due.min(now.after(LOOK_EVERY)),
            moves: Moves::default(),
        };
        self.senders.insert(id, sender);
        self.counted.restored += 1;
        for join in &kept.joins {
            self.restore_join(id, join, now.after(SESSION_TTL));
        }
    }

    fn restore_join(&mut self, id: u32, join: &KeptJoin, until: Timestamp) {
        let name = &join.channel;
        if !self.channels.contains_key(name) && self.channels.len() >= self.setting.channels_max {
            return;
        }
        let (next, resumes) = (self.channel(name).next_offset(), is_durable(name));
        let member = self.enter(id, name, PROTOCOL);
        member.since = join.since;
        member.standing = join.standing;
        member.away =
            (!join.standing).then(|| Away { unread: Unread { next, resumes, ..Unread::default() }, until });
    }
}
