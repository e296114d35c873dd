//! The terminal: what was said scrolls by above, the line that is typed stays below. Knows no
//! peers and no keys.
//!
//! Below is a line of what is under way, if something is, and one row with the prompt and as much
//! of the typed line as fits. So it is known where the cursor is, and the terminal is asked nothing.

use std::io::{self, Write};

use crossterm::cursor::{MoveToColumn, MoveUp};
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::style::Print;
use crossterm::terminal::{self, Clear, ClearType};
use crossterm::{execute, queue};
use unicode_width::UnicodeWidthStr;

use super::line_editor::LineEditor;

/// How wide a terminal is that does not say so.
const COLUMNS: usize = 80;

/// A terminal that hands over each key; it is as it was once this is dropped.
#[derive(Debug)]
pub(super) struct RawMode(());

impl RawMode {
    pub(super) fn enter() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let raw = Self(());
        execute!(io::stdout(), EnableBracketedPaste)?;
        Ok(raw)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = execute!(io::stdout(), DisableBracketedPaste);
        let _ = terminal::disable_raw_mode();
    }
}

/// How wide the terminal is.
pub(super) fn columns() -> usize {
    terminal::size().map_or(COLUMNS, |(columns, _)| width_of(columns))
}

/// How wide it is that says so; some say nothing with a zero.
pub(super) fn width_of(columns: u16) -> usize {
    if columns == 0 { COLUMNS } else { columns.into() }
}

/// What stands below.
#[derive(Debug, Clone, Copy)]
pub(super) struct Below<'a> {
    /// What is under way.
    pub(super) status: Option<&'a str>,
    /// What stands before the typed line, as it is seen, and with its colours.
    pub(super) prompt: (&'a str, &'a str),
    /// The typed line.
    pub(super) editor: &'a LineEditor,
}

/// The output, and what of it is below.
#[derive(Debug)]
pub(super) struct Screen<W> {
    out: W,
    pub(super) columns: usize,
    /// How many rows there are above the cursor of what is below, if it is drawn.
    above_cursor: Option<u16>,
}

impl<W: Write> Screen<W> {
    pub(super) fn new(out: W, columns: usize) -> Self {
        Self { out, columns, above_cursor: None }
    }

    /// Shows lines above, or none, and draws what is below anew.
    pub(super) fn print(&mut self, lines: &str, below: Below<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.erase(&mut bytes)?;
        for line in lines.lines() {
            queue!(bytes, Print(line), Print("\r\n"))?;
        }
        self.write(bytes, Some(below))
    }

    /// Clears all that is seen, but for what is below.
    pub(super) fn clear(&mut self, below: Below<'_>) -> io::Result<()> {
        self.above_cursor = None;
        let mut bytes = Vec::new();
        queue!(bytes, Clear(ClearType::All), crossterm::cursor::MoveTo(0, 0))?;
        self.write(bytes, Some(below))
    }

    /// Takes away what is below, for others to write there.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.erase(&mut bytes)?;
        self.write(bytes, None)
    }

    fn erase(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        if let Some(above) = self.above_cursor.take() {
            if above > 0 {
                queue!(bytes, MoveUp(above))?;
            }
            queue!(bytes, MoveToColumn(0), Clear(ClearType::FromCursorDown))?;
        }
        Ok(())
    }

    /// Writes it at once, so that nobody sees the half of it.
    fn write(&mut self, mut bytes: Vec<u8>, below: Option<Below<'_>>) -> io::Result<()> {
        if let Some(below) = below {
            self.queue_below(&mut bytes, below)?;
        }
        self.out.write_all(&bytes)?;
        self.out.flush()
    }

    fn queue_below(&mut self, bytes: &mut Vec<u8>, below: Below<'_>) -> io::Result<()> {
        if let Some(status) = below.status {
            queue!(bytes, Print(status), Print("\r\n"))?;
        }
        // Half of the row at least is for the typed line.
        let (seen, painted) = below.prompt;
        let (seen, painted) = if seen.width() * 2 <= self.columns { (seen, painted) } else { ("> ", "> ") };
        let (line, cursor) = below.editor.visible(self.columns.saturating_sub(seen.width()));
        let column = u16::try_from(seen.width() + cursor).unwrap_or(u16::MAX);
        queue!(bytes, Print(painted), Print(line), MoveToColumn(column))?;
        self.above_cursor = Some(below.status.is_some().into());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use crossterm::event::KeyCode;

    use super::*;

    /// A terminal of 20 columns and 6 rows, and what has been typed on it.
    struct Tried {
        screen: Screen<Vec<u8>>,
        terminal: vt100::Parser,
        editor: LineEditor,
        status: Option<&'static str>,
    }

    impl Tried {
        fn new() -> Self {
            let (rows, columns) = (const { NonZero::new(6).unwrap() }, const { NonZero::new(20).unwrap() });
            Self {
                screen: Screen::new(Vec::new(), 20),
                terminal: vt100::Parser::new(rows, columns, 0),
                editor: LineEditor::default(),
                status: None,
            }
        }

        fn print(&mut self, lines: &str) {
            let below = Below { status: self.status, prompt: ("me> ", "me> "), editor: &self.editor };
            self.screen.print(lines, below).unwrap();
            self.terminal.process(&std::mem::take(&mut self.screen.out));
        }

        fn type_text(&mut self, text: &str) {
            for c in text.chars() {
                self.editor.key(KeyCode::Char(c).into());
                self.print("");
            }
        }

        #[track_caller]
        fn shows(&self, rows: &[&str], cursor: (u16, u16)) {
            assert_eq!(self.terminal.screen().contents(), rows.join("\n"));
            assert_eq!(self.terminal.screen().cursor_position(), cursor);
        }
    }

    #[test]
    fn what_is_typed_stays_below_what_comes() {
        let mut tried = Tried::new();
        tried.type_text("hel");
        tried.print("one");
        tried.type_text("lo");
        tried.print("two\nthree");
        tried.shows(&["one", "two", "three", "me> hello"], (3, 9));
    }

    #[test]
    fn it_stays_there_while_the_terminal_scrolls() {
        let mut tried = Tried::new();
        tried.type_text("日本");
        for n in 0..20 {
            tried.print(&format!("{n}"));
        }
        tried.shows(&["15", "16", "17", "18", "19", "me> 日本"], (5, 8));
    }

    #[test]
    fn a_line_that_is_too_long_shows_what_is_around_the_cursor() {
        let mut tried = Tried::new();
        tried.type_text("日本語日本語日本語0123456789");
        tried.print("one");
        tried.shows(&["one", "me> 本語0123456789"], (1, 18));
        tried.editor.key(KeyCode::Home.into());
        tried.print("two");
        tried.shows(&["one", "two", "me> 日本語日本語日"], (2, 4));
    }

    #[test]
    fn what_is_under_way_stands_above_the_line_and_goes_without_a_trace() {
        let mut tried = Tried::new();
        tried.type_text("hi");
        tried.status = Some("50 %");
        tried.print("one");
        tried.shows(&["one", "50 %", "me> hi"], (2, 6));
        tried.status = Some("60 %");
        tried.print("two");
        tried.shows(&["one", "two", "60 %", "me> hi"], (3, 6));
        tried.status = None;
        tried.print("three");
        tried.shows(&["one", "two", "three", "me> hi"], (3, 6));
    }

    #[test]
    fn a_prompt_that_takes_too_much_gives_way() {
        let mut tried = Tried::new();
        tried.screen.columns = 6;
        tried.print("");
        tried.shows(&["> "], (0, 2));
    }

    #[test]
    fn leaving_takes_it_away() {
        let mut tried = Tried::new();
        tried.type_text("hi");
        tried.print("one");
        tried.screen.leave().unwrap();
        tried.terminal.process(&std::mem::take(&mut tried.screen.out));
        tried.shows(&["one"], (1, 0));
    }
}
