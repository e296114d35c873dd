//! What the page is told, as JSON: made safe to show, and bounded, before it
//! leaves the node. The page shows all of it as text.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use serde_json::value::RawValue;
use watchtower_hub::Timestamp;

use crate::PeerStatus;
use crate::protocol::safe_text::{safe_body, safe_nick};
use crate::protocol::{Mark, Notice, Shown};

/// How much of a `Body` is shown, in bytes and in lines.
const TEXT_BYTES_MAX: usize = 16 * 1024;
const LINES_MAX: usize = 200;

/// How much of a sentence is shown, in columns.
const SENTENCE_COLUMNS_MAX: usize = 500;

/// How many peers, or refused addresses, are listed.
const ADDRESSES_MAX: usize = 500;

/// The last moment of the year 9999: what comes after it is no date to a
/// browser.
const TIME_MAX: u64 = 253_402_300_799_999;

/// What stands for a sender that says nothing of itself.
const SOMEBODY: &str = "somebody";

/// One thing that the page is told.
#[derive(Debug, Serialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub(super) enum Update<'a> {
    /// Everything there is, at the beginning.
    Hello(Box<Hello<'a>>),
    /// Somebody said something. What has a number `n` is kept for those who
    /// come later.
    Message(Message),
    /// A file came, and can be had.
    Saved(Saved),
    /// A file went out that was too long for one message.
    Sent { n: u64, name: &'a str, bytes: u64, time: u64 },
    /// A file did not come, or go out.
    Failed { n: u64, name: &'a str, reason: String },
    /// Something to know.
    Warning { n: u64, text: String },
    /// Something to know for now.
    Notice { text: String },
    /// A file is under way.
    Transfer(Transfer),
    /// It no longer is.
    TransferEnded { transfer: u64 },
    /// The peers have changed.
    Peers(Peers),
    /// The peer's nick has changed.
    Nick { nick: Option<&'a str> },
}

#[derive(Debug, Serialize)]
pub(super) struct Hello<'a> {
    pub(super) address: SocketAddr,
    pub(super) key: String,
    pub(super) nick: Option<&'a str>,
    pub(super) upload_bytes_max: u64,
    pub(super) peers: &'a Peers,
    pub(super) transfers: Vec<&'a Transfer>,
    pub(super) log: Vec<&'a RawValue>,
}

/// Who said something: a nick, or else an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct By {
    pub(super) name: String,
    /// Whether the name is a nick.
    pub(super) named: bool,
}

impl By {
    pub(super) fn new(nick: Option<&str>, addr: Option<&str>) -> By {
        if let Some(name) = nick.and_then(safe_nick) {
            return By { name, named: true };
        }
        let addr = addr.and_then(safe_nick).unwrap_or_else(|| SOMEBODY.to_owned());
        By { name: addr, named: false }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Message {
    n: u64,
    #[serde(flatten)]
    pub(super) by: By,
    text: String,
    /// Whether it says what somebody does ([whispernet: 1]).
    me: bool,
    /// Whether this peer said it.
    own: bool,
    mark: &'static str,
    /// Milliseconds since the Unix epoch.
    time: u64,
    pub(super) file: Option<FileInMessage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FileInMessage {
    pub(super) name: String,
    bytes: usize,
}

impl Message {
    pub(super) fn new(n: u64, shown: &Shown, own: bool) -> Message {
        let action = shown.body.strip_prefix("/me ");
        Message {
            n,
            by: By::new(shown.nick.as_deref(), shown.addr.as_deref()),
            text: lines(action.unwrap_or(&shown.body)),
            me: action.is_some(),
            own,
            mark: match shown.mark {
                Mark::Unverified => "unverified",
                Mark::Verified => "verified",
                Mark::ChangedKey => "changed",
            },
            time: millis(shown.time),
            file: shown
                .file
                .as_ref()
                .map(|file| FileInMessage { name: file.name.clone(), bytes: file.contents.len() }),
        }
    }
}

/// A file that came.
#[derive(Debug, Serialize)]
pub(super) struct Saved {
    pub(super) n: u64,
    /// The number of the message that it came with, if that is known.
    pub(super) message: Option<u64>,
    #[serde(flatten)]
    pub(super) by: By,
    pub(super) file: FileInfo,
    /// When all of it was there, in milliseconds since the Unix epoch.
    pub(super) time: u64,
}

/// A file that can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FileInfo {
    /// What it is asked for by.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Whether it is a picture that the page may show.
    pub(super) image: bool,
}

/// How far a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Transfer {
    pub(super) transfer: u64,
    pub(super) name: String,
    pub(super) outgoing: bool,
    pub(super) done: u64,
    pub(super) all: u64,
}

/// The peers, and who is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Peers {
    peers: Vec<PeerInfo>,
    refused: Vec<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct PeerInfo {
    address: SocketAddr,
    connected: bool,
}

impl Peers {
    /// As many as are listed; those that are connected to come first.
    pub(super) fn new(peers: &[PeerStatus], refused: impl Iterator<Item = IpAddr>) -> Peers {
        let mut peers: Vec<PeerInfo> =
            peers.iter().map(|peer| PeerInfo { address: peer.addr, connected: peer.connected }).collect();
        peers.sort_by_key(|peer| (!peer.connected, peer.address));
        peers.truncate(ADDRESSES_MAX);
        Peers { peers, refused: refused.take(ADDRESSES_MAX).collect() }
    }
}

/// A time as the page takes it.
pub(super) fn millis(time: Timestamp) -> u64 {
    time.as_millis().min(TIME_MAX)
}

/// What a notice says; nothing for what is no news to a person.
pub(super) fn sentence(notice: &Notice) -> Option<String> {
    match notice {
        Notice::Connected(addr) => Some(format!("Connected to {addr}.")),
        Notice::Lost(addr) => Some(format!("The connection to {addr} ended; it is dialled again.")),
        Notice::Forgotten(addr) => Some(format!("{addr} cannot be reached, and is dialled no more.")),
        Notice::Refused { ip, .. } => Some(format!("{ip} sent too much, and is refused for a while.")),
        Notice::Unreached(addr) => Some(format!(
            "No peer can connect to {addr}, so nothing is heard: is there a firewall or a router between?"
        )),
        Notice::Pinned { .. } => None,
    }
}

/// A sentence that has something of a peer in it, in one line.
pub(super) fn one_line(text: &str) -> String {
    safe_body(cut(text), SENTENCE_COLUMNS_MAX)
}

/// A `Body` with its lines, each made safe: the page sets them apart from what
/// others say, so they need not be one.
fn lines(text: &str) -> String {
    let cut = cut(text);
    let mut lines: Vec<String> = cut
        .split('\n')
        .take(LINES_MAX)
        .map(|line| safe_body(line.trim_end_matches('\r'), usize::MAX))
        .collect();
    let shown_lines = lines.len();
    if cut.len() < text.len() || shown_lines < cut.split('\n').count() {
        lines.push("…".to_owned());
    }
    lines.join("\n")
}

/// As much of a text as is looked at.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_a_nick_or_an_address_or_somebody() {
        let name = |nick: Option<&str>, addr: Option<&str>| By::new(nick, addr).name;
        assert_eq!(name(Some("goldy"), Some("10.0.0.1:1")), "goldy");
        assert_eq!(name(Some("\u{202e}go\nldy\u{200b}"), None), "go ldy");
        assert_eq!(name(Some("\u{200b}"), Some("10.0.0.1:1")), "10.0.0.1:1");
        assert_eq!(name(None, None), "somebody");
        assert!(!By::new(None, Some("goldy")).named, "an address is no nick, whatever it looks like");
        assert!(name(Some(&"x".repeat(1 << 20)), None).len() < 200);
        assert!(name(None, Some(&"x".repeat(1 << 20))).len() < 200);
    }

    #[test]
    fn lines_stay_lines_and_nothing_in_them_is_obeyed() {
        assert_eq!(lines("one\r\ntwo\nthree"), "one\ntwo\nthree");
        assert_eq!(lines("a\x1b[2Jb\u{202e}c\0"), "a\u{fffd}[2Jbc\u{fffd}");
        assert_eq!(lines("<script>alert(1)</script>"), "<script>alert(1)</script>");
        assert_eq!(lines("a\rb\u{2028}c"), "a↵b↵c");
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let long = lines(&"ä".repeat(TEXT_BYTES_MAX));
        assert!(long.len() <= TEXT_BYTES_MAX + 4 && long.ends_with("ä\n…"), "{}", long.len());
        let many = lines(&"x\n".repeat(LINES_MAX + 1));
        assert_eq!(many.lines().count(), LINES_MAX + 1);
        assert!(many.ends_with("x\n…"));
        assert_eq!(one_line(&"x".repeat(1 << 20)).chars().count(), SENTENCE_COLUMNS_MAX);
    }
}
