//! What peers send, made safe to show and to name a file by.
//!
//! A terminal acts on control characters, a reader is misled by text that
//! reverses its neighbours, and an invisible character makes two names of one.
//! Knows no colours and no HTML: a page escapes what comes from here like any
//! other text, and should isolate its direction (`<bdi>`).

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How wide a nick is at most, in columns of a terminal.
pub const NICK_COLUMNS_MAX: usize = 32;

/// How many bytes a file's name has at most: file systems take 255, and there
/// must be room for a number behind it.
pub const FILE_NAME_BYTES_MAX: usize = 120;

/// How many bytes of a file's name that is too long are kept from its end, if
/// they are an extension.
const EXTENSION_BYTES_MAX: usize = 16;

/// How many characters without a width may follow one that has one. Scripts
/// need a few; piled up they cover the lines around.
const MARKS_MAX: usize = 4;

/// What stands for the end of a line.
const LINE_END: char = '↵';

/// What stands for what was cut off.
const CUT: char = '…';

/// A `Body` as one line of at most that many columns. Ends of lines become
/// `↵`: nobody writes a line in another's name.
pub fn safe_body(text: &str, columns_max: usize) -> String {
    let text = text.replace("\r\n", "\n");
    let visible = text.chars().filter_map(|c| match c {
        '\t' => Some(' '),
        c if is_line_end(c) => Some(LINE_END),
        c if c.is_control() => Some(char::REPLACEMENT_CHARACTER),
        c if is_unseen(c) => None,
        c => Some(c),
    });
    fit(visible, columns_max)
}

/// A nick of at most [`NICK_COLUMNS_MAX`] columns, the same for all nicks that
/// look the same but for spaces and invisible characters. `None` when nothing
/// is left.
pub fn safe_nick(text: &str) -> Option<String> {
    let visible: String = text.chars().filter(|c| !is_unseen(*c) && !is_joiner(*c)).collect();
    let words = visible.split(|c: char| c.is_whitespace() || c.is_control());
    // A word of marks alone has nothing to stand on.
    let words: Vec<&str> = words.filter(|word| word.width() > 0).collect();
    let nick = fit(words.join(" ").chars(), NICK_COLUMNS_MAX);
    (!nick.is_empty()).then_some(nick)
}

/// The name of the file that a `Body` names: its last path component
/// ([whispernet: 10]) without what is special to a shell's user or any file
/// system. Never empty, never hidden, never more than [`FILE_NAME_BYTES_MAX`]
/// bytes.
pub fn safe_file_name(body: &str) -> String {
    let last = body.rsplit(['/', '\\']).next().unwrap_or_default();
    let visible = last.chars().filter(|c| !is_unseen(*c) && !is_joiner(*c) && !c.is_control());
    let plain = visible.map(|c| match c {
        c if c.is_whitespace() => ' ',
        '<' | '>' | ':' | '"' | '|' | '?' | '*' => '_',
        c => c,
    });
    let name = fit(plain, usize::MAX);
    // A leading dot hides it, a leading dash makes it an option, and some file
    // systems drop trailing dots and spaces.
    let name = name.trim_start_matches(['.', '-', ' ']).trim_end_matches(['.', ' ']);
    let name = shorten(name);
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    let is_device = DEVICES.iter().any(|device| stem.eq_ignore_ascii_case(device));
    match name.as_str() {
        "" => "file".to_owned(),
        _ if is_device => format!("_{name}"),
        _ => name,
    }
}

/// Names that mean a device on some systems, whatever extension follows.
const DEVICES: [&str; 22] = [
    "CON", "PRN", "AUX", "NUL", "COM1", "COM2", "COM3", "COM4", "COM5", "COM6", "COM7", "COM8", "COM9",
    "LPT1", "LPT2", "LPT3", "LPT4", "LPT5", "LPT6", "LPT7", "LPT8", "LPT9",
];

/// A name within the limit, with its extension if that is a short one.
fn shorten(name: &str) -> String {
    // Room for the `_` before a device's name.
    let bytes_max = FILE_NAME_BYTES_MAX - 1;
    if name.len() <= bytes_max {
        return name.to_owned();
    }
    let extension = name.rfind('.').map_or("", |dot| &name[dot..]);
    let extension = if extension.len() <= EXTENSION_BYTES_MAX { extension } else { "" };
    let stem = &name[..name.floor_char_boundary(bytes_max - extension.len())];
    format!("{}{extension}", stem.trim_end_matches(['.', ' ']))
}

/// As much as fits into that many columns, without piles of marks and without
/// marks that belong to what stands before.
fn fit(text: impl IntoIterator<Item = char>, columns_max: usize) -> String {
    let mut fitting = String::new();
    let mut columns = 0;
    let mut marks = MARKS_MAX;
    // Where to cut, should more come than fits: the cut is a column wide.
    let mut cut_at = 0;
    for c in text {
        match c.width().unwrap_or(0) {
            0 if marks >= MARKS_MAX => continue,
            0 => marks += 1,
            width => {
                marks = 0;
                columns += width;
            }
        }
        if columns > columns_max {
            fitting.truncate(cut_at);
            fitting.push(CUT);
            return fitting;
        }
        fitting.push(c);
        if columns < columns_max {
            cut_at = fitting.len();
        }
    }
    fitting
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Joins or parts its neighbours without being seen. Scripts and emoji need
/// these; names do not.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}')
}

/// Changes the direction of its neighbours, or is not seen at all.
fn is_unseen(c: char) -> bool {
    matches!(c,
        // Directions.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
        // Fillers, soft hyphens, spaces and operators of no width.
        | '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_body(body: &str, expected: &str) {
        assert_eq!(safe_body(body, 80), expected, "{body:?}");
    }

    #[test]
    fn plain_text_of_any_script_stays_as_it_is() {
        for text in ["Hello, world!", "Grüße", "नमस्ते", "שלום", "日本語", "👩‍👩‍👧 ❤️", "می‌خواهم", "/me waves", ""]
        {
            check_body(text, text);
        }
    }

    #[test]
    fn a_terminal_is_told_nothing() {
        check_body("\x1b[2J\x1b]0;title\x07", "\u{fffd}[2J\u{fffd}]0;title\u{fffd}");
        check_body("a\0b\u{7f}c\u{9b}31m", "a\u{fffd}b\u{fffd}c\u{fffd}31m");
        check_body("a\tb", "a b");
    }

    #[test]
    fn nobody_writes_a_line_in_anothers_name() {
        check_body("hi\n<goldy> bye\r\nx\ry\u{2028}z\u{85}", "hi↵<goldy> bye↵x↵y↵z↵");
    }

    #[test]
    fn text_does_not_turn_round_what_stands_beside_it() {
        check_body("exe.\u{202e}gpj\u{202c}", "exe.gpj");
        check_body("\u{2067}a\u{2069}\u{200f}b\u{61c}", "ab");
    }

    #[test]
    fn marks_do_not_pile_up_or_reach_what_stands_before() {
        check_body(&format!("a{}b", "\u{301}".repeat(100)), &format!("a{}b", "\u{301}".repeat(4)));
        check_body("\u{301}a", "a");
    }

    #[test]
    fn a_body_is_cut_to_its_columns() {
        for (body, columns, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("ab\u{301}", 2, "ab\u{301}"),
            ("abc", 1, "…"),
            ("日本", 4, "日本"),
            ("日本語", 4, "日…"),
            ("日本語", 5, "日本…"),
        ] {
            assert_eq!(safe_body(body, columns), expected, "{body:?}");
        }
    }

    #[track_caller]
    fn check_nick(nick: &str, expected: Option<&str>) {
        assert_eq!(safe_nick(nick).as_deref(), expected, "{nick:?}");
    }

    #[test]
    fn nicks_that_look_the_same_are_the_same() {
        for nick in ["goldy", " goldy\t", "gol\u{200b}dy", "goldy\u{200d}", "\u{202e}goldy", "gol\u{ad}dy\n"]
        {
            check_nick(nick, Some("goldy"));
        }
        check_nick("a\u{3000} \x1b b", Some("a b"));
    }

    #[test]
    fn a_nick_of_nothing_is_none() {
        for nick in ["", " \t", "\u{200b}\u{2060}", "\u{301}", "\0", "\u{3164}\u{2800}"] {
            check_nick(nick, None);
        }
    }

    #[test]
    fn marks_that_stand_on_nothing_are_no_word_of_a_nick() {
        check_nick("\u{1dc0}\0®", Some("®"));
        check_nick("a \u{301} b", Some("a b"));
    }

    #[test]
    fn a_huge_nick_is_cut() {
        check_nick(&"x".repeat(32), Some(&"x".repeat(32)));
        check_nick(&"x".repeat(1_000_000), Some(&format!("{}…", "x".repeat(31))));
        check_nick(&"日".repeat(20), Some(&format!("{}…", "日".repeat(15))));
    }

    /// [whispernet: 10]
    #[test]
    fn a_file_is_named_by_its_last_component_alone() {
        for (body, expected) in [
            ("cat.gif", "cat.gif"),
            ("/home/phil/cat.gif", "cat.gif"),
            ("../../../etc/passwd", "passwd"),
            ("..\\..\\autoexec.bat", "autoexec.bat"),
            ("C:\\x/y\\z.txt", "z.txt"),
            ("C:z.txt", "C_z.txt"),
            ("..", "file"),
            (".", "file"),
            ("", "file"),
            ("a/", "file"),
            ("/me sends", "me sends"),
            (".bashrc", "bashrc"),
            ("-rf", "rf"),
            (" . cat", "cat"),
            ("cat.gif. . ", "cat.gif"),
            ("a\0b\n.txt", "ab.txt"),
            ("fdp.\u{202e}exe", "fdp.exe"),
            ("a<b>c:\"|?*", "a_b_c_____"),
            ("nul", "_nul"),
            ("Com1.txt", "_Com1.txt"),
            ("console.txt", "console.txt"),
            ("Grüße 日本.txt", "Grüße 日本.txt"),
        ] {
            assert_eq!(safe_file_name(body), expected, "{body:?}");
        }
    }

    #[test]
    fn a_long_file_name_keeps_its_extension() {
        assert_eq!(safe_file_name(&format!("{}.tar", "x".repeat(500))), format!("{}.tar", "x".repeat(115)));
        let long_extension = format!("x.{}", "y".repeat(500));
        assert_eq!(safe_file_name(&long_extension), long_extension[..119]);
        assert_eq!(safe_file_name(&"ü".repeat(500)), "ü".repeat(59));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_safe_to_show(text in "\\PC{0,40}|(?s:.){0,200}", columns in 1..50_usize) {
            let body = safe_body(&text, columns);
            prop_assert!(!body.chars().any(|c| c.is_control() || is_unseen(c) || is_line_end(c)));
            prop_assert!(body.chars().map(|c| c.width().unwrap_or(0)).sum::<usize>() <= columns);
            prop_assert_eq!(safe_body(&body, columns), body);
        }

        #[test]
        fn a_nick_made_safe_is_safe_already(text in "(?s:.){0,100}") {
            if let Some(nick) = safe_nick(&text) {
                prop_assert!(nick.chars().map(|c| c.width().unwrap_or(0)).sum::<usize>() <= NICK_COLUMNS_MAX);
                prop_assert!(!nick.chars().any(|c| c.is_control() || is_unseen(c)));
                prop_assert_eq!(safe_nick(&nick), Some(nick));
            }
        }

        #[test]
        fn a_file_name_is_one_component(text in "([a-zA-Z./\\\\ :-]|(?s:.)){0,300}") {
            let name = safe_file_name(&text);
            prop_assert!(!name.is_empty() && name.len() <= FILE_NAME_BYTES_MAX);
            prop_assert!(!name.contains(['/', '\\', ':', '\0']) && !name.starts_with(['.', '-']));
            prop_assert!(!name.ends_with(['.', ' ']));
        }
    }
}
