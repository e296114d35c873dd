//! The durable channel: what is submitted to the ledger, what comes of it, and
//! the end of a hub that nobody was told of.

use std::task::{Poll, Waker};

use watchtower_hub::{ChannelName, Refused};

use super::model::Answered;
use super::world::World;

/// The channel that is durable, where one is.
pub(super) fn is_durable(name: &ChannelName) -> bool {
    name.number() == Some(6)
}

impl World {
    /// The ledger answers the first submissions, and all who read.
    pub(super) fn answer_some(&mut self, count: usize, is_kept: bool) -> Result<(), String> {
        for _ in 0..count {
            self.shelf.answer(is_kept);
            let Some(answered) = self.oracle.model.answered(is_kept) else { break };
            if answered.is_of_client {
                self.answered(&answered)?;
            }
            self.check_kept()?;
        }
        self.shelf.answer_reads();
        Ok(())
    }

    /// The ledger keeps all that was submitted.
    pub(super) fn answer_all(&mut self) -> Result<(), String> {
        self.answer_some(self.oracle.model.submitted(), true)
    }

    /// A message is acknowledged, and delivered, once it is kept.
    fn answered(&mut self, answered: &Answered) -> Result<(), String> {
        let Answered { name, offset, .. } = answered;
        let published = self.awaited.pop_front();
        let result = published.map(|mut published| published.poll_with(Waker::noop()));
        let Some(Poll::Ready(result)) = result else {
            return Err(format!("the ledger answered, and who published on {name} does not know"));
        };
        match (&result, offset) {
            (Ok(positions), Some(offset)) if positions.iter().all(|position| position.offset == *offset) => {
                Ok(())
            }
            (Err(Refused::NotKept { .. }), None) => Ok(()),
            (_, offset) => Err(format!("it was answered {result:?}, and stands at {offset:?} of {name}")),
        }
    }

    /// [model: promises] What was acknowledged is kept, and nothing was before.
    pub(super) fn check_kept(&mut self) -> Result<(), String> {
        for (name, log) in self.oracle.model.durable() {
            let kept = self.shelf.contents(name);
            if !log.iter().map(|message| message.content.bytes()).eq(&kept) {
                return Err(format!(
                    "{} messages of {name} are kept, of {} that were answered",
                    kept.len(),
                    log.len()
                ));
            }
        }
        for published in &mut self.awaited {
            if let Poll::Ready(result) = published.poll_with(Waker::noop()) {
                return Err(format!("the ledger said nothing, and the answer is {result:?}"));
            }
        }
        Ok(())
    }

    /// [running: what outlives the server] What becomes of senders is noted, and kept behind what
    /// was submitted before.
    pub(super) fn check_noted(&self) -> Result<(), String> {
        if self.oracle.model.submitted() > 0 {
            return Ok(());
        }
        self.oracle.model.check_noted(&self.shelf.senders())
    }

    /// The hub stops, and another one begins with the same ledger. So much of
    /// what was submitted was kept, though nobody was told.
    pub(super) fn restart(&mut self, kept: usize) -> Result<(), String> {
        self.awaited.clear();
        self.shelf.crash(kept);
        self.oracle.model.crash(kept);
        self.begin_anew();
        for (name, log) in self.oracle.model.durable() {
            self.beginnings.note(&self.hub, name, log.len());
        }
        self.before.restarts += 1;
        self.check_kept()
    }

    /// The senders that were kept are there again.
    pub(super) fn take_up_senders(&mut self) {
        let kept = self.shelf.senders();
        for sender in &kept {
            // What is beyond a limit is given up.
            let _ = self.hub.restore(sender, self.now);
            self.oracle.model.restore(sender);
        }
        self.oracle.known = kept.iter().map(|sender| sender.id.get()).collect();
        let known = &self.oracle.known;
        self.clients.iter_mut().for_each(|client| client.ids.retain(|id| known.contains(id)));
    }
}
