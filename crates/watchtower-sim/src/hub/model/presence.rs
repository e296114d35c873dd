//! What a channel is told of who comes and who goes ([model: presence]).
//!
//! Of several who leave at the same tick, nobody promises who leaves first: the
//! order is what is heard. Nor is it promised which of them are told of where not
//! all can be: there a run ends. A durable channel is told once that is kept, and
//! of what is not, the number.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use watchtower_hub::{ChannelName, Content, Timestamp};

use super::super::disk::is_durable;
use super::super::script::Setting;
use super::submitted::Origin;
use super::{Channel, Heard, Message, Model, Publication};

/// How many changes are told at once, and how many a second when they go on.
const AT_ONCE: u64 = 32;
const PER_SECOND: u64 = 10;

/// When the number is told of those that were too many.
const SUMMARY_AFTER: Duration = Duration::from_secs(1);

/// What counts beside the content of what is told: the event's name.
const EVENT_BYTES: usize = "presence".len();

/// What a channel has told, and has yet to tell.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// What was told lately, in thousandths.
    used: u64,
    as_of: Timestamp,
    left_out: u64,
    due: Timestamp,
    groups: Vec<Group>,
}

/// Who left at the same tick, in the order that is known so far.
#[derive(Debug)]
struct Group {
    /// The offset of the first message, and how many were there after that.
    first: u64,
    present: usize,
    left: Vec<(u32, &'static str)>,
    heard: Vec<bool>,
}

/// Who left which channel at a tick.
pub(super) type Leaves = BTreeMap<ChannelName, Vec<(u32, &'static str)>>;

/// Whether a channel is told of presence.
pub(in super::super) fn tells_presence(name: &ChannelName, setting: Setting) -> bool {
    setting.tells_presence && matches!(name.number(), Some(1 | 2 | 6))
}

fn change(what: &str, id: u32, protocol: &str, present: usize) -> Content {
    let json = format!(r#"{{"{what}":{id},"protocol":"{protocol}","present":{present}}}"#);
    Content::json(json).expect("it is JSON")
}

impl Announcements {
    fn may_tell(&mut self, now: Timestamp) -> bool {
        let millis = u64::try_from(now.since(self.as_of).as_millis()).unwrap_or(u64::MAX);
        self.used = self.used.saturating_sub(PER_SECOND.saturating_mul(millis));
        self.as_of = self.as_of.max(now);
        let may = self.left_out == 0 && self.used + 1_000 <= 1_000 * AT_ONCE;
        self.used += if may { 1_000 } else { 0 };
        may
    }

    /// Whether a number is yet to be told.
    pub(super) fn has_some(&self) -> bool {
        self.left_out > 0
    }

    fn leave_out(&mut self, changes: u64, now: Timestamp) {
        if self.left_out == 0 {
            self.due = now.after(SUMMARY_AFTER);
        }
        self.left_out += changes;
    }
}

impl Model {
    /// Somebody who was not in a channel is.
    pub(super) fn came(&mut self, was_there: bool, id: u32, name: &ChannelName) {
        if was_there {
            return;
        }
        let Some(member) = self.channels.get(name).and_then(|channel| channel.members.get(&id)) else {
            return;
        };
        let protocol = member.protocol;
        self.changed("joined", id, protocol, name, self.now);
    }

    /// Somebody who was in a channel is not. At a tick, that is told at its end.
    pub(super) fn went(&mut self, id: u32, protocol: &'static str, name: &ChannelName, now: Timestamp) {
        match &mut self.leaves {
            Some(leaves) => leaves.entry(name.clone()).or_default().push((id, protocol)),
            None => self.changed("left", id, protocol, name, now),
        }
    }

    fn changed(&mut self, what: &str, id: u32, protocol: &str, name: &ChannelName, now: Timestamp) {
        if !tells_presence(name, self.setting) {
            return;
        }
        // Not everybody has a clock: some know when they last had one.
        let now = now.max(self.ticked);
        let Some(channel) = self.channels.get_mut(name) else { return };
        let present = channel.members.len();
        let is_told = channel.announcements.may_tell(now)
            && self.tell(name, Origin::Change, change(what, id, protocol, present), now);
        if !is_told {
            self.left_out(name, 1, now);
        }
    }

    /// Changes are not told one by one.
    pub(super) fn left_out(&mut self, name: &ChannelName, changes: u64, now: Timestamp) {
        self.counted.left_out += changes;
        self.leave_out(name, changes, now);
    }

    /// The number is to be told of changes that were counted.
    pub(super) fn leave_out(&mut self, name: &ChannelName, changes: u64, now: Timestamp) {
        if let Some(channel) = self.channels.get_mut(name) {
            channel.announcements.leave_out(changes, now);
        }
    }

    /// Whether changes are yet to be told.
    pub(in super::super) fn is_to_be_told(&self, name: &ChannelName) -> bool {
        self.channels.get(name).is_some_and(|channel| channel.announcements.has_some())
    }

    /// Tells a channel something, at once or when that is kept; `false` if it is
    /// certain that it will not be.
    fn tell(&mut self, name: &ChannelName, origin: Origin, content: Content, now: Timestamp) -> bool {
        let publication =
            Publication { sender: 0, is_guest: false, to: None, content, event_bytes: EVENT_BYTES };
        if !is_durable(name) {
            self.append_at(name, &publication, publication.content.clone(), now);
            return true;
        }
        let is_taken = self.may_submit(name).is_ok();
        if is_taken {
            self.submit_of(name.clone(), publication, origin);
        }
        is_taken
    }

    /// Tells what a tick has to tell. On durable channels the order is the one in
    /// which it was submitted.
    pub(super) fn tell_tick(&mut self, mut leaves: Leaves, submitted: &[Bytes], now: Timestamp) {
        for (_, left) in leaves.iter_mut().filter(|(name, _)| is_durable(name)) {
            left.sort_by_key(|(id, _)| {
                let words = format!("{{\"left\":{id},");
                submitted.iter().rposition(|content| content.starts_with(words.as_bytes()))
            });
        }
        let names: Vec<_> =
            self.channels.keys().filter(|name| tells_presence(name, self.setting)).cloned().collect();
        for name in names {
            let left = leaves.get(&name).map_or(&[][..], Vec::as_slice);
            self.tell_tick_of(&name, left, now);
        }
    }

    fn tell_tick_of(&mut self, name: &ChannelName, left: &[(u32, &'static str)], now: Timestamp) {
        let (is_refused, is_under_way) = (self.may_submit(name).is_err(), self.is_under_way(name));
        let Some(channel) = self.channels.get_mut(name) else { return };
        let (present, first) = (channel.members.len(), channel.next_offset());
        let it = &mut channel.announcements;
        let (changes, is_due) = (left.len() as u64, it.left_out > 0 && it.due <= now);
        if is_due && left.is_empty() {
            let changes = std::mem::take(&mut it.left_out);
            // Nobody is there, nor was anybody told of those who were.
            if is_durable(name) && present == 0 && first == 1 && !is_under_way {
                return;
            }
            let json = format!(r#"{{"left_out":{changes},"present":{present}}}"#);
            let content = Content::json(json).expect("it is JSON");
            if !self.tell(name, Origin::Sum(changes), content, now) {
                self.leave_out(name, changes, now);
            }
            return;
        }
        if it.left_out > 0 || is_refused {
            // The first is tried all the same.
            let _ = it.left_out == 0 && changes > 0 && it.may_tell(now);
            self.is_open |= is_due;
            return self.left_out(name, changes, now);
        }
        if !left.iter().all(|_| it.may_tell(now)) {
            self.is_open = true;
            return;
        }
        if left.len() > 1 && !is_durable(name) {
            let heard = vec![false; left.len()];
            let present = present + left.len() - 1;
            it.groups.push(Group { first, present, left: left.to_owned(), heard });
        }
        for (number, (id, protocol)) in left.iter().enumerate() {
            let present = present + left.len() - 1 - number;
            self.tell(name, Origin::Change, change("left", *id, protocol, present), now);
        }
    }

    /// Learns from what somebody hears who left first. Elsewhere it may have been
    /// another.
    pub(super) fn learn(&mut self, heard: &Heard) {
        if !heard.content.starts_with(b"{\"left\"") {
            return;
        }
        let is_there = |name: &ChannelName| heard.channel.as_ref().is_none_or(|channel| channel == name);
        let channels = self.channels.iter_mut().filter(|(name, _)| is_there(name));
        channels.for_each(|(_, channel)| channel.learn(&heard.content));
    }
}

impl Channel {
    fn learn(&mut self, content: &[u8]) {
        for group in &mut self.announcements.groups {
            let number = (0..group.left.len()).find_map(|number| {
                let is_it = |(id, protocol): &(u32, &str)| {
                    change("left", *id, protocol, group.present - number).bytes() == content
                };
                let from = group.left.iter().position(is_it)?;
                (!group.heard[number] && !group.heard[from]).then_some((number, from))
            });
            let Some((number, from)) = number else { continue };
            group.heard[number] = true;
            group.left.swap(number, from);
            for number in [number, from] {
                let at = group.first as usize - 1 + number;
                let (id, protocol) = group.left[number];
                let content = change("left", id, protocol, group.present - number);
                self.log[at] = Rc::new(Message { content, ..self.log[at].as_ref().clone() });
            }
        }
        self.announcements.groups.retain(|group| group.heard.contains(&false));
    }
}
