//! Running the real binary, away from the environment of whoever runs the tests.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

/// The binary, with nothing in its environment but a path to find the shell's tools.
pub(crate) fn watchtower<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchtower"));
    command.args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command
}

/// What became of a command that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary in a folder, to its end.
pub(crate) fn run_in(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = watchtower(arguments);
    command.current_dir(folder).envs(environment.iter().copied());
    command.output().unwrap().into()
}

/// Runs the binary in an empty folder, to its end.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    run_in(folder.path(), arguments, &[])
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// An address where nobody listens, and nobody will: the socket keeps the port for that.
pub(crate) fn nobody() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A server that has said that it is ready.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub(crate) stderr: BufReader<Box<dyn Read + Send>>,
    /// The lines that it printed before that.
    pub(crate) listening: Vec<String>,
}

impl Running {
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, &[])
    }

    /// The same, with this in its environment.
    pub(crate) fn start_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = watchtower(arguments)
            .current_dir(folder)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(Box::new(child.stderr.take().unwrap()) as Box<dyn Read + Send>);
        let mut running = Self { child, stdout, stderr, listening: Vec::new() };
        loop {
            let mut line = String::new();
            let bytes = running.stdout.read_line(&mut line).unwrap();
            assert_ne!(bytes, 0, "ended before it was ready");
            if line == "ready\n" {
                return running;
            }
            running.listening.push(line);
        }
    }

    /// Where its listener is, of which it said that protocol.
    pub(crate) fn listener(&self, protocol: &str) -> SocketAddr {
        let line = self.listening.iter().find(|line| line.trim_end().split(' ').nth(3) == Some(protocol));
        line.unwrap_or_else(|| panic!("{:?}", self.listening)).split(' ').nth(2).unwrap().parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends the signal, and waits for its end.
    pub(crate) fn ended_by(self, signal: Signal) -> (Option<i32>, String) {
        self.signal(signal);
        self.ended()
    }

    /// Waits for its end, and reads nothing of what it says meanwhile.
    pub(crate) fn ended_unread(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// From now on nobody can read its standard error.
    pub(crate) fn hang_up_on_stderr(&mut self) {
        self.stderr = BufReader::new(Box::new(io::empty()));
    }

    /// Waits for its end; its code and what was on standard error, where nothing more was on
    /// standard output.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let (mut said, mut printed) = (String::new(), String::new());
        self.stderr.read_to_string(&mut said).unwrap();
        self.stdout.read_to_string(&mut printed).unwrap();
        assert_eq!(printed, "");
        (self.child.wait().unwrap().code(), said)
    }
}

/// A test that fails leaves no server behind.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
