//! Messages and notices as lines of text: for a terminal, wrapped and in colours, or for a pipe,
//! one message a line. Prints nothing and asks no clock.
//!
//! Peers send what they like, so all of it goes through `safe_text`, and nothing that they say looks
//! like anything else: the mark of a verified nick stands where no nick reaches, a nick has no angle
//! brackets, and no line of a message begins at the edge but its first.

use jiff::tz::TimeZone;
use textwrap::core::display_width;
use watchtower_whisper::protocol::safe_text::{safe_body, safe_file_name, safe_nick};
use watchtower_whisper::protocol::{Mark, Shown};

use super::palette::Look;

/// How much of a message a terminal shows, in columns: some fifty lines.
const MESSAGE_COLUMNS_MAX: usize = 4_000;

/// How far the lines of a message but its first are indented: behind the time.
const INDENT: &str = "      ";

/// What the output is.
#[derive(Debug, Clone)]
pub(super) struct Form {
    /// How wide the terminal is; `None` when there is none.
    pub(super) columns: Option<usize>,
    /// Whether there are colours.
    pub(super) colours: bool,
    /// Where the reader lives.
    pub(super) zone: TimeZone,
}

/// How a notice is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// To be known.
    Notice,
    /// To be looked at.
    Warning,
}

/// Who a message is from, for the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From<'a> {
    /// Somebody else; it may name the reader, who has that nick.
    Other {
        /// The reader.
        reader: Option<&'a str>,
    },
    /// The reader.
    Oneself,
}

/// A message, without the end of its last line. It was sent or came at its time, and is shown at
/// `now`: the day is said where it is another.
pub(super) fn message(shown: &Shown, from: From<'_>, form: &Form, now: jiff::Timestamp) -> String {
    let time = time_of_day(shown, form, now);
    let name = name(shown);
    let (action, text) = text(shown, form.columns.map_or(usize::MAX, |_| MESSAGE_COLUMNS_MAX));
    let mark = match (from, shown.mark) {
        (From::Oneself, _) | (_, Mark::Unverified) => " ",
        (_, Mark::Verified) => "✓",
        (_, Mark::ChangedKey) => "!",
    };
    // A name of several words would run into what follows it.
    let (before, behind) = match action {
        true if name.contains(' ') => ("* <", "> "),
        true => ("* ", " "),
        false => ("<", "> "),
    };
    let head = format!("{time} {mark}{before}{name}{behind}");
    let mark_look = if shown.mark == Mark::ChangedKey { Look::Warning } else { Look::Good };
    let painted_head = [
        Look::Dim.paint(&time, form.colours),
        " ".to_owned(),
        mark_look.paint(mark, form.colours && mark != " "),
        before.to_owned(),
        Look::of_nick(&name).paint(&name, form.colours),
        behind.to_owned(),
    ]
    .concat();
    let names_reader = matches!(from, From::Other { reader: Some(reader) } if names(&text, reader));
    let paint = |line: &str| Look::Bold.paint(line, form.colours && names_reader);
    match form.columns {
        None => painted_head + &paint(&text),
        Some(columns) => wrapped(&head, &painted_head, &text, columns, paint),
    }
}

/// The text behind its head, broken into lines.
fn wrapped(
    head: &str,
    painted_head: &str,
    text: &str,
    columns: usize,
    paint: impl Fn(&str) -> String,
) -> String {
    if display_width(head) + 8 > columns {
        // There is no room beside the head: colours would only get in the way of breaking it.
        return textwrap::fill(&format!("{head}{text}"), options(columns, "", "  "));
    }
    let lines = textwrap::wrap(text, options(columns, head, INDENT));
    let mut shown = String::new();
    for (index, line) in lines.iter().enumerate() {
        if index == 0 {
            shown += painted_head;
            shown += &paint(line.strip_prefix(head).unwrap_or_default());
        } else {
            shown += "\n";
            shown += INDENT;
            shown += &paint(line.strip_prefix(INDENT).unwrap_or_default());
        }
    }
    shown
}

fn options<'a>(columns: usize, first: &'a str, further: &'a str) -> textwrap::Options<'a> {
    // The last column stays free: what a terminal does behind it differs.
    textwrap::Options::new(columns.saturating_sub(1).max(1))
        .initial_indent(first)
        .subsequent_indent(further)
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
}

/// When it was sent, on the reader's clock.
fn time_of_day(shown: &Shown, form: &Form, now: jiff::Timestamp) -> String {
    let sent = i64::try_from(shown.time.as_millis()).ok();
    let Some(sent) = sent.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok()) else {
        return "--:--".to_owned();
    };
    let sent = sent.to_zoned(form.zone.clone());
    let is_today = sent.date() == now.to_zoned(form.zone.clone()).date();
    let pattern = match form.columns {
        None => "%Y-%m-%d %H:%M:%S",
        Some(_) if is_today => "%H:%M",
        Some(_) => "%Y-%m-%d %H:%M",
    };
    sent.strftime(pattern).to_string()
}

/// What a message's sender is called: its nick, or else its address.
pub(super) fn name(shown: &Shown) -> String {
    let nick = shown.nick.as_deref().and_then(safe_nick);
    let name = nick.or_else(|| shown.addr.as_deref().and_then(safe_nick));
    as_name(&name.unwrap_or_else(|| "somebody".to_owned()))
}

/// A nick that was made safe, without the brackets that end a name.
pub(super) fn as_name(nick: &str) -> String {
    nick.replace('<', "‹").replace('>', "›")
}

/// What is said, and whether it is an action [whispernet: 1].
fn text(shown: &Shown, columns_max: usize) -> (bool, String) {
    if let Some(file) = &shown.file {
        let bytes = indicatif::HumanBytes(file.contents.len() as u64);
        return (true, format!("sends {} ({bytes})", safe_file_name(&file.name)));
    }
    match shown.body.strip_prefix("/me ") {
        Some(action) => (true, safe_body(action, columns_max)),
        None => (false, safe_body(&shown.body, columns_max)),
    }
}

/// Whether that nick stands in the text as a word of its own.
fn names(text: &str, nick: &str) -> bool {
    let (text, nick) = (text.to_lowercase(), nick.to_lowercase());
    let is_apart = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    text.match_indices(&nick).any(|(start, found)| {
        is_apart(text[..start].chars().next_back()) && is_apart(text[start + found.len()..].chars().next())
    })
}

/// Something that the program itself says on a terminal, without the end of its last line.
pub(super) fn notice(text: &str, tone: Tone, form: &Form) -> String {
    let (mark, look) = match tone {
        Tone::Notice => ("-- ", Look::Dim),
        Tone::Warning => ("!! ", Look::Warning),
    };
    let lines = text.lines().flat_map(|line| match form.columns {
        Some(columns) => textwrap::wrap(line, options(columns, mark, "   ")),
        None => vec![format!("{mark}{line}").into()],
    });
    lines.map(|line| look.paint(&line, form.colours)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use watchtower_client::Timestamp;
    use watchtower_whisper::protocol::File;

    use super::*;

    /// 2026-11-26 20:04:05 UTC.
    const TIME: u64 = 1_795_723_445_000;

    const OTHER: From<'_> = From::Other { reader: None };

    fn form(columns: Option<usize>) -> Form {
        Form { columns, colours: false, zone: TimeZone::UTC }
    }

    fn shown(nick: &str, body: &str) -> Shown {
        Shown {
            id: "1".to_owned(),
            addr: Some("192.168.1.5:55555".to_owned()),
            nick: (!nick.is_empty()).then(|| nick.to_owned()),
            body: body.to_owned(),
            time: Timestamp::from_millis(TIME),
            file: None,
            part: None,
            key: None,
            mark: Mark::Unverified,
        }
    }

    fn render(shown: &Shown, form: &Form) -> String {
        message(shown, OTHER, form, jiff::Timestamp::from_millisecond(TIME as i64).unwrap())
    }

    #[track_caller]
    fn check(nick: &str, body: &str, expected: &str) {
        assert_eq!(render(&shown(nick, body), &form(Some(80))), expected);
    }

    #[test]
    fn a_message_is_its_time_its_nick_and_its_text() {
        check("goldy", "hello", "20:04  <goldy> hello");
        check("日本", "こんにちは", "20:04  <日本> こんにちは");
    }

    #[test]
    fn without_a_nick_the_address_stands_for_it() {
        check("", "hello", "20:04  <192.168.1.5:55555> hello");
        let nobody = Shown { addr: None, ..shown("\u{200b}", "hello") };
        assert_eq!(render(&nobody, &form(Some(80))), "20:04  <somebody> hello");
    }

    /// [whispernet: 1]
    #[test]
    fn an_action_is_told() {
        check("goldy", "/me waves", "20:04  * goldy waves");
        check("goldy", "/men", "20:04  <goldy> /men");
    }

    #[test]
    fn the_day_is_said_where_it_is_not_today() {
        let now = jiff::Timestamp::from_millisecond(TIME as i64 + 24 * 3_600_000).unwrap();
        let told = message(&shown("goldy", "hello"), OTHER, &form(Some(80)), now);
        assert_eq!(told, "2026-11-26 20:04  <goldy> hello");
        let never = Shown { time: Timestamp::from_millis(u64::MAX), ..shown("goldy", "hello") };
        assert_eq!(render(&never, &form(Some(80))), "--:--  <goldy> hello");
    }

    #[test]
    fn in_a_pipe_a_message_is_one_line_however_long() {
        let told = render(&shown("goldy", &"x ".repeat(10_000)), &form(None));
        assert!(told.starts_with("2026-11-26 20:04:05  <goldy> x x x"));
        assert_eq!((told.lines().count(), told.len()), (1, 29 + 20_000));
    }

    /// [whispernet: 13]
    #[test]
    fn a_mark_stands_where_no_nick_reaches() {
        let mut goldy = shown("goldy", "hi");
        goldy.mark = Mark::Verified;
        assert_eq!(render(&goldy, &form(Some(80))), "20:04 ✓<goldy> hi");
        goldy.mark = Mark::ChangedKey;
        assert_eq!(render(&goldy, &form(Some(80))), "20:04 !<goldy> hi");
        check("✓goldy", "hi", "20:04  <✓goldy> hi");
    }

    #[test]
    fn what_peers_send_reaches_no_terminal_as_a_control_character() {
        check("\x1b[31mgoldy", "\x1b[2J\x07", "20:04  <[31mgoldy> \u{fffd}[2J\u{fffd}");
        check("gol\u{202e}dy", "\u{202e}evil", "20:04  <goldy> evil");
    }

    #[test]
    fn a_nick_ends_where_its_bracket_is_and_an_action_where_its_name_is() {
        check("goldy> hello <x", "bye", "20:04  <goldy› hello ‹x> bye");
        check("goldy waves and", "/me sings", "20:04  * <goldy waves and> sings");
    }

    #[test]
    fn lines_after_the_first_are_indented_so_that_nobody_writes_one_of_anothers() {
        let told = render(&shown("goldy", &"word ".repeat(20)), &form(Some(40)));
        let further = "      word word word word word word\n".repeat(2);
        assert_eq!(told, format!("20:04  <goldy> word word word word word\n{further}      word word word"));
        for body in ["x".repeat(200), format!("a\n{}", "日本".repeat(50)), "a\u{a0}".repeat(100)] {
            for columns in [1, 10, 20, 40, 80] {
                let told = render(&shown("goldy", &body), &form(Some(columns)));
                for line in told.lines().skip(1) {
                    assert!(line.starts_with("  "), "{told}");
                }
                let widest = told.lines().map(display_width).max().unwrap();
                assert!(widest < columns || columns == 1, "{columns}: {told}");
            }
        }
    }

    #[test]
    fn a_huge_message_is_cut_on_a_terminal() {
        let told = render(&shown("goldy", &"x".repeat(1_000_000)), &form(Some(80)));
        assert!(told.ends_with('…') && told.lines().count() < 60, "{}", told.lines().count());
    }

    #[test]
    fn a_file_is_told_by_its_name_and_size() {
        let mut cat = shown("goldy", "../cat.gif");
        let contents = vec![0; 2048].into();
        cat.file = Some(File { name: "cat.gif".to_owned(), mime_type: "image/gif".to_owned(), contents });
        assert_eq!(render(&cat, &form(Some(80))), "20:04  * goldy sends cat.gif (2.00 KiB)");
    }

    #[test]
    fn colours_are_around_the_same_text() {
        let mut coloured = form(Some(80));
        coloured.colours = true;
        let mut goldy = shown("goldy", "hi phil!");
        goldy.mark = Mark::Verified;
        let now = jiff::Timestamp::from_millisecond(TIME as i64).unwrap();
        let told = message(&goldy, From::Other { reader: Some("Phil") }, &coloured, now);
        assert_eq!(
            told,
            "\x1b[2m20:04\x1b[0m \x1b[38;5;28m✓\x1b[0m<\x1b[38;5;32mgoldy\x1b[0m> \x1b[1mhi phil!\x1b[0m"
        );
    }

    #[test]
    fn a_nick_is_named_where_it_stands_as_a_word() {
        assert!(names("hi Phil", "phil") && names("phil: hi", "phil") && names("(phil)", "PHIL"));
        assert!(!names("philosophy", "phil") && !names("dauphil", "phil"));
        assert!(names("philo phil", "phil"));
    }

    #[test]
    fn notices_are_told_apart_from_messages() {
        assert_eq!(
            notice("connected\nto somebody", Tone::Notice, &form(Some(80))),
            "-- connected\n-- to somebody"
        );
        assert_eq!(notice(&"word ".repeat(4), Tone::Warning, &form(Some(15))), "!! word word\n   word word");
    }
}
