//! Who is subscribed to a channel, and waking those who rest.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Channel, State};
use crate::counters::Counters;
use crate::idle::{IdleSet, SLOTS_PER_SET};
use crate::log::Place;
use crate::reader::{Key, Link, Ring};
use crate::subscription::Subscription;
use crate::{Refused, SenderId};

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) link: Arc<Link>,
    pub(super) key: Key,
    /// Where it was last woken: it cannot be further behind than this.
    pub(super) woken_at: u64,
}

impl State {
    /// Whether somebody is subscribed.
    pub(crate) fn is_read(&self) -> bool {
        self.free.len() < self.slots.len()
    }

    /// Delivers to `sender` by `link` from `from` on; without one, to whoever
    /// the session is. When another sender has brought the session here already,
    /// there stays one copy, from where it is.
    pub(crate) fn subscribe(
        &mut self,
        channel: &Arc<Channel>,
        link: &Arc<Link>,
        sender: Option<SenderId>,
        from: &Arc<Place>,
        counters: &Counters,
    ) -> Result<(), Refused> {
        let mut reader = link.reader.lock();
        if reader.closed {
            return Err(Refused::Closed);
        }
        if let Some(sender) = sender
            && let Some(key) = reader.find(channel)
        {
            // Where it is must not be waiting to be looked at.
            reader.hear(&link.bell, None);
            let Some(subscription) = reader.get(key) else { return Ok(()) };
            if !subscription.has_sender(sender) {
                let slot = subscription.slot;
                let put_back = subscription.add(sender, from, &self.end);
                drop(reader);
                self.member_slots(sender).push(slot);
                if put_back {
                    self.put_back(slot, from);
                }
            }
            return Ok(());
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        let set_index = (slot / SLOTS_PER_SET) as usize;
        if set_index == self.sets.len() {
            self.sets.push(Arc::new(IdleSet::new()));
        }
        let set = self.sets[set_index].clone();
        let rests = from.is_empty() && !from.is_detached();
        if rests {
            set.insert(slot);
        } else {
            set.remove(slot);
        }
        let mut subscription = Subscription::new(channel.clone(), set, slot, from);
        if let Some(sender) = sender {
            subscription.add(sender, from, from);
        }
        let key = reader.insert(subscription);
        drop(reader);
        if link.is_resumed_by_position() {
            self.trail.get_or_insert_default().add_reader();
        }
        self.slots[slot as usize] = Some(Slot { link: link.clone(), key, woken_at: woken_at(from) });
        if let Some(sender) = sender {
            self.member_slots(sender).push(slot);
        }
        counters.subscriptions.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if !rests {
            link.bell.ring(Ring { key, start: from.clone() });
        }
        Ok(())
    }

    /// Has a session read on that was put back.
    fn put_back(&mut self, slot: u32, to: &Arc<Place>) {
        let Some(Some(slot)) = self.slots.get_mut(slot as usize) else { return };
        slot.woken_at = if to.is_detached() { u64::MAX } else { slot.woken_at.min(to.offset()) };
        slot.link.bell.ring(Ring { key: slot.key, start: to.clone() });
    }

    fn member_slots(&mut self, sender: SenderId) -> &mut SmallVec<[u32; 1]> {
        &mut self.members.get_mut(&sender).expect("a sender is a member before it is subscribed").slots
    }

    /// The slot by which `link` delivers to `sender`.
    pub(crate) fn slot_of(&self, sender: SenderId, link: &Arc<Link>) -> Option<u32> {
        let is_link = |slot: &&u32| self.slot(**slot).is_some_and(|slot| Arc::ptr_eq(&slot.link, link));
        self.members.get(&sender)?.slots.iter().find(is_link).copied()
    }

    /// Whether that slot is this subscription's.
    pub(crate) fn has_slot(&self, slot: u32, link: &Arc<Link>, key: Key) -> bool {
        self.slot(slot).is_some_and(|slot| slot.key == key && Arc::ptr_eq(&slot.link, link))
    }

    /// Has a session read on at a place.
    pub(crate) fn ring(&self, slot: u32, place: &Arc<Place>) {
        if let Some(slot) = self.slot(slot) {
            slot.link.bell.ring(Ring { key: slot.key, start: place.clone() });
        }
    }

    /// Notes that a subscription is no further behind than this.
    pub(crate) fn woken_at(&mut self, slot: u32, place: &Place) {
        if let Some(Some(slot)) = self.slots.get_mut(slot as usize) {
            slot.woken_at = place.offset();
        }
    }

    fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// Ends the delivery to `sender` by this slot, and returns what it has not
    /// been handed yet.
    pub(crate) fn unsubscribe(&mut self, sender: SenderId, slot: u32, counters: &Counters) -> Arc<Place> {
        if let Some(member) = self.members.get_mut(&sender) {
            member.slots.retain(|other| *other != slot);
        }
        self.release(slot, Some(sender), counters)
    }

    /// Ends what a session reads here, and returns for whom it did, and what they
    /// were not handed yet.
    pub(crate) fn end_reading(
        &mut self,
        channel: &Arc<Channel>,
        link: &Arc<Link>,
        counters: &Counters,
    ) -> (Vec<SenderId>, Vec<Arc<Place>>) {
        let mut reader = link.reader.lock();
        let found = reader.find(channel).and_then(|key| reader.get(key));
        let Some((slot, senders)) = found.map(|found| (found.slot, found.senders())) else {
            return (Vec::new(), Vec::new());
        };
        drop(reader);
        let unread = senders.iter().map(|sender| self.unsubscribe(*sender, slot, counters)).collect();
        (senders, unread)
    }

    /// Takes `sender`, if any, from those that this slot's subscription delivers
    /// to, and ends it when nobody is left. Returns what was not handed out yet.
    pub(crate) fn release(&mut self, slot: u32, sender: Option<SenderId>, counters: &Counters) -> Arc<Place> {
        let Some(Slot { link, key, .. }) = self.slot(slot) else { return self.end.clone() };
        let (link, key) = (link.clone(), *key);
        let mut reader = link.reader.lock();
        // What it was rung for and has not looked at yet: a ring that stayed
        // would be taken for one of the subscription that gets its key next.
        reader.hear(&link.bell, None);
        let Some(subscription) = reader.get(key) else { return self.end.clone() };
        let (unread, moved_to) = match sender {
            Some(sender) => subscription.remove(sender, &self.end, |offset| self.place_at(offset)),
            None => (self.end.clone(), None),
        };
        if !subscription.has_senders() {
            reader.remove(key);
            if reader.awaits_pages {
                link.bell.poke();
            }
            drop(reader);
            self.sets[(slot / SLOTS_PER_SET) as usize].remove(slot);
            self.slots[slot as usize] = None;
            self.free.push(slot);
            if link.is_resumed_by_position() {
                self.trail.take_if(|trail| trail.remove_reader());
            }
            counters.subscriptions.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        } else if let Some(place) = moved_to {
            drop(reader);
            if let Some(Some(slot)) = self.slots.get_mut(slot as usize) {
                slot.woken_at = woken_at(&place);
            }
            link.bell.ring(Ring { key, start: place });
        }
        unread
    }

    pub(super) fn wake_all(&mut self, place: &Arc<Place>) {
        for (index, set) in self.sets.iter().enumerate() {
            let resting = set.wake_all();
            let first = index * SLOTS_PER_SET as usize;
            let slots = self.slots.get_mut(first..).unwrap_or_default();
            // The processor loads many bells at a time, as long as nothing is
            // written between.
            for slot in bits(resting).filter_map(|at| slots.get(at)?.as_ref()) {
                slot.link.bell.warm();
            }
            for at in bits(resting) {
                if let Some(Some(slot)) = slots.get_mut(at) {
                    slot.ring(place);
                }
            }
        }
    }

    pub(super) fn wake(&mut self, place: &Arc<Place>, receivers: &[SenderId]) {
        for receiver in receivers {
            let Some(member) = self.members.get(receiver) else { continue };
            for &slot in &member.slots {
                if self.sets[(slot / SLOTS_PER_SET) as usize].wake(slot)
                    && let Some(Some(slot)) = self.slots.get_mut(slot as usize)
                {
                    slot.ring(place);
                }
            }
        }
    }
}

/// How far behind a subscription can be that is told to read from here: who reads
/// from the ledger is not lagging.
fn woken_at(place: &Place) -> u64 {
    if place.is_detached() { u64::MAX } else { place.offset() }
}

/// The places of the bits that are set.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = (set != 0).then_some(set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(at)
    })
}

impl Slot {
    fn ring(&mut self, place: &Arc<Place>) {
        self.woken_at = place.offset();
        self.link.bell.ring(Ring { key: self.key, start: place.clone() });
    }
}
