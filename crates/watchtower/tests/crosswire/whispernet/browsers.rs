//! Browsers whose channel is the room: what they and peers hear of one another.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::super::messages::{BINARY, Content, JSON, Sent, TEXT};
use super::super::pages::shown;
use super::super::server::until;
use super::super::webrocket::WebRocket;
use super::super::websockets::{EVERY_CLIENT, Page};
use super::super::webtalk::{Link, User, WEBTALK};
use super::{Gopher, Server, start, start_with};

const HELLO: Content = Content { bytes: b"hello", json: r#""hello""# };

impl Gopher {
    /// Hears this of those whose nick begins so.
    #[track_caller]
    fn hears_of(&mut self, nick: &str, content: Content) {
        let object = self.next();
        assert!(object["Nick"].as_str().unwrap().starts_with(nick), "{object}");
        match content.is_binary() {
            true => assert_eq!(object["FileContents"], BASE64.encode(content.bytes), "{object}"),
            false => assert_eq!(object["Body"], content.text(), "{object}"),
        }
    }
}

#[test]
fn who_speaks_webrocket_and_a_peer_hear_one_another() {
    let server = start(&[]);
    let followers = EVERY_CLIENT.map(|by| {
        let rocket = WebRocket::open(&server, by);
        rocket.subscribe("5");
        rocket
    });
    let follow = |content| followers.iter().for_each(|follower| follower.sees(5, &Sent::plain(content)));
    let mut gopher = Gopher::meet(&server);
    follow(HELLO);
    for by in EVERY_CLIENT {
        let publisher = WebRocket::open(&server, by);
        for content in [TEXT, JSON, BINARY] {
            publisher.publish(5, &Sent::plain(content));
            gopher.hears_of("watchtower/", content);
            follow(content);
        }
        gopher.say(TEXT.text());
        follow(TEXT);
    }
}

#[test]
fn who_listens_by_webtalk_and_a_peer_hear_one_another_and_nothing_that_is_whispered() {
    let server = start_with(&WEBTALK);
    let mut link = Link::open(server.listener("webtalk-private"));
    link.channels_up_to(5);
    let users = EVERY_CLIENT.map(|by| User::listening(&server, &mut link, by, &[5]));
    let hear = |content| users.iter().for_each(|user| user.hears(&Sent::plain(content)));
    let mut gopher = Gopher::meet(&server);
    hear(HELLO);
    gopher.say(TEXT.text());
    hear(TEXT);
    for content in [TEXT, BINARY] {
        users.iter().for_each(|user| link.whisper(user.id, HELLO.bytes));
        hear(HELLO);
        link.shout(5, content);
        // The application is no sender: it has no digits.
        gopher.hears_of("watchtower", content);
        hear(content);
    }
}

#[test]
fn who_opens_the_page_of_webrocket_talks_to_peers() {
    let server =
        Server::start(&["--set", "whispernet.listen=127.0.0.1:0", "--set", "whispernet.channel=hello"]);
    let page = Page::open(&shown("webrocket.md", "chat.html", &server));
    // It comes in by itself.
    until("in", || server.present("hello", "webrocket").len() == 1);
    let mut gopher = Gopher::meet(&server);
    page.shows(r#"message: "hello""#);
    page.submit("grüße");
    gopher.hears_of("watchtower/", Content { bytes: "grüße".as_bytes(), json: r#""grüße""# });
    page.shows(r#"said: "grüße""#);
    gopher.say("who are you?");
    page.shows(r#"message: "who are you?""#);
    server.terminate();
    page.shows("closed: 1001");
}
