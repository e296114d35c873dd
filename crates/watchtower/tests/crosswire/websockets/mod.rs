//! WebSockets of clients that this project did not write: a browser, and a package of another
//! language. Both do what they are told in the same words, see `package.py`.

mod browser;
mod package;

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, LazyLock, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::server::PATIENCE;

pub(crate) use browser::{Page, secure};

/// Who opens a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The PyPI package `websockets`.
    Package,
    /// A page in a browser.
    Browser,
    /// A page of another origin in the same browser.
    BrowserElsewhere,
}

/// Those that differ in how they speak.
pub(crate) const EVERY_CLIENT: [By; 2] = [By::Package, By::Browser];

impl By {
    fn peer(self) -> &'static Peer {
        static PACKAGE: LazyLock<Peer> = LazyLock::new(package::start);
        match self {
            By::Package => &PACKAGE,
            By::Browser => &browser::BROWSER.here,
            By::BrowserElsewhere => &browser::BROWSER.elsewhere,
        }
    }

    /// The origin that it names; none where it is no page.
    pub(crate) fn origin(self) -> Option<String> {
        match self {
            By::Package => None,
            By::Browser => Some(browser::BROWSER.origin("127.0.0.1")),
            By::BrowserElsewhere => Some(browser::BROWSER.origin("localhost")),
        }
    }
}

/// A program that has sockets, and is told what to do with them.
struct Peer {
    commands: Mutex<Sender<String>>,
    heard: Heard,
}

/// Where each socket of a peer gets what came on it, by its number.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Sender<Told>>>>);

impl Heard {
    /// Takes what a peer told.
    fn hear(&self, event: Event) {
        // A test may be done with a socket before its end is told.
        let _ = self.0.lock().unwrap()[event.socket].send(event.told);
    }
}

impl Peer {
    /// What it is told to do comes out at the other end.
    fn new() -> (Peer, Receiver<String>) {
        let (commands, told) = mpsc::channel();
        (Peer { commands: Mutex::new(commands), heard: Heard::default() }, told)
    }

    /// A socket that is made so: its number, and what comes on it.
    fn make(&self, how: &Value) -> (usize, Receiver<Told>) {
        let (sender, told) = mpsc::channel();
        let mut sockets = self.heard.0.lock().unwrap();
        let number = sockets.len();
        sockets.push(sender);
        drop(sockets);
        self.command(number, how);
        (number, told)
    }

    fn command(&self, socket: usize, command: &Value) {
        let mut command = command.clone();
        command["socket"] = socket.into();
        self.commands.lock().unwrap().send(command.to_string()).unwrap();
    }
}

/// A line of a peer.
#[derive(Debug, Deserialize)]
struct Event {
    socket: usize,
    #[serde(flatten)]
    told: Told,
}

/// What came on a socket.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub(crate) enum Told {
    Open,
    Text { text: String },
    Binary { base64: String },
    Closed { code: u16, reason: String },
}

/// How the package tells that it was answered with that status.
pub(crate) fn refused(status: u16) -> Told {
    Told::Closed { code: 1006, reason: status.to_string() }
}

/// A WebSocket of one of them.
pub(crate) struct Socket {
    peer: &'static Peer,
    number: usize,
    told: Receiver<Told>,
}

impl Socket {
    /// One that opens.
    #[track_caller]
    pub(crate) fn open(by: By, url: &str) -> Socket {
        Socket::open_with(by, url, &[])
    }

    /// One that asks for these subprotocols, and opens.
    #[track_caller]
    pub(crate) fn open_with(by: By, url: &str, protocols: &[&str]) -> Socket {
        let socket = Socket::ask(by, url, protocols);
        assert_eq!(socket.next(), Told::Open, "{by:?} {url}");
        socket
    }

    /// One that is not let in, and is told no more than that.
    #[track_caller]
    pub(crate) fn is_refused(by: By, url: &str) {
        Socket::is_refused_with(by, url, &[]);
    }

    /// The same for one that asks for these subprotocols.
    #[track_caller]
    pub(crate) fn is_refused_with(by: By, url: &str, protocols: &[&str]) {
        let end = Socket::ask(by, url, protocols).next();
        assert!(matches!(end, Told::Closed { code: 1006, .. }), "{by:?} {url}: {end:?}");
    }

    /// By the package, as if it were a page of this origin; what comes first.
    pub(crate) fn with_origin(url: &str, origin: &str) -> Told {
        Socket::make(By::Package, &json!({ "do": "open", "url": url, "origin": origin })).next()
    }

    fn ask(by: By, url: &str, protocols: &[&str]) -> Socket {
        // The browser trusts it already.
        let certificate = browser::certificate().pem();
        let mut how = json!({ "do": "open", "url": url, "certificate": certificate });
        if !protocols.is_empty() {
            how["protocols"] = protocols.into();
        }
        Socket::make(by, &how)
    }

    fn make(by: By, how: &Value) -> Socket {
        let peer = by.peer();
        let (number, told) = peer.make(how);
        Socket { peer, number, told }
    }

    fn order(&self, what: &str, key: &str, value: &str) {
        self.peer.command(self.number, &json!({ "do": what, key: value }));
    }

    pub(crate) fn send(&self, text: &str) {
        self.order("text", "text", text);
    }

    pub(crate) fn send_bytes(&self, bytes: &[u8]) {
        self.order("binary", "base64", &BASE64.encode(bytes));
    }

    /// Closes it, in the orderly way.
    pub(crate) fn close(self) {
        self.order("close", "", "");
        assert!(matches!(self.next(), Told::Closed { .. }));
    }

    /// What comes next.
    #[track_caller]
    fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).expect("something comes")
    }

    /// The next message, which is a text.
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        match self.next() {
            Told::Text { text } => text,
            other => panic!("no text: {other:?}"),
        }
    }

    /// The next message is this text.
    #[track_caller]
    pub(crate) fn expect(&self, text: &str) {
        assert_eq!(self.text(), text);
    }

    /// The next message is these bytes.
    #[track_caller]
    pub(crate) fn expect_bytes(&self, bytes: &[u8]) {
        assert_eq!(self.next(), Told::Binary { base64: BASE64.encode(bytes) });
    }

    /// The server closes it.
    #[track_caller]
    pub(crate) fn expect_closed(&self, code: u16, reason: &str) {
        assert_eq!(self.next(), Told::Closed { code, reason: reason.to_owned() });
    }
}
