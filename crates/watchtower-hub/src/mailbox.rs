//! A log of one session's own, for what is said to that client alone.
//!
//! It is a channel that is in no list: nobody finds it, joins it or takes an
//! offset in it.

use std::sync::Arc;

use crate::channel::Channel;
use crate::inner::Inner;
use crate::publish::Draft;
use crate::settings::ChannelRule;
use crate::{ChannelName, Content, Publish, Refused, Session, Timestamp};

/// A way to reach one session outside of all channels.
///
/// What is delivered is kept until the session reads it, within the lag limits
/// of a subscription ([model: log]). Dropping the mailbox ends it, with what was
/// not read.
#[derive(Debug)]
pub struct Mailbox {
    hub: Arc<Inner>,
    /// In no map. Its only subscription, while the session is open, has slot 0.
    channel: Arc<Channel>,
}

impl Session {
    /// A mailbox that this session reads. Its messages show `name` as their
    /// channel, and nothing but that: a channel of the name is not made, and one
    /// that there is not touched.
    pub fn mailbox(&self, name: &ChannelName) -> Mailbox {
        let channel = self.hub.unlisted(name, ChannelRule::default());
        let mut state = channel.lock();
        let end = state.end().clone();
        let subscribed = state.subscribe(&channel, &self.link, None, &end, &self.hub.counters);
        debug_assert!(subscribed.is_ok(), "a session is open while it is held");
        drop(state);
        Mailbox { hub: self.hub.clone(), channel }
    }
}

impl Mailbox {
    /// Delivers to the session, in the order of these calls. Between what comes
    /// by channels and what comes by mailboxes there is no order.
    ///
    /// # Errors
    ///
    /// [`Refused::TooLarge`]; [`Refused::Closed`] when the session is over.
    pub fn deliver(&self, content: Content, now: Timestamp) -> Result<(), Refused> {
        let settings = self.hub.settings.load();
        let (draft, content) = Draft::new(Publish::new(content), now, &settings)?;
        let mut state = self.channel.lock();
        if !state.is_read() {
            return Err(Refused::Closed);
        }
        self.channel.append(&mut state, &draft, content, &settings.limits, &self.hub.counters);
        Ok(())
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.channel.lock().release(0, None, &self.hub.counters);
    }
}
