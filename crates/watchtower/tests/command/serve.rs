//! `watchtower serve`: how it starts, refuses to, and ends [running: serve]. What it serves is
//! tested with the server.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::process::{Running, run, run_in, watchtower};

/// `watchtower serve` on a free port, with these options.
fn serve(folder: &Path, options: &[&str]) -> Running {
    Running::start(folder, &[&["serve", "--listen", "127.0.0.1:0"], options].concat())
}

#[test]
fn when_ready_it_prints_its_listeners_and_nothing_else_and_ends_well_on_a_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = tempfile::tempdir().unwrap();
        let server = serve(folder.path(), &["--secret", "3f9c-aa01"]);
        for line in &server.listening {
            assert!(line.starts_with("listening "), "{line}");
            assert!(line.contains(" 127.0.0.1:") && !line.contains(":0 "), "{line}");
        }
        assert!(server.listening[0].starts_with("listening tcp "));
        let (code, said) = server.ended_by(signal);
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains("3f9c-aa01"), "{said}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "it left something behind");
    }
}

#[test]
fn what_is_published_from_the_command_line_reaches_a_subscriber_over_either_packet_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), &[]);
    let address = server.listening[0].split(' ').nth(2).unwrap().to_owned();
    for (subscriber, publisher) in [("tcp", "udp"), ("udp", "tcp")] {
        let remote = |protocol| ["--server", &address, "--protocol", protocol].map(str::to_owned);
        let mut sub = watchtower(["sub", "5"].map(str::to_owned).into_iter().chain(remote(subscriber)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for(&mut BufReader::new(sub.stderr.take().unwrap()), "subscribed to 5 as sender ");
        let words = ["pub", "5", "all your base"].map(str::to_owned);
        let published = watchtower(words.into_iter().chain(remote(publisher))).output().unwrap();
        assert!(published.status.success(), "{published:?}");
        let mut line = String::new();
        BufReader::new(sub.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("5 ") && line.ends_with(" all your base\n"), "{line}");
        // Its reader is gone now.
        assert!(sub.wait().unwrap().success());
    }
}

#[test]
fn a_secret_is_made_at_the_first_start_shown_once_and_kept_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let first = serve(folder.path(), &["--data-dir", "data"]);
    let file = folder.path().join("data/secret_key");
    let secret = fs::read_to_string(&file).unwrap();
    let secret = secret.trim_end();
    assert_eq!(secret.len(), 32);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&file), mode(&folder.path().join("data"))), (0o600, 0o700));
    let (_, said) = first.ended_by(Signal::TERM);
    assert_eq!(said.matches(secret).count(), 1, "{said}");

    let (code, said) = serve(folder.path(), &["--data-dir", "data"]).ended_by(Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(!said.contains(secret), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap().trim_end(), secret);
}

/// What is in a folder, with the bits of its mode.
fn modes(path: &Path) -> Vec<(String, u32)> {
    let mode = fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let mut found = vec![(path.display().to_string(), mode)];
    if path.is_dir() {
        found.extend(fs::read_dir(path).unwrap().flat_map(|entry| modes(&entry.unwrap().path())));
    }
    found
}

#[test]
fn all_that_is_kept_is_for_its_owner_alone_and_what_others_may_read_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let options = ["--data-dir", "data", "--set", "whispernet.listen=127.0.0.1:0"];
    let (code, said) = serve(folder.path(), &options).ended_by(Signal::TERM);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("others on this machine"), "{said}");
    let found = modes(&data);
    for name in ["secret_key", "store/store", "store/lock", "whispernet/whispernet.key"] {
        let is_there = found.iter().any(|(path, _)| path.ends_with(name));
        assert!(is_there, "{name} is not in {found:?}");
    }
    for (path, mode) in found {
        let expected = if Path::new(&path).is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{path}: {mode:o}");
    }
    fs::set_permissions(data.join("store"), Permissions::from_mode(0o755)).unwrap();
    let (code, said) = serve(folder.path(), &options).ended_by(Signal::TERM);
    assert_eq!(code, Some(0), "{said}");
    let told = "others on this machine may read or change what is in data/store (mode 0755); if they are \
                not to, run: chmod -R go= data/store";
    assert!(said.contains(told), "{said}");
}

#[test]
fn a_server_that_cannot_listen_makes_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for options in [&[][..], &["--data-dir", "data"]] {
        let ended = run_in(folder.path(), &[&["serve", "--listen", &address], options].concat(), &[]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        assert!(ended.stderr.starts_with("watchtower: cannot listen on "), "{ended:?}");
    }
    assert!(!folder.path().join("data").exists());
}

#[test]
fn as_json_every_line_on_standard_error_is_an_object() {
    let folder = tempfile::tempdir().unwrap();
    let (_, said) = serve(folder.path(), &["--log-format", "json"]).ended_by(Signal::TERM);
    assert!(said.lines().count() >= 2, "{said}");
    for line in said.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(object["level"].is_string() && object["fields"]["message"].is_string(), "{line}");
    }
}

#[test]
fn a_supervisor_is_told_when_it_is_ready_and_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0"];
    let server = Running::start_with(folder.path(), &arguments, &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    let told = || {
        let mut message = [0; 64];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    assert_eq!(told(), "READY=1");
    assert_eq!(server.ended_by(Signal::TERM).0, Some(0));
    assert_eq!(told(), "STOPPING=1");
}

#[test]
fn a_reload_of_a_wrong_file_is_logged_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("watchtower.toml");
    fs::write(&file, "limits.max_senders = 5\n").unwrap();
    let mut server = serve(folder.path(), &["--config", "watchtower.toml"]);
    fs::write(&file, "limits.max_sendres = 6\n").unwrap();
    server.signal(Signal::HUP);
    wait_for(&mut server.stderr, "did you mean \"limits.max_senders\"?");
    fs::write(&file, "limits.max_senders = 6\nudp_idle = \"1m\"\n").unwrap();
    server.signal(Signal::HUP);
    let told = wait_for(&mut server.stderr, "reloaded");
    assert!(told.contains("udp_idle") && !told.contains("max_senders"), "{told}");
    assert_eq!(server.ended_by(Signal::TERM).0, Some(0));
}

#[test]
fn a_reload_of_a_certificate_that_cannot_be_used_is_logged_and_so_is_a_key_that_all_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&cert, issued.cert.pem()).unwrap();
    fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let mut server = serve(folder.path(), &["--set", "tls.cert=cert.pem", "--set", "tls.key=key.pem"]);
    let told = wait_for(&mut server.stderr, "every user of this machine can read this private key");
    assert!(told.contains("tls.key = \"key.pem\"") && told.contains("chmod 600 key.pem"), "{told}");
    fs::write(&key, "").unwrap();
    server.signal(Signal::HUP);
    let told = wait_for(&mut server.stderr, "the former certificate stays in use");
    assert!(told.contains("tls.key = \"key.pem\": there is none in it; expected "), "{told}");
    let told = wait_for(&mut server.stderr, "reloaded");
    assert!(!told.contains("reloaded secrets, limits and the certificate"), "it was not: {told}");
    // TLS is spoken still: what is no handshake is answered with an alert.
    let mut client = TcpStream::connect(server.listening[0].split(' ').nth(2).unwrap()).unwrap();
    client.write_all(b"\x16\x03\x01\0\x05\x01\0\0\x01\xff").unwrap();
    let mut alert = [0; 6];
    client.read_exact(&mut alert).unwrap();
    assert_eq!(alert, *b"\x15\x03\x03\0\x02\x02");
    assert_eq!(server.ended_by(Signal::TERM).0, Some(0));
}

#[test]
fn a_log_that_nobody_reads_or_can_read_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    for is_open in [true, false] {
        let arguments = ["serve", "--listen", "127.0.0.1:0"];
        let mut server = Running::start_with(folder.path(), &arguments, &[("RUST_LOG", "trace")]);
        if !is_open {
            server.hang_up_on_stderr();
        }
        let address = server.listener("packets,http,websocket");
        // More lines than a pipe holds, at most 64 KiB.
        for _ in 0..300 {
            let mut client = TcpStream::connect(address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            client.write_all(b"K").unwrap();
            let mut answer = [0; 5];
            client.read_exact(&mut answer).unwrap_or_else(|error| panic!("{error}, open {is_open}"));
        }
        server.signal(Signal::TERM);
        assert_eq!(server.ended_unread(), Some(0), "open {is_open}");
    }
}

fn wait_for(stderr: &mut impl BufRead, part: &str) -> String {
    for line in stderr.lines().map(Result::unwrap) {
        if line.contains(part) {
            return line;
        }
    }
    panic!("standard error ended without {part}");
}

#[test]
fn a_second_signal_ends_it_at_once_even_if_a_session_is_still_owed_something() {
    let folder = tempfile::tempdir().unwrap();
    let patient = ["--set", "shutdown_grace=1h", "--set", "limits.lag_bytes=100000000"];
    let mut server = serve(folder.path(), &patient);
    let address = server.listening[0].split(' ').nth(2).unwrap();
    // This one never reads what it is sent.
    let (_subscriber, _) = join_channel_5(address);
    let (mut publisher, id) = join_channel_5(address);
    let mut echoes = publisher.try_clone().unwrap();
    let content = [b'x'; 60_000];
    let messages = 500;
    let reader = thread::spawn(move || {
        let mut echo = vec![0; 15 + content.len()];
        (0..messages).for_each(|_| echoes.read_exact(&mut echo).unwrap());
    });
    for _ in 0..messages {
        let mut packet = vec![b'M'];
        packet.extend(id);
        packet.extend([5, 0, 0, 0]);
        packet.extend(60_000_u32.to_le_bytes());
        packet.extend(content);
        publisher.write_all(&packet).unwrap();
    }
    reader.join().unwrap();

    server.signal(Signal::TERM);
    wait_for(&mut server.stderr, "shutting down");
    let (code, said) = server.ended_by(Signal::TERM);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("watchtower: ended by a second signal"), "{said}");
}

/// Registers and joins [packets: client to server]; the connection and the sender's id.
fn join_channel_5(address: &str) -> (TcpStream, [u8; 4]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"R").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    let [b'A', id @ ..] = answer else { panic!("{answer:?}") };
    stream.write_all(&[&b"J"[..], &id, &[5, 0, 0, 0]].concat()).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [b'A', 5, 0, 0, 0]);
    (stream, id)
}

#[test]
fn a_wrong_configuration_is_code_2_before_anything_listens() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.toml"), "\nhartbeat = \"1s\"\n").unwrap();
    for (options, environment, told) in [
        (&["--config", "bad.toml"][..], &[][..], "bad.toml:2: unknown key \"hartbeat\""),
        (&["--config", "none.toml"], &[], "none.toml: cannot read the configuration"),
        (&["--listen", "nowhere"], &[], "--listen: listen: got nowhere, expected an IP address"),
        (&["--listen", "0.0.0.0:0"], &[], "secret_key is empty"),
        (&["--listen", "0.0.0.0:0", "--secret", "changeme"], &[], "secret_key is well known"),
        (&["--set", "listen"], &[], "--set listen: expected KEY=VALUE"),
        (&["--set", "tls.key=a.pem"], &[], "tls.key is set, but tls.cert is empty"),
        (
            &["--set", "tls.cert=none.pem", "--set", "tls.key=a.pem"],
            &[],
            "tls.cert = \"none.pem\": cannot read it: No such file",
        ),
        (&["--set", "http.hartbeat=1s"], &[], "did you mean \"http.heartbeat\"?"),
        (&[], &[("WATCHTOWER_LISTN", "x")], "WATCHTOWER_LISTN: unknown key \"listn\""),
        (&[], &[("RUST_LOG", "no=such=level")], "RUST_LOG=no=such=level: "),
    ] {
        let ended = run_in(folder.path(), &[&["serve"], options].concat(), environment);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{options:?}: {ended:?}");
        assert!(ended.stderr.contains(told), "{options:?}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn a_port_that_is_taken_is_code_1_and_one_line_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(&["serve", "--listen", &address, "--secret", "3f9c-aa01"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.starts_with("watchtower: cannot listen on tcp "), "{last}");
    assert!(last.contains(&address), "{last}");
}
