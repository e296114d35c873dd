//! The pages that the documents show, in a browser, as they are printed there: only the port is
//! another.

use std::fs;

use super::messages::{BINARY, TEXT};
use super::server::{Server, until};
use super::webrocket::WebRocket;
use super::websockets::{By, Page};
use super::webtalk::{Link, WEBTALK, id};

/// A file that a document shows, for this server.
pub(crate) fn shown(document: &str, file: &str, server: &Server) -> String {
    let path = format!("{}/../../docs/{document}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    let (_, after) = text.split_once(&format!("\n```html {file}\n")).expect("the document shows it");
    let (page, _) = after.split_once("\n```\n").unwrap();
    assert_eq!(page.matches("127.0.0.1:3033").count(), 1);
    page.replace("127.0.0.1:3033", &server.tcp.to_string())
}

#[test]
fn two_who_open_the_page_of_webrocket_talk_to_each_other_and_to_everybody() {
    let server = Server::start(&[]);
    let html = shown("webrocket.md", "chat.html", &server);
    let other = WebRocket::open(&server, By::Package);
    other.subscribe("hello");
    let pages = [Page::open(&html), Page::open(&html)];
    // They come in by themselves.
    until("in", || server.present("hello", "webrocket").len() == 3);
    for (page, text) in pages.iter().zip(["hello", "grüße"]) {
        page.submit(text);
        other.socket.expect(&format!(r#"{{"event": "said", "channel": "hello", "data": "{text}"}}"#));
    }
    server.terminate();
    for page in &pages {
        page.shows(r#"said: "hello""#);
        page.shows(r#"said: "grüße""#);
        page.shows("closed: 1001");
    }
}

#[test]
fn who_opens_the_page_of_webtalk_hears_what_is_whispered_and_shouted() {
    let server = Server::start(&WEBTALK);
    let mut link = Link::open(server.listener("webtalk-private"));
    let credentials = link.new_user();
    let page = Page::open(&shown("webtalk.md", "listen.html", &server));
    page.submit(&credentials);
    link.whisper(id(&credentials), b"for you alone");
    page.shows("for you alone");
    link.shout(1, TEXT);
    page.shows(TEXT.text());
    link.shout(1, BINARY);
    page.shows("9 bytes");
    link.command(format!("[killuser] {}", id(&credentials)));
    page.shows("closed: 4002 the user was killed");

    let page = Page::open(&shown("webtalk.md", "listen.html", &server));
    page.submit("1!2");
    page.shows("closed: 4001 wrong ID!SALT, or logged in already");
}
