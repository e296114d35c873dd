//! What happens with peers and files, as sentences for a person. Prints nothing.

use jiff::tz::TimeZone;
use watchtower_client::Timestamp;
use watchtower_whisper::Event;
use watchtower_whisper::protocol::Notice;
use watchtower_whisper::protocol::safe_text::{safe_body, safe_nick};

use super::render::{Tone, as_name};

/// How long a sentence of elsewhere may be, in columns.
const SENTENCE_COLUMNS_MAX: usize = 500;

/// What is to be said of an event, if something is. What people say is for `render`.
pub(super) fn sentence(event: &Event, zone: &TimeZone) -> Option<(Tone, String)> {
    match event {
        Event::Notice(notice) => Some(of_notice(notice, zone)),
        Event::Progress { name, outgoing: true, bytes_done, bytes_all, .. } if bytes_done >= bytes_all => {
            Some((Tone::Notice, format!("sent {name}")))
        }
        Event::Saved { name, path, nick, .. } => {
            let nick = nick.as_deref().and_then(safe_nick).map(|nick| format!(" from {}", as_name(&nick)));
            let path = safe_body(&path.display().to_string(), SENTENCE_COLUMNS_MAX);
            Some((Tone::Notice, format!("saved {name}{}: {path}", nick.unwrap_or_default())))
        }
        Event::Failed { name, reason, .. } => {
            let reason = safe_body(reason, SENTENCE_COLUMNS_MAX);
            Some((Tone::Warning, format!("{name}: {reason}")))
        }
        Event::Warning(text) => Some((Tone::Warning, safe_body(text, SENTENCE_COLUMNS_MAX))),
        _ => None,
    }
}

fn of_notice(notice: &Notice, zone: &TimeZone) -> (Tone, String) {
    match notice {
        Notice::Connected(addr) => (Tone::Notice, format!("connected to {addr}")),
        Notice::Lost(addr) => (Tone::Notice, format!("lost {addr}, dialling it again")),
        Notice::Forgotten(addr) => (Tone::Notice, format!("cannot reach {addr}, no longer dialling it")),
        Notice::Unreached(addr) => (
            Tone::Warning,
            format!(
                "no peer can connect to {addr}, so you hear nothing: is there a firewall or a router between?"
            ),
        ),
        Notice::Refused { ip, until } => {
            (Tone::Warning, format!("{ip} sends too much and is refused until {}", clock(*until, zone)))
        }
        Notice::Pinned { nick, key } => {
            let nick = safe_nick(nick).unwrap_or_default();
            (Tone::Notice, format!("{} is new, with the key {key}", as_name(&nick)))
        }
    }
}

/// The warning that goes with the first message under a nick whose key is another than before.
pub(super) fn changed_key(name: &str) -> String {
    format!("the key of {name} is another than before: this may be somebody else")
}

/// A time of today or tomorrow, on the reader's clock.
pub(super) fn clock(time: Timestamp, zone: &TimeZone) -> String {
    let time = i64::try_from(time.as_millis()).ok();
    let time = time.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    time.map_or_else(
        || "--:--".to_owned(),
        |time| time.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use watchtower_whisper::protocol::PublicKey;

    use super::*;

    #[track_caller]
    fn check(event: &Event, tone: Tone, expected: &str) {
        assert_eq!(sentence(event, &TimeZone::UTC), Some((tone, expected.to_owned())));
    }

    #[test]
    fn what_happens_with_peers_is_told() {
        let addr = "192.168.1.5:55555".parse().unwrap();
        let notice = |notice, expected| check(&Event::Notice(notice), Tone::Notice, expected);
        notice(Notice::Connected(addr), "connected to 192.168.1.5:55555");
        notice(Notice::Lost(addr), "lost 192.168.1.5:55555, dialling it again");
        notice(Notice::Forgotten(addr), "cannot reach 192.168.1.5:55555, no longer dialling it");
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        notice(
            Notice::Pinned { nick: "\x1b<goldy>".to_owned(), key: PublicKey::parse(key).unwrap() },
            &format!("‹goldy› is new, with the key {key}"),
        );
        check(
            &Event::Notice(Notice::Refused {
                ip: addr.ip(),
                until: Timestamp::from_millis(1_795_723_445_000),
            }),
            Tone::Warning,
            "192.168.1.5 sends too much and is refused until 20:04:05",
        );
        check(
            &Event::Notice(Notice::Unreached(addr)),
            Tone::Warning,
            "no peer can connect to 192.168.1.5:55555, so you hear nothing: is there a firewall or a router between?",
        );
    }

    fn progress(outgoing: bool, bytes_done: u64) -> Event {
        Event::Progress { transfer: 1, name: "cat.gif".to_owned(), outgoing, bytes_done, bytes_all: 2 }
    }

    #[test]
    fn what_becomes_of_files_is_told() {
        check(
            &Event::Saved {
                transfer: 1,
                name: "cat.gif".to_owned(),
                mime_type: "image/gif".to_owned(),
                image: Some("image/gif"),
                path: "/home/phil/cat.gif".into(),
                nick: Some("goldy".to_owned()),
            },
            Tone::Notice,
            "saved cat.gif from goldy: /home/phil/cat.gif",
        );
        check(&progress(true, 2), Tone::Notice, "sent cat.gif");
        for under_way in [progress(true, 1), progress(false, 2)] {
            assert_eq!(sentence(&under_way, &TimeZone::UTC), None);
        }
        check(
            &Event::Failed { transfer: 1, name: "cat.gif".to_owned(), reason: "it broke\noff".to_owned() },
            Tone::Warning,
            "cat.gif: it broke↵off",
        );
    }
}
