//! Registrations that are to outlive the server: over TCP they are answered when
//! they are kept.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::{Context, Waker};

use watchtower_hub::{Appended, Appends, ChannelName, Ends, Ledger, NotKept, NotRead, ReadLimit, WasRead};

use super::*;

/// A disk for what becomes of senders, which works when it is told to.
#[derive(Default)]
struct Disk(Mutex<VecDeque<Appended>>);

impl Ledger for Disk {
    fn append(&self, _: Appends, _: Appended) -> Result<(), NotKept> {
        Err(NotKept::Closed)
    }

    fn read(&self, _: &ChannelName, _: u64, _: ReadLimit, _: WasRead) -> Result<(), NotRead> {
        Err(NotRead::NoLog)
    }

    fn ends(&self, _: &ChannelName) -> Option<Ends> {
        None
    }

    fn channels(&self, _: Option<&ChannelName>, _: usize) -> Vec<(ChannelName, Ends)> {
        Vec::new()
    }

    fn logs(&self) -> usize {
        0
    }

    fn when_kept(&self, done: Appended) {
        self.0.lock().unwrap().push_back(done);
    }
}

impl Disk {
    fn works(&self, result: Result<(), NotKept>) {
        let done = self.0.lock().unwrap().pop_front().expect("somebody waits");
        done(result);
    }
}

fn tower_with_disk() -> (Tower, Arc<Disk>) {
    let disk = Arc::new(Disk::default());
    let entropy = Box::new(Counting(AtomicU64::new(5)));
    let hub = Hub::with_ledger(Settings::default(), entropy, disk.clone());
    (Tower { hub, ..Tower::new() }, disk)
}

/// What the client reads once something was kept.
fn answered(client: &mut Stream) -> Vec<u8> {
    let mut out = Vec::new();
    let answered = client.session.poll_answered(&mut Context::from_waker(Waker::noop()), NOW, &mut out);
    assert_eq!(answered.is_pending(), client.session.is_waiting());
    out.extend(client.send(b""));
    out
}

#[test]
fn a_registration_is_answered_when_it_is_kept_and_what_follows_waits_for_that() {
    let (tower, disk) = tower_with_disk();
    let mut client = tower.stream();
    assert_eq!(client.send(&[&b"R"[..], &join(5, 1), b"RK"].concat()), b"");
    assert!(client.session.is_waiting());
    assert_eq!(answered(&mut client), b"", "not yet");
    disk.works(Ok(()));
    assert_eq!(answered(&mut client), [ack(5), ack(1)].concat());
    disk.works(Ok(()));
    // The channel's epoch took a number.
    assert_eq!(answered(&mut client), [ack(7), ack(0)].concat());
    assert!(!client.session.is_waiting());
}

#[test]
fn a_registration_that_is_not_kept_is_refused_and_undone() {
    let (tower, disk) = tower_with_disk();
    let mut client = tower.stream();
    assert_eq!(client.send(b"R"), b"");
    disk.works(Err(NotKept::Failed("the disk is gone".into())));
    let refused = error(8, "the registration was not kept: try again");
    assert_eq!(answered(&mut client), refused);
    assert_eq!(tower.hub.counts().senders, 0);
    assert_eq!(client.send(&join(5, 1)), error(2, "unknown sender"));
}
