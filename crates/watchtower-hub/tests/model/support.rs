//! A hub, and clients that read it as text.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use bytes::BytesMut;
use watchtower_hub::{
    Batch, ChannelName, ChannelRule, Content, Drained, Entropy, Format, FormatId, Hub, Limits, Message,
    Publish, Published, Refused, SenderId, Session, Settings, Timestamp, WhenLagging,
};

use crate::shelf::Shelf;

/// Numbers without end; good enough to tell ids apart.
#[derive(Default)]
pub(crate) struct Seeded(AtomicU64);

impl Entropy for Seeded {
    fn next_u64(&self) -> u64 {
        let mut x = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

/// `offset=content;`
pub(crate) struct Plain;

impl Format for Plain {
    fn id(&self) -> FormatId {
        FormatId::new(63)
    }

    fn encode(&self, message: &Message, out: &mut BytesMut) {
        let channel = message.channel();
        out.extend_from_slice(format!("{channel}/{}=", message.position().offset).as_bytes());
        out.extend_from_slice(message.content().bytes());
        out.extend_from_slice(b";");
    }
}

/// What is known at once of a publication, as on all channels that are not
/// durable.
pub(crate) fn at_once<T>(published: Result<Published<T>, Refused>) -> Result<T, Refused> {
    published?.now().expect("nothing is waited for")
}

#[derive(Default)]
pub(crate) struct Wakes(pub(crate) AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) struct Client {
    pub(crate) session: Session,
    pub(crate) wakes: Arc<Wakes>,
}

impl Client {
    pub(crate) fn new(hub: &Hub) -> Client {
        Client { session: hub.open("test", WhenLagging::Close), wakes: Arc::default() }
    }

    pub(crate) fn drain(&self, bytes_max: usize) -> (String, Drained) {
        let mut batch = Batch::default();
        let waker = Waker::from(self.wakes.clone());
        let drained = self.session.drain(&Plain, Some(&waker), bytes_max, &mut batch);
        let text = batch.frames.concat();
        assert_eq!(text.len(), batch.bytes);
        (String::from_utf8(text).unwrap(), drained)
    }

    pub(crate) fn read(&self) -> String {
        let (text, drained) = self.drain(usize::MAX);
        assert_eq!(drained, Drained::All);
        text
    }

    pub(crate) fn wakes(&self) -> usize {
        self.wakes.0.swap(0, Ordering::Relaxed)
    }
}

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_000_000);

pub(crate) fn later(seconds: u64) -> Timestamp {
    NOW.after(Duration::from_secs(seconds))
}

pub(crate) fn hub_with(settings: Settings) -> Hub {
    let hub = Hub::new(settings, Box::new(Seeded(AtomicU64::new(1))));
    hub.tick(NOW);
    hub
}

/// A hub with this ledger, in which all channels are durable.
pub(crate) fn durable(shelf: &Shelf, limits: Limits) -> Hub {
    let rule = ChannelRule { durable: true, ..ChannelRule::default() };
    kept_by(shelf, Settings { limits, channels: vec![rule], ..Settings::default() })
}

pub(crate) fn kept_by(shelf: &Shelf, settings: Settings) -> Hub {
    let hub = Hub::with_ledger(settings, Box::new(Seeded::default()), Arc::new(shelf.clone()));
    hub.tick(NOW);
    hub
}

pub(crate) fn hub() -> Hub {
    hub_with(Settings::default())
}

/// A hub whose channels keep all that is published in a test.
pub(crate) fn hub_with_history() -> Hub {
    let rule = ChannelRule { history_messages: 1_000, ..ChannelRule::default() };
    hub_with(Settings { channels: vec![rule], ..Settings::default() })
}

pub(crate) fn five() -> ChannelName {
    ChannelName::from(5)
}

pub(crate) fn text(sender: SenderId, text: &str) -> Publish<'static> {
    Publish::new(Content::text(text)).by(sender)
}

pub(crate) fn say(hub: &Hub, sender: SenderId, words: &str) {
    hub.publish(&five(), text(sender, words), NOW).unwrap();
}

pub(crate) fn joined(hub: &Hub) -> (Client, SenderId) {
    let client = Client::new(hub);
    let sender = client.session.register(NOW).unwrap();
    client.session.join(sender, &five(), NOW).unwrap();
    (client, sender)
}

/// The bytes of a message that knows whether it is still in memory.
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(crate) fn new(live: &Arc<AtomicUsize>) -> Counted {
        live.fetch_add(1, Ordering::Relaxed);
        Counted(live.clone())
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &[]
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
