//! Whether anybody knows the node, so that it hears something.
//!
//! A peer is known by the `Addr` of what it says, and hears on the connections
//! that others make to it. One that has said nothing may be connected to others
//! and hear nothing. So the node asks for a greeting then, and where that does
//! not help it tells its user.

use std::time::Duration;

use watchtower_hub::Timestamp;

use super::Node;
use crate::whispernet::events::{Action, Notice};

/// How many times as long as for a greeting it is waited until the user is told
/// that others do not reach the node.
const UNREACHED_AFTER: u32 = 5;

/// Since when the node has peers, none of whom is connected to it.
pub(super) struct Unheard {
    /// After how long it is to greet; without it all this is nobody's concern.
    after: Option<Duration>,
    since: Option<Timestamp>,
    has_greeted: bool,
    has_told: bool,
}

impl Unheard {
    pub(super) fn new(after: Option<Duration>) -> Unheard {
        Unheard { after, since: None, has_greeted: false, has_told: false }
    }

    /// What happens next, if nobody connects: a greeting, or that the user is told.
    fn deadline(&self) -> Option<Timestamp> {
        let (since, after) = (self.since?, self.after?);
        match (self.has_greeted, self.has_told) {
            (false, _) => Some(since.after(after)),
            (true, false) => Some(since.after(UNREACHED_AFTER * after)),
            (true, true) => None,
        }
    }
}

impl Node {
    pub(super) fn unheard_deadline(&self) -> Option<Timestamp> {
        self.unheard.deadline()
    }

    /// Looks at who is connected, and does what is due.
    pub(super) fn look_who_hears(&mut self, now: Timestamp) {
        if self.outgoing.is_empty() || !self.incoming.is_empty() {
            // Whoever connects next may know nothing of it again.
            self.unheard = Unheard::new(self.unheard.after);
            return;
        }
        self.unheard.since.get_or_insert(now);
        if self.unheard.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        if self.unheard.has_greeted {
            self.unheard.has_told = true;
            self.actions.push_back(Action::Tell(Notice::Unreached(self.own.announced())));
        } else {
            self.unheard.has_greeted = true;
            // What it said its peers were sent: they know it.
            if !self.backlog.has_from(self.own.announced(), now) {
                self.actions.push_back(Action::Greet);
            }
        }
    }
}
