//! Every publisher, and receivers on every wire [model: projection].

use serde_json::json;

use super::http::Stream;
use super::messages::{
    BINARY, BINARY_LIKE_TEXT, Content, EMPTY, Everyone, JSON, JSON_NUMBER, Sent, TEXT, TEXT_LIKE_JSON,
};
use super::packets::{Packets, delivered};
use super::server::Server;
use super::webrocket::WebRocket;
use super::websockets::EVERY_CLIENT;

/// Contents that one publisher sends to a channel in one go. Channel 5 takes anything, channel 7
/// takes JSON, which text is on the way in.
type Table = &'static [(u32, &'static [Content])];

/// Packets, and what is shouted, are text where they can be [model: projection].
const BYTES: Table =
    &[(5, &[TEXT, BINARY, TEXT_LIKE_JSON, EMPTY, TEXT]), (7, &[JSON, JSON_NUMBER, JSON]), (5, &[TEXT])];

#[test]
fn what_is_published_over_tcp_reaches_every_wire() {
    packets_reach_every_wire(Packets::tcp);
}

#[test]
fn what_is_published_over_udp_reaches_every_wire() {
    packets_reach_every_wire(Packets::udp);
}

fn packets_reach_every_wire(connect: fn(&Server, &[u32]) -> Packets) {
    let mut everyone = Everyone::gather();
    let mut publisher = connect(&everyone.server, &[5, 7]);
    for &(channel, contents) in BYTES {
        contents.iter().for_each(|content| publisher.publish(channel, content.bytes));
        everyone.see(publisher.id, channel, &contents.iter().copied().map(Sent::plain).collect::<Vec<_>>());
        // Its own come back to it [model: delivery promises].
        for content in contents {
            publisher.expect(&delivered(publisher.id, channel, false, content.bytes));
        }
    }
}

#[test]
fn what_is_broadcast_as_json_reaches_every_wire() {
    let mut everyone = Everyone::gather();
    let sender = everyone.server.joined(&json!([5, 7]));
    let table: Table = &[
        (5, &[TEXT, BINARY, JSON, TEXT_LIKE_JSON, JSON_NUMBER, EMPTY]),
        (7, &[JSON, JSON_NUMBER]),
        (5, &[TEXT]),
    ];
    for &(channel, contents) in table {
        for (ahead, content) in contents.iter().enumerate() {
            let request = content.request(channel, sender, &json!({}));
            everyone.server.post("/broadcast", &request).is(200, &everyone.published(channel, ahead));
        }
        everyone.see(sender, channel, &contents.iter().copied().map(Sent::plain).collect::<Vec<_>>());
    }
}

#[test]
fn the_event_of_a_broadcast_is_told_where_a_wire_has_a_word_for_it() {
    let mut everyone = Everyone::gather();
    let sender = everyone.server.joined(&json!([5]));
    let events = ["greeting", "message", "grüße"];
    for (ahead, event) in events.iter().enumerate() {
        let request = TEXT.request(5, sender, &json!({ "event": event }));
        everyone.server.post("/broadcast", &request).is(200, &everyone.published(5, ahead));
    }
    everyone.see(sender, 5, &events.map(|event| Sent { event, ..Sent::plain(TEXT) }));
}

#[test]
fn a_body_of_plain_text_reaches_every_wire() {
    let table: Table =
        &[(5, &[TEXT, TEXT_LIKE_JSON, EMPTY]), (7, &[JSON, JSON_NUMBER]), (5, &[TEXT_LIKE_JSON])];
    bodies_reach_every_wire("text/plain; charset=utf-8", table);
}

#[test]
fn a_body_of_octets_reaches_every_wire_as_binary() {
    bodies_reach_every_wire("application/octet-stream", &[(5, &[BINARY, BINARY_LIKE_TEXT, BINARY])]);
}

fn bodies_reach_every_wire(content_type: &str, table: Table) {
    let mut everyone = Everyone::gather();
    let sender = everyone.server.joined(&json!([5, 7]));
    let headers = format!("Content-Type: {content_type}\r\n");
    for &(channel, contents) in table {
        for (ahead, content) in contents.iter().enumerate() {
            let target = format!("/broadcast?channels={channel}&sender={sender}");
            let answer = everyone.server.ask("POST", &target, &headers, content.bytes);
            answer.is(200, &everyone.published(channel, ahead));
        }
        everyone.see(sender, channel, &contents.iter().copied().map(Sent::plain).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_published_over_webrocket_reaches_every_wire() {
    for by in EVERY_CLIENT {
        let mut everyone = Everyone::gather();
        // It follows neither of the channels that it publishes on.
        let publisher = WebRocket::following(&everyone.server, by, &[9], &[]);
        let table: Table = &[
            (5, &[TEXT, BINARY, JSON, TEXT_LIKE_JSON, BINARY_LIKE_TEXT, JSON_NUMBER, EMPTY]),
            (7, &[JSON, JSON_NUMBER]),
            (5, &[TEXT]),
        ];
        for &(channel, contents) in table {
            let sent: Vec<_> = contents.iter().copied().map(Sent::plain).collect();
            sent.iter().for_each(|message| publisher.publish(channel, message));
            everyone.see(publisher.id, channel, &sent);
        }
        let events =
            [("greeting", ""), ("message", r#", "id": 7"#), ("grüße", r#", "to": ["ü"], "x": null"#)];
        // Further fields are for WebRocket alone.
        let events = events.map(|(event, further)| Sent { event, further, ..Sent::plain(TEXT) });
        events.iter().for_each(|message| publisher.publish(5, message));
        everyone.see(publisher.id, 5, &events);
    }
}

#[test]
fn what_is_shouted_over_webtalk_reaches_every_wire_from_nobody() {
    let mut everyone = Everyone::gather();
    for &(channel, contents) in BYTES {
        contents.iter().for_each(|content| everyone.link.shout(channel, *content));
        everyone.see(0, channel, &contents.iter().copied().map(Sent::plain).collect::<Vec<_>>());
    }
}

#[test]
fn a_direct_packet_reaches_those_that_it_names_on_every_wire_and_nobody_else() {
    for connect in [Packets::tcp, Packets::udp] {
        let mut everyone = Everyone::gather();
        let mut bystander = Packets::tcp(&everyone.server, &[5]);
        let mut publisher = connect(&everyone.server, &[5, 7]);
        // However often one is named, it is one message.
        let named = [everyone.ids.clone(), everyone.ids.clone()].concat();
        for content in [TEXT, BINARY] {
            publisher.publish_to(5, &named, content.bytes);
        }
        publisher.publish(5, TEXT.bytes);
        let expected = [Sent::direct(TEXT), Sent::direct(BINARY), Sent::plain(TEXT)];
        everyone.see(publisher.id, 5, &expected);
        publisher.publish_to(7, &named, JSON.bytes);
        everyone.see(publisher.id, 7, &[Sent::direct(JSON)]);
        bystander.expect(&delivered(publisher.id, 5, false, TEXT.bytes));
        publisher.expect(&delivered(publisher.id, 5, false, TEXT.bytes));
    }
}

#[test]
fn a_direct_message_over_http_reaches_those_that_it_names_on_every_wire_and_nobody_else() {
    let mut everyone = Everyone::gather();
    let bystander = everyone.server.register();
    let mut bystander = Stream::open(&everyone.server, "5", bystander, "application/octet-stream");
    let sender = everyone.server.joined(&json!([5, 7]));
    let receivers = json!({ "receivers": everyone.ids });
    for (ahead, content) in [TEXT, JSON, BINARY].into_iter().enumerate() {
        let request = content.request(5, sender, &receivers);
        everyone.server.post("/send", &request).is(200, &everyone.published(5, ahead));
    }
    let broadcast = TEXT.request(5, sender, &json!({}));
    everyone.server.post("/broadcast", &broadcast).is(200, &everyone.published(5, 3));
    let expected = [Sent::direct(TEXT), Sent::direct(JSON), Sent::direct(BINARY), Sent::plain(TEXT)];
    everyone.see(sender, 5, &expected);
    bystander.expect(&delivered(sender, 5, false, TEXT.bytes));
}
