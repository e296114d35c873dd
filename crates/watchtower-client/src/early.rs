//! What arrives for the first channels of a subscription while the last ones are asked for.
//!
//! Knows no protocol.

use std::collections::VecDeque;

use crate::{ClientError, Message};

/// What may come for the first channels while the last ones are joined, in bytes
/// of content; above it the subscription fails.
const EARLY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What one early message counts on top of its content, so that empty ones count.
const EARLY_MESSAGE_BYTES: usize = 256;

/// Messages that came before their subscription was made.
#[derive(Default)]
pub(crate) struct Early {
    /// Whether a subscription is being made: else nobody wants them.
    kept: bool,
    messages: VecDeque<Message>,
    /// Invariant: at most [`EARLY_BYTES_MAX`].
    bytes: usize,
}

impl Early {
    /// From now on, what comes is kept.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }

    /// What was kept, in its order.
    pub(crate) fn take(&mut self) -> VecDeque<Message> {
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }

    pub(crate) fn push(&mut self, message: Message) -> Result<(), ClientError> {
        if !self.kept {
            return Ok(());
        }
        let bytes = self.bytes + message.content.bytes().len() + EARLY_MESSAGE_BYTES;
        if bytes > EARLY_BYTES_MAX {
            return Err(ClientError::Overrun);
        }
        self.bytes = bytes;
        self.messages.push_back(message);
        Ok(())
    }
}
