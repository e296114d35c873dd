//! A direct message is for its receivers alone, by whatever way it is delivered
//! ([packets: direct message]): one rule, and all ways that there are.

use watchtower_hub::{ChannelRule, HistoryQuery, Hub, SenderId, Settings, Span, Start};

use crate::paging::known;
use crate::support::{Client, NOW, five, hub_with, text};

/// A hub that keeps, retains and tells whatever there is.
fn hub() -> Hub {
    let rule = ChannelRule { history_messages: 100, retain: true, ..ChannelRule::default() };
    hub_with(Settings { channels: vec![rule], ..Settings::default() })
}

/// A way in which `reader` gets what `publish` publishes; what it got.
type Way = fn(&Hub, reader: SenderId, publish: &dyn Fn()) -> String;

const WAYS: [(&str, Way); 12] = [
    ("as it comes", |hub, reader, publish| {
        let client = Client::new(hub);
        client.session.join(reader, &five(), NOW).unwrap();
        publish();
        client.read()
    }),
    ("message by message", |hub, reader, publish| {
        let client = Client::new(hub);
        client.session.join(reader, &five(), NOW).unwrap();
        publish();
        by_message(&client)
    }),
    ("by a stream", |hub, reader, publish| {
        let client = Client::new(hub);
        client.session.subscribe(reader, &five(), Start::End, NOW).unwrap();
        publish();
        client.read()
    }),
    ("in a stream's backlog", |hub, reader, publish| {
        let client = Client::new(hub);
        publish();
        client.session.subscribe(reader, &five(), Start::After(beginning(hub)), NOW).unwrap();
        client.read()
    }),
    ("in a stream's backlog, message by message", |hub, reader, publish| {
        let client = Client::new(hub);
        publish();
        client.session.subscribe(reader, &five(), Start::After(beginning(hub)), NOW).unwrap();
        by_message(&client)
    }),
    ("from a position that is not kept", |hub, reader, publish| {
        let client = Client::new(hub);
        publish();
        let nowhere = Start::After(watchtower_hub::Position::NOWHERE);
        client.session.subscribe(reader, &five(), nowhere, NOW).unwrap();
        client.read()
    }),
    ("when its owner begins anew", |hub, reader, publish| {
        let client = Client::new(hub);
        client.session.join(reader, &five(), NOW).unwrap();
        publish();
        client.read();
        client.session.follow(reader, &five(), Start::After(beginning(hub)), NOW).unwrap();
        client.read()
    }),
    ("after a reconnect", |hub, reader, publish| {
        let client = Client::new(hub);
        client.session.join(reader, &five(), NOW).unwrap();
        drop(client);
        publish();
        let client = Client::new(hub);
        client.session.join(reader, &five(), NOW).unwrap();
        client.read()
    }),
    ("where another sender of the session was before", |hub, reader, publish| {
        let (client, away) = (Client::new(hub), Client::new(hub));
        away.session.join(reader, &five(), NOW).unwrap();
        let other = client.session.register(NOW).unwrap();
        client.session.join(other, &five(), NOW).unwrap();
        publish();
        let before = client.read();
        client.session.attach(reader, NOW).unwrap();
        before + &client.read()
    }),
    ("after a stream broke", |hub, reader, publish| {
        let client = Client::new(hub);
        client.session.resumes_by_position();
        client.session.subscribe(reader, &five(), Start::End, NOW).unwrap();
        publish();
        client.read();
        drop(client);
        let client = Client::new(hub);
        client.session.subscribe(reader, &five(), Start::After(beginning(hub)), NOW).unwrap();
        client.read()
    }),
    ("as what is retained", |hub, reader, publish| {
        publish();
        let client = Client::new(hub);
        client.session.subscribe(reader, &five(), Start::End, NOW).unwrap();
        client.read()
    }),
    ("in what is kept", |hub, _, publish| {
        publish();
        let spans = [Span::Last, Span::After(beginning(hub)), Span::Before(position(hub, 4))];
        let pages = spans.map(|span| {
            let page = HistoryQuery { span, messages_max: 100, bytes_max: u64::MAX };
            let history = known(hub.history(&five(), &page, NOW));
            let contents = history.entries.iter().map(|entry| entry.content().as_text().unwrap().to_owned());
            contents.collect::<String>()
        });
        pages.concat()
    }),
];

fn position(hub: &Hub, offset: u64) -> watchtower_hub::Position {
    watchtower_hub::Position { epoch: hub.epoch(&five()).unwrap(), offset }
}

fn beginning(hub: &Hub) -> watchtower_hub::Position {
    position(hub, 0)
}

fn by_message(client: &Client) -> String {
    let mut read = String::new();
    let _ = client.session.drain_messages(None, |entry| {
        read += entry.content().as_text().unwrap();
        true
    });
    read
}

/// What a reader gets by a way, whether it is one of the receivers or not.
fn read(way: Way, is_receiver: bool) -> String {
    let hub = hub();
    let [from, to, reader] = [(); 3].map(|()| hub.register(NOW).unwrap());
    for sender in [from, to, reader] {
        hub.join(sender, &[five()], NOW).unwrap();
    }
    let receivers = [if is_receiver { reader.get() } else { to.get() }];
    way(&hub, reader, &|| {
        for message in [text(from, "all"), text(from, "secret").to(&receivers), text(from, "ever")] {
            hub.publish(&five(), message, NOW).unwrap();
        }
    })
}

#[test]
fn a_direct_message_to_somebody_else_is_delivered_by_no_way() {
    for (name, way) in WAYS {
        let read = read(way, false);
        assert!(!read.contains("secret"), "{name}: {read}");
        assert!(read.contains("ever"), "{name} delivers something: {read}");
    }
}

#[test]
fn its_receiver_gets_it_by_every_way_but_those_that_are_for_everyone() {
    for (name, way) in WAYS {
        let is_for_everyone = ["as what is retained", "in what is kept"].contains(&name);
        assert_eq!(read(way, true).contains("secret"), !is_for_everyone, "{name}");
    }
}
