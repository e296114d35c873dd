//! `watchtower store` as a person uses it: a store is checked, exported and imported.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use watchtower_store::{DiskOptions, DiskStore};

use super::process::{Ended, run_in, watchtower};
use super::terminal::Terminal;

const EXPORT: &str = concat!(
    r#"{"watchtower":{"version":1}}"#,
    "\n",
    r#"{"log":{"channel":"orders/7","epoch":"2f60a2f1c37a9d05","first":1,"next":3}}"#,
    "\n",
    r#"{"message":{"offset":1,"time":1764190000000,"sender":7,"kind":"text","content":"hello"}}"#,
    "\n",
    r#"{"message":{"offset":2,"time":1764190000001,"sender":7,"kind":"text","content":"again"}}"#,
    "\n",
    r#"{"sender":{"id":7,"last_active":1764190000000}}"#,
    "\n",
    r#"{"end":{"lines":4}}"#,
    "\n",
);

/// Gives a file to the binary.
fn import(folder: &Path, text: &str, arguments: &[&str]) -> Ended {
    let file = folder.join("text");
    fs::write(&file, text).unwrap();
    let mut command = watchtower([&["store", "import"], arguments].concat());
    command.current_dir(folder).stdin(File::open(file).unwrap()).output().unwrap().into()
}

/// A folder with a store in `data/store`.
fn sample() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let ended = import(folder.path(), EXPORT, &["--data-dir", "data"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended:?}");
    assert_eq!(ended.stderr, "imported 2 messages in 1 channel, 1 record\n");
    folder
}

fn segment(folder: &Path) -> PathBuf {
    folder.join("data/store/log/0000000001-0000000001.log")
}

#[test]
fn what_was_exported_and_imported_is_the_same() {
    let folder = sample();
    for place in [&["data/store"][..], &["--data-dir", "data"]] {
        let exported = run_in(folder.path(), &[&["store", "export"], place].concat(), &[]);
        assert_eq!(exported.code, Some(0), "{exported:?}");
        assert_eq!(exported.stdout, EXPORT);
        assert_eq!(exported.stderr, "exported 2 messages in 1 channel, 1 record\n");
    }
    let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("data"), mode("data/store")], [0o700; 2]);
}

#[test]
fn a_whole_store_is_told_file_by_file_and_a_damaged_one_is_code_1() {
    let folder = sample();
    let check = || run_in(folder.path(), &["store", "check", "data/store"], &[]);
    let file = "log/0000000001-0000000001.log";
    let whole =
        format!("{file}: 2 messages, 2 records\nnothing is damaged: 2 messages in 1 file, 2 records\n");
    assert_eq!(check(), Ended { code: Some(0), stdout: whole, stderr: String::new() });
    let mut bytes = fs::read(segment(folder.path())).unwrap();
    let at = bytes.windows(5).position(|window| window == b"hello").unwrap();
    bytes[at] ^= 1;
    fs::write(segment(folder.path()), &bytes).unwrap();
    let damaged = check();
    assert_eq!(damaged.code, Some(1), "{damaged:?}");
    assert!(damaged.stdout.starts_with(&format!("data/store/{file} is damaged: ")), "{damaged:?}");
    let lost = "message 1 of channel orders/7 is missing: lost by damage, or left out of what was imported";
    let told = format!("\n{file}: damaged, 1 message, 2 records\n{lost}\n");
    assert!(damaged.stdout.ends_with(&told), "{damaged:?}");
    assert_eq!(
        damaged.stderr,
        "watchtower: data/store: 1 damaged file; what is whole is 1 message in 1 file, 2 records\n"
    );
    assert_eq!(fs::read(segment(folder.path())).unwrap(), bytes, "checking changes nothing");
    let exported = run_in(folder.path(), &["store", "export", "data/store"], &[]);
    assert_eq!(exported.code, Some(1), "{exported:?}");
    let without = EXPORT.replace(EXPORT.lines().nth(2).unwrap(), "").replace("\n\n", "\n");
    assert_eq!(exported.stdout, without.replace(r#""lines":4"#, r#""lines":3"#));
    assert!(exported.stderr.contains("message 1 of channel orders/7 is lost"), "{exported:?}");
    assert!(exported.stderr.ends_with("is damaged: the export has what could be read\n"), "{exported:?}");
}

#[test]
fn a_store_that_is_not_there_in_use_or_newer_is_refused_in_one_line() {
    let folder = sample();
    let refused = |place: &str, told: &str| {
        for action in ["check", "export"] {
            let ended = run_in(folder.path(), &["store", action, place], &[]);
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
            assert_eq!(ended.stderr, format!("watchtower: {told}\n"), "{action}");
        }
    };
    refused("nothing", "there is no store in nothing");
    assert!(!folder.path().join("nothing").exists());
    refused("data", "there is no store in data; this is a server's data_dir: give it with --data-dir");
    let store = DiskStore::open(DiskOptions::new(folder.path().join("data/store"))).unwrap();
    refused("data/store", "the store in data/store is in use by another process; stop the server first");
    drop(store);
    let text = "watchtower store\nversion 2\n";
    fs::write(folder.path().join("data/store/store"), format!("{text}check {:08x}\n", crc(text))).unwrap();
    refused(
        "data/store",
        "the store in data/store has format version 2, and this program knows none after 1: use the \
         program that wrote it, or its export",
    );
}

/// CRC-32, bit by bit.
fn crc(text: &str) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    !text.bytes().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[test]
fn an_import_is_refused_where_there_is_something_and_leaves_nothing_when_it_fails() {
    let folder = sample();
    let refused = import(folder.path(), EXPORT, &["data/store"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    assert_eq!(refused.stderr, "watchtower: data/store is not empty: import into a new folder\n");
    let cut = EXPORT.replace("{\"end\":{\"lines\":4}}\n", "");
    let failed = import(folder.path(), &cut, &["copy/store"]);
    assert_eq!(failed.code, Some(1));
    assert_eq!(
        failed.stderr,
        "watchtower: nothing was imported: the text ends after 4 lines, and is not complete\n"
    );
    let wrong = import(folder.path(), &EXPORT.replace("text", "txt"), &["copy/store"]);
    assert!(wrong.stderr.contains("nothing was imported: line 3: unknown variant `txt`"), "{wrong:?}");
    let imported = import(folder.path(), EXPORT, &["copy/store"]);
    assert_eq!(imported.code, Some(0), "an empty store is imported to: {imported:?}");
    assert_eq!(run_in(folder.path(), &["store", "export", "copy/store"], &[]).stdout, EXPORT);
}

#[test]
fn a_terminal_shows_how_far_it_is() {
    let folder = sample();
    let script = "\"$0\" store import copy < text; \"$0\" store check copy; \"$0\" store export copy > again";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-ec", &format!("cd {}; {script}", folder.path().display())]);
    shell.arg(env!("CARGO_BIN_EXE_watchtower")).env("TERM", "xterm");
    let mut terminal = Terminal::run(&shell);
    terminal.wait_for("exported 2 messages");
    assert_eq!(terminal.ended(), Some(0));
    let written = String::from_utf8_lossy(&terminal.written).into_owned();
    for shown in ["importing", "1/1 files", "2/2 messages"] {
        assert!(written.contains(shown), "{shown}: {written}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("again")).unwrap(), EXPORT);
}
