//! What is kept for those who open the page later: the last messages, files
//! and warnings, as JSON, numbered.
//!
//! Knows no peer and no file system.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use serde_json::value::{RawValue, to_raw_value};
use watchtower_hub::Timestamp;

use super::update::{By, FileInfo, Message, Saved, Update, millis, one_line};
use crate::protocol::Shown;

/// How much is kept.
const ITEMS_MAX: usize = 200;
const BYTES_MAX: usize = 1 << 20;

/// The items, oldest first.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Invariant: at most [`ITEMS_MAX`], and [`BYTES_MAX`] or one.
    items: VecDeque<Item>,
    /// Invariant: the sum of their lengths.
    bytes: usize,
    /// How many there were, ever.
    count: u64,
    hashes: RandomState,
}

#[derive(Debug)]
struct Item {
    n: u64,
    json: Box<RawValue>,
    message: Option<Known>,
}

/// What is known of a message besides its JSON.
#[derive(Debug)]
struct Known {
    /// Of its id, which may be as long as its sender likes.
    hash: u64,
    /// Who sends a file with it, and its name, until that came.
    awaits: Option<(By, String)>,
}

impl Log {
    /// Keeps a message, unless it is there. Returns its JSON.
    pub(super) fn message(&mut self, shown: &Shown, own: bool) -> Option<&RawValue> {
        let hash = self.hashes.hash_one(&shown.id);
        if self.items.iter().any(|item| item.message.as_ref().is_some_and(|known| known.hash == hash)) {
            return None;
        }
        let message = Message::new(self.next(), shown, own);
        let file = message.file.as_ref().filter(|_| !own);
        let awaits = file.map(|file| (message.by.clone(), file.name.clone()));
        self.push(&Update::Message(message), Some(Known { hash, awaits }))
    }

    /// Keeps that a file came. It belongs to the last message of the same
    /// sender that has a file of that name.
    pub(super) fn saved(&mut self, nick: Option<&str>, file: FileInfo, now: Timestamp) -> Option<&RawValue> {
        let nick = By::new(nick, None);
        let belongs = |known: &Known| {
            known.awaits.as_ref().is_some_and(|(by, name)| {
                *name == file.name && (by.name == nick.name || !(by.named || nick.named))
            })
        };
        let mut messages = self.items.iter_mut().rev();
        let message = messages.find_map(|item| {
            let known = item.message.as_mut().filter(|known| belongs(known))?;
            let (by, _) = known.awaits.take()?;
            Some((item.n, by))
        });
        let (message, by) = match message {
            Some((n, by)) => (Some(n), by),
            None => (None, nick),
        };
        let saved = Saved { n: self.next(), message, by, file, time: millis(now) };
        self.push(&Update::Saved(saved), None)
    }

    /// Keeps that a file went out that is in no message.
    pub(super) fn sent(&mut self, name: &str, bytes: u64, now: Timestamp) -> Option<&RawValue> {
        self.push(&Update::Sent { n: self.next(), name, bytes, time: millis(now) }, None)
    }

    /// Keeps that a file did not come, or go out.
    pub(super) fn failed(&mut self, name: &str, reason: &str) -> Option<&RawValue> {
        self.push(&Update::Failed { n: self.next(), name, reason: one_line(reason) }, None)
    }

    /// Keeps a warning.
    pub(super) fn warning(&mut self, text: &str) -> Option<&RawValue> {
        self.push(&Update::Warning { n: self.next(), text: one_line(text) }, None)
    }

    /// All that is kept.
    pub(super) fn items(&self) -> impl Iterator<Item = &RawValue> {
        self.items.iter().map(|item| &*item.json)
    }

    /// The number of the next item, from 1.
    fn next(&self) -> u64 {
        self.count + 1
    }

    fn push(&mut self, update: &Update<'_>, message: Option<Known>) -> Option<&RawValue> {
        // Text and numbers are always JSON.
        let json = to_raw_value(update).ok()?;
        self.count += 1;
        self.bytes += json.get().len();
        self.items.push_back(Item { n: self.count, json, message });
        while self.items.len() > ITEMS_MAX || (self.bytes > BYTES_MAX && self.items.len() > 1) {
            let oldest = self.items.pop_front()?;
            self.bytes -= oldest.json.get().len();
        }
        self.items.back().map(|item| &*item.json)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::{File, Mark};

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_100_000);

    fn shown(id: &str, nick: &str, body: &str) -> Shown {
        Shown {
            id: id.to_owned(),
            addr: Some("10.0.0.1:55555".to_owned()),
            nick: (!nick.is_empty()).then(|| nick.to_owned()),
            body: body.to_owned(),
            time: Timestamp::from_millis(1_700_000_000_000),
            file: None,
            part: None,
            key: None,
            mark: Mark::Verified,
        }
    }

    fn with_file(id: &str, nick: &str, name: &str) -> Shown {
        let file = File { name: name.to_owned(), mime_type: String::new(), contents: vec![0; 3].into() };
        Shown { file: Some(file), ..shown(id, nick, name) }
    }

    fn info(name: &str) -> FileInfo {
        FileInfo { id: "0a".to_owned(), name: name.to_owned(), bytes: 3, image: true }
    }

    fn value(json: Option<&RawValue>) -> Value {
        serde_json::from_str(json.unwrap().get()).unwrap()
    }

    #[test]
    fn a_message_is_told_with_all_that_is_shown_of_it() {
        let mut log = Log::default();
        assert_eq!(
            value(log.message(&shown("1", "goldy", "/me waves"), false)),
            json!({
                "is": "message", "n": 1, "name": "goldy", "named": true, "text": "waves", "me": true,
                "own": false, "mark": "verified", "time": 1_700_000_000_000_u64, "file": null,
            })
        );
        let unnamed = value(log.message(&with_file("2", "", "a.png"), true));
        assert_eq!(unnamed["name"], "10.0.0.1:55555");
        assert_eq!(unnamed["named"], false);
        assert_eq!(unnamed["own"], true);
        assert_eq!(unnamed["file"], json!({ "name": "a.png", "bytes": 3 }));
    }

    #[test]
    fn a_time_beyond_all_dates_is_still_one() {
        let late = Shown { time: Timestamp::from_millis(u64::MAX), ..shown("1", "goldy", "hi") };
        assert_eq!(value(Log::default().message(&late, false))["time"], 253_402_300_799_999_u64);
    }

    #[test]
    fn a_message_is_kept_once() {
        let mut log = Log::default();
        assert!(log.message(&shown("1", "goldy", "hi"), false).is_some());
        assert!(log.message(&shown("1", "goldy", "hi"), false).is_none());
        assert!(log.message(&shown("2", "goldy", "hi"), false).is_some());
        assert_eq!(log.items().count(), 2);
    }

    #[test]
    fn a_file_belongs_to_the_message_that_it_came_with_and_to_no_other() {
        let mut log = Log::default();
        log.message(&with_file("1", "goldy", "a.png"), false);
        log.message(&with_file("2", "bambam", "a.png"), false);
        log.message(&with_file("3", "goldy", "b.png"), false);
        log.message(&with_file("4", "goldy", "a.png"), true);
        let saved = value(log.saved(Some("goldy"), info("a.png"), NOW));
        assert_eq!((&saved["message"], &saved["name"]), (&json!(1), &json!("goldy")));
        assert_eq!(saved["file"], json!({ "id": "0a", "name": "a.png", "bytes": 3, "image": true }));
        let again = value(log.saved(Some("goldy"), info("a.png"), NOW));
        assert_eq!((&again["message"], &again["name"]), (&json!(null), &json!("goldy")));
        assert_eq!(again["time"], 1_700_000_100_000_u64);
    }

    #[test]
    fn a_file_of_somebody_without_a_nick_belongs_to_a_message_without_one() {
        let mut log = Log::default();
        log.message(&with_file("1", "", "a.png"), false);
        log.message(&with_file("2", "goldy", "a.png"), false);
        let saved = value(log.saved(None, info("a.png"), NOW));
        assert_eq!((&saved["message"], &saved["name"]), (&json!(1), &json!("10.0.0.1:55555")));
    }

    #[test]
    fn a_file_that_went_out_has_the_time_of_its_end() {
        let mut log = Log::default();
        assert_eq!(
            value(log.sent("a.bin", 5_000_000, NOW)),
            json!({ "is": "sent", "n": 1, "name": "a.bin", "bytes": 5_000_000, "time": 1_700_000_100_000_u64 })
        );
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_they_are_too_long() {
        let mut log = Log::default();
        for number in 0..ITEMS_MAX + 5 {
            log.message(&shown(&number.to_string(), "goldy", "hi"), false);
        }
        assert_eq!(log.items().count(), ITEMS_MAX);
        assert_eq!(value(log.items().next())["n"], 6);
        for number in 0..ITEMS_MAX {
            log.message(&shown(&format!("long {number}"), "goldy", &"x".repeat(1 << 20)), false);
        }
        assert!(log.bytes <= BYTES_MAX && log.items().count() > 10, "{} bytes", log.bytes);
        assert_eq!(log.bytes, log.items().map(|json| json.get().len()).sum::<usize>());
    }
}
