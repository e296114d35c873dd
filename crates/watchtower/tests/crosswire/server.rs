//! A running `watchtower serve`, and nothing about what is said to it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The secret of every server here.
pub(crate) const SECRET: &str = "3f9c-aa01";

/// How long a test waits for what must come. It bounds a failure and times nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again, where nothing says when the server has done its part.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not {what}");
    }
}

/// The binary, away from the environment of whoever runs the tests.
pub(crate) fn watchtower(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchtower"));
    command.args(arguments).env_clear();
    command
}

/// The options of every server here.
const ALWAYS: &[&str] = &[
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--secret",
    SECRET,
    "--set",
    "http.heartbeat=1h",
    "--set",
    r#"channels=[{pattern="7",format="json"},{pattern="8",history_messages=100}]"#,
];

/// A server that has said that it is ready. Dropping it ends it at once.
pub(crate) struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    folder: Arc<TempDir>,
    pub(crate) tcp: SocketAddr,
    pub(crate) udp: SocketAddr,
    /// What it printed of further listeners.
    others: Vec<String>,
}

impl Server {
    /// A server without heartbeats, so that a slow test reads what a fast one reads. Channel 7
    /// takes JSON alone, channel 8 keeps a history. Loopback may be called: it
    /// listens there alone [http: callbacks].
    pub(crate) fn start(options: &[&str]) -> Server {
        Server::start_in(options, &[])
    }

    /// The same with these variables in its environment.
    pub(crate) fn start_in(options: &[&str], environment: &[(&str, &str)]) -> Server {
        Server::launch(&Arc::new(tempfile::tempdir().unwrap()), options, environment)
    }

    /// One that keeps what is to outlive it in a folder `data`.
    pub(crate) fn start_kept(options: &[&str]) -> Server {
        Server::start(&[&["--data-dir", "data"], options].concat())
    }

    /// Ends it so, and starts it again where it was.
    pub(crate) fn restarted_after(mut self, signal: Signal, options: &[&str]) -> Server {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap();
        Server::launch(&self.folder, &[&["--data-dir", "data"], options].concat(), &[])
    }

    fn launch(folder: &Arc<TempDir>, options: &[&str], environment: &[(&str, &str)]) -> Server {
        // Into a file: nobody has to read it for the server to go on.
        let stderr = File::create(folder.path().join("stderr")).unwrap();
        let mut child = watchtower(&[ALWAYS, options].concat())
            .current_dir(folder.path())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = stdout.by_ref().lines().map(Result::unwrap);
        let (tcp, udp) = (address(lines.next(), "tcp"), address(lines.next(), "udp"));
        let others: Vec<String> = lines.take_while(|line| line != "ready").collect();
        Server { child, stdout, folder: folder.clone(), tcp, udp, others }
    }

    /// Where a listener of its own is, of which it said that protocol.
    pub(crate) fn listener(&self, protocol: &str) -> SocketAddr {
        let line = self.others.iter().find(|line| line.split(' ').nth(3) == Some(protocol));
        address(line.cloned(), "tcp")
    }

    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits for its end; its exit code, and what it said on standard error.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let mut printed = String::new();
        self.stdout.read_to_string(&mut printed).unwrap();
        assert_eq!(printed, "", "nothing else goes to standard output [running: serve]");
        let code = self.child.wait().unwrap().code();
        (code, fs::read_to_string(self.folder.path().join("stderr")).unwrap())
    }
}

/// Of a line `listening tcp 127.0.0.1:3033 packets,http`.
fn address(line: Option<String>, transport: &str) -> SocketAddr {
    let line = line.expect("a server that starts");
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!(words[..2], ["listening", transport], "{line}");
    words[2].parse().unwrap()
}

/// A test that fails leaves no server behind.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
