//! The recorded figures: instructions for each unit of each case, in a file that is committed.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::process::Command;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The file, as the checkout has it that this was built from.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml");

const HEAD: &str = "\
# Instructions for each unit of work, as callgrind counts them in a release build. Written by
#   cargo run --release -p watchtower-cost -- --record
# and held against by the same without --record: a change that makes one grow by more than 5 %
# records it here, and says why.

";

/// How much a figure may grow under the toolchain that it was recorded with: 5 %.
const GROWTH_MAX: f64 = 1.05;
/// Under another, which compiles otherwise.
const GROWTH_MAX_OTHERWISE: f64 = 1.25;
/// A figure that shrank below this is worth recording, so that it cannot grow back unseen.
const SHRUNK: f64 = 0.95;

/// What compiled the figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Toolchain {
    /// The architecture.
    architecture: String,
    /// The compiler's version.
    rustc: String,
}

impl Toolchain {
    /// The one that cargo would build this with now.
    pub(crate) fn here() -> anyhow::Result<Toolchain> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let version =
            Command::new(rustc).arg("--version").output().context("cannot ask rustc its version")?;
        let rustc = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        Ok(Toolchain { architecture: env::consts::ARCH.to_owned(), rustc })
    }
}

/// Instructions by case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    toolchain: Toolchain,
    instructions: BTreeMap<String, f64>,
}

impl Figures {
    pub(crate) fn new(toolchain: Toolchain) -> Figures {
        Figures { toolchain, instructions: BTreeMap::new() }
    }

    /// To one decimal.
    pub(crate) fn insert(&mut self, case: &str, instructions: f64) {
        self.instructions.insert(case.to_owned(), (instructions * 10.0).round() / 10.0);
    }

    /// # Errors
    /// When the file is not there or not as it was written.
    pub(crate) fn read() -> anyhow::Result<Figures> {
        let text = fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?;
        toml::from_str(&text).with_context(|| format!("cannot understand {FILE}"))
    }

    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let text = HEAD.to_owned() + &toml::to_string(self)?;
        fs::write(FILE, text).with_context(|| format!("cannot write {FILE}"))
    }

    /// Another architecture has other instructions.
    pub(crate) fn can_be_held_against(&self, recorded: &Figures) -> bool {
        self.toolchain.architecture == recorded.toolchain.architecture
    }

    /// How much a figure may grow beside those recorded.
    fn growth_max(&self, recorded: &Figures) -> f64 {
        if self.toolchain == recorded.toolchain { GROWTH_MAX } else { GROWTH_MAX_OTHERWISE }
    }

    /// What has grown too much, came or went, a line each.
    pub(crate) fn held_against(&self, recorded: &Figures) -> Vec<String> {
        let growth_max = self.growth_max(recorded);
        let grown =
            self.instructions.iter().filter_map(|(case, now)| match recorded.instructions.get(case) {
                None => Some(format!("{case} is not recorded")),
                Some(before) if *now > before * growth_max => {
                    let percent = (now / before - 1.0) * 100.0;
                    Some(format!("{case} has grown by {percent:.1} %, from {before} to {now} instructions"))
                }
                Some(_) => None,
            });
        let gone = recorded.instructions.keys().filter(|case| !self.instructions.contains_key(*case));
        let mut complaints: Vec<_> =
            grown.chain(gone.map(|case| format!("{case} is recorded, and no case"))).collect();
        if !complaints.is_empty() && self.toolchain != recorded.toolchain {
            let (here, there) = (&self.toolchain.rustc, &recorded.toolchain.rustc);
            complaints.push(format!("they were recorded with {there}, and this is {here}"));
        }
        complaints
    }

    /// A case for a person.
    pub(crate) fn line(&self, case: &str, unit: &str, recorded: &Figures) -> String {
        let figure = |figures: &Figures| figures.instructions.get(case).copied();
        let Some(now) = figure(self) else { return format!("{case:<26} not counted") };
        let mut line = format!("{case:<26} {now:>10.1} instructions per {unit}");
        if let Some(before) = figure(recorded).filter(|before| *before != now) {
            line += &format!(", {before:.1} recorded");
            if now < before * SHRUNK {
                line += ": record it, so that it stays so";
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rustc: &str, instructions: &[(&str, f64)]) -> Figures {
        let toolchain = Toolchain { architecture: env::consts::ARCH.to_owned(), rustc: rustc.to_owned() };
        let mut figures = Figures::new(toolchain);
        instructions.iter().for_each(|(case, count)| figures.insert(case, *count));
        figures
    }

    #[test]
    fn a_figure_may_grow_by_five_percent_and_no_more() {
        let recorded = figures("1", &[("a", 100.0)]);
        assert_eq!(figures("1", &[("a", 105.0)]).held_against(&recorded), [""; 0]);
        let complaints = figures("1", &[("a", 105.1)]).held_against(&recorded);
        assert_eq!(complaints, ["a has grown by 5.1 %, from 100 to 105.1 instructions"]);
    }

    #[test]
    fn another_compiler_has_more_room_and_is_named() {
        let recorded = figures("1", &[("a", 100.0)]);
        assert_eq!(figures("2", &[("a", 125.0)]).held_against(&recorded), [""; 0]);
        let complaints = figures("2", &[("a", 126.0)]).held_against(&recorded);
        assert_eq!(complaints.len(), 2);
        assert_eq!(complaints[1], "they were recorded with 1, and this is 2");
    }

    #[test]
    fn every_case_is_recorded_and_nothing_else() {
        let complaints = figures("1", &[("new", 1.0)]).held_against(&figures("1", &[("old", 1.0)]));
        assert_eq!(complaints, ["new is not recorded", "old is recorded, and no case"]);
    }

    #[test]
    fn what_has_shrunk_is_to_be_recorded() {
        let recorded = figures("1", &[("a", 100.0)]);
        let line = figures("1", &[("a", 94.0)]).line("a", "message", &recorded);
        assert!(
            line.ends_with("94.0 instructions per message, 100.0 recorded: record it, so that it stays so")
        );
        assert!(!figures("1", &[("a", 96.0)]).line("a", "message", &recorded).contains("stays"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let written = figures("rustc 1.2", &[("deliver/packets", 123.4), ("encode/sse", 5.0)]);
        let text = HEAD.to_owned() + &toml::to_string(&written).unwrap();
        assert_eq!(toml::from_str::<Figures>(&text).unwrap(), written);
    }
}
