//! The hub and its protocols, held against what is promised
//! ([model: delivery promises]), whatever clients and networks do.
//!
//! The hub, the sessions of its protocols and their codecs are the real ones.
//! Around them are clients that follow a script, connections that split, join,
//! delay and break, and datagrams that are lost, doubled and reordered. What
//! the server says is read where it is said, and held against a model that
//! knows what the hub is to do, and not how; after each step the hub's
//! presence, history and counts are held against it, too.
//!
//! A script is made from a seed. One that fails is made shorter, and printed.

mod check;
mod clients;
mod connection;
mod disk;
mod ears;
mod fault;
mod ledger;
mod model;
mod outcome;
mod pages;
mod protocols;
mod script;
mod shrink;
mod told;
mod turns;
mod words;
mod world;

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use allocation_counter::measure;

pub use self::fault::Fault;
pub use self::outcome::{Failure, Outcome, Totals};
use self::script::Script;
use self::world::World;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The first seed.
    pub seed: u64,
    /// How many seeds there are.
    pub seeds: u64,
    /// How many steps a script has, or somewhat more.
    pub steps: usize,
    /// A fault that a server could have: then it is expected to fail.
    pub fault: Option<Fault>,
}

impl Default for Options {
    fn default() -> Options {
        Options { seed: 1, seeds: 1_000, steps: 200, fault: None }
    }
}

/// Each so many seeds, a script is played over and over with the same hub: until
/// maps and lists have the size that they keep, and as often again.
const SEEDS_A_LONG_RUN: u64 = 1_000;
const LONG_RUN: usize = 256;

/// By how much memory may have grown then, in bytes: by less than one message a
/// round. What is freed is gathered here and there before it is given back.
const GROWTH_MAX: i64 = 48 * 1024;

/// How often a script is played to make it shorter.
const SHRINK_ROUNDS_MAX: usize = 3_000;

/// Runs the script of each seed, up to the first that fails.
pub fn run(options: &Options) -> Outcome {
    let mut totals = Totals::default();
    for seed in options.seed..options.seed.saturating_add(options.seeds) {
        let script = Script::new(seed, options.steps);
        let rounds = if seed % SEEDS_A_LONG_RUN == 0 { LONG_RUN } else { 1 };
        match play(&script, options.fault, rounds) {
            Ok(totals_of_one) => totals.add(&totals_of_one),
            Err(_) => {
                let play = |script: &Script| play(script, options.fault, rounds).err();
                let runs_max = SHRINK_ROUNDS_MAX / rounds;
                let shortest = shrink::shrink(&script, runs_max, |script| play(script).is_some());
                let failure = Failure::new(seed, options.steps, &script, &shortest, play);
                return Outcome { totals, failure: Some(failure) };
            }
        }
    }
    Outcome { totals, failure: None }
}

/// Where a script failed, and why.
#[derive(Debug, Clone, Default)]
struct Broken {
    step: usize,
    reason: String,
}

/// Plays a script to its end, so many times with the same hub.
fn play(script: &Script, fault: Option<Fault>, rounds: usize) -> Result<Totals, Broken> {
    let mut step = 0;
    let result = quietly(|| {
        let mut world = World::new(script, fault);
        let mut totals = Totals::default();
        let mut grown = 0;
        for round in 1..=rounds {
            let mut played = Ok(());
            let memory = measure(|| {
                played = play_once(&mut world, script, rounds == 1, &mut step);
                totals = world.totals();
                world.begin_again(script);
            });
            played?;
            grown += if round > rounds / 2 { memory.bytes_current } else { 0 };
        }
        if rounds > 1 && grown > GROWTH_MAX {
            return Err(format!(
                "all left each time, and after {rounds} times {grown} bytes more are in use"
            ));
        }
        Ok(totals)
    });
    result.map_err(|reason| Broken { step, reason })
}

fn play_once(world: &mut World, script: &Script, is_last: bool, step: &mut usize) -> Result<(), String> {
    *step = 0;
    for next in &script.steps {
        world.step(next)?;
        *step += 1;
    }
    let ended = if is_last && script.setting.shuts_down { world.shut_down() } else { world.end() };
    // What came after that was promised nowhere.
    if world.is_open() { Ok(()) } else { ended }
}

thread_local! {
    /// What a panic of this thread said, while it plays.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes a panic an error, which prints nothing.
fn quietly<T>(play: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let is_playing = PANIC.with_borrow_mut(|said| match said {
                Some(said) => {
                    *said = panic.to_string();
                    true
                }
                None => false,
            });
            if !is_playing {
                before(panic);
            }
        }));
    });
    PANIC.set(Some(String::new()));
    let result = panic::catch_unwind(AssertUnwindSafe(play));
    let said = PANIC.take().unwrap_or_default();
    result.unwrap_or(Err(said))
}
