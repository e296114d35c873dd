//! What is answered when on durable channels: in the order of the commands, and once it is known.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use watchtower_hub::NotKept;

use super::*;
use crate::shelf::Shelf;

const NOT_KEPT: &str = r#"{"err": "not_kept"}"#;

fn core_kept_by(shelf: &Shelf) -> Hub {
    let rule = ChannelRule { durable: true, ..ChannelRule::default() };
    let settings = Settings { channels: vec![rule], ..Settings::default() };
    Hub::with_ledger(settings, Box::new(Counting(AtomicU64::new(5))), Arc::new(shelf.clone()))
}

fn say(data: &str) -> String {
    SAY.replace("\"x\"", &format!("\"{data}\""))
}

fn said(data: &str) -> String {
    SAID.replace("\"x\"", &format!("\"{data}\""))
}

impl Page {
    /// What it reads once this much was kept or refused.
    fn answers(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        let cx = &mut Context::from_waker(Waker::noop());
        let _: Poll<()> = self.socket.poll_answered(cx, NOW, &mut out);
        let mut received = messages(&out);
        received.extend(self.read());
        received
    }
}

#[test]
fn publications_are_answered_once_they_are_kept_and_need_not_wait_for_one_another() {
    let shelf = Shelf::default();
    let mut page = Page::open(&core_kept_by(&shelf), options()).after(&[WRITE, HELLO]);
    for data in ["1", "2", "3"] {
        assert_eq!(page.send(&say(data)), [""; 0]);
    }
    assert_eq!(shelf.waiting(), 3);
    shelf.keep();
    assert_eq!(page.answers(), [OK, &said("1")]);
    shelf.refuse(NotKept::Failed("the disk is full".into()));
    shelf.keep();
    assert_eq!(page.answers(), [NOT_KEPT, NOT_KEPT]);
    assert_eq!(page.send(&say("4")), [""; 0]);
    shelf.keep();
    assert_eq!(page.answers(), [OK, &said("4")]);
}

#[test]
fn what_is_no_publication_is_carried_out_and_answered_after_those_before_it() {
    let shelf = Shelf::default();
    let mut page = Page::open(&core_kept_by(&shelf), options()).after(&[WRITE, HELLO]);
    assert_eq!(page.send(&say("1")), [""; 0]);
    assert_eq!(page.send(r#"{"logout": true}"#), [""; 0]);
    assert!(page.socket.is_waiting());
    shelf.keep();
    // It is logged out after that, and hears what was published before.
    assert_eq!(page.answers(), [OK, &said("1"), OK]);
    assert!(!page.socket.is_waiting());
    assert_eq!(page.send(&say("2")), [ACCESS_DENIED]);
}

#[test]
fn a_publication_that_is_wrong_waits_for_its_turn_too() {
    let shelf = Shelf::default();
    let mut page = Page::open(&core_kept_by(&shelf), options()).after(&[WRITE, HELLO]);
    assert_eq!(page.send(&say("1")), [""; 0]);
    assert_eq!(page.send(r#"{"publish": {"event": "foo", "channel": "nobody's", "data": 1}}"#), [""; 0]);
    shelf.keep();
    let mut answers = page.answers();
    answers.retain(|answer| *answer != said("1"));
    assert_eq!(answers, [OK, INVALID_CHANNEL]);
}

#[test]
fn who_disconnects_is_told_first_what_was_kept() {
    let shelf = Shelf::default();
    let mut page = Page::open(&core_kept_by(&shelf), options()).after(&[WRITE, HELLO]);
    assert_eq!(page.send(&say("1")), [""; 0]);
    assert_eq!(page.send(r#"{"disconnect": true}"#), [""; 0]);
    shelf.keep();
    let mut out = Vec::new();
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(page.socket.poll_answered(cx, NOW, &mut out).is_ready());
    assert!(page.socket.poll_close(cx, &mut out).is_ready());
    let out = String::from_utf8_lossy(&out);
    let places: Vec<_> = [OK, &said("1")].iter().map(|text| out.find(*text).expect("it is said")).collect();
    assert!(places[0] < places[1] && out.matches(OK).count() == 2, "{out}");
}
