//! What a person types: something to say, or a command behind a slash. Carries nothing out.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::PathBuf;

use thiserror::Error;

/// A line that was typed, or came by a pipe.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input<'a> {
    /// Nothing but spaces.
    Nothing,
    /// To be said as it is; `/me waves` is said with its slash [whispernet: 1].
    Say(Cow<'a, str>),
    /// A command.
    Do(Command<'a>),
}

/// A command, other than those that say something.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Connect(&'a str),
    Disconnect(&'a str),
    Peers,
    ShowNick,
    Nick(&'a str),
    Send(PathBuf),
    Blocked,
    ClearBlocked,
    Help,
    Quit,
}

/// A command that cannot be carried out as it was typed.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum Mistake {
    /// There is no such command.
    #[error("there is no {typed}{}; /help lists what there is, // begins a line that starts with a slash",
        nearest.map(|nearest| format!(", did you mean {nearest}?")).unwrap_or_default())]
    Unknown {
        /// The first word.
        typed: String,
        /// The command that is nearest to it, if one is near.
        nearest: Option<&'static str>,
    },
    /// Something is missing behind it, or too much is there.
    #[error("usage: {0}")]
    Usage(Usage),
}

/// A command as `/help` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) name: &'static str,
    arguments: &'static str,
    what: &'static str,
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)?;
        if self.arguments.is_empty() { Ok(()) } else { write!(f, " {}", self.arguments) }
    }
}

/// All commands, in the order in which they are shown.
pub(super) const COMMANDS: &[Usage] = &[
    usage("/connect", "ADDR", "dial a peer: HOST:PORT"),
    usage("/disconnect", "ADDR", "end the connection to a peer, and dial it no more"),
    usage("/peers", "", "list the peers"),
    usage("/nick", "[NAME]", "take another name, or show yours"),
    usage("/me", "TEXT", "say what you do: /me waves"),
    usage("/send", "PATH", "send a file to everybody"),
    usage("/block", "[clear]", "list who is refused for sending too much, or let all in again"),
    usage("/help", "", "show this"),
    usage("/quit", "", "say goodbye"),
];

const fn usage(name: &'static str, arguments: &'static str, what: &'static str) -> Usage {
    Usage { name, arguments, what }
}

/// How many wrong letters a command is recognised by.
const NEAR: usize = 2;

/// Reads a line.
pub(super) fn parse(line: &str) -> Result<Input<'_>, Mistake> {
    let said = line.trim();
    if said.is_empty() {
        return Ok(Input::Nothing);
    }
    let Some(behind) = said.strip_prefix('/') else { return Ok(Input::Say(said.into())) };
    if behind.starts_with('/') {
        return Ok(Input::Say(behind.into()));
    }
    let (name, rest) = said.split_once(char::is_whitespace).unwrap_or((said, ""));
    let Some(usage) = COMMANDS.iter().find(|usage| usage.name == name) else {
        return Err(Mistake::Unknown { typed: name.to_owned(), nearest: nearest(name) });
    };
    if *usage == usage_of("/me") && !rest.is_empty() {
        return Ok(Input::Say(said.into()));
    }
    command(name, rest.trim()).map(Input::Do).ok_or(Mistake::Usage(*usage))
}

/// `None` when what is behind it does not fit.
fn command<'a>(name: &str, rest: &'a str) -> Option<Command<'a>> {
    let is_word = !rest.is_empty() && !rest.contains(char::is_whitespace);
    Some(match (name, rest) {
        ("/connect", addr) if is_word => Command::Connect(addr),
        ("/disconnect", addr) if is_word => Command::Disconnect(addr),
        ("/peers", "") => Command::Peers,
        ("/nick", "") => Command::ShowNick,
        ("/nick", nick) => Command::Nick(nick),
        ("/send", path) if !path.is_empty() => Command::Send(file_path(path)),
        ("/block", "") => Command::Blocked,
        ("/block", "clear") => Command::ClearBlocked,
        ("/help", "") => Command::Help,
        ("/quit", "") => Command::Quit,
        _ => return None,
    })
}

fn usage_of(name: &str) -> Usage {
    *COMMANDS.iter().find(|usage| usage.name == name).expect("it is in the table")
}

fn nearest(typed: &str) -> Option<&'static str> {
    let typed = typed.to_lowercase();
    if typed == "/" {
        return None;
    }
    let distances =
        COMMANDS.iter().map(|usage| (strsim::damerau_levenshtein(&typed, usage.name), usage.name));
    // `/p` is near to every short word, and meant for one.
    let begun = COMMANDS.iter().map(|usage| usage.name).find(|name| name.starts_with(&typed));
    let near = distances.min().filter(|(distance, _)| *distance <= NEAR).map(|(_, name)| name);
    begun.or(near)
}

/// A path as a person types it, or as a terminal writes one that was dropped on it: within quotes,
/// or with a backslash before what is special to a shell; `~` is the home folder.
fn file_path(typed: &str) -> PathBuf {
    for quote in ['\'', '"'] {
        if let Some(path) = typed.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return PathBuf::from(path);
        }
    }
    let mut path = String::with_capacity(typed.len());
    let mut characters = typed.chars();
    while let Some(c) = characters.next() {
        path.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(below), Some(home)) => home.join(below),
        _ => PathBuf::from(path),
    }
}

/// What `/help` shows.
pub(super) fn help() -> String {
    let width = COMMANDS.iter().map(|usage| usage.to_string().len()).max().unwrap_or_default();
    let mut text = String::new();
    for usage in COMMANDS {
        let _ = writeln!(text, "{:width$}  {}", usage.to_string(), usage.what);
    }
    text + "Anything else is said to everybody; // says a line that begins with a slash."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn says(line: &str, expected: &str) {
        assert_eq!(parse(line), Ok(Input::Say(expected.into())), "{line:?}");
    }

    #[track_caller]
    fn does(line: &str, expected: Command<'_>) {
        assert_eq!(parse(line), Ok(Input::Do(expected)), "{line:?}");
    }

    #[track_caller]
    fn is_wrong(line: &str, expected: &str) {
        assert_eq!(parse(line).unwrap_err().to_string(), expected, "{line:?}");
    }

    #[test]
    fn what_begins_with_no_slash_is_said() {
        says("hello", "hello");
        says("  hello, world  ", "hello, world");
        says("either/or", "either/or");
        says("日本語", "日本語");
        says("two\nlines", "two\nlines");
    }

    #[test]
    fn a_line_of_nothing_is_nothing() {
        for line in ["", "  ", "\t", "\n"] {
            assert_eq!(parse(line), Ok(Input::Nothing), "{line:?}");
        }
    }

    #[test]
    fn two_slashes_say_a_line_that_begins_with_one() {
        says("//etc/passwd", "/etc/passwd");
        says("//", "/");
        says("///", "//");
    }

    /// [whispernet: 1]
    #[test]
    fn an_action_is_said_as_it_is_typed() {
        says("/me waves", "/me waves");
        is_wrong("/me", "usage: /me TEXT");
    }

    #[test]
    fn commands_are_understood() {
        does("/connect 192.168.1.5:55555", Command::Connect("192.168.1.5:55555"));
        does("  /disconnect\t[::1]:5 ", Command::Disconnect("[::1]:5"));
        does("/peers", Command::Peers);
        does("/nick", Command::ShowNick);
        does("/nick goldy the second", Command::Nick("goldy the second"));
        does("/block", Command::Blocked);
        does("/block clear", Command::ClearBlocked);
        does("/help", Command::Help);
        does("/quit", Command::Quit);
    }

    #[test]
    fn a_command_with_too_little_or_too_much_behind_it_shows_its_usage() {
        is_wrong("/connect", "usage: /connect ADDR");
        is_wrong("/connect a b", "usage: /connect ADDR");
        is_wrong("/peers all", "usage: /peers");
        is_wrong("/send", "usage: /send PATH");
        is_wrong("/block 10.0.0.1", "usage: /block [clear]");
    }

    #[test]
    fn an_unknown_command_names_the_nearest() {
        for (typed, nearest) in [
            ("/conect", Some("/connect")),
            ("/quti", Some("/quit")),
            ("/HELP", Some("/help")),
            ("/p", Some("/peers")),
            ("/disc", Some("/disconnect")),
            ("/exterminate", None),
            ("/", None),
        ] {
            let mistake = parse(typed).unwrap_err();
            assert_eq!(mistake, Mistake::Unknown { typed: typed.to_owned(), nearest });
        }
        is_wrong(
            "/conect 1.2.3.4:5",
            "there is no /conect, did you mean /connect?; /help lists what there is, // begins a line that \
             starts with a slash",
        );
    }

    #[test]
    fn a_path_may_be_quoted_or_escaped_as_terminals_do_it() {
        let home = std::env::home_dir().unwrap();
        for (typed, expected) in [
            ("cat.gif", "cat.gif".into()),
            ("my cat.gif", "my cat.gif".into()),
            ("my\\ cat.gif", "my cat.gif".into()),
            ("'/tmp/my cat.gif'", "/tmp/my cat.gif".into()),
            ("\"a'b.txt\"", "a'b.txt".into()),
            ("~/cat.gif", home.join("cat.gif")),
        ] {
            does(&format!("/send {typed}"), Command::Send(expected));
        }
    }

    #[test]
    fn help_shows_every_command() {
        let help = help();
        for usage in COMMANDS {
            assert!(help.contains(&usage.to_string()) && parse(usage.name) != Ok(Input::Nothing), "{help}");
        }
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
}
