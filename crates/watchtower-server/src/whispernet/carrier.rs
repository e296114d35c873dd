//! The two directions between a channel and the peers.
//!
//! Nothing goes back where it came from. Of what is published here the
//! positions are kept until they are read again, and the peer knows what it has
//! seen. Both directions are parts of one task, so that a message is never read
//! before its position is kept.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::task::{consume_budget, unconstrained};
use tokio::time::timeout;
use watchtower_hub::{
    ChannelName, Content, Hub, Message, PRESENCE_EVENT, Position, Publish, Refused, SenderId,
};
use watchtower_protocols::byline;
use watchtower_whisper::protocol::safe_text::safe_nick;
use watchtower_whisper::protocol::{GREETING, Notice, Shown, Unsaid};
use watchtower_whisper::{Event, Events, Peer};

use super::PROTOCOL;
use super::counts::Counts;
use crate::clock;
use crate::inside::Subscriber;

/// What binary content is to peers ([model: projection]).
const BINARY: &str = "application/octet-stream";

/// How many messages are said at the end that were published before it.
const REST_MAX: usize = 10_000;

/// How often it is looked whether the channel is still read: whoever learns the
/// id of the sender that reads it can unregister that.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Carries messages between a channel and the peers.
pub(super) struct Carrier {
    hub: Hub,
    channel: ChannelName,
    peer: Peer,
    nick: String,
    /// Tells senders apart to peers, who are not to know their ids: with an id
    /// one may send in its name.
    pseudonyms: RandomState,
    /// What was published here and is yet to be read, in the channel's order.
    /// Invariant: what is behind the reader is taken out, and how far it may be
    /// behind is the hub's limit.
    own: Mutex<VecDeque<Position>>,
    /// Held while it is not known yet where a message stands, so that it is not
    /// taken for somebody else's: on a durable channel it can be read before.
    publishing: tokio::sync::Mutex<()>,
    counts: Counts,
}

impl Carrier {
    pub(super) fn new(hub: Hub, channel: ChannelName, peer: Peer, nick: &str, counts: Counts) -> Carrier {
        Carrier {
            hub,
            channel,
            peer,
            nick: nick.to_owned(),
            pseudonyms: RandomState::new(),
            own: Mutex::default(),
            publishing: tokio::sync::Mutex::default(),
            counts,
        }
    }

    /// Says to the peers what is published on the channel, for ever. What is
    /// being said when the future is dropped is left in `unsaid`.
    pub(super) async fn to_peers(&self, subscriber: &mut Subscriber, unsaid: &mut Option<Message>) {
        loop {
            match timeout(LOOK_INTERVAL, subscriber.next()).await {
                Ok(message) => {
                    let message = unsaid.insert(message);
                    self.say(message).await;
                    *unsaid = None;
                }
                Err(_) => self.look_after(subscriber),
            }
            // Others have their turn, however much there is to say.
            consume_budget().await;
        }
    }

    /// Says what was published before the end, as far as nobody is waited for.
    pub(super) fn say_the_rest(&self, subscriber: &mut Subscriber, unsaid: Option<Message>) {
        let next = || subscriber.next().now_or_never();
        for message in unsaid.into_iter().chain(std::iter::from_fn(next)).take(REST_MAX) {
            // A task that has done much is made to wait, for others to have their turn: this is
            // not somebody whom it waits for.
            if unconstrained(self.say(&message)).now_or_never().is_none() {
                self.counts.unsaid("ended");
            }
        }
    }

    fn look_after(&self, subscriber: &mut Subscriber) {
        if subscriber.is_subscribed() {
            return;
        }
        tracing::warn!(channel = %self.channel, "the whispernet's sender was unregistered; there is a new one");
        match Subscriber::open(&self.hub, PROTOCOL, std::slice::from_ref(&self.channel)) {
            Ok(new) => {
                self.own.lock().clear();
                *subscriber = new;
            }
            Err(refused) => tracing::error!(%refused, "the whispernet cannot read its channel"),
        }
    }

    /// [model: projection]
    async fn say(&self, message: &Message) {
        drop(self.publishing.lock().await);
        if self.is_own(message.position()) {
            return;
        }
        // Not said by anybody; ids are for this server's clients.
        if message.sender().is_none() && message.event() == Some(PRESENCE_EVENT) {
            return self.counts.unsaid("presence");
        }
        let (nick, content) = (self.nick_of(message.sender()), message.content());
        let said = match content.as_text() {
            Some(body) => self.peer.say_as(Some(&nick), body).await,
            None => {
                let body = format!("message-{}.bin", message.position().offset);
                self.peer.say_file(Some(&nick), &body, BINARY, content.bytes()).await
            }
        };
        match said {
            Ok(_) => {}
            Err(Unsaid::Empty) => self.counts.unsaid("empty"),
            Err(Unsaid::TooLarge { .. }) => self.counts.unsaid("too_large"),
        }
    }

    /// Whether it was published here. What lies before it is not read any more.
    fn is_own(&self, position: Position) -> bool {
        let mut own = self.own.lock();
        while let Some(first) = own.front()
            && (first.epoch != position.epoch || first.offset < position.offset)
        {
            own.pop_front();
        }
        let is_own = own.front() == Some(&position);
        if is_own {
            own.pop_front();
        }
        is_own
    }

    /// The server's nick, and three digits for a sender: the same as long as the
    /// server runs, and of no use to find the id by. Few enough for the peers to
    /// remember the key of each.
    fn nick_of(&self, sender: Option<SenderId>) -> String {
        match sender {
            Some(sender) => format!("{}/{:03x}", self.nick, self.pseudonyms.hash_one(sender.get()) & 0xfff),
            None => self.nick.clone(),
        }
    }

    /// Publishes what peers say, until the peer ends.
    pub(super) async fn to_channel(&self, events: &mut Events) {
        loop {
            match events.next().await {
                Ok(Some(Event::Shown(shown))) => self.publish(&shown).await,
                Ok(Some(Event::Notice(notice))) => log(&notice),
                Ok(Some(Event::Warning(warning))) => tracing::warn!("whispernet: {warning}"),
                // A file in parts, which are put together by who saves files.
                Ok(Some(Event::Failed { name, .. })) => self.publish_that_it_came(&name).await,
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(skipped) => self.counts.unpublished("behind", skipped.0),
            }
            consume_budget().await;
        }
    }

    /// [model: projection]
    async fn publish(&self, shown: &Shown) {
        // From before this start: it was published when it was said.
        if shown.addr.as_deref() == Some(&*self.peer.address().to_string()) {
            return self.counts.unpublished("own", 1);
        }
        // It says that there is a peer, to peers.
        if shown.body == GREETING && shown.file.is_none() {
            return self.counts.unpublished("greeting", 1);
        }
        let nick = shown.nick.as_deref();
        let name = || Content::text(&*shown.body);
        let result = match &shown.file {
            None => self.publish_by(nick, name()).await,
            Some(file) => match self.publish_by(nick, Content::binary(file.contents.clone())).await {
                Err(Refused::TooLarge { .. } | Refused::BadContent { .. }) => {
                    self.counts.unpublished("file", 1);
                    // Its name at least.
                    self.publish_by(nick, name()).await
                }
                result => result,
            },
        };
        if let Err(refused) = result {
            self.counts.unpublished(reason(&refused), 1);
        }
    }

    /// A file came that is not carried: its name at least is.
    async fn publish_that_it_came(&self, name: &str) {
        self.counts.unpublished("file", 1);
        let text = format!("{name} (a large file, which does not come this way)");
        if let Err(refused) = self.publish_by(None, Content::text(text)).await {
            self.counts.unpublished(reason(&refused), 1);
        }
    }

    /// With the nick beside it, for protocols that have a place for it.
    async fn publish_by(&self, nick: Option<&str>, content: Content) -> Result<(), Refused> {
        let mut message = Publish::new(content);
        if let Some(nick) = nick.and_then(safe_nick) {
            message = message.extras(byline(&nick));
        }
        let _publishing = self.publishing.lock().await;
        let position = self.hub.publish(&self.channel, message, clock::now())?.await?;
        self.own.lock().push_back(position);
        Ok(())
    }
}

fn reason(refused: &Refused) -> &'static str {
    match refused {
        Refused::TooLarge { .. } => "too_large",
        Refused::BadContent { .. } => "bad_content",
        Refused::Limit { .. } => "limit",
        Refused::NotKept { .. } => "not_kept",
        _ => "refused",
    }
}

fn log(notice: &Notice) {
    match notice {
        Notice::Connected(addr) => tracing::info!(%addr, "a peer of the whispernet is connected to"),
        Notice::Lost(addr) => tracing::info!(%addr, "a peer of the whispernet is gone"),
        Notice::Forgotten(addr) => tracing::info!(%addr, "a peer of the whispernet is dialled no more"),
        Notice::Refused { ip, .. } => {
            tracing::warn!(%ip, "an address in the whispernet sent too much, and is refused for a while");
        }
        Notice::Unreached(addr) => {
            tracing::warn!(%addr, "no peer of the whispernet can connect to this server, so it hears nothing");
        }
        Notice::Pinned { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use watchtower_hub::Settings;
    use watchtower_whisper::Options;

    use super::*;
    use crate::clock::SystemEntropy;

    #[tokio::test]
    async fn at_the_end_all_the_rest_is_said_however_much_it_is() {
        const REST: u64 = 500;
        let hub = Hub::new(Settings::default(), Box::new(SystemEntropy));
        let channel = ChannelName::parse("5").expect("a name");
        let listen = ([127, 0, 0, 1], 0).into();
        let peer = Peer::start(Options { listen, ..Options::default() }).await.expect("a free port");
        let mut subscriber =
            Subscriber::open(&hub, PROTOCOL, std::slice::from_ref(&channel)).expect("below the limits");
        let carrier = Carrier::new(hub.clone(), channel.clone(), peer.clone(), "north", Counts::default());
        for number in 0..REST {
            let message = Publish::new(Content::text(number.to_string()));
            hub.publish(&channel, message, clock::now()).expect("it is taken");
        }
        carrier.say_the_rest(&mut subscriber, None);
        assert_eq!(peer.counts().await.originated, REST);
    }
}
