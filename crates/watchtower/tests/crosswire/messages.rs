//! What is published, what it is on each wire, and receivers on all of them [model: projection].

use std::collections::HashMap;

use serde_json::{Value, json};

use super::http::{Stream, header};
use super::packets::{Packets, delivered};
use super::receiver::Receiver;
use super::server::Server;
use super::webrocket::WebRocket;
use super::websockets::EVERY_CLIENT;
use super::webtalk::{Link, User, WEBTALK};

/// A content: its bytes, which are what a packet holds, and what stands for it in JSON.
#[derive(Clone, Copy)]
pub(crate) struct Content {
    pub(crate) bytes: &'static [u8],
    /// The value of `message`, and `encoding` behind it where there is one.
    pub(crate) json: &'static str,
}

impl Content {
    pub(crate) fn text(self) -> &'static str {
        std::str::from_utf8(self.bytes).unwrap()
    }

    pub(crate) fn is_binary(self) -> bool {
        self.json.ends_with(",\"encoding\":\"base64\"")
    }

    /// What stands for it where no lines are counted: a string for text and binary, and JSON as it
    /// is, ends of lines included.
    pub(crate) fn value(self) -> &'static str {
        if self.json.starts_with('"') { self.json } else { self.text() }
    }

    /// The body of a publishing request.
    pub(crate) fn request(self, channel: u32, sender: u32, more: &Value) -> String {
        let message = self.value();
        let more = more.as_object().unwrap().iter().map(|(key, value)| format!(",\"{key}\":{value}"));
        let more: String = more.collect();
        format!("{{\"channels\":[{channel}],\"sender\":{sender},\"message\":{message}{more}}}")
    }
}

pub(crate) const TEXT: Content = Content {
    bytes: "Grüße, \"Welt\"\r\n\\ 日本\u{1f680}\t\0\u{7f}\u{2028}.\n".as_bytes(),
    json: "\"Grüße, \\\"Welt\\\"\\r\\n\\\\ 日本\u{1f680}\\t\\u0000\u{7f}\u{2028}.\\n\"",
};

pub(crate) const EMPTY: Content = Content { bytes: b"", json: r#""""# };

/// It would be JSON where JSON is asked for.
pub(crate) const TEXT_LIKE_JSON: Content = Content { bytes: b"{\"a\": 1}", json: r#""{\"a\": 1}""# };

/// On a wire of lines its own ends of lines, white space between tokens, are spaces.
pub(crate) const JSON: Content = Content {
    bytes: "{\"a\":\r\n [1.0, 2E3, \"ü\\n\\u00fc\"],\n\t\"a\": null}".as_bytes(),
    json: "{\"a\":   [1.0, 2E3, \"ü\\n\\u00fc\"], \t\"a\": null}",
};

pub(crate) const JSON_NUMBER: Content =
    Content { bytes: b"123456789012345678901234567890", json: "123456789012345678901234567890" };

pub(crate) const BINARY: Content =
    Content { bytes: b"\xff\x00\n\xc3(\r\nM\x80", json: r#""/wAKwygNCk2A","encoding":"base64""# };

/// Binary whatever its bytes [http: broadcast].
pub(crate) const BINARY_LIKE_TEXT: Content =
    Content { bytes: b"plain", json: r#""cGxhaW4=","encoding":"base64""# };

/// A message as its publisher knows it.
#[derive(Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) content: Content,
    pub(crate) event: &'static str,
    /// Further fields of WebRocket, each with a comma before it.
    pub(crate) further: &'static str,
    pub(crate) direct: bool,
}

impl Sent {
    pub(crate) fn plain(content: Content) -> Sent {
        Sent { content, event: "message", further: "", direct: false }
    }

    pub(crate) fn direct(content: Content) -> Sent {
        Sent { direct: true, ..Sent::plain(content) }
    }
}

/// A receiver on every wire, all of which follow channels 5 and 7.
pub(crate) struct Everyone {
    pub(crate) server: Server,
    packets: Vec<Packets>,
    lines: Stream,
    events: Stream,
    octets: Stream,
    callbacks: Receiver,
    rockets: Vec<WebRocket>,
    users: Vec<User>,
    /// WebTalk's application, which has given out the channels.
    pub(crate) link: Link,
    /// The senders that these are.
    pub(crate) ids: Vec<u32>,
    epochs: HashMap<u32, String>,
    offsets: HashMap<u32, u64>,
}

impl Everyone {
    pub(crate) fn gather() -> Everyone {
        let server = Server::start(&WEBTALK);
        let packets = vec![Packets::tcp(&server, &[5, 7]), Packets::udp(&server, &[5, 7])];
        let mut ids: Vec<u32> = packets.iter().map(|packets| packets.id).collect();
        let sender = |ids: &mut Vec<u32>| {
            ids.push(server.register());
            ids[ids.len() - 1]
        };
        let lines = Stream::open(&server, "5,7", sender(&mut ids), "application/x-ndjson");
        let mut events = Stream::open(&server, "5,7", sender(&mut ids), "text/event-stream");
        let octets = Stream::open(&server, "5,7", sender(&mut ids), "application/octet-stream");
        let callbacks = Receiver::start();
        let join = json!({ "sender": sender(&mut ids), "channels": [5, 7], "callback_url": callbacks.url() });
        server.post("/channels/join/async", &join.to_string()).is(200, r#"{"channels":[5,7]}"#);

        let mut rockets = Vec::new();
        for by in EVERY_CLIENT {
            let rocket = WebRocket::following(&server, by, &[5, 7], &ids);
            ids.push(rocket.id);
            rockets.push(rocket);
        }
        let mut link = Link::open(server.listener("webtalk-private"));
        link.channels_up_to(7);
        let users: Vec<User> = EVERY_CLIENT.map(|by| User::listening(&server, &mut link, by, &[5, 7])).into();
        ids.extend(users.iter().map(|user| user.id));

        let epochs: HashMap<_, _> =
            [5, 7].map(|channel| (channel, server.epoch(ids[0], &channel.to_string()))).into();
        events.expect(format!("id: {}:0,{}:0\n\n", epochs[&5], epochs[&7]).as_bytes());
        let offsets = HashMap::from([(5, 0), (7, 0)]);
        Everyone {
            server,
            packets,
            lines,
            events,
            octets,
            callbacks,
            rockets,
            users,
            link,
            ids,
            epochs,
            offsets,
        }
    }

    /// What `POST /broadcast` and `/send` answer to the message after `ahead` others that were not
    /// seen yet.
    pub(crate) fn published(&self, channel: u32, ahead: usize) -> String {
        let offset = self.offsets[&channel] + 1 + ahead as u64;
        let epoch = &self.epochs[&channel];
        format!(r#"{{"messages":[{{"channel":{channel},"offset":{offset},"epoch":"{epoch}"}}]}}"#)
    }

    /// Every receiver sees these messages next, in this order, each once, and each as its wire
    /// shows it.
    #[track_caller]
    pub(crate) fn see(&mut self, sender: u32, channel: u32, messages: &[Sent]) {
        for message in messages {
            *self.offsets.get_mut(&channel).unwrap() += 1;
            let packet = delivered(sender, channel, message.direct, message.content.bytes);
            self.packets.iter_mut().for_each(|packets| packets.expect(&packet));
            self.octets.expect(&packet);
            self.rockets.iter().for_each(|rocket| rocket.sees(channel, message));
            self.users.iter().for_each(|user| user.hears(message));

            let position = format!("{}:{}", self.epochs[&channel], self.offsets[&channel]);
            let line = self.lines.line();
            let (told, time) = line.rsplit_once(",\"time\":").unwrap_or_else(|| panic!("{line}"));
            assert_eq!(told, self.json(sender, channel, message));
            is_time(time);

            let event = format!("id: {position}\nevent: {}\ndata: {line}\n\n", message.event);
            self.events.expect(event.as_bytes());

            let callback = self.callbacks.next();
            assert_eq!(callback.body, line);
            assert_eq!(header(&callback.head, "content-type"), Some("application/json"));
            assert_eq!(header(&callback.head, "x-server-name"), Some("Watchtower"));
        }
    }

    /// A message in the form of [http: messages], up to its time.
    fn json(&self, sender: u32, channel: u32, message: &Sent) -> String {
        let (epoch, offset) = (&self.epochs[&channel], self.offsets[&channel]);
        let event = match message.event {
            "message" => String::new(),
            event => format!(",\"event\":\"{event}\""),
        };
        let direct = if message.direct { ",\"direct\":true" } else { "" };
        let content = message.content.json;
        format!(
            "{{\"channel\":{channel},\"offset\":{offset},\"epoch\":\"{epoch}\",\"sender\":{sender}{event},\
             \"message\":{content}{direct}"
        )
    }
}

/// As in `"2026-11-21T10:00:00.000Z"}`.
#[track_caller]
fn is_time(end: &str) {
    let shape: String = end.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, r#""0000-00-00T00:00:00.000Z"}"#, "{end}");
}
