//! What the Tab key makes of the beginning of a word: a command, a peer's address behind
//! `/connect` and `/disconnect`, and elsewhere a nick.

use super::slash::COMMANDS;

/// A line completed up to the cursor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Completion {
    /// The line before the cursor.
    pub(super) line: String,
    /// What it might go on as, where that is not clear.
    pub(super) choices: Vec<String>,
}

/// Completes what stands before the cursor.
pub(super) fn complete(before: &str, nicks: &[String], peers: &[String]) -> Completion {
    let start = before
        .rfind(char::is_whitespace)
        .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let (ahead, word) = before.split_at(start);
    let command = ahead.trim();
    if ahead.is_empty() && word.starts_with('/') {
        let names: Vec<_> = COMMANDS.iter().map(|usage| usage.name.to_owned()).collect();
        return choose(ahead, word, &names, " ");
    }
    match command {
        "/connect" | "/disconnect" => choose(ahead, word, peers, ""),
        _ if word.is_empty() => Completion { line: before.to_owned(), choices: Vec::new() },
        // Whom a line begins with, it speaks to.
        "" => choose(ahead, word, nicks, ": "),
        _ => choose(ahead, word, nicks, " "),
    }
}

/// The word as all that begin with it have it, and `behind` if that is one.
fn choose(ahead: &str, word: &str, all: &[String], behind: &str) -> Completion {
    let begins = |name: &&String| name.to_lowercase().starts_with(&word.to_lowercase());
    let mut fitting: Vec<&String> = all.iter().filter(begins).collect();
    fitting.sort();
    fitting.dedup();
    match fitting[..] {
        [] => Completion { line: format!("{ahead}{word}"), choices: Vec::new() },
        [one] => Completion { line: format!("{ahead}{one}{behind}"), choices: Vec::new() },
        [first, ..] => {
            let is_shared = |end: &usize| fitting.iter().all(|name| name.get(..*end) == first.get(..*end));
            let ends = first.char_indices().map(|(at, c)| at + c.len_utf8());
            let shared = ends.take_while(is_shared).last().unwrap_or_default();
            // Where nicks differ in case alone, nothing that was typed is taken back.
            let word = if shared >= word.len() { &first[..shared] } else { word };
            let choices = fitting.into_iter().cloned().collect();
            Completion { line: format!("{ahead}{word}"), choices }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: &str, line: &str, choices: &[&str]) {
        let nicks = ["goldy", "Phil", "philippa", "日本"].map(str::to_owned);
        let peers = ["10.0.0.1:5", "10.0.0.2:5"].map(str::to_owned);
        let choices = choices.iter().map(ToString::to_string).collect();
        assert_eq!(complete(before, &nicks, &peers), Completion { line: line.to_owned(), choices });
    }

    #[test]
    fn commands_nicks_and_addresses_are_completed() {
        check("/con", "/connect ", &[]);
        check("/p", "/peers ", &[]);
        check("g", "goldy: ", &[]);
        check("hi G", "hi goldy ", &[]);
        check("日", "日本: ", &[]);
        check("/disconnect 10.0.0.2", "/disconnect 10.0.0.2:5", &[]);
    }

    #[test]
    fn where_several_fit_they_are_named() {
        check("/disconnect ", "/disconnect 10.0.0.", &["10.0.0.1:5", "10.0.0.2:5"]);
        check("phi", "phi", &["Phil", "philippa"]);
    }

    #[test]
    fn where_nothing_fits_the_line_stays() {
        for before in ["", "x", "hello ", "/xyz", "/connect 9"] {
            check(before, before, &[]);
        }
    }
}
