//! A disk that is not as it was, or takes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Http, Rocket, http};
use crate::support::{Server, eventually, watchtower};
use crate::{SECRET, start, start_after};

fn publish(server: &Server, texts: &[&str]) {
    let mut client = http(server);
    let sender = client.try_register().unwrap();
    client.ask("POST", "/channels/join", &json!({ "sender": sender, "channels": [1] }));
    for text in texts {
        assert_eq!(client.try_broadcast(sender, &json!([1]), text).unwrap().0, 200);
    }
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let log = fs::read_dir(folder.join("store").join("log")).unwrap();
    let mut files: Vec<_> = log.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    files
}

#[test]
fn a_flipped_byte_costs_one_message_which_is_told_and_the_rest_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    publish(&server, &["first", "the one that is hit", "last"]);
    server.stop();
    let (path, mut bytes, at) = segments(folder.path())
        .into_iter()
        .find_map(|path| {
            let bytes = fs::read(&path).unwrap();
            let at = bytes.windows(7).position(|window| window == b"the one")?;
            Some((path, bytes, at))
        })
        .expect("it is there");
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();

    let server = start(folder.path());
    let mut client = http(&server);
    let sender = client.try_register().unwrap();
    let (epoch, log) = client.log(sender, "1");
    assert_eq!(log, [(1, "first".into()), (3, "last".into())]);
    let line = server.wait_for_log("is lost by damage");
    assert!(line.contains("message 2 of channel 1"), "{line}");
    let mut lines = http(&server).follow(sender, "1", &format!("{epoch}:0"));
    let lines = [lines.next(), lines.next(), lines.next()];
    assert_eq!(lines.each_ref().map(|line| line["offset"].clone()), [0, 1, 3]);
    assert_eq!(lines[0]["recovered"], json!(false));
    assert_eq!(server.metric("durable_messages_missed_total"), 1);
    publish(&server, &["next"]);
    server.stop();
    tells_what_was_lost_earlier(folder.path(), &epoch);
}

/// Message 2 of 4 was lost, and the damaged file set aside: whoever meets the gap is told of it.
fn tells_what_was_lost_earlier(folder: &Path, epoch: &str) {
    let missing = "message 2 of channel 1 is missing";
    let check = watchtower(["store", "check", "--data-dir"]).arg(folder).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert_eq!(check.status.code(), Some(0), "{said}");
    assert!(said.contains(missing) && said.ends_with("; 1 message missing\n"), "{said}");

    let server = start(folder);
    server.wait_for_log(missing);
    let mut client = http(&server);
    let sender = client.try_register().unwrap();
    let mut history = |query: &str| {
        let target = format!("/channels/1/history?sender={sender}&{query}");
        let page = client.ask("GET", &target, &json!({}));
        (page["recovered"].clone(), page["lost"].clone())
    };
    let lost = json!([{ "from": 2, "to": 2 }]);
    assert_eq!(history(&format!("since={epoch}:1")), (json!(false), lost.clone()));
    assert_eq!(history(&format!("before={epoch}:3")), (json!(false), lost.clone()));
    assert_eq!(history("limit=10"), (json!(true), lost));
    assert_eq!(history(&format!("since={epoch}:2")), (json!(true), Value::Null));
    for (offset, recovered, next) in [(1, false, 3), (2, true, 3), (3, true, 4)] {
        let position = format!("{epoch}:{offset}");
        let mut lines = http(&server).follow(sender, "1", &position);
        let (opening, message) = (lines.next(), lines.next());
        assert_eq!((&opening["recovered"], &opening["offset"]), (&json!(recovered), &json!(offset)));
        assert_eq!(message["offset"], next);
        let mut rocket = Rocket::connect(server.tcp).unwrap();
        rocket.send(&format!(r#"{{"subscribe": {{"channel": "1", "since": "{position}"}}}}"#)).unwrap();
        let expected = format!(r#"{{"ok": true, "recovered": {recovered}, "position": "{position}"}}"#);
        assert_eq!(rocket.next().unwrap(), expected);
    }
    server.stop();
}

#[test]
fn a_folder_that_is_in_use_ends_the_start_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let _server = start(folder.path());
    let output = second(folder.path());
    assert_eq!(output.0, Some(1));
    assert!(output.1.contains("is in use by another process"), "{}", output.1);
}

#[test]
fn a_store_of_a_later_version_ends_the_start_and_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path()).stop();
    let path = folder.path().join("store").join("store");
    let later = fs::read_to_string(&path).unwrap().replace("version 1", "version 7");
    let body = later.split_inclusive('\n').take(3).collect::<String>();
    let text = format!("{body}check {:08x}\n", crc32(body.as_bytes()));
    fs::write(&path, &text).unwrap();
    let (code, error) = second(folder.path());
    assert_eq!(code, Some(1));
    assert!(error.contains("format version 7"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

/// What a server says that cannot start there.
fn second(folder: &Path) -> (Option<i32>, String) {
    let output = watchtower(["serve", "--listen", "127.0.0.1:0", "--secret", SECRET, "--data-dir"])
        .arg(folder)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn crc32(bytes: &[u8]) -> u32 {
    let table =
        |byte: u32| (0..8).fold(byte, |crc, _| if crc & 1 == 1 { 0xedb8_8320 ^ crc >> 1 } else { crc >> 1 });
    !bytes.iter().fold(!0, |crc, byte| table((crc ^ u32::from(*byte)) & 0xff) ^ crc >> 8)
}

/// A small disk in memory; gone when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where this may not be done, which is said.
    fn mount() -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["-t", "tmpfs", "-o", "size=1048576", "watchtower-test"];
        let mounted = Command::new("mount").args(arguments).arg(folder.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(folder));
        }
        eprintln!("skipped: mounting a small disk needs root");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_durable_publications_alone_and_says_what_is_degraded() {
    let Some(disk) = SmallDisk::mount() else { return };
    let server = start(&disk.0.path().join("data"));
    let mut client = http(&server);
    let sender = client.try_register().unwrap();
    client.ask("POST", "/channels/join", &json!({ "sender": sender, "channels": [1, "memory"] }));
    let text = "x".repeat(20_000);
    let ask =
        |client: &mut Http, channel: Value| client.try_broadcast(sender, &json!([channel]), &text).unwrap();
    assert_eq!(ask(&mut client, json!(1)).0, 200);
    let ballast = disk.0.path().join("ballast");
    // It fails once nothing more fits.
    fs::write(&ballast, vec![0; 1 << 20]).unwrap_err();
    let (status, refused) = ask(&mut client, json!(1));
    assert_eq!((status, &refused["error"]), (503, &json!("not_kept")), "{refused}");
    assert_eq!(ask(&mut client, json!("memory")).0, 200);
    let join = json!({ "sender": sender, "channels": ["other"] }).to_string();
    let register = json!({ "secret_key": SECRET }).to_string();
    for (path, body, expected) in [
        ("/register", register, "nobody was registered, since that could not be kept"),
        ("/channels/join", join, "it is done, but not kept on disk"),
    ] {
        let (status, refused) = client.try_ask("POST", path, &body).unwrap();
        assert_eq!((status, &refused["error"]), (503, &json!("not_kept")), "{refused}");
        assert!(refused["message"].as_str().unwrap().starts_with(expected), "{refused}");
    }
    let (status, ready) = client.try_ask("GET", "/ready", "").unwrap();
    assert_eq!((status, &ready["status"]), (200, &json!("ready")));
    assert!(ready["degraded"].as_str().unwrap().contains("nothing can be kept on disk"), "{ready}");
    assert_eq!(server.metric("disk_failing"), 1);
    assert_eq!(client.log(sender, "1").1.len(), 1, "reading goes on");
    fs::remove_file(&ballast).unwrap();
    eventually("kept again", || ask(&mut client, json!(1)).0 == 200);
    assert_eq!(server.metric("disk_failing"), 0);
    assert_eq!(client.log(sender, "1").1.len(), 2);
    server.stop();
}

#[test]
fn a_file_that_may_not_grow_is_as_good_as_a_full_disk_and_ends_no_server() {
    let folder = tempfile::tempdir().unwrap();
    // In blocks of 512 bytes.
    let server = start_after("ulimit -f 200", folder.path(), &[]);
    let mut client = http(&server);
    let sender = client.try_register().unwrap();
    client.ask("POST", "/channels/join", &json!({ "sender": sender, "channels": [1] }));
    let text = "x".repeat(20_000);
    let statuses = (0..8).map(|_| client.try_broadcast(sender, &json!([1]), &text).unwrap().0);
    let statuses: Vec<_> = statuses.collect();
    assert!(statuses.starts_with(&[200]) && statuses.ends_with(&[503]), "{statuses:?}");
    assert_eq!(server.metric("disk_failing"), 1);
    let kept = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(client.log(sender, "1").1.len(), kept);
    server.stop();
}
