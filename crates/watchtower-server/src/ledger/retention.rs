//! The thread that drops what the rules for channels keep no longer.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use watchtower_hub::{ChannelName, Settings};
use watchtower_store::{DiskStore, Keeper, Retention, StepError, Store};

use crate::clock;

/// How often channels are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many steps are done then at most: some 4,000 channels.
const STEPS: usize = 16;

/// How often it is said that something cannot be dropped.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// The thread. Dropping it ends it.
pub(super) struct Retainer {
    end: Arc<End>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct End {
    is_there: Mutex<bool>,
    came: Condvar,
}

impl Retainer {
    /// Keeps what `settings` say of each channel, for as long as this is there.
    pub(super) fn start(store: Arc<DiskStore>, settings: Settings) -> io::Result<Retainer> {
        let end = Arc::<End>::default();
        let ended = end.clone();
        let run = move || {
            tell_unserved(&store, &settings);
            retain(&store, &settings, &ended);
        };
        let thread = thread::Builder::new().name("store-retain".to_owned()).spawn(run)?;
        Ok(Retainer { end, thread: Some(thread) })
    }
}

impl Drop for Retainer {
    fn drop(&mut self) {
        *self.end.is_there.lock() = true;
        self.end.came.notify_all();
        if let Some(thread) = self.thread.take() {
            // If it panicked it has said so itself.
            let _ = thread.join();
        }
    }
}

/// How much of a channel is kept on disk. What no rule says is durable stays as
/// it is: the rule may come back.
fn retention(settings: &Settings, channel: &ChannelName) -> Retention {
    let rule = settings.rule(channel);
    if !rule.durable {
        return Retention::ALL;
    }
    let limit = |value: u64| if value == 0 { u64::MAX } else { value };
    Retention {
        messages: limit(rule.history_messages as u64),
        bytes: limit(rule.history_bytes),
        age: rule.history_ttl,
    }
}

fn retain(store: &DiskStore, settings: &Settings, end: &End) {
    let started = Instant::now();
    let mut keeper = Keeper::new(clock::now());
    let mut told: Option<Instant> = None;
    let mut is_over = end.is_there.lock();
    while !*is_over {
        drop(is_over);
        for _ in 0..STEPS {
            let rule = |channel: &ChannelName| retention(settings, channel);
            match keeper.step(store, rule, clock::now(), started.elapsed()) {
                Ok(true) => break,
                Ok(false) => {}
                // The disk has said itself that it takes nothing.
                Err(StepError::Refused(_)) => break,
                Err(StepError::Read(error)) => {
                    if told.is_none_or(|told| told.elapsed() >= TELL_INTERVAL) {
                        told = Some(Instant::now());
                        tracing::warn!(%error, "what is too old could not be dropped from a durable channel");
                    }
                }
            }
        }
        is_over = end.is_there.lock();
        if !*is_over {
            end.came.wait_for(&mut is_over, INTERVAL);
        }
    }
}

/// Says that there are logs which nobody can reach.
fn tell_unserved(store: &DiskStore, settings: &Settings) {
    let channels = store.channels(None, usize::MAX);
    let unserved = channels.iter().filter(|(channel, _)| !settings.rule(channel).durable).count();
    if unserved > 0 {
        tracing::warn!(
            channels = unserved,
            "there are messages on disk of channels that no rule says are durable: they are kept, and not served"
        );
    }
}

#[cfg(test)]
mod tests {
    use watchtower_hub::ChannelRule;

    use super::*;

    #[test]
    fn a_durable_channel_keeps_what_its_rule_says_and_others_all_there_is() {
        let rule = |pattern: &str, durable, history_messages, history_bytes| ChannelRule {
            pattern: pattern.to_owned(),
            durable,
            history_messages,
            history_bytes,
            history_ttl: Duration::from_secs(60),
            ..ChannelRule::default()
        };
        let rules = vec![rule("a*", true, 0, 0), rule("b*", true, 5, 7), rule("*", false, 5, 7)];
        let settings = Settings { channels: rules, ..Settings::default() };
        let kept = |name| retention(&settings, &ChannelName::parse(name).expect("a name"));
        let age = Duration::from_secs(60);
        assert_eq!(kept("a1"), Retention { age, ..Retention::ALL });
        assert_eq!(kept("b1"), Retention { messages: 5, bytes: 7, age });
        assert_eq!(kept("c1"), Retention::ALL);
    }
}
