//! `watchtower whisper` on a terminal, by a person's keys [whispernet: terminal commands].

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;

use super::process::watchtower;
use super::terminal::Terminal;
use super::whispernet::PlainPeer;

const UP: &str = "\x1b[A";
const CTRL_A: &str = "\x01";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_W: &str = "\x17";

fn start_in(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> (Terminal, SocketAddr) {
    let mut command =
        watchtower(["whisper", "--listen", "127.0.0.1", "--port", "0", "--discovery-port", "0"]);
    command.arg("--data-dir").arg(folder).args(arguments);
    command.env("TERM", "xterm-256color").env("TZ", "UTC").envs(environment.iter().copied());
    let mut terminal = Terminal::run(&command);
    let shown = terminal.wait_for("Ctrl-D ends");
    let address = shown.lines().find_map(|line| line.strip_prefix("-- you are at ")).unwrap();
    let address = address.trim_end().parse().unwrap();
    (terminal, address)
}

/// The folder must live as long as the peer.
fn start(arguments: &[&str]) -> (Terminal, SocketAddr, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (terminal, address) = start_in(folder.path(), arguments, &[]);
    (terminal, address, folder)
}

#[test]
fn what_is_typed_survives_what_comes_meanwhile() {
    let other = PlainPeer::listen();
    let (mut goldy, address, _folder) = start(&["--nick", "goldy", "--peer", &other.address.to_string()]);
    goldy.wait_for("-- connected to ");
    goldy.press("日本 hel");
    goldy.wait_for_row("<goldy> 日本 hel");
    for number in 0..30 {
        other.say(address, &format!("{number}"), "phil", &format!("message {number}."));
        let below = format!("  <phil> message {number}.\n<goldy> 日本 hel");
        goldy.wait(&below, |shown| shown.ends_with(&below));
    }
    goldy.press("lo\r");
    other.expect("日本 hello");
    let said = "  <goldy> 日本 hello\n<goldy>";
    let shown = goldy.wait(said, |shown| shown.trim_end().ends_with(said));
    for number in 10..30 {
        assert!(shown.contains(&format!("  <phil> message {number}.\n")), "{shown}");
    }
    goldy.press(CTRL_C);
    assert_eq!(goldy.ended(), Some(0));
}

#[test]
fn the_line_is_edited_and_recalled_as_in_a_shell() {
    let other = PlainPeer::listen();
    let (mut goldy, _, folder) = start(&["--nick", "goldy", "--peer", &other.address.to_string()]);
    goldy.wait_for("-- connected to ");
    goldy.press("one two");
    goldy.press(CTRL_W);
    goldy.press("three");
    goldy.press(CTRL_A);
    goldy.press("zero \r");
    other.expect("zero one three");
    goldy.press(UP);
    goldy.wait_for_row("<goldy> zero one three");
    goldy.press("!\r");
    other.expect("zero one three!");
    // What is pasted is one message, whatever lines it has.
    goldy.press("\x1b[200~two\rlines\x1b[201~\r");
    other.expect("two\nlines");
    goldy.press(CTRL_D);
    assert_eq!(goldy.ended(), Some(0));

    let history = folder.path().join("whisper-history");
    assert_eq!(fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
    let (mut again, _) = start_in(folder.path(), &["--nick", "goldy"], &[]);
    again.press(UP);
    again.wait_for_row("<goldy> two↵lines");
    again.press(UP);
    again.wait_for_row("<goldy> zero one three!");
}

#[test]
fn what_is_entered_at_the_very_end_is_sent() {
    let other = PlainPeer::listen();
    let (mut goldy, _, _folder) = start(&["--peer", &other.address.to_string()]);
    goldy.wait_for("-- connected to ");
    goldy.press(&format!("one\rtwo\rthree\r{CTRL_D}"));
    assert_eq!(goldy.ended(), Some(0));
    for body in ["one", "two", "three"] {
        other.expect(body);
    }
}

#[test]
fn commands_answer_and_are_not_sent() {
    let other = PlainPeer::listen();
    let (mut goldy, _, _folder) = start(&["--peer", &other.address.to_string()]);
    goldy.wait_for("you have no name yet: /nick NAME");
    goldy.wait_for("-- connected to ");
    for (typed, answer) in [
        ("/nick goldy", "-- you are goldy now".to_owned()),
        ("/peers", format!("-- {} connected", other.address)),
        ("/block", "-- nobody is refused".to_owned()),
        ("/block clear", "-- nobody is refused any more".to_owned()),
        ("/conect x", "!! there is no /conect, did you mean /connect?".to_owned()),
        ("/connect", "!! usage: /connect ADDR".to_owned()),
        ("/send nowhere.gif", "!! nowhere.gif: No such file or directory".to_owned()),
        ("/disconnect 127.0.0.1:1", "!! 127.0.0.1:1 is no peer".to_owned()),
        ("/help", "-- Anything else is said to everybody".to_owned()),
    ] {
        goldy.press(&format!("{typed}\r"));
        goldy.wait_for(&answer);
        goldy.wait_for_row("<goldy>");
    }
    goldy.press("//said\r");
    let message = other.message();
    assert_eq!((message["Body"].as_str(), message["Nick"].as_str()), (Some("/said"), Some("goldy")));
    goldy.press(&format!("/disconnect {}\r", other.address));
    goldy.wait_for("-- disconnected from ");
    goldy.press("/connect 127.0.0.1:");
    goldy.press(&format!("{}\r", other.address.port()));
    goldy.wait_for("-- dialling ");
    goldy.press("/quit\r");
    assert_eq!(goldy.ended(), Some(0));
}

#[test]
fn two_people_chat() {
    let (mut goldy, address, _folder) = start(&["--nick", "goldy"]);
    let (mut phil, _, _folder) = start(&["--nick", "phil", "--peer", &address.to_string()]);
    phil.wait_for("-- connected to ");
    phil.press("hello\r");
    goldy.wait_for("✓<phil> hello");
    goldy.wait_for("-- connected to ");
    goldy.press("/me waves\r");
    phil.wait_for("✓* goldy waves");
    goldy.wait_for(" * goldy waves");
    // The Tab key knows who spoke.
    phil.press("go\t");
    phil.wait_for_row("<phil> goldy:");
    phil.press("hi\r");
    goldy.wait_for("✓<phil> goldy: hi");
    goldy.press(CTRL_D);
    assert_eq!(goldy.ended(), Some(0));
    phil.wait_for("-- lost ");
}

/// [whispernet: 10]
#[test]
fn a_file_is_sent_and_saved() {
    let (mut goldy, address, folder) = start(&["--nick", "goldy"]);
    let (mut phil, _, _folder) = start(&["--nick", "phil", "--peer", &address.to_string()]);
    phil.wait_for("-- connected to ");
    let file = folder.path().join("my notes.txt");
    fs::write(&file, "all your base").unwrap();
    phil.press(&format!("/send '{}'\r", file.display()));
    phil.wait_for("-- sent my notes.txt");
    goldy.wait_for("✓* phil sends my notes.txt (13 B)");
    goldy.wait_for("-- saved my notes.txt from phil: ");
    let saved = folder.path().join("downloads/my notes.txt");
    assert_eq!(fs::read_to_string(saved).unwrap(), "all your base");
}

#[test]
fn the_terminal_is_left_as_it_was_whatever_ends_it() {
    for signal in [Signal::TERM, Signal::HUP] {
        let (mut goldy, _, _folder) = start(&[]);
        goldy.press("half a line");
        goldy.wait_for_row("> half a line");
        goldy.signal(signal);
        assert_eq!(goldy.ended(), Some(0));
    }
}

#[test]
fn a_narrower_terminal_has_a_shorter_row() {
    let other = PlainPeer::listen();
    let (mut goldy, address, _folder) = start(&["--nick", "goldy"]);
    goldy.press("0123456789012345678901234567890123456789");
    goldy.wait_for_row("<goldy> 0123456789012345678901234567890123456789");
    goldy.resize(30);
    goldy.wait_for_row("<goldy> 901234567890123456789");
    other.say(address, "1", "phil", "one two three four five");
    goldy.wait_for("<phil> one two three\n      four five\n");
}

#[test]
fn no_colours_are_shown_where_none_are_wanted() {
    let other = PlainPeer::listen();
    let folder = tempfile::tempdir().unwrap();
    let none: &[(&str, &str)] = &[("NO_COLOR", "1")];
    for (arguments, environment, colours) in
        [(&[][..], &[][..], true), (&["--color", "never"], &[], false), (&[], none, false)]
    {
        let (mut goldy, address) = start_in(folder.path(), arguments, environment);
        other.say(address, "1", "phil", "hello \x1b[35m");
        goldy.wait_for("<phil> hello ");
        let written = String::from_utf8_lossy(&goldy.written).into_owned();
        assert_eq!(written.contains("\x1b[38;5;134mphil\x1b[0m"), colours, "{written:?}");
        assert_eq!(written.contains("\x1b[2m"), colours);
        assert!(!written.contains("\x1b[35m"), "{written:?}");
    }
}
