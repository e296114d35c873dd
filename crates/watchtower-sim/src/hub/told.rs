//! What a durable channel was told of who comes and who goes, held against who is
//! there: as one reads it who has nothing but the log, and asked who was there when
//! the hub began ([model: presence]).
//!
//! Knows nothing of how the hub, or the model, decides what to tell.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use watchtower_hub::{ChannelName, Hub};

use super::model::{Message, tells_presence};
use super::world::World;

/// What a message tells of presence; of others it has nothing.
#[derive(Deserialize)]
struct Told {
    joined: Option<u32>,
    left: Option<u32>,
    left_out: Option<u64>,
    present: usize,
}

/// Who is there, to one who reads.
#[derive(Debug, Default)]
struct Present {
    count: usize,
    /// Unknown once the number of changes is told alone.
    who: Option<BTreeSet<u32>>,
}

/// Who was there when the hub began, and what the log held by then.
#[derive(Default)]
pub(super) struct Beginnings(BTreeMap<ChannelName, (usize, BTreeSet<u32>)>);

impl Beginnings {
    /// Takes note of who is in a channel whose log has so many messages.
    pub(super) fn note(&mut self, hub: &Hub, name: &ChannelName, length: usize) {
        self.0.insert(name.clone(), (length, who_is_there(hub, name)));
    }
}

fn who_is_there(hub: &Hub, name: &ChannelName) -> BTreeSet<u32> {
    hub.presence(name).into_iter().flatten().map(|present| present.sender.get()).collect()
}

impl World {
    /// Nobody leaves who was not there, nobody comes twice, and together that is who
    /// is there.
    pub(super) fn check_told(&self) -> Result<(), String> {
        let model = &self.oracle.model;
        let under_way = model.under_way();
        for (name, log) in model.durable().filter(|(name, _)| tells_presence(name, self.setting)) {
            let (length, who) = self.beginnings.0.get(name).cloned().unwrap_or_default();
            let mut present = Present { count: who.len(), who: Some(who) };
            for message in &log[length..] {
                let read = present.read(message);
                read.map_err(|error| {
                    format!("{} of {name} tells {:?}: {error}", message.offset, message.content)
                })?;
            }
            if under_way.contains(name) || model.is_to_be_told(name) {
                continue;
            }
            let there = who_is_there(&self.hub, name);
            let is_known = present.who.as_ref().is_none_or(|who| *who == there);
            if !is_known || present.count != there.len() {
                return Err(format!("in {name} are {there:?}, and told was of {present:?}"));
            }
        }
        Ok(())
    }
}

impl Present {
    fn read(&mut self, message: &Message) -> Result<(), String> {
        let told: Result<Told, _> = serde_json::from_slice(message.content.bytes());
        let Some(told) = told.ok().filter(|_| message.sender == 0) else { return Ok(()) };
        let before = format!("{self:?}");
        let Told { joined, left, left_out, present } = told;
        let is_change = match (joined, left, &mut self.who) {
            (None, None, _) => left_out.is_some(),
            (Some(id), _, Some(who)) => who.insert(id),
            (_, Some(id), Some(who)) => who.remove(&id),
            (.., None) => true,
        };
        self.count = match left_out {
            Some(_) => present,
            None if joined.is_some() => self.count + 1,
            None => self.count.wrapping_sub(1),
        };
        if left_out.is_some() {
            self.who = None;
        }
        if is_change && self.count == present { Ok(()) } else { Err(format!("before were {before}")) }
    }
}
