//! The PyPI package `websockets`, in a Python of its own that all tests share.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use super::Peer;

/// Where `./test` installs it.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/python");

pub(super) fn start() -> Peer {
    assert!(
        Path::new(PACKAGES).join("websockets").exists(),
        "the Python package websockets is not in target/python: ./test installs it"
    );
    let mut python = Command::new("python3")
        .args(["-c", include_str!("package.py")])
        .env("PYTHONPATH", PACKAGES)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (peer, commands) = Peer::new();
    // It ends with its input, so with this process.
    let mut input = python.stdin.take().unwrap();
    thread::spawn(move || commands.iter().try_for_each(|command| writeln!(input, "{command}")));
    let output = BufReader::new(python.stdout.take().unwrap());
    let heard = peer.heard.clone();
    thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            heard.hear(serde_json::from_str(&line).unwrap());
        }
        // What went wrong it has said on standard error.
        panic!("Python ended: {:?}", python.wait());
    });
    peer
}
