//! Publishing and subscribing for the program that a server runs in.
//!
//! The same hub calls as any protocol's, without a wire.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};

use watchtower_hub::{ChannelName, Drained, Hub, Message, Refused, Session, Start, WhenLagging};

use crate::clock;

/// What the hub calls the sessions of the program itself.
const PROTOCOL: &str = "inside";

/// How many messages are taken from the hub at a time.
const MESSAGES_AT_A_TIME: usize = 64;

/// The messages of some channels, from the moment of subscribing on: made by
/// [`Handle::subscribe`](crate::Handle::subscribe).
///
/// Each channel's messages come in the order of their offsets, each at most
/// once. Who falls behind by more than `limits.lag_bytes` or
/// `limits.lag_messages` skips ahead: then offsets are missing, and
/// `watchtower_messages_skipped_total` counts them. Direct messages are not for a
/// subscriber. Dropping it ends its subscriptions.
#[derive(Debug)]
pub struct Subscriber {
    session: Session,
    taken: VecDeque<Message>,
}

impl Subscriber {
    pub(crate) fn new(hub: &Hub, channels: &[ChannelName]) -> Result<Subscriber, Refused> {
        Subscriber::open(hub, PROTOCOL, channels)
    }

    /// One that presence shows by that protocol.
    pub(crate) fn open(
        hub: &Hub,
        protocol: &'static str,
        channels: &[ChannelName],
    ) -> Result<Subscriber, Refused> {
        let now = clock::now();
        let session = hub.open(protocol, WhenLagging::Skip);
        session.end_joins_on_close();
        let sender = session.register_passing(now)?;
        for channel in channels {
            session.subscribe(sender, channel, Start::End, now)?;
        }
        Ok(Subscriber { session, taken: VecDeque::new() })
    }

    /// Whether any of its subscriptions is left: who knows the sender's id can
    /// unregister it.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.session.subscriptions() > 0
    }

    /// The next message. Waits until there is one; dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Message {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Message> {
        if self.taken.is_empty() {
            let taken = &mut self.taken;
            // An entry would keep all that follows it in memory for as long as
            // it is held: a copy shares the content alone.
            let drained = self.session.drain_messages(Some(cx.waker()), |entry| {
                taken.push_back(entry.detached_copy());
                taken.len() < MESSAGES_AT_A_TIME
            });
            debug_assert!(drained != Drained::Lagging, "the session skips");
        }
        self.taken.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use watchtower_hub::{Content, Publish, Settings};

    use super::*;
    use crate::clock::SystemEntropy;

    fn publish(hub: &Hub, channel: &ChannelName, text: &str) {
        let message = Publish::new(Content::text(text)).event("said");
        hub.publish(channel, message, clock::now()).expect("it is taken");
    }

    #[tokio::test]
    async fn messages_of_several_channels_come_in_order_and_wake_who_waits() {
        let hub = Hub::new(Settings::default(), Box::new(SystemEntropy));
        let channels = ["5", "news"].map(|name| ChannelName::parse(name).expect("a name"));
        let mut subscriber = Subscriber::new(&hub, &channels).expect("room");
        for number in 0..200 {
            publish(&hub, &channels[0], &number.to_string());
        }
        for number in 0..200 {
            let message = subscriber.next().await;
            assert_eq!(message.content().as_text(), Some(number.to_string().as_str()));
            assert_eq!((message.position().offset, message.event()), (number + 1, Some("said")));
        }
        let waiting = tokio::spawn(async move {
            let message = subscriber.next().await;
            (message.channel().clone(), subscriber)
        });
        tokio::task::yield_now().await;
        publish(&hub, &channels[1], "late");
        let (channel, subscriber) = waiting.await.expect("it came");
        assert_eq!(channel, channels[1]);
        assert_eq!(hub.counts().subscriptions, 2);
        drop(subscriber);
        assert_eq!(hub.counts().subscriptions, 0);
    }
}
