//! What is under way to the ledger, in the order in which it was submitted, and
//! what comes of it ([model: promises]): messages of clients, and what a durable
//! channel is told of presence.

use std::collections::BTreeSet;

use watchtower_hub::ChannelName;

use super::{Model, Publication, Refusal};

/// A message that waits for the ledger.
#[derive(Debug)]
pub(super) struct Submission {
    name: ChannelName,
    publication: Publication,
    origin: Origin,
    /// Whether one before it was refused, and it cannot take that one's place.
    is_out_of_turn: bool,
}

/// Who waits for it to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Client,
    /// Nobody: it tells of somebody who came or went.
    Change,
    /// Nobody: it tells of so many who did.
    Sum(u64),
}

/// What became of the message that was submitted first.
pub(in super::super) struct Answered {
    pub(in super::super) name: ChannelName,
    pub(in super::super) is_of_client: bool,
    /// Where it stands, if it is kept.
    pub(in super::super) offset: Option<u64>,
}

impl Model {
    /// Whether a message for a channel would be refused at once.
    pub(in super::super) fn may_submit(&self, name: &ChannelName) -> Result<(), Refusal> {
        let mut waiting = self.submitted.iter().filter(|submission| submission.name == *name);
        if waiting.any(|submission| submission.is_out_of_turn) { Err(Refusal::NotKept) } else { Ok(()) }
    }

    /// A client's message for a durable channel, which was judged before.
    pub(in super::super) fn submit(&mut self, name: ChannelName, publication: Publication) {
        self.submit_of(name, publication, Origin::Client);
    }

    pub(super) fn submit_of(&mut self, name: ChannelName, publication: Publication, origin: Origin) {
        self.submitted.push_back(Submission { name, publication, origin, is_out_of_turn: false });
    }

    /// How many messages wait for the ledger.
    pub(in super::super) fn submitted(&self) -> usize {
        self.submitted.len()
    }

    /// The channels that must stay, since something of them is under way.
    pub(in super::super) fn under_way(&self) -> BTreeSet<ChannelName> {
        self.submitted.iter().map(|submission| submission.name.clone()).collect()
    }

    pub(super) fn is_under_way(&self, name: &ChannelName) -> bool {
        self.submitted.iter().any(|submission| submission.name == *name)
    }

    /// The ledger answers the message that was submitted first, and keeps it, if it
    /// can.
    pub(in super::super) fn answered(&mut self, is_kept: bool) -> Option<Answered> {
        let Submission { name, publication, origin, is_out_of_turn } = self.submitted.pop_front()?;
        let is_of_client = origin == Origin::Client;
        if is_kept && !is_out_of_turn {
            let offset = Some(self.append_kept(&name, &publication));
            self.counted.announced += u64::from(!is_of_client);
            return Some(Answered { name, is_of_client, offset });
        }
        for behind in self.submitted.iter_mut().filter(|behind| behind.name == name) {
            behind.is_out_of_turn = true;
        }
        match origin {
            Origin::Client => {}
            Origin::Change => self.left_out(&name, 1, self.ticked),
            // These were counted before.
            Origin::Sum(changes) => self.leave_out(&name, changes, self.ticked),
        }
        Some(Answered { name, is_of_client, offset: None })
    }

    /// The machine stops. So much of what is under way was kept, though nobody was
    /// told.
    pub(in super::super) fn crash(&mut self, kept: usize) {
        let mut is_refusing = false;
        for submission in std::mem::take(&mut self.submitted).into_iter().take(kept) {
            is_refusing |= submission.is_out_of_turn;
            if !is_refusing {
                self.append_kept(&submission.name, &submission.publication);
            }
        }
    }

    /// A message was judged before, and is kept now. Returns where it stands.
    fn append_kept(&mut self, name: &ChannelName, publication: &Publication) -> u64 {
        self.counted.kept += 1;
        self.append(name, publication, publication.content.clone());
        self.channels[name].next_offset() - 1
    }
}
