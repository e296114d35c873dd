//! How many small messages a peer passes on to fifty others in a second of one
//! core, its sockets included, and whether its memory grows.
//!
//! `cargo run --release -p watchtower-whisper --example passing_on [MESSAGES]`
//!
//! The others, and who speaks, are a process of their own. What counts is the
//! time that the peer's process had a core for, in itself and in the system:
//! other programs on the machine do not.
#![expect(clippy::print_stdout, reason = "it prints what it measures")]

use std::env;
use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::Notify;
use watchtower_whisper::protocol::FloodLimits;
use watchtower_whisper::{Options, Peer};

const PEERS: u64 = 50;
const MESSAGES: u64 = 200_000;

/// How many messages are under way at a time, and how many are written at once.
const WINDOW: u64 = 2_000;
const BATCH: u64 = 100;

/// The word by which this program is told to be the others.
const OTHERS: &str = "others";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [OTHERS, node, messages] => others(node.parse()?, messages.parse()?).await,
        [messages] => measure(messages.parse()?).await,
        _ => measure(MESSAGES).await,
    }
}

/// Has the others speak, and prints what it took to pass that on.
async fn measure(messages: u64) -> Result<(), Box<dyn Error>> {
    let flood =
        FloodLimits { messages_per_second: u64::MAX, bytes_per_second: u64::MAX, ..FloodLimits::default() };
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let peer = Peer::start(Options { listen, flood, ..Options::default() }).await?;
    let mut others = Command::new(env::current_exe()?)
        .args([OTHERS, &peer.address().to_string(), &messages.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut told = BufReader::new(others.stdout.take().expect("it is piped")).lines();
    let mut events = peer.events();
    for _ in 0..PEERS {
        let addr = told.next_line().await?.ok_or("the others are gone")?;
        peer.connect(addr.parse()?).await;
    }
    while peer.peers().await.iter().filter(|peer| peer.connected).count() < PEERS as usize {
        events.next().await?;
    }
    drop(events);
    let before = seconds_on_core()?;
    println!("{PEERS} peers: {} KiB resident", resident_kib()?);
    others.stdin.take().expect("it is piped").write_all(b"go\n").await?;
    while let Some(done) = told.next_line().await? {
        println!("{done} messages passed on: {} KiB resident", resident_kib()?);
    }
    let seconds = seconds_on_core()? - before;
    let counts = peer.counts().await;
    assert_eq!((counts.shown, counts.slow, counts.unsent), (messages, 0, 0), "all are passed on to all");
    let (passed_on, sends) = (messages as f64 / seconds, (messages * PEERS) as f64 / seconds);
    println!("in a second of a core: {passed_on:.0} messages passed on, {sends:.0} sends");
    Ok(())
}

fn seconds_on_core() -> Result<f64, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(micros as f64 / 1e6)
}

fn resident_kib() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

/// Listens as fifty peers, and speaks as one more. Says where they listen, and
/// after each tenth how many messages were sent.
async fn others(node: SocketAddr, messages: u64) -> Result<(), Box<dyn Error>> {
    let (came, news) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    for _ in 0..PEERS {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        tokio::spawn(count(listener, came.clone(), news.clone()));
    }
    // They are dialled meanwhile.
    let go = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    go.await??;
    let mut stream = TcpStream::connect(node).await?;
    for first in (0..messages).step_by(BATCH as usize) {
        let message = |number| {
            format!(r#"{{"ID":"plain-{number}","Addr":"{node}","Body":"message {number} of many"}}"#)
        };
        let batch: String = (first..first + BATCH).map(message).collect();
        stream.write_all(batch.as_bytes()).await?;
        while (first + BATCH).saturating_sub(came.load(Ordering::Relaxed) / PEERS) > WINDOW {
            news.notified().await;
        }
        if (first + BATCH).is_multiple_of((messages / 10).max(1)) {
            println!("{}", first + BATCH);
        }
    }
    while came.load(Ordering::Relaxed) < messages * PEERS {
        news.notified().await;
    }
    Ok(())
}

/// Counts what comes to one of them, by the line's end behind each message.
async fn count(listener: TcpListener, came: Arc<AtomicU64>, news: Arc<Notify>) {
    let Ok((mut stream, _)) = listener.accept().await else { return };
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        let lines = buffer[..length].iter().filter(|byte| **byte == b'\n').count();
        came.fetch_add(lines as u64, Ordering::Relaxed);
        news.notify_one();
    }
}
