//! A client of the WebRocket page on somebody else's WebSocket, and what clients of WebRocket see
//! of one another.

use serde_json::json;

use super::messages::{BINARY, Content, JSON, Sent, TEXT};
use super::packets::Packets;
use super::server::Server;
use super::websockets::{By, EVERY_CLIENT, Socket, Told, refused, secure};

pub(crate) const OK: &str = r#"{"ok": true}"#;

pub(crate) struct WebRocket {
    pub(crate) socket: Socket,
    /// The sender that it is, once it has subscribed.
    pub(crate) id: u32,
}

impl WebRocket {
    /// One that may publish.
    #[track_caller]
    pub(crate) fn open(server: &Server, by: By) -> WebRocket {
        WebRocket::open_at(&format!("ws://{}/webrocket", server.tcp), by)
    }

    #[track_caller]
    pub(crate) fn open_at(url: &str, by: By) -> WebRocket {
        let rocket = WebRocket { socket: Socket::open(by, url), id: 0 };
        rocket.ask(r#"{"auth": {"access": "read-write", "secret": ""}}"#, OK);
        rocket
    }

    /// One that follows these channels too, of which it is the only one in WebRocket that is not
    /// in `others`.
    #[track_caller]
    pub(crate) fn following(server: &Server, by: By, channels: &[u32], others: &[u32]) -> WebRocket {
        let mut rocket = WebRocket::open(server, by);
        for channel in channels {
            rocket.subscribe(&channel.to_string());
        }
        let mut present = server.present(&channels[0].to_string(), "webrocket");
        present.retain(|id| !others.contains(id));
        assert_eq!(present.len(), 1, "{present:?}");
        rocket.id = present[0];
        rocket
    }

    #[track_caller]
    pub(crate) fn subscribe(&self, channel: &str) {
        self.ask(&format!(r#"{{"subscribe": {{"channel": "{channel}"}}}}"#), OK);
    }

    /// Sends a command, whose answer comes next.
    #[track_caller]
    pub(crate) fn ask(&self, command: &str, answer: &str) {
        self.socket.send(command);
        self.socket.expect(answer);
    }

    /// Publishes on a channel that it does not follow.
    #[track_caller]
    pub(crate) fn publish(&self, channel: u32, message: &Sent) {
        self.ask(&publication(channel, message), OK);
    }

    /// Sees this message next.
    #[track_caller]
    pub(crate) fn sees(&self, channel: u32, message: &Sent) {
        self.socket.expect(&event(channel, message));
    }
}

impl Server {
    /// Who is in the channel by that protocol.
    pub(crate) fn present(&self, channel: &str, protocol: &str) -> Vec<u32> {
        let asker = self.register();
        let presence = self.get(&format!("/channels/{channel}/presence?sender={asker}")).json();
        let senders = presence["senders"].as_array().unwrap().iter();
        let ids = senders.filter(|sender| sender["protocol"] == protocol).map(|sender| &sender["id"]);
        ids.map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
    }
}

/// The event that subscribers get [webrocket: a subscriber receives].
fn event(channel: u32, message: &Sent) -> String {
    let (event, data, further) = (message.event, data(message.content), message.further);
    format!(r#"{{"event": "{event}", "channel": "{channel}", "data": {data}{further}}}"#)
}

fn publication(channel: u32, message: &Sent) -> String {
    format!(r#"{{"publish": {}}}"#, event(channel, message))
}

/// The value of `data`, and `encoding` behind it where there is one.
fn data(content: Content) -> String {
    content.value().replace(r#","encoding":"#, r#", "encoding": "#)
}

#[test]
fn what_one_publishes_others_see_as_it_was_written_with_its_further_fields() {
    let server = Server::start(&[]);
    for (one, other) in [(By::Package, By::Browser), (By::Browser, By::Package)] {
        let (publisher, follower) = (WebRocket::open(&server, one), WebRocket::open(&server, other));
        follower.subscribe("hello");
        for event in [
            r#"{"event": "foo", "channel": "hello", "data": {"foo": "bar"}}"#,
            r#"{"event": "foo", "channel": "hello", "data": [1.0, 2E3,  null], "id": 7, "to": {"a":[ ]}}"#,
            r#"{"event": "grüße", "channel": "hello", "data": "/wAB", "encoding": "base64", "id": "x"}"#,
            r#"{"event": "foo", "channel": "hello", "data": "", "": "", "name": "Zoë"}"#,
        ] {
            publisher.ask(&format!(r#"{{"publish": {event}}}"#), OK);
            follower.socket.expect(event);
        }
        // In whatever order they came, and over whatever is escaped without need.
        let command = r#"{"publish":{"n":1,"data":"\u0041\/","m":2,"channel":"hell\u006f","event":"foo"}}"#;
        publisher.ask(command, OK);
        follower.socket.expect(r#"{"event": "foo", "channel": "hello", "data": "A/", "n": 1, "m": 2}"#);
        follower.ask(r#"{"unsubscribe": {"channel": "hello"}}"#, OK);
    }
}

#[test]
fn what_one_publishes_comes_back_to_it_where_it_follows() {
    let server = Server::start(&[]);
    for by in EVERY_CLIENT {
        let rocket = WebRocket::following(&server, by, &[5], &[]);
        for content in [TEXT, JSON, BINARY] {
            let message = Sent::plain(content);
            rocket.socket.send(&publication(5, &message));
            // Either may come first [webrocket: a subscriber receives].
            let mut came = [rocket.socket.text(), rocket.socket.text()];
            let mut expected = [OK.to_owned(), event(5, &message)];
            came.sort();
            expected.sort();
            assert_eq!(came, expected);
        }
        rocket.socket.close();
    }
}

#[test]
fn nobody_takes_a_connection_s_messages_away_by_its_id() {
    let server = Server::start(&[]);
    for by in EVERY_CLIENT {
        let rocket = WebRocket::following(&server, by, &[5], &[]);
        let stranger = server.joined(&json!([5]));
        let [mut tcp, mut udp] = [Packets::tcp(&server, &[5]), Packets::udp(&server, &[5])];
        for packets in [&mut tcp, &mut udp] {
            for packet in [b'J', b'L'] {
                let named = [&[packet][..], &rocket.id.to_le_bytes(), &5u32.to_le_bytes()].concat();
                packets.is_refused(&named, 2);
            }
        }
        let request = json!({ "sender": rocket.id, "channels": [5], "message": "as another" }).to_string();
        for target in ["/channels/leave", "/channels/join", "/broadcast"] {
            assert_eq!(server.post(target, &request).json()["error"], "unknown_sender", "{target}");
        }
        // It is in the channel all the same, and may be named as a receiver.
        let direct =
            json!({ "sender": stranger, "channels": [5], "receivers": [rocket.id], "message": "one" });
        assert_eq!(server.post("/send", &direct.to_string()).status, 200);
        server.broadcast(stranger, &json!(5), "two");
        for data in ["one", "two"] {
            rocket.socket.expect(&format!(r#"{{"event": "message", "channel": "5", "data": "{data}"}}"#));
        }
        rocket.socket.close();
    }
}

const HUB_WITH_SECRETS: &str =
    r#"webrocket.hubs=[{path="/webrocket",read_only="r-3f9c",read_write="w-aa01"}]"#;

#[test]
fn everything_that_is_refused_is_told_and_the_connection_stays() {
    let server = Server::start(&["--set", HUB_WITH_SECRETS]);
    for by in EVERY_CLIENT {
        let socket = Socket::open(by, &format!("ws://{}/webrocket", server.tcp));
        let rocket = WebRocket { socket, id: 0 };
        let err = |code: &str| format!(r#"{{"err": "{code}"}}"#);
        let publish = r#"{"publish": {"event": "a", "channel": "refused", "data": 1}}"#;
        for (command, code) in [
            (r#"{"subscribe": {"channel": "refused"}}"#, "access_denied"),
            (publish, "access_denied"),
            (r#"{"auth": {"access": "read-only", "secret": "w-aa01"}}"#, "invalid_credentials"),
            (r#"{"auth": {"access": "all", "secret": "w-aa01"}}"#, "invalid_data"),
            ("nonsense", "invalid_data"),
            ("{}", "invalid_data"),
            (r#"{"logout": true, "disconnect": true}"#, "invalid_data"),
        ] {
            rocket.ask(command, &err(code));
        }
        rocket.socket.send_bytes(br#"{"logout": true}"#);
        rocket.socket.expect(&err("invalid_data"));
        rocket.ask(r#"{"auth": {"access": "read-only", "secret": "r-3f9c"}}"#, OK);
        rocket.ask(r#"{"subscribe": {"channel": ""}}"#, &err("invalid_channel_name"));
        rocket.ask(publish, &err("access_denied"));
        rocket.ask(r#"{"auth": {"access": "read-write", "secret": "w-aa01"}}"#, OK);
        rocket.ask(publish, &err("invalid_channel"));
        rocket.ask(r#"{"disconnect": true}"#, OK);
        rocket.socket.expect_closed(1000, "");
    }
}

#[test]
fn over_tls_it_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&secure(folder.path()).each_ref().map(String::as_str));
    let url = format!("wss://{}/webrocket", server.tcp);
    let followers = EVERY_CLIENT.map(|by| {
        let rocket = WebRocket::open_at(&url, by);
        rocket.subscribe("5");
        rocket
    });
    for by in EVERY_CLIENT {
        // Over TLS, and beside it on the same port.
        for publisher in [WebRocket::open_at(&url, by), WebRocket::open(&server, by)] {
            for content in [TEXT, JSON, BINARY] {
                let message = Sent::plain(content);
                publisher.publish(5, &message);
                followers.iter().for_each(|follower| follower.sees(5, &message));
            }
        }
    }
}

#[test]
fn a_page_of_an_origin_that_is_not_listed_is_refused() {
    let listed = By::Browser.origin().unwrap();
    let hubs = format!(r#"webrocket.hubs=[{{path="/listed",origins=["{listed}"]}},{{path="/open"}}]"#);
    let server = Server::start(&["--set", &hubs]);
    let url = |path: &str| format!("ws://{}{path}", server.tcp);
    WebRocket::open_at(&url("/listed"), By::Browser);
    Socket::is_refused(By::BrowserElsewhere, &url("/listed"));
    // Who names none is not on the list either.
    Socket::is_refused(By::Package, &url("/listed"));
    for by in [By::Browser, By::BrowserElsewhere, By::Package] {
        WebRocket::open_at(&url("/open"), by);
    }
    // What a page is that was opened from a file.
    assert_eq!(Socket::with_origin(&url("/listed"), "null"), refused(403));
    assert_eq!(Socket::with_origin(&url("/open"), "null"), Told::Open);
    assert_eq!(Socket::with_origin(&url("/listed"), &listed), Told::Open);
}

#[test]
fn at_its_end_the_server_says_that_it_goes_away() {
    let server = Server::start(&[]);
    let rockets = EVERY_CLIENT.map(|by| WebRocket::open(&server, by));
    server.terminate();
    for rocket in rockets {
        rocket.socket.expect_closed(1001, "the server shuts down");
    }
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said}");
}
