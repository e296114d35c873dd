//! Callbacks from a real hub to receivers on loopback.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use futures_util::future::{BoxFuture, FutureExt};
use watchtower_hub::{ChannelRule, Content, Entropy, FormatId, Limits, Message, Position, Publish, Settings};

use super::testing::{Noticed, Receiver, Reply, header};
use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const PATIENT: Duration = Duration::from_secs(60);

struct Counting(AtomicU64);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}

/// `["channel",offset,"content"]` and a line end.
struct Lines;

impl Format for Lines {
    fn id(&self) -> FormatId {
        FormatId::new(62)
    }

    fn encode(&self, message: &Message, out: &mut BytesMut) {
        let (channel, offset) = (message.channel(), message.position().offset);
        let content = message.content().as_text().expect("text");
        if content != "not to be shown" {
            out.extend_from_slice(format!("[\"{channel}\",{offset},\"{content}\"]\n").as_bytes());
        }
    }
}

/// No name means anything.
struct Nowhere;

impl post::Lookup for Nowhere {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        std::future::ready(Err(io::Error::other("no such name"))).boxed()
    }
}

fn loopback() -> CallbackSettings {
    CallbackSettings {
        policy: AddressPolicy::new([], true),
        timeout: PATIENT,
        ..CallbackSettings::new(SigningKey::new("secret"))
    }
}

fn hub(settings: Settings) -> Hub {
    Hub::new(settings, Box::new(Counting(AtomicU64::new(1))))
}

fn callbacks(hub: &Hub, settings: CallbackSettings) -> Callbacks {
    let network = Network { lookup: Arc::new(Nowhere), ..Network::of_this_machine().expect("TLS") };
    Callbacks::new(hub.clone(), Arc::new(Lines), network, settings, None).expect("a client")
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a name")
}

fn publish(hub: &Hub, to: &str, content: &str, receivers: Option<&[u32]>) {
    let mut message = Publish::new(Content::text(content));
    if let Some(receivers) = receivers {
        message = message.to(receivers);
    }
    hub.publish(&channel(to), message, NOW).expect("published");
}

/// A hub with one sender, and callbacks.
struct Scene {
    hub: Hub,
    callbacks: Callbacks,
    sender: SenderId,
}

impl Scene {
    fn new() -> Scene {
        Scene::with(Settings::default(), loopback())
    }

    fn with(hub_settings: Settings, settings: CallbackSettings) -> Scene {
        let hub = hub(hub_settings);
        let callbacks = callbacks(&hub, settings);
        let sender = hub.register(NOW).expect("room");
        Scene { hub, callbacks, sender }
    }

    fn join(&self, receiver: &Receiver, channels: &[&str]) -> Result<(), NotJoined> {
        self.join_as(self.sender, &receiver.url("127.0.0.1"), channels)
    }

    fn join_as(&self, sender: SenderId, url: &str, channels: &[&str]) -> Result<(), NotJoined> {
        let url = self.callbacks.parse_url(url).expect("a URL");
        let channels: Vec<_> = channels.iter().map(|name| channel(name)).collect();
        self.callbacks.join(sender, &url, &channels, NOW)
    }

    fn publish(&self, to: &str, content: &str) {
        publish(&self.hub, to, content, None);
    }

    fn leave(&self, name: &str) {
        self.hub.leave(self.sender, &channel(name), NOW).expect("registered");
        self.callbacks.sender_left(self.sender);
    }

    fn offset_of(&self, name: &str) -> Option<u64> {
        let records = self.callbacks.records();
        let mut channels = records.iter().flat_map(|record| &record.channels);
        channels.find(|(at, _)| *at == channel(name)).map(|(_, position)| position.offset)
    }

    /// Waits for a worker to have done what it does after an answer.
    async fn until(&self, what: impl Fn(&Scene) -> bool) {
        let done = async {
            while !what(self) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENT, done).await.expect("it happens");
    }
}

async fn body(receiver: &mut Receiver) -> String {
    String::from_utf8(receiver.request().await.2).expect("UTF-8")
}

// [http: callbacks] "POST callback_url with one message as JSON"
#[tokio::test]
async fn what_is_published_on_joined_channels_is_posted_in_order() {
    let scene = Scene::new();
    let mut receiver = Receiver::start(|_| Reply::ok()).await;
    scene.publish("5", "before");
    scene.join(&receiver, &["5", "hello"]).expect("joined");
    for content in ["one", "two", "not to be shown", "three"] {
        scene.publish("5", content);
    }
    let mut ids = Vec::new();
    for expected in [r#"["5",2,"one"]"#, r#"["5",3,"two"]"#, r#"["5",5,"three"]"#] {
        let (_, head, body) = receiver.request().await;
        assert_eq!(body, expected.as_bytes());
        ids.push(header(&head, "x-watchtower-delivery").expect("an id").to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
    scene.publish("hello", "there");
    assert_eq!(body(&mut receiver).await, r#"["hello",1,"there"]"#);
    scene.until(|scene| scene.offset_of("hello") == Some(1) && scene.offset_of("5") == Some(5)).await;
}

// [http: callbacks] "The same sender and URL again is the same subscription"
#[tokio::test]
async fn the_same_sender_and_url_again_is_the_same_subscription_with_the_channels_of_both() {
    let scene = Scene::new();
    let mut receiver = Receiver::start(|_| Reply::ok()).await;
    scene.join(&receiver, &["5", "6"]).expect("joined");
    scene.join(&receiver, &["6", "7"]).expect("joined");
    scene.join_as(scene.sender, &receiver.url("0x7f.1"), &["7"]).expect("joined");
    let records = scene.callbacks.records();
    assert_eq!(records.len(), 1);
    let names: Vec<_> = records[0].channels.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, [channel("5"), channel("6"), channel("7")]);
    for name in ["5", "6", "7"] {
        scene.publish(name, "x");
        assert_eq!(body(&mut receiver).await, format!(r#"["{name}",1,"x"]"#));
    }
    // Another URL, or another sender, is another one.
    let other = scene.hub.register(NOW).expect("room");
    scene.join_as(other, &receiver.url("127.0.0.1"), &["5"]).expect("joined");
    scene.join_as(scene.sender, &(receiver.url("127.0.0.1") + "2"), &["5"]).expect("joined");
    assert_eq!(scene.callbacks.records().len(), 3);
}

#[tokio::test]
async fn a_channel_that_was_left_is_not_posted_and_the_last_one_ends_the_subscription() {
    let scene = Scene::new();
    let mut receiver = Receiver::start(|_| Reply::ok()).await;
    scene.join(&receiver, &["5", "6"]).expect("joined");
    scene.leave("5");
    scene.publish("5", "left");
    scene.publish("6", "joined");
    assert_eq!(body(&mut receiver).await, r#"["6",1,"joined"]"#);
    assert_eq!(scene.offset_of("5"), None);
    scene.leave("6");
    assert_eq!(scene.callbacks.records(), []);
    assert!(scene.callbacks.0.registry.lock().of_sender.is_empty());
    assert_eq!(scene.callbacks.metrics().ends("left"), 1);
    scene.until(|scene| scene.hub.counts().sessions == 0).await;
    scene.join(&receiver, &["5"]).expect("joined");
    scene.publish("5", "again");
    assert_eq!(body(&mut receiver).await, r#"["5",2,"again"]"#);
}

#[tokio::test]
async fn a_channel_that_was_left_while_its_message_failed_is_not_tried_again() {
    let scene = Scene::new();
    let mut receiver = Receiver::start(|count| match count {
        0 => Reply::status("500 Broken"),
        _ => Reply::ok(),
    })
    .await;
    scene.join(&receiver, &["5", "6"]).expect("joined");
    scene.publish("5", "left");
    assert_eq!(body(&mut receiver).await, r#"["5",1,"left"]"#);
    scene.leave("5");
    scene.publish("6", "joined");
    assert_eq!(body(&mut receiver).await, r#"["6",1,"joined"]"#);
}

#[tokio::test]
async fn channels_left_by_other_means_are_found_by_a_sweep() {
    let scene = Scene::new();
    let receiver = Receiver::start(|_| Reply::ok()).await;
    scene.join(&receiver, &["5", "6"]).expect("joined");
    scene.hub.leave(scene.sender, &channel("5"), NOW).expect("registered");
    scene.callbacks.sweep();
    assert_eq!((scene.offset_of("5"), scene.offset_of("6")), (None, Some(0)));
    scene.hub.leave(scene.sender, &channel("6"), NOW).expect("registered");
    scene.callbacks.sweep();
    assert_eq!(scene.callbacks.records(), []);
    receiver.was_never_called().await;
}

// [http: callbacks] "at least once"; "unique per delivery, stable over its retries"
#[tokio::test]
async fn a_message_that_failed_comes_again_under_the_same_id_before_the_next() {
    let scene = Scene::new();
    let mut receiver = Receiver::start(|count| match count {
        0 => Reply::status("503 Service Unavailable"),
        1 => Reply::status("302 Found"),
        _ => Reply::ok(),
    })
    .await;
    scene.join(&receiver, &["5"]).expect("joined");
    scene.publish("5", "one");
    scene.publish("5", "two");
    let mut seen = Vec::new();
    for _ in 0..4 {
        let (_, head, body) = receiver.request().await;
        let id = header(&head, "x-watchtower-delivery").expect("an id").to_owned();
        seen.push((id, String::from_utf8(body).expect("UTF-8")));
    }
    assert_eq!(seen[0].1, r#"["5",1,"one"]"#);
    assert_eq!(seen[3].1, r#"["5",2,"two"]"#);
    assert_eq!((&seen[1], &seen[2]), (&seen[0], &seen[0]));
    assert_ne!(seen[3].0, seen[0].0);
}

#[tokio::test]
async fn the_last_message_of_a_channel_comes_first_and_again_until_it_is_accepted() {
    let rule = ChannelRule { pattern: "5".into(), retain: true, ..ChannelRule::default() };
    let scene = Scene::with(Settings { channels: vec![rule], ..Settings::default() }, loopback());
    let mut receiver = Receiver::start(|count| match count {
        0 => Reply::status("503 Service Unavailable"),
        _ => Reply::ok(),
    })
    .await;
    scene.publish("5", "kept");
    scene.join(&receiver, &["5"]).expect("joined");
    scene.publish("5", "next");
    for expected in [r#"["5",1,"kept"]"#, r#"["5",1,"kept"]"#, r#"["5",2,"next"]"#] {
        assert_eq!(body(&mut receiver).await, expected);
    }
}

// [http: callbacks] "410 ends it at once"
#[tokio::test]
async fn gone_ends_the_subscription_and_its_joins_and_it_can_be_joined_anew() {
    let scene = Scene::new();
    let mut receiver = Receiver::start(|count| match count {
        0 => Reply::status("410 Gone"),
        _ => Reply::ok(),
    })
    .await;
    scene.join(&receiver, &["5", "6"]).expect("joined");
    scene.publish("5", "one");
    scene.publish("6", "two");
    assert_eq!(body(&mut receiver).await, r#"["5",1,"one"]"#);
    scene.until(|scene| scene.hub.counts().sessions == 0).await;
    assert_eq!(scene.callbacks.records(), []);
    assert_eq!(scene.callbacks.metrics().ends("gone"), 1);
    assert!(!scene.hub.has_joined(scene.sender, &channel("5")));
    scene.join(&receiver, &["5"]).expect("joined");
    scene.publish("5", "three");
    assert_eq!(body(&mut receiver).await, r#"["5",2,"three"]"#);
}

// [http: callbacks] "after callback_give_up (default 24 h) of failures the subscription is ended and counted"
#[tokio::test]
async fn a_receiver_that_never_accepts_is_given_up_and_counted() {
    let settings = CallbackSettings { give_up: Duration::from_millis(1), ..loopback() };
    let scene = Scene::with(Settings::default(), settings);
    let receiver = Receiver::start(|_| Reply::status("500 Broken")).await;
    scene.join(&receiver, &["5"]).expect("joined");
    scene.publish("5", "one");
    scene.until(|scene| scene.callbacks.records().is_empty()).await;
    assert_eq!(scene.callbacks.metrics().ends("gave_up"), 1);
    assert!(scene.callbacks.metrics().attempts("status") >= 2);
}

#[tokio::test]
async fn a_receiver_that_hangs_does_not_hold_up_another() {
    let scene = Scene::new();
    let mut hanging = Receiver::start(|_| Reply::silence()).await;
    let mut receiver = Receiver::start(|_| Reply::ok()).await;
    scene.join(&hanging, &["5"]).expect("joined");
    scene.join(&receiver, &["5"]).expect("joined");
    scene.publish("5", "one");
    hanging.request().await;
    scene.publish("5", "two");
    assert_eq!(body(&mut receiver).await, r#"["5",1,"one"]"#);
    assert_eq!(body(&mut receiver).await, r#"["5",2,"two"]"#);
    let hanging = scene.callbacks.parse_url(&hanging.url("127.0.0.1")).expect("a URL");
    let records = scene.callbacks.records();
    let record = records.iter().find(|record| record.url == hanging).expect("it lasts");
    assert_eq!(record.channels[0].1.offset, 0);
}

#[tokio::test]
async fn a_direct_message_is_posted_to_its_receivers_only() {
    let scene = Scene::new();
    let other = scene.hub.register(NOW).expect("room");
    let mut receiver = Receiver::start(|_| Reply::ok()).await;
    let mut others = Receiver::start(|_| Reply::ok()).await;
    scene.join(&receiver, &["5"]).expect("joined");
    scene.join_as(other, &others.url("127.0.0.1"), &["5"]).expect("joined");
    publish(&scene.hub, "5", "secret", Some(&[other.get()]));
    scene.publish("5", "open");
    assert_eq!(body(&mut receiver).await, r#"["5",2,"open"]"#);
    assert_eq!(body(&mut others).await, r#"["5",1,"secret"]"#);
}

#[tokio::test]
async fn an_unknown_sender_is_refused_and_nobody_is_called() {
    let scene = Scene::new();
    let receiver = Receiver::start(|_| Reply::ok()).await;
    let nobody = SenderId::new(scene.sender.get().wrapping_add(7)).expect("not zero");
    let refused = scene.join_as(nobody, &receiver.url("127.0.0.1"), &["5"]);
    assert!(matches!(refused, Err(NotJoined::Refused(Refused::UnknownSender(_)))), "{refused:?}");
    scene.publish("5", "one");
    assert_eq!(scene.callbacks.records(), []);
    assert_eq!(scene.hub.counts().sessions, 0);
    receiver.was_never_called().await;
}

#[tokio::test]
async fn of_channels_of_which_one_is_refused_none_is_joined() {
    let limits = Limits { channels_per_sender_max: 2, ..Limits::default() };
    let scene = Scene::with(Settings { limits, ..Settings::default() }, loopback());
    let mut receiver = Receiver::start(|_| Reply::ok()).await;
    let refused = scene.join(&receiver, &["1", "2", "3"]);
    assert!(matches!(refused, Err(NotJoined::Refused(Refused::Limit { .. }))), "{refused:?}");
    assert_eq!(scene.hub.counts().sessions, 0);
    scene.join(&receiver, &["5"]).expect("joined");
    assert!(scene.join(&receiver, &["5", "6", "7"]).is_err());
    assert!(!scene.hub.has_joined(scene.sender, &channel("6")));
    assert!(scene.hub.has_joined(scene.sender, &channel("5")));
    assert_eq!(scene.offset_of("6"), None);
    scene.publish("6", "not joined");
    scene.publish("5", "joined");
    assert_eq!(body(&mut receiver).await, r#"["5",1,"joined"]"#);
}

#[tokio::test]
async fn subscriptions_are_limited_for_one_sender_and_in_all() {
    let settings = CallbackSettings { subscriptions_per_sender_max: 2, subscriptions_max: 3, ..loopback() };
    let scene = Scene::with(Settings::default(), settings);
    let other = scene.hub.register(NOW).expect("room");
    let limit_of =
        |sender, path: &str| match scene.join_as(sender, &format!("http://127.0.0.1:9/{path}"), &["5"]) {
            Ok(()) => None,
            Err(NotJoined::TooMany { of, limit }) => Some((of, limit)),
            Err(other) => panic!("{other}"),
        };
    assert_eq!(limit_of(scene.sender, "a"), None);
    assert_eq!(limit_of(scene.sender, "b"), None);
    assert_eq!(limit_of(scene.sender, "c"), Some(("of one sender", 2)));
    assert_eq!(limit_of(scene.sender, "b"), None);
    assert_eq!(limit_of(other, "a"), None);
    assert_eq!(limit_of(other, "b"), Some(("in all", 3)));
    scene.leave("5");
    assert_eq!(limit_of(other, "b"), None);
}

#[tokio::test]
async fn a_reload_changes_the_policy_and_the_key_of_subscriptions_that_there_are() {
    let scene = Scene::new();
    let mut receiver = Receiver::start(|_| Reply::ok()).await;
    scene.join(&receiver, &["5"]).expect("joined");
    scene.publish("5", "one");
    receiver.request().await;
    scene.until(|scene| scene.offset_of("5") == Some(1)).await;
    let nothing = CallbackSettings { policy: AddressPolicy::default(), ..loopback() };
    scene.callbacks.reload(nothing).expect("a client");
    assert!(scene.callbacks.parse_url(&receiver.url("127.0.0.1")).is_err());
    scene.publish("5", "two");
    scene.until(|scene| scene.callbacks.metrics().attempts("forbidden") == 1).await;
    let key = SigningKey::new("another");
    scene.callbacks.reload(CallbackSettings { key: key.clone(), ..loopback() }).expect("a client");
    let (_, head, body) = receiver.request().await;
    assert_eq!(body, br#"["5",2,"two"]"#);
    let signature = header(&head, "x-watchtower-signature").expect("a signature");
    let (at, _) = signature.trim_start_matches("t=").split_once(',').expect("a time");
    assert_eq!(signature, key.sign(at.parse().expect("seconds"), &body).to_string());
}

#[tokio::test]
async fn draining_finishes_what_is_in_flight_and_a_later_server_goes_on_after_it() {
    let rule =
        watchtower_hub::ChannelRule { pattern: "*".into(), history_messages: 10, ..Default::default() };
    let scene = Scene::with(Settings { channels: vec![rule], ..Settings::default() }, loopback());
    let mut receiver = Receiver::start(|_| Reply::ok()).await;
    scene.join(&receiver, &["5", "6"]).expect("joined");
    scene.publish("5", "one");
    receiver.request().await;
    scene.callbacks.drain(PATIENT).await;
    scene.publish("5", "two");
    assert!(matches!(scene.join(&receiver, &["7"]), Err(NotJoined::Draining)));
    let records = scene.callbacks.records();
    assert_eq!(records.len(), 1);
    assert_eq!(scene.offset_of("5"), Some(1));

    let later = callbacks(&scene.hub, loopback());
    later.restore(&records[0], NOW).expect("restored");
    assert_eq!(later.records(), records);
    let (_, head, body) = receiver.request().await;
    assert_eq!(body, br#"["5",2,"two"]"#);
    let Position { epoch, .. } = records[0].channels[0].1;
    let id = records[0].id.delivery(&channel("5"), Position { epoch, offset: 2 });
    assert_eq!(header(&head, "x-watchtower-delivery"), Some(id.to_string().as_str()));
}

#[tokio::test]
async fn draining_cuts_off_what_is_in_flight_when_the_grace_is_over() {
    let scene = Scene::new();
    let mut receiver = Receiver::start(|_| Reply::silence()).await;
    scene.join(&receiver, &["5"]).expect("joined");
    scene.publish("5", "one");
    receiver.request().await;
    // The attempt itself would take as long as its time-out.
    let drained = scene.callbacks.drain(Duration::from_millis(50));
    tokio::time::timeout(PATIENT / 2, drained).await.expect("cut off");
    assert_eq!(receiver.next().await, Noticed::Cut { connection: 0, answered: 0 });
    assert_eq!(scene.offset_of("5"), Some(0));
}
