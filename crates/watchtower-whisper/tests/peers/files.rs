//! Files between peers, and from peers that mean harm.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::timeout;
use watchtower_hub::Timestamp;
use watchtower_whisper::protocol::{
    Action, FileLimits, FloodLimits, IdKind, Keep, Message, Node, Options as NodeOptions, PART_BYTES, Part,
    Whole, check_id,
};
use watchtower_whisper::{Event, Events, Options, Peer, Unsendable};

use super::{SOON, connected, local, next_shown, options, start, wait_for};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

/// A directory, and a peer that saves files below it.
async fn saver(options: Options) -> (TempDir, Peer, Events) {
    let dir = tempfile::tempdir().unwrap();
    let downloads = Some(dir.path().join("downloads"));
    let peer = Peer::start(Options { downloads, ..options }).await.unwrap();
    let events = peer.events();
    (dir, peer, events)
}

/// A file that is one byte longer than what goes in one message.
fn two_parts(dir: &Path) -> (PathBuf, Vec<u8>) {
    let contents: Vec<u8> = (0..=PART_BYTES).map(|at| (at / 7) as u8).collect();
    let path = dir.join("a.bin");
    fs::write(&path, &contents).unwrap();
    (path, contents)
}

/// How an incoming file ends: where it is, what image it is, or why it is not
/// there.
async fn end(events: &mut Events) -> Result<(PathBuf, Option<&'static str>), String> {
    wait_for(events, |event| match event {
        Event::Saved { path, image, .. } => Some(Ok((path, image))),
        Event::Failed { reason, .. } => Some(Err(reason)),
        _ => None,
    })
    .await
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

async fn send_to(peer: &Peer, objects: impl IntoIterator<Item = impl AsRef<[u8]>>) -> TcpStream {
    let mut stream = TcpStream::connect(peer.address()).await.unwrap();
    for object in objects {
        stream.write_all(object.as_ref()).await.unwrap();
    }
    stream
}

/// The objects of some parts of a file.
fn parts(whole: &Whole, contents: &[u8], numbers: impl IntoIterator<Item = u64>) -> Vec<Bytes> {
    let (own, other): (SocketAddr, SocketAddr) = (([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 1).into());
    let now = Timestamp::from_millis(1_795_255_200_000);
    let mut node = Node::new(NodeOptions::new(own, own), [0; 16], now);
    node.connect(other, Keep::Always, now);
    node.dialled(other, own, now).unwrap();
    for number in numbers {
        let range = whole.range(number);
        let contents = Bytes::copy_from_slice(&contents[range.start as usize..range.end as usize]);
        node.say_part(Some("goldy"), &whole.part(number, contents), now).unwrap();
    }
    let object = |action| if let Action::Send { object, .. } = action { Some(object) } else { None };
    std::iter::from_fn(|| node.next_action()).filter_map(object).collect()
}

fn whole(name: &str, contents: &[u8]) -> Whole {
    Whole::new(name, "", contents.len() as u64, Sha256::digest(contents).into(), [1; 16]).unwrap()
}

/// A message as a deployed peer sends a file.
fn plain(id: u32, body: &str, file_type: &str, base64: &str) -> String {
    format!(r#"{{"ID":"{id}","Body":"{body}","FileType":"{file_type}","FileContents":"{base64}"}}"#)
}

/// A peer that reads messages, and no more.
async fn read_objects(listener: &TcpListener, count: usize) -> Vec<String> {
    let (stream, _) = listener.accept().await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut objects = Vec::new();
    for _ in 0..count {
        objects.push(timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap());
    }
    objects
}

// What means well.

/// [whispernet: 10]
#[tokio::test]
async fn a_file_in_parts_arrives_intact_and_words_do_not_wait_for_it() {
    let (dir, phil, mut events) = saver(options()).await;
    let goldy = start("goldy", &[&phil]).await;
    let mut own = goldy.events();
    connected(&goldy, 1).await;
    let (path, contents) = two_parts(dir.path());
    let number = goldy.send_file(&path).await.unwrap();
    goldy.say("hi").await.unwrap();
    assert_eq!(next_shown(&mut events).await.body, "hi");

    let all = contents.len() as u64;
    let mut sent = Vec::new();
    wait_for(&mut own, |event| {
        if let Event::Progress { transfer, outgoing: true, bytes_done, bytes_all, name } = event {
            assert_eq!((transfer, bytes_all, &*name), (number, all, "a.bin"));
            sent.push(bytes_done);
        }
        (sent.last() == Some(&all)).then_some(())
    })
    .await;
    assert_eq!(sent, [PART_BYTES, all]);
    assert!(goldy.flush(SOON).await);

    let saved = wait_for(&mut events, |event| match event {
        Event::Saved { name, path, nick, mime_type, image, .. } => Some((name, path, nick, mime_type, image)),
        Event::Failed { reason, .. } => panic!("{reason}"),
        _ => None,
    });
    let (name, saved, nick, mime_type, image) = saved.await;
    assert_eq!((&*name, nick.as_deref(), image), ("a.bin", Some("goldy"), None));
    assert_eq!(mime_type, "application/octet-stream");
    assert_eq!(saved, dir.path().join("downloads/a.bin"));
    assert!(fs::read(&saved).unwrap() == contents);
    assert_eq!(fs::metadata(&saved).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(&dir.path().join("downloads")), ["a.bin"], "nothing else is left");
    assert!(phil.recent().await.iter().all(|shown| shown.part.is_none()));
}

#[tokio::test]
async fn an_empty_file_arrives_too() {
    let (dir, phil, mut events) = saver(options()).await;
    let goldy = start("goldy", &[&phil]).await;
    connected(&goldy, 1).await;
    let path = dir.path().join("empty.txt");
    File::create(&path).unwrap();
    goldy.send_file(&path).await.unwrap();
    let (saved, _) = end(&mut events).await.unwrap();
    assert_eq!(fs::metadata(saved).unwrap().len(), 0);
}

/// [whispernet: 10] As deployed peers do it.
#[tokio::test]
async fn a_plain_peer_gets_a_small_file_in_one_message() {
    let listener = TcpListener::bind(local()).await.unwrap();
    let goldy = start("goldy", &[]).await;
    goldy.connect(listener.local_addr().unwrap()).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cat.png");
    fs::write(&path, PNG).unwrap();
    goldy.send_file(&path).await.unwrap();
    let objects = read_objects(&listener, 1).await;
    let message = Message::parse(objects[0].as_bytes()).unwrap().unwrap();
    assert_eq!((&*message.body, message.nick.as_deref()), ("cat.png", Some("goldy")));
    assert_eq!(message.file_type.as_deref(), Some("image/png"));
    assert_eq!(message.file_contents.as_deref(), Some("iVBORw0KGgoAAAANSUhEUg=="));
    assert_eq!(message.file_part, None);
}

/// [whispernet: 10] [whispernet: 4]
#[tokio::test]
async fn a_plain_peer_shows_the_parts_of_a_file_as_text() {
    let listener = TcpListener::bind(local()).await.unwrap();
    let goldy = start("goldy", &[]).await;
    goldy.connect(listener.local_addr().unwrap()).await;
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = two_parts(dir.path());
    let (objects, sent) = tokio::join!(read_objects(&listener, 2), goldy.send_file(&path));
    sent.unwrap();
    for (number, object) in (1..).zip(&objects) {
        let message = Message::parse(object.as_bytes()).unwrap().unwrap();
        assert!(message.body.starts_with(&format!("a.bin (part {number} of 2, ")), "{}", message.body);
        assert_eq!((&message.file_type, &message.file_contents), (&None, &None));
        assert_eq!(check_id(&message), IdKind::Hashed);
        assert_eq!(Part::of(&message).unwrap().unwrap().number, number);
    }
}

#[tokio::test]
async fn an_image_is_one_by_its_contents() {
    let (_dir, phil, mut events) = saver(options()).await;
    let _stream = send_to(
        &phil,
        [
            plain(1, "cat.txt", "text/plain", "iVBORw0KGgoAAAANSUhEUg=="),
            plain(2, "cat.png", "image/png", "PHNjcmlwdD4="),
        ],
    )
    .await;
    let mut ends = [end(&mut events).await.unwrap(), end(&mut events).await.unwrap()];
    ends.sort();
    let ends = ends.map(|(path, image)| (path.file_name().unwrap().to_str().unwrap().to_owned(), image));
    assert_eq!(ends, [("cat.png".to_owned(), None), ("cat.txt".to_owned(), Some("image/png"))]);
}

// What does not.

/// [whispernet: 10]
#[tokio::test]
async fn no_name_leads_out_of_the_directory_or_over_another_file() {
    let (dir, phil, mut events) = saver(options()).await;
    let downloads = dir.path().join("downloads");
    fs::create_dir(&downloads).unwrap();
    fs::write(downloads.join("a.txt"), "mine").unwrap();
    symlink(dir.path().join("elsewhere"), downloads.join("link")).unwrap();
    let mut files = Vec::new();
    for (number, name) in
        (1..).zip(["a.txt", "../a.txt", "/etc/../link", "..", ".bashrc", "..\\\\..\\\\b\\u0000"])
    {
        let _stream = send_to(&phil, [plain(number, name, "", "eA==")]).await;
        files.push(end(&mut events).await.unwrap().0);
    }
    let expected = ["a (2).txt", "a (3).txt", "link (2)", "file", "bashrc", "b"];
    assert_eq!(files, expected.map(|name| downloads.join(name)));
    assert_eq!(fs::read(downloads.join("a.txt")).unwrap(), b"mine");
    assert_eq!(names(dir.path()), ["downloads"]);
    assert_eq!(names(&downloads).len(), expected.len() + 2);
}

#[tokio::test]
async fn parts_arrive_in_any_order_and_twice_and_after_the_end() {
    let (dir, phil, mut events) = saver(options()).await;
    let (_, contents) = two_parts(dir.path());
    let _stream = send_to(&phil, parts(&whole("b", &contents), &contents, [2, 2, 1, 2, 1])).await;
    let (path, _) = end(&mut events).await.unwrap();
    assert!(fs::read(path).unwrap() == contents);
    let _stream = send_to(&phil, [r#"{"ID":"1","Body":"hi"}"#]).await;
    wait_for(&mut events, |event| match event {
        Event::Shown(shown) => Some(shown),
        Event::Saved { .. } | Event::Failed { .. } | Event::Progress { .. } => panic!("{event:?}"),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_file_of_another_hash_is_not_saved() {
    let (dir, phil, mut events) = saver(options()).await;
    let (_, contents) = two_parts(dir.path());
    let whole = Whole::new("b", "", contents.len() as u64, [0; 32], [1; 16]).unwrap();
    let _stream = send_to(&phil, parts(&whole, &contents, 1..=2)).await;
    let reason = end(&mut events).await.unwrap_err();
    assert_eq!(reason, "what came is not what was sent: its hash is another");
    assert_eq!(names(&dir.path().join("downloads")), [""; 0]);
}

#[tokio::test]
async fn what_is_not_whole_in_time_is_removed() {
    let files = FileLimits { idle: Duration::from_millis(200), ..FileLimits::default() };
    let (dir, phil, mut events) = saver(Options { files, ..options() }).await;
    let (_, contents) = two_parts(dir.path());
    let _stream = send_to(&phil, parts(&whole("b", &contents), &contents, [2])).await;
    assert_eq!(end(&mut events).await.unwrap_err(), "1 of 2 parts did not come");
    let is_removed = async {
        while !names(&dir.path().join("downloads")).is_empty() {
            yield_now().await;
        }
    };
    timeout(SOON, is_removed).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_too_large_is_told_and_not_saved() {
    let files = FileLimits { file_bytes: 100, ..FileLimits::default() };
    let (dir, phil, mut events) = saver(Options { files, ..options() }).await;
    let (_, contents) = two_parts(dir.path());
    let _stream = send_to(&phil, parts(&whole("b", &contents), &contents, 1..=2)).await;
    assert_eq!(end(&mut events).await.unwrap_err(), "it has 786433 bytes, and may have 100");
    let _stream = send_to(&phil, [plain(1, "c", "", &"AAAA".repeat(34))]).await;
    assert_eq!(end(&mut events).await.unwrap_err(), "it has 102 bytes, and may have 100");
    assert_eq!(names(&dir.path().join("downloads")), [""; 0]);
}

#[tokio::test]
async fn without_a_directory_it_is_told_once_that_nothing_is_saved() {
    let phil = start("phil", &[]).await;
    let mut events = phil.events();
    let dir = tempfile::tempdir().unwrap();
    let (_, contents) = two_parts(dir.path());
    let _stream = send_to(&phil, parts(&whole("b", &contents), &contents, 1..=2)).await;
    assert_eq!(end(&mut events).await.unwrap_err(), "files are not saved here");
    assert_eq!(phil.recent().await, []);
}

/// A file system of a mebibyte, which takes root to make.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Option<SmallDisk> {
        fs::create_dir(&path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&path).output();
        mount.is_ok_and(|output| output.status.success()).then_some(SmallDisk(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_left_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path().join("small")) else {
        eprintln!("skipped: mounting a small file system takes root");
        return;
    };
    let phil = Peer::start(Options { downloads: Some(disk.0.clone()), ..options() }).await.unwrap();
    let mut events = phil.events();
    let contents = vec![1; 2 << 20];
    let _stream = send_to(&phil, parts(&whole("b", &contents), &contents, 1..=3)).await;
    let reason = end(&mut events).await.unwrap_err();
    assert_eq!(reason, "it cannot be saved: No space left on device (os error 28)");
    assert_eq!(names(&disk.0), [""; 0]);
    // There is room again, and for what has room.
    let _stream = send_to(&phil, [plain(1, "c", "", "eA==")]).await;
    assert_eq!(end(&mut events).await.unwrap().0, disk.0.join("c"));
    phil.shut_down().await;
}

// What cannot be sent.

#[tokio::test]
async fn only_files_are_sent() {
    let goldy = start("goldy", &[]).await;
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [dir.path(), &pipe, Path::new("/dev/zero")] {
        let error = goldy.send_file(path).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{}: expected a file", path.display()));
    }
    let path = dir.path().join("missing");
    let error = goldy.send_file(&path).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{}: No such file or directory (os error 2)", path.display()));
    let path = dir.path().join("huge");
    File::create(&path).unwrap().set_len(PART_BYTES << 17).unwrap();
    let error = goldy.send_file(&path).await.unwrap_err();
    assert!(matches!(error, Unsendable::TooLarge { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_large_file_waits_a_while_for_a_peer() {
    let goldy = start("goldy", &[]).await;
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = two_parts(dir.path());
    let error = goldy.send_file(&path).await.unwrap_err();
    assert_eq!(error.to_string(), "no peer is connected");
    assert!(!goldy.flush(Duration::ZERO).await);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_is_told_on_both_sides() {
    let shorter = |path: &Path| File::options().write(true).open(path).unwrap().set_len(10).unwrap();
    let longer = |path: &Path| File::options().append(true).open(path).unwrap().write_all(b"x").unwrap();
    let other = |path: &Path| {
        let mut contents = fs::read(path).unwrap();
        *contents.last_mut().unwrap() ^= 1;
        fs::write(path, contents).unwrap();
    };
    tokio::join!(check_change(shorter), check_change(longer), check_change(other));
}

async fn check_change(change: impl Fn(&Path)) {
    let files = FileLimits { idle: Duration::from_millis(200), ..FileLimits::default() };
    let (dir, phil, mut events) = saver(Options { files, ..options() }).await;
    // So slow that there is a second to change it.
    let flood = FloodLimits { bytes_per_second: 4 << 20, ..FloodLimits::default() };
    let peers = vec![phil.address().to_string()];
    let goldy = Peer::start(Options { flood, peers, ..options() }).await.unwrap();
    let mut own = goldy.events();
    connected(&goldy, 1).await;
    let (path, _) = two_parts(dir.path());
    goldy.send_file(&path).await.unwrap();
    change(&path);
    let expected = format!("{}: it changed while it was being sent", path.display());
    assert_eq!(end(&mut own).await.unwrap_err(), expected);
    assert_eq!(end(&mut events).await.unwrap_err(), "1 of 2 parts did not come");
}
