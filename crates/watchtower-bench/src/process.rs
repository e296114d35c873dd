//! A child process that is measured: started on a core, waited for until it is ready, asked what
//! it has used, and ended.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cores::{CpuClock, pin_this_thread};
use crate::error::Error;

/// How long a child may take to say `ready`.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a child may take to end after SIGTERM before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(12);

/// How many of a child's last lines on standard error are kept to explain why it did not start.
const COMPLAINT_LINES_MAX: usize = 8;
/// How much of each.
const COMPLAINT_BYTES_MAX: u64 = 400;

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Packets and HTTP.
    pub(crate) tcp: SocketAddr,
    /// Packets.
    pub(crate) udp: SocketAddr,
    /// WebTalk's private link, where it is on.
    pub(crate) webtalk_private: Option<SocketAddr>,
}

/// A child that has said that it is ready. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    addresses: Addresses,
    ready_after: Duration,
    /// Ends when the child's standard output does.
    output: Receiver<(Instant, String)>,
}

impl Process {
    /// Starts a command, on a core of its own if one is named, and waits until it prints
    /// `listening tcp ADDRESS packets…`, `listening udp ADDRESS packets`, and `ready`
    /// [running: serve].
    ///
    /// # Errors
    /// [`Error::Start`] if it cannot be started, ends, or takes too long.
    pub(crate) fn start(command: &[OsString], core: Option<usize>) -> Result<Self, Error> {
        let [program, arguments @ ..] = command else {
            return Err(Error::Options("there is no command to start a server with".into()));
        };
        let failed =
            |reason: String| Error::Start { command: program.to_string_lossy().into_owned(), reason };
        let started = Instant::now();
        let spawned = spawn(program, arguments, core, Stdio::null(), Stdio::piped())?;
        let mut child = spawned.map_err(|error| failed(error.to_string()))?;
        let complaints = child.stderr.take().map(keep_last_lines);
        let output = child.stdout.take().map(send_lines).unwrap_or_else(|| mpsc::channel().1);
        let heard = wait_until_ready(&output, started);
        let pid = Pid::from_child(&child);
        match heard {
            Ok((addresses, ready_after)) => Ok(Self { child, pid, addresses, ready_after, output }),
            Err(reason) => {
                // Its last words are complete once it has ended.
                let _ = child.kill();
                let _ = child.wait();
                let last = complaints.and_then(|lines| lines.join().ok()).unwrap_or_default();
                let last = Vec::from(last).join(" | ");
                Err(failed(if last.is_empty() { reason } else { format!("{reason}: {last}") }))
            }
        }
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// From its start to its `ready`.
    pub(crate) fn ready_after(&self) -> Duration {
        self.ready_after
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn cpu_clock(&self) -> Result<CpuClock, Error> {
        CpuClock::of(self.pid)
    }
}

/// Bytes of a process's memory that are resident.
pub(crate) fn resident_bytes(pid: Pid) -> Result<u64, Error> {
    let path = format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero());
    let text = std::fs::read_to_string(&path).map_err(Error::io(format!("read {path}")))?;
    parse_resident_bytes(&text)
        .ok_or_else(|| Error::io(format!("find Rss in {path}"))(io::ErrorKind::InvalidData.into()))
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::TERM);
        let limit = Instant::now() + STOP_TIMEOUT;
        // The end of its output is the end of the process.
        while let Ok(_line) = self.output.recv_timeout(limit.saturating_duration_since(Instant::now())) {}
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a command on a core of its own, if one is named, that is spoken with in lines.
pub(crate) fn spawn_speaking(
    command: &[OsString],
    core: Option<usize>,
    stdin: Stdio,
    stderr: Stdio,
) -> Result<Child, Error> {
    let [program, arguments @ ..] = command else {
        return Err(Error::Options("there is no command to start".into()));
    };
    let failed = |error: io::Error| Error::Start {
        command: program.to_string_lossy().into_owned(),
        reason: error.to_string(),
    };
    spawn(program, arguments, core, stdin, stderr)?.map_err(failed)
}

/// Spawns from a thread on the child's core: a child inherits it before its first thread starts.
fn spawn(
    program: &OsString,
    arguments: &[OsString],
    core: Option<usize>,
    stdin: Stdio,
    stderr: Stdio,
) -> Result<io::Result<Child>, Error> {
    thread::scope(|scope| {
        let spawning = scope.spawn(move || {
            core.map_or(Ok(()), pin_this_thread)?;
            Ok(Command::new(program)
                .args(arguments)
                .stdin(stdin)
                .stdout(Stdio::piped())
                .stderr(stderr)
                .spawn())
        });
        spawning.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Reads listeners until `ready`; says for a person what came instead.
fn wait_until_ready(
    output: &Receiver<(Instant, String)>,
    started: Instant,
) -> Result<(Addresses, Duration), String> {
    let (mut tcp, mut udp, mut webtalk_private) = (None, None, None);
    loop {
        let left = READY_TIMEOUT.saturating_sub(started.elapsed());
        let (at, line) = output.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("not ready after {READY_TIMEOUT:?}"),
            RecvTimeoutError::Disconnected => "it ended".to_owned(),
        })?;
        if line == "ready" {
            let tcp = tcp.ok_or("it listens to packets on no TCP address")?;
            let udp = udp.unwrap_or(tcp);
            return Ok((Addresses { tcp, udp, webtalk_private }, at - started));
        }
        let Some((transport, address, protocols)) = parse_listener(&line) else { continue };
        let place = match (transport, protocols) {
            ("tcp", "webtalk-private") => &mut webtalk_private,
            ("tcp", _) if speaks_packets(protocols) => &mut tcp,
            ("udp", _) if speaks_packets(protocols) => &mut udp,
            _ => continue,
        };
        place.get_or_insert(address);
    }
}

/// Transport, address and protocols of a `listening` line.
fn parse_listener(line: &str) -> Option<(&str, SocketAddr, &str)> {
    let mut words = line.split_ascii_whitespace();
    let ("listening", transport, address, protocols) =
        (words.next()?, words.next()?, words.next()?, words.next()?)
    else {
        return None;
    };
    Some((transport, address.parse().ok()?, protocols))
}

fn speaks_packets(protocols: &str) -> bool {
    protocols.split(',').any(|protocol| protocol == "packets")
}

/// Sends each line with the moment at which it came, until the output ends.
fn send_lines(output: ChildStdout) -> Receiver<(Instant, String)> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Read on when nobody listens: a full pipe would stop the child.
            let _ = sender.send((Instant::now(), line));
        }
    });
    receiver
}

/// Reads to the end and returns the last lines.
fn keep_last_lines(output: ChildStderr) -> thread::JoinHandle<VecDeque<String>> {
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut last = VecDeque::new();
        loop {
            let mut line = Vec::new();
            match output.by_ref().take(COMPLAINT_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return last,
                Ok(_) => last.push_back(String::from_utf8_lossy(&line).trim_end().to_owned()),
            }
            if last.len() > COMPLAINT_LINES_MAX {
                last.pop_front();
            }
        }
    })
}

/// `Rss` of a `smaps_rollup`, in bytes.
fn parse_resident_bytes(smaps: &str) -> Option<u64> {
    let rest = smaps.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kibibytes: u64 = rest.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<OsString> {
        ["sh", "-c", script].map(OsString::from).to_vec()
    }

    const READY: &str = "echo listening tcp 127.0.0.1:4001 packets,http,websocket; \
        echo listening udp 127.0.0.1:4002 packets; \
        echo listening tcp 127.0.0.1:4003 webrocket; \
        echo listening tcp 127.0.0.1:4004 webtalk-private; echo ready; ";

    #[test]
    fn a_process_is_ready_when_it_says_so_and_tells_where_it_listens() {
        let process = Process::start(&shell(&format!("{READY} exec tail -f /dev/null")), None);
        let process = process.unwrap();
        assert_eq!(process.addresses().tcp.to_string(), "127.0.0.1:4001");
        assert_eq!(process.addresses().udp.to_string(), "127.0.0.1:4002");
        assert_eq!(process.addresses().webtalk_private.unwrap().to_string(), "127.0.0.1:4004");
        assert!(process.ready_after() > Duration::ZERO);
        assert!(resident_bytes(process.pid()).unwrap() > 0);
        assert!(process.cpu_clock().unwrap().read().unwrap() > Duration::ZERO);
    }

    #[test]
    fn a_process_that_ends_is_quoted() {
        let script = "echo 'unknown key: lissten' >&2; exit 2";
        let error = Process::start(&shell(script), None).unwrap_err();
        let expected = "`sh` did not get ready: it ended: unknown key: lissten";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_process_is_ended_when_it_is_dropped() {
        let process = Process::start(&shell(&format!("{READY} exec tail -f /dev/null")), None);
        let process = process.unwrap();
        let pid = process.pid;
        drop(process);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[test]
    fn a_listener_is_known_by_what_it_speaks() {
        let address = "127.0.0.1:9772".parse().unwrap();
        let line = "listening tcp 127.0.0.1:9772 http,packets";
        assert_eq!(parse_listener(line), Some(("tcp", address, "http,packets")));
        assert_eq!(parse_listener("hello"), None);
        assert!(speaks_packets("http,packets"));
        assert!(!speaks_packets("webrocket"));
    }

    #[test]
    fn resident_memory_is_told_in_bytes() {
        let smaps = "55d0-7ffc ---p 00000000 00:00 0 [rollup]\nRss:                1576 kB\nPss: 3 kB\n";
        assert_eq!(parse_resident_bytes(smaps), Some(1576 * 1024));
        assert_eq!(parse_resident_bytes("Pss: 3 kB\n"), None);
    }
}
