//! Which nicks the reader was warned of [whispernet: 13]: a mark stands at each message, the
//! sentence comes once.

use std::collections::BTreeSet;

use watchtower_whisper::protocol::{Mark, Shown};

use super::render;
use super::telling;

/// How many nicks are remembered; beyond it the warnings begin anew.
const NICKS_MAX: usize = 1_000;

/// The nicks of which there was a warning.
#[derive(Debug, Default)]
pub(super) struct Warned(BTreeSet<String>);

impl Warned {
    /// The warning that is due with this message, if one is.
    pub(super) fn of(&mut self, shown: &Shown) -> Option<String> {
        if shown.mark != Mark::ChangedKey {
            return None;
        }
        let name = render::name(shown);
        if self.0.len() >= NICKS_MAX {
            self.0.clear();
        }
        self.0.insert(name.clone()).then(|| telling::changed_key(&name))
    }
}
