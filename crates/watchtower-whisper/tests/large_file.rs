//! A large file between two peers, in memory that its length does not change.
//!
//! By itself, since it looks at the memory of its process. `FILE_MIB` says how
//! many mebibytes the file has:
//!
//! ```text
//! FILE_MIB=100 cargo test --release -p watchtower-whisper --test large_file -- --nocapture
//! ```

use std::env;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::time::timeout;
use watchtower_whisper::protocol::FloodLimits;
use watchtower_whisper::{Event, Events, Options, Peer};

/// How many mebibytes it has where nobody says.
const FILE_MIB: u64 = 32;

/// By how much both peers together may grow. Less than the file has.
const GROWTH_KIB_MAX: u64 = 24 << 10;

/// How long a file may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_arrives_intact_in_steady_memory() {
    // At the pace of the defaults a mebibyte takes a third of a second.
    let (mib, hurry) = match env::var("FILE_MIB") {
        Ok(mib) => (mib.parse().expect("a number of mebibytes"), 1),
        Err(_) => (FILE_MIB, 4),
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.bin");
    make_file(&path, mib << 20);
    let bytes_per_second = FloodLimits::default().bytes_per_second * hurry;
    let flood = FloodLimits { bytes_per_second, ..FloodLimits::default() };
    let options = || Options { listen: ([127, 0, 0, 1], 0).into(), flood, ..Options::default() };
    let downloads = Some(dir.path().join("downloads"));
    let phil = Peer::start(Options { downloads, ..options() }).await.unwrap();
    let peers = vec![phil.address().to_string()];
    let goldy = Peer::start(Options { peers, ..options() }).await.unwrap();

    let mut events = phil.events();
    let (before, began) = (resident_kib(), Instant::now());
    goldy.send_file(&path).await.unwrap();
    let mut peak = 0;
    let mut progress = Vec::new();
    let saved = loop {
        match next(&mut events).await {
            Event::Progress { bytes_done, bytes_all, outgoing: false, .. } => {
                assert_eq!(bytes_all, mib << 20);
                progress.push(bytes_done);
                peak = peak.max(resident_kib());
            }
            Event::Saved { path, .. } => break path,
            Event::Failed { reason, .. } => panic!("{reason}"),
            _ => {}
        }
    };
    peak = peak.max(resident_kib());
    let took = began.elapsed();
    eprintln!(
        "{mib} MiB in {} parts and {took:.1?}: {before} KiB resident before, {peak} at most",
        progress.len()
    );
    assert!(progress.is_sorted() && progress.last() == Some(&(mib << 20)));
    assert_eq!(sha256(&saved), sha256(&path));
    assert!(peak - before < GROWTH_KIB_MAX, "{before} KiB grew to {peak}");
}

async fn next(events: &mut Events) -> Event {
    timeout(PATIENCE, events.next()).await.expect("it goes on").unwrap().expect("the peer is there")
}

/// A file of which no two parts are the same.
fn make_file(path: &Path, bytes: u64) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let mut number = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..bytes / 8 {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        file.write_all(&number.to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
}

fn sha256(path: &Path) -> [u8; 32] {
    let (mut file, mut buffer, mut hasher) = (File::open(path).unwrap(), vec![0; 1 << 16], Sha256::new());
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return hasher.finalize().into(),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) => panic!("{error}"),
        }
    }
}

/// How much memory the process has in use.
fn resident_kib() -> u64 {
    let status: io::Result<String> = fs::read_to_string("/proc/self/status");
    let status = status.unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}
