//! The hub held against the model: who is where, what is kept and counted, and
//! that nothing is left when all have left.

use watchtower_hub::Counts;

use super::world::World;

impl World {
    /// What is promised at any time.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.check_channels()?;
        self.check_presence()?;
        self.check_noted()?;
        self.check_told()?;
        self.check_counts()
    }

    /// Channels are there as long as somebody is in them, and a while longer.
    pub(super) fn check_channels(&mut self) -> Result<(), String> {
        let (hub, now) = (&self.hub, self.now);
        let under_way = self.oracle.model.under_way();
        let mut error = None;
        let mut gone = Vec::new();
        for (name, channel) in &mut self.oracle.model.channels {
            // A durable channel is there while it is not in memory, too.
            let is_there = hub.presence(name).is_some();
            let Some(epoch) = hub.epoch(name).filter(|_| is_there) else {
                if channel.must_be_there(name, now) || under_way.contains(name) {
                    error = Some(format!("channel {name} is gone too early"));
                }
                gone.push(name.clone());
                continue;
            };
            if *channel.epoch.get_or_insert(epoch) != epoch {
                error = Some(format!("channel {name} has another epoch, and was there all the time"));
            }
        }
        gone.iter().for_each(|name| self.oracle.model.put_aside(name));
        error.map_or(Ok(()), Err)?;
        self.check_pages()
    }

    /// [model: presence]
    fn check_presence(&self) -> Result<(), String> {
        for (name, channel) in &self.oracle.model.channels {
            let present = self.hub.presence(name).unwrap_or_default();
            let present = present.iter().map(|it| (it.sender.get(), it.protocol, it.since));
            let expected = channel.members.iter().map(|(id, member)| (*id, member.protocol, member.since));
            if !present.clone().eq(expected.clone()) {
                let (present, expected): (Vec<_>, Vec<_>) = (present.collect(), expected.collect());
                return Err(format!("in channel {name} are {present:?}, and {expected:?} are to be"));
            }
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), String> {
        let (counts, model) = (self.hub.counts(), &self.oracle.model);
        let counted = model.counted;
        for (what, count, expected) in [
            ("channels", counts.channels, model.channels.len()),
            ("senders", counts.senders, model.senders.len()),
            ("sessions", counts.sessions, model.sessions.len()),
            ("subscriptions", counts.subscriptions, model.subscriptions()),
        ] {
            if count != expected {
                return Err(format!("there are {count} {what}, and {expected} are to be"));
            }
        }
        for (what, count, expected) in [
            ("messages were published", counts.published, counted.published),
            ("bytes were published", counts.published_bytes, counted.published_bytes),
            ("messages were delivered", counts.delivered, counted.delivered),
            ("senders expired", counts.senders_expired, counted.expired),
            ("changes of presence were too many", counts.presence_left_out, counted.left_out),
        ] {
            if count != expected {
                return Err(format!("the hub counts that {count} {what}, and {expected} were"));
            }
        }
        // How often is not known here: who never came back skipped some, too, and
        // one subscription that skips may be that of several ids, which part later.
        if counted.skipped > 0 && counts.lagging_skipped == 0 {
            return Err(format!("{} messages were skipped, and the hub counts none", counted.skipped));
        }
        if counts.lagging_closed < counted.lagging {
            return Err(format!(
                "{} sessions were too far behind, and the hub counts fewer",
                counted.lagging
            ));
        }
        Ok(())
    }

    /// Nobody who is there misses anything, or waits for an answer.
    pub(super) fn check_all_heard(&self) -> Result<(), String> {
        for (number, client) in self.clients.iter().enumerate() {
            let link = client.link.iter().filter(|link| link.connection.is_open());
            for link in link {
                if let Some(unheard) = self.oracle.model.unheard(link.party.session) {
                    return Err(self.blame(number, &format!("{unheard} did not come, and nothing more will")));
                }
                let users = &self.oracle.talk.users;
                if link.party.user.is_some_and(|id| !users.contains_key(&id)) {
                    return Err(self.blame(number, "its user was killed, and it is not closed"));
                }
                if let Some((_, request)) = link.requests.front() {
                    return Err(
                        self.blame(number, &format!("{request:?} was not carried out, and will not be"))
                    );
                }
            }
            let peer = client.peer.as_ref().and_then(|peer| self.oracle.model.unheard(peer.party.session));
            if let Some(unheard) = peer {
                return Err(self.blame(number, &format!("{unheard} did not come, and nothing more will")));
            }
        }
        Ok(())
    }

    /// All have left, and their time is over.
    pub(super) fn check_empty(&self) -> Result<(), String> {
        let Counts { channels, senders, sessions, subscriptions, .. } = self.hub.counts();
        if [channels, senders, sessions, subscriptions] == [0; 4] {
            return Ok(());
        }
        Err(format!(
            "all left, and there are {channels} channels, {senders} senders, {sessions} sessions, {subscriptions} subscriptions"
        ))
    }
}
