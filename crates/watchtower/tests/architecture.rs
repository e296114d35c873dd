//! What may import what: the map in `ARCHITECTURE.md`, checked against the manifests and the
//! sources. It stands here because the binary comes last: nothing has to be built for it beyond
//! what the other tests need.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each crate, and the crates of this workspace that it may import, which stand before it.
const CRATES: &[(&str, &[&str])] = &[
    ("watchtower-hub", &[]),
    ("watchtower-protocols", &["watchtower-hub"]),
    ("watchtower-store", &["watchtower-hub"]),
    ("watchtower-whisper", &["watchtower-hub", "watchtower-protocols"]),
    (
        "watchtower-server",
        &["watchtower-hub", "watchtower-protocols", "watchtower-store", "watchtower-whisper"],
    ),
    ("watchtower-client", &["watchtower-hub", "watchtower-protocols"]),
    // It has a codec of its own, so that a fault in the server's cannot hide from it. The store is
    // what a server that keeps messages is held against.
    ("watchtower-bench", &["watchtower-hub", "watchtower-store"]),
    ("watchtower-cost", &["watchtower-hub", "watchtower-protocols"]),
    ("watchtower-sim", &["watchtower-hub", "watchtower-protocols"]),
    (
        "watchtower",
        &[
            "watchtower-server",
            "watchtower-client",
            "watchtower-bench",
            "watchtower-whisper",
            "watchtower-store",
        ],
    ),
    (
        "watchtower-fuzz",
        &[
            "watchtower-hub",
            "watchtower-protocols",
            "watchtower-store",
            "watchtower-server",
            "watchtower-client",
        ],
    ),
];

/// The crates without I/O, and everything that they import directly.
const PURE: &[(&str, &[&str])] = &[
    (
        "watchtower-hub",
        &[
            "arc-swap",
            "bytes",
            "loom", // under `--cfg loom` alone
            "papaya",
            "parking_lot",
            "rustc-hash",
            "serde",
            "serde_json",
            "smallvec",
            "thiserror",
        ],
    ),
    (
        "watchtower-protocols",
        &[
            "arc-swap",
            "base64",
            "bytes",
            "ed25519-dalek",
            "flate2",
            "http", // the types of requests, no more
            "itoa",
            "jiff",
            "memchr",
            "parking_lot",
            "rustc-hash",
            "serde",
            "serde_json",
            "sha1",
            "sha2",
            "siphasher",
            "subtle",
            "thiserror",
            "unicode-width",
            "watchtower-hub",
        ],
    ),
];

/// What must not come into a pure crate by way of others either.
const RUNTIMES_AND_SOCKETS: &[&str] = &[
    "async-io",
    "async-std",
    "axum",
    "futures-util",
    "hyper",
    "mio",
    "nix",
    "polling",
    "reqwest",
    "rustix",
    "rustls",
    "smol",
    "socket2",
    "tokio",
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What cargo says on standard output.
fn cargo(arguments: &[&str]) -> String {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Everything is there already, since this test was built.
    let output =
        Command::new(cargo).args(arguments).arg("--offline").current_dir(workspace()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The crates of the workspace, and what each imports, tests aside.
fn manifests() -> Vec<(String, BTreeSet<String>)> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let imports = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap();
        dependencies.iter().filter(|dependency| dependency["kind"] != "dev").map(name).collect()
    };
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(|package| (name(package), imports(package))).collect()
}

fn imports_of(crate_name: &str) -> BTreeSet<String> {
    let mut manifests = manifests().into_iter();
    manifests.find(|(name, _)| name == crate_name).unwrap_or_else(|| panic!("no {crate_name}")).1
}

#[test]
fn crates_import_only_what_the_map_says_and_nothing_imports_the_binary() {
    let all: BTreeSet<&str> = CRATES.iter().map(|(name, _)| *name).collect();
    let manifests = manifests();
    let found: BTreeSet<&str> = manifests.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(found, all, "a crate came or went: say in CRATES what it may import");
    for (name, imports) in &manifests {
        let ours: BTreeSet<&str> = imports.iter().map(String::as_str).filter(|i| all.contains(i)).collect();
        let (_, allowed) = CRATES.iter().find(|(known, _)| known == name).unwrap();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        assert!(ours.is_subset(&allowed), "{name} imports {ours:?}, may import {allowed:?}");
    }
    for (index, (name, allowed)) in CRATES.iter().enumerate() {
        let before: BTreeSet<&str> = CRATES[..index].iter().map(|(name, _)| *name).collect();
        assert!(allowed.iter().all(|import| before.contains(import)), "{name} stands before what it imports");
    }
}

#[test]
fn the_pure_crates_import_what_is_listed_and_nothing_else() {
    for (name, allowed) in PURE {
        let allowed = allowed.iter().map(|import| (*import).to_owned()).collect();
        assert!(imports_of(name).is_subset(&allowed), "{name} imports {:?}", imports_of(name));
    }
}

#[test]
fn no_runtime_and_no_socket_comes_into_a_pure_crate_by_way_of_another() {
    for (name, _) in PURE {
        let tree = cargo(&["tree", "--package", name, "--edges", "normal", "--prefix", "none"]);
        let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(crates.contains("bytes"), "{tree}");
        for forbidden in RUNTIMES_AND_SOCKETS {
            assert!(!crates.contains(forbidden), "{name} comes with {forbidden}:\n{tree}");
        }
    }
}

/// The folders of `watchtower-protocols` that are no protocol, but what several protocols are
/// carried by. Protocols may name them, and they name no protocol.
const TRANSPORTS: &[&str] = &["websocket"];

/// The folders beside `lib.rs`: the protocols, and the transports.
fn protocols_and_transports() -> Vec<(String, PathBuf)> {
    let source = workspace().join("crates/watchtower-protocols/src");
    let entries = fs::read_dir(source).unwrap().map(Result::unwrap);
    let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    folders.map(|entry| (entry.file_name().into_string().unwrap(), entry.path())).collect()
}

/// The Rust files of a folder and those below it.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Whether a line of code names this module by a path, such as `crate::name` or `super::{name}`.
/// What a comment says is free.
fn names_module(line: &str, module: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let is_path = |at: &str| {
        code.split_once(at).is_some_and(|(_, rest)| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == module)
        })
    };
    is_path("crate::") || is_path("super::") || is_path("watchtower_protocols::")
}

#[test]
fn a_module_that_is_named_is_found() {
    for (line, named) in [
        ("use crate::packets::frame;", true),
        ("use crate::{packets, stream};", true),
        ("    super::super::packets::ErrorCode::ALL", true),
        ("use crate::stream::Close;", false),
        ("// as crate::packets does", false),
        ("use super::packets_seen;", false),
        ("let packets = 1;", false),
    ] {
        assert_eq!(names_module(line, "packets"), named, "{line}");
    }
}

// There is no exception. Where a stream of one protocol carries another's frames, as HTTP's
// `application/octet-stream` does, the server hands the one the other's format.
#[test]
fn no_protocol_names_another_and_no_transport_names_a_protocol() {
    let folders = protocols_and_transports();
    let found: BTreeSet<&str> = folders.iter().map(|(name, _)| name.as_str()).collect();
    assert!(found.contains("packets"), "{found:?}");
    assert!(TRANSPORTS.iter().all(|transport| found.contains(transport)), "{found:?}");
    for (name, folder) in &folders {
        for file in rust_files(folder) {
            let text = fs::read_to_string(&file).unwrap();
            let others = found.iter().filter(|other| **other != name && !TRANSPORTS.contains(other));
            for other in others {
                let found = text.lines().find(|line| names_module(line, other));
                assert_eq!(found, None, "{} names {other}", file.display());
            }
        }
    }
}

#[test]
fn every_file_says_first_what_it_is_for() {
    for file in rust_files(&workspace().join("crates")) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{} does not open with //!", file.display());
    }
}
