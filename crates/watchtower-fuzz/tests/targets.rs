//! Each target over its corpus, and over mutations of it from a seed: a short run without a
//! fuzzer. `FUZZ_INPUTS` says how many mutations, `FUZZ_SEED` which.

use std::env;
use std::process::ExitCode;
use std::thread;

use fastrand::Rng;
use libtest_mimic::{Arguments, Failed, Trial};
use watchtower_fuzz::{TARGETS, Target, corpus};

/// How many mutations are tried unless it is said otherwise: about two seconds of each target.
const INPUTS: &[(&str, usize)] = &[
    ("http", 600),
    ("store_files", 500),
    ("whispernet_node", 300),
    ("packets_crowd", 1_000),
    ("websocket", 1_000),
];
const INPUTS_OF_OTHERS: usize = 2_000;

/// The longest input, in bytes, as the fuzzer's unless it is told otherwise.
const INPUT_BYTES_MAX: usize = 4_096;

fn main() -> ExitCode {
    let trials = TARGETS.iter().map(|target| Trial::test(target.name, || run(*target)));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn run(target: Target) -> Result<(), Failed> {
    let inputs = corpus::parse(target.corpus)?;
    if inputs.is_empty() {
        return Err("there is nothing to begin with".into());
    }
    let count = INPUTS.iter().find(|(name, _)| *name == target.name).map_or(INPUTS_OF_OTHERS, |(_, n)| *n);
    let count = from_environment("FUZZ_INPUTS")?.unwrap_or(count);
    let mut rng = Rng::with_seed(from_environment("FUZZ_SEED")?.unwrap_or(1) as u64);
    inputs.iter().for_each(|input| attempt(target, input));
    for _ in 0..count {
        let input = mutate(&inputs, &mut rng);
        attempt(target, &input);
    }
    Ok(())
}

fn from_environment(name: &str) -> Result<Option<usize>, Failed> {
    env::var(name)
        .ok()
        .map(|text| text.parse())
        .transpose()
        .map_err(|_| format!("{name} is no number").into())
}

/// Shows the input that made the target panic, as a line of its corpus.
struct Shown<'a>(Target, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the input of {}: {}", self.0.name, self.1.escape_ascii());
        }
    }
}

fn attempt(target: Target, input: &[u8]) {
    let _shown = Shown(target, input);
    (target.run)(input);
}

/// One of the inputs, changed a few times.
fn mutate(inputs: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let some = |rng: &mut Rng| &inputs[rng.usize(..inputs.len())];
    let mut input = some(rng).clone();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=input.len());
        let end = rng.usize(at..=input.len());
        match rng.u8(..8) {
            0 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte = rng.u8(..)),
            1 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.u8(..8)),
            2 => input.insert(at, rng.choice([0, 1, 0x7f, 0x80, 0xff, b'\n']).unwrap_or_default()),
            3 => drop(input.drain(at..end)),
            4 => {
                let piece = input[at..end].to_vec();
                drop(input.splice(end..end, piece));
            }
            5 => input.truncate(end),
            6 => {
                let other = some(rng);
                let from = rng.usize(..=other.len());
                drop(input.splice(at..at, other[from..].iter().copied()));
            }
            _ => {
                let number = rng.u32(..).to_le_bytes();
                input.iter_mut().skip(at).zip(number).for_each(|(byte, new)| *byte = new);
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}
