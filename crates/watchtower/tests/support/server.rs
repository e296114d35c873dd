//! The server's process: started, asked, sent signals, and never left behind.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{PATIENCE, Tcp, Udp};

/// A server that has said that it is ready. Dropping it ends it at once.
pub(crate) struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    log: Receiver<String>,
    /// What it printed before it was ready, line by line.
    pub(crate) listening: Vec<String>,
    pub(crate) tcp: SocketAddr,
    pub(crate) udp: SocketAddr,
    folder: TempDir,
}

/// How a server ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// What it printed after it was ready.
    pub(crate) stdout: String,
    /// What of its log had not been read.
    pub(crate) log: Vec<String>,
}

impl Server {
    /// `watchtower serve` on a free port, with these options, in an empty folder.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_with(options, |_| {})
    }

    /// The same, in a folder that was prepared.
    pub(crate) fn start_with(options: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        Self::start_after_in("true", options, prepare)
    }

    /// The same, in a process for which a shell has done something before.
    pub(crate) fn start_after(shell: &str, options: &[&str]) -> Self {
        Self::start_after_in(shell, options, |_| {})
    }

    /// The same, in a folder that was prepared.
    pub(crate) fn start_after_in(shell: &str, options: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        Self::launch(shell, "127.0.0.1:0", options, prepare)
    }

    /// `watchtower serve` on this address, of the network that the calling thread is in.
    pub(crate) fn start_at(listen: &str, options: &[&str]) -> Self {
        Self::launch("true", listen, options, |_| {})
    }

    fn launch(shell: &str, listen: &str, options: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("{shell} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_watchtower")])
            .args(["serve", "--listen", listen].iter().chain(options))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = lines(child.stderr.take().unwrap());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut listening = Vec::new();
        loop {
            let mut line = String::new();
            if stdout.read_line(&mut line).unwrap() == 0 {
                panic!("it ended before it was ready: {:?}", log.iter().collect::<Vec<_>>());
            }
            match line.trim_end() {
                "ready" => break,
                line => listening.push(line.to_owned()),
            }
        }
        let address = |transport: &str| {
            let line = listening.iter().find(|line| line.starts_with(&format!("listening {transport} ")));
            line.unwrap().split(' ').nth(2).unwrap().parse().unwrap()
        };
        let (tcp, udp) = (address("tcp"), address("udp"));
        Self { child, stdout, log, listening, tcp, udp, folder }
    }

    /// Where it runs.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn connect(&self) -> Tcp {
        Tcp::connect(self.tcp)
    }

    pub(crate) fn peer(&self) -> Udp {
        Udp::bind(self.udp)
    }

    /// A counter, as `/metrics` shows it.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        self.shown_metric(name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// The same for one that is shown once it has counted something.
    pub(crate) fn metric_or_zero(&self, name: &str) -> u64 {
        self.shown_metric(name).unwrap_or(0)
    }

    fn shown_metric(&self, name: &str) -> Option<u64> {
        let mut stream = TcpStream::connect(self.tcp).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let line = answer.lines().find_map(|line| line.strip_prefix(&format!("watchtower_{name} ")));
        line.map(|value| value.parse().unwrap())
    }

    /// The memory that it holds, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * rustix::param::page_size()
    }

    /// The most memory that it ever held, in bytes.
    pub(crate) fn memory_peak(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        1024 * peak.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Reads its log up to a line with this in it.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, part: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {part} in the log"));
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ended {
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        let code = self.child.wait().unwrap().code();
        Ended { code, stdout, log: self.log.iter().collect() }
    }

    /// Ends it, and makes sure that nothing went wrong in it unnoticed.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.signal(Signal::TERM);
        let ended = self.ended();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{:?}", ended.log);
        assert!(!ended.log.iter().any(|line| line.contains("panicked")), "{:?}", ended.log);
    }
}

/// A test that fails leaves no server behind.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary, with nothing in its environment.
pub(crate) fn watchtower<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchtower"));
    command.args(arguments).env_clear();
    command
}

/// Reads on to the end, so that the writer never waits.
fn lines(input: impl Read + Send + 'static) -> Receiver<String> {
    let (lines, received) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(input).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    received
}
