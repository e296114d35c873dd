//! What a durable channel has in memory besides its log: how many messages are
//! on their way to the ledger.
//!
//! Knows no ledger: who submits says what was answered.

use std::time::Duration;

use super::{Channel, State};
use crate::{NotKept, Position};

/// How much of a durable log stays in memory, in bytes, so that who comes back
/// soon costs the disk nothing.
pub(super) const TAIL_BYTES: u64 = 256 << 10;

/// For how long.
pub(super) const TAIL_AGE: Duration = Duration::from_secs(60);

/// Messages that were submitted to the ledger and are not answered yet. They
/// have the offsets from the end of the log on.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    pending: u64,
    /// Whether one of those was refused, so that those behind it will be.
    is_refusing: bool,
}

impl Durable {
    pub(super) fn is_settled(&self) -> bool {
        self.pending == 0
    }
}

impl State {
    pub(crate) fn is_durable(&self) -> bool {
        self.durable.is_some()
    }

    /// Takes the position of the next message that is submitted; `None` where
    /// none is.
    pub(crate) fn reserve(&mut self, channel: &Channel) -> Result<Option<Position>, NotKept> {
        let Some(durable) = &mut self.durable else { return Ok(None) };
        if durable.is_refusing {
            return Err(NotKept::OutOfTurn);
        }
        let offset = self.end.offset() + durable.pending;
        durable.pending += 1;
        Ok(Some(Position { epoch: channel.epoch, offset }))
    }

    /// Gives back the last position that was reserved, for a message that was
    /// not submitted.
    pub(crate) fn give_back(&mut self) {
        if let Some(durable) = &mut self.durable {
            durable.pending -= 1;
        }
    }

    /// Notes that the first message that is not answered yet was answered.
    pub(crate) fn settle(&mut self, is_kept: bool) {
        let Some(durable) = &mut self.durable else { return };
        durable.pending -= 1;
        // What was submitted behind a message that was refused has an offset that
        // will not be next. Once all of it is answered, the end of the log is.
        durable.is_refusing = durable.pending > 0 && (durable.is_refusing || !is_kept);
    }
}
