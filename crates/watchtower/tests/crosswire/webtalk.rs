//! An application on WebTalk's private link, its users on somebody else's WebSockets, and what
//! they hear of one another.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::messages::{BINARY, Content, JSON, Sent, TEXT};
use super::server::{PATIENCE, Server};
use super::websockets::{By, EVERY_CLIENT, Socket, secure};

/// What turns WebTalk on.
pub(crate) const WEBTALK: [&str; 2] = ["--set", "webtalk.private=127.0.0.1:0"];

/// The application's side.
pub(crate) struct Link(TcpStream);

impl Link {
    pub(crate) fn open(address: SocketAddr) -> Link {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Link(stream)
    }

    /// The data of the `[ok]` that a command is answered with.
    #[track_caller]
    pub(crate) fn command(&mut self, command: impl AsRef<[u8]>) -> String {
        let reply = self.ask(command);
        reply.strip_prefix("[ok] ").unwrap_or_else(|| panic!("{reply}")).to_owned()
    }

    /// What a command is answered with.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: impl AsRef<[u8]>) -> String {
        let command = command.as_ref();
        self.0.write_all(format!("{:05}", command.len()).as_bytes()).unwrap();
        self.0.write_all(command).unwrap();
        let mut digits = [0; 5];
        self.0.read_exact(&mut digits).unwrap();
        let mut reply = vec![0; std::str::from_utf8(&digits).unwrap().parse().unwrap()];
        self.0.read_exact(&mut reply).unwrap();
        String::from_utf8(reply).unwrap()
    }

    /// A new user; its `ID!SALT`.
    pub(crate) fn new_user(&mut self) -> String {
        self.command("[newuser]")
    }

    /// Gives out channels up to this one.
    pub(crate) fn channels_up_to(&mut self, last: u32) {
        while self.command("[newchannel]") != last.to_string() {}
    }

    /// Says something to everyone in the channel.
    #[track_caller]
    pub(crate) fn shout(&mut self, channel: u32, content: Content) {
        self.say(&format!("[shout] {channel}"), content.bytes);
    }

    /// Says something to that user alone.
    #[track_caller]
    pub(crate) fn whisper(&mut self, user: u32, content: &[u8]) {
        self.say(&format!("[whisper] {user}"), content);
    }

    #[track_caller]
    fn say(&mut self, to: &str, content: &[u8]) {
        let reply = self.command([to.as_bytes(), b"!", content].concat());
        assert_eq!(reply, "message sent");
    }
}

/// A user with a browser.
pub(crate) struct User {
    pub(crate) socket: Socket,
    pub(crate) id: u32,
}

impl User {
    /// A new one that is in these channels, and listens. When this returns, its login may still be
    /// on the way: what is said meanwhile is kept for it.
    pub(crate) fn listening(server: &Server, link: &mut Link, by: By, channels: &[u32]) -> User {
        User::listening_at(&public(server), link, by, channels)
    }

    fn listening_at(url: &str, link: &mut Link, by: By, channels: &[u32]) -> User {
        let credentials = link.new_user();
        let id = id(&credentials);
        for channel in channels {
            assert_eq!(link.command(format!("[join] {channel}!{id}")), "user joined");
        }
        User { socket: log_in(url, by, &credentials), id }
    }

    /// Hears this next, with nothing around it [webtalk: public side].
    #[track_caller]
    pub(crate) fn hears(&self, message: &Sent) {
        match message.content.is_binary() {
            true => self.socket.expect_bytes(message.content.bytes),
            false => self.socket.expect(message.content.text()),
        }
    }
}

/// The number in `ID!SALT`.
pub(crate) fn id(credentials: &str) -> u32 {
    credentials.split_once('!').unwrap().0.parse().unwrap()
}

/// A browser that has sent this.
fn log_in(url: &str, by: By, credentials: &str) -> Socket {
    let socket = Socket::open(by, url);
    socket.send(credentials);
    socket
}

/// Where browsers connect.
fn public(server: &Server) -> String {
    format!("ws://{}/webtalk", server.tcp)
}

fn start() -> (Server, Link) {
    let server = Server::start(&WEBTALK);
    let link = Link::open(server.listener("webtalk-private"));
    (server, link)
}

const CONTENTS: [Content; 3] = [TEXT, JSON, BINARY];

#[test]
fn a_whisper_is_for_one_user_and_a_shout_for_all_in_the_channel() {
    let (server, mut link) = start();
    link.channels_up_to(2);
    for by in EVERY_CLIENT {
        let [in_both, in_one] =
            [&[2][..], &[]].map(|channels| User::listening(&server, &mut link, by, channels));
        for content in CONTENTS {
            link.whisper(in_both.id, content.bytes);
            in_both.hears(&Sent::plain(content));
            link.shout(2, content);
            in_both.hears(&Sent::plain(content));
            // Who hears this next has heard nothing of it.
            link.shout(1, content);
            in_both.hears(&Sent::plain(content));
            in_one.hears(&Sent::plain(content));
        }
        for user in [&in_both, &in_one] {
            assert_eq!(link.command(format!("[leave] 1!{}", user.id)), "user leaved");
        }
    }
}

#[test]
fn what_is_said_while_nobody_listens_is_heard_by_the_next_login() {
    let (server, mut link) = start();
    for by in EVERY_CLIENT {
        let credentials = link.new_user();
        let id = id(&credentials);
        for content in CONTENTS {
            link.whisper(id, content.bytes);
        }
        let user = User { socket: log_in(&public(&server), by, &credentials), id };
        CONTENTS.iter().for_each(|content| user.hears(&Sent::plain(*content)));
        // What it says is ignored.
        user.socket.send("[shout] 1!me");
        user.socket.send_bytes(b"me");
        link.whisper(id, b"still here");
        user.socket.expect("still here");
        user.socket.close();

        for content in CONTENTS {
            link.shout(1, content);
        }
        let user = User { socket: log_in(&public(&server), by, &credentials), id };
        CONTENTS.iter().for_each(|content| user.hears(&Sent::plain(*content)));
        assert_eq!(link.command(format!("[killuser] {id}")), "user killed");
        user.socket.expect_closed(4002, "the user was killed");
    }
}

#[test]
fn who_does_not_say_who_it_is_is_closed() {
    let (server, mut link) = start();
    let credentials = link.new_user();
    let (id, salt) = credentials.split_once('!').unwrap();
    for by in EVERY_CLIENT {
        for wrong in [format!("{id}!{}", "0".repeat(32)), format!("{id}!"), salt.to_owned(), String::new()] {
            let socket = log_in(&public(&server), by, &wrong);
            socket.expect_closed(4001, "wrong ID!SALT, or logged in already");
        }
    }
    let first = log_in(&public(&server), By::Browser, &credentials);
    link.shout(1, TEXT);
    first.expect(TEXT.text());
    let second = log_in(&public(&server), By::Package, &credentials);
    second.expect_closed(4001, "wrong ID!SALT, or logged in already");
    link.shout(1, TEXT);
    first.expect(TEXT.text());
}

#[test]
fn over_tls_it_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let tls = secure(folder.path());
    let options: Vec<&str> = WEBTALK.into_iter().chain(tls.iter().map(String::as_str)).collect();
    let server = Server::start(&options);
    let mut link = Link::open(server.listener("webtalk-private"));
    for by in EVERY_CLIENT {
        let url = format!("wss://{}/webtalk", server.tcp);
        let user = User::listening_at(&url, &mut link, by, &[]);
        for content in CONTENTS {
            link.whisper(user.id, content.bytes);
            user.hears(&Sent::plain(content));
        }
        user.socket.close();
    }
}

#[test]
fn at_its_end_the_server_says_that_it_goes_away() {
    let (server, mut link) = start();
    let users = EVERY_CLIENT.map(|by| User::listening(&server, &mut link, by, &[]));
    link.shout(1, TEXT);
    users.iter().for_each(|user| user.hears(&Sent::plain(TEXT)));
    server.terminate();
    for user in users {
        user.socket.expect_closed(1001, "the server shuts down");
    }
    assert_eq!(server.ended().0, Some(0));
}
