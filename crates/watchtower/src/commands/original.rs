//! What the command lines of the original systems have in common: JSON configuration, and options
//! with one dash.

use std::ffi::OsString;
use std::path::Path;

use crate::failure::Failure;

/// The commands whose originals were written with options of one dash, and those options.
const ONE_DASH: &[(&str, &[&str])] = &[
    ("rocket", &["host", "port", "tls-cert", "tls-key", "log", "version", "help"]),
    (
        "whisper",
        &[
            "port",
            "listen",
            "announce",
            "peer",
            "nick",
            "http",
            "discovery-port",
            "backlog",
            "data-dir",
            "downloads",
            "require-signed",
            "no-routing",
            "tls-cert",
            "tls-key",
            "tls-ca",
            "color",
            "help",
        ],
    ),
];

/// Gives options of one dash, as the originals had them, the second one: `-port` is `--port`.
pub(crate) fn with_two_dashes(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = arguments.get(1).and_then(|command| command.to_str());
    let Some((_, options)) = ONE_DASH.iter().find(|(known, _)| Some(*known) == command) else {
        return arguments;
    };
    let mut may_be_option = true;
    for argument in arguments.iter_mut().skip(2) {
        may_be_option &= argument != "--";
        let name = argument.to_str().and_then(|text| text.strip_prefix('-')).unwrap_or_default();
        let name = name.split('=').next().unwrap_or_default();
        if may_be_option && options.contains(&name) {
            let mut two = OsString::from("-");
            two.push(&*argument);
            *argument = two;
        }
    }
    arguments
}

/// What is wrong with a file of JSON, as editors like it: the file and the line first.
pub(super) fn unreadable(path: &Path, error: &serde_json::Error) -> Failure {
    let text = error.to_string();
    // Where it stands is said before.
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    Failure::Usage(format!("{}:{}: {what}", path.display(), error.line()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &str, expected: &str) {
        let arguments = with_two_dashes(given.split(' ').map(OsString::from));
        let arguments: Vec<&str> = arguments.iter().map(|a| a.to_str().unwrap()).collect();
        assert_eq!(arguments.join(" "), expected);
    }

    #[test]
    fn the_originals_options_may_have_one_dash() {
        check(
            "watchtower rocket -port 9772 -host=localhost my.json",
            "watchtower rocket --port 9772 --host=localhost my.json",
        );
        check("watchtower rocket --port 9772 -V", "watchtower rocket --port 9772 -V");
        check("watchtower rocket -- -port", "watchtower rocket -- -port");
        check("watchtower pub -port x", "watchtower pub -port x");
        check("watchtower", "watchtower");
    }
}
