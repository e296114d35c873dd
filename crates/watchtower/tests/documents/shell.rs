//! A person at a terminal who does what a document says, one block after the other.

use std::env;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::blocks::{File, Output, Script};

/// How long anything may take that a document shows; only what hangs takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The port of the server in the documents.
const SERVER_PORT: &str = "3033";
/// The ports of the server, each with the protocols that it prints behind it. They are free ones
/// whose numbers are known once it listens.
const SERVER_PORTS: [(&str, &str); 3] =
    [(SERVER_PORT, "packets,http,websocket"), ("12344", "webtalk-private"), ("55556", "whispernet")];
/// The ports of programs that are told where to listen: a receiver, `watchtower rocket`, and
/// `watchtower whisper`.
const OTHER_PORTS: [&str; 3] = ["8080", "9772", "55555"];
/// Before and after a block, so that its variables are there in those that follow.
const TAKE_VARIABLES: &str = "set -a; if [ -f .variables ]; then . ./.variables; fi";
/// The server that comes later may have another port.
const KEEP_VARIABLES: &str = "unset SERVER_PORT; export -p > .variables";
/// The binary, whose client is told the server: the one that it would reach has another port here.
const AS_CLIENT_OF_THE_SERVER: &str = concat!(
    "#!/bin/sh\n",
    "case $1 in pub | sub | register | channels | history) set -- \"$@\" --server 127.0.0.1:$SERVER_PORT ;; esac\n",
    "exec ",
    env!("CARGO_BIN_EXE_watchtower"),
    " \"$@\"\n"
);
/// What starts the binary in a checkout.
const FROM_SOURCE: &str = "cargo run --release --";

/// The folder that the blocks share, and what goes on beside them.
pub(crate) struct Shell {
    document: String,
    folder: TempDir,
    /// Ports as they are printed, and the free ones that stand for them.
    ports: Vec<(&'static str, String)>,
    /// Keep those that a script is told from everybody else who wants a free one.
    _kept: [Socket; OTHER_PORTS.len()],
    server: Option<Running>,
    listening: Vec<(Running, Option<Output>)>,
}

impl Shell {
    /// An empty folder, with the binary in reach.
    pub(crate) fn new(document: &str) -> Shell {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("watchtower"), AS_CLIENT_OF_THE_SERVER).unwrap();
        fs::set_permissions(bin.join("watchtower"), Permissions::from_mode(0o755)).unwrap();
        let kept = OTHER_PORTS.map(|_| keep_a_port());
        let port = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap().port().to_string();
        let ports = OTHER_PORTS.into_iter().zip(kept.iter().map(port)).collect();
        let document = document.to_owned();
        Shell { document, folder, ports, _kept: kept, server: None, listening: Vec::new() }
    }

    pub(crate) fn write(&self, file: &File) {
        fs::write(self.folder.path().join(&file.name), self.here(&file.text)).unwrap();
    }

    /// Runs a block to its end, and compares what it prints.
    pub(crate) fn run(&self, script: &Script) {
        let mut running = self.start(script, KEEP_VARIABLES, &[]);
        running.read_until(|_| false);
        let status = running.child.wait().unwrap();
        assert!(status.success(), "{}: {status}: {}", running.title, running.said());
        if let Some(output) = &script.output {
            running.compare(&self.output_here(output));
        }
    }

    /// Starts a server on a free port, in place of the one before.
    pub(crate) fn serve(&mut self, script: &Script) {
        self.settle();
        self.server = None;
        self.ports.truncate(OTHER_PORTS.len());
        self.ports.extend(SERVER_PORTS.map(|(printed, _)| (printed, "0".to_owned())));
        let mut server = self.start(script, "", &[("WATCHTOWER_LISTEN", "127.0.0.1:0")]);
        server.read_until(|said| said.contains("\nready\n"));
        let said = server.said();
        self.ports.truncate(OTHER_PORTS.len());
        for (printed, protocols) in SERVER_PORTS {
            let line = said.lines().find(|line| line.split(' ').nth(3) == Some(protocols));
            if let Some((_, port)) = line.and_then(|line| line.split(' ').nth(2)?.rsplit_once(':')) {
                self.ports.push((printed, port.to_owned()));
            }
        }
        assert!(self.ports.len() > OTHER_PORTS.len(), "{}: {said}", server.title);
        self.server = Some(server);
    }

    /// Starts a block that goes on beside the others.
    pub(crate) fn listen(&mut self, script: &Script) {
        let mut running = self.start(script, "", &[]);
        running.read_until(|said| !said.is_empty());
        let output = script.output.as_ref().map(|output| self.output_here(output));
        self.listening.push((running, output));
    }

    /// Waits until all that listen have heard what the document says, and ends them.
    pub(crate) fn finish(mut self) {
        self.settle();
    }

    fn settle(&mut self) {
        for (mut running, output) in self.listening.drain(..) {
            if let Some(output) = output {
                running.read_until(|said| output.is_met_by(said));
                running.compare(&output);
            }
        }
    }

    /// A text of the document, as it must be here.
    fn here(&self, text: &str) -> String {
        let text = text.replace(FROM_SOURCE, "watchtower");
        self.ports.iter().fold(text, |text, (printed, free)| text.replace(printed, free))
    }

    fn output_here(&self, output: &Output) -> Output {
        match output {
            Output::Text(text) => Output::Text(self.here(text)),
            Output::Json(text) => Output::Json(self.here(text)),
            Output::Example(text) => Output::Example(self.here(text)),
        }
    }

    fn start(&self, script: &Script, afterwards: &str, environment: &[(&str, &str)]) -> Running {
        let (mut reader, writer) = io::pipe().unwrap();
        let path = env::var("PATH").unwrap_or_default();
        let commands = format!("{TAKE_VARIABLES}\n{}{afterwards}", self.here(&script.text));
        let child = Command::new("sh")
            .args(["-euc", &commands])
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", format!("{}:{path}", self.folder.path().join("bin").display()))
            .env("SERVER_PORT", self.here(SERVER_PORT))
            // Otherwise it keeps what it prints until there is much of it.
            .env("PYTHONUNBUFFERED", "1")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            // So that what it starts can be ended with it.
            .process_group(0)
            .spawn()
            .unwrap();
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let title = format!("{}:{}", self.document, script.line);
        Running { title, child, output, said: Vec::new() }
    }
}

/// A free port that a script can be told before it binds it. The socket listens to nothing, so that
/// whoever names the port may listen there as well; who asks for any free one is given another.
fn keep_a_port() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

/// A block that was started. It is ended when this is dropped, and all that it started.
struct Running {
    title: String,
    child: Child,
    output: Receiver<Vec<u8>>,
    said: Vec<u8>,
}

impl Running {
    fn said(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    /// Reads what it prints until that is enough, or it has ended.
    fn read_until(&mut self, is_enough: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_enough(&self.said()) {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(more) => self.said.extend(more),
                Err(_) => {
                    assert!(Instant::now() < deadline, "{} hangs after: {}", self.title, self.said());
                    return;
                }
            }
        }
    }

    fn compare(&self, shown: &Output) {
        let said = self.said();
        let (Output::Text(text) | Output::Json(text) | Output::Example(text)) = shown;
        assert!(shown.is_met_by(&said), "{} shows\n{text}\nand printed\n{said}", self.title);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}
