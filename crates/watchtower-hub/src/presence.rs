//! Telling a channel who comes and who goes ([model: presence]): messages of the
//! channel like all others, by nobody.
//!
//! Knows no subscriber and no session: who is a member is decided elsewhere.

use std::sync::Arc;
use std::time::Duration;

use crate::agenda::Item;
use crate::allowance::Allowance;
use crate::channel::{Channel, State};
use crate::inner::Inner;
use crate::ledger::NotKept;
use crate::publish::Draft;
use crate::settings::Accepts;
use crate::{Content, SenderId, Timestamp};

/// The event name of what a channel is told about presence. Nobody can publish
/// by it where that is told.
pub const PRESENCE_EVENT: &str = "presence";

/// How many changes a channel is told of one by one, when they come at once, and
/// how many a second when they go on. Each reaches everyone who is there: without
/// a bound, ten thousand who come at once would be a hundred million deliveries.
const CHANGES_AT_ONCE: u64 = 32;
const CHANGES_PER_SECOND: u64 = 10;

/// When a channel is told how many changes it was not told of.
const SUMMARY_AFTER: Duration = Duration::from_secs(1);

/// What a channel tells of presence, and has yet to tell.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    allowance: Allowance,
    /// Changes that were too many.
    left_out: u64,
}

/// What happened to a member, and by which protocol it came last.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Joined(&'static str),
    Left(&'static str),
}

/// What a message tells a channel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Told {
    Change,
    /// How many changes it was not told of.
    Sum(u64),
}

impl Announcements {
    /// Whether to tell a change. Once some were left out, all are until the
    /// summary: so what is told is in order.
    fn may_tell(&mut self, now: Timestamp) -> bool {
        self.has_told_all() && self.allowance.take(1, CHANGES_AT_ONCE, CHANGES_PER_SECOND, now)
    }

    /// Whether no number has yet to be told.
    pub(crate) fn has_told_all(&self) -> bool {
        self.left_out == 0
    }
}

impl Inner {
    /// Tells the channel of a change that was just made, if it is one that wants
    /// to know.
    pub(crate) fn announce(
        &self,
        channel: &Arc<Channel>,
        state: &mut State,
        change: Change,
        sender: SenderId,
        now: Timestamp,
    ) {
        let present = state.members.len();
        let Some(announcements) = &mut state.announcements else { return };
        // Not everybody who calls has a clock: some say when they last had one.
        let now = now.max(self.ticked());
        if announcements.may_tell(now) {
            let (key, protocol) = match change {
                Change::Joined(protocol) => ("joined", protocol),
                Change::Left(protocol) => ("left", protocol),
            };
            let protocol = serde_json::Value::from(protocol);
            let json = format!(r#"{{"{key}":{sender},"protocol":{protocol},"present":{present}}}"#);
            if self.publish_presence(channel, state, Told::Change, &json, now).is_ok() {
                return;
            }
        }
        self.leave_out(channel, state, Told::Change, now);
    }

    /// Tells the channel how many changes it was not told of.
    pub(crate) fn summarize_presence(&self, channel: &Arc<Channel>, state: &mut State, now: Timestamp) {
        let present = state.members.len();
        let Some(announcements) = &mut state.announcements else { return };
        let left_out = std::mem::take(&mut announcements.left_out);
        if state.has_nothing_to_put_right() {
            return self.look_whether_unused(channel, state);
        }
        let json = format!(r#"{{"left_out":{left_out},"present":{present}}}"#);
        let sum = Told::Sum(left_out);
        if self.publish_presence(channel, state, sum, &json, now).is_err() {
            self.leave_out(channel, state, sum, now);
        }
    }

    /// Sees to it that the channel is told how many changes it was not told of, as
    /// it was not of this: there were too many, or it is not kept.
    pub(crate) fn leave_out(&self, channel: &Arc<Channel>, state: &mut State, untold: Told, now: Timestamp) {
        let Some(announcements) = &mut state.announcements else { return };
        let changes = match untold {
            Told::Change => {
                self.counters.presence_left_out.add(1);
                1
            }
            // They were counted one by one.
            Told::Sum(changes) => changes,
        };
        let is_due = announcements.left_out > 0;
        announcements.left_out += changes;
        if !is_due && changes > 0 {
            self.agenda.add(now.after(SUMMARY_AFTER), Item::Presence(Arc::downgrade(channel)));
        }
    }

    fn publish_presence(
        &self,
        channel: &Arc<Channel>,
        state: &mut State,
        told: Told,
        json: &str,
        now: Timestamp,
    ) -> Result<(), NotKept> {
        if state.retired {
            return Ok(());
        }
        // JSON is text where nothing else is taken ([model: projection]).
        let text = || Content::text(json);
        let content = match channel.rule.accepts {
            Accepts::Text => text(),
            Accepts::Any | Accepts::Json => Content::json(json.to_owned()).unwrap_or_else(text),
        };
        let draft = Draft {
            sender: None,
            is_guest: false,
            event: PRESENCE_EVENT,
            receivers: None,
            extras: None,
            time: now,
        };
        if state.is_durable() {
            return self.submit_told(channel, state, &draft, content, told);
        }
        channel.append(state, &draft, content, &self.settings.load().limits, &self.counters);
        self.watch_published(channel, state, now);
        Ok(())
    }
}
