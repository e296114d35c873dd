//! Publishing and delivering: what a message costs the hub, by the publisher and by those who are
//! sent it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use watchtower_hub::{Entropy, Hub};
use watchtower_protocols::webtalk::{Gate, Link, WebTalk};

use crate::scene::{
    CHANNEL, CONTENT_BYTES, Client, NOW, Protocol, content, hub, join, packet_client, read, text_frame,
    webrocket_client,
};
use crate::{Case, Work};

/// How many are subscribed where it counts.
const SUBSCRIBERS: u64 = 1000;

/// How many messages a burst has.
const BURST: u64 = 64;

/// Publishing and delivering.
pub fn fanout_cases() -> Vec<Case> {
    let publish = |name, units, stage| Case { name, unit: "message", units, stage };
    let deliver = |name, units, stage| Case { name, unit: "delivery", units, stage };
    vec![
        publish("publish/to-nobody", BURST, || publishing(Publisher::packets, BURST, 0)),
        publish("publish/to-1000-at-rest", 1, || publishing(Publisher::packets, 1, SUBSCRIBERS)),
        publish("publish/burst-to-1000", BURST, || publishing(Publisher::packets, BURST, SUBSCRIBERS)),
        publish("publish/webrocket", BURST, || publishing(Publisher::webrocket, BURST, 1)),
        publish("publish/webtalk", BURST, || publishing(Publisher::webtalk, BURST, 1)),
        deliver("deliver/packets", SUBSCRIBERS, || delivering(Protocol::Packets, 1)),
        deliver("deliver/ndjson", SUBSCRIBERS, || delivering(Protocol::Ndjson, 1)),
        deliver("deliver/sse", SUBSCRIBERS, || delivering(Protocol::Sse, 1)),
        deliver("deliver/webrocket", SUBSCRIBERS, || delivering(Protocol::WebRocket, 1)),
        deliver("deliver/burst-of-64", SUBSCRIBERS * BURST, || delivering(Protocol::Packets, BURST)),
    ]
}

/// Who publishes the same burst each time.
struct Publisher {
    client: Client,
    burst: Vec<u8>,
    answers: Vec<u8>,
}

impl Publisher {
    fn new(client: Client, message: &[u8], messages: u64) -> Publisher {
        Publisher { client, burst: message.repeat(messages as usize), answers: Vec::new() }
    }

    /// One that has joined, and so gets its own messages back.
    fn packets(hub: &Hub, messages: u64) -> Publisher {
        let mut client = packet_client(hub);
        let sender = join(&mut client);
        let length = (CONTENT_BYTES as u32).to_le_bytes();
        let head = [b"M", sender.as_slice(), &CHANNEL.to_le_bytes(), &length].concat();
        Publisher::new(Box::new(client), &[head, content()].concat(), messages)
    }

    fn webrocket(hub: &Hub, messages: u64) -> Publisher {
        let content = String::from_utf8(content()).expect("letters");
        let command = format!(r#"{{"publish": {{"event": "e", "channel": "1", "data": "{content}"}}}}"#);
        Publisher::new(webrocket_client(hub), &text_frame(command.as_bytes()), messages)
    }

    fn webtalk(hub: &Hub, messages: u64) -> Publisher {
        let talk = WebTalk::new(hub, Box::new(Zero), Duration::from_secs(10));
        let client = Link::new(&talk, Arc::new(Open));
        let command = [b"[shout] 1!".as_slice(), &content()].concat();
        let frame = [format!("{:05}", command.len()).into_bytes(), command].concat();
        Publisher::new(Box::new(client), &frame, messages)
    }

    fn publish(&mut self) {
        self.answers.clear();
        let taken = self.client.receive(&self.burst, NOW, &mut self.answers);
        debug_assert_eq!(taken, Ok(self.burst.len()));
    }
}

/// Of WebTalk, which draws secrets for users; there are none here.
struct Zero;

impl Entropy for Zero {
    fn next_u64(&self) -> u64 {
        0
    }
}

struct Open;

impl Gate for Open {
    fn is_locked(&self) -> bool {
        false
    }

    fn admits(&self, _secret: &[u8]) -> bool {
        true
    }
}

/// A publisher, and those who hear it.
struct Room {
    publisher: Publisher,
    subscribers: Vec<Client>,
}

impl Room {
    /// Everyone reads, and comes to rest.
    fn read(&mut self) {
        read(&*self.publisher.client);
        for subscriber in &self.subscribers {
            black_box(read(&**subscriber));
        }
    }
}

/// Counts publishing.
struct Publishing(Room);

impl Work for Publishing {
    fn set_up(&mut self) {
        self.0.read();
    }

    fn run(&mut self) {
        self.0.publisher.publish();
    }
}

fn publishing(publisher: fn(&Hub, u64) -> Publisher, messages: u64, subscribers: u64) -> Box<dyn Work> {
    let hub = hub();
    let subscribers = (0..subscribers).map(|_| Protocol::Packets.subscriber(&hub)).collect();
    Box::new(Publishing(Room { publisher: publisher(&hub, messages), subscribers }))
}

/// Counts reading, of everyone but the publisher.
struct Delivering(Room);

impl Work for Delivering {
    fn set_up(&mut self) {
        self.0.read();
        self.0.publisher.publish();
        read(&*self.0.publisher.client);
    }

    fn run(&mut self) {
        for subscriber in &self.0.subscribers {
            black_box(read(&**subscriber));
        }
    }
}

fn delivering(protocol: Protocol, messages: u64) -> Box<dyn Work> {
    let hub = hub();
    let subscribers = (0..SUBSCRIBERS).map(|_| protocol.subscriber(&hub)).collect();
    Box::new(Delivering(Room { publisher: Publisher::packets(&hub, messages), subscribers }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_reaches_every_subscriber_each_time() {
        for protocol in [Protocol::Packets, Protocol::Ndjson, Protocol::Sse, Protocol::WebRocket] {
            for publisher in [Publisher::packets, Publisher::webrocket, Publisher::webtalk] {
                let hub = hub();
                let subscriber = protocol.subscriber(&hub);
                let mut publisher = publisher(&hub, BURST);
                for _ in 0..2 {
                    publisher.publish();
                    let bytes = read(&*subscriber);
                    assert!(bytes > BURST as usize * CONTENT_BYTES, "{protocol:?}: {bytes}");
                    assert_eq!(read(&*subscriber), 0);
                }
            }
        }
    }
}
