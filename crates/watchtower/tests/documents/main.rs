//! The documents tell the truth: what they show is run as it is printed, and their tables are
//! held against the tables of the code.
//!
//! A fenced block says by its info string what it is:
//!
//! | info string | what is done with it |
//! | --- | --- |
//! | `sh` | run to its end, which must be a success |
//! | `sh serve` | starts the server of the blocks that follow |
//! | `sh listen` | goes on beside the blocks that follow; these wait for its first output |
//! | `sh unchecked` | nothing: it needs what a test has not |
//! | `output` | what the block before it prints; `…` stands for anything |
//! | `output example` | the same, in which numbers, hexadecimal ones too, are examples |
//! | `json`, right behind a block | JSON that is printed by that; numbers and texts are examples |
//! | a language and a file's name, such as `python receive.py` | is written to that file |
//!
//! All blocks of a document share one folder, and the variables of those that ran to their end.
//! Ports are exchanged for free ones, and `cargo run --release --` for the binary that was built.

mod blocks;
mod shell;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use watchtower_client::ErrorCode;

use blocks::Block;
use shell::Shell;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(document: &Path) -> String {
    fs::read_to_string(document).unwrap_or_else(|error| panic!("{}: {error}", document.display()))
}

/// `README.md` and the pages of `docs`.
fn documents() -> Vec<PathBuf> {
    let pages = fs::read_dir(workspace().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut documents: Vec<_> = pages.filter(|page| page.extension().is_some_and(|e| e == "md")).collect();
    documents.sort();
    documents.push(workspace().join("README.md"));
    documents
}

#[test]
fn what_the_documents_show_is_what_happens() {
    for tool in ["nc", "curl", "python3"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap();
        assert!(found.status.success(), "the documents show {tool}, which is not here: ./test installs it");
    }
    thread::scope(|scope| {
        for document in documents() {
            scope.spawn(move || follow(&document));
        }
    });
}

/// Does what a document says.
fn follow(document: &Path) {
    let name = document.file_name().unwrap().to_string_lossy().into_owned();
    let mut shell = Shell::new(&name);
    for block in blocks::read(&read(document)) {
        match block {
            Block::Run(script) => shell.run(&script),
            Block::Serve(script) => shell.serve(&script),
            Block::Listen(script) => shell.listen(&script),
            Block::File(file) => shell.write(&file),
            Block::Other => {}
        }
    }
    shell.finish();
}

/// The rows of the tables of a document, a list of cells each; heads and rulers too.
fn rows(document: &str) -> Vec<Vec<String>> {
    let text = read(&workspace().join(document));
    let cells = |line: &str| {
        let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
        Some(line.split(" | ").map(|cell| cell.trim().to_owned()).collect())
    };
    text.lines().filter_map(cells).collect()
}

#[test]
fn the_packets_page_shows_the_table_of_error_codes() {
    let expected: Vec<_> = ErrorCode::ALL
        .iter()
        .map(|code| {
            let connection = if code.closes_connection() { "closed" } else { "stays" };
            [&code.byte().to_string(), code.name(), code.meaning(), connection].map(str::to_owned).to_vec()
        })
        .collect();
    let is_code = |row: &Vec<String>| row[0].parse::<u8>().is_ok();
    let shown: Vec<_> = rows("docs/packets.md").into_iter().filter(is_code).collect();
    assert_eq!(shown, expected);
}

/// The keys of a configuration file with their values, dotted from the top.
fn keys(file: &str) -> Vec<(String, String)> {
    let mut table = String::new();
    let mut keys = Vec::new();
    for line in file.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            table = format!("{}.", name.trim_matches(['[', ']']));
        } else if let Some((key, value)) = line.split_once(" = ") {
            keys.push((format!("{table}{key}"), value.to_owned()));
        }
    }
    keys
}

#[test]
fn the_page_on_running_lists_every_key_with_its_default() {
    let output = Command::new(env!("CARGO_BIN_EXE_watchtower")).args(["config", "default"]).output().unwrap();
    let expected = keys(&String::from_utf8(output.stdout).unwrap());
    assert!(expected.contains(&("callbacks.timeout".into(), "\"10s\"".into())), "{expected:?}");
    let code = |cell: &str| Some(cell.strip_prefix('`')?.strip_suffix('`')?.to_owned());
    let shown: Vec<_> = rows("docs/running.md")
        .iter()
        // Other tables there have two columns.
        .filter(|row| row.len() == 3)
        .filter_map(|row| Some((code(&row[0])?, code(&row[1])?)))
        .collect();
    assert_eq!(shown, expected);
}

/// What begins so in a text, up to what can be in no option and no command.
fn words<'a>(text: &'a str, beginning: &'a str) -> impl Iterator<Item = &'a str> {
    let words = text.split(|c: char| c.is_whitespace() || "`,.=[]()".contains(c));
    words.filter(move |word| word.starts_with(beginning) && word.len() > beginning.len())
}

#[test]
fn the_page_on_the_whispernet_lists_every_option_and_every_command() {
    let whisper = |arguments: &[&str], input: &str| {
        let mut whisper = Command::new(env!("CARGO_BIN_EXE_watchtower"))
            .arg("whisper")
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        whisper.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let said = whisper.wait_with_output().unwrap();
        String::from_utf8([said.stdout, said.stderr].concat()).unwrap()
    };
    let options = whisper(&["--help"], "");
    let commands = whisper(&["--listen", "127.0.0.1", "--port", "0", "--discovery-port", "0"], "/help\n");
    let commands: String = commands.lines().filter(|line| line.starts_with("-- /")).collect();
    let shown: Vec<String> =
        rows("docs/whispernet.md").into_iter().filter_map(|row| row.into_iter().next()).collect();
    for (all, beginning) in [(&options, "--"), (&commands, "/")] {
        let all: BTreeSet<&str> = words(all, beginning).filter(|word| *word != "--help").collect();
        assert!(all.len() >= 9, "{all:?}");
        for word in all {
            let is_shown = shown.iter().any(|cell| words(cell, beginning).any(|shown| shown == word));
            assert!(is_shown, "{word} is not in the tables of docs/whispernet.md");
        }
    }
}

/// The targets of the links in a document, those to other sites and to places on the same page
/// left out.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = workspace();
    let others = ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name));
    for document in documents().into_iter().chain(others) {
        for target in links(&read(&document)) {
            let path = document.parent().unwrap().join(target);
            assert!(path.exists(), "{} links to {target}", document.display());
        }
    }
}

#[test]
fn the_page_on_the_library_shows_the_example_as_it_is() {
    let example = read(&workspace().join("crates/watchtower-server/examples/custom_protocol.rs"));
    assert!(example.lines().count() < 40);
    let page = read(&workspace().join("docs/library.md"));
    assert!(page.contains(&format!("```rust\n{example}```\n")));
}

/// All of the workspace's Rust below a folder, in one text.
fn rust_below(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.fold(String::new(), |text, path| match path.extension() {
        _ if path.is_dir() => text + &rust_below(&path),
        Some(extension) if extension == "rs" => text + &read(&path),
        _ => text,
    })
}

#[test]
fn the_page_on_testing_names_tests_that_there_are() {
    let rust = rust_below(&workspace().join("crates"));
    let page = read(&workspace().join("docs/testing.md"));
    // A name of several words can be nothing else there.
    let is_test = |word: &&str| word.matches('_').count() >= 3 && !word.contains(char::is_whitespace);
    let named: Vec<&str> = page.split('`').filter(is_test).collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named {
        assert!(rust.contains(&format!("fn {name}(")), "there is no test {name}");
    }
}
