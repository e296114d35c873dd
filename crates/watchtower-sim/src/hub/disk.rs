//! The durable channel: what is submitted to the ledger, what comes of it, and
//! the end of a hub that nobody was told of.

use std::task::{Poll, Waker};

use watchtower_hub::{ChannelName, Position, Published, Refused};

use super::model::{Publication, Refusal};
use super::world::World;

/// A publication that waits for the ledger.
pub(super) struct Submission {
    name: ChannelName,
    publication: Publication,
    /// Where it will stand.
    published: Published<Vec<Position>>,
    /// Whether one before it was refused, and it cannot take that one's place.
    is_out_of_turn: bool,
}

/// The channel that is durable, where one is.
pub(super) fn is_durable(name: &ChannelName) -> bool {
    name.number() == Some(6)
}

impl World {
    /// Whether a publication on a durable channel would be refused at once.
    pub(super) fn may_submit(&self, name: &ChannelName) -> Result<(), Refusal> {
        let mut waiting = self.submissions.iter().filter(|submission| submission.name == *name);
        if waiting.any(|submission| submission.is_out_of_turn) { Err(Refusal::NotKept) } else { Ok(()) }
    }

    pub(super) fn submitted(
        &mut self,
        name: ChannelName,
        publication: Publication,
        published: Published<Vec<Position>>,
    ) {
        self.submissions.push_back(Submission { name, publication, published, is_out_of_turn: false });
    }

    /// The ledger answers the first submissions, and all who read.
    pub(super) fn answer_some(&mut self, count: usize, is_kept: bool) -> Result<(), String> {
        for _ in 0..count {
            let Some(submission) = self.submissions.pop_front() else { break };
            self.shelf.answer(is_kept);
            self.answered(submission, is_kept)?;
            self.check_kept()?;
        }
        self.shelf.answer_reads();
        Ok(())
    }

    /// A message is acknowledged, and delivered, once it is kept.
    fn answered(&mut self, submission: Submission, is_kept: bool) -> Result<(), String> {
        let Submission { name, publication, mut published, is_out_of_turn } = submission;
        let Poll::Ready(result) = published.poll_with(Waker::noop()) else {
            return Err(format!("the ledger answered, and who published on {name} does not know"));
        };
        let is_kept = is_kept && !is_out_of_turn;
        if !is_kept {
            for behind in self.submissions.iter_mut().filter(|behind| behind.name == name) {
                behind.is_out_of_turn = true;
            }
        }
        let expected = if is_kept { Some(self.oracle.model.append_kept(&name, &publication)) } else { None };
        match (&result, expected) {
            (Ok(positions), Some(offset)) if positions.iter().all(|position| position.offset == offset) => {
                Ok(())
            }
            (Err(Refused::NotKept { .. }), None) => Ok(()),
            (_, expected) => Err(format!("it was answered {result:?}, and stands at {expected:?} of {name}")),
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
        for submission in &mut self.submissions {
            if let Poll::Ready(result) = submission.published.poll_with(Waker::noop()) {
                return Err(format!("the ledger said nothing, and the answer is {result:?}"));
            }
        }
        Ok(())
    }

    /// The hub stops, and another one begins with the same ledger. So much of
    /// what was submitted was kept, though nobody was told.
    pub(super) fn restart(&mut self, kept: usize) -> Result<(), String> {
        let submissions = std::mem::take(&mut self.submissions);
        self.shelf.crash(kept);
        let mut is_refusing = false;
        for submission in submissions.into_iter().take(kept) {
            is_refusing |= submission.is_out_of_turn;
            if !is_refusing {
                self.oracle.model.append_kept(&submission.name, &submission.publication);
            }
        }
        self.begin_anew();
        self.before.restarts += 1;
        self.check_kept()
    }
}
