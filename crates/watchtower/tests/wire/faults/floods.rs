//! Every flood there is, all together: an admitted pair goes on talking, and memory stays bounded.

use std::env;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flate2::{Compress, FlushCompress};
use rustix::process::nice;

use super::super::support::packets::*;
use super::super::support::{PATIENCE, Server};

/// For how long, unless `FAULTS_SECONDS` says otherwise.
const SECONDS: u64 = 4;

/// How long the pair may wait for one answer: everything else wants the processors too.
const ANSWERED_WITHIN: Duration = Duration::from_secs(25);

/// How much memory the server may have had at its highest.
const MEMORY_BYTES_MAX: usize = 512 << 20;

/// The server is put into a control group with this limit of memory where it is root's to make
/// one and `FAULTS_CGROUP` names the folder of those for memory.
fn cap() -> String {
    let group = match env::var("FAULTS_CGROUP") {
        Ok(folder) => format!("{folder}/watchtower-floods"),
        Err(_) => return "true".to_owned(),
    };
    format!(
        "mkdir -p {group} && echo {MEMORY_BYTES_MAX} > {group}/memory.limit_in_bytes && echo $$ > {group}/cgroup.procs"
    )
}

/// Where the floods go, and until when.
#[derive(Clone, Copy)]
struct Target<'a> {
    server: SocketAddr,
    /// Somebody's id, whom they harm.
    victim: u32,
    is_over: &'a AtomicBool,
    /// How often each of them did what it does.
    blows: &'a AtomicUsize,
}

impl Target<'_> {
    fn goes_on(&self) -> bool {
        self.blows.fetch_add(1, Ordering::Relaxed);
        !self.is_over.load(Ordering::Relaxed)
    }

    /// A connection, unless there is no room for it.
    fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.server, PATIENCE).ok()?;
        let patience = Some(Duration::from_millis(100));
        stream.set_write_timeout(patience).and_then(|()| stream.set_read_timeout(patience)).ok()?;
        Some(stream)
    }
}

/// Ends the floods, also when the test fails.
struct Until<'a>(&'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a flood does again and again.
type Flood = fn(Target<'_>);

const FLOODS: &[(&str, Flood)] = &[
    ("connections that come and go", connections),
    ("connections that say nothing", silence),
    ("packets that never end", halves),
    ("registrations", registrations),
    ("joins and moves", joins),
    ("messages for nobody who reads", messages),
    ("requests", requests),
    ("heads that trickle", trickles),
    ("compressed messages", bombs),
    ("datagrams", datagrams),
    ("guesses", guesses),
];

#[test]
fn all_floods_together_leave_those_who_are_there_alone_and_memory_bounded() {
    let seconds = env::var("FAULTS_SECONDS").map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let server = Server::start_after(
        &cap(),
        &[
            "--set",
            "limits.header_timeout=3s",
            "--set",
            r#"webrocket.hubs=[{path="/webrocket",anonymous="read-write"},{path="/locked",read_write="k7-22f"}]"#,
        ],
    );
    let (mut a, mut b) = (server.connect(), server.connect());
    let (id, _) = (a.enter(1), b.enter(1));
    let (is_over, blows) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut waits = Vec::new();
    thread::scope(|scope| {
        let _until = Until(&is_over);
        let victim = server.connect().register();
        for (_, flood) in FLOODS {
            let target = Target { server: server.tcp, victim, is_over: &is_over, blows: &blows };
            scope.spawn(move || {
                // They have other processors in life, and may only have what is left here.
                let _ = nice(10);
                flood(target);
            });
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(seconds) {
            let asked = Instant::now();
            let text = format!("message {}", waits.len());
            a.ask(say(id, 1, &text), said(id, 1, &text));
            b.expect(said(id, 1, &text));
            waits.push(asked.elapsed());
            assert!(asked.elapsed() < ANSWERED_WITHIN, "{:?} for {text}", asked.elapsed());
        }
    });
    waits.sort();
    let (half, most) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    let peak = server.memory_peak();
    eprintln!(
        "{} messages for each of two, half of them within {half:?}, all within {most:?}; {} blows; \
         at most {} MiB",
        waits.len(),
        blows.load(Ordering::Relaxed),
        peak >> 20
    );
    assert!(peak < MEMORY_BYTES_MAX, "{} MiB", peak >> 20);
    server.stop();
}

fn connections(target: Target<'_>) {
    while target.goes_on() {
        let Some(mut stream) = target.connect() else { continue };
        let _ = stream.write_all(b"\x16\x03\x01\xff\xff\x01");
    }
}

fn silence(target: Target<'_>) {
    let mut silent = Vec::new();
    while target.goes_on() {
        silent.extend(target.connect());
        if silent.len() > 300 {
            silent.drain(..100);
        }
    }
}

fn halves(target: Target<'_>) {
    let half = [ids(b'W', target.victim, 1), vec![0xff, 0xff], vec![1; 60_000]].concat();
    let mut open: Vec<TcpStream> = Vec::new();
    while target.goes_on() {
        if let Some(mut stream) = target.connect() {
            let _ = stream.write_all(&half);
            open.push(stream);
        }
        if open.len() > 200 {
            open.drain(..50);
        }
    }
}

fn registrations(target: Target<'_>) {
    while target.goes_on() {
        let Some(mut stream) = target.connect() else { continue };
        let mut answers = [0; 5 * 1_000];
        for _ in 0..10 {
            if stream.write_all(&[b'R'; 1_000]).and_then(|()| stream.read_exact(&mut answers)).is_err() {
                break;
            }
        }
    }
}

fn joins(target: Target<'_>) {
    let mut first = 100;
    while target.goes_on() {
        let Some(mut stream) = target.connect() else { continue };
        first = (first + 1_000) % 1_000_000;
        let packets: Vec<u8> =
            (first..first + 1_000).flat_map(|channel| join(target.victim, channel)).collect();
        let _ = stream.write_all(&packets);
        let mut answers = [0; 4_096];
        while stream.read(&mut answers).is_ok_and(|length| length > 0) {}
    }
}

fn messages(target: Target<'_>) {
    let text = vec![b'x'; 60_000];
    while target.goes_on() {
        let Some(mut stream) = target.connect() else { continue };
        let mut answer = [0; 5];
        if stream.write_all(b"R").and_then(|()| stream.read_exact(&mut answer)).is_err() {
            continue;
        }
        let id = u32::from_le_bytes([answer[1], answer[2], answer[3], answer[4]]);
        let _ = stream.write_all(&join(id, 2));
        while target.goes_on() && stream.write_all(&say(id, 2, &text)).is_ok() {}
    }
}

fn requests(target: Target<'_>) {
    let deep = format!(r#"{{"sender":1,"channels":[1],"message":{}}}"#, "[".repeat(50_000));
    let wide = format!("{{{}}}", r#""a":1,"#.repeat(10_000));
    let bodies = [deep, wide, " ".repeat(60_000), r#"{"secret_key":"guess"}"#.to_owned()];
    for body in bodies.iter().cycle() {
        if !target.goes_on() {
            return;
        }
        let Some(mut stream) = target.connect() else { continue };
        let head = format!("POST /broadcast HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        let _ = stream.read(&mut [0; 1_024]);
    }
}

fn trickles(target: Target<'_>) {
    let mut open: Vec<TcpStream> = Vec::new();
    while target.goes_on() {
        if let Some(mut stream) = target.connect()
            && stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").is_ok()
        {
            open.push(stream);
        }
        open.retain_mut(|stream| stream.write_all(b"X-A: b\r\n").is_ok());
        if open.len() > 200 {
            open.drain(..50);
        }
    }
}

fn bombs(target: Target<'_>) {
    let mut compress = Compress::new(flate2::Compression::best(), false);
    let mut payload = Vec::with_capacity(1 << 20);
    compress.compress_vec(&vec![0; 16 << 20], &mut payload, FlushCompress::Sync).unwrap();
    let length = u16::try_from(payload.len() - 4).unwrap().to_be_bytes();
    let bomb = [&[0xc2, 0xfe, length[0], length[1], 0, 0, 0, 0], &payload[..payload.len() - 4]].concat();
    let endless = [&[0x01, 0xff, 0, 0, 0, 0, 0, 0xf, 0xff, 0xff, 0, 0, 0, 0][..], &[b'x'; 60_000]].concat();
    let pings = [0x89, 0x84, 0, 0, 0, 0, b'p', b'i', b'n', b'g'].repeat(1_000);
    for input in [bomb, endless, pings].iter().cycle() {
        if !target.goes_on() {
            return;
        }
        let Some(mut stream) = target.connect() else { continue };
        let head = "GET /webrocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(input));
        let _ = stream.read(&mut [0; 1_024]);
    }
}

fn datagrams(target: Target<'_>) {
    while target.goes_on() {
        let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { continue };
        let noise = [0xfb; 1_400];
        for datagram in [&b"R"[..], b"K", &join(target.victim, 3), &say(target.victim, 3, "x"), &noise] {
            for _ in 0..50 {
                let _ = socket.send_to(datagram, target.server);
            }
        }
    }
}

fn guesses(target: Target<'_>) {
    let frame = |text: &str| [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat();
    let guess = frame(r#"{"auth":{"access":"read-write","secret":"guess"}}"#).repeat(20);
    while target.goes_on() {
        let Some(mut stream) = target.connect() else { continue };
        let head = "GET /locked HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&guess));
        let _ = stream.read(&mut [0; 1_024]);
        let Some(mut stream) = target.connect() else { continue };
        let _ = stream.write_all(&secret("guess").repeat(100));
        let _ = stream.read(&mut [0; 1_024]);
    }
}
