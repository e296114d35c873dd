//! The files that are under way, as one line beside the prompt. Moves no byte.

use std::collections::BTreeMap;

use indicatif::HumanBytes;

/// How many files are kept account of; further ones are not shown while they are under way.
const FILES_MAX: usize = 64;

/// How many steps a bar has.
const STEPS: u64 = 10;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    /// By number. Invariant: at most [`FILES_MAX`].
    files: BTreeMap<u64, File>,
}

#[derive(Debug)]
struct File {
    name: String,
    outgoing: bool,
    bytes_done: u64,
    bytes_all: u64,
}

impl Transfers {
    /// A file got further. `name` is safe to show.
    pub(super) fn progress(
        &mut self,
        transfer: u64,
        name: &str,
        outgoing: bool,
        bytes_done: u64,
        bytes_all: u64,
    ) {
        if self.files.len() >= FILES_MAX && !self.files.contains_key(&transfer) {
            return;
        }
        let file = File { name: name.to_owned(), outgoing, bytes_done, bytes_all };
        if outgoing && bytes_done >= bytes_all {
            // Nothing more is said of what went out.
            self.files.remove(&transfer);
        } else {
            self.files.insert(transfer, file);
        }
    }

    /// It came to its end, whichever.
    pub(super) fn ended(&mut self, transfer: u64) {
        self.files.remove(&transfer);
    }

    /// What is on its way out, by name.
    pub(super) fn outgoing(&self) -> Vec<String> {
        self.files.values().filter(|file| file.outgoing).map(|file| file.name.clone()).collect()
    }

    /// A line on what is under way, for that many columns; `None` when nothing is.
    pub(super) fn line(&self, columns: usize) -> Option<String> {
        let newest = self.files.values().next_back()?;
        let others = match self.files.len() - 1 {
            0 => String::new(),
            others => format!(", {others} more"),
        };
        let File { name, outgoing, bytes_done, bytes_all } = newest;
        let done = (*bytes_done).min(*bytes_all);
        let is_done =
            |step: u64| u128::from(done) * u128::from(STEPS) >= u128::from(*bytes_all) * u128::from(step);
        let bar: String = (1..=STEPS).map(|step| if is_done(step) { '█' } else { '░' }).collect();
        let direction = if *outgoing { "sending" } else { "receiving" };
        let line =
            format!("{bar} {direction} {name}: {} of {}{others}", HumanBytes(done), HumanBytes(*bytes_all));
        Some(watchtower_whisper::protocol::safe_text::safe_body(&line, columns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_shown_while_it_is_under_way() {
        let mut transfers = Transfers::default();
        assert_eq!(transfers.line(80), None);
        transfers.progress(1, "cat.gif", false, 512, 1024);
        assert_eq!(transfers.line(80).unwrap(), "█████░░░░░ receiving cat.gif: 512 B of 1.00 KiB");
        assert_eq!(transfers.line(20).unwrap(), "█████░░░░░ receivin…");
        transfers.progress(2, "dog.gif", true, 0, 2048);
        assert_eq!(transfers.line(80).unwrap(), "░░░░░░░░░░ sending dog.gif: 0 B of 2.00 KiB, 1 more");
        assert_eq!(transfers.outgoing(), ["dog.gif"]);
        transfers.progress(2, "dog.gif", true, 2048, 2048);
        transfers.ended(1);
        assert_eq!(transfers.line(80), None);
    }

    #[test]
    fn what_others_claim_of_a_file_divides_nothing_by_zero_and_takes_no_more_room() {
        let mut transfers = Transfers::default();
        for transfer in 0..1000 {
            transfers.progress(transfer, "x", false, 5, 0);
        }
        assert_eq!(transfers.files.len(), FILES_MAX);
        assert!(transfers.line(80).unwrap().starts_with("██████████ receiving x: 0 B of 0 B"));
        transfers.progress(0, "x", false, u64::MAX, u64::MAX);
    }
}
