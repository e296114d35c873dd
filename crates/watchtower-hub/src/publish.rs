//! A message on its way into channels: what a publisher says of it, and the
//! calls that judge it and append it.
//!
//! Knows no log and no subscriber: what happens under a channel's lock is the
//! channel's.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use bytes::Bytes;

use crate::channel::{Channel, State};
use crate::inner::Inner;
use crate::submit::Target;
use crate::{ChannelName, Content, Position, Published, Refused, SenderId, Settings, Timestamp};

/// A message to be published.
///
/// ```
/// # use watchtower_hub::{Content, Publish, SenderId};
/// # let sender = SenderId::new(7).unwrap();
/// let message = Publish::new(Content::text("21.5")).by(sender).event("temperature");
/// ```
#[derive(Debug, Clone)]
pub struct Publish<'a> {
    content: Content,
    sender: Option<SenderId>,
    is_guest: bool,
    event: &'a str,
    receivers: Option<&'a [u32]>,
    extras: Option<Bytes>,
}

impl<'a> Publish<'a> {
    /// A message for everyone, by the server itself, which need not have
    /// joined, and for which a channel is made when there is none.
    pub fn new(content: Content) -> Publish<'a> {
        Publish { content, sender: None, is_guest: false, event: "message", receivers: None, extras: None }
    }

    /// Says who publishes. The sender must have joined the channel.
    #[must_use]
    pub fn by(self, sender: SenderId) -> Publish<'a> {
        Publish { sender: Some(sender), is_guest: false, ..self }
    }

    /// Says who publishes, by a protocol in which a sender need not join a
    /// channel to publish on it ([webrocket: publish]). The channel must be there.
    #[must_use]
    pub fn by_guest(self, sender: SenderId) -> Publish<'a> {
        Publish { sender: Some(sender), is_guest: true, ..self }
    }

    /// Gives it an event name; `message` is the default one.
    #[must_use]
    pub fn event(self, event: &'a str) -> Publish<'a> {
        Publish { event, ..self }
    }

    /// Makes it a direct message to these senders, who must all have joined:
    /// each gets it once, however often it is named.
    #[must_use]
    pub fn to(self, receivers: &'a [u32]) -> Publish<'a> {
        Publish { receivers: Some(receivers), ..self }
    }

    /// Puts something beside the content, for subscribers of the publisher's
    /// own protocol: formats of others leave it out. It counts as content
    /// where lengths are limited.
    #[must_use]
    pub fn extras(self, extras: Bytes) -> Publish<'a> {
        Publish { extras: Some(extras), ..self }
    }
}

/// A message whose length and sender were found to be right, but for its content.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) sender: Option<SenderId>,
    /// Whether its sender need not have joined.
    pub(crate) is_guest: bool,
    pub(crate) event: &'a str,
    /// `None` for everyone.
    pub(crate) receivers: Option<Receivers>,
    pub(crate) extras: Option<Bytes>,
    pub(crate) time: Timestamp,
}

/// Who a direct message is for.
#[derive(Debug)]
pub(crate) struct Receivers {
    /// Sorted and without doubles.
    pub(crate) ids: Vec<SenderId>,
    /// Whether 0 was named, which is nobody's id.
    pub(crate) nobody: bool,
}

impl Receivers {
    fn new(numbers: &[u32]) -> Receivers {
        let mut ids: Vec<_> = numbers.iter().filter_map(|&id| SenderId::new(id)).collect();
        ids.sort_unstable();
        ids.dedup();
        Receivers { ids, nobody: numbers.contains(&0) }
    }
}

impl<'a> Draft<'a> {
    /// Judges what no channel is needed for. The content is apart: one channel
    /// takes it as it is, and shares it with nobody.
    pub(crate) fn new(
        message: Publish<'a>,
        time: Timestamp,
        settings: &Settings,
    ) -> Result<(Draft<'a>, Content), Refused> {
        let Publish { content, sender, is_guest, event, receivers, extras } = message;
        let bytes = content.bytes().len() + extras.as_ref().map_or(0, Bytes::len);
        let limit = settings.limits.message_bytes_max;
        if bytes > limit {
            return Err(Refused::TooLarge { bytes, limit });
        }
        let receivers = receivers.map(Receivers::new);
        Ok((Draft { sender, is_guest, event, receivers, extras, time }, content))
    }
}

impl Inner {
    pub(crate) fn publish(
        self: &Arc<Self>,
        channel: &ChannelName,
        message: Publish<'_>,
        now: Timestamp,
    ) -> Result<Published, Refused> {
        let settings = self.settings.load();
        let (draft, content) = self.draft(message, now, &settings)?;
        loop {
            let channel = self.target(channel, &draft, &settings)?;
            let mut state = channel.lock();
            if state.retired {
                continue;
            }
            let content = self
                .judge(&channel, &state, &draft, content, &settings)
                .inspect_err(|_| self.take_back(&channel, &mut state))?;
            if state.is_durable() {
                return self.submit_one(Target { channel: &channel, state, content }, &draft);
            }
            let position = channel.append(&mut state, &draft, content, &settings.limits, &self.counters);
            self.watch_published(&channel, &mut state, now);
            return Ok(Published::known(position));
        }
    }

    pub(crate) fn publish_all(
        self: &Arc<Self>,
        channels: &[ChannelName],
        message: Publish<'_>,
        now: Timestamp,
    ) -> Result<Published<Vec<Position>>, Refused> {
        let settings = self.settings.load();
        let (draft, content) = self.draft(message, now, &settings)?;
        // All locks at once, always in the order of names: nobody waits in a
        // circle, and nothing changes between judging and appending.
        let mut names: Vec<_> = channels.iter().collect();
        names.sort();
        names.dedup();
        let places: Vec<usize> = channels.iter().filter_map(|name| names.binary_search(&name).ok()).collect();
        let in_order = move |positions: &[Position]| places.iter().map(|&place| positions[place]).collect();
        loop {
            let found = self.targets(&names, &draft, &settings)?;
            let mut states: Vec<_> = found.iter().map(|channel| channel.lock()).collect();
            if states.iter().any(|state| state.retired) {
                continue;
            }
            let judged = found.iter().zip(&states);
            let judged =
                judged.map(|(channel, state)| self.judge(channel, state, &draft, content.clone(), &settings));
            let contents = judged.collect::<Result<Vec<_>, _>>().inspect_err(|_| {
                found.iter().zip(&mut states).for_each(|(channel, state)| self.take_back(channel, state));
            })?;
            let targets = found.iter().zip(states).zip(contents);
            let targets = targets.map(|((channel, state), content)| Target { channel, state, content });
            let targets: Vec<_> = targets.collect();
            if targets.iter().any(|target| target.state.is_durable()) {
                return self.submit(&draft, targets, in_order);
            }
            let mut positions = Vec::with_capacity(targets.len());
            for Target { channel, mut state, content } in targets {
                positions.push(channel.append(&mut state, &draft, content, &settings.limits, &self.counters));
                self.watch_published(channel, &mut state, now);
            }
            return Ok(Published::known(in_order(&positions)));
        }
    }

    /// Judges a message under the lock of a channel, and gives its content the form
    /// that the channel keeps.
    fn judge(
        &self,
        channel: &Channel,
        state: &State,
        draft: &Draft<'_>,
        content: Content,
        settings: &Settings,
    ) -> Result<Content, Refused> {
        self.check_open()?;
        let content = channel.judge(state, draft, content)?;
        channel.judge_retained(state, draft, &content, &settings.limits, &self.counters)?;
        Ok(content)
    }

    /// Takes no more messages.
    pub(crate) fn end_publishing(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        // Whoever found it open holds the lock of a channel. One that is made
        // meanwhile, and missed here, is published on by those who find it closed.
        fence(Ordering::SeqCst);
        self.channels.pin().values().for_each(|channel| drop(channel.lock()));
    }

    /// Asked under the lock of a channel, before a message is put into it.
    fn check_open(&self) -> Result<(), Refused> {
        fence(Ordering::SeqCst);
        if self.is_closed.load(Ordering::SeqCst) { Err(Refused::Closed) } else { Ok(()) }
    }

    fn draft<'a>(
        &self,
        message: Publish<'a>,
        now: Timestamp,
        settings: &Settings,
    ) -> Result<(Draft<'a>, Content), Refused> {
        let drafted = Draft::new(message, now, settings);
        let (draft, content) = drafted.inspect_err(|_| {
            // Nothing but its length is judged there.
            self.counters.refused.message_bytes.fetch_add(1, Ordering::Relaxed);
        })?;
        if let Some(sender) = draft.sender {
            let senders = self.senders.pin();
            self.touch(senders.get(&sender).ok_or(Refused::UnknownSender(sender))?, now);
        }
        Ok((draft, content))
    }

    /// The channels to publish on. When one is refused, none was made.
    fn targets(
        &self,
        names: &[&ChannelName],
        draft: &Draft<'_>,
        settings: &Settings,
    ) -> Result<Vec<Arc<Channel>>, Refused> {
        let mut targets = Vec::with_capacity(names.len());
        for name in names {
            let target = self.target(name, draft, settings).inspect_err(|_| {
                targets
                    .iter()
                    .for_each(|channel: &Arc<Channel>| self.take_back(channel, &mut channel.lock()));
            })?;
            targets.push(target);
        }
        Ok(targets)
    }

    /// A channel to publish on. A sender must have joined it, or name one that
    /// there is, so it is not made, save from its log; for the server itself it
    /// is.
    fn target(
        &self,
        name: &ChannelName,
        draft: &Draft<'_>,
        settings: &Settings,
    ) -> Result<Arc<Channel>, Refused> {
        if draft.sender.is_none() {
            return self.channel(name, settings);
        }
        if let Some(channel) = self.channels.pin().get(name) {
            return Ok(channel.clone());
        }
        let channel = name.clone();
        match draft.is_guest {
            true if self.log(name).is_some() => self.channel(name, settings),
            true => Err(Refused::NoSuchChannel { channel }),
            false => Err(Refused::NotJoined { channel }),
        }
    }
}
