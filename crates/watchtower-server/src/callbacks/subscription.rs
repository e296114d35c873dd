//! One sender's wish for one URL: its session in the hub, and the feed that
//! the worker takes its messages from.
//!
//! Knows the hub; deliberately knows nothing of HTTP and of other
//! subscriptions.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use watchtower_hub::{
    ChannelName, Drained, Entry, Format, Hub, Position, Refused, SenderId, Session, Start, Timestamp,
    WhenLagging,
};

use super::delivery::{DeliveryId, SubscriptionId};
use super::target::CallbackUrl;
use super::worker::{Delivery, Feed};

/// What presence calls a callback.
const PROTOCOL: &str = "callback";

/// A callback subscription that lives.
pub(super) struct Subscription {
    pub(super) id: SubscriptionId,
    pub(super) sender: SenderId,
    pub(super) url: CallbackUrl,
    session: Session,
    /// The last message of each channel that the receiver has.
    accepted: Mutex<BTreeMap<ChannelName, Position>>,
    /// Whether that has changed since it was kept.
    has_moved: AtomicBool,
}

/// What is to be kept of a subscription, so that it goes on after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id: delivery ids stay the same with it.
    pub id: SubscriptionId,
    /// Whose it is.
    pub sender: SenderId,
    /// Where its messages go.
    pub url: CallbackUrl,
    /// Its channels in their order, each with the last message that the
    /// receiver has.
    pub channels: Vec<(ChannelName, Position)>,
}

impl Subscription {
    /// One without channels. A receiver that fails for long falls behind:
    /// then it skips ahead and the hub counts the loss, so that its memory
    /// stays bounded and it goes on when it has recovered ([model: log]).
    pub(super) fn open(hub: &Hub, id: SubscriptionId, sender: SenderId, url: CallbackUrl) -> Subscription {
        let session = hub.open(PROTOCOL, WhenLagging::Skip);
        Subscription {
            id,
            sender,
            url,
            session,
            accepted: Mutex::default(),
            has_moved: AtomicBool::new(false),
        }
    }

    /// Delivers these channels too. One that is delivered already stays where
    /// it is.
    pub(super) fn subscribe(&self, channels: &[(ChannelName, Start)], now: Timestamp) -> Result<(), Refused> {
        // Meanwhile: the worker may have the first message before this goes on.
        let mut accepted = self.accepted.lock();
        for (channel, start) in channels {
            let joined = self.session.subscribe(self.sender, channel, *start, now)?;
            accepted.entry(channel.clone()).or_insert(joined.position);
        }
        Ok(())
    }

    /// Subscribes to all of `channels` or to none, and thereby proves that it
    /// can be done: while the session that this returns lives, the sender is a
    /// member of each, and no limit stands in the way of another subscription.
    pub(super) fn rehearse<'a>(
        hub: &Hub,
        sender: SenderId,
        channels: impl IntoIterator<Item = &'a ChannelName>,
        now: Timestamp,
    ) -> Result<Session, Refused> {
        let rehearsal = hub.open(PROTOCOL, WhenLagging::Skip);
        rehearsal.end_joins_on_close();
        for channel in channels {
            rehearsal.subscribe(sender, channel, Start::End, now)?;
        }
        Ok(rehearsal)
    }

    /// How far the receiver has come in a channel; none when that was left.
    fn accepted(&self, channel: &ChannelName) -> Option<Position> {
        self.accepted.lock().get(channel).copied()
    }

    /// Whether the receiver has yet to get what it was to get next: not when its
    /// channel was left meanwhile, or left and joined again.
    fn owes(&self, first: &First) -> bool {
        first.after.is_some()
            && self.accepted(&first.channel) == first.after
            && self.session.is_subscribed(&first.channel)
    }

    /// Forgets the channels that the sender has left by whatever protocol;
    /// whether none remains.
    pub(super) fn forget_left(&self) -> bool {
        let mut accepted = self.accepted.lock();
        let before = accepted.len();
        accepted.retain(|channel, _| self.session.is_subscribed(channel));
        if accepted.len() < before {
            self.has_moved.store(true, Ordering::Relaxed);
        }
        self.session.subscriptions() == 0
    }

    /// The sender's joins by this subscription end now, not `session_ttl` after
    /// it.
    pub(super) fn end_joins(&self) {
        self.session.end_joins_on_close();
    }

    /// What is to be kept of it, if that has changed since it was last asked.
    pub(super) fn moved(&self) -> Option<Record> {
        // Which is rare, and to ask the hub about each channel takes time.
        if self.session.subscriptions() != self.accepted.lock().len() {
            self.forget_left();
        }
        self.has_moved.swap(false, Ordering::Relaxed).then(|| self.record())
    }

    pub(super) fn record(&self) -> Record {
        let accepted = self.accepted.lock();
        let channels = accepted.iter().map(|(channel, position)| (channel.clone(), *position)).collect();
        Record { id: self.id, sender: self.sender, url: self.url.clone(), channels }
    }
}

/// A subscription's messages, one at a time.
pub(super) struct HubFeed {
    subscription: Arc<Subscription>,
    format: Arc<dyn Format>,
    /// Taken from the session and not accepted yet. The hub's entry itself is
    /// not held: it would keep all that is published after it in memory.
    first: Option<First>,
}

struct First {
    channel: ChannelName,
    position: Position,
    /// How far its receiver had come when it was taken. It is behind that, but for
    /// what the channel retained.
    after: Option<Position>,
    delivery: Delivery,
}

impl HubFeed {
    /// `format` makes one JSON text of a message; a line end after it is cut
    /// off.
    pub(super) fn new(subscription: Arc<Subscription>, format: Arc<dyn Format>) -> HubFeed {
        HubFeed { subscription, format, first: None }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let Subscription { session, .. } = &*self.subscription;
        self.first.take_if(|first| !self.subscription.owes(first));
        let mut drained = Drained::More;
        while self.first.is_none() && drained == Drained::More {
            let mut first = None;
            drained = session.drain_messages(Some(context.waker()), |entry| {
                first = first_of(self.subscription.id, entry, &*self.format);
                first.is_none()
            });
            // Not amid the drain: whoever holds what was accepted asks the session.
            self.first =
                first.map(|first| First { after: self.subscription.accepted(&first.channel), ..first });
        }
        match &self.first {
            Some(first) => Poll::Ready(Some(first.delivery.clone())),
            None if session.subscriptions() == 0 => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// A message as it is delivered; none when the format cannot show it.
fn first_of(id: SubscriptionId, entry: &Entry, format: &dyn Format) -> Option<First> {
    let frame = entry.frame(format);
    let json = frame.strip_suffix(b"\n").unwrap_or(frame);
    let delivery =
        Delivery { id: id.delivery(entry.channel(), entry.position()), body: frame.slice_ref(json) };
    (!json.is_empty()).then(|| First {
        channel: entry.channel().clone(),
        position: entry.position(),
        after: None,
        delivery,
    })
}

impl Feed for HubFeed {
    fn next(&mut self) -> impl Future<Output = Option<Delivery>> + Send {
        poll_fn(|context| self.poll_next(context))
    }

    fn accept(&mut self, delivery: DeliveryId) {
        if let Some(first) = self.first.take_if(|first| first.delivery.id == delivery)
            && let Some(accepted) = self.subscription.accepted.lock().get_mut(&first.channel)
            // A channel that was left and joined again meanwhile begins after it.
            && accepted.offset < first.position.offset
        {
            *accepted = first.position;
            self.subscription.has_moved.store(true, Ordering::Relaxed);
        }
    }
}
