//! The line that is being typed: what a key does to it, and what of it is seen. Draws nothing and
//! reads no key.

use std::mem;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tui_input::{Input, InputRequest};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use super::complete::{Completion, complete};
use super::history::History;

/// How long a line may be. A message may be longer, but not by hand: `/send` is for files.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The line, and those before it.
#[derive(Debug, Default)]
pub(super) struct LineEditor {
    input: Input,
    pub(super) history: History,
}

/// What came of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Keyed {
    /// Nothing that can be seen.
    Nothing,
    /// The line is another one.
    Changed,
    /// It is done, and was taken.
    Line(String),
    /// It is to be completed: [`LineEditor::complete`].
    Tab,
    /// The screen is to be cleared.
    Clear,
    /// The program is to be suspended.
    Suspend,
    /// Ctrl-C, or Ctrl-D on an empty line.
    End,
    /// There is no room for more.
    Full,
}

impl LineEditor {
    /// An empty line behind those.
    pub(super) fn with_history(history: History) -> Self {
        Self { input: Input::default(), history }
    }

    /// What has been typed.
    pub(super) fn line(&self) -> &str {
        self.input.value()
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: KeyEvent) -> Keyed {
        if key.kind == KeyEventKind::Release {
            return Keyed::Nothing;
        }
        let control = key.modifiers == KeyModifiers::CONTROL;
        match key.code {
            KeyCode::Enter => Keyed::Line(self.input.value_and_reset()),
            KeyCode::Char('j' | 'm') if control => Keyed::Line(self.input.value_and_reset()),
            KeyCode::Tab => Keyed::Tab,
            KeyCode::Char('c') if control => Keyed::End,
            KeyCode::Char('d') if control && self.line().is_empty() => Keyed::End,
            KeyCode::Char('l') if control => Keyed::Clear,
            KeyCode::Char('z') if control => Keyed::Suspend,
            KeyCode::Up => self.older(),
            KeyCode::Char('p') if control => self.older(),
            KeyCode::Down => self.newer(),
            KeyCode::Char('n') if control => self.newer(),
            _ => self.edit(key),
        }
    }

    fn edit(&mut self, key: KeyEvent) -> Keyed {
        let Some(request) = request(key) else { return Keyed::Nothing };
        if matches!(request, InputRequest::InsertChar(_) | InputRequest::Yank)
            && self.line().len() >= LINE_BYTES_MAX
        {
            return Keyed::Full;
        }
        self.input.handle(request).map_or(Keyed::Nothing, |_| Keyed::Changed)
    }

    /// Text was pasted: all of it is one line, whatever it has within.
    pub(super) fn paste(&mut self, text: &str) -> Keyed {
        let text = text.replace("\r\n", "\n").replace('\r', "\n").replace('\t', " ");
        let text: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
        if self.line().len() + text.len() > LINE_BYTES_MAX {
            return Keyed::Full;
        }
        let (before, behind) = self.around_cursor();
        let cursor = self.input.cursor() + text.chars().count();
        self.replace(format!("{before}{text}{behind}"), Some(cursor));
        Keyed::Changed
    }

    /// Completes the word before the cursor; several are left to choose from where it is the
    /// beginning of each.
    pub(super) fn complete(&mut self, nicks: &[String], peers: &[String]) -> Vec<String> {
        let (before, behind) = self.around_cursor();
        let Completion { line, choices } = complete(before, nicks, peers);
        let cursor = line.chars().count();
        self.replace(line + behind, Some(cursor));
        choices
    }

    fn older(&mut self) -> Keyed {
        let line = self.history.older(self.input.value()).map(str::to_owned);
        self.take_over(line)
    }

    fn newer(&mut self) -> Keyed {
        let line = self.history.newer();
        self.take_over(line)
    }

    fn take_over(&mut self, line: Option<String>) -> Keyed {
        let Some(line) = line else { return Keyed::Nothing };
        self.replace(line, None);
        Keyed::Changed
    }

    fn replace(&mut self, line: String, cursor: Option<usize>) {
        let input = mem::take(&mut self.input).with_value(line);
        self.input = match cursor {
            Some(cursor) => input.with_cursor(cursor),
            None => input,
        };
    }

    fn around_cursor(&self) -> (&str, &str) {
        let line = self.line();
        let at = line.char_indices().nth(self.input.cursor()).map_or(line.len(), |(at, _)| at);
        line.split_at(at)
    }

    /// As much as fits into that many columns around the cursor, and the column of the cursor
    /// within.
    pub(super) fn visible(&self, columns: usize) -> (String, usize) {
        let (before, behind) = self.around_cursor();
        // A column is for the cursor behind the text.
        let room = columns.saturating_sub(1);
        let (before, behind) = (one_line(before), one_line(behind));
        // What is behind the cursor has a third, if it takes as much.
        let kept = behind.width().min(room / 3);
        let start = fitting(before.graphemes(true).rev(), room - kept);
        let before = &before[before.len() - start..];
        let end = fitting(behind.graphemes(true), room - before.width());
        (format!("{before}{}", &behind[..end]), before.width())
    }
}

/// How many bytes of these fit into that many columns.
fn fitting<'a>(graphemes: impl Iterator<Item = &'a str>, columns: usize) -> usize {
    let mut left = columns;
    let fitting = graphemes.take_while(|grapheme| {
        let fits = grapheme.width() <= left;
        left = left.saturating_sub(grapheme.width());
        fits
    });
    fitting.map(str::len).sum()
}

fn one_line(text: &str) -> String {
    text.replace('\n', "↵")
}

/// The keys that a shell's line has, too.
fn request(key: KeyEvent) -> Option<InputRequest> {
    use InputRequest::{
        DeleteFromStart, DeleteNextChar, DeleteNextWord, DeletePrevChar, DeletePrevWord, DeleteTillEnd,
        GoToEnd, GoToNextChar, GoToNextWord, GoToPrevChar, GoToPrevWord, GoToStart, InsertChar, Yank,
    };
    const PLAIN: KeyModifiers = KeyModifiers::NONE;
    const SHIFT: KeyModifiers = KeyModifiers::SHIFT;
    const CONTROL: KeyModifiers = KeyModifiers::CONTROL;
    const ALT: KeyModifiers = KeyModifiers::ALT;
    Some(match (key.code, key.modifiers) {
        (KeyCode::Char(c), PLAIN | SHIFT) => InsertChar(c),
        (KeyCode::Left, PLAIN) | (KeyCode::Char('b'), CONTROL) => GoToPrevChar,
        (KeyCode::Right, PLAIN) | (KeyCode::Char('f'), CONTROL) => GoToNextChar,
        (KeyCode::Left, CONTROL | ALT) | (KeyCode::Char('b'), ALT) => GoToPrevWord,
        (KeyCode::Right, CONTROL | ALT) | (KeyCode::Char('f'), ALT) => GoToNextWord,
        (KeyCode::Home, _) | (KeyCode::Char('a'), CONTROL) => GoToStart,
        (KeyCode::End, _) | (KeyCode::Char('e'), CONTROL) => GoToEnd,
        (KeyCode::Backspace, ALT) | (KeyCode::Char('w'), CONTROL) => DeletePrevWord,
        (KeyCode::Backspace, _) | (KeyCode::Char('h'), CONTROL) => DeletePrevChar,
        (KeyCode::Delete, CONTROL) | (KeyCode::Char('d'), ALT) => DeleteNextWord,
        (KeyCode::Delete, _) | (KeyCode::Char('d'), CONTROL) => DeleteNextChar,
        (KeyCode::Char('k'), CONTROL) => DeleteTillEnd,
        (KeyCode::Char('u'), CONTROL) => DeleteFromStart,
        (KeyCode::Char('y'), CONTROL) => Yank,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> LineEditor {
        let mut editor = LineEditor::default();
        for c in text.chars() {
            editor.key(KeyCode::Char(c).into());
        }
        editor
    }

    fn control(editor: &mut LineEditor, c: char) -> Keyed {
        editor.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
    }

    #[test]
    fn enter_takes_the_line() {
        let mut editor = typed("hello");
        assert_eq!(editor.key(KeyCode::Enter.into()), Keyed::Line("hello".to_owned()));
        assert_eq!(editor.line(), "");
    }

    #[test]
    fn the_keys_of_a_shell_edit_the_line() {
        let mut editor = typed("one two");
        control(&mut editor, 'a');
        editor.key(KeyCode::Char('x').into());
        assert_eq!(editor.line(), "xone two");
        control(&mut editor, 'e');
        control(&mut editor, 'w');
        assert_eq!(editor.line(), "xone ");
        control(&mut editor, 'y');
        assert_eq!(editor.line(), "xone two");
        control(&mut editor, 'u');
        assert_eq!(editor.line(), "");
        control(&mut editor, 'y');
        control(&mut editor, 'b');
        control(&mut editor, 'k');
        assert_eq!(editor.line(), "xone tw");
    }

    #[test]
    fn what_looks_like_one_character_is_deleted_as_one() {
        let mut editor = typed("a👩‍👩‍👧");
        editor.key(KeyCode::Backspace.into());
        assert_eq!(editor.line(), "a");
    }

    #[test]
    fn ctrl_d_ends_on_an_empty_line_alone_and_ctrl_c_on_any() {
        let mut editor = typed("ab");
        control(&mut editor, 'a');
        assert_eq!(control(&mut editor, 'd'), Keyed::Changed);
        assert_eq!(control(&mut editor, 'c'), Keyed::End);
        assert_eq!(editor.line(), "b");
        assert_eq!(control(&mut typed(""), 'd'), Keyed::End);
    }

    #[test]
    fn a_paste_is_one_line_without_control_characters() {
        let mut editor = typed("()");
        control(&mut editor, 'b');
        assert_eq!(editor.paste("one\r\ntwo\tthree\x1b[2J"), Keyed::Changed);
        assert_eq!(editor.line(), "(one\ntwo three[2J)");
        assert_eq!(editor.visible(80), ("(one↵two three[2J)".to_owned(), 17));
    }

    #[test]
    fn a_line_has_an_end() {
        let mut editor = LineEditor::default();
        assert_eq!(editor.paste(&"x".repeat(LINE_BYTES_MAX + 1)), Keyed::Full);
        assert_eq!(editor.paste(&"x".repeat(LINE_BYTES_MAX)), Keyed::Changed);
        assert_eq!(editor.key(KeyCode::Char('x').into()), Keyed::Full);
        assert_eq!(editor.key(KeyCode::Backspace.into()), Keyed::Changed);
    }

    #[test]
    fn what_is_around_the_cursor_is_seen_of_a_long_line() {
        let mut editor = typed("0123456789");
        assert_eq!(editor.visible(20), ("0123456789".to_owned(), 10));
        assert_eq!(editor.visible(6), ("56789".to_owned(), 5));
        control(&mut editor, 'b');
        assert_eq!(editor.visible(6), ("56789".to_owned(), 4));
        control(&mut editor, 'a');
        assert_eq!(editor.visible(6), ("01234".to_owned(), 0));
        assert_eq!(editor.visible(0), (String::new(), 0));
    }

    #[test]
    fn wide_characters_are_not_cut_in_half() {
        let editor = typed("日本語");
        assert_eq!(editor.visible(7), ("日本語".to_owned(), 6));
        assert_eq!(editor.visible(6), ("本語".to_owned(), 4));
    }

    #[test]
    fn lines_before_are_recalled() {
        let mut editor = typed("draft");
        editor.history.push("hello").unwrap();
        editor.key(KeyCode::Up.into());
        assert_eq!(editor.line(), "hello");
        editor.key(KeyCode::Down.into());
        assert_eq!(editor.line(), "draft");
    }

    #[test]
    fn tab_completes_before_the_cursor() {
        let mut editor = typed("gol!");
        control(&mut editor, 'b');
        assert_eq!(editor.key(KeyCode::Tab.into()), Keyed::Tab);
        assert!(editor.complete(&["goldy".to_owned()], &[]).is_empty());
        assert_eq!(editor.line(), "goldy: !");
        editor.key(KeyCode::Char('x').into());
        assert_eq!(editor.line(), "goldy: x!");
    }
}
