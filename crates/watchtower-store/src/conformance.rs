//! What every [`Store`] must do, as tests: the promises of the trait, one after
//! the other.
//!
//! An implementation says how it is opened, and [`conformance!`](crate::conformance!)
//! makes a test of each function here:
//!
//! ```
//! use watchtower_store::conformance::Subject;
//! use watchtower_store::{MemoryStore, Store};
//!
//! struct Memory(MemoryStore);
//!
//! impl Subject for Memory {
//!     fn open(&mut self) -> Box<dyn Store> {
//!         self.0 = self.0.reopened();
//!         Box::new(self.0.clone())
//!     }
//! }
//!
//! watchtower_store::conformance!(Memory(MemoryStore::new()));
//! ```

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use watchtower_hub::{Audience, ChannelName, Content, Epoch, Message, Position, SenderId, Timestamp};

use crate::{
    Callback, Change, Ends, Keeper, Key, Kind, ReadError, ReadLimit, Record, Refused, Retention, Store,
    Ticket,
};

/// One store that can be opened several times, one time after the other.
pub trait Subject {
    /// Opens it: an empty one at first, then with all that it kept. What was
    /// opened before was dropped.
    fn open(&mut self) -> Box<dyn Store>;
}

/// Makes a test of each function in [`conformance`](mod@crate::conformance), for the
/// [`Subject`] that the expression makes anew for each.
#[macro_export]
macro_rules! conformance {
    ($subject:expr) => {
        $crate::conformance!($subject;
            messages_are_read_as_they_were_appended
            a_log_is_read_from_anywhere_both_ways_and_in_pieces
            only_the_next_message_is_appended
            changes_that_are_refused_have_no_effect_and_those_behind_them_do
            offsets_that_are_skipped_are_read_as_lost_and_not_given_again
            a_log_that_begins_anew_has_nothing_of_the_one_before
            a_forgotten_log_is_gone
            trimming_drops_the_beginning_and_offsets_go_on
            channels_are_listed_in_order_and_in_pieces
            records_are_kept_replaced_listed_and_deleted
            what_is_kept_is_there_when_it_is_opened_again
            answers_come_in_order_and_what_was_answered_is_there
            publishers_do_not_disturb_each_other
            a_closed_store_refuses_and_answers_what_came_before
            retention_keeps_the_newest_by_count_bytes_and_age
            a_clock_that_jumps_forward_drops_nothing
        );
    };
    ($subject:expr; $($name:ident)*) => {$(
        #[test]
        fn $name() {
            let mut subject = $subject;
            $crate::conformance::$name(&mut subject);
        }
    )*};
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a name")
}

fn epoch(number: u64) -> Epoch {
    Epoch::from_bits(number)
}

fn sender(number: u32) -> SenderId {
    SenderId::new(number).expect("not 0")
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Message `offset` of a log: its content says so, its time is a second a message.
fn message(name: &str, epoch_number: u64, offset: u64) -> Message {
    let position = Position { epoch: epoch(epoch_number), offset };
    let content = Content::text(format!("{name} {offset:04}"));
    Message::detached(channel(name), position, Some(sender(7)), content, at(offset * 1000))
}

fn begin(name: &str, epoch_number: u64) -> Change {
    Change::Begin { channel: channel(name), epoch: epoch(epoch_number) }
}

/// A log of that many messages.
fn fill(store: &dyn Store, name: &str, epoch_number: u64, messages: u64) {
    let log = (1..=messages).map(|offset| Change::Append(message(name, epoch_number, offset)));
    store.commit([begin(name, epoch_number)].into_iter().chain(log).collect()).wait().expect("it is kept");
}

fn offsets(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.position().offset).collect()
}

/// The offsets of all messages of a channel; each message is checked.
fn all(store: &dyn Store, name: &str) -> Vec<u64> {
    let page = store.read(&channel(name), 0, ReadLimit::messages(100_000)).expect("there is a log");
    assert_eq!(page.lost, [], "{name}");
    for message in &page.messages {
        let expected = format!("{name} {:04}", message.position().offset);
        assert_eq!(message.content().as_text(), Some(&expected[..]));
        assert_eq!(message.position().epoch, page.epoch);
    }
    offsets(&page.messages)
}

fn ends(store: &dyn Store, name: &str) -> Option<(u64, u64)> {
    store.ends(&channel(name)).map(|ends| (ends.first, ends.next))
}

/// Looks at a store, and again when it was opened anew.
fn now_and_later(subject: &mut dyn Subject, store: Box<dyn Store>, check: impl Fn(&dyn Store)) {
    check(&*store);
    drop(store);
    check(&*subject.open());
}

/// Everything about a message comes back as it was.
pub fn messages_are_read_as_they_were_appended(subject: &mut dyn Subject) {
    let store = subject.open();
    let position = |offset| Position { epoch: epoch(u64::MAX), offset };
    let name = channel("orders/é 7");
    let contents = [
        Content::text(""),
        Content::binary(&b"\0\xff"[..]),
        Content::json("{\"a\" : 1}".to_owned()).expect("JSON"),
    ];
    let plain = contents.into_iter().zip(1..).map(|(content, offset)| {
        Message::detached(name.clone(), position(offset), None, content, at(u64::MAX / 2))
    });
    let full =
        Message::detached(name.clone(), position(4), Some(sender(u32::MAX)), Content::text("x"), at(0))
            .with_event("")
            .with_extras(Bytes::from_static(b"extras"))
            .with_receivers([sender(1), sender(2)]);
    let nobody =
        Message::detached(name.clone(), position(5), None, Content::text("x".repeat(100_000)), at(0))
            .with_receivers([]);
    let messages: Vec<_> = plain.chain([full, nobody]).collect();
    let begin = Change::Begin { channel: name.clone(), epoch: epoch(u64::MAX) };
    let appended = messages.iter().map(|message| Change::Append(message.detached_copy()));
    store.commit([begin].into_iter().chain(appended).collect()).wait().expect("it is kept");
    let page = store.read(&name, 1, ReadLimit::messages(10)).expect("there is a log");
    let shown = |message: &Message| {
        let content = message.content().clone();
        let beside =
            (message.event().map(str::to_owned), message.extras().cloned(), message.audience().clone());
        (message.channel().clone(), message.position(), message.sender(), content, beside, message.time())
    };
    assert_eq!(
        page.messages.iter().map(shown).collect::<Vec<_>>(),
        messages.iter().map(shown).collect::<Vec<_>>()
    );
    assert!(matches!(page.messages[0].audience(), Audience::Channel));
    assert_eq!((page.next, page.epoch), (6, epoch(u64::MAX)));
}

/// Reading by offset and limit.
pub fn a_log_is_read_from_anywhere_both_ways_and_in_pieces(subject: &mut dyn Subject) {
    let store = subject.open();
    fill(&*store, "a", 1, 10);
    let a = channel("a");
    let limit = ReadLimit::messages;
    let check = |from, messages, expected: &[u64], next| {
        let page = store.read(&a, from, limit(messages)).expect("there is a log");
        assert_eq!((&offsets(&page.messages)[..], page.next), (expected, next), "from {from}");
    };
    check(0, 3, &[1, 2, 3], 4);
    check(4, 3, &[4, 5, 6], 7);
    check(9, 3, &[9, 10], 11);
    check(11, 3, &[], 11);
    check(u64::MAX, 3, &[], 11);
    check(5, 0, &[], 5);
    let check_before = |before, messages, expected: &[u64]| {
        let page = store.read_before(&a, before, limit(messages)).expect("there is a log");
        assert_eq!(offsets(&page.messages), expected, "before {before}");
    };
    check_before(u64::MAX, 3, &[8, 9, 10]);
    check_before(8, 3, &[5, 6, 7]);
    check_before(2, 3, &[1]);
    check_before(1, 3, &[]);
    // Each has 6 bytes: two fit into 15, and one is read whatever its length.
    let bytes = |bytes| {
        let page = store.read(&a, 4, ReadLimit { messages: 10, bytes }).expect("there is a log");
        (offsets(&page.messages), page.next)
    };
    assert_eq!(bytes(15), (vec![4, 5], 6));
    assert_eq!(bytes(1), (vec![4], 5));
    assert!(matches!(store.read(&channel("b"), 1, limit(1)), Err(ReadError::NoLog { .. })));
}

/// No gap, no repetition, no other epoch.
pub fn only_the_next_message_is_appended(subject: &mut dyn Subject) {
    let store = subject.open();
    let append = |epoch, offset| store.commit(vec![Change::Append(message("a", epoch, offset))]).wait();
    let next = |result| match result {
        Err(Refused::NotNext { next, .. }) => next.map(|next| next.offset),
        other => panic!("{other:?}"),
    };
    assert_eq!(next(append(1, 1)), None);
    fill(&*store, "a", 1, 2);
    assert_eq!(next(append(1, 2)), Some(3));
    assert_eq!(next(append(1, 4)), Some(3));
    assert_eq!(next(append(2, 3)), Some(3));
    append(1, 3).expect("it is the next");
    assert_eq!(all(&*store, "a"), [1, 2, 3]);
}

/// All or nothing, and others are not concerned.
pub fn changes_that_are_refused_have_no_effect_and_those_behind_them_do(subject: &mut dyn Subject) {
    let store = subject.open();
    fill(&*store, "a", 1, 1);
    let value = |name: &str| Record::Value { name: name.into(), bytes: Bytes::from_static(b"v") };
    let refused = store.commit(vec![
        Change::Append(message("a", 1, 2)),
        begin("b", 1),
        Change::Put(value("k")),
        Change::Append(message("b", 1, 2)),
    ]);
    let taken = store.commit(vec![Change::Append(message("a", 1, 2)), Change::Put(value("l"))]);
    let skipping = store.commit(vec![Change::Append(message("a", 1, 4))]);
    let next = store.commit(vec![Change::Append(message("a", 1, 3))]);
    assert!(matches!(refused.wait(), Err(Refused::NotNext { .. })));
    taken.wait().expect("it is the next");
    assert!(matches!(skipping.wait(), Err(Refused::NotNext { .. })));
    next.wait().expect("it is the next");
    now_and_later(subject, store, |store| {
        assert_eq!(all(store, "a"), [1, 2, 3]);
        assert_eq!(ends(store, "b"), None);
        assert_eq!(store.record(&Key::Value("k".into())), None);
        assert_eq!(store.record(&Key::Value("l".into())), Some(value("l")));
    });
}

/// A log that is brought from elsewhere, and has a hole there.
pub fn offsets_that_are_skipped_are_read_as_lost_and_not_given_again(subject: &mut dyn Subject) {
    let store = subject.open();
    let skip = |next| Change::Skip { channel: channel("a"), next };
    assert!(matches!(store.commit(vec![skip(4)]).wait(), Err(Refused::NotNext { next: None, .. })));
    let append = |offset| Change::Append(message("a", 1, offset));
    let changes = vec![begin("a", 1), skip(4), append(4), skip(7), append(7), skip(2), skip(9)];
    store.commit(changes).wait().expect("each is the next");
    now_and_later(subject, store, |store| {
        assert_eq!(ends(store, "a"), Some((4, 9)));
        let page = store.read(&channel("a"), 0, ReadLimit::messages(10)).expect("there is a log");
        assert_eq!((offsets(&page.messages), page.lost, page.next), (vec![4, 7], vec![5..7, 8..9], 9));
        let lost = [0, 5, 6, 7, 8, 9].map(|from| store.lost(&channel("a"), from));
        assert_eq!(lost, [Some(5..7), Some(5..7), Some(6..7), Some(8..9), Some(8..9), None]);
        let page = store.read(&channel("a"), 6, ReadLimit::messages(1)).expect("there is a log");
        assert_eq!((offsets(&page.messages), page.lost.first(), page.next), (vec![7], Some(&(6..7)), 8));
    });
}

/// Epochs do not mix.
pub fn a_log_that_begins_anew_has_nothing_of_the_one_before(subject: &mut dyn Subject) {
    let store = subject.open();
    fill(&*store, "a", 1, 5);
    store.commit(vec![begin("a", 1)]).wait().expect("it is there");
    assert_eq!(ends(&*store, "a"), Some((1, 6)), "the same epoch goes on");
    fill(&*store, "a", 2, 2);
    now_and_later(subject, store, |store| {
        let ends = store.ends(&channel("a")).expect("there is a log");
        let expected = Ends { epoch: epoch(2), first: 1, next: 3, bytes: 12, oldest: Some(at(1000)) };
        assert_eq!(ends, expected);
        assert_eq!(all(store, "a"), [1, 2]);
        assert_eq!(store.lost(&channel("a"), 0), None);
    });
}

/// A channel that ended leaves nothing.
pub fn a_forgotten_log_is_gone(subject: &mut dyn Subject) {
    let store = subject.open();
    fill(&*store, "a", 1, 5);
    store.commit(vec![Change::Forget { channel: channel("a") }]).wait().expect("it is there");
    store.commit(vec![Change::Forget { channel: channel("b") }]).wait().expect("it need not be there");
    now_and_later(subject, store, |store| {
        assert_eq!(ends(store, "a"), None);
        assert_eq!(store.channels(None, 10), []);
    });
    let store = subject.open();
    fill(&*store, "a", 2, 1);
    assert_eq!(all(&*store, "a"), [1]);
}

/// Trimming.
pub fn trimming_drops_the_beginning_and_offsets_go_on(subject: &mut dyn Subject) {
    let store = subject.open();
    fill(&*store, "a", 1, 10);
    let trim = |epoch_number, first| {
        let (ticket, done) = Ticket::new();
        store.trim(&channel("a"), epoch(epoch_number), first, done).expect("there is a log");
        ticket.wait().expect("it is kept");
        let ends = store.ends(&channel("a")).expect("there is a log");
        (ends.first, ends.next, ends.bytes, ends.oldest)
    };
    assert_eq!(trim(1, 4), (4, 11, 42, Some(at(4000))));
    assert_eq!(trim(1, 2), (4, 11, 42, Some(at(4000))), "it is gone already");
    assert_eq!(trim(2, 6), (4, 11, 42, Some(at(4000))), "of another epoch");
    assert_eq!(all(&*store, "a"), [4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(trim(1, 100), (11, 11, 0, None));
    assert_eq!(all(&*store, "a"), [0; 0]);
    drop(store);
    let store = subject.open();
    assert_eq!(ends(&*store, "a"), Some((11, 11)));
    store.commit(vec![Change::Append(message("a", 1, 11))]).wait().expect("it is the next");
    assert_eq!(all(&*store, "a"), [11]);
    let (_, done) = Ticket::new();
    assert!(matches!(store.trim(&channel("b"), epoch(1), 1, done), Err(ReadError::NoLog { .. })));
}

/// Listing channels.
pub fn channels_are_listed_in_order_and_in_pieces(subject: &mut dyn Subject) {
    let store = subject.open();
    for name in ["b", "10", "9", "a"] {
        fill(&*store, name, 1, 2);
    }
    let names = |after: Option<&str>, limit| {
        let channels = store.channels(after.map(channel).as_ref(), limit);
        assert!(channels.iter().all(|(_, ends)| ends.messages() == 2));
        channels.into_iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(None, 100), ["9", "10", "a", "b"]);
    assert_eq!(names(None, 2), ["9", "10"]);
    assert_eq!(names(Some("10"), 2), ["a", "b"]);
    assert_eq!(names(Some("aa"), 2), ["b"]);
    assert_eq!(names(Some("b"), 2), [""; 0]);
}

/// Records of each kind.
pub fn records_are_kept_replaced_listed_and_deleted(subject: &mut dyn Subject) {
    let store = subject.open();
    let position = Position { epoch: epoch(3), offset: 4 };
    let callback = Callback {
        id: [9; 16],
        sender: sender(5),
        url: "http://example.org/".into(),
        channels: vec![(channel("a"), position), (channel("5"), position)],
    };
    let records = [
        Record::Sender { id: sender(5), last_active: at(10) },
        Record::Sender { id: sender(6), last_active: at(20) },
        Record::Join { sender: sender(5), channel: channel("a"), since: at(1), standing: true },
        Record::Join { sender: sender(5), channel: channel("5"), since: at(2), standing: false },
        Record::Callback(callback),
        Record::Value { name: "secret".into(), bytes: Bytes::from_static(b"\0s") },
        Record::Value { name: "".into(), bytes: Bytes::new() },
    ];
    store.commit(records.iter().cloned().map(Change::Put).collect()).wait().expect("it is kept");
    let later = Record::Sender { id: sender(5), last_active: at(30) };
    store
        .commit(vec![Change::Put(later.clone()), Change::Delete(Key::Sender(sender(6)))])
        .wait()
        .expect("kept");
    store.commit(vec![Change::Delete(Key::Value("other".into()))]).wait().expect("it need not be there");
    now_and_later(subject, store, |store| {
        let kept = |kind| store.records(kind, None, 100);
        assert_eq!(kept(Kind::Sender), std::slice::from_ref(&later));
        assert_eq!(kept(Kind::Join), [records[3].clone(), records[2].clone()]);
        assert_eq!(kept(Kind::Callback), [records[4].clone()]);
        assert_eq!(kept(Kind::Value), [records[6].clone(), records[5].clone()]);
        assert_eq!(store.records(Kind::Join, Some(&records[3].key()), 1), [records[2].clone()]);
        assert_eq!(store.records(Kind::Join, Some(&Key::Sender(sender(9))), 1), [records[3].clone()]);
        assert_eq!(store.record(&records[5].key()), Some(records[5].clone()));
        assert_eq!(store.record(&Key::Sender(sender(6))), None);
        assert!(!format!("{:?}", records[5]).contains("\\0s"), "no secret is shown");
    });
}

/// Opening again, several times.
pub fn what_is_kept_is_there_when_it_is_opened_again(subject: &mut dyn Subject) {
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..5u64 {
        let store = subject.open();
        for (name, last) in &expected {
            assert_eq!(ends(&*store, name), Some((1, last + 1)), "{name} in round {round}");
            assert_eq!(all(&*store, name), (1..=*last).collect::<Vec<_>>());
        }
        for number in 0..=round * 3 {
            let name = format!("c{number}");
            let last = expected.entry(name.clone()).or_insert(0);
            let append = (*last + 1..=*last + 3).map(|offset| Change::Append(message(&name, number, offset)));
            let changes = [begin(&name, number)].into_iter().chain(append);
            store.commit(changes.collect()).wait().expect("it is kept");
            *last += 3;
        }
    }
}

/// The order of answers, and that they are true when they come.
pub fn answers_come_in_order_and_what_was_answered_is_there(subject: &mut dyn Subject) {
    let store = subject.open();
    fill(&*store, "a", 1, 0);
    let (answered, answers) = mpsc::channel();
    for offset in 1..=200u64 {
        let answered = answered.clone();
        let done =
            move |result: Result<(), Refused>| answered.send((offset, result.is_ok())).expect("it listens");
        // Every tenth is refused, in its place.
        let position = if offset % 10 == 0 { 1_000 } else { offset - offset / 10 };
        store.submit(vec![Change::Append(message("a", 1, position))], Box::new(done));
    }
    for expected in 1..=200u64 {
        let (offset, is_ok) = answers.recv_timeout(Duration::from_secs(60)).expect("it is answered");
        assert_eq!((offset, is_ok), (expected, expected % 10 != 0));
        if is_ok {
            let kept = store.ends(&channel("a")).expect("there is a log").next;
            assert!(kept > offset - offset / 10, "{offset} was answered, {kept} is next");
        }
    }
    assert_eq!(all(&*store, "a").len(), 180);
}

/// Many threads at once, with readers among them.
pub fn publishers_do_not_disturb_each_other(subject: &mut dyn Subject) {
    let store = subject.open();
    let (threads, messages) = (8, 50);
    thread::scope(|scope| {
        for number in 0..threads {
            let store = &*store;
            scope.spawn(move || {
                let name = format!("c{number}");
                fill(store, &name, number, 0);
                for offset in 1..=messages {
                    let append = Change::Append(message(&name, number, offset));
                    store.commit(vec![append]).wait().expect("it is kept");
                    let page = store.read(&channel(&name), offset, ReadLimit::messages(1)).expect("a log");
                    assert_eq!(offsets(&page.messages), [offset]);
                }
            });
        }
    });
    drop(store);
    let store = subject.open();
    for number in 0..threads {
        assert_eq!(all(&*store, &format!("c{number}")), (1..=messages).collect::<Vec<_>>());
    }
}

/// The end.
pub fn a_closed_store_refuses_and_answers_what_came_before(subject: &mut dyn Subject) {
    let store = subject.open();
    fill(&*store, "a", 1, 0);
    let tickets: Vec<_> =
        (1..=20).map(|offset| store.commit(vec![Change::Append(message("a", 1, offset))])).collect();
    store.close();
    for ticket in tickets {
        ticket.wait().expect("it came before");
    }
    let late = store.commit(vec![Change::Append(message("a", 1, 21))]);
    assert!(matches!(late.wait(), Err(Refused::Closed)));
    store.close();
    drop(store);
    assert_eq!(all(&*subject.open(), "a").len(), 20);
}

/// All of a keeper's steps, once around.
fn keep(store: &dyn Store, keeper: &mut Keeper, rule: impl Fn(&ChannelName) -> Retention, now: Timestamp) {
    let elapsed = Duration::from_secs(10_000);
    while !keeper.step(store, &rule, now, elapsed).expect("it can be read and dropped") {}
}

/// Retention by each rule, and by the rule of each channel.
pub fn retention_keeps_the_newest_by_count_bytes_and_age(subject: &mut dyn Subject) {
    let store = subject.open();
    // More channels than one step looks at.
    for number in 0..300 {
        fill(&*store, &format!("other{number}"), 1, 1);
    }
    for name in ["all", "count", "bytes", "age", "each", "none"] {
        fill(&*store, name, 1, 600);
    }
    let rule = |channel: &ChannelName| match channel.text() {
        Some("count") => Retention { messages: 5, ..Retention::ALL },
        // A message has ten bytes there, and nine in "each".
        Some("bytes") => Retention { bytes: 100, ..Retention::ALL },
        Some("age") => Retention { age: Duration::from_secs(100), ..Retention::ALL },
        Some("each") => Retention { messages: 50, bytes: 230, age: Duration::from_secs(40) },
        Some("none") => Retention { messages: 0, ..Retention::ALL },
        _ => Retention::ALL,
    };
    keep(&*store, &mut Keeper::new(at(0)), rule, at(600_000));
    now_and_later(subject, store, |store| {
        let kept = |name| ends(store, name).map(|(first, next)| (first, next - first));
        assert_eq!(kept("all"), Some((1, 600)));
        assert_eq!(kept("count"), Some((596, 5)));
        assert_eq!(kept("bytes"), Some((591, 10)));
        assert_eq!(kept("age"), Some((501, 100)));
        assert_eq!(kept("each"), Some((576, 25)));
        assert_eq!(kept("none"), Some((601, 0)));
        assert_eq!(kept("other7"), Some((1, 1)));
        assert_eq!(store.ends(&channel("count")).and_then(|ends| ends.oldest), Some(at(596_000)));
        assert_eq!(all(store, "age"), (501..=600).collect::<Vec<_>>());
    });
}

/// Clocks that jump, either way.
pub fn a_clock_that_jumps_forward_drops_nothing(subject: &mut dyn Subject) {
    let store = subject.open();
    fill(&*store, "a", 1, 10);
    let rule = |_: &ChannelName| Retention { age: Duration::from_secs(60), ..Retention::ALL };
    let mut keeper = Keeper::new(at(10_000));
    let mut step = |now, elapsed| {
        keeper.step(&*store, rule, now, Duration::from_secs(elapsed)).expect("it can be read");
        ends(&*store, "a").map(|(first, _)| first)
    };
    assert_eq!(step(at(1_000_000_000_000), 1), Some(1), "a jump of 31 years in a second");
    assert_eq!(step(at(0), 2), Some(1), "and back to the beginning");
    assert_eq!(step(at(1_000_000_000_000), 53), Some(4), "what has passed counts");
}
