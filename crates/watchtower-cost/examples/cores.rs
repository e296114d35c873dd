//! Deliveries a second by one thread, and by as many as there are cores: what the hub itself lets
//! grow, since no socket takes a part of it.
//!
//! Each thread has sessions of its own, publishes, and gathers for all of them what there is. First
//! each has a channel of its own, then all of them publish on one.

#![expect(clippy::print_stdout, reason = "it prints what it measures")]

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use watchtower_hub::{
    Batch, ChannelName, Content, Entropy, Hub, Publish, Session, Settings, Timestamp, WhenLagging,
};
use watchtower_protocols::http::{Form, Framing, HttpStream};
use watchtower_protocols::stream::StreamSession;

/// Sessions of each thread.
const SESSIONS: usize = 1_000;

/// Messages that a thread publishes before it looks what there is.
const BURSTS: [usize; 2] = [1, 64];

const SECONDS: u64 = 2;
const BYTES_MAX: usize = 64 * 1024;
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

struct Counting(AtomicU64);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

fn subscriber(hub: &Hub, channel: &ChannelName) -> HttpStream {
    let session: Session = hub.open("http", WhenLagging::Skip);
    let sender = session.register(NOW).expect("there is room");
    session.join(sender, channel, NOW).expect("there is room");
    HttpStream::new(session, Form::Ndjson, Framing::Chunked, Duration::from_secs(15), &[], false)
}

/// Publishes and gathers until it is over.
fn drive(hub: &Hub, channel: &ChannelName, streams: &[HttpStream], burst: usize, is_over: &AtomicBool) {
    let content = "x".repeat(128);
    while !is_over.load(Ordering::Relaxed) {
        for _ in 0..burst {
            let message = Publish::new(Content::text(content.as_str()));
            drop(hub.publish(channel, message, NOW).expect("it may"));
        }
        for stream in streams {
            let mut batch = Batch::default();
            let _ = stream.session().drain(stream.format(), Some(Waker::noop()), BYTES_MAX, &mut batch);
        }
    }
}

/// Deliveries a second of so many threads.
fn measure(threads: usize, is_shared: bool, burst: usize) -> f64 {
    let hub = Hub::new(Settings::default(), Box::new(Counting(AtomicU64::new(5))));
    let (begins, is_over) = (Barrier::new(threads + 1), AtomicBool::new(false));
    thread::scope(|scope| {
        for thread in 0..threads {
            let (hub, begins, is_over) = (&hub, &begins, &is_over);
            scope.spawn(move || {
                let channel = ChannelName::from(if is_shared { 1 } else { thread as u32 + 1 });
                let streams: Vec<_> = (0..SESSIONS).map(|_| subscriber(hub, &channel)).collect();
                begins.wait();
                drive(hub, &channel, &streams, burst, is_over);
            });
        }
        begins.wait();
        let begin = Instant::now();
        thread::sleep(Duration::from_secs(SECONDS));
        let rate = hub.counts().delivered as f64 / begin.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        rate
    })
}

fn main() {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    println!("deliveries a second, by 1 thread and by {cores}, each with {SESSIONS} sessions:");
    for is_shared in [false, true] {
        for burst in BURSTS {
            // In turns, so that what else the machine does falls on both.
            let [one, all] = [1, cores].map(|threads| {
                let mut rates = [(); 3].map(|()| measure(threads, is_shared, burst));
                rates.sort_by(f64::total_cmp);
                rates[1]
            });
            let place = if is_shared { "one channel" } else { "a channel each" };
            println!("{place:<15} {burst:>3} at once  {one:>12.0} {all:>12.0}  {:.2} times", all / one);
        }
    }
}
