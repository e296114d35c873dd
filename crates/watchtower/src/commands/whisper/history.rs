//! The lines that were typed before, kept in a file that only their writer can read.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How many lines are kept.
const LINES_MAX: usize = 1_000;

/// The lines, and where in them the reader looks.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The oldest first. Invariant: at most [`LINES_MAX`].
    lines: VecDeque<String>,
    /// Which of them is shown, if one is, and what had been typed before that.
    shown: Option<(usize, String)>,
    /// Where further lines go.
    file: Option<File>,
}

impl History {
    /// What that file has; it is made if it is not there. Each line is a JSON string, since what is
    /// said may have several.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut lines = VecDeque::new();
        let mut count = 0;
        match File::open(path) {
            Ok(file) => {
                for line in BufReader::new(file).lines() {
                    count += 1;
                    // A line that was cut short by a full disk is none.
                    if let Ok(line) = serde_json::from_str(&line?) {
                        keep(&mut lines, line);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if count > 2 * LINES_MAX {
            rewrite(path, &lines)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { lines, shown: None, file: Some(file) })
    }

    /// A line was typed. It is remembered even where it cannot be written.
    pub(super) fn push(&mut self, line: &str) -> io::Result<()> {
        self.shown = None;
        if self.lines.back().is_some_and(|last| last == line) {
            return Ok(());
        }
        keep(&mut self.lines, line.to_owned());
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = file.write_all(encoded(line).as_bytes());
        if written.is_err() {
            // Said once.
            self.file = None;
        }
        written
    }

    /// The line before the one that is shown, or before what is being typed.
    pub(super) fn older(&mut self, typed: &str) -> Option<&str> {
        let (at, typed) = match self.shown.take() {
            Some((0, typed)) => (0, typed),
            Some((at, typed)) => (at - 1, typed),
            None => (self.lines.len().checked_sub(1)?, typed.to_owned()),
        };
        self.shown = Some((at, typed));
        self.lines.get(at).map(String::as_str)
    }

    /// The line behind the one that is shown; behind the last one is what had been typed.
    pub(super) fn newer(&mut self) -> Option<String> {
        let (at, typed) = self.shown.take()?;
        match self.lines.get(at + 1) {
            Some(line) => {
                self.shown = Some((at + 1, typed));
                Some(line.clone())
            }
            None => Some(typed),
        }
    }
}

fn keep(lines: &mut VecDeque<String>, line: String) {
    if lines.len() >= LINES_MAX {
        lines.pop_front();
    }
    lines.push_back(line);
}

fn encoded(line: &str) -> String {
    format!("{}\n", serde_json::Value::from(line))
}

/// Drops what is older, in a way that leaves the old file or the new one.
fn rewrite(path: &Path, lines: &VecDeque<String>) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(lines.iter().map(|line| encoded(line)).collect::<String>().as_bytes())?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn older_lines_are_gone_through_and_what_was_typed_comes_back() {
        let mut history = History::default();
        assert_eq!(history.older("typed"), None);
        for line in ["one", "two", "two"] {
            history.push(line).unwrap();
        }
        assert_eq!(history.older("typed"), Some("two"));
        assert_eq!(history.older("two"), Some("one"));
        assert_eq!(history.older("one"), Some("one"));
        assert_eq!(history.newer().as_deref(), Some("two"));
        assert_eq!(history.newer().as_deref(), Some("typed"));
        assert_eq!(history.newer(), None);
    }

    #[test]
    fn it_outlives_the_program_in_a_file_that_nobody_else_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let mut history = History::open(&path).unwrap();
        history.push("one").unwrap();
        history.push("two\nlines").unwrap();
        let mut history = History::open(&path).unwrap();
        assert_eq!(history.older(""), Some("two\nlines"));
        assert_eq!(history.older(""), Some("one"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn it_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        fs::write(&path, (0..3_000).map(|n| format!("\"{n}\"\n")).collect::<String>()).unwrap();
        let mut history = History::open(&path).unwrap();
        assert_eq!((history.lines.len(), history.older("")), (LINES_MAX, Some("2999")));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), LINES_MAX);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        fs::write(&path, "\"one\"\n\"tw\n").unwrap();
        assert_eq!(History::open(&path).unwrap().lines, ["one"]);
    }
}
