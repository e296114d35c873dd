//! Help, completions, the manual, and what a wrong command line comes to.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::process::{nobody, run, watchtower};

/// Every command, as it is written on the command line.
const COMMANDS: [&[&str]; 27] = [
    &[],
    &["serve"],
    &["rocket"],
    &["webtalk"],
    &["whisper"],
    &["config"],
    &["config", "default"],
    &["config", "check"],
    &["register"],
    &["pub"],
    &["sub"],
    &["history"],
    &["channels"],
    &["store"],
    &["store", "check"],
    &["store", "export"],
    &["store", "import"],
    &["bench"],
    &["bench", "fanout"],
    &["bench", "many"],
    &["bench", "scale"],
    &["bench", "latency"],
    &["bench", "churn"],
    &["bench", "idle"],
    &["bench", "durable"],
    &["completions"],
    &["man"],
];

const POSITION: &str = "9f2c61c05e7a4d3b:12";

fn help(command: &[&str]) -> String {
    let ended = run(&[command, &["--help"]].concat());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{command:?}");
    ended.stdout
}

fn examples(command: &[&str]) -> Vec<String> {
    let help = help(command);
    let (_, examples) = help.split_once("Examples:\n").unwrap();
    examples.lines().map_while(|line| line.strip_prefix("  ")).map(str::to_owned).collect()
}

#[test]
fn every_example_in_the_help_that_needs_no_server_works() {
    let needs_server = |example: &str| {
        [
            "serve", "rocket", "webtalk", "whisper", "register", "pub", "sub", "history", "channels",
            "store", "bench",
        ]
        .iter()
        .any(|command| example.contains(&format!("watchtower {command}")))
    };
    let folder = tempfile::tempdir().unwrap();
    let mut worked = 0;
    for example in COMMANDS.iter().flat_map(|command| examples(command)) {
        if needs_server(&example) {
            continue;
        }
        // A pager and a viewer would wait for a person.
        let script = format!(
            "watchtower() {{ \"{}\" \"$@\"; }}\nless() {{ cat; }}\nman() {{ cat; }}\n{example}",
            env!("CARGO_BIN_EXE_watchtower")
        );
        let output = Command::new("sh").args(["-ec", &script]).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{example}: {output:?}");
        worked += 1;
    }
    assert!(worked >= 10, "only {worked} examples were found");
}

#[test]
fn a_wrong_command_line_is_code_2_and_says_what_is_right() {
    for (arguments, told) in [
        (&["serve", "--nope"][..], "--nope"),
        (&["serv"], "serve"),
        (&["config", "check"], "<FILE>"),
        (&["pub"], "<CHANNEL>"),
        (&["pub", "07", "x"], "a number from 0 to 4294967295 without leading zeros"),
        (&["sub"], "<CHANNEL>"),
        (&["sub", ""], "a channel name is not empty"),
        (&["sub", "5", "--sender", "0"], "a number from 1 to 4294967295"),
        (&["sub", "5", "--since", "7"], "a position is EPOCH:OFFSET"),
        (&["sub", "5", "6", "--since", POSITION], "as many positions as there are channels"),
        (
            &["sub", "5", "--since", POSITION, "--protocol", "tcp"],
            "over TCP a position is an offset without its epoch",
        ),
        (&["sub", "5", "--since", POSITION, "--protocol", "udp"], "use HTTP or WebRocket"),
        (&["history", "5", "--since", POSITION, "--before", POSITION], "cannot be used with"),
        (&["history", "5", "--protocol", "webrocket"], "over WebRocket what a channel keeps"),
        (&["history", "5", "--protocol", "tcp"], "cannot be read: use HTTP"),
        (&["channels", "--protocol", "pigeon"], "tcp, udp, http, webrocket"),
        (&["channels", "--protocol", "webrocket"], "over WebRocket channels cannot be listed"),
        (&["register", "--server", "ws://127.0.0.1:1"], "over WebRocket there are no senders"),
        (&["sub", "5", "--protocol", "webrocket", "--sender", "7"], "leave --sender out"),
        (&["sub", "5", "--server", "ws://"], "expected host:port or ws://host:port/path"),
        (&["register", "--server", "nowhere"], "expected host:port"),
        (&["bench", "fanout", "--rate", "5", "--window", "5"], "cannot be used with"),
        (&["bench", "fanout", "--subscribers", "0"], "at least one subscriber"),
        (&["bench", "fanout", "--deflate"], "but over WebSocket"),
        (&["store", "check"], "<FOLDER|--data-dir <DIR>>"),
        (&["store", "check", "a", "--data-dir", "b"], "cannot be used with"),
        (&["bench", "durable", "--publishers", "0"], "at least one publisher"),
        (&["bench", "durable", "--seconds=-1"], "0 or more"),
        (&["completions", "cmd"], "bash"),
        (&[], "Usage: watchtower <COMMAND>"),
    ] {
        let ended = run(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(told), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn without_a_server_the_client_commands_fail_with_code_1_and_one_line() {
    let (_kept, address) = nobody();
    let server = address.to_string();
    let over_webrocket = &["sub", "5", "--protocol", "webrocket"];
    let commands = [
        &["register"][..],
        &["pub", "5", "hello"],
        &["sub", "5"],
        &["sub", "5", "--since", POSITION],
        &["history", "5"],
        &["channels"],
        over_webrocket,
    ];
    for command in commands {
        let ended = run(&[command, &["--server", &server]].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{command:?}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.starts_with("watchtower: "), "{}", ended.stderr);
        assert!(ended.stderr.contains(&server), "{}", ended.stderr);
    }
}

#[test]
fn there_are_completions_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ended = run(&["completions", shell]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        for word in ["serve", "--data-dir", "--log-format", "channels"] {
            assert!(ended.stdout.contains(word.trim_start_matches('-')), "{shell} does not complete {word}");
        }
    }
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let manual = run(&["man"]);
    assert_eq!((manual.code, manual.stderr.as_str()), (Some(0), ""));
    let pages: Vec<&str> =
        manual.stdout.lines().filter_map(|line| line.strip_prefix(".TH ")?.split(' ').next()).collect();
    let expected = COMMANDS.map(|command| [&["watchtower"], command].concat().join("-"));
    assert_eq!(pages, expected);
}

#[test]
fn the_version_is_that_of_the_package() {
    let expected = format!("watchtower {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&["--version"]).stdout, expected);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    for arguments in [&["man"][..], &["config", "default"], &["completions", "bash"]] {
        let mut child = watchtower(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let said: Vec<String> = stderr.lines().map(Result::unwrap).collect();
        assert_eq!(said, Vec::<String>::new());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}");
    }
}
