//! What of senders and their joins outlives the process: noting it, and taking
//! it up again; and clocks that jump.
//!
//! Knows no disk: that is the ledger's. Senders of sessions that register for
//! themselves alone are never noted.

use std::sync::Arc;
use std::time::Duration;

use crate::agenda::Item;
use crate::channel::{Keep, Share, State};
use crate::inner::Inner;
use crate::ledger::{KeptJoin, KeptSender, Note};
use crate::senders::{self, Sender};
use crate::settings::SESSION_LAG_FACTOR;
use crate::{ChannelName, Refused, SenderId, Settings, Timestamp};

/// What presence calls a sender that has not come back since the restart.
const PROTOCOL: &str = "kept";

/// Into how many parts `sender_ttl` falls after which a sender is looked at:
/// whether a session holds it is noted so often.
const LOOKS: u32 = 8;

/// After a restart, nothing expires for this part of `sender_ttl`, an hour and a
/// half of 30 days: a clock that is wrong until the network is there must not
/// cost a registration.
const GRACE: u32 = 500;

impl Inner {
    /// Notes that the sender lives.
    pub(crate) fn touch(&self, sender: &Sender, now: Timestamp) {
        if sender.touch(now) {
            self.note_activity(sender);
        }
    }

    /// Has a sender's last activity kept.
    pub(crate) fn note_activity(&self, sender: &Sender) {
        self.note_registered(sender, &sender.lock());
    }

    /// As [`note_activity`](Self::note_activity), under the sender's lock: one
    /// that was forgotten meanwhile is not noted any more.
    pub(crate) fn note_registered(&self, sender: &Sender, state: &senders::State) {
        if !state.expired {
            let last_active = sender.last_active();
            self.note(sender, || Note::Registered { sender: sender.id, last_active });
        }
    }

    /// Notes under its lock that a sender is in a channel, if it stands there or
    /// is `owned`: what is for a stream alone ends with it.
    pub(crate) fn note_join(&self, sender: &Sender, name: &ChannelName, state: &State, owned: bool) {
        if let Some((since, standing)) = state.stay(sender.id).filter(|(_, standing)| *standing || owned) {
            let join = || KeptJoin { channel: name.clone(), since, standing };
            self.note(sender, || Note::Joined(sender.id, join()));
        }
    }

    /// Notes under its lock that a sender is in a channel no longer.
    pub(crate) fn note_left(&self, sender: &Sender, channel: &ChannelName) {
        self.note(sender, || Note::Left(sender.id, channel.clone()));
    }

    pub(crate) fn note_forgotten(&self, sender: &Sender) {
        self.note(sender, || Note::Forgotten(sender.id));
    }

    fn note(&self, sender: &Sender, note: impl FnOnce() -> Note) {
        if let Some(ledger) = self.ledger.as_ref().filter(|_| sender.is_kept) {
            ledger.note(note());
        }
    }

    /// See [`Hub::restore`](crate::Hub::restore).
    pub(crate) fn restore(&self, kept: &KeptSender, now: Timestamp) -> Result<(), Refused> {
        let settings = self.settings.load();
        let sender = Arc::new(Sender::new(kept.id, kept.last_active, true));
        if self.senders.pin().try_insert(kept.id, sender.clone()).is_err() {
            return Ok(());
        }
        let mut state = sender.lock();
        let grace = now.after(settings.sender_ttl / GRACE);
        let first_look = kept.last_active.after(settings.sender_ttl).max(grace);
        self.watch_activity(kept.id, &mut state, first_look, now, &settings);
        let owned = kept.joins.iter().filter(|join| !join.standing).count();
        let until = now.after(settings.session_ttl);
        let keep = Keep { until, share: Share::among(owned, SESSION_LAG_FACTOR) };
        let mut result = Ok(());
        for join in &kept.joins {
            if let Err(refused) = self.restore_join(&sender, &mut state, join, keep, &settings) {
                result = Err(refused);
            }
        }
        if owned > 0 {
            self.watch_away(kept.id, &mut state, until);
        }
        result
    }

    fn restore_join(
        &self,
        sender: &Sender,
        sender_state: &mut senders::State,
        join: &KeptJoin,
        keep: Keep,
        settings: &Settings,
    ) -> Result<(), Refused> {
        let channel = self.channel(&join.channel, settings)?;
        let mut state = channel.lock();
        state.member(sender.id, PROTOCOL, join.since).standing = join.standing;
        if !join.standing {
            let end = state.end().clone();
            state.put_away(sender.id, true, &end, keep);
        }
        sender_state.joins.insert(join.channel.clone(), channel.clone());
        Ok(())
    }

    /// Sees to it that a sender is looked at when it may have been silent for too
    /// long, and often enough before that.
    pub(crate) fn watch_activity(
        &self,
        id: SenderId,
        state: &mut senders::State,
        due: Timestamp,
        now: Timestamp,
        settings: &Settings,
    ) {
        let at = due.min(now.after(settings.sender_ttl / LOOKS));
        state.expiry_due = Some(self.agenda.add(at, Item::Sender(id)));
    }

    /// See [`Hub::clock_jumped`](crate::Hub::clock_jumped).
    pub(crate) fn clock_jumped(&self, from: Timestamp, to: Timestamp) {
        let settings = self.settings.load();
        for sender in self.senders.pin().values() {
            let mut state = sender.lock();
            if state.expired {
                continue;
            }
            if sender.move_with_clock(from, to) {
                self.note_registered(sender, &state);
            }
            if let Some(due) = state.expiry_due.take() {
                self.agenda.cancel(due);
            }
            let due = sender.last_active().after(settings.sender_ttl).max(to.after(Duration::from_secs(1)));
            self.watch_activity(sender.id, &mut state, due, to, &settings);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{
        Appended, Appends, Content, Ends, Entropy, Hub, Ledger, NotKept, NotRead, Publish, ReadLimit,
        Session, WasRead, WhenLagging,
    };

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    struct Counting(AtomicU64);

    impl Entropy for Counting {
        fn next_u64(&self) -> u64 {
            self.0.fetch_add(1, Ordering::Relaxed)
        }
    }

    /// Keeps no messages, and remembers what was noted.
    #[derive(Default)]
    struct Noted(Mutex<Vec<Note>>);

    impl Ledger for Noted {
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
        fn note(&self, note: Note) {
            self.0.lock().unwrap().push(note);
        }
    }

    fn hub() -> (Hub, Arc<Noted>) {
        let noted = Arc::new(Noted::default());
        let entropy = Box::new(Counting(AtomicU64::new(1)));
        let hub = Hub::with_ledger(Settings::default(), entropy, noted.clone());
        hub.tick(NOW);
        (hub, noted)
    }

    impl Noted {
        fn take(&self) -> Vec<Note> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    fn name(text: &str) -> ChannelName {
        ChannelName::parse(text).unwrap()
    }

    fn joined(sender: SenderId, channel: &str, standing: bool) -> Note {
        Note::Joined(sender, KeptJoin { channel: name(channel), since: NOW, standing })
    }

    fn open(hub: &Hub) -> Session {
        hub.open("test", WhenLagging::Close)
    }

    #[test]
    fn what_becomes_of_a_sender_is_noted_in_its_order() {
        let (hub, noted) = hub();
        let session = open(&hub);
        let id = session.register(NOW).unwrap();
        session.join(id, &name("owned"), NOW).unwrap();
        hub.join(id, &[name("standing"), name("owned")], NOW).unwrap();
        session.subscribe(id, &name("stream"), crate::Start::End, NOW).unwrap();
        hub.leave(id, &name("owned"), NOW).unwrap();
        hub.unregister(id, NOW).unwrap();
        let mut noted = noted.take();
        assert_eq!(
            noted[..5],
            [
                Note::Registered { sender: id, last_active: NOW },
                joined(id, "owned", false),
                joined(id, "standing", true),
                joined(id, "owned", true),
                Note::Left(id, name("owned")),
            ]
        );
        noted[5..7].sort_by_key(|note| matches!(note, Note::Left(_, channel) if *channel == name("stream")));
        assert_eq!(
            noted[5..],
            [Note::Left(id, name("standing")), Note::Left(id, name("stream")), Note::Forgotten(id),]
        );
    }

    #[test]
    fn activity_is_noted_once_a_minute_and_that_of_passing_senders_never() {
        let (hub, noted) = hub();
        let id = hub.register(NOW).unwrap();
        let session = open(&hub);
        let passing = session.register_passing(NOW).unwrap();
        session.join(passing, &name("5"), NOW).unwrap();
        hub.join(id, &[name("5")], NOW).unwrap();
        noted.take();
        for second in 0..150 {
            let now = NOW.after(Duration::from_secs(second));
            for sender in [id, passing] {
                hub.publish(&name("5"), Publish::new(Content::text("x")).by(sender), now).unwrap();
            }
        }
        let at = |second| NOW.after(Duration::from_secs(second));
        let active = |second| Note::Registered { sender: id, last_active: at(second) };
        assert_eq!(noted.take(), [active(60), active(120)]);
        drop(session);
        hub.unregister(passing, NOW).unwrap();
        assert_eq!(noted.take(), []);
    }

    #[test]
    fn a_sender_that_a_session_holds_is_noted_as_active_all_the_while() {
        let (hub, noted) = hub();
        let session = open(&hub);
        let id = session.register(NOW).unwrap();
        noted.take();
        for day in 1..=60 {
            hub.tick(NOW.after(DAY * day));
        }
        let last = noted.take().pop();
        let Some(Note::Registered { sender, last_active }) = last else { panic!("{last:?}") };
        assert!(sender == id && last_active >= NOW.after(DAY * 56), "{last_active:?}");
        drop(session);
        for day in 61..=95 {
            hub.tick(NOW.after(DAY * day));
        }
        assert!(!hub.is_registered(id, NOW.after(DAY * 95)));
        assert_eq!(noted.take(), [Note::Forgotten(id)]);
    }

    #[test]
    fn restored_senders_are_where_they_were_and_expire_when_they_would_have() {
        let (hub, noted) = hub();
        let id = SenderId::new(1).unwrap();
        let join = |channel, standing| KeptJoin { channel: name(channel), since: NOW, standing };
        let later = NOW.after(DAY * 20);
        hub.tick(later);
        let kept =
            KeptSender { id, last_active: NOW, joins: vec![join("standing", true), join("owned", false)] };
        hub.restore(&kept, later).unwrap();
        assert_eq!(noted.take(), [], "what is kept need not be noted");
        let other = hub.register(later).unwrap();
        assert_ne!(other, id, "an id is not given twice");
        assert_eq!(hub.presence(&name("owned")).unwrap()[0].since, NOW);
        // Without a session for session_ttl, only what stands is left.
        hub.publish(&name("owned"), Publish::new(Content::text("missed")), later).unwrap();
        let soon = later.after(Duration::from_secs(119));
        hub.tick(soon);
        let session = open(&hub);
        session.attach(id, soon).unwrap();
        let mut heard = 0;
        let _ = session.drain_messages(None, |_| {
            heard += 1;
            true
        });
        assert_eq!(heard, 1, "what came since the restart");
        let protocol = |channel| hub.presence(&name(channel)).unwrap()[0].protocol;
        assert_eq!([protocol("owned"), protocol("standing")], ["test", PROTOCOL]);
        drop(session);
        noted.take();
        hub.tick(soon.after(Duration::from_secs(120)));
        assert_eq!(noted.take(), [Note::Left(id, name("owned"))]);
        assert!(hub.has_joined(id, &name("standing")));
        hub.tick(soon.after(DAY * 30));
        assert!(!hub.is_registered(id, soon));
    }

    #[test]
    fn what_expired_while_the_server_was_down_is_forgotten_soon_but_not_at_once() {
        let (hub, noted) = hub();
        let id = SenderId::new(77).unwrap();
        hub.restore(&KeptSender { id, last_active: NOW, joins: Vec::new() }, NOW.after(DAY * 31)).unwrap();
        hub.tick(NOW.after(DAY * 31 + Duration::from_secs(3600)));
        assert!(hub.0.sender(id).is_ok(), "the clock may be wrong");
        hub.tick(NOW.after(DAY * 31 + Duration::from_secs(3 * 3600)));
        assert!(hub.0.sender(id).is_err());
        assert_eq!(noted.take(), [Note::Forgotten(id)]);
    }

    #[test]
    fn when_the_clock_jumps_nobody_is_silent_for_longer_or_shorter_than_before() {
        let (hub, noted) = hub();
        let (id, year) = (hub.register(NOW).unwrap(), DAY * 365);
        let at = |day: u32| NOW.after(DAY * day);
        for day in 1..=20 {
            hub.tick(at(day));
        }
        noted.take();
        // A year ahead, and a day later back again.
        hub.clock_jumped(at(20), at(20).after(year));
        assert_eq!(noted.take(), [Note::Registered { sender: id, last_active: NOW.after(year) }]);
        hub.tick(at(21).after(year));
        assert!(hub.0.sender(id).is_ok());
        // Who came while it was wrong, and who is restored with the right time.
        let meanwhile = hub.register(at(21).after(year)).unwrap();
        hub.clock_jumped(at(21).after(year), at(21));
        for day in 22..=29 {
            hub.tick(at(day));
        }
        assert!(hub.0.sender(id).is_ok());
        hub.tick(at(30));
        assert!(hub.0.sender(id).is_err(), "30 days after it was active");
        for day in 31..=50 {
            hub.tick(at(day));
        }
        assert!(hub.0.sender(meanwhile).is_ok());
        hub.tick(at(51));
        assert!(hub.0.sender(meanwhile).is_err());
    }

    #[test]
    fn a_clock_that_starts_in_the_past_and_is_put_right_costs_nobody_its_registration() {
        let (hub, _) = hub();
        let (restored, boot) = (SenderId::new(77).unwrap(), Timestamp::from_millis(10_000));
        hub.restore(&KeptSender { id: restored, last_active: NOW, joins: Vec::new() }, boot).unwrap();
        hub.tick(boot);
        let registered = hub.register(boot).unwrap();
        hub.clock_jumped(boot, NOW.after(DAY));
        hub.tick(NOW.after(DAY));
        for day in 2..30 {
            hub.tick(NOW.after(DAY * day));
            assert!(hub.0.sender(restored).is_ok() && hub.0.sender(registered).is_ok(), "day {day}");
        }
        hub.tick(NOW.after(DAY * 30));
        assert!(hub.0.sender(restored).is_err());
        hub.tick(NOW.after(DAY * 31));
        assert!(hub.0.sender(registered).is_err());
    }
}
